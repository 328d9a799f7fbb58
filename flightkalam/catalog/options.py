"""The WITH options of a table: one row of `OPTIONS` each (SEMANTICS §1).

A row knows which kinds of table the option means something for.  Anywhere else it is refused and the reason given: an
option that is accepted and then does nothing is worse than an error.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any

from flightkalam.catalog.names import fold
from flightkalam.catalog.text import quote_identifier, quote_list, quote_literal
from flightkalam.errors import InvalidValue, Unsupported, undefined_column
from flightkalam.model.schema import AccessLevel, Column, TableKind, TableOptions, TableSchema

OptionValue = str | int | float | Decimal | bool | None
DEFAULTS = TableOptions()
MAX_SECONDS = 100 * 366 * 86_400
_ALL_KINDS = frozenset(TableKind)
_STREAM = frozenset({TableKind.STREAM})
_SHARED = frozenset({TableKind.SHARED})
_STORED = frozenset({TableKind.USER, TableKind.SHARED})


@dataclass(frozen=True, slots=True)
class RowRetention:
    """`ROW_RETENTION='30d BY ts'`, read."""

    seconds: int
    column: str


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    :param kinds: the kinds of table it means something for.
    :param instead: said where it does not.
    :param read: the value a client gave -> the fields of `TableOptions` it sets.
    :param show: the value as SHOW CREATE TABLE writes it, or None where it is the default.
    :param fixed: why ALTER TABLE may not change it, or None where it may.
    """

    name: str
    kinds: frozenset[TableKind]
    instead: str
    read: Callable[[OptionValue, TableSchema], dict[str, Any]]
    show: Callable[[TableOptions], str | None]
    fixed: str | None = None


# ---------------------------------------------------------------------------------------------------------------
# Reading values


def _bad(name: str, value: OptionValue, allowed: str) -> InvalidValue:
    return InvalidValue(f"option {name}: {value!r} is not allowed; give {allowed}")


def _whole(name: str, value: OptionValue, low: int, high: int) -> int:
    allowed = f"a whole number from {low} to {high}"
    if isinstance(value, bool) or value is None:
        raise _bad(name, value, allowed)
    try:
        number = Decimal(str(value).strip())
    except ArithmeticError:
        raise _bad(name, value, allowed) from None
    if not number.is_finite() or number != number.to_integral_value() or not low <= number <= high:
        raise _bad(name, value, allowed)
    return int(number)


def _word(name: str, value: OptionValue, allowed: Iterable[str]) -> str:
    words = tuple(allowed)
    if isinstance(value, str):
        for word in words:
            if word.lower() == value.strip().lower():
                return word
    raise _bad(name, value, "one of " + ", ".join(quote_literal(w) for w in words))


_FLUSH_PART = re.compile(r"\s*(rows|interval)\s*:\s*(\d+)\s*", re.IGNORECASE)


def _flush_policy(value: OptionValue, _: TableSchema) -> dict[str, Any]:
    allowed = "'rows:N', 'interval:SECONDS' or both, as in 'rows:100000,interval:300'"
    found: dict[str, int] = {}
    for part in value.split(",") if isinstance(value, str) else [""]:
        match = _FLUSH_PART.fullmatch(part)
        if match is None or match.group(1).lower() in found or len(match.group(2)) > 18:
            raise _bad("FLUSH_POLICY", value, allowed)
        found[match.group(1).lower()] = int(match.group(2))
    for word, number in found.items():
        _whole(f"FLUSH_POLICY {word}", number, 1, 10**12 if word == "rows" else MAX_SECONDS)
    return {"flush_rows": found.get("rows"), "flush_interval_s": found.get("interval")}


_RETENTION = re.compile(r"\s*(\d{1,12})\s*([a-z]+)\s+by\s+(\S.*?)\s*", re.IGNORECASE | re.DOTALL)
_UNITS = {"s": ("second", 1), "m": ("minute", 60), "h": ("hour", 3600), "d": ("day", 86_400), "w": ("week", 604_800)}


def _unit(word: str) -> str | None:
    word = word.lower()
    for letter, (name, _) in _UNITS.items():
        if word in (letter, name, name + "s"):
            return letter
    return None


def row_retention(text: str) -> RowRetention:
    """Read the stored form of ROW_RETENTION."""
    number, unit, column = _retention_parts(text)
    return RowRetention(number * _UNITS[unit][1], column)


def _retention_parts(value: OptionValue) -> tuple[int, str, str]:
    match = _RETENTION.fullmatch(value) if isinstance(value, str) else None
    unit = _unit(match.group(2)) if match else None
    names = split_names(match.group(3)) if match else None
    if match is None or unit is None or names is None or len(names) != 1:
        raise _bad("ROW_RETENTION", value, "a time and a column, as in '30d BY ts' (units s, m, h, d, w)")
    number = _whole("ROW_RETENTION", int(match.group(1)), 1, MAX_SECONDS // _UNITS[unit][1])
    return number, unit, names[0]


def retention_text(number: int, unit: str, column: str) -> str:
    return f"{number}{unit} BY {quote_identifier(column)}"


def _row_retention(value: OptionValue, schema: TableSchema) -> dict[str, Any]:
    if isinstance(value, str) and not value.strip():
        return {"row_retention": None}
    number, unit, name = _retention_parts(value)
    column = _column("ROW_RETENTION", name, schema)
    if column.type.kind not in ("date", "timestamp", "timestamptz"):
        raise InvalidValue(
            f'option ROW_RETENTION: column "{column.name}" is {column.type}; name one of type DATE, TIMESTAMP or TIMESTAMPTZ'
        )
    return {"row_retention": retention_text(number, unit, column.name)}


_NAME_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^",\s](?:[^",]*[^",\s])?))\s*')


def split_names(text: str) -> list[str] | None:
    """The names of `a, b, "c,d"`, or None where the text is no such list."""
    names: list[str] = []
    at = 0
    while True:
        match = _NAME_ITEM.match(text, at)
        if match is None:
            return None
        names.append(match.group(2) if match.group(1) is None else match.group(1).replace('""', '"'))
        at = match.end()
        if at == len(text):
            return names
        if text[at] != ",":
            return None
        at += 1


def can_have_bloom_filter(column: Column) -> bool:
    """A filter tests equality of bytes: it needs one byte form per value (T-28, T-30); two values are not worth one."""
    return column.type.can_be_key and column.type.kind != "bool"


def _bloom_columns(value: OptionValue, schema: TableSchema) -> dict[str, Any]:
    if isinstance(value, str) and not value.strip():
        return {"bloom_filter_columns": ()}
    names = split_names(value) if isinstance(value, str) else None
    if names is None:
        raise _bad("BLOOM_FILTER_COLUMNS", value, "column names as in 'a,b', or '' for no filter at all")
    columns = [_column("BLOOM_FILTER_COLUMNS", n, schema) for n in names]
    for i, column in enumerate(columns):
        if column in columns[:i]:
            raise InvalidValue(f'option BLOOM_FILTER_COLUMNS names the column "{column.name}" twice')
        if not can_have_bloom_filter(column):
            raise InvalidValue(
                f'option BLOOM_FILTER_COLUMNS: column "{column.name}" is {column.type}, for which there is no filter'
            )
    return {"bloom_filter_columns": tuple(c.name for c in columns)}


def _column(option: str, name: str, schema: TableSchema) -> Column:
    found = schema.find(name)
    if found is None:
        error = undefined_column(name, "")
        raise type(error)(f'option {option}: column "{name}" does not exist', sqlstate=error.sqlstate)
    return found


def _fpp(value: OptionValue, _: TableSchema) -> dict[str, Any]:
    try:
        number = float(value) if value is not None and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0.0001 <= number <= 0.5:
        raise _bad("BLOOM_FILTER_FPP", value, "a number from 0.0001 to 0.5")
    return {"bloom_filter_fpp": number}


def _storage_id(value: OptionValue, _: TableSchema) -> dict[str, Any]:
    if not isinstance(value, str):
        raise _bad("STORAGE_ID", value, "the name of a storage")
    return {"storage_id": value.strip() or None}


# ---------------------------------------------------------------------------------------------------------------
# Showing values


def _show_flush(o: TableOptions) -> str | None:
    if (o.flush_rows, o.flush_interval_s) == (DEFAULTS.flush_rows, DEFAULTS.flush_interval_s):
        return None
    return quote_literal(flush_policy_text(o))


def flush_policy_text(o: TableOptions) -> str:
    parts = (("rows", o.flush_rows), ("interval", o.flush_interval_s))
    return ",".join(f"{word}:{number}" for word, number in parts if number is not None)


def _show_bloom(o: TableOptions) -> str | None:
    if o.bloom_filter_columns is None:
        return None
    return quote_literal(quote_list(o.bloom_filter_columns))


def _shown(name: str) -> Callable[[TableOptions], str | None]:
    """SQL text of the field `name` where it is not the default."""

    def show(o: TableOptions) -> str | None:
        value = getattr(o, name)
        if value == getattr(DEFAULTS, name):
            return None
        value = value.value if isinstance(value, Enum) else value
        return quote_literal(value) if isinstance(value, str) else str(value)

    return show


_NEVER_COLD = "the rows of a STREAM table are never written to files"
OPTIONS: tuple[Option, ...] = (
    Option("FLUSH_POLICY", _STORED, _NEVER_COLD, _flush_policy, _show_flush),
    Option(
        "TTL_SECONDS",
        _STREAM,
        "only rows of STREAM tables expire; use ROW_RETENTION='30d BY ts'",
        lambda v, _: {"ttl_seconds": _whole("TTL_SECONDS", v, 1, MAX_SECONDS)},
        _shown("ttl_seconds"),
    ),
    Option(
        "ACCESS_LEVEL",
        _SHARED,
        "every user of a USER or STREAM table has their own rows",
        lambda v, _: {"access_level": AccessLevel(_word("ACCESS_LEVEL", v, (a.value for a in AccessLevel)))},
        _shown("access_level"),
    ),
    Option(
        "DELETED_RETENTION_HOURS",
        _STORED,
        "a DELETE from a STREAM table is physical",
        lambda v, _: {"deleted_retention_hours": _whole("DELETED_RETENTION_HOURS", v, 0, MAX_SECONDS // 3600)},
        _shown("deleted_retention_hours"),
    ),
    Option(
        "ROW_RETENTION",
        _STORED,
        "the rows of a STREAM table expire by TTL_SECONDS",
        _row_retention,
        _shown("row_retention"),
    ),
    Option("BLOOM_FILTER_COLUMNS", _STORED, _NEVER_COLD, _bloom_columns, _show_bloom),
    Option("BLOOM_FILTER_FPP", _STORED, _NEVER_COLD, _fpp, _shown("bloom_filter_fpp")),
    Option(
        "COMPACTION",
        _STORED,
        _NEVER_COLD,
        lambda v, _: {"compaction": _word("COMPACTION", v, ("auto", "manual"))},
        _shown("compaction"),
    ),
    Option(
        "STORAGE_ID",
        _STORED,
        _NEVER_COLD,
        _storage_id,
        _shown("storage_id"),
        fixed="the files of a table stay in the storage it was created in",
    ),
)
_BY_NAME = {o.name: o for o in OPTIONS}
# These two say what the table is, not how it is kept; the table itself remembers them.
TYPE = "TYPE"
HIDDEN_KEY = "HIDDEN_KEY"
_KNOWN = (TYPE, HIDDEN_KEY, *_BY_NAME)


# ---------------------------------------------------------------------------------------------------------------
# The whole clause


def given(pairs: Iterable[tuple[str, OptionValue]]) -> dict[str, OptionValue]:
    """The clause by option name, each known and named once."""
    values: dict[str, OptionValue] = {}
    for written, value in pairs:
        name = written.strip().upper()
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else "known options: " + ", ".join(_KNOWN)
            raise InvalidValue(f'unknown table option "{written}"; {hint}')
        if name in values:
            raise InvalidValue(f"option {name} is given twice; give it once")
        values[name] = value
    return values


def kind_of(prefix: TableKind | None, pairs: Iterable[tuple[str, OptionValue]]) -> TableKind:
    """What sort of table `CREATE [prefix] TABLE … WITH (…)` makes; SHARED where neither says."""
    values = given(pairs)
    if TYPE not in values:
        return prefix or TableKind.SHARED
    kind = TableKind(_word(TYPE, values[TYPE], (k.value for k in TableKind)))
    if prefix is not None and prefix is not kind:
        raise InvalidValue(f"CREATE {prefix.value} TABLE disagrees with option TYPE='{kind.value}'; leave one of them out")
    return kind


def access_level_of(pairs: Iterable[tuple[str, OptionValue]]) -> AccessLevel:
    """The access level a new table would have: rights are settled before the table is."""
    value = given(pairs).get("ACCESS_LEVEL")
    if value is None:
        return DEFAULTS.access_level
    return AccessLevel(_word("ACCESS_LEVEL", value, (a.value for a in AccessLevel)))


def hidden_key_of(pairs: Iterable[tuple[str, OptionValue]]) -> bool:
    value = given(pairs).get(HIDDEN_KEY, False)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise _bad(HIDDEN_KEY, value, "true or false")
    return value


def options_for_new(kind: TableKind, schema: TableSchema, pairs: Iterable[tuple[str, OptionValue]]) -> TableOptions:
    """The options of a new table."""
    values = {n: v for n, v in given(pairs).items() if n in _BY_NAME}
    options = _applied(DEFAULTS, kind, schema, values)
    if kind is TableKind.STREAM and options.ttl_seconds is None:
        raise InvalidValue("a STREAM table needs option TTL_SECONDS, the seconds that a row lives")
    return options


def options_changed(
    old: TableOptions, kind: TableKind, schema: TableSchema, pairs: Iterable[tuple[str, OptionValue]]
) -> TableOptions:
    """The options after `SET OPTIONS (…)`; NULL sets an option back to its default."""
    values = given(pairs)
    for name in values:
        fixed = "it belongs to CREATE TABLE" if name not in _BY_NAME else _BY_NAME[name].fixed
        if fixed is not None:
            raise Unsupported(f"option {name} cannot be changed: {fixed}")
    options = _applied(old, kind, schema, values)
    if kind is TableKind.STREAM and options.ttl_seconds is None:
        raise InvalidValue("a STREAM table needs option TTL_SECONDS; it cannot be unset")
    return options


def _applied(old: TableOptions, kind: TableKind, schema: TableSchema, values: Mapping[str, OptionValue]) -> TableOptions:
    changes: dict[str, Any] = {}
    for name, value in values.items():
        option = _BY_NAME[name]
        if kind not in option.kinds:
            raise InvalidValue(f"option {name} is not for {kind.value} tables: {option.instead}")
        changes |= _default_fields(name) if value is None else option.read(value, schema)
    return replace(old, **changes)


def _default_fields(name: str) -> dict[str, Any]:
    fields = ("flush_rows", "flush_interval_s") if name == "FLUSH_POLICY" else (name.lower(),)
    return {f: getattr(DEFAULTS, f) for f in fields}


def shown(options: TableOptions) -> list[tuple[str, str]]:
    """(name, SQL text) of each option that is not at its default, in the order of `OPTIONS`."""
    pairs = ((o.name, o.show(options)) for o in OPTIONS)
    return [(name, text) for name, text in pairs if text is not None]


# ---------------------------------------------------------------------------------------------------------------
# Columns that options name


def options_naming(options: TableOptions, column: str) -> list[str]:
    """The options whose value names `column`."""
    names: list[str] = []
    if options.row_retention is not None and fold(row_retention(options.row_retention).column) == fold(column):
        names.append("ROW_RETENTION")
    if any(fold(c) == fold(column) for c in options.bloom_filter_columns or ()):
        names.append("BLOOM_FILTER_COLUMNS")
    return names


def with_column_renamed(options: TableOptions, old: str, new: str) -> TableOptions:
    """The options after a column got another name."""
    changes: dict[str, Any] = {}
    naming = options_naming(options, old)
    if "ROW_RETENTION" in naming:
        number, unit, _ = _retention_parts(options.row_retention)
        changes["row_retention"] = retention_text(number, unit, new)
    if "BLOOM_FILTER_COLUMNS" in naming:
        columns = options.bloom_filter_columns or ()
        changes["bloom_filter_columns"] = tuple(new if fold(c) == fold(old) else c for c in columns)
    return replace(options, **changes)
