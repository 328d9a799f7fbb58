"""What pruning costs and what it spares, over small batches of random keys: each batch spans nearly all of them.

prune_100, prune_10000      deciding for one key: bounds and Bloom filters of all batches
prune_skipped               batches of 1,000 that a query for one key does not read
prune_bytes                 the part of the table that it decodes: row groups, of all columns
point_growth                the whole query in this process, from 10 to 10,000 batches; the exponent of its growth,
                            0.5 for the square root

`python -m perf.point_plot` draws the last one, beside the same rows after COMPACT TABLE, as docs/point_query.svg.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from flightkalam.model.predicate import Compare
from flightkalam.table.choose import choose
from flightkalam.table.scan import scan
from perf.batches import Service, fill, size_of
from perf.result import NotPossible, Result, Target, median, spread, timed
from perf.world import World

DECISION_100, DECISION_10000 = "prune_100", "prune_10000"
SKIPPED, BYTES, GROWTH = "prune_skipped", "prune_bytes", "point_growth"
COUNTS = (10, 100, 1_000, 10_000)
_COMPACTED = 1_000  # so many batches are also measured after a compaction
_ROWS = 40
_KEY = 1  # the key's column id


@dataclass(frozen=True)
class Point:
    """Figures at one number of batches; times in seconds.

    :param skipped, bytes: parts of the whole, means over the queries.
    """

    batches: int
    decision: list[float]
    query: list[float]
    skipped: float
    bytes: float
    compacted: list[float] = field(default_factory=list)


@lru_cache(maxsize=1)
def sweep(folder: Path, counts: tuple[int, ...], calls: int) -> dict[int, Point]:
    """One table for each number of batches, built and measured in this process."""
    service = Service(folder / "pruning")
    try:
        return {n: _point(service, f"batches_{n}", n, calls) for n in counts}
    finally:
        service.close()


def _point(service: Service, name: str, batches: int, calls: int) -> Point:
    keys = np.random.default_rng(1).permutation(fill(service, name, batches, _ROWS))[:calls].tolist()
    snapshot = service.snapshot(name)
    _query(service, name, keys[:20])  # filters and footers are read once
    choose(snapshot, Compare(_KEY, "=", keys[0]))
    decision = [timed(lambda k=k: choose(snapshot, Compare(_KEY, "=", k))) for k in keys]
    query = _query(service, name, keys)
    figures = [scan(snapshot, Compare(_KEY, "=", k)).figures for k in keys]
    skipped = float(np.mean([1 - f.batches_read / f.batches_total for f in figures]))
    part = float(np.mean([_decoded(snapshot, k) for k in keys[:50]])) / size_of(snapshot.scope)
    compacted: list[float] = []
    if batches <= _COMPACTED:
        service.run(f"COMPACT TABLE {name} WAIT")
        _query(service, name, keys[:20])
        compacted = _query(service, name, keys)
    return Point(batches, decision, query, skipped, part, compacted)


def _query(service: Service, name: str, keys: Sequence[int]) -> list[float]:
    def one(key: int) -> None:
        table = service.run(f"SELECT k, label, price FROM {name} WHERE k = {key}")
        assert table is not None and table.num_rows == 1

    return [timed(lambda k=k: one(k)) for k in keys]


def _decoded(snapshot, key: int) -> int:  # type: ignore[no-untyped-def]
    """Bytes of the row groups that can hold a key, in the batches that are left."""
    total = 0
    for at in choose(snapshot, Compare(_KEY, "=", key)).at.tolist():
        metadata = pq.read_metadata(snapshot.scope.folder / snapshot.state.manifest.batches[at].file)
        places = itertools.product(range(metadata.num_row_groups), range(metadata.num_columns))
        total += sum(metadata.row_group(g).column(c).total_compressed_size for g, c in places)
    return total


def growth(points: Sequence[Point]) -> float:
    """The exponent e of a latency that grows like batches^e, by least squares."""
    x = np.log([p.batches for p in points])
    y = np.log([median(p.query) for p in points])
    return float(np.polyfit(x, y, 1)[0])


def _points(world: World) -> dict[int, Point]:
    small = world.sizes.calls < 100
    return sweep(world.folder, COUNTS[:2] if small else COUNTS, 40 if small else 200)


def _decision(world: World, name: str, batches: int, limit_ms: float) -> Result:
    point = _points(world).get(batches)
    if point is None:
        raise NotPossible("left out of a quick run")
    note = f"one key over {batches:,} batches, each spanning all keys; {spread(point.decision, 1000, 'ms')}"
    target = Target("ours", "at most", limit_ms)
    return Result(name, median(point.decision) * 1000, None, None, target, "ms", "", len(point.decision), note)


def measure_decision_100(world: World) -> Result:
    return _decision(world, DECISION_100, 100, 0.2)


def measure_decision_10000(world: World) -> Result:
    return _decision(world, DECISION_10000, 10_000, 2.0)


def measure_skipped(world: World) -> Result:
    points = _points(world)
    point = points.get(1_000) or points[max(points)]
    note = f"of {point.batches:,} batches of random keys, for one key"
    return Result(SKIPPED, point.skipped * 100, None, None, Target("ours", "at least", 99), "%", "", len(point.query), note)


def measure_bytes(world: World) -> Result:
    points = _points(world)
    point = points.get(1_000) or points[max(points)]
    note = f"of a table of {point.batches:,} batches, decoded for one key; filters are in memory"
    return Result(BYTES, point.bytes * 100, None, None, Target("ours", "at most", 1), "%", "", 50, note)


def measure_growth(world: World) -> Result:
    points = list(_points(world).values())
    times = ", ".join(f"{p.batches:,}: {median(p.query) * 1000:.2f} ms" for p in points)
    after = ", ".join(f"{p.batches:,}: {median(p.compacted) * 1000:.2f} ms" for p in points if p.compacted)
    note = f"in this process, {times}; after a compaction {after}"
    return Result(
        GROWTH, growth(points), None, None, Target("ours", "at most", 0.5), "exponent", "", len(points[0].query), note
    )
