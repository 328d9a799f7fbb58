"""Arrow parameters as SQL literals.

A bound value is spliced into the text in the place of its `?`, so a prepared statement prunes like one with literals
and the statement is parsed once for all its values.  Beside its text a literal carries the node that the engine's
parser would have made of it, for `predicates`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flightkalam.errors import InvalidValue, Unsupported
from flightkalam.query.tree import Node
from flightkalam.sql.text import quote_literal

_DAYS_TO_2000 = 10_957
_DAYS_OF_400_YEARS = 146_097


_WHOLE = re.compile(r"-?[0-9]{1,38}")


@dataclass(frozen=True, slots=True)
class Literal:
    """One value: its SQL text, which is one operand wherever it stands, and its node in the engine's tree."""

    sql: str
    node: Node | None = None

    @property
    def kind(self) -> str:
        """What a result's types can depend on: for whole numbers and texts their kind, for the rest the very value."""
        if _WHOLE.fullmatch(self.sql):
            size = abs(int(self.sql))
            return "int" if size < 2**31 else "bigint" if size < 2**63 else self.sql
        return "text" if self.sql[:1] == "'" and self.sql[-1:] == "'" else self.sql


NULL = Literal("NULL", {"class": "CONSTANT", "literal": {"kind": "NULL_LITERAL"}})


def literals(row: pa.RecordBatch | pa.Table, index: int = 0) -> list[Literal]:
    """The values of one row, in order.

    :raises Unsupported: a type that cannot be written as a literal.
    """
    return [literal(row.column(i)[index]) for i in range(row.num_columns)]


def rows_of(parameters: pa.Table) -> list[list[Literal]]:
    return [literals(parameters, i) for i in range(parameters.num_rows)]


def literal(scalar: pa.Scalar) -> Literal:
    """One Arrow value, exactly."""
    if not scalar.is_valid:
        return _null(scalar.type)
    type_ = scalar.type
    if isinstance(type_, pa.BaseExtensionType):
        return _extension(scalar)
    if pa.types.is_dictionary(type_):
        return literal(scalar.value)
    if pa.types.is_union(type_):
        return literal(scalar.value)
    if pa.types.is_run_end_encoded(type_):
        return literal(pa.scalar(scalar.as_py(), type_.value_type))
    for test, make in _MAKERS:
        if test(type_):
            return make(scalar)
    raise Unsupported(f"a parameter of Arrow type {type_} is not supported; cast it to a plain type")


def _null(type_: pa.DataType) -> Literal:
    """NULL of the parameter's type, so that `SELECT ?` announces the same type whether the value is NULL or not."""
    name = _type_name(type_)
    return NULL if name is None else Literal(f"CAST(NULL AS {name})", NULL.node)


def _integer(scalar: pa.Scalar) -> Literal:
    return integer(int(scalar.as_py()))


def integer(value: int) -> Literal:
    # Parentheses: `-?` with -5 must not become a comment.
    return Literal(str(value) if value >= 0 else f"({value})", _constant("INTEGER", str(value)))


def _boolean(scalar: pa.Scalar) -> Literal:
    text = "true" if scalar.as_py() else "false"
    return Literal(text, _constant("BOOLEAN", text))


def _float(scalar: pa.Scalar) -> Literal:
    value = float(scalar.as_py())
    name = "DOUBLE" if pa.types.is_float64(scalar.type) else "FLOAT"
    if not math.isfinite(value):
        return Literal(f"CAST('{value}' AS {name})")
    return _cast(repr(value), name)


def _decimal(scalar: pa.Scalar) -> Literal:
    type_ = scalar.type
    value: decimal.Decimal = scalar.as_py()
    precision, scale = type_.precision, type_.scale
    if scale < 0:
        precision, scale = precision - scale, 0
    if precision > 38:
        digits = len(value.as_tuple().digits)
        if max(digits, scale) > 38:
            raise InvalidValue(f"a parameter of type {type_} has more than 38 digits; no column can hold it")
        precision = 38
    return _cast(format(value, "f"), f"DECIMAL({precision},{scale})")


def _text(scalar: pa.Scalar) -> Literal:
    return text(str(scalar.as_py()))


def text(value: str) -> Literal:
    node = _constant("STRING", value)
    if "\0" not in value:
        return Literal(quote_literal(value), node)
    # The engine's text ends at a NUL character, so it is put together by chr(0).
    parts = " || chr(0) || ".join(quote_literal(p) for p in value.split("\0"))
    return Literal(f"({parts})")


def _blob(scalar: pa.Scalar) -> Literal:
    value = bytes(scalar.as_py())
    escaped = "".join(f"\\x{b:02X}" for b in value)
    return _cast(escaped, "BLOB")


# The engine's whole numbers for the ends of time.
_FOREVER = {(1 << 31) - 1: "infinity", 1 - (1 << 31): "-infinity"}
_FOREVER_MICROS = {(1 << 63) - 1: "infinity", 1 - (1 << 63): "-infinity"}


def _date(scalar: pa.Scalar) -> Literal:
    days = int(scalar.cast(pa.date32()).value)
    return _cast(_FOREVER.get(days) or " ".join(_day(days)).strip(), "DATE")


def _day(days: int) -> tuple[str, str]:
    """Days since 1970 as a date and its era, in the Gregorian calendar without end; Python's own ends in 9999.

    400 years always have 146,097 days, so any day has a twin in the years 2000 to 2399.
    """
    eras, day = divmod(days - _DAYS_TO_2000, _DAYS_OF_400_YEARS)
    twin = dt.date(2000, 1, 1) + dt.timedelta(days=day)
    year = twin.year + 400 * eras
    return f"{year if year > 0 else 1 - year:04}-{twin:%m-%d}", "" if year > 0 else "(BC)"


def _time(scalar: pa.Scalar) -> Literal:
    nanos = pa.types.is_time64(scalar.type) and scalar.type.unit == "ns"
    ticks = int(scalar.cast(pa.time64("ns")).value)
    whole, fraction = divmod(ticks, 1_000_000_000)
    clock = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
    if nanos and fraction % 1000:
        return _cast(f"{clock}.{fraction:09}", "TIME_NS")
    return _cast(f"{clock}.{fraction // 1000:06}", "TIME")


_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _timestamp(scalar: pa.Scalar) -> Literal:
    type_ = scalar.type
    if type_.unit == "us" and scalar.value in _FOREVER_MICROS:
        return _cast(_FOREVER_MICROS[scalar.value], "TIMESTAMPTZ" if type_.tz else "TIMESTAMP")
    seconds, rest = divmod(int(scalar.value), _PER_SECOND[type_.unit])
    nanos = rest * (1_000_000_000 // _PER_SECOND[type_.unit])
    if abs(seconds) > (1 << 63) // 1_000_000:
        raise InvalidValue("a timestamp parameter lies beyond what 64 bits of microseconds hold")
    days, second = divmod(seconds, 86_400)
    whole = " ".join((*_day(days), f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}")).replace("  ", " ")
    if nanos % 1000:
        if type_.tz:
            raise InvalidValue("a timestamp parameter with a time zone has nanoseconds; microseconds are the finest kept")
        return _cast(f"{whole}.{nanos:09}", "TIMESTAMP_NS")
    value = f"{whole}.{nanos // 1000:06}"
    return _cast(f"{value}+00", "TIMESTAMPTZ") if type_.tz else _cast(value, "TIMESTAMP")


def _duration(scalar: pa.Scalar) -> Literal:
    nanos = int(scalar.value) * (1_000_000_000 // _PER_SECOND[scalar.type.unit])
    if nanos % 1000:
        raise InvalidValue("an interval parameter has nanoseconds; microseconds are the finest kept")
    return Literal(f"to_microseconds({nanos // 1000})")


def _interval(scalar: pa.Scalar) -> Literal:
    months, days, nanos = scalar.as_py()
    if nanos % 1000:
        raise InvalidValue("an interval parameter has nanoseconds; microseconds are the finest kept")
    return Literal(f"(to_months({months}) + to_days({days}) + to_microseconds({nanos // 1000}))")


def _list(scalar: pa.Scalar) -> Literal:
    items = ", ".join(literal(v).sql for v in scalar.values)
    return _typed(f"[{items}]", scalar.type)


def _map(scalar: pa.Scalar) -> Literal:
    entries = scalar.values
    keys = ", ".join(literal(k).sql for k in entries.field(0))
    values = ", ".join(literal(v).sql for v in entries.field(1))
    return _typed(f"map([{keys}], [{values}])", scalar.type)


def _struct(scalar: pa.Scalar) -> Literal:
    if not scalar.type.num_fields:
        raise Unsupported("a parameter of an empty struct type is not supported")
    # By position, for a scalar cannot tell two fields of one name apart.
    fields = ", ".join(f"{quote_literal(f.name)}: {literal(scalar[i]).sql}" for i, f in enumerate(scalar.type))
    return Literal(f"{{{fields}}}")


def _typed(sql: str, type_: pa.DataType) -> Literal:
    name = _type_name(type_)
    return Literal(sql if name is None else f"CAST({sql} AS {name})")


def _extension(scalar: pa.Scalar) -> Literal:
    if scalar.type.extension_name == "arrow.uuid":
        return _cast(str(scalar.as_py()), "UUID")
    return literal(scalar.value)


def _cast(value: str, name: str) -> Literal:
    node = {
        "class": "CAST",
        "child": _constant("STRING", value),
        "type_expr": _type_node(name),
    }
    return Literal(f"CAST({quote_literal(value)} AS {name})", node)


def _type_node(name: str) -> Node:
    base, _, arguments = name.partition("(")
    children = [_constant("INTEGER", a) for a in arguments.rstrip(")").split(",") if a]
    return {"class": "TYPE", "type_name": base, "children": children}


def _constant(kind: str, value: str) -> Node:
    return {"class": "CONSTANT", "literal": {"kind": kind, "text": value}}


_SIMPLE_NAMES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_int8, "TINYINT"),
    (pa.types.is_int16, "SMALLINT"),
    (pa.types.is_int32, "INTEGER"),
    (pa.types.is_int64, "BIGINT"),
    (pa.types.is_uint8, "UTINYINT"),
    (pa.types.is_uint16, "USMALLINT"),
    (pa.types.is_uint32, "UINTEGER"),
    (pa.types.is_uint64, "UBIGINT"),
    (pa.types.is_float64, "DOUBLE"),
    (pa.types.is_floating, "FLOAT"),
    (pa.types.is_string, "VARCHAR"),
    (pa.types.is_large_string, "VARCHAR"),
    (pa.types.is_string_view, "VARCHAR"),
    (pa.types.is_binary, "BLOB"),
    (pa.types.is_large_binary, "BLOB"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_duration, "INTERVAL"),
    (pa.types.is_interval, "INTERVAL"),
)


def _type_name(type_: pa.DataType) -> str | None:
    for test, name in _SIMPLE_NAMES:
        if test(type_):
            return name
    if pa.types.is_timestamp(type_):
        return "TIMESTAMPTZ" if type_.tz else "TIMESTAMP"
    if pa.types.is_decimal(type_) and type_.precision <= 38 and 0 <= type_.scale <= type_.precision:
        return f"DECIMAL({type_.precision},{type_.scale})"
    if _is_list(type_):
        item = _type_name(type_.value_type)
        size = type_.list_size if pa.types.is_fixed_size_list(type_) else ""
        return None if item is None else f"{item}[{size}]"
    return None


def _is_list(type_: pa.DataType) -> bool:
    is_ = pa.types
    return is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_) or is_.is_list_view(type_)


_MAKERS: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Any], Literal]]] = (
    (pa.types.is_boolean, _boolean),
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_string, _text),
    (pa.types.is_large_string, _text),
    (pa.types.is_string_view, _text),
    (pa.types.is_binary, _blob),
    (pa.types.is_large_binary, _blob),
    (pa.types.is_binary_view, _blob),
    (pa.types.is_fixed_size_binary, _blob),
    (pa.types.is_date, _date),
    (pa.types.is_time, _time),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_duration, _duration),
    (pa.types.is_interval, _interval),
    (_is_list, _list),
    (pa.types.is_map, _map),
    (pa.types.is_struct, _struct),
)
