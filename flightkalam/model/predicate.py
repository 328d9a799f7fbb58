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
from collections.abc import Callable, Iterable, Iterator
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
class EqualsSome:
    """column = some value of a column elsewhere in the statement.  Says nothing until that value is known.

    :param source: the reference in the statement, or the name of rows in memory.
    :param other: the column there.
    """

    column: int
    source: int | str
    other: int


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801 - beside `Any` of typing
    parts: tuple[Predicate, ...]


Predicate = Always | Never | Compare | OneOf | StartsWith | IsNull | IsNotNull | EqualsSome | All | Any_
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


def replaced(predicate: Predicate, by: Callable[[EqualsSome], Predicate]) -> Predicate:
    """The predicate with something else in the place of each value from elsewhere."""
    match predicate:
        case EqualsSome():
            return by(predicate)
        case All(parts):
            return all_of(replaced(part, by) for part in parts)
        case Any_(parts):
            return any_of(replaced(part, by) for part in parts)
    return predicate


def from_elsewhere(predicate: Predicate) -> Iterator[EqualsSome]:
    match predicate:
        case EqualsSome():
            yield predicate
        case All(parts) | Any_(parts):
            for part in parts:
                yield from from_elsewhere(part)


def columns_of(predicate: Predicate) -> frozenset[int]:
    """The columns that a predicate speaks of."""
    match predicate:
        case All(parts) | Any_(parts):
            return frozenset().union(*(columns_of(part) for part in parts))
        case Always() | Never():
            return frozenset()
    return frozenset((predicate.column,))


def interval(predicate: Predicate, column: int) -> tuple[int | None, int | None]:
    """The least and the greatest whole number that a column may hold where the predicate is true; None: no bound.

    Nothing at all can satisfy it when the least is above the greatest.
    """
    match predicate:
        case Never():
            return 1, 0
        case Compare(column=c, op=op, value=int(value)) if c == column:
            low = {"=": value, ">=": value, ">": value + 1}.get(op)
            return low, {"=": value, "<=": value, "<": value - 1}.get(op)
        case OneOf(column=c, values=values) if c == column and all(isinstance(v, int) for v in values):
            whole = [v for v in values if isinstance(v, int)]
            return (min(whole), max(whole)) if whole else (1, 0)
        case All(parts=parts):
            each = [interval(part, column) for part in parts]
            lows, highs = [low for low, _ in each if low is not None], [high for _, high in each if high is not None]
            return max(lows, default=None), min(highs, default=None)
        case Any_(parts=parts):
            each = [i for i in (interval(part, column) for part in parts) if not _is_empty(i)]
            if not each:
                return 1, 0
            lowest, highest = [low for low, _ in each], [high for _, high in each]
            return (
                None if None in lowest else min(low for low in lowest if low is not None),
                None if None in highest else max(high for high in highest if high is not None),
            )
    return None, None


def _is_empty(bounds: tuple[int | None, int | None]) -> bool:
    low, high = bounds
    return low is not None and high is not None and low > high


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
