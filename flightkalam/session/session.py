"""What one client has open: settings, prepared statements, transactions, running results."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from flightkalam.auth.identity import Identity
from flightkalam.catalog.names import CATALOG
from flightkalam.errors import BadRequest, Conflict, InvalidValue, UndefinedObject, Unsupported, undefined_table
from flightkalam.session import ingest as ingest_
from flightkalam.session import kept, metadata
from flightkalam.session.acts import HERE, OPTION, For, Origin, joined
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import COUNT_SCHEMA, Rows, count_rows, rows_of
from flightkalam.session.partitions import Parts as Parts_
from flightkalam.session.parts import Parts
from flightkalam.session.receipts import Receipt
from flightkalam.session.results import Planned, Results, gone, lasting
from flightkalam.session.running import (
    CHANGES_ROWS,
    SAVEPOINT_STATEMENTS,
    SESSION_STATEMENTS,
    TRANSACTION_STATEMENTS,
    Runner,
    holds_secret,
    refuse_clause,
)
from flightkalam.session.settings import COMPRESSION, PARTITIONS, Settings
from flightkalam.session.starting import begun, known, wait_for_memory
from flightkalam.session.transactions import Transaction, unknown, unknown_savepoint
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident

_MAX_PREPARED = 1_000
# How somebody proved who they are, where the session that follows is that one connection's.
_OF_ONE_CONNECTION = ("password", "token")
_MAX_TRANSACTIONS = 100
_CHANGED = "a table changed since the statement was prepared; prepare it again"


@dataclass
class Prepared:
    """A prepared statement.

    :param schema: of its rows; empty for an update.
    :param transaction: the one it was prepared in.
    :param planned_for: on whose behalf; it runs for nobody else.
    :param bound: the parameters of the next execution.
    """

    handle: bytes
    text: str
    schema: pa.Schema
    parameters: pa.Schema
    is_update: bool
    transaction: bytes | None
    planned_for: For
    bound: pa.Table | None = None


class Session:
    """One client's session.  Calls may come from several threads."""

    def __init__(self, parts: Parts, identity: Identity, session_id: str, results: Results) -> None:
        self.parts = parts
        self.identity = identity
        self.session_id = session_id
        self.settings = Settings(parts.config.engine.time_zone)
        self.last_used = parts.clock.monotonic()
        self._results = results
        self._lock = threading.Lock()
        self._prepared: dict[bytes, Prepared] = {}
        self._transactions: dict[bytes, Transaction] = {}
        self._by_sql: Transaction | None = None  # begun by BEGIN
        self._running: set[Rows] = set()

    def close(self) -> None:
        """Stop what runs, roll back what is open, forget what was prepared."""
        with self._lock:
            running, open_ = list(self._running), list(self._transactions.values())
            self._prepared.clear()
            self._transactions.clear()
            self._by_sql = None
        for rows in running:
            rows.cancel()
        for transaction in open_:
            with transaction.lock:
                transaction.end()

    def figures(self) -> dict[str, object]:
        """What `system.sessions` shows of it."""
        with self._lock:
            return {
                "namespace": self.settings.namespace,
                "idle_seconds": max(0.0, self.parts.clock.monotonic() - self.last_used),
                "running": len(self._running),
                "transactions": len(self._transactions),
                "prepared": len(self._prepared),
            }

    @property
    def open_transactions(self) -> int:
        return len(self._transactions)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    # -- transactions ------------------------------------------------------------------------------------------

    def begin(self) -> bytes:
        return self._begin().id

    def _begin(self) -> Transaction:
        transaction = Transaction()
        with self._lock:
            if len(self._transactions) >= _MAX_TRANSACTIONS:
                raise InvalidValue(f"the session has {_MAX_TRANSACTIONS} open transactions; end some", sqlstate="54000")
            self._transactions[transaction.id] = transaction
        return transaction

    def end(self, transaction: bytes, commit: bool, receipt: Receipt | None = None) -> int:
        """COMMIT or ROLLBACK; returns how many versions were written.

        :raises UndefinedObject: COMMIT of a transaction that is not there; ROLLBACK of one succeeds.
        """
        with self._lock:
            found = self._transactions.pop(transaction, None)
            if found is self._by_sql:
                self._by_sql = None
        if found is None:
            if commit:
                raise unknown()
            return 0
        with found.lock:
            if not commit:
                found.end()
                return 0
            done = found.commit(self.parts.writer, joined(None, receipt))
        return sum(done.rows) if done is not None else 0

    def _transaction(self, id_: bytes | None) -> Transaction | None:
        """The transaction that a statement names; that of BEGIN when it names none."""
        with self._lock:
            if id_ is None:
                return self._by_sql
            found = self._transactions.get(id_)
        if found is None:
            raise unknown()
        return found

    def _transaction_of(self, prepared: Prepared) -> Transaction | None:
        """Clients prepare once and end transactions in between: then the session's only open one is meant."""
        with self._lock:
            if prepared.transaction is not None and prepared.transaction in self._transactions:
                return self._transactions[prepared.transaction]
            return self._only_open()

    def in_transaction(self, handle: bytes) -> Transaction | None:
        """The transaction that an execution of a prepared statement would belong to."""
        return self._transaction_of(self._prepared_of(handle))

    def _only_open(self) -> Transaction | None:
        if self._by_sql is not None:
            return self._by_sql
        return next(iter(self._transactions.values())) if len(self._transactions) == 1 else None

    def _control(self, statement: s.Statement, named: bytes | None, receipt: Receipt | None) -> int:
        """BEGIN, COMMIT and ROLLBACK as SQL."""
        if named is not None:
            raise BadRequest("this connection ends its transactions itself; use its commit() and rollback()", sqlstate="25001")
        with self._lock:
            current = self._by_sql
        if isinstance(statement, s.Begin):
            if current is not None:
                raise BadRequest("a transaction is open already; COMMIT or ROLLBACK it first", sqlstate="25001")
            self._by_sql = self._begin()
            return 0
        commit = isinstance(statement, s.Commit)
        if current is None:
            if commit:
                raise BadRequest("no transaction is open; BEGIN one first", sqlstate="25P01")
            return 0
        if receipt is not None:
            receipt.count = 0  # what this statement answers, whatever it writes
        self.end(current.id, commit, receipt)
        return 0

    # -- savepoints --------------------------------------------------------------------------------------------

    def begin_savepoint(self, transaction: bytes, name: str) -> bytes:
        found = self._transaction(transaction)
        assert found is not None, "a transaction that is named is there, or an error"
        return found.savepoint(name)

    def end_savepoint(self, savepoint: bytes, release: bool) -> None:
        """:raises UndefinedObject: it is not there, or its transaction has ended."""
        with self._lock:
            found = [t for t in self._transactions.values() if t.has_savepoint(savepoint)]
        if not found:
            raise unknown_savepoint()
        (found[0].release if release else found[0].back_to)(savepoint)

    def _at_savepoint(self, statement: s.Statement, transaction: Transaction | None) -> int:
        if transaction is None:
            raise BadRequest("savepoints are of a transaction and none is open; BEGIN one first", sqlstate="25P01")
        match statement:
            case s.Savepoint(name=name):
                transaction.savepoint(name.value)
            case s.ReleaseSavepoint(name=name):
                transaction.release(name.value)
            case s.RollbackTo(name=name):
                transaction.back_to(name.value)
        return 0

    # -- idempotency keys --------------------------------------------------------------------------------------

    def takes_key(self, sql: str, transaction: bytes | None) -> bool:
        """Whether a call's idempotency key belongs to this statement; inside a transaction it belongs to COMMIT."""
        return self._takes_key(sql, self._transaction(transaction))

    def takes_key_prepared(self, handle: bytes) -> bool:
        prepared = self._prepared_of(handle)
        return self._takes_key(prepared.text, self._transaction_of(prepared))

    def announced_write(self, handle: bytes) -> Planned | None:
        """The planned result if it is of a write whose call's idempotency key counts."""
        planned = self._planned(handle, HERE)
        writes = planned.is_update or planned.writes
        return planned if writes and self._takes_key(planned.text, planned.transaction) else None

    def _takes_key(self, text: str, transaction: Transaction | None) -> bool:
        statement = self._runner(None).parse(text)
        if isinstance(statement, s.Commit):
            return transaction is None or transaction.has_written
        # A token is shown once: no receipt may keep it.
        without = (*TRANSACTION_STATEMENTS, *SESSION_STATEMENTS, s.CreateToken)
        return transaction is None and not isinstance(statement, without)

    @property
    def ingests_in_transaction(self) -> bool:
        with self._lock:
            return self._only_open() is not None

    def may_have_written(self, transaction: bytes) -> bool:
        """Whether COMMIT writes something; of a transaction that is not there any more, nobody knows."""
        with self._lock:
            found = self._transactions.get(transaction)
        return found is None or found.has_written

    @contextmanager
    def rolled_back_at_end(self, transaction: bytes | None) -> Iterator[None]:
        """Roll back what a COMMIT that was answered from its receipt has left open.

        :param transaction: None: the one that BEGIN began.
        """
        with self._lock:
            begun = self._by_sql
        named = transaction if transaction is not None or begun is None else begun.id
        yield
        if named is not None:
            self.end(named, False)

    # -- statements --------------------------------------------------------------------------------------------

    def _runner(
        self,
        transaction: Transaction | None,
        receipt: Receipt | None = None,
        origin: Origin = HERE,
        planned_for: For | None = None,
    ) -> Runner:
        return Runner(self.parts, self.identity, self.settings, transaction, receipt, origin=origin, planned_for=planned_for)

    def prepare(self, sql: str, transaction: bytes | None, origin: Origin = HERE) -> Prepared:
        runner = self._runner(self._transaction(transaction), origin=origin)
        planned_for = runner.planned(sql)
        prepared = Prepared(
            secrets.token_bytes(16),
            sql,
            runner.announced(sql, None, prepared=True),
            pa.schema([pa.field(str(i + 1), pa.null()) for i in range(runner.read(sql).parameters)]),
            runner.is_update(runner.parse(sql)),
            transaction,
            planned_for,
        )
        with self._lock:
            if len(self._prepared) >= _MAX_PREPARED:
                raise InvalidValue(f"the session has {_MAX_PREPARED} prepared statements; close some", sqlstate="54000")
            self._prepared[prepared.handle] = prepared
        return prepared

    def bind(self, handle: bytes, parameters: pa.Table) -> None:
        self._prepared_of(handle).bound = parameters

    def close_prepared(self, handle: bytes) -> None:
        with self._lock:
            self._prepared.pop(handle, None)

    def _prepared_of(self, handle: bytes) -> Prepared:
        with self._lock:
            found = self._prepared.get(handle)
        if found is None:
            raise UndefinedObject("the prepared statement does not exist in this session; prepare it again", sqlstate="26000")
        return found

    # -- reading -----------------------------------------------------------------------------------------------

    def plan(self, sql: str, transaction: bytes | None, origin: Origin = HERE) -> Planned:
        return self._to_fetch(self._runner(self._transaction(transaction), origin=origin), sql, None)

    def plan_prepared(self, handle: bytes, origin: Origin = HERE) -> Planned:
        prepared = self._prepared_of(handle)
        runner = self._runner(self._transaction_of(prepared), None, origin, prepared.planned_for)
        return self._to_fetch(runner, prepared.text, prepared.bound)

    def _to_fetch(self, runner: Runner, text: str, bound: pa.Table | None) -> Planned:
        statement = runner.parse(text)
        planned_for = runner.planned(text)
        is_update = runner.is_update(statement)
        most = runner.origin.partitions or self.settings.partitions
        parts = runner.in_parts(text, bound, most) if most > 1 else None
        if parts is not None:
            return self._in_parts(runner, text, bound, parts, planned_for)
        planned = Planned(
            text,
            COUNT_SCHEMA if is_update else runner.announced(text, bound),
            is_update,
            not is_update and runner.writes(statement),
            bound,
            runner.transaction,
            planned_for=planned_for,
            namespace=self.settings.namespace,
            time_zone=self.settings.time_zone,
        )
        user = self.identity.user_id
        return self._results.add(user, planned if holds_secret(statement, text) else lasting(planned, user))

    def _planned(self, handle: bytes, origin: Origin) -> Planned:
        """The result of a handle, announced again if it has been forgotten."""
        user = self.identity.user_id
        found = self._results.find(user, handle)
        if found is not None:
            return found
        if len(handle) <= kept.TOKEN_BYTES:
            raise gone()
        said, bound = kept.decode(handle[kept.TOKEN_BYTES :])
        if said.user != user:
            raise gone()
        planned_for = For(said.subject)
        runner = self._runner(None, None, origin, planned_for)
        runner = replace(runner, settings=self.settings.at(said.namespace, said.time_zone))
        schema = COUNT_SCHEMA if said.is_update else runner.announced(said.text, bound)
        if kept.fingerprint(schema) != said.schema:
            raise Conflict(_CHANGED)
        again = Planned(said.text, schema, said.is_update, said.writes, bound, planned_for=planned_for, handle=handle)
        again.namespace, again.time_zone = said.namespace, said.time_zone
        return self._results.add(user, again)

    def _in_parts(self, runner: Runner, text: str, bound: pa.Table | None, parts: Parts_, planned_for: For) -> Planned:
        try:
            schema = runner.announced(text, bound)
        except BaseException:
            parts.parts[0].lease.end()
            raise
        user, here, zone = self.identity.user_id, self.settings.namespace, self.settings.time_zone
        each = [
            Planned(text, schema, False, bound=bound, planned_for=planned_for, part=part, namespace=here, time_zone=zone)
            for part in parts.parts
        ]
        for planned in each:
            self._results.add(user, planned)
        expires = parts.parts[0].lease.expires_us
        return replace(each[0], total=parts.rows, endpoints=tuple(p.handle for p in each), expires_us=expires)

    def renew(self, handle: bytes) -> int | None:
        """Hold the snapshot of a part for longer; until when.  None: it does not expire."""
        found = self._results.find(self.identity.user_id, handle)
        if found is None and len(handle) <= kept.TOKEN_BYTES:
            raise gone()
        part = None if found is None else found.part
        if part is None:
            return None
        part.lease.renew()
        return part.lease.expires_us

    def release(self, handle: bytes) -> None:
        """A result that was cancelled: what is held for its parts goes when those that are being read have ended."""
        part = self._results.get(self.identity.user_id, handle).part
        if part is not None:
            part.lease.end()

    def describe(self, sql: str, transaction: bytes | None, origin: Origin = HERE) -> pa.Schema:
        return self._runner(self._transaction(transaction), origin=origin).announced(sql, None)

    def describe_prepared(self, handle: bytes) -> pa.Schema:
        return self._prepared_of(handle).schema

    def fetch(
        self,
        handle: bytes,
        receipt: Receipt | None = None,
        on_start: Callable[[Callable[[], None]], None] | None = None,
        origin: Origin = HERE,
    ) -> Rows:
        """The rows of a planned result.

        :param on_start: told how to stop it, before it starts.
        :raises Conflict: the tables have changed, so that the announced schema would no longer hold.
        """
        planned = self._planned(handle, origin)
        runner = self._runner(planned.transaction, receipt, origin, planned.planned_for)
        if not isinstance(runner.parse(planned.text), SESSION_STATEMENTS):
            runner = replace(runner, settings=self.settings.at(planned.namespace, planned.time_zone))
        runner = replace(runner, on_start=on_start, part=planned.part)
        if planned.changes_data:
            with planned.lock:
                return self._fetch_change(runner, planned)
        rows = self._open(runner, planned.text, planned.bound)
        if not rows.schema.equals(planned.schema):
            rows.close()
            raise Conflict(_CHANGED)
        return rows

    def _fetch_change(self, runner: Runner, planned: Planned) -> Rows:
        """What fetching changes happens once, also when the server has forgotten that it happened: the ticket is the key."""
        receipts = (
            self.parts.receipts if runner.receipt is None and self._takes_key(planned.text, planned.transaction) else None
        )
        user, key = self.identity.user_id, "\2ticket:" + planned.handle[: kept.TOKEN_BYTES].hex()

        def change(receipt: Receipt | None) -> int:
            return self._update(replace(runner, receipt=receipt), planned.text, planned.bound, None)

        def returned(receipt: Receipt | None) -> pa.Table:
            rows = self._open(replace(runner, receipt=receipt), planned.text, planned.bound)
            return pa.Table.from_batches(list(rows), rows.schema)

        if planned.is_update:
            if planned.count is None:
                planned.count = change(runner.receipt) if receipts is None else receipts.once(user, key, change)
            return count_rows(planned.count)
        if planned.rows is None:
            planned.rows = (
                receipts.rows_once(user, key, planned.schema, returned) if receipts is not None else returned(runner.receipt)
            )
        return rows_of(planned.rows)

    def query(self, sql: str) -> Rows:
        """Run a statement that answers with rows, in the same process."""
        return self._open(self._runner(self._transaction(None)), sql, None)

    def _open(self, runner: Runner, text: str, bound: pa.Table | None) -> Rows:
        """A result that the session knows of while it runs, and that lets go of its snapshot at its end."""
        queries = self.parts.queries
        runner, query = begun(runner, self.session_id, text)
        try:
            known(runner, query, text)
            with queries.phase(query, "start"):
                rows, execution = runner.rows(text, bound)
        except BaseException as error:
            queries.end(query, error)
            raise

        def close() -> None:
            rows.close()
            if execution is not None:
                execution.close()
            with self._lock:
                self._running.discard(tracked)
            queries.end(query)

        def cancel() -> None:
            if execution is not None:
                execution.cancel.cancel()

        batches = queries.streamed(query, rows)
        tracked = Rows(rows.schema, batches, total=rows.total, soon=rows.soon, close=close, cancel=cancel)
        with self._lock:
            self._running.add(tracked)
        return tracked

    # -- writing -----------------------------------------------------------------------------------------------

    def update(self, sql: str, transaction: bytes | None, receipt: Receipt | None = None, origin: Origin = HERE) -> int:
        return self._update(self._runner(self._transaction(transaction), receipt, origin), sql, None, transaction)

    def update_prepared(
        self,
        handle: bytes,
        parameters: Iterator[pa.RecordBatch] | None,
        receipt: Receipt | None = None,
        origin: Origin = HERE,
    ) -> int:
        prepared = self._prepared_of(handle)
        bound = prepared.bound if parameters is None else _table(parameters)
        runner = self._runner(self._transaction_of(prepared), receipt, origin, prepared.planned_for)
        return self._update(runner, prepared.text, bound, prepared.transaction)

    def _update(self, runner: Runner, text: str, bound: pa.Table | None, named: bytes | None) -> int:
        runner, query = begun(runner, self.session_id, text)
        with self.parts.queries.running(query):
            statement = known(runner, query, text)
            if isinstance(statement, TRANSACTION_STATEMENTS):
                refuse_clause(statement)
                if isinstance(statement, SAVEPOINT_STATEMENTS):
                    return self._at_savepoint(statement, runner.transaction)
                return self._control(statement, named, runner.receipt)
            with self.parts.queries.phase(query, "execute"):
                query.rows = runner.update(text, bound.to_batches() if bound is not None else None)
            if isinstance(statement, CHANGES_ROWS):
                self.parts.counters.add("rows_changed", query.rows)
            return query.rows

    def ingest(
        self,
        request: ingest_.IngestRequest,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        headers: Mapping[str, str],
        receipt: Receipt | None = None,
        origin: Origin = HERE,
    ) -> int:
        with self._lock:
            transaction = self._only_open()
        queries = self.parts.queries
        runner, query = begun(self._runner(transaction, receipt, origin), self.session_id, f"INGEST INTO {request.table}")
        query.kind, query.secret = "INGEST", False
        with queries.running(query):
            wait_for_memory(runner, query)
            with queries.phase(query, "queue"):
                queries.admit(query)
            with queries.phase(query, "execute"):
                return runner.ingest(request, schema, queries.arriving(query, batches), headers)

    # -- metadata ----------------------------------------------------------------------------------------------

    def _look(self, action: str, origin: Origin = HERE) -> AbstractContextManager[Execution]:
        return self._runner(None, origin=origin).looking(action)

    @property
    def compression(self) -> str | None:
        return self.settings.compression

    def text_of(self, path: Sequence[str]) -> str:
        """The query of all rows of the table that a path names: `table`, `namespace/table` or `catalog/namespace/table`."""
        *catalog, namespace, table = ["", "", *path][-3:] if len(path) > 2 else [self.settings.namespace, *path][-2:]
        if catalog and catalog[0] != CATALOG:
            raise undefined_table(".".join(path))
        return f"SELECT * FROM {quote_ident(namespace)}.{quote_ident(table)}"

    def catalogs(self) -> list[str]:
        return [CATALOG]

    def schemas(self, catalog: str | None, pattern: str | None, origin: Origin = HERE) -> list[tuple[str, str]]:
        with self._look("LIST SCHEMAS", origin) as e:
            return metadata.schemas(e, catalog, pattern)

    def tables(
        self,
        catalog: str | None,
        schema_pattern: str | None,
        table_pattern: str | None,
        types: Sequence[str],
        include_schema: bool,
        origin: Origin = HERE,
    ) -> list[metadata.TableInfo]:
        with self._look("LIST TABLES", origin) as e:
            return metadata.tables(e, catalog, schema_pattern, table_pattern, types, include_schema)

    def table_types(self) -> list[str]:
        return list(metadata.TABLE_TYPES)

    def primary_key(self, catalog: str | None, schema: str | None, table: str, origin: Origin = HERE) -> list[str]:
        with self._look("LIST KEYS", origin) as e:
            return metadata.primary_key(e, catalog, schema, table)

    def options(self) -> Mapping[str, str]:
        options = {"catalog": CATALOG, "schema": self.settings.namespace, "time_zone": self.settings.time_zone}
        if self.settings.compression is not None:
            options[COMPRESSION] = self.settings.compression
        if self.settings.partitions > 1:
            options[PARTITIONS] = str(self.settings.partitions)
        if self.settings.timeout_s is not None:
            options["statement_timeout"] = f"{self.settings.timeout_s * 1000:.0f}ms"
        return options | ({} if self.settings.as_user is None else {OPTION: self.settings.as_user})

    def set_option(self, name: str, value: object, origin: Origin = HERE) -> None:
        if name == OPTION:
            self._set_as_user(value, origin)
            return
        with Execution(self.parts, self.identity, self.settings.namespace, self.settings.time_zone) as e:
            self.settings.set_option(e, name, value)

    def _set_as_user(self, value: object, origin: Origin) -> None:
        """From now on the session's statements run on behalf of somebody; empty or unset ends it."""
        if value is None or value == "":
            self.settings.as_user = None
            return
        if not isinstance(value, str):
            raise InvalidValue(f"session option {OPTION} is a user id, as text")
        if self.identity.via not in _OF_ONE_CONNECTION:
            raise Unsupported(
                f"this session may be that of other connections too, so {OPTION} cannot be set on it; "
                "log in with a handshake, or send the header with each call"
            )
        runner = self._runner(None, origin=replace(origin, as_user=value))
        self.settings.as_user = None  # one takes the place of the other
        with runner.looking("SET AS_USER") as e:
            self.settings.as_user = e.identity.user_id


def _table(batches: Iterator[pa.RecordBatch]) -> pa.Table | None:
    held = list(batches)
    return pa.Table.from_batches(held) if held else None
