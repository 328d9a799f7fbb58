"""Keeping hot rows within their memory: count, let idle scopes go, have the largest flushed.

Choosing is pure (`to_flush`, `to_release`); what is flushed is a job like any other.  A scope that is let go has lost nothing:
its rows are in the log, from which whoever comes next reads them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flightkalam.clock import Clock
from flightkalam.config_running import MemoryConfig
from flightkalam.errors import KalamError, TryAgain
from flightkalam.jobs.job import UNFINISHED
from flightkalam.jobs.runner import Jobs
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.table.scopes import Scopes
from flightkalam.telemetry import logger

_SECONDS = 1.0
_COUNT_SECONDS = 30.0  # an exact count at least so often
_COUNT_SHARE = 64  # or when this part of the limit was added since
_GOAL = 0.5  # of the limit, once scopes are flushed because memory is short
log = logger("memory")


@dataclass(frozen=True, slots=True)
class Held:
    """What a scope takes, and when it was used last (monotonic seconds)."""

    scope: Scope
    nbytes: int
    used: float


def to_flush(held: Sequence[Held], excess: int) -> list[Scope]:
    """The largest scopes that together hold so much."""
    chosen = []
    for each in sorted(held, key=lambda h: h.nbytes, reverse=True):
        if excess <= 0 or not each.nbytes:
            break
        chosen.append(each.scope)
        excess -= each.nbytes
    return chosen


def to_release(held: Sequence[Held], now: float, idle_seconds: float, most: int) -> list[Scope]:
    """Scopes that nobody has used for long, and the longest unused of too many."""
    by_age = sorted(held, key=lambda h: h.used)
    idle = sum(now - h.used >= idle_seconds for h in by_age)
    return [h.scope for h in by_age[: max(idle, len(by_age) - most)]]


class MemoryKeeper:
    """:param tables: every table by its id."""

    def __init__(
        self,
        scopes: Scopes,
        jobs: Jobs,
        clock: Clock,
        tables: Callable[[], Mapping[int, Table]],
        settings: MemoryConfig,
    ) -> None:
        self._scopes = scopes
        self._jobs = jobs
        self._clock = clock
        self._tables = tables
        self._idle_seconds = settings.idle_seconds
        self._most = settings.open_scopes
        self._asked: dict[int, str] = {}  # the flush that was asked for, by table
        self._counted_at = -_COUNT_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kalam-memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._scopes.budget.short.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        budget = self._scopes.budget
        while not self._stop.is_set():
            if budget.short.wait(_SECONDS):
                budget.short.clear()
                self._stop.wait(_SECONDS / 20)  # writers in need ask often
            try:
                self.check()
            except Exception as e:  # the next look tries again; without looks memory would only grow
                log.error("memory_check_failed", error=f"{type(e).__name__}: {e}")

    def check(self) -> None:
        """Look once."""
        budget, now = self._scopes.budget, self._clock.monotonic()
        due = now - self._counted_at >= _COUNT_SECONDS or budget.grown > budget.limit // _COUNT_SHARE
        if not due and budget.used < budget.slow_from:
            return
        self._counted_at = now
        grown, held = budget.grown, self._held()
        budget.counted(sum(h.nbytes for h in held), grown)
        if budget.limit and budget.used >= budget.slow_from:
            self._flush(held, int(budget.used - budget.limit * _GOAL))
        gone = self._scopes.release(to_release(held, now, self._idle_seconds, self._most))
        if gone:
            self._scopes.counters.add("hot_released", gone)

    def _held(self) -> list[Held]:
        return [Held(s.scope, s.state.hot.nbytes, s.used) for s in self._scopes.opened()]

    def _flush(self, held: Sequence[Held], excess: int) -> None:
        tables = self._tables()
        found: dict[int, list[str | None]] = {}
        flushable = [h for h in held if (t := tables.get(h.scope.table_id)) is not None and t.kind is not TableKind.STREAM]
        for scope in to_flush(flushable, excess):
            found.setdefault(scope.table_id, []).append(scope.owner)
        for table_id, owners in found.items():
            if self._free(table_id):
                try:
                    parameters = {"tables": [tables[table_id].qualified], "owners": owners}
                    self._asked[table_id] = self._jobs.submit("flush", parameters)
                except TryAgain:
                    return  # the service is shutting down

    def _free(self, table_id: int) -> bool:
        """Whether no flush that was asked for here is under way."""
        asked = self._asked.get(table_id)
        try:
            return asked is None or self._jobs.get(asked).status not in UNFINISHED
        except KalamError:  # its record is gone
            return True
