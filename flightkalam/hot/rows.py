"""The hot rows of one scope in memory.

Rows stand in commit order, so `_seq` ascends; row numbers only ever grow.  Writers append at the head, under the scope's
lock; readers take a cut at a watermark and need no lock, because nothing below the cut changes:

    row          0    1    2    3    4    5
    _seq        10   11   20   30   31   40        appended in commit order
    mark             (row 1, by 30)    (row 2, by 40)
                                  ▲ watermark 31: rows 0..4, and the marks by 30; row 2 is still visible

A mark that is set is never unset.  Arrays grow by copying, and a reader that holds the old array holds all it may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from flightkalam.hot.log import COLD_MARK, HOT_MARK
from flightkalam.model.keys import I64, U64, KeyIndex, Probe, combined, is_exact, key_hashes, pairs, same_keys
from flightkalam.model.schema import DELETED, SEQ, TableSchema

_FAN_IN = 16  # so many segments of one size class become one of the next
_MERGE_LIMIT = 262_144  # rows; larger segments stay as they are
ROW_BYTES = 64  # what a row takes beside its values: ids, marks, key index
_SMALL = 64  # commits of fewer rows are indexed in a dictionary
_DICT_LIMIT = 8_192


class Grow:
    """An append-only numpy array."""

    __slots__ = ("data", "n")

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 16) -> None:
        self.data = np.zeros(capacity, dtype)
        self.n = 0

    def extend(self, values: npt.NDArray[np.generic]) -> None:
        need = self.n + len(values)
        if need > len(self.data):
            grown = np.zeros(max(need, 2 * len(self.data)), self.data.dtype)
            grown[: self.n] = self.data[: self.n]
            self.data = grown
        self.data[self.n : need] = values
        self.n = need

    def values(self) -> npt.NDArray[Any]:
        n = self.n  # before data: data is replaced only by a longer one
        return self.data[:n]


@dataclass(slots=True)
class Segment:
    """Rows that arrived together, or were merged because they were few.

    :param start: row number of the first row.
    :param table: columns named by field id, and `_deleted` when a row is a tombstone.
    :param source: name of the segment file the table is mapped from, None when it lies in memory.
    """

    start: int
    table: pa.Table
    schema_version: int
    size_class: int = 0
    source: str | None = None
    _conformed: tuple[int, pa.Table] | None = field(default=None, repr=False)

    @property
    def end(self) -> int:
        return self.start + self.table.num_rows

    def conformed(self, schema: TableSchema) -> pa.Table:
        """The rows under `schema`: its names, its types, fills for columns added since (T-32); and `_deleted`."""
        cached = self._conformed
        if cached is not None and cached[0] == schema.version:
            return cached[1]
        n = self.table.num_rows
        names = self.table.schema.names
        columns = []
        for column in schema.columns:
            if str(column.id) in names:
                values = self.table.column(str(column.id))
                columns.append(values if values.type == column.type.storage else values.cast(column.type.storage))
            else:
                columns.append(pa.chunked_array([column.fill_array(n)], column.type.storage))
        deleted = self.table.column(DELETED) if DELETED in names else pa.chunked_array([_false(n)])
        table = pa.Table.from_arrays(
            [*columns, deleted], schema=schema.storage.append(pa.field(DELETED, pa.bool_(), nullable=False))
        )
        self._conformed = (schema.version, table)
        return table

    @property
    def has_tombstones(self) -> bool:
        return DELETED in self.table.schema.names


def _false(n: int) -> pa.Array:
    return pa.repeat(pa.scalar(False), n)


@dataclass(frozen=True)
class HotCut:
    """What a reader at a watermark sees of the hot rows.

    :param table: the live rows with `_seq` and `_deleted`, tombstones included.
    :param tombstones: how many of them are tombstones.
    :param total: rows at the watermark, dead ones included.
    """

    table: pa.Table
    tombstones: int
    total: int


@dataclass(frozen=True, slots=True)
class _CutAt:
    """What a cut depends on: the rows and the marks at its watermark, and the schema."""

    n: int
    marks: int
    version: int

    def before(self, other: _CutAt) -> bool:
        return self.version == other.version and self.n <= other.n and self.marks <= other.marks


@dataclass(frozen=True, slots=True)
class _Piece:
    """One segment's part of a cut.

    :param rows: of the segment, live or not, at the cut's watermark.
    """

    segment: Segment
    rows: int
    table: pa.Table
    tombstones: int


@dataclass(frozen=True, slots=True)
class _CachedCut:
    at: _CutAt
    cut: HotCut
    pieces: dict[int, _Piece]


@dataclass(frozen=True, slots=True)
class FoundAhead:
    """The pairs (probe, row) that hold one key among the first n rows, whatever became of the rows since."""

    hot: HotRows
    n: int
    probes: I64
    rows: I64


@dataclass(frozen=True, slots=True)
class HotIndex:
    """The keys of the first n rows as they were indexed at one moment.  Searching it needs no lock."""

    hot: HotRows
    n: int
    parts: tuple[KeyIndex, ...]

    def find(self, probe: Probe, schema: TableSchema) -> FoundAhead:
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for part in self.parts:
            probes, rows = part.probe(probe.ordered, probe.order)
            if len(rows) and not is_exact(probe.columns):
                same = same_keys([c.take(pa.array(probes)) for c in probe.columns], self.hot.key_at(rows, schema))
                probes, rows = probes[same], rows[same]
            found.append((probes, rows))
        return FoundAhead(self.hot, self.n, np.concatenate([p for p, _ in found]), np.concatenate([r for _, r in found]))


_SEQ_FIELD = pa.field(SEQ, pa.int64(), nullable=False)


def _cut_schema(schema: TableSchema) -> pa.Schema:
    return schema.storage.append(pa.field(DELETED, pa.bool_(), nullable=False)).append(_SEQ_FIELD)


class HotRows:
    """The hot rows of one scope.  One writer at a time; any number of readers."""

    def __init__(self) -> None:
        self.ids = Grow(np.int64)  # _seq per row
        self.superseded_by = Grow(np.int64)  # per row: _seq of the superseder, 0 while live
        self.marks = Grow(np.dtype([("row", "<i8"), ("by", "<i8")]))  # in commit order
        self.cold_marks = Grow(np.dtype([("batch", "<i8"), ("row", "<i8"), ("by", "<i8")]))
        self.segments: tuple[Segment, ...] = ()
        self.entries = Grow(np.int64)  # first _seq of each log entry, in order
        self.last_removal = 0  # _seq of the last commit that took rows away
        self._recent: dict[int, list[int]] = {}
        self._indexes: list[KeyIndex] = []
        self._indexed = 0  # rows below have been indexed
        self._cut: _CachedCut | None = None
        self._dead_cold: tuple[int, dict[int, BitMap]] = (0, {})

    # -- writing, under the scope's lock -----------------------------------------------------------------------

    @property
    def n(self) -> int:
        return self.ids.n

    @property
    def nbytes(self) -> int:
        """Memory held, mapped files left out."""
        return sum(s.table.nbytes for s in self.segments if s.source is None) + self.n * ROW_BYTES

    def append(self, table: pa.Table, ids: I64, schema_version: int, source: str | None = None) -> int:
        """Add rows at the head and return the row number of the first."""
        start = self.n
        size_class = 99 if source is not None or len(ids) > _MERGE_LIMIT else 0
        segments = (*self.segments, Segment(start, table, schema_version, size_class, source))
        # Rows first, then their ids: a reader finds its cut in the ids and then the rows below it.
        self.segments = _merged(segments)
        self.superseded_by.extend(np.zeros(len(ids), np.int64))
        self.ids.extend(ids)
        return start

    def mark_hot(self, rows: I64, by: I64) -> None:
        """Rows `rows` are superseded by the versions with `_seq` `by`."""
        pairs = np.empty(len(rows), self.marks.data.dtype)
        pairs["row"], pairs["by"] = rows, by
        self.superseded_by.data[rows] = by
        self.marks.extend(pairs)

    def mark_cold(self, batches: I64, rows: I64, by: I64) -> None:
        """Rows of cold batches are superseded."""
        triples = np.empty(len(rows), self.cold_marks.data.dtype)
        triples["batch"], triples["row"], triples["by"] = batches, rows, by
        self.cold_marks.extend(triples)

    def with_cold_marks(self, marks: npt.NDArray[np.void]) -> HotRows:
        """The same rows with other marks on cold rows, for a layout whose batches are others.

        Everything else is shared with this object, which from now on only its old readers use: they read below their
        watermark, where nothing changes.
        """
        other = HotRows()
        other.ids, other.superseded_by, other.marks = self.ids, self.superseded_by, self.marks
        other.segments, other._recent = self.segments, self._recent
        other.entries, other.last_removal = self.entries, self.last_removal
        other._indexes, other._indexed = self._indexes, self._indexed
        other.cold_marks.extend(marks)
        return other

    def remove(self, rows: I64, by: int, entries: I64) -> None:
        """Rows leave for good with the commit `by`, whose log then has these entries.  They stay here, superseded, for readers
        from before, until `kept` leaves them out."""
        self.mark_hot(rows, np.full(len(rows), by, np.int64))
        self.last_removal = by
        self.entries = Grow(np.int64)
        self.entries.extend(entries)

    def kept(self, alive: npt.NDArray[np.bool_]) -> HotRows:
        """Some of the rows, in memory of their own.  Rows of a file that stay whole stay mapped."""
        other, ids = HotRows(), self.ids.values()
        for s in self.segments:
            mask = alive[s.start : s.end]
            if mask.all():
                other.append(s.table, ids[s.start : s.end], s.schema_version, s.source)
            elif mask.any():
                other.append(s.table.filter(pa.array(mask)), ids[s.start : s.end][mask], s.schema_version)
        first = int(other.ids.data[0]) if other.n else 0
        entries = self.entries.values()
        other.entries.extend(entries[np.searchsorted(entries, first, "right") - 1 :] if other.n else entries[:0])
        other.last_removal = self.last_removal
        return other

    def rows_of(self, ids: I64) -> I64:
        """Row numbers of `_seq` values that are here."""
        return np.searchsorted(self.ids.values(), ids).astype(np.int64)

    # -- keys, under the scope's lock --------------------------------------------------------------------------

    def find(
        self, hashes: U64, order: I64, key: Sequence[pa.Array], schema: TableSchema, ahead: FoundAhead | None = None
    ) -> I64:
        """For each probe the row of its key's live version, -1 when none is hot, int64[n].

        :param hashes: hashes of the probes, ascending; `order` gives the probe number of each.
        :param key: the probes' key columns, in probe order.
        :param ahead: what was found of them in a part of the rows, before the lock.
        """
        found = np.full(len(hashes), -1, np.int64)
        if ahead is None or ahead.hot is not self:
            self._index_new(schema)
            candidates = self._candidates(hashes, order)
        else:
            live = self.superseded_by.data[ahead.rows] == 0
            found[ahead.probes[live]] = ahead.rows[live]
            candidates = self._among_new(ahead.n, hashes, order, schema)
        for probes, rows in candidates:
            live = self.superseded_by.data[rows] == 0
            probes, rows = probes[live], rows[live]
            if len(rows) and not is_exact(key):
                same = same_keys([c.take(pa.array(probes)) for c in key], self.key_at(rows, schema))
                probes, rows = probes[same], rows[same]
            found[probes] = rows
        return found

    def index(self, schema: TableSchema) -> HotIndex:
        """What is indexed of the keys, for a search without the lock."""
        self._index_new(schema)
        recent = [self._recent_index()] if self._recent else []
        return HotIndex(self, self._indexed, (*self._indexes, *recent))

    def _among_new(self, start: int, hashes: U64, order: I64, schema: TableSchema) -> list[tuple[I64, I64]]:
        """Candidates among the rows from `start` on: few, so they are looked for among the probes."""
        if start == self.n:
            return []
        new = key_hashes(self.key_range(start, self.n, schema))
        by_hash = np.argsort(new)
        rows, places = pairs(hashes, new[by_hash], by_hash + start)
        return [(order[places], rows)]

    def _candidates(self, hashes: U64, order: I64) -> list[tuple[I64, I64]]:
        found = [index.probe(hashes, order) for index in self._indexes]
        if self._recent:
            if len(hashes) <= 4 * len(self._recent):
                get = self._recent.get
                hits = [(int(p), r) for h, p in zip(hashes.tolist(), order, strict=True) for r in get(h, ())]
                if hits:
                    both = np.array(hits, np.int64)
                    found.append((both[:, 0], both[:, 1]))
            else:
                found.append(self._recent_index().probe(hashes, order))
        return [p for p in found if len(p[0])]

    def _recent_index(self) -> KeyIndex:
        rows = [(h, r) for h, rs in self._recent.items() for r in rs]
        hashes = np.array([h for h, _ in rows], np.uint64)
        numbers = np.array([r for _, r in rows], np.int64)
        built = KeyIndex.build(hashes)
        return KeyIndex(built.hashes, numbers[built.rows])

    def index_newest(self, probe: Probe) -> None:
        """Take a writer's own probe of the rows that it has just added as their index: nobody has to hash them again."""
        start = self.n - len(probe)
        if self._indexed != start:
            return
        if len(probe) < _SMALL:
            hashes = np.empty_like(probe.ordered)
            hashes[probe.order] = probe.ordered
            self._index_small(hashes)
        else:
            self._indexes.append(probe.index(start))
            self._compact_indexes()
        self._indexed = self.n

    def _index_new(self, schema: TableSchema) -> None:
        if self._indexed == self.n:
            return
        columns = self.key_range(self._indexed, self.n, schema)
        hashes = key_hashes(columns)
        if len(hashes) < _SMALL:
            self._index_small(hashes)
        else:
            self._indexes.append(KeyIndex.build(hashes, self._indexed))
            self._compact_indexes()
        self._indexed = self.n

    def _index_small(self, hashes: U64) -> None:
        dead = self.superseded_by.data
        for i, h in enumerate(hashes.tolist(), start=self._indexed):
            rows = self._recent.get(h)
            if rows is None:
                self._recent[h] = [i]
            else:
                self._recent[h] = [*(r for r in rows if dead[r] == 0), i]
        if len(self._recent) > _DICT_LIMIT:
            self._indexes.append(self._recent_index())
            self._recent = {}
            self._compact_indexes()

    def _compact_indexes(self) -> None:
        """Keep the indexes' sizes geometric: a probe meets O(log n) of them."""
        while len(self._indexes) >= 4 and len(self._indexes[-4]) <= 4 * sum(len(i) for i in self._indexes[-3:]):
            self._indexes[-4:] = [KeyIndex.merge(self._indexes[-4:])]

    def key_at(self, rows: I64, schema: TableSchema) -> list[pa.Array]:
        """The key columns of the given rows, in their order."""
        return self.take(rows, schema, [c.name for c in schema.key_columns])

    def key_range(self, start: int, end: int, schema: TableSchema) -> list[pa.Array]:
        """The key columns of rows start..end-1."""
        names = [c.name for c in schema.key_columns]
        parts = []
        for s in self.segments:
            low, high = max(start, s.start), min(end, s.end)
            if low < high:
                parts.append(s.conformed(schema).select(names).slice(low - s.start, high - low))
        table = pa.concat_tables(parts)
        return [combined(table.column(name)) for name in names]

    def take(self, rows: I64, schema: TableSchema, names: Sequence[str]) -> list[pa.Array]:
        """Columns `names` (of the schema, or `_deleted`) of the given rows, in their order."""
        segments = self.segments  # once: a writer may put others in their place meanwhile
        starts = np.array([s.start for s in segments], np.int64)
        which = np.searchsorted(starts, rows, "right") - 1
        parts, at = [], []
        for i in np.unique(which):
            mine = np.flatnonzero(which == i)
            segment = segments[i]
            parts.append(segment.conformed(schema).select(list(names)).take(pa.array(rows[mine] - segment.start)))
            at.append(mine)
        if not parts:
            empty = schema.storage.append(pa.field(DELETED, pa.bool_()))
            return [pa.nulls(0, empty.field(name).type) for name in names]
        table = pa.concat_tables(parts)
        back = np.argsort(np.concatenate(at), kind="stable")
        return [combined(table.column(name).take(pa.array(back))) for name in names]

    # -- reading, without a lock -------------------------------------------------------------------------------

    def cut(self, watermark: int, schema: TableSchema) -> HotCut:
        """The live rows at a watermark."""
        n = int(np.searchsorted(self.ids.values(), watermark, "right"))
        at = _CutAt(n, len(self.dead_rows(watermark)), schema.version)
        cached = self._cut
        if cached is not None and cached.at == at:
            return cached.cut
        pieces = self._pieces(at, watermark, schema, cached if cached is not None and cached.at.before(at) else None)
        parts = [p.table for p in pieces.values() if p.table.num_rows]
        table = pa.concat_tables(parts) if parts else _cut_schema(schema).empty_table()
        cut = HotCut(table, sum(p.tombstones for p in pieces.values()), n)
        if cached is None or cached.at.before(at) or cached.at.version != at.version:
            self._cut = _CachedCut(at, cut, pieces)
        return cut

    def _pieces(self, at: _CutAt, watermark: int, schema: TableSchema, before: _CachedCut | None) -> dict[int, _Piece]:
        """The live rows of each segment, by its first row; those of an older cut where nothing has changed since.

        So a cut after a small commit costs by the segments that the commit touched, and not by all versions that are hot.
        """
        segments = [s for s in self.segments if s.start < at.n]
        known = {} if before is None else before.pieces
        marked = self.marks.values()["row"][0 if before is None else before.at.marks : at.marks]
        starts = np.array([s.start for s in segments], np.int64)
        touched = set(np.unique(np.searchsorted(starts, marked, "right") - 1).tolist())
        pieces = {}
        for i, s in enumerate(segments):
            rows, piece = min(s.end, at.n) - s.start, known.get(s.start)
            if piece is None or piece.segment is not s or piece.rows != rows or i in touched:
                piece = self._piece(s, rows, watermark, schema)
            pieces[s.start] = piece
        return pieces

    def _piece(self, s: Segment, rows: int, watermark: int, schema: TableSchema) -> _Piece:
        by = self.superseded_by.values()[s.start : s.start + rows]
        alive = (by == 0) | (by > watermark)
        if not alive.any():
            return _Piece(s, rows, _cut_schema(schema).empty_table(), 0)
        seqs = pa.array(self.ids.values()[s.start : s.start + rows])
        table = s.conformed(schema).slice(0, rows).append_column(_SEQ_FIELD, seqs)
        if not alive.all():
            table = table.filter(pa.array(alive))
        return _Piece(s, rows, table, (pc.sum(table.column(DELETED)).as_py() or 0) if s.has_tombstones else 0)

    def dead_rows(self, watermark: int) -> I64:
        """Rows superseded by versions at or below the watermark, in order of their superseders."""
        marks = self.marks.values()
        k = int(np.searchsorted(marks["by"], watermark, "right"))
        return marks["row"][:k]

    def dead_cold(self, watermark: int) -> dict[int, BitMap]:
        """Per batch number the rows superseded by hot versions at or below the watermark.  Do not change them."""
        marks = self.cold_marks.values()
        k = int(np.searchsorted(marks["by"], watermark, "right"))
        known, maps = self._dead_cold
        if known == k:
            return maps
        base, start = (maps, known) if known < k else ({}, 0)
        fresh = marks[start:k]
        maps = dict(base)
        if len(fresh) == 1:  # one write since: nothing to sort out
            batch, row = int(fresh["batch"][0]), int(fresh["row"][0])
            maps[batch] = maps.get(batch, BitMap()) | BitMap([row])
            self._dead_cold = (k, maps)
            return maps
        for batch in np.unique(fresh["batch"]).tolist():
            rows = fresh["row"][fresh["batch"] == batch].astype(np.uint32)
            maps[batch] = maps.get(batch, BitMap()) | BitMap(rows)
        self._dead_cold = (k, maps)
        return maps


def _merged(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Merge the newest segments while there are _FAN_IN of one size class: a scan meets O(log n) of them."""
    while True:
        last = segments[-_FAN_IN:]
        first = last[0]
        same = all(s.size_class == first.size_class and s.schema_version == first.schema_version for s in last)
        if len(last) < _FAN_IN or not same or first.size_class >= 99:
            return segments
        rows = last[-1].end - first.start
        table = pa.concat_tables([s.table for s in _alike(last)]).combine_chunks()
        size_class = first.size_class + 1 if rows <= _MERGE_LIMIT else 99
        segments = (*segments[:-_FAN_IN], Segment(first.start, table, first.schema_version, size_class))


def _alike(segments: Sequence[Segment]) -> Sequence[Segment]:
    """Give every segment a `_deleted` column when one has it."""
    if not any(s.has_tombstones for s in segments):
        return segments
    names = next(s for s in segments if s.has_tombstones).table.schema.names
    out = []
    for s in segments:
        table = s.table
        if not s.has_tombstones:
            table = table.append_column(pa.field(DELETED, pa.bool_(), nullable=False), _false(table.num_rows))
        out.append(Segment(s.start, table.select(names), s.schema_version))
    return out


def hot_marks(targets: I64, by: npt.NDArray[np.integer]) -> npt.NDArray[np.void]:
    """HOT_MARK[n] for a log entry."""
    out = np.empty(len(targets), HOT_MARK)
    out["target"], out["by"] = targets, by
    return out


def cold_marks(batches: I64, rows: I64, by: npt.NDArray[np.integer]) -> npt.NDArray[np.void]:
    """COLD_MARK[n] for a log entry."""
    out = np.empty(len(rows), COLD_MARK)
    out["batch"], out["row"], out["by"] = batches, rows, by
    return out
