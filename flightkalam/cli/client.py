"""A connection to a server, for a person who may lose patience.

The driver's own low level is used, without its DB-API: that would load whole data frame libraries at each start.

The driver blocks inside native code, where Ctrl-C waits until the call returns.  So its calls run on a thread of their
own; the main thread waits, and on Ctrl-C cancels the statement on the server and not just the wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import adbc_driver_flightsql as flightsql
import adbc_driver_manager as driver
import pyarrow as pa

from flightkalam.errors import Cancelled, InvalidValue, KalamError

DEFAULT_URI = "grpc://127.0.0.1:31337"
CALL_HEADER = "adbc.flight.sql.rpc.call_header."
_ROOT_CERTS = "adbc.flight.sql.client_option.tls_root_certs"

# "NOT_FOUND: [FlightSQL] table "t" does not exist [SQLSTATE 42P01] (NotFound; Prepare). Vendor code: 5"
_DECORATED = re.compile(
    r"(?:[A-Z_]+: )?(?:\[[\w ]+\] )?(?P<text>.*?)(?: \([A-Za-z]+; [^()]*\))?(?:\. Vendor code: -?\d+)?", re.DOTALL
)
_UNREACHABLE = ("connection refused", "no such host", "Error while dialing", "connection error")
# "… DuplicateKey …. Detail: Python exception: Traceback …": what follows is about the client's own stack.
_DETAIL = re.compile(r"\.? Detail: Python exception: .*", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as whom."""

    uri: str
    user: str
    password: str = field(repr=False)
    ca_cert: Path | None = None

    def options(self, headers: dict[str, str]) -> dict[str, str]:
        """What the driver wants to know; `headers` travel with every call."""
        given = {"username": self.user, "password": self.password}
        if self.ca_cert is not None:
            given[_ROOT_CERTS] = _read_text(self.ca_cert)
        return given | {CALL_HEADER + name: value for name, value in headers.items()}


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement gave: rows (`schema` and `batches`), or a number of rows it `changed` (-1: not known)."""

    schema: pa.Schema | None
    batches: Iterator[pa.RecordBatch]
    changed: int = -1

    @property
    def has_rows(self) -> bool:
        return self.schema is not None


class Connection:
    """One session on the server: USE, SET and BEGIN hold from one statement to the next.

    :raises KalamError: the server cannot be reached, or refuses the login.
    """

    def __init__(self, target: Target, headers: dict[str, str] | None = None) -> None:
        self.target = target
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flightkalam-client")
        self._handles = ExitStack()
        self._statement: driver.AdbcStatement | None = None
        self._reader: pa.RecordBatchReader | None = None
        options = target.options(headers or {})
        try:
            self._database = self._handles.enter_context(self._call(lambda: flightsql.connect(target.uri, options)))
            self._connection = self._handles.enter_context(self._call(lambda: driver.AdbcConnection(self._database)))
        except BaseException as error:
            self.close()
            raise _unreachable(target, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._statement is not None:
            self._statement.cancel()  # nobody will read what is still under way
        self.close()
        if kind is KeyboardInterrupt:
            raise Cancelled("cancelled") from None

    def close(self) -> None:
        """Let go of the session.  A server that is gone has done so already."""
        try:
            self._call(self._finish)
            self._call(self._handles.close)
        except KalamError:
            pass
        finally:
            self._thread.shutdown(wait=False)

    def run(self, sql: str) -> Result:
        """Run one statement.  Its rows must be read before the next one runs.

        :raises KalamError: the server refuses it, or (Cancelled) Ctrl-C was pressed.
        """
        self._begin()
        reader, changed = self._call(lambda: self._execute(sql))
        return Result(None, iter(()), changed) if not reader.schema.names else Result(reader.schema, self._batches(reader))

    def table(self, sql: str) -> pa.Table:
        """All rows of a small answer."""
        result = self.run(sql)
        return pa.Table.from_batches(list(result.batches), result.schema or pa.schema([]))

    def ingest(self, rows: pa.RecordBatchReader, table: str, namespace: str | None, mode: str) -> int:
        """Rows into a table by one statement of the server; all of them or none.

        :param mode: create, append, replace or create_append.
        :return: the rows written.
        :raises KalamError: the server refuses them, or (Cancelled) Ctrl-C was pressed.
        """
        options = {driver.INGEST_OPTION_TARGET_TABLE: table, driver.INGEST_OPTION_MODE: f"{driver.INGEST_OPTION_MODE}.{mode}"}
        if namespace is not None:
            options[driver.StatementOptions.INGEST_TARGET_DB_SCHEMA.value] = namespace
        statement = self._begin()

        def send() -> int:
            statement.set_options(**options)
            statement.bind_stream(rows)
            return statement.execute_update()

        return self._call(send)

    def objects(self) -> list[dict[str, Any]]:
        """Catalogs, their schemas, their tables and columns, as Flight SQL's metadata tells them."""
        depth = driver.GetObjectsDepth.ALL
        return self._call(lambda: _reader(self._connection.get_objects(depth)).read_all().to_pylist())

    def table_schema(self, table: str, namespace: str | None) -> pa.Schema:
        """The table's columns; none if there is no such table."""
        try:
            return self._call(lambda: pa.schema(self._connection.get_table_schema(None, namespace or "main", table)))
        except Cancelled:
            raise
        except KalamError:
            return pa.schema([])

    def _begin(self) -> driver.AdbcStatement:
        """A new statement; the last one and its rows are let go of first."""
        self._call(self._finish)
        self._statement = driver.AdbcStatement(self._connection)
        return self._statement

    def _finish(self) -> None:
        reader, statement = self._reader, self._statement
        self._reader = self._statement = None
        if reader is not None:
            reader.close()
        if statement is not None:
            statement.close()

    def _execute(self, sql: str) -> tuple[pa.RecordBatchReader, int]:
        assert self._statement is not None
        self._statement.set_sql_query(sql)
        self._statement.prepare()
        stream, changed = self._statement.execute_query()
        self._reader = _reader(stream)
        return self._reader, changed

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while (batch := self._call(lambda: _next_batch(reader))) is not None:
            yield batch

    def _call(self, work: Callable[[], T]) -> T:
        running = self._thread.submit(work)
        try:
            return running.result()
        except KeyboardInterrupt:
            if self._statement is not None:
                self._statement.cancel()
                running.exception()  # until the driver has let go, the connection is of no use
            raise Cancelled("cancelled") from None
        except (driver.Error, pa.ArrowException, OSError) as error:
            raise KalamError(message_of(error)) from None


def _reader(stream: driver.ArrowArrayStreamHandle) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_stream(stream)


def _next_batch(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def message_of(error: BaseException) -> str:
    """The server's own message in one line, without what the layers between have wrapped around it."""
    match = _DECORATED.fullmatch(str(error))
    text = match["text"] if match else str(error)
    return " ".join(_DETAIL.sub("", text).split()) or type(error).__name__


def _unreachable(target: Target, error: BaseException) -> BaseException:
    if isinstance(error, KalamError) and any(sign in error.message for sign in _UNREACHABLE):
        return KalamError(
            f"no server answers at {target.uri}: start one with `flightkalam serve`, or give --uri ({error.message})"
        )
    return error


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidValue(f'cannot read "{path}": {error.strerror}') from None
