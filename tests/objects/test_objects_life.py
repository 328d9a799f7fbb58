"""The life of tables whose files lie in an object store."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kalam_world import InProcess, Refused, World
from object_life import create_storage, flush, rows
from object_store import S3, Proxy

from flightkalam.auth.identity import Role
from flightkalam.jobs import backup

MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def client(world: World, proxy: Proxy, prefix: str) -> InProcess:
    client = world.in_process()
    create_storage(client, proxy, prefix)
    return client


def cleaned(world: World) -> None:
    """Return when the files of dropped tables are gone."""
    deadline = time.monotonic() + 20
    while [j for j in world.kalam.parts.jobs.list() if j.kind == "cleanup" and j.status != "completed"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_table_lives_in_an_object_store(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far', COMPACTION='manual')")
    client.run("INSERT INTO t SELECT range, 'one' FROM range(1000)")
    flush(client)
    client.run("UPDATE t SET v = 'two' WHERE id < 10")
    client.run("DELETE FROM t WHERE id >= 990")
    flush(client)
    expected = "SELECT count(*), sum(id), count(*) FILTER (v = 'two') FROM t"
    assert rows(client, expected) == [(990, sum(range(990)), 10)]
    folder = next(k for k in s3.keys(prefix) if k.endswith("manifest.json")).rpartition("/")[0]
    names = {k.rpartition("/")[2] for k in s3.keys(prefix) if k.startswith(folder)}
    assert names == {"batch-0.parquet", "batch-1.parquet", "dv-2.bin", "manifest.json"}
    world.check()

    client.run("COMPACT TABLE t WAIT")
    assert rows(client, expected) == [(990, sum(range(990)), 10)]
    assert not (world.data_dir / "cold").exists() or not list((world.data_dir / "cold").rglob("batch-*"))

    world.close()
    shutil.rmtree(world.data_dir / "cache")
    client = world.in_process()
    assert rows(client, expected) == [(990, sum(range(990)), 10)]
    assert rows(client, "SELECT v FROM t WHERE id = 5") == [("two",)]
    names = {k.rpartition("/")[2] for k in s3.keys(prefix) if k.startswith(folder)}
    assert names == {"batch-2.parquet", "manifest.json"}
    world.check()

    client.run("DROP TABLE t")
    cleaned(world)
    assert s3.keys(prefix) == ["flightkalam.json"]
    client.run("DROP STORAGE far")
    assert s3.keys(prefix) == []


def test_every_user_has_a_folder_of_their_own(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    client.run("CREATE USER TABLE own (id INT, part TEXT, v INT, PRIMARY KEY (id, part)) WITH (STORAGE_ID='FAR')")
    people = [world.in_process(name, Role.USER) for name in ("ada", "b/../ob", "b%2F")]
    for i, person in enumerate(people):
        person.run(f"INSERT INTO own SELECT range, 'p' || range, {i} FROM range(100)")
    flush(client, "own")
    for i, person in enumerate(people):
        person.run("UPDATE own SET v = v + 10 WHERE id = 7")
        assert rows(person, "SELECT count(*), sum(v), max(v) FROM own") == [(100, i * 100 + 10, i + 10)]
    flush(client, "own")
    folders = {k.rpartition("/")[0].rpartition("/")[2] for k in s3.keys(prefix) if k.endswith("manifest.json")}
    assert folders == {"ada", "b%2F%2E%2E%2Fob", "b%252F"}
    world.close()
    shutil.rmtree(world.data_dir / "cache")
    assert rows(world.in_process("b%2F", Role.USER), "SELECT v FROM own WHERE id = 7 AND part = 'p7'") == [(12,)]
    world.check()


def test_a_query_reads_more_than_the_cache_holds(make_world: MakeWorld, proxy: Proxy, prefix: str) -> None:
    world = make_world("small", cache_bytes=1 << 20)
    client = world.in_process()
    create_storage(client, proxy, prefix)
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v BLOB) WITH (STORAGE_ID='far', COMPACTION='manual')")
    for i in range(6):
        noise = "encode(md5(random()::VARCHAR) || md5(random()::VARCHAR))"
        client.run(f"INSERT INTO t SELECT {i} * 100000 + range, {noise} FROM range(10000)")
        flush(client)
    for _ in range(2):
        assert rows(client, "SELECT count(*), count(DISTINCT id) FROM t") == [(60_000, 60_000)]
        assert rows(client, "SELECT id FROM t WHERE id = 300007") == [(300007,)]
    cached = world.kalam.parts.storages.cache.figures()
    assert cached.evicted > 0 and cached.bytes <= 1 << 20
    assert sum(p.stat().st_size for p in (world.data_dir / "cache").rglob("*.*")) == cached.bytes
    world.check()


def test_erase_reaches_the_object_store(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far')")
    client.run("INSERT INTO t VALUES (1, 'to-be-forgotten'), (2, 'kept')")
    flush(client)
    assert any(b"to-be-forgotten" in s3.read(f"{prefix}/{k}") for k in s3.keys(prefix))
    assert rows(client, "ERASE FROM t WHERE id = 1")[0][1] == 1
    assert not any(b"to-be-forgotten" in s3.read(f"{prefix}/{k}") for k in s3.keys(prefix))
    assert not any(b"to-be-forgotten" in p.read_bytes() for p in (world.data_dir / "cache").rglob("*.*"))
    assert rows(client, "SELECT v FROM t") == [("kept",)]


def test_erase_does_not_say_done_while_the_store_keeps_the_values(client: InProcess, proxy: Proxy) -> None:
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far')")
    client.run("INSERT INTO t VALUES (1, 'to-be-forgotten'), (2, 'kept')")
    flush(client)
    proxy.fail("POST", "delete", status=503, times=9)
    with pytest.raises(Refused, match='storage "far" cannot be reached'):
        client.run("ERASE FROM t WHERE id = 1")
    proxy.faults.clear()
    assert rows(client, "ERASE FROM t WHERE id = 1")[0][1] == 0
    assert rows(client, "SELECT v FROM t") == [("kept",)]


def test_a_backup_holds_the_files_and_its_copy_stands_alone(
    client: InProcess, world: World, make_world: MakeWorld, s3: S3, prefix: str, tmp_path: Path
) -> None:
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far', COMPACTION='manual')")
    client.run("INSERT INTO t SELECT range, 'a' FROM range(100)")
    flush(client)
    client.run("UPDATE t SET v = 'b' WHERE id < 10")
    flush(client)
    world.close()
    shutil.rmtree(world.data_dir / "cache")
    client = world.in_process()
    client.run("BACKUP TO 'copy'")
    client.run("DROP TABLE t")
    cleaned(world)
    files = s3.keys(prefix)
    backup.restore(world.data_dir / "backups" / "copy", tmp_path / "restored")
    restored = make_world("restored")
    again = restored.in_process()
    assert rows(again, "SELECT count(*), count(*) FILTER (v = 'b') FROM t") == [(100, 10)]
    assert [r[0] for r in rows(again, "SHOW STORAGES")] == ["local"]
    again.run("DELETE FROM t WHERE id = 0")
    flush(again)
    restored.check()
    assert s3.keys(prefix) == files


def test_a_real_client_sees_no_difference(client: InProcess, world: World) -> None:
    """One table's life over the network."""
    adbc = world.adbc()
    adbc.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far')")
    adbc.run("INSERT INTO t SELECT range, 'x' || range FROM range(5000)")
    flush(adbc)
    adbc.run("DELETE FROM t WHERE id % 2 = 0")
    adbc.run("MERGE INTO t USING (SELECT 1 AS id, 'merged' AS v) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v")
    flush(adbc)
    assert rows(adbc, "SELECT count(*), min(v) FROM t") == [(2500, "merged")]
    assert rows(adbc, "SELECT v FROM t WHERE id = 4999") == [("x4999",)]
    with pytest.raises(Refused, match='storage "nowhere" does not exist'):
        adbc.run("CREATE TABLE u (id BIGINT PRIMARY KEY) WITH (STORAGE_ID='nowhere')")


def test_a_folder_is_a_storage_too(world: World, make_world: MakeWorld, tmp_path: Path) -> None:
    share = tmp_path / "share"
    client = world.in_process()
    create = f"CREATE STORAGE share WITH (TYPE='folder', URL='file://{share}')"
    with pytest.raises(Refused, match="cannot be reached"):
        client.run(create)
    share.mkdir()
    client.run(create)
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='share')")
    client.run("INSERT INTO t SELECT range, 'a' FROM range(100)")
    flush(client)
    client.run("DELETE FROM t WHERE id < 50")
    flush(client)
    client.run("COMPACT TABLE t WAIT")
    world.close()
    shutil.rmtree(world.data_dir / "cache")
    shutil.move(share, tmp_path / "unplugged")
    share.mkdir()
    client = world.in_process()
    with pytest.raises(Refused, match='storage "share" cannot be reached .the folder is not there'):
        rows(client, "SELECT count(*) FROM t")
    share.rmdir()
    shutil.move(tmp_path / "unplugged", share)
    assert rows(client, "SELECT count(*) FROM t") == [(50,)]
    world.check()
    with pytest.raises(Refused, match="in use by another server"):
        make_world("other").in_process().run(create)
    client.run("DROP TABLE t")
    cleaned(world)
    client.run("DROP STORAGE share")
    assert [p.name for p in share.rglob("*")] == [".lock"]
