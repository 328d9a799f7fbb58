"""Threads at the doors: one key has one winner, commit order is `_seq` order, readers neither wait nor see half of anything.

Nothing here depends on timing to pass; what may overlap is made to overlap by a failpoint, or happens often enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from table_world import Row, World, keys_of, newest_versions, plain, seen, seqs_of, shared_table

from flightkalam import failpoints
from flightkalam.clock import SystemClock
from flightkalam.errors import DuplicateKey
from flightkalam.hot.store import ids_of
from flightkalam.model.schema import SEQ, Table
from flightkalam.table.check import check
from flightkalam.table.door import Pin
from flightkalam.table.mutation import OnConflict
from flightkalam.table.snapshot import Snapshot

UPDATE = OnConflict.UPDATE


@pytest.fixture
def table(world: World) -> Table:
    world.clock = SystemClock()
    return world.tables[1]


def run(*jobs: Callable[[], None]) -> None:
    """Run jobs in threads that start together; what one raises is raised here."""
    gate = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            gate.wait(10)
            job()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def row(k: int, n: int = 0) -> Row:
    return {"k": k, "v": f"v{n}", "n": n}


def in_step(world: World, table: Table) -> None:
    """By the rule, by CHECK and by a scan the same rows."""
    assert newest_versions(world, table) == world.see(table)
    assert check(world.snapshot(table)).problems == []


@pytest.mark.parametrize("flushed", [False, True])
def test_of_many_inserts_of_one_key_one_wins(world: World, table: Table, flushed: bool) -> None:
    if flushed:  # the key was there, and was deleted
        world.write(table, [row(1)])
        world.delete(table, [{"k": 1}])
        world.flush(table)
    won: list[int] = []
    lost: list[int] = []

    def insert(n: int) -> None:
        try:
            world.write(table, [row(1, n)])
            won.append(n)
        except DuplicateKey:
            lost.append(n)

    run(*[lambda n=n: insert(n) for n in range(10)])
    assert len(won) == 1 and len(lost) == 9
    assert plain(world.see(table)) == [row(1, won[0])]
    in_step(world, table)


def test_a_loser_is_told_only_when_the_winner_is_durable(world: World, table: Table) -> None:
    """A refusal depends on the head, so it waits for the head's sync."""
    world.write(table, [row(0)])
    real, gate = world.store._db, threading.Event()

    class Slow:
        def flush_wal(self, sync: bool) -> None:
            gate.wait(10)
            real.flush_wal(sync)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    world.store._db = Slow()
    winner = threading.Thread(target=lambda: world.write(table, [row(1)]))
    winner.start()
    while world.door.store.appended == world.store._synced:
        time.sleep(0.001)
    told = threading.Event()

    def lose() -> None:
        with pytest.raises(DuplicateKey):
            world.write(table, [row(1)])
        told.set()

    loser = threading.Thread(target=lose)
    loser.start()
    assert not told.wait(0.1)
    gate.set()
    assert told.wait(5)
    winner.join()
    loser.join()


def test_distinct_keys_are_all_there_in_the_order_of_their_commits(world: World, table: Table) -> None:
    """T-5."""
    acknowledged: list[tuple[int, int]] = []  # (k, _seq), as each thread heard it
    lock = threading.Lock()

    def insert(thread: int) -> None:
        last = 0
        for i in range(25):
            k = thread * 100 + i
            (seq,) = seqs_of(world.write(table, [row(k)]))
            assert seq > last
            last = seq
            with lock:
                acknowledged.append((k, seq))

    run(*[lambda t=t: insert(t) for t in range(8)])
    rows = world.see(table)
    assert keys_of(rows) == sorted(k for k, _ in acknowledged)
    assert {(r["k"], r[SEQ]) for r in rows} == set(acknowledged)
    logged = [int(seq) for loaded in world.log.entries(world.scope(table)) for seq in ids_of(loaded.entry)]
    assert logged == sorted(logged) == sorted(seq for _, seq in acknowledged)
    in_step(world, table)


def test_a_reader_never_sees_a_later_row_without_an_earlier_one(world: World, table: Table) -> None:
    """T-5: what is visible is a beginning of the commit order, at every moment."""
    stop = threading.Event()
    n_threads, each = 4, 40

    def insert(thread: int) -> None:
        for i in range(each):
            world.write(table, [row(thread * 1000 + i)])

    def read() -> None:
        before: list[int] = []
        while not stop.is_set():
            with world.door.pinned() as watermark:
                now = [r[SEQ] for r in seen(world.snapshot(table, None, watermark))]
            assert now[: len(before)] == before, "a hole was filled behind a reader"
            assert not now or now[-1] <= watermark
            before = now

    writers = [lambda t=t: insert(t) for t in range(n_threads)]
    done = [0]

    def writer(job: Callable[[], None]) -> None:
        job()
        done[0] += 1
        if done[0] == n_threads:
            stop.set()

    run(read, *[lambda w=w: writer(w) for w in writers])
    assert len(world.see(table)) == n_threads * each


def test_a_reader_sees_its_own_acknowledged_write(world: World, table: Table) -> None:
    def write_and_look(thread: int) -> None:
        for i in range(30):
            k = thread * 100 + i
            world.write(table, [row(k)])
            assert k in keys_of(world.see(table))

    run(*[lambda t=t: write_and_look(t) for t in range(4)])


def test_increments_are_not_lost_between_scopes_locks(world: World, table: Table) -> None:
    """Upserts of one key from many threads: every version marks exactly the one before it."""

    def upsert(thread: int) -> None:
        for i in range(20):
            world.write(table, [row(1, thread * 100 + i), row(2, thread * 100 + i)], None, UPDATE)

    run(*[lambda t=t: upsert(t) for t in range(5)])
    assert keys_of(world.see(table)) == [1, 2]
    state = world.scopes.open(table, None).state
    assert int((state.hot.superseded_by.values() == 0).sum()) == 2
    in_step(world, table)


# -- flush --------------------------------------------------------------------------------------------------------------


def test_readers_during_flushes_see_every_row_once(world: World, table: Table) -> None:
    """T-11, T-13: at every moment each key exactly once, hot or cold."""
    n = 60
    world.write(table, [row(k) for k in range(n)])
    stop = threading.Event()
    reads = [0]

    def read() -> None:
        while not stop.is_set():
            with world.door.pinned() as watermark:
                rows = seen(world.snapshot(table, None, watermark))
            assert keys_of(rows) == list(range(n))
            reads[0] += 1

    def flush() -> None:
        try:
            for i in range(12):
                world.write(table, [row(k, i) for k in range(i, n, 7)], None, UPDATE)
                world.flush(table)
        finally:
            stop.set()

    run(read, read, flush)
    assert reads[0] > 0
    in_step(world, table)


def test_writers_during_flushes_win_over_what_they_write(world: World, table: Table) -> None:
    """T-7: a version that came while its predecessor was being exported marks it at its new place."""
    stop = threading.Event()
    last: dict[int, int] = {}

    def upsert(thread: int) -> None:
        i = 0
        while not stop.is_set():
            i += 1
            keys = [thread * 10 + (i + j) % 10 for j in range(3)]
            world.write(table, [row(k, i) for k in keys], None, UPDATE)
            last.update(dict.fromkeys(keys, i))

    def flush() -> None:
        try:
            for _ in range(15):
                world.flush(table)
        finally:
            stop.set()

    run(*[lambda t=t: upsert(t) for t in range(3)], flush)
    assert {r["k"]: r["n"] for r in world.see(table)} == last
    in_step(world, table)
    world.reopen()
    assert {r["k"]: r["n"] for r in world.see(table)} == last
    in_step(world, table)


PLACES = ["flush.batch_written", "flush.vectors_written", "flush.committed", "manifest.before_publish", "flush.before_trim"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reopened", [False, True])
def test_a_write_at_any_moment_of_a_flush_is_kept(world: World, table: Table, place: str, reopened: bool) -> None:
    """T-7: an update, a delete and a re-insert of rows that are just moving, hot ones and cold ones."""
    world.write(table, [row(k) for k in range(8)])
    world.flush(table)
    world.write(table, [row(k, 1) for k in (0, 1, 8, 9, 10)], None, UPDATE)
    readers: list[tuple[Pin, list[Row]]] = []

    def begin_reading() -> None:
        pin = world.door.pin()
        readers.append((pin, seen(world.snapshot(table, None, pin.watermark), tombstones=True)))

    def interfere() -> None:
        if len(readers) > 1:
            return
        world.write(table, [row(8, 2), row(0, 2), row(2, 2), row(11, 1), row(12, 1)], None, UPDATE)
        begin_reading()
        world.delete(table, [{"k": 9}, {"k": 1}, {"k": 3}, {"k": 12}])
        begin_reading()
        world.write(table, [row(9, 3), row(11, 3)], None, UPDATE)
        with pytest.raises(DuplicateKey):
            world.write(table, [row(10, 4)])

    begin_reading()
    failpoints.arm(place, interfere)
    world.flush(table)
    for _ in range(2):  # also after the next layout
        assert len(readers) == 3
        for pin, expected_rows in readers:
            assert seen(Snapshot.take(world.scopes, table, None, pin.watermark), tombstones=True) == expected_rows
        in_step(world, table)
        if reopened:
            break
        world.flush(table)
    for pin, _ in readers:
        world.door.unpin(pin)
    if reopened:
        world.reopen()
    expected = {0: 2, 2: 2, 4: 0, 5: 0, 6: 0, 7: 0, 8: 2, 9: 3, 10: 1, 11: 3}
    assert {r["k"]: r["n"] for r in world.see(table)} == expected
    in_step(world, table)
    with pytest.raises(DuplicateKey):
        world.write(table, [row(8)])
    world.flush(table)
    assert {r["k"]: r["n"] for r in world.see(table)} == expected
    in_step(world, table)


def test_a_version_that_is_not_yet_durable_supersedes_nothing_for_a_flush(world: World, table: Table) -> None:
    """The row that it supersedes is still what readers see, so it is settled like any other, and marked at its new place."""
    world.write(table, [row(1), row(2)])
    before = world.see(table)
    real, gate = world.store._db, threading.Event()

    class Slow:
        def flush_wal(self, sync: bool) -> None:
            gate.wait(10)
            real.flush_wal(sync)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    world.store._db = Slow()
    writer = threading.Thread(target=lambda: world.write(table, [row(1, 7)], None, UPDATE))
    writer.start()
    scope = world.scopes.open(table, None)
    while world.store.appended == world.store._synced:
        time.sleep(0.001)
    flusher = threading.Thread(target=lambda: world.flush(table))
    flusher.start()
    while scope.state.layout == 0:
        time.sleep(0.001)
    assert seen(world.snapshot(table)) == before
    gate.set()
    writer.join(10)
    flusher.join(10)
    assert {r["k"]: r["n"] for r in world.see(table)} == {1: 7, 2: 0}
    in_step(world, table)
    world.reopen()
    assert {r["k"]: r["n"] for r in world.see(table)} == {1: 7, 2: 0}
    in_step(world, table)


def test_a_writer_does_not_wait_for_a_flush(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    exporting, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        exporting.set()
        assert go_on.wait(10)

    failpoints.arm("flush.batch_written", hold)
    flusher = threading.Thread(target=lambda: world.flush(table))
    flusher.start()
    assert exporting.wait(10)
    world.write(table, [row(2)])
    assert keys_of(world.see(table)) == [1, 2]
    go_on.set()
    flusher.join(10)
    assert keys_of(world.see(table)) == [1, 2]


def test_two_flushes_of_one_scope_follow_one_another(world: World, table: Table) -> None:
    """T-11."""
    world.write(table, [row(k) for k in range(5)])
    run(*[lambda: world.flush(table) for _ in range(4)])
    manifest = world.manifests.get(world.scope(table))
    assert [b.rows for b in manifest.batches] == [5]
    in_step(world, table)


def test_scopes_of_many_threads_open_once(tmp_path: Path) -> None:
    table = shared_table()
    world = World(tmp_path, {1: table}, SystemClock())
    world.write(table, [row(1)])
    world.reopen()
    opened: list[object] = []
    run(*[lambda: opened.append(world.scopes.open(table, None)) for _ in range(8)])
    assert len(set(map(id, opened))) == 1
    world.close()
