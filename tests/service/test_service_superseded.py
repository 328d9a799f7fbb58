"""A superseded value is never found, whatever asks for it (T-19, T-20, T-37).

The same history is given to a table of the service, in several states of its tiers, and to a naive model: every version with its
number in a table, and a view that keeps MAX(number) of each key unless that is a tombstone.  Then every superseded value is
asked for, on its column, in every form of question; the answers must be the model's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from kalam_world import Client, World

COLUMNS = {
    "n": "INT",
    "f": "DOUBLE",
    "s": "TEXT",
    "d": "DATE",
    "b": "BOOLEAN",
    "m": "DECIMAL(10,2)",
    "ts": "TIMESTAMP",
}
KEYS, ROUNDS, ASKED = 30, 6, 3
Version = tuple[int, dict[str, str] | None]  # key, and its values as literals; None: deleted


def history() -> Iterator[list[Version]]:
    """Rounds of changes; each value of a wide column occurs once, so that it is known which version it belongs to."""
    chance, number = random.Random(7), 0
    for round_ in range(ROUNDS):
        changes: list[Version] = []
        for key in range(KEYS) if round_ == 0 else chance.sample(range(KEYS), KEYS // 2):
            number += 1
            changes.append((key, None if round_ and chance.random() < 0.2 else _values(chance, number)))
        yield changes


def _values(chance: random.Random, i: int) -> dict[str, str]:
    values = {
        "n": str(chance.randrange(10_000) * 1_000 + i),
        "f": f"{i}.5e0",
        "s": f"'name {i:04d}'",
        "d": f"DATE '2020-01-01' + {i}",
        "b": chance.choice(("true", "false")),
        "m": f"{i}.25",
        "ts": f"TIMESTAMP '2021-01-01' + INTERVAL {i} MINUTE",
    }
    return {c: "NULL" if chance.random() < 0.1 else v for c, v in values.items()}


class Model:
    """MAX(number) of each key, as naive as can be."""

    def __init__(self) -> None:
        self.db = duckdb.connect()
        declared = ", ".join(f"{c} {t}" for c, t in COLUMNS.items())
        self.db.execute(f"CREATE TABLE versions (k INT, {declared}, number INT, deleted BOOLEAN)")
        newest = "row_number() OVER (PARTITION BY k ORDER BY number DESC) = 1"
        self.db.execute(
            f"CREATE VIEW t AS SELECT k, {', '.join(COLUMNS)} FROM (SELECT * FROM versions QUALIFY {newest}) WHERE NOT deleted"
        )
        self._number = 0

    def add(self, version: Version) -> None:
        key, values = version
        self._number += 1
        cells = ", ".join("NULL" if values is None else values[c] for c in COLUMNS)
        self.db.execute(f"INSERT INTO versions VALUES ({key}, {cells}, {self._number}, {values is None})")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.db.execute(sql).fetchall()

    def superseded(self, column: str) -> list[str]:
        """Values that only superseded versions have, as literals."""
        found = self.rows(f"SELECT DISTINCT {column}::VARCHAR FROM versions WHERE {column} NOT IN (SELECT {column} FROM t WHERE {column} IS NOT NULL)"
                          f" AND {column} IS NOT NULL ORDER BY 1")  # fmt: skip
        return [f"'{v}'::{COLUMNS[column]}" for (v,) in found]


def write(client: Client, version: Version) -> None:
    key, values = version
    if values is None:
        client.run(f"DELETE FROM t WHERE k = {key}")
        return
    names, cells = ", ".join(COLUMNS), ", ".join(values[c] for c in COLUMNS)
    client.run(f"INSERT OR REPLACE INTO t (k, {names}) VALUES ({key}, {cells})")


def hot(_: World, client: Client, round_: int) -> None: ...


def each_round_flushed(_: World, client: Client, round_: int) -> None:
    client.run("FLUSH TABLE t WAIT")


def mixed(_: World, client: Client, round_: int) -> None:
    if round_ in (0, 2, 4):
        client.run("FLUSH TABLE t WAIT")


def one_flush(_: World, client: Client, round_: int) -> None:
    if round_ == ROUNDS - 1:
        client.run("FLUSH TABLE t WAIT")


def compacted(_: World, client: Client, round_: int) -> None:
    client.run("FLUSH TABLE t WAIT")
    if round_ in (2, ROUNDS - 1):
        client.run("COMPACT TABLE t WAIT")


def compacted_then_hot(_: World, client: Client, round_: int) -> None:
    if round_ < 3:
        client.run("FLUSH TABLE t WAIT")
    if round_ == 2:
        client.run("COMPACT TABLE t WAIT")


def questions(column: str, value: str) -> Iterator[str]:
    """Every form in which one value of one column can be asked for."""
    c, text = column, f"{column}::VARCHAR"
    yield f"SELECT k FROM t WHERE {c} = {value} ORDER BY k"
    yield f"SELECT k FROM t WHERE {c} IN ({value}) ORDER BY k"
    yield f"SELECT k FROM t WHERE {c} >= {value} AND {c} <= {value} ORDER BY k"
    yield f"SELECT k FROM t WHERE {c} > {value} ORDER BY {c}, k LIMIT 2"
    yield f"SELECT k FROM t WHERE {c} <= {value} ORDER BY {c} DESC, k LIMIT 2"
    yield f"SELECT k FROM t WHERE {text} LIKE ({value})::VARCHAR ORDER BY k"
    yield f"SELECT k FROM t WHERE {c} IS NOT DISTINCT FROM {value} OR {c} IS NULL ORDER BY k"
    yield f"SELECT count(*), count({c}), min(k) FROM t WHERE {c} = {value}"
    yield f"SELECT EXISTS (SELECT 1 FROM t WHERE {c} = {value})"
    yield f"SELECT a.k FROM t a JOIN t b ON a.{c} = b.{c} WHERE b.{c} = {value} ORDER BY a.k"
    yield f"SELECT k FROM t WHERE k IN (SELECT k FROM t WHERE {c} = {value}) ORDER BY k"


def sweeping(column: str) -> Iterator[str]:
    """Questions about all values of a column."""
    yield f"SELECT count(*), count({column}), count(DISTINCT {column}), min({column}), max({column}) FROM t"
    yield f"SELECT k, {column} FROM t ORDER BY {column} NULLS LAST, k LIMIT 5"
    yield f"SELECT k FROM t WHERE {column} IS NULL ORDER BY k"
    yield f"SELECT {column}, count(*) FROM t GROUP BY {column} HAVING count(*) > 0 ORDER BY 1 NULLS LAST"


STATES = [hot, each_round_flushed, mixed, one_flush, compacted, compacted_then_hot]


@pytest.mark.parametrize("state", STATES, ids=lambda f: f.__name__)
def test_superseded_values_are_never_found(world: World, state: Callable[[World, Client, int], None]) -> None:
    client, model = world.in_process(), Model()
    declared = ", ".join(f"{c} {t}" for c, t in COLUMNS.items())
    client.run(
        f"CREATE TABLE t (k INT PRIMARY KEY, {declared}) WITH (COMPACTION='manual', BLOOM_FILTER_COLUMNS='k,n,s,d,m,ts')"
    )
    for round_, changes in enumerate(history()):
        for version in changes:
            write(client, version)
            model.add(version)
        state(world, client, round_)
    asked = 0
    for column in COLUMNS:
        values = model.superseded(column)
        chosen = random.Random(column).sample(values, min(ASKED, len(values)))
        for sql in (*sweeping(column), *(q for v in chosen for q in questions(column, v))):
            found = client.run(sql).rows
            assert found is not None
            assert [tuple(r.values()) for r in found.to_pylist()] == model.rows(sql), sql
            asked += 1
    assert asked > 200
    world.check()
