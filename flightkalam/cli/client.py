"""A connection to a server, for a person who may lose patience.

The driver blocks inside native code, where Ctrl-C waits until the call returns.  So its calls run on a thread of their
own; the main thread waits, and on Ctrl-C cancels the statement on the server and not just the wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import adbc_driver_flightsql.dbapi as adbc
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
        self._cursor: Any = None
        options = target.options(headers or {})
        try:
            self._connection = self._call(lambda: adbc.connect(target.uri, db_kwargs=options, autocommit=True), None)
        except KalamError as error:
            self._thread.shutdown(wait=False)
            raise _unreachable(target, error) from None
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the session.  A server that is gone has done so already."""
        try:
            self._call(self._close_all, None)
        except KalamError:
            pass
        finally:
            self._thread.shutdown(wait=False)

    def run(self, sql: str) -> Result:
        """Run one statement.  Its rows must be read before the next one runs.

        :raises KalamError: the server refuses it, or (Cancelled) Ctrl-C was pressed.
        """
        cursor = self._fresh_cursor()
        self._call(lambda: cursor.execute(sql), cursor)
        if not cursor.description:
            return Result(None, iter(()), cursor.rowcount)
        reader = self._call(cursor.fetch_record_batch, cursor)
        return Result(reader.schema, self._batches(reader, cursor))

    def table(self, sql: str) -> pa.Table:
        """All rows of a small answer."""
        result = self.run(sql)
        return pa.Table.from_batches(list(result.batches), result.schema or pa.schema([]))

    def ingest(self, reader: pa.RecordBatchReader, table: str, namespace: str | None, mode: str) -> int:
        """Rows into a table by one statement of the server; all of them or none.

        :return: the rows written.
        :raises KalamError: the server refuses them, or (Cancelled) Ctrl-C was pressed.
        """
        cursor = self._fresh_cursor()
        return self._call(lambda: cursor.adbc_ingest(table, reader, mode=mode, db_schema_name=namespace), cursor)

    def objects(self) -> list[dict[str, Any]]:
        """Catalogs, their schemas, their tables and columns, as Flight SQL's metadata tells them."""
        return self._call(lambda: self._connection.adbc_get_objects(depth="columns").read_all().to_pylist(), None)

    def table_schema(self, table: str, namespace: str | None) -> pa.Schema:
        """The table's columns; none if there is no such table."""
        try:
            return self._call(
                lambda: self._connection.adbc_get_table_schema(table, db_schema_filter=namespace or "main"), None
            )
        except KalamError:
            return pa.schema([])

    def _fresh_cursor(self) -> Any:
        """A new cursor; the last one is closed first, for the driver holds a result per cursor."""
        if self._cursor is not None:
            self._call(self._cursor.close, None)
        self._cursor = self._connection.cursor()
        return self._cursor

    def _batches(self, reader: pa.RecordBatchReader, cursor: Any) -> Iterator[pa.RecordBatch]:
        while True:
            batch = self._call(lambda: _next_batch(reader), cursor)
            if batch is None:
                return
            yield batch

    def _close_all(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._connection.close()

    def _call(self, work: Callable[[], T], cursor: Any) -> T:
        running = self._thread.submit(work)
        try:
            return running.result()
        except KeyboardInterrupt:
            if cursor is not None:
                cursor.adbc_cancel()
                running.exception()  # until the driver has let go, the connection is of no use
            raise Cancelled("cancelled") from None
        except (adbc.Error, pa.ArrowException, OSError) as error:
            raise KalamError(message_of(error)) from None


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


def _unreachable(target: Target, error: KalamError) -> KalamError:
    if any(sign in error.message for sign in _UNREACHABLE):
        return KalamError(
            f"no server answers at {target.uri}: start one with `flightkalam serve`, or give --uri ({error.message})"
        )
    return error


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidValue(f'cannot read "{path}": {error.strerror}') from None
