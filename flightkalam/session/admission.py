"""Admission: how many statements compute at a time, and who waits.

A statement takes a *place* before it begins.  When there is none, or its user has their share of them already, it waits in
the order of arrival (whoever is held up only by their own share lets others pass), for `limits.queue_seconds` at the most;
then it is refused with "try again" and nothing has happened.

    enter ── runs ── [ pause: the client is slow ] ── resume ── runs ── leave
                        the place is free for others

Whatever waits for its client holds no place: a slow reader or uploader does not hold others up.  A statement that goes on
afterwards is never refused, and waits for a moment only: it may hold what those who have all the places are waiting for (a
transaction, a repeated write's first try), so to insist would be to wait for ever.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

from flightkalam.clock import Clock
from flightkalam.errors import TryAgain
from flightkalam.query.compute import CancelToken
from flightkalam.telemetry import Counters

_GO_ON_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Places:
    """:param total: statements that may compute at a time.
    :param per_user: of these, how many may be one user's.
    :param queue: statements that may wait.
    :param seconds: how long.
    """

    total: int
    per_user: int
    queue: int
    seconds: float


@dataclass(eq=False, slots=True)
class _Waiter:
    user: str
    woken: threading.Event = field(default_factory=threading.Event)
    admitted: bool = False


class Admission:
    def __init__(self, places: Places, clock: Clock, counters: Counters) -> None:
        self._places = places
        self._clock = clock
        self._counters = counters
        self._lock = threading.Lock()
        self._running = 0
        self._of: Counter[str] = Counter()
        self._waiting: deque[_Waiter] = deque()
        self._going_on: deque[_Waiter] = deque()

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, user: str, cancel: CancelToken) -> Place:
        """Take a place, or wait for one.

        :raises TryAgain: none became free in time, or too many wait already.
        :raises Cancelled: the statement was cancelled while it waited.
        """
        with self._lock:
            if not self._waiting and self._free(user):
                self._take(user)
                return Place(self, user)
            if len(self._waiting) >= self._places.queue:
                self._counters.add("admission_refused")
                raise TryAgain(f"{len(self._waiting)} statements are waiting already; try again in a moment")
            waiter = _Waiter(user)
            self._waiting.append(waiter)
            self._admit()  # those ahead may be held up by their own shares alone
        return self._waited(waiter, cancel)

    def _waited(self, waiter: _Waiter, cancel: CancelToken) -> Place:
        begun = self._clock.monotonic()
        forget = cancel.on_cancel(waiter.woken.set)
        waiter.woken.wait(self._places.seconds)
        forget()
        self._counters.observe("admission_wait_seconds", self._clock.monotonic() - begun)
        with self._lock:
            if waiter.admitted:
                return Place(self, waiter.user)
            self._waiting.remove(waiter)
            own = self._of[waiter.user] >= self._places.per_user
        cancel.check()
        self._counters.add("admission_refused")
        many = f"you have {self._places.per_user} statements" if own else f"{self._places.total} statements are"
        raise TryAgain(f"{many} running, and none ended within {self._places.seconds:g} seconds; try again in a moment")

    def _free(self, user: str) -> bool:
        return self._running < self._places.total and self._of[user] < self._places.per_user

    def _take(self, user: str) -> None:
        self._running += 1
        self._of[user] += 1

    def leave(self, user: str) -> None:
        with self._lock:
            self._running -= 1
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]
            self._admit()

    def go_on(self, user: str) -> None:
        """Take the place back that was let go for a client."""
        with self._lock:
            if self._running < self._places.total:
                self._take(user)
                return
            waiter = _Waiter(user)
            self._going_on.append(waiter)
        waiter.woken.wait(_GO_ON_SECONDS)
        with self._lock:
            if not waiter.admitted:
                self._going_on.remove(waiter)
                self._take(user)

    def _admit(self) -> None:
        """Give free places to those who wait, first to those who had begun.  Call with the lock held."""
        while self._going_on and self._running < self._places.total:
            self._let_in(self._going_on.popleft())
        if self._waiting and self._running < self._places.total:
            for waiter in list(self._waiting):
                if self._free(waiter.user):
                    self._waiting.remove(waiter)
                    self._let_in(waiter)

    def _let_in(self, waiter: _Waiter) -> None:
        self._take(waiter.user)
        waiter.admitted = True
        waiter.woken.set()


class Place:
    """A statement's place.  `leave` may come more than once, and from another thread than the rest."""

    __slots__ = ("_admission", "_gone", "_held", "_lock", "_user")

    def __init__(self, admission: Admission, user: str) -> None:
        self._admission = admission
        self._user = user
        self._lock = threading.Lock()
        self._held = True
        self._gone = False

    def pause(self) -> None:
        """The statement waits for its client."""
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._admission.leave(self._user)

    def resume(self) -> None:
        with self._lock:
            if self._held or self._gone:
                return
        self._admission.go_on(self._user)
        with self._lock:
            self._held, late = not self._gone, self._gone
        if late:
            self._admission.leave(self._user)

    def leave(self) -> None:
        with self._lock:
            held, self._held, self._gone = self._held, False, True
        if held:
            self._admission.leave(self._user)
