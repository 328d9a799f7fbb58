"""Decoded row groups of batches, and whole small batches, the recently used ones: what statements by key, and of users with
few rows, read again and again.

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
_WHOLE = -1  # in the place of a row group's number
_ENCODED = 1 << 20  # bytes: more is not small
_DECODED = 8 << 20
_TOLD = 256  # what it costs to remember that a batch is not small


class GroupCache:
    """:param budget: bytes of decoded rows that are kept."""

    def __init__(self, reader: BatchReader, budget: int) -> None:
        self._reader = reader
        self._budget = budget
        self._lock = threading.Lock()
        self._groups: OrderedDict[_Key, tuple[pa.Table | None, int]] = OrderedDict()
        self._held = 0

    def get(self, folder: Path, entry: BatchEntry, schema: TableSchema, group: int) -> pa.Table:
        """All columns of one row group under `schema`, with `_deleted` and `_seq`."""
        key = (entry.uuid, group, schema.version)
        known, found = self._find(key)
        if known and found is not None:
            return found
        table = self._reader.columns(folder / entry.file, entry, schema, _names(schema), groups=[group])
        self._keep(key, table, table.nbytes)
        return table

    def whole(self, folder: Path, entry: BatchEntry, schema: TableSchema) -> pa.Table | None:
        """All rows of a batch in the order of the file, as `get` gives those of a group; None for what decodes to too much.

        Few rows can be large ones, and a value that is repeated costs its file next to nothing.
        """
        key = (entry.uuid, _WHOLE, schema.version)
        known, found = self._find(key)
        if not known:
            found = self._reader.small(folder / entry.file, entry, schema, _names(schema), _ENCODED, _DECODED)
            self._keep(key, found, _TOLD if found is None else found.nbytes)
        return found

    def _find(self, key: _Key) -> tuple[bool, pa.Table | None]:
        """Whether there is an entry, and the entry."""
        with self._lock:
            found = self._groups.get(key)
            if found is None:
                return False, None
            self._groups.move_to_end(key)
            return True, found[0]

    def _keep(self, key: _Key, table: pa.Table | None, size: int) -> None:
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


def _names(schema: TableSchema) -> list[str]:
    return [*(c.name for c in schema.columns), DELETED, SEQ]
