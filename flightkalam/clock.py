"""Time and ids, handed in: nothing else in the project reads the clock or draws an id.

A Snowflake id is 41 bits of milliseconds since 2024-01-01T00:00:00Z, 10 bits of node and 12 bits of sequence (SEMANTICS
§2).  In here an id is also an *ordinal*, `milliseconds * 4096 + sequence`: ordinals are contiguous, so n ids are one
addition, and `id_range` spreads the node's bits between them again, keeping the order.

    id      = [ ms : 41 ][ node : 10 ][ seq : 12 ]
    ordinal = [ ms : 41 ]             [ seq : 12 ]

More than 4,096 ids in a millisecond, or a clock that steps back, run ahead of the clock; they never wait and never fail.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
SEQ_BITS = 12
NODE_BITS = 10
_SEQ_MASK = (1 << SEQ_BITS) - 1
_NODE_SHIFT = SEQ_BITS
_MS_SHIFT = SEQ_BITS + NODE_BITS
_NODE_MASK = ((1 << NODE_BITS) - 1) << _NODE_SHIFT


class Clock(Protocol):
    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back; for intervals only."""
        ...


class SystemClock:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def node_number(node_id: str) -> int:
    """The 10-bit node of a `server.node_id`, the same on every machine and in every release."""
    return int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:8], "big") % (1 << NODE_BITS)


def _ordinal(id_: int) -> int:
    return ((id_ >> _MS_SHIFT) << SEQ_BITS) | (id_ & _SEQ_MASK)


def _id(ordinal: int, node_bits: int) -> int:
    return ((ordinal >> SEQ_BITS) << _MS_SHIFT) | node_bits | (ordinal & _SEQ_MASK)


def id_range(first: int, n: int) -> npt.NDArray[np.int64]:
    """The n consecutive ids of one node from `first` on, int64[n], ascending."""
    base = _ordinal(first)
    ordinals = np.arange(base, base + n, dtype=np.int64)
    return ((ordinals >> SEQ_BITS) << _MS_SHIFT) | (first & _NODE_MASK) | (ordinals & _SEQ_MASK)


def id_after(first: int, n: int) -> int:
    """The id that comes n after `first`, on the same node."""
    return _id(_ordinal(first) + n, first & _NODE_MASK)


def id_offsets(first: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many ids after `first` each of `ids` comes, int64[n]."""
    return (((ids >> _MS_SHIFT) << SEQ_BITS) | (ids & _SEQ_MASK)) - _ordinal(first)


def id_time_us(id_: int) -> int:
    """Microseconds since the Unix epoch at which the id was handed out (millisecond resolution)."""
    return ((id_ >> _MS_SHIFT) + EPOCH_MS) * 1000


def id_floor(us: int) -> int:
    """The lowest id of a moment: every id handed out before it is lower."""
    return max(0, us // 1000 - EPOCH_MS) << _MS_SHIFT


class Snowflakes:
    """Hands out Snowflake ids, strictly increasing, also across restarts and clock steps (T-1, T-2).

    :param node: 0..1023, from `node_number`.
    :param floor: the highest id that may ever have been handed out before, on any node.
    :param reserve: called with an id that must be remembered durably with the next write; passed back as `floor` at the
        next start, so that ids which left without a commit are not handed out twice.
    """

    # About 5 s of ids: one reservation a second at most under any load below 4 M ids/s.
    _RESERVE_AHEAD = 5_000 << SEQ_BITS

    def __init__(self, clock: Clock, node: int, *, floor: int = 0, reserve: Callable[[int], None] | None = None) -> None:
        if not 0 <= node < 1 << NODE_BITS:
            raise ValueError(f"node must be in 0..1023, not {node}")
        self._clock = clock
        self._node_bits = node << _NODE_SHIFT
        self._lock = threading.Lock()
        # A whole millisecond further: within one, a lower node's id would sort below a higher node's.
        self._next = ((floor >> _MS_SHIFT) + 1) << SEQ_BITS if floor else 1
        self._reserve = reserve
        self._reserved = 0

    def take(self, n: int = 1) -> int:
        """Take n consecutive ids and return the first; `id_range(first, n)` gives them all."""
        now = ((self._clock.now_us() // 1000) - EPOCH_MS) << SEQ_BITS
        with self._lock:
            base = now if now > self._next else self._next
            self._next = base + n
            if self._reserve is not None and self._next > self._reserved:
                self._reserved = self._next + self._RESERVE_AHEAD
                self._reserve(_id(self._reserved, self._node_bits))
        return _id(base, self._node_bits)

    def ids(self, n: int) -> npt.NDArray[np.int64]:
        """n new ids, int64[n], ascending."""
        return id_range(self.take(n), n)
