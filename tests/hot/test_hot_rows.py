"""The hot rows of a scope against a naive model: a list of rows, and for each the `_seq` of its superseder.

Merging begins early here: constants that are thousands in a service are lowered, so that a few commits pass every path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flightkalam.clock import id_range
from flightkalam.hot import rows as rows_
from flightkalam.hot.rows import Grow, HotRows
from flightkalam.model.keys import key_hashes
from flightkalam.model.schema import DELETED, SEQ, Column, TableSchema, fill_bytes
from flightkalam.model.types import BIGINT, INT, TEXT


@dataclass
class Kept:
    """A row of the model."""

    seq: int
    key: tuple[Any, ...]
    values: dict[int, Any]
    deleted: bool
    by: int = 0


@pytest.fixture(autouse=True, scope="module")
def merge_early() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(rows_, "_FAN_IN", 2)
    patch.setattr(rows_, "_MERGE_LIMIT", 12)
    patch.setattr(rows_, "_SMALL", 3)
    patch.setattr(rows_, "_DICT_LIMIT", 5)
    yield
    patch.undo()


def schema_one_key() -> TableSchema:
    return TableSchema(1, (Column(1, "k", INT, True), Column(2, "v", TEXT)), (1,))


def schema_two_keys() -> TableSchema:
    return TableSchema(1, (Column(1, "a", TEXT, True), Column(3, "b", INT, True), Column(2, "v", TEXT)), (1, 3))


KEY = st.integers(0, 6)
BATCH = st.lists(st.tuples(KEY, st.booleans()), min_size=1, max_size=7, unique_by=lambda k: k[0])


class Machine(RuleBasedStateMachine):
    """Commits, as the write door makes them: at most one live version per key, marks before rows."""

    first_schema = staticmethod(schema_one_key)

    def __init__(self) -> None:
        super().__init__()
        self.hot = HotRows()
        self.schema = self.first_schema()
        self.model: list[Kept] = []
        self.cold: list[tuple[int, int, int]] = []
        self.seq = 1
        self.watermarks = [0]
        self.stamp = 0
        self.next_column = 10

    def key(self, k: int) -> tuple[Any, ...]:
        return (k,) if len(self.schema.key) == 1 else ("x" * 150 + f"{k // 3}", k % 3)

    @rule(batch=BATCH, tombstones=st.booleans(), cold=st.lists(st.integers(0, 3), max_size=3), source=st.booleans())
    def commit(self, batch: list[tuple[int, bool]], tombstones: bool, cold: list[int], source: bool) -> None:
        self.seq += 1 << 22
        ids = id_range(self.seq, len(batch))
        keys = [self.key(k) for k, _ in batch]
        self.mark_hot(keys, ids)
        marks = [(b, len(self.cold), int(ids[0])) for b in cold]
        if marks:
            self.hot.mark_cold(*(np.array(c, np.int64) for c in zip(*marks, strict=True)))
            self.cold += marks
        fresh = []
        for key, (_, gone), seq in zip(keys, batch, ids.tolist(), strict=True):
            self.stamp += 1
            values = {c.id: self.stamp if c.type.kind == "int" else f"v{self.stamp}" for c in self.schema.columns}
            values.update(dict(zip(self.schema.key, key, strict=True)))
            fresh.append(Kept(seq, key, values, gone and tombstones))
        first = self.hot.append(self.table(fresh, tombstones), ids, self.schema.version, "seg" if source else None)
        assert first == len(self.model)
        self.model += fresh
        self.watermarks.append(int(ids[-1]))

    def mark_hot(self, keys: list[tuple[Any, ...]], ids: np.ndarray) -> None:
        """What `locate` and the write door do, with the model's word for where the live rows are."""
        found = self.find(keys)
        expected = [next((i for i, r in enumerate(self.model) if r.key == k and not r.by), -1) for k in keys]
        assert found == expected
        at = [i for i, row in enumerate(found) if row >= 0]
        rows = np.array([found[i] for i in at], np.int64)
        self.hot.mark_hot(rows, ids[at])
        for i, row in zip(at, rows.tolist(), strict=True):
            self.model[row].by = int(ids[i])

    def table(self, fresh: list[Kept], tombstones: bool) -> pa.Table:
        columns = {str(c.id): pa.array([r.values[c.id] for r in fresh], c.type.storage) for c in self.schema.columns}
        if tombstones:
            columns[DELETED] = pa.array([r.deleted for r in fresh], pa.bool_())
        table = pa.table(columns)
        return (
            table.cast(table.schema.set(len(columns) - 1, pa.field(DELETED, pa.bool_(), nullable=False)))
            if tombstones
            else table
        )

    def find(self, keys: list[tuple[Any, ...]]) -> list[int]:
        columns = [pa.array([k[i] for k in keys], c.type.storage) for i, c in enumerate(self.schema.key_columns)]
        hashes = key_hashes(columns)
        order = np.argsort(hashes, kind="stable").astype(np.int64)
        return self.hot.find(hashes[order], order, columns, self.schema).tolist()

    @rule(keys=st.lists(st.integers(0, 9), max_size=8, unique=True))
    def find_live_rows(self, keys: list[int]) -> None:
        wanted = [self.key(k) for k in keys]
        live = {r.key: i for i, r in enumerate(self.model) if not r.by}
        assert self.find(wanted) == [live.get(k, -1) for k in wanted]

    @rule(what=st.sampled_from(["add", "add filled", "rename", "drop", "widen"]))
    def alter(self, what: str) -> None:
        columns = list(self.schema.columns)
        plain = [c for c in columns if c.id not in self.schema.key]
        if what.startswith("add"):
            self.next_column += 1
            fill = fill_bytes(pa.array([self.next_column], pa.int32())) if what == "add filled" else None
            columns.append(Column(self.next_column, f"c{self.next_column}", INT, fill_ipc=fill))
        elif what == "rename":
            columns = [replace(c, name=f"{c.name}_") for c in columns]
        elif what == "drop" and len(plain) > 1:
            columns.remove(plain[0])
        elif what == "widen":
            columns = [replace(c, type=BIGINT) if c.type == INT else c for c in columns]
        self.schema = TableSchema(self.schema.version + 1, tuple(columns), self.schema.key)

    def expected(self, watermark: int) -> list[dict[str, Any]]:
        out = []
        for r in self.model:
            if r.seq <= watermark and not 0 < r.by <= watermark:
                row = {c.name: r.values.get(c.id, c.fill_array(1)[0].as_py()) for c in self.schema.columns}
                out.append({**row, DELETED: r.deleted, SEQ: r.seq})
        return out

    @invariant()
    def every_reader_sees_its_cut(self) -> None:
        for watermark in {*self.watermarks[-4:], self.watermarks[len(self.watermarks) // 2]}:
            cut = self.hot.cut(watermark, self.schema)
            expected = self.expected(watermark)
            assert cut.table.to_pylist() == expected
            assert cut.tombstones == sum(r[DELETED] for r in expected)
            assert cut.total == sum(r.seq <= watermark for r in self.model)
            dead: dict[int, set[int]] = {}
            for batch, row, by in self.cold:
                if by <= watermark:
                    dead.setdefault(batch, set()).add(row)
            assert {b: set(m) for b, m in self.hot.dead_cold(watermark).items()} == dead

    @invariant()
    def rows_are_taken_in_any_order(self) -> None:
        n = len(self.model)
        rows = np.array([(i * 7 + 3) % n for i in range(min(n, 5))], np.int64) if n else np.empty(0, np.int64)
        names = [*(c.name for c in self.schema.columns), DELETED]
        taken = self.hot.take(rows, self.schema, names)
        expected = [self.row(self.model[i]) for i in rows.tolist()]
        assert [list(r) for r in zip(*(c.to_pylist() for c in taken), strict=True)] == expected

    def row(self, r: Kept) -> list[Any]:
        return [*(r.values.get(c.id, c.fill_array(1)[0].as_py()) for c in self.schema.columns), r.deleted]

    @invariant()
    def segments_follow_one_another_without_a_gap(self) -> None:
        at = 0
        for segment in self.hot.segments:
            assert segment.start == at
            at = segment.end
        assert at == self.hot.n == len(self.model)
        assert self.hot.rows_of(np.array([r.seq for r in self.model], np.int64)).tolist() == list(range(len(self.model)))


class TwoKeys(Machine):
    first_schema = staticmethod(schema_two_keys)


LAW = settings(max_examples=50, stateful_step_count=25, deadline=None, derandomize=True)
TestOneKey = Machine.TestCase
TestOneKey.settings = LAW
TestTwoKeys = TwoKeys.TestCase
TestTwoKeys.settings = LAW


def grown(hot: HotRows, n: int, schema: TableSchema) -> None:
    for _ in range(n):
        table = pa.table({"1": pa.array([hot.n], pa.int32()), "2": pa.array(["v"])})
        hot.append(table, np.array([1_000 + hot.n], np.int64), schema.version)


def test_a_scan_meets_few_segments_however_many_commits_there_were() -> None:
    hot, schema = HotRows(), schema_one_key()
    grown(hot, 200, schema)
    assert len(hot.segments) <= 200 // 12 + 6  # whole ones of _MERGE_LIMIT rows, and a few small ones
    assert hot.cut(10_000, schema).table.column("k").to_pylist() == list(range(200))


def test_a_cut_that_nothing_has_changed_is_not_made_again() -> None:
    hot, schema = HotRows(), schema_one_key()
    grown(hot, 3, schema)
    assert hot.cut(1_001, schema) is hot.cut(1_001, schema)


def test_a_reader_keeps_what_it_holds_while_arrays_grow() -> None:
    grow = Grow(np.int64, capacity=2)
    grow.extend(np.array([1, 2]))
    held = grow.values()
    for i in range(100):
        grow.extend(np.array([i]))
    assert held.tolist() == [1, 2]
    assert grow.values()[:4].tolist() == [1, 2, 0, 1]


def test_a_cut_is_made_again_for_another_schema_and_for_more_marks() -> None:
    hot, schema = HotRows(), schema_one_key()
    grown(hot, 3, schema)
    assert hot.cut(1_002, schema).table.column_names == ["k", "v", DELETED, SEQ]
    renamed = TableSchema(2, (schema.columns[0], replace(schema.columns[1], name="w")), (1,))
    assert hot.cut(1_002, renamed).table.column_names == ["k", "w", DELETED, SEQ]
    hot.mark_hot(np.array([0]), np.array([1_003]))
    grown(hot, 1, schema)
    assert hot.cut(1_003, renamed).table.column("k").to_pylist() == [1, 2, 3]
    assert hot.cut(1_002, renamed).table.column("k").to_pylist() == [0, 1, 2]
