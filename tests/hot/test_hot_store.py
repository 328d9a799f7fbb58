"""The hot log in the store: a scope's entries in commit order, and nothing of a neighbour's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from flightkalam.errors import DataCorrupted
from flightkalam.hot import log, log_keys
from flightkalam.hot.segments import SegmentWriter, file_of, open_segment
from flightkalam.hot.store import HotLog, batch_schema
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Column, TableSchema
from flightkalam.model.types import BIGINT, TEXT
from flightkalam.storage.kv import Batch, Store

SCHEMA = TableSchema(1, (Column(1, "k", BIGINT, True), Column(2, "v", TEXT)), (1,))
MS = 1 << 22  # a commit a millisecond


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "kv", durable=False)
    yield made
    made.close()


@pytest.fixture
def hot_log(store: Store, tmp_path: Path) -> HotLog:
    return HotLog(store, tmp_path / "hot")


def entry(seq: int, *keys: int, schema: TableSchema = SCHEMA) -> log.Entry:
    arrays = [pa.array(list(keys), pa.int64()), *([pa.array([str(k) for k in keys])] * (len(schema.columns) - 1))]
    rows = pa.RecordBatch.from_arrays(arrays, schema=batch_schema(schema))
    return log.Entry(schema.version, seq, len(keys), rows)


def put(hot_log: HotLog, store: Store, scope: Scope, *entries: log.Entry, schema: TableSchema = SCHEMA) -> None:
    batch = Batch()
    for e in entries:
        hot_log.put(batch, scope, e, schema)
    store.commit(batch)
    hot_log.schema_written(scope.table_id, schema)


def seqs(hot_log: HotLog, scope: Scope, after: int = 0) -> list[int]:
    return [loaded.entry.first_seq for loaded in hot_log.entries(scope, after)]


def test_entries_come_back_in_the_order_of_their_seq(hot_log: HotLog, store: Store) -> None:
    scope = Scope(1, "ann")
    put(hot_log, store, scope, *[entry(n * MS, n) for n in (300, 2, 70_000, 1)])
    assert seqs(hot_log, scope) == [n * MS for n in (1, 2, 300, 70_000)]
    assert seqs(hot_log, scope, 2 * MS) == [300 * MS, 70_000 * MS]
    assert seqs(hot_log, scope, 70_000 * MS) == []


def test_trimming_removes_what_is_flushed_and_nothing_else(hot_log: HotLog, store: Store) -> None:
    numbers = [5, 1, 9, 3]
    for flushed in range(11):
        table = 10 * flushed + 5
        scope = Scope(table, "ann")
        others = [Scope(table), Scope(table, "an"), Scope(table, "anna"), Scope(table, "ann\x00"), Scope(table + 1, "ann")]
        for s in (scope, *others):
            put(hot_log, store, s, *[entry(n * MS, n) for n in numbers])
        batch = Batch()
        hot_log.trim(batch, scope, flushed * MS, [])
        store.commit(batch)
        assert seqs(hot_log, scope) == [n * MS for n in sorted(numbers) if n > flushed]
        for s in others:
            assert seqs(hot_log, s) == [n * MS for n in sorted(numbers)]


def test_the_scopes_of_a_table_are_listed_once_each(hot_log: HotLog, store: Store) -> None:
    owners = ["", "a", "a\x00", "a\x00b", "ab", "b"]
    for owner in owners:
        put(hot_log, store, Scope(7, owner), entry(MS, 1), entry(2 * MS, 2))
    put(hot_log, store, Scope(6, "a"), entry(MS, 1))
    put(hot_log, store, Scope(8, "a"), entry(MS, 1))
    assert hot_log.scopes(7) == [Scope(7, o) for o in owners]
    assert hot_log.scopes(5) == []
    assert {loaded.scope.table_id for loaded in hot_log.all_entries()} == {6, 7, 8}


def test_entries_are_read_with_the_schema_that_they_were_written_with(hot_log: HotLog, store: Store) -> None:
    scope = Scope(1)
    newer = TableSchema(2, (*SCHEMA.columns, Column(5, "w", TEXT)), (1,))
    put(hot_log, store, scope, entry(MS, 1))
    put(hot_log, store, scope, entry(2 * MS, 2, schema=newer), schema=newer)
    again = HotLog(store, hot_log.folder)  # a restart knows no schema by heart
    names = [loaded.entry.batch.schema.names for loaded in again.entries(scope) if loaded.entry.batch is not None]
    assert names == [["1", "2"], ["1", "2", "5"]]


def test_a_lost_schema_is_said(hot_log: HotLog, store: Store) -> None:
    put(hot_log, store, Scope(1), entry(MS, 1))
    batch = Batch()
    batch.delete("log", log_keys.schema_key(1, 1))
    store.commit(batch)
    with pytest.raises(DataCorrupted, match="schema 1 of table 1"):
        list(HotLog(store, hot_log.folder).entries(Scope(1)))


def test_a_damaged_entry_is_said(hot_log: HotLog, store: Store) -> None:
    put(hot_log, store, Scope(1), entry(MS, 1), entry(2 * MS, 2))
    key = log_keys.entry_key(Scope(1), MS)
    data = store.get("log", key)
    assert data is not None
    batch = Batch()
    batch.put("log", key, data[:-1] + bytes([data[-1] ^ 1]))
    store.commit(batch)
    with pytest.raises(DataCorrupted):
        hot_log.load(Scope(1), 0)


def test_a_dropped_table_leaves_nothing_in_the_log(hot_log: HotLog, store: Store) -> None:
    for scope in (Scope(1), Scope(1, "a"), Scope(2, "a")):
        put(hot_log, store, scope, entry(MS, 1))
    batch = Batch()
    hot_log.drop_table(batch, 1)
    store.commit(batch)
    assert hot_log.scopes(1) == [] and hot_log.scopes(2) == [Scope(2, "a")]
    assert store.get("log", log_keys.schema_key(1, 1)) is None
    assert store.get("log", log_keys.schema_key(2, 1)) is not None


def test_marks_are_applied_in_the_replay_as_they_were_in_the_commit(hot_log: HotLog, store: Store) -> None:
    first, second = entry(MS, 1, 2, 3), entry(2 * MS, 2, 9)
    marks = log.no_hot_marks().copy()
    marks.resize(1)
    marks["target"], marks["by"] = MS + 1, 0
    cold = log.no_cold_marks().copy()
    cold.resize(1)
    cold["batch"], cold["row"], cold["by"] = 4, 7, 1
    second = log.Entry(1, 2 * MS, 2, second.batch, None, marks, cold)
    put(hot_log, store, Scope(1), first, second)
    rows = hot_log.load(Scope(1), 0)
    assert rows.cut(2 * MS + 1, SCHEMA).table.column("k").to_pylist() == [1, 3, 2, 9]
    assert rows.cut(MS + 2, SCHEMA).table.column("k").to_pylist() == [1, 2, 3]
    assert {b: list(m) for b, m in rows.dead_cold(2 * MS + 1).items()} == {4: [7]}
    assert rows.dead_cold(2 * MS) == {}, "the mark holds from its own version on"


# -- segment files ----------------------------------------------------------------------------------------------------------


def test_a_segment_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    schema = batch_schema(SCHEMA)
    writer = SegmentWriter(tmp_path / "hot", schema)
    for low in (0, 5, 9):
        writer.add(pa.RecordBatch.from_arrays([pa.array(range(low, low + 3)), pa.array(["x", None, ""])], schema=schema))
    assert list((tmp_path / "hot").glob("seg-*")) == [], "no name before it is whole"
    name = writer.finish()
    assert [p.name for p in (tmp_path / "hot").iterdir()] == [file_of(name)]
    table = open_segment(tmp_path / "hot", name, verify=True)
    assert table.column("1").to_pylist() == [0, 1, 2, 5, 6, 7, 9, 10, 11] and table.schema == schema


def test_a_discarded_segment_leaves_nothing(tmp_path: Path) -> None:
    schema = batch_schema(SCHEMA)
    for finished in (False, True):
        writer = SegmentWriter(tmp_path, schema)
        writer.add(pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], schema=schema))
        if finished:
            writer.finish()
        writer.discard()
        writer.discard()
        assert list(tmp_path.iterdir()) == []
