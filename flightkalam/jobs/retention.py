"""ROW_RETENTION: rows whose time column is older than the table keeps them are deleted, like any other row.

The deletes go through the write door as a transaction would: a piece of which any row was changed since the snapshot is refused
and looked at again.  So no lock is held while rows are looked for, and a row that just got a new time stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam import failpoints
from flightkalam.catalog.alter import retention_column
from flightkalam.clock import Clock
from flightkalam.errors import Conflict
from flightkalam.jobs.control import Control
from flightkalam.model.predicate import Compare
from flightkalam.model.schema import DELETED, Column, Table
from flightkalam.table.mutate import Writer
from flightkalam.table.mutation import Mutation
from flightkalam.table.scan import scan
from flightkalam.table.scopes import Scopes
from flightkalam.table.snapshot import Snapshot

_DAY_US = 86_400_000_000
_PIECE = 16_384  # rows deleted by one commit
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class _Expired:
    """What counts as old: values of the column below `limit`, which is in the column's storage unit."""

    column: Column
    limit: int

    def mask(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        scalar: Any = pa.scalar(self.limit, pa.int64())
        type_ = self.column.type.storage
        scalar = scalar.cast(pa.int32()).cast(type_) if type_ == pa.date32() else scalar.cast(type_)
        return pc.fill_null(pc.less(values, scalar), False)


class RowExpiry:
    """Deletes expired rows of one scope at a time."""

    def __init__(self, scopes: Scopes, writer: Writer, clock: Clock) -> None:
        self._scopes = scopes
        self._writer = writer
        self._clock = clock

    def expire(self, table: Table, owner: str | None, control: Control | None = None) -> int:
        """Delete what has expired and return how many rows that were.

        Pieces that conflict with other writers are tried again a few times; what then remains is for the next run.

        :raises Cancelled: `control` was set; what was deleted so far stays deleted.
        """
        deleted = 0
        for _ in range(_ROUNDS):
            current = self._scopes.current(table.id)
            rule = self._rule(current) if current is not None else None
            if current is None or rule is None:
                return deleted
            count, conflicts = self._round(current, owner, rule, control or Control())
            deleted += count
            if not conflicts:
                break
        return deleted

    def _rule(self, table: Table) -> _Expired | None:
        found = retention_column(table)
        if found is None:
            return None
        column, seconds = found
        before_us = self._clock.now_us() - seconds * 1_000_000
        # A day is older than a moment when its midnight is.
        return _Expired(column, -(-before_us // _DAY_US) if column.type.kind == "date" else before_us)

    def _round(self, table: Table, owner: str | None, rule: _Expired, control: Control) -> tuple[int, bool]:
        deleted, conflicts = 0, False
        with self._scopes.door.pinned() as watermark:
            snapshot = Snapshot.take(self._scopes, table, owner, watermark)
            for keys in _expired_keys(snapshot, rule):
                for at in range(0, keys.num_rows, _PIECE):
                    control.step("rows deleted so far stay deleted")
                    failpoints.hit("retention.before_delete")
                    rows = _tombstones(table, keys.slice(at, _PIECE))
                    every = np.ones(rows.num_rows, bool)
                    try:
                        self._writer.write([Mutation(table, owner, rows, supersedes=every, snapshot=watermark)])
                        deleted += rows.num_rows
                    except Conflict:
                        conflicts = True
        return deleted, conflicts


def _expired_keys(snapshot: Snapshot, rule: _Expired) -> Iterator[pa.Table]:
    """The keys of visible expired rows, part by part."""
    plan = scan(snapshot, Compare(rule.column.id, "<", rule.limit))
    names = [c.name for c in plan.schema.key_columns]
    if plan.hot is not None:
        yield plan.hot.filter(rule.mask(plan.hot.column(rule.column.name))).select(names)
    dead = {d.path: d.dead for d in plan.dirty}
    wanted = list(dict.fromkeys([*names, rule.column.name]))
    entries = {str(snapshot.scope.folder / b.file): b for b in snapshot.state.manifest.batches}
    for path in (*plan.clean, *dead):
        entry = entries[path]
        rows = snapshot.scopes.reader.columns(snapshot.scope.folder / entry.file, entry, plan.schema, wanted)
        alive = np.ones(rows.num_rows, bool)
        if path in dead:
            alive[np.asarray(dead[path].to_array(), np.int64)] = False
        yield rows.filter(pc.and_(rule.mask(rows.column(rule.column.name)), pa.array(alive))).select(names)


def _tombstones(table: Table, keys: pa.Table) -> pa.Table:
    """The key, NULL in every other column, `_deleted`."""
    names, n = keys.schema.names, keys.num_rows
    columns = table.schema.columns
    arrays = [keys.column(c.name) if c.name in names else pa.nulls(n, c.type.storage) for c in columns]
    rows = pa.table(arrays, names=table.schema.storage.names).cast(table.schema.storage)
    return rows.append_column(pa.field(DELETED, pa.bool_(), nullable=False), pa.repeat(pa.scalar(True), n))
