"""Files into a table: Parquet, CSV and Arrow, each streamed by one statement of the server.

A file is loaded whole or not at all.  Of several files the first one makes or empties the table where the mode says so,
and the others are appended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from flightkalam.cli.client import Connection
from flightkalam.errors import InvalidValue, KalamError

_BATCH_ROWS = 65_536
_BATCH_BYTES = 4 << 20
# The types of a CSV file are told from its first block, so that is a large one.
_CSV_BLOCK = 32 << 20
_ARROW_MAGIC = b"ARROW1"
_PARQUET_MAGIC = b"PAR1"
_TABLE_NAME = re.compile(r'(?:(?P<ns>"(?:[^"]|"")+"|[^".]+)\.)?(?P<table>"(?:[^"]|"")+"|[^".]+)')


class Mode(Enum):
    """What becomes of a table that exists, or does not."""

    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"
    CREATE_APPEND = "create_append"


class OnConflict(Enum):
    """What becomes of a row whose key exists."""

    ERROR = "error"
    IGNORE = "ignore"
    UPDATE = "update"


# How far the file is read, out of how much (None: not known), and the rows so far.
Progress = Callable[[int, int | None, int], None]


@dataclass(frozen=True, slots=True)
class TableName:
    namespace: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """
        :raises InvalidValue: it is not `table` or `namespace.table`.
        """
        match = _TABLE_NAME.fullmatch(text.strip())
        if match is None:
            raise InvalidValue(f'"{text}" is not a table name: write table, namespace.table or "quoted"."names"')
        return cls(_unquoted(match["ns"]) if match["ns"] else None, _unquoted(match["table"]))


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """`types`: what the columns must become, as far as it is known; the others are told from the text."""

    delimiter: str = ","
    nulls: tuple[str, ...] = ("",)
    types: pa.Schema = field(default_factory=lambda: pa.schema([]))


@dataclass(frozen=True, slots=True)
class Source:
    """An open file: `size` is what its progress is measured by (rows of Parquet, bytes of CSV, batches of Arrow)."""

    schema: pa.Schema
    batches: Iterator[tuple[int, pa.RecordBatch]] = field(repr=False)
    size: int | None


def headers(key: Sequence[str], on_conflict: OnConflict, user_table: bool) -> dict[str, str]:
    """The call headers of an ingest (SEMANTICS §1)."""
    given: dict[str, str] = {}
    if key:
        given["x-kalam-primary-key"] = ",".join(key)
    if on_conflict is not OnConflict.ERROR:
        given["x-kalam-on-conflict"] = on_conflict.value
    if user_table:
        given["x-kalam-table-type"] = "USER"
    return given


def mode_of(mode: Mode, position: int) -> Mode:
    """The mode of the file at `position`: the first decides about the table, the others go behind it."""
    return mode if position == 0 else Mode.APPEND


def load_file(connection: Connection, path: Path, table: TableName, mode: Mode, csv: CsvOptions, progress: Progress) -> int:
    """Load one file.  Text that is appended is read as the table's own types.

    :return: the rows written.
    :raises KalamError: the file cannot be read, or the server refuses it; nothing of it is kept.
    """
    if mode in (Mode.APPEND, Mode.CREATE_APPEND):
        csv = replace(csv, types=connection.table_schema(table.name, table.namespace))
    with opened(path, csv) as source:
        stream = _Stream(source, progress)
        reader = pa.RecordBatchReader.from_batches(source.schema, stream.batches())
        try:
            return connection.ingest(reader, table.name, table.namespace, mode.value)
        except KalamError:
            if stream.failure is not None:
                raise _unreadable(path, stream.failure) from None
            raise


class _Stream:
    """Counts what passes, and keeps the error that the driver would only report as its own."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self.failure: Exception | None = None
        self._source = source
        self._progress = progress

    def batches(self) -> Iterator[pa.RecordBatch]:
        rows = 0
        empty = True
        try:
            for done, batch in self._source.batches:
                for piece in pieces(batch):
                    rows += piece.num_rows
                    yield piece
                    empty = False
                    self._progress(done, self._source.size, rows)
        except Exception as error:
            self.failure = error
            raise
        if empty:  # the driver sends nothing at all, not even the command, for a stream without a batch
            yield pa.RecordBatch.from_pylist([], schema=self._source.schema)


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts that travel: gRPC refuses a message beyond its limit, 16 MiB with this driver."""
    share = _BATCH_BYTES / max(batch.nbytes, 1)
    rows = max(1, min(_BATCH_ROWS, int(batch.num_rows * share)))
    if rows >= batch.num_rows:
        yield batch
        return
    for start in range(0, batch.num_rows, rows):
        yield _on_its_own(batch.slice(start, rows))


def _on_its_own(part: pa.RecordBatch) -> pa.RecordBatch:
    """A copy of a slice; the driver would send the whole text that a slice points into, with each of them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.schema) as stream:
        stream.write_batch(part)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


# ---------------------------------------------------------------------------------------------------------------
# Files as streams


@contextmanager
def opened(path: Path, csv: CsvOptions) -> Iterator[Source]:
    """The file as a stream of batches; what it is, is told by its content, or else by its name.

    :raises InvalidValue: it cannot be read, or is of none of the kinds we know.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(len(_ARROW_MAGIC))
        open_ = _opener(path, head)
        with open_(path, csv) as source:
            yield source
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _opener(path: Path, head: bytes) -> Any:
    if head.startswith(_PARQUET_MAGIC):
        return _parquet
    if head.startswith(_ARROW_MAGIC):
        return _arrow_file
    suffixes = [s.lower() for s in path.suffixes]
    if any(s in suffixes for s in (".csv", ".tsv", ".txt")):
        return _csv
    if suffixes and suffixes[-1] in (".arrows", ".arrow", ".ipc", ".feather"):
        return _arrow_stream
    raise InvalidValue(
        f'cannot tell what "{path}" is: end its name in .csv, .csv.gz, .tsv, .parquet or .arrow, after its content'
    )


@contextmanager
def _parquet(path: Path, _: CsvOptions) -> Iterator[Source]:
    with pq.ParquetFile(path, memory_map=True) as file:
        yield Source(file.schema_arrow, _counted(file.iter_batches(_BATCH_ROWS)), file.metadata.num_rows)


@contextmanager
def _arrow_file(path: Path, _: CsvOptions) -> Iterator[Source]:
    with pa.memory_map(str(path)) as raw, pa.ipc.open_file(raw) as file:
        batches = ((i + 1, file.get_batch(i)) for i in range(file.num_record_batches))
        yield Source(file.schema, batches, file.num_record_batches)


@contextmanager
def _arrow_stream(path: Path, _: CsvOptions) -> Iterator[Source]:
    with pa.memory_map(str(path)) as raw, pa.ipc.open_stream(raw) as stream:
        yield Source(stream.schema, ((raw.tell(), batch) for batch in stream), path.stat().st_size)


@contextmanager
def _csv(path: Path, options: CsvOptions) -> Iterator[Source]:
    compressed = pa.Codec.detect(str(path)) if path.suffix.lower() not in (".csv", ".tsv", ".txt") else None
    with pa.OSFile(str(path)) as raw:
        text = pa.CompressedInputStream(raw, compressed.name) if compressed is not None else raw
        reader = pacsv.open_csv(
            text,
            read_options=pacsv.ReadOptions(block_size=_CSV_BLOCK),
            parse_options=pacsv.ParseOptions(delimiter=_delimiter(path, options), newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={f.name: f.type for f in options.types if _csv_can_be(f.type)},
                null_values=list(options.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        with reader:
            schema = pa.schema([pa.field(f.name, _named(f.type)) for f in reader.schema])
            yield Source(schema, ((_position(raw), batch.cast(schema)) for batch in reader), path.stat().st_size)


def _delimiter(path: Path, options: CsvOptions) -> str:
    return "\t" if ".tsv" in path.suffixes and options.delimiter == "," else options.delimiter


def _csv_can_be(type_: pa.DataType) -> bool:
    return not (pa.types.is_nested(type_) or pa.types.is_interval(type_) or pa.types.is_duration(type_))


def _named(type_: pa.DataType) -> pa.DataType:
    """A column that is empty as far as its type was looked for becomes text; times become microseconds."""
    if pa.types.is_null(type_):
        return pa.utf8()
    return pa.timestamp("us", type_.tz) if pa.types.is_timestamp(type_) else type_


def _position(raw: pa.NativeFile) -> int:
    return 0 if raw.closed else raw.tell()


def _counted(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        yield rows, batch


def _unreadable(path: Path, error: Exception) -> InvalidValue:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    hint = ""
    if "CSV conversion error" in reason:
        hint = "; give --null for text that means NULL, or create the table with other types first and load with --mode append"
    return InvalidValue(f'cannot read "{path}": {reason}{hint}; nothing of it was loaded')


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
