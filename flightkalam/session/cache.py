"""A small cache by least recent use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flightkalam.sql.keyed import Keyed, read_keyed

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """:param limit: entries kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[K], V]) -> V:
        """The value of a key, made when it is not there.  Two callers at once may both make it."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                return found
        made = make(key)
        with self._lock:
            self._known[key] = made
            while len(self._known) > self._limit:
                self._known.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class _Read:
    statement: Keyed | None


class KeyedTexts:
    """Which texts are statements about one row by its key (`sql/keyed.py`).

    :param enabled: tests compare the two ways.
    """

    def __init__(self, limit: int, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._known: Recent[str, _Read] = Recent(limit)

    def get(self, text: str) -> Keyed | None:
        return self._known.get(text, lambda t: _Read(read_keyed(t))).statement if self.enabled else None
