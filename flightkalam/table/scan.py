"""The read door: request + snapshot -> scan plan.  Decides *what* is read; an engine decides how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from flightkalam.cold.manifest import Manifest
from flightkalam.cold.paths import batch_number
from flightkalam.model.demand import EVERYTHING, Demand
from flightkalam.model.keys import I64
from flightkalam.model.predicate import TRUE, Predicate
from flightkalam.model.schema import DELETED, TableSchema
from flightkalam.storage import objects
from flightkalam.table.choose import choose
from flightkalam.table.point import MOST_BATCHES, key_asked, rows_of_key
from flightkalam.table.small import small_batches
from flightkalam.table.snapshot import Snapshot
from flightkalam.table.spare import Part, spared


@dataclass(frozen=True)
class Figures:
    """What a scan reads and what it is spared."""

    table: str
    scope: str
    batches_total: int
    pruned_by_range: int
    pruned_by_bloom: int
    batches_read: int
    hot_rows: int
    dead_rows: int


@dataclass(frozen=True, slots=True)
class DirtyBatch:
    """A batch of which not every row counts.

    :param dead: the row numbers to skip, of `rows`.
    """

    path: str
    dead: BitMap
    rows: int


@dataclass(frozen=True)
class ScanPlan:
    """Everything an engine needs to read one table reference, immutable.

    :param hot: live rows in memory, storage columns with `_deleted` and `_seq`, and cold ones that were read already; None when
        there are none.
    :param clean: paths of batches of which every row counts.
    :param dirty: the others.
    :param blank: rows of which only the number matters.
    """

    schema: TableSchema
    hot: pa.Table | None
    clean: tuple[str, ...]
    dirty: tuple[DirtyBatch, ...]
    figures: Figures
    blank: int = 0


def numbers_of(files: Iterable[str]) -> I64:
    """The numbers of the batches that these files of a scan are, int64[files]."""
    return np.array([batch_number(Path(path).name) for path in files], np.int64)


def scan(snapshot: Snapshot, predicate: Predicate = TRUE, *, tombstones: bool = False, demand: Demand = EVERYTHING) -> ScanPlan:
    """Choose the batches and rows that a statement may need.

    :param predicate: what every row that counts satisfies; prunes, never filters.
    :param tombstones: show the newest versions of deleted keys too.
    :param demand: how much of the rows the statement needs.
    """
    manifest = snapshot.state.manifest
    choice = choose(snapshot, predicate)
    chosen = tuple(manifest.batches[i] for i in choice.at)
    clean: list[str] = []
    dirty: list[DirtyBatch] = []
    read, by_range = 0, choice.by_range
    asked = key_asked(predicate, snapshot.table.schema) if 0 < len(chosen) <= MOST_BATCHES else None
    found: list[pa.Table] = []
    if asked is not None:
        for entry in chosen:
            rows = rows_of_key(snapshot, entry, *asked, tombstones=tombstones)
            if rows is not None:
                found.append(rows)
        read, chosen = len(found), ()
        by_range = len(manifest.batches) - choice.by_bloom - read
    parts = [_part(snapshot, at, tombstones) for at in _not_spent(manifest, choice.at if chosen else ())]
    parts = [part for part in parts if part.live]
    hot = _hot(snapshot, tombstones, found)
    hot_rows = 0 if hot is None else hot.num_rows - sum(t.num_rows for t in found)
    needed = spared(parts, hot, demand if predicate == TRUE and not tombstones else EVERYTHING, snapshot)
    by_range += len(parts) - len(needed.parts)
    hot_rows, hot = (hot_rows, needed.hot) if needed.hot is not None else (0, None)
    read += len(needed.parts)
    dead_rows = sum(len(part.dead) for part in needed.parts if part.dead)
    small = small_batches(needed.parts, snapshot)
    if small:
        hot = _with_rows(snapshot.hot().table.slice(0, 0) if hot is None else hot, small)
    for part in needed.parts if small is None else ():
        path = snapshot.scope.folder / part.entry.file
        if part.dead:
            dirty.append(DirtyBatch(str(path), part.dead, part.entry.rows))
        else:
            clean.append(str(path))
    objects.ready([*clean, *(d.path for d in dirty)])  # the holder of the pin keeps them there
    for part in needed.parts if small is None else ():  # the engine looks at no checksum
        snapshot.scopes.reader.verify(snapshot.scope.folder / part.entry.file, part.entry)
    figures = Figures(
        table=snapshot.table.qualified,
        scope=snapshot.scope.scope.label,
        batches_total=len(manifest.batches),
        pruned_by_range=by_range,
        pruned_by_bloom=choice.by_bloom,
        batches_read=read,
        hot_rows=hot_rows,
        dead_rows=dead_rows,
    )
    _count(snapshot, figures)
    return ScanPlan(snapshot.table.schema, hot, tuple(clean), tuple(dirty), figures, needed.blank)


def at_most(snapshot: Snapshot, predicate: Predicate) -> tuple[int, int]:
    """How many batches and rows a scan would read at most, from metadata alone."""
    entries = [snapshot.state.manifest.batches[i] for i in choose(snapshot, predicate).at]
    return len(entries), sum(entry.rows for entry in entries) + snapshot.hot().table.num_rows


def _not_spent(manifest: Manifest, at: Iterable[int]) -> Iterator[int]:
    """Without batches in which every version has a newer one: their vectors need not even be looked at."""
    return (i for i in at if not manifest.batches[i].all_superseded)


def _part(snapshot: Snapshot, at: int, tombstones: bool) -> Part:
    entry = snapshot.state.manifest.batches[at]
    return Part(int(at), entry, snapshot.superseded(entry) if tombstones else snapshot.dead(entry))


def _count(snapshot: Snapshot, figures: Figures) -> None:
    """What EXPLAIN shows of one statement, summed over all."""
    if figures.batches_total:
        for name in ("batches_total", "pruned_by_range", "pruned_by_bloom", "batches_read"):
            snapshot.scopes.counters.add(f"scan_{name}", getattr(figures, name))


def _hot(snapshot: Snapshot, tombstones: bool, found: list[pa.Table]) -> pa.Table | None:
    """The live hot rows, and the cold rows that were read already."""
    cut = snapshot.hot()
    table = cut.table
    if cut.tombstones and not tombstones:
        table = table.filter(pc.invert(table.column(DELETED)))
    if found:
        table = _with_rows(table, found)
    return table if table.num_rows else None


def _with_rows(table: pa.Table, found: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([table, *(t.select(table.schema.names).cast(table.schema) for t in found)])
