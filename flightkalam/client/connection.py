"""`flightkalam.connect()`: an ADBC connection (PEP 249) that also acts for users, repeats safely, upserts and watches.

Everything goes through public Flight SQL: what it adds are call headers that the service knows (docs/clients/python.md),
so any other client can do the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow as pa
from adbc_driver_manager import dbapi

DEFAULT_URI = "grpc://127.0.0.1:31337"
_CALL_HEADER = "adbc.flight.sql.rpc.call_header."
_AUTHORIZATION = "adbc.flight.sql.authorization_header"
_ROOT_CERTIFICATES = "adbc.flight.sql.client_option.tls_root_certs"
_AS_USER = "x-kalam-as-user"
_IDEMPOTENCY_KEY = "x-kalam-idempotency-key"
_ON_CONFLICT = "x-kalam-on-conflict"
_PRIMARY_KEY = "x-kalam-primary-key"
# The driver refuses to send a message beyond 16 MiB.
_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 65_536

Rows: TypeAlias = "pa.Table | pa.RecordBatch | pa.RecordBatchReader | Any"
Parameters: TypeAlias = "Sequence[Any] | pa.Table | pa.RecordBatch | None"


@dataclass(frozen=True, slots=True)
class Changes:
    """What `watch` has seen in one look.

    :param rows: the latest version of every key changed since the look before, in the order of `_seq`: all columns of the
        table, then `_seq` and `_deleted`.  Of a deleted row only key, `_seq` and `_deleted` are not NULL.
    :param seq: where the next look begins; keep it to go on after a restart.
    """

    rows: pa.Table
    seq: int


class Connection(dbapi.Connection):
    """An ADBC connection to a FlightKalam server.  Not for several threads at once, like every ADBC connection."""

    def cursor(
        self,
        *,
        adbc_stmt_kwargs: Mapping[str, Any] | None = None,
        as_user: str | None = None,
        idempotency_key: str | None = None,
    ) -> dbapi.Cursor:
        """A new cursor.

        :param as_user: for whom its statements act, in the place of the connection's own.
        :param idempotency_key: a write repeated with the same key answers the first result and writes nothing again.
        """
        options = dict(adbc_stmt_kwargs or {}) | _headers({_AS_USER: as_user, _IDEMPOTENCY_KEY: idempotency_key})
        return super().cursor(adbc_stmt_kwargs=options)

    def query(self, sql: str, parameters: Parameters = None, *, as_user: str | None = None) -> pa.Table:
        """All rows of a query."""
        with self.cursor(as_user=as_user) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetch_arrow_table()

    def run(
        self, sql: str, parameters: Parameters = None, *, as_user: str | None = None, idempotency_key: str | None = None
    ) -> int:
        """Run a statement without rows; returns how many rows it changed, -1 when that is not known."""
        with self.cursor(as_user=as_user, idempotency_key=idempotency_key) as cursor:
            cursor.execute(sql, parameters)
            return cursor.rowcount

    def insert(
        self,
        table: str,
        rows: Rows,
        *,
        mode: str = "append",
        primary_key: Sequence[str] = (),
        on_conflict: str = "error",
        as_user: str | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Write rows in one statement, all or none; returns how many.

        :param table: `table` or `namespace.table`.
        :param rows: Arrow, a pandas or polars frame, or anything with `__arrow_c_stream__`; columns are matched by name.
        :param mode: append, create, replace or create_append.
        :param primary_key: the key of a table that is created.
        :param on_conflict: what happens to a row whose key is there: error, ignore or update.
        """
        namespace, name = _split(table)
        headers = {_PRIMARY_KEY: ",".join(primary_key) or None, _ON_CONFLICT: None if on_conflict == "error" else on_conflict}
        options = _headers(headers)
        with self.cursor(adbc_stmt_kwargs=options, as_user=as_user, idempotency_key=idempotency_key) as cursor:
            return cursor.adbc_ingest(name, _reader(rows), mode=mode, db_schema_name=namespace)

    def upsert(self, table: str, rows: Rows, *, as_user: str | None = None, idempotency_key: str | None = None) -> int:
        """Write rows, in the place of those with the same keys; returns how many."""
        return self.insert(table, rows, on_conflict="update", as_user=as_user, idempotency_key=idempotency_key)

    def delete(self, table: str, keys: Rows, *, as_user: str | None = None, idempotency_key: str | None = None) -> int:
        """Delete the rows with these keys in one statement; returns how many there were.

        :param keys: one column for each column of the key, named like it.
        """
        found = _reader(keys).read_all()
        namespace, name = _split(table)
        target = _quoted(name) if namespace is None else f"{_quoted(namespace)}.{_quoted(name)}"
        condition = " AND ".join(f"{_quoted(column)} = ?" for column in found.schema.names)
        with self.cursor(as_user=as_user, idempotency_key=idempotency_key) as cursor:
            cursor.executemany(f"DELETE FROM {target} WHERE {condition}", found)
            return cursor.rowcount

    def watch(
        self,
        table: str,
        since_seq: int | None = None,
        *,
        interval: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
        as_user: str | None = None,
    ) -> Iterator[Changes]:
        """What changes in a table, as it changes.  Yields only looks that found something.

        Of a row that changed several times between two looks the last version is seen, and no change is missed as long as
        looks are not further apart than the table's DELETED_RETENTION_HOURS.

        :param since_seq: begin after this `_seq`, as kept from `Changes.seq`; None: with what changes from now on.
        :param interval: seconds between two looks that find nothing.
        :param stop: asked before each look; the iterator ends when it says so.
        """
        namespace, name = _split(table)
        source = _quoted(name) if namespace is None else f"{_quoted(namespace)}.{_quoted(name)}"
        seq = self._newest(source, as_user) if since_seq is None else since_seq
        while not stop():
            sql = f"SELECT *, _seq, _deleted FROM {source} WHERE _seq > {int(seq)} ORDER BY _seq"
            rows = self.query(sql, as_user=as_user)
            if rows.num_rows:
                seq = rows.column("_seq")[-1].as_py()
                yield Changes(rows, seq)
            else:
                sleep(interval)

    def _newest(self, source: str, as_user: str | None) -> int:
        sql = f"SELECT coalesce(max(_seq), 0) AS newest FROM (SELECT _seq, _deleted FROM {source} WHERE _seq > 0)"
        return int(self.query(sql, as_user=as_user).column(0)[0].as_py())


def connect(
    uri: str = DEFAULT_URI,
    user: str | None = None,
    password: str | None = None,
    *,
    token: str | None = None,
    as_user: str | None = None,
    namespace: str | None = None,
    ca_cert: str | Path | None = None,
    autocommit: bool = True,
    headers: Mapping[str, str] | None = None,
    db_kwargs: Mapping[str, str] | None = None,
) -> Connection:
    """Connect to a FlightKalam server.

    :param uri: grpc:// for plain text, grpc+tls:// for TLS.
    :param token: a bearer token, in the place of user and password.
    :param as_user: for whom every statement acts; the service checks and records that the caller may.
    :param namespace: where names without a namespace are looked up; `main` by default.
    :param ca_cert: PEM file of the authority that signed the server's certificate.
    :param autocommit: False: statements belong to a transaction until `commit()`, as PEP 249 has it.
    :param headers: sent with every call.
    :raises ValueError: user and token are both given.
    :raises adbc_driver_manager.Error: the server cannot be reached or refuses the login.
    """
    if token is not None and (user is not None or password is not None):
        raise ValueError("give either a token, or a user and a password")
    options = dict(db_kwargs or {}) | _headers({_AS_USER: as_user, **(headers or {})})
    if user is not None:
        options |= {"username": user, "password": password or ""}
    if token is not None:
        options[_AUTHORIZATION] = f"Bearer {token}"
    if ca_cert is not None:
        options[_ROOT_CERTIFICATES] = Path(ca_cert).read_text()
    return open_connection(uri, options, namespace=namespace, autocommit=autocommit)


def open_connection(uri: str, options: Mapping[str, str], *, namespace: str | None, autocommit: bool) -> Connection:
    """Open a connection with the driver's own options."""
    database = adbc_driver_flightsql.connect(uri, db_kwargs=dict(options))
    try:
        low_level = adbc_driver_manager.AdbcConnection(database)
        try:
            if namespace is not None:
                low_level.set_options(**{"adbc.connection.db_schema": namespace})
            return Connection(database, low_level, autocommit=autocommit)
        except BaseException:
            low_level.close()
            raise
    except BaseException:
        database.close()
        raise


def _headers(headers: Mapping[str, str | None]) -> dict[str, str]:
    """The driver's options for call headers.  A user's name travels percent-encoded, since headers are ASCII."""
    given = {name: value for name, value in headers.items() if value is not None}
    return {_CALL_HEADER + n: quote(v, safe="") if n == _AS_USER else v for n, v in given.items()}


def _reader(rows: Rows) -> pa.RecordBatchReader:
    """Any of the accepted kinds as a stream of batches of bounded size."""
    if isinstance(rows, pa.RecordBatchReader):
        return rows
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if not isinstance(rows, pa.Table):
        rows = pa.table(rows) if hasattr(rows, "__arrow_c_stream__") else pa.Table.from_pandas(rows, preserve_index=False)
    row_bytes = max(1, rows.nbytes // max(1, rows.num_rows))
    return rows.to_reader(max_chunksize=max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes)))


def _split(table: str) -> tuple[str | None, str]:
    namespace, dot, name = table.rpartition(".")
    return (namespace, name) if dot else (None, table)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
