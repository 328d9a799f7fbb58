"""Texts that have been read, by least recent use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from flightkalam.sql.reading import Reading


class Readings:
    """Texts that have been read (`sql/reading.py`).

    :param limit: entries kept.
    :param keyed: whether statements about one row by its key take the short way; tests compare the two.
    """

    def __init__(self, limit: int, *, keyed: bool = True) -> None:
        self.keyed = keyed
        self._limit = limit
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Reading] = OrderedDict()

    def get(self, text: str, make: Callable[[str], Reading]) -> Reading:
        """What a text says, read when it is not known.  Passwords stay out of the cache."""
        with self._lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
                return found
        made = make(text)
        if not made.secret:
            with self._lock:
                self._known[text] = made
                while len(self._known) > self._limit:
                    self._known.popitem(last=False)
        return made
