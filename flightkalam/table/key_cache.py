"""Decoded key columns of cold batches: a derived index without write cost, within a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import BatchEntry
from flightkalam.model.keys import (
    I64,
    U64,
    KeyFilter,
    Probe,
    combined,
    is_ascending,
    is_exact,
    key_hashes,
    pairs,
    same_pairs,
)
from flightkalam.model.schema import DELETED, SEQ, TableSchema

_SEQS_KEPT = 16
_MANY = 4_096  # keys of a batch, and probes, from which on a filter before the search pays


@dataclass(frozen=True, slots=True)
class _Present:
    """Which keys a batch has.

    :param hashes: ascending.
    :param filter: None for a batch so small that a search is as fast.
    """

    hashes: U64
    filter: KeyFilter | None

    @property
    def nbytes(self) -> int:
        return self.hashes.nbytes + (self.filter.nbytes if self.filter is not None else 0)

    def find(self, probe: Probe) -> tuple[I64, I64]:
        """(number of the probe, place in `hashes`) of equal hashes."""
        if self.filter is None or len(probe) < _MANY:
            return pairs(self.hashes, probe.ordered, probe.order)
        some = self.filter.candidates(probe)
        return pairs(self.hashes, probe.ordered[some], probe.order[some])


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the keys of a batch are.

    :param rows: row number of each of the sorted hashes; None where they are in the order of the rows.
    :param columns: the key columns, empty where the hash is the key.
    """

    rows: npt.NDArray[np.uint32] | None
    columns: tuple[pa.Array, ...]

    @property
    def nbytes(self) -> int:
        return sum(c.nbytes for c in self.columns) + (0 if self.rows is None else self.rows.nbytes)


Identity = tuple[str, tuple[str, ...]]
T = TypeVar("T", _Present, _Places)


class KeyCache:
    """Keys of batches by the identity of the file and the version of the schema they were read under.

    A key that is new needs the hashes alone, a third of the memory or less; so when there is too little for both, the places
    go first.
    """

    def __init__(self, reader: BatchReader, budget_bytes: int) -> None:
        self._reader = reader
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._present: OrderedDict[Identity, _Present] = OrderedDict()
        self._places: OrderedDict[Identity, _Places] = OrderedDict()
        self._tombstones: OrderedDict[str, I64] = OrderedDict()
        self._seqs: OrderedDict[str, I64] = OrderedDict()
        self._bytes = 0

    def matches(self, folder: Path, entry: BatchEntry, schema: TableSchema, probe: Probe) -> tuple[I64, I64]:
        """The pairs (number of the probe, row of the batch) that hold one key, whatever became of the row since."""
        identity = _identity(entry, schema)
        with self._lock:
            present = _used(self._present, identity)
        places = None
        if present is None:
            present, places = self._read(identity, folder, entry, schema)
        numbers, at = present.find(probe)
        if not len(at):
            return numbers, at
        if places is None:
            with self._lock:
                places = _used(self._places, identity)
        if places is None:
            _, places = self._read(identity, folder, entry, schema)
        rows = at if places.rows is None else places.rows[at].astype(np.int64)
        return same_pairs(probe.columns, numbers, places.columns, rows)

    def tombstones(self, folder: Path, entry: BatchEntry, schema: TableSchema) -> I64:
        """Row numbers of the tombstones in a batch, ascending, int64[n]."""
        if not entry.tombstones:
            return np.empty(0, np.int64)
        with self._lock:
            found = self._tombstones.get(entry.uuid)
        if found is None:
            table = self._reader.columns(folder / entry.file, entry, schema, [DELETED])
            found = _true_rows(table.column(DELETED))
            with self._lock:
                self._tombstones[entry.uuid] = found
                while len(self._tombstones) > 4096:
                    self._tombstones.popitem(last=False)
        return found

    def seqs(self, folder: Path, entry: BatchEntry, schema: TableSchema) -> I64:
        """`_seq` of every row of a batch, int64[n]."""
        with self._lock:
            found = self._seqs.get(entry.uuid)
        if found is None:
            found = self._reader.columns(folder / entry.file, entry, schema, [SEQ]).column(SEQ).to_numpy()
            with self._lock:
                self._seqs[entry.uuid] = found
                while len(self._seqs) > _SEQS_KEPT:
                    self._seqs.popitem(last=False)
        return found

    def _read(self, identity: Identity, folder: Path, entry: BatchEntry, schema: TableSchema) -> tuple[_Present, _Places]:
        names = [c.name for c in schema.key_columns]
        table = self._reader.columns(folder / entry.file, entry, schema, names)
        present, places = _built([combined(table.column(n)) for n in names])
        with self._lock:
            self._keep(identity, present, places)
        return present, places

    def seed(self, entry: BatchEntry, schema: TableSchema, rows: pa.Table) -> None:
        """Keep the keys of a batch that has just been written, since they are in memory.

        Nobody has asked for them yet: so they take the room that is left, and at most that of the places of others.
        """
        present, places = _built([combined(rows.column(c.name)) for c in schema.key_columns])
        identity = _identity(entry, schema)
        with self._lock:
            if sum(p.nbytes for p in self._present.values()) + present.nbytes > self._budget:
                return
            fits = self._bytes + present.nbytes + places.nbytes <= self._budget
            self._keep(identity, present, places if fits else None)

    def _keep(self, identity: Identity, present: _Present, places: _Places | None) -> None:
        self._bytes += _put(self._present, identity, present)
        if places is not None:
            self._bytes += _put(self._places, identity, places)
        while self._bytes > self._budget and len(self._places) > 1:
            self._bytes -= self._places.popitem(last=False)[1].nbytes
        while self._bytes > self._budget and len(self._present) > 1:
            self._bytes -= self._present.popitem(last=False)[1].nbytes


def _identity(entry: BatchEntry, schema: TableSchema) -> Identity:
    return entry.uuid, tuple(c.type.name for c in schema.key_columns)


def _built(columns: list[pa.Array]) -> tuple[_Present, _Places]:
    hashes, rows, exact = key_hashes(columns), None, is_exact(columns)
    if not is_ascending(hashes):
        order = np.argsort(hashes)
        hashes, rows = hashes[order], order.astype(np.uint32)
    present = _Present(hashes, KeyFilter.of(hashes, spread=exact) if len(hashes) >= _MANY else None)
    return present, _Places(rows, () if exact else tuple(columns))


def _put(cache: OrderedDict[Identity, T], identity: Identity, value: T) -> int:
    """Keep a value as the newest; returns by how many bytes the cache has grown."""
    old = cache.pop(identity, None)
    cache[identity] = value
    return value.nbytes - (old.nbytes if old is not None else 0)


def _used(cache: OrderedDict[Identity, T], identity: Identity) -> T | None:
    found = cache.get(identity)
    if found is not None:
        cache.move_to_end(identity)
    return found


def _true_rows(column: pa.ChunkedArray) -> I64:
    return pc.indices_nonzero(column).to_numpy(zero_copy_only=False).astype(np.int64)
