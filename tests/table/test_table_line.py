"""Small writes that wait for one scope become one commit, and nobody can tell: but for the log, which has one entry.

Every test makes the writers stand in line in a given order before the first may begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_world import World, plain, rows_of, scratch_folder, seen, seqs_of, shared_table

from flightkalam import failpoints
from flightkalam.clock import SystemClock
from flightkalam.errors import AccessDenied, DuplicateKey, InternalError, NotNullViolation
from flightkalam.hot.store import ids_of
from flightkalam.model.schema import SEQ, Table
from flightkalam.storage.kv import Batch
from flightkalam.table.check import check
from flightkalam.table.mutation import Committed, Extra, Mutation, OnConflict, Versions

ERROR, IGNORE, UPDATE = OnConflict.ERROR, OnConflict.IGNORE, OnConflict.UPDATE


@pytest.fixture
def table(world: World) -> Table:
    world.clock = SystemClock()
    return world.tables[1]


def row(k: int, v: str = "a") -> dict[str, Any]:
    return {"k": k, "v": v, "n": k}


class Writers:
    """Writes to be made in line, and what came of them."""

    def __init__(self, world: World, table: Table) -> None:
        self.world, self.table = world, table
        self.jobs: list[Callable[[], object]] = []
        self.done: dict[int, Committed] = {}

    def add(self, *keys: int, v: str = "a", mode: OnConflict = ERROR, extra: Extra | None = None, fresh: bool = False) -> None:
        mutation = Mutation(self.table, None, rows_of(self.table, [row(k, v) for k in keys], None), None, mode, fresh)
        at = len(self.jobs)

        def write() -> None:
            self.done[at] = self.world.writer.write([mutation], extra)

        self.jobs.append(write)

    def run(self, alone: Callable[[], object] | None = None) -> list[BaseException | None]:
        return self.world.write_in_line(self.table, self.jobs, alone=alone)

    def seen(self) -> dict[int, str]:
        return {r["k"]: r["v"] for r in plain(self.world.see(self.table))}

    def entries(self) -> list[list[int]]:
        return [ids_of(loaded.entry).tolist() for loaded in self.world.log.entries(self.world.scope(self.table))]


@pytest.fixture
def writers(world: World, table: Table) -> Writers:
    return Writers(world, table)


def test_writers_in_line_share_one_entry_of_the_log(world: World, table: Table, writers: Writers) -> None:
    """T-5: each is told the numbers of its own rows, in the order of the line."""
    for k in range(5):
        writers.add(10 * k, 10 * k + 1)
    assert writers.run() == [None] * 5
    told = [seqs_of(writers.done[i]) for i in range(5)]
    assert writers.entries() == [[seq for seqs in told for seq in seqs]]
    assert {r["_seq"]: r["k"] for r in world.see(table)} == {told[i][j]: 10 * i + j for i in range(5) for j in range(2)}
    world.reopen()
    assert len(writers.seen()) == 10
    assert check(world.snapshot(table)).problems == []


def test_a_taken_key_refuses_its_writer_alone(writers: Writers, world: World, table: Table) -> None:
    world.write(table, [row(1)])
    for k in (0, 1, 2):
        writers.add(k, v="new")
    raised = writers.run()
    assert [type(e) for e in raised] == [type(None), DuplicateKey, type(None)]
    assert "(1)" in str(raised[1])
    assert writers.seen() == {0: "new", 1: "a", 2: "new"}


def test_one_key_for_two_has_one_winner(writers: Writers) -> None:
    """T-24."""
    writers.add(1, v="first")
    writers.add(2)
    writers.add(1, v="second")
    assert [type(e) for e in writers.run()] == [type(None), type(None), DuplicateKey]
    assert writers.seen() == {1: "first", 2: "a"}


def test_one_key_upserted_by_two_has_both_versions(writers: Writers, world: World, table: Table) -> None:
    writers.add(1, v="first", mode=UPDATE)
    writers.add(1, v="second", mode=UPDATE)
    assert writers.run() == [None, None]
    assert writers.seen() == {1: "second"}
    assert len(writers.entries()) == 2
    assert check(world.snapshot(table)).problems == []


def test_upserts_of_hot_and_cold_rows_in_one_commit(writers: Writers, world: World, table: Table) -> None:
    world.write(table, [row(k, "cold") for k in range(6)])
    world.flush(table)
    world.write(table, [row(k, "hot") for k in range(6, 9)])
    for k in (1, 7, 20):
        writers.add(k, v="new", mode=UPDATE)
    assert writers.run() == [None] * 3
    assert len(writers.entries()) == 2
    assert writers.seen() == {k: "new" if k in (1, 7, 20) else "cold" if k < 6 else "hot" for k in (*range(9), 20)}
    world.flush(table)
    assert check(world.snapshot(table)).problems == []


def test_writers_of_other_kinds_do_not_hinder_each_other(writers: Writers, world: World, table: Table) -> None:
    world.write(table, [row(1), row(2)])
    writers.add(1, v="x", mode=IGNORE)
    writers.add(2, v="x", mode=UPDATE)
    writers.add(3, v="x")
    writers.add(4, v="x", fresh=True)
    writers.add(5, v="x", fresh=True)
    assert writers.run() == [None] * 5
    assert [writers.done[i].rows for i in range(5)] == [(0,), (1,), (1,), (1,), (1,)]
    assert writers.seen() == {1: "a", 2: "x", 3: "x", 4: "x", 5: "x"}


def test_what_joins_a_commit_joins_it_for_each(writers: Writers, world: World) -> None:
    """T-48: a record of one refuses that one; the others' are there, each with its own versions."""

    def note(name: bytes) -> Extra:
        return lambda batch, versions: batch.put("meta", name, b"%d %d" % (versions.count, versions.first))

    def refuse(batch: Batch, versions: Versions) -> None:
        raise AccessDenied("no longer")

    writers.add(1, extra=note(b"first"))
    writers.add(2, extra=refuse)
    writers.add(3, 4, extra=note(b"third"))
    assert [type(e) for e in writers.run()] == [type(None), AccessDenied, type(None)]
    assert sorted(writers.seen()) == [1, 3, 4]
    seqs = {r["k"]: r[SEQ] for r in seen(world.snapshot(writers.table))}
    assert world.store.get("meta", b"first") == b"1 %d" % seqs[1]
    assert world.store.get("meta", b"third") == b"2 %d" % seqs[3]


def test_a_null_is_refused_before_the_line(world: World, table: Table) -> None:
    with pytest.raises(NotNullViolation):
        world.write(table, [{"k": None, "v": "a", "n": 1}])
    assert len(world.scopes.open(table, None).line) == 0


def test_whoever_is_alone_with_a_scope_need_not_stand_in_line(writers: Writers, world: World, table: Table) -> None:
    """The head of the line waits for the one who is alone: who must not wait for it in turn."""
    writers.add(1)
    writers.add(2)
    raised = writers.run(alone=lambda: world.write(table, [row(2, "alone")]))
    assert [type(e) for e in raised] == [type(None), DuplicateKey]
    assert writers.seen() == {1: "a", 2: "alone"}


def test_many_keys_beside_cold_rows_are_several_commits(writers: Writers, world: World, table: Table) -> None:
    """So that every key can be asked of the filters, and nobody reads a batch with the lock held."""
    world.write(table, [row(k) for k in range(0, 200, 2)])
    world.flush(table)
    for k in range(1, 81, 2):
        writers.add(k)
    assert writers.run() == [None] * 40
    assert [len(e) for e in writers.entries()] == [32, 8]


def test_a_failed_append_is_in_doubt_for_everybody(writers: Writers, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-15: nobody is told that a key is taken, which memory has and the disk may lack."""
    real = world.store._db

    class Broken:
        def write(self, batch: object) -> None:
            raise OSError("the disk is gone")

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    for k in range(3):
        writers.add(k)

    def tear() -> None:
        world.store._db = Broken()

    raised = writers.run(alone=tear)
    world.store._db = real
    assert [type(e) for e in raised] == [InternalError] * 3


def test_a_leader_that_is_interrupted_leaves_nobody_behind(writers: Writers, world: World, table: Table) -> None:
    def interrupt() -> None:
        failpoints.disarm()
        raise KeyboardInterrupt

    for k in range(3):
        writers.add(k)
    failpoints.arm("write.together", interrupt)
    assert [type(e) for e in writers.run()] == [KeyboardInterrupt, InternalError, InternalError]
    assert writers.seen() == {}
    world.write(table, [row(1)])
    assert writers.seen() == {1: "a"}


WRITES = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True), st.sampled_from(OnConflict)),
    min_size=2,
    max_size=4,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 3)), WRITES, st.booleans())
def test_what_comes_of_a_line_comes_of_its_writers_one_after_another(
    there: set[int], writes: list[tuple[list[int], OnConflict]], cold: bool
) -> None:
    table = shared_table()
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        if there:
            world.write(table, [row(k, "old") for k in sorted(there)])
        if cold and there:
            world.flush(table)
        writers = Writers(world, table)
        for i, (keys, mode) in enumerate(writes):
            writers.add(*keys, v=f"w{i}", mode=mode)
        raised = writers.run()
        found = (tuple(type(e) for e in raised), writers.seen())
        problems = check(world.snapshot(table)).problems
        world.close()
    orders = itertools.permutations(range(len(writes)))
    assert found in [one_after_another(there, writes, order) for order in orders]
    assert problems == []


def one_after_another(
    there: set[int], writes: list[tuple[list[int], OnConflict]], order: tuple[int, ...]
) -> tuple[tuple[type, ...], dict[int, str]]:
    rows, raised = dict.fromkeys(there, "old"), [type(None)] * len(writes)
    for i in order:
        keys, mode = writes[i]
        if mode is ERROR and any(k in rows for k in keys):
            raised[i] = DuplicateKey  # type: ignore[assignment]
            continue
        rows |= {k: f"w{i}" for k in keys if mode is not IGNORE or k not in rows}
    return tuple(raised), rows
