"""Eviction: expired rows of STREAM tables leave the log and the memory.

    stream_eviction     {"tables"?: ["ns.t", …]}        every STREAM table when none is named

No query sees an expired row before this either; what it takes is room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flightkalam.errors import Cancelled
from flightkalam.jobs.runner import Job
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.table import stream
from flightkalam.table.scopes import Scopes, TableGone


@dataclass(frozen=True)
class StreamEviction:
    """:param tables: every table that there is."""

    scopes: Scopes
    tables: Callable[[], Sequence[Table]]

    def run(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        named = job.parameters.get("tables")
        evicted = 0
        for table in self.tables():
            if table.kind is not TableKind.STREAM or (named is not None and table.qualified not in named):
                continue
            for scope in self.scopes.of_table(table):
                if cancelled.is_set():
                    raise Cancelled("the eviction was stopped; the next one goes on")
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
