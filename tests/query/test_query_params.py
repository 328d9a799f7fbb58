"""Arrow parameters are the literals they look like, for every type, exactly."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest
from query_house import House

from flightkalam.errors import InvalidValue, Unsupported
from flightkalam.query.params import literal, literals, rows_of

UTC = dt.UTC
VALUES: list[tuple[pa.DataType, list[object]]] = [
    (pa.int8(), [-128, 127]),
    (pa.int16(), [-32768]),
    (pa.int32(), [-(2**31), 0, 5]),
    (pa.int64(), [-(2**63), 2**63 - 1]),
    (pa.uint8(), [255]),
    (pa.uint64(), [2**64 - 1]),
    (pa.float64(), [0.1, -0.0, 1e308, 5e-324, 1 / 3, float("inf"), float("-inf"), float("nan")]),
    (pa.float32(), [0.5, 16777216.0]),
    (pa.float16(), [0.5]),
    (pa.bool_(), [True, False]),
    (pa.utf8(), ["", "it's", "é\n--;", "a\0b\0", "\0", "?", "$1", "\\", "'"]),
    (pa.large_utf8(), ["x"]),
    (pa.string_view(), ["x"]),
    (pa.binary(), [b"", b"\x00\xff'\\x41", bytes(range(256))]),
    (pa.large_binary(), [b"x"]),
    (pa.binary(2), [b"ab"]),
    (pa.decimal128(38, 10), [Decimal("-1.0000000001"), Decimal("9999999999999999999999999999.9999999999")]),
    (pa.decimal128(5, 0), [Decimal("7")]),
    (pa.decimal256(40, 2), [Decimal("1.25")]),
    (pa.decimal128(4, -2), [Decimal("1200")]),
    (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (pa.date64(), [dt.date(2024, 2, 29)]),
    (pa.time32("s"), [dt.time(1, 2, 3)]),
    (pa.time64("us"), [dt.time(23, 59, 59, 999_999), dt.time(0)]),
    (pa.timestamp("s"), [dt.datetime(1969, 12, 31, 23, 59, 59)]),
    (pa.timestamp("us"), [dt.datetime(1, 1, 1, 0, 0, 0, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)]),
    (pa.timestamp("us", "Europe/Zurich"), [dt.datetime(2024, 7, 1, 12, tzinfo=UTC)]),
    (pa.list_(pa.int32()), [[1, None, 3], []]),
    (pa.list_(pa.utf8()), [["it's", None]]),
    (pa.list_(pa.float32(), 2), [[0.5, 1.5]]),
    (pa.struct([("a b", pa.int32()), ("c", pa.list_(pa.utf8()))]), [{"a b": 1, "c": ["x"]}]),
    (pa.map_(pa.utf8(), pa.int32()), [[("a", 1), ("b", None)]]),
    (pa.month_day_nano_interval(), [pa.MonthDayNano([1, -2, 3000])]),
]


@pytest.mark.parametrize(("type_", "values"), VALUES, ids=lambda v: str(v) if isinstance(v, pa.DataType) else "")
def test_a_value_comes_back_as_it_went(house: House, type_: pa.DataType, values: list[object]) -> None:
    for value in values:
        ((back,),) = house.rows("SELECT ?", pa.scalar(value, type_))
        assert repr(back) == repr(value) or back == value
        assert house.rows("SELECT x IS NOT DISTINCT FROM ? FROM (SELECT ? AS x)", *[pa.scalar(value, type_)] * 2) == [(True,)]


@pytest.mark.parametrize(("type_", "values"), VALUES, ids=lambda v: str(v) if isinstance(v, pa.DataType) else "")
def test_null_of_every_type(house: House, type_: pa.DataType, values: list[object]) -> None:
    assert house.rows("SELECT ?", pa.scalar(None, type_)) == [(None,)]


def test_uuid_and_dictionary(house: House) -> None:
    value = uuid.UUID(int=5)
    extension = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value.bytes], pa.binary(16)))
    assert house.rows("SELECT ?, typeof(?)", extension[0], extension[0]) == [(str(value), "UUID")]
    assert house.rows("SELECT ?", pa.array(["a"]).dictionary_encode()[0]) == [("a",)]


def test_durations_are_intervals(house: House) -> None:
    assert house.rows("SELECT TIMESTAMP '2024-01-01' + ?", pa.scalar(dt.timedelta(days=1), pa.duration("us"))) == [
        (dt.datetime(2024, 1, 2),)
    ]


@pytest.mark.parametrize(
    "scalar",
    [
        pa.scalar(1, pa.timestamp("ns", "UTC")),
        pa.scalar(1, pa.duration("ns")),
        pa.scalar(pa.MonthDayNano([0, 0, 1])),
        pa.scalar(Decimal(10) ** 50, pa.decimal256(60, 0)),
        pa.scalar(2**62, pa.timestamp("s")),
    ],
)
def test_what_would_lose_something_is_refused(scalar: pa.Scalar) -> None:
    with pytest.raises(InvalidValue):
        literal(scalar)


def test_nanoseconds_without_a_zone_are_kept(house: House) -> None:
    ((text,),) = house.rows("SELECT ?::VARCHAR", pa.scalar(1_500_000_001, pa.timestamp("ns")))
    assert text == "1970-01-01 00:00:01.500000001"


def test_an_empty_struct_cannot_be_written() -> None:
    with pytest.raises(Unsupported):
        literal(pa.scalar({}, pa.struct([])))


def test_rows_become_lists_of_literals() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert [[v.sql for v in row] for row in rows_of(table)] == [["1", "'x'"], ["2", "CAST(NULL AS VARCHAR)"]]
    assert [v.sql for v in literals(table.to_batches()[0], 1)] == ["2", "CAST(NULL AS VARCHAR)"]
