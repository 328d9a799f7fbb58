"""The scopes that are open: for each its hot rows and its manifest, as one state that is swapped in one step.

    ScopeState(layout 4)  hot rows after _seq 900, manifest version 12 (flushed_seq 900)
         │  install of a flush at S = 1200, under the scope's write lock
         ▼
    ScopeState(layout 5)  hot rows after _seq 1200, manifest version 13 (flushed_seq 1200)
         │  install of a compaction, which takes the _seq 1300 for itself
         ▼
    ScopeState(layout 6)  the same hot rows, manifest version 14 (flushed_seq 1200), since 1300

A reader that pinned a watermark below 1200 keeps reading layout 4, one from before the compaction layout 5; a state stays while
such a reader lives.  A reader never mixes two states, so it sees a row exactly once, whatever is flushed meanwhile (T-13).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pyroaring import BitMap

from flightkalam.clock import Clock, SystemClock
from flightkalam.cold import bloom, rebuild
from flightkalam.cold.batch_file import BatchReader, Footer
from flightkalam.cold.bloom_cache import Blooms
from flightkalam.cold.deletion_vectors import VectorCache
from flightkalam.cold.group_cache import GroupCache
from flightkalam.cold.manifest import BatchEntry, FilterRef, Manifest, VectorRef
from flightkalam.cold.manifest_records import ManifestDamaged
from flightkalam.cold.manifests import Manifests
from flightkalam.errors import Conflict, DataCorrupted, Fenced, KalamError
from flightkalam.hot.rows import HotRows
from flightkalam.hot.store import HotLog
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table
from flightkalam.table import recovery
from flightkalam.table.budget import HotBudget
from flightkalam.table.door import CommitDoor
from flightkalam.table.key_cache import KeyCache
from flightkalam.table.line import Line
from flightkalam.telemetry import Counters, logger

log = logger("scopes")


class TableGone(Conflict):
    """The table was dropped after the statement had resolved its name: resolve it again."""


@dataclass(frozen=True)
class ScopeState:
    """One layout of a scope: which rows are hot and which batches count.

    :param since: a layout made by a compaction serves watermarks from here on.  It has the rows of the layout before, but not
        the tombstones that the compaction let go; so no reader changes over to it under way.
    """

    layout: int
    manifest: Manifest
    hot: HotRows
    since: int = 0

    @property
    def first_watermark(self) -> int:
        """The lowest watermark that this layout serves."""
        return max(self.since, self.manifest.flushed_seq)


@dataclass
class OpenScope:
    """A scope in memory.

    `lock` is held by a writer from locating its keys to its commit, and by an install.  `installs` keeps flush and compaction
    of one scope apart; writers never take it.  Small writes stand in `line`; the head of the line waits for `lock`.
    """

    scope: Scope
    folder: Path
    state: ScopeState
    lock: threading.RLock = field(default_factory=threading.RLock)
    installs: threading.Lock = field(default_factory=threading.Lock)
    past: list[ScopeState] = field(default_factory=list)  # oldest first; for readers below state.first_watermark
    turns: set[object] = field(default_factory=set)  # one for each writer that is, or waits to be, alone with the scope
    line: Line[Any, Any] = field(default_factory=Line)
    alone: int | None = None  # the thread that keeps other writers out, and holds `lock`
    sought: bool = False  # large writes look for their keys here, so those of new batches are worth keeping
    used: float = 0.0  # when it was opened last, in monotonic seconds
    swept: bool = False  # files that no manifest names have been removed
    fenced: str | None = None  # why nobody may use it any more: another server has taken the files over

    @property
    def head(self) -> int:
        """`_seq` up to which versions of the scope have been appended, durable or not."""
        ids, state = self.state.hot.ids, self.state
        n = ids.n
        return max(int(ids.data[n - 1]) if n else 0, state.hot.last_removal, state.manifest.flushed_seq)

    def at(self, watermark: int) -> ScopeState:
        """The layout that a reader at `watermark` uses.

        :raises Conflict: the layout is gone, which only a reader without a pin can meet.
        """
        state = self.state
        if state.first_watermark <= watermark:
            return state
        for older in reversed(self.past):
            if older.first_watermark <= watermark:
                return older
        raise Conflict("the snapshot has expired; run the statement again")

    def swap(self, state: ScopeState, oldest_pin: int) -> None:
        """Make `state` the current one and keep what pinned readers still need.  Call with `lock` held."""
        self.past = [*self.past, self.state]
        self.state = state
        self.prune(oldest_pin)

    def prune(self, oldest_pin: int) -> None:
        """Forget the layouts that no reader at or above `oldest_pin` uses.  Call with `lock` held."""
        following = [*self.past, self.state][1:]
        self.past = [s for s, n in zip(self.past, following, strict=True) if n.first_watermark > oldest_pin]


class _Gate:
    """Lets one thread at a time load a scope."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Scopes:
    """Opens scopes on first use and keeps them.

    :param current: the committed table of an id, None when it was dropped.
    :param clock: says which rows of STREAM tables have expired.
    :param small_batch_rows: a scan of batches with no more rows than these together does without the engine's reader.
    """

    def __init__(
        self,
        log: HotLog,
        manifests: Manifests,
        door: CommitDoor,
        current: Callable[[int], Table | None],
        *,
        key_cache_bytes: int = 256 << 20,
        bloom_cache_bytes: int = 256 << 20,
        counters: Counters | None = None,
        clock: Clock | None = None,
        row_cache_bytes: int = 64 << 20,
        small_batch_rows: int = 0,
        budget: HotBudget | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.log = log
        self.manifests = manifests
        self.door = door
        self.current = current
        self.reader = BatchReader()
        self.vectors = VectorCache(self._remade_vector)
        self.keys = KeyCache(self.reader, key_cache_bytes)
        self.counters = counters if counters is not None else Counters()
        self.blooms = Blooms(bloom_cache_bytes, self.counters, self._remade_key_filter)
        self.groups = GroupCache(self.reader, row_cache_bytes)
        self.small_batch_rows = small_batch_rows
        self._lock = threading.Lock()
        self.budget = budget or HotBudget(0, 0.0, self.clock, self.counters)
        self._open: dict[Scope, OpenScope] = {}
        # Who still uses a scope that was let go shares it with those to come: two of it would not know of each other.
        self._live: WeakValueDictionary[Scope, OpenScope] = WeakValueDictionary()
        self._resting: dict[Scope, tuple[int, int]] = {}
        self._swept: set[Scope] = set()
        self._loads = itertools.count()
        self._opening: dict[Scope, _Gate] = {}

    def open(self, table: Table, owner: str | None) -> OpenScope:
        """The scope of a table for one owner (None for a SHARED table).

        :raises Fenced: another server has taken it over: what we know of its files may no longer be so.
        """
        scope = Scope(table.id, owner if table.kind.per_user else None)
        found = self._open.get(scope)
        if found is not None:
            if found.fenced is not None:
                raise Fenced(found.fenced)
            self._touch(found, table)
            found.used = self.clock.monotonic()
            return found
        with self._gate(scope):
            found = self._open.get(scope) or self._live.get(scope)
            if found is None:
                found = self._load(scope, table)
                self.budget.grew(found.state.hot.nbytes)
            found.used = self.clock.monotonic()
            with self._lock:
                self._live[scope] = self._open[scope] = found
                self._resting.pop(scope, None)
        if found.fenced is not None:
            raise Fenced(found.fenced)
        return found

    @contextmanager
    def _gate(self, scope: Scope) -> Iterator[None]:
        """Nobody else is loading the scope: two that stand at one gate never meet a third at another."""
        with self._lock:
            gate = self._opening.setdefault(scope, _Gate())
            gate.users += 1
        try:
            with gate.lock:
                yield
        finally:
            with self._lock:
                gate.users -= 1
                if not gate.users:
                    del self._opening[scope]

    def _touch(self, scope: OpenScope, table: Table) -> None:
        try:
            self.manifests.touch(scope.scope, scope.folder, table.qualified)
        except KalamError:
            self._refuse_dropped(table)
            raise

    def _load(self, scope: Scope, table: Table) -> OpenScope:
        folder = self.manifests.folder(table, scope)
        try:
            manifest = self._manifest(scope, folder, table)
            hot = self.log.load(scope, manifest.flushed_seq)
        except KalamError:
            self._refuse_dropped(table)  # a drop leaves files without manifests behind it: no damage
            raise
        self._refuse_dropped(table)  # looked at last: a drop deletes rows and manifests in one commit
        # No layout ever has the number of one before it: what was found in a scope that was let go must not seem to hold.
        layout = next(self._loads) << 32
        return OpenScope(scope, folder, ScopeState(layout, manifest, hot), swept=scope in self._swept)

    def _manifest(self, scope: Scope, folder: Path, table: Table) -> Manifest:
        """The committed manifest, made again from the files when it is lost."""
        try:
            self.manifests.check_published(scope, folder, table.qualified)
            return self.manifests.get(scope)
        except ManifestDamaged as e:
            self._refuse_dropped(table)
            self.counters.add("manifest_damages")
            log.error("manifest_damaged", table=table.qualified, scope=scope.label, error=e.message)
        return recovery.restore(self.manifests, self.log, self.reader, table, scope, folder, self.clock.now_us())

    def adopt(self, table: Table, owner: str | None) -> OpenScope:
        """Take a scope's files as they are for what is committed, whatever the store says, when it cannot be opened."""
        scope = Scope(table.id, owner if table.kind.per_user else None)
        with self._gate(scope):
            if scope not in self._open and scope not in self._live:
                folder = self.manifests.folder(table, scope)
                recovery.restore(self.manifests, self.log, self.reader, table, scope, folder, self.clock.now_us())
        return self.open(table, owner)

    def _remade_vector(self, folder: Path, ref: VectorRef) -> BitMap:
        """A deletion vector that was lost, by MAX(_seq) over the batches of the manifest that names it.

        :raises DataCorrupted: what comes out is not what the manifest says of it.
        """
        scope = next((s for s in self.opened() if s.folder == folder), None)
        table = None if scope is None else self.current(scope.scope.table_id)
        for state in () if scope is None or table is None else (scope.state, *scope.past):
            named = {b.number: b.dead for b in state.manifest.batches if b.dead is not None}
            if ref not in named.values():
                continue
            assert scope is not None and table is not None
            made = rebuild.vectors_of(folder, state.manifest, table.schema, self.reader)
            if all(len(made.get(n, ())) == r.cardinality for n, r in named.items()):
                self.counters.add("vector_rebuilds")
                log.error("vector_damaged", table=table.qualified, scope=scope.scope.label, file=ref.file)
                for number, each in named.items():
                    self.vectors.put(folder, each, made[number])
                return made[next(n for n, r in named.items() if r == ref)]
        raise DataCorrupted(f"the deletion vector {ref.file} is missing or damaged; run REBUILD MANIFEST or restore a backup")

    def _refuse_dropped(self, table: Table) -> None:
        if self.current(table.id) is None:
            raise TableGone(f'table "{table.qualified}" was dropped or replaced while the statement began; run it again')

    def release(self, wanted: Iterable[Scope]) -> int:
        """Let scopes go that nobody writes to and no reader needs an older layout of; how many went.

        Their rows stay in the log, and are read again by whoever opens them next.
        """
        oldest = self.door.oldest_pin()
        return sum(self._released(found, oldest) for scope in wanted if (found := self._open.get(scope)) is not None)

    def _released(self, found: OpenScope, oldest_pin: int) -> bool:
        if found.installs.locked() or not found.lock.acquire(blocking=False):
            return False
        try:
            found.prune(oldest_pin)
            hot = found.state.hot
            if found.past or found.turns or found.fenced or max(found.state.first_watermark, hot.last_removal) > oldest_pin:
                return False
            if found.swept:
                self._swept.add(found.scope)
            else:
                self._swept.discard(found.scope)
            with self._lock:  # open or resting, never neither: its rows would be flushed by nobody
                if hot.n:
                    self._resting[found.scope] = (hot.n, int(hot.ids.data[0]))
                self._open.pop(found.scope, None)
            return True
        finally:
            found.lock.release()

    def keep(self, written: OpenScope) -> None:
        """A write has been appended to a scope, which may have been let go meanwhile.  Call with the commit mutex held."""
        if written.scope not in self._open:
            with self._lock:
                self._open[written.scope] = written
                self._resting.pop(written.scope, None)

    def resting(self) -> list[tuple[Scope, int, int]]:
        """The scopes that were let go with rows in their log: how many, and the `_seq` of the first."""
        return [(scope, rows, first) for scope, (rows, first) in list(self._resting.items())]

    def opened(self) -> list[OpenScope]:
        """Every scope in memory, those included that were let go and are still used."""
        return [s for ref in self._live.valuerefs() if (s := ref()) is not None]

    def _remade_key_filter(self, folder: Path, entry: BatchEntry, ref: FilterRef) -> bytes:
        """A key filter that was lost, from the keys in its batch.

        :raises ValueError: it is not the one that the manifest names.
        """
        footer = Footer.from_metadata(self.reader.metadata(folder / entry.file, entry.uuid), entry.file)
        table = self.current(footer.table_id)
        if table is None:
            raise ValueError("the table was dropped")
        names = [c.name for c in table.schema.key_columns]
        keys = self.reader.columns(folder / entry.file, entry, table.schema, names)
        return bloom.rewrite_key_filter(folder, ref, keys, table.schema)

    def of_table(self, table: Table) -> list[Scope]:
        """Every scope of a table that has hot or cold rows, in order."""
        found = set(self.manifests.scopes(table.id)) | set(self.log.scopes(table.id))
        found |= {s.scope for s in self.opened() if s.scope.table_id == table.id}
        return sorted(found, key=lambda s: s.owner or "")

    def forget(self, table_id: int) -> list[OpenScope]:
        """Drop the table's scopes from memory, returning those that were open."""
        with self._lock:
            gone = [s for s in self._open.values() if s.scope.table_id == table_id]
            for s in gone:
                del self._open[s.scope]
                self._live.pop(s.scope, None)
            for scope in [s for s in self._resting if s.table_id == table_id]:
                del self._resting[scope]
        self.manifests.forget_table(table_id)
        return gone
