"""A scan of batches with dead rows at random, in this process, beside DuckDB over all rows of the same files.

The peer counts the dead rows too: it shows what the files cost, not how the same answer would be found.  One column alone is
the hardest case, since skipping costs the same however much else there is to read; its ratio is in the note.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from perf import data
from perf.bare import IMMUTABLE_FILES
from perf.inside import Inside, parts_of
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World, file_list, files_of

NAMES = {"dead_rows_0.1": (0.001, 1.4), "dead_rows_1": (0.01, 1.6), "dead_rows_10": (0.1, 1.6)}
_BATCHES = 20
_SELECT = (
    "SELECT bucket, count(*) AS n, sum(amount) AS amount, avg(price) AS price, max(noted) AS latest FROM {} GROUP BY bucket"
)
_ONE_COLUMN = "SELECT sum(amount) AS amount FROM {}"
_FOLDERS = itertools.count()


def measure_each() -> dict[str, Callable[[World], Result]]:
    """One measurement for each share of dead rows."""
    return {name: lambda world, name=name: _measure(world, name) for name in NAMES}  # type: ignore[misc]


def _measure(world: World, name: str) -> Result:
    share, limit = NAMES[name]
    folder = world.folder / f"dead-{next(_FOLDERS)}"
    with Inside(folder) as inside:
        dead = _load(inside, world.sizes.dead_rows, share)
        files = files_of(folder, "t")
        peer = duckdb.connect()
        peer.execute(IMMUTABLE_FILES)
        a, b = _both(inside, peer, files, _SELECT, world.sizes.repeats * 3)
        c, d = _both(inside, peer, files, _ONE_COLUMN, world.sizes.repeats * 3)
        peer.close()
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", limit),
        unit="ms",
        peer_name="DuckDB, no row skipped",
        runs=len(a),
        note=f"{dead:,} of {world.sizes.dead_rows:,} rows dead, {len(files)} files, 100 groups, three aggregates; "
        f"ours {spread(a, 1e3, 'ms')}; one column alone {median(c) / median(d):.2f} ×",
    )


def _load(inside: Inside, rows: int, share: float) -> int:
    """Make table `t`, its superseded rows in deletion vectors; returns how many there are."""
    inside.load_cold("t", data.COLUMNS_SQL, parts_of(rows, _BATCHES))
    dead = inside.update(f"DELETE FROM t WHERE hash(k) % 1000 < {round(share * 1000)}")
    inside.flush("t")
    return dead


def _both(
    inside: Inside, peer: duckdb.DuckDBPyConnection, files: list[Path], select: str, repeats: int
) -> tuple[list[float], list[float]]:
    def ours() -> pa.Table:
        return inside.run(select.format("t"))

    def theirs() -> pa.Table:
        return peer.sql(select.format(f"read_parquet({file_list(files[:_BATCHES])})")).to_arrow_table()

    return interleaved(lambda: timed(ours), lambda: timed(theirs), repeats)
