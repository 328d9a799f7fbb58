"""What a statement asks of one table reference, as far as bounds can decide it.

A predicate here may only ever *weaken* what the statement says: a row that the statement keeps must satisfy it.  Whatever
cannot be expressed becomes `TRUE`.  Values are in the column's *comparable* form:

    bool, int, date, time, timestamp, timestamptz    int (0/1; the number; days; microseconds)
    decimal                                          int, scaled by the column's scale
    float                                            float, never NaN
    text, uuid                                       bytes, UTF-8 (bytewise order is code point order)
    blob                                             bytes
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flightkalam.model.types import ColumnType

Comparable = int | float | bytes


@dataclass(frozen=True, slots=True)
class Always:
    """TRUE: nothing is known."""


@dataclass(frozen=True, slots=True)
class Never:
    """FALSE or NULL for every row."""


@dataclass(frozen=True, slots=True)
class Compare:
    """column ⟨op⟩ value, op one of = < <= > >= !=."""

    column: int
    op: str
    value: Comparable


@dataclass(frozen=True, slots=True)
class OneOf:
    """column IN (values)."""

    column: int
    values: tuple[Comparable, ...]


@dataclass(frozen=True, slots=True)
class StartsWith:
    """A text column begins with the bytes of `prefix`."""

    column: int
    prefix: bytes


@dataclass(frozen=True, slots=True)
class IsNull:
    column: int


@dataclass(frozen=True, slots=True)
class IsNotNull:
    column: int


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801 - beside `Any` of typing
    parts: tuple[Predicate, ...]


Predicate = Always | Never | Compare | OneOf | StartsWith | IsNull | IsNotNull | All | Any_
TRUE = Always()
FALSE = Never()


def all_of(parts: Iterable[Predicate]) -> Predicate:
    """AND; parts that say nothing are dropped."""
    kept = tuple(p for p in parts if not isinstance(p, Always))
    if any(isinstance(p, Never) for p in kept):
        return FALSE
    if not kept:
        return TRUE
    return kept[0] if len(kept) == 1 else All(kept)


def any_of(parts: Iterable[Predicate]) -> Predicate:
    """OR; one part that says nothing makes the whole say nothing."""
    every = tuple(parts)
    if any(isinstance(p, Always) for p in every):
        return TRUE
    kept = tuple(p for p in every if not isinstance(p, Never))
    if not kept:
        return FALSE
    return kept[0] if len(kept) == 1 else Any_(kept)


_EPOCH_DATE = dt.date(1970, 1, 1).toordinal()


def comparable(scalar: pa.Scalar, type_: ColumnType) -> Comparable | None:
    """The comparable form of a storage value; None for NULL, NaN and types without bounds."""
    if not scalar.is_valid or not type_.has_bounds:
        return None
    if type_.kind in ("timestamp", "timestamptz", "time", "date"):
        return int(scalar.value)
    value: Any = scalar.as_py()
    if type_.kind == "float":
        return None if value != value else float(value)
    if type_.kind == "decimal":
        return int(value.scaleb(type_.scale or 0, decimal.Context(prec=76)))
    if type_.kind in ("text", "uuid"):
        return bytes(value.encode())
    return bytes(value) if type_.kind == "blob" else int(value)
