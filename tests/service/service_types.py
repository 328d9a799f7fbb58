"""Every column type of the service: how it is declared, how it arrives in Arrow, and values that are hard on it."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

I16, I32, I64 = 1 << 15, 1 << 31, 1 << 63
# The engine's own ends of time; one step further it has ±infinity, and then nothing.
MIN_DATE, MAX_DATE = -I32 + 2, I32 - 2
MIN_TIMESTAMP, MAX_TIMESTAMP = -9223372022400000000, I64 - 2
# An Arrow interval counts nanoseconds in 64 bits, of which whole microseconds are kept.
MAX_MICROS = I64 // 1000


@dataclass(frozen=True)
class Kind:
    """:param arrow: what arrives and what is answered.
    :param values: as `pa.array` takes them; None is added by `column`.
    :param edges: values that every test shall meet."""

    name: str
    sql: str
    arrow: pa.DataType
    values: st.SearchStrategy[Any]
    edges: tuple[Any, ...] = ()

    @property
    def column(self) -> st.SearchStrategy[Any]:
        return st.one_of(st.none(), st.sampled_from(self.edges), self.values) if self.edges else self.values | st.none()


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    # By text: arithmetic would round to the 28 digits of Python's default context.
    return st.integers(-most, most).map(lambda n: Decimal(f"{n}E-{scale}"))


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


FLOATS = st.floats(width=64)
REALS = st.floats(width=32)
TEXTS = st.text(max_size=20)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
INTERVALS = st.builds(
    lambda m, d, us: pa.MonthDayNano([m, d, us * 1000]),
    st.integers(-I32, I32 - 1),
    st.integers(-I32, I32 - 1),
    st.integers(-MAX_MICROS + 1, MAX_MICROS - 1),
)
EDGE_TEXTS = ("", "\0", "a\0b", " ", "'", '"', "é", "e\u0301", "🦆", "NULL", "\n", "x" * 3000, "\U0010ffff")
EDGE_FLOATS = (0.0, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308, 0.1)
EDGE_REALS = (0.0, -0.0, float("nan"), float("inf"), -float("inf"), _float32(1e-45), _float32(3.4028234e38), _float32(0.1))

KINDS = (
    Kind("bool", "BOOLEAN", pa.bool_(), st.booleans()),
    Kind("i16", "SMALLINT", pa.int16(), st.integers(-I16, I16 - 1), (-I16, I16 - 1, 0)),
    Kind("i32", "INT", pa.int32(), st.integers(-I32, I32 - 1), (-I32, I32 - 1, 0)),
    Kind("i64", "BIGINT", pa.int64(), st.integers(-I64, I64 - 1), (-I64, I64 - 1, 0)),
    Kind("f32", "REAL", pa.float32(), REALS, EDGE_REALS),
    Kind("f64", "DOUBLE", pa.float64(), FLOATS, EDGE_FLOATS),
    Kind("d1", "DECIMAL(1,0)", pa.decimal128(1, 0), _decimals(1, 0)),
    Kind("d9", "DECIMAL(9,2)", pa.decimal128(9, 2), _decimals(9, 2), (Decimal("9999999.99"),)),
    Kind("d38", "DECIMAL(38,10)", pa.decimal128(38, 10), _decimals(38, 10), (Decimal(f"{10**38 - 1}E-10"),)),
    Kind("d380", "DECIMAL(38,0)", pa.decimal128(38, 0), _decimals(38, 0), (Decimal(-(10**38) + 1),)),
    Kind("d3838", "DECIMAL(38,38)", pa.decimal128(38, 38), _decimals(38, 38)),
    Kind("text", "TEXT", pa.utf8(), TEXTS, EDGE_TEXTS),
    Kind("blob", "BLOB", pa.binary(), st.binary(max_size=20), (b"", b"\0", b"\xff\0\xff", b"\\x00", bytes(range(256)))),
    Kind("json", "JSON", pa.utf8(), JSONS, ("{}", "null", '{"a":  1}', '{"b":1,"a":2,"b":3}', "12345678901234567890.10")),
    Kind(
        "uuid",
        "UUID",
        pa.utf8(),
        st.uuids().map(str),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", "0" * 8 + "-0000" * 3 + "-" + "0" * 12),
    ),
    Kind("date", "DATE", pa.date32(), st.integers(MIN_DATE, MAX_DATE), (MIN_DATE, MAX_DATE, 0, -1, -719162)),
    Kind("time", "TIME", pa.time64("us"), st.integers(0, 86_399_999_999), (0, 86_399_999_999)),
    Kind("ts", "TIMESTAMP", pa.timestamp("us"), st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP), (MIN_TIMESTAMP, MAX_TIMESTAMP, -1)),
    Kind(
        "tstz",
        "TIMESTAMPTZ",
        pa.timestamp("us", "UTC"),
        st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP),
        (MIN_TIMESTAMP, MAX_TIMESTAMP, 0),
    ),
    Kind(
        "iv", "INTERVAL", pa.month_day_nano_interval(), INTERVALS, (pa.MonthDayNano([0, 0, 0]), pa.MonthDayNano([-1, 1, -1000]))
    ),
    Kind(
        "emb", "EMBEDDING(3)", pa.list_(pa.float32(), 3), st.lists(REALS, min_size=3, max_size=3), ([0.0, -0.0, float("nan")],)
    ),
    Kind("li", "INT[]", pa.list_(pa.int32()), st.lists(st.integers(-I32, I32 - 1) | st.none(), max_size=4), ([], [None])),
    Kind("lt", "TEXT[]", pa.list_(pa.utf8()), st.lists(TEXTS | st.none(), max_size=3), ([], [""], [None, "a"])),
    Kind("lf", "DOUBLE[]", pa.list_(pa.float64()), st.lists(FLOATS, max_size=3), ([-0.0],)),
    Kind(
        "ll",
        "BIGINT[][]",
        pa.list_(pa.list_(pa.int64())),
        st.lists(st.lists(st.integers(-I64, I64 - 1), max_size=2) | st.none(), max_size=3),
        ([[]],),
    ),
    Kind("ld", "DECIMAL(12,3)[]", pa.list_(pa.decimal128(12, 3)), st.lists(_decimals(12, 3), max_size=3)),
    Kind(
        "lz",
        "TIMESTAMPTZ[]",
        pa.list_(pa.timestamp("us", "UTC")),
        st.lists(st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP), max_size=2),
    ),
    Kind("lb", "BLOB[]", pa.list_(pa.binary()), st.lists(st.binary(max_size=4), max_size=3)),
    Kind(
        "st",
        "STRUCT(a INT, b TEXT, c STRUCT(d DOUBLE, e DATE))",
        pa.struct([("a", pa.int32()), ("b", pa.utf8()), ("c", pa.struct([("d", pa.float64()), ("e", pa.date32())]))]),
        st.fixed_dictionaries(
            {
                "a": st.none() | st.integers(-I32, I32 - 1),
                "b": st.none() | TEXTS,
                "c": st.none() | st.fixed_dictionaries({"d": FLOATS, "e": st.none() | st.integers(-700_000, 2_000_000)}),
            }
        ),
        ({"a": None, "b": None, "c": None}, {"a": 1, "b": "", "c": {"d": -0.0, "e": None}}),
    ),
    Kind(
        "ls",
        "STRUCT(k TEXT, v INT[])[]",
        pa.list_(pa.struct([("k", pa.utf8()), ("v", pa.list_(pa.int32()))])),
        st.lists(
            st.fixed_dictionaries({"k": TEXTS, "v": st.none() | st.lists(st.integers(0, 9), max_size=2)}) | st.none(),
            max_size=2,
        ),
    ),
)


def array(kind: Kind, values: list[Any]) -> pa.Array:
    return _array(kind.arrow, values)


def _array(type_: pa.DataType, values: list[Any]) -> pa.Array:
    """`pa.array` with times as the whole numbers that Arrow keeps: Python's own end in the year 9999."""
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        whole = pa.int32() if pa.types.is_date32(type_) else pa.int64()
        return pa.array(values, whole).view(type_)
    if pa.types.is_list(type_):
        inner = _array(type_.value_type, [v for item in values for v in item or ()])
        offsets = [0]
        for item in values:
            offsets.append(offsets[-1] + len(item or ()))
        mask = pa.array([v is None for v in values], pa.bool_())
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner, type=type_, mask=mask)
    if pa.types.is_struct(type_):
        children = [_array(f.type, [None if v is None else v[f.name] for v in values]) for f in type_]
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=pa.array([v is None for v in values], pa.bool_()))
    return pa.array(values, type_)


def plain(array_: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values that are equal when, and only when, they are the same: NaN is NaN, and -0.0 is not 0.0."""
    if isinstance(array_, pa.ChunkedArray):
        return [v for chunk in array_.chunks for v in plain(chunk)]
    type_ = array_.type
    if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
        return [None if item is None else plain(item) for item in _items(array_)]
    if pa.types.is_struct(type_):
        columns = [plain(array_.field(i)) for i in range(type_.num_fields)]
        rows = list(zip(*columns, strict=True))
        return [row if valid else None for row, valid in zip(rows, array_.is_valid().to_pylist(), strict=True)]
    if pa.types.is_floating(type_):
        return [None if v is None else v.hex() for v in array_.to_pylist()]
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        return array_.view(pa.int32() if pa.types.is_date32(type_) else pa.int64()).to_pylist()
    return array_.to_pylist()


def _items(array_: pa.Array) -> list[pa.Array | None]:
    return [scalar.values if scalar.is_valid else None for scalar in array_]


def ddl(table: str, kinds: tuple[Kind, ...] = KINDS, options: str = "") -> str:
    columns = ", ".join(f"{k.name} {k.sql}" for k in kinds)
    return f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, {columns}) {options}"


def data(values: dict[str, list[Any]], kinds: tuple[Kind, ...] = KINDS) -> pa.Table:
    n = len(values[kinds[0].name])
    arrays = [pa.array(range(n), pa.int64()), *(array(k, values[k.name]) for k in kinds)]
    return pa.table(arrays, names=["id", *(k.name for k in kinds)])


def tables(kinds: tuple[Kind, ...] = KINDS, rows: int = 6) -> st.SearchStrategy[pa.Table]:
    columns = {k.name: st.lists(k.column, min_size=rows, max_size=rows) for k in kinds}
    return st.fixed_dictionaries(columns).map(lambda values: data(values, kinds))


def edges(kinds: tuple[Kind, ...] = KINDS) -> pa.Table:
    """A table in which each type has all its edge values, and NULL."""
    most = max(len(k.edges) for k in kinds) + 1
    return data({k.name: [*k.edges, *[None] * (most - len(k.edges))] for k in kinds}, kinds)


Same = Callable[[pa.Table, pa.Table], None]


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    assert found.column_names == expected.column_names
    for name in expected.column_names:
        assert found.schema.field(name).type == expected.schema.field(name).type, name
        assert plain(found.column(name)) == plain(expected.column(name)), name


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
