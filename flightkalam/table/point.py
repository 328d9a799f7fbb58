"""The short way of a read by key: one row group of each batch that can hold the key, read here instead of in the engine.

An engine opens a file, plans and starts tasks for what is one row; a row group with a cached footer is there in a fraction of
that.  What is read may still be more than what was asked for: the statement's own WHERE decides.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.cold.manifest import BatchEntry
from flightkalam.model import predicate as p
from flightkalam.model.predicate import Comparable, Predicate
from flightkalam.model.schema import DELETED, SEQ, Column, TableSchema
from flightkalam.table.snapshot import Snapshot

# With more candidates the engine's own pruning, in parallel, is faster.
MOST_BATCHES = 8
_KINDS = frozenset({"int", "date", "timestamp", "timestamptz", "time", "text", "uuid"})


def key_asked(predicate: Predicate, schema: TableSchema) -> tuple[Column, Comparable] | None:
    """The first key column and the one value that a statement asks of it, when it does."""
    column = schema.key_columns[0]
    if column.type.kind not in _KINDS:
        return None
    for part in predicate.parts if isinstance(predicate, p.All) else (predicate,):
        if isinstance(part, p.Compare) and part.op == "=" and part.column == column.id:
            return column, part.value
    return None


def rows_of_key(
    snapshot: Snapshot, entry: BatchEntry, column: Column, value: Comparable, *, tombstones: bool
) -> pa.Table | None:
    """A batch's rows with this key that count, with `_deleted` and `_seq`; None where it has none."""
    scopes, schema, path = snapshot.scopes, snapshot.table.schema, snapshot.scope.folder / entry.file
    groups = scopes.reader.groups_of(path, entry, column, value)
    if not groups:
        return None
    wanted = _scalar(value, column)
    keys = scopes.reader.columns(path, entry, schema, [column.name], groups=groups).column(0)
    at = pc.indices_nonzero(pc.equal(keys, wanted)).to_numpy(zero_copy_only=False).astype(np.int64)
    if not len(at):
        return None
    dead = snapshot.superseded(entry) if tombstones else snapshot.dead(entry)
    if dead:
        place = scopes.reader.places_of(path, entry, groups)[at]
        at = at[[r not in dead for r in place.tolist()]]
        if not len(at):
            return None
    names = [*(c.name for c in schema.columns), DELETED, SEQ]
    return scopes.reader.columns(path, entry, schema, names, groups=groups).take(pa.array(at))


def _scalar(value: Comparable, column: Column) -> pa.Scalar:
    if isinstance(value, bytes):
        return pa.scalar(value.decode(), column.type.storage)
    number = pa.int32() if column.type.kind == "date" else pa.int64()  # what casts to the type
    return pa.array([value], number).cast(column.type.storage)[0]
