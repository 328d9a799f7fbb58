"""The committed manifests of all scopes, their publication, and the cache over both.

RocksDB is the one commit point: a manifest is committed by the atomic batch that holds it, in state `pending_write`.  After
that batch is durable the manifest is published as `manifest.json` and marked `in_sync`.  At most one version of a scope is
unpublished; what a crash or a full disk leaves pending is published when the scope is next looked at.

    edit ─ stage(batch) ─ [batch durable: committed] ─ publish ─ manifest.json ─ mark in_sync

    in_sync ── install ──▶ pending_write ── publish ──▶ syncing ──▶ in_sync
       │                        ▲                          │
       │ the copy is missing,   │ a failed write ◀─────────┘
       ├─ old or damaged ──▶ stale ── publish ──▶ …
       └─ newer than what is committed ──▶ error: another server wrote here, or this is an old backup

*The cache.*  Memory holds parsed manifests, the longest unused go first; below it lies the store, which is never evicted,
since it is what is committed.  An entry older than its time to live is revalidated when it is next used: one look at the
published file's stamp, and at its bytes only if that has changed.  When an entry was last used is known in memory only.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from flightkalam import failpoints
from flightkalam.clock import Clock
from flightkalam.cold import manifest_chain as chain
from flightkalam.cold import manifest_records as records
from flightkalam.cold import paths
from flightkalam.cold.manifest import Manifest, ManifestEdit
from flightkalam.cold.manifest_chain import Part
from flightkalam.cold.manifest_json import encode
from flightkalam.cold.manifest_records import FAMILY, Sync
from flightkalam.cold.publication import NOBODY, Lineage, Publisher, newer, published_version
from flightkalam.errors import DataCorrupted, DiskFull, InternalError, KalamError, StorageUnavailable
from flightkalam.model.ids import Scope, scope_bytes, table_bytes
from flightkalam.model.schema import Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store, prefix_end
from flightkalam.telemetry import logger

PENDING = "pending_write"
IN_SYNC = "in_sync"
SYNCING = "syncing"
STALE = "stale"
ERROR = "error"
_STRIPES = 64
log = logger("manifests")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A manifest with what is known of its published copy.

    :param parts: how it is stored.
    :param published: the version last published.
    :param gone: parts that the published head may still name.
    """

    manifest: Manifest
    etag: str
    last_refreshed_us: int
    source_path: str
    sync_state: str
    parts: tuple[Part, ...] = ()
    published: int = 0
    gone: tuple[Part, ...] = ()

    @property
    def sync(self) -> Sync:
        m = self.manifest
        state = IN_SYNC if self.sync_state == IN_SYNC else PENDING
        known = (self.etag, self.last_refreshed_us, self.source_path, state, self.published)
        return Sync(*known, m.version, m.max_batch, m.flushed_seq)


@dataclass(slots=True)
class _Slot:
    """A place in memory.

    :param entry: None: the scope has no manifest.
    :param due: when the published copy is to be looked at again, on the monotonic clock.
    :param stamp: the published file when it was last found to be ours.
    """

    entry: CacheEntry | None
    last_accessed_us: int
    due: float
    stamp: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of SHOW MANIFEST CACHE."""

    scope: Scope
    etag: str
    last_refreshed_us: int
    last_accessed_us: int | None
    ttl_seconds: int
    source: str
    sync_state: str


def _no_count(name: str, n: int) -> None:
    return None


class Manifests:
    """Read-through, write-through access to the manifests of all scopes.

    :param root: the folder of tables without STORAGE_ID.
    :param max_entries: parsed manifests kept in memory.
    :param ttl_seconds: after so long a published copy is looked at again.
    :param count: adds to a counter.
    :param cache: below it each storage has its folder.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        root: Path,
        max_entries: int = 50_000,
        ttl_seconds: int = 60,
        count: Callable[[str, int], None] = _no_count,
        *,
        lineage: Lineage = NOBODY,
        cache: Path | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self.root = root
        self._cache = cache if cache is not None else root
        self.publisher = Publisher(lineage)
        self._limit = max_entries
        self._ttl = ttl_seconds
        self._count = count
        self._lock = threading.Lock()
        self._memory: OrderedDict[Scope, _Slot] = OrderedDict()
        self._publishing = [threading.RLock() for _ in range(_STRIPES)]

    def root_of(self, storage: str | None) -> Path:
        """The folder below which the tables of a storage lie."""
        return self.root if storage is None else self._cache / storage.lower()

    def folder(self, table: Table, scope: Scope) -> Path:
        return paths.scope_folder(self.root_of(table.options.storage_id), table.folder, scope)

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, scope: Scope) -> Manifest:
        """The committed manifest of a scope; an empty one when it never had any."""
        entry = self.entry(scope)
        return Manifest(scope) if entry is None else entry.manifest

    def entry(self, scope: Scope) -> CacheEntry | None:
        """:raises DataCorrupted: what is committed is damaged."""
        return self._slot(scope).entry

    def _slot(self, scope: Scope) -> _Slot:
        now = self._clock.now_us()
        with self._lock:
            found = self._memory.get(scope)
            if found is not None:
                self._memory.move_to_end(scope)
                found.last_accessed_us = now
        self._count("manifest_cache_misses" if found is None else "manifest_cache_hits", 1)
        return self._admit(scope, self._load(scope)) if found is None else found

    def _load(self, scope: Scope) -> CacheEntry | None:
        found = records.read(self._store, scope)
        if found is None:
            return None
        manifest, parts = found
        sync = records.read_sync(self._store, scope)
        if sync is None:  # lost: whatever is published is looked at, and published again
            return CacheEntry(manifest, "", 0, "", PENDING, parts)
        # A publication that an install has overtaken leaves a record of the version before.
        state = sync.sync_state if sync.version == manifest.version else PENDING
        return CacheEntry(manifest, sync.etag, sync.last_refreshed_us, sync.source_path, state, parts, sync.published)

    def entries(self, table_id: int | None = None) -> Iterator[CacheEntry]:
        """Every committed manifest, or those of one table, in scope order; memory stays as it is."""
        for scope in records.scopes(self._store, table_id):
            with self._lock:
                found = self._memory.get(scope)
            entry = self._load(scope) if found is None else found.entry
            if entry is not None:
                yield entry

    def scopes(self, table_id: int) -> list[Scope]:
        return list(records.scopes(self._store, table_id))

    def shown(self) -> Iterator[Shown]:
        """What the cache knows of every scope; no manifest is parsed for it."""
        for scope in records.scopes(self._store):
            with self._lock:
                slot = self._memory.get(scope)
            sync = records.read_sync(self._store, scope)
            if slot is not None and slot.entry is not None:
                e = slot.entry
                state = (e.etag, e.last_refreshed_us, slot.last_accessed_us, self._ttl, e.source_path, e.sync_state)
                yield Shown(scope, *state)
            elif sync is not None:
                yield Shown(scope, sync.etag, sync.last_refreshed_us, None, self._ttl, sync.source_path, sync.sync_state)
            else:
                yield Shown(scope, "", 0, None, self._ttl, "", ERROR)

    # -- the cache --------------------------------------------------------------------------------------------

    def touch(self, scope: Scope, folder: Path, table: str) -> None:
        """A statement uses the scope: count it, and look at the published copy when its time to live is over.

        :raises DataCorrupted: the published copy is newer than what is committed.
        """
        slot = self._slot(scope)
        if self._clock.monotonic() < slot.due:
            return
        if objects.is_remote(folder):  # there the conditional put of each install tells (publication)
            slot.due = self._clock.monotonic() + self._ttl
            return
        self.check_published(scope, folder, table)

    def evict(self, idle_seconds: int) -> int:
        """Let go of manifests that were not used for so long, and of those above the limit; returns how many went.

        Never of one that is not published: whoever looks at the cache must find it.
        """
        limit = self._clock.now_us() - idle_seconds * 1_000_000
        with self._lock:
            idle = [s for s, slot in self._memory.items() if slot.last_accessed_us < limit and _evictable(slot)]
            for scope in idle:
                del self._memory[scope]
        gone = len(idle) + self._shrink()
        self._count("manifest_cache_evictions", gone)
        return gone

    def _admit(self, scope: Scope, entry: CacheEntry | None) -> _Slot:
        """Keep what was loaded, unless a commit has come in between."""
        with self._lock:
            slot = self._memory.setdefault(scope, _Slot(entry, self._clock.now_us(), 0.0))
        if len(self._memory) > self._limit:
            self._shrink()
        return slot

    def _alter(self, old: CacheEntry, new: CacheEntry, stamp: tuple[int, int, int] | None = None) -> bool:
        """Note what has become of `old`'s published copy; whether it still is what is committed.

        :param stamp: of the copy, when it is known to be ours.
        """
        with self._lock:
            slot = self._memory.get(old.manifest.scope)
            if slot is None or slot.entry is None or slot.entry.manifest.version != old.manifest.version:
                return False
            slot.entry = new
            if stamp is not None:
                slot.due, slot.stamp = self._clock.monotonic() + self._ttl, stamp
        return True

    def _shrink(self) -> int:
        """Keep to the limit; what is not published stays."""
        with self._lock:
            over = len(self._memory) - self._limit
            oldest: list[Scope] = []
            for scope, slot in self._memory.items():
                if len(oldest) >= over:
                    break
                if _evictable(slot):
                    oldest.append(scope)
            for scope in oldest:
                del self._memory[scope]
        return len(oldest)

    # -- committing -------------------------------------------------------------------------------------------

    def stage(self, batch: Batch, manifest: Manifest, folder: Path, edit: ManifestEdit | None = None) -> CacheEntry:
        """Add a manifest to an atomic batch.  Its commit is the manifest's commit.

        :param edit: what made it of the committed one; None: it is made anew, and stored whole.
        """
        scope = manifest.scope
        if edit is None:
            records.remove(batch, scope)
            grown, old = chain.whole((), manifest), None
        else:
            old = self.entry(scope)
            grown = self._grown(old, manifest, edit)
        entry = CacheEntry(
            manifest,
            "" if old is None else old.etag,
            self._clock.now_us(),
            str(folder / paths.MANIFEST),
            PENDING,
            grown.parts,
            0 if old is None else old.published,
            (*(() if old is None else old.gone), *grown.gone),
        )
        records.put(batch, manifest, grown, entry.sync)
        return entry

    def _grown(self, old: CacheEntry | None, manifest: Manifest, edit: ManifestEdit) -> chain.Grown:
        if old is None:
            return chain.whole((), manifest)
        try:
            return chain.grown(
                old.parts, manifest, edit, lambda part: records.read_part(self._store, manifest.scope, part) or b""
            )
        except DataCorrupted as e:  # a stored part is damaged; what is in memory was read before, or made here
            self._count("manifest_damages", 1)
            log.warning("manifest_part_damaged", table_id=manifest.scope.table_id, scope=manifest.scope.label, error=e.message)
            return chain.whole(old.parts, manifest)

    def restore(self, manifest: Manifest, folder: Path, table: str) -> None:
        """Commit and publish a manifest that was made from the files, in the place of whatever the store holds."""
        self.forget(manifest.scope)
        batch = Batch()
        staged = self.stage(batch, manifest, folder)
        self._store.commit(batch)
        self.committed(staged)
        self._count("manifest_rebuilds", 1)
        self._republish(manifest.scope, staged, None, folder, table)

    def committed(self, entry: CacheEntry) -> None:
        """The batch with the staged entry has been appended: readers in this process see it from now on."""
        scope = entry.manifest.scope
        with self._lock:
            slot = self._memory.setdefault(scope, _Slot(entry, self._clock.now_us(), 0.0))
            slot.entry = entry
            self._memory.move_to_end(scope)
        if len(self._memory) > self._limit:
            self._shrink()

    # -- publishing -------------------------------------------------------------------------------------------

    def publish(self, scope: Scope, folder: Path, table: str) -> None:
        """Write `manifest.json` from the committed manifest and mark it `in_sync`.

        It waits until the commit is durable: the published copy must never be ahead of the store.
        """
        with self._publishing[hash(scope) % _STRIPES]:
            entry = self.entry(scope)
            if entry is None or entry.sync_state == IN_SYNC:
                return
            if entry.sync_state == ERROR:
                self._refuse_newer(scope, self.publisher.read(folder / paths.MANIFEST, table), table)
            self._store.wait(self._store.appended)
            self._alter(entry, replace(entry, sync_state=SYNCING))
            try:
                self._publish(entry, folder, table)
            except BaseException:
                self._alter(entry, replace(entry, sync_state=PENDING))
                self._count("manifest_syncs_failed", 1)
                raise
            self._count("manifest_syncs_ok", 1)

    def _publish(self, entry: CacheEntry, folder: Path, table: str) -> None:
        scope, path = entry.manifest.scope, folder / paths.MANIFEST
        failpoints.hit("manifest.before_publish")
        objects.make_folder(folder)
        for part in entry.parts:
            if part.last > entry.published or not _is_there(folder, part):
                self._publish_part(scope, part, folder)
        text = self._put_head(entry.manifest, entry.parts, folder, table)
        failpoints.hit("manifest.published")
        now, version = self._clock.now_us(), entry.manifest.version
        synced = replace(
            entry,
            etag=_etag(text),
            last_refreshed_us=now,
            sync_state=IN_SYNC,
            published=version,
            source_path=str(path),
            gone=(),
        )
        if self._alter(entry, synced, _stamp(path)):
            batch = Batch()
            records.put_sync(batch, scope, synced.sync)
            self._store.append(batch)
        with contextlib.suppress(KalamError):  # the sweep before the next install gets what stays
            for part in entry.gone:
                objects.remove(folder / records.file_of(part))

    def _put_head(self, manifest: Manifest, parts: tuple[Part, ...], folder: Path, table: str) -> bytes:
        path = folder / paths.MANIFEST
        text = self.publisher.stamped(path, encode(chain.head(manifest, table, parts, records.file_of)))
        self.publisher.publish(path, text, manifest.version, table)
        return text

    def claim(self, scope: Scope, folder: Path, table: str) -> None:
        """Before the first install of this process: make sure that nobody else serves the scope, and that everybody sees that
        we do.

        :raises Fenced: somebody else does.
        """
        if not self.publisher.claimed(folder / paths.MANIFEST):
            entry = self.entry(scope)
            whole = entry is None or entry.published < entry.manifest.version  # parts that are not there must not be named
            parts = () if entry is None or whole else entry.parts
            self._put_head(self.get(scope), parts, folder, table)

    def confirm(self, folder: Path, table: str) -> None:
        """:raises Fenced: somebody else has taken the scope over."""
        if objects.is_remote(folder):
            self.publisher.read(folder / paths.MANIFEST, table)

    def _publish_part(self, scope: Scope, part: Part, folder: Path) -> None:
        text = records.read_part(self._store, scope, part)
        chain.read_part(text, part)
        assert text is not None
        objects.write(folder / records.file_of(part), text)

    def check_published(self, scope: Scope, folder: Path, table: str) -> None:
        """Compare `manifest.json` with what is committed; publish again what is missing, old or damaged.

        What cannot be published now stays `pending_write` and is tried again later; answers do not depend on it.

        :raises DataCorrupted: the published copy is newer: another server has written here, or the data directory is an
            old backup beside newer files (T-46).
        """
        with self._publishing[hash(scope) % _STRIPES]:
            path, slot = folder / paths.MANIFEST, self._slot(scope)
            entry, stamp, remote = slot.entry, _stamp(path), objects.is_remote(folder)
            slot.due = self._clock.monotonic() + self._ttl
            synced = entry if entry is not None and entry.sync_state == IN_SYNC else None
            if (entry is None and stamp is None and not remote) or (synced is not None and stamp and stamp == slot.stamp):
                if synced is not None:
                    self._refreshed(synced, stamp)
                return
            try:
                text = self.publisher.read(path, table)
            except StorageUnavailable:
                return  # what is committed here is right; the first install looks again, before it writes anything
            if synced is not None and text is not None and _etag(text) == synced.etag and _complete(synced, folder):
                self._refreshed(synced, stamp)
                return
            self._refuse_newer(scope, text, table)
            named = remote and synced is not None and published_version(text) == synced.manifest.version
            if entry is not None and not named:  # in an object store a claim may have put our name to the same version
                self._republish(scope, entry, text, folder, table)

    def _refreshed(self, entry: CacheEntry, stamp: tuple[int, int, int] | None) -> None:
        self._alter(entry, replace(entry, last_refreshed_us=self._clock.now_us()), stamp)
        self._count("manifest_refreshes", 1)

    def _refuse_newer(self, scope: Scope, text: bytes | None, table: str) -> None:
        found, entry = published_version(text), self.entry(scope)  # in this order: what is committed only grows
        committed = 0 if entry is None else entry.manifest.version
        if found <= committed:
            return
        if entry is not None:
            self._alter(entry, replace(entry, sync_state=ERROR))
        self._slot(scope).due = 0.0  # looked at by each statement until it is gone
        self._count("manifest_refusals", 1)
        log.error("manifest_newer_than_committed", table=table, scope=scope.label, published=found, committed=committed)
        raise DataCorrupted(newer(table, found, committed))

    def _republish(self, scope: Scope, entry: CacheEntry, text: bytes | None, folder: Path, table: str) -> None:
        if entry.sync_state != PENDING:
            self._count("manifest_damages", 1)
            log.warning("manifest_copy_lost", table=table, scope=scope.label, found=text is not None)
            self._alter(entry, replace(entry, etag="", sync_state=STALE, published=0))
        try:
            self.publish(scope, folder, table)
        except (StorageUnavailable, InternalError, DiskFull) as e:
            log.warning("manifest_not_published", table=table, scope=scope.label, error=e.message)

    def part_names(self, scope: Scope) -> frozenset[str]:
        """The files that the scope's published head names."""
        entry = self.entry(scope)
        return frozenset() if entry is None else frozenset(records.file_of(part) for part in entry.parts)

    # -- leaving ----------------------------------------------------------------------------------------------

    def rewrite_all(self) -> None:
        """Leave no trace on disk of any earlier manifest."""
        self._store.rewrite(FAMILY, b"", b"\xff" * 8)

    def rewrite(self, scope: Scope) -> None:
        """Leave no trace on disk of a scope's earlier manifests, whose bounds are values."""
        key = scope_bytes(scope)
        self._store.rewrite(FAMILY, key, prefix_end(key))

    def drop_table(self, batch: Batch, table_id: int) -> None:
        prefix = table_bytes(table_id)
        batch.delete_range(FAMILY, prefix, prefix_end(prefix))

    def forget_table(self, table_id: int) -> None:
        with self._lock:
            for scope in [s for s in self._memory if s.table_id == table_id]:
                del self._memory[scope]

    def forget(self, scope: Scope) -> None:
        """Have the store's record read again."""
        with self._lock:
            self._memory.pop(scope, None)

    def sync(self, scope: Scope) -> Sync | None:
        """What the store keeps beside the manifest; None when that is damaged or missing, too."""
        return records.read_sync(self._store, scope)


def _evictable(slot: _Slot) -> bool:
    return slot.entry is None or slot.entry.sync_state in (IN_SYNC, ERROR)


def _complete(entry: CacheEntry, folder: Path) -> bool:
    """Whether every part that the published head names lies beside it."""
    return all(_is_there(folder, part) for part in entry.parts)


def _is_there(folder: Path, part: Part) -> bool:
    """Whether a part lies beside the published head; in an object store nobody but us removes one."""
    if objects.is_remote(folder):
        return True
    found = objects.stamp(folder / records.file_of(part))
    return found is not None and found[1] == part.size


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Only a file of the local disk has one."""
    return None if objects.is_remote(path) else objects.stamp(path)


def _etag(text: bytes) -> str:
    return f"{xxhash.xxh3_128_hexdigest(text)}"
