"""What one client has open: settings, prepared statements, results to be fetched."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.auth.identity import Identity
from flightkalam.catalog.names import CATALOG
from flightkalam.errors import (
    BadRequest,
    Conflict,
    InvalidValue,
    UndefinedObject,
    Unsupported,
)
from flightkalam.query import params
from flightkalam.session import ingest as ingest_
from flightkalam.session import metadata, statements, writes
from flightkalam.session.cache import Recent
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import COUNT_SCHEMA, Rows, count_rows, rows_of
from flightkalam.session.parts import Parts
from flightkalam.session.results import Planned, Results
from flightkalam.session.settings import Settings
from flightkalam.sql import parse
from flightkalam.sql import statements as s
from flightkalam.sql.text import referenced_params, substitute_params

_MAX_PREPARED = 1_000
_EMPTY = pa.schema([])
_SESSION_STATEMENTS = (s.Use, s.Set, s.Reset)


@dataclass
class Prepared:
    """A prepared statement.

    :param schema: of its rows; empty for an update.
    :param bound: the parameters of the next execution.
    """

    handle: bytes
    text: str
    schema: pa.Schema
    parameters: pa.Schema
    is_update: bool
    bound: pa.Table | None = None


class Session:
    """One client's session.  Calls may come from several threads."""

    def __init__(self, parts: Parts, identity: Identity, session_id: str, results: Results) -> None:
        self.parts = parts
        self._results = results
        self.identity = identity
        self.session_id = session_id
        self.settings = Settings(parts.config.engine.time_zone)
        self.last_used = parts.clock.monotonic()
        self._lock = threading.Lock()
        self._prepared: OrderedDict[bytes, Prepared] = OrderedDict()
        self._schemas: Recent[tuple[object, ...], pa.Schema] = Recent(256)
        self._running: set[Rows] = set()

    def close(self) -> None:
        """Stop what runs and forget what was prepared."""
        with self._lock:
            running = list(self._running)
            self._prepared.clear()
        for rows in running:
            rows.cancel()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def execution(self) -> Execution:
        return Execution(self.parts, self.identity, self.settings.namespace, self.settings.time_zone)

    # -- statements --------------------------------------------------------------------------------------------

    def _parse(self, text: str) -> s.Statement:
        return self.parts.statements.get(text, self._parse_new)

    def _parse_new(self, text: str) -> s.Statement:
        return parse(text, limit=self.parts.config.server.max_sql_bytes)

    def _is_update(self, statement: s.Statement) -> bool:
        return isinstance(statement, _SESSION_STATEMENTS) or statements.row_of(statement).count is not None

    def _writes(self, statement: s.Statement) -> bool:
        """Whether a statement that answers with rows changes data, so that it must run once only."""
        return not isinstance(statement, s.ShowSetting) and statements.row_of(statement).writes

    def _schema_of(self, statement: s.Statement, text: str) -> pa.Schema:
        """The schema a statement announces: one function for prepare, FlightInfo, GetSchema and stream."""
        if self._is_update(statement):
            return _EMPTY
        if isinstance(statement, s.ShowSetting):
            return self.settings.show(statement.name).schema
        key = (text, self.settings.namespace, self.settings.time_zone, self.identity, self.parts.catalog.state.version)
        if isinstance(statement, s.Query):
            return self._schemas.get(key, lambda _: self._described(statement))
        return self._described(statement)

    def _described(self, statement: s.Statement) -> pa.Schema:
        make = statements.row_of(statement).schema
        assert make is not None, "an update has no schema"
        with self.execution() as e:
            return make(e, statement)

    def prepare(self, sql: str, transaction: bytes | None) -> Prepared:
        self._no_transaction(transaction)
        statement = self._parse(sql)
        wanted = max((p.index for p in referenced_params(sql)), default=0)
        prepared = Prepared(
            secrets.token_bytes(16),
            sql,
            self._prepared_schema(statement, sql, wanted),
            pa.schema([pa.field(str(i + 1), pa.null()) for i in range(wanted)]),
            self._is_update(statement),
        )
        with self._lock:
            if len(self._prepared) >= _MAX_PREPARED:
                raise InvalidValue(f"the session has {_MAX_PREPARED} prepared statements; close some", sqlstate="54000")
            self._prepared[prepared.handle] = prepared
        return prepared

    def _prepared_schema(self, statement: s.Statement, sql: str, wanted: int) -> pa.Schema:
        if not wanted or self._is_update(statement):
            return self._schema_of(statement, sql)
        # Before values are bound each parameter stands for NULL; the engine then takes the type of what is beside it.
        text = substitute_params(sql, ["NULL"] * wanted)
        return self._schema_of(self._parse(text), text)

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

    def plan(self, sql: str, transaction: bytes | None) -> Planned:
        self._no_transaction(transaction)
        statement = self._parse(sql)
        return self._to_fetch(sql, self._announced(statement, sql), self._is_update(statement), None)

    def plan_prepared(self, handle: bytes) -> Planned:
        prepared = self._prepared_of(handle)
        if prepared.is_update:
            return self._to_fetch(prepared.text, COUNT_SCHEMA, True, prepared.bound)
        text = self._bound_text(prepared.text, prepared.bound)
        schema = self._schema_of(self._parse(text), text)
        return self._to_fetch(text, schema, False, None)

    def _announced(self, statement: s.Statement, text: str) -> pa.Schema:
        return COUNT_SCHEMA if self._is_update(statement) else self._schema_of(statement, text)

    def _to_fetch(self, text: str, schema: pa.Schema, is_update: bool, bound: pa.Table | None) -> Planned:
        writes_ = not is_update and self._writes(self._parse(text))
        return self._results.add(self.identity.user_id, Planned(text, schema, is_update, writes_, bound))

    def describe(self, sql: str, transaction: bytes | None) -> pa.Schema:
        self._no_transaction(transaction)
        return self._announced(self._parse(sql), sql)

    def describe_prepared(self, handle: bytes) -> pa.Schema:
        return self._prepared_of(handle).schema

    def fetch(self, handle: bytes) -> Rows:
        """The rows of a planned result.

        :raises Conflict: the tables have changed, so that the announced schema would no longer hold.
        """
        planned = self._results.get(self.identity.user_id, handle)
        if planned.is_update:
            with planned.lock:
                if planned.count is None:
                    bound = planned.bound.to_batches() if planned.bound is not None else None
                    planned.count = self._update(planned.text, bound)
            return count_rows(planned.count)
        if planned.writes:
            with planned.lock:
                if planned.rows is None:
                    rows = self._run(planned.text)
                    planned.rows = pa.Table.from_batches(list(rows), rows.schema)
            return rows_of(planned.rows)
        rows = self._run(planned.text)
        if not rows.schema.equals(planned.schema):
            rows.close()
            raise Conflict("a table changed since the statement was prepared; prepare it again")
        return rows

    def query(self, sql: str) -> Rows:
        """Run a statement that answers with rows, in the same process."""
        return self._run(sql)

    def _run(self, text: str) -> Rows:
        statement = self._parse(text)
        if isinstance(statement, s.ShowSetting):
            return rows_of(self.settings.show(statement.name))
        run = statements.row_of(statement).rows
        if run is None:
            raise BadRequest("the statement returns no rows; run it as an update")
        e = self.execution()
        try:
            rows = run(e, statement)
        except BaseException:
            e.close()
            raise
        return self._tracked(rows, e)

    def _tracked(self, rows: Rows, e: Execution) -> Rows:
        """A result that the session knows of while it runs, and that lets go of its snapshot at its end."""

        def close() -> None:
            rows.close()
            e.close()
            with self._lock:
                self._running.discard(tracked)

        tracked = Rows(rows.schema, rows, total=rows.total, close=close, cancel=e.cancel.cancel)
        with self._lock:
            self._running.add(tracked)
        return tracked

    def _bound_text(self, text: str, bound: pa.Table | None) -> str:
        """The text with its parameters replaced by literals."""
        wanted = max((p.index for p in referenced_params(text)), default=0)
        given = 0 if bound is None else bound.num_columns
        if wanted == 0 and given == 0:
            return text
        if bound is None or bound.num_rows == 0:
            raise InvalidValue(f"the statement has {wanted} parameters and none was bound", sqlstate="07001")
        if bound.num_rows > 1:
            raise Unsupported("a query takes one row of parameters; run it once for each row")
        if wanted != given:
            raise InvalidValue(f"the statement has {wanted} parameters and {given} were bound", sqlstate="07001")
        return substitute_params(text, [v.sql for v in params.literals(bound)])

    # -- writing -----------------------------------------------------------------------------------------------

    def update(self, sql: str, transaction: bytes | None) -> int:
        self._no_transaction(transaction)
        return self._update(sql, None)

    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int:
        prepared = self._prepared_of(handle)
        batches: Iterable[pa.RecordBatch] | None = parameters
        if parameters is None and prepared.bound is not None:
            batches = prepared.bound.to_batches()
        return self._update(prepared.text, batches)

    def _update(self, text: str, batches: Iterable[pa.RecordBatch] | None) -> int:
        statement = self._parse(text)
        if isinstance(statement, _SESSION_STATEMENTS):
            with self.execution() as e:
                self.settings.apply(e, statement)
            return 0
        if referenced_params(text):
            return self._update_bound(text, statement, batches)
        run = statements.row_of(statement).count
        if run is None:
            return self._drained(text)
        return writes.again_if_moved(lambda: self._counted(run, statement))

    def _counted(self, run: Callable[[Execution, s.Statement], int], statement: s.Statement) -> int:
        with self.execution() as e:
            return run(e, statement)

    def _drained(self, text: str) -> int:
        """A query sent as an update: run it and say how many rows there were."""
        rows = self._run(text)
        try:
            return sum(batch.num_rows for batch in rows)
        finally:
            rows.close()

    def _update_bound(self, text: str, statement: s.Statement, batches: Iterable[pa.RecordBatch] | None) -> int:
        """Run an update for every row of parameters; an INSERT of one row of VALUES takes them all at once."""
        held = [b for b in batches or () if b.num_rows]
        wanted = max(p.index for p in referenced_params(text))
        if not held:
            raise InvalidValue(f"the statement has {wanted} parameters and none was bound", sqlstate="07001")
        bound = pa.Table.from_batches(held)
        if bound.num_columns != wanted:
            raise InvalidValue(f"the statement has {wanted} parameters and {bound.num_columns} were bound", sqlstate="07001")
        if isinstance(statement, s.Insert) and writes.takes_rows(statement):
            columns = bound.rename_columns([f"p{i + 1}" for i in range(wanted)])
            named = substitute_params(text, [f"p{i + 1}" for i in range(wanted)])
            insert = self._parse(named)
            assert isinstance(insert, s.Insert), "parameters do not change the kind of a statement"
            return writes.again_if_moved(lambda: self._insert_rows(insert, columns))
        total = 0
        for row in params.rows_of(bound):
            total += self._update(substitute_params(text, [v.sql for v in row]), None)
        return total

    def _insert_rows(self, insert: s.Insert, rows: pa.Table) -> int:
        with self.execution() as e:
            return writes.insert(e, insert, rows).count

    def ingest(
        self,
        request: ingest_.IngestRequest,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        headers: Mapping[str, str],
    ) -> int:
        with self.execution() as e:
            return ingest_.ingest(e, request, schema, batches, headers)

    # -- metadata ----------------------------------------------------------------------------------------------

    def catalogs(self) -> list[str]:
        return [CATALOG]

    def schemas(self, catalog: str | None, pattern: str | None) -> list[tuple[str, str]]:
        with self.execution() as e:
            return metadata.schemas(e, catalog, pattern)

    def tables(
        self,
        catalog: str | None,
        schema_pattern: str | None,
        table_pattern: str | None,
        types: Sequence[str],
        include_schema: bool,
    ) -> list[metadata.TableInfo]:
        with self.execution() as e:
            return metadata.tables(e, catalog, schema_pattern, table_pattern, types, include_schema)

    def table_types(self) -> list[str]:
        return list(metadata.TABLE_TYPES)

    def primary_key(self, catalog: str | None, schema: str | None, table: str) -> list[str]:
        with self.execution() as e:
            return metadata.primary_key(e, catalog, schema, table)

    # -- transactions and options ------------------------------------------------------------------------------

    def _no_transaction(self, transaction: bytes | None) -> None:
        if transaction is not None:
            raise UndefinedObject("the transaction does not exist; it may have expired", sqlstate="25P01")

    def begin(self) -> bytes:
        raise Unsupported("transactions are not supported by this release; every statement commits by itself")

    def end(self, transaction: bytes, commit: bool) -> None:
        self._no_transaction(transaction)

    def options(self) -> Mapping[str, str]:
        return {"catalog": CATALOG, "schema": self.settings.namespace, "time_zone": self.settings.time_zone}

    def set_option(self, name: str, value: object) -> None:
        with self.execution() as e:
            self.settings.set_option(e, name, value)
