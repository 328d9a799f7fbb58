"""Queries over small batches read rows that are kept decoded; what they answer is what the engine reads out of the files: of
every type, under every later schema, with dead rows, tombstones and open transactions (T-17, T-27, T-31, T-32, T-33)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from kalam_world import Adbc, InProcess, World
from service_scripts import FOLDER, Play
from service_types import KINDS, assert_same, ddl, edges

from flightkalam.auth.identity import Role

SMALL = 4_096
SCRIPTS = sorted(FOLDER.glob("*.sql"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A service as it is shipped."""
    made = World(tmp_path / "data", {"manifest": {"small_batch_rows": SMALL}})
    yield made
    made.close()


def both_ways(world: World, client: InProcess | Adbc, sql: str) -> pa.Table:
    """The answer of a query, which must be the same with and without the short way; the second time from memory."""
    scopes, answers = world.kalam.parts.scopes, []
    for rows in (0, SMALL, SMALL):
        scopes.small_batch_rows = rows
        found = client.run(sql).rows
        assert found is not None
        answers.append(found)
    for answer in answers[1:]:
        assert_same(answer, answers[0])
        assert answer.schema == answers[0].schema
    return answers[-1]


def opens_files(client: InProcess, sql: str) -> bool:
    rows = client.run(f"EXPLAIN {sql}").rows
    assert rows is not None
    return "READ_PARQUET" in "".join(str(v) for v in rows.column(0).to_pylist()).upper().replace(" ", "")


def test_every_type_filtered_and_not(world: World, wire: Adbc, root: InProcess) -> None:
    rows = edges()
    root.run(ddl("t"))
    with wire.connection.cursor() as cursor:
        cursor.adbc_ingest("t", rows, mode="append")
    world.flush()
    assert not opens_files(root, "SELECT * FROM t")
    for client in (root, wire):
        both_ways(world, client, "SELECT * FROM t ORDER BY id")
        for kind in KINDS:
            column = f'"{kind.name}"'
            both_ways(world, client, f"SELECT id, {column} FROM t WHERE {column} IS NOT NULL ORDER BY id")
            both_ways(
                world, client, f"SELECT id FROM t AS a WHERE {column} IN (SELECT {column} FROM t WHERE id < 3) ORDER BY id"
            )


FLOATS = (
    "SELECT k FROM f WHERE x > 1 ORDER BY k",
    "SELECT k FROM f WHERE x = 'nan'::DOUBLE ORDER BY k",
    "SELECT k FROM f WHERE x = 0.0 ORDER BY k",
    "SELECT max(x) AS m, min(x) AS n, count(*) AS c FROM f",
    "SELECT k, x FROM f ORDER BY x DESC, k LIMIT 2",
)


def test_nan_and_zeros(world: World, root: InProcess) -> None:
    """T-27, T-28."""
    root.run("CREATE TABLE f (k INT PRIMARY KEY, x DOUBLE)")
    root.run("INSERT INTO f VALUES (1, 'nan'), (2, 0.0), (3, -0.0), (4, 'inf'), (5, NULL), (6, 1.5)")
    world.flush()
    found = [both_ways(world, root, sql) for sql in FLOATS]
    assert found[0].column("k").to_pylist() == [1, 4, 6]
    assert found[1].column("k").to_pylist() == [1]
    assert found[2].column("k").to_pylist() == [2, 3]


CHANGES = (
    "ALTER TABLE s ADD COLUMN added TEXT DEFAULT 'filled'",
    "ALTER TABLE s ALTER COLUMN n SET DATA TYPE BIGINT",
    "ALTER TABLE s RENAME COLUMN v TO w",
    "ALTER TABLE s DROP COLUMN gone",
    "ALTER TABLE s ADD COLUMN gone TEXT",
    "ALTER TABLE s ADD COLUMN inner_ STRUCT(a INT, b TEXT)",
)


def test_files_from_before_a_change_of_the_schema(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE s (k INT PRIMARY KEY, v TEXT, n INT, gone TEXT)")
    for i, change in enumerate(CHANGES):
        root.run(f"INSERT INTO s (k, n) VALUES ({i}, {i}), ({i + 10}, NULL)")
        world.flush()
        both_ways(world, root, "SELECT * FROM s ORDER BY k")
        root.run(change)
        both_ways(world, root, "SELECT * FROM s ORDER BY k")
    both_ways(
        world, root, "SELECT k, n + 3000000000 AS big, inner_.b FROM s WHERE added = 'filled' AND gone IS NULL ORDER BY k"
    )


def test_dead_rows_tombstones_and_transactions(world: World, root: InProcess) -> None:
    """T-17: and what a transaction has written hides rows that were read from memory."""
    root.run("CREATE TABLE d (k INT PRIMARY KEY, n INT) WITH (COMPACTION = 'manual')")
    root.run("INSERT INTO d SELECT i, i FROM range(100) AS t(i)")
    world.flush()
    root.run("UPDATE d SET n = -n WHERE k % 7 = 0")
    root.run("DELETE FROM d WHERE k % 10 = 3")
    feed = "SELECT k, n, _deleted FROM d WHERE _seq > 0 ORDER BY k"
    for _ in range(2):  # the changes hot, then cold
        assert both_ways(world, root, "SELECT * FROM d ORDER BY k").num_rows == 90
        assert both_ways(world, root, "SELECT k FROM d WHERE n = 14").num_rows == 0, "a superseded value"
        assert both_ways(world, root, feed).num_rows == 100
        world.flush()
    root.run("INSERT INTO d VALUES (3, 33)")
    assert both_ways(world, root, feed).num_rows == 100
    root.run("BEGIN")
    root.run("UPDATE d SET n = 1000 WHERE k < 50")
    root.run("DELETE FROM d WHERE k >= 90")
    changed = both_ways(world, root, "SELECT * FROM d ORDER BY k")
    assert set(changed.column("n").to_pylist()[:46]) == {1000} and changed.num_rows == 82
    root.run("COMMIT")
    assert both_ways(world, root, "SELECT * FROM d ORDER BY k").equals(changed)
    world.check()


def test_owners_share_nothing(world: World, root: InProcess) -> None:
    root.run("CREATE USER TABLE own (k INT PRIMARY KEY, v TEXT)")
    for name in ("ann", "bob"):
        world.in_process(name, Role.USER).run(f"INSERT INTO own SELECT i, '{name}' FROM range(20) AS t(i)")
    world.flush()
    for name in ("ann", "bob", "ann"):
        found = both_ways(world, world.in_process(name, Role.USER), "SELECT DISTINCT v FROM own")
        assert found.column("v").to_pylist() == [name]


def test_what_is_not_small_is_left_to_the_engine(world: World, root: InProcess) -> None:
    """Few rows can be large, and values that repeat make a small file of what decodes to much."""
    root.run("CREATE TABLE many (k INT PRIMARY KEY)")
    root.run(f"INSERT INTO many SELECT i FROM range({SMALL + 1}) AS t(i)")
    root.run("CREATE TABLE wide (k INT PRIMARY KEY, v TEXT)")
    root.run("INSERT INTO wide SELECT i, repeat('x', 10000) FROM range(1500) AS t(i)")
    world.flush()
    assert opens_files(root, "SELECT * FROM many") and opens_files(root, "SELECT * FROM wide")
    assert both_ways(world, root, "SELECT k, length(v) AS n FROM wide ORDER BY k").column("n").to_pylist() == [10_000] * 1500
    root.run("DELETE FROM many WHERE k = 1")
    assert both_ways(world, root, "SELECT count(*) AS n FROM many").column("n").to_pylist() == [SMALL]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_scripts_with_every_change_flushed(world: World, script: Path) -> None:
    Play(world, world.in_process, world.flush, lambda: None).run(script)
    world.check()
