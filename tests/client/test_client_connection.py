"""`flightkalam.connect()`: what its helpers do, through the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import adbc_driver_manager
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from kalam_world import ROOT_PASSWORD, World

import flightkalam
from flightkalam.client import Connection


@pytest.fixture
def connection(world: World) -> Iterator[Connection]:
    with flightkalam.connect(world.uri, "root", ROOT_PASSWORD) as made:
        made.run("CREATE TABLE t (a INT, b TEXT, v DOUBLE, PRIMARY KEY (a, b))")
        yield made


def visible(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(r.values()) for r in connection.query("SELECT * FROM t ORDER BY a, b").to_pylist()]


def test_rows_of_every_kind_go_in(connection: Connection) -> None:
    columns = {"a": [1], "b": ["x"], "v": [0.5]}
    given = pa.table({"a": pa.array([0], pa.int32()), "b": ["x"], "v": [0.5]})
    assert connection.insert("t", given) == 1
    assert connection.insert("main.t", given.to_batches()[0].set_column(0, "a", pa.array([1], pa.int32()))) == 1
    assert connection.insert("t", pl.DataFrame(columns | {"a": [2]})) == 1
    assert connection.insert("t", pd.DataFrame(columns | {"a": [3]})) == 1
    assert connection.insert("t", given.set_column(0, "a", pa.array([4], pa.int32())).to_reader()) == 1
    assert [row[0] for row in visible(connection)] == [0, 1, 2, 3, 4]


def test_a_large_table_goes_in_pieces_that_the_driver_sends(connection: Connection) -> None:
    """The driver refuses messages beyond 16 MiB, which one batch of these rows would be."""
    wide = pa.table({"a": pa.array(range(64), pa.int32()), "b": ["x" * (1 << 20)] * 64})
    assert connection.insert("t", wide) == 64


def test_upsert(connection: Connection) -> None:
    connection.insert("t", pa.table({"a": [1, 2], "b": ["x", "y"], "v": [1.0, 2.0]}))
    connection.run("FLUSH TABLE t WAIT")
    assert connection.upsert("t", pa.table({"a": [2, 3], "b": ["y", "z"], "v": [20.0, 30.0]})) == 2
    assert visible(connection) == [(1, "x", 1.0), (2, "y", 20.0), (3, "z", 30.0)]
    assert connection.insert("t", pa.table({"a": [3, 4], "b": ["z", "z"]}), on_conflict="ignore") == 1
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        connection.insert("t", pa.table({"a": [5, 1], "b": ["n", "x"]}))
    assert len(visible(connection)) == 4


def test_delete_by_keys(connection: Connection) -> None:
    n = 3_000
    connection.insert("t", pa.table({"a": range(n), "b": ["x"] * n}))
    connection.run("FLUSH TABLE t WAIT")
    gone = pa.table({"a": [*range(0, n, 2), n + 1], "b": ["x"] * (n // 2 + 1)})
    assert connection.delete("t", gone) == n // 2
    assert [row[0] for row in visible(connection)] == list(range(1, n, 2))
    assert connection.delete("t", gone) == 0


def test_an_idempotency_key_makes_a_repeat_safe(connection: Connection) -> None:
    rows = pa.table({"a": [1], "b": ["x"]})
    for _ in range(2):
        assert connection.insert("t", rows, idempotency_key="load-1") == 1
        assert connection.run("INSERT INTO t VALUES (2, 'y', 1)", idempotency_key="row-2") == 1
    assert len(visible(connection)) == 2


def test_parameters_and_counts(connection: Connection) -> None:
    assert connection.run("INSERT INTO t VALUES (?, ?, ?)", [1, "x", 0.5]) == 1
    assert connection.query("SELECT v FROM t WHERE a = ?", [1]).to_pydict() == {"v": [0.5]}


def test_watch(connection: Connection, world: World) -> None:
    """Each look gives the latest version of what changed; none is missed across a flush, a compaction and a new watcher."""
    connection.insert("t", pa.table({"a": [1, 2], "b": ["x", "x"], "v": [1.0, 2.0]}))
    steps = iter(
        [
            "INSERT INTO t VALUES (3, 'x', 3)",
            "DELETE FROM t WHERE a = 1",
            "FLUSH TABLE t WAIT",
            "UPDATE t SET v = v + 1 WHERE a = 2",
            "COMPACT TABLE t WAIT",
            "UPDATE t SET v = v + 1 WHERE a = 2",
        ]
    )
    other = world.in_process()

    def between(_: float) -> None:
        other.run(next(steps))

    def seen(rows: pa.Table) -> list[tuple[object, ...]]:
        return [(r["a"], r["v"], r["_deleted"]) for r in rows.to_pylist()]

    watching = connection.watch("t", interval=0, sleep=between)
    found = [next(watching) for _ in range(4)]
    assert [seen(c.rows) for c in found] == [[(3, 3.0, False)], [(1, None, True)], [(2, 3.0, False)], [(2, 4.0, False)]]
    assert [c.seq for c in found] == sorted(c.seq for c in found)
    later = connection.watch("t", found[0].seq)
    assert seen(next(later).rows) == [(1, None, True), (2, 4.0, False)]
    assert list(connection.watch("t", 0, stop=lambda: True)) == []


def test_everything_is_a_real_adbc_connection(world: World, connection: Connection) -> None:
    with flightkalam.connect(world.uri, "root", ROOT_PASSWORD, autocommit=False, namespace="main") as other:
        with other.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (9, 'z', 1)")
        assert visible(connection) == []
        other.commit()
        assert visible(connection) == [(9, "z", 1.0)]
        assert other.adbc_get_table_types() and other.adbc_current_db_schema == "main"


def test_login_by_token(world: World, connection: Connection) -> None:
    identity = world.kalam.parts.accounts.get("root")
    assert identity is not None
    with pytest.raises(ValueError, match="either"):
        flightkalam.connect(world.uri, "root", "x", token="y")
    with flightkalam.connect(world.uri, token="not-a-token") as other, pytest.raises(adbc_driver_manager.Error, match="28000"):
        other.query("SELECT 1")


def test_it_needs_nothing_of_the_server() -> None:
    code = (
        "import sys, flightkalam; flightkalam.connect; "
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in "
        "{'duckdb', 'rocksdict', 'sqlglot', 'pydantic', 'argon2', 'structlog', 'typer', 'google'} or "
        "(m.startswith('flightkalam.') and not m.startswith('flightkalam.client'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
