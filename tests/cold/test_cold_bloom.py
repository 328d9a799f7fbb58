"""Bloom filters: no false negative, the promised rate, other readers use them, and a lost one only costs time."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from model_values import KEY_TYPES, arrays

from flightkalam.cold import bloom
from flightkalam.cold.batch_file import BatchStyle, write_batch
from flightkalam.cold.bloom import KEY_FILTER, FilterStyle
from flightkalam.cold.bloom_cache import Blooms
from flightkalam.cold.manifest import BatchEntry, Manifest
from flightkalam.cold.manifest_json import from_json, to_json
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope
from flightkalam.model.keys import key_hashes
from flightkalam.model.predicate import comparable
from flightkalam.model.schema import Column, TableSchema
from flightkalam.model.types import BIGINT, INT, TEXT, ColumnType
from flightkalam.telemetry import Counters

SCOPE = Scope(7, None)
FEW = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def schema_of(*types: ColumnType, key: tuple[int, ...] = (1,), version: int = 1) -> TableSchema:
    return TableSchema(version, tuple(Column(i + 1, f"c{i}", type_) for i, type_ in enumerate(types)), key)


def write(
    folder: Path, schema: TableSchema, columns: list[pa.Array], style: FilterStyle, number: int = 0, groups: int = 1
) -> BatchEntry:
    n = len(columns[0])
    table = pa.table([*columns, pa.array(np.arange(1, n + 1)), pa.array([False] * n)], schema=schema.file)
    rows = max(1, -(-n // groups))
    return write_batch(folder, number, table, schema, SCOPE, style=BatchStyle(rows), flushed_seq=n, filters=style)


@dataclass
class Cache:
    """A cache over some batches."""

    folder: Path
    entries: list[BatchEntry]
    budget: int = 64 << 20
    counters: Counters = field(default_factory=Counters)
    remake: Any = None

    def __post_init__(self) -> None:
        self.manifest = Manifest(SCOPE, 1, 0, 10_000, 1 << 40, tuple(self.entries))
        self.blooms = Blooms(self.budget, self.counters, self.remake)

    def hold(self, column: int, *values: Any, since: int = 0) -> list[bool]:
        at = np.arange(len(self.entries))
        return self.blooms.may_hold(self.folder, self.manifest, at, column, values, since).tolist()

    def count(self, name: str) -> float:
        return self.counters.snapshot().get(name, 0)


def scattered(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(1 << 62, n, replace=False).astype(np.int64)


@pytest.mark.parametrize("groups", [1, 7])
def test_a_million_probes_miss_nothing_and_pass_at_the_promised_rate(tmp_path: Path, groups: int) -> None:
    """The rate is that of a whole batch, however many row groups it has."""
    n, schema = 20_000, schema_of(BIGINT)
    keys = scattered(n + 500_000)
    entry = write(tmp_path, schema, [pa.array(np.sort(keys[:n]))], FilterStyle(("c0",), rate=0.01), groups=groups)
    (bits,) = [bloom.read_filters(tmp_path, ref)[1] for ref in entry.filters]
    passed = np.logical_or.reduce([passing(b, keys) for b in bits])
    assert passed[:n].all()
    assert passed[n:].mean() <= 0.012


def passing(bits: bloom.Bits, keys: np.ndarray) -> np.ndarray:
    """The same filter for each of many keys, by the book (the format's own words), not by the code under test."""
    import xxhash

    hashes = np.array(
        [xxhash.xxh64_intdigest(k) for k in (raw[i : i + 8] for raw in [keys.tobytes()] for i in range(0, len(raw), 8))],
        np.uint64,
    )
    block = ((hashes >> np.uint64(32)) * np.uint64(bits.size)) >> np.uint64(32)
    low = (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    ok = np.ones(len(keys), bool)
    for i, salt in enumerate([0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31]):
        bit = (low * np.uint32(salt)) >> np.uint32(27)
        ok &= (bits.words[block.astype(np.int64) * 8 + i] >> bit) & np.uint32(1) == 1
    return ok


def test_half_a_million_keys_of_two_columns_pass_as_promised(tmp_path: Path) -> None:
    n = 20_000
    a, b = scattered(n, 1), scattered(n, 2)
    schema = schema_of(BIGINT, BIGINT, key=(1, 2))
    entry = write(tmp_path, schema, [pa.array(a), pa.array(b)], FilterStyle(key=True, rate=0.01))
    (bits,) = bloom.read_filters(tmp_path, entry.filters[0])[KEY_FILTER]
    swapped = key_hashes([pa.array(b), pa.array(a)])
    own = key_hashes([pa.array(a), pa.array(b)])
    assert all(key_passes(bits, h) for h in own[:2_000].tolist())
    assert sum(key_passes(bits, h) for h in swapped[:5_000].tolist()) <= 75
    octets = np.unpackbits(bits.words.view(np.uint8), bitorder="little")
    for i in range(bits.slices):
        assert octets[i * bits.size + bloom._place(own, i, bits.size)].all()


def key_passes(bits: bloom.Bits, hash_: int) -> bool:
    one = np.zeros(1, np.int64)
    return bool(bloom.test_slices(bits.words, one, np.array([bits.size], np.uint64), np.array([bits.slices]), hash_)[0])


@pytest.mark.parametrize("type_", [k for k in KEY_TYPES if k.kind != "bool"], ids=str)
def test_every_type_finds_its_own_values(type_: ColumnType, tmp_path: Path) -> None:
    """T-30: what is hashed is the file's physical form."""
    schema = schema_of(type_)

    @FEW
    @given(arrays(type_, min_size=2))
    def check(column: pa.Array) -> None:
        entry = write(tmp_path, schema, [column], FilterStyle(("c0",)), groups=2)
        cache = Cache(tmp_path, [entry])
        for value in column.drop_null().unique():
            assert cache.hold(1, comparable(value, type_)) == [True]

    check()


def test_the_engine_uses_the_filters(tmp_path: Path) -> None:
    """An independent reader finds every value and spares the row groups without one."""
    keys = scattered(4_000)
    entry = write(
        tmp_path,
        schema_of(BIGINT, TEXT),
        [pa.array(keys), pa.array([f"v{k}" for k in keys])],
        FilterStyle(("c0", "c1")),
        groups=4,
    )
    path = tmp_path / entry.file
    for column, of in (("c0", int), ("c1", lambda k: f"v{k}")):
        for at in (0, 1_700, 3_999):
            spared = probe(path, column, of(int(keys[at])))
            assert spared[at // 1_000] is False
            assert sum(spared) >= 2
        assert sum(probe(path, column, of(-5))) >= 3


def probe(path: Path, column: str, value: Any) -> list[bool]:
    """Per row group, whether the engine would skip it."""
    literal = f"'{value}'" if isinstance(value, str) else f"{value}::BIGINT"
    rows = duckdb.sql(
        f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', '{column}', {literal}) ORDER BY row_group_id"
    )
    return [r[0] for r in rows.fetchall()]


def test_our_answer_is_the_engines(tmp_path: Path) -> None:
    keys = scattered(3_000)
    entries = [write(tmp_path, schema_of(BIGINT), [pa.array(keys[i::3])], FilterStyle(("c0",)), i, groups=3) for i in range(3)]
    cache = Cache(tmp_path, entries)
    for value in [*keys[:60].tolist(), *scattered(60, 9).tolist()]:
        theirs = [not all(probe(tmp_path / e.file, "c0", value)) for e in entries]
        assert cache.hold(1, value) == theirs


# -- which columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "values", "expected"),
    [
        (BIGINT, list(range(50)), False),  # without a gap: the bounds say as much
        (BIGINT, [*range(49), 60], True),
        (INT, [7] * 50, False),
        (TEXT, ["x"] * 49 + [None], False),
        (TEXT, [None] * 50, False),
        (TEXT, ["x", "z"] * 25, True),
    ],
)
def test_no_filter_where_bounds_are_as_good(type_: ColumnType, values: list[Any], expected: bool, tmp_path: Path) -> None:
    schema = TableSchema(1, (Column(1, "k", BIGINT), Column(2, "c", type_)), (1,))
    entry = write(tmp_path, schema, [pa.array(range(50), pa.int64()), pa.array(values, type_.storage)], FilterStyle(("c",)))
    assert bool(entry.filters) is expected


def test_a_filter_is_as_large_as_its_values_ask_for(tmp_path: Path) -> None:
    small = write(tmp_path, schema_of(BIGINT), [pa.array(scattered(20))], FilterStyle(("c0",)))
    large = write(tmp_path, schema_of(BIGINT), [pa.array(scattered(20_000))], FilterStyle(("c0",)), 1)
    assert small.filters[0].length < 64
    assert 20_000 < large.filters[0].length < 70_000
    strict = write(tmp_path, schema_of(BIGINT), [pa.array(scattered(20_000))], FilterStyle(("c0",), rate=0.0001), 2)
    assert strict.filters[0].length > large.filters[0].length


def test_the_filter_on_a_key_may_be_stricter_than_the_others(tmp_path: Path) -> None:
    columns = [pa.array(scattered(2_000)), pa.array(scattered(2_000, 1))]
    style = FilterStyle(("c0", "c1"), False, 0.01, "c0", 1e-5)
    entry = write(tmp_path, schema_of(BIGINT, BIGINT), columns, style)
    found = {c: b for ref in entry.filters for c, bits in bloom.read_filters(tmp_path, ref).items() for b in bits}
    assert len(found[1].words) >= 2 * len(found[2].words)


# -- values that are not tested ----------------------------------------------------------------------------------------


def test_a_value_that_the_file_cannot_have_is_not_tested(tmp_path: Path) -> None:
    """T-30, T-31: a file from before INT became BIGINT."""
    entry = write(tmp_path, schema_of(INT), [pa.array([1, 5, 9], pa.int32())], FilterStyle(("c0",)))
    cache = Cache(tmp_path, [entry])
    assert cache.hold(1, 5) == [True]
    assert cache.hold(1, 1 << 40) == [True]
    assert cache.hold(1, b"5") == [True]
    assert cache.hold(1, 5.0) == [True]
    assert cache.hold(1, 5, since=2) == [True]  # the column means something else since then
    assert cache.count("bloom_filters_damaged") == 0


def test_one_of_many_values_is_enough(tmp_path: Path) -> None:
    keys = scattered(200)
    entries = [
        write(tmp_path, schema_of(BIGINT), [pa.array(keys[i::2])], FilterStyle(("c0",), rate=0.0001), i) for i in range(2)
    ]
    cache = Cache(tmp_path, entries)
    absent = [-1, -2, -3]
    assert cache.hold(1, *absent, int(keys[1])) == [False, True]
    assert cache.hold(1, *absent) == [False, False]
    assert cache.hold(1) == [True, True]


def test_a_batch_without_a_filter_passes(tmp_path: Path) -> None:
    with_filter = write(tmp_path, schema_of(BIGINT), [pa.array([1, 5, 9])], FilterStyle(("c0",)))
    without = write(tmp_path, schema_of(BIGINT), [pa.array([1, 5, 9])], FilterStyle(), 1)
    assert Cache(tmp_path, [with_filter, without]).hold(1, 4) == [False, True]


# -- loss -------------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_anywhere_in_a_filter_excludes_nothing(tmp_path: Path) -> None:
    keys = scattered(40)
    entry = write(tmp_path, schema_of(BIGINT), [pa.array(keys)], FilterStyle(("c0",)), groups=2)
    (ref,), path = entry.filters, tmp_path / entry.file
    good = path.read_bytes()
    for at in range(ref.length):
        path.write_bytes(good[: ref.offset + at] + bytes([good[ref.offset + at] ^ 0x10]) + good[ref.offset + at + 1 :])
        cache = Cache(tmp_path, [entry])
        assert cache.hold(1, int(keys[0]), -1) == [True]
        assert cache.count("bloom_filters_damaged") == 1
        cache.hold(1, -1)
        assert cache.count("bloom_filters_damaged") == 1, "looked for again"


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_lost_file_excludes_nothing(tmp_path: Path, how: str) -> None:
    entry = write(tmp_path, schema_of(BIGINT), [pa.array([1, 5])], FilterStyle(("c0",)))
    path = tmp_path / entry.file
    path.unlink() if how == "missing" else os.truncate(path, entry.filters[0].offset + 10)
    cache = Cache(tmp_path, [entry])
    assert cache.hold(1, 3) == [True]
    assert cache.count("bloom_filters_damaged") == 1


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lost_key_filter_is_made_again(tmp_path: Path, how: str) -> None:
    schema = schema_of(BIGINT, TEXT, key=(1, 2))
    columns = [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    entry = write(tmp_path, schema, columns, FilterStyle(key=True, rate=0.001))
    path = tmp_path / entry.filters[0].file
    good = path.read_bytes()
    path.unlink() if how == "missing" else path.write_bytes(b"\0" * len(good))
    table = pa.table(columns, names=["c0", "c1"])
    cache = Cache(tmp_path, [entry], remake=lambda folder, e, ref: bloom.rewrite_key_filter(folder, ref, table, schema))
    assert cache.hold(KEY_FILTER, int(key_hashes(columns)[1])) == [True]
    assert cache.hold(KEY_FILTER, 12345) == [False]
    assert path.read_bytes() == good
    assert cache.count("bloom_filters_rebuilt") == cache.count("bloom_filters_damaged") == 1


def test_a_key_filter_that_cannot_be_made_again_excludes_nothing(tmp_path: Path) -> None:
    schema = schema_of(BIGINT, TEXT, key=(1, 2))
    entry = write(tmp_path, schema, [pa.array([1, 2]), pa.array(["a", "b"])], FilterStyle(key=True))
    (tmp_path / entry.filters[0].file).unlink()

    def broken(folder: Path, e: BatchEntry, ref: Any) -> bytes:
        raise DataCorrupted("batch-0.parquet is missing")

    assert Cache(tmp_path, [entry], remake=broken).hold(KEY_FILTER, 1) == [True]


# -- the cache --------------------------------------------------------------------------------------------------------


def test_filters_are_read_once(tmp_path: Path) -> None:
    keys = scattered(90)
    entries = [write(tmp_path, schema_of(BIGINT), [pa.array(keys[i::3])], FilterStyle(("c0",)), i) for i in range(3)]
    cache = Cache(tmp_path, entries)
    for _ in range(3):
        assert cache.hold(1, int(keys[2]))[2]
    assert cache.count("bloom_filters_read") == 3
    # A later manifest with the same files finds them again.
    cache.manifest = replace(cache.manifest, version=2, batches=tuple(reversed(entries)))
    assert cache.hold(1, int(keys[2]))[0]
    assert cache.count("bloom_filters_read") == 3


def test_a_small_budget_tests_less_and_is_never_wrong(tmp_path: Path) -> None:
    keys = scattered(4_000)
    entries = [write(tmp_path, schema_of(BIGINT), [pa.array(keys[i::40])], FilterStyle(("c0",)), i) for i in range(40)]
    cache = Cache(tmp_path, entries, budget=1_024)
    others = Cache(tmp_path, entries[:5], budget=1_024)
    others.blooms = cache.blooms
    others.manifest = replace(others.manifest, version=9)
    for i in range(0, 400, 7):
        assert cache.hold(1, int(keys[i]))[i % 40]
        if i % 40 < 5:
            assert others.hold(1, int(keys[i]))[i % 40]
        assert cache.blooms.nbytes <= 1_024
    read = cache.count("bloom_filters_read")
    cache.hold(1, -1)
    cache.hold(1, -1)
    assert cache.count("bloom_filters_read") - read <= 40, "a table larger than the budget is not read anew for each test"


def test_no_budget_tests_nothing(tmp_path: Path) -> None:
    entry = write(tmp_path, schema_of(BIGINT), [pa.array([1, 5])], FilterStyle(("c0",)))
    assert Cache(tmp_path, [entry], budget=0).hold(1, 3) == [True]


def test_the_manifest_keeps_where_filters_lie(tmp_path: Path) -> None:
    schema = schema_of(BIGINT, TEXT, key=(1, 2))
    entry = write(tmp_path, schema, [pa.array([1, 5]), pa.array(["a", "b"])], FilterStyle(("c0", "c1"), True))
    assert [r.file for r in entry.filters] == ["batch-0.parquet", "key-0.bloom"]
    manifest = Manifest(SCOPE, 1, 0, 0, 1 << 40, (entry,))
    assert from_json(to_json(manifest, "main.t")) == manifest
    # ... and a footer is enough to find them again.
    assert bloom.column_filters(tmp_path / entry.file, pq.read_metadata(tmp_path / entry.file)) == entry.filters[0]


def test_hashes_of_keys_never_change() -> None:
    """Key filters lie on disk: whoever changes the hash must change the name of the files."""
    found = key_hashes([pa.array([1, -2]), pa.array(["a", "é" * 100])]).tolist()
    assert found == [2501315115353470069, 9291280265917644381]
