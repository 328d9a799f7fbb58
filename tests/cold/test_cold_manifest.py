"""The manifest as a value: edits, invariants, and its forms as JSON and as packed bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import (
    BatchEntry,
    Manifest,
    ManifestEdit,
    VectorRef,
    broken_invariant,
)
from flightkalam.cold.manifest_json import from_json, pack, to_json, unpack
from flightkalam.errors import DataCorrupted, InternalError
from flightkalam.model import predicate as p
from flightkalam.model.ids import Scope
from flightkalam.model.schema import SEQ_ID, Column, TableSchema
from flightkalam.model.types import BIGINT

LAW = settings(max_examples=100, deadline=None, derandomize=True)
NOW = 1_700_000_000_000_000

BOUNDS = st.one_of(
    st.builds(Bounds, st.integers(-(10**38), 0), st.integers(0, 10**38), st.integers(0, 9)),
    st.builds(Bounds, st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(0, 9), st.booleans()),
    st.builds(Bounds, st.binary(max_size=36), st.none() | st.binary(max_size=36), st.integers(0, 9)),
    st.builds(Bounds, st.none(), st.none(), st.integers(0, 9)),
)


@st.composite
def batches(draw: st.DrawFn, number: int, flushed_seq: int) -> BatchEntry:
    rows = draw(st.integers(0, 50))
    low = draw(st.integers(0, flushed_seq))
    dead = None
    if rows and draw(st.booleans()):
        place = draw(st.tuples(st.integers(0, 99), st.integers(1, 99), st.integers(1, rows)))
        dead = VectorRef(f"dv-{number}.bin", place[0], place[1], f"{number:016x}", place[2])
    return BatchEntry(
        number=number,
        file=f"batch-{number}.parquet",
        uuid=draw(st.uuids()).hex,
        min_seq=low,
        max_seq=draw(st.integers(low, flushed_seq)),
        rows=rows,
        size_bytes=draw(st.integers(0, 2**40)),
        schema_version=draw(st.integers(1, 9)),
        bounds=draw(st.dictionaries(st.integers(1, 99), BOUNDS, max_size=3)),
        tombstones=draw(st.integers(0, rows)),
        status=draw(st.sampled_from(["active", "compacting", "archived"])),
        dead=dead,
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    flushed = draw(st.integers(0, 2**62))
    numbers = draw(st.lists(st.integers(0, 30), max_size=4, unique=True))
    return Manifest(
        scope=Scope(draw(st.integers(0, 2**32 - 1)), draw(st.none() | st.text(max_size=5))),
        version=draw(st.integers(0, 99)),
        generated_at_us=draw(st.integers(0, 2**53)),
        max_batch=draw(st.integers(max(numbers, default=-1), 40)),
        flushed_seq=flushed,
        batches=tuple(draw(batches(n, flushed)) for n in numbers),
    )


@LAW
@given(manifests())
def test_a_manifest_is_the_same_after_json_and_after_packing(m: Manifest) -> None:
    record = to_json(m, "ns.t")
    assert from_json(json.loads(json.dumps(record))) == m
    assert from_json(unpack(pack(record))) == m
    assert broken_invariant(m) is None


def test_the_published_form_has_the_fields_that_are_promised() -> None:
    """SEMANTICS §4."""
    record = to_json(manifest(), "main.t")
    assert set(record) >= {
        "table_id",
        "scope",
        "version",
        "format_version",
        "generated_at",
        "max_batch",
        "flushed_seq",
        "batches",
    }
    promised = {
        "batch_number",
        "file_path",
        "min_seq",
        "max_seq",
        "columns",
        "row_count",
        "size_bytes",
        "schema_version",
        "status",
    }
    assert set(record["batches"][0]) >= promised
    assert record["batches"][0]["deletion_vector"] == ["dv-1.bin", 0, 10, "ff", 1]


@LAW
@given(manifests(), st.data())
def test_one_changed_byte_of_a_packed_manifest_is_noticed(m: Manifest, data: st.DataObject) -> None:
    packed = bytearray(pack(to_json(m, "ns.t")))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DataCorrupted):
        assert from_json(unpack(bytes(packed))) == m  # a bit of the frame's header that means nothing
    for cut in (bytes(packed[:-1]), b""):
        with pytest.raises(DataCorrupted):
            unpack(cut)


def batch(number: int, **changes: Any) -> BatchEntry:
    made = BatchEntry(number, f"batch-{number}.parquet", f"u{number}", 10, 20, 5, 100, 1, {1: Bounds(1, 9, 0)})
    return replace(made, **changes)


def manifest(**changes: Any) -> Manifest:
    dead = VectorRef("dv-1.bin", 0, 10, "ff", 1)
    return replace(Manifest(Scope(1), 3, NOW, 7, 30, (batch(2, dead=dead), batch(5))), **changes)


def test_an_edit_adds_removes_and_renews_vectors() -> None:
    vector = VectorRef("dv-4.bin", 0, 12, "aa", 2)
    edit = ManifestEdit(add=(batch(8, max_seq=40),), remove=frozenset({2}), vectors={5: vector}, flushed_seq=40)
    new = edit.apply(manifest(), NOW + 1)
    assert [b.number for b in new.batches] == [5, 8]
    assert new.batches[0].dead == vector
    assert (new.version, new.max_batch, new.flushed_seq, new.generated_at_us) == (4, 8, 40, NOW + 1)


def test_max_batch_never_falls_when_a_batch_goes() -> None:
    """The number of a removed batch is not used again."""
    new = ManifestEdit(remove=frozenset({5}), add=(batch(7),)).apply(manifest(), NOW)
    assert new.max_batch == 7
    newer = ManifestEdit(remove=frozenset({7})).apply(new, NOW)
    assert newer.max_batch == 7 and [b.number for b in newer.batches] == [2]


@LAW
@given(st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=2, unique=True), st.integers(0, 5)), max_size=8))
def test_any_sequence_of_edits_keeps_the_invariants(steps: list[tuple[list[int], int]]) -> None:
    """I1, I2, I3."""
    m = Manifest(Scope(1))
    for gone, grow in steps:
        flushed = m.flushed_seq + grow
        added = tuple(batch(m.max_batch + 1 + i, min_seq=flushed, max_seq=flushed, rows=1, bounds={}) for i in range(len(gone)))
        there = [b.number for b in m.batches]
        removed = frozenset(there[i] for i in gone if i < len(there))
        new = ManifestEdit(add=added, remove=removed, flushed_seq=flushed).apply(m, NOW)
        assert new.version == m.version + 1
        assert new.max_batch >= m.max_batch and new.flushed_seq >= m.flushed_seq
        assert {b.number for b in new.batches} == {*there, *(b.number for b in added)} - removed
        assert broken_invariant(new) is None and from_json(to_json(new, "t")) == new
        m = new


BROKEN: list[tuple[str, Callable[[Manifest], Manifest]]] = [
    ("one number", lambda m: replace(m, batches=(batch(5), batch(5)))),
    ("max_batch", lambda m: replace(m, max_batch=4)),
    ("flushed_seq", lambda m: replace(m, flushed_seq=19)),
    ("flushed_seq", lambda m: replace(m, batches=(batch(1, min_seq=21),))),
    ("more dead", lambda m: replace(m, batches=(batch(1, tombstones=6),))),
    ("more dead", lambda m: replace(m, batches=(batch(1, dead=VectorRef("d", 0, 1, "", 6)),))),
    ("more dead", lambda m: replace(m, batches=(batch(1, dead=VectorRef("d", 0, 1, "", 0)),))),
]


@pytest.mark.parametrize(("says", "break_"), BROKEN)
def test_a_manifest_that_contradicts_itself_is_neither_written_nor_read(
    says: str, break_: Callable[[Manifest], Manifest]
) -> None:
    broken = break_(manifest())
    assert says in (broken_invariant(broken) or "")
    with pytest.raises(DataCorrupted, match=says):
        from_json(to_json(broken, "t"))
    with pytest.raises(InternalError, match=says):
        ManifestEdit().apply(broken, NOW)


def test_an_edit_that_lowers_flushed_seq_is_refused() -> None:
    with pytest.raises(InternalError, match="flushed_seq"):
        ManifestEdit(flushed_seq=29).apply(manifest(), NOW)


def test_another_format_and_missing_fields_are_refused() -> None:
    record = to_json(manifest(), "t")
    with pytest.raises(DataCorrupted, match="upgrade"):
        from_json({**record, "format_version": 2})
    for field in record:
        if field not in ("table",):
            with pytest.raises(DataCorrupted):
                from_json({k: v for k, v in record.items() if k != field})


# -- pruning over a manifest ------------------------------------------------------------------------------------------


def schema(since: int = 0) -> TableSchema:
    return TableSchema(9, (Column(1, "k", BIGINT, True, bounds_since=since),), (1,))


def test_batches_are_pruned_by_column_and_by_seq() -> None:
    """T-38."""
    m = manifest(batches=(batch(2), batch(5, min_seq=25, max_seq=30, bounds={1: Bounds(10, 19, 0)})))
    assert m.may_match(p.Compare(1, "=", 12), schema()).tolist() == [False, True]
    assert m.may_match(p.Compare(SEQ_ID, ">", 20), schema()).tolist() == [False, True]
    assert m.may_match(p.Compare(SEQ_ID, "<=", 24), schema()).tolist() == [True, False]


def test_bounds_from_before_a_change_of_meaning_are_not_used() -> None:
    """T-31: days are not microseconds."""
    m = manifest(batches=(batch(2, schema_version=1), batch(5, schema_version=4)))
    assert m.may_match(p.Compare(1, "=", 12), schema(since=4)).tolist() == [True, False]
