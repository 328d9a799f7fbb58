"""Results that have been announced and are still to be fetched, by whichever of the user's connections."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import pyarrow as pa

from flightkalam.errors import UndefinedObject
from flightkalam.session.acts import For
from flightkalam.session.transactions import Transaction

_MAX_PER_USER = 1_000


@dataclass
class Planned:
    """A result to be fetched.  Fetching a query again runs it again; a write runs once and answers the same again.

    :param is_update: it answers with a count.
    :param planned_for: on whose behalf it was announced; it runs for nobody else.
    :param writes: it answers with rows and changes data.
    """

    text: str
    schema: pa.Schema
    is_update: bool
    writes: bool = False
    bound: pa.Table | None = None
    transaction: Transaction | None = None
    total: int = -1
    planned_for: For = field(default_factory=For)
    handle: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int | None = None
    rows: pa.Table | None = None

    @property
    def changes_data(self) -> bool:
        return self.is_update or self.writes


class Results:
    """Handles are random, and bound to the user: another's handle is as good as none (T-49)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, OrderedDict[bytes, Planned]] = {}

    def add(self, user: str, planned: Planned) -> Planned:
        """Keep a result; the user's oldest goes when there are too many."""
        with self._lock:
            mine = self._of.setdefault(user, OrderedDict())
            mine[planned.handle] = planned
            while len(mine) > _MAX_PER_USER:
                mine.popitem(last=False)
        return planned

    def get(self, user: str, handle: bytes) -> Planned:
        with self._lock:
            mine = self._of.get(user)
            found = None if mine is None else mine.get(handle)
        if found is None:
            raise UndefinedObject("the result is not there any more; run the statement again", sqlstate="26000")
        return found
