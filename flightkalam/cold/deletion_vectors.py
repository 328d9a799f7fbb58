"""Deletion vectors: the row numbers of a batch that a newer version has superseded.

One file per install holds all vectors that the install changed, in the portable Roaring format; it is never overwritten,
because a reader of the manifest before may still use the file before (T-9).  The manifest keeps checksum and cardinality,
so that a missing or damaged vector is noticed and never read as an empty one (T-8).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import xxhash
from pyroaring import BitMap

from flightkalam.cold import paths
from flightkalam.cold.manifest import VectorRef
from flightkalam.errors import DataCorrupted
from flightkalam.storage import objects

_CACHED = 4096


def write(folder: Path, version: int, vectors: Mapping[int, BitMap]) -> dict[int, VectorRef]:
    """Write the vectors of one install, per batch number, and return where each lies."""
    name = paths.vectors_name(version)
    blobs, refs, at = [], {}, 0
    for number, vector in vectors.items():
        vector.run_optimize()
        blob = vector.serialize()
        refs[number] = VectorRef(name, at, len(blob), f"{xxhash.xxh64_intdigest(blob):016x}", len(vector))
        blobs.append(blob)
        at += len(blob)
    objects.write(folder / name, b"".join(blobs))
    return refs


class VectorCache:
    """Decoded vectors by checksum.  Never change a vector that it returns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str, int], BitMap] = OrderedDict()

    def get(self, folder: Path, ref: VectorRef) -> BitMap:
        """:raises DataCorrupted: the vector is missing or is not the one that was written."""
        key = (str(folder), ref.file, ref.offset)
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                return found
        vector = read(folder, ref)
        with self._lock:
            self._known[key] = vector
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return vector


def read(folder: Path, ref: VectorRef) -> BitMap:
    path = folder / ref.file
    with objects.held(path), objects.file_errors(path):
        try:
            with path.open("rb") as file:
                file.seek(ref.offset)
                blob = file.read(ref.length)
        except FileNotFoundError:
            blob = b""
    if f"{xxhash.xxh64_intdigest(blob):016x}" == ref.xxh64:
        vector = BitMap.deserialize(blob)
        if len(vector) == ref.cardinality:
            return vector
    raise DataCorrupted(f"the deletion vector {ref.file} is missing or damaged; run CHECK TABLE or restore a backup")
