"""The read door: which batches a plan names, and that what it leaves out could not have mattered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_world import Row, World, plain, scratch_folder, seen, shared_table

from flightkalam.errors import Conflict, DataCorrupted
from flightkalam.model import predicate as p
from flightkalam.model.schema import DELETED, SEQ, SEQ_ID, Table
from flightkalam.table.mutation import OnConflict
from flightkalam.table.scan import scan
from flightkalam.table.snapshot import Snapshot
from flightkalam.table.versions import newest

UPDATE = OnConflict.UPDATE


@pytest.fixture
def table(world: World) -> Table:
    return world.tables[1]


def row(k: int, n: int = 0) -> Row:
    return {"k": k, "v": f"v{n}", "n": n}


def test_figures_say_what_is_read_and_what_is_spared(world: World, table: Table) -> None:
    for first in (0, 10, 20):
        world.write(table, [row(k, first) for k in range(first, first + 5)])
        world.flush(table)
    world.write(table, [row(0, 1), row(99, 1)], None, UPDATE)
    world.delete(table, [{"k": k} for k in range(20, 25)])
    figures = scan(world.snapshot(table), p.Compare(1, "<", 20)).figures
    assert (figures.batches_total, figures.pruned_by_range, figures.batches_read) == (3, 1, 2)
    assert (figures.hot_rows, figures.dead_rows, figures.table, figures.scope) == (2, 1, "main.t", "shared")
    every = scan(world.snapshot(table)).figures
    assert (every.batches_read, every.dead_rows) == (2, 1), "a batch of which every row is dead is not read"


def test_a_batch_is_clean_until_one_of_its_rows_is_superseded(world: World, table: Table) -> None:
    world.write(table, [row(k) for k in range(3)])
    world.flush(table)
    assert (len(scan(world.snapshot(table)).clean), scan(world.snapshot(table)).dirty) == (1, ())
    world.write(table, [row(1, 1)], None, UPDATE)
    plan = scan(world.snapshot(table))
    assert plan.clean == () and [sorted(d.dead) for d in plan.dirty] == [[1]]
    assert plan.hot is not None and plan.hot.num_rows == 1


def test_tombstones_are_shown_only_when_asked_for(world: World, table: Table) -> None:
    world.write(table, [row(1), row(2)])
    world.flush(table)
    world.delete(table, [{"k": 1}])
    for _ in range(2):  # hot, then cold
        assert [r["k"] for r in seen(world.snapshot(table))] == [2]
        changes = seen(world.snapshot(table), tombstones=True)
        assert [(r["k"], r["v"], r[DELETED]) for r in changes] == [(2, "v0", False), (1, None, True)]
        world.flush(table)
    world.write(table, [row(1, 5)])
    assert [(r["k"], r[DELETED]) for r in seen(world.snapshot(table), tombstones=True)] == [(2, False), (1, False)]


def test_pruning_by_a_column_that_is_not_the_key_brings_no_old_version_back(world: World, table: Table) -> None:
    """T-19: the batch with the newer version is spared, and the older one stays dead all the same."""
    world.write(table, [row(1, 10), row(2, 10)])
    world.flush(table)
    world.write(table, [row(1, 999)], None, UPDATE)
    world.flush(table)
    predicate = p.Compare(3, "=", 10)
    plan = scan(world.snapshot(table), predicate)
    assert plan.figures.pruned_by_range == 1
    assert plain(seen(world.snapshot(table), predicate)) == [row(2, 10)]


def test_a_lower_bound_of_seq_spares_old_batches_and_brings_back_nothing(world: World, table: Table) -> None:
    """T-38."""
    world.write(table, [row(1), row(2)])
    world.flush(table)
    mark = world.door.watermark
    world.write(table, [row(1, 1)], None, UPDATE)
    world.flush(table)
    newer = scan(world.snapshot(table), p.Compare(SEQ_ID, ">", mark))
    assert newer.figures.pruned_by_range == 1
    older = seen(world.snapshot(table), p.Compare(SEQ_ID, "<=", mark))
    assert plain(older) == [row(2)], "a superseded version does not come back"


KEYS = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)
STEPS = st.lists(st.tuples(st.sampled_from(["upsert", "delete", "flush", "flush"]), KEYS), max_size=9)
LEAF = st.builds(p.Compare, st.sampled_from([1, 3, SEQ_ID]), st.sampled_from(["=", "<", ">=", "!="]), st.integers(0, 9))
PREDICATES = st.one_of(LEAF, st.lists(LEAF, max_size=3).map(p.all_of), st.lists(LEAF, max_size=3).map(p.any_of))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS, PREDICATES, st.booleans())
def test_pruning_never_changes_an_answer(steps: list[tuple[str, list[int]]], predicate: p.Predicate, tombstones: bool) -> None:
    """Filtered after the plan, the pruned and the whole scan give the same rows."""
    table = shared_table()
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        first = 0
        for i, (what, keys) in enumerate(steps):
            if what == "flush":
                world.flush(table)
            else:
                done = world.write(table, [row(k, i) for k in keys], None, UPDATE, [what == "delete"] * len(keys))
                first = first or done.first_seq
        snapshot = world.snapshot(table)
        shifted = _with_seqs_from(predicate, first)
        whole = [r for r in seen(snapshot, tombstones=tombstones) if _holds(shifted, r)]
        assert [r for r in seen(snapshot, shifted, tombstones) if _holds(shifted, r)] == whole
        world.close()


def _with_seqs_from(predicate: p.Predicate, first: int) -> p.Predicate:
    """Comparisons of `_seq` near those that there are."""
    match predicate:
        case p.Compare(column, op, value) if column == SEQ_ID:
            return p.Compare(column, op, first + value * 300)
        case p.All(parts):
            return p.All(tuple(_with_seqs_from(x, first) for x in parts))
        case p.Any_(parts):
            return p.Any_(tuple(_with_seqs_from(x, first) for x in parts))
    return predicate


def _holds(predicate: p.Predicate, r: Row) -> bool:
    match predicate:
        case p.All(parts):
            return all(_holds(x, r) for x in parts)
        case p.Any_(parts):
            return any(_holds(x, r) for x in parts)
        case p.Compare(column, op, wanted):
            value = r[{1: "k", 3: "n", SEQ_ID: SEQ}[column]]
            ops = {"=": "__eq__", "<": "__lt__", ">=": "__ge__", "!=": "__ne__"}
            return value is not None and getattr(value, ops[op])(wanted)
    return isinstance(predicate, p.Always)


def test_a_snapshot_that_nobody_holds_may_expire(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    watermark = world.door.watermark
    world.write(table, [row(2)])
    world.flush(table)
    with pytest.raises(Conflict, match="expired"):
        Snapshot.take(world.scopes, table, None, watermark)


def test_a_batch_that_is_gone_is_said_and_never_left_out(world: World, table: Table) -> None:
    world.write(table, [row(k) for k in range(3)])
    world.flush(table)
    world.write(table, [row(1, 1)], None, UPDATE)
    world.delete(table, [{"k": 2}])
    world.flush(table)
    world.reopen()
    for path in world.folder(table).iterdir():
        if path.name.startswith("batch"):
            path.unlink()
    with pytest.raises(DataCorrupted, match="missing"):
        world.see(table)
    with pytest.raises(DataCorrupted):
        world.write(table, [row(1, 3)], None, UPDATE)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), max_size=20, unique_by=lambda v: v[1]))
def test_the_rule_itself(versions: list[tuple[int, int]]) -> None:
    keys, seqs = (np.array([v[i] for v in versions], np.int64) for i in (0, 1))
    expected = [s == max(t for k2, t in versions if k2 == k) for k, s in versions]
    assert newest(keys.astype(np.uint64), seqs).tolist() == expected
