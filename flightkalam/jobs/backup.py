"""Backup and restore: one consistent copy of everything, taken while the service goes on.

    pin         readers keep every file that a manifest names; a backup is one more reader
    checkpoint  the store as it is at one moment, everything acknowledged until now in it; this moment is the backup's
    collect     exactly the files that the checkpoint's manifests and log name: hard links, copies where those are not possible
    list        size and checksum of every file, in `inventory.json`
    install     sync all of it, then give the folder its name: a name without the dot is a whole backup

    <backup folder>/<name>/inventory.json
                           store/…            the checkpoint
                           hot/seg-*.arrow    segment files of rows that were hot
                           cold/<ns>/<table>~<id>/[<user>/]batch-<N>.parquet, dv-<version>.bin

`manifest.json` is left out: it is a copy of what the store holds, may be newer than the checkpoint, and is published again
by the restored service.

Files of object stores are copied too, and a restored data directory has them in itself: it knows no storage, so that it can
run beside the one that it is a copy of, whose files in the object store go on changing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from flightkalam import __version__, failpoints
from flightkalam.catalog.catalog import Catalog
from flightkalam.catalog.storages import without_storages
from flightkalam.clock import Clock, SystemClock
from flightkalam.cold import paths
from flightkalam.cold.manifests import Manifests
from flightkalam.cold.storages import CACHE
from flightkalam.errors import ConfigError, DataCorrupted, DuplicateObject, InvalidValue
from flightkalam.hot.store import HotLog
from flightkalam.jobs import installs, kinds
from flightkalam.jobs.control import Control
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.door import CommitDoor

KIND = "backup"
INVENTORY = "inventory.json"
STORE, HOT, COLD = "store", "hot", "cold"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BLOCK = 4 << 20
_UNFINISHED = ".making"
Stop = Callable[[], None]


def valid_name(name: str) -> str:
    """The name of a backup, which becomes a folder's.

    :raises InvalidValue: it could leave the backup folder, or is hard to handle in a shell.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidValue(
            f'"{name[:80]}" cannot be a backup\'s name: use 1 to 128 letters, digits, ".", "_" and "-", the first a letter '
            "or digit",
            sqlstate="42602",
        )
    return name


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a backup: its path inside, its size in bytes and the checksum of its bytes."""

    path: str
    size: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a backup holds.

    :param created_at: of the checkpoint, RFC 3339.
    :param files: sorted by path.
    """

    name: str
    created_at: str
    service_version: str
    files: tuple[Listed, ...]

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)


class Backups:
    """Makes backups.

    :param root: the data directory.
    :param folder: where backups are kept.
    """

    def __init__(self, store: Store, door: CommitDoor, clock: Clock, root: Path, folder: Path) -> None:
        self._store = store
        self._door = door
        self._clock = clock
        self._root = root
        self._folder = folder
        self._one = threading.Lock()

    def require_free(self, name: str) -> None:
        """:raises DuplicateObject: there is a backup of this name."""
        if (self._folder / valid_name(name)).exists():
            raise DuplicateObject(f'a backup named "{name}" already exists; choose another name', sqlstate="42710")

    def run(self, wanted: kinds.Backup, control: Control) -> dict[str, Any]:
        """The job; returns how many files and bytes the backup has."""

        def stop() -> None:
            control.step("nothing is left of the backup")

        name = wanted.name
        with self._one:
            self.require_free(name)
            made = self._make(name, stop)
        return {"name": name, "files": len(made.files), "bytes": made.size, "created_at": made.created_at}

    def _make(self, name: str, stop: Stop) -> Inventory:
        objects.make_folder(self._folder)
        for left in self._folder.glob(f".*{_UNFINISHED}"):  # of a crash: only one backup is made at a time
            objects.remove_tree(left)
        making = self._folder / f".{name}{_UNFINISHED}"
        try:
            with objects.file_errors(making):
                making.mkdir()
            with self._door.pinned():
                created = self._clock.now_us()
                self._store.checkpoint(making / STORE)
                failpoints.hit("backup.checkpoint")
                for path, target in self._named(making / STORE):
                    stop()
                    _link(self._root / path, making / target)
            failpoints.hit("backup.collected")
            inventory = _listed(name, created, making, stop)
            objects.write(making / INVENTORY, _to_json(inventory))
            _sync_folders(making)
            failpoints.hit("backup.before_rename")
            objects.rename_folder(making, self._folder / name)
            return inventory
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(making, ignore_errors=True)
            raise

    def _named(self, checkpoint: Path) -> Iterator[tuple[Path, Path]]:
        """The files that the checkpoint needs beside itself, relative to the data directory, and their places in the backup.

        Opening it also proves that it can be opened.
        """
        store = Store(checkpoint, reserve_bytes=0)
        try:
            tables = Catalog(store, self._clock).state.tables
            for file in HotLog(store, Path(HOT)).files():
                yield Path(HOT) / file, Path(HOT) / file
            manifests = Manifests(store, self._clock, Path(COLD), cache=Path(CACHE))
            for entry in manifests.entries():
                manifest = entry.manifest
                table = tables.get(manifest.scope.table_id)
                if table is not None:
                    source = manifests.folder(table, manifest.scope)
                    target = paths.scope_folder(Path(COLD), table.folder, manifest.scope)
                    yield from ((source / file, target / file) for file in sorted(installs.names(manifest)))
        finally:
            store.close()


def _link(source: Path, target: Path) -> None:
    """Hard-link an immutable file, or copy it where the file system has no links or is another one."""
    with objects.held(source), objects.file_errors(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise DataCorrupted(f"{source.name} is missing, so no backup can be made; run CHECK TABLE") from None
        except OSError:
            shutil.copyfile(source, target)


def _listed(name: str, created_us: int, folder: Path, stop: Stop) -> Inventory:
    """Size and checksum of every file, each synced on the way."""
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stop()
        with objects.file_errors(path):
            digest, size = _digest(path, sync=True)
        files.append(Listed(path.relative_to(folder).as_posix(), size, digest))
    created = dt.datetime.fromtimestamp(created_us / 1_000_000, dt.UTC).isoformat()
    return Inventory(name, created, __version__, tuple(files))


def _digest(path: Path, *, sync: bool = False, copy_to: Path | None = None) -> tuple[str, int]:
    """Checksum and size of a file, copying it on the way when asked to."""
    digest, size = xxhash.xxh3_128(), 0
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(path.open("rb"))
        target = stack.enter_context(copy_to.open("wb")) if copy_to is not None else None
        while block := source.read(_BLOCK):
            digest.update(block)
            size += len(block)
            if target is not None:
                target.write(block)
        if sync:
            os.fsync(source.fileno())
        if target is not None:
            target.flush()
            os.fsync(target.fileno())
    return digest.hexdigest(), size


def _sync_folders(folder: Path) -> None:
    for path in [*(p for p in folder.rglob("*") if p.is_dir()), folder]:
        objects.sync_folder(path)


def _to_json(inventory: Inventory) -> bytes:
    record = {
        "format_version": _FORMAT,
        "name": inventory.name,
        "created_at": inventory.created_at,
        "service_version": inventory.service_version,
        "files": [[f.path, f.size, f.xxh3] for f in inventory.files],
    }
    body = json.dumps(record, separators=(",", ":"))
    return json.dumps({"inventory": record, "xxh3": xxhash.xxh3_128_hexdigest(body.encode())}, indent=1).encode()


def read_inventory(folder: Path) -> Inventory:
    """:raises ConfigError: the folder is no backup, or one of a newer release.
    :raises DataCorrupted: its inventory is damaged.
    """
    text = objects.read(folder / INVENTORY)
    if text is None:
        raise ConfigError(f"{folder} is not a backup: it has no {INVENTORY}")
    try:
        outer = json.loads(text)
        record = outer["inventory"]
        body = json.dumps(record, separators=(",", ":"))
        if outer["xxh3"] != xxhash.xxh3_128_hexdigest(body.encode()):
            raise ValueError("checksum")
        if record["format_version"] > _FORMAT:
            raise ConfigError(f"the backup {folder.name} has format {record['format_version']}; restore it by a newer release")
        files = tuple(Listed(path, size, xxh3) for path, size, xxh3 in record["files"])
        if any(Path(f.path).is_absolute() or ".." in Path(f.path).parts for f in files):
            raise ValueError("a path leads out of the backup")
        return Inventory(record["name"], record["created_at"], record["service_version"], files)
    except (ValueError, KeyError, TypeError) as e:
        raise DataCorrupted(f"the inventory of the backup {folder.name} is damaged; use another backup") from e


def verify(folder: Path, report: Callable[[Listed], None] = lambda _: None) -> Inventory:
    """Compare every file of a backup with its inventory.

    :raises DataCorrupted: names the first file that is missing or damaged.
    """
    inventory = read_inventory(folder)
    for file in inventory.files:
        _checked(folder, file, None)
        report(file)
    return inventory


def restore(folder: Path, data_dir: Path, report: Callable[[Listed], None] = lambda _: None) -> Inventory:
    """Make a data directory out of a backup, verifying on the way; the backup stays as it is.

    :param data_dir: must not exist, or be empty.  It appears whole or not at all.
    :raises ConfigError: the data directory is in use, or not empty.
    :raises DataCorrupted: a file of the backup is missing or damaged; there is no new data directory then.
    """
    inventory = read_inventory(folder)
    data_dir = data_dir.absolute()
    if data_dir.exists() and (not data_dir.is_dir() or next(data_dir.iterdir(), None) is not None):
        raise ConfigError(f"{data_dir} is not empty; restore into a new directory")
    making = data_dir.with_name(f".{data_dir.name}.restoring")
    objects.remove_tree(making)
    try:
        for name in (STORE, HOT, COLD):
            objects.make_folder(making / name)
        for file in inventory.files:
            _checked(folder, file, making / file.path)
            report(file)
        _leave_storages(making / STORE)
        _sync_folders(making)
        with objects.file_errors(data_dir):
            if data_dir.exists():
                data_dir.rmdir()
        objects.rename_folder(making, data_dir)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return inventory


def _leave_storages(path: Path) -> None:
    """Let every table of a restored store lie in the data directory."""
    store = Store(path, reserve_bytes=0)
    try:
        catalog, batch = Catalog(store, SystemClock()), Batch()
        change = without_storages(catalog.state)
        if change is not None:
            catalog.install(change, batch)
            store.commit(batch)
    finally:
        store.close()


def _checked(folder: Path, file: Listed, copy_to: Path | None) -> None:
    source = folder / file.path
    if copy_to is not None:
        with objects.file_errors(copy_to):
            copy_to.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        raise DataCorrupted(f"{file.path} of the backup {folder.name} is missing; use another backup")
    with objects.file_errors(source):
        digest, size = _digest(source, copy_to=copy_to)
    if (digest, size) != (file.xxh3, file.size):
        raise DataCorrupted(f"{file.path} of the backup {folder.name} is damaged; use another backup")
