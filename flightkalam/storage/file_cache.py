"""The local copies of immutable objects: bounded, the longest unused go first.

    reader begins  ─ pin ── touch(file): mark := readers so far ──────────── reader ends
    evict          file is removed only when every reader up to its mark has ended, and nobody holds it

A file that a reader has chosen stays until that reader has ended, so an engine may open it whenever it likes; what cannot go
yet lets the cache grow beyond its budget for that long.  A file appears under its name when it is complete and verified.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flightkalam.errors import DiskFull

_TEMPORARY = ".tmp"


class Readers(Protocol):
    """Who may be using files."""

    def readers_before(self) -> int:
        """A mark between the readers there are and those to come."""
        ...

    def readers_gone(self, mark: int) -> bool: ...

    def after_readers(self, action: Callable[[], None]) -> None:
        """Run `action` once every reader that there is now has ended."""
        ...


@dataclass
class _Entry:
    size: int
    mark: int
    holds: int = 0


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """:param fetched_bytes: read from object stores since the start."""

    files: int
    bytes: int
    hits: int
    misses: int
    evicted: int
    fetched_bytes: int


Fetch = Callable[[Path], int]


class FileCache:
    """:param root: everything below belongs to the cache and may be deleted while the service is stopped.
    :param budget: bytes.
    """

    def __init__(self, root: Path, budget: int, readers: Readers) -> None:
        self.root = root
        self._budget = budget
        self._readers = readers
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._fetching: dict[str, threading.Lock] = {}
        self._waiting = False
        self._bytes = self._hits = self._misses = self._evicted = self._fetched = 0
        self._adopt()

    def _adopt(self) -> None:
        """Take over the files of the last run, the longest unused first; what was not finished goes."""
        found = []
        for path in self.root.rglob("*") if self.root.is_dir() else ():
            if path.is_file():
                if path.name.endswith(_TEMPORARY):
                    path.unlink()
                elif path.suffix != ".json":
                    status = path.stat()
                    found.append((status.st_atime_ns, str(path), status.st_size))
        for _, name, size in sorted(found):
            self._entries[name] = _Entry(size, 0)
            self._bytes += size
        self._evict()

    def figures(self) -> CacheFigures:
        with self._lock:
            return CacheFigures(len(self._entries), self._bytes, self._hits, self._misses, self._evicted, self._fetched)

    @contextlib.contextmanager
    def hold(self, path: Path, fetch: Fetch) -> Iterator[None]:
        """Have the file at `path` while the block runs."""
        entry = self._take(path, fetch, 1)
        try:
            yield
        finally:
            with self._lock:
                entry.holds -= 1

    def touch(self, path: Path, fetch: Fetch) -> None:
        """Have the file at `path` until every reader that there is now has ended.

        :param fetch: writes it to the path that it is given, and returns its size.
        """
        self._take(path, fetch, 0)

    def touched(self, path: Path) -> bool:
        """Whether the file is here; then it stays as after `touch`."""
        with self._lock:
            here = self._used(str(path), 0) is not None
            self._hits += here
        return here

    def _take(self, path: Path, fetch: Fetch, holds: int) -> _Entry:
        name = str(path)
        with self._lock:
            entry = self._used(name, holds)
            if entry is not None:
                self._hits += 1
                return entry
            gate = self._fetching.setdefault(name, threading.Lock())
        with gate:  # whoever waits here finds it afterwards, or tries itself when the first has failed
            with self._lock:
                entry = self._used(name, holds)
            if entry is None:
                entry = self._fetch(path, fetch, holds)
        with self._lock:
            self._fetching.pop(name, None)
        return entry

    def _used(self, name: str, holds: int) -> _Entry | None:
        """The entry, as the latest used.  Call with the lock held."""
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
            entry.mark = self._readers.readers_before()
            entry.holds += holds
        return entry

    def _fetch(self, path: Path, fetch: Fetch, holds: int) -> _Entry:
        temporary = path.with_name(f".{path.name}.{threading.get_ident()}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = fetch(temporary)
            _sync(temporary)
            temporary.rename(path)
        except OSError as e:
            raise DiskFull(f"the cache of object stores cannot be written: {e.strerror}; free space, then try again") from e
        finally:
            temporary.unlink(missing_ok=True)
        with self._lock:
            self._misses += 1
            self._fetched += size
        return self.added(path, size, holds)

    def added(self, path: Path, size: int, holds: int = 0) -> _Entry:
        """A file that is complete at `path`, fetched or written by us."""
        name = str(path)
        with self._lock:
            entry = self._entries.setdefault(name, _Entry(0, 0))
            self._bytes += size - entry.size
            entry.size = size
            self._used(name, holds)
        self._evict()
        return entry

    def removed(self, path: Path) -> None:
        """The object is gone, so its copy goes too."""
        with self._lock:
            entry = self._entries.pop(str(path), None)
            self._bytes -= entry.size if entry is not None else 0
            path.unlink(missing_ok=True)

    def forget(self, folder: Path) -> None:
        """Remove every copy below a folder."""
        prefix = f"{folder}{os.sep}"
        with self._lock:
            names = [name for name in self._entries if name.startswith(prefix)]
        for name in names:
            self.removed(Path(name))

    def _evict(self) -> None:
        if self._bytes > self._budget and self._evict_some() and not self._waiting:
            self._waiting = True
            self._readers.after_readers(self._evict_again)

    def _evict_again(self) -> None:
        self._waiting = False
        self._evict()

    def _evict_some(self) -> bool:
        """Remove what may go until the rest fits; whether there are files that wait for readers."""
        with self._lock:
            waiting = False
            for name in list(self._entries):
                if self._bytes <= self._budget:
                    return False
                entry = self._entries[name]
                if entry.holds == 0 and self._readers.readers_gone(entry.mark):
                    Path(name).unlink(missing_ok=True)
                    del self._entries[name]
                    self._bytes -= entry.size
                    self._evicted += 1
                else:
                    waiting = waiting or entry.holds == 0
            return waiting


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
