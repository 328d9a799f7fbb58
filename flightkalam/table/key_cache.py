"""Decoded key columns of cold batches: a derived index without write cost, within a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import BatchEntry
from flightkalam.model.keys import I64, KeyIndex, combined, is_exact, key_hashes
from flightkalam.model.schema import DELETED, SEQ, TableSchema

_SEQS_KEPT = 16


@dataclass(frozen=True, slots=True)
class BatchKeys:
    """The keys of one batch.

    :param index: hash -> row number.
    :param columns: the key columns, empty where the hash is the key.
    :param tombstones: row numbers with `_deleted`, ascending.
    """

    index: KeyIndex
    columns: tuple[pa.Array, ...]
    tombstones: I64

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + sum(c.nbytes for c in self.columns) + self.tombstones.nbytes


class KeyCache:
    """Keys of batches by the identity of the file and the version of the schema they were read under."""

    def __init__(self, reader: BatchReader, budget_bytes: int) -> None:
        self._reader = reader
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, tuple[str, ...]], BatchKeys] = OrderedDict()
        self._tombstones: OrderedDict[str, I64] = OrderedDict()
        self._seqs: OrderedDict[str, I64] = OrderedDict()
        self._bytes = 0

    def get(self, folder: Path, entry: BatchEntry, schema: TableSchema) -> BatchKeys:
        identity = (entry.uuid, tuple(c.type.name for c in schema.key_columns))
        with self._lock:
            found = self._known.get(identity)
            if found is not None:
                self._known.move_to_end(identity)
                return found
        keys = self._read(folder, entry, schema)
        with self._lock:
            if identity not in self._known:
                self._known[identity] = keys
                self._bytes += keys.nbytes
            while self._bytes > self._budget and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].nbytes
        return keys

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

    def _read(self, folder: Path, entry: BatchEntry, schema: TableSchema) -> BatchKeys:
        names = [c.name for c in schema.key_columns]
        wanted: Sequence[str] = [*names, DELETED] if entry.tombstones else names
        table = self._reader.columns(folder / entry.file, entry, schema, wanted)
        columns = [combined(table.column(n)) for n in names]
        index = KeyIndex.build(key_hashes(columns))
        tombstones = _true_rows(table.column(DELETED)) if entry.tombstones else np.empty(0, np.int64)
        return BatchKeys(index, () if is_exact(columns) else tuple(columns), tombstones)


def _true_rows(column: pa.ChunkedArray) -> I64:
    return pc.indices_nonzero(column).to_numpy(zero_copy_only=False).astype(np.int64)
