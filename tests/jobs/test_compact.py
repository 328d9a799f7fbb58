"""Compaction: fewer batches, the same rows; what goes can be seen by nobody, and cannot come back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compact_support import (
    HOUR_US,
    agree,
    agree_with_files,
    compactor,
    files,
    flushed,
    footer,
    later,
    manifest,
    named,
    rebuilt,
    remove,
    upsert,
)
from pyroaring import BitMap
from table_world import World, keys_of, seen

from flightkalam import failpoints
from flightkalam.cold import deletion_vectors
from flightkalam.cold.manifest import ManifestEdit
from flightkalam.errors import Cancelled, DataCorrupted, InternalError
from flightkalam.jobs.compact import NOTHING
from flightkalam.jobs.compact_policy import Want
from flightkalam.jobs.control import Control
from flightkalam.model.schema import SEQ, Table
from flightkalam.storage.kv import Batch
from flightkalam.table.mutation import OnConflict
from flightkalam.table.scopes import ScopeState


@pytest.fixture
def table(world: World) -> Table:
    return world.tables[1]


def once(action: Callable[[], object]) -> Callable[[], None]:
    """`action` at the first hit only."""
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act


# -- what stays and what goes -----------------------------------------------------------------------------------------


def test_small_batches_become_one_run_that_does_not_overlap(world: World, table: Table) -> None:
    for i in range(5):
        flushed(world, table, range(i, 50, 5), "a")
    before = world.see(table)
    done = compactor(world, rows_per_batch=21).compact(table, None)
    batches = manifest(world, table).batches
    assert [b.rows for b in batches] == [21, 21, 8]
    assert (done.batches_in, done.batches_out, done.rows_in, done.rows_out) == (5, 3, 50, 50)
    ranges = [(b.bounds[1].low, b.bounds[1].high) for b in batches]
    assert ranges == [(0, 20), (21, 41), (42, 49)]
    assert world.see(table) == before
    agree_with_files(world, table)
    assert files(world, table) == named(world, table)


def test_superseded_versions_go_and_their_files_with_them(world: World, table: Table) -> None:
    flushed(world, table, range(10), "secret")
    flushed(world, table, range(10), "b")
    done = compactor(world).compact(table, None)
    assert (done.dropped_rows, done.rows_out) == (10, 10)
    agree_with_files(world, table)
    assert not any(b"secret" in p.read_bytes() for p in world.folder(table).iterdir())


def test_a_row_that_only_a_hot_version_supersedes_is_carried_over(world: World, table: Table) -> None:
    """The flush that makes it superseded in the files has not come yet."""
    flushed(world, table, range(6), "a")
    flushed(world, table, range(6, 9), "a")
    upsert(world, table, [2, 7], "b")
    remove(world, table, [3])
    before = world.see(table)
    assert compactor(world).compact(table, None).rows_out == 9
    assert world.see(table) == before
    agree(world, table)
    world.reopen()
    assert world.see(table) == before
    world.flush(table)
    agree_with_files(world, table)


def test_a_newer_version_in_a_batch_that_is_not_merged_is_proof_enough(world: World, table: Table) -> None:
    flushed(world, table, range(30), "a")
    flushed(world, table, range(10, 40), "b")
    run = compactor(world, rows_per_batch=40)
    chosen = [b.number for b in manifest(world, table).batches if b.dead is not None]
    assert chosen == [0]
    assert run.compact(table, None, Want.ERASE).dropped_rows == 20
    assert [b.number for b in manifest(world, table).batches] == [1, 2]
    agree_with_files(world, table)


def test_nothing_to_gain_is_nothing_done(world: World, table: Table) -> None:
    assert compactor(world).compact(table, None) == NOTHING
    flushed(world, table, range(9), "a")
    version = manifest(world, table).version
    assert compactor(world).compact(table, None) == NOTHING
    assert manifest(world, table).version == version
    flushed(world, table, range(9, 12), "a")
    assert compactor(world).compact(table, None) != NOTHING
    assert compactor(world).compact(table, None) == NOTHING


# -- tombstones -------------------------------------------------------------------------------------------------------


def test_a_tombstone_stays_until_its_retention_has_passed(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    remove(world, table, [1, 2])
    world.flush(table)
    run = compactor(world)
    assert run.compact(table, None).dropped_tombstones == 0
    assert manifest(world, table).batches[0].tombstones == 2
    later(world, 167 * HOUR_US)
    assert run.compact(table, None) == NOTHING
    later(world, HOUR_US)
    assert run.compact(table, None).dropped_tombstones == 2
    assert manifest(world, table).batches[0].tombstones == 0
    agree_with_files(world, table)


def test_a_tombstone_stays_while_another_batch_holds_its_key(world: World, table: Table) -> None:
    """T-18: even a dead older version, which a rebuild from the files would bring back."""
    flushed(world, table, range(20), "a")
    flushed(world, table, range(30, 33), "a")
    remove(world, table, [3, 30])
    world.flush(table)
    later(world)
    run = compactor(world, rows_per_batch=8)
    world.scopes.open(table, None).state.manifest.batches[0]
    small = replace(run._settings, policy=replace(run.policy, small=1))
    run._settings = small
    done = run.compact(table, None, Want.AUTO)  # the two small batches, not the big one
    assert done.batches_in == 2 and done.dropped_tombstones == 1
    assert keys_of(rebuilt(world.folder(table), table).values()) == [k for k in range(20) if k != 3] + [31, 32]
    agree_with_files(world, table)
    assert run.compact(table, None, Want.ALL).dropped_tombstones == 1
    agree_with_files(world, table)


def test_a_tombstone_stays_for_a_reader_that_began_before_it(world: World, table: Table) -> None:
    """An open transaction must find it, or it would overwrite a delete that it has not seen."""
    flushed(world, table, range(5), "a")
    pin = world.door.pin()
    remove(world, table, [1])
    world.flush(table)
    later(world)
    run = compactor(world)
    assert run.compact(table, None, Want.ERASE).dropped_tombstones == 0
    world.door.unpin(pin)
    assert run.compact(table, None, Want.ERASE).dropped_tombstones == 1


def test_a_deleted_key_can_be_inserted_while_its_tombstone_goes(world: World, table: Table) -> None:
    """T-17: the insert marks the tombstone, which is no longer there when the compaction is installed."""
    flushed(world, table, range(5), "a")
    remove(world, table, [1, 2])
    world.flush(table)
    later(world)
    failpoints.arm("compact.chunk_merged", once(lambda: world.write(table, [{"k": 1, "v": "again"}])))
    assert compactor(world).compact(table, None).dropped_tombstones == 2
    agree(world, table)
    world.reopen()
    agree(world, table)
    world.flush(table)
    assert keys_of(world.see(table)) == [0, 1, 3, 4]
    agree_with_files(world, table)


def test_a_tombstone_that_was_superseded_goes_at_once(world: World, table: Table) -> None:
    flushed(world, table, range(3), "a")
    remove(world, table, [1])
    world.flush(table)
    flushed(world, table, [1], "b")
    done = compactor(world).compact(table, None)
    assert (done.dropped_rows, done.dropped_tombstones, done.rows_out) == (2, 0, 3)
    agree_with_files(world, table)


# -- readers ----------------------------------------------------------------------------------------------------------


def test_a_reader_keeps_its_layout_and_its_files_to_the_end(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    remove(world, table, [1, 2])
    flushed(world, table, [3], "b")
    later(world)
    pin = world.door.pin()
    first = world.snapshot(table, watermark=pin.watermark)
    expected = seen(first, tombstones=True)
    old = named(world, table)
    assert compactor(world).compact(table, None).dropped_tombstones == 2
    # Both what it had begun with and what it opens now show what was there when it began, tombstones and all.
    assert seen(first, tombstones=True) == expected
    assert seen(world.snapshot(table, watermark=pin.watermark), tombstones=True) == expected
    assert len(seen(world.snapshot(table), tombstones=True)) == len(expected) - 2
    assert old <= files(world, table)
    world.door.unpin(pin)
    assert files(world, table) == named(world, table)
    assert keys_of(world.see(table)) == [0, *range(3, 9)]


def test_a_reader_that_began_later_does_not_hold_the_files(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9), "b")
    old, late = world.door.pin(), []
    failpoints.arm("compact.published", lambda: late.append(world.door.pin()))
    compactor(world).compact(table, None)
    world.door.unpin(old)
    assert files(world, table) > named(world, table)  # this one began before the files were let go
    world.door.unpin(late[0])
    later_reader = world.door.pin()
    assert files(world, table) == named(world, table)
    world.door.unpin(later_reader)


def test_layouts_of_the_past_are_forgotten(world: World, table: Table) -> None:
    for i in range(4):
        flushed(world, table, range(9), f"{i}")
        compactor(world).compact(table, None)
        compactor(world).compact(table, None)
    assert len(world.scopes.open(table, None).past) <= 1


# -- writers at the same time -----------------------------------------------------------------------------------------


def test_rows_that_change_while_they_are_merged_are_superseded_where_they_are_now(world: World, table: Table) -> None:
    """T-10."""
    for i in range(8):
        flushed(world, table, range(i, 40, 8), "a")
    upsert(world, table, [4, 5], "b")  # marked before the compaction begins
    merged = 0

    def write() -> None:
        nonlocal merged
        upsert(world, table, [merged, 39 - merged], f"c{merged}-")
        remove(world, table, [10 + merged])
        merged += 1

    failpoints.arm("compact.chunk_merged", write)
    compactor(world, rows_per_batch=11).compact(table, None)
    assert merged > 3 and len(manifest(world, table).batches) == 4
    expected = world.see(table)
    agree(world, table)
    world.reopen()  # the marks in the log were translated too
    assert world.see(table) == expected
    agree(world, table)
    world.flush(table)
    assert [(r["k"], r["v"]) for r in world.see(table)] == [(r["k"], r["v"]) for r in expected]
    agree_with_files(world, table)


def test_rows_that_change_just_before_the_install_are_too(world: World, table: Table) -> None:
    """T-10: after the log was read without a lock, and before the lock is taken."""
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9, 12), "a")
    upsert(world, table, [1], "b")
    failpoints.arm("compact.before_install", once(lambda: upsert(world, table, [1, 2, 10], "c")))
    compactor(world).compact(table, None)
    expected = world.see(table)
    assert len(expected) == 12
    agree(world, table)
    world.reopen()
    assert world.see(table) == expected
    world.flush(table)
    agree_with_files(world, table)


def test_a_flush_waits_for_the_compaction_and_a_writer_does_not(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9), "b")
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go_on.wait(20)

    failpoints.arm("compact.chunk_merged", once(hold))
    compaction = threading.Thread(target=lambda: compactor(world).compact(table, None))
    compaction.start()
    assert reached.wait(20)
    upsert(world, table, range(5), "c")
    flush = threading.Thread(target=lambda: world.flush(table))
    flush.start()
    remove(world, table, [8])
    flush.join(0.05)
    assert flush.is_alive()
    go_on.set()
    compaction.join(20)
    flush.join(20)
    world.flush(table)
    assert {r["k"]: r["v"] for r in world.see(table)} == {k: f"c{k}" if k < 5 else f"b{k}" for k in range(8)}
    agree_with_files(world, table)


def test_writers_flushes_and_compactions_at_once(world: World, table: Table) -> None:
    stop, errors = threading.Event(), []

    def guarded(work: Callable[[np.random.Generator], object], seed: int) -> threading.Thread:
        chance = np.random.default_rng(seed)

        def run() -> None:
            try:
                while not stop.is_set():
                    work(chance)
            except BaseException as e:
                errors.append(e)

        return threading.Thread(target=run)

    run = compactor(world, rows_per_batch=16)
    workers = [guarded(lambda c: upsert(world, table, set(c.integers(0, 60, 9).tolist()), "w"), s) for s in (1, 2)]
    workers += [guarded(lambda c: remove(world, table, set(c.integers(0, 60, 5).tolist())), 3)]
    workers += [guarded(lambda c: world.flush(table), 4), guarded(lambda c: run.compact(table, None, Want.ERASE), 5)]
    for w in workers:
        w.start()
    for _ in range(40):
        with world.door.pinned() as watermark:
            first = seen(world.snapshot(table, watermark=watermark))
            assert len({r["k"] for r in first}) == len(first)
            assert seen(world.snapshot(table, watermark=watermark)) == first
    stop.set()
    for w in workers:
        w.join(30)
    assert errors == []
    agree(world, table)
    world.flush(table)
    run.compact(table, None, Want.ERASE)
    agree_with_files(world, table)
    assert files(world, table) == named(world, table)


# -- what must not come back ------------------------------------------------------------------------------------------


def test_old_files_that_come_back_bring_no_row_back(world: World, table: Table, tmp_path: Path) -> None:
    """T-44: a tombstone's file is gone, the older version's file lies there again."""
    folder, kept = world.folder(table), tmp_path / "kept"
    flushed(world, table, range(9), "a")
    remove(world, table, range(5))
    world.flush(table)
    later(world)
    shutil.copytree(folder, kept)
    assert compactor(world).compact(table, None).dropped_tombstones == 5
    for name in ("batch-0.parquet", "batch-1.parquet"):
        shutil.copy(kept / name, folder / name)
    assert keys_of(rebuilt(folder, table).values()) == [5, 6, 7, 8]
    # The next compaction still names them, since they exist; one after they have gone does not.
    flushed(world, table, [9], "a")
    compactor(world).compact(table, None)
    last = manifest(world, table).batches[-1]
    assert footer(folder, last.file).replaces == (0, 1, 2, 3)
    assert keys_of(rebuilt(folder, table).values()) == [5, 6, 7, 8, 9]
    for name in ("batch-0.parquet", "batch-1.parquet"):
        (folder / name).unlink()
    flushed(world, table, [10], "a")
    compactor(world).compact(table, None)
    last = manifest(world, table).batches[-1]
    assert footer(folder, last.file).replaces == (4, 5)


def test_only_the_last_batch_of_a_run_replaces_anything(world: World, table: Table) -> None:
    """A run that was cut short must not count for the whole."""
    for i in range(5):
        flushed(world, table, range(i, 50, 5), "a")
    compactor(world, rows_per_batch=21).compact(table, None)
    batches = manifest(world, table).batches
    assert [footer(world.folder(table), b.file).replaces for b in batches] == [(), (), (0, 1, 2, 3, 4)]


def test_when_no_row_is_left_an_empty_batch_says_what_it_replaces(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    remove(world, table, range(9))
    world.flush(table)
    later(world)
    done = compactor(world).compact(table, None)
    assert (done.rows_out, done.batches_out, done.dropped_rows, done.dropped_tombstones) == (0, 1, 9, 9)
    (batch,) = manifest(world, table).batches
    assert (batch.rows, batch.number) == (0, 2)
    assert footer(world.folder(table), batch.file).replaces == (0, 1)
    assert world.see(table) == []
    agree_with_files(world, table)
    world.reopen()
    assert world.see(table) == []
    # Keys are free again, and numbers go on.
    world.write(table, [{"k": k} for k in range(3)], mode=OnConflict.ERROR)
    world.flush(table)
    assert [b.number for b in manifest(world, table).batches] == [2, 3]
    agree_with_files(world, table)
    compactor(world).compact(table, None)
    assert [b.number for b in manifest(world, table).batches] == [4]
    agree_with_files(world, table)


def test_batch_numbers_are_never_used_twice(world: World, table: Table) -> None:
    used: list[int] = []
    for i in range(6):
        flushed(world, table, range(i, i + 5), f"{i}")
        used.append(max(b.number for b in manifest(world, table).batches))
        compactor(world, rows_per_batch=4).compact(table, None)
        fresh = [b.number for b in manifest(world, table).batches if b.number > used[-1]]
        assert all(n > max(used) for n in fresh)
        used += fresh
    assert len(set(used)) == len(used)


# -- contradictions ---------------------------------------------------------------------------------------------------


def revise(world: World, table: Table, vectors: dict[int, BitMap]) -> None:
    """Commit other deletion vectors, as no flush would write them."""
    scope = world.scopes.open(table, None)
    old = scope.state.manifest
    refs = deletion_vectors.write(scope.folder, old.version + 1, {n: v for n, v in vectors.items() if v})
    new = ManifestEdit(vectors=refs).apply(old, world.clock.now_us())
    batches = tuple(replace(b, dead=refs.get(b.number)) if b.number in vectors else b for b in new.batches)
    new = replace(new, batches=batches)
    batch = Batch()
    entry = world.manifests.stage(batch, new, scope.folder)
    world.store.commit(batch)
    world.manifests.committed(entry)
    scope.state = ScopeState(scope.state.layout + 1, new, scope.state.hot)


def test_a_vector_that_knows_less_than_the_versions_stops_the_job(world: World, table: Table) -> None:
    flushed(world, table, range(5), "a")
    flushed(world, table, [2, 3], "b")
    revise(world, table, {0: BitMap([2])})  # row 3 is superseded too
    before, there = manifest(world, table), files(world, table)
    with pytest.raises(DataCorrupted, match=r'"main.t" \(shared\): row 3 of batch-0.parquet'):
        compactor(world).compact(table, None)
    assert manifest(world, table) == before
    assert files(world, table) == there


def test_a_vector_that_knows_more_than_the_versions_is_believed_and_counted(world: World, table: Table) -> None:
    """A dead mark without a newer version: the row stays in the file, and stays dead."""
    flushed(world, table, range(5), "a")
    flushed(world, table, range(5, 10), "a")
    revise(world, table, {0: BitMap([1, 4]), 1: BitMap([0])})
    before = world.see(table)
    done = compactor(world, rows_per_batch=4).compact(table, None, Want.ERASE)
    assert (done.unproven_rows, done.dropped_rows, done.rows_out) == (3, 0, 10)
    assert world.see(table) == before
    assert keys_of(before) == [0, 2, 3, 6, 7, 8, 9]
    world.reopen()
    assert world.see(table) == before


# -- stops and failures -----------------------------------------------------------------------------------------------


def test_a_cancelled_compaction_leaves_everything_as_it_was(world: World, table: Table) -> None:
    for i in range(8):
        flushed(world, table, range(i, 40, 8), "a")
    before, there, rows = manifest(world, table), files(world, table), world.see(table)
    cancelled, chunks = Control(), 0

    def count() -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            cancelled.set()

    failpoints.arm("compact.chunk_merged", count)
    with pytest.raises(Cancelled, match="nothing has changed"):
        compactor(world, rows_per_batch=11).compact(table, None, control=cancelled)
    assert chunks == 3
    assert manifest(world, table) == before
    assert files(world, table) == there
    assert world.see(table) == rows
    failpoints.disarm()
    assert compactor(world).compact(table, None).rows_out == 40


def test_a_table_that_is_dropped_meanwhile_is_left_alone(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9), "b")
    there = files(world, table)
    failpoints.arm("compact.batch_written", lambda: world.tables.pop(1))
    with pytest.raises(Cancelled, match=r'"main.t" was dropped'):
        compactor(world).compact(table, None)
    assert files(world, table) == there
    world.tables[1] = table


def test_files_stay_while_the_published_manifest_names_them(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9), "b")
    old = named(world, table)

    def refuse() -> None:
        raise InternalError("the file manifest.json could not be written")

    failpoints.arm("manifest.before_publish", once(refuse))
    with pytest.raises(InternalError, match=r"manifest\.json"):
        compactor(world).compact(table, None)
    assert old <= files(world, table)
    agree(world, table)  # committed all the same
    assert manifest(world, table).batches[-1].number == 2
    flushed(world, table, [1], "c")
    assert files(world, table) == named(world, table)
    agree_with_files(world, table)


def test_what_cannot_be_removed_is_removed_before_the_next_install(world: World, table: Table) -> None:
    flushed(world, table, range(9), "a")
    flushed(world, table, range(9), "b")

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    failpoints.arm("installs.before_remove", once(refuse))
    compactor(world).compact(table, None)
    assert files(world, table) > named(world, table)
    flushed(world, table, [1], "c")
    assert files(world, table) == named(world, table)


def test_schema_changes_between_batches_are_merged_under_the_newest(world: World, table: Table) -> None:
    """T-32: a dropped column's values leave the files, an added one's fill is written out."""
    flushed(world, table, range(5), "gone")
    columns = [c for c in table.schema.columns if c.name != "v"]
    changed = table.with_schema([replace(c, name="m") if c.name == "n" else c for c in columns])
    world.tables[1] = changed
    world.write(changed, [{"k": 7, "m": 70}])
    world.flush(changed)
    before = world.see(changed)
    compactor(world).compact(changed, None)
    assert world.see(changed) == before
    assert [(r["k"], r["m"]) for r in sorted(before, key=lambda r: r["k"])] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (7, 70)]
    assert not any(b"gone" in p.read_bytes() for p in world.folder(table).iterdir())
    agree_with_files(world, changed)


def test_a_compaction_takes_no_seq_that_a_row_has(world: World, table: Table) -> None:
    flushed(world, table, range(5), "a")
    flushed(world, table, range(5), "b")
    compactor(world).compact(table, None)
    since = world.scopes.open(table, None).state.since
    assert world.door.watermark == since > max(r[SEQ] for r in world.see(table))
    upsert(world, table, [1], "c")
    assert max(r[SEQ] for r in world.see(table)) > since
    world.reopen()
    assert world.door.watermark >= since
