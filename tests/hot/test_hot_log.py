"""The log's entries and keys, byte by byte."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_values import TYPES, arrays

from flightkalam.errors import DataCorrupted
from flightkalam.hot import log, log_keys
from flightkalam.hot.log import COLD_MARK, HOT_MARK, Entry, decode, encode
from flightkalam.model.ids import Scope, scope_bytes, scope_of, table_bytes
from flightkalam.model.schema import DELETED
from flightkalam.storage.kv import prefix_end

LAW = settings(max_examples=100, deadline=None, derandomize=True)
SEQS = st.integers(1, 2**63 - 1)
U32 = st.integers(0, 2**32 - 1)


def hot_marks(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, HOT_MARK)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, pa.Schema]:
    """An entry with the schema that it is read with, which has no `_deleted`."""
    n = draw(st.integers(0, 5))
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    columns = [draw(arrays(c, min_size=n, max_size=n)) for c in types]
    schema = pa.schema([pa.field(str(i), c.storage) for i, c in enumerate(types, start=1)])
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    if draw(st.booleans()):
        gone = pa.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), pa.bool_())
        batch = batch.append_column(pa.field(DELETED, pa.bool_(), nullable=False), gone)
    hot = draw(st.lists(st.tuples(SEQS, U32), max_size=5))
    cold = draw(st.lists(st.tuples(U32, U32, U32), max_size=5))
    segment = draw(st.none() | st.text(max_size=40))
    entry = Entry(
        schema_version=draw(U32),
        first_seq=draw(SEQS),
        rows=n,
        batch=None if segment is not None else batch,
        segment=segment,
        hot_marks=hot_marks(hot),
        cold_marks=np.array(cold, COLD_MARK),
    )
    return entry, schema


def same(a: Entry, b: Entry) -> bool:
    marks = np.array_equal(a.hot_marks, b.hot_marks) and np.array_equal(a.cold_marks, b.cold_marks)
    rows = (a.batch is None) == (b.batch is None)
    if a.batch is not None and b.batch is not None:
        rows = a.batch.schema.equals(b.batch.schema) and str(a.batch.to_pylist()) == str(b.batch.to_pylist())
    head = (a.schema_version, a.first_seq, a.rows, a.segment) == (b.schema_version, b.first_seq, b.rows, b.segment)
    return marks and rows and head


@LAW
@given(entries())
def test_an_entry_is_read_as_it_was_written(drawn: tuple[Entry, pa.Schema]) -> None:
    entry, schema = drawn
    data = encode(entry)
    assert same(decode(data, schema), entry)
    assert log.schema_version_of(data) == entry.schema_version


@LAW
@given(entries(), st.data())
def test_one_changed_byte_is_noticed(drawn: tuple[Entry, pa.Schema], data: st.DataObject) -> None:
    entry, schema = drawn
    encoded = bytearray(encode(entry))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataCorrupted, match=r"hot log.*backup"):
        decode(bytes(encoded), schema)


@LAW
@given(entries(), st.data())
def test_an_entry_that_is_cut_short_or_too_long_is_noticed(drawn: tuple[Entry, pa.Schema], data: st.DataObject) -> None:
    entry, schema = drawn
    encoded = encode(entry)
    for damaged in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + b"\0"):
        with pytest.raises(DataCorrupted):
            decode(damaged, schema)


def test_many_marks_are_compressed_and_come_back() -> None:
    hot = hot_marks([(10_000 + i, i) for i in range(5_000)])
    cold = np.array([(3, i, i) for i in range(5_000)], COLD_MARK)
    entry = Entry(1, 7, 0, None, "seg", hot, cold)
    data = encode(entry)
    assert len(data) < (hot.nbytes + cold.nbytes) // 2
    assert same(decode(data, pa.schema([])), entry)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(DataCorrupted):
        decode(damaged, pa.schema([]))


# -- keys -----------------------------------------------------------------------------------------------------------

OWNERS = st.one_of(
    st.sampled_from(["", "a", "ab", "a\x00", "a\x00b", "\x00", "\x00\x00", "a\xff", "\x00\xff", "é", "shared"]),
    st.text(max_size=6),
    st.text(alphabet="\x00\x01a\xff", max_size=6),
)
SCOPES = st.builds(Scope, st.integers(0, 2**32 - 1) | st.integers(0, 2), st.none() | OWNERS)


def meaning(scope: Scope) -> tuple[int, int, bytes]:
    """What the order of scopes is: by table, SHARED first, then by the bytes of the owner."""
    return scope.table_id, scope.owner is not None, (scope.owner or "").encode()


@LAW
@given(SCOPES, SCOPES)
def test_scopes_sort_as_bytes_as_they_do_by_meaning(a: Scope, b: Scope) -> None:
    """T-22: injective and order-preserving."""
    one, two = scope_bytes(a), scope_bytes(b)
    assert (one == two) == (a == b)
    assert (one < two) == (meaning(a) < meaning(b))


@LAW
@given(SCOPES, SCOPES)
def test_no_scope_is_the_beginning_of_another(a: Scope, b: Scope) -> None:
    """T-25: whatever follows the scope in a key, two users' or two tables' keys never mix."""
    assume(a != b)
    assert not scope_bytes(a).startswith(scope_bytes(b))
    assert not log_keys.entry_prefix(a).startswith(log_keys.entry_prefix(b))


@LAW
@given(SCOPES, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), SCOPES)
def test_a_scopes_entries_lie_together_in_the_order_of_seq(scope: Scope, one: int, two: int, other: Scope) -> None:
    first, second = log_keys.entry_key(scope, one), log_keys.entry_key(scope, two)
    assert (first < second) == (one < two)
    assert log_keys.scope_and_seq(first) == (scope, one)
    assert scope_of(scope_bytes(scope) + b"rest") == (scope, len(scope_bytes(scope)))
    prefix = log_keys.entry_prefix(scope)
    within = prefix <= log_keys.entry_key(other, one) < prefix_end(prefix)
    assert within == (scope == other)


@LAW
@given(SCOPES, st.integers(0, 2**32 - 1))
def test_a_tables_prefix_holds_its_scopes_and_no_other(scope: Scope, table_id: int) -> None:
    key = log_keys.entry_key(scope, 1)
    assert key.startswith(log_keys.table_prefix(table_id)) == (scope.table_id == table_id)
    assert scope_bytes(scope).startswith(table_bytes(table_id)) == (scope.table_id == table_id)


def test_kinds_of_keys_never_meet() -> None:
    entry, schema = log_keys.entry_key(Scope(1), 2), log_keys.schema_key(1, 2)
    segment = log_keys.segment_key(1, "seg-x.arrow")
    assert len({entry[:1], schema[:1], segment[:1]}) == 3
    assert log_keys.segment_file(segment) == "seg-x.arrow"
    assert schema.startswith(log_keys.schema_prefix(1)) and segment.startswith(log_keys.segment_prefix(1))
