"""Decoded row groups of batches, the recently used ones: what a statement by key reads again and again.

A batch file never changes and its identity is its uuid, so an entry cannot become wrong; it only goes to make room.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa

from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import BatchEntry
from flightkalam.model.schema import DELETED, SEQ, TableSchema

_Key = tuple[str, int, int]


class GroupCache:
    """:param budget: bytes of decoded rows that are kept."""

    def __init__(self, reader: BatchReader, budget: int) -> None:
        self._reader = reader
        self._budget = budget
        self._lock = threading.Lock()
        self._groups: OrderedDict[_Key, tuple[pa.Table, int]] = OrderedDict()
        self._held = 0

    def get(self, folder: Path, entry: BatchEntry, schema: TableSchema, group: int) -> pa.Table:
        """All columns of one row group under `schema`, with `_deleted` and `_seq`."""
        key = (entry.uuid, group, schema.version)
        with self._lock:
            found = self._groups.get(key)
            if found is not None:
                self._groups.move_to_end(key)
                return found[0]
        names = [*(c.name for c in schema.columns), DELETED, SEQ]
        table = self._reader.columns(folder / entry.file, entry, schema, names, groups=[group])
        self._keep(key, table)
        return table

    def _keep(self, key: _Key, table: pa.Table) -> None:
        size = table.nbytes
        if size > self._budget:
            return
        with self._lock:
            if key in self._groups:
                return
            self._groups[key] = (table, size)
            self._held += size
            while self._held > self._budget:
                _, (_, gone) = self._groups.popitem(last=False)
                self._held -= gone
