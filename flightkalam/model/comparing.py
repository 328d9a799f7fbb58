"""Values of rows in memory in their comparable form, and predicates over them.

As bounds do (`cold.bounds`), a predicate here may only ever leave out a row for which it is proved FALSE or NULL.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.model import predicate as p
from flightkalam.model.predicate import Comparable, Predicate
from flightkalam.model.types import ColumnType

Mask = npt.NDArray[np.bool_]
_NUMBERS = {"int": pa.int64(), "bool": pa.int8(), "date": pa.int32()}
_COUNTS = {"time": pa.time64("us"), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC")}
_BYTES = frozenset({"text", "uuid", "blob"})
_OPERATORS = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def alike(a: ColumnType, b: ColumnType) -> bool:
    """Whether equal values of two columns are equal in their comparable form too, and the other way round.

    Not numbers with a fraction: NaN equals itself, and a REAL is not what its text says.
    """
    if a.kind == "decimal":
        return b.kind == "decimal" and a.scale == b.scale and _short(a) and _short(b)
    return a.kind == b.kind and (a.kind in _NUMBERS or a.kind in _COUNTS or a.kind in _BYTES)


def _short(type_: ColumnType) -> bool:
    return (type_.precision or 38) <= 18


def comparables(column: pa.ChunkedArray, type_: ColumnType) -> pa.Array | None:
    """A column in its comparable form, int64 or binary; None where it has none here.

    :param column: as the engine gives it; a UUID as text.
    """
    kind = type_.kind
    try:
        if kind in _NUMBERS:
            return _whole(column.cast(_NUMBERS[kind]).cast(pa.int64()))
        if kind in _COUNTS:
            return _whole(column.cast(_COUNTS[kind]).cast(pa.int64()))
        if kind in _BYTES:
            return _whole(column.cast(pa.binary() if kind == "blob" else pa.string()).cast(pa.binary()))
        if kind == "decimal" and _short(type_):
            return _unscaled(_whole(column.cast(type_.storage)))
    except pa.ArrowException:
        return None
    return None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _unscaled(array: pa.Array) -> pa.Array:
    """The low halves of the 128 bits: these decimals need no more."""
    if not len(array):
        return pa.array([], pa.int64())
    halves = np.frombuffer(array.buffers()[1], np.int64).reshape(-1, 2)[array.offset : array.offset + len(array), 0]
    return pa.array(halves, mask=~array.is_valid().to_numpy(zero_copy_only=False))


def values(array: pa.Array) -> tuple[Comparable, ...]:
    """The different values, without NULL."""
    return tuple(pc.drop_null(pc.unique(array)).to_pylist())


def may_hold(predicate: Predicate, columns: Mapping[int, pa.Array], n: int) -> Mask:
    """Of which of n rows the predicate may be TRUE, bool[n].

    :param columns: in comparable form by id; of those that are missing nothing is known.
    """
    match predicate:
        case p.Never():
            return np.zeros(n, bool)
        case p.All(parts):
            return np.logical_and.reduce([may_hold(part, columns, n) for part in parts])
        case p.Any_(parts):
            return np.logical_or.reduce([may_hold(part, columns, n) for part in parts])
        case p.Always():
            return np.ones(n, bool)
    known = columns.get(predicate.column)
    if known is None:
        return np.ones(n, bool)
    match predicate:
        case p.IsNull():
            return _mask(known.is_null())
        case p.IsNotNull():
            return _mask(known.is_valid())
        case p.Compare(_, op, value):
            return _compared(known, op, value)
        case p.OneOf(_, wanted):
            return _one_of(known, wanted)
        case p.StartsWith(_, prefix):
            return _compared(known, ">=", prefix)
    return np.ones(n, bool)


def _mask(array: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _compared(known: pa.Array, op: str, value: Comparable) -> Mask:
    if not _fits(known, value):
        return np.ones(len(known), bool)
    return _mask(_OPERATORS[op](known, pa.scalar(value, known.type)))


def _one_of(known: pa.Array, wanted: tuple[Comparable, ...]) -> Mask:
    if not all(_fits(known, v) for v in wanted):
        return np.ones(len(known), bool)
    return _mask(pc.is_in(known, value_set=pa.array(wanted, known.type), skip_nulls=True))


def _fits(known: pa.Array, value: Comparable) -> bool:
    if isinstance(value, bytes):
        return bool(pa.types.is_binary(known.type))
    return isinstance(value, int) and pa.types.is_int64(known.type) and -(2**63) <= value < 2**63
