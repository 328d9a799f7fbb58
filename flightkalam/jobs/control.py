"""How a running job is told to stop, and how it lets queries go first.

An executor calls `step` between its steps: none of them may be left half done, and between them nothing is lost.  While
readers come, the job rests after each step, in proportion to what the step took; alone it never rests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from flightkalam.errors import Cancelled

_LONGEST_REST = 1.0


@dataclass(frozen=True, slots=True)
class Manners:
    """:param share: of its time a job works while readers come; above 0, at most 1.
    :param readers: counts every reader that begins.
    :param monotonic: seconds.
    """

    share: float
    readers: Callable[[], int]
    monotonic: Callable[[], float]


NO_MANNERS = Manners(1.0, lambda: 0, lambda: 0.0)


class Control(threading.Event):
    """Set when the job is to stop."""

    def __init__(self, manners: Manners = NO_MANNERS) -> None:
        super().__init__()
        self._manners = manners
        self._begun = 0.0
        self._readers = 0
        self.begin()

    def begin(self) -> None:
        """The job begins to work now.

        :raises Cancelled: it was told to stop before.
        """
        if self.is_set():
            raise Cancelled("the job was cancelled before it began")
        self._begun, self._readers = self._manners.monotonic(), self._manners.readers()

    def step(self, left: str = "nothing has changed") -> None:
        """:param left: what a job that stops here leaves behind.
        :raises Cancelled: the job is to stop.
        """
        if not self.is_set():
            self._rest()
        if self.is_set():
            raise Cancelled(f"the job was cancelled; {left}")

    def _rest(self) -> None:
        manners, readers = self._manners, self._manners.readers()
        if readers != self._readers and manners.share < 1:
            worked = manners.monotonic() - self._begun
            self.wait(min(worked * (1 - manners.share) / manners.share, _LONGEST_REST))
        self._readers = readers
        self._begun = manners.monotonic()
