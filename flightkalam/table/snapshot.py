"""Snapshots: an immutable pair of hot cut and pinned manifest."""

from __future__ import annotations

from dataclasses import dataclass

from pyroaring import BitMap

from flightkalam.cold.manifest import BatchEntry
from flightkalam.hot.rows import HotCut
from flightkalam.model.schema import Table
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState


@dataclass(frozen=True)
class Snapshot:
    """One scope of one table at one watermark.  The holder of the watermark's pin keeps it readable."""

    scopes: Scopes
    table: Table
    scope: OpenScope
    state: ScopeState
    watermark: int

    @staticmethod
    def take(scopes: Scopes, table: Table, owner: str | None, watermark: int) -> Snapshot:
        scope = scopes.open(table, owner)
        return Snapshot(scopes, table, scope, scope.at(watermark), watermark)

    def hot(self) -> HotCut:
        """The live hot rows, tombstones included."""
        return self.state.hot.cut(self.watermark, self.table.schema)

    def superseded(self, entry: BatchEntry) -> BitMap | None:
        """Row numbers of a batch that a newer version supersedes; None when there are none.  Do not change it."""
        hot = self.state.hot.dead_cold(self.watermark).get(entry.number)
        cold = self.scopes.vectors.get(self.scope.folder, entry.dead) if entry.dead is not None else None
        if hot is None or cold is None:
            return hot if cold is None else cold
        return hot | cold

    def dead(self, entry: BatchEntry) -> BitMap | None:
        """Row numbers of a batch that an ordinary scan skips: superseded rows and tombstones."""
        superseded = self.superseded(entry)
        if not entry.tombstones:
            return superseded
        tombstones = BitMap(self.scopes.keys.tombstones(self.scope.folder, entry, self.table.schema).astype("u4"))
        return tombstones if superseded is None else superseded | tombstones
