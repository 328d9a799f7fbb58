"""Short statements through ADBC, beside a server that does nothing.

select_one     SELECT 1
point          one row by its key, over batches of consecutive keys; each statement has another literal
point_bound    the same, prepared once, the key as parameter
point_random   as `point`, but every key lies in the range of every batch
insert_row     one row by a prepared INSERT, durable
insert_many    ten thousand rows by executemany of the same, rows a second, each round durable
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np

from perf import data, servers
from perf.result import Result, Step, Target, in_blocks, median, spread
from perf.world import World

SELECT_ONE, POINT, POINT_BOUND, POINT_RANDOM, INSERT_ROW = "select_one", "point", "point_bound", "point_random", "insert_row"
INSERT_MANY = "insert_many"
_MANY = 10_000
_PEER = "do-nothing Flight SQL"
_COLUMNS = ", ".join(data.SCHEMA.names)


def measure_select_one(world: World) -> Result:
    def step(connection: flightsql.Connection) -> Step:
        return lambda: _one(connection, "SELECT 1", None, 1)

    return _measure(world, SELECT_ONE, step, 1.4)


def measure_point(world: World) -> Result:
    return _point(world, POINT, "in_order", len(world.in_order), _literal)


def measure_point_bound(world: World) -> Result:
    return _point(world, POINT_BOUND, "in_order", len(world.in_order), _bound)


def measure_point_random(world: World) -> Result:
    return _point(world, POINT_RANDOM, "at_random", len(world.at_random), _literal)


def measure_insert_row(world: World) -> Result:
    servers.run_sql(world.connection, "CREATE TABLE inserted (k BIGINT PRIMARY KEY, label TEXT)")
    keys = itertools.count()

    def step(connection: flightsql.Connection) -> Step:
        cursor = connection.cursor()
        return lambda: cursor.execute("INSERT INTO inserted VALUES (?, ?)", (next(keys), "a label"))

    return _measure(world, INSERT_ROW, step, 1.67, "synced to disk before each answer")


def measure_insert_many(world: World) -> Result:
    servers.run_sql(world.connection, "CREATE TABLE inserted_many (k BIGINT PRIMARY KEY, label TEXT)")

    def step(connection: flightsql.Connection) -> Step:
        cursor, starts = connection.cursor(), itertools.count(0, _MANY)

        def once() -> None:
            first = next(starts)
            cursor.executemany("INSERT INTO inserted_many VALUES (?, ?)", [(k, "a label") for k in range(first, first + _MANY)])

        return once

    a, b = in_blocks(step(world.connection), step(world.stub_connection), 4 * world.sizes.repeats, block=4)
    ours, theirs = _MANY / median(a), _MANY / median(b)
    target = Target("ours", "at least", 200_000)
    note = f"{_MANY:,} rows of two columns a round, as tuples; {spread(a, 1e3, 'ms')}"
    return Result(INSERT_MANY, ours, theirs, ours / theirs, target, "rows/s", _PEER, len(a), note)


def _point(world: World, name: str, table: str, batches: int, make: Callable[..., Step]) -> Result:
    keys = np.random.default_rng(data.SEED).integers(0, world.point_rows, 1 << 16).tolist()

    def step(connection: flightsql.Connection) -> Step:
        return make(connection, table, itertools.cycle(keys))

    return _measure(world, name, step, 2.0, f"{world.point_rows:,} rows in {batches} batches")


def _literal(connection: flightsql.Connection, table: str, keys: itertools.cycle[int]) -> Step:
    return lambda: _one(connection, f"SELECT {_COLUMNS} FROM {table} WHERE k = {next(keys)}", None, None)


def _bound(connection: flightsql.Connection, table: str, keys: itertools.cycle[int]) -> Step:
    cursor = connection.cursor()
    sql = f"SELECT {_COLUMNS} FROM {table} WHERE k = ?"

    def once() -> None:
        cursor.execute(sql, (next(keys),))
        _check(cursor.fetchall(), None)

    return once


def _one(connection: flightsql.Connection, sql: str, parameters: Sequence[object] | None, expected: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        _check(cursor.fetchall(), expected)


def _check(rows: list[tuple[object, ...]], expected: object) -> None:
    if len(rows) != 1 or (expected is not None and rows[0][0] != expected):
        raise AssertionError(f"one row was expected, not {rows[:2]}")


def _measure(world: World, name: str, step: Callable[[flightsql.Connection], Step], limit: float, what: str = "") -> Result:
    a, b = in_blocks(step(world.connection), step(world.stub_connection), world.sizes.calls)
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", limit),
        unit="ms",
        peer_name=_PEER,
        runs=len(a),
        note=f"{what}{'; ' if what else ''}ours {spread(a, 1e3, 'ms')}",
    )
