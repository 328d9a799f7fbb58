"""Merging batches in key order within bounded memory.

Every batch is sorted by key, so are its row groups; they are loaded in the order of their first keys:

    batch 3    [a······f][g·····k]
    batch 7       [c···········m]
    batch 9                [h······p]
                          ▲ loaded: the first three.  The next one begins at h, so every row below h is loaded: those are
                            merged and handed on, the rest waits.

What waits is at most one row group per overlapping batch, and what was loaded since the last time.  All rows of one key are
handed on together, the newest last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import BatchEntry
from flightkalam.model.keys import I64, combined, same_keys
from flightkalam.model.schema import DELETED, SEQ, TableSchema

CHUNK_ROWS = 262_144
# Beside columns named by field id, which are digits, no name can be taken twice.
_SOURCE, _ROW, _DEAD = "source", "row", "dead"
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Source:
    """A batch to merge.

    :param dead: its deletion vector.
    """

    entry: BatchEntry
    dead: BitMap


@dataclass(frozen=True)
class Chunk:
    """Merged rows: every row of some keys, sorted by key and `_seq`.

    :param rows: columns of `schema.file`.
    :param source: which of the sources each row is from.
    :param row: its row number there.
    :param dead: the source's deletion vector says that it is superseded.
    :param newer: a newer version of its key follows.
    """

    rows: pa.Table
    source: I64
    row: I64
    dead: Mask
    newer: Mask


@dataclass(frozen=True)
class _Group:
    """A row group, and where it begins in its batch."""

    source: int
    number: int
    first_row: int
    rows: int


class Merge:
    """:param chunk_rows: about so many rows are loaded between two chunks."""

    def __init__(
        self,
        reader: BatchReader,
        folder: Path,
        schema: TableSchema,
        sources: Sequence[Source],
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._schema = schema
        self._sources = sources
        self._chunk_rows = chunk_rows
        self._names = [*(c.name for c in schema.columns), SEQ, DELETED]
        self._ids = [*(str(c.id) for c in schema.columns), SEQ, DELETED]
        self._keys = [str(c.id) for c in schema.key_columns]

    def chunks(self) -> Iterator[Chunk]:
        groups, first_keys = self._order()
        waiting: list[pa.Table] = []
        loaded = 0
        for i, group in enumerate(groups):
            waiting.append(self._load(group))
            loaded += group.rows
            if i + 1 < len(groups) and loaded >= self._chunk_rows:
                ready, rest = self._cut(pa.concat_tables(waiting), first_keys.slice(i + 1, 1))
                waiting, loaded = [rest], 0
                if ready.num_rows:
                    yield self._merged(ready)
        if waiting:
            yield self._merged(pa.concat_tables(waiting))

    def _order(self) -> tuple[list[_Group], pa.Table]:
        """Every row group in the order of its first key, and those keys."""
        groups, keys = [], []
        for number, source in enumerate(self._sources):
            path = self._folder / source.entry.file
            metadata = self._reader.metadata(path, source.entry.uuid)
            sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            mine = [_Group(number, g, int(starts[g]), size) for g, size in enumerate(sizes) if size]
            if mine:
                names = [c.name for c in self._schema.key_columns]
                columns = self._reader.columns(path, source.entry, self._schema, names)
                keys.append(columns.take(pa.array([g.first_row for g in mine])).rename_columns(self._keys))
                groups += mine
        if not groups:
            return [], pa.table({})
        table = pa.concat_tables(keys)
        order = pc.sort_indices(table, sort_keys=[(k, "ascending") for k in self._keys])
        return [groups[i] for i in order.to_pylist()], table.take(order)

    def _load(self, group: _Group) -> pa.Table:
        source = self._sources[group.source]
        path = self._folder / source.entry.file
        table = self._reader.columns(path, source.entry, self._schema, self._names, groups=[group.number])
        rows = np.arange(group.first_row, group.first_row + group.rows, dtype=np.int64)
        dead = np.zeros(group.rows, bool)
        mine = source.dead & BitMap(range(group.first_row, group.first_row + group.rows))
        dead[np.asarray(mine.to_array(), np.int64) - group.first_row] = True
        table = table.rename_columns(self._ids)
        table = table.append_column(_SOURCE, pa.array(np.full(group.rows, group.source, np.int64)))
        return table.append_column(_ROW, pa.array(rows)).append_column(_DEAD, pa.array(dead))

    def _cut(self, table: pa.Table, first: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows whose key is below `first`, and the others."""
        below = None
        for name in reversed(self._keys):
            value = first.column(name)[0]
            less = pc.less(table.column(name), value)
            below = less if below is None else pc.or_(less, pc.and_(pc.equal(table.column(name), value), below))
        return table.filter(below), table.filter(pc.invert(below))

    def _merged(self, table: pa.Table) -> Chunk:
        # Of two copies of one version, which can only come from outside, the one that counts is last.
        by = [*((k, "ascending") for k in self._keys), (SEQ, "ascending"), (_DEAD, "descending")]
        table = table.take(pc.sort_indices(table, sort_keys=by)).combine_chunks()
        keys = [combined(table.column(k)) for k in self._keys]
        newer = np.zeros(table.num_rows, bool)
        newer[:-1] = same_keys([k.slice(0, len(k) - 1) for k in keys], [k.slice(1) for k in keys])
        source, row, dead = (combined(table.column(n)).to_numpy(zero_copy_only=False) for n in (_SOURCE, _ROW, _DEAD))
        rows = table.select(self._ids).rename_columns(self._names).cast(self._schema.file)
        return Chunk(rows, source, row, dead, newer)
