"""Deletion vectors on disk: what was written is what is read, and nothing else is ever taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from flightkalam.cold import deletion_vectors
from flightkalam.cold.deletion_vectors import VectorCache, read, write
from flightkalam.cold.manifest import VectorRef
from flightkalam.errors import DataCorrupted

ROWS = st.sets(st.integers(0, 2**32 - 1) | st.integers(0, 100), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 50), ROWS, min_size=1, max_size=4))
def test_vectors_of_one_install_are_read_as_they_were_written(drawn: dict[int, set[int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        refs = write(folder, 3, {n: BitMap(rows) for n, rows in drawn.items()})
        assert {n: set(read(folder, ref)) for n, ref in refs.items()} == drawn
        assert {n: ref.cardinality for n, ref in refs.items()} == {n: len(rows) for n, rows in drawn.items()}
        assert [p.name for p in folder.iterdir()] == ["dv-3.bin"]


@pytest.fixture
def ref(tmp_path: Path) -> VectorRef:
    return write(tmp_path, 1, {0: BitMap([1, 2]), 1: BitMap(range(1000))})[1]


def test_a_missing_vector_is_never_an_empty_one(tmp_path: Path, ref: VectorRef) -> None:
    """T-8."""
    (tmp_path / ref.file).unlink()
    with pytest.raises(DataCorrupted, match=r"dv-1\.bin.*REBUILD MANIFEST"):
        read(tmp_path, ref)
    with pytest.raises(DataCorrupted):
        VectorCache().get(tmp_path, ref)


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, ref: VectorRef, at: int) -> None:
    path = tmp_path / ref.file
    data = bytearray(path.read_bytes())
    data[ref.offset + (ref.length if at < 0 else 0) + at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataCorrupted):
        read(tmp_path, ref)


def test_a_file_that_is_cut_short_is_noticed(tmp_path: Path, ref: VectorRef) -> None:
    path = tmp_path / ref.file
    path.write_bytes(path.read_bytes()[: ref.offset + ref.length - 1])
    with pytest.raises(DataCorrupted):
        read(tmp_path, ref)
    path.write_bytes(b"")
    with pytest.raises(DataCorrupted):
        read(tmp_path, ref)


def test_the_cardinality_must_agree_too(tmp_path: Path, ref: VectorRef) -> None:
    with pytest.raises(DataCorrupted):
        read(tmp_path, replace(ref, cardinality=999))


def test_a_decoded_vector_is_kept(tmp_path: Path, ref: VectorRef) -> None:
    cache = VectorCache()
    first = cache.get(tmp_path, ref)
    (tmp_path / ref.file).unlink()
    assert cache.get(tmp_path, ref) is first


def test_the_cache_tells_folders_and_places_apart(tmp_path: Path) -> None:
    """T-9: two scopes have files of the same name."""
    cache = VectorCache()
    seen = []
    for name, rows in (("a", [1]), ("b", [2, 3])):
        folder = tmp_path / name
        folder.mkdir()
        for ref in write(folder, 1, {0: BitMap(rows), 1: BitMap([9])}).values():
            seen.append(sorted(cache.get(folder, ref)))
    assert seen == [[1], [9], [2, 3], [9]]


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_vectors, "_CACHED", 3)
    cache = VectorCache()
    for ref in write(tmp_path, 1, {n: BitMap([n]) for n in range(9)}).values():
        cache.get(tmp_path, ref)
    assert len(cache._known) == 3
