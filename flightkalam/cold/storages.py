"""The storages of a data directory: opened, probed, and mounted where the tables that use them look for their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from flightkalam.cold.publication import Lineage
from flightkalam.errors import Fenced, InvalidValue, KalamError, StorageUnavailable
from flightkalam.model.storage import Storage
from flightkalam.storage import mounts
from flightkalam.storage.buckets import BrokenBucket, open_bucket
from flightkalam.storage.file_cache import FileCache
from flightkalam.storage.mounts import Mount
from flightkalam.telemetry import logger

# Says whose storage it is.  Two data directories in one place would give their tables the same folders.
MARK = "flightkalam.json"
CACHE = "cache"  # in the data directory
log = logger("storage")


class StorageSettings(Protocol):
    @property
    def object_timeout_seconds(self) -> int: ...

    @property
    def object_retries(self) -> int: ...


class Storages:
    """:param environ: where `env:NAME` is looked up: what may be named, and nothing else."""

    def __init__(self, cache: FileCache, lineage: Lineage, settings: StorageSettings, environ: Mapping[str, str]) -> None:
        self.cache = cache
        self._lineage = lineage
        self._settings = settings
        self._environ = environ
        self._mounted: dict[str, Mount] = {}

    def start(self, storages: Iterable[Storage]) -> None:
        """Mount what there is.  One that cannot be opened, for want of a variable, keeps only its own tables from working."""
        for storage in storages:
            try:
                self.mount(storage)
            except KalamError as e:
                log.error("storage_not_opened", storage=storage.name, reason=e.message)
                self._put(storage.name, Mount(storage.name, BrokenBucket(e.message), self.cache, 0))

    def hurry(self) -> None:
        """The service is closing: requests are no longer repeated."""
        for known in self._mounted.values():
            known.hurry()

    def close(self) -> None:
        mounts.unmount(self.cache.root)

    def root(self, storage: Storage) -> Path:
        return self.cache.root / storage.name.lower()

    def probe(self, storage: Storage) -> None:
        """See that a storage works, keeps to conditions and is nobody else's, and mark it as ours.

        :raises StorageUnavailable: it does not.
        :raises Fenced: it is somebody else's.
        """
        found = self._open(storage)
        try:
            text = json.dumps({"service": "flightkalam", "data_directory": self._lineage.origin}).encode()
            there = found.probe(MARK, text)
        finally:
            found.close()
        if there.data != text:
            raise Fenced(
                f"{storage.url} is in use by another server: give each its own prefix, or remove {MARK} there if that server "
                "is gone for good"
            )

    def mount(self, storage: Storage) -> None:
        """Let the storage's tables find their files; in the place of the same storage with other options."""
        known = self._mounted.get(storage.name.lower())
        bucket = open_bucket(storage, self._environ, self._settings.object_timeout_seconds)
        if known is not None:
            known.use(bucket)
        else:
            self._put(storage.name, self._open(storage))

    def unmount(self, storage: Storage) -> None:
        """Forget a storage that no table uses, and its mark there."""
        known = self._mounted.pop(storage.name.lower(), None)
        if known is not None:
            try:
                known.delete_key(MARK)
            except StorageUnavailable as e:
                log.warning("storage_mark_left", storage=storage.name, reason=e.message)
            mounts.unmount(known.root)

    def _open(self, storage: Storage) -> Mount:
        if storage.type == "folder" and Path(storage.url.removeprefix("file://")).is_relative_to(
            self.cache.root.parent.absolute()
        ):
            raise InvalidValue("a storage lies outside of the data directory; tables without STORAGE_ID are in it anyway")
        bucket = open_bucket(storage, self._environ, self._settings.object_timeout_seconds)
        return Mount(storage.name, bucket, self.cache, self._settings.object_retries)

    def _put(self, name: str, made: Mount) -> None:
        mounts.mount(made)
        self._mounted[name.lower()] = made
