"""A large manifest as a chain of parts: what is read back is what was committed, and a flush writes only a little.

batches  4096 · 512 · 64 · 2 · 1     one more:     4096 · 512 · 64 · 4
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.cold import manifest_chain as chain
from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit, VectorRef
from flightkalam.cold.manifest_chain import Grown, Part
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope

LAW = settings(max_examples=60, deadline=None, derandomize=True)


class Shelf:
    """Parts by what they are, as the store keeps them."""

    def __init__(self) -> None:
        self.manifest = Manifest(Scope(1))
        self.parts: tuple[Part, ...] = ()
        self.texts: dict[Part, bytes] = {}
        self.written: list[int] = []

    def apply(self, edit: ManifestEdit) -> Grown:
        new = edit.apply(self.manifest, 7)
        grown = chain.grown(self.parts, new, edit, self.texts.__getitem__)
        self.texts.update(grown.written)
        for part in grown.gone:
            del self.texts[part]
        assert set(self.texts) == set(grown.parts)
        self.manifest, self.parts = new, grown.parts
        self.written.append(sum(p.weight for p in grown.written))
        return grown

    def read(self) -> Manifest:
        head = chain.head(self.manifest, "t", self.parts, lambda p: f"{p.first}-{p.last}")
        head = json.loads(json.dumps(head))
        assert chain.parts_of(head) == self.parts
        return chain.manifest_of(head, self.texts.get)


def batch(number: int) -> BatchEntry:
    return BatchEntry(number, f"batch-{number}.parquet", f"u{number}", 1, 1, 5, 9, 1, {1: Bounds(number, number, 0)})


def flush(shelf: Shelf, n: int = 1, vectors: dict[int, VectorRef] | None = None) -> None:
    first = shelf.manifest.max_batch + 1
    shelf.apply(ManifestEdit(tuple(batch(first + i) for i in range(n)), vectors=vectors or {}, flushed_seq=1))


STEP = st.one_of(
    st.tuples(st.just("flush"), st.integers(0, 4)),
    st.tuples(st.just("vectors"), st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True)),
    st.tuples(st.just("compact"), st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True)),
)


@LAW
@given(st.lists(STEP, max_size=40))
def test_a_chain_holds_what_its_edits_made(steps: list[tuple[str, int | list[int]]]) -> None:
    """Whatever is added, removed and given new vectors, in any order, and however parts were folded."""
    before, chain.WHOLE = chain.WHOLE, 6
    try:
        shelf = Shelf()
        for kind, what in steps:
            if isinstance(what, int):
                flush(shelf, what)
                continue
            there = [b.number for b in shelf.manifest.batches]
            some = sorted({there[i] for i in what if i < len(there)})
            if kind == "vectors":
                version = shelf.manifest.version
                flush(shelf, 1, {n: VectorRef(f"dv-{version}.bin", i, 1, "ff", 1) for i, n in enumerate(some)})
            else:
                new = (batch(shelf.manifest.max_batch + 1),)
                shelf.apply(ManifestEdit(new, remove=frozenset(some), flushed_seq=1))
        assert shelf.read() == shelf.manifest
        assert bool(shelf.parts) or len(shelf.manifest.batches) <= 6
    finally:
        chain.WHOLE = before


def test_a_flush_writes_about_as_much_at_five_thousand_batches_as_at_ten() -> None:
    shelf = Shelf()
    for _ in range(5_000):
        flush(shelf)
    assert len(shelf.parts) <= math.log2(5_000) + 1
    late = shelf.written[-1_000:]
    assert sum(late) / len(late) <= math.log2(5_000)
    assert sorted(late)[500] <= 2  # the usual flush writes its own batch and at most one more
    assert shelf.read() == shelf.manifest


def test_what_compaction_leaves_is_small_again() -> None:
    shelf = Shelf()
    for _ in range(300):
        flush(shelf)
    assert shelf.parts
    shelf.apply(ManifestEdit((batch(shelf.manifest.max_batch + 1),), remove=frozenset(range(300))))
    assert shelf.parts == () and [b.number for b in shelf.read().batches] == [300]


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_lost_or_altered_part_is_noticed(damage: str) -> None:
    shelf = Shelf()
    flush(shelf, 200)
    flush(shelf)
    for part, text in list(shelf.texts.items()):
        kept = dict(shelf.texts)
        if damage == "gone":
            del shelf.texts[part]
        else:
            shelf.texts[part] = text[:-1] if damage == "cut" else bytes([text[0] ^ 1]) + text[1:]
        with pytest.raises(DataCorrupted, match="missing or damaged"):
            shelf.read()
        shelf.texts = kept


def test_a_head_that_promises_more_batches_than_its_parts_hold_is_refused() -> None:
    shelf = Shelf()
    flush(shelf, 200)
    head = chain.head(shelf.manifest, "t", shelf.parts, str)
    with pytest.raises(DataCorrupted, match="200"):
        chain.manifest_of({**head, "batch_count": 201}, shelf.texts.get)


def test_bounds_stacked_for_one_version_serve_the_next() -> None:
    """An install that only adds does not stack every batch again."""
    shelf = Shelf()
    flush(shelf, 50)
    known = shelf.manifest.column(1)
    flush(shelf, 2)
    assert (1, 0) in shelf.manifest._columns
    stacked = shelf.manifest.column(1)
    afresh = replace(shelf.manifest).column(1)
    for name in ("low", "high", "bounded", "nan", "all_null", "no_null"):
        assert (getattr(stacked, name) == getattr(afresh, name)).all()
        assert len(getattr(known, name)) == 50
