"""Storages appear as folders below the cache: a path there means the object of that name, and its local copy.

    <cache>/<storage>/<namespace>/<table>~<id>/batch-3.parquet   =   <url>/<namespace>/<table>~<id>/batch-3.parquet

So every other room works with paths, as for the data directory, and `storage.objects` asks here whether a path is one of ours.
A process may serve several data directories, whose caches differ.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from flightkalam.errors import DataCorrupted, Fenced, KalamError, StorageUnavailable
from flightkalam.storage import buckets
from flightkalam.storage.buckets import Blob, Bucket, Taken
from flightkalam.storage.file_cache import FileCache
from flightkalam.storage.patience import Patience, Unreached, current_stop, stopped_by
from flightkalam.telemetry import logger

_FETCHES = 8
log = logger("storage")


class Moved(Exception):
    """The object is not the version that was to be replaced.

    :param current: what is there now.
    """

    def __init__(self, current: Blob | None) -> None:
        super().__init__()
        self.current = current


class Mount:
    """One storage of one data directory."""

    def __init__(self, name: str, bucket: Bucket, cache: FileCache, retries: int) -> None:
        self.name = name
        self.root = cache.root / name.lower()
        self._bucket = bucket
        self._cache = cache
        self._patience = Patience(name, retries)
        self._fetchers = ThreadPoolExecutor(_FETCHES, f"kalam-fetch-{name}")
        self._remover = ThreadPoolExecutor(1, f"kalam-remove-{name}")
        self._lock = threading.Lock()
        self._removals: list[Future[None]] = []

    def use(self, bucket: Bucket) -> None:
        """From the next request on."""
        self._bucket = bucket

    def hurry(self) -> None:
        """No request is repeated any more."""
        self._patience.close()

    def close(self) -> None:
        self.hurry()
        self._fetchers.shutdown(cancel_futures=True)
        self._remover.shutdown()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # -- immutable objects ------------------------------------------------------------------------------------

    def hold(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """Have the local copy while the block runs."""
        return self._cache.hold(path, partial(self._fetch, self._key(path)))

    def ready(self, paths: Iterable[Path]) -> None:
        """Have the local copies for the readers that there are now; missing ones are fetched side by side."""
        stop = current_stop()

        def touch(path: Path) -> None:
            with stopped_by(stop):
                self._cache.touch(path, partial(self._fetch, self._key(path)))

        for done in [self._fetchers.submit(touch, p) for p in paths if not self._cache.touched(p)]:
            done.result()

    def here(self, path: Path) -> bool:
        """Whether there is a local copy."""
        return self._cache.touched(path)

    def part(self, path: Path, offset: int, length: int) -> bytes:
        """Some bytes of an object, which the caller compares with a checksum of its own; none where there is no object."""
        return self._patience.insist("get", lambda: self._bucket.part(self._key(path), offset, length))

    def _fetch(self, key: str, into: Path) -> int:
        """Write an object to a file, compared with the checksum that it was stored with."""
        found = self._patience.insist("get", lambda: self._bucket.fetch(key, into))
        name = key.rpartition("/")[2]
        if found is None:
            raise DataCorrupted(f'{name} is missing from storage "{self.name}"; restore it from a backup')
        data = into.read_bytes()
        if len(data) != found.size or (found.checksum is not None and buckets.checksum(data) != found.checksum):
            raise DataCorrupted(f'{name} in storage "{self.name}" is damaged; restore it from a backup')
        return len(data)

    def upload(self, path: Path) -> None:
        """Store the file that has just been written at `path`; it stays as the local copy.

        Nothing is ever overwritten: what is there under this name is either this very file, from a request whose answer was
        lost (T-41), or somebody else's.
        """
        key, data = self._key(path), path.read_bytes()
        try:
            self._patience.insist("put", lambda: self._put_once(key, data))
        except BaseException:
            self._cache.removed(path)
            raise
        self._cache.added(path, len(data))

    def _put_once(self, key: str, data: bytes) -> None:
        try:
            self._bucket.put(key, data, None)
        except Taken:
            there = self._bucket.facts(key)
            if there is None:
                raise Unreached("another request was in between") from None
            if (there.size, there.checksum) != (len(data), buckets.checksum(data)):
                raise Fenced(
                    f'storage "{self.name}" already has another {key.rpartition("/")[2]} of this table: a failed write has '
                    "left it, or another server writes to these files; run FLUSH TABLE again, which finds out"
                ) from None

    # -- the one object that changes --------------------------------------------------------------------------

    def current(self, path: Path) -> Blob | None:
        return self._patience.insist("get", lambda: self._bucket.get(self._key(path)))

    def swap(self, path: Path, data: bytes, tag: str | None) -> str:
        """Replace the version `tag` of an object (None: there is none), and return the tag of the new one.

        After a request of which it is not known whether it took effect, what is there decides (T-41).

        :raises Moved: another version is there, and it is not ours.
        """
        key, unsure = self._key(path), False

        def once() -> str:
            nonlocal unsure
            if unsure and (found := self._bucket.get(key)) is not None and found.data == data:
                return found.tag
            try:
                return self._bucket.put(key, data, tag)
            except Unreached:
                unsure = True
                raise
            except Taken:
                found = self._bucket.get(key)
                if found is not None and found.data == data:
                    return found.tag
                if (None if found is None else found.tag) == tag:  # 409: another request was under way, and failed
                    raise Unreached("another request was in between") from None
                raise Moved(found) from None

        return self._patience.insist("put", once)

    # -- names ------------------------------------------------------------------------------------------------

    def names(self, folder: Path) -> list[str]:
        """The objects, and the local files, directly in a folder."""
        local = {p.name for p in folder.iterdir() if p.is_file()} if folder.is_dir() else set()
        return sorted(local.union(self._patience.insist("list", lambda: self._bucket.names(self._key(folder)))))

    def keys(self, folder: Path) -> list[Path]:
        """Every object below a folder."""
        found = self._patience.insist("list", lambda: self._bucket.keys(self._key(folder)))
        return [self.root / key for key in found]

    def remove(self, paths: Iterable[Path]) -> None:
        keys = []
        for path in paths:
            self._cache.removed(path)
            keys.append(self._key(path))
        self._patience.insist("delete", lambda: self._bucket.delete(keys))

    def remove_later(self, paths: Sequence[Path], failed: Callable[[], None]) -> None:
        """Remove them without keeping the caller; `settle` tells how it went."""
        for path in paths:
            self._cache.removed(path)

        def remove() -> None:
            try:
                self.remove(paths)
            except BaseException as e:
                log.warning("objects_left", storage=self.name, objects=len(paths), error=str(e))
                failed()
                raise

        with self._lock:
            self._removals = [r for r in self._removals if not r.done() or r.exception() is not None]
            self._removals.append(self._remover.submit(remove))

    def settle(self) -> None:
        """Return when everything that is to be removed is gone.

        :raises StorageUnavailable: something could not be removed; the next flush or compaction tries again.
        """
        with self._lock:
            waiting, self._removals = self._removals, []
        failed = [e for r in waiting if (e := r.exception()) is not None]
        if failed:
            raise failed[0] if isinstance(failed[0], KalamError) else StorageUnavailable(str(failed[0]))

    def forget(self, folder: Path) -> None:
        self._cache.forget(folder)

    # -- whose it is ------------------------------------------------------------------------------------------

    def probe(self, key: str, data: bytes) -> Blob:
        """Make an object unless it is there, and return what is; then see that a condition that does not hold is refused.

        :raises StorageUnavailable: the store does not answer, refuses us, or does not keep to conditions.
        """

        def once() -> Blob:
            with contextlib.suppress(Taken):
                self._bucket.put(key, data, None)
            found = self._bucket.get(key)
            if found is None:
                raise StorageUnavailable(f'storage "{self.name}" does not return what was put into it')
            for tag in (None, '"0"'):
                try:
                    self._bucket.put(key, found.data, tag)
                except Taken:
                    continue
                raise StorageUnavailable(
                    f'storage "{self.name}" does not support conditional writes (If-Match, If-None-Match), without which two '
                    "servers could overwrite each other's files; use a store that does"
                )
            return found

        return self._patience.insist("put", once)

    def delete_key(self, key: str) -> None:
        self._patience.insist("delete", lambda: self._bucket.delete([key]))


_mounts: tuple[tuple[str, Mount], ...] = ()
_changing = threading.Lock()


def mount(new: Mount) -> None:
    """Let the paths below `new.root` mean its objects; in the place of a mount that is there."""
    global _mounts
    with _changing:
        old = [m for _, m in _mounts if m.root == new.root]
        others = [(prefix, m) for prefix, m in _mounts if m.root != new.root]
        _mounts = (*others, (f"{new.root}{os.sep}", new))
    for replaced in old:
        replaced.close()


def unmount(root: Path) -> None:
    """Forget every mount at or below `root`."""
    global _mounts
    with _changing:
        gone = [m for _, m in _mounts if m.root.is_relative_to(root)]
        _mounts = tuple((prefix, m) for prefix, m in _mounts if m not in gone)
    for m in gone:
        m.close()


def of(path: Path) -> Mount | None:
    """The storage that a path lies in; None for the local disk."""
    if not _mounts:
        return None
    text = str(path)
    for prefix, found in _mounts:
        if text.startswith(prefix):
            return found
    return None
