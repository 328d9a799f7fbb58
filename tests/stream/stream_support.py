"""Time that stands still, and short ways to ask."""

from __future__ import annotations

from typing import Any

from kalam_world import Client, World

from flightkalam.clock import EPOCH_MS
from flightkalam.model.ids import Scope

TTL = 20  # seconds, more than ids may run ahead of the clock after a restart
RESTART_AHEAD = 6


class StillClock:
    """Moves by `pass_` alone."""

    def __init__(self) -> None:
        self.us = (EPOCH_MS + 50_000_000_000) * 1000

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000

    def pass_(self, seconds: float) -> None:
        self.us += round(seconds * 1_000_000)


def rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    table = client.run(sql).rows
    assert table is not None
    return [tuple(row.values()) for row in table.to_pylist()]


def evict(world: World, **parameters: Any) -> int:
    """Run the job and say how many rows it took."""
    parts = world.kalam.parts
    job = parts.jobs.wait(parts.jobs.submit("stream_eviction", parameters))
    assert job.status == "completed" and job.result is not None
    return int(job.result["rows"])


def scope_of(world: World, owner: str, name: str = "s") -> Scope:
    table = world.kalam.parts.catalog.state.find("main", name)
    assert table is not None
    return Scope(table.id, owner)


def logged(world: World, owner: str, name: str = "s") -> list[dict[str, Any]]:
    """The rows that the log holds, columns by id."""
    log = world.kalam.parts.scopes.log
    found = log.entries(scope_of(world, owner, name))
    return [row for loaded in found for row in log.table_of(loaded.entry, verify=True).to_pylist()]
