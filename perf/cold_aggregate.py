"""An aggregate over cold rows, through Flight, beside DuckDB on the same files in this process.

The peer has every advantage of being close: no network, no parsing of files' footers after the first time, and no check
whether a file has changed.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from perf.bare import IMMUTABLE_FILES
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World, file_list

NAME = "cold_aggregate"
_SELECT = (
    "SELECT bucket, count(*) AS n, sum(amount) AS amount, avg(price) AS price, max(noted) AS latest FROM {} GROUP BY bucket"
)
# Sums of doubles depend on the order in which threads add them; counts and maxima do not.
_EXACT = ["bucket", "n", "latest"]


def measure(world: World) -> Result:
    files = world.scanned
    peer = duckdb.connect()
    peer.execute(IMMUTABLE_FILES)
    cursor = world.connection.cursor()

    def ours() -> pa.Table:
        cursor.execute(_SELECT.format("scanned"))
        return cursor.fetch_arrow_table()

    def theirs() -> pa.Table:
        return peer.sql(_SELECT.format(f"read_parquet({file_list(files)})")).to_arrow_table()

    _same(ours(), theirs())
    a, b = interleaved(lambda: timed(ours), lambda: timed(theirs), world.sizes.repeats * 3)
    cursor.close()
    peer.close()
    return Result(
        name=NAME,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", 1.3),
        unit="ms",
        peer_name="DuckDB in-process",
        runs=len(a),
        note=f"{world.sizes.scan_rows:,} rows in {len(files)} files, 100 groups, three aggregates; ours {spread(a, 1e3, 'ms')}",
    )


def _same(ours: pa.Table, theirs: pa.Table) -> None:
    exact = [t.select(_EXACT).sort_by("bucket").to_pylist() for t in (ours, theirs)]
    if exact[0] != exact[1]:
        raise AssertionError("the aggregate differs from the peer's: nothing to measure before that is repaired")
