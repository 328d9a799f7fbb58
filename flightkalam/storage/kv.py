"""The key-value store: RocksDB behind one small interface, with group commit.

The only importer of rocksdict.  Two facts shape it (docs/decisions/0001): `write()` holds the interpreter's lock for the
whole write, so it is never asked to sync; `flush_wal(True)` releases it and syncs everything written before.  So a writer
appends unsynced, and one thread syncs for all who wait:

    writer 1   append ─┐ wait ───────────────┐ go on
    writer 2      append ─┐ wait ────────────┤ go on
    sync thread            └ flush_wal ──────┘

`append` returns a *position*; `wait(position)` returns once everything up to it is on disk.  When a sync fails the outcome
is unknown (T-15): the store refuses every further write until the process opens it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rocksdict

from flightkalam.errors import ConfigError, DataCorrupted, DiskFull, InternalError, TryAgain

FAMILIES = ("meta", "catalog", "log", "manifest_cache", "accounts", "jobs", "audit")


class Batch:
    """Puts and deletes that become durable together or not at all."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: list[tuple[str, str, bytes, bytes]] = []

    def put(self, family: str, key: bytes, value: bytes) -> None:
        self.operations.append(("put", family, key, value))

    def delete(self, family: str, key: bytes) -> None:
        self.operations.append(("delete", family, key, b""))

    def delete_range(self, family: str, begin: bytes, end: bytes) -> None:
        """Delete begin ≤ key < end."""
        self.operations.append(("delete_range", family, begin, end))

    def __len__(self) -> int:
        return len(self.operations)


def prefix_end(prefix: bytes) -> bytes:
    """The first key after every key that begins with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\xff" * 64


class Store:
    """An open store.  Thread-safe.

    :param durable: sync the write-ahead log; without, a write survives the process and not the machine.
    :param reserve_bytes: free space that must be left for a write to be accepted, so that RocksDB itself never meets a full
        disk: it could then not even delete (T-16).
    :raises ConfigError: the directory is in use by another server.
    """

    def __init__(self, path: Path, *, durable: bool = True, reserve_bytes: int = 64 << 20) -> None:
        self._path = path
        self._durable = durable
        self._reserve = reserve_bytes
        self._db = _open(path)
        self._handles = {f: self._db.get_column_family_handle(f) for f in FAMILIES}
        self._families = {f: self._db.get_column_family(f) for f in FAMILIES}
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._waiting: list[tuple[int, threading.Lock]] = []  # (position, a held lock that is released when it is durable)
        self._appended = 0
        self._synced = 0
        self._failed: str | None = None  # the text alone: an error's traceback would keep the database open
        self._closing = False
        self.timed: Callable[[float], None] = lambda seconds: None  # told how long each sync took
        self._listeners: list[Callable[[int], None]] = []
        self._thread = threading.Thread(target=self._sync_loop, name="kalam-sync", daemon=True)
        self._thread.start()

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, family: str, key: bytes) -> bytes | None:
        with _translated():
            return self._families[family].get(key)

    def scan(
        self,
        family: str,
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        end: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs in key order whose key begins with `prefix` (and is ≥ start, < end)."""
        low = prefix if start is None else max(prefix, start)
        high = prefix_end(prefix) if prefix else None
        if end is not None:
            high = end if high is None else min(high, end)
        with _translated():
            iterator = self._families[family].iter()
            if reverse:
                iterator.seek_for_prev(high) if high is not None else iterator.seek_to_last()
                if high is not None and iterator.valid() and iterator.key() >= high:
                    iterator.prev()
            else:
                iterator.seek(low)
            while iterator.valid():
                key = iterator.key()
                if (reverse and key < low) or (not reverse and high is not None and key >= high):
                    break
                yield key, iterator.value()
                iterator.prev() if reverse else iterator.next()
            iterator.status()

    # -- writing ----------------------------------------------------------------------------------------------

    def require_space(self, nbytes: int = 0) -> None:
        """Refuse early, before anything is changed.

        :raises DiskFull: writing so many bytes would leave less than the reserve.
        """
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < self._reserve + nbytes:
            raise DiskFull("the data disk is full; free space, then try again")

    def append(self, batch: Batch) -> int:
        """Write atomically, not yet durably, and return the position to wait for."""
        self._check()
        raw = rocksdict.WriteBatch(raw_mode=True)
        for operation, family, key, value in batch.operations:
            handle = self._handles[family]
            if operation == "put":
                raw.put(key, value, handle)
            elif operation == "delete":
                raw.delete(key, handle)
            else:
                raw.delete_range(key, value, handle)
        with self._lock:
            self._check()
            try:
                with _translated():
                    self._db.write(raw)
            except BaseException as e:
                # A failed append may or may not be in the log: the same doubt as a failed sync.
                self._fail(e)
                raise
            self._appended += 1
            self._wake.notify()
            return self._appended

    def wait(self, position: int) -> None:
        """Return when everything up to `position` is durable.

        :raises InternalError: the disk failed; whether the write will be there after a restart is unknown.
        """
        if self._synced >= position:
            return
        woken = threading.Lock()
        woken.acquire()
        with self._lock:
            if self._synced >= position:
                return
            self._check_failed()
            self._waiting.append((position, woken))
        woken.acquire()
        if self._synced < position:
            self._check_failed()

    def wake_at(self, position: int, sleeping: Sequence[threading.Lock]) -> None:
        """Release held locks once everything up to `position` is durable, or the disk has failed: `wait` then says which."""
        with self._lock:
            if self._synced < position and self._failed is None:
                self._waiting.extend((position, woken) for woken in sleeping)
                return
        for woken in sleeping:
            woken.release()

    def commit(self, batch: Batch) -> None:
        """Write atomically and durably."""
        self.wait(self.append(batch))

    def on_synced(self, listener: Callable[[int], None]) -> None:
        """Have `listener(position)` called by the sync thread before the waiters of that position wake."""
        self._listeners.append(listener)

    @property
    def appended(self) -> int:
        return self._appended

    def _check(self) -> None:
        self._check_failed()
        if self._closing:
            raise TryAgain("the service is shutting down", sqlstate="57P01")

    def _check_failed(self) -> None:
        if self._failed is not None:
            raise InternalError(
                "the write-ahead log could not be written; the service has stopped writing and must be restarted "
                f"({self._failed})",
                sqlstate="58030",
            )

    def _fail(self, error: BaseException) -> None:
        self._failed = str(error)
        self._wake_waiting(self._appended)
        self._wake.notify_all()

    def _wake_waiting(self, position: int) -> None:
        """Each waiter has a lock of its own, so that it need not queue for a common one only to go on."""
        waiting, self._waiting = self._waiting, []
        for wanted, woken in waiting:
            if wanted <= position:
                woken.release()
            else:
                self._waiting.append((wanted, woken))

    def _sync_loop(self) -> None:
        while True:
            with self._wake:
                while self._appended == self._synced and not self._closing and self._failed is None:
                    self._wake.wait()
                if self._failed is not None or (self._closing and self._appended == self._synced):
                    return
                target = self._appended
            try:
                begun = time.perf_counter()
                with _translated():
                    self._db.flush_wal(self._durable)
                self.timed(time.perf_counter() - begun)
                for listener in self._listeners:
                    listener(target)
            except BaseException as e:
                with self._lock:
                    self._fail(e)
                return
            with self._lock:
                self._synced = target
                self._wake_waiting(target)

    # -- life -------------------------------------------------------------------------------------------------

    def why_not_writable(self) -> str | None:
        """What keeps writes from being accepted; None while nothing does.  A disk that was full may be free again."""
        if self._failed is not None:
            return "the write-ahead log could not be written; the service must be restarted"
        try:
            disk = os.statvfs(self._path)
        except OSError as e:
            return f"the data directory cannot be reached: {e.strerror}"
        if disk.f_flag & os.ST_RDONLY:
            return "the data disk is read-only"
        if disk.f_bavail * disk.f_frsize < self._reserve:
            return "the data disk is full"
        return None

    @property
    def healthy(self) -> bool:
        return self._failed is None

    def checkpoint(self, path: Path) -> None:
        """A consistent copy of the store in a new directory, made of hard links where the disk allows."""
        with _translated():
            rocksdict.Checkpoint(self._db).create_checkpoint(str(path))

    def rewrite(self, family: str, begin: bytes, end: bytes) -> None:
        """Leave no trace on disk of what was deleted or overwritten in begin ≤ key < end.

        The write-ahead log goes when every family has been written out; then the tables over the range are written anew,
        the lowest level included.  Slow, and holds no lock of ours.
        """
        with _translated():
            for each in self._families.values():
                each.flush(True)
            options = rocksdict.CompactOptions()
            options.set_bottommost_level_compaction(rocksdict.BottommostLevelCompaction.force())
            self._families[family].compact_range(begin, end, compact_opt=options)

    def close(self) -> None:
        """Sync what was appended and close.  Safe to call twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._db.flush_wal(True)
        self._families.clear()
        self._handles.clear()
        self._db.close()


def _options() -> Any:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(3)
    options.set_max_total_wal_size(256 << 20)
    options.set_write_buffer_size(32 << 20)
    # A torn record at the end of the log was never acknowledged; anything else that does not match is damage, and said.
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    return options


def _open(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = _options()
    try:
        return rocksdict.Rdict(str(path), options, column_families={f: _options() for f in FAMILIES})
    except Exception as e:
        text = str(e)
        if "lock" in text.lower():
            raise ConfigError(
                f"the data directory {path.parent} is in use by another server; stop it first or choose another --data-dir"
            ) from None
        if "Corruption" in text:
            raise DataCorrupted(
                f"the store in {path} is damaged: {text}; restore a backup, or move {path} away and run `flightkalam recover`"
            ) from None
        raise ConfigError(f"the store in {path} cannot be opened: {text}") from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """rocksdict raises plain `Exception`: say in our words what happened."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as e:
        text = str(e)
        if "No space left" in text or getattr(e, "errno", None) == errno.ENOSPC:
            raise DiskFull("the data disk is full; free space, then try again") from e
        if "Corruption" in text:
            raise DataCorrupted(f"the key-value store reports damage: {text[:300]}") from e
        raise InternalError(f"the key-value store failed: {text[:300]}", sqlstate="58030") from e
