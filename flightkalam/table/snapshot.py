"""Snapshots: an immutable pair of hot cut and pinned manifest."""

from __future__ import annotations

from dataclasses import dataclass

from pyroaring import BitMap

from flightkalam.cold.manifest import BatchEntry
from flightkalam.hot.rows import HotCut
from flightkalam.model.schema import Table
from flightkalam.table import stream
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState


@dataclass(frozen=True)
class Snapshot:
    """One scope of one table at one watermark.  The holder of the watermark's pin keeps it readable.

    :param alive_from: rows with a lower `_seq` have expired (STREAM tables).
    """

    scopes: Scopes
    table: Table
    scope: OpenScope
    state: ScopeState
    watermark: int
    alive_from: int = 0

    @staticmethod
    def take(scopes: Scopes, table: Table, owner: str | None, watermark: int) -> Snapshot:
        scope = scopes.open(table, owner)
        return Snapshot(scopes, table, scope, scope.at(watermark), watermark, stream.alive_from(table, scopes.clock.now_us()))

    def hot(self) -> HotCut:
        """The live hot rows, tombstones included."""
        cut = self.state.hot.cut(self.watermark, self.table.schema)
        return cut if not self.alive_from else stream.unexpired(cut, self.alive_from)

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
