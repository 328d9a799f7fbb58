"""DuckDB behind the engine protocol; the only importer of duckdb.

One in-memory database for the process, without tables, locked before the first client: files only below the data
directory, no replacement of names by Python variables, no settings.  That is the second wall; `guard` is the first.

A statement runs on a cursor of its own (an Arrow input is registered per cursor, and a second query on a connection
with an open result fails).  Whatever DuckDB raises is translated here and nowhere else (`engine_errors`).

After an internal error of its own DuckDB refuses everything until its database is opened anew.  It holds no data of
ours, so that is what happens: one statement fails, and not the whole service.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from flightkalam.errors import InvalidValue, KalamError, SqlSyntaxError, Unsupported
from flightkalam.query.compute import Bits, CancelToken, Inputs, ResultColumn, Setting, Tree
from flightkalam.query.engine_errors import Failure, translate
from flightkalam.sql.text import quote_literal

IdSource = Callable[[int], "np.ndarray[Any, np.dtype[np.int64]]"]

# A function without arguments would not be told how many rows it shall make; random() also keeps it from being folded.
_MACROS = """
CREATE MACRO snowflake_id() AS __kalam_snowflake_id(random());
CREATE MACRO ulid() AS __kalam_ulid(random());
CREATE MACRO uuid_v7() AS uuidv7();
CREATE MACRO current_user() AS CAST(getvariable('kalam_user') AS VARCHAR);
CREATE MACRO user() AS CAST(getvariable('kalam_user') AS VARCHAR);
CREATE MACRO session_user() AS CAST(getvariable('kalam_user') AS VARCHAR);
CREATE MACRO current_role() AS CAST(getvariable('kalam_role') AS VARCHAR);
CREATE MACRO current_actor() AS CAST(getvariable('kalam_actor') AS VARCHAR);
CREATE MACRO current_schema() AS CAST(getvariable('kalam_namespace') AS VARCHAR);
CREATE MACRO current_catalog() AS 'flightkalam';
CREATE MACRO current_database() AS 'flightkalam';
"""
_LOCK = """
SET enable_external_access = false;
SET python_enable_replacements = false;
SET autoinstall_known_extensions = false;
SET autoload_known_extensions = false;
SET allow_community_extensions = false;
SET allowed_configs = ['TimeZone'];
SET lock_configuration = true;
"""


_BITS = re.compile(r"'[01]{65,}(?:…|'::BIT|(?=\s))")  # a plan would spell a value of bits out, as far as it has room
_FATAL = re.compile(r"INTERNAL Error|FATAL Error|has been invalidated")


class DuckDBEngine:
    """The embedded engine.

    :param directories: where batch files lie; nothing else on the machine can be read.
    :param ids: n new Snowflake ids, for SNOWFLAKE_ID().
    :param version: what `version()` answers.
    :param temp_bytes: what it may spill to disk; 0: as much as it likes.
    """

    def __init__(
        self,
        *,
        directories: Sequence[Path] = (),
        ids: IdSource,
        version: str = "FlightKalam",
        memory_limit: str | None = None,
        threads: int | None = None,
        temp_directory: Path | None = None,
        temp_bytes: int = 0,
    ) -> None:
        config: dict[str, Any] = {}
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        if threads is not None:
            config["threads"] = threads
        self._config = config
        self._directories = directories
        self._temp_directory = temp_directory
        self._temp_bytes = temp_bytes
        self._ids = ids
        self._version = version
        self._renewing = threading.Lock()
        self._connection = self._open()
        self._idle: list[Any] = []  # idle cursors that hold nothing
        self._closed = False

    def _open(self) -> Any:
        """A new database: its limits, its functions and its lock."""
        connection = duckdb.connect(":memory:", config=self._config)
        temp_directory, directories = self._temp_directory, self._directories
        run = connection.execute
        run("SET temp_directory = " + quote_literal(str(temp_directory) if temp_directory else ""))
        if self._temp_bytes:  # after the directory: choosing one sets its own bound
            run(f"SET max_temp_directory_size = '{self._temp_bytes}B'")
        # Cached files are checked by time and size (measured: not checking them gains nothing on a local disk).
        run("SET parquet_metadata_cache = true; SET TimeZone = 'UTC'")
        # Scan plans carry paths as they are configured, the engine may compare them resolved.
        spelt = dict.fromkeys(str(p) + "/" for d in directories for p in (Path(d).absolute(), Path(d).resolve()))
        run(f"SET allowed_directories = [{', '.join(map(quote_literal, spelt))}]")
        self._add_functions(connection)
        run(_LOCK)
        return connection

    def _add_functions(self, connection: Any) -> None:
        ids = self._ids

        def snowflake_ids(rows: pa.ChunkedArray) -> pa.Array:
            return pa.array(ids(len(rows)))

        def ulids(rows: pa.ChunkedArray) -> pa.Array:
            return ulid_array(ids(len(rows)))

        add = connection.create_function
        kind: Any = "arrow"
        add("__kalam_snowflake_id", snowflake_ids, ["DOUBLE"], "BIGINT", type=kind, side_effects=True)
        add("__kalam_ulid", ulids, ["DOUBLE"], "VARCHAR", type=kind, side_effects=True)
        connection.execute(_MACROS)
        connection.execute(f"CREATE MACRO version() AS {quote_literal(self._version)}")

    def _failed(self, error: BaseException) -> KalamError:
        """The error for the client; opens the database anew when this one ended it."""
        failure = _failure(error)
        if _FATAL.search(failure.message) and not self._closed:
            with self._renewing:
                try:
                    self._connection.cursor().execute("SELECT 1")
                except duckdb.Error:
                    # Statements that still run on the old one fail by themselves; it goes with the last of them.
                    self._connection, self._idle = self._open(), []
        return translate(failure)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for cursor in self._idle:
                cursor.close()
            self._connection.close()

    # -- the protocol -----------------------------------------------------------------------------------------

    def tree(self, sql: str) -> Tree:
        if "\0" in sql:
            raise SqlSyntaxError("the statement contains a NUL character; remove it")
        cursor = self._idle.pop() if self._idle else self._connection.cursor()
        well = True
        try:
            row = cursor.execute(f"SELECT json_serialize_sql({quote_literal(sql)})").fetchone()
            tree: Tree = json.loads(row[0]) if row else {}
        except RecursionError:
            raise Unsupported("the statement is nested too deeply; split it with WITH") from None
        except duckdb.Error as e:
            well = False
            raise self._failed(e) from None
        finally:
            if well:
                self._idle.append(cursor)
            else:
                cursor.close()
        if tree.get("error"):
            raise _tree_error(tree, sql)
        return tree

    def describe(self, sql: str, inputs: Inputs, setting: Setting) -> list[ResultColumn]:
        # A statement over empty relations needs nothing registered: a cursor that is there will do.
        plain = not inputs and setting.caller is None and setting.time_zone == "UTC"
        cursor = self._idle.pop() if plain and self._idle else self._cursor(inputs, setting)
        try:
            relation = cursor.sql(sql)
            if relation is None:
                raise Unsupported("the statement returns no rows; only queries can be read")
            columns = [ResultColumn(n, str(t)) for n, t in zip(relation.columns, relation.types, strict=True)]
        except (duckdb.Error, UnicodeDecodeError) as e:
            cursor.close()
            raise self._failed(e) from None
        except BaseException:
            cursor.close()
            raise
        if plain:
            self._idle.append(cursor)
        else:
            cursor.close()
        return columns

    def stream(self, sql: str, inputs: Inputs, setting: Setting, *, batch_rows: int, cancel: CancelToken) -> DuckDBStream:
        cancel.check()
        cursor = self._cursor(inputs, setting)
        return DuckDBStream(cursor, sql, batch_rows, cancel, self._failed)

    def table(self, sql: str, inputs: Inputs, setting: Setting, *, cancel: CancelToken | None = None) -> pa.Table:
        stream = self.stream(sql, inputs, setting, batch_rows=65_536, cancel=cancel or CancelToken())
        try:
            return stream.read_all()
        finally:
            stream.close()

    def explain(self, sql: str, inputs: Inputs, setting: Setting, *, analyze: bool, as_json: bool) -> str:
        options = [word for word, on in (("ANALYZE", analyze), ("FORMAT JSON", as_json)) if on]
        cursor = self._cursor(inputs, setting)
        try:
            how = f"({', '.join(options)})" if options else ""
            rows = cursor.execute(f"EXPLAIN {how} {sql}").fetchall()
            return _BITS.sub("'…'::BIT", "\n".join(str(r[-1]) for r in rows))
        except (duckdb.Error, UnicodeDecodeError) as e:
            raise self._failed(e) from None
        finally:
            cursor.close()

    def _cursor(self, inputs: Inputs, setting: Setting) -> Any:
        cursor = self._connection.cursor()
        try:
            if setting.time_zone != "UTC":
                _set_time_zone(cursor, setting.time_zone)
            caller = setting.caller
            if caller is not None:
                for name in ("user", "role", "actor", "namespace"):
                    cursor.execute(f"SET VARIABLE kalam_{name} = {quote_literal(getattr(caller, name))}")
            for name, data in inputs.items():
                if isinstance(data, Bits):
                    _set_bits(cursor, name, data)
                else:
                    cursor.register(name, data)
        except duckdb.Error as e:
            cursor.close()
            raise self._failed(e) from None
        except BaseException:
            cursor.close()
            raise
        return cursor


class DuckDBStream:
    """One running statement on its own cursor."""

    def __init__(
        self, cursor: Any, sql: str, batch_rows: int, cancel: CancelToken, failed: Callable[[BaseException], KalamError]
    ) -> None:
        self._cursor = cursor
        self._failed = failed
        self._cancel = cancel
        self._lock = threading.Lock()
        self._open = True
        self._forget = cancel.on_cancel(self.interrupt)
        try:
            # What a relation does to run itself, without the relation: that would bind the statement once more to know its
            # columns, a third of the time of a short query (measured).
            self._reader: pa.RecordBatchReader = self._guarded(
                lambda: cursor._submit(sql, None, "stream", batch_rows).arrow_reader()
            )
        except BaseException:
            self.close()
            raise

    def _guarded(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (duckdb.Error, pa.ArrowException, RuntimeError, OSError, UnicodeDecodeError) as e:
            if self._cancel.cancelled:
                raise self._cancel.error() from None
            raise self._failed(e) from None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                self._cancel.check()
                batch = self._guarded(self._next)
                if batch is None:
                    return
                yield batch
        finally:
            self.close()

    def _next(self) -> pa.RecordBatch | None:
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None

    def read_all(self) -> pa.Table:
        self._cancel.check()
        return self._guarded(lambda: self._reader.read_all())

    def interrupt(self, pause: float = 0.02) -> None:
        """Said again until it is heard: the engine forgets an interruption that comes before the statement has begun."""
        with self._lock:
            if not self._open:
                return
            try:
                self._cursor.interrupt()
            except duckdb.ConnectionException:
                return  # the whole engine has been closed meanwhile
        again = threading.Timer(pause, self.interrupt, (min(2 * pause, 1.0),))
        again.daemon = True
        again.start()

    def close(self) -> None:
        """Ends the statement: its inputs, temporary files and memory are free afterwards (T-52)."""
        self._forget()
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._reader = None
        self._cursor.close()


def _set_bits(cursor: Any, name: str, bits: Bits) -> None:
    # By way of an Arrow value: as a parameter the same bytes take 1.4 ms a megabit (measured).
    cursor.register(name, pa.table({"bits": pa.array([bits.packed], pa.large_binary())}))
    cursor.execute(f"SET VARIABLE {name} = (SELECT CAST(bits AS BIT) FROM {name})")
    cursor.unregister(name)


def _set_time_zone(cursor: Any, name: str) -> None:
    try:
        cursor.execute(f"SET TimeZone = {quote_literal(name)}")
    except duckdb.Error:
        raise InvalidValue(f'time zone "{name}" is not known; use a name such as Europe/Zurich, or UTC') from None


def _failure(error: BaseException) -> Failure:
    if isinstance(error, UnicodeDecodeError):
        # A message that quotes bytes which are no text is lost on its way into an exception of its own class.
        return Failure("RuntimeError", error.object.decode(errors="replace"))
    return Failure(type(error).__name__, str(error))


def _tree_error(tree: Tree, sql: str) -> KalamError:
    kind = str(tree.get("error_type", ""))
    message = str(tree.get("error_message", ""))
    if "Only SELECT statements" in message:
        return Unsupported("this statement is no query, or a PIVOT without IN (…); name the values of PIVOT in IN (…)")
    if kind in ("parser", "syntax") or "position" in tree:
        position = tree.get("position")
        where = _line_and_column(sql, int(position)) if position is not None else ""
        return SqlSyntaxError(f"{message}{where}")
    return translate(Failure(kind.title().replace(" ", "") + "Exception", message))


def _line_and_column(sql: str, byte: int) -> str:
    before = sql.encode()[:byte].decode(errors="ignore")
    return f" at line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


# ---------------------------------------------------------------------------------------------------------------
# ULID()

_CROCKFORD = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", np.uint8)
_EPOCH_SHIFT = 22  # bits of a Snowflake id below its milliseconds
_SNOWFLAKE_EPOCH_MS = 1_704_067_200_000


def ulid_array(ids: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """ULIDs, int64[n] -> utf8[n], ascending: 48 bits of milliseconds, 22 of the id to keep the order, 58 by chance."""
    n = len(ids)
    milliseconds = (ids >> _EPOCH_SHIFT) + _SNOWFLAKE_EPOCH_MS
    seed = np.random.SeedSequence(uuid.uuid4().int)
    chance = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 58, n, dtype=np.uint64)
    low = ids & ((1 << _EPOCH_SHIFT) - 1)
    digits = np.empty((n, 26), np.uint8)
    for i in range(10):  # 50 bits, the first two of them zero
        digits[:, 9 - i] = (milliseconds >> (5 * i)) & 31
    high = (low.astype(np.uint64) << np.uint64(18)) | (chance >> np.uint64(40))
    rest = chance & np.uint64((1 << 40) - 1)
    for i in range(8):
        digits[:, 17 - i] = (high >> np.uint64(5 * i)) & np.uint64(31)
        digits[:, 25 - i] = (rest >> np.uint64(5 * i)) & np.uint64(31)
    text = _CROCKFORD[digits]
    offsets = np.arange(0, 26 * (n + 1), 26, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
