"""Flush: what it keeps, what it writes, and how each way to fail leaves everything as it was or finishes later."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from table_world import Row, World, file_rows, newest_versions, plain, seen, shared_table

from flightkalam import failpoints
from flightkalam.cold import paths
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifests import IN_SYNC, PENDING
from flightkalam.errors import Cancelled, DiskFull, InternalError, KalamError
from flightkalam.jobs.control import Control
from flightkalam.jobs.flush import NOTHING, FlushSettings
from flightkalam.model.schema import DELETED, SEQ, Table
from flightkalam.table.check import check
from flightkalam.table.mutation import OnConflict

UPDATE = OnConflict.UPDATE


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    table = shared_table()
    made = World(tmp_path, {table.id: table})
    yield made
    failpoints.disarm()
    made.close()


@pytest.fixture
def table(world: World) -> Table:
    return world.tables[1]


def row(k: int, n: int = 0) -> Row:
    return {"k": k, "v": f"v{n}", "n": n}


def manifest(world: World, table: Table) -> Manifest:
    return world.manifests.get(world.scope(table))


def state(world: World, table: Table) -> str:
    entry = world.manifests.entry(world.scope(table))
    assert entry is not None
    return entry.sync_state


def files(world: World, table: Table) -> set[str]:
    folder = world.folder(table)
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def segments(world: World) -> set[str]:
    return {p.name for p in world.log.folder.iterdir()} if world.log.folder.is_dir() else set()


def batch_rows(world: World, table: Table) -> list[list[tuple[Any, ...]]]:
    """Per batch (k, n, _deleted), as the file has them."""
    folder = world.folder(table)
    found = [file_rows(folder / b.file, table.schema) for b in manifest(world, table).batches]
    return [[(r["k"], r["n"], r[DELETED]) for r in rows] for rows in found]


def in_step(world: World, table: Table) -> None:
    assert newest_versions(world, table) == world.see(table)
    assert check(world.snapshot(table)).problems == []


# -- what is kept -------------------------------------------------------------------------------------------------------


def test_the_newest_version_of_each_key_is_kept_in_key_order(world: World, table: Table) -> None:
    world.write(table, [row(3), row(1), row(2)])
    world.write(table, [row(2, 1), row(9, 1)], None, UPDATE)
    world.write(table, [row(2, 2)], None, UPDATE)
    done = world.flusher.flush(table, None)
    assert batch_rows(world, table) == [[(1, 0, False), (2, 2, False), (3, 0, False), (9, 1, False)]]
    assert (done.batches, done.rows) == ((0,), 4) and done.bytes > 0
    assert not list(world.log.entries(world.scope(table)))


def test_tombstones_are_kept_with_their_key_alone(world: World, table: Table) -> None:
    """A flush that drops them brings cold rows back."""
    world.write(table, [row(1), row(2)])
    world.flush(table)
    world.delete(table, [{"k": 1}, {"k": 77}])
    world.flush(table)
    assert batch_rows(world, table)[1] == [(1, None, True), (77, None, True)]
    assert plain(world.see(table)) == [row(2)]
    assert manifest(world, table).batches[1].tombstones == 2


def test_a_deleted_cold_key_can_be_inserted_again(world: World, table: Table) -> None:
    """T-17."""
    world.write(table, [row(1)])
    world.flush(table)
    world.delete(table, [{"k": 1}])
    world.flush(table)
    world.write(table, [row(1, 5)])
    assert plain(world.see(table)) == [row(1, 5)]
    world.flush(table)
    assert plain(world.see(table)) == [row(1, 5)]
    in_step(world, table)


def test_versions_of_a_composite_key_are_kept_per_key_and_not_per_first_column(tmp_path: Path) -> None:
    table = shared_table(key=(1, 3))
    world = World(tmp_path, {1: table})
    world.write(table, [{"k": 1, "v": "a", "n": 1}, {"k": 1, "v": "b", "n": 2}])
    world.flush(table)
    assert [r["v"] for r in world.see(table)] == ["a", "b"]
    world.close()


def test_a_flush_of_nothing_writes_nothing(world: World, table: Table) -> None:
    assert world.flusher.flush(table, None) == NOTHING
    assert manifest(world, table).version == 0 and files(world, table) == set()


def test_a_flush_of_rows_that_were_all_superseded_still_moves_on(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    world.flush(table)
    world.write(table, [row(1, 1)], None, UPDATE)
    world.flush(table)
    world.write(table, [row(1, 2)], None, UPDATE)
    world.flush(table)
    assert batch_rows(world, table) == [[(1, 0, False)], [(1, 1, False)], [(1, 2, False)]]
    assert [b.dead.cardinality if b.dead else 0 for b in manifest(world, table).batches] == [1, 1, 0]
    assert plain(world.see(table)) == [row(1, 2)]


def test_a_large_flush_is_cut_into_batches(world: World, table: Table) -> None:
    world.flusher._settings = FlushSettings(rows_per_batch=3, style=world.settings.style)
    world.write(table, [row(k) for k in range(8)])
    assert world.flusher.flush(table, None).batches == (0, 1, 2)
    assert sorted(k for rows in batch_rows(world, table) for k, *_ in rows) == list(range(8))
    assert [b.rows for b in manifest(world, table).batches] == [3, 3, 2]
    in_step(world, table)


def test_numbers_grow_in_the_order_of_install(world: World, table: Table) -> None:
    for i in range(3):
        world.write(table, [row(i)])
        world.flush(table)
    assert [b.number for b in manifest(world, table).batches] == [0, 1, 2]
    assert manifest(world, table).max_batch == 2


def test_only_what_is_durable_is_flushed(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    watermark = world.door.watermark
    world.flush(table)
    assert manifest(world, table).flushed_seq == watermark


def test_a_segment_file_goes_when_its_rows_are_cold(world: World, table: Table) -> None:
    world.write_staged(table, [row(k) for k in range(20)])
    assert len(segments(world)) == 1 == len(world.log.files_of(table.id))
    reader = world.door.pin()
    snapshot = world.snapshot(table, None, reader.watermark)
    world.flush(table)
    assert world.log.files_of(table.id) == []
    assert len(segments(world)) == 1, "a reader from before may name it"
    assert len(seen(snapshot)) == 20
    world.door.unpin(reader)
    assert segments(world) == set()
    assert len(seen(snapshot)) == 20, "who has it mapped keeps it"


def test_the_footer_and_the_published_manifest_name_what_was_flushed(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    world.flush(table)
    entry = manifest(world, table).batches[0]
    footer = json.loads(pq.read_metadata(world.folder(table) / entry.file).metadata[b"flightkalam"])
    assert (footer["table_id"], footer["owner"], footer["number"]) == (1, None, 0)
    assert footer["flushed_seq"] == manifest(world, table).flushed_seq
    published = json.loads((world.folder(table) / paths.MANIFEST).read_text())
    assert (published["version"], published["table"]) == (1, "main.t")
    assert state(world, table) == IN_SYNC


def test_old_deletion_vectors_stay_for_the_readers_that_use_them(world: World, table: Table) -> None:
    """T-9."""
    world.write(table, [row(k) for k in range(4)])
    world.flush(table)
    world.write(table, [row(0, 1)], None, UPDATE)
    world.flush(table)
    reader = world.door.pin()
    snapshot = world.snapshot(table, None, reader.watermark)
    expected = seen(snapshot)
    world.write(table, [row(1, 2)], None, UPDATE)
    world.flush(table)
    world.scopes.vectors._known.clear()
    assert seen(snapshot) == expected
    world.door.unpin(reader)
    assert len([f for f in files(world, table) if paths.is_vectors(f)]) == 1
    in_step(world, table)


# -- failures -----------------------------------------------------------------------------------------------------------


def test_a_cancelled_flush_has_changed_nothing(world: World, table: Table) -> None:
    world.flusher._settings = FlushSettings(rows_per_batch=2, style=world.settings.style)
    world.write(table, [row(k) for k in range(6)])
    cancelled = Control()
    failpoints.arm("flush.batch_written", cancelled.set)
    with pytest.raises(Cancelled):
        world.flusher.flush(table, None, cancelled)
    assert manifest(world, table).version == 0
    assert files(world, table) == set()
    assert len(world.see(table)) == 6


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> None:
    raise InternalError("broken")


BEFORE = ["file.before_sync", "file.before_rename", "file.after_rename", "batch.written", "batch.published"]
BEFORE += ["flush.batch_written", "flush.vectors_written", "flush.before_commit"]


@pytest.mark.parametrize("place", BEFORE)
def test_a_failure_before_the_commit_leaves_hot_rows_and_no_files(world: World, table: Table, place: str) -> None:
    """T-16."""
    world.write(table, [row(k) for k in range(4)])
    world.flush(table)
    world.write(table, [row(0, 1), row(9, 1)], None, UPDATE)
    there, before, old = files(world, table), world.see(table), manifest(world, table)
    failpoints.arm(place, broken)
    with pytest.raises(KalamError):
        world.flush(table)
    failpoints.disarm()
    assert manifest(world, table) == old and world.see(table) == before
    assert files(world, table) == there
    world.flush(table)
    assert world.see(table) == before
    in_step(world, table)


def test_a_full_disk_is_said_as_such(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    failpoints.arm("file.before_sync", disk_full)
    with pytest.raises(DiskFull):
        world.flush(table)
    assert files(world, table) == set() and len(world.see(table)) == 1


AFTER = ["manifest.before_publish", "file.before_rename", "manifest.published", "flush.before_trim"]


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("new_rows", [False, True])
@pytest.mark.parametrize("place", AFTER)
def test_a_failure_after_the_commit_is_finished_by_the_next_flush(
    world: World, table: Table, place: str, new_rows: bool, reopened: bool
) -> None:
    """The commit counts; publication, trimming and the removal of segment files are done again, whether there is anything
    new to flush or not."""
    world.write_staged(table, [row(k) for k in range(12)])
    world.write(table, [row(3, 1)], None, UPDATE)
    before = world.see(table)

    def fail() -> None:
        if manifest(world, table).version:  # the batch's own rename comes before the commit
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    failpoints.arm(place, fail)
    with pytest.raises((KalamError, OSError)):
        world.flush(table)
    failpoints.disarm()
    assert manifest(world, table).version == 1
    assert world.see(table) == before
    if reopened:
        world.reopen()
        assert world.see(table) == before
    if new_rows:
        world.write(table, [row(50)])
    world.flush(table)
    assert state(world, table) == IN_SYNC
    published = json.loads((world.folder(table) / paths.MANIFEST).read_text())
    assert published["version"] == manifest(world, table).version
    assert not list(world.log.entries(world.scope(table)))
    assert segments(world) == set() and world.log.files_of(table.id) == []
    assert world.see(table)[: len(before)] == before
    in_step(world, table)


def test_a_segment_file_that_could_not_be_removed_goes_at_the_next_start(world: World, table: Table) -> None:
    world.write_staged(table, [row(k) for k in range(12)])
    failpoints.arm("flush.trimmed", broken)
    with pytest.raises(InternalError):
        world.flush(table)
    failpoints.disarm()
    assert len(segments(world)) == 1 and world.log.files_of(table.id) == []
    world.reopen()
    assert segments(world) == set() and len(world.see(table)) == 12


def test_a_pending_manifest_is_answered_from_as_if_it_were_published(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    failpoints.arm("manifest.before_publish", broken)
    with pytest.raises(InternalError):
        world.flush(table)
    assert state(world, table) == PENDING
    world.write(table, [row(1, 1)], None, UPDATE)
    assert plain(world.see(table)) == [row(1, 1)]
    in_step(world, table)


class Doubtful:
    """Writes, and then says that it could not: what a disk may do."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def write(self, batch: Any) -> None:
        self._db.write(batch)
        raise OSError("IO error: Input/output error")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def test_files_of_a_commit_in_doubt_are_kept(world: World, table: Table) -> None:
    """T-15: the commit may be in the log, so what it names must be there after the restart."""
    world.write(table, [row(k) for k in range(4)])
    expected = plain(world.see(table))
    real = world.store._db

    def doubt() -> None:
        world.store._db = Doubtful(real)

    failpoints.arm("flush.before_commit", doubt)
    with pytest.raises(KalamError):
        world.flush(table)
    failpoints.disarm()
    world.store._db = real
    world.reopen()
    assert plain(world.see(table)) == expected
    in_step(world, table)
    world.write(table, [row(9)])
    world.flush(table)
    in_step(world, table)


def test_a_commit_counts_whatever_fails_right_after_it(world: World, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is appended, no failure of the process itself may take the files for nobody's."""
    world.write(table, [row(k) for k in range(4)])
    expected = plain(world.see(table))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("flightkalam.jobs.flush.remaining", fail)
    with pytest.raises(MemoryError):
        world.flush(table)
    monkeypatch.undo()
    assert plain(world.see(table)) == expected
    world.reopen()
    assert plain(world.see(table)) == expected
    in_step(world, table)


def test_what_a_crash_left_is_removed_before_the_first_install(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    world.flush(table)
    folder = world.folder(table)
    strangers = ["batch-7.parquet", "dv-9.bin", ".batch-1.parquet.tmp"]
    for name in strangers:
        (folder / name).write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"somebody's own")
    world.reopen()
    world.write(table, [row(2)])
    world.flush(table)
    assert files(world, table) == {"batch-0.parquet", "batch-1.parquet", paths.MANIFEST, "notes.txt"}


def test_a_table_that_was_dropped_meanwhile_is_not_flushed(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    failpoints.arm("flush.batch_written", lambda: world.tables.pop(1))
    with pytest.raises(Cancelled, match="dropped"):
        world.flush(table)
    assert files(world, table) == set()


def test_rows_are_flushed_under_the_newest_schema(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    columns = [c for c in table.schema.columns if c.name != "v"]
    world.tables[1] = newer = table.with_schema(columns)
    world.flush(table)
    assert manifest(world, newer).batches[0].schema_version == newer.schema.version
    assert set(world.see(newer)[0]) == {"k", "n", SEQ, DELETED}


def test_the_batches_of_one_flush_do_not_overlap(world: World, table: Table) -> None:
    """However the keys arrived: they are sorted before they are cut, so a key lies in one batch."""
    world.settings = FlushSettings(rows_per_batch=10, style=world.settings.style)
    world.reopen()
    keys = [(k * 37) % 101 for k in range(100)]
    for at in range(0, 100, 25):
        world.write(table, [row(k) for k in keys[at : at + 25]])
    world.write(table, [row(k, 1) for k in keys[::7]], None, UPDATE)
    world.flush(table)
    batches = manifest(world, table).batches
    assert [b.rows for b in batches] == [10] * 10
    ends = [(b.bounds[1].low, b.bounds[1].high) for b in batches]
    assert ends == sorted(ends)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert plain(seen(world.snapshot(table))) == plain(newest_versions(world, table))
    assert sorted(r["n"] for r in plain(seen(world.snapshot(table)))) == [0] * 85 + [1] * 15
    # What is written while the rows are cold finds them at their new places.
    world.write(table, [row(k, 2) for k in keys[::3]], None, UPDATE)
    world.flush(table)
    assert plain(seen(world.snapshot(table))) == plain(newest_versions(world, table))
