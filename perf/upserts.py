"""Full-row upsert of a thousand random keys into a million cold rows, durable, beside stores that know an upsert.

upsert          inside this process, beside DuckDB's own file; others in the note; each in its own fastest way
upsert_adbc     the same as an ingest over the wire, beside PostgreSQL through its own ADBC driver
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from perf import data
from perf.inside import Inside
from perf.result import NotPossible, Result, Target, median, spread, timed
from perf.world import World

INSIDE, ADBC = "upsert", "upsert_adbc"
_UPSERT = {"x-kalam-on-conflict": "update"}
_KEYS = 1_000
_MOST_MS = 20.0
_CALLS = 12
Upsert = Callable[[pa.Table], object]


def measure_inside(world: World) -> Result:
    first = data.table(world.point_rows)
    peers = {"DuckDB's own file": _duckdb, "lance": _lance, "delta": _delta}
    with Inside(world.folder / INSIDE) as inside:
        keys = data.permuted(world.point_rows).reshape(world.sizes.point_batches, -1)
        inside.load_cold("upserted", data.COLUMNS_SQL, (data.with_keys(k).to_reader(data.BATCH_ROWS) for k in keys))
        steps: dict[str, Upsert] = {"": lambda rows: inside.append("upserted", rows.to_reader(), _UPSERT)}
        for name, make in peers.items():
            try:
                steps[name] = make(world.folder / f"upsert-{make.__name__[1:]}", first)
            except ImportError:
                continue
        times = _timed(world, steps)
    others = "".join(f"; {name} {median(t) * 1e3:.3g} ms" for name, t in list(times.items())[2:])
    return _result(world, INSIDE, times[""], times["DuckDB's own file"], "DuckDB's own file", others)


def measure_adbc(world: World) -> Result:
    connection = world.connect(_UPSERT)
    assert world.at_random
    with connection.cursor() as cursor:
        ours: Upsert = lambda rows: cursor.adbc_ingest("at_random", rows, mode="append")  # noqa: E731
        times = _timed(world, {"": ours, "PostgreSQL": _postgres(world, data.table(world.point_rows))})
    return _result(world, ADBC, times[""], times["PostgreSQL"], f"PostgreSQL {world.postgres.version}", "")


def _timed(world: World, steps: dict[str, Upsert]) -> dict[str, list[float]]:
    """Seconds of each in turn, all with the same rows; the first three rounds fill caches and are not counted."""
    rng = np.random.default_rng(data.SEED)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_CALLS + 3):
        rows = data.with_keys(rng.choice(world.point_rows, min(_KEYS, world.point_rows // 2), replace=False))
        for name, step in steps.items():
            times[name].append(timed(lambda step=step, rows=rows: step(rows)))  # type: ignore[misc]
    return {name: t[3:] for name, t in times.items()}


def _result(world: World, name: str, ours: list[float], peer: list[float], peer_name: str, others: str) -> Result:
    return Result(
        name=name,
        ours=median(ours) * 1e3,
        peer=median(peer) * 1e3,
        ratio=median(ours) / median(peer),
        target=Target("ours", "at most", _MOST_MS),
        unit="ms",
        peer_name=peer_name,
        runs=len(ours),
        note=f"{_KEYS:,} random keys among {world.point_rows:,} rows × 8 columns in {world.sizes.point_batches} batches, "
        f"every key in the range of each; ours {spread(ours, 1e3, 'ms')}{others}",
    )


# -- peers ------------------------------------------------------------------------------------------------------------


def _duckdb(path: Path, first: pa.Table) -> Upsert:
    connection = duckdb.connect(str(path))
    connection.execute(f"CREATE TABLE t ({data.COLUMNS_SQL})")
    connection.register("first", first)
    connection.execute("INSERT INTO t SELECT * FROM first")
    connection.execute("CHECKPOINT")

    def upsert(rows: pa.Table) -> None:
        # Six times as fast as INSERT OR REPLACE, which updates column by column, all over the table.
        connection.register("rows", rows)
        connection.execute("BEGIN")
        connection.execute("DELETE FROM t WHERE k IN (SELECT k FROM rows)")
        connection.execute("INSERT INTO t SELECT * FROM rows")
        connection.execute("COMMIT")

    return upsert


def _lance(path: Path, first: pa.Table) -> Upsert:
    lance = importlib.import_module("lance")
    lance.write_dataset(first, str(path))
    dataset = lance.dataset(str(path))
    dataset.create_scalar_index("k", "BTREE")

    def upsert(rows: pa.Table) -> None:
        dataset.merge_insert("k").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    return upsert


def _delta(path: Path, first: pa.Table) -> Upsert:
    deltalake = importlib.import_module("deltalake")
    deltalake.write_deltalake(str(path), first)
    table = deltalake.DeltaTable(str(path))

    def upsert(rows: pa.Table) -> None:
        merge = table.merge(rows, "t.k = s.k", source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    return upsert


def _postgres(world: World, first: pa.Table) -> Upsert:
    try:
        postgresql = importlib.import_module("adbc_driver_postgresql.dbapi")
    except ImportError:
        raise NotPossible("the PostgreSQL driver is not installed: pip install adbc-driver-postgresql") from None
    connection = postgresql.connect(world.postgres.uri)
    cursor = connection.cursor()
    cursor.execute(f"CREATE TABLE upserted ({data.COLUMNS_SQL})")
    cursor.adbc_ingest("upserted", first.to_reader(data.BATCH_ROWS), mode="append")
    cursor.execute("CREATE TEMP TABLE arriving (LIKE upserted) ON COMMIT DELETE ROWS")
    connection.commit()
    changes = ", ".join(f"{name} = excluded.{name}" for name in data.SCHEMA.names[1:])

    def upsert(rows: pa.Table) -> None:
        cursor.adbc_ingest("arriving", rows, mode="append", temporary=True)
        cursor.execute(f"INSERT INTO upserted SELECT * FROM arriving ON CONFLICT (k) DO UPDATE SET {changes}")
        connection.commit()

    return upsert
