"""Requests to an object store, repeated while that makes sense.

A store that does not answer, or answers 5xx or 429, may do so next time: the request is repeated with growing pauses, a
bounded number of times.  After a request that failed for good the store counts as away, and each following one tries only
once, until one succeeds: a query must not wait through every pause again to learn what is known.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from flightkalam.errors import Cancelled, StorageUnavailable
from flightkalam.telemetry import logger

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_STEP = 0.05
_stopped: ContextVar[Callable[[], bool]] = ContextVar("stopped", default=lambda: False)
log = logger("storage")
T = TypeVar("T")


class Unreached(Exception):
    """The store gave no answer, or one that may be another next time.  Whether a put took effect is not known (T-41)."""


@contextlib.contextmanager
def stopped_by(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Requests of this thread end with Cancelled once `cancelled()` is true, at the latest with the answer under way."""
    token = _stopped.set(cancelled)
    try:
        yield
    finally:
        _stopped.reset(token)


def current_stop() -> Callable[[], bool]:
    """What stops this thread's requests; to hand on to a thread that works for it."""
    return _stopped.get()


class Patience:
    """How often a storage is asked.

    :param name: of the storage, for messages.
    :param retries: after the first request.
    """

    def __init__(self, name: str, retries: int) -> None:
        self.name = name
        self._retries = retries
        self._closing = threading.Event()
        self._away = False

    def close(self) -> None:
        """No more repetitions."""
        self._closing.set()

    def insist(self, what: str, request: Callable[[], T]) -> T:
        """:raises StorageUnavailable: it cannot be reached.
        :raises Cancelled: see `stopped_by`.
        """
        if self._away and self._closing.is_set():
            raise self.unavailable("the service is closing")  # not one more wait for an answer that will not come
        pause, left = _FIRST_PAUSE, 0 if self._away else self._retries
        while True:
            try:
                answer = request()
            except Unreached as e:
                if not left or self._closing.is_set():
                    self._away = True
                    log.warning("storage_away", storage=self.name, request=what, reason=str(e))
                    raise self.unavailable(str(e)) from None
            else:
                self._away = False
                return answer
            left -= 1
            self._rest(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def unavailable(self, reason: str) -> StorageUnavailable:
        return StorageUnavailable(
            f'storage "{self.name}" cannot be reached ({reason}); its tables work again when it is back: try again later'
        )

    def _rest(self, seconds: float) -> None:
        stopped = _stopped.get()
        for _ in range(max(1, round(seconds / _STEP))):
            if stopped():
                raise Cancelled(f'stopped while storage "{self.name}" could not be reached')
            if self._closing.wait(_STEP):
                return
