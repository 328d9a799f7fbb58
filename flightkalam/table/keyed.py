"""One row by its whole key: found in both tiers, and changed, without an engine.

    read     at a snapshot, no lock:      hot rows, then the row group that can hold the key
    change   at the head, scope lock:     the live version → the new one → commit

A change is decided on the version that is live when it commits, so writers of other keys never make it run again: under the
lock there is nothing newer.  The row groups are read before the lock; a batch never changes, only which of its rows count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.bloom import KEY_FILTER
from flightkalam.cold.bounds import Mask
from flightkalam.cold.manifest import BatchEntry, Manifest
from flightkalam.hot.rows import HotRows
from flightkalam.model import predicate as p
from flightkalam.model.keys import I64, Probe
from flightkalam.model.predicate import comparable
from flightkalam.model.schema import DELETED, SEQ, Table, TableSchema
from flightkalam.table.locate import Located
from flightkalam.table.mutate import Writer
from flightkalam.table.mutation import Committed, Extra, Mutation
from flightkalam.table.scopes import OpenScope, Scopes
from flightkalam.table.snapshot import Snapshot

Key = Sequence[pa.Scalar]  # the values of the key columns, in the key's order
HEAD = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ColdVersion:
    """A row of a batch with the key, whether it counts or not: storage columns, `_deleted` and `_seq`."""

    entry: BatchEntry
    number: int
    row: pa.Table


# -- finding ----------------------------------------------------------------------------------------------------------


def read(snapshot: Snapshot, key: Key) -> pa.Table | None:
    """The visible row with the key, storage columns and more; None when there is none."""
    hot = _hot_at(snapshot, key)
    if hot is not None:
        return None if _is_tombstone(hot) else hot
    for version in cold_versions(snapshot.scopes, snapshot.scope, snapshot.state.manifest, snapshot.table.schema, key):
        dead = snapshot.superseded(version.entry)
        if not dead or version.number not in dead:
            return None if _is_tombstone(version.row) else version.row
    return None


def cold_versions(scopes: Scopes, scope: OpenScope, manifest: Manifest, schema: TableSchema, key: Key) -> list[ColdVersion]:
    """The rows with the key in all batches of a manifest."""
    if not manifest.batches:
        return []
    at = np.flatnonzero(manifest.may_match(_predicate(schema, key), schema))
    if len(at) > 1:
        at = at[_by_filters(scopes, scope, manifest, schema, key, at)]
    return [v for i in at.tolist() for v in _in_batch(scopes, scope, manifest.batches[i], schema, key)]


def _by_filters(scopes: Scopes, scope: OpenScope, manifest: Manifest, schema: TableSchema, key: Key, at: I64) -> Mask:
    """Which of the batches have Bloom filters that admit the key."""
    if len(key) > 1:
        hashes = [int(h) for h in _probe(schema, key).ordered]
        return scopes.blooms.may_hold(scope.folder, manifest, at, KEY_FILTER, hashes)
    column = schema.key_columns[0]
    value = comparable(key[0], column.type)
    assert value is not None, "key types have bounds"
    return scopes.blooms.may_hold(scope.folder, manifest, at, column.id, [value], column.bounds_since)


def _predicate(schema: TableSchema, key: Key) -> p.Predicate:
    parts: list[p.Predicate] = []
    for column, scalar in zip(schema.key_columns, key, strict=True):
        value = comparable(scalar, column.type)
        if value is not None:
            parts.append(p.Compare(column.id, "=", value))
    return p.all_of(parts)


def _in_batch(scopes: Scopes, scope: OpenScope, entry: BatchEntry, schema: TableSchema, key: Key) -> list[ColdVersion]:
    column, path = schema.key_columns[0], scope.folder / entry.file
    value = comparable(key[0], column.type)
    assert value is not None, "key types have bounds"
    found: list[ColdVersion] = []
    for group in scopes.reader.groups_of(path, entry, column, value):
        table = scopes.groups.get(scope.folder, entry, schema, group)
        for at in _places(table, schema, key):
            start = scopes.reader.start_of(path, entry, group)
            found.append(ColdVersion(entry, start + at, table.slice(at, 1)))
    return found


def _places(rows: pa.Table, schema: TableSchema, key: Key) -> list[int]:
    """Row numbers at which the key stands."""
    same = None
    for column, value in zip(schema.key_columns, key, strict=True):
        equal = pc.equal(rows.column(column.name), value)
        same = equal if same is None else pc.and_(same, equal)
    return [int(i) for i in pc.indices_nonzero(same).to_pylist()]


def _hot_at(snapshot: Snapshot, key: Key) -> pa.Table | None:
    """The hot version that is live at the watermark.

    The index of the keys belongs to the writers, and knows the head: used when nobody holds it and the head is ours.
    """
    scope, schema, hot = snapshot.scope, snapshot.table.schema, snapshot.state.hot
    if not hot.n:
        return None
    if scope.lock.acquire(blocking=False):
        try:
            if scope.state is snapshot.state and scope.head <= snapshot.watermark:
                at = _index_of(hot, schema, _probe(schema, key))
                return None if at < 0 else _hot_row(hot, schema, at)
        finally:
            scope.lock.release()
    cut = snapshot.hot().table
    places = _places(cut, schema, key)
    return cut.slice(places[0], 1) if places else None


def _index_of(hot: HotRows, schema: TableSchema, probe: Probe) -> int:
    """The row of the key's live version at the head, -1 when it is not hot.  Call with the scope's lock held."""
    return int(hot.find(probe.ordered, probe.order, probe.columns, schema)[0])


def _probe(schema: TableSchema, key: Key) -> Probe:
    return Probe.of([pa.array([v], c.type.storage) for v, c in zip(key, schema.key_columns, strict=True)])


def _hot_row(hot: HotRows, schema: TableSchema, at: int) -> pa.Table:
    names = [*(c.name for c in schema.columns), DELETED]
    columns = hot.take(np.array([at], np.int64), schema, names)
    seq = pa.array([int(hot.ids.data[at])], pa.int64())
    return pa.table([*columns, seq], names=[*names, SEQ])


def _is_tombstone(row: pa.Table) -> bool:
    return bool(row.column(DELETED)[0].as_py())


# -- changing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Live:
    """The live version of a key at the head."""

    row: pa.Table
    located: Located


# The visible row -> rows of `schema.storage`, with `_deleted` for a tombstone; None changes nothing.
Compute = Callable[[pa.Table], pa.Table | None]


def change(
    writer: Writer, table: Table, owner: str | None, key: Key, compute: Compute, extra: Callable[[], Extra | None]
) -> Committed | None:
    """Replace the visible row with this key by its next version; returns when that, or its absence, is durable.

    Call with a watermark pinned, which keeps the files.

    :param extra: asked for what joins the commit, when there is one.
    :return: None when there is no such row, or it stays as it is.
    """
    scopes, schema = writer.scopes, table.schema
    scope = scopes.open(table, owner)
    manifest = scope.state.manifest
    cold, probe = cold_versions(scopes, scope, manifest, schema, key), _probe(schema, key)
    with scope.lock:
        if scope.state.manifest is not manifest:
            cold = cold_versions(scopes, scope, scope.state.manifest, schema, key)
        live = _live(scopes, scope, schema, probe, cold)
        rows = None if live is None else compute(live.row)
        if live is None or rows is None:
            position, first = scopes.door.store.appended, 0
        else:
            position, first = writer.commit_located(Mutation(table, owner, rows), scope, probe, live.located, extra())
    scopes.door.wait(position)
    return None if rows is None else Committed((rows.num_rows,), first, (rows,), frozenset())


def _live(scopes: Scopes, scope: OpenScope, schema: TableSchema, probe: Probe, cold: list[ColdVersion]) -> Live | None:
    """The visible row at the head, and where it is.  Call with the scope's lock held."""
    hot = scope.state.hot
    at = _index_of(hot, schema, probe) if hot.n else -1
    if at >= 0:
        row = _hot_row(hot, schema, at)
        return None if _is_tombstone(row) else Live(row, _located(hot=at))
    for version in cold:
        if not _superseded(scopes, scope, version):
            found = _located(batch=version.entry.number, row=version.number)
            return None if _is_tombstone(version.row) else Live(version.row, found)
    return None


def _superseded(scopes: Scopes, scope: OpenScope, version: ColdVersion) -> bool:
    marks = scope.state.hot.dead_cold(HEAD).get(version.entry.number)
    if marks is not None and version.number in marks:
        return True
    vector = version.entry.dead
    return vector is not None and version.number in scopes.vectors.get(scope.folder, vector)


def _located(*, hot: int = -1, batch: int = -1, row: int = 0) -> Located:
    return Located(np.array([hot]), np.array([batch]), np.array([row]), np.zeros(1, bool))
