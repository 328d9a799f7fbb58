"""Constants of a statement in a column's comparable form, exactly or not at all.

A constant keeps the meaning the engine gives it beside a column of a type: `1`, `1.0` and `'1'` are one against
BIGINT (T-30), `'2024-01-01'` is a day against DATE and midnight against TIMESTAMP.  Whatever the engine would round,
guess or parse in a way that is not certain here is no constant: `of_node` or `against` answers None, and nothing is
pruned.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flightkalam.model.predicate import Comparable
from flightkalam.model.types import ColumnType
from flightkalam.query.tree import Node

_DAY_US = 86_400_000_000
_EXACT_INT = 1 << 53  # beyond it DOUBLE has no room for every integer
_INT64 = 1 << 63
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_CONTEXT = decimal.Context(prec=80)

_INT_TEXT = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER_TEXT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DECIMAL_TEXT = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?")
_UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_DATE_TEXT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_CLOCK = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
_TIME_TEXT = re.compile(_CLOCK)
_STAMP_TEXT = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[ T]{_CLOCK})?(Z|[+-][0-9]{{2}}(?::?[0-9]{{2}})?)?")
_BLOB_TEXT = re.compile(r"(?:[ !#-&(-\[\]-~]|\\x[0-9a-fA-F]{2})*")

_TYPE_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "integer", "int", "bigint", "int1", "int2", "int4", "int8"), "int"),
    **dict.fromkeys(("double", "float8"), "double"),
    **dict.fromkeys(("decimal", "numeric"), "decimal"),
    **dict.fromkeys(("boolean", "bool"), "bool"),
    **dict.fromkeys(("varchar", "text", "string"), "varchar"),
    **dict.fromkeys(("blob", "bytea"), "blob"),
    "date": "date",
    "time": "time",
    **dict.fromkeys(("timestamp", "datetime", "timestamp without time zone"), "timestamp"),
    **dict.fromkeys(("timestamptz", "timestamp with time zone"), "timestamptz"),
    "uuid": "uuid",
}
_INT_BITS = {"tinyint": 7, "int1": 7, "smallint": 15, "int2": 15, "integer": 31, "int": 31, "int4": 31}


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the text.

    :param kind: null, bool, int, decimal, double, string (untyped, takes the other side's type), varchar, blob, uuid,
        date (days), time, timestamp, timestamptz (microseconds).
    """

    kind: str
    value: Any = None


NULL = Constant("null")


def of_node(node: Node, parameters: Mapping[str, Node]) -> Constant | None:
    """The constant that an expression is; None when it is not one, or not one that is certain.

    :param parameters: the nodes of bound parameters by identifier.
    """
    kind = node.get("class")
    if kind == "CONSTANT":
        return _plain(node.get("literal") or {})
    if kind == "PARAMETER":
        bound = parameters.get(str(node.get("identifier")))
        return None if bound is None else of_node(bound, {})
    if kind == "CAST" and not node.get("try_cast"):
        inner = of_node(node["child"], parameters) if node.get("child") else None
        return None if inner is None else _cast(inner, node.get("type_expr") or {})
    if kind == "FUNCTION" and node.get("function_name") in ("-", "+"):
        return _signed(node, parameters)
    return None


def _signed(node: Node, parameters: Mapping[str, Node]) -> Constant | None:
    arguments = node.get("arguments") or []
    if len(arguments) != 1:
        return None
    inner = of_node(arguments[0]["expression"], parameters)
    if inner is None or inner.kind not in ("int", "decimal", "double"):
        return None
    return Constant(inner.kind, -inner.value) if node["function_name"] == "-" else inner


def _plain(literal: Mapping[str, Any]) -> Constant | None:
    kind, text = literal.get("kind"), str(literal.get("text", ""))
    if kind == "NULL_LITERAL":
        return NULL
    if kind == "STRING":
        return Constant("string", text)
    if kind == "BOOLEAN":
        return Constant("bool", text.lower() == "true")
    if kind == "INTEGER":
        return _integer(text)
    return _numeric(text) if kind == "NUMERIC" else None


def _integer(text: str) -> Constant | None:
    digits = text.replace("_", "")
    if not _INT_TEXT.fullmatch(digits) and not re.fullmatch(r"[+-]?[0-9]{1,38}", digits):
        return None
    return Constant("int", int(digits))


def _numeric(text: str) -> Constant | None:
    plain = text.replace("_", "")
    if not _NUMBER_TEXT.fullmatch(plain):
        return None
    if "e" in plain.lower():
        return _double(plain)
    value = Decimal(plain)
    # A literal with more digits than DECIMAL has is a DOUBLE to the engine.
    return Constant("decimal", value) if len(value.as_tuple().digits) <= 36 else None


def _double(text: str) -> Constant | None:
    value = float(text)
    return Constant("double", value) if math.isfinite(value) else None


def _cast(inner: Constant, type_expr: Node) -> Constant | None:
    if type_expr.get("class") != "TYPE":
        return None
    name = str(type_expr.get("type_name", "")).lower()
    kind = _TYPE_KINDS.get(name)
    children = type_expr.get("children") or []
    if kind is None or (children and kind != "decimal"):
        return None
    if inner.kind == "null":
        return NULL
    if kind == "int":
        value = _as_int(inner)
        limit = 1 << _INT_BITS.get(name, 63)
        return Constant("int", value) if value is not None and -limit <= value < limit else None
    if kind == "decimal":
        return _as_decimal(inner, children)
    return _as_kind(inner, kind)


def _as_int(inner: Constant) -> int | None:
    if inner.kind == "int":
        return int(inner.value)
    if inner.kind == "string" and _INT_TEXT.fullmatch(inner.value):
        return int(inner.value)
    return None


def _as_decimal(inner: Constant, children: list[Node]) -> Constant | None:
    arguments = [_plain(c.get("literal") or {}) for c in children]
    if any(a is None or a.kind != "int" for a in arguments):
        return None
    numbers = [int(a.value) for a in arguments if a is not None] or [18, 3]
    precision, scale = numbers[0], numbers[1] if len(numbers) > 1 else 0
    if inner.kind not in ("string", "int", "decimal") or not _DECIMAL_TEXT.fullmatch(format(inner.value)):
        return None
    value = Decimal(inner.value)
    scaled = value.scaleb(scale, _CONTEXT)
    fits = scaled == scaled.to_integral_value(context=_CONTEXT) and abs(scaled) < 10**precision
    return Constant("decimal", value) if fits else None


def _as_kind(inner: Constant, kind: str) -> Constant | None:
    if kind == "double" and inner.kind in ("string", "int", "decimal", "double"):
        return _as_double(inner)
    if kind == "bool" and inner.kind == "bool":
        return inner
    if inner.kind != "string":
        return inner if inner.kind == kind else None
    text: str = inner.value
    if kind == "varchar":
        return Constant("varchar", text)
    if kind == "bool":
        return Constant("bool", text.lower() == "true") if text.lower() in ("true", "false") else None
    value = _text_as(text, kind, utc=False)
    return None if value is None else Constant(kind, value)


def _as_double(inner: Constant) -> Constant | None:
    if inner.kind == "double":
        return inner
    if inner.kind == "int":
        return Constant("double", float(inner.value)) if abs(inner.value) <= _EXACT_INT else None
    if inner.kind == "decimal":
        value = _decimal_as_float(inner.value)
        return None if value is None else Constant("double", value)
    return _double(inner.value) if _NUMBER_TEXT.fullmatch(inner.value) else None


def _text_as(text: str, kind: str, *, utc: bool) -> Comparable | None:
    """A text in the comparable form of a kind, if the engine can only read it so."""
    if kind == "uuid":
        return text.lower().encode() if _UUID_TEXT.fullmatch(text) else None
    if kind == "blob":
        return _blob(text)
    if kind == "date":
        found = _DATE_TEXT.fullmatch(text)
        return _days(text) if found else None
    if kind == "time":
        found = _TIME_TEXT.fullmatch(text)
        return _micros(*found.groups()) if found else None
    return _stamp(text, kind, utc=utc) if kind in ("timestamp", "timestamptz") else None


def _blob(text: str) -> bytes | None:
    if not _BLOB_TEXT.fullmatch(text):
        return None
    parts = re.split(r"\\x([0-9a-fA-F]{2})", text)
    return b"".join(bytes.fromhex(p) if i % 2 else p.encode() for i, p in enumerate(parts))


def _days(text: str) -> int | None:
    try:
        return dt.date.fromisoformat(text).toordinal() - _EPOCH_DAY
    except ValueError:
        return None


def _micros(hours: str, minutes: str, seconds: str, fraction: str | None) -> int | None:
    h, m, s = int(hours), int(minutes), int(seconds)
    if h > 23 or m > 59 or s > 59:
        return None
    return ((h * 60 + m) * 60 + s) * 1_000_000 + int((fraction or "0").ljust(6, "0"))


def _stamp(text: str, kind: str, *, utc: bool) -> int | None:
    found = _STAMP_TEXT.fullmatch(text)
    if found is None:
        return None
    day, *clock, zone = found.groups()
    days = _days(day)
    micros = _micros(*clock) if clock[0] is not None else 0
    if days is None or micros is None:
        return None
    if zone is None:
        # A text without a zone is a time of the session's zone against TIMESTAMPTZ (T-34).
        return days * _DAY_US + micros if kind == "timestamp" or utc else None
    if kind == "timestamp" or clock[0] is None:
        return None
    return days * _DAY_US + micros - _offset(zone)


def _offset(zone: str) -> int:
    if zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    return (-1 if zone[0] == "-" else 1) * (hours * 60 + minutes) * 60_000_000


# ---------------------------------------------------------------------------------------------------------------
# Against a column


@dataclass(frozen=True, slots=True)
class Exact:
    """A constant against a column: its place among the column's values.

    :param value: the comparable value, or the largest one below when `between`.
    :param between: the constant lies strictly between `value` and the next value; no value equals it.
    """

    value: Comparable
    between: bool = False


class Beyond:
    """The constant lies below or above every value of the column's type."""

    def __init__(self, above: bool) -> None:
        self.above = above


def against(constant: Constant, type_: ColumnType, *, utc: bool) -> Exact | Beyond | None:
    """The place of a constant among the values of a column; None when it is not certain.

    :param utc: the session's time zone is UTC.
    """
    kind = type_.kind
    if kind == "int":
        return _against_int(constant)
    if kind == "decimal":
        return _against_decimal(constant, type_)
    if kind == "float":
        return _against_float(constant, double=type_.precision == 53)
    if kind == "text":
        return Exact(constant.value.encode()) if constant.kind in ("string", "varchar") else None
    if kind == "bool":
        return _against_bool(constant)
    if kind in ("date", "time", "timestamp", "timestamptz"):
        return _against_time(constant, kind, utc=utc)
    if kind in ("uuid", "blob"):
        if constant.kind == kind:
            return Exact(constant.value)
        value = _text_as(constant.value, kind, utc=utc) if constant.kind == "string" else None
        return None if value is None else Exact(value)
    return None


def _against_bool(constant: Constant) -> Exact | None:
    if constant.kind == "bool":
        return Exact(int(constant.value))
    if constant.kind == "string" and constant.value in ("true", "false"):
        return Exact(int(constant.value == "true"))
    return None


def _scale(value: Decimal) -> int:
    return max(0, -int(value.as_tuple().exponent))


def _place(value: Decimal) -> Exact:
    floor = value.to_integral_value(rounding=decimal.ROUND_FLOOR, context=_CONTEXT)
    return Exact(int(floor), between=floor != value)


def _against_int(constant: Constant) -> Exact | Beyond | None:
    if constant.kind == "string":
        value = _as_int(constant)
        return None if value is None else Exact(value)
    if constant.kind == "double":
        # BIGINT meets DOUBLE as DOUBLE: below 2^53 that keeps every integer apart.
        if abs(constant.value) >= _EXACT_INT:
            return None
        return _place(Decimal(constant.value))
    if constant.kind not in ("int", "decimal") or _scale(Decimal(constant.value)) > 18:
        return None
    place = _place(Decimal(constant.value))
    if not -_INT64 <= int(place.value) < _INT64:
        return Beyond(above=place.value > 0)  # type: ignore[operator]
    return place


def _against_decimal(constant: Constant, type_: ColumnType) -> Exact | None:
    precision, scale = type_.precision or 0, type_.scale or 0
    if constant.kind == "string":
        if not _DECIMAL_TEXT.fullmatch(constant.value):
            return None
        value = Decimal(constant.value)
        if _scale(value) > scale:  # the engine would round it
            return None
    elif constant.kind in ("int", "decimal"):
        value = Decimal(constant.value)
    else:
        return None
    whole = max(precision - scale, len(str(abs(int(value)))))
    if whole + max(scale, _scale(value)) > 38:
        return None
    return _place(value.scaleb(scale, _CONTEXT))


def _against_float(constant: Constant, *, double: bool) -> Exact | None:
    if constant.kind == "int":
        value = float(constant.value) if abs(constant.value) <= _EXACT_INT else None
    elif constant.kind == "double":
        # REAL meets DOUBLE as DOUBLE, so the column is widened and the value stays.
        return Exact(float(constant.value))
    elif constant.kind == "decimal":
        value = _decimal_as_float(constant.value)
    elif constant.kind == "string":
        value = float(constant.value) if _NUMBER_TEXT.fullmatch(constant.value) else None
    else:
        return None
    if value is None or not math.isfinite(value):
        return None
    if not double and not _is_float32(value):
        return None
    return Exact(value)


def _decimal_as_float(value: Decimal) -> float | None:
    """The engine divides by a power of ten, which is exact for few digits only."""
    return float(value) if len(value.as_tuple().digits) <= 15 and _scale(value) <= 22 else None


def _is_float32(value: float) -> bool:
    try:
        return struct.unpack("f", struct.pack("f", value))[0] == value
    except OverflowError:
        return False


def _against_time(constant: Constant, kind: str, *, utc: bool) -> Exact | None:
    if constant.kind == kind:
        return Exact(constant.value)
    if constant.kind == "string":
        value = _text_as(constant.value, kind, utc=utc)
        return None if value is None else Exact(value)
    pair = (kind, constant.kind)
    if pair == ("timestamp", "date") or (pair == ("timestamptz", "date") and utc):
        return Exact(constant.value * _DAY_US)
    if pair == ("timestamptz", "timestamp") and utc:
        return Exact(constant.value)
    if pair == ("date", "timestamp"):
        days, rest = divmod(constant.value, _DAY_US)
        return Exact(days, between=rest != 0)
    return None
