"""UPDATE and DELETE go by the positions that their SELECT has found: whatever tier the rows are in, whatever moves them meanwhile.

And the column that tells them is for our own statements alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kalam_world import InProcess, Refused, World

from flightkalam import failpoints
from flightkalam.table import mutate as mutate_
from flightkalam.table import positions as positions_


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


MANUAL = "WITH (COMPACTION='manual')"
KEYS = {
    "single": ("k BIGINT PRIMARY KEY, b TEXT", "i, 'b' || i"),
    "composite": ("k BIGINT, b TEXT, PRIMARY KEY (b, k)", "i, 'b' || i"),
}


def fill(root: InProcess, world: World, key: str) -> dict[int, int]:
    """Clean batches, batches with a few dead rows and with many, and hot rows; returns n by k."""
    columns, values = KEYS[key]
    root.run(
        f"CREATE TABLE t ({columns}, n BIGINT) {MANUAL}".replace("PRIMARY KEY (b, k), n BIGINT", "n BIGINT, PRIMARY KEY (b, k)")
    )
    model: dict[int, int] = {}
    for first, last in ((0, 5_000), (5_000, 5_200), (5_200, 5_250)):
        root.run(f"INSERT INTO t SELECT {values}, i FROM range({first}, {last}) AS r(i)")
        model |= {i: i for i in range(first, last)}
        world.flush()
    root.run("UPDATE t SET n = -n WHERE k IN (17, 4321) OR (k > 5000 AND k < 5100)")
    model |= {k: -n for k, n in model.items() if k in (17, 4321) or 5000 < k < 5100}
    world.flush()
    root.run("DELETE FROM t WHERE k = 18 OR k = 5101")
    root.run(f"INSERT INTO t SELECT {values}, i FROM range(6_000, 6_050) AS r(i)")
    model |= {i: i for i in range(6_000, 6_050)}
    del model[18], model[5101]
    return model


def rows(client: InProcess) -> dict[int, int]:
    found = client.run("SELECT k, n FROM t").rows
    assert found is not None
    return dict(zip(found.column("k").to_pylist(), found.column("n").to_pylist(), strict=True))


@pytest.mark.parametrize(
    "moves", [(), ("FLUSH TABLE t WAIT",), ("COMPACT TABLE t WAIT",), ("FLUSH TABLE t WAIT", "COMPACT TABLE t WAIT")]
)
@pytest.mark.parametrize("key", KEYS)
def test_rows_change_where_they_are_when_the_statement_commits(
    world: World, root: InProcess, key: str, moves: tuple[str, ...]
) -> None:
    """T-7, T-9, T-10, T-17: updated, deleted and inserted again, with a move between the SELECT and the commit."""
    model = fill(root, world, key)
    other = world.in_process()

    def moved() -> None:
        failpoints.disarm()
        for move in moves:
            other.run(move)

    failpoints.arm("write.ready", moved)
    assert root.run("UPDATE t SET n = n + 100000 WHERE k % 3 = 0").count == sum(k % 3 == 0 for k in model)
    model |= {k: n + 100000 for k, n in model.items() if k % 3 == 0}
    assert rows(root) == model
    failpoints.arm("write.ready", moved)
    assert root.run("DELETE FROM t WHERE k % 5 = 0").count == sum(k % 5 == 0 for k in model)
    model = {k: n for k, n in model.items() if k % 5}
    assert rows(root) == model
    root.run("INSERT INTO t SELECT i, 'b' || i, 7 FROM range(0, 100, 5) AS r(i)")
    assert root.run("UPDATE t SET n = n + 1 WHERE n = 7 AND k < 100 AND k % 5 = 0").count == 20
    model |= dict.fromkeys(range(0, 100, 5), 8)
    assert rows(root) == model
    world.check()


def test_positions_spare_the_door_the_search(world: World, root: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, world, "single")
    used: list[int] = []
    located = positions_.located

    def counted(*a: Any) -> Any:
        used.append(len(a[2].seq))
        return located(*a)

    def never(*a: Any, **k: Any) -> Any:
        raise AssertionError("the keys were looked for")

    monkeypatch.setattr(mutate_, "located", counted)
    monkeypatch.setattr(mutate_, "locate", never)
    monkeypatch.setattr(mutate_, "placed_ahead", never)
    updated = root.run("UPDATE t SET n = n + 1 WHERE k % 2 = 0").count
    joined = root.run("UPDATE t SET n = s.i FROM range(3) AS s(i) WHERE t.k = s.i").count
    deleted = root.run("DELETE FROM t USING (VALUES (1), (2), (2)) AS v(x) WHERE t.k = v.x RETURNING k").rows
    assert used == [updated, joined, 2] and deleted is not None and sorted(deleted.column("k").to_pylist()) == [1, 2]
    root.run("TRUNCATE t")
    assert rows(root) == {}
    world.check()


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "$at" FROM t',
        'SELECT t."$AT" FROM t',
        'SELECT k FROM t WHERE "$at" > 0',
        'UPDATE t SET n = "$at" WHERE k > 0',
        'UPDATE t SET n = 1 WHERE t."$at" = 3',
        'UPDATE t SET n = (SELECT max(s."$at") FROM t AS s)',
        'DELETE FROM t WHERE "$At" >= 0',
        'DELETE FROM t USING (SELECT "$at" AS x FROM t) AS s WHERE k = x',
        'DELETE FROM t WHERE k = 1 RETURNING "$at"',
        "INSERT INTO t SELECT k + 10, 'x', \"$at\" FROM t",
        'MERGE INTO t USING (VALUES (1)) AS s(x) ON t.k = s.x WHEN MATCHED THEN UPDATE SET n = t."$at"',
        'CREATE VIEW v AS SELECT "$at" FROM t',
    ],
)
def test_no_statement_of_a_client_learns_where_a_row_sits(world: World, root: InProcess, sql: str) -> None:
    """T-50."""
    root.run(f"CREATE TABLE t (k BIGINT PRIMARY KEY, b TEXT, n BIGINT) {MANUAL}")
    root.run("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)")
    world.flush()
    with pytest.raises(Refused) as refused:
        root.run(sql)
    assert refused.value.sqlstate.startswith("42")
    assert rows(root) == {1: 1, 2: 2}


def test_the_name_may_stand_in_a_text(world: World, root: InProcess) -> None:
    root.run(f"CREATE TABLE t (k BIGINT PRIMARY KEY, b TEXT, n BIGINT) {MANUAL}")
    root.run("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)")
    world.flush()
    assert root.run("UPDATE t SET b = 'costs 5 $at least' WHERE n > 0").count == 2
    assert root.run("DELETE FROM t WHERE b LIKE '%$at%' AND n > 1").count == 1
    assert rows(root) == {1: 1}
