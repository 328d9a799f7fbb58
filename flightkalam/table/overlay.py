"""What an open transaction has written: newest version per key, seen by nobody else until COMMIT.

    reader inside    the snapshot without the rows that the overlay supersedes, and the overlay's own rows (`_seq` NULL)
    commit           one mutation per scope; a key with a version newer than the snapshot is a conflict

`base` says which version of the snapshot a row supersedes, by `_seq`; 0 for a key that the snapshot does not show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from flightkalam.model.keys import I64, combined, matches
from flightkalam.model.schema import DELETED, SEQ, Table
from flightkalam.table.mutation import Mutation
from flightkalam.table.scan import DirtyBatch, ScanPlan
from flightkalam.table.snapshot import Snapshot


@dataclass(frozen=True)
class Overlay:
    """One scope's versions of a transaction, immutable.

    :param rows: storage columns and `_deleted`, one row per key.
    :param base: int64[rows].
    """

    table: Table
    owner: str | None
    rows: pa.Table
    base: I64

    @staticmethod
    def empty(table: Table, owner: str | None) -> Overlay:
        return Overlay(table, owner, flagged(table.schema.storage.empty_table()), np.empty(0, np.int64))

    def with_versions(self, rows: pa.Table, base: I64) -> Overlay:
        """The overlay after a statement that wrote `rows`; what they supersede here goes, what that superseded stays known."""
        rows, base = flagged(rows), base.copy()
        new, old = matches(self._key(rows), self._key(self.rows))
        base[new] = np.where(base[new] == 0, self.base[old], base[new])
        kept = np.ones(self.rows.num_rows, bool)
        kept[old] = False
        every = pa.concat_tables([self.rows.filter(pa.array(kept)), rows])
        bases = np.concatenate([self.base[kept], base])
        # Inserted and deleted in one transaction: as if it had never been.
        lasting = ~(every.column(DELETED).to_numpy() & (bases == 0))
        return replace(self, rows=every.filter(pa.array(lasting)), base=bases[lasting])

    def _key(self, rows: pa.Table) -> list[pa.Array]:
        return [combined(rows.column(c.name)) for c in self.table.schema.key_columns]

    def mutation(self, snapshot: int) -> Mutation:
        """What COMMIT writes."""
        return Mutation(self.table, self.owner, self.rows, supersedes=self.base != 0, snapshot=snapshot, base=self.base)

    def over(self, plan: ScanPlan, snapshot: Snapshot, *, tombstones: bool) -> ScanPlan:
        """The scan plan of a reader inside the transaction."""
        gone = np.sort(self.base[self.base != 0])
        clean, dirty = _without(plan, snapshot, gone)
        own = self.rows if tombstones else self.rows.filter(pc.invert(self.rows.column(DELETED)))
        own = own.append_column(pa.field(SEQ, pa.int64()), pa.nulls(own.num_rows, pa.int64()))
        parts = [own]
        if plan.hot is not None:
            keep = ~np.isin(plan.hot.column(SEQ).to_numpy(), gone)
            hot = plan.hot.filter(pa.array(keep)).select(own.schema.names)
            parts.insert(0, hot.cast(own.schema))
        hot_rows = pa.concat_tables(parts)
        figures = replace(plan.figures, hot_rows=hot_rows.num_rows, dead_rows=sum(len(d.dead) for d in dirty))
        return replace(plan, hot=hot_rows if hot_rows.num_rows else None, clean=clean, dirty=dirty, figures=figures)


def flagged(rows: pa.Table) -> pa.Table:
    """Rows with a `_deleted` column."""
    if DELETED in rows.schema.names:
        return rows
    flags = pa.repeat(pa.scalar(False), rows.num_rows)
    return rows.append_column(pa.field(DELETED, pa.bool_(), nullable=False), flags)


def _without(plan: ScanPlan, snapshot: Snapshot, gone: I64) -> tuple[tuple[str, ...], tuple[DirtyBatch, ...]]:
    """The plan's batches with the superseded rows skipped by position."""
    if not len(gone):
        return plan.clean, plan.dirty
    known = {d.path: d.dead for d in plan.dirty}
    clean, dirty = [], []
    entries = {str(snapshot.scope.folder / b.file): b for b in snapshot.state.manifest.batches}
    for path in (*plan.clean, *known):
        entry, dead = entries[path], known.get(path)
        low, high = np.searchsorted(gone, [entry.min_seq, entry.max_seq + 1])
        if low < high:
            seqs = snapshot.scopes.keys.seqs(snapshot.scope.folder, entry, snapshot.table.schema)
            fresh = BitMap(np.flatnonzero(np.isin(seqs, gone[low:high])).astype(np.uint32))
            dead = fresh if dead is None else dead | fresh
        if not dead:
            clean.append(path)
        elif len(dead) < entry.rows:
            dirty.append(DirtyBatch(path, dead, entry.rows))
    return tuple(clean), tuple(dirty)
