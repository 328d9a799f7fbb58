"""When the store is away, slow, or somebody else writes to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from kalam_world import InProcess, Refused, World
from object_life import create_storage, flush, rows
from object_store import S3, Proxy

from flightkalam import failpoints
from flightkalam.jobs import installs

MakeWorld = Callable[..., World]
COUNT = "SELECT count(*), max(v) FROM t"


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def client(world: World, proxy: Proxy, prefix: str) -> InProcess:
    """A table with one flushed batch of 100 rows."""
    client = world.in_process()
    create_storage(client, proxy, prefix)
    client.run("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) WITH (STORAGE_ID='far', COMPACTION='manual')")
    client.run("INSERT INTO t SELECT range, 'a' FROM range(100)")
    flush(client)
    return client


def key_of(s3: S3, prefix: str, name: str) -> str:
    return f"{prefix}/" + next(k for k in s3.keys(prefix) if k.endswith(name))


def sync_state(world: World) -> str:
    (entry,) = world.kalam.parts.scopes.manifests.entries()
    return entry.sync_state


def test_what_is_cached_is_read_and_what_is_hot_is_written(client: InProcess, world: World, proxy: Proxy) -> None:
    proxy.away = True
    assert rows(client, COUNT) == [(100, "a")], "a batch that was just written is in the cache"
    client.run("INSERT INTO t VALUES (1000, 'b')")
    client.run("UPDATE t SET v = 'c' WHERE id = 3")
    assert rows(client, COUNT) == [(101, "c")]
    with pytest.raises(Refused, match='storage "far" cannot be reached') as refused:
        client.run("FLUSH TABLE t WAIT")
    assert refused.value.sqlstate == "58030"
    assert rows(client, COUNT) == [(101, "c")]
    proxy.away = False
    flush(client)
    assert rows(client, COUNT) == [(101, "c")]
    world.check()


def test_what_is_not_cached_is_a_clear_error_until_the_store_is_back(client: InProcess, world: World, proxy: Proxy) -> None:
    world.close()
    shutil.rmtree(world.data_dir / "cache")
    proxy.away = True
    client = world.in_process()
    client.run("CREATE TABLE here (id INT PRIMARY KEY)")
    client.run("INSERT INTO here VALUES (1)")
    with pytest.raises(Refused, match='storage "far" cannot be reached .*try again later'):
        rows(client, COUNT)
    assert rows(client, "SELECT * FROM here") == [(1,)], "other tables do not mind"
    proxy.away = False
    assert rows(client, COUNT) == [(100, "a")]
    world.check()


def test_an_upload_that_fails_changes_nothing(client: InProcess, world: World, proxy: Proxy, s3: S3, prefix: str) -> None:
    client.run("UPDATE t SET v = 'b' WHERE id < 10")
    before = s3.keys(prefix)
    proxy.fail("PUT", "dv-2", status=503, times=9)
    with pytest.raises(Refused, match="it answers 503"):
        client.run("FLUSH TABLE t WAIT")
    assert rows(client, COUNT) == [(100, "b")]
    proxy.faults.clear()
    flush(client)
    assert rows(client, COUNT) == [(100, "b")]
    assert len(s3.keys(prefix)) == len(before) + 2
    world.check()


def test_what_a_failed_flush_has_uploaded_is_removed_by_the_next(
    client: InProcess, world: World, proxy: Proxy, s3: S3, prefix: str
) -> None:
    client.run("INSERT INTO t VALUES (1000, 'b')")
    client.run("DELETE FROM t WHERE id = 0")
    proxy.fail("PUT", "dv-", status=503, times=9)
    with pytest.raises(Refused):
        client.run("FLUSH TABLE t WAIT")
    orphan = s3.read(key_of(s3, prefix, "batch-1.parquet"))
    client.run("INSERT INTO t VALUES (1001, 'c')")
    proxy.faults.clear()
    flush(client)
    assert s3.read(key_of(s3, prefix, "batch-1.parquet")) != orphan
    assert rows(client, COUNT) == [(101, "c")]
    world.check()


@pytest.mark.parametrize("place", ["file.uploaded", "flush.before_commit", "flush.committed", "manifest.published"])
def test_a_flush_that_stops_anywhere_is_made_up_for_by_the_next_start(
    client: InProcess, world: World, s3: S3, prefix: str, place: str
) -> None:
    client.run("UPDATE t SET v = 'b' WHERE id < 10")

    def stop() -> None:
        failpoints.disarm()
        raise RuntimeError("stopped here")

    failpoints.arm(place, stop)
    with pytest.raises(Refused):
        client.run("FLUSH TABLE t WAIT")
    world.restart()
    client = world.in_process()
    assert rows(client, COUNT) == [(100, "b")]
    client.run("INSERT INTO t VALUES (1000, 'c')")
    flush(client)
    assert rows(client, COUNT) == [(101, "c")] and sync_state(world) == "in_sync"
    named = {"manifest.json"}.union(*(installs.names(e.manifest) for e in world.kalam.parts.scopes.manifests.entries()))
    assert {k.rpartition("/")[2] for k in s3.keys(prefix) if "/" in k} == named, "no orphan is left"
    world.check()


def test_a_publication_that_fails_is_made_up_for(client: InProcess, world: World, proxy: Proxy, s3: S3, prefix: str) -> None:
    client.run("INSERT INTO t VALUES (1000, 'b')")
    proxy.fail("PUT", "manifest.json", status=503, times=9)
    with pytest.raises(Refused, match="cannot be reached"):
        client.run("FLUSH TABLE t WAIT")
    assert sync_state(world) == "pending_write" and rows(client, COUNT) == [(101, "b")]
    published = json.loads(s3.read(key_of(s3, prefix, "manifest.json")))
    assert published["version"] == 1
    proxy.faults.clear()
    flush(client)
    assert sync_state(world) == "in_sync" and rows(client, COUNT) == [(101, "b")]
    assert json.loads(s3.read(key_of(s3, prefix, "manifest.json")))["version"] == 2
    world.check()


def test_a_publication_that_failed_is_made_up_for_by_a_restart(client: InProcess, world: World, proxy: Proxy) -> None:
    client.run("INSERT INTO t VALUES (1000, 'b')")
    proxy.fail("PUT", "manifest.json", status=503, times=9)
    with pytest.raises(Refused):
        client.run("FLUSH TABLE t WAIT")
    proxy.faults.clear()
    world.restart()
    assert rows(world.in_process(), COUNT) == [(101, "b")] and sync_state(world) == "in_sync"


@pytest.mark.parametrize("how", [{"status": 0, "after": True}, {"status": 500, "after": True}, {"status": 409}], ids=str)
def test_lost_and_false_answers_change_nothing(client: InProcess, world: World, proxy: Proxy, how: dict) -> None:
    for part in ("batch-1", "dv-", "manifest.json"):
        proxy.fail("PUT", part, **how)
    client.run("UPDATE t SET v = 'b' WHERE id < 10")
    flush(client)
    client.run("COMPACT TABLE t WAIT")
    assert rows(client, COUNT) == [(100, "b")] and sync_state(world) == "in_sync"
    world.check()


def test_a_damaged_and_a_missing_batch_are_named(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    key = key_of(s3, prefix, "batch-0.parquet")
    data = s3.read(key)
    for harm, message in ((lambda: s3.delete(key), "is missing from"), (lambda: s3.put(key, data[:-9]), "batch-0.parquet")):
        world.close()
        shutil.rmtree(world.data_dir / "cache")
        harm()
        with pytest.raises(Refused, match=message) as refused:
            rows(world.in_process(), COUNT)
        assert refused.value.sqlstate == "XX001" and str(world.data_dir) not in refused.value.message


def test_filters_that_are_away_or_damaged_cost_no_answer(
    client: InProcess, world: World, proxy: Proxy, s3: S3, prefix: str
) -> None:
    client.run("CREATE TABLE k (a INT, b INT, v TEXT, PRIMARY KEY (a, b)) WITH (STORAGE_ID='far', COMPACTION='manual')")
    for i in range(3):
        client.run(f"INSERT INTO k SELECT range * 7 + {i}, range * 7 + {i}, 'x' FROM range(1000)")
        flush(client, "k")
    lookup = "SELECT v FROM k WHERE a = 700 AND b = 700"
    for harm in ("away", "damaged"):
        world.close()
        for copy in (world.data_dir / "cache").rglob("*.bloom"):
            copy.unlink()
        client = world.in_process()
        if harm == "damaged":
            s3.put(key := key_of(s3, prefix, "key-0.bloom"), b"noise")
        proxy.away = harm == "away"
        assert rows(client, lookup) == [("x",)], harm
        proxy.away = False
    client.run("UPDATE k SET v = 'y' WHERE a = 700 AND b = 700")
    flush(client, "k")
    assert rows(client, lookup) == [("y",)] and s3.read(key) == b"noise", "nothing is overwritten"
    world.check()


# -- two servers -------------------------------------------------------------------------------------------------------


def test_a_storage_of_another_server_is_refused(client: InProcess, make_world: MakeWorld, proxy: Proxy, prefix: str) -> None:
    other = make_world("other").in_process()
    with pytest.raises(Refused, match="in use by another server: give each its own prefix"):
        create_storage(other, proxy, prefix)
    assert len(rows(other, "SHOW STORAGES")) == 1
    create_storage(other, proxy, f"{prefix}/of-its-own")


def copied(world: World, make_world: MakeWorld) -> World:
    """A second server on a copy of the data directory; the first goes on."""
    world.close()
    copy = make_world("copy")
    shutil.copytree(world.data_dir, copy.data_dir)
    return copy


def test_of_two_servers_on_copies_the_second_is_fenced(
    client: InProcess, world: World, make_world: MakeWorld, s3: S3, prefix: str
) -> None:
    copy = copied(world, make_world)
    first, second = world.in_process(), copy.in_process()
    for client in (first, second):
        assert rows(client, COUNT) == [(100, "a")]  # both have the scope open
    first.run("INSERT INTO t VALUES (1000, 'first')")
    flush(first)
    second.run("INSERT INTO t VALUES (2000, 'second')")
    files = {k: s3.read(f"{prefix}/{k}") for k in s3.keys(prefix)}
    for refused_statement in ("FLUSH TABLE t WAIT", COUNT, "INSERT INTO t VALUES (3000, 'x')", "COMPACT TABLE t WAIT"):
        with pytest.raises(Refused, match='table "main.t" is served by another server') as refused:
            second.run(refused_statement)
        assert refused.value.sqlstate == "55000"
    assert {k: s3.read(f"{prefix}/{k}") for k in s3.keys(prefix)} == files, "the second has touched nothing"
    second.run("DROP TABLE t")
    second.run("FLUSH ALL TABLES WAIT")
    assert {k: s3.read(f"{prefix}/{k}") for k in s3.keys(prefix)} == files, "not even by a drop"
    first.run("UPDATE t SET v = 'on' WHERE id = 1")
    flush(first)
    assert rows(first, COUNT) == [(101, "on")]
    world.check()


def test_a_successor_takes_over_and_the_predecessor_finds_out(client: InProcess, world: World, make_world: MakeWorld) -> None:
    copy = copied(world, make_world)
    successor = copy.in_process()
    successor.run("INSERT INTO t VALUES (2000, 'new')")
    flush(successor)
    with pytest.raises(Refused, match="is served by another server"):
        rows(world.in_process(), COUNT)
    copy.restart()
    assert rows(copy.in_process(), COUNT) == [(101, "new")]


def test_a_writer_under_way_is_fenced_at_its_next_publication(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    key = key_of(s3, prefix, "manifest.json")
    theirs = json.loads(s3.read(key)) | {"writer": "somebody", "epoch": 1}
    s3.put(key, json.dumps(theirs).encode())
    client.run("INSERT INTO t VALUES (1000, 'b')")
    with pytest.raises(Refused, match="is served by another server"):
        client.run("FLUSH TABLE t WAIT")
    with pytest.raises(Refused, match="is served by another server"):
        rows(client, COUNT)
    assert json.loads(s3.read(key)) == theirs
    world.restart()
    with pytest.raises(Refused, match="is served by another server"):
        rows(world.in_process(), COUNT)


def test_an_older_copy_beside_newer_files_is_refused(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    key = key_of(s3, prefix, "manifest.json")
    s3.put(key, json.dumps(json.loads(s3.read(key)) | {"version": 7}).encode())
    world.restart()
    with pytest.raises(Refused, match="version 7, newer than the committed 1"):
        rows(world.in_process(), COUNT)


def test_a_lost_or_damaged_manifest_is_published_again(client: InProcess, world: World, s3: S3, prefix: str) -> None:
    key = key_of(s3, prefix, "manifest.json")
    published = json.loads(s3.read(key))
    for harm in (lambda: s3.delete(key), lambda: s3.put(key, b'{"version": 1, "ba')):
        harm()
        world.restart()
        client = world.in_process()
        assert rows(client, COUNT) == [(100, "a")]
        found = json.loads(s3.read(key))
        assert {**found, "writer": "", "epoch": 0} == {**published, "writer": "", "epoch": 0}
    client.run("INSERT INTO t VALUES (1000, 'b')")
    flush(client)
    assert rows(client, COUNT) == [(101, "b")]
