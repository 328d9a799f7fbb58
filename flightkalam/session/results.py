"""Results that have been announced and are still to be fetched, by whichever of the user's connections."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import pyarrow as pa

from flightkalam.catalog.names import DEFAULT_NAMESPACE
from flightkalam.errors import UndefinedObject
from flightkalam.session import kept
from flightkalam.session.acts import For
from flightkalam.session.partitions import Part
from flightkalam.session.transactions import Transaction

_MAX_PER_USER = 1_000


@dataclass
class Planned:
    """A result to be fetched.  Fetching a query again runs it again; a write runs once and answers the same again.

    :param is_update: it answers with a count.
    :param planned_for: on whose behalf it was announced; it runs for nobody else.
    :param endpoints: the handles that together fetch it: its own, or those of its parts.
    :param namespace: where its names were looked up, whichever session fetches it; `time_zone` likewise.
    :param expires_us: when these parts cannot be fetched any more.
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
    part: Part | None = None
    namespace: str = DEFAULT_NAMESPACE
    time_zone: str = "UTC"
    endpoints: tuple[bytes, ...] = ()
    expires_us: int | None = None

    def __post_init__(self) -> None:
        self.endpoints = self.endpoints or (self.handle,)

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
            gone_ = [mine.popitem(last=False)[1] for _ in range(len(mine) - _MAX_PER_USER)]
        for old in gone_:
            if old.part is not None:
                old.part.lease.end()
        return planned

    def close(self) -> None:
        """Let go of the snapshots of all parts."""
        with self._lock:
            parts = [p.part for mine in self._of.values() for p in mine.values() if p.part is not None]
        for part in parts:
            part.lease.end()

    def find(self, user: str, handle: bytes) -> Planned | None:
        with self._lock:
            mine = self._of.get(user)
            return None if mine is None else mine.get(handle)

    def get(self, user: str, handle: bytes) -> Planned:
        found = self.find(user, handle)
        if found is None:
            raise gone()
        return found


def lasting(planned: Planned, user: str) -> Planned:
    """With a handle that the server can understand also when it has forgotten the result; it serves its user alone."""
    if planned.transaction is None:
        facts = (planned.is_update, planned.writes, planned.planned_for.subject, kept.fingerprint(planned.schema))
        said = kept.Kept(user, planned.text, planned.namespace, planned.time_zone, *facts)
        planned.handle += kept.encode(said, planned.bound)
        planned.endpoints = (planned.handle,)
    return planned


def gone() -> UndefinedObject:
    return UndefinedObject("the result is not there any more; run the statement again", sqlstate="26000")
