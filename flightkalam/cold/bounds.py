"""Minimum, maximum and null count of a column, as a manifest keeps them and as pruning reads them.

Bounds are computed over every stored row, dead ones included: they may be loose, never wrong (T-37).  Texts are cut to 32
bytes, the maximum rounded up; where no bound can be given there is none, and a missing bound never prunes (T-29).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.model import predicate as p
from flightkalam.model.predicate import Comparable, Predicate
from flightkalam.model.types import ColumnType

TEXT_BYTES = 32
_FEW = 8  # values that are tried one by one
_TEXT_DTYPE = f"S{TEXT_BYTES + 4}"  # a rounded-up code point may be longer than the one it replaces


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is known of one column in one batch.

    :param low: no value is smaller; None when unknown.
    :param high: no value is larger; None when unknown.
    :param nulls: NULLs among the rows.
    :param nan: whether a float column holds NaN, which the engine orders above every number (T-27).
    """

    low: Comparable | None
    high: Comparable | None
    nulls: int
    nan: bool = False


def bounds_of(column: pa.ChunkedArray, type_: ColumnType) -> Bounds:
    """The bounds of a column in its storage type."""
    nulls = column.null_count
    if not type_.has_bounds or nulls == len(column):
        return Bounds(None, None, nulls)
    nan = False
    if type_.kind == "float":
        nan = bool(pc.any(pc.is_nan(column)).as_py())
        if nan:
            column = column.filter(pc.invert(pc.is_nan(column)))
    both = pc.min_max(column)
    low, high = (p.comparable(both[name], type_) for name in ("min", "max"))
    if isinstance(low, bytes) and isinstance(high, bytes):
        return Bounds(_cut_down(low, type_), _cut_up(high, type_), nulls)
    if isinstance(low, float) and low == 0:
        low = -0.0  # min_max may report either zero; both must lie inside (T-28)
    if isinstance(high, float) and high == 0:
        high = 0.0
    return Bounds(low, high, nulls, nan)


def _cut_down(value: bytes, type_: ColumnType) -> bytes:
    if len(value) <= TEXT_BYTES:
        return value
    return _whole_characters(value) if type_.kind != "blob" else value[:TEXT_BYTES]


def _whole_characters(value: bytes) -> bytes:
    return value[:TEXT_BYTES].decode(errors="ignore").encode()


def _cut_up(value: bytes, type_: ColumnType) -> bytes | None:
    if len(value) <= TEXT_BYTES:
        return value
    if type_.kind == "blob":
        kept = value[:TEXT_BYTES].rstrip(b"\xff")
        return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
    text = _whole_characters(value).decode()
    while text:
        code = ord(text[-1]) + 1
        if code <= 0x10FFFF:
            return (text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)).encode()
        text = text[:-1]
    return None


# ---------------------------------------------------------------------------------------------------------------
# JSON


def to_json(b: Bounds) -> list[Any]:
    record: list[Any] = [_value_to_json(b.low), _value_to_json(b.high), b.nulls]
    return [*record, 1] if b.nan else record


def from_json(record: list[Any]) -> Bounds:
    low, high, nulls, *nan = record
    return Bounds(_value_from_json(low), _value_from_json(high), nulls, bool(nan))


def _value_to_json(value: Comparable | None) -> Any:
    if isinstance(value, bytes):
        try:
            return {"t": value.decode()}
        except UnicodeDecodeError:
            return {"b": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return {"f": value.hex()}
    return value


def _value_from_json(value: Any) -> Comparable | None:
    if isinstance(value, dict):
        if "t" in value:
            return str(value["t"]).encode()
        return base64.b64decode(value["b"]) if "b" in value else float.fromhex(value["f"])
    return value if value is None else int(value)


# ---------------------------------------------------------------------------------------------------------------
# Columns of bounds, and predicates over them

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ColumnBounds:
    """The bounds of one column over all batches, in numpy: one comparison serves them all.

    `low`, `high`: int64, float64 or fixed-width bytes; only valid where `bounded`.
    `all_null`, `no_null`: what is known of NULLs; both False where the column is unknown to a batch.
    """

    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    bounded: Mask
    nan: Mask
    all_null: Mask
    no_null: Mask


def column_bounds(bounds: list[Bounds | None], rows: npt.NDArray[np.int64]) -> ColumnBounds:
    """Stack the bounds of one column; None where a batch does not know the column."""
    bounded = np.array([b is not None and b.low is not None and b.high is not None for b in bounds], bool)
    nulls = np.array([-1 if b is None else b.nulls for b in bounds], np.int64)
    sample = next((b.low for b, k in zip(bounds, bounded, strict=True) if k and b is not None), 0)
    dtype, zero = _dtype(sample)
    low = np.full(len(bounds), zero, dtype)
    high = np.full(len(bounds), zero, dtype)
    for i, b in enumerate(bounds):
        if bounded[i] and b is not None:
            if type(b.low) is not type(sample) or not _fits(b.low) or not _fits(b.high):
                bounded[i] = False
                continue
            low[i], high[i] = b.low, b.high
    nan = np.array([b is not None and b.nan for b in bounds], bool)
    return ColumnBounds(low, high, bounded, nan, nulls == rows, nulls == 0)


def _dtype(sample: Comparable | None) -> tuple[Any, Any]:
    if isinstance(sample, bytes):
        return _TEXT_DTYPE, b""
    return (np.float64, 0.0) if isinstance(sample, float) else (np.int64, 0)


def _fits(value: Comparable | None) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def may_match(predicate: Predicate, columns: dict[int, ColumnBounds], n: int) -> Mask:
    """Which of n batches may hold a row for which the predicate is TRUE, bool[n].

    Only a proven FALSE-or-NULL excludes a batch (T-39).
    """
    match predicate:
        case p.Never():
            return np.zeros(n, bool)
        case p.All(parts):
            return np.logical_and.reduce([may_match(part, columns, n) for part in parts])
        case p.Any_(parts):
            return np.logical_or.reduce([may_match(part, columns, n) for part in parts])
        case p.Always():
            return np.ones(n, bool)
    known = columns.get(predicate.column)
    if known is None:
        return np.ones(n, bool)
    match predicate:
        case p.IsNull():
            return ~known.no_null
        case p.IsNotNull():
            return ~known.all_null
        case p.Compare(_, op, value):
            return _may_compare(known, op, value) & ~known.all_null
        case p.OneOf(_, values):
            return _may_be_one_of(known, values) & ~known.all_null
        case p.StartsWith(_, prefix):
            return _may_start(known, prefix) & ~known.all_null
    return np.ones(n, bool)


def _may_compare(known: ColumnBounds, op: str, value: Comparable) -> Mask:
    if not _comparable_with(known, value):
        return np.ones(len(known.bounded), bool)
    probe = np.array(value, f"S{max(len(value), 1)}") if isinstance(value, bytes) else value
    if op == "=":
        hit = (known.low <= probe) & (known.high >= probe)
    elif op in ("<", "<="):
        hit = known.low < probe if op == "<" else known.low <= probe
    elif op in (">", ">="):
        # NaN stands above every number, so a batch with NaN answers every lower bound.
        hit = (known.high > probe if op == ">" else known.high >= probe) | known.nan
    else:
        hit = ~((known.low == probe) & (known.high == probe)) | known.nan
    if isinstance(value, bytes) and op in ("<", ">", "!="):
        # Fixed-width bytes drop trailing zeros, and bounds may be cut: equality here is not equality there.
        hit = hit | (known.low == probe) | (known.high == probe)
    return hit | ~known.bounded


def _may_be_one_of(known: ColumnBounds, values: Sequence[Comparable]) -> Mask:
    """Long lists are sorted once: the least value that is not below a batch must not be above it."""
    if len(values) <= _FEW or not all(_comparable_with(known, v) for v in values):
        hit = [_may_compare(known, "=", v) for v in values]
        return np.logical_or.reduce(hit) if hit else np.zeros(len(known.bounded), bool)
    # Bounds of texts are shorter than this, so that cutting a value moves it past none.
    cut = [v[: 2 * TEXT_BYTES] if isinstance(v, bytes) else v for v in values]
    ordered = np.unique(np.array(cut, None if known.low.dtype.kind == "S" else known.low.dtype))
    at = np.searchsorted(ordered, known.low)
    found = ordered[np.minimum(at, len(ordered) - 1)]
    return ((at < len(ordered)) & (found <= known.high)) | ~known.bounded


def _may_start(known: ColumnBounds, prefix: bytes) -> Mask:
    if known.low.dtype.kind != "S" or not prefix:
        return np.ones(len(known.bounded), bool)
    cut = prefix[:TEXT_BYTES]
    probe = np.array(cut, f"S{len(cut)}")
    head = known.low.astype(f"S{len(cut)}")
    return ((known.high >= probe) & (head <= probe)) | ~known.bounded


def _comparable_with(known: ColumnBounds, value: Comparable) -> bool:
    kind = known.low.dtype.kind
    if isinstance(value, bytes):
        return kind == "S"
    if isinstance(value, float):
        return kind == "f"
    return kind in "if" and _fits(value) and (kind == "i" or abs(value) <= 2**53)
