"""COMPACT, automatic compaction, ROW_RETENTION and ERASE as a client sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kalam_world import Client, InProcess, Refused, World

from flightkalam.auth.identity import Role

SECRET = "4711-Xanthippe"


def rows(client: Client, sql: str) -> list[dict[str, Any]]:
    found = client.run(sql).rows
    assert found is not None
    return found.to_pylist()


def job(world: World, kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    jobs = world.kalam.parts.jobs
    result = jobs.wait(jobs.submit(kind, parameters)).result
    assert result is not None
    return result


def files_with(world: World, text: str) -> list[str]:
    """Files with these bytes; and Parquet files with this text in a value, which compression may hide."""
    found = [p for p in world.data_dir.rglob("*") if p.is_file()]
    return [p.name for p in found if text.encode() in p.read_bytes() or (p.suffix == ".parquet" and text in _values(p))]


def _values(path: Path) -> str:
    return "\n".join(map(str, pq.read_table(path, partitioning=None).to_pylist()))


def healthy(client: Client, table: str) -> bool:
    return all(r["problem"] is None for r in rows(client, f"CHECK TABLE {table}"))


def flushes(client: Client, table: str, n: int, size: int = 5) -> None:
    for i in range(n):
        client.run(f"INSERT INTO {table} (k, v) SELECT {i * size} + range, 'x' FROM range({size})")
        client.run(f"FLUSH TABLE {table} WAIT")


def test_compact_waits_and_says_what_it_did(root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY, v TEXT) WITH (COMPACTION='manual')")
    flushes(root, "t", 4)
    root.run("UPDATE t SET v = 'y' WHERE k < 5")
    root.run("FLUSH TABLE t WAIT")
    (answer,) = rows(root, "COMPACT TABLE t WAIT")
    assert answer["job_id"].startswith("CO-")
    assert (answer["table"], answer["status"]) == ("main.t", "completed")
    done = json.loads(answer["result"])
    assert {name: done[name] for name in ("batches_in", "batches_out", "rows_in", "rows_out", "dropped_rows")} == {
        "batches_in": 5,
        "batches_out": 1,
        "rows_in": 25,
        "rows_out": 20,
        "dropped_rows": 5,
    }
    assert done["bytes_in"] > done["bytes_out"] > 0
    assert rows(root, "SELECT v, count(*) AS n FROM t GROUP BY v ORDER BY v") == [{"v": "x", "n": 15}, {"v": "y", "n": 5}]
    assert healthy(root, "t")


def test_compact_without_wait_answers_at_once_and_with_nothing_to_do_too(root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY)")
    (answer,) = rows(root, "COMPACT TABLE t")
    assert answer["job_id"].startswith("CO-") and answer["status"] in ("queued", "running", "completed")


def test_every_owner_of_a_user_table_is_compacted(root: InProcess, as_role: Callable[[Role], InProcess]) -> None:
    root.run("CREATE USER TABLE u (k INT PRIMARY KEY, v TEXT) WITH (COMPACTION='manual')")
    clients = [root, as_role(Role.USER), as_role(Role.SERVICE)]
    for client in clients:
        for i in range(3):
            client.run(f"INSERT INTO u VALUES ({i}, 'x')")
            root.run("FLUSH TABLE u WAIT")
    (answer,) = rows(root, "COMPACT TABLE u WAIT")
    assert json.loads(answer["result"])["batches_out"] == 3
    assert all(rows(client, "SELECT count(*) AS n FROM u") == [{"n": 3}] for client in clients)


def test_who_may_compact(root: InProcess, as_role: Callable[[Role], InProcess]) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (ACCESS_LEVEL='PUBLIC')")
    root.run("CREATE STREAM TABLE s (k INT PRIMARY KEY) WITH (TTL_SECONDS=10)")
    with pytest.raises(Refused) as refused:
        as_role(Role.USER).run("COMPACT TABLE t")
    assert refused.value.sqlstate == "42501"
    as_role(Role.SERVICE).run("COMPACT TABLE t WAIT")
    with pytest.raises(Refused, match="STREAM"):
        root.run("COMPACT TABLE s")


@pytest.mark.parametrize(("option", "enabled", "expected"), [("auto", True, 1), ("manual", True, 0), ("auto", False, 0)])
def test_many_small_batches_are_compacted_by_themselves(tmp_path: Path, option: str, enabled: bool, expected: int) -> None:
    world = World(tmp_path / "data", {"compaction": {"enabled": enabled}})
    try:
        root = world.in_process()
        root.run(f"CREATE TABLE t (k INT PRIMARY KEY, v TEXT) WITH (COMPACTION='{option}')")
        flushes(root, "t", 11, size=2)
        jobs = [j for j in world.kalam.parts.jobs.list() if j.kind == "compact"]
        assert len(jobs) == expected
        for j in jobs:
            assert world.kalam.parts.jobs.wait(j.job_id).status == "completed"
        batches = rows(root, "CHECK TABLE t")[0]["batches"]
        assert batches == (1 if expected else 11)
        assert rows(root, "SELECT count(*) AS n FROM t") == [{"n": 22}]
    finally:
        world.close()


@pytest.mark.parametrize(
    ("type_", "old", "young"),
    [
        ("TIMESTAMP", "now()::TIMESTAMP - INTERVAL 25 HOUR", "now()::TIMESTAMP - INTERVAL 23 HOUR"),
        ("TIMESTAMPTZ", "now() - INTERVAL 25 HOUR", "now() - INTERVAL 23 HOUR"),
        ("DATE", "(now() - INTERVAL 3 DAY)::DATE", "(now() + INTERVAL 1 DAY)::DATE"),
    ],
)
def test_rows_past_their_retention_are_deleted_hot_and_cold(
    world: World, root: InProcess, type_: str, old: str, young: str
) -> None:
    root.run(f"CREATE TABLE t (k INT PRIMARY KEY, ts {type_}) WITH (ROW_RETENTION='1d BY ts')")
    root.run(f"INSERT INTO t VALUES (1, {old}), (2, {young}), (3, NULL)")
    root.run(f"INSERT INTO t VALUES (7, {old})")
    root.run(f"UPDATE t SET ts = {young} WHERE k = 7")
    root.run("FLUSH TABLE t WAIT")
    root.run(f"INSERT INTO t VALUES (4, {old}), (5, {young}), (6, NULL)")
    assert job(world, "retention", {"tables": ["main.t"]})["expired_rows"] == 2
    assert [r["k"] for r in rows(root, "SELECT k FROM t ORDER BY k")] == [2, 3, 5, 6, 7]
    assert job(world, "retention", {"tables": ["main.t"]})["expired_rows"] == 0
    assert healthy(root, "t")


def test_the_retention_job_lets_go_of_tombstones_whose_time_has_come(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY, v TEXT) WITH (DELETED_RETENTION_HOURS=0)")
    root.run("CREATE TABLE kept (k INT PRIMARY KEY, v TEXT)")
    for table in ("t", "kept"):
        root.run(f"INSERT INTO {table} VALUES (1, '{SECRET}'), (2, 'b')")
        root.run(f"FLUSH TABLE {table} WAIT")
        root.run(f"DELETE FROM {table} WHERE k = 1")
        root.run(f"FLUSH TABLE {table} WAIT")
    done = job(world, "retention", {"tables": ["main.t", "main.kept", "main.gone"]})
    assert (done["dropped_rows"], done["dropped_tombstones"]) == (1, 1)
    assert rows(root, "SELECT k FROM t") == rows(root, "SELECT k FROM kept") == [{"k": 2}]
    assert rows(root, "SELECT k FROM t WHERE _deleted") == []
    assert rows(root, "SELECT k FROM kept WHERE _deleted") == [{"k": 1}]


def test_erase_leaves_the_values_in_no_file(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT)")
    root.run(f"INSERT INTO t VALUES ('{SECRET}', 'a'), ('b', '{SECRET}'), ('c', 'kept')")
    root.run("FLUSH TABLE t WAIT")
    root.run(f"UPDATE t SET v = '{SECRET} again' WHERE k = 'b'")
    root.run(f"INSERT INTO t SELECT 'n' || range, '{SECRET}' FROM range(300)")
    root.run("INSERT INTO t VALUES ('d', 'kept')")
    assert files_with(world, SECRET)
    (answer,) = rows(root, f"ERASE FROM t WHERE k = '{SECRET}' OR v LIKE '{SECRET}%'")
    assert (answer["table"], answer["rows"]) == ("main.t", 302)
    assert answer["erased_at"] is not None
    assert files_with(world, SECRET) == []
    assert rows(root, "SELECT * FROM t ORDER BY k") == [{"k": "c", "v": "kept"}, {"k": "d", "v": "kept"}]
    assert healthy(root, "t")
    world.restart()
    assert rows(world.in_process(), "SELECT count(*) AS n FROM t") == [{"n": 2}]


@pytest.mark.parametrize("state", ["hot", "flushed", "compacted", "many versions"])
def test_erase_through_a_client_reaches_every_file(world: World, state: str) -> None:
    """Bounds in manifests, Bloom filters, segment files of a large ingest, and what RETURNING gave for an idempotency key."""
    wire, keyed = world.adbc(), world.adbc(x_kalam_idempotency_key="once")
    wire.run("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT, n INT) WITH (BLOOM_FILTER_COLUMNS='k,v')")
    wire.run("INSERT INTO t VALUES ('a', 'kept', 1)")
    ingested = pa.table({"k": [f"{SECRET}-{i}" for i in range(30_000)], "v": [SECRET * 5] * 30_000, "n": [2] * 30_000})
    with wire.connection.cursor() as cursor:
        cursor.adbc_ingest("t", ingested, mode="append")
    assert keyed.run(f"INSERT INTO t VALUES ('z', '{SECRET}', 3) RETURNING v").rows is not None
    if state in ("flushed", "compacted"):
        wire.run("FLUSH TABLE t WAIT")
    if state == "compacted":
        wire.run("COMPACT TABLE t WAIT")
    if state == "many versions":
        for i in range(3):
            wire.run(f"UPDATE t SET n = {10 + i} WHERE k < '{SECRET}-2'")
            wire.run("FLUSH TABLE t WAIT")
    assert files_with(world, SECRET)
    (answer,) = rows(wire, f"ERASE FROM t WHERE contains(v, '{SECRET}')")
    assert answer["rows"] == 30_001
    assert files_with(world, SECRET) == []
    assert rows(wire, "SELECT * FROM t") == [{"k": "a", "v": "kept", "n": 1}]
    with pytest.raises(Refused, match="was done before"):
        keyed.run(f"INSERT INTO t VALUES ('z', '{SECRET}', 3) RETURNING v")
    assert healthy(wire, "t")


def test_erase_takes_only_the_callers_rows(world: World, root: InProcess, as_role: Callable[[Role], InProcess]) -> None:
    root.run("CREATE USER TABLE u (k INT PRIMARY KEY, v TEXT)")
    other = as_role(Role.USER)
    root.run(f"INSERT INTO u VALUES (1, '{SECRET}')")
    other.run("INSERT INTO u VALUES (1, 'mine')")
    assert rows(root, "ERASE FROM u WHERE true")[0]["rows"] == 1
    assert rows(other, "SELECT v FROM u") == [{"v": "mine"}]
    assert files_with(world, SECRET) == []


def test_erase_is_refused_like_a_delete(root: InProcess, as_role: Callable[[Role], InProcess]) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (ACCESS_LEVEL='PUBLIC')")
    root.run("INSERT INTO t VALUES (1)")
    with pytest.raises(Refused) as refused:
        as_role(Role.USER).run("ERASE FROM t WHERE k = 1")
    assert refused.value.sqlstate == "42501"
    with pytest.raises(Refused, match="WHERE"):
        root.run("ERASE FROM t")
    assert rows(root, "SELECT k FROM t") == [{"k": 1}]
