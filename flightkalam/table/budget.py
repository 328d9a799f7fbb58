"""The memory that hot rows may take, and what writers do when it runs short.

    0 ─────────────────────── 3/4 ─────────────────── all
      writers go on           writers are slowed,     writers wait for a flush,
                              the largest scopes      then are refused: "try again"
                              are flushed

Writers tell what they add; the keeper (`jobs.memory`) counts exactly from time to time.  A writer asks before it begins and
before it holds anything, so that the flush it waits for never waits for it.
"""

from __future__ import annotations

import threading

from flightkalam.clock import Clock
from flightkalam.errors import OutOfMemory
from flightkalam.telemetry import Counters

_SLOW_SHARE = 0.75
_LONGEST_PAUSE = 0.05  # seconds that a write is held back when memory is all but full
_LOOK_SECONDS = 0.02


class HotBudget:
    """:param limit: in bytes; 0: none.
    :param wait_seconds: how long a write waits for memory before it is refused.
    """

    def __init__(self, limit: int, wait_seconds: float, clock: Clock, counters: Counters) -> None:
        self.limit = limit
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._counters = counters
        self._lock = threading.Lock()
        self._counted = 0
        self._grown = 0
        self.short = threading.Event()  # set by a writer that found it short; the keeper waits for it

    @property
    def used(self) -> int:
        return self._counted + self._grown

    @property
    def grown(self) -> int:
        """What was added since the last count."""
        return self._grown

    @property
    def slow_from(self) -> int:
        return int(self.limit * _SLOW_SHARE)

    def grew(self, nbytes: int) -> None:
        with self._lock:
            self._grown += nbytes

    def counted(self, nbytes: int, grown: int) -> None:
        """The keeper has counted.

        :param grown: what `grown` was when it began to.
        """
        with self._lock:
            self._counted = nbytes
            self._grown -= grown

    def admit(self, stopped: threading.Event | None = None) -> None:
        """Return when a write may begin.

        :param stopped: set when the statement is cancelled.
        :raises OutOfMemory: no memory became free in time.
        """
        if not self.limit or self.used < self.slow_from:
            return
        self.short.set()
        stopped = stopped or threading.Event()
        if self.used < self.limit:
            self._counters.add("hot_slowed")
            stopped.wait(_LONGEST_PAUSE * (self.used - self.slow_from) / max(1, self.limit - self.slow_from))
            return
        deadline = self._clock.monotonic() + self._wait_seconds
        while self.used >= self.limit and not stopped.wait(_LOOK_SECONDS):
            if self._clock.monotonic() >= deadline:
                self._counters.add("hot_refused")
                raise OutOfMemory(
                    f"hot rows take all the {self.limit:,} bytes that they may (memory.hot_bytes) and no flush has made room "
                    f"within {self._wait_seconds:g} seconds; nothing was written, try again in a moment"
                )
