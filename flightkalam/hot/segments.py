"""Segment files: the rows of a large write, in a file of their own beside the log.

A large write streams its batches into an Arrow IPC file, which is synced and then named by one small entry of the log.
Reading maps the file: nothing is decoded, nothing lies in the process's own memory, and the page cache bounds what does.
The log itself stays small (why not in the log: docs/decisions/0002).  A file that no entry names is removed at start.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import xxhash

from flightkalam import failpoints
from flightkalam.errors import DataCorrupted
from flightkalam.storage import objects

SUFFIX = ".arrow"
_CHECK_BYTES = 4 << 20


class SegmentWriter:
    """Writes one segment file.  `add` batches of one schema, then `finish`; or `discard`."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        objects.make_folder(folder)
        self.path = folder / f"seg-{uuid.uuid4().hex}{SUFFIX}"
        self.rows = 0
        self.nbytes = 0
        with objects.file_errors(self.path):
            self._sink = pa.OSFile(str(objects.temporary(self.path)), "wb")
            self._writer = pa.ipc.new_file(self._sink, schema)

    def add(self, batch: pa.RecordBatch) -> None:
        failpoints.hit("segment.add")
        with objects.file_errors(self.path):
            self._writer.write_batch(batch)
        self.rows += batch.num_rows
        self.nbytes += batch.nbytes

    def finish(self) -> str:
        """Make the file durable and return its name for the log entry."""
        with objects.file_errors(self.path):
            self._writer.close()
            self._sink.close()
        objects.publish(self.path)
        failpoints.hit("segment.published")
        checksum = _checksum(self.path)
        return json.dumps({"file": self.path.name, "rows": self.rows, "xxh3": f"{checksum:016x}"})

    def discard(self) -> None:
        """Remove what was written; safe at any point."""
        for close in (self._writer.close, self._sink.close):
            try:
                close()
            except (pa.ArrowException, OSError):
                continue  # a full disk refuses the footer too; the file goes away all the same
        objects.remove(objects.temporary(self.path))
        objects.remove(self.path)


def file_of(name: str) -> str:
    """The file that an entry's segment name means."""
    return str(json.loads(name)["file"])


def open_segment(folder: Path, name: str, *, verify: bool) -> pa.Table:
    """Map a segment file.

    :param verify: read it once and compare its checksum.
    :raises DataCorrupted: the file is missing or is not what was written.
    """
    record = json.loads(name)
    path = folder / record["file"]
    try:
        if verify and f"{_checksum(path):016x}" != record["xxh3"]:
            raise DataCorrupted(f"the hot segment {path.name} does not match its checksum; restore it from a backup")
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise DataCorrupted(f"the hot segment {path.name} is missing; restore it from a backup") from None
    except pa.ArrowInvalid as e:
        raise DataCorrupted(f"the hot segment {path.name} cannot be read; restore it from a backup") from e
    if table.num_rows != record["rows"]:
        raise DataCorrupted(f"the hot segment {path.name} does not hold the rows it should; restore it from a backup")
    return table


def sweep(folder: Path, live: Iterable[str]) -> int:
    """Remove files that no log entry names; returns how many.  Only at start, before the first write."""
    keep = set(live)
    removed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in keep:
            objects.remove(path)
            removed += 1
    return removed


def _checksum(path: Path) -> int:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(_CHECK_BYTES):
            digest.update(block)
    return digest.intdigest()
