"""Transactions: snapshot isolation over any number of tables and scopes, one atomic commit, first committer wins.

The snapshot is taken by the first statement, not by BEGIN; until then a transaction holds nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from flightkalam.auth.audit import Outcome
from flightkalam.catalog.state import CatalogState
from flightkalam.errors import InvalidValue, UndefinedObject, Unsupported
from flightkalam.model.keys import I64
from flightkalam.model.schema import Table
from flightkalam.session.acts import Attempts
from flightkalam.session.parts import Parts
from flightkalam.table.door import CommitDoor
from flightkalam.table.mutate import Writer
from flightkalam.table.mutation import Committed, Extra
from flightkalam.table.overlay import Overlay

# Each holds what was written until then.
_MAX_SAVEPOINTS = 1_000


class Begun:
    """What a transaction sees: the catalog and the rows of one moment.

    It is held by the transaction, and by each result that still streams when the transaction ends (T-52).
    """

    def __init__(self, state: CatalogState, door: CommitDoor) -> None:
        self.state = state
        self._door = door
        self._pin = door.pin()
        self._lock = threading.Lock()
        self._holders = 1

    @property
    def watermark(self) -> int:
        return self._pin.watermark

    def hold(self) -> Callable[[], None]:
        """Keep the rows readable until what this returns is called."""
        with self._lock:
            self._holders += 1
        return self.release

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._door.unpin(self._pin)


@dataclass(frozen=True)
class Savepoint:
    """A moment of a transaction to come back to.

    :param name: as it was written; names match without regard to case.
    :param overlays: what the transaction had written.
    :param attempts: how many AS USER statements it had run.
    """

    name: str
    overlays: Mapping[tuple[int, str | None], Overlay]
    attempts: int
    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))


@dataclass
class Transaction:
    """An open transaction of one session.

    `lock` is held while a statement of it runs: they run one after another.
    """

    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    lock: threading.RLock = field(default_factory=threading.RLock)
    _begun: Begun | None = None
    _ended: bool = False
    _overlays: dict[tuple[int, str | None], Overlay] = field(default_factory=dict)
    _savepoints: list[Savepoint] = field(default_factory=list)  # oldest first
    attempts: Attempts = field(init=False)

    def __post_init__(self) -> None:
        self.attempts = Attempts(self.id)

    def begun(self, parts: Parts) -> Begun:
        """The snapshot, taken now if this is the first statement.

        :raises UndefinedObject: the transaction has ended; what was planned in it cannot run any more.
        """
        with self.lock:
            if self._ended:
                raise unknown()
            if self._begun is None:
                with parts.scopes.door.mutex:  # catalog and rows of one moment
                    self._begun = Begun(parts.catalog.state, parts.scopes.door)
            return self._begun

    @property
    def has_written(self) -> bool:
        return any(o.rows.num_rows for o in self._overlays.values())

    def overlay(self, table: Table, owner: str | None) -> Overlay | None:
        return self._overlays.get((table.id, owner))

    def add(self, writer: Writer, table: Table, owner: str | None, rows: pa.Table, base: I64) -> None:
        """Take a statement's versions.

        :raises Conflict: another transaction has committed one of the keys since; the statement changes nothing.
        """
        assert self._begun is not None, "a statement has read before it writes"
        before = self._overlays.get((table.id, owner)) or Overlay.empty(table, owner)
        after = before.with_versions(rows, base)
        writer.refuse_conflict(Overlay(table, owner, rows, base).mutation(self._begun.watermark))
        self._overlays[table.id, owner] = after

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Several statements as one: if one of them fails, none has written."""
        with self.lock:
            before = dict(self._overlays)
            try:
                yield
            except BaseException:
                self._overlays = before
                raise

    # -- savepoints --------------------------------------------------------------------------------------------

    def savepoint(self, name: str) -> bytes:
        """Remember this moment; returns what names it.  A name that is taken hides the older moment until it is released."""
        with self.lock:
            if self._ended:
                raise unknown()
            if len(self._savepoints) >= _MAX_SAVEPOINTS:
                raise InvalidValue(f"the transaction has {_MAX_SAVEPOINTS} savepoints; release some", sqlstate="54000")
            made = Savepoint(name, dict(self._overlays), len(self.attempts))
            self._savepoints.append(made)
            return made.id

    def has_savepoint(self, id_: bytes) -> bool:
        return any(p.id == id_ for p in self._savepoints)

    def release(self, which: str | bytes) -> None:
        """Forget a savepoint and those after it; what was written stays."""
        with self.lock:
            del self._savepoints[self._place(which) :]

    def back_to(self, which: str | bytes) -> None:
        """Undo what was written since a savepoint, which stays; those after it go."""
        with self.lock:
            place = self._place(which)
            found = self._savepoints[place]
            self._overlays = dict(found.overlays)
            self.attempts.undo_after(found.attempts)
            del self._savepoints[place + 1 :]

    def _place(self, which: str | bytes) -> int:
        """:param which: a name or an id."""
        for place in range(len(self._savepoints) - 1, -1, -1):
            point = self._savepoints[place]
            if which == point.id or (isinstance(which, str) and which.lower() == point.name.lower()):
                return place
        raise unknown_savepoint(which if isinstance(which, str) else None)

    def commit(self, writer: Writer, extra: Extra | None = None) -> Committed | None:
        """Write everything in one atomic commit, or nothing.

        :param extra: adds to the commit.

        :raises Conflict: a written key has a newer version, or a table has changed.
        """
        written = [o for o in self._overlays.values() if o.rows.num_rows]
        try:
            if not written or self._begun is None:
                self.attempts.settle(Outcome.COMMITTED)
                return None
            return writer.write([o.mutation(self._begun.watermark) for o in written], self.attempts.joined(extra))
        finally:
            self.end()

    def end(self) -> None:
        """Let go of everything.  Safe to call twice."""
        self._ended = True
        self.attempts.settle(Outcome.ROLLED_BACK)
        if self._begun is not None:
            self._begun.release()
        self._begun = None
        self._overlays.clear()
        self._savepoints.clear()

    def begin_anew(self) -> None:
        """What ran in between has committed by itself: the next statement takes a new snapshot and sees it.

        Only for a transaction that has written nothing, see `refuse_after_write`.
        """
        assert not self.has_written
        if self._begun is not None:
            self._begun.release()
        self._begun = None
        self._overlays.clear()

    def refuse_after_write(self, what: str) -> None:
        """DDL, FLUSH and the like commit by themselves, which a transaction with writes cannot be part of."""
        if self.has_written:
            raise Unsupported(
                f"{what} cannot run in a transaction that has written; COMMIT or ROLLBACK first", sqlstate="25001"
            )


def unknown() -> UndefinedObject:
    return UndefinedObject("the transaction does not exist or has expired; begin a new one", sqlstate="25P01")


def unknown_savepoint(name: str | None = None) -> UndefinedObject:
    called = "the savepoint" if name is None else f'savepoint "{name}"'
    return UndefinedObject(f"{called} does not exist, or was released; make a new one", sqlstate="3B001")
