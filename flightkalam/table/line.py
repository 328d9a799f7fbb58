"""Writers of one scope in line: whoever is at the head commits for all who stand there.

    writer 1   join ─ leads ─ lock · take 1 ───────── commit ─ leave ──┐ wait ───┐ reply
    writer 2      join ─ sleep                                         │         │
    writer 3        join ─ sleep                                       ▼         │
    writer 2                   leads ─ lock · take 2 3 ─ commit ─ leave ── wait ─┤ reply
    writer 3                                                                     └ reply

Locating keys, building a log entry and writing it cost nearly the same for one row as for thirty, and each change from one
thread to another costs as much as a small commit.  So a follower changes threads once: it sleeps from its place in the line
until its commit is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Done = TypeVar("Done")

MOST = 256  # members that a leader takes: a bound on how long it works for others


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False, slots=True)
class Member(Generic[Asked, Done]):
    """One writer in line.

    :param woken: held until the writer has to go on: to lead, or because it is settled.
    :param position: of the store; the outcome holds once that is durable.
    """

    asked: Asked
    woken: threading.Lock = field(default_factory=_held)
    leads: bool = False
    position: int = 0
    done: Done | None = None
    error: BaseException | None = None

    @property
    def settled(self) -> bool:
        return self.done is not None or self.error is not None

    def outcome(self) -> Done:
        if self.error is not None:
            raise self.error
        assert self.done is not None, "a leader settles everybody whom it takes"
        return self.done


class Line(Generic[Asked, Done]):
    """A line, and at most one leader that works on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Member[Asked, Done]] = deque()
        self._led = False

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, member: Member[Asked, Done]) -> None:
        """Stand in line; returns when the member leads or is woken because it is settled."""
        with self._lock:
            self._waiting.append(member)
            if not self._led:
                self._led = member.leads = True
                return
        try:
            member.woken.acquire()
        except BaseException:  # the main thread was interrupted
            with self._lock:
                if not member.leads and member in self._waiting:
                    self._waiting.remove(member)
            if member.leads:
                self.leave(member)
            raise

    def take(self) -> list[Member[Asked, Done]]:
        """Those whom the leader, who is the first of them, settles."""
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]

    def leave(self, leader: Member[Asked, Done]) -> None:
        """The leader is done, or gives up: the next in line leads."""
        with self._lock:
            if self._waiting and self._waiting[0] is leader:
                self._waiting.popleft()
            if not self._waiting:
                self._led = False
                return
            following = self._waiting[0]
            following.leads = True
            following.woken.release()
