"""What is lost of a table in an object store is made again from the batches in the bucket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from kalam_world import InProcess, Refused, World
from object_life import create_storage, flush, rows
from object_store import S3, Proxy

from flightkalam.cold import manifest_records as records
from flightkalam.storage.kv import Batch

MakeWorld = Callable[..., World]
ASKED = "SELECT count(*), sum(id), count(*) FILTER (v = 'two') FROM t"
RIGHT = [(990, sum(range(990)), 10)]


@pytest.fixture
def world(make_world: MakeWorld, proxy: Proxy, prefix: str) -> World:
    """A table of two batches, the first with dead rows."""
    world = make_world()
    client = world.in_process()
    create_storage(client, proxy, prefix)
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far', COMPACTION='manual')")
    client.run("INSERT INTO t SELECT range, 'one' FROM range(1000)")
    flush(client)
    client.run("UPDATE t SET v = 'two' WHERE id < 10")
    client.run("DELETE FROM t WHERE id >= 990")
    flush(client)
    return world


def restarted(world: World, change: Callable[[Batch, bytes], None] = lambda batch, key: None) -> InProcess:
    """After a start with every record of a manifest changed, and nothing in the cache."""
    store, batch = world.kalam.store, Batch()
    for key, _ in list(store.scan(records.FAMILY)):
        change(batch, key)
    if len(batch):
        store.commit(batch)
    world.close()
    shutil.rmtree(world.data_dir / "cache")
    return world.in_process()


def goes_on(client: InProcess, world: World) -> None:
    client.run("INSERT INTO t VALUES (5000, 'later')")
    flush(client)
    assert rows(client, ASKED) == [(991, RIGHT[0][1] + 5000, 10)]
    world.check()
    assert rows(restarted(world), ASKED) == [(991, RIGHT[0][1] + 5000, 10)]


def rebuilt(client: InProcess) -> int:
    found = client.run("REBUILD MANIFEST t WAIT").rows
    assert found is not None
    return int(json.loads(found.column("result")[0].as_py())["rebuilt"])


def test_a_damaged_manifest_is_rebuilt_from_the_bucket_when_it_is_needed(world: World) -> None:
    client = restarted(world, lambda batch, key: batch.put(records.FAMILY, key, b"damaged"))
    assert rows(client, ASKED) == RIGHT
    goes_on(client, world)


def test_with_every_record_lost_the_table_is_refused_until_it_takes_the_files(world: World) -> None:
    client = restarted(world, lambda batch, key: batch.delete(records.FAMILY, key))
    with pytest.raises(Refused, match=r"REBUILD MANIFEST main\.t") as refused:
        rows(client, ASKED)
    assert refused.value.sqlstate == "XX001"
    assert rebuilt(client) == 1
    assert rows(client, ASKED) == RIGHT
    goes_on(client, world)


@pytest.mark.parametrize("lost", ["dv-2.bin", "manifest.json", "both"])
def test_what_is_lost_in_the_bucket_is_put_there_again(world: World, s3: S3, prefix: str, lost: str) -> None:
    names = ("dv-2.bin", "manifest.json") if lost == "both" else (lost,)
    for name in names:
        s3.delete(f"{prefix}/" + next(k for k in s3.keys(prefix) if k.endswith(name)))
    client = restarted(world)
    assert rows(client, ASKED) == RIGHT
    assert rebuilt(client) == ("dv-2.bin" in names)
    assert rows(client, ASKED) == RIGHT
    flush(client)
    assert any(".bin" in k for k in s3.keys(prefix))
    goes_on(client, world)
    assert any(k.endswith("manifest.json") for k in s3.keys(prefix))
