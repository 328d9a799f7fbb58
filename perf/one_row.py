"""Reading, updating and deleting one flushed row by its key.

update_row, delete_row       each statement another text, durable, through ADBC, beside a server that does nothing
update_row_p99, …            the slowest hundredth of the same calls
update_row_bound             prepared once, the values as parameters
update_row_inside            without a network, beside the fastest of lance, Delta Lake and DuckDB's own file in-process
point_inside                 SELECT of one row without a network, each with a text of its own
update_row_postgres          through ADBC, beside PostgreSQL over its own protocol

Inside means a session of the service in this process: prepare, run, close, as the wire calls it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import numpy as np
import pyarrow as pa

from perf import data
from perf.inside import Inside, parts_of
from perf.result import NotPossible, Result, Step, Target, in_blocks, median, spread
from perf.world import World

UPDATE, UPDATE_P99, UPDATE_BOUND = "update_row", "update_row_p99", "update_row_bound"
UPDATE_INSIDE, UPDATE_POSTGRES = "update_row_inside", "update_row_postgres"
DELETE, DELETE_P99, POINT_INSIDE = "delete_row", "delete_row_p99", "point_inside"
_STUB = "do-nothing Flight SQL"
_INSIDE = Target("ours", "at most", 2.0)
_PEER_CALLS = 40  # of a peer that takes milliseconds
_Calls = tuple[list[float], list[float]]


def _keys(world: World, seed: int) -> Iterator[int]:
    """Every key at most once in a while, so that a DELETE finds its row."""
    rng = np.random.default_rng((data.SEED, seed))
    return itertools.cycle(rng.permutation(world.point_rows).tolist())


def _rows(world: World) -> str:
    return f"one of {world.point_rows:,} flushed rows in {len(world.changed)} batches, synced before each answer"


# -- through ADBC, beside the server that does nothing ----------------------------------------------------------------


def measure_update(world: World) -> Result:
    return _middle(world, UPDATE, _beside_stub(world, UPDATE, _update_text), 2.0)


def measure_update_p99(world: World) -> Result:
    return _slowest(world, UPDATE_P99, _beside_stub(world, UPDATE, _update_text), 4.0)


def measure_update_bound(world: World) -> Result:
    return _middle(world, UPDATE_BOUND, _beside_stub(world, UPDATE_BOUND, _update_bound), 2.0)


def measure_delete(world: World) -> Result:
    return _middle(world, DELETE, _beside_stub(world, DELETE, _delete_text), 2.0)


def measure_delete_p99(world: World) -> Result:
    return _slowest(world, DELETE_P99, _beside_stub(world, DELETE, _delete_text), 4.0)


_Make = Callable[[flightsql.Connection, Iterator[int]], Step]


def _beside_stub(world: World, name: str, make: _Make) -> _Calls:
    """Both figures of one statement are of the same calls."""
    if name not in world.timings:
        assert world.changed
        ours, theirs = make(world.connection, _keys(world, len(name))), make(world.stub_connection, itertools.count())
        world.timings[name] = in_blocks(ours, theirs, world.sizes.calls)
    return world.timings[name]


def _update_text(connection: flightsql.Connection, keys: Iterator[int]) -> Step:
    def once() -> None:
        key = next(keys)
        _changed(connection, f"UPDATE changed SET amount = {key}.5, number = number + 1 WHERE k = {key}")

    return once


def _update_bound(connection: flightsql.Connection, keys: Iterator[int]) -> Step:
    cursor = connection.cursor()

    def once() -> None:
        key = next(keys)
        cursor.execute("UPDATE changed SET amount = ?, number = number + 1 WHERE k = ?", (key + 0.5, key))

    return once


def _delete_text(connection: flightsql.Connection, keys: Iterator[int]) -> Step:
    return lambda: _changed(connection, f"DELETE FROM changed WHERE k = {next(keys)}")


def _changed(connection: flightsql.Connection, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        if cursor.rowcount not in (0, 1):  # 0: the row was deleted by another measurement
            raise AssertionError(f"{cursor.rowcount} rows were changed: {sql}")


def _middle(world: World, name: str, calls: _Calls, limit: float) -> Result:
    return _result(name, calls, lambda s: median(s), Target("ratio", "at most", limit), _STUB, _rows(world))


def _slowest(world: World, name: str, calls: _Calls, limit: float) -> Result:
    note = _rows(world) + "; the 99th percentile of both"
    return _result(name, calls, lambda s: float(np.percentile(s, 99)), Target("ratio", "at most", limit), _STUB, note)


def _result(
    name: str, calls: _Calls, of: Callable[[list[float]], float], target: Target | None, peer: str, note: str
) -> Result:
    a, b = of(calls[0]), of(calls[1])
    shown = f"{note}; ours {spread(calls[0], 1e3, 'ms')}"
    return Result(name, a * 1e3, b * 1e3, a / b, target, "ms", peer, len(calls[0]), shown)


# -- inside one process -----------------------------------------------------------------------------------------------


def measure_update_inside(world: World) -> Result:
    inside = world.inside
    peers = {name: make(world, inside) for name, make in _PEERS.items()}
    keys = _keys(world, 7)
    ours = _updating(inside, "UPDATE changed SET amount = {0}.5, number = number + 1 WHERE k = {0}", keys)
    calls = {name: in_blocks(ours, peer, min(world.sizes.calls, _PEER_CALLS), block=10) for name, peer in peers.items()}
    fastest = min(calls, key=lambda name: median(calls[name][1]))
    every = ", ".join(f"{name} {median(b) * 1e3:.2g} ms" for name, (_, b) in calls.items())
    ours_only = [seconds for a, _ in calls.values() for seconds in a]
    return _result(UPDATE_INSIDE, (ours_only, calls[fastest][1]), median, _INSIDE, fastest, f"in-process: {every}")


def _updating(inside: Inside, sql: str, keys: Iterator[int]) -> Step:
    """:param sql: with {0} for the key."""
    session = inside.session

    def once() -> None:
        prepared = session.prepare(sql.format(next(keys)), None)
        count = session.update_prepared(prepared.handle, None)
        session.close_prepared(prepared.handle)
        assert count == 1

    return once


def _selecting(inside: Inside, sql: str, keys: Iterator[int]) -> Step:
    session = inside.session

    def once() -> None:
        prepared = session.prepare(sql.format(next(keys)), None)
        rows = list(session.fetch(session.plan_prepared(prepared.handle).handle))
        session.close_prepared(prepared.handle)
        assert sum(batch.num_rows for batch in rows) == 1

    return once


def measure_point_inside(world: World) -> Result:
    inside = world.inside
    peer = _duckdb(world, inside, "read")
    connection, keys, others = peer.connection, _keys(world, 3), _keys(world, 4)

    def theirs() -> None:
        assert len(connection.execute(f"SELECT * FROM changed WHERE k = {next(others)}").fetchall()) == 1

    calls = in_blocks(_selecting(inside, "SELECT * FROM changed WHERE k = {0}", keys), theirs, world.sizes.calls)
    note = f"one of {world.point_rows:,} rows in {world.sizes.point_batches} batches, each by a text of its own"
    return _result(POINT_INSIDE, calls, median, _INSIDE, "DuckDB's own file in-process", note)


class _InDuckdb:
    def __init__(self, path: Path, rows: pa.Table, keys: Iterator[int]) -> None:
        self.connection = duckdb.connect(str(path))
        self.connection.execute(f"CREATE TABLE changed ({data.COLUMNS_SQL})")
        self.connection.execute("INSERT INTO changed SELECT * FROM rows")
        self.connection.execute("CHECKPOINT")
        self._keys = keys

    def __call__(self) -> None:
        key = next(self._keys)
        self.connection.execute(f"UPDATE changed SET amount = {key}.5, number = number + 1 WHERE k = {key}")


def _duckdb(world: World, inside: Inside, name: str = "updated") -> _InDuckdb:
    return _InDuckdb(world.folder / f"peer-{name}.duckdb", data.table(world.point_rows), _keys(world, 11))


def _lance(world: World, inside: Inside) -> Step:
    try:
        import lance
    except ImportError:
        raise NotPossible("lance is not installed: pip install pylance") from None
    n = world.sizes.point_batch_rows
    dataset = lance.write_dataset(data.table(world.point_rows), str(world.folder / "peer.lance"), max_rows_per_file=n)
    dataset.create_scalar_index("k", "BTREE")
    keys = _keys(world, 12)

    def once() -> None:
        key = next(keys)
        dataset.update({"amount": f"{key}.5", "number": "number + 1"}, where=f"k = {key}")

    return once


def _delta(world: World, inside: Inside) -> Step:
    try:
        import deltalake
    except ImportError:
        raise NotPossible("Delta Lake is not installed: pip install deltalake") from None
    path = str(world.folder / "peer.delta")
    for part in parts_of(world.point_rows, world.sizes.point_batches):
        deltalake.write_deltalake(path, part.read_all(), mode="append")
    table, keys = deltalake.DeltaTable(path), _keys(world, 13)

    def once() -> None:
        key = next(keys)
        table.update(updates={"amount": f"{key}.5", "number": "number + 1"}, predicate=f"k = {key}")

    return once


_PEERS: dict[str, Callable[[World, Inside], Step]] = {"DuckDB's own file": _duckdb, "lance": _lance, "Delta Lake": _delta}


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def measure_update_postgres(world: World) -> Result:
    try:
        import adbc_driver_postgresql.dbapi as postgresql
    except ImportError:
        raise NotPossible("the PostgreSQL driver is not installed: pip install adbc-driver-postgresql") from None
    assert world.changed
    with postgresql.connect(world.postgres.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS changed")
        cursor.execute(f"CREATE TABLE changed ({data.COLUMNS_SQL})")
        cursor.adbc_ingest("changed", data.reader(world.point_rows), mode="append")
        keys = _keys(world, 14)

        def theirs() -> None:
            key = next(keys)
            cursor.execute(f"UPDATE changed SET amount = {key}.5, number = number + 1 WHERE k = {key}")

        calls = in_blocks(_update_text(world.connection, _keys(world, 15)), theirs, world.sizes.calls)
    peer = f"PostgreSQL {world.postgres.version}"
    return _result(UPDATE_POSTGRES, calls, median, None, peer, _rows(world) + " on both sides")
