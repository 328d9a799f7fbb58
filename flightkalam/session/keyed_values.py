"""What a literal or a parameter is as a value of a column, where that is beyond doubt.

The engine would cast; here only those values are taken that every cast leaves as they are.  For all else the answer is
`DOUBTFUL`, and the statement goes the ordinary way, to its answer or its error.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import pyarrow as pa

from flightkalam.model.schema import Column
from flightkalam.model.types import ColumnType
from flightkalam.sql.keyed import Constant


class Doubtful(Exception):
    """The value's meaning for the column is left to the engine."""


_RANGES = {"SMALLINT": 1 << 15, "INT": 1 << 31, "BIGINT": 1 << 63}
_EXACT_INT = 1 << 53
_EXACT_DIGITS = 15
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EXACT = decimal.Context(prec=76, traps=[decimal.Inexact, decimal.Overflow])
_INFINITE = {(1 << 63) - 1, 1 - (1 << 63)}
Bound: TypeAlias = Constant | pa.Scalar


def parameter(scalar: pa.Scalar) -> Bound:
    """A bound value: a constant where it is what a literal would be, else the Arrow value itself."""
    if not scalar.is_valid:
        return Constant("null")
    type_ = scalar.type
    if pa.types.is_boolean(type_):
        return Constant("bool", scalar.as_py())
    if pa.types.is_integer(type_):
        return Constant("int", scalar.as_py())
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return Constant("text", scalar.as_py())
    if pa.types.is_decimal128(type_) and 0 <= type_.scale <= type_.precision:
        return Constant("decimal", scalar.as_py())
    return scalar


def typed(value: Bound, column: Column) -> pa.Scalar:
    """The value as the column stores it.

    :raises Doubtful: a cast might change or refuse it.
    """
    type_ = column.type
    if isinstance(value, Constant):
        if value.kind == "null" and type_.kind != "interval":
            return pa.scalar(None, type_.storage)
        make = _CONSTANTS.get((value.kind, type_.kind))
        if make is None:
            raise Doubtful
        return pa.scalar(make(value.value, type_), type_.storage)
    return _arrow(value, type_)


def _int(value: int, type_: ColumnType) -> int:
    limit = _RANGES[type_.name]
    if not -limit <= value < limit:
        raise Doubtful
    return value


def _decimal(value: int | Decimal, type_: ColumnType) -> Decimal:
    assert type_.precision is not None and type_.scale is not None
    try:
        scaled = Decimal(value).quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)
    except decimal.DecimalException:
        raise Doubtful from None
    if abs(int(scaled.scaleb(type_.scale, _EXACT))) >= 10**type_.precision:
        raise Doubtful
    return scaled


def _float(value: int | Decimal, type_: ColumnType) -> float:
    """A double holds these exactly or, for decimals of few digits, as the nearest there is, however it is computed."""
    few = len(value.as_tuple().digits) <= _EXACT_DIGITS if isinstance(value, Decimal) else abs(value) <= _EXACT_INT
    if type_.name != "DOUBLE" or not few:
        raise Doubtful
    return float(value)


def _text(value: str, type_: ColumnType) -> str:
    if "\0" in value:
        raise Doubtful
    return value


def _uuid(value: str, type_: ColumnType) -> str:
    if not _UUID.fullmatch(value):
        raise Doubtful
    return value.lower()


def _date(value: str, type_: ColumnType) -> dt.date:
    if not _DATE.fullmatch(value):
        raise Doubtful
    return _parsed(dt.date.fromisoformat, value)


def _timestamp(value: str, type_: ColumnType) -> dt.datetime:
    if not _TIMESTAMP.fullmatch(value):
        raise Doubtful
    whole, _, fraction = value.partition(".")
    return _parsed(dt.datetime.fromisoformat, f"{whole}.{fraction:0<6}")


def _parsed(parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value)
    except ValueError:
        raise Doubtful from None


def _same(value: Any, type_: ColumnType) -> Any:
    return value


_CONSTANTS: dict[tuple[str, str], Callable[[Any, ColumnType], Any]] = {
    ("int", "int"): _int,
    ("int", "decimal"): _decimal,
    ("int", "float"): _float,
    ("decimal", "decimal"): _decimal,
    ("decimal", "float"): _float,
    ("text", "text"): _text,
    ("text", "uuid"): _uuid,
    ("text", "date"): _date,
    ("text", "timestamp"): _timestamp,
    ("bool", "bool"): _same,
}


def _arrow(value: pa.Scalar, type_: ColumnType) -> pa.Scalar:
    given, storage = value.type, type_.storage
    if type_.kind in ("timestamp", "timestamptz"):
        return _instant(value, type_)
    if type_.kind == "blob" and pa.types.is_binary(given):
        return value
    if given != storage or type_.kind not in ("float", "date"):
        raise Doubtful
    if type_.kind == "float" and not math.isfinite(value.as_py()):
        raise Doubtful
    if type_.kind == "date" and abs(value.value) >= (1 << 31) - 1:
        raise Doubtful
    return value


def _instant(value: pa.Scalar, type_: ColumnType) -> pa.Scalar:
    given = value.type
    if not pa.types.is_timestamp(given) or (given.tz is not None) != (type_.kind == "timestamptz") or given.unit == "ns":
        raise Doubtful
    if given.unit == "us" and value.value in _INFINITE:
        raise Doubtful
    try:
        return value.cast(type_.storage)
    except pa.ArrowException:
        raise Doubtful from None


# -- arithmetic -------------------------------------------------------------------------------------------------------


def adds(column: Column) -> bool:
    """Whether sums of the column's own type are what the engine's would be."""
    kind, precision = column.type.kind, column.type.precision or 0
    # The engine's sum of decimals has one digit more; these are far from where that would end.
    return kind == "int" or column.type.name == "DOUBLE" or (kind == "decimal" and precision <= 18)


def added(old: pa.Scalar, sign: int, value: pa.Scalar, column: Column) -> pa.Scalar:
    """`column + value`, both of the column's type.

    :raises Doubtful: the sum does not fit, or the engine might round on its way.
    """
    type_ = column.type
    if not old.is_valid:
        return pa.scalar(None, type_.storage)
    a, b = old.as_py(), value.as_py()
    if type_.kind == "int":
        return pa.scalar(_int(a + sign * b, type_), type_.storage)
    if type_.kind == "decimal":
        return pa.scalar(_decimal(_EXACT.add(a, sign * b), type_), type_.storage)
    total = a + sign * b
    if not math.isfinite(total):
        raise Doubtful
    return pa.scalar(total, type_.storage)


def same(one: pa.Scalar, other: pa.Scalar) -> bool:
    """IS NOT DISTINCT FROM."""
    if not one.is_valid or not other.is_valid:
        return one.is_valid == other.is_valid
    if not pa.types.is_floating(one.type):
        return bool(one.equals(other))
    a, b = one.as_py(), other.as_py()
    return bool(a == b) or (a != a and b != b)
