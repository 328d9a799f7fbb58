"""Cleanup of a dropped table: its rows go with the commit, its files when nobody can need them any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from table_world import HandClock, World, seen, shared_table, table_of

from flightkalam import failpoints
from flightkalam.errors import Cancelled, Conflict, KalamError
from flightkalam.jobs.cleanup import Cleanup
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import NotYet
from flightkalam.jobs.kinds import Cleanup as Wanted
from flightkalam.jobs.runner import Jobs
from flightkalam.model.schema import Table, TableKind
from flightkalam.storage.kv import Batch

NEVER = Control()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    shared = shared_table()
    user = table_of(2, "u", TableKind.USER, shared.schema.columns, (1,))
    made = World(tmp_path, {1: shared, 2: user})
    for table, owner in ((shared, None), (user, "ann"), (user, "bob")):
        made.write(table, [{"k": 1, "v": "cold"}], owner)
        made.flush(table, owner)
        made.write_staged(table, [{"k": k, "v": "hot"} for k in range(2, 12)], owner)
    yield made
    failpoints.disarm()
    made.close()


def cleanup_of(world: World) -> Cleanup:
    return Cleanup(world.store, world.log, world.manifests, world.door)


def drop(world: World, table: Table) -> Cleanup:
    cleanup = cleanup_of(world)

    def remove(batch: Batch, versions: int) -> None:
        cleanup.dropped(batch, table)

    world.writer.write([], remove)
    del world.tables[table.id]
    world.scopes.forget(table.id)
    return cleanup


def job(table: Table) -> Wanted:
    return Wanted(table_id=table.id)


def table_files(world: World, table: Table) -> list[Path]:
    folder = world.manifests.root / table.folder
    return [p for p in folder.rglob("*") if p.is_file()]


@pytest.mark.parametrize("table_id", [1, 2])
def test_rows_go_at_once_and_files_with_the_job(world: World, table_id: int) -> None:
    table, other = world.tables[table_id], world.tables[3 - table_id]
    before = world.see(other, "ann" if other.kind.per_user else None)
    neighbours = set(table_files(world, other))
    cleanup = drop(world, table)
    assert world.scopes.of_table(table) == [] and world.log.files_of(table.id) == []
    assert table_files(world, table), "files wait for the job"
    assert cleanup.run(job(table), NEVER) == {"removed": True, "table": table.qualified}
    assert table_files(world, table) == []
    assert {p.name for p in world.log.folder.iterdir()} == set(world.log.files_of(other.id))
    assert set(table_files(world, other)) == neighbours
    assert world.see(other, "ann" if other.kind.per_user else None) == before
    assert cleanup.run(job(table), NEVER) == {"removed": False}


def test_files_wait_for_the_readers_from_before_the_drop(world: World) -> None:
    """T-52."""
    table = world.tables[1]
    pin = world.door.pin()
    snapshot = world.snapshot(table, None, pin.watermark)
    cleanup = drop(world, table)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (cleanup.run(job(table), NEVER), done.set()))
    thread.start()
    assert not done.wait(0.15)
    assert len(seen(snapshot)) == 11
    later = world.door.pin()  # a reader that began after the drop cannot need the files
    world.door.unpin(pin)
    assert done.wait(5)
    thread.join()
    world.door.unpin(later)
    assert table_files(world, table) == []


def test_a_cleanup_that_a_reader_holds_up_gives_the_worker_back(world: World) -> None:
    """A reader that began before the drop counts, also when it is looked for a second time; later ones do not."""
    table = world.tables[1]
    pin = world.door.pin()
    cleanup = drop(world, table)
    with pytest.raises(NotYet):
        cleanup.run(job(table), NEVER)
    later = world.door.pin()
    world.door.unpin(pin)
    assert cleanup.run(job(table), NEVER)["removed"]
    world.door.unpin(later)


def test_a_cleanup_can_be_stopped_and_goes_on_at_the_next_start(world: World) -> None:
    table = world.tables[1]
    pin = world.door.pin()
    cleanup = drop(world, table)
    stop = Control()
    stop.set()
    with pytest.raises(Cancelled):
        cleanup.run(job(table), stop)
    world.door.unpin(pin)
    world.reopen()
    jobs = Jobs(world.store, HandClock())
    again = cleanup_of(world)
    jobs.register("cleanup", again.run)
    jobs.start()
    again.resume(jobs)
    jobs.close()
    again.run(job(table), NEVER)
    assert table_files(world, table) == []


def test_a_failed_removal_is_repeated(world: World) -> None:
    table = world.tables[1]
    cleanup = drop(world, table)

    def fail() -> None:
        raise OSError(5, "Input/output error")

    failpoints.arm("cleanup.removed", fail)
    with pytest.raises((KalamError, OSError)):
        cleanup.run(job(table), NEVER)
    failpoints.disarm()
    assert cleanup.run(job(table), NEVER)["removed"]
    assert {p.name for p in world.log.folder.iterdir()} == set(world.log.files_of(2))


def test_a_dropped_table_cannot_be_opened_or_written(world: World) -> None:
    table = world.tables[1]
    drop(world, table)
    with pytest.raises(Conflict, match=r"main\.t"):
        world.scopes.open(table, None)
    with pytest.raises(Conflict):
        world.write(table, [{"k": 1}])


def test_a_table_of_the_same_name_meets_nothing_of_the_old_one(world: World) -> None:
    """T-25: the id is in every key and path."""
    drop(world, world.tables[1])
    again = shared_table(table_id=9)
    world.tables[9] = again
    assert world.see(again) == []
    world.write(again, [{"k": 1, "v": "new"}])
    world.flush(again)
    assert [r["v"] for r in world.see(again)] == ["new"]
