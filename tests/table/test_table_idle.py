"""Scopes that nobody uses are let go of, and nobody notices.

memory     at most `max_open` scopes nobody uses stay; what was closed is loaded again from log and manifest
one        of a scope there is never more than one in memory, whoever opens it while it is being closed
kept       what only memory knows keeps a scope open: layouts of older readers, rows that have left, a fence
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from table_world import World, plain, seen, table_of

from flightkalam.errors import Conflict, DuplicateKey, Fenced
from flightkalam.model.schema import Column, TableKind
from flightkalam.model.types import BIGINT, INT, TEXT
from flightkalam.table.mutation import OnConflict
from flightkalam.table.snapshot import Snapshot

U = table_of(2, "u", TableKind.USER, (Column(1, "k", BIGINT, True), Column(2, "v", TEXT), Column(3, "n", INT)), (1,))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, {U.id: U})
    yield made
    made.close()


def put(world: World, owner: str, k: int, n: int = 0) -> None:
    world.write(U, [{"k": k, "v": owner, "n": n}], owner, OnConflict.UPDATE)


def close_all(world: World) -> int:
    return world.scopes.release([s.scope for s in world.scopes.opened()])


def test_a_closed_scope_leaves_nothing_in_memory(world: World) -> None:
    put(world, "ann", 1)
    scope = weakref.ref(world.scopes.open(U, "ann"))
    hot = weakref.ref(world.scopes.open(U, "ann").state.hot)
    assert close_all(world) == 1
    gc.collect()
    assert scope() is None and hot() is None and world.scopes.opened() == []


def test_who_still_has_it_and_who_opens_it_have_the_same(world: World) -> None:
    put(world, "ann", 1)
    held = world.scopes.open(U, "ann")
    assert close_all(world) == 1
    put(world, "ann", 2)
    assert world.scopes.open(U, "ann") is held
    assert [r["k"] for r in world.see(U, "ann")] == [1, 2]


def test_positions_from_before_do_not_fit_what_was_opened_again(world: World) -> None:
    put(world, "ann", 1)
    before = world.scopes.open(U, "ann").state.layout
    close_all(world)
    gc.collect()
    assert world.scopes.open(U, "ann").state.layout != before


def test_a_reader_of_an_older_layout_keeps_the_scope(world: World) -> None:
    put(world, "ann", 1)
    with world.door.pinned() as watermark:
        put(world, "ann", 2)
        world.flush(U, "ann")
        assert close_all(world) == 0
        rows = plain(world.see(U, "ann"))
        assert len(rows) == 2
        assert [e.number for e in Snapshot.take(world.scopes, U, "ann", watermark).state.manifest.batches] == []
    assert close_all(world) == 1
    assert plain(world.see(U, "ann")) == rows


def test_a_fenced_scope_stays_fenced(world: World) -> None:
    put(world, "ann", 1)
    world.scopes.open(U, "ann").fenced = "another server serves it"
    assert close_all(world) == 0
    with pytest.raises(Fenced, match="another server"):
        world.scopes.open(U, "ann")


def test_hot_rows_of_closed_scopes_are_told_to_the_scheduler(world: World) -> None:
    put(world, "ann", 1)
    put(world, "ann", 2)
    put(world, "bob", 1)
    world.flush(U, "bob")
    (first, _) = [r["_seq"] for r in world.see(U, "ann")]
    assert close_all(world) == 2
    gc.collect()
    assert [(s.owner, rows, first_seq) for s, rows, first_seq in world.scopes.resting()] == [("ann", 2, first)]
    world.flush(U, "ann")
    assert world.scopes.resting() == []


def test_rows_written_while_it_is_closed_are_told_too(world: World) -> None:
    """The writer has the scope and not yet its lock."""
    held = world.scopes.open(U, "ann")
    close_all(world)
    assert world.scopes.resting() == []
    put(world, "ann", 1)
    del held
    assert close_all(world) == 1
    assert [rows for _, rows, _ in world.scopes.resting()] == [1]


def test_a_dropped_table_leaves_nothing_to_flush(world: World) -> None:
    put(world, "ann", 1)
    close_all(world)
    world.scopes.forget(U.id)
    assert world.scopes.resting() == []


def test_writers_openers_and_closers_race(world: World) -> None:
    """Each key is written once, by whoever comes first; a second scope in memory would let it in twice, or lose it."""
    owners, stop, errors, won = ["a", "b", "c"], threading.Event(), [], []

    def write(mine: int) -> None:
        try:
            for k in range(25):
                for owner in owners:
                    try:
                        world.write(U, [{"k": k, "v": f"{mine}", "n": mine}], owner)
                        won.append((owner, k))
                    except DuplicateKey:
                        continue
        except BaseException as e:
            errors.append(e)

    def close() -> None:
        while not stop.is_set():
            close_all(world)

    def flush() -> None:
        try:
            while not stop.wait(0.02):
                for owner in owners:
                    world.flush(U, owner)
        except BaseException as e:
            errors.append(e)

    def read() -> None:
        try:
            while not stop.wait(0.001):
                with world.door.pinned() as watermark:
                    rows = seen(Snapshot.take(world.scopes, U, "a", watermark))
                    assert len({r["k"] for r in rows}) == len(rows)
        except Conflict:
            errors.append(AssertionError("a pinned reader has lost its layout"))
        except BaseException as e:
            errors.append(e)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    others = [threading.Thread(target=t) for t in (close, close, flush, read)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    for thread in others:
        thread.join(60)
    assert errors == []
    assert sorted(won) == sorted((o, k) for o in owners for k in range(25))
    for owner in owners:
        assert sorted(r["k"] for r in world.see(U, owner)) == list(range(25))
