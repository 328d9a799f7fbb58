"""Keys -> positions: where the live version of each key sits, at the head.

Few batches can hold a key: their bounds say so.  Of those the key columns are read once and kept (`key_cache`), and all
probes are matched against each in one merge.  For many keys that happens before the writer takes the scope's lock: only which
of the rows found are still live, and what is hot, has to be looked at with the lock held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.bloom import KEY_FILTER
from flightkalam.cold.manifest import BatchEntry, Manifest
from flightkalam.hot.rows import FoundAhead
from flightkalam.model.keys import I64, Probe, is_exact, key_hashes
from flightkalam.model.predicate import comparable
from flightkalam.model.schema import DELETED, TableSchema
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState

_FEW_KEYS = 32  # so many are tested against Bloom filters before key columns are read
_ALONE = 64  # fewer keys than these are looked for with the lock held: most of them are hot, or in one batch
_FEW = 2_048  # so many text keys are compared with every batch's bounds one by one


@dataclass(frozen=True)
class Located:
    """Where the live version of each of n keys sits.

    :param hot: row number in the hot rows, -1 elsewhere.
    :param batch: batch number, -1 elsewhere.
    :param row: row number in that batch.
    :param deleted: the live version is a tombstone.
    """

    hot: I64
    batch: I64
    row: I64
    deleted: npt.NDArray[np.bool_]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        return (self.hot >= 0) | (self.batch >= 0)

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        return self.found & ~self.deleted


@dataclass(frozen=True)
class Placed:
    """Every cold row that holds one of the keys, whatever became of it since.

    No lock guards it: which rows a batch has never changes.  It holds for one layout of the scope.

    :param found: per batch the numbers of the keys, and the rows that hold them.
    :param hot: the same of the hot rows that there were.
    """

    layout: int
    found: tuple[tuple[BatchEntry, I64, I64], ...]
    hot: FoundAhead | None = None


def place(scopes: Scopes, scope: OpenScope, state: ScopeState, schema: TableSchema, probe: Probe) -> Placed:
    """Look for keys in the batches of a layout.  Call with a pin held, or with the scope's lock."""
    found = []
    manifest = state.manifest
    for entry in by_filters(scopes, scope, manifest, schema, probe, candidates(manifest, schema, probe)):
        probes, rows = scopes.keys.matches(scope.folder, entry, schema, probe)
        if len(rows):
            found.append((entry, probes, rows))
    return Placed(state.layout, tuple(found))


def few(keys: int) -> bool:
    """Whether so many keys are looked for with the scope's lock held, and nothing of it before."""
    return keys < _ALONE


def placed_ahead(scopes: Scopes, scope: OpenScope, schema: TableSchema, probe: Probe) -> Placed | None:
    """What can be done before the scope's lock: reading and matching the keys of the cold rows, and of the hot ones so far."""
    if few(len(probe)):
        return None
    scope.sought = True
    with scopes.door.pinned():  # before the state is taken: its files stay
        state, hot = scope.state, None
        if scope.lock.acquire(blocking=False):  # whoever holds it may do so for long: then the hot rows wait for us
            try:
                state = scope.state
                hot = state.hot.index(schema)
            finally:
                scope.lock.release()
        placed = place(scopes, scope, state, schema, probe)
        return placed if hot is None else replace(placed, hot=hot.find(probe, schema))


def locate(scopes: Scopes, scope: OpenScope, schema: TableSchema, probe: Probe, placed: Placed | None = None) -> Located:
    """Find the live version of each key at the head.  Call with the scope's lock held.

    :param placed: from before the lock; looked for again when the layout has changed since.
    """
    n = len(probe)
    hot_rows = scope.state.hot
    ahead = placed.hot if placed is not None else None
    hot = hot_rows.find(probe.ordered, probe.order, probe.columns, schema, ahead)
    batch, row = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    deleted = np.zeros(n, bool)
    in_hot = np.flatnonzero(hot >= 0)
    if len(in_hot):
        deleted[in_hot] = hot_rows.take(hot[in_hot], schema, [DELETED])[0].to_numpy(zero_copy_only=False)
    if len(in_hot) == n:
        return Located(hot, batch, row, deleted)
    if placed is None or placed.layout != scope.state.layout:
        placed = place(scopes, scope, scope.state, schema, probe)
    for entry, probes, rows in placed.found:
        live = ~superseded(scopes, scope, entry, rows)
        probes, rows = probes[live], rows[live]
        batch[probes], row[probes] = entry.number, rows
        if entry.tombstones:
            deleted[probes] = np.isin(rows, scopes.keys.tombstones(scope.folder, entry, schema))
    return Located(hot, batch, row, deleted)


def superseded(scopes: Scopes, scope: OpenScope, entry: BatchEntry, rows: I64) -> npt.NDArray[np.bool_]:
    """Which of the rows carry a mark at the head, bool[n]."""
    out = np.zeros(len(rows), bool)
    head = np.iinfo(np.int64).max
    maps = [scope.state.hot.dead_cold(head).get(entry.number)]
    maps.append(scopes.vectors.get(scope.folder, entry.dead) if entry.dead is not None else None)
    for dead in maps:
        if dead:
            out |= np.isin(rows, np.asarray(dead.to_array(), dtype=np.int64)) if len(rows) > 64 else _in(dead, rows)
    return out


def _in(dead, rows: I64) -> npt.NDArray[np.bool_]:  # type: ignore[no-untyped-def]
    return np.array([r in dead for r in rows.tolist()], bool)


def candidates(manifest: Manifest, schema: TableSchema, probe: Probe) -> list[BatchEntry]:
    """The batches whose bounds of the first key column admit one of the keys."""
    if not manifest.batches:
        return []
    column = schema.key_columns[0]
    bounds = manifest.column(column.id, column.bounds_since)
    values = _sorted_values(probe.columns[0], bounds.low.dtype)
    if values is None:
        return _by_extremes(manifest, schema, probe)
    inside = np.searchsorted(values, bounds.high, "right") > np.searchsorted(values, bounds.low, "left")
    return [manifest.batches[i] for i in np.flatnonzero(inside | ~bounds.bounded)]


def by_filters(
    scopes: Scopes, scope: OpenScope, manifest: Manifest, schema: TableSchema, probe: Probe, entries: list[BatchEntry]
) -> list[BatchEntry]:
    """Of these batches, those whose Bloom filters admit one of the keys.  For a few keys only: many pass nearly everywhere."""
    if len(probe) > _FEW_KEYS or len(entries) < 2:
        return entries
    at = np.array([manifest.by_number[e.number] for e in entries], np.int64)
    if len(schema.key) > 1:
        hashes = probe.ordered.tolist()
        mask = scopes.blooms.may_hold(scope.folder, manifest, at, KEY_FILTER, hashes)
    else:
        column = schema.key_columns[0]
        values = [comparable(v, column.type) for v in probe.columns[0]]
        known = [v for v in values if v is not None]
        if len(known) < len(values):
            return entries
        mask = scopes.blooms.may_hold(scope.folder, manifest, at, column.id, known, column.bounds_since)
    return [e for e, passes in zip(entries, mask.tolist(), strict=True) if passes]


def _sorted_values(column: pa.Array, dtype: np.dtype) -> npt.NDArray[np.generic] | None:
    """The probes' values, ascending, comparable with bounds of `dtype`; None when that is not to be had cheaply."""
    if dtype.kind == "i" and is_exact([column]):
        return np.sort(key_hashes([column]).view(np.int64))
    if dtype.kind == "S" and len(column) <= _FEW:
        raw = column.cast(pa.binary()).to_pylist()
        # Fixed-width bytes drop trailing zeros on both sides alike, which can only let more batches in.
        return np.sort(np.array(raw, dtype=f"S{max(1, max(map(len, raw)))}"))
    return None


def _by_extremes(manifest: Manifest, schema: TableSchema, probe: Probe) -> list[BatchEntry]:
    """For many keys: the batches that overlap the range from the smallest to the largest."""
    column = schema.key_columns[0]
    both = pc.min_max(probe.columns[0])
    low, high = (comparable(both[name], column.type) for name in ("min", "max"))
    bounds = manifest.column(column.id, column.bounds_since)
    kind = bounds.low.dtype.kind
    if low is None or high is None or isinstance(low, bytes) != (kind == "S"):
        return list(manifest.batches)
    if isinstance(low, bytes) and isinstance(high, bytes):
        ends = np.array(low, f"S{max(1, len(low))}"), np.array(high, f"S{max(1, len(high))}")
        inside = (bounds.high >= ends[0]) & (bounds.low <= ends[1])
    elif kind == "i" and int(low) >= -(2**63) and int(high) < 2**63:
        inside = (bounds.high >= int(low)) & (bounds.low <= int(high))
    else:
        return list(manifest.batches)
    return [manifest.batches[i] for i in np.flatnonzero(inside | ~bounds.bounded)]
