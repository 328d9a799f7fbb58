"""Deletion vectors: the row numbers of a batch that a newer version has superseded.

One file per install holds all vectors that the install changed, in the portable Roaring format; it is never overwritten,
because a reader of the manifest before may still use the file before (T-9).  The manifest keeps checksum and cardinality,
so that a missing or damaged vector is noticed and never read as an empty one (T-8).
"""

from __future__ import annotations

import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import xxhash
from pyroaring import BitMap

from flightkalam.cold import paths
from flightkalam.cold.manifest import VectorRef
from flightkalam.cold.manifest_json import vector_to_json
from flightkalam.errors import DataCorrupted
from flightkalam.storage import objects

_CACHED = 4096
_END = struct.Struct("<I4s")
_MAGIC = b"KDV1"


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
    index = json.dumps({str(n): vector_to_json(r) for n, r in refs.items()}).encode()
    objects.write(folder / name, b"".join([*blobs, index, _END.pack(len(index), _MAGIC)]))
    return refs


def index(folder: Path, name: str) -> dict[int, VectorRef]:
    """Where each batch's vector lies in a file, as the file itself says; nothing of a damaged one.

    What it says is to be proved: whoever uses it compares the vectors with what they must hold.
    """
    data = objects.read(folder / name) or b""
    try:
        length, magic = _END.unpack_from(data, len(data) - _END.size)
        if magic != _MAGIC:
            return {}
        text = data[-_END.size - length : -_END.size]
        return {int(n): VectorRef(*fields) for n, fields in json.loads(text).items()}
    except (struct.error, ValueError, TypeError, AttributeError):
        return {}


class VectorCache:
    """Decoded vectors by checksum.  Never change a vector that it returns.

    :param remade: makes a vector that is missing or damaged again, or raises.
    """

    def __init__(self, remade: Callable[[Path, VectorRef], BitMap] | None = None) -> None:
        self._remade = remade
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
        try:
            vector = read(folder, ref)
        except DataCorrupted:
            if self._remade is None:
                raise
            vector = self._remade(folder, ref)
        self.put(folder, ref, vector)
        return vector

    def put(self, folder: Path, ref: VectorRef, vector: BitMap) -> None:
        """Keep a vector that was read, or made again."""
        with self._lock:
            self._known[str(folder), ref.file, ref.offset] = vector
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)


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
    raise DataCorrupted(f"the deletion vector {ref.file} is missing or damaged; run REBUILD MANIFEST or restore a backup")
