"""Results as csv, json, arrow or parquet for programs, and as tables for people.

Every format but the table streams: a result of any size passes through in its own batches.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from rich.console import Console

from flightkalam.cli import tables
from flightkalam.cli.client import Result
from flightkalam.errors import InvalidValue

_EXACT_IN_JSON = 2**53


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    ARROW = "arrow"
    PARQUET = "parquet"


# One result fills such a file: a second one could not be told from the first.
_ONE_RESULT = (Format.ARROW, Format.PARQUET)
_ROW_WRITERS = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "EXECUTE", "WITH"})
_BINARY = (Format.ARROW, Format.PARQUET)


@dataclass(frozen=True, slots=True)
class Style:
    """How tables look: on a terminal, or in a pipe, where nothing limits their width."""

    max_rows: int | None
    width: int | None


class Writer:
    """Writes the results of a script, one after another, to one place."""

    def __init__(self, format_: Format, sink: IO[bytes], style: Style, console: Console) -> None:
        self._format = format_
        self._sink = sink
        self._style = style
        self._console = console
        self._written = 0

    def write(self, statement: str, result: Result) -> None:
        """Write what `statement` gave.

        :raises InvalidValue: the format holds one result, and this is the second.
        """
        if result.schema is None:
            self._say_changed(statement, result.changed)
            return
        if self._written and self._format in _ONE_RESULT:
            raise InvalidValue(
                f"the script has more than one result, and {self._format} holds one: run the queries one at a time"
            )
        if self._written and self._format is Format.CSV:
            self._sink.write(b"\n")
        self._written += 1
        _WRITERS[self._format](self, result.schema, result.batches)
        self._sink.flush()  # who reads the pipe need not wait for the next statement

    def _say_changed(self, statement: str, changed: int) -> None:
        if self._format is Format.TABLE:
            self._console.print(changed_text(statement, changed), style="dim", highlight=False)

    def _table(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        page = tables.first_rows(schema, batches, self._style.max_rows)
        grid, summary = tables.table_of(page, self._style.width)
        self._console.print(grid)
        self._console.print(summary, style="dim", highlight=False, markup=False, soft_wrap=True)

    def _csv(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        flat = pa.schema([pa.field(f.name, _csv_type(f.type)) for f in schema])
        with pacsv.CSVWriter(self._sink, flat) as writer:
            for batch in batches:
                writer.write_batch(_flattened(batch, flat))

    def _json(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        names = schema.names
        if len(set(names)) < len(names):
            raise InvalidValue("two columns of the result have the same name, which JSON cannot tell apart: rename one")
        before = b"[\n"
        for batch in batches:
            for row in tables.rows_of(batch):
                line = json.dumps(dict(zip(names, map(json_value, row), strict=True)), ensure_ascii=False)
                self._sink.write(before + line.encode())
                before = b",\n"
        self._sink.write(b"[]\n" if before == b"[\n" else b"\n]\n")

    def _arrow(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        with pa.ipc.new_stream(self._sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    def _parquet(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        with pq.ParquetWriter(self._sink, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)


_WRITERS = {
    Format.TABLE: Writer._table,
    Format.CSV: Writer._csv,
    Format.JSON: Writer._json,
    Format.ARROW: Writer._arrow,
    Format.PARQUET: Writer._parquet,
}


@contextmanager
def writer(format_: Format | None, output: Path | None, max_rows: int | None) -> Iterator[Writer]:
    """A writer to a file or to standard output.

    Without a format people get tables and pipes get csv, whole: a table in a pipe would end up in somebody's parser.

    :raises InvalidValue: a binary format would go to a terminal, or the file cannot be written.
    """
    on_terminal = output is None and sys.stdout.isatty()
    chosen = format_ or _by_name(output) or (Format.TABLE if on_terminal else Format.CSV)
    if chosen in _BINARY and on_terminal:
        raise InvalidValue(f"{chosen} is not for terminals: name a file with --output, or pipe it")
    with _opened(output) as sink:
        if output is None:
            console = Console(soft_wrap=not on_terminal, width=None if on_terminal else 10_000)
        else:
            console = Console(file=_TextOver(sink), width=10_000, soft_wrap=True, no_color=True)  # type: ignore[arg-type]
        yield Writer(chosen, sink, Style(max_rows, console.width if on_terminal else None), console)


def _by_name(output: Path | None) -> Format | None:
    known = {".csv": Format.CSV, ".json": Format.JSON, ".parquet": Format.PARQUET}
    return known.get(output.suffix.lower()) if output is not None else None


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """A file appears under its name when it is whole; a query that fails leaves an earlier one as it was."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = output.with_name(f"{output.name}.part")
    try:
        with unfinished.open("wb") as sink:
            yield sink
        unfinished.replace(output)
    except OSError as error:
        raise InvalidValue(f'cannot write "{output}": {error.strerror or error}') from None
    finally:
        unfinished.unlink(missing_ok=True)


class _TextOver:
    """The text side of a binary file, for the console."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        return self._sink.write(text.encode())

    def flush(self) -> None:
        self._sink.flush()


def changed_text(statement: str, changed: int) -> str:
    """Only statements that write rows have a number worth saying."""
    writes = statement.split(maxsplit=1)[0].upper() in _ROW_WRITERS
    return f"{tables.count(changed, 'row')} changed" if writes and changed >= 0 else "done"


# ---------------------------------------------------------------------------------------------------------------
# Values


def json_value(value: Any) -> Any:
    """A value that every JSON reader reads exactly: numbers beyond 2^53, decimals and NaN go as text (T-4)."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if -_EXACT_IN_JSON <= value <= _EXACT_IN_JSON else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else tables.text_of(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, pa.MonthDayNano):
        return {"months": value.months, "days": value.days, "nanoseconds": value.nanoseconds}
    if isinstance(value, (list, tuple)):
        return [json_value(v) for v in value]
    return str(value) if isinstance(value, (decimal.Decimal, dt.timedelta)) else tables.text_of(value)


def _csv_type(type_: pa.DataType) -> pa.DataType:
    """CSV has no lists, structs, bytes or intervals: they go as text."""
    odd = pa.types.is_nested(type_) or pa.types.is_interval(type_) or pa.types.is_duration(type_)
    return pa.utf8() if odd or pa.types.is_decimal(type_) or _is_bytes(type_) else type_


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _flattened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        column if column.type == field.type else _as_text(column) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_decimal(column.type):
        return column.cast(pa.utf8())
    values = [None if v is None else _nested_text(v) for v in column.to_pylist()]
    return pa.array(values, pa.utf8())


def _nested_text(value: Any) -> str:
    plain = json_value(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (list, dict)) else tables.text_of(value)
