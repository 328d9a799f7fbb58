"""Files: the only access to the disk, and to object stores, beside the key-value store.

A file is written under a temporary name, synced, renamed and its folder synced (T-40); after that it never changes.  What
fails in between leaves only a temporary file, which nobody reads and start-up removes.

A path below a mounted storage (`storage.mounts`) means an object there: what is written is stored before the call returns,
what is read is fetched first, what is removed is removed there.  Whoever opens such a path by other means, an engine or Arrow,
has it `held` or `ready` before.  One file of a scope changes, its manifest: `current` and `swap` are for that one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import xxhash

from flightkalam import failpoints
from flightkalam.errors import DiskFull, InternalError
from flightkalam.storage import mounts
from flightkalam.storage.buckets import Blob

TEMPORARY = ".tmp"
_BLOCK = 1 << 20


def temporary(path: Path) -> Path:
    """The name under which `path` is written."""
    return path.with_name(f".{path.name}{TEMPORARY}")


def make_folder(path: Path) -> None:
    """Create a folder and its parents so that they survive a power loss."""
    if path.is_dir():
        return
    missing = [path, *[p for p in path.parents if not p.is_dir()]]
    with file_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)


def publish(path: Path) -> None:
    """Sync the temporary file of `path` and give it its name."""
    with file_errors(path):
        source = temporary(path)
        failpoints.hit("file.before_sync")
        descriptor = os.open(source, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        failpoints.hit("file.before_rename")
        source.rename(path)
        failpoints.hit("file.after_rename")
        sync_folder(path.parent)
    storage = mounts.of(path)
    if storage is not None:
        storage.upload(path)
        failpoints.hit("file.uploaded")


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`, atomically and durably, in the place of what was there."""
    with file_errors(path), discarded_on_error(path):
        with temporary(path).open("wb") as file:
            file.write(data)
        publish(path)


@contextlib.contextmanager
def discarded_on_error(path: Path) -> Iterator[None]:
    """Remove the temporary file of `path` when the block fails."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            temporary(path).unlink(missing_ok=True)
        raise


_HERE = contextlib.nullcontext()


def held(path: Path) -> contextlib.AbstractContextManager[None]:
    """Have the file of an object store on the local disk while the block runs."""
    storage = mounts.of(path)
    return _HERE if storage is None else storage.hold(path)


def ready(paths: Iterable[str]) -> None:
    """Have the files of object stores on the local disk until every reader that there is now has ended."""
    wanted: dict[mounts.Mount, list[Path]] = {}
    for name in paths:
        path = Path(name)
        storage = mounts.of(path)
        if storage is None:
            return  # the files of one plan lie in one place
        wanted.setdefault(storage, []).append(path)
    for storage, missing in wanted.items():
        storage.ready(missing)


def is_remote(path: Path) -> bool:
    """Whether a path lies in an object store."""
    return mounts.of(path) is not None


def read(path: Path) -> bytes | None:
    """The bytes of a file, None when there is none."""
    with held(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise _translated(e, path) from e


def current(path: Path) -> Blob | None:
    """The one file that changes, as it is now, not as it was when it was fetched; None when there is none."""
    storage = mounts.of(path)
    if storage is not None:
        return storage.current(path)
    data = read(path)
    return None if data is None else Blob(data, "")


def swap(path: Path, data: bytes, tag: str | None) -> str:
    """Replace the one file that changes.

    :param tag: of the version to replace, None when there is none; the local disk, which is ours alone, does not ask.
    :raises mounts.Moved: another version is there.
    """
    storage = mounts.of(path)
    if storage is not None:
        return storage.swap(path, data, tag)
    make_folder(path.parent)
    write(path, data)
    return ""


def names(folder: Path) -> list[str]:
    """The files directly in a folder, those in its object store included."""
    storage = mounts.of(folder)
    if storage is not None:
        return storage.names(folder)
    with file_errors(folder):
        return sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def read_part(path: Path, offset: int, length: int) -> bytes:
    """Bytes of a file; fewer where it ends before, none where there is no file.

    Of an object that has no local copy only these bytes are fetched: what they tell may spare the rest.  A temporary file is
    always here.
    """
    temporary_ = path.name.endswith(TEMPORARY)
    storage = None if temporary_ else mounts.of(path)
    if storage is not None and not storage.here(path):
        return storage.part(path, offset, length)
    try:
        with _HERE if temporary_ else held(path), path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise _translated(e, path) from e


def remove(path: Path) -> None:
    storage = mounts.of(path)
    if storage is not None:
        storage.remove([path])
        return
    with file_errors(path):
        path.unlink(missing_ok=True)


def remove_later(paths: Sequence[Path], failed: Callable[[], None]) -> None:
    """Remove files of an object store's folder in the background; `settle` waits for them.

    :param failed: called, by another thread, when they could not be removed.
    """
    storage = mounts.of(paths[0]) if paths else None
    if storage is not None:
        storage.remove_later(paths, failed)


def settle(folder: Path) -> None:
    """Return when what was to be removed later is gone.

    :raises StorageUnavailable: it is not.
    """
    storage = mounts.of(folder)
    if storage is not None:
        storage.settle()


def tree(folder: Path) -> list[tuple[Path, list[Path]]]:
    """Every folder of objects below a folder, with its objects; nothing for the local disk, where `remove_tree` is enough."""
    storage = mounts.of(folder)
    found: dict[Path, list[Path]] = {}
    for path in storage.keys(folder) if storage is not None else ():
        found.setdefault(path.parent, []).append(path)
    return list(found.items())


def remove_all(paths: list[Path]) -> None:
    """Remove files of one storage in as few requests as it takes."""
    storage = mounts.of(paths[0]) if paths else None
    if storage is not None:
        storage.remove(paths)


def remove_tree(path: Path) -> None:
    """Remove a folder of the local disk, or the local copies of one in an object store."""
    storage = mounts.of(path)
    if storage is not None:
        storage.forget(path)
    with file_errors(path):
        if path.is_dir():
            shutil.rmtree(path)


def rename_folder(source: Path, target: Path) -> None:
    """Give a folder whose contents are synced its name, durably."""
    with file_errors(target):
        source.rename(target)
        sync_folder(target.parent)


def set_aside(source: Path, target: Path) -> None:
    """Move a file or folder of the local disk, durably."""
    make_folder(target.parent)
    with file_errors(target):
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)


def size(path: Path) -> int:
    with held(path), file_errors(path):
        return path.stat().st_size


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file of the local disk is replaced or altered: time of change, size and inode; None: no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _translated(e, path) from e
    return found.st_mtime_ns, found.st_size, found.st_ino


def digest(path: Path) -> str:
    """XXH3 of a file's bytes; a temporary one is always here."""
    hashed = xxhash.xxh3_64()
    with _HERE if path.name.endswith(TEMPORARY) else held(path), file_errors(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Say in our words what the disk refused; names the file, never its folder."""
    try:
        yield
    except OSError as e:
        raise _translated(e, path) from e


def _translated(error: OSError, path: Path) -> DiskFull | InternalError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return DiskFull("the data disk is full; free space, then try again")
    reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
    return InternalError(f"the file {path.name} could not be read or written: {reason}", sqlstate="58030")
