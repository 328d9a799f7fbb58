"""A query over rows of which there are many versions, beside the same query where there is one.

before    every version is hot, and a commit came between any two queries
after     each version was flushed to a batch of its own
"""

from __future__ import annotations

from collections.abc import Callable

from perf import data
from perf.inside import LEFT_ALONE, Inside
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World

_SELECT = "SELECT bucket, count(*) AS n, sum(amount) AS amount, max(noted) AS latest FROM {} GROUP BY bucket"
_UPSERT = {"x-kalam-on-conflict": "update"}
_LIMITS = {"before": 1.5, "after": 1.2}


def measure_each() -> dict[str, Callable[[World], Result]]:
    """Ten and a hundred versions, before and after the flush."""
    return {
        f"versions_{count}_{when}": lambda world, count=count, when=when: _measure(world, count, when)  # type: ignore[misc]
        for when in _LIMITS
        for count in (10, 100)
    }


def _measure(world: World, count: int, when: str) -> Result:
    name = f"versions_{count}_{when}"
    with Inside(world.folder / name) as inside:
        for table, versions in (("one", 1), ("many", count)):
            _load(inside, table, world.sizes.versioned_rows, versions, flush=when == "after")
        a, b = interleaved(
            lambda: _query(inside, "many", when),
            lambda: _query(inside, "one", when),
            world.sizes.repeats * 10,
        )
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", _LIMITS[when]),
        unit="ms",
        peer_name="itself at one version",
        runs=len(a),
        note=f"{world.sizes.versioned_rows:,} rows of {count} versions, {when} the flush; ours {spread(a, 1e3, 'ms')}",
    )


def _load(inside: Inside, table: str, rows: int, versions: int, *, flush: bool) -> None:
    inside.update(f"CREATE TABLE {table} ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
    for _ in range(versions):
        inside.append(table, data.reader(rows), _UPSERT)
        if flush:
            inside.flush(table)


def _query(inside: Inside, table: str, when: str) -> float:
    if when == "before":
        inside.update(f"UPDATE {table} SET price = price + 1 WHERE k = 5")
    return timed(lambda: inside.run(_SELECT.format(table)))
