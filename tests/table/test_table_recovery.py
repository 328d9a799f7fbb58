"""What is derived can be lost: the manifest in the store, its published copy, a deletion vector, and nothing changes.

files alone     which count (`replaces`, what was committed), entries (footers), vectors (MAX(_seq))
the law         rebuilt = lost, but for version and time, whatever was flushed, updated, deleted, compacted before
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_world import Row, World, newest_versions, scratch_folder, seen, shared_table

from flightkalam import failpoints
from flightkalam.cold import manifest_records as records
from flightkalam.cold import paths
from flightkalam.cold.batch_file import BatchStyle
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifests import IN_SYNC
from flightkalam.errors import DataCorrupted, KalamError
from flightkalam.jobs.compact import Compactor, CompactSettings
from flightkalam.jobs.compact_policy import Policy
from flightkalam.model.ids import scope_bytes
from flightkalam.model.schema import Table
from flightkalam.storage.kv import Batch
from flightkalam.table import recovery
from flightkalam.table.check import check
from flightkalam.table.mutation import OnConflict

LAW = settings(max_examples=25, deadline=None, derandomize=True)
T = shared_table()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, {T.id: T})
    yield made
    failpoints.disarm()
    made.close()


def put(world: World, keys: range | list[int], value: str = "a", table: Table = T) -> None:
    world.write(table, [{"k": k, "v": f"{value}{k}", "n": k} for k in keys], mode=OnConflict.UPDATE)


def compact(world: World, table: Table = T) -> None:
    style = BatchStyle(row_group_rows=4, compression="none")
    Compactor(world.scopes, world.clock, CompactSettings(Policy(10), style, 6)).compact(table, None)


def history(world: World) -> None:
    """Three flushes, with updates and deletes of what was flushed before."""
    put(world, range(20))
    world.flush(T)
    put(world, range(5, 15), "b")
    world.delete(T, [{"k": 1}, {"k": 2}])
    world.flush(T)
    put(world, range(12, 30), "c")
    world.flush(T)


def committed(world: World) -> Manifest:
    return world.manifests.get(world.scope(T))


def plain(m: Manifest) -> Manifest:
    return replace(m, version=0, generated_at_us=0)


def derived(world: World) -> Manifest:
    scope, folder = world.scope(T), world.folder(T)
    return recovery.derived(world.manifests, world.log, world.scopes.reader, T, scope, folder, 1)


def store_keys(world: World) -> list[bytes]:
    return [k for k, _ in world.store.scan(records.FAMILY, scope_bytes(world.scope(T)))]


def alter(world: World, keys: list[bytes], change: Callable[[bytes], bytes | None]) -> None:
    batch = Batch()
    for key in keys:
        value = world.store.get(records.FAMILY, key)
        assert value is not None
        new = change(value)
        batch.delete(records.FAMILY, key) if new is None else batch.put(records.FAMILY, key, new)
    world.store.commit(batch)


def flipped(data: bytes, at: int = -3) -> bytes:
    out = bytearray(data)
    out[at] ^= 0x41
    return bytes(out)


# -- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [flipped, lambda v: v[:-2], lambda v: b"", lambda v: None])
def test_a_manifest_that_is_damaged_in_the_store_is_rebuilt_when_it_is_needed(
    world: World, change: Callable[[bytes], bytes | None]
) -> None:
    history(world)
    put(world, [3, 13, 40], "hot")
    before, expected = committed(world), world.see(T)
    alter(world, store_keys(world)[:1], change)
    world.reopen()
    assert world.see(T) == expected
    after = committed(world)
    assert plain(after) == plain(before) and after.version > before.version
    assert world.scopes.counters.snapshot()["manifest_damages"] == 1
    assert check(world.snapshot(T)).problems == []
    world.reopen()
    assert world.see(T) == expected and committed(world) == after
    entry = world.manifests.entry(world.scope(T))
    assert entry is not None and entry.sync_state == IN_SYNC


def test_with_both_records_damaged_the_log_tells_what_was_committed(world: World) -> None:
    history(world)
    put(world, [3, 13, 40], "hot")
    before, expected = committed(world), world.see(T)
    alter(world, store_keys(world), lambda v: b"")
    world.reopen()
    assert world.see(T) == expected and plain(committed(world)) == plain(before)


@pytest.mark.parametrize("point", ["flush.before_commit", "flush.appended", "flush.committed", "manifest.before_publish"])
@pytest.mark.parametrize("both", [False, True])
def test_a_flush_that_was_cut_short_is_not_taken_for_another(world: World, point: str, both: bool) -> None:
    """Its files lie there, committed or not; its rows are in the log until it is published."""
    history(world)
    put(world, [3, 13, 40], "hot")
    expected = world.see(T)

    class Killed(Exception):
        pass

    folder = world.folder(T)
    kept: dict[str, bytes] = {}

    def remember() -> None:
        kept.update({p.name: p.read_bytes() for p in folder.iterdir()})
        raise Killed

    failpoints.arm(point, remember)
    with pytest.raises((Killed, KalamError)):
        world.flush(T)
    failpoints.disarm()
    for name, data in kept.items():  # what the flush removed when it failed, a crash would have left
        (folder / name).write_bytes(data)
    alter(world, store_keys(world) if both else store_keys(world)[:1], lambda v: b"")
    world.reopen()
    assert world.see(T) == expected
    assert check(world.snapshot(T)).problems == []
    put(world, [50], "later")
    world.flush(T)
    assert world.see(T) == newest_versions(world, T)


@pytest.mark.parametrize("both", [False, True])
def test_a_compaction_that_was_not_committed_is_not_taken_for_one(world: World, both: bool) -> None:
    history(world)
    put(world, [3, 13], "hot")
    before, expected, folder = committed(world), world.see(T), world.folder(T)
    kept: dict[str, bytes] = {}

    def cut() -> None:
        kept.update({p.name: p.read_bytes() for p in folder.iterdir()})
        raise RuntimeError

    failpoints.arm("compact.before_commit", cut)
    with pytest.raises(RuntimeError):
        compact(world)
    failpoints.disarm()
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    alter(world, store_keys(world) if both else store_keys(world)[:1], lambda v: b"")
    world.reopen()
    assert world.see(T) == expected
    assert plain(committed(world)) == plain(before)
    assert check(world.snapshot(T)).problems == []


def test_what_a_compaction_replaced_does_not_come_back(world: World) -> None:
    """T-44: the files of its inputs are still there, as a pinned reader may leave them."""
    history(world)
    folder = world.folder(T)
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    compact(world)
    before, expected = committed(world), world.see(T)
    for name, data in old.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    alter(world, store_keys(world), lambda v: b"")
    world.reopen()
    assert world.see(T) == expected and plain(committed(world)) == plain(before)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, 25), min_size=1, max_size=8, unique=True)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 25), min_size=1, max_size=4, unique=True)),
        st.tuples(st.just("flush"), st.just([])),
        st.tuples(st.just("compact"), st.just([])),
    ),
    min_size=3,
    max_size=14,
)


@LAW
@given(STEPS)
def test_whatever_happened_the_rebuilt_manifest_is_the_lost_one(steps: list[tuple[str, list[int]]]) -> None:
    with scratch_folder() as folder:
        world = World(folder, {T.id: T}, durable=False)
        try:
            for i, (kind, keys) in enumerate([*steps, ("put", [0]), ("flush", [])]):
                if kind == "put":
                    put(world, keys, str(i))
                elif kind == "delete":
                    there = {r["k"] for r in world.see(T)}
                    gone = [{"k": k} for k in keys if k in there]
                    if gone:
                        world.delete(T, gone)
                else:
                    world.flush(T) if kind == "flush" else compact(world)
            before, expected = committed(world), world.see(T)
            assert plain(derived(world)) == plain(before)
            for path in world.folder(T).iterdir():  # nothing but the Parquet files
                if paths.batch_number(path.name) is None:
                    path.unlink()
            alter(world, store_keys(world), lambda v: b"")
            world.reopen()
            assert world.see(T) == expected
            lost = [replace(b, dead=None) for b in before.batches]
            assert [replace(b, dead=None) for b in committed(world).batches] == lost
            assert check(world.snapshot(T)).problems == []
        finally:
            world.close()


# -- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_lost_deletion_vector_is_computed_and_never_read_as_empty(world: World, damage: str) -> None:
    """T-8."""
    history(world)
    expected, before = world.see(T), committed(world)
    files = {b.dead.file for b in before.batches if b.dead is not None}
    assert files
    for name in files:
        path = world.folder(T) / name
        data = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_bytes(data[:4] if damage == "cut" else flipped(data, 2))
    world.reopen()
    assert world.see(T) == expected
    assert world.scopes.counters.snapshot()["vector_rebuilds"] >= 1
    put(world, [6, 14], "z")
    world.flush(T)
    assert world.see(T) == newest_versions(world, T)


# -- files ------------------------------------------------------------------------------------------------------------


def reads_right_or_refuses(world: World, expected: list[Row], name: str) -> bool:
    """Never a wrong row; a refusal names the file."""
    world.reopen()
    try:
        assert world.see(T) == expected
        return True
    except KalamError as e:
        assert name in e.message and "/" not in e.message
        return False


@pytest.mark.parametrize("every", [11])
def test_a_flipped_byte_in_a_batch_is_refused_by_name(world: World, every: int) -> None:
    history(world)
    expected = world.see(T)
    path = world.folder(T) / "batch-0.parquet"
    data = path.read_bytes()
    for at in range(0, len(data), max(len(data) // every, 1)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert not reads_right_or_refuses(world, expected, path.name)
    for cut in (0, 4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        assert not reads_right_or_refuses(world, expected, path.name)
    path.write_bytes(data)
    assert reads_right_or_refuses(world, expected, path.name)


def test_a_missing_batch_is_an_error_only_for_those_who_need_it(world: World) -> None:
    put(world, range(10))
    world.flush(T)
    put(world, range(100, 110))
    world.flush(T)
    from_predicate = world.snapshot(T)
    (world.folder(T) / "batch-1.parquet").unlink()
    with pytest.raises(DataCorrupted, match=r"batch-1\.parquet is missing"):
        world.see(T)
    first = [b for b in from_predicate.state.manifest.batches if b.number == 0]
    kept = replace(
        from_predicate, state=replace(from_predicate.state, manifest=replace(committed(world), batches=tuple(first)))
    )
    assert len(seen(kept)) == 10


def test_a_file_that_is_altered_under_a_running_service_is_noticed(world: World) -> None:
    history(world)
    world.see(T)
    path = world.folder(T) / "batch-0.parquet"
    data = path.read_bytes()
    path.write_bytes(flipped(data, len(data) // 3))
    os.utime(path, (1, 1))
    with pytest.raises(DataCorrupted, match=r"batch-0\.parquet is damaged"):
        world.see(T)


def test_a_rebuild_refuses_files_that_it_cannot_prove(world: World) -> None:
    """T-45: a clear error, no guess."""
    history(world)
    put(world, [3], "hot")  # its mark names a batch
    marked = {int(b) for e in world.log.entries(world.scope(T)) for b in e.entry.cold_marks["batch"]}
    (world.folder(T) / paths.batch_name(marked.pop())).unlink()
    alter(world, store_keys(world)[:1], lambda v: b"")
    world.reopen()
    with pytest.raises(DataCorrupted, match="missing"):
        world.see(T)


def test_a_batch_of_another_table_is_not_taken_in(world: World) -> None:
    history(world)
    folder = world.folder(T)
    (folder / "batch-1.parquet").write_bytes((folder / "batch-0.parquet").read_bytes())
    alter(world, store_keys(world)[:1], lambda v: b"")
    world.reopen()
    with pytest.raises(DataCorrupted, match=r"batch-1\.parquet is a file of another"):
        world.see(T)
