"""Keys as numbers: equal keys have equal hashes in any company, and an index finds what a dictionary finds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_values import KEY_TYPES, arrays, values

from flightkalam.model import types as t
from flightkalam.model.keys import KeyIndex, first_duplicate, is_exact, key_hashes, key_text, same_keys
from flightkalam.model.types import ColumnType

LAW = settings(max_examples=100, deadline=None, derandomize=True)


def key_columns(type_: ColumnType) -> st.SearchStrategy[pa.Array]:
    return arrays(type_, nulls=False, max_size=20)


@pytest.mark.parametrize("type_", KEY_TYPES, ids=str)
def test_hashes_are_equal_exactly_when_keys_are(type_: ColumnType) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(key_columns(type_))
    def check(column: pa.Array) -> None:
        hashes = key_hashes([column]).tolist()
        keys = column.to_pylist()
        assert len(set(hashes)) == len(set(keys))
        assert len(set(zip(keys, hashes, strict=True))) == len(set(keys))

    check()


@pytest.mark.parametrize("type_", KEY_TYPES, ids=str)
def test_a_hash_does_not_depend_on_the_company(type_: ColumnType) -> None:
    """A key arrives among others than those among which it is looked for."""

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(key_columns(type_))
    def check(column: pa.Array) -> None:
        together = key_hashes([column]).tolist()
        alone = [int(key_hashes([column.slice(i, 1)])[0]) for i in range(len(column))]
        copied = [int(key_hashes([pa.array([v], type_.storage)])[0]) for v in column.to_pylist()]
        assert together == alone == copied

    check()


TEXTS_OF_MANY_LENGTHS = [
    "",
    "a",
    "abc",
    "abcdefgh",
    "abcdefghi",
    "m" * 64,
    "m" * 65,
    "m" * 127,
    "m" * 128,
    "m" * 129,
    "m" * 500,
]


@pytest.mark.parametrize("text", TEXTS_OF_MANY_LENGTHS)
@pytest.mark.parametrize("neighbour", TEXTS_OF_MANY_LENGTHS)
def test_a_text_hashes_the_same_beside_shorter_and_longer_ones(text: str, neighbour: str) -> None:
    alone = key_hashes([pa.array([text])])
    assert key_hashes([pa.array([text, neighbour])])[0] == alone[0]
    assert key_hashes([pa.array([neighbour, text, neighbour])])[1] == alone[0]


def test_the_chunk_in_which_a_text_is_hashed_does_not_matter() -> None:
    texts = [f"{i:06d}" + "x" * (i % 3) for i in range(140_000)]
    hashes = key_hashes([pa.array(texts)])
    assert len(np.unique(hashes)) == len(texts)
    for i in (0, 65_535, 65_536, 131_072, 139_999):
        assert key_hashes([pa.array([texts[i]])])[0] == hashes[i]


def test_long_texts_that_differ_only_in_the_middle_are_told_apart_by_comparison() -> None:
    """Only the ends of a long text are hashed, so the hashes are equal, and must never be taken for equal keys."""
    texts = ["h" * 70 + middle + "t" * 70 for middle in ("a", "b", "c", "b")]
    column = pa.array(texts)
    assert len(set(key_hashes([column]).tolist())) == 1
    assert not is_exact([column])
    assert first_duplicate(key_hashes([column]), [column]) == (1, 3)
    assert same_keys([column.slice(0, 3)], [column.slice(1, 3)]).tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "bc"), ("ab", "c")),
        (("", "a"), ("a", "")),
        (("a\x00", "b"), ("a", "\x00b")),
        (("a", ""), ("a\x00", "")),
        (("x" * 200, "y"), ("x" * 199, "xy")),
    ],
)
def test_composite_keys_are_not_run_together(left: tuple[str, str], right: tuple[str, str]) -> None:
    """T-22."""
    columns = [pa.array([left[0], right[0]]), pa.array([left[1], right[1]])]
    hashes = key_hashes(columns)
    assert hashes[0] != hashes[1]
    assert first_duplicate(hashes, columns) is None


def test_the_order_of_the_columns_counts() -> None:
    one, two = pa.array([1], pa.int64()), pa.array([2], pa.int64())
    assert key_hashes([one, two])[0] != key_hashes([two, one])[0]


def test_a_number_in_a_wider_column_hashes_as_before() -> None:
    """A key column may become wider; the rows that were indexed under the narrow one must still be found (T-31)."""
    numbers = [-(2**15), -1, 0, 7, 2**15 - 1]
    hashes = [key_hashes([pa.array(numbers, a)]).tolist() for a in (pa.int16(), pa.int32(), pa.int64())]
    assert hashes[0] == hashes[1] == hashes[2]
    second = pa.array(["x"] * 5)
    pairs = [key_hashes([pa.array(numbers, a), second]).tolist() for a in (pa.int16(), pa.int32(), pa.int64())]
    assert pairs[0] == pairs[1] == pairs[2]


def test_no_rows_have_no_hashes() -> None:
    for type_ in KEY_TYPES:
        assert len(key_hashes([pa.array([], type_.storage)])) == 0
        assert len(key_hashes([pa.array([], type_.storage)] * 2)) == 0
    assert first_duplicate(key_hashes([pa.array([], pa.utf8())]), [pa.array([], pa.utf8())]) is None


@st.composite
def composite_keys(draw: st.DrawFn) -> tuple[list[pa.Array], list[tuple[Any, ...]]]:
    """One to three key columns of a small range, so that keys meet."""
    types = draw(st.lists(st.sampled_from([t.TEXT, t.BIGINT, t.BOOLEAN, t.BLOB, t.decimal(18, 3)]), min_size=1, max_size=3))
    pools = [draw(st.lists(values(c), min_size=1, max_size=3)) for c in types]
    keys = draw(st.lists(st.tuples(*(st.sampled_from(p) for p in pools)), max_size=25))
    columns = [pa.array([k[i] for k in keys], c.storage) for i, c in enumerate(types)]
    return columns, keys


@LAW
@given(composite_keys())
def test_first_duplicate_finds_one_exactly_when_there_is_one(drawn: tuple[list[pa.Array], list[tuple[Any, ...]]]) -> None:
    """T-24."""
    columns, keys = drawn
    found = first_duplicate(key_hashes(columns), columns)
    if len(set(keys)) == len(keys):
        assert found is None
    else:
        assert found is not None
        assert found[0] != found[1] and keys[found[0]] == keys[found[1]]


@LAW
@given(
    st.lists(st.integers(0, 30), max_size=40), st.lists(st.integers(0, 40), max_size=20), st.integers(0, 100), st.integers(1, 4)
)
def test_an_index_finds_what_a_dictionary_finds(stored: list[int], probes: list[int], first_row: int, cuts: int) -> None:
    model: dict[int, list[int]] = {}
    for row, h in enumerate(stored, start=first_row):
        model.setdefault(h, []).append(row)
    hashes = np.array(stored, np.uint64)
    edges = np.linspace(0, len(stored), cuts + 1).astype(int)
    parts = [KeyIndex.build(hashes[a:b], first_row + int(a)) for a, b in pairwise(edges)]
    for index in (KeyIndex.build(hashes, first_row), KeyIndex.merge(parts)):
        wanted = np.array(probes, np.uint64)
        order = np.argsort(wanted, kind="stable").astype(np.int64)
        found_probes, rows = index.probe(wanted[order], order)
        expected = {(i, row) for i, h in enumerate(probes) for row in model.get(h, [])}
        pairs = list(zip(found_probes.tolist(), rows.tolist(), strict=True))
        assert len(pairs) == len(set(pairs)) and set(pairs) == expected
        assert len(index) == len(stored)


def test_hashes_above_two_to_the_63_are_in_order_too() -> None:
    """Negative numbers are large hashes; sorting must be the unsigned one throughout."""
    numbers = pa.array([-1, 5, -(2**63), 0, 2**63 - 1], pa.int64())
    index = KeyIndex.build(key_hashes([numbers]))
    hashes = key_hashes([pa.array([-(2**63), -1, 4], pa.int64())])
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    probes, rows = index.probe(hashes[order], order)
    assert dict(zip(probes.tolist(), rows.tolist(), strict=True)) == {0: 2, 1: 0}


def test_a_key_in_a_message_is_cut() -> None:
    text = key_text([pa.array([7]), pa.array(["a" * 500])], 0)
    assert text.startswith("(7, 'aaa") and len(text) < 80
