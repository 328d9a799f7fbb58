"""Which batches a compaction merges: decided from the manifest alone, without a look at any file.

    why                            which                                                    asked by
    many small batches             all small ones                                           after a flush
    many overlapping batches       those over the point that most batches cover             after a flush
    much is dead                   big batches with a large share of superseded rows        after a flush
    anything to gain               small ones, and all with superseded rows or tombstones   COMPACT TABLE
    retention has passed           those with superseded rows or tombstones kept too long   the retention job
    everything that is gone        all with superseded rows or tombstones                   ERASE

Small batches cost each reader a file; overlapping ones cost each lookup of a key a probe.  Merging only what covers the
deepest point makes tiers of its own accord: ten flushes become one run of batches that do not overlap each other, ten such
runs one larger run, so a row is rewritten about log₁₀(rows / flush) times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from flightkalam.cold.manifest import BatchEntry, Manifest
from flightkalam.model.schema import TableSchema


class Want(Enum):
    """What a compaction is for."""

    AUTO = "auto"
    ALL = "all"
    OVERDUE = "overdue"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Policy:
    """When merging pays.

    :param rows_per_batch: rows of a full batch; one with less than half of them is small.
    :param small: so many small batches are left alone.
    :param overlapping: so many batches over one key are left alone.
    :param dead_share: so large a share of superseded rows in a batch that is not small is left alone.
    """

    rows_per_batch: int = 1_000_000
    small: int = 10
    overlapping: int = 10
    dead_share: float = 0.2

    def is_small(self, batch: BatchEntry) -> bool:
        return 2 * batch.rows < self.rows_per_batch


@dataclass(frozen=True, slots=True)
class Kept:
    """What only a batch's file can tell of how long it has kept what must go.

    A row of a batch can have been superseded only after the batch was written, for a batch is written without those that
    already were.  So `written` bounds it from below, and a batch is rewritten at most once in each retention.

    :param written: `_seq` up to which commits had been seen when the batch was written.
    :param tombstone: the lowest `_seq` of its tombstones, None when it has none.
    """

    written: int
    tombstone: int | None


NOTHING_KNOWN: Mapping[int, Kept] = {}


def overdue(batch: BatchEntry, kept: Kept, horizon: int) -> bool:
    """Whether a batch may hold what should have gone with everything below `horizon`."""
    superseded = batch.dead is not None and kept.written < horizon
    return superseded or (kept.tombstone is not None and kept.tombstone < horizon)


def may_be_overdue(manifest: Manifest, horizon: int) -> list[BatchEntry]:
    """The batches that `overdue` has to be asked about."""
    return [b for b in manifest.batches if b.min_seq < horizon and (b.dead is not None or b.tombstones)]


def wants_compaction(manifest: Manifest, schema: TableSchema, policy: Policy) -> bool:
    """Whether a scope should be compacted by itself, asked after each of its flushes."""
    return bool(choose(manifest, schema, policy, Want.AUTO, 0))


def choose(
    manifest: Manifest,
    schema: TableSchema,
    policy: Policy,
    want: Want,
    horizon: int,
    kept: Mapping[int, Kept] = NOTHING_KNOWN,
) -> tuple[BatchEntry, ...]:
    """The batches to merge, in the manifest's order; none when there is nothing to gain.

    :param horizon: tombstones with a `_seq` below may go, if nothing older can hold their key.
    :param kept: by batch number, for `Want.OVERDUE`; a batch of which nothing is known is taken for overdue.
    """
    batches = manifest.batches
    if want is Want.AUTO:
        wanted = _automatic(manifest, schema, policy)
    elif want is Want.ALL:
        wanted = [b for b in batches if policy.is_small(b) or b.dead is not None or _may_let_go(b, horizon)]
    elif want is Want.OVERDUE:
        candidates = may_be_overdue(manifest, horizon)
        wanted = [b for b in candidates if b.number not in kept or overdue(b, kept[b.number], horizon)]
    else:
        wanted = [b for b in batches if b.dead is not None or b.tombstones]
    numbers = {b.number for b in wanted}
    chosen = tuple(b for b in batches if b.number in numbers)
    if len(chosen) == 1 and chosen[0].dead is None and not _may_let_go(chosen[0], horizon):
        return ()  # it would be written as it is
    return chosen


def _may_let_go(batch: BatchEntry, horizon: int) -> bool:
    return batch.tombstones > 0 and batch.min_seq < horizon


def _automatic(manifest: Manifest, schema: TableSchema, policy: Policy) -> list[BatchEntry]:
    small = [b for b in manifest.batches if policy.is_small(b)]
    deepest = overlapping(manifest, schema)
    wanted = [b for b in manifest.batches if not policy.is_small(b) and _dead(b) > policy.dead_share * b.rows]
    wanted += small if len(small) > policy.small else []
    return wanted + (deepest if len(deepest) > policy.overlapping else [])


def _dead(batch: BatchEntry) -> int:
    return 0 if batch.dead is None else batch.dead.cardinality


def overlapping(manifest: Manifest, schema: TableSchema) -> list[BatchEntry]:
    """The batches that cover the value of the first key column which most batches cover."""
    batches = manifest.batches
    column = schema.key_columns[0]
    bounds = manifest.column(column.id, column.bounds_since)
    known = np.flatnonzero(bounds.bounded)
    unknown = [int(i) for i in np.flatnonzero(~bounds.bounded) if batches[i].rows]
    if not len(known):
        return _at(batches, unknown)
    low, high = bounds.low[known], bounds.high[known]
    # The depth only grows where a batch begins: those begun up to there, without those ended before.
    depth = np.searchsorted(np.sort(low), low, "right") - np.searchsorted(np.sort(high), low, "left")
    point = low[int(np.argmax(depth))]
    covering: list[int] = known[(low <= point) & (high >= point)].tolist()
    return _at(batches, [*covering, *unknown])


def _at(batches: tuple[BatchEntry, ...], places: Iterable[int]) -> list[BatchEntry]:
    return [batches[i] for i in sorted(places)]
