"""Deadlines: one thread cancels every statement whose time is up."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

from flightkalam.clock import Clock
from flightkalam.query.compute import CancelToken


class Deadlines:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, CancelToken]] = []
        self._order = itertools.count()
        self._gone: set[int] = set()
        self._closing = False
        self._thread: threading.Thread | None = None

    def watch(self, token: CancelToken, seconds: float) -> Callable[[], None]:
        """Cancel `token` after so many seconds; returns what takes that back."""
        with self._changed:
            number = next(self._order)
            heapq.heappush(self._waiting, (self._clock.monotonic() + seconds, number, token))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kalam-deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()
        return lambda: self._forget(number)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _forget(self, number: int) -> None:
        with self._changed:
            if any(n == number for _, n, _ in self._waiting):
                self._gone.add(number)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (not self._waiting or self._waiting[0][0] > self._clock.monotonic()):
                    due = self._waiting[0][0] - self._clock.monotonic() if self._waiting else None
                    self._changed.wait(due)
                if self._closing:
                    return
                _, number, token = heapq.heappop(self._waiting)
                stale = number in self._gone
                self._gone.discard(number)
            if not stale:
                token.cancel("the statement has run longer than statement_timeout allows")
