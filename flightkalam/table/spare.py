"""Which of the batches that a predicate left are still needed when a statement asks for less than all rows.

    First(n)            batches in the order they are read, until they hold n live rows
    First(n, order)     the batches that can hold one of the n winners:

        ascending     batch A   ├──────┤                  A and B hold n live rows, none above T
                      batch B       ├──────┤
                      batch C              T ├─────┤      every row of C comes later: not read
                      batch D        ├────────────────┤   may hold a winner: read

    RowCount            how many rows are alive, from the manifest and the marks of dead rows
    Extremes            both ends of a batch stand for its rows

Both ends must be there: no dead row, NaN or cut text may falsify them (T-20, T-27, T-29).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from flightkalam.cold.bounds import TEXT_BYTES, Bounds, Mask
from flightkalam.cold.manifest import BatchEntry, Manifest
from flightkalam.model.demand import Demand, Extremes, First, Order, RowCount
from flightkalam.model.predicate import Comparable
from flightkalam.model.schema import DELETED, SEQ, SEQ_COLUMN, SEQ_ID, Column, TableSchema
from flightkalam.table.choose import key_array
from flightkalam.table.snapshot import Snapshot

MOST_COUNTED = 200_000_000  # the engine makes blank rows one by one
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """A batch that a scan would read.

    :param at: its place in the manifest.
    :param dead: rows to skip; None when all count.
    """

    at: int
    entry: BatchEntry
    dead: BitMap | None

    @property
    def live(self) -> int:
        return self.entry.rows - (len(self.dead) if self.dead else 0)


@dataclass(frozen=True, slots=True)
class Needed:
    """What is left to read.

    :param hot: rows in memory, with the ends of batches that need not be read; None when there are none.
    :param blank: rows that are only counted.
    """

    parts: list[Part]
    hot: pa.Table | None
    blank: int = 0


def spared(parts: list[Part], hot: pa.Table | None, demand: Demand, snapshot: Snapshot) -> Needed:
    """:param parts: batches with live rows, in the order of the manifest."""
    manifest, schema = snapshot.state.manifest, snapshot.table.schema
    match demand:
        case First():
            kept, hot_too = first_rows(parts, demand, manifest, schema)
            return Needed(kept, hot if hot_too else None)
        case RowCount():
            total = sum(part.live for part in parts)
            return Needed([], hot, total) if total <= MOST_COUNTED else Needed(parts, hot)
        case Extremes(columns):
            kept, rows = ends(parts, columns, schema)
            return Needed(kept, rows if hot is None else hot if rows is None else joined(hot, rows))
    return Needed(parts, hot)


def joined(hot: pa.Table, rows: pa.Table) -> pa.Table:
    names = hot.schema.names
    rows = pa.table([rows.column(n).cast(hot.schema.field(n).type) for n in names], names=names)
    return pa.concat_tables([hot.cast(nullable(hot.schema)), rows.cast(nullable(hot.schema))])


def nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema])


def first_rows(parts: Sequence[Part], wanted: First, manifest: Manifest, schema: TableSchema) -> tuple[list[Part], bool]:
    """The parts that are needed, and whether rows beside them (the hot ones) are."""
    if wanted.order is not None:
        return _winners(parts, wanted.rows, wanted.order, manifest, schema), True
    # The order in which they are read, so that one page after another shows each row once.
    kept: list[Part] = []
    missing = wanted.rows
    for part in [*(q for q in parts if not q.dead), *(q for q in parts if q.dead)]:
        if missing <= 0:
            return kept, False
        kept.append(part)
        missing -= part.live
    return kept, missing > 0


def _winners(parts: Sequence[Part], n: int, order: Order, manifest: Manifest, schema: TableSchema) -> list[Part]:
    if not parts or n == 0:
        return []
    column = schema.by_id.get(order.column)
    bounds = manifest.column(order.column, column.bounds_since if column is not None else 0)
    at = np.array([q.at for q in parts], np.int64)
    low, high, bounded, nan = bounds.low[at], bounds.high[at], bounds.bounded[at], bounds.nan[at]
    all_null, no_null = bounds.all_null[at], bounds.no_null[at]
    live = np.array([q.live for q in parts], np.int64)
    nulls = live if order.column == SEQ_ID else np.array([_nulls(q.entry, order.column) for q in parts], np.int64)
    if order.column == SEQ_ID:
        nulls = np.zeros(len(parts), np.int64)
    # Rows that are certain to come no later than the worse end of their batch.
    certain = np.where(bounded, live if order.nulls_first else np.maximum(live - nulls, 0), 0)
    worst, best = (low, high) if order.descending else (high, low)
    if not order.descending:
        certain = np.where(nan, 0, certain)
    kept = _may_win(worst, best, certain, bounded, n, descending=order.descending)
    if order.descending:
        kept |= nan
    if order.nulls_first:
        kept |= ~no_null
    elif certain.sum() >= n:
        kept &= ~all_null
    return [q for q, k in zip(parts, kept.tolist(), strict=True) if k]


def _nulls(entry: BatchEntry, column: int) -> int:
    known = entry.bounds.get(column)
    return entry.rows if known is None else known.nulls


def _may_win(
    worst: npt.NDArray[np.generic], best: npt.NDArray[np.generic], certain: I64, bounded: Mask, n: int, *, descending: bool
) -> Mask:
    """Which batches can hold one of the first n rows: all but those whose best comes after n certain ones."""
    by_worst = np.argsort(worst, kind="stable")
    if descending:
        by_worst = by_worst[::-1]
    by_worst = by_worst[bounded[by_worst]]
    enough = np.flatnonzero(np.cumsum(certain[by_worst]) >= n)
    if not len(enough):
        return np.ones(len(worst), bool)
    threshold = worst[by_worst[enough[0]]]
    after = best < threshold if descending else best > threshold
    return ~(after & bounded)


# ---------------------------------------------------------------------------------------------------------------
# Ends of columns


def ends(parts: Sequence[Part], columns: frozenset[int], schema: TableSchema) -> tuple[list[Part], pa.Table | None]:
    """The parts that must be read, and two rows for all the others: their least values and their greatest."""
    wanted = [SEQ_COLUMN if i == SEQ_ID else schema.by_id.get(i) for i in columns]
    known = [c for c in wanted if c is not None]
    read: list[Part] = []
    found: list[list[Bounds]] = []
    for part in parts:
        exact = [b for c in known if (b := _exact_ends(part, c)) is not None]
        if len(exact) < len(wanted):
            read.append(part)
        else:
            found.append(exact)
    if not found:
        return read, None
    rows = {c.name: _two_values(c, [b[i] for b in found]) for i, c in enumerate(known)}
    if any(v is None for v in rows.values()):
        return list(parts), None
    return read, _two_rows({n: v for n, v in rows.items() if v is not None}, schema)


def _exact_ends(part: Part, column: Column) -> Bounds | None:
    """The bounds of a column where both are values that are certain to be there, or the whole column is NULL."""
    entry = part.entry
    known = Bounds(entry.min_seq, entry.max_seq, 0) if column.id == SEQ_ID else entry.bounds.get(column.id)
    if part.dead or known is None or entry.schema_version < column.bounds_since or known.nan:
        return None
    if known.nulls == entry.rows:
        return known
    if known.low is None or known.high is None or not (_whole(known.low) and _whole(known.high)):
        return None
    return known


def _whole(value: Comparable) -> bool:
    """Whether a bound is the value itself: long texts were cut, and of two zeros only one is kept (T-28, T-29)."""
    if isinstance(value, bytes):
        return len(value) < TEXT_BYTES
    return not (isinstance(value, float) and value == 0)


def _two_values(column: Column, bounds: Sequence[Bounds]) -> pa.Array | None:
    """The least and the greatest of exact bounds; NULLs where all are of NULL columns, None for what cannot be made."""
    lows, highs = [b.low for b in bounds if b.low is not None], [b.high for b in bounds if b.high is not None]
    if not lows or not highs:
        return pa.nulls(2, column.type.storage)
    low, high = key_array(column, min(lows)), key_array(column, max(highs))
    return None if low is None or high is None else pa.concat_arrays([low, high])


def _two_rows(known: dict[str, pa.Array], schema: TableSchema) -> pa.Table:
    columns = [known[c.name] if c.name in known else pa.nulls(2, c.type.storage) for c in schema.columns]
    columns += [pa.array([False, False]), known.get(SEQ, pa.nulls(2, pa.int64()))]
    return pa.table(columns, names=[*(c.name for c in schema.columns), DELETED, SEQ])
