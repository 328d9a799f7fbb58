"""Which batches of a scope a predicate can be true in: by bounds first, then by Bloom filters, and no file is opened.

    range    every part of the predicate over the bounds of all batches at once
    Bloom    its equalities, in the batches that are left:   =, IN, and a whole key of several columns

Both only ever exclude what is proved FALSE or NULL for every row (T-39).  Any column may prune: which rows are superseded is
known from marks, not from the batches that are read, so leaving one out brings no older version back (SEMANTICS §8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flightkalam.cold.bloom import KEY_FILTER
from flightkalam.cold.bloom_cache import Blooms
from flightkalam.cold.bounds import Mask
from flightkalam.cold.manifest import Manifest
from flightkalam.model import predicate as p
from flightkalam.model.keys import key_hashes
from flightkalam.model.predicate import Always, Comparable, Predicate
from flightkalam.model.schema import Column, TableSchema
from flightkalam.table.snapshot import Snapshot

I64 = npt.NDArray[np.int64]
# Testing more values in every batch costs more than it can spare.
MOST_VALUES = 256
_NUMBERS = {"int": pa.int64(), "date": pa.int32()}


@dataclass(frozen=True, slots=True)
class Choice:
    """:param at: places in the manifest of the batches that are left, ascending, int64[n]."""

    at: I64
    by_range: int
    by_bloom: int


def choose(snapshot: Snapshot, predicate: Predicate) -> Choice:
    manifest, schema = snapshot.state.manifest, snapshot.table.schema
    every = len(manifest.batches)
    if isinstance(predicate, Always) or not every:
        return Choice(np.arange(every), 0, 0)
    at = np.flatnonzero(manifest.may_match(predicate, schema))
    left = at
    if len(at) and has_equality(predicate):
        left = at[_Tester(snapshot).test(predicate, at)]
    return Choice(left, every - len(at), len(at) - len(left))


def has_equality(predicate: Predicate) -> bool:
    match predicate:
        case p.All(parts) | p.Any_(parts):
            return any(has_equality(part) for part in parts)
        case p.Compare(_, op, _):
            return op == "="
        case p.OneOf(_, values):
            return len(values) <= MOST_VALUES
    return False


class _Tester:
    """The equalities of a predicate against the filters of one snapshot's batches."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.folder = snapshot.scope.folder
        self.manifest: Manifest = snapshot.state.manifest
        self.schema: TableSchema = snapshot.table.schema
        self.blooms: Blooms = snapshot.scopes.blooms

    def test(self, predicate: Predicate, at: I64) -> Mask:
        """Which of some batches may hold a row for which the predicate is true, bool[len(at)]."""
        match predicate:
            case p.All(parts):
                return self.all_of(parts, at)
            case p.Any_(parts):
                return np.logical_or.reduce([self.test(part, at) for part in parts])
            case p.Compare(column, "=", value):
                return self.one_of(column, (value,), at)
            case p.OneOf(column, values) if len(values) <= MOST_VALUES:
                return self.one_of(column, values, at)
        return self.in_range(predicate, at)

    def in_range(self, predicate: Predicate, at: I64) -> Mask:
        return self.manifest.may_match(predicate, self.schema)[at]

    def all_of(self, parts: Sequence[Predicate], at: I64) -> Mask:
        out = np.ones(len(at), bool)
        whole = whole_key(parts, self.schema)
        if whole is not None:
            out &= self.blooms.may_hold(self.folder, self.manifest, at, KEY_FILTER, [whole])
        for part in sorted(parts, key=has_equality):  # the cheap ones first
            left = np.flatnonzero(out)
            out[left] &= self.test(part, at[left])
        return out

    def one_of(self, column: int, values: Sequence[Comparable], at: I64) -> Mask:
        """A value must pass the bounds and the filter of the same batch."""
        known = self.schema.by_id.get(column)
        since = known.bounds_since if known is not None else 0
        out = np.zeros(len(at), bool)
        for value in values:
            left = np.flatnonzero(~out)
            if not len(left):
                break
            left = left[self.in_range(p.Compare(column, "=", value), at[left])]
            out[left] = self.blooms.may_hold(self.folder, self.manifest, at[left], column, [value], since)
        return out


def whole_key(parts: Sequence[Predicate], schema: TableSchema) -> int | None:
    """The hash of the one key that a conjunction asks for, where the key has several columns and all have an equality."""
    if len(schema.key) < 2:
        return None
    asked = {part.column: part.value for part in parts if isinstance(part, p.Compare) and part.op == "="}
    columns = [key_array(c, asked[c.id]) if c.id in asked else None for c in schema.key_columns]
    known = [c for c in columns if c is not None]
    return int(key_hashes(known)[0]) if len(known) == len(columns) else None


def key_array(column: Column, value: Comparable) -> pa.Array | None:
    """A comparable value as a storage array of one; None where the type cannot hold it."""
    try:
        if column.type.kind == "decimal":
            return None if isinstance(value, bytes) else _decimal(int(value), column)
        if isinstance(value, bytes):
            text = value if column.type.kind == "blob" else value.decode()
            return pa.array([text], column.type.storage)
        if column.type.kind == "bool":
            return pa.array([bool(value)], column.type.storage)
        return pa.array([value], _NUMBERS.get(column.type.kind, pa.int64())).cast(column.type.storage)
    except (pa.ArrowException, OverflowError, UnicodeDecodeError):
        return None


def _decimal(scaled: int, column: Column) -> pa.Array:
    raw = scaled.to_bytes(16, "little", signed=True)
    return pa.Array.from_buffers(column.type.storage, 1, [None, pa.py_buffer(raw)])
