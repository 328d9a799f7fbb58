"""The committed manifests of all scopes, and their publication.

RocksDB is the one commit point: a manifest is committed by the atomic batch that holds it, in state `pending_write`.  After
that batch is durable the manifest is published as `manifest.json` and marked `in_sync`.  At most one version of a scope is
unpublished; what a crash leaves pending is published at the next start.

    edit ─ stage(batch) ─ [batch durable: committed] ─ publish ─ manifest.json ─ mark in_sync
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from flightkalam import failpoints
from flightkalam.clock import Clock
from flightkalam.cold import manifest as manifest_
from flightkalam.cold import paths
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.publication import NOBODY, Lineage, Publisher, newer, published_version
from flightkalam.errors import DataCorrupted, StorageUnavailable
from flightkalam.model.ids import Scope, scope_bytes, scope_of, table_bytes
from flightkalam.model.schema import Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store, prefix_end

FAMILY = "manifest_cache"
PENDING = "pending_write"
IN_SYNC = "in_sync"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A manifest with what is known of its published copy."""

    manifest: Manifest
    etag: str
    last_refreshed_us: int
    source_path: str
    sync_state: str


class Manifests:
    """Read-through, write-through access to the manifests of all scopes.

    :param root: the folder of tables without STORAGE_ID.
    :param max_entries: parsed manifests kept in memory.
    :param cache: below it each storage has its folder.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        root: Path,
        max_entries: int = 50_000,
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
        self._lock = threading.Lock()
        self._memory: OrderedDict[Scope, CacheEntry] = OrderedDict()

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
        with self._lock:
            found = self._memory.get(scope)
            if found is not None:
                self._memory.move_to_end(scope)
                return found
        data = self._store.get(FAMILY, scope_bytes(scope))
        if data is None:
            return None
        entry = _decode(data)
        self._remember(entry)
        return entry

    def entries(self, table_id: int | None = None) -> Iterator[CacheEntry]:
        """Every committed manifest, or those of one table, in scope order."""
        prefix = b"" if table_id is None else table_bytes(table_id)
        for _, data in self._store.scan(FAMILY, prefix):
            yield _decode(data)

    def scopes(self, table_id: int) -> list[Scope]:
        return [scope_of(key)[0] for key, _ in self._store.scan(FAMILY, table_bytes(table_id))]

    # -- committing -------------------------------------------------------------------------------------------

    def stage(self, batch: Batch, manifest: Manifest, folder: Path) -> CacheEntry:
        """Add a manifest to an atomic batch.  Its commit is the manifest's commit."""
        etag = self.entry(manifest.scope)
        entry = CacheEntry(manifest, etag.etag if etag else "", self._clock.now_us(), str(folder / paths.MANIFEST), PENDING)
        batch.put(FAMILY, scope_bytes(manifest.scope), _encode(entry))
        return entry

    def committed(self, entry: CacheEntry) -> None:
        """The batch with the staged entry has been appended: readers in this process see it from now on."""
        self._remember(entry)

    def publish(self, scope: Scope, folder: Path, table: str) -> None:
        """Write `manifest.json` from the committed manifest and mark it `in_sync`.

        Call only when the commit is durable: the published copy must never be ahead of the store.
        """
        entry = self.entry(scope)
        if entry is None or entry.sync_state == IN_SYNC:
            return
        failpoints.hit("manifest.before_publish")
        text = self._publish(entry.manifest, folder, table)
        failpoints.hit("manifest.published")
        synced = CacheEntry(entry.manifest, _etag(text), self._clock.now_us(), entry.source_path, IN_SYNC)
        batch = Batch()
        batch.put(FAMILY, scope_bytes(scope), _encode(synced))
        self._store.append(batch)
        self._remember(synced)

    def claim(self, scope: Scope, folder: Path, table: str) -> None:
        """Before the first install of this process: make sure that nobody else serves the scope, and that everybody sees that
        we do.

        :raises Fenced: somebody else does.
        """
        if not self.publisher.claimed(folder / paths.MANIFEST):
            self._publish(self.get(scope), folder, table)

    def confirm(self, folder: Path, table: str) -> None:
        """:raises Fenced: somebody else has taken the scope over."""
        if objects.is_remote(folder):
            self.publisher.read(folder / paths.MANIFEST, table)

    def _publish(self, manifest: Manifest, folder: Path, table: str) -> bytes:
        text = json.dumps(manifest_.to_json(manifest, table), separators=(",", ":")).encode()
        text = self.publisher.stamped(folder / paths.MANIFEST, text)
        self.publisher.publish(folder / paths.MANIFEST, text, manifest.version, table)
        return text

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

    def check_published(self, scope: Scope, folder: Path, table: str) -> None:
        """Compare `manifest.json` with what is committed; publish again what is missing, old or damaged.

        :raises DataCorrupted: the published copy is newer: another server has written here, or the data directory is an
            old backup beside newer files (T-46).
        """
        entry = self.entry(scope)
        try:
            text = self.publisher.read(folder / paths.MANIFEST, table)
        except StorageUnavailable:
            return  # what is committed here is right; the first install looks again, before it writes anything
        if entry is not None and text is not None and _etag(text) == entry.etag and entry.sync_state == IN_SYNC:
            return
        found = published_version(text)
        committed = entry.manifest.version if entry is not None else 0
        if found > committed:
            raise DataCorrupted(newer(table, found, committed))
        if entry is None or (objects.is_remote(folder) and entry.sync_state == IN_SYNC and found == committed):
            return  # in an object store a claim may have put our name to the same version
        self._remember(CacheEntry(entry.manifest, "", entry.last_refreshed_us, entry.source_path, PENDING))
        with contextlib.suppress(StorageUnavailable):  # stays pending
            self.publish(scope, folder, table)

    def _remember(self, entry: CacheEntry) -> None:
        with self._lock:
            self._memory[entry.manifest.scope] = entry
            self._memory.move_to_end(entry.manifest.scope)
            while len(self._memory) > self._limit:
                oldest = next((s for s, e in self._memory.items() if e.sync_state == IN_SYNC), None)
                if oldest is None:
                    break
                del self._memory[oldest]


def _etag(text: bytes) -> str:
    return f"{xxhash.xxh3_128_hexdigest(text)}"


def _encode(entry: CacheEntry) -> bytes:
    return manifest_.pack(
        {
            "manifest": manifest_.to_json(entry.manifest, ""),
            "etag": entry.etag,
            "last_refreshed": entry.last_refreshed_us,
            "source_path": entry.source_path,
            "sync_state": entry.sync_state,
        }
    )


def _decode(data: bytes) -> CacheEntry:
    record = manifest_.unpack(data)
    return CacheEntry(
        manifest_.from_json(record["manifest"]),
        record["etag"],
        record["last_refreshed"],
        record["source_path"],
        record["sync_state"],
    )
