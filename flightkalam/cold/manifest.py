"""The manifest of one scope: which batches count, what they hold, and how far the hot log has been flushed.

RocksDB holds the committed manifest; `manifest.json` beside the batches is its published copy.  A change is a value, a
`ManifestEdit`, applied in one place, and what comes out is checked before it is committed and after it is read:

    I1  batch numbers are unique and none is above `max_batch`, which never falls
    I2  min_seq ≤ max_seq ≤ flushed_seq for every batch, and a batch has at least as many rows as dead or deleted ones
    I3  version grows by one with each edit; flushed_seq never falls
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from flightkalam.cold.bounds import Bounds, ColumnBounds, Mask, column_bounds, may_match
from flightkalam.errors import InternalError
from flightkalam.model.ids import Scope
from flightkalam.model.predicate import Predicate, columns_of
from flightkalam.model.schema import SEQ_ID, TableSchema

STATUSES = frozenset(("active", "compacting", "archived"))


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
    :param filters: its Bloom filters.
    :param xxh3: checksum of the whole file; empty when unknown.
    :param dead: deletion vector: rows superseded by versions at or below the manifest's flushed_seq.
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
    xxh3: str = ""

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

    def take_columns(self, old: Manifest, added: tuple[BatchEntry, ...]) -> None:
        """Take over what `old` has stacked, and stack only the added batches behind it."""
        more = Manifest(self.scope, batches=added)
        for (column_id, since), known in old._columns.items():
            tail = more.column(column_id, since)
            if known.low.dtype == tail.low.dtype or not tail.bounded.any():
                self._columns[column_id, since] = _joined(known, tail)

    def may_match(self, predicate: Predicate, schema: TableSchema) -> Mask:
        """Which batches may hold a row that satisfies the predicate, bool[batches]."""
        columns = {}
        for column_id in columns_of(predicate):
            column = schema.by_id.get(column_id)
            columns[column_id] = self.column(column_id, column.bounds_since if column else 0)
        return may_match(predicate, columns, len(self.batches))


def _joined(known: ColumnBounds, tail: ColumnBounds) -> ColumnBounds:
    both = []
    for f in fields(ColumnBounds):
        a, b = getattr(known, f.name), getattr(tail, f.name)
        both.append(np.concatenate([a, b if a.dtype == b.dtype else np.zeros(len(b), a.dtype)]))
    return ColumnBounds(*both)


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

    @property
    def only_adds(self) -> bool:
        return not self.remove and not self.vectors

    def apply(self, old: Manifest, now_us: int) -> Manifest:
        new = Manifest(
            scope=old.scope,
            version=old.version + 1,
            generated_at_us=now_us,
            max_batch=max([old.max_batch, *(b.number for b in self.add)]),
            flushed_seq=old.flushed_seq if self.flushed_seq is None else self.flushed_seq,
            batches=(*self._kept(old), *self.add),
        )
        if new.flushed_seq < old.flushed_seq:
            raise InternalError("a manifest edit would lower flushed_seq")
        # What an edit does not touch has been checked already: a flush must not cost more as the table grows.
        fresh = bool(self.add) and self.only_adds and all(b.number > old.max_batch for b in self.add)
        problem = broken_invariant(replace(new, batches=self.add) if fresh else new)
        if problem:
            raise InternalError(f"a manifest edit would break an invariant: {problem}")
        if self.only_adds:
            new.take_columns(old, self.add)
        return new

    def _kept(self, old: Manifest) -> tuple[BatchEntry, ...]:
        if self.only_adds:
            return old.batches
        kept = (b for b in old.batches if b.number not in self.remove)
        return tuple(replace(b, dead=self.vectors[b.number]) if b.number in self.vectors else b for b in kept)


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
        if b.status not in STATUSES:
            return f"batch {b.number}: unknown status {b.status!r}"
        if b.tombstones > b.rows or (b.dead is not None and not 0 < b.dead.cardinality <= b.rows):
            return f"batch {b.number}: more dead or deleted rows than rows"
    return None
