"""One measurement's outcome, and what it had to reach."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio, or on our own figure where no peer decides."""

    of: Literal["ratio", "ours"]
    bound: Literal["at most", "at least"]
    limit: float

    def met(self, ours: float, ratio: float | None) -> bool:
        value = ours if self.of == "ours" else ratio
        if value is None:
            return False
        return value <= self.limit if self.bound == "at most" else value >= self.limit

    def text(self, unit: str) -> str:
        sign = "≤" if self.bound == "at most" else "≥"
        return f"{sign} {self.limit:g} {unit if self.of == 'ours' else '×'}"


@dataclass(frozen=True, slots=True)
class Result:
    """:param ours: and `peer` are medians in `unit`.
    :param ratio: ours to the peer's in the direction of the target; None without a peer.
    :param target: None where the peer is there to be seen beside us, and nothing is promised.
    :param runs: how many repetitions the medians are of.
    """

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    target: Target | None
    unit: str
    peer_name: str
    runs: int
    note: str = ""

    @property
    def met(self) -> bool:
        return self.target is None or self.target.met(self.ours, self.ratio)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A measurement that could not be made: better no figure than an invented one."""

    name: str
    reason: str


class NotPossible(Exception):
    """What a measurement needs is not on this machine; the text says what to install."""


Step = Callable[[], object]


def timed(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def interleaved(ours: Callable[[], float], peer: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of both in turn, A B A B …, so that what else the machine does falls on both alike.

    The first of each is not counted: it fills caches.
    """
    pairs = [(ours(), peer()) for _ in range(repeats + 1)]
    return [a for a, _ in pairs[1:]], [b for _, b in pairs[1:]]


def in_blocks(ours: Step, peer: Step, calls: int, block: int = 20) -> tuple[list[float], list[float]]:
    """Seconds of every single call of two short steps, in alternating blocks."""
    a: list[float] = []
    b: list[float] = []
    for step in (ours, peer):
        for _ in range(block):
            step()
    for _ in range(max(1, calls // block)):
        a.extend(timed(ours) for _ in range(block))
        b.extend(timed(peer) for _ in range(block))
    return a, b


def spread(seconds: list[float], scale: float, unit: str) -> str:
    """The range between the 10th and the 90th percentile."""
    ordered = sorted(seconds)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return f"{low * scale:.3g}–{high * scale:.3g} {unit}"


def median(values: list[float]) -> float:
    return statistics.median(values)
