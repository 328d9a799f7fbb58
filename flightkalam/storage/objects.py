"""Files: the only access to the disk beside the key-value store.

A file is written under a temporary name, synced, renamed and its folder synced (T-40); after that it never changes.  What
fails in between leaves only a temporary file, which nobody reads and start-up removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flightkalam import failpoints
from flightkalam.errors import DiskFull, InternalError

TEMPORARY = ".tmp"


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


def read(path: Path) -> bytes | None:
    """The bytes of a file, None when there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _translated(e, path) from e


def read_part(path: Path, offset: int, length: int) -> bytes:
    """Bytes of a file; fewer where it ends before, none where there is no file."""
    try:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise _translated(e, path) from e


def remove(path: Path) -> None:
    with file_errors(path):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    with file_errors(path):
        if path.is_dir():
            shutil.rmtree(path)


def rename_folder(source: Path, target: Path) -> None:
    """Give a folder whose contents are synced its name, durably."""
    with file_errors(target):
        source.rename(target)
        sync_folder(target.parent)


def size(path: Path) -> int:
    with file_errors(path):
        return path.stat().st_size


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
