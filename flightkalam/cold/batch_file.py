"""Batch files: writing and reading one Parquet file.

Row groups are small (a point read decodes one), rows are sorted by key, columns carry their field ids, and the footer says
whose file it is, so that a lost manifest can be rebuilt from the files alone.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from flightkalam import failpoints
from flightkalam.cold import bloom, paths
from flightkalam.cold.bloom import FilterStyle
from flightkalam.cold.bounds import bounds_of
from flightkalam.cold.manifest import BatchEntry, FilterRef
from flightkalam.cold.manifest_json import batch_to_json, encode
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope
from flightkalam.model.keys import combined
from flightkalam.model.predicate import Comparable
from flightkalam.model.schema import DELETED, FIELD_ID, SEQ, Column, Table, TableSchema, table_to_json
from flightkalam.storage import objects

FOOTER_KEY = b"flightkalam"
_VERIFIED = 200_000  # files whose bytes are remembered to be right
# Whose physical values are their comparable form; through Python's dates the engine's last years would not fit.
NO_FILTERS = FilterStyle()
_RAW_KINDS = frozenset({"int", "date", "time", "timestamp", "timestamptz", "text", "uuid", "blob"})


@dataclass(frozen=True, slots=True)
class BatchStyle:
    """How batch files are written.

    :param row_group_rows: rows per row group.
    :param compression: zstd, lz4, snappy or none.
    """

    row_group_rows: int = 24_576
    compression: str = "zstd"


@dataclass(frozen=True, slots=True)
class Footer:
    """What a batch file says of itself.

    :param replaces: batches whose files may still be there and count no more.
    :param facts: its manifest entry, but for what only the finished file can tell; and every batch that it or one of those
        has ever replaced, as ranges: whose number is not among them and has no file was lost.
    :param table: the table's definition when it was written, so that the files alone can restore it.
    """

    table_id: int
    owner: str | None
    number: int
    uuid: str
    schema_version: int
    epoch: int
    flushed_seq: int
    replaces: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] | None = None

    @property
    def absorbed(self) -> frozenset[int]:
        """Every batch whose rows this one has taken in, by itself or by those it replaces."""
        ranges = self.facts.get("absorbed", ())
        return frozenset(self.replaces).union(*(range(first, last + 1) for first, last in ranges))

    def to_bytes(self) -> bytes:
        """With a checksum: Parquet has none over its footer."""
        record = {name: getattr(self, name) for name in self.__slots__}
        return encode({**record, "xxh3": _checksum(record)})

    @staticmethod
    def from_metadata(metadata: pq.FileMetaData, name: str) -> Footer:
        record = (metadata.metadata or {}).get(FOOTER_KEY)
        if record is None:
            raise DataCorrupted(f"{name} is not a batch of this service: its footer does not say whose it is")
        try:
            fields = json.loads(record)
            if fields.pop("xxh3") != _checksum(fields):
                raise ValueError("checksum")
            return Footer(**{**fields, "replaces": tuple(fields["replaces"])})
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise DataCorrupted(f"{name} is damaged: its footer cannot be read; restore it from a backup") from e


def _checksum(record: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(encode(record))


def write_batch(
    folder: Path,
    number: int,
    table: pa.Table,
    schema: TableSchema,
    scope: Scope,
    *,
    style: BatchStyle,
    flushed_seq: int,
    filters: FilterStyle = NO_FILTERS,
    epoch: int = 0,
    replaces: Sequence[int] = (),
    absorbed: Collection[int] = (),
    definition: Table | None = None,
) -> BatchEntry:
    """Write `batch-<number>.parquet` durably and return its manifest entry.

    :param table: rows of `schema.file`, sorted by key, dead ones included, `_seq` and `_deleted` last.
    :param filters: the Bloom filters it gets.
    :param absorbed: every batch whose rows are in here, or were in what it replaces (`Footer`).
    :param definition: the table as it is, for the footer.
    """
    name = paths.batch_name(number)
    path = folder / name
    entry = _entry_of(table, number, schema)
    of = (scope.table_id, scope.owner, number, entry.uuid, schema.version, epoch, flushed_seq, tuple(replaces))
    facts = {**batch_to_json(entry), "key_filter_rate": filters.rate if filters.key else None}
    if absorbed:
        facts["absorbed"] = _ranges(absorbed)
    footer = Footer(*of, facts, None if definition is None else table_to_json(definition))
    metadata = {FOOTER_KEY: footer.to_bytes()}
    file_schema = schema.file.with_metadata(metadata)
    with objects.file_errors(path), objects.discarded_on_error(path):
        written = objects.temporary(path)
        _write(written, table.cast(file_schema), schema, style, filters)
        found = _filters(written, number, table, schema, filters)
        whole = (written.stat().st_size, objects.digest(written))
        failpoints.hit("batch.written")
        objects.publish(path)
    failpoints.hit("batch.published")
    return replace(entry, size_bytes=whole[0], xxh3=whole[1], filters=found)


def _ranges(numbers: Collection[int]) -> list[list[int]]:
    """[first, last] of each run of consecutive numbers."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def _entry_of(table: pa.Table, number: int, schema: TableSchema) -> BatchEntry:
    """The manifest entry of a batch that is yet to be written: without size and checksum."""
    seqs = pc.min_max(table.column(SEQ)).as_py()
    return BatchEntry(
        number=number,
        file=paths.batch_name(number),
        uuid=uuid.uuid4().hex,
        min_seq=seqs["min"] or 0,
        max_seq=seqs["max"] or 0,
        rows=table.num_rows,
        size_bytes=0,
        schema_version=schema.version,
        bounds={c.id: bounds_of(table.column(c.name), c.type) for c in schema.columns},
        tombstones=pc.sum(table.column(DELETED)).as_py() or 0,
    )


def _filters(written: Path, number: int, table: pa.Table, schema: TableSchema, style: FilterStyle) -> tuple[FilterRef, ...]:
    """Where the filters of a batch lie that has just been written; its key filter is written here."""
    refs: list[FilterRef] = []
    if style.columns:
        of_columns = bloom.column_filters(written, pq.read_metadata(written))
        refs += [] if of_columns is None else [replace(of_columns, file=paths.batch_name(number))]
    if style.key and table.num_rows:
        refs.append(bloom.write_key_filter(written.parent, number, table, schema, style.rate))
    return tuple(refs)


def _write(path: Path, table: pa.Table, schema: TableSchema, style: BatchStyle, filters: FilterStyle) -> None:
    key = [pq.SortingColumn(schema.columns.index(c)) for c in schema.key_columns]
    options = bloom.parquet_options(table, schema, filters, style.row_group_rows)
    pq.write_table(
        table,
        path,
        row_group_size=style.row_group_rows,
        compression=style.compression,
        compression_level=1 if style.compression == "zstd" else None,
        sorting_columns=key or None,
        bloom_filter_options=options or None,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=True,
    )


def sort_by_key(table: pa.Table, schema: TableSchema) -> tuple[pa.Table, np.ndarray]:
    """The rows in key order, and for each the row it was before, int64[n]."""
    columns = [combined(table.column(c.name)) for c in schema.key_columns]
    if len(columns) == 1:
        order = pc.sort_indices(columns[0])
    else:
        keys = pa.table(columns, names=[c.name for c in schema.key_columns])
        order = pc.sort_indices(keys, sort_keys=[(n, "ascending") for n in keys.schema.names])
    before = order.to_numpy(zero_copy_only=False).astype(np.int64)
    if (before == np.arange(len(before))).all():
        return table, before
    return table.take(order), before


class BatchReader:
    """Reads batch files by Arrow, with their footers cached by the file's identity."""

    def __init__(self, footers: int = 4096) -> None:
        self._lock = threading.Lock()
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._bounds: OrderedDict[tuple[str, int, str], list[tuple[Any, Any]]] = OrderedDict()
        self._limit = footers
        self._verified: dict[str, tuple[int, int, int]] = {}

    def verify(self, path: Path, entry: BatchEntry) -> None:
        """Make sure that a file is, byte for byte, the one that the manifest names; its bytes are read once, and again when
        the file was touched since.  Parquet's own checksums leave out footers and filters, and engines do not look at them.

        :raises DataCorrupted: it is missing or was altered.
        """
        with objects.held(path):
            self._verify(path, entry)

    def _verify(self, path: Path, entry: BatchEntry) -> None:
        stamp = objects.stamp(path)
        if stamp is not None and self._verified.get(entry.uuid) == stamp:
            return
        if stamp is None:
            raise DataCorrupted(f"{path.name} is missing; restore it from a backup")
        if entry.xxh3 and (stamp[1] != entry.size_bytes or objects.digest(path) != entry.xxh3):
            raise DataCorrupted(f"{path.name} is damaged or not the file that the manifest names; restore it from a backup")
        if len(self._verified) >= _VERIFIED:
            self._verified.clear()
        self._verified[entry.uuid] = stamp

    def metadata(self, path: Path, identity: str) -> pq.FileMetaData:
        with self._lock:
            found = self._footers.get(identity)
            if found is not None:
                self._footers.move_to_end(identity)
                return found
        found = read_metadata(path)
        if Footer.from_metadata(found, path.name).uuid != identity:
            raise DataCorrupted(f"{path.name} is not the file that the manifest names; restore it from a backup")
        with self._lock:
            self._footers[identity] = found
            while len(self._footers) > self._limit:
                self._footers.popitem(last=False)
        return found

    def columns(
        self,
        path: Path,
        entry: BatchEntry,
        schema: TableSchema,
        names: Sequence[str],
        *,
        groups: Sequence[int] | None = None,
        verify: bool = False,
    ) -> pa.Table:
        """Columns of a batch under the current schema (by field id; system columns by name), in order.

        :param groups: row groups to read; all when None.
        :param verify: compare every page with its checksum.
        """
        self.verify(path, entry)
        metadata = self.metadata(path, entry.uuid)
        wanted = _sources(metadata, schema, names)
        with objects.held(path), damaged_batch(path):
            file = pq.ParquetFile(path, metadata=metadata, memory_map=True, page_checksum_verification=verify)
            chosen = range(metadata.num_row_groups) if groups is None else groups
            table = file.read_row_groups(list(chosen), columns=list(wanted.values()), use_threads=False)
        columns = [_under(schema, name, table, wanted.get(name)) for name in names]
        return pa.table(columns, names=list(names))

    def small(
        self, path: Path, entry: BatchEntry, schema: TableSchema, names: Sequence[str], encoded: int, decoded: int
    ) -> pa.Table | None:
        """Columns of a whole batch, as `columns` gives them; None if it is larger than some bytes in the file, or in
        memory than others.  No more than those are ever used to find out.
        """
        self.verify(path, entry)
        metadata = self.metadata(path, entry.uuid)
        size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if size > encoded:
            return None
        wanted = _sources(metadata, schema, names)
        pieces: list[pa.RecordBatch] = []
        held = 0
        with objects.held(path), damaged_batch(path):
            file = pq.ParquetFile(path, metadata=metadata, memory_map=True)
            # No row is larger than all the file decoded once.
            rows = max(1, min(entry.rows, decoded // max(1, size)))
            for piece in file.iter_batches(rows, columns=list(wanted.values()), use_threads=False):
                held += piece.nbytes
                if held > decoded:
                    return None
                pieces.append(piece)
            table = pa.Table.from_batches(pieces, file.schema_arrow if not pieces else pieces[0].schema).combine_chunks()
        return pa.table([_under(schema, name, table, wanted.get(name)) for name in names], names=list(names))

    def groups_of(self, path: Path, entry: BatchEntry, column: Column, value: Comparable) -> list[int]:
        """The row groups whose bounds of a column admit a value; all where the footer has no bounds for it."""
        self.verify(path, entry)
        bounds = self._group_bounds(path, entry, column)
        return [i for i, (low, high) in enumerate(bounds) if low is None or (low <= value <= high)]

    def _group_bounds(self, path: Path, entry: BatchEntry, column: Column) -> list[tuple[Any, Any]]:
        key = (entry.uuid, column.id, column.type.name)
        with self._lock:
            found = self._bounds.get(key)
        if found is None:
            found = _read_group_bounds(self.metadata(path, entry.uuid), column)
            with self._lock:
                self._bounds[key] = found
                while len(self._bounds) > self._limit:
                    self._bounds.popitem(last=False)
        return found

    def start_of(self, path: Path, entry: BatchEntry, group: int) -> int:
        """Row number in the batch of the first row of a row group."""
        metadata = self.metadata(path, entry.uuid)
        return sum(metadata.row_group(i).num_rows for i in range(group))

    def places_of(self, path: Path, entry: BatchEntry, groups: Sequence[int]) -> np.ndarray:
        """Row numbers in the batch of the rows of some row groups, int64[n]."""
        metadata = self.metadata(path, entry.uuid)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        starts = np.concatenate(([0], np.cumsum(sizes)))
        return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in groups])


def _read_group_bounds(metadata: pq.FileMetaData, column: Column) -> list[tuple[Any, Any]]:
    """(low, high) of each row group in comparable form; (None, None) where nothing certain is known."""
    stored = stored_names(metadata).get(column.id)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if stored is None or stored not in names:
        return [(None, None)] * metadata.num_row_groups
    place = names.index(stored)
    type_ = metadata.schema.to_arrow_schema().field(stored).type
    out: list[tuple[Any, Any]] = []
    for i in range(metadata.num_row_groups):
        statistics = metadata.row_group(i).column(place).statistics
        known = statistics is not None and statistics.has_min_max and type_ == column.type.storage
        out.append((statistics.min_raw, statistics.max_raw) if known and column.type.kind in _RAW_KINDS else (None, None))
    return out


def _sources(metadata: pq.FileMetaData, schema: TableSchema, names: Sequence[str]) -> dict[str, str]:
    """What columns are called in the file, without those that it lacks."""
    stored = stored_names(metadata)
    wanted: dict[str, str] = {}
    for name in names:
        column = schema.find(name)
        source = name if column is None else stored.get(column.id)
        if source is not None:
            wanted[name] = source
    return wanted


def _under(schema: TableSchema, name: str, table: pa.Table, source: str | None) -> pa.ChunkedArray:
    column = schema.find(name)
    if source is None:
        assert column is not None
        return pa.chunked_array([column.fill_array(table.num_rows)])
    values = table.column(source)
    return values if column is None or values.type == column.type.storage else values.cast(column.type.storage)


def stored_names(metadata: pq.FileMetaData) -> dict[int, str]:
    """Field id -> the column's name in the file."""
    return {int(f.metadata[FIELD_ID]): f.name for f in metadata.schema.to_arrow_schema() if f.metadata}


def read_metadata(path: Path) -> pq.FileMetaData:
    with objects.held(path), damaged_batch(path):
        return pq.read_metadata(path)


class damaged_batch:  # noqa: N801 - reads as a phrase at its use
    """Turn what Arrow says of a bad or missing file into an error that names the batch (never its folder)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataCorrupted(f"{self._path.name} is missing; restore it from a backup") from error
        if isinstance(error, (pa.ArrowException, OSError)):
            raise DataCorrupted(f"{self._path.name} is damaged; restore it from a backup") from error
