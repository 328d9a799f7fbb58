"""The hot log of all scopes: entries out of and into the key-value store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flightkalam.clock import id_range
from flightkalam.errors import DataCorrupted
from flightkalam.hot import log, log_keys, segments
from flightkalam.hot.rows import HotRows
from flightkalam.model.ids import Scope
from flightkalam.model.schema import TableSchema
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store, prefix_end

FAMILY = "log"


def batch_schema(schema: TableSchema) -> pa.Schema:
    """How the rows of an entry are encoded under `schema`: columns named by field id."""
    return schema.by_field_id


@dataclass(frozen=True, slots=True)
class Loaded:
    """An entry of the log with its place."""

    key: bytes
    scope: Scope
    entry: log.Entry


class HotLog:
    """Reads and writes log entries.  Knows nothing of visibility."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self.folder = folder
        self._schemas: dict[tuple[int, int], pa.Schema] = {}

    def put(self, batch: Batch, scope: Scope, entry: log.Entry, schema: TableSchema) -> None:
        """Add an entry to an atomic batch, and the schema it is encoded with when it is the first of its version."""
        self.remember_schema(batch, scope.table_id, schema)
        batch.put(FAMILY, log_keys.entry_key(scope, entry.first_seq), log.encode(entry))
        if entry.segment is not None:
            batch.put(FAMILY, log_keys.segment_key(scope.table_id, segments.file_of(entry.segment)), b"")

    def remember_schema(self, batch: Batch, table_id: int, schema: TableSchema) -> None:
        key = (table_id, schema.version)
        if key not in self._schemas:
            encoded = batch_schema(schema)
            # Written again by every commit until one of them is known to have succeeded: same bytes, no harm.
            batch.put(FAMILY, log_keys.schema_key(*key), encoded.serialize().to_pybytes())

    def schema_written(self, table_id: int, schema: TableSchema) -> None:
        """The batch with `remember_schema` has been appended."""
        if (table_id, schema.version) not in self._schemas:
            self._schemas[table_id, schema.version] = batch_schema(schema)

    def trim(self, batch: Batch, scope: Scope, flushed_seq: int, files: Iterable[str]) -> None:
        """Delete the entries of a scope up to and including `flushed_seq`, which named `files`."""
        batch.delete_range(FAMILY, log_keys.entry_prefix(scope), log_keys.entry_key(scope, flushed_seq + 1))
        for file in files:
            batch.delete(FAMILY, log_keys.segment_key(scope.table_id, file))

    def entry(self, scope: Scope, first_seq: int) -> log.Entry:
        """One entry of a scope.

        :raises DataCorrupted: it is not there, or not what was written.
        """
        data = self._store.get(FAMILY, log_keys.entry_key(scope, first_seq))
        if data is None:
            raise DataCorrupted(f"the hot log lacks an entry of table {scope.table_id}; restore from a backup")
        return log.decode(data, self._schema(scope.table_id, log.schema_version_of(data)))

    def replace(
        self, batch: Batch, scope: Scope, entries: Iterable[int], left: Iterable[log.Entry], files: Iterable[str]
    ) -> None:
        """Put what is left of some entries, which named `files`, in their place."""
        kept = {entry.first_seq: entry for entry in left}
        for first_seq in entries:
            if first_seq not in kept:
                batch.delete(FAMILY, log_keys.entry_key(scope, first_seq))
        for first_seq, entry in kept.items():
            batch.put(FAMILY, log_keys.entry_key(scope, first_seq), log.encode(entry))
        for file in files:
            batch.delete(FAMILY, log_keys.segment_key(scope.table_id, file))

    def first_seq(self, scope: Scope) -> int | None:
        """Where the log of a scope begins; None when it has no entry."""
        for key, _ in self._store.scan(FAMILY, log_keys.entry_prefix(scope)):
            return log_keys.scope_and_seq(key)[1]
        return None

    def begun(self) -> Iterator[tuple[Scope, int]]:
        """Every scope with entries, and where its log begins; the entries themselves are passed over."""
        start: bytes | None = None
        while True:
            first = next(self._store.scan(FAMILY, log_keys.ALL_ENTRIES, start=start), None)
            if first is None:
                return
            scope, seq = log_keys.scope_and_seq(first[0])
            yield scope, seq
            start = prefix_end(log_keys.entry_prefix(scope))

    def count(self, scope: Scope, enough: int) -> int:
        """The rows in a scope's log, by the heads of its entries; no further than to `enough`."""
        rows = 0
        for _, value in self._store.scan(FAMILY, log_keys.entry_prefix(scope)):
            rows += log.rows_of(value)
            if rows >= enough:
                break
        return rows

    def rewrite_all(self) -> None:
        """Leave no trace on disk of any entry that was deleted."""
        self._store.rewrite(FAMILY, log_keys.ALL_ENTRIES, prefix_end(log_keys.ALL_ENTRIES))

    def rewrite(self, scope: Scope) -> None:
        """Leave no trace on disk of the entries of a scope that were deleted."""
        prefix = log_keys.entry_prefix(scope)
        self._store.rewrite(FAMILY, prefix, prefix_end(prefix))

    def drop_table(self, batch: Batch, table_id: int) -> None:
        """Delete everything the log holds of a table; its segment files remain for `remove_files`."""
        for prefix in (
            log_keys.table_prefix(table_id),
            log_keys.schema_prefix(table_id),
            log_keys.segment_prefix(table_id),
        ):
            batch.delete_range(FAMILY, prefix, prefix_end(prefix))

    def files_of(self, table_id: int) -> list[str]:
        """The segment files that a table's entries name."""
        return [log_keys.segment_file(k) for k, _ in self._store.scan(FAMILY, log_keys.segment_prefix(table_id))]

    def remove_files(self, files: Iterable[str]) -> None:
        """Remove segment files whose entries are durably gone.  Readers that have them mapped keep them."""
        for file in files:
            objects.remove(self.folder / file)

    def sweep(self) -> int:
        """Remove segment files that no entry names.  Only at start, before the first write."""
        return segments.sweep(self.folder, self.files())

    def files(self) -> Iterator[str]:
        """Every segment file that an entry names."""
        return (log_keys.segment_file(k) for k, _ in self._store.scan(FAMILY, log_keys.ALL_SEGMENTS))

    def entries(self, scope: Scope, after_seq: int = 0) -> Iterator[Loaded]:
        """A scope's entries in commit order, those up to `after_seq` left out."""
        return self._decoded(log_keys.entry_prefix(scope), log_keys.entry_key(scope, after_seq + 1))

    def all_entries(self) -> Iterator[Loaded]:
        return self._decoded(log_keys.ALL_ENTRIES)

    def scopes(self, table_id: int) -> list[Scope]:
        """The scopes of a table that have entries, in key order."""
        found: list[Scope] = []
        prefix = log_keys.table_prefix(table_id)
        start: bytes | None = None
        while True:
            first = next(self._store.scan(FAMILY, prefix, start=start), None)
            if first is None:
                return found
            scope, _ = log_keys.scope_and_seq(first[0])
            found.append(scope)
            start = prefix_end(log_keys.entry_prefix(scope))

    def _decoded(self, prefix: bytes, start: bytes | None = None) -> Iterator[Loaded]:
        for key, value in self._store.scan(FAMILY, prefix, start=start):
            scope, _ = log_keys.scope_and_seq(key)
            schema = self._schema(scope.table_id, log.schema_version_of(value))
            yield Loaded(key, scope, log.decode(value, schema))

    def _schema(self, table_id: int, version: int) -> pa.Schema:
        key = (table_id, version)
        schema = self._schemas.get(key)
        if schema is None:
            encoded = self._store.get(FAMILY, log_keys.schema_key(*key))
            if encoded is None:
                raise DataCorrupted(f"the hot log lacks schema {version} of table {table_id}; restore from a backup")
            schema = pa.ipc.read_schema(pa.py_buffer(encoded))
            self._schemas[key] = schema
        return schema

    def load(self, scope: Scope, flushed_seq: int) -> HotRows:
        """A scope's hot rows: its entries after `flushed_seq`, replayed in order."""
        rows = HotRows()
        for loaded in self.entries(scope, flushed_seq):
            apply(rows, loaded.entry, self.table_of(loaded.entry, verify=True))
        return rows

    def table_of(self, entry: log.Entry, *, verify: bool) -> pa.Table:
        if entry.segment is not None:
            return segments.open_segment(self.folder, entry.segment, verify=verify)
        return pa.Table.from_batches([entry.batch])


def apply(rows: HotRows, entry: log.Entry, table: pa.Table) -> None:
    """Make an entry part of the rows: the same step for a new commit and for one that is replayed."""
    source = segments.file_of(entry.segment) if entry.segment is not None else None
    if len(entry.hot_marks):
        by = id_of_rows(entry.first_seq, entry.hot_marks["by"])
        rows.mark_hot(rows.rows_of(entry.hot_marks["target"]), by)
    if len(entry.cold_marks):
        by = id_of_rows(entry.first_seq, entry.cold_marks["by"])
        rows.mark_cold(entry.cold_marks["batch"].astype("i8"), entry.cold_marks["row"].astype("i8"), by)
    if entry.rows:
        rows.append(table, ids_of(entry), entry.schema_version, source)
        rows.entries.extend(np.array([entry.first_seq], np.int64))


def ids_of(entry: log.Entry) -> log.I64:
    """`_seq` of each row of an entry."""
    if entry.places is None:
        return id_range(entry.first_seq, entry.rows)
    return id_range(entry.first_seq, int(entry.places[-1]) + 1)[entry.places] if entry.rows else entry.places


def id_of_rows(first_seq: int, rows):  # type: ignore[no-untyped-def]
    """`_seq` of the given row numbers of a commit, int64[n]."""
    if not len(rows):
        return rows.astype("i8")
    return id_range(first_seq, int(rows.max()) + 1)[rows]


def last_seq(entry: log.Entry) -> int:
    """`_seq` of the last row of an entry."""
    return int(ids_of(entry)[-1]) if entry.rows else entry.first_seq
