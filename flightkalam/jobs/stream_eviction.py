"""Eviction: expired rows of STREAM tables leave the log and the memory.

No query sees an expired row before this either; what it takes is room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flightkalam.jobs.control import Control
from flightkalam.jobs.kinds import OfTables
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.table import stream
from flightkalam.table.scopes import Scopes, TableGone


@dataclass(frozen=True)
class StreamEviction:
    """:param tables: every table that there is."""

    scopes: Scopes
    tables: Callable[[], Sequence[Table]]

    def run(self, wanted: OfTables, control: Control) -> dict[str, Any]:
        named = wanted.tables
        evicted = 0
        for table in self.tables():
            if table.kind is not TableKind.STREAM or (named is not None and table.qualified not in named):
                continue
            for scope in self.scopes.of_table(table):
                control.step("what was evicted so far stays gone; the next eviction goes on")
                evicted += self._evict(table, scope)
        return {"rows": evicted}

    def _evict(self, table: Table, scope: Scope) -> int:
        """A scope whose log begins with an unexpired row is not even opened."""
        first = self.scopes.log.first_seq(scope)
        if first is None or first >= stream.alive_from(table, self.scopes.clock.now_us()):
            return 0
        try:
            return stream.evict(self.scopes, table, scope.owner)
        except TableGone:
            return 0
