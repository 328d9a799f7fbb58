"""A service with the session's shape and no database: each statement's text says what it does.

SELECT 1             one row                           SELECT n         range(n), in batches of 1,000
SELECT ?             the bound parameters              SELECT forever   batches until somebody stops it
SELECT stuck         computes until it is interrupted  SELECT breaks    one batch, then a bug
INSERT n             changes n rows                    FAIL Class [n]   raises errors.Class [with n characters]
CRASH                a bug, with a secret in its text
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from flightkalam import errors
from flightkalam.flight.ports import Credentials, IngestRequest, OptionValue, SqlInfoValue

SECRET = "/secret/path hunter2"
INT = pa.schema([pa.field("n", pa.int64(), nullable=False)])
STATEMENTS = ("SELECT ", "INSERT ", "FAIL ", "CRASH")
COUNT = pa.schema([pa.field("count", pa.int64(), nullable=False)])


@dataclass(frozen=True)
class Identity:
    user_id: str


@dataclass(frozen=True)
class Planned:
    handle: bytes
    schema: pa.Schema
    total: int = -1
    changes_data: bool = False
    expires_us: int | None = None

    @property
    def endpoints(self) -> tuple[bytes, ...]:
        return (self.handle,)


@dataclass(frozen=True)
class Prepared:
    handle: bytes
    schema: pa.Schema
    parameters: pa.Schema
    is_update: bool


@dataclass(frozen=True)
class TableInfo:
    catalog: str
    schema: str
    name: str
    type: str
    arrow_schema: pa.Schema | None


class Rows:
    def __init__(
        self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], interrupted: threading.Event, *, soon: bool = False
    ) -> None:
        self.schema = schema
        self.total = -1
        self.soon = soon
        self.interrupted = interrupted
        self.closed = threading.Event()
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches

    def close(self) -> None:
        self.closed.set()

    def cancel(self) -> None:
        self.interrupted.set()


class Session:
    def __init__(self, service: FakeService, user: str, session_id: str) -> None:
        self.identity = Identity(user)
        self.session_id = session_id
        self.service = service
        self.bound: dict[bytes, pa.Table] = {}

        self.compression: str | None = None

    def watched(self, on_start: Callable[[Callable[[], None]], None]) -> None:
        pass

    def text_of(self, path: Sequence[str]) -> str:
        return f"SELECT {path[-1]}"

    # -- statements
    def prepare(self, sql: str, transaction: bytes | None) -> Prepared:
        self._note("prepare", sql, transaction)
        self._misbehave(sql)
        update = sql.startswith("INSERT")
        marks = [pa.field(str(i), pa.int64()) for i in range(sql.count("?"))]
        return Prepared(sql.encode(), pa.schema([]) if update else self._schema(sql), pa.schema(marks), update)

    def bind(self, handle: bytes, parameters: pa.Table) -> None:
        self._note("bind", parameters.num_rows)
        self.bound[handle] = parameters

    def close_prepared(self, handle: bytes) -> None:
        self._note("close_prepared", handle)

    def plan(self, sql: str, transaction: bytes | None) -> Planned:
        self._note("plan", sql, transaction)
        self._misbehave(sql)
        return Planned(sql.encode(), self._schema(sql), 1 if sql == "SELECT 1" else -1, sql.startswith("INSERT"))

    def plan_prepared(self, handle: bytes) -> Planned:
        return Planned(handle, self._schema(_known(handle)))

    def describe(self, sql: str, transaction: bytes | None) -> pa.Schema:
        self._misbehave(sql)
        return self._schema(sql)

    def describe_prepared(self, handle: bytes) -> pa.Schema:
        return self._schema(_known(handle))

    def fetch(self, handle: bytes, on_start=None) -> Rows:
        sql = _known(handle)
        self._note("fetch", sql)
        interrupted = threading.Event()
        rows = Rows(self._schema(sql), self._batches(sql, handle, interrupted), interrupted, soon=sql.split()[-1].isdigit())
        self.service.rows.append(rows)
        return rows

    def renew(self, handle: bytes) -> int | None:
        return None

    def release(self, handle: bytes) -> None:
        self._note("release", handle)

    def update(self, sql: str, transaction: bytes | None) -> int:
        self._note("update", sql, transaction)
        self._misbehave(sql)
        return int(sql.split()[1])

    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int:
        _known(handle)
        self._note("update_prepared", parameters is not None)
        if parameters is None or handle == b"INSERT 0 rows read":
            return int(handle.decode().split()[1])
        return sum(batch.num_rows for batch in parameters)

    def ingest(
        self, request: IngestRequest, schema: pa.Schema, batches: Iterator[pa.RecordBatch], headers: Mapping[str, str]
    ) -> int:
        table = pa.Table.from_batches(list(batches), schema)
        self.service.ingested.append((request, table, dict(headers)))
        return table.num_rows

    # -- metadata
    def catalogs(self) -> list[str]:
        return ["flightkalam"]

    def schemas(self, catalog: str | None, pattern: str | None) -> list[tuple[str, str]]:
        self._note("schemas", catalog, pattern)
        return [("flightkalam", "zoo"), ("flightkalam", "main")]

    def tables(
        self,
        catalog: str | None,
        schema_pattern: str | None,
        table_pattern: str | None,
        types: Sequence[str],
        include_schema: bool,
    ) -> list[TableInfo]:
        self._note("tables", catalog, schema_pattern, table_pattern, tuple(types), include_schema)
        own_name = pa.field("doc", pa.utf8(), metadata={"ARROW:FLIGHT:SQL:TYPE_NAME": "JSON"})
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), own_name, pa.field("p", pa.decimal128(9, 2))])
        found = [TableInfo("flightkalam", "main", n, "TABLE", schema if include_schema else None) for n in ("u", "t")]
        return [t for t in found if table_pattern in (None, "%", t.name)]

    def table_types(self) -> list[str]:
        return ["VIEW", "TABLE"]

    def primary_key(self, catalog: str | None, schema: str | None, table: str) -> list[str]:
        if table != "t":
            raise errors.undefined_table(table)
        return ["b", "a"]

    # -- transactions, options
    def begin(self) -> bytes:
        self._note("begin")
        return b"tx1"

    def end(self, transaction: bytes, commit: bool) -> None:
        self._note("end", transaction, commit)

    def begin_savepoint(self, transaction: bytes, name: str) -> bytes:
        self._note("begin_savepoint", transaction, name)
        return b"sp1"

    def end_savepoint(self, savepoint: bytes, release: bool) -> None:
        self._note("end_savepoint", savepoint, release)

    def options(self) -> Mapping[str, OptionValue]:
        return self.service.options

    def set_option(self, name: str, value: OptionValue) -> None:
        if name == "nope":
            raise errors.UndefinedObject('there is no option "nope"')
        if value == "bad":
            raise errors.InvalidValue("not this value")
        self.service.options[name] = value

    # -- inside
    def _note(self, *what: Any) -> None:
        self.service.calls.append(what)

    def _misbehave(self, sql: str) -> None:
        if not sql.startswith(STATEMENTS):
            raise errors.SqlSyntaxError("this is not SQL that the fake knows")
        if sql.startswith("FAIL "):
            _, name, *length = sql.split()
            raise getattr(errors, name)("é" * int(length[0]) if length else "it did not work; try something else")
        if sql == "CRASH":
            raise RuntimeError(SECRET)

    def _schema(self, sql: str) -> pa.Schema:
        if sql.startswith("INSERT"):
            return COUNT
        if sql == "SELECT NOTHING":
            return pa.schema([])
        return INT

    def _batches(self, sql: str, handle: bytes, interrupted: threading.Event) -> Iterator[pa.RecordBatch]:
        if sql.startswith("INSERT"):
            self._note("executed", sql)
            yield pa.record_batch([pa.array([int(sql.split()[1])])], schema=COUNT)
        elif sql == "SELECT ?":
            for batch in self.bound[handle].to_batches():
                yield pa.record_batch([batch.column(0)], schema=INT)
        elif sql == "SELECT forever":
            while not interrupted.is_set():
                yield _ints(0, 1000)
        elif sql == "SELECT stuck":
            interrupted.wait(30)
            raise RuntimeError("INTERRUPT Error: Interrupted!")
        elif sql == "SELECT breaks":
            yield _ints(0, 1)
            raise RuntimeError(SECRET)
        else:
            n = int(sql.split()[1])
            yield from (_ints(i, min(n, i + 1000)) for i in range(0, n, 1000)) if n > 1 else [_ints(1, 2)]


def _known(handle: bytes) -> str:
    """A prepared statement's handle is its text, so a handle that is no statement was never given out."""
    sql = handle.decode("utf-8", "replace")
    if not sql.startswith(STATEMENTS):
        raise errors.UndefinedObject("no such prepared statement; prepare it again", sqlstate="26000")
    return sql


def _ints(start: int, stop: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(start, stop), pa.int64())], schema=INT)


@dataclass
class FakeService:
    """Users `ann` and `bob`, whose passwords are `p:` and their name; a token is `token-` and the name."""

    draining: bool = False
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    ingested: list[tuple[IngestRequest, pa.Table, dict[str, str]]] = field(default_factory=list)
    options: dict[str, OptionValue] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    shown: list[Credentials | None] = field(default_factory=list)
    info: dict[int, SqlInfoValue] = field(default_factory=lambda: {8: 1})
    _sessions: dict[str, Session] = field(default_factory=dict)

    def login(self, credentials: Credentials, peer: str) -> str:
        return f"token-{self._user(credentials)}"

    def session(self, credentials: Credentials | None, peer: str, headers: Mapping[str, str]) -> Session:
        self.shown.append(credentials)
        if credentials is None:
            raise errors.Unauthenticated("no credentials; log in with a name and password or a token")
        assert peer and "authorization" not in headers
        user = self._user(credentials)
        return self._sessions.setdefault(user, Session(self, user, f"sid-{user}"))

    def close_session(self, session: Session) -> None:
        self.closed.append(session.session_id)

    def sql_info(self) -> Mapping[int, SqlInfoValue]:
        return self.info

    def count_error(self, sqlstate: str) -> None:
        self.errors.append(sqlstate)

    def _user(self, shown: Credentials) -> str:
        user = shown.secret.removeprefix("token-") if shown.kind == "bearer" else shown.user
        known = shown.kind == "certificate" or shown.secret in (f"p:{user}", f"token-{user}")
        if user not in ("ann", "bob") or not known:
            raise errors.Unauthenticated("wrong name, password or token; check them and log in again")
        return user
