"""The manifest of one scope: which batches count, what they hold, and how far the hot log has been flushed.

RocksDB holds the committed manifest; `manifest.json` beside the batches is its published copy.  A change is a value, a
`ManifestEdit`, applied in one place, and what comes out is checked before it is committed and after it is read:

    I1  batch numbers are unique and none is above `max_batch`, which never falls
    I2  min_seq ≤ max_seq ≤ flushed_seq for every batch, and a batch has at least as many rows as dead or deleted ones
    I3  version grows by one with each edit; flushed_seq never falls
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import zstandard

from flightkalam.cold import bounds as bounds_
from flightkalam.cold.bounds import Bounds, ColumnBounds, Mask, column_bounds, may_match
from flightkalam.errors import DataCorrupted, InternalError
from flightkalam.model.ids import Scope
from flightkalam.model.predicate import Predicate
from flightkalam.model.schema import SEQ_ID, TableSchema

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class VectorRef:
    """Where a batch's deletion vector lies: file, place, checksum and cardinality (T-8)."""

    file: str
    offset: int
    length: int
    xxh64: str
    cardinality: int


@dataclass(frozen=True, slots=True)
class FilterRef:
    """Where Bloom filters of a batch lie: file, place and checksum.

    :param columns: column id and physical type in the file, in the order of the filters (`cold.bloom`).
    """

    file: str
    offset: int
    length: int
    xxh64: str
    columns: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One Parquet batch.

    :param uuid: identity of the file's bytes, the key of every cache.
    :param bounds: per column id.
    :param tombstones: rows with `_deleted`.
    :param dead: deletion vector: rows superseded by versions at or below the manifest's flushed_seq.
    :param filters: its Bloom filters.
    """

    number: int
    file: str
    uuid: str
    min_seq: int
    max_seq: int
    rows: int
    size_bytes: int
    schema_version: int
    bounds: Mapping[int, Bounds]
    tombstones: int = 0
    status: str = "active"
    dead: VectorRef | None = None
    filters: tuple[FilterRef, ...] = ()

    @property
    def all_superseded(self) -> bool:
        """Whether the vector alone says that nobody needs the batch."""
        return self.dead is not None and self.dead.cardinality == self.rows


@dataclass(frozen=True)
class Manifest:
    """An immutable version of a scope's manifest."""

    scope: Scope
    version: int = 0
    generated_at_us: int = 0
    max_batch: int = -1
    flushed_seq: int = 0
    batches: tuple[BatchEntry, ...] = ()

    @cached_property
    def by_number(self) -> dict[int, int]:
        """Batch number -> place in `batches`."""
        return {b.number: i for i, b in enumerate(self.batches)}

    @cached_property
    def rows(self) -> int:
        return sum(b.rows for b in self.batches)

    @cached_property
    def _columns(self) -> dict[tuple[int, int], ColumnBounds]:
        return {}

    def column(self, column_id: int, since: int = 0) -> ColumnBounds:
        """The column's bounds over all batches; stacked once per manifest version.

        :param since: bounds of batches with an older schema version are not comparable (`Column.bounds_since`).
        """
        found = self._columns.get((column_id, since))
        if found is None:
            rows = np.array([b.rows for b in self.batches], np.int64)
            if column_id == SEQ_ID:
                known: list[Bounds | None] = [Bounds(b.min_seq, b.max_seq, 0) for b in self.batches]
            else:
                known = [b.bounds.get(column_id) if b.schema_version >= since else None for b in self.batches]
            found = self._columns[column_id, since] = column_bounds(known, rows)
        return found

    def may_match(self, predicate: Predicate, schema: TableSchema) -> Mask:
        """Which batches may hold a row that satisfies the predicate, bool[batches]."""
        columns = {}
        for column_id in _columns_of(predicate):
            column = schema.by_id.get(column_id)
            columns[column_id] = self.column(column_id, column.bounds_since if column else 0)
        return may_match(predicate, columns, len(self.batches))


def _columns_of(predicate: Predicate) -> set[int]:
    parts = getattr(predicate, "parts", None)
    if parts is not None:
        return set().union(*(_columns_of(q) for q in parts))
    column = getattr(predicate, "column", None)
    return set() if column is None else {column}


@dataclass(frozen=True)
class ManifestEdit:
    """A change of a manifest.

    :param add: new batches, numbers assigned by whoever installs.
    :param remove: numbers of batches that no longer count.
    :param vectors: new deletion vectors per batch number.
    :param flushed_seq: the hot log up to here is in the batches.
    """

    add: tuple[BatchEntry, ...] = ()
    remove: frozenset[int] = frozenset()
    vectors: Mapping[int, VectorRef] = field(default_factory=dict)
    flushed_seq: int | None = None

    def apply(self, old: Manifest, now_us: int) -> Manifest:
        kept = [b for b in old.batches if b.number not in self.remove]
        kept = [replace(b, dead=self.vectors[b.number]) if b.number in self.vectors else b for b in kept]
        new = Manifest(
            scope=old.scope,
            version=old.version + 1,
            generated_at_us=now_us,
            max_batch=max([old.max_batch, *(b.number for b in self.add)]),
            flushed_seq=old.flushed_seq if self.flushed_seq is None else self.flushed_seq,
            batches=(*kept, *self.add),
        )
        if new.flushed_seq < old.flushed_seq:
            raise InternalError("a manifest edit would lower flushed_seq")
        problem = broken_invariant(new)
        if problem:
            raise InternalError(f"a manifest edit would break an invariant: {problem}")
        return new


def broken_invariant(m: Manifest) -> str | None:
    """The first invariant (see the top of this file) that does not hold, in words."""
    numbers = [b.number for b in m.batches]
    if len(set(numbers)) != len(numbers):
        return "two batches have one number"
    if numbers and max(numbers) > m.max_batch:
        return f"batch {max(numbers)} is above max_batch {m.max_batch}"
    for b in m.batches:
        if b.rows and not b.min_seq <= b.max_seq <= m.flushed_seq:
            return f"batch {b.number}: _seq {b.min_seq}..{b.max_seq} against flushed_seq {m.flushed_seq}"
        if b.tombstones > b.rows or (b.dead is not None and not 0 < b.dead.cardinality <= b.rows):
            return f"batch {b.number}: more dead or deleted rows than rows"
    return None


# ---------------------------------------------------------------------------------------------------------------
# JSON


def to_json(m: Manifest, table: str) -> dict[str, Any]:
    """The manifest as SEMANTICS §4 shows it."""
    return {
        "format_version": FORMAT_VERSION,
        "table": table,
        "table_id": m.scope.table_id,
        "scope": m.scope.owner,
        "version": m.version,
        "generated_at": m.generated_at_us,
        "max_batch": m.max_batch,
        "flushed_seq": m.flushed_seq,
        "batches": [_batch_to_json(b) for b in m.batches],
    }


def _batch_to_json(b: BatchEntry) -> dict[str, Any]:
    record: dict[str, Any] = {
        "batch_number": b.number,
        "file_path": b.file,
        "uuid": b.uuid,
        "min_seq": b.min_seq,
        "max_seq": b.max_seq,
        "row_count": b.rows,
        "tombstones": b.tombstones,
        "size_bytes": b.size_bytes,
        "schema_version": b.schema_version,
        "status": b.status,
        "columns": {str(i): bounds_.to_json(v) for i, v in b.bounds.items()},
    }
    if b.dead is not None:
        d = b.dead
        record["deletion_vector"] = [d.file, d.offset, d.length, d.xxh64, d.cardinality]
    if b.filters:
        record["filters"] = [[f.file, f.offset, f.length, f.xxh64, [list(c) for c in f.columns]] for f in b.filters]
    return record


def from_json(record: dict[str, Any]) -> Manifest:
    """:raises DataCorrupted: a record that breaks an invariant or has another format."""
    try:
        if record["format_version"] != FORMAT_VERSION:
            raise DataCorrupted(f"manifest format {record['format_version']} is not known to this release; upgrade")
        m = Manifest(
            scope=Scope(record["table_id"], record["scope"]),
            version=record["version"],
            generated_at_us=record["generated_at"],
            max_batch=record["max_batch"],
            flushed_seq=record["flushed_seq"],
            batches=tuple(_batch_from_json(b) for b in record["batches"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise DataCorrupted(f"a manifest cannot be read ({type(e).__name__}: {e})") from e
    problem = broken_invariant(m)
    if problem:
        raise DataCorrupted(f"a manifest contradicts itself: {problem}")
    return m


def _batch_from_json(r: dict[str, Any]) -> BatchEntry:
    vector = r.get("deletion_vector")
    return BatchEntry(
        number=r["batch_number"],
        file=r["file_path"],
        uuid=r["uuid"],
        min_seq=r["min_seq"],
        max_seq=r["max_seq"],
        rows=r["row_count"],
        size_bytes=r["size_bytes"],
        schema_version=r["schema_version"],
        bounds={int(i): bounds_.from_json(v) for i, v in r["columns"].items()},
        tombstones=r["tombstones"],
        status=r["status"],
        dead=VectorRef(*vector) if vector else None,
        filters=tuple(_filter_from_json(*f) for f in r.get("filters", ())),
    )


def _filter_from_json(file: str, offset: int, length: int, xxh64: str, columns: list[list[Any]]) -> FilterRef:
    return FilterRef(file, offset, length, xxh64, tuple((int(i), str(physical)) for i, physical in columns))


def pack(record: dict[str, Any]) -> bytes:
    """JSON, compressed with a checksum: how manifests lie in the key-value store."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(text)


def unpack(data: bytes) -> dict[str, Any]:
    """:raises DataCorrupted: bytes that do not match their checksum."""
    try:
        return json.loads(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, ValueError) as e:
        raise DataCorrupted(f"a cached manifest does not match its checksum ({e})") from e
