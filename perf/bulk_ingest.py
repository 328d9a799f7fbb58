"""`adbc_ingest` of a stream of batches, durable when it returns, beside PostgreSQL through its own ADBC driver.

Both get the same batches, made beforehand, and both have synced their log when the clock stops.  `free` lets the service
make a key of its own, as PostgreSQL's new table has none; in `keyed` both check a primary key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import pyarrow as pa
from adbc_driver_manager.dbapi import Cursor

from perf import data, servers
from perf.result import NotPossible, Result, Target, interleaved, median, spread, timed
from perf.world import KEYED, World

FREE, KEYED_NAME = "ingest", "ingest_keyed"


def measure_free(world: World) -> Result:
    return _measure(world, FREE, keyed=False)


def measure_keyed(world: World) -> Result:
    return _measure(world, KEYED_NAME, keyed=True)


def _measure(world: World, name: str, *, keyed: bool) -> Result:
    rows = data.table(world.sizes.ingest_rows)
    ours, theirs = _kalam(world, name, rows, keyed), _postgres(world, rows, keyed)
    a, b = interleaved(ours, theirs, world.sizes.repeats)
    key = "a primary key on both sides" if keyed else "no key stated"
    return Result(
        name=name,
        ours=len(rows) / median(a) / 1e6,
        peer=len(rows) / median(b) / 1e6,
        ratio=median(b) / median(a),
        target=Target("ratio", "at least", 3.0),
        unit="M rows/s",
        peer_name=f"PostgreSQL {world.postgres.version}",
        runs=len(a),
        note=f"{len(rows):,} rows × 8 columns, {key}; ours {spread(a, 1, 's')}, peer {spread(b, 1, 's')}",
    )


def _kalam(world: World, prefix: str, rows: pa.Table, keyed: bool) -> Callable[[], float]:
    connection = world.connect(KEYED if keyed else None)
    numbers = itertools.count()

    def once() -> float:
        table = f"{prefix}_{next(numbers)}"
        with connection.cursor() as cursor:
            seconds = timed(lambda: _load(cursor, table, rows, "create"))
        servers.run_sql(connection, f"DROP TABLE {table}")
        return seconds

    return once


def _postgres(world: World, rows: pa.Table, keyed: bool) -> Callable[[], float]:
    try:
        import adbc_driver_postgresql.dbapi as postgresql
    except ImportError:
        raise NotPossible("the PostgreSQL driver is not installed: pip install adbc-driver-postgresql") from None
    uri = world.postgres.uri

    def once() -> float:
        with postgresql.connect(uri) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS loaded")
            if keyed:
                cursor.execute(f"CREATE TABLE loaded ({data.COLUMNS_SQL})")
            connection.commit()

            def load() -> None:
                _load(cursor, "loaded", rows, "append" if keyed else "create")
                connection.commit()

            return timed(load)

    return once


def _load(cursor: Cursor, table: str, rows: pa.Table, mode: Literal["append", "create"]) -> None:
    written = cursor.adbc_ingest(table, rows.to_reader(data.BATCH_ROWS), mode=mode)
    if written != len(rows):
        raise AssertionError(f"{written} rows were written where {len(rows)} were sent")
