"""Running one statement for one call: under which settings, in which transaction, with which receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

import pyarrow as pa

from flightkalam.auth.identity import Identity
from flightkalam.catalog.state import split_name
from flightkalam.errors import BadRequest, Conflict, InvalidValue, MalformedAsUser, Unsupported
from flightkalam.model.schema import Table
from flightkalam.query import params
from flightkalam.query.compute import CancelToken
from flightkalam.query.params import Literal
from flightkalam.session import dml, keyed, many, partitions, reads, statements, writes
from flightkalam.session import ingest as ingest_
from flightkalam.session.acts import AUDITED, HERE, Act, For, Origin, joined, subject_of
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import COUNT_SCHEMA, Rows, rows_of
from flightkalam.session.partitions import Part
from flightkalam.session.parts import Parts
from flightkalam.session.queries import Query
from flightkalam.session.receipts import Receipt
from flightkalam.session.settings import Settings
from flightkalam.session.transactions import Transaction
from flightkalam.sql import Reading, read
from flightkalam.sql import statements as s
from flightkalam.sql.reading import may_hold_secret
from flightkalam.table.mutation import SchemaMoved
from flightkalam.table.scopes import TableGone

SESSION_STATEMENTS = (s.Use, s.Set, s.Reset)
SAVEPOINT_STATEMENTS = (s.Savepoint, s.ReleaseSavepoint, s.RollbackTo)
TRANSACTION_STATEMENTS = (s.Begin, s.Commit, s.Rollback, *SAVEPOINT_STATEMENTS)
# What takes part in a transaction; everything else commits by itself.
_IN_TRANSACTION = (s.Query, s.Explain, s.Insert, s.Update, s.Delete, s.Merge, s.Truncate)
# What of it writes, so that it waits for COMMIT.
CHANGES_ROWS = (s.Insert, s.Update, s.Delete, s.Merge, s.Truncate)
# What looks after the service needs no place among the statements that compute: it would wait for what it is to stop.
UNQUEUED = (*SESSION_STATEMENTS, *TRANSACTION_STATEMENTS, s.ShowSetting, s.ShowQueries, s.ShowJobs, s.KillQuery, s.KillJob)
# What belongs to the session itself and runs in nobody's name.
UNACTED = (*SESSION_STATEMENTS, *TRANSACTION_STATEMENTS, s.ShowSetting)
_KEYED = (s.Query, s.Update, s.Delete)
# Their texts may hold what logs in somewhere; not even a hash of it is kept.
_WITH_SECRETS = (s.CreateUser, s.AlterUser, s.CreateStorage, s.AlterStorage)
EMPTY = pa.schema([])
_TRIES = 5  # where others are faster: they replace the table, or write the same keys


@dataclass(frozen=True)
class Runner:
    """:param transaction: the one the statement belongs to; None: it commits by itself.
    :param receipt: recorded with the statement's commit.
    :param on_start: told how to stop the statement, before it starts.
    :param planned_for: for whom it was prepared or planned, when it was.
    :param act: in whose name it runs; for a statement that is part of another, that one's.
    :param query: the record of the statement under way; what stops it stops everything that is run here.
    :param part: of the result, when it is fetched in parts."""

    parts: Parts
    identity: Identity
    settings: Settings
    transaction: Transaction | None = None
    receipt: Receipt | None = None
    on_start: Callable[[Callable[[], None]], None] | None = None
    origin: Origin = HERE
    planned_for: For | None = None
    act: Act | None = None
    query: Query | None = None
    part: Part | None = None

    # -- understanding -----------------------------------------------------------------------------------------

    def parse(self, text: str) -> s.Statement:
        return self.read(text).statement

    def read(self, text: str) -> Reading:
        return self.parts.statements.get(text, self._read_new)

    def _read_new(self, text: str) -> Reading:
        try:
            return read(text, limit=self.parts.config.server.max_sql_bytes)
        except MalformedAsUser:
            self._act("AS USER", None).refuse_malformed()
            raise

    # -- acting ------------------------------------------------------------------------------------------------

    def _act(self, action: str, statement: s.Statement | None, text: str | None = None) -> Act:
        return Act(
            self.parts.audit,
            self.parts,
            self.identity,
            action,
            statements.target_of(statement),
            subject_of(statement, self.origin, self.settings.as_user, self.planned_for),
            self.origin,
            None if text is None or isinstance(statement, _WITH_SECRETS) or may_hold_secret(text) else text,
            isinstance(statement, AUDITED),
        )

    def planned(self, text: str) -> For:
        """For whom a statement is prepared or planned now.

        :raises AccessDenied: the caller may not act for them.
        """
        statement = self.parse(text)
        if isinstance(statement, UNACTED):
            refuse_clause(statement)
            return For()
        if not subject_of(statement, self.origin, self.settings.as_user, None):
            return For()
        with self._acting(statement, text, only_looked=True) as runner:
            act = runner.act
            assert act is not None
            return For(act.identity.user_id if act.for_another else None)

    @contextmanager
    def _acting(self, statement: s.Statement, text: str, *, only_looked: bool = False) -> Iterator[Runner]:
        """The runner in whose name the statement runs; how it ends is recorded where it has to be."""
        if self.act is not None:
            yield self
            return
        act = self._act(action_of(statement), statement, text)
        act.only_looked = only_looked
        with self._performed(act, waits=isinstance(statement, CHANGES_ROWS)):
            yield replace(self, act=act)

    @contextmanager
    def _performed(self, act: Act, *, waits: bool) -> Iterator[None]:
        """:param waits: in a transaction it waits for COMMIT, which must not come between the write and its record."""
        transaction = self.transaction if waits and act.audited else None
        attempts = None if transaction is None else transaction.attempts
        with nullcontext() if transaction is None else transaction.lock, act.performed(attempts):
            yield

    @contextmanager
    def looking(self, action: str) -> Iterator[Execution]:
        """For what the wire asks of the catalog without a statement."""
        act = self._act(action, None)
        with act.performed(), replace(self, act=act)._execution(None) as e:
            yield e

    def is_update(self, statement: s.Statement) -> bool:
        if isinstance(statement, SESSION_STATEMENTS + TRANSACTION_STATEMENTS):
            return True
        return not isinstance(statement, s.ShowSetting) and statements.row_of(statement).count is not None

    def writes(self, statement: s.Statement) -> bool:
        """Whether a statement that answers with rows changes data, so that it must run once only."""
        return not isinstance(statement, s.ShowSetting) and statements.row_of(statement).writes

    def announced(self, text: str, bound: pa.Table | None, *, prepared: bool = False) -> pa.Schema:
        """The schema of a statement's rows: one function for prepare, FlightInfo, GetSchema and the stream.

        :param prepared: parameters are not bound yet; each then stands for NULL.
        """
        statement = self.parse(text)
        if self.is_update(statement):
            return EMPTY if prepared else COUNT_SCHEMA
        if isinstance(statement, s.ShowSetting):
            return self.settings.show(statement.name).schema
        with self._acting(statement, text, only_looked=True) as runner:
            return runner._announced(statement, text, bound, prepared=prepared)

    def _announced(self, statement: s.Statement, text: str, bound: pa.Table | None, *, prepared: bool) -> pa.Schema:
        short = self._keyed(statement, text, bound, describe=prepared)
        if short is not None:
            with self._execution(statement) as e:
                announced = keyed.schema(e, short)
            if announced is not None:
                return announced
        reading = self.read(text)
        values = [params.NULL] * reading.parameters if prepared else _one_row(reading, bound)
        statement, literals = self._substituted(statement, reading, values)
        make = statements.row_of(statement).schema
        assert make is not None, "a statement with rows has a schema"
        with self._execution(statement, literals) as e:
            return make(e, statement)

    def _substituted(
        self, statement: s.Statement, reading: Reading, literals: Sequence[Literal]
    ) -> tuple[s.Statement, Sequence[Literal]]:
        """Only a query is planned with parameters; of other statements the text takes their values in."""
        if isinstance(statement, s.Query) or not literals:
            return statement, literals
        return self.parse(reading.filled([v.sql for v in literals])), ()

    def in_parts(self, text: str, bound: pa.Table | None, most: int) -> partitions.Parts | None:
        """A query in at most so many parts; None when it cannot come in parts."""
        statement = self.parse(text)
        if not isinstance(statement, s.Query) or self.transaction is not None:
            return None
        with self._acting(statement, text, only_looked=True) as runner, ExitStack() as unless_planned:
            e = runner._execution(statement, _one_row(self.read(text), bound))
            unless_planned.callback(e.close)
            found = partitions.planned(e, statement.text, most, self.parts.config.engine.partition_seconds)
            if found is not None:
                unless_planned.pop_all()  # the parts hold it now
            return found

    # -- executing ---------------------------------------------------------------------------------------------

    def _execution(self, statement: s.Statement | None, literals: Sequence[Literal] = ()) -> Execution:
        transaction = self.transaction
        if transaction is not None and statement is not None and not isinstance(statement, _IN_TRANSACTION):
            transaction = None
        e = Execution(
            self.parts,
            self.identity if self.act is None else self.act.identity,
            self.settings.namespace,
            self.settings.time_zone,
            transaction=transaction,
            receipt=self.receipt,
            parameters=tuple(literals),
            act=self.act,
            query=self.query,
            part=self.part,
        )
        if self.query is not None:
            e.cancel = self.query.cancel
            self.query.user = e.identity.user_id
        if self.part is not None:
            e.on_close(self.part.lease.hold())
        for told in (self.on_start, self.origin.on_start):
            if told is not None:
                told(e.cancel.cancel)
        e.cancel.check()
        timeout = self.settings.timeout_s or self.parts.config.engine.statement_timeout_seconds
        if timeout:
            e.on_close(self.parts.deadlines.watch(e.cancel, timeout))
        return e

    @contextmanager
    def _turn(self, statement: s.Statement) -> Iterator[None]:
        """Statements of one transaction run one after another; what commits by itself may not follow a write of it."""
        if self.transaction is None:
            yield
            return
        if isinstance(statement, s.Erase) or (
            isinstance(statement, s.DropUser) and statement.purge
        ):  # it would wait for the transaction's own snapshot to go
            raise Unsupported("ERASE and PURGE cannot run in a transaction; COMMIT or ROLLBACK first", sqlstate="25001")
        with self.transaction.lock:
            apart = not isinstance(statement, _IN_TRANSACTION) and not _only_looks(statement)
            if apart:
                self.transaction.refuse_after_write(statements.spoken(type(statement)))
            yield
            if apart:
                self.transaction.begin_anew()

    def rows(self, text: str, bound: pa.Table | None = None) -> tuple[Rows, Execution | None]:
        """Run a statement that answers with rows; close the execution after the last of them."""
        statement = self.parse(text)
        if isinstance(statement, s.ShowSetting):
            refuse_clause(statement)
            return rows_of(self.settings.show(statement.name)), None
        with ExitStack() as unless_recorded:
            with self._acting(statement, text) as runner:
                rows, e = runner._rows(statement, text, bound)
                unless_recorded.callback(e.close)
            unless_recorded.pop_all()  # the record is durable: rows may leave
        return rows, e

    def _rows(self, statement: s.Statement, text: str, bound: pa.Table | None) -> tuple[Rows, Execution]:
        reading = self.read(text)
        statement, literals = self._substituted(statement, reading, _one_row(reading, bound))
        run = statements.row_of(statement).rows
        if run is None:
            raise BadRequest("the statement returns no rows; run it as an update")
        short = self._keyed(statement, text, bound)
        with self._turn(statement):
            for _ in range(_TRIES if self.transaction is None else 0):
                try:
                    return self._started(run, statement, literals, short)
                except (TableGone, SchemaMoved):
                    with self.parts.scopes.door.mutex:
                        pass  # whoever dropped or replaced the table is about to say so
            return self._started(run, statement, literals, short)

    def _keyed(self, statement: s.Statement, text: str, bound: pa.Table | None, *, describe: bool = False) -> keyed.Call | None:
        """The statement as one about a single row by its key, if it is and may go the short way.

        :param describe: its parameters are not bound yet.
        """
        if not isinstance(statement, _KEYED) or self.transaction is not None or self.part is not None:
            return None
        found = self.read(text).keyed
        if found is None or not self.parts.statements.keyed:
            return None
        return keyed.Call(found, None) if describe and found.parameters else keyed.call(found, bound)

    def _started(
        self, run: Callable[..., Rows], statement: s.Statement, literals: Sequence[Literal], short: keyed.Call | None
    ) -> tuple[Rows, Execution]:
        e = self._execution(statement, literals)
        try:
            rows = keyed.rows(e, short) if short is not None else None
            return rows if rows is not None else run(e, statement), e
        except BaseException:
            e.close()
            raise

    def update(self, text: str, batches: Iterable[pa.RecordBatch] | None = None) -> int:
        """Run a statement for its count."""
        statement = self.parse(text)
        if isinstance(statement, SESSION_STATEMENTS):
            refuse_clause(statement)
            with self._execution(statement) as e:
                self.settings.apply(e, statement)
            return 0
        with self._acting(statement, text) as runner:
            return runner._updated(statement, text, batches)

    def _updated(self, statement: s.Statement, text: str, batches: Iterable[pa.RecordBatch] | None) -> int:
        if self.read(text).parameters:
            return self._update_bound(text, statement, batches)
        run = statements.row_of(statement).count
        if run is None:
            return self._drained(text)
        short = self._keyed(statement, text, None)
        return self._counted(statement, lambda e: _short_count(e, short, lambda: run(e, statement)))

    def _counted(self, statement: s.Statement, run: Callable[[Execution], int]) -> int:
        def once() -> int:
            with self._execution(statement) as e:
                return run(e)

        with self._turn(statement):
            return once() if self.transaction is not None else writes.again_if_moved(once)

    def _drained(self, text: str) -> int:
        """A statement with rows sent as an update: run it and say how many there were."""
        rows, e = self.rows(text)
        try:
            return sum(batch.num_rows for batch in rows)
        finally:
            rows.close()
            if e is not None:
                e.close()

    def _update_bound(self, text: str, statement: s.Statement, batches: Iterable[pa.RecordBatch] | None) -> int:
        """Run an update for every row of parameters: all of them or none."""
        reading = self.read(text)
        bound = _parameter_rows(reading.parameters, batches)
        if isinstance(statement, s.Insert) and writes.takes_rows(statement):
            names = [f"p{i + 1}" for i in range(bound.num_columns)]
            insert = self.parse(reading.filled(names))
            assert isinstance(insert, s.Insert), "parameters do not change the kind of a statement"
            rows = bound.rename_columns(names)
            return self._counted(insert, lambda e: dml.insert(e, insert, rows).count)
        short = self._keyed(statement, text, bound)
        if short is not None and statements.row_of(statement).count is not None:
            return self._counted(statement, lambda e: _short_count(e, short, lambda: self._count_of(e, text, bound)))
        done = self._update_joined(reading, statement, bound)
        if done is not None:
            return done
        texts = [reading.filled([v.sql for v in row]) for row in params.rows_of(bound)]
        if len(texts) == 1:
            return self.update(texts[0])
        if self.transaction is not None:
            with self.transaction.all_or_nothing():
                return sum(self.update(t) for t in texts)
        return self._tried(lambda inside: sum(inside.update(t) for t in texts))

    def _update_joined(self, reading: Reading, statement: s.Statement, bound: pa.Table) -> int | None:
        """Many rows of parameters for a statement by key, as one statement; None where that would not mean the same."""
        found = reading.keyed if self.parts.statements.keyed and bound.num_rows >= many.FEWEST else None
        if found is None or found.action == "select" or found.output != ():
            return None
        with self._execution(statement) as e:
            table = e.state.find(*split_name(found.parts, e.namespace))
        if not isinstance(table, Table) or not many.joins(found, table, bound):
            return None
        over = many.joined(self.parse(reading.filled(many.quoted(bound.num_columns))))
        inputs = {reads.PARAMETERS: bound.rename_columns(many.names(bound.num_columns))}
        if isinstance(over, s.Update):
            return self._counted(over, lambda e: dml.update(e, over, inputs).count)
        return self._counted(over, lambda e: dml.delete(e, over, inputs).count)

    def _count_of(self, e: Execution, text: str, bound: pa.Table) -> int:
        """Run an update with one row of parameters in an execution that has begun."""
        statement = self.parse(self.read(text).filled([v.sql for v in params.literals(bound)]))
        run = statements.row_of(statement).count
        assert run is not None, "parameters do not change the kind of a statement"
        return run(e, statement)

    def _tried(self, run: Callable[[Runner], int]) -> int:
        """Nobody began this transaction, so nobody should have to begin it again because another writer was faster."""
        for _ in range(_TRIES):
            try:
                return self.in_transaction(Transaction(), run)
            except Conflict:
                continue
        return self.in_transaction(Transaction(), run)

    def in_transaction(self, transaction: Transaction, run: Callable[[Runner], int]) -> int:
        """Run several statements as one: one snapshot, one commit."""
        try:
            count = run(replace(self, transaction=transaction, receipt=None))
            transaction.commit(self.parts.writer, joined(self.act, self.receipt, count))
        finally:
            transaction.end()
        return count

    def ingest(
        self,
        request: ingest_.IngestRequest,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        headers: Mapping[str, str],
    ) -> int:
        act = self._act("INGEST", None)
        creates = request.if_exists == "replace" or request.if_not_exist == "create"
        act.target, act.always = request.table, creates
        with self._performed(act, waits=not creates), replace(self, act=act)._execution(None) as e:
            return ingest_.ingest(e, request, schema, _until_cancelled(batches, e.cancel), headers)


def _until_cancelled(batches: Iterable[pa.RecordBatch], cancel: CancelToken) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        cancel.check()
        yield batch
    cancel.check()


def action_of(statement: s.Statement) -> str:
    return "SELECT" if isinstance(statement, s.Query) else statements.spoken(type(statement))


def refuse_clause(statement: s.Statement) -> None:
    """What belongs to the session itself is never run as anybody, nor silently as the actor."""
    if statement.as_user is not None:
        raise Unsupported(f"{statements.spoken(type(statement))} is of the session itself and takes no AS USER")


def _short_count(e: Execution, short: keyed.Call | None, ordinary: Callable[[], int]) -> int:
    written = keyed.write(e, short) if short is not None else None
    return ordinary() if written is None else written.count


def holds_secret(statement: s.Statement, text: str) -> bool:
    """Whether a text logs in somewhere: then it is shown to nobody, and not even hashed."""
    return may_hold_secret(text) or isinstance(statement, _WITH_SECRETS)


def _only_looks(statement: s.Statement) -> bool:
    return type(statement).__name__.startswith(("Show", "Describe", "Check"))


def _one_row(reading: Reading, bound: pa.Table | None) -> list[Literal]:
    """The parameters of a query."""
    wanted, given = reading.parameters, 0 if bound is None else bound.num_columns
    if not wanted and not given:
        return []
    if bound is None or bound.num_rows == 0:
        raise InvalidValue(f"the statement has {wanted} parameters and none was bound", sqlstate="07001")
    if bound.num_rows > 1:
        raise Unsupported("a query takes one row of parameters; run it once for each row")
    if wanted != given:
        raise InvalidValue(f"the statement has {wanted} parameters and {given} were bound", sqlstate="07001")
    return params.literals(bound)


def _parameter_rows(wanted: int, batches: Iterable[pa.RecordBatch] | None) -> pa.Table:
    held = [b for b in batches or () if b.num_rows]
    if not held:
        raise InvalidValue(f"the statement has {wanted} parameters and none was bound", sqlstate="07001")
    bound = pa.Table.from_batches(held)
    if bound.num_columns != wanted:
        raise InvalidValue(f"the statement has {wanted} parameters and {bound.num_columns} were bound", sqlstate="07001")
    return bound
