"""Bounds: whatever the column holds and whatever is asked, a batch with a row that satisfies it is never excluded.

The other side of each comparison is evaluated here, row by row, in the engine's order: NaN above every number, the two zeros
equal, texts by their bytes, NULL satisfying nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_values import BOUNDED_TYPES, TYPES, arrays, nullable

from flightkalam.cold.bounds import TEXT_BYTES, Bounds, bounds_of, column_bounds, from_json, may_match, to_json
from flightkalam.model import predicate as p
from flightkalam.model import types as t
from flightkalam.model.predicate import Comparable, Predicate, comparable
from flightkalam.model.types import ColumnType

LAW = settings(max_examples=60, deadline=None, derandomize=True)
C, OTHER = 7, 8  # column ids
Value = Comparable | None


def chunked(array: pa.Array) -> pa.ChunkedArray:
    half = len(array) // 2
    return pa.chunked_array([array.slice(0, half), array.slice(half)], array.type)


def bounds(array: pa.Array, type_: ColumnType) -> Bounds:
    return bounds_of(chunked(array), type_)


def asked(batches: list[pa.Array], type_: ColumnType, predicate: Predicate) -> list[bool]:
    """`may_match` over batches of one column."""
    rows = np.array([len(b) for b in batches], np.int64)
    stacked = column_bounds([bounds(b, type_) for b in batches], rows)
    return [bool(v) for v in may_match(predicate, {C: stacked}, len(batches))]


# -- the other side: one row at a time ------------------------------------------------------------------------------


def order(value: Any, type_: ColumnType) -> Any:
    """A Python value whose comparisons are the engine's."""
    if type_.kind == "float":
        return (1, 0.0) if math.isnan(value) else (0, float(value))
    if type_.kind in ("text", "uuid"):
        return value.encode() if isinstance(value, str) else value
    return value


_OPS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def holds(predicate: Predicate, value: Any, type_: ColumnType) -> bool:
    """Whether the predicate is TRUE for a row of the column in comparable form (None: NULL, `NAN`: NaN)."""
    match predicate:
        case p.Always():
            return True
        case p.Never():
            return False
        case p.All(parts):
            return all(holds(x, value, type_) for x in parts)
        case p.Any_(parts):
            return any(holds(x, value, type_) for x in parts)
        case p.IsNull():
            return value is None
        case p.IsNotNull():
            return value is not None
    if value is None:
        return False
    match predicate:
        case p.Compare(_, op, wanted):
            return _OPS[op](order(value, type_), order(wanted, type_))
        case p.OneOf(_, wanted_ones):
            return any(order(value, type_) == order(w, type_) for w in wanted_ones)
        case p.StartsWith(_, prefix):
            return isinstance(value, bytes) and value.startswith(prefix)
    raise AssertionError(predicate)


def row_values(array: pa.Array, type_: ColumnType) -> list[Any]:
    out: list[Any] = []
    for scalar in array:
        value = comparable(scalar, type_)
        out.append(math.nan if value is None and scalar.is_valid else value)
    return out


@st.composite
def cases(draw: st.DrawFn, type_: ColumnType) -> tuple[list[pa.Array], Predicate]:
    """Batches of a column, and a predicate whose values are often those of the column or near them."""
    batches = draw(st.lists(arrays(type_, max_size=5), min_size=1, max_size=4))
    there = [v for b in batches for v in row_values(b, type_) if v is not None and v == v]
    drawn = draw(st.lists(nullable(type_), max_size=4))
    there += [v for v in row_values(pa.array(drawn, type_.storage), type_) if v is not None and v == v]
    assume(there)
    value = st.sampled_from(there).flatmap(lambda v: st.just(v) | _near(v))
    ops = st.sampled_from(list(_OPS))
    leaves: list[st.SearchStrategy[Predicate]] = [
        st.builds(p.Compare, st.just(C), ops, value),
        st.builds(p.OneOf, st.just(C), st.lists(value, max_size=3).map(tuple)),
        st.sampled_from([p.IsNull(C), p.IsNotNull(C), p.TRUE, p.FALSE]),
    ]
    if type_.kind in ("text", "uuid"):
        leaves.append(st.builds(p.StartsWith, st.just(C), value.flatmap(_prefix)))
    tree = st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(st.lists(inner, max_size=3).map(p.all_of), st.lists(inner, max_size=3).map(p.any_of)),
        max_leaves=5,
    )
    return batches, draw(tree)


def _near(value: Comparable) -> st.SearchStrategy[Comparable]:
    if isinstance(value, bytes):
        cut = st.integers(0, len(value)).map(lambda n: value[:n])
        more = st.sampled_from([b"\x00", b"\x00\x00", b"a", b"\xff", b"z" * 40]).map(lambda tail: value + tail)
        return cut | more | st.just(value[:-1] + b"\x00" if value else b"\x00")
    if isinstance(value, float):
        return st.sampled_from([math.nextafter(value, math.inf), math.nextafter(value, -math.inf), -value, 0.0, -0.0]).filter(
            lambda v: v == v
        )
    return st.sampled_from([value - 1, value + 1, -value, 0])


def _prefix(value: Comparable) -> st.SearchStrategy[bytes]:
    assert isinstance(value, bytes)
    return st.integers(0, len(value)).map(lambda n: value[:n])


@pytest.mark.parametrize("type_", BOUNDED_TYPES, ids=str)
def test_a_batch_with_a_matching_row_is_never_excluded(type_: ColumnType) -> None:
    """T-27, T-28, T-29, T-37, T-39."""

    @LAW
    @given(cases(type_))
    def check(case: tuple[list[pa.Array], Predicate]) -> None:
        batches, predicate = case
        kept = asked(batches, type_, predicate)
        for batch, may in zip(batches, kept, strict=True):
            matching = [v for v in row_values(batch, type_) if holds(predicate, v, type_)]
            assert may or not matching, f"excluded, though {matching[0]!r} satisfies {predicate}"

    check()


@pytest.mark.parametrize("type_", BOUNDED_TYPES, ids=str)
def test_every_value_lies_within_its_bounds(type_: ColumnType) -> None:
    @LAW
    @given(arrays(type_, max_size=8))
    def check(array: pa.Array) -> None:
        b = bounds(array, type_)
        values = [v for v in row_values(array, type_) if v is not None]
        assert b.nulls == array.null_count
        assert b.nan == any(v != v for v in values)
        for v in (v for v in values if v == v):
            assert b.low is not None and b.low <= v
            assert b.high is None or b.high >= v

    check()


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_bounds_are_the_same_after_json(type_: ColumnType) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(arrays(type_))
    def check(array: pa.Array) -> None:
        b = bounds(array, type_)
        again = from_json(json.loads(json.dumps(to_json(b))))
        assert again == b
        assert [type(v) for v in (again.low, again.high)] == [type(v) for v in (b.low, b.high)]
        assert str(again) == str(b)  # -0.0 is not 0.0 here

    check()


def test_a_type_without_order_has_no_bounds() -> None:
    """T-36."""
    for type_ in TYPES:
        if not type_.has_bounds:
            b = bounds(pa.nulls(3, type_.storage), type_)
            assert (b.low, b.high, b.nulls) == (None, None, 3)
            assert asked([pa.nulls(3, type_.storage)], type_, p.Compare(C, "=", 5)) == [False]


# -- what pruning is for: these would pass if nothing was ever excluded, so they say what must be -----------------------


INTS = [pa.array(v, pa.int64()) for v in ([1, 2, 3], [4, 5], [6, None], [None, None], [-(2**63), 2**63 - 1])]


@pytest.mark.parametrize(
    ("predicate", "kept"),
    [
        (p.Compare(C, "=", 4), [False, True, False, False, True]),
        (p.Compare(C, "<", 4), [True, False, False, False, True]),
        (p.Compare(C, "<=", 4), [True, True, False, False, True]),
        (p.Compare(C, ">", 5), [False, False, True, False, True]),
        (p.Compare(C, ">=", 2**63 - 1), [False, False, False, False, True]),
        (p.Compare(C, "!=", 6), [True, True, False, False, True]),
        (p.OneOf(C, (2, 6)), [True, False, True, False, True]),
        (p.OneOf(C, ()), [False] * 5),
        (p.IsNull(C), [False, False, True, True, False]),
        (p.IsNotNull(C), [True, True, True, False, True]),
        (p.All((p.Compare(C, ">", 1), p.Compare(C, "<", 4))), [True, False, False, False, True]),
        (p.Any_((p.Compare(C, "=", 1), p.Compare(C, "=", 6))), [True, False, True, False, True]),
        (p.TRUE, [True] * 5),
        (p.FALSE, [False] * 5),
    ],
    ids=str,
)
def test_batches_that_cannot_match_are_excluded(predicate: Predicate, kept: list[bool]) -> None:
    assert asked(INTS, t.BIGINT, predicate) == kept


def test_a_number_beyond_every_int64_excludes_nothing_wrongly() -> None:
    assert asked(INTS, t.BIGINT, p.Compare(C, "<", 2**70))[:3] == [True, True, True]


def test_nan_stands_above_every_number() -> None:
    """T-27."""
    batches = [pa.array([1.0, math.nan]), pa.array([1.0, 2.0]), pa.array([math.nan, math.nan]), pa.array([math.nan, None])]
    assert asked(batches, t.DOUBLE, p.Compare(C, ">", 100.0)) == [True, False, True, True]
    assert asked(batches, t.DOUBLE, p.Compare(C, "!=", 1.0)) == [True, True, True, True]
    assert asked(batches[:2], t.DOUBLE, p.Compare(C, "<", 1.0)) == [False, False]


def test_both_zeros_are_one_number() -> None:
    """T-28."""
    batches = [pa.array([0.0]), pa.array([-0.0]), pa.array([-0.0, 0.0])]
    for zero in (0.0, -0.0):
        assert asked(batches, t.DOUBLE, p.Compare(C, "=", zero)) == [True, True, True]
        assert asked(batches, t.DOUBLE, p.OneOf(C, (zero,))) == [True, True, True]


@pytest.mark.parametrize(
    ("text", "high"),
    [
        ("a" * 32, b"a" * 32),
        ("a" * 33, b"a" * 31 + b"b"),
        ("a" * 31 + "\U0010ffff" + "a", b"a" * 30 + b"b"),
        ("\U0010ffff" * 9, None),
        ("\ud7ff" * 11, "\ud7ff".encode() * 9 + "\ue000".encode()),
        ("\x7f" * 33, b"\x7f" * 31 + b"\xc2\x80"),
        ("a" * 31 + "é" + "x", b"a" * 30 + b"b"),
    ],
    ids=ascii,
)
def test_a_long_maximum_is_rounded_up(text: str, high: bytes | None) -> None:
    """T-29: the last code point is raised; surrogates are no code points; U+10FFFF cannot be raised."""
    b = bounds(pa.array([text]), t.TEXT)
    assert b.high == high
    assert high is None or high > text.encode() or len(text.encode()) <= TEXT_BYTES
    assert isinstance(b.low, bytes) and len(b.low) <= TEXT_BYTES and text.encode().startswith(b.low)


@pytest.mark.parametrize(
    ("blob", "high"),
    [(b"\xff" * 40, None), (b"a" + b"\xff" * 40, b"b"), (b"a" * 40, b"a" * 31 + b"b"), (b"a\x00", b"a\x00")],
)
def test_a_long_blob_is_rounded_up_bytewise(blob: bytes, high: bytes | None) -> None:
    b = bounds(pa.array([blob]), t.BLOB)
    assert b.high == high


def test_a_maximum_that_cannot_be_rounded_up_excludes_nothing() -> None:
    batch = pa.array(["a", "\U0010ffff" * 9])
    assert asked([batch], t.TEXT, p.Compare(C, ">", "\U0010ffff".encode() * 20)) == [True]


@pytest.mark.parametrize("op", ["=", "<=", ">="])
def test_trailing_zero_bytes_are_part_of_a_value(op: str) -> None:
    batches = [pa.array([b"a"]), pa.array([b"a\x00"])]
    assert asked(batches, t.BLOB, p.Compare(C, op, b"a")) in ([True, True], [op != ">=", True], [True, op != "<="])
    assert asked(batches, t.BLOB, p.Compare(C, op, b"a\x00"))[1]
    assert asked(batches, t.BLOB, p.Compare(C, "!=", b"a"))[1]


def test_prefixes_exclude_batches_that_lie_wholly_before_or_after() -> None:
    batches = [pa.array(["apple", "avocado"]), pa.array(["banana"]), pa.array(["b" * 50]), pa.array(["c"])]
    assert asked(batches, t.TEXT, p.StartsWith(C, b"b")) == [False, True, True, False]
    assert asked(batches, t.TEXT, p.StartsWith(C, b"b" * 45)) == [False, False, True, False]
    assert asked(batches, t.TEXT, p.StartsWith(C, b"")) == [True] * 4


def test_a_batch_that_does_not_know_the_column_is_read() -> None:
    """T-32: it was written before the column was added, and shows the column's fill."""
    known = column_bounds([bounds(INTS[0], t.BIGINT), None], np.array([3, 3], np.int64))
    for predicate in (p.Compare(C, "=", 99), p.IsNull(C), p.IsNotNull(C), p.OneOf(C, (99,))):
        assert may_match(predicate, {C: known}, 2).tolist()[1] is True
    assert may_match(p.Compare(OTHER, "=", 1), {C: known}, 2).tolist() == [True, True]


def test_bounds_of_another_kind_decide_nothing() -> None:
    """T-31: a batch from before the column was widened holds bounds of the narrow type."""
    before, after = bounds(pa.array([1, 2], pa.int32()), t.INT), bounds(pa.array([1.0, 2.0]), t.DOUBLE)
    for order_ in ([before, after], [after, before]):
        stacked = column_bounds(order_, np.array([2, 2], np.int64))
        kept = may_match(p.Compare(C, ">", 1.5), {C: stacked}, 2).tolist()
        assert kept == [True, True]


def test_all_of_and_any_of_simplify_without_changing_the_meaning() -> None:
    one = p.Compare(C, "=", 1)
    assert p.all_of([p.TRUE, one]) == one and p.all_of([]) == p.TRUE and p.all_of([one, p.FALSE]) == p.FALSE
    assert p.any_of([p.FALSE, one]) == one and p.any_of([]) == p.FALSE and p.any_of([one, p.TRUE]) == p.TRUE
