"""What dba and system may see of the cold tier: SHOW MANIFEST CACHE, system.manifests and system.batches.

All of it comes from manifests, of every scope; no row is read.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.catalog.providers import Context
from flightkalam.catalog.state import CatalogState
from flightkalam.cold.manifest import BatchEntry
from flightkalam.cold.manifests import CacheEntry, Manifests
from flightkalam.model.predicate import Comparable
from flightkalam.model.schema import Table
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s

_STAMP = pa.timestamp("us", "UTC")
_NAMED = [
    pa.field("namespace", pa.utf8(), nullable=False),
    pa.field("table_name", pa.utf8(), nullable=False),
    pa.field("user_id", pa.utf8()),
]
CACHE_SCHEMA = pa.schema(
    [
        pa.field("namespace", pa.utf8(), nullable=False),
        pa.field("table", pa.utf8(), nullable=False),
        pa.field("user_id", pa.utf8()),
        pa.field("etag", pa.utf8()),
        pa.field("last_refreshed", _STAMP),
        pa.field("last_accessed", _STAMP),
        pa.field("ttl", pa.int64(), nullable=False),
        pa.field("source", pa.utf8(), nullable=False),
        pa.field("sync_state", pa.utf8(), nullable=False),
    ]
)
MANIFESTS_SCHEMA = pa.schema(
    [
        pa.field("table_id", pa.int64(), nullable=False),
        *_NAMED,
        pa.field("version", pa.int64(), nullable=False),
        pa.field("generated_at", _STAMP),
        pa.field("max_batch", pa.int64(), nullable=False),
        pa.field("flushed_seq", pa.int64(), nullable=False),
        pa.field("batches", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("dead_rows", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("parts", pa.int64(), nullable=False),
        pa.field("etag", pa.utf8()),
        pa.field("sync_state", pa.utf8(), nullable=False),
    ]
)
BATCHES_SCHEMA = pa.schema(
    [
        pa.field("table_id", pa.int64(), nullable=False),
        *_NAMED,
        pa.field("batch_number", pa.int64(), nullable=False),
        pa.field("file_path", pa.utf8(), nullable=False),
        pa.field("min_seq", pa.int64(), nullable=False),
        pa.field("max_seq", pa.int64(), nullable=False),
        pa.field("row_count", pa.int64(), nullable=False),
        pa.field("tombstones", pa.int64(), nullable=False),
        pa.field("dead_rows", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("schema_version", pa.int64(), nullable=False),
        pa.field("status", pa.utf8(), nullable=False),
        pa.field("bounds", pa.utf8(), nullable=False),
    ]
)


def show_cache(e: Execution, _: s.ShowManifestCache) -> pa.Table:
    authorise.require(e.identity, Action.READ_SYSTEM)
    manifests = e.parts.scopes.manifests
    rows = []
    for shown in manifests.shown():
        table = e.state.tables.get(shown.scope.table_id)  # none: it is being dropped
        if table is not None:
            stamps = (_stamp(shown.last_refreshed_us or None), _stamp(shown.last_accessed_us))
            known = (shown.etag or None, *stamps, shown.ttl_seconds, _below(shown.source, manifests.root), shown.sync_state)
            rows.append((table.namespace, table.name, shown.scope.owner, *known))
    return _table(CACHE_SCHEMA, rows)


def manifests_table(manifests: Manifests) -> Callable[[Context], pa.Table]:
    def fetch(context: Context) -> pa.Table:
        return _table(MANIFESTS_SCHEMA, [_manifest_row(t, e) for t, e in _entries(manifests, context.state)])

    return fetch


def batches_table(manifests: Manifests) -> Callable[[Context], pa.Table]:
    def fetch(context: Context) -> pa.Table:
        found = _entries(manifests, context.state)
        return _table(BATCHES_SCHEMA, [_batch_row(t, e, b) for t, e in found for b in e.manifest.batches])

    return fetch


def _entries(manifests: Manifests, state: CatalogState) -> Iterator[tuple[Table, CacheEntry]]:
    for table_id in sorted(state.tables):
        for entry in manifests.entries(table_id):
            yield state.tables[table_id], entry


def _manifest_row(table: Table, e: CacheEntry) -> tuple[Any, ...]:
    m = e.manifest
    dead = sum(b.dead.cardinality for b in m.batches if b.dead is not None)
    sizes = (len(m.batches), m.rows, dead, sum(b.size_bytes for b in m.batches), len(e.parts))
    known = (m.version, _stamp(m.generated_at_us), m.max_batch, m.flushed_seq)
    return table.id, table.namespace, table.name, m.scope.owner, *known, *sizes, e.etag or None, e.sync_state


def _batch_row(table: Table, e: CacheEntry, b: BatchEntry) -> tuple[Any, ...]:
    counts = (b.rows, b.tombstones, 0 if b.dead is None else b.dead.cardinality, b.size_bytes)
    place = (table.id, table.namespace, table.name, e.manifest.scope.owner, b.number, b.file, b.min_seq, b.max_seq)
    return *place, *counts, b.schema_version, b.status, _bounds(table, b)


def _bounds(table: Table, batch: BatchEntry) -> str:
    """The bounds by the columns' names of today, as JSON; in comparable form, as pruning reads them.

    Bounds are values of rows, and those of a user's own rows are nobody else's to see: of them only NULLs are counted.
    """
    shown: dict[str, dict[str, Any]] = {}
    for column_id, known in batch.bounds.items():
        column = table.schema.by_id.get(column_id)
        if column is None:
            continue
        values = {} if table.kind.per_user else {"min": _plain(known.low), "max": _plain(known.high)}
        shown[column.name] = values | {"nulls": known.nulls}
    return json.dumps(shown, ensure_ascii=False)


def _plain(value: Comparable | None) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return repr(value) if isinstance(value, float) else value


def _below(source: str, root: Path) -> str:
    """A published file as a path below the data directory's cold tier."""
    path = Path(source)
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _stamp(us: int | None) -> dt.datetime | None:
    return None if us is None else dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC)


def _table(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
