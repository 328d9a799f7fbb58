"""`SELECT *, _deleted … WHERE _seq > x`: ten thousand changes of a large table, through ADBC, beside the same in this process.

hot      the table and its changes are hot
mixed    the table is cold, its changes are hot
cold     both are cold
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa

from perf import data
from perf.inside import LEFT_ALONE, Inside
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World

_STATES = ("hot", "mixed", "cold")
_PARTS = 10
_UPSERT = {"x-kalam-on-conflict": "update"}
_MOST_MS = 50.0


def measure_each() -> dict[str, Callable[[World], Result]]:
    return {f"change_feed_{state}": lambda world, state=state: _measure(world, state) for state in _STATES}  # type: ignore[misc]


def _measure(world: World, state: str) -> Result:
    name = f"change_feed_{state}"
    with Inside(world.folder / name) as inside:
        client = _Client(world)
        query, remote = _prepare(world, name, state, inside), _prepare(world, name, state, client)
        a, b = interleaved(
            lambda: timed(lambda: _check(client.run(remote), world)),
            lambda: timed(lambda: _check(inside.run(query), world)),
            world.sizes.repeats * 3,
        )
        client.update(f"DROP TABLE {name}")
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ours", "at most", _MOST_MS),
        unit="ms",
        peer_name="the same without a wire",
        runs=len(a),
        note=f"{world.sizes.feed_changes:,} changes at random among {world.sizes.feed_rows:,} rows × 8 columns; "
        f"ours {spread(a, 1e3, 'ms')}, peer {spread(b, 1e3, 'ms')}",
    )


class _Door(Protocol):
    """A way into the service."""

    def run(self, sql: str) -> pa.Table: ...

    def update(self, sql: str) -> int: ...

    def append(self, table: str, rows: pa.RecordBatchReader, headers: Mapping[str, str] | None = None) -> int: ...


class _Client:
    """The way through ADBC."""

    def __init__(self, world: World) -> None:
        self._plain, self._upserts = world.connection, world.connect(_UPSERT)

    def run(self, sql: str) -> pa.Table:
        with self._plain.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def update(self, sql: str) -> int:
        with self._plain.cursor() as cursor:
            cursor.execute(sql)
            return cursor.rowcount

    def append(self, table: str, rows: pa.RecordBatchReader, headers: Mapping[str, str] | None = None) -> int:
        with (self._upserts if headers else self._plain).cursor() as cursor:
            return cursor.adbc_ingest(table, rows, mode="append")


def _prepare(world: World, table: str, state: str, door: _Door) -> str:
    """Make the table and its changes; returns the query of the feed."""
    sizes = world.sizes
    door.update(f"CREATE TABLE {table} ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
    each = sizes.feed_rows // _PARTS
    for part in range(_PARTS):
        door.append(table, data.reader(each, part * each))
        if state != "hot":
            door.run(f"FLUSH TABLE {table} WAIT")
    since = door.run(f"SELECT max(_seq) AS s FROM {table}").column("s")[0].as_py()
    keys = np.random.default_rng(data.SEED).choice(sizes.feed_rows, sizes.feed_changes, replace=False)
    door.append(table, data.with_keys(np.sort(keys)).to_reader(), _UPSERT)
    door.update(f"DELETE FROM {table} WHERE k = {keys[0]}")
    if state == "cold":
        door.run(f"FLUSH TABLE {table} WAIT")
    return f"SELECT *, _deleted FROM {table} WHERE _seq > {since}"


def _check(changes: pa.Table, world: World) -> None:
    if changes.num_rows != world.sizes.feed_changes:
        raise AssertionError(f"{world.sizes.feed_changes} changes were expected, not {changes.num_rows}")
