"""The life of tables whose files lie in an object store."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from kalam_world import InProcess, World
from object_life import create_storage, flush, rows
from object_store import S3, Proxy

MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def client(world: World, proxy: Proxy, prefix: str) -> InProcess:
    client = world.in_process()
    create_storage(client, proxy, prefix)
    return client


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
    client.run("FLUSH ALL TABLES WAIT")  # jobs run one after another, so the files are gone by now
    assert s3.keys(prefix) == ["flightkalam.json"]
    client.run("DROP STORAGE far")
    assert s3.keys(prefix) == []
