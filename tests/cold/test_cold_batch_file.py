"""Batch files: what is written is what is read, by us, under every later schema, and by other readers of Parquet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_values import KEY_TYPES, TYPES, arrays, values

from flightkalam import failpoints
from flightkalam.cold.batch_file import FOOTER_KEY, BatchReader, BatchStyle, Footer, sort_by_key, write_batch
from flightkalam.cold.bloom import FilterStyle
from flightkalam.cold.manifest import BatchEntry
from flightkalam.cold.manifest_json import batch_to_json
from flightkalam.errors import DataCorrupted, KalamError
from flightkalam.model import types as t
from flightkalam.model.ids import Scope
from flightkalam.model.schema import DELETED, DELETED_ID, SEQ, SEQ_ID, Column, TableSchema, fill_bytes
from flightkalam.model.types import BIGINT, INT, TEXT, ColumnType

FEW = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
STYLE = BatchStyle(row_group_rows=4)
SCOPE = Scope(3, "ann")


def schema_of(*columns: Column, version: int = 1) -> TableSchema:
    return TableSchema(version, (Column(1, "k", BIGINT, True), *columns), (1,))


PLAIN = schema_of(Column(2, "v", TEXT), Column(3, "n", INT))


def file_table(schema: TableSchema, arrays_: list[pa.Array], deleted: list[bool] | None = None) -> pa.Table:
    n = len(arrays_[0])
    gone = pa.array(deleted or [False] * n, pa.bool_())
    return pa.table([*arrays_, pa.array(np.arange(100, 100 + n)), gone], schema=schema.file)


def plain_rows(n: int) -> pa.Table:
    numbers = pa.array(range(n), pa.int64())
    return file_table(PLAIN, [numbers, pa.array([f"v{i}" for i in range(n)]), pa.array(range(n), pa.int32())])


def put(folder: Path, table: pa.Table, schema: TableSchema, number: int = 0, **options: Any) -> BatchEntry:
    folder.mkdir(parents=True, exist_ok=True)
    style = options.pop("style", STYLE)
    return write_batch(folder, number, table, schema, SCOPE, style=style, flushed_seq=500, **options)


def get(folder: Path, entry: BatchEntry, schema: TableSchema, *names: str) -> pa.Table:
    wanted = list(names) or [*(c.name for c in schema.columns), SEQ, DELETED]
    return BatchReader().columns(folder / entry.file, entry, schema, wanted, verify=True)


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_every_type_comes_back_exactly(type_: ColumnType, tmp_path: Path) -> None:
    schema = schema_of(Column(2, "c", type_))

    @FEW
    @given(arrays(type_, min_size=1))
    def check(column: pa.Array) -> None:
        n = len(column)
        table = file_table(schema, [pa.array(range(n), pa.int64()), column])
        entry = put(tmp_path, table, schema)
        again = get(tmp_path, entry, schema)
        assert again.column("c").type == type_.storage
        assert str(again.to_pylist()) == str(table.to_pylist())  # NaN and -0.0 as they were
        assert entry.bounds[2].nulls == column.null_count

    check()


@pytest.mark.parametrize("type_", [c for c in TYPES if c.kind not in ("interval", "json")], ids=str)
def test_the_engine_reads_the_same_values_by_itself(type_: ColumnType, tmp_path: Path) -> None:
    schema = schema_of(Column(2, "c", type_))

    @settings(FEW, max_examples=5)
    @given(arrays(type_, min_size=1))
    def check(column: pa.Array) -> None:
        n = len(column)
        entry = put(tmp_path, file_table(schema, [pa.array(range(n), pa.int64()), column]), schema)
        path = str(tmp_path / entry.file)
        with duckdb.connect() as engine:
            engine.execute("SET TimeZone='UTC'")
            found = engine.sql("SELECT c FROM read_parquet(?) ORDER BY k", params=[path]).to_arrow_table()
        read = found.column("c").cast(type_.storage).to_pylist()
        assert _comparable(read) == _comparable(column.to_pylist())

    check()


def _comparable(rows: list[Any]) -> str:
    return str(rows).replace("datetime.timezone.utc", "UTC").replace("zoneinfo.ZoneInfo(key='UTC')", "UTC")


# -- the file -----------------------------------------------------------------------------------------------------------


def test_the_entry_says_what_is_in_the_file(tmp_path: Path) -> None:
    table = file_table(
        PLAIN, [pa.array([5, 7], pa.int64()), pa.array(["a", None]), pa.array([None, None], pa.int32())], [False, True]
    )
    entry = put(tmp_path, table, PLAIN, 4)
    assert (entry.number, entry.file, entry.rows, entry.tombstones) == (4, "batch-4.parquet", 2, 1)
    assert (entry.min_seq, entry.max_seq, entry.schema_version) == (100, 101, 1)
    assert entry.size_bytes == (tmp_path / entry.file).stat().st_size
    assert [(b.low, b.high, b.nulls) for b in entry.bounds.values()] == [(5, 7, 0), (b"a", b"a", 1), (None, None, 2)]


def test_a_footer_says_whose_file_it_is(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(3), PLAIN, 2, epoch=6, replaces=(0, 1))
    footer = Footer.from_metadata(pq.read_metadata(tmp_path / entry.file), entry.file)
    facts = {**batch_to_json(replace(entry, size_bytes=0, xxh3="", filters=())), "key_filter_rate": None}
    assert footer == Footer(3, "ann", 2, entry.uuid, 1, 6, 500, (0, 1), facts)


def test_a_footer_that_was_altered_is_refused(tmp_path: Path) -> None:
    """Parquet has no checksum over its footer, and the bounds in ours would prune what they must not."""
    entry = put(tmp_path, plain_rows(3), PLAIN)
    path = tmp_path / entry.file
    data = path.read_bytes()
    assert data.count(b'"min_seq":100') == 1
    path.write_bytes(data.replace(b'"min_seq":100', b'"min_seq":101'))
    with pytest.raises(DataCorrupted, match="footer cannot be read"):
        Footer.from_metadata(pq.read_metadata(path), path.name)


def test_columns_carry_their_field_ids(tmp_path: Path) -> None:
    """T-32, T-33: files know ids, not names."""
    entry = put(tmp_path, plain_rows(3), PLAIN)
    schema = pq.ParquetFile(tmp_path / entry.file).schema_arrow
    ids = {f.name: int(f.metadata[b"PARQUET:field_id"]) for f in schema}
    assert ids == {"k": 1, "v": 2, "n": 3, SEQ: SEQ_ID, DELETED: DELETED_ID}


def test_row_groups_are_small_sorted_and_filtered_on_the_key(tmp_path: Path) -> None:
    rows = plain_rows(11).filter(pa.array([i != 3 for i in range(11)]))  # a key without a gap needs no filter
    entry = put(tmp_path, rows, PLAIN, filters=FilterStyle(("k",)))
    metadata = pq.read_metadata(tmp_path / entry.file)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 2]
    key = metadata.row_group(0)
    assert [s.column_index for s in key.sorting_columns] == [0]
    assert key.column(0).bloom_filter_offset is not None
    assert key.column(1).bloom_filter_offset is None


@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy", "none"])
def test_every_compression_is_readable(tmp_path: Path, compression: str) -> None:
    table = plain_rows(9)
    entry = put(tmp_path, table, PLAIN, style=BatchStyle(4, compression))
    assert get(tmp_path, entry, PLAIN).to_pydict() == table.to_pydict()


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    """What a compaction that drops everything writes."""
    entry = put(tmp_path, plain_rows(0), PLAIN, replaces=(0,))
    assert (entry.rows, entry.min_seq, entry.max_seq) == (0, 0, 0)
    assert get(tmp_path, entry, PLAIN).num_rows == 0


@pytest.mark.parametrize("place", ["batch.written", "file.before_sync", "file.before_rename"])
def test_a_failure_before_the_rename_leaves_no_file(tmp_path: Path, place: str) -> None:
    """T-16, T-40."""

    def fail() -> None:
        raise OSError(28, "No space left on device")

    failpoints.arm(place, fail)
    try:
        with pytest.raises(KalamError, match="full"):
            put(tmp_path, plain_rows(3), PLAIN)
    finally:
        failpoints.disarm()
    assert list(tmp_path.iterdir()) == []


# -- later schemas --------------------------------------------------------------------------------------------------------


def test_a_renamed_column_is_found_by_its_id(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(2), PLAIN)
    swapped = schema_of(Column(2, "n", TEXT), Column(3, "v", INT), version=2)
    assert get(tmp_path, entry, swapped, "n", "v").to_pydict() == {"n": ["v0", "v1"], "v": [0, 1]}


@pytest.mark.parametrize("fill", [None, 42])
def test_an_added_column_shows_its_fill_on_old_rows(tmp_path: Path, fill: int | None) -> None:
    entry = put(tmp_path, plain_rows(2), PLAIN)
    ipc = None if fill is None else fill_bytes(pa.array([fill], pa.int32()))
    later = schema_of(*PLAIN.columns[1:], Column(4, "x", BIGINT, fill_ipc=ipc), version=2)
    found = get(tmp_path, entry, later, "x", "k")
    assert found.to_pydict() == {"x": [fill, fill], "k": [0, 1]}
    assert found.column("x").type == pa.int64()


def test_only_added_columns_still_have_as_many_rows_as_the_file(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(6), PLAIN)
    later = schema_of(Column(4, "x", TEXT), version=2)
    assert get(tmp_path, entry, later, "x").column("x").to_pylist() == [None] * 6


def test_a_name_that_was_dropped_and_added_again_does_not_bring_the_values_back(tmp_path: Path) -> None:
    """T-32."""
    entry = put(tmp_path, plain_rows(2), PLAIN)
    again = schema_of(Column(9, "v", TEXT), version=3)
    assert get(tmp_path, entry, again, "v").column("v").to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (INT, BIGINT),
        (t.SMALLINT, t.DOUBLE),
        (t.REAL, t.DOUBLE),
        (t.DATE, t.TIMESTAMP),
        (t.decimal(4, 1), t.decimal(18, 3)),
        (INT, t.decimal(18, 3)),
    ],
    ids=str,
)
def test_a_widened_column_keeps_every_value(tmp_path: Path, old: ColumnType, new: ColumnType) -> None:
    """T-31."""

    @settings(FEW, max_examples=5)
    @given(st.lists(values(old), min_size=1, max_size=5))
    def check(drawn: list[Any]) -> None:
        narrow, wide = schema_of(Column(2, "c", old)), schema_of(Column(2, "c", new), version=2)
        column = pa.array(drawn, old.storage)
        entry = put(tmp_path, file_table(narrow, [pa.array(range(len(drawn)), pa.int64()), column]), narrow)
        assert str(get(tmp_path, entry, wide, "c").column("c").to_pylist()) == str(column.cast(new.storage).to_pylist())

    check()


# -- damage -------------------------------------------------------------------------------------------------------------


def test_another_file_under_the_name_is_refused(tmp_path: Path) -> None:
    """T-9: the manifest names the bytes, not the name."""
    entry = put(tmp_path, plain_rows(3), PLAIN)
    put(tmp_path, plain_rows(3), PLAIN)
    with pytest.raises(DataCorrupted, match=r"batch-0\.parquet.*manifest"):
        get(tmp_path, entry, PLAIN)


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(3), PLAIN)
    pq.write_table(plain_rows(3).replace_schema_metadata(None), tmp_path / entry.file)
    with pytest.raises(DataCorrupted, match="not the file"):
        get(tmp_path, entry, PLAIN)


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"table_id": 1}'])
def test_a_footer_that_says_nothing_is_refused(tmp_path: Path, record: str) -> None:
    pq.write_table(plain_rows(1).replace_schema_metadata({FOOTER_KEY: record}), tmp_path / "f.parquet")
    with pytest.raises(DataCorrupted):
        Footer.from_metadata(pq.read_metadata(tmp_path / "f.parquet"), "f.parquet")


def test_a_missing_file_is_said_and_never_left_out(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(3), PLAIN)
    (tmp_path / entry.file).unlink()
    with pytest.raises(DataCorrupted, match=r"batch-0\.parquet is missing"):
        get(tmp_path, entry, PLAIN)


def test_a_cut_file_is_said(tmp_path: Path) -> None:
    entry = put(tmp_path, plain_rows(3), PLAIN)
    path = tmp_path / entry.file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataCorrupted, match="damaged"):
        get(tmp_path, entry, PLAIN)


def test_a_changed_page_is_noticed_when_checksums_are_compared(tmp_path: Path) -> None:
    texts = [f"{i:04d}" * 50 for i in range(100)]
    table = file_table(PLAIN, [pa.array(range(100), pa.int64()), pa.array(texts), pa.array(range(100), pa.int32())])
    entry = put(tmp_path, table, PLAIN, style=BatchStyle(100, "none"))
    path = tmp_path / entry.file
    data = path.read_bytes()
    at = data.index(b"0050" * 10)
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])
    with pytest.raises(DataCorrupted, match="damaged"):
        get(tmp_path, entry, PLAIN)


def test_footers_are_kept_by_the_files_identity(tmp_path: Path) -> None:
    reader = BatchReader(footers=2)
    for number in range(4):
        entry = put(tmp_path, plain_rows(1), PLAIN, number)
        assert reader.metadata(tmp_path / entry.file, entry.uuid) is reader.metadata(tmp_path / entry.file, entry.uuid)
    assert len(reader._footers) == 2


# -- order --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [*KEY_TYPES, None], ids=str)
def test_rows_are_sorted_by_key_and_remember_where_they_were(type_: ColumnType | None) -> None:
    one, two = (t.TEXT, t.INT) if type_ is None else (type_, None)
    columns = [Column(1, "a", one, True)] + ([Column(2, "b", two, True)] if two else [])
    schema = TableSchema(1, tuple(columns), tuple(c.id for c in columns))

    @settings(FEW, max_examples=20)
    @given(st.lists(st.tuples(*(values(c.type) for c in columns)), max_size=12, unique=True))
    def check(keys: list[tuple[Any, ...]]) -> None:
        table = file_table(schema, [pa.array([k[i] for k in keys], c.type.storage) for i, c in enumerate(columns)])
        ordered, before = sort_by_key(table, schema)
        got = list(zip(*(ordered.column(c.name).to_pylist() for c in columns), strict=True))
        assert got == sorted(keys, key=lambda k: tuple(v.encode() if isinstance(v, str) else v for v in k))
        assert table.take(pa.array(before)).equals(ordered)

    check()


def test_the_schema_version_of_the_writing_is_kept(tmp_path: Path) -> None:
    later = replace(PLAIN, version=8)
    entry = put(tmp_path, plain_rows(1), later)
    footer = json.loads(pq.read_metadata(tmp_path / entry.file).metadata[FOOTER_KEY])
    assert entry.schema_version == footer["schema_version"] == 8
