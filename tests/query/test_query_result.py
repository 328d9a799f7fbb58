"""The announced schema, and batches that keep it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pytest
from query_house import House

from flightkalam.errors import InternalError, Unsupported, ValueOutOfRange
from flightkalam.query.compute import CancelToken, Setting
from flightkalam.query.result import MAX_BATCH_BYTES, conform, encoded_bytes, split, to_type, wire_type

TYPES: list[tuple[str, str, pa.DataType]] = [
    ("true", "BOOLEAN", pa.bool_()),
    ("1::TINYINT", "TINYINT", pa.int8()),
    ("1", "INTEGER", pa.int32()),
    ("1::UBIGINT", "UBIGINT", pa.uint64()),
    ("sum(1)", "HUGEINT", pa.decimal128(38, 0)),
    ("1.5", "DECIMAL(2,1)", pa.decimal128(2, 1)),
    ("1::FLOAT", "FLOAT", pa.float32()),
    ("'a'", "VARCHAR", pa.utf8()),
    ("'{}'::JSON", "JSON", pa.utf8()),
    ("uuid()", "UUID", pa.utf8()),
    ("'\\xAB'::BLOB", "BLOB", pa.binary()),
    ("DATE '2024-01-01'", "DATE", pa.date32()),
    ("TIME '10:00:00'", "TIME", pa.time64("us")),
    ("'10:00:00'::TIME_NS", "TIME_NS", pa.time64("ns")),
    ("TIMESTAMP '2024-01-01'", "TIMESTAMP", pa.timestamp("us")),
    ("'2024-01-01'::TIMESTAMP_S", "TIMESTAMP_S", pa.timestamp("s")),
    ("'2024-01-01'::TIMESTAMP_MS", "TIMESTAMP_MS", pa.timestamp("ms")),
    ("'2024-01-01'::TIMESTAMP_NS", "TIMESTAMP_NS", pa.timestamp("ns")),
    ("now()", "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC")),
    ("INTERVAL 1 DAY", "INTERVAL", pa.month_day_nano_interval()),
    ("NULL", '"NULL"', pa.int32()),
    ("'a'::ENUM('a', 'b''(')", "ENUM('a', 'b''(')", pa.utf8()),
    ("[1]", "INTEGER[]", pa.list_(pa.int32())),
    ("[['a'::ENUM('a')], NULL]", "ENUM('a')[][]", pa.list_(pa.list_(pa.utf8()))),
    ("[1, 2]::FLOAT[2]", "FLOAT[2]", pa.list_(pa.float32(), 2)),
    ("[now(), NULL]", "TIMESTAMP WITH TIME ZONE[]", pa.list_(pa.timestamp("us", "UTC"))),
    (
        "{'a b': 1, 'c': [now()], 'd': NULL}",
        'STRUCT("a b" INTEGER, c TIMESTAMP WITH TIME ZONE[], d INTEGER)',
        pa.struct([("a b", pa.int32()), ("c", pa.list_(pa.timestamp("us", "UTC"))), ("d", pa.int32())]),
    ),
    ("map {'a': now()}", "MAP(VARCHAR, TIMESTAMP WITH TIME ZONE)", pa.map_(pa.utf8(), pa.timestamp("us", "UTC"))),
    ("[INTERVAL 1 DAY]", "INTERVAL[]", pa.list_(pa.month_day_nano_interval())),
]


@pytest.mark.parametrize(("expression", "name", "wire"), TYPES, ids=[t[1] for t in TYPES])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_every_type_is_announced_and_sent_alike(house: House, expression: str, name: str, wire: pa.DataType, zone: str) -> None:
    assert wire_type(name) == wire
    table = house.table(f"SELECT {expression} AS x, 1 AS one FROM range(3)", setting=Setting(zone))
    assert table.schema.field("x").type == wire
    table.validate(full=True)


def test_the_session_zone_changes_texts_and_not_instants(house: House) -> None:
    """T-34."""
    text = "SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00' AS t, '2024-07-01 12:00:00'::TIMESTAMPTZ AS n, t::VARCHAR AS s"
    utc, zurich = (house.rows(text, setting=Setting(z))[0] for z in ("UTC", "Europe/Zurich"))
    assert utc[0] == zurich[0] == dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    assert zurich[1] == dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC)
    assert (utc[2], zurich[2]) == ("2024-07-01 12:00:00+00", "2024-07-01 14:00:00+02")
    assert house.rows(text)[0] == utc


@pytest.mark.parametrize(
    "expression", ["'101'::BIT", "5::UHUGEINT", "123::BIGNUM", "union_value(a := 1)", "'10:00:00+01'::TIMETZ"]
)
def test_what_arrow_cannot_carry_must_be_cast(house: House, expression: str) -> None:
    with pytest.raises(Unsupported, match="cast it to"):
        house.table(f"SELECT {expression} AS x")
    assert house.table(f"SELECT ({expression})::VARCHAR AS x").num_rows == 1


def test_an_integer_of_more_than_38_digits_is_an_error(house: House) -> None:
    largest = 10**38 - 1
    assert house.rows(f"SELECT {largest}::HUGEINT, -{largest}::HUGEINT") == [(Decimal(largest), Decimal(-largest))]
    for value in (f"{largest}::HUGEINT + 1", f"-{largest}::HUGEINT - 1", "170141183460469231731687303715884105727::HUGEINT"):
        with pytest.raises(ValueOutOfRange, match="38 digits"):
            house.rows(f"SELECT NULL::HUGEINT AS x UNION ALL SELECT {value}")


def test_columns_may_share_a_name(house: House) -> None:
    table = house.table("SELECT 1 AS x, 'a' AS x")
    assert table.schema.names == ["x", "x"]
    assert table.schema.types == [pa.int32(), pa.utf8()]


def test_a_result_without_rows_has_its_schema(house: House) -> None:
    table = house.table("SELECT 1 AS a, now() AS b WHERE false")
    assert table.num_rows == 0
    assert table.schema == pa.schema([("a", pa.int32()), ("b", pa.timestamp("us", "UTC"))])


# ---------------------------------------------------------------------------------------------------------------
# Cutting


def batches(*sizes: int) -> pa.RecordBatch:
    return pa.record_batch({"i": pa.array(range(len(sizes))), "s": ["x" * n for n in sizes]})


@pytest.mark.parametrize(
    "batch",
    [
        batches(*[10] * 5000),
        batches(*range(500)),
        batches(0, 0, 50_000, 0, 0),
        batches(50_000, 50_000, 1),
        batches(),
        pa.record_batch({"e": pa.array([[0.5] * 300] * 700, pa.list_(pa.float32(), 300))}),
        pa.record_batch({"l": [[i] * (i % 40) for i in range(3000)], "n": [None] * 3000, "b": [True] * 3000}),
    ],
)
def test_no_slice_is_larger_than_it_may_be_and_no_row_is_lost(batch: pa.RecordBatch) -> None:
    parts = list(split(batch, 20_000))
    for part in parts:
        assert encoded_bytes(part) <= 20_000 or part.num_rows == 1
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_batch(part)
        assert len(sink.getvalue()) <= 20_000 + 1_000 or part.num_rows == 1
    assert pa.Table.from_batches(parts, batch.schema).to_pylist() == batch.to_pylist()
    assert len(parts) <= 3 * (batch.nbytes // 20_000 + 2)


def test_a_small_batch_is_not_touched() -> None:
    batch = batches(1, 2, 3)
    assert next(iter(conform([batch], batch.schema))) is batch


def test_wide_rows_leave_the_service_in_small_batches(house: House) -> None:
    planned = house.plan("SELECT i, repeat('x', 10000) AS s FROM range(2000) t(i)")
    schema = pa.schema([("i", pa.int64()), ("s", pa.utf8())])
    stream = house.executor.rows(planned, schema, Setting(), CancelToken())
    seen = 0
    for batch in stream:
        assert encoded_bytes(batch) <= MAX_BATCH_BYTES
        seen += batch.num_rows
    assert seen == 2000


def test_empty_batches_are_left_out() -> None:
    def stream() -> Iterator[pa.RecordBatch]:
        yield batches()
        yield batches(1)

    assert [b.num_rows for b in conform(stream(), batches(1).schema)] == [1]


def test_slices_and_nulls_are_converted_in_place() -> None:
    rome = pa.timestamp("us", "Europe/Rome")
    utc = pa.timestamp("us", "UTC")
    values = [[1, None], None, [], [5]]
    for source, target in (
        (pa.list_(rome), pa.list_(utc)),
        (pa.struct([("a", rome)]), pa.struct([("a", utc)])),
        (pa.map_(pa.utf8(), rome), pa.map_(pa.utf8(), utc)),
    ):
        plain: list[object] = (
            [None if v is None else {"a": v[0] if v else None} for v in values]
            if pa.types.is_struct(source)
            else [None if v is None else [(str(i), x) for i, x in enumerate(v)] for v in values]
            if pa.types.is_map(source)
            else list(values)
        )
        array = pa.array(plain, source)
        for part in (array, array.slice(1), array.slice(1, 2), array.slice(4)):
            made = to_type(part, target, "x")
            made.validate(full=True)
            assert made.type == target
            assert made.to_pylist() == part.cast(target).to_pylist() if not pa.types.is_map(source) else True
            assert len(made) == len(part)
            assert made.null_count == part.null_count


def test_a_broken_promise_is_a_bug_of_ours() -> None:
    with pytest.raises(InternalError):
        list(conform([pa.record_batch({"a": ["x"]})], pa.schema([("a", pa.int32())])))
    with pytest.raises(InternalError):
        list(conform([pa.record_batch({"a": [1]})], pa.schema([])))
