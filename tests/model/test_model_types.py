"""Column types: their texts, and the way of values from the wire into storage and back, exactly or not at all."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_values import NESTED, SIMPLE, TYPES, arrays

from flightkalam.errors import InvalidValue, KalamError, SqlSyntaxError, Unsupported, ValueOutOfRange
from flightkalam.model import types as t
from flightkalam.model.types import (
    ColumnType,
    from_arrow,
    from_engine,
    interval_from_storage,
    parse_type,
    to_storage,
    widens,
)

MINUTE = 60_000_000


def stored(array: pa.Array | pa.ChunkedArray, type_: ColumnType) -> list[Any]:
    out = to_storage(array, type_, "c")
    assert out.type == type_.storage
    return out.to_pylist()  # type: ignore[no-any-return]


# -- texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_a_type_is_read_back_from_its_own_name(type_: ColumnType) -> None:
    again = parse_type(type_.name)
    assert (again.name, again.engine, again.wire, again.storage, again.kind) == (
        type_.name,
        type_.engine,
        type_.wire,
        type_.storage,
        type_.kind,
    )
    assert (again.precision, again.scale) == (type_.precision, type_.scale)


FIELD_NAMES = st.text(min_size=1, max_size=8).filter(lambda s: "\x00" not in s)


def _types() -> st.SearchStrategy[ColumnType]:
    leaves = st.one_of(
        st.sampled_from([c for c in SIMPLE if c.kind != "interval"]),
        st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: t.decimal(p, s))),
        st.integers(1, 65_536).map(t.embedding),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(t.list_of),
            st.lists(st.tuples(FIELD_NAMES, inner), min_size=1, max_size=3, unique_by=lambda f: f[0].lower()).map(t.struct_of),
        ),
        max_leaves=5,
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_types())
def test_any_type_is_read_back_from_its_own_name(type_: ColumnType) -> None:
    again = parse_type(type_.name)
    assert again == type_ and again.storage == type_.storage and again.engine == type_.engine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("int", "INT"),
        ("Integer", "INT"),
        ("int4", "INT"),
        ("double precision", "DOUBLE"),
        ("float", "REAL"),
        ("character varying", "TEXT"),
        ("numeric", "DECIMAL(18,3)"),
        ("numeric(5)", "DECIMAL(5,0)"),
        ("dec(5, 2)", "DECIMAL(5,2)"),
        ("timestamp with time zone", "TIMESTAMPTZ"),
        ("timestamp without time zone", "TIMESTAMP"),
        ("timestamp(6)", "TIMESTAMP"),
        ("text[]", "TEXT[]"),
        ("int[][]", "INT[][]"),
        ("float[4]", "EMBEDDING(4)"),
        ("struct(a int, B text)", 'STRUCT("a" INT, "B" TEXT)'),
        ("bytea", "BLOB"),
        ("jsonb", "JSON"),
        ("bigserial", "BIGINT"),
    ],
)
def test_other_spellings(text: str, name: str) -> None:
    assert parse_type(text).name == name


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("varchar(20)", Unsupported, "CHECK"),
        ("timestamp(3)", Unsupported, "microseconds"),
        ("hugeint", Unsupported, r"DECIMAL\(38,0\)"),
        ("tinyint", Unsupported, "SMALLINT"),
        ("geometry", Unsupported, "geometry"),
        ("int[3]", Unsupported, r"INT\[\]"),
        ("interval[]", Unsupported, "INTERVAL"),
        ("decimal(39,0)", InvalidValue, "1..38"),
        ("decimal(5,6)", InvalidValue, "scale"),
        ("embedding(0)", InvalidValue, "65536"),
        ("struct(a int, A text)", InvalidValue, "twice"),
        ("int int", SqlSyntaxError, "int"),
        ("int[", SqlSyntaxError, "number"),
        ("decimal(5,2,1)", SqlSyntaxError, "precision and scale"),
        ("", KalamError, "type"),
        ("int;", SqlSyntaxError, "not a type"),
    ],
)
def test_what_is_no_type_of_ours_is_refused_with_what_to_do(text: str, error: type[KalamError], says: str) -> None:
    with pytest.raises(error, match=says):
        parse_type(text)


@pytest.mark.parametrize(
    ("engine", "name"),
    [("HUGEINT", "DECIMAL(38,0)"), ("UBIGINT", "DECIMAL(20,0)"), ("UINTEGER", "BIGINT"), ("ENUM('a', 'b')", "TEXT")],
)
def test_what_the_engine_computes_gets_the_type_that_loses_nothing(engine: str, name: str) -> None:
    assert from_engine(engine).name == name
    assert from_engine(f"{engine}[]").name == f"{name}[]"


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_the_wire_type_of_a_column_comes_back_as_a_type_that_holds_it(type_: ColumnType) -> None:
    found = from_arrow(type_.wire, "c")
    assert found.storage == type_.storage


def test_an_arrow_type_that_nothing_holds_is_refused_by_column() -> None:
    with pytest.raises(Unsupported, match=r'"c".*map'):
        from_arrow(pa.map_(pa.int32(), pa.int32()), "c")
    with pytest.raises(Unsupported, match=r'"c"'):
        from_arrow(pa.decimal256(60, 2), "c")


# -- values: what may come in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_storage_values_pass_unchanged_also_sliced_and_in_chunks(type_: ColumnType) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(arrays(type_), arrays(type_))
    def check(one: pa.Array, two: pa.Array) -> None:
        assert to_storage(one, type_, "c").equals(one) or _has_nan(one)
        both = pa.chunked_array([one, two], type_.storage)
        assert str(stored(both, type_)) == str(one.to_pylist() + two.to_pylist())

    check()


def _has_nan(array: pa.Array) -> bool:
    return "nan" in str(array.to_pylist())


TEXT_FORMS = [pa.utf8(), pa.large_utf8(), pa.string_view()]
BLOB_FORMS = [pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("form", TEXT_FORMS, ids=str)
def test_texts_in_every_arrow_form(form: pa.DataType) -> None:
    texts = ["skipped", "", "é\x00", None, "x" * 5_000, "last"]
    array = pa.array(texts, form)
    assert stored(array.slice(1, 4), t.TEXT) == texts[1:5]
    assert stored(pa.chunked_array([array.slice(1, 2), array.slice(3, 2)]), t.TEXT) == texts[1:5]


@pytest.mark.parametrize("form", BLOB_FORMS, ids=str)
def test_blobs_in_every_arrow_form(form: pa.DataType) -> None:
    blobs = [b"skipped", b"", b"\x00\xff", None, b"x" * 5_000]
    assert stored(pa.array(blobs, form).slice(1), t.BLOB) == blobs[1:]
    assert stored(pa.array([b"ab", None], pa.binary(2)), t.BLOB) == [b"ab", None]


def test_dictionaries_are_decoded() -> None:
    encoded = pa.array(["a", None, "b", "a"]).dictionary_encode()
    assert stored(encoded.slice(1), t.TEXT) == [None, "b", "a"]
    other = pa.array(["c", "b"]).dictionary_encode()
    assert stored(pa.chunked_array([encoded, other]), t.TEXT) == ["a", None, "b", "a", "c", "b"]
    assert stored(pa.array([5, 5, None]).dictionary_encode(), t.INT) == [5, 5, None]


def test_a_column_of_nothing_but_null_fits_every_type() -> None:
    for type_ in TYPES:
        assert stored(pa.nulls(2), type_) == [None, None]
        assert stored(pa.nulls(0), type_) == []


UUIDS = [uuid.UUID("12345678-9abc-def0-1234-56789abcdef0"), None, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]
UUID_TEXTS = [None if u is None else str(u) for u in UUIDS]


def test_uuids_as_extension_as_bytes_and_as_text() -> None:
    raw = pa.array([None if u is None else u.bytes for u in UUIDS], pa.binary(16))
    for array in (raw, pa.ExtensionArray.from_storage(pa.uuid(), raw)):
        assert stored(array, t.UUID) == UUID_TEXTS
        assert stored(array.slice(1, 2), t.UUID) == UUID_TEXTS[1:3]
        assert stored(pa.chunked_array([array, array.slice(2)]), t.UUID) == UUID_TEXTS + UUID_TEXTS[2:]
    upper = pa.array([None if u is None else u.upper() for u in UUID_TEXTS])
    assert stored(upper, t.UUID) == UUID_TEXTS


@pytest.mark.parametrize("text", ["", "x", "12345678-9abc-def0-1234-56789abcdef", "{12345678-9abc-def0-1234-56789abcdef0}"])
def test_a_text_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(ValueOutOfRange, match="UUID"):
        stored(pa.array([UUID_TEXTS[0], text]), t.UUID)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_are_kept_exactly(unit: str) -> None:
    """T-34."""
    moment = dt.datetime(2024, 2, 29, 23, 59, 59)
    assert stored(pa.array([moment, None], pa.timestamp(unit)), t.TIMESTAMP) == [moment, None]
    utc = moment.replace(tzinfo=dt.UTC)
    assert stored(pa.array([moment], pa.timestamp(unit)), t.TIMESTAMPTZ) == [utc]
    assert stored(pa.array([utc], pa.timestamp(unit, "Asia/Kathmandu")), t.TIMESTAMPTZ) == [utc]


@pytest.mark.parametrize(
    ("array", "type_"),
    [
        (pa.array([1], pa.timestamp("ns")), t.TIMESTAMP),
        (pa.array([1_000, 1_001], pa.timestamp("ns")), t.TIMESTAMP),
        (pa.array([1], pa.timestamp("ns", "UTC")), t.TIMESTAMPTZ),
        (pa.array([1], pa.timestamp("ns")), t.TIMESTAMPTZ),
        (pa.array([1], pa.time64("ns")), t.TIME),
        (pa.array([1], pa.duration("ns")), t.INTERVAL),
        (pa.array([(0, 0, 1)], pa.month_day_nano_interval()), t.INTERVAL),
        (pa.array([2**62], pa.timestamp("s")), t.TIMESTAMP),
        (pa.array([2**62], pa.duration("us")), t.INTERVAL),
        (pa.array([-(2**63) + 1], pa.duration("us")), t.INTERVAL),
        (pa.array([86_400_001], pa.date64()), t.DATE),
        (pa.array([dt.datetime(2024, 1, 1, 5)]), t.DATE),
        (pa.array([2**15], pa.int64()), t.SMALLINT),
        (pa.array([-(2**31) - 1], pa.int64()), t.INT),
        (pa.array([2**63], pa.uint64()), t.BIGINT),
        (pa.array([1.5]), t.INT),
        (pa.array([float("nan")]), t.BIGINT),
        (pa.array([float("nan")]), t.decimal(18, 3)),
        (pa.array([1e300]), t.REAL),
        (pa.array([2**53 + 1]), t.DOUBLE),
        (pa.array([2**24 + 1]), t.REAL),
        (pa.array([2]), t.BOOLEAN),
        (pa.array([decimal.Decimal("0.0001")]), t.decimal(18, 3)),
        (pa.array([decimal.Decimal("123456")]), t.decimal(5, 0)),
        (pa.array([decimal.Decimal("1.5")]), t.BIGINT),
        (pa.array([10**6]), t.decimal(5, 0)),
        (pa.array(["twelve"]), t.INT),
        (pa.array([[1.0]]), t.embedding(2)),
        (pa.array([[2**40]]), t.list_of(t.INT)),
        (pa.array([{"a": 1, "b": 2}]), t.struct_of([("a", t.INT)])),
        (pa.array([[{"a": 1, "b": 2}]]), t.list_of(t.struct_of([("a", t.INT)]))),
    ],
    ids=lambda v: str(v.type if isinstance(v, pa.Array) else v).replace(" ", ""),
)
def test_what_would_lose_something_is_refused(array: pa.Array, type_: ColumnType) -> None:
    for form in (array, pa.chunked_array([array, array])):
        with pytest.raises(ValueOutOfRange, match=r'column "c"'):
            to_storage(form, type_, "c")


@pytest.mark.parametrize(
    ("array", "type_"),
    [
        (pa.array([b"ab"]), t.TEXT),
        (pa.array([1]), t.TEXT),
        (pa.array([1]), t.INTERVAL),
        (pa.array([1]), t.DATE),
        (pa.array([dt.datetime(2024, 1, 1)]), t.TIME),
        (pa.array([[1]]), t.INT),
        (pa.array([{"a": 1}]), t.list_of(t.INT)),
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused_by_type(array: pa.Array, type_: ColumnType) -> None:
    with pytest.raises(InvalidValue, match=r'column "c"') as refused:
        to_storage(array, type_, "c")
    assert refused.value.sqlstate == "42804"


@pytest.mark.parametrize(
    ("array", "type_", "expected"),
    [
        (pa.array([2**64 - 1], pa.uint64()), t.decimal(20, 0), decimal.Decimal(2**64 - 1)),
        (pa.array([3], pa.int8()), t.SMALLINT, 3),
        (pa.array([1.5], pa.float16()), t.REAL, 1.5),
        (pa.array([0.1], pa.float32()), t.DOUBLE, float(np.float32(0.1))),
        (pa.array([1]), t.BOOLEAN, True),
        (pa.array([decimal.Decimal("1.50")]), t.decimal(38, 10), decimal.Decimal("1.5000000000")),
        (pa.array([dt.date(2024, 2, 29)]), t.TIMESTAMP, dt.datetime(2024, 2, 29)),
        (pa.array([dt.datetime(2024, 2, 29)]), t.DATE, dt.date(2024, 2, 29)),
        (pa.array([86_400_000], pa.date64()), t.DATE, dt.date(1970, 1, 2)),
        (pa.array([1], pa.time32("s")), t.TIME, dt.time(0, 0, 1)),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float32())), t.embedding(2), [1.0, 2.0]),
        (pa.array([{"b": 2, "a": 1}]), t.struct_of([("a", t.INT), ("b", t.BIGINT)]), {"a": 1, "b": 2}),
    ],
    ids=str,
)
def test_what_fits_is_kept(array: pa.Array, type_: ColumnType, expected: Any) -> None:
    assert stored(array, type_) == [expected]


# -- intervals ------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrays(t.INTERVAL))
def test_intervals_go_to_the_wire_and_come_back(array: pa.Array) -> None:
    wire = interval_from_storage(array)
    wire.validate(full=True)
    assert wire.type == t.INTERVAL.wire
    assert stored(wire, t.INTERVAL) == array.to_pylist()
    if len(wire) > 1:
        assert stored(wire.slice(1), t.INTERVAL) == array.to_pylist()[1:]


def test_durations_are_intervals() -> None:
    array = pa.array([90, None, -1], pa.duration("s"))
    kept = {"months": 0, "days": 0}
    assert stored(array.slice(1), t.INTERVAL) == [None, {**kept, "micros": -1_000_000}]
    assert stored(array, t.INTERVAL)[0] == {**kept, "micros": 90_000_000}


# -- widening -------------------------------------------------------------------------------------------------------

WIDENING = {
    (t.SMALLINT, t.INT),
    (t.SMALLINT, t.BIGINT),
    (t.INT, t.BIGINT),
    (t.SMALLINT, t.REAL),
    (t.SMALLINT, t.DOUBLE),
    (t.INT, t.DOUBLE),
    (t.REAL, t.DOUBLE),
    (t.DATE, t.TIMESTAMP),
    (t.JSON, t.TEXT),
    (t.UUID, t.TEXT),
    (t.SMALLINT, t.decimal(18, 3)),
    (t.INT, t.decimal(18, 3)),
    (t.SMALLINT, t.decimal(38, 10)),
    (t.INT, t.decimal(38, 10)),
    (t.BIGINT, t.decimal(38, 10)),
    (t.decimal(4, 0), t.decimal(18, 3)),
    (t.decimal(4, 0), t.decimal(38, 10)),
    (t.decimal(18, 3), t.decimal(38, 10)),
}


@pytest.mark.parametrize("old", TYPES, ids=str)
def test_only_a_type_that_holds_every_value_is_wider(old: ColumnType) -> None:
    """T-31, T-35: the whole table of old and new."""
    assert {new for new in TYPES if widens(old, new)} == {old} | {new for o, new in WIDENING if o == old}


@pytest.mark.parametrize(("old", "new"), sorted(WIDENING, key=str), ids=str)
def test_a_widening_keeps_every_value(old: ColumnType, new: ColumnType) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(arrays(old))
    def check(array: pa.Array) -> None:
        wide = array.cast(new.storage, safe=True)
        if new.kind == "float":
            assert repr([None if v is None else float(v) for v in array.to_pylist()]) == repr(wide.to_pylist())
        elif old.kind == "date":
            assert wide.cast(old.storage).equals(array)
        else:
            assert wide.to_pylist() == array.to_pylist()

    check()


def test_nested_types_are_widened_by_nobody() -> None:
    assert [(a, b) for a in NESTED for b in TYPES if a != b and widens(a, b)] == []
