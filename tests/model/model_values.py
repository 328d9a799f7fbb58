"""Column types and storage values to draw from, for every room that keeps values."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from flightkalam.model import types as t
from flightkalam.model.types import ColumnType

I16, I32, I64 = 2**15, 2**31, 2**63
SIMPLE: tuple[ColumnType, ...] = (
    t.BOOLEAN,
    t.SMALLINT,
    t.INT,
    t.BIGINT,
    t.REAL,
    t.DOUBLE,
    t.TEXT,
    t.BLOB,
    t.JSON,
    t.UUID,
    t.DATE,
    t.TIME,
    t.TIMESTAMP,
    t.TIMESTAMPTZ,
    t.INTERVAL,
    t.decimal(38, 10),
    t.decimal(18, 3),
    t.decimal(4, 0),
    t.decimal(38, 38),
)
NESTED: tuple[ColumnType, ...] = (
    t.embedding(3),
    t.list_of(t.BIGINT),
    t.list_of(t.list_of(t.TEXT)),
    t.struct_of([("a", t.INT), ('b "x"', t.TEXT)]),
    t.list_of(t.struct_of([("when", t.TIMESTAMPTZ), ("tags", t.list_of(t.TEXT))])),
    t.struct_of([("d", t.decimal(10, 2)), ("e", t.embedding(2))]),
)
TYPES = SIMPLE + NESTED
KEY_TYPES = tuple(c for c in SIMPLE if c.can_be_key)
BOUNDED_TYPES = tuple(c for c in SIMPLE if c.has_bounds)

# Texts that careless code cuts, pads or folds: NULs, prefixes of one another, longer than a bound, longer than a hash's edge,
# the last code points of each length in UTF-8, astral ones.
TEXTS = st.one_of(
    st.sampled_from(["", "\x00", "a", "a\x00", "a\x00b", "ab", "é", "e\u0301", "\U0010ffff" * 9, "z" * 31 + "\U0010ffff"]),
    st.sampled_from(["x" * 31, "x" * 32, "x" * 33, "x" * 200, "x" * 199 + "y", "\ud7ff" * 11, "\x7f" * 33, "\uffff" * 12]),
    st.text(max_size=6),
    st.text(alphabet="ab\x00\U0010ffff", max_size=40),
    st.builds(lambda head, n, tail: head + "m" * n + tail, st.text(max_size=2), st.integers(0, 300), st.text(max_size=2)),
)
BLOBS = st.one_of(
    st.sampled_from([b"", b"\x00", b"\x00\x00", b"a", b"a\x00", b"\xff" * 40, b"\xff" * 31 + b"\x00", b"a" * 32 + b"\x00"]),
    st.binary(max_size=6),
    st.binary(min_size=30, max_size=40),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324, 0.1, 16777217.0]), st.floats()
)
DATES = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))
STAMPS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
_INT_EDGES = {t.SMALLINT: I16, t.INT: I32, t.BIGINT: I64}


def values(type_: ColumnType) -> st.SearchStrategy[Any]:
    """Values of a type's storage form, without NULL."""
    kind = type_.kind
    if kind == "int":
        edge = _INT_EDGES[type_]
        return st.one_of(st.sampled_from([-edge, -1, 0, 1, edge - 1]), st.integers(-edge, edge - 1))
    if kind == "float":
        return st.floats(width=32) if type_ == t.REAL else FLOATS
    if kind == "decimal":
        return st.integers(-(10**type_.precision) + 1, 10**type_.precision - 1).map(  # type: ignore[operator]
            lambda i: decimal.Decimal(i).scaleb(-(type_.scale or 0), decimal.Context(prec=80))
        )
    if kind == "interval":
        parts = {"months": st.integers(-I32, I32 - 1), "days": st.integers(-I32, I32 - 1)}
        return st.fixed_dictionaries({**parts, "micros": st.integers(-(I64 // 1000), I64 // 1000)})
    if kind in ("list", "embedding", "struct"):
        return _nested(type_.storage)
    return _PLAIN[kind]


_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "text": TEXTS,
    "json": st.sampled_from(['{"a": 1}', "[]", "null", '"ü"']),
    "blob": BLOBS,
    "uuid": st.uuids().map(str) | st.just(str(uuid.UUID(int=0))),
    "date": DATES,
    "time": st.times(),
    "timestamp": STAMPS,
    "timestamptz": STAMPS.map(lambda d: d.replace(tzinfo=dt.UTC)),
}


def _nested(type_: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_fixed_size_list(type_):
        item = st.floats(width=32, allow_nan=False)
        return st.lists(item, min_size=type_.list_size, max_size=type_.list_size)
    if pa.types.is_list(type_):
        return st.lists(st.none() | _nested(type_.value_type), max_size=3)
    if pa.types.is_struct(type_):
        return st.fixed_dictionaries({f.name: st.none() | _nested(f.type) for f in type_})
    if pa.types.is_decimal(type_):
        return st.decimals(-1000, 1000, places=type_.scale, allow_nan=False)
    if pa.types.is_timestamp(type_):
        return STAMPS.map(lambda d: d.replace(tzinfo=dt.UTC))
    return TEXTS if pa.types.is_string(type_) else st.integers(-1000, 1000)


def nullable(type_: ColumnType) -> st.SearchStrategy[Any]:
    return st.none() | values(type_)


@st.composite
def arrays(draw: st.DrawFn, type_: ColumnType, min_size: int = 0, max_size: int = 12, nulls: bool = True) -> pa.Array:
    """A storage array, sometimes a slice of a larger one."""
    item = nullable(type_) if nulls else values(type_)
    some = draw(st.lists(item, min_size=min_size, max_size=max_size))
    before, after = draw(st.lists(item, max_size=3)), draw(st.lists(item, max_size=3))
    array = pa.array(before + some + after, type_.storage)
    return array.slice(len(before), len(some))
