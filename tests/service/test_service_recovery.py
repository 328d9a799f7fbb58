"""Loss and damage as a client meets them: right rows or a clear refusal, and REBUILD MANIFEST puts right what can be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kalam_world import Client, Refused, World

from flightkalam.auth.identity import Role
from flightkalam.cold import manifest_records as records
from flightkalam.cold import paths
from flightkalam.storage.kv import Batch


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    first = made.in_process()
    first.run("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT)")
    first.run("INSERT INTO t SELECT i, 'n' || i FROM range(100) AS r(i)")
    first.run("FLUSH TABLE t WAIT")
    first.run("UPDATE t SET name = 'new' WHERE id < 10")
    first.run("FLUSH TABLE t WAIT")
    yield made
    made.close()


def root(world: World) -> Client:
    return world.in_process()


def folder(world: World) -> Path:
    return next((world.data_dir / "cold" / "main").iterdir())


def summed(client: Client) -> list[int]:
    rows = client.run("SELECT count(*) AS n, sum(id) AS s, count(*) FILTER (name = 'new') AS changed FROM t").rows
    assert rows is not None
    return [int(v) for v in rows.to_pylist()[0].values()]


RIGHT = [100, 4950, 10]


def rebuild(client: Client) -> int:
    rows = client.run("REBUILD MANIFEST t WAIT").rows
    assert rows is not None
    return int(json.loads(rows.column("result")[0].as_py())["rebuilt"])


def test_a_lost_vector_is_written_again(world: World) -> None:
    vector = next(p for p in folder(world).iterdir() if paths.is_vectors(p.name))
    vector.unlink()
    world.restart()
    client = root(world)
    assert summed(client) == RIGHT
    assert rebuild(client) == 1
    assert [p for p in folder(world).iterdir() if paths.is_vectors(p.name)]
    assert rebuild(client) == 0
    assert summed(client) == RIGHT
    world.restart()
    assert summed(root(world)) == RIGHT


def test_a_refused_table_takes_its_files_as_they_are_when_it_is_told_to(world: World) -> None:
    """T-46: an old store beside newer files."""
    path = folder(world) / paths.MANIFEST
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "version": 50}))
    world.restart()
    client = root(world)
    with pytest.raises(Refused, match="newer than the committed"):
        summed(client)
    assert rebuild(client) == 1
    assert summed(client) == RIGHT
    assert json.loads(path.read_text())["version"] == 51


def test_a_table_whose_every_record_is_lost_is_refused_until_it_is_told_to_take_the_files(world: World) -> None:
    """Its manifest.json says that there was one: the table is not taken for empty."""
    root(world).run("CREATE USER TABLE u (id INT PRIMARY KEY)")
    world.in_process("ann", Role.USER).run("INSERT INTO u VALUES (1), (2)")
    root(world).run("FLUSH TABLE u WAIT")
    store, batch = world.kalam.store, Batch()
    for key, _ in list(store.scan(records.FAMILY)):
        batch.delete(records.FAMILY, key)
    store.commit(batch)
    world.restart()
    client = root(world)
    for statement in ("SELECT * FROM t", "INSERT INTO t VALUES (1, 'x')"):
        with pytest.raises(Refused, match=r"the store knows of no manifest.*REBUILD MANIFEST main\.t") as refused:
            client.run(statement)
        assert refused.value.sqlstate == "XX001"
    with pytest.raises(Refused, match=r"REBUILD MANIFEST main\.u"):
        world.in_process("ann", Role.USER).run("SELECT * FROM u")
    assert rebuild(client) == 1
    client.run("REBUILD MANIFEST u WAIT")
    assert summed(client) == RIGHT
    world.restart()
    assert summed(root(world)) == RIGHT
    rows = world.in_process("ann", Role.USER).run("SELECT * FROM u ORDER BY id").rows
    assert rows is not None and rows.column("id").to_pylist() == [1, 2]
    world.check()


def test_the_published_copy_follows_a_manifest_that_the_store_has_lost(world: World) -> None:
    store = world.kalam.store
    batch = Batch()
    for key, _ in list(store.scan(records.FAMILY)):
        batch.put(records.FAMILY, key, b"damaged")
    store.commit(batch)
    world.restart()
    client = root(world)
    assert summed(client) == RIGHT
    client.run("INSERT INTO t VALUES (1000, 'later')")
    client.run("FLUSH TABLE t WAIT")
    assert summed(client) == [101, 5950, 10]
    rows = client.run("CHECK TABLE t").rows
    assert rows is not None and rows.column("problem").to_pylist() == [None]


def test_a_damaged_batch_is_named_to_the_client_without_its_folder(world: World) -> None:
    path = folder(world) / "batch-0.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    world.restart()
    with pytest.raises(Refused, match=r"batch-0\.parquet is damaged") as refused:
        summed(root(world))
    assert refused.value.sqlstate == "XX001" and "/" not in refused.value.message


def test_files_that_nothing_names_are_swept(world: World) -> None:
    client = root(world)
    assert summed(client) == RIGHT
    stray = [folder(world) / name for name in ("batch-77.parquet", "dv-77.bin", "manifest-0-77.json", ".batch-9.parquet.tmp")]
    for path in stray:
        path.write_bytes(b"nobody's")
    jobs = world.kalam.parts.jobs
    assert jobs.wait(jobs.submit("orphan_sweep", {})).result == {"scopes": 1}
    assert not any(path.exists() for path in stray)
    assert summed(client) == RIGHT


def test_manifests_that_nobody_uses_leave_memory(world: World) -> None:
    jobs = world.kalam.parts.jobs
    assert jobs.wait(jobs.submit("manifest_eviction", {})).result == {"evicted": 0}
    done = jobs.wait(jobs.submit("manifest_eviction", {"idle_seconds": 0}))
    assert done.result == {"evicted": 1}
    assert summed(root(world)) == RIGHT
