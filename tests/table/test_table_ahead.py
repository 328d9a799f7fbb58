"""What a writer does before it takes the scope's lock, and what it must look at again with it.

Keys are looked for in cold batches ahead of the lock; a position comes from the statement's own SELECT.  Both must come to
nothing when a flush or a compaction moves the rows in between, and neither may ever mark a row twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_world import World, rows_of, scratch_folder, shared_table

from flightkalam import failpoints
from flightkalam.cold.batch_file import BatchStyle
from flightkalam.cold.manifest import BatchEntry
from flightkalam.errors import DuplicateKey, InternalError
from flightkalam.hot.rows import HotIndex, HotRows
from flightkalam.jobs.compact import Compactor, CompactSettings
from flightkalam.jobs.compact_policy import Policy
from flightkalam.model.keys import KeyFilter, Probe, key_hashes
from flightkalam.model.schema import Table
from flightkalam.table import key_cache as key_cache_
from flightkalam.table import locate as locate_
from flightkalam.table.check import check
from flightkalam.table.key_cache import KeyCache
from flightkalam.table.locate import Located, locate
from flightkalam.table.mutation import HeadMoved, Mutation, OnConflict, key_of
from flightkalam.table.positions import Positions

UPDATE = OnConflict.UPDATE
Row = dict[str, Any]
LAW = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture
def table() -> Table:
    return shared_table()


@pytest.fixture
def world(table: Table) -> Iterator[World]:
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        yield world
        world.close()


def rows(*keys: int, v: str = "") -> list[Row]:
    return [{"k": k, "v": v or f"v{k}", "n": k} for k in keys]


def find(world: World, table: Table, *keys: int) -> Located:
    return locate(world.scopes, world.scopes.open(table, None), table.schema, Probe.of([pa.array(keys, pa.int64())]))


def positions(world: World, table: Table, *keys: int) -> Positions:
    """Where a statement would find the keys now."""
    scope, found = world.scopes.open(table, None), find(world, table, *keys)
    assert found.visible.all()
    seqs = np.zeros(len(keys), np.int64)
    seqs[found.hot >= 0] = scope.state.hot.ids.values()[found.hot[found.hot >= 0]]
    for entry in scope.state.manifest.batches:
        mine = found.batch == entry.number
        seqs[mine] = world.scopes.keys.seqs(scope.folder, entry, table.schema)[found.row[mine]]
    return Positions(scope.state.layout, found.batch, found.row, seqs)


def head(world: World, table: Table) -> int:
    return world.scopes.open(table, None).head


def at_positions(
    world: World, table: Table, at: Positions, new: list[Row], deleted: list[bool] | None = None, seen: int | None = None
) -> Any:
    """Commit new versions as UPDATE and DELETE do: all of them supersede what was found."""
    seen = head(world, table) if seen is None else seen
    mutation = Mutation(table, None, rows_of(table, new, deleted), supersedes=np.ones(len(new), bool), at=at)
    return world.writer.write([mutation], None, seen)


def move(world: World, table: Table, how: str) -> None:
    if how in ("flush", "both"):
        world.flush(table)
    if how in ("compact", "both"):
        settings_ = CompactSettings(Policy(1_000), BatchStyle(row_group_rows=4, compression="none"), 6)
        Compactor(world.scopes, world.clock, settings_).compact(table, None)


# -- keys looked for ahead of the lock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["nothing", "flush", "compact", "both"])
def test_keys_placed_before_a_move_are_placed_again(
    world: World, table: Table, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-7, T-10: rows that move between the look and the lock are marked where they are then."""
    monkeypatch.setattr(locate_, "_ALONE", 1)
    world.write(table, rows(*range(6)))
    world.flush(table)
    world.write(table, rows(*range(4, 9)), None, UPDATE)
    world.flush(table)
    world.write(table, rows(7, 8, 9, v="hot"), None, UPDATE)

    def moved() -> None:
        failpoints.disarm()
        move(world, table, how)

    failpoints.arm("write.ready", moved)
    world.write(table, rows(*range(2, 12), v="new"), None, UPDATE)
    assert {r["k"]: r["v"] for r in world.see(table)} == {0: "v0", 1: "v1", **dict.fromkeys(range(2, 12), "new")}
    assert check(world.snapshot(table)).problems == []


def test_what_another_writer_adds_between_the_look_and_the_lock_is_met(
    world: World, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate_, "_ALONE", 1)
    world.write(table, rows(1, 2))
    world.flush(table)

    def other() -> None:
        failpoints.disarm()
        world.write(table, rows(5))
        world.delete(table, [{"k": 1}])

    failpoints.arm("write.ready", other)
    with pytest.raises(DuplicateKey, match=r"\(5\)"):
        world.write(table, rows(1, 5, 6))
    world.write(table, rows(1, v="again"))
    assert {r["k"]: r["v"] for r in world.see(table)} == {1: "again", 2: "v2", 5: "v5"}


def test_other_writers_wait_for_no_reading_of_keys(world: World, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key columns of cold batches are read before the scope's lock is taken."""
    monkeypatch.setattr(locate_, "_ALONE", 1)
    world.write(table, rows(1, 2, 3))
    world.flush(table)
    world.scopes.keys = KeyCache(world.scopes.reader, 1 << 20)
    scope = world.scopes.open(table, None)
    held: list[bool] = []
    read = world.scopes.reader.columns

    def watched(*a: Any, **k: Any) -> pa.Table:
        held.append(scope.lock._is_owned())  # type: ignore[attr-defined]
        return read(*a, **k)

    monkeypatch.setattr(world.scopes.reader, "columns", watched)
    world.write(table, rows(2, 7, v="new"), None, UPDATE)
    assert held and not any(held)


@LAW
@given(st.data(), st.sampled_from([(1,), (2,), (2, 1)]))
def test_hot_rows_found_before_the_lock_are_found_as_if_with_it(data: st.DataObject, key: tuple[int, ...]) -> None:
    """Whatever is added, superseded or deleted between the look and the lock."""
    table = shared_table(key=key)
    keys = st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True)
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        scope = world.scopes.open(table, None)

        def writes(most: int) -> None:
            for chosen in data.draw(st.lists(keys, max_size=most)):
                world.write(table, rows(*chosen), None, UPDATE)
                if data.draw(st.booleans()):
                    world.delete(table, [{c.name: r[c.name] for c in table.schema.key_columns} for r in rows(chosen[0])])

        writes(3)
        probe = Probe.of(key_of(table.schema, rows_of(table, rows(*range(0, 40, 2)), None)))
        hot = scope.state.hot
        ahead = hot.index(table.schema).find(probe, table.schema)
        writes(3)
        with_it = hot.find(probe.ordered, probe.order, probe.columns, table.schema)
        before_it = hot.find(probe.ordered, probe.order, probe.columns, table.schema, ahead)
        world.close()
    assert before_it.tolist() == with_it.tolist()


def test_hot_keys_are_searched_without_the_lock(world: World, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate_, "_ALONE", 1)
    world.write(table, rows(*range(100)))
    scope, held, search = world.scopes.open(table, None), [], HotIndex.find

    def watched(*a: Any) -> Any:
        held.append(scope.lock._is_owned())  # type: ignore[attr-defined]
        return search(*a)

    monkeypatch.setattr(HotIndex, "find", watched)
    monkeypatch.setattr(HotRows, "_candidates", never)
    world.write(table, rows(50, 500, v="new"), None, UPDATE)
    assert held == [False]


def never(*_: object) -> Any:
    raise AssertionError("the whole index was searched with the lock held")


# -- the key cache ------------------------------------------------------------------------------------------------------------


@LAW
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_a_filter_lets_every_key_through_that_is_there(stored: list[int], asked: list[int]) -> None:
    for columns, spread in (([stored, stored + asked], True), ([map(str, stored), map(str, stored + asked)], False)):
        type_ = pa.int64() if spread else pa.utf8()
        filter_ = KeyFilter.of(key_hashes([pa.array(list(columns[0]), type_)]), spread=spread)
        probe = Probe.of([pa.array(list(columns[1]), type_)])
        passed = set(probe.order[filter_.candidates(probe)].tolist())
        assert passed >= set(range(len(stored)))


def test_a_filter_stops_most_of_the_others() -> None:
    texts = pa.array([f"key {i}" for i in range(40_000)])
    filter_ = KeyFilter.of(key_hashes([texts.slice(0, 20_000)]), spread=False)
    assert len(filter_.candidates(Probe.of([texts.slice(20_000)]))) < 1_000
    numbers = KeyFilter.of(key_hashes([pa.array(range(0, 40_000, 2))]), spread=True)
    assert len(numbers.candidates(Probe.of([pa.array(range(1, 40_000, 2))]))) < 2_000


@pytest.mark.parametrize("budget", [1, 900, 1 << 20], ids=["nothing fits", "some fits", "all fits"])
@pytest.mark.parametrize("many", [1, 4_096], ids=["filtered", "searched"])
def test_what_the_cache_holds_changes_no_answer(
    world: World, table: Table, budget: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache_, "_MANY", many)
    live: dict[int, str] = {}
    for i in range(4):
        keys = list(range(i, 40, i + 2))
        world.write(table, rows(*keys, v=f"round {i}"), None, UPDATE)
        live |= dict.fromkeys(keys, f"round {i}")
        world.flush(table)
    world.scopes.keys = KeyCache(world.scopes.reader, budget)
    for _ in range(3):
        found = find(world, table, *range(45))
        assert found.visible.tolist() == [k in live for k in range(45)]
    assert check(world.snapshot(table)).problems == []


def test_new_keys_need_no_more_than_the_hashes(world: World, table: Table) -> None:
    """Where there is room for the hashes alone, an insert of new keys reads no file again."""
    for i in range(4):  # in no order of their numbers, so that the places take memory too
        world.write(table, rows(*(-k if k % 2 else k for k in range(i * 100, i * 100 + 50))))
        world.flush(table)
    reads: list[str] = []
    read = world.scopes.reader.columns
    world.scopes.keys = KeyCache(world.scopes.reader, 4 * 50 * 8 + 250)

    def counted(path: Any, entry: BatchEntry, *a: Any, **k: Any) -> pa.Table:
        reads.append(entry.file)
        return read(path, entry, *a, **k)

    world.scopes.reader.columns = counted  # type: ignore[method-assign]
    find(world, table, *range(-1_000, 1_000, 7))
    assert len(set(reads)) == 4
    before = len(reads)
    assert not find(world, table, *range(10_000, 11_000), *range(-11_000, -10_000)).found.any()
    assert not find(world, table, -999, 60, 160, 260, 360, 999).found.any()
    assert len(reads) == before


# -- positions ----------------------------------------------------------------------------------------------------------------


@LAW
@given(st.data())
def test_by_position_or_by_key_the_same_is_written(data: st.DataObject) -> None:
    """Superseding at positions equals superseding by key, whatever moves the rows between the SELECT and the commit."""
    keys = list(range(8))
    some = st.lists(st.sampled_from(keys), min_size=1, max_size=5, unique=True)
    table = shared_table()
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        model: dict[int, str] = {}
        for step in range(data.draw(st.integers(1, 8))):
            what = data.draw(st.sampled_from(["upsert", "update", "delete", "flush", "compact"]))
            if what == "upsert":
                new = data.draw(some)
                world.write(table, rows(*new, v=f"s{step}"), None, UPDATE)
                model |= dict.fromkeys(new, f"s{step}")
                continue
            if what in ("flush", "compact"):
                move(world, table, what)
                continue
            chosen = [k for k in data.draw(some) if k in model]
            if not chosen:
                continue
            at, seen = positions(world, table, *chosen), head(world, table)
            move(world, table, data.draw(st.sampled_from(["nothing", "flush", "compact", "both"])))
            at_positions(world, table, at, rows(*chosen, v=f"s{step}"), [what == "delete"] * len(chosen), seen)
            for k in chosen:
                model.pop(k) if what == "delete" else model.update({k: f"s{step}"})
        assert {r["k"]: r["v"] for r in world.see(table)} == model
        assert check(world.snapshot(table)).problems == []
        world.close()


def test_positions_of_an_older_head_are_refused(world: World, table: Table) -> None:
    world.write(table, rows(1, 2))
    at, seen = positions(world, table, 1), head(world, table)
    world.write(table, rows(1, v="newer"), None, UPDATE)
    with pytest.raises(HeadMoved):
        at_positions(world, table, at, rows(1, v="late"), None, seen)
    assert {r["k"]: r["v"] for r in world.see(table)} == {1: "newer", 2: "v2"}


def spoil(name: str, value: int) -> Callable[[Positions], Positions]:
    def spoiled(at: Positions) -> Positions:
        fields = {f: getattr(at, f).copy() for f in ("batch", "row", "seq")}
        fields[name][0] = value
        return Positions(at.layout, **fields)

    return spoiled


def doubled(at: Positions) -> Positions:
    return Positions(at.layout, at.batch[[1, 1]], at.row[[1, 1]], at.seq[[1, 1]])


@pytest.mark.parametrize("where", ["hot", "cold"])
@pytest.mark.parametrize(
    "wrong",
    [spoil("seq", 12_345), spoil("seq", 2**62), spoil("row", 99), spoil("batch", 7), doubled],
    ids=["old", "to come", "no such row", "no such batch", "twice"],
)
def test_a_position_that_is_not_that_of_the_live_version_never_commits(
    world: World, table: Table, where: str, wrong: Callable[[Positions], Positions]
) -> None:
    world.write(table, rows(1, 2, 3))
    if where == "cold":
        world.flush(table)
    at, before = positions(world, table, 2, 3), world.see(table)
    spoiled = wrong(at)
    same = all((getattr(at, f)[at.batch >= 0] == getattr(spoiled, f)[at.batch >= 0]).all() for f in ("row", "batch"))
    if where == "hot" and same and (at.seq == spoiled.seq).all():
        return  # the row number of a hot row means nothing
    with pytest.raises(InternalError, match="nothing was written"):
        at_positions(world, table, spoiled, rows(2, 3, v="new"))
    assert world.see(table) == before


def test_a_row_that_is_dead_already_is_no_position(world: World, table: Table) -> None:
    world.write(table, rows(1, 2))
    world.flush(table)
    at = positions(world, table, 1)
    world.write(table, rows(1, v="newer"), None, UPDATE)
    with pytest.raises(InternalError):
        at_positions(world, table, at, rows(1, v="wrong"))
    hot = positions(world, table, 1)
    world.write(table, rows(1, v="newest"), None, UPDATE)
    with pytest.raises(InternalError):
        at_positions(world, table, hot, rows(1, v="wrong"))
    assert {r["k"]: r["v"] for r in world.see(table)} == {1: "newest", 2: "v2"}


@pytest.mark.parametrize("how", ["flush", "compact"])
@pytest.mark.parametrize("key", [(1,), (2,), (2, 1)])
def test_keys_of_a_new_batch_are_kept_where_large_writes_look_for_keys(how: str, key: tuple[int, ...]) -> None:
    table = shared_table(key=key)
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        world.scopes.open(table, None).sought = True
        for first in (0, 30):
            world.write(table, rows(*(k * 7 % 60 for k in range(first, first + 30))))
            world.flush(table)
        if how == "compact":
            move(world, table, "compact")
        asked = Probe.of(key_of(table.schema, rows_of(table, rows(*range(0, 90, 3)), None)))
        scope, kept = world.scopes.open(table, None), world.scopes.keys
        fresh = KeyCache(world.scopes.reader, 1 << 20)
        read, seen = world.scopes.reader.columns, []
        for entry in scope.state.manifest.batches:
            world.scopes.reader.columns = lambda *a, **k: seen.append(a) or read(*a, **k)  # type: ignore[func-returns-value,method-assign]
            found = sorted(zip(*(a.tolist() for a in kept.matches(scope.folder, entry, table.schema, asked)), strict=True))
            world.scopes.reader.columns = read  # type: ignore[method-assign]
            again = fresh.matches(scope.folder, entry, table.schema, asked)
            assert found == sorted(zip(*(a.tolist() for a in again), strict=True))
        assert found and not seen
        world.close()


def test_keys_of_a_new_batch_are_not_kept_where_nobody_looks(world: World, table: Table) -> None:
    world.write(table, rows(*range(10)))
    world.flush(table)
    assert not world.scopes.keys._present


def test_keys_of_a_new_batch_take_no_room_from_others(world: World, table: Table) -> None:
    scope = world.scopes.open(table, None)
    world.write(table, rows(*range(50)))
    world.flush(table)
    world.scopes.keys = KeyCache(world.scopes.reader, 700)
    find(world, table, 3, 5)
    scope.sought = True
    world.write(table, rows(*range(50, 100)))
    world.flush(table)
    kept = world.scopes.keys
    assert [uuid for uuid, _ in kept._present] == [scope.state.manifest.batches[0].uuid]
    assert find(world, table, 3, 77, 200).visible.tolist() == [True, True, False]
