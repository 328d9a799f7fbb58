"""Large writes to cold rows, inside this process, all durable.

update_many / delete_many   one row in a hundred at random, beside the SELECT that finds them
ingest_random               new random UUIDs: the share of the time that goes into looking whether they are new
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa

from flightkalam.table.mutate import Writer
from perf import data
from perf.inside import LEFT_ALONE, Append, Inside, parts_of
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World

UPDATE, DELETE, RANDOM = "update_many", "delete_many", "ingest_random"
_BATCHES = 10
_MOST = 3.0
_MOST_PERCENT = 30.0
_UUIDS = pa.schema([("id", pa.utf8()), ("amount", pa.float64()), ("number", pa.int64())])


def measure_update(world: World) -> Result:
    return _many(world, UPDATE, "UPDATE many SET amount = amount + 1 WHERE {}")


def measure_delete(world: World) -> Result:
    return _many(world, DELETE, "DELETE FROM many WHERE {}")


def _many(world: World, name: str, statement: str) -> Result:
    """Each repetition takes other rows, so that all of them are cold."""
    with Inside(world.folder / name) as inside:
        inside.load_cold("many", data.COLUMNS_SQL, parts_of(world.sizes.scan_rows, _BATCHES))
        chosen = (f"number % 100 = {i}" for i in itertools.count())
        condition = ""

        def write() -> float:
            return timed(lambda: _require(inside.update(statement.format(condition)), world))

        def read() -> float:
            nonlocal condition
            condition = next(chosen)
            return timed(lambda: _require(inside.run(f"SELECT * FROM many WHERE {condition}").num_rows, world))

        b, a = interleaved(read, write, min(world.sizes.repeats, 5))
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", _MOST),
        unit="ms",
        peer_name="the SELECT that finds them",
        runs=len(a),
        note=f"1 % of {world.sizes.scan_rows:,} rows × 8 columns in {_BATCHES} batches; "
        f"ours {spread(a, 1e3, 'ms')}, peer {spread(b, 1e3, 'ms')}",
    )


def _require(rows: int, world: World) -> None:
    expected = world.sizes.scan_rows / 100
    if not 0.5 * expected < rows < 2 * expected:
        raise AssertionError(f"{rows} rows were met where about {expected:.0f} were expected")


def measure_random(world: World) -> Result:
    """Ingests one after another, the first of them after a flush; then one after a restart, when no key is in memory."""
    n, seeds = world.sizes.ingest_rows, itertools.count(_BATCHES)
    with Inside(world.folder / RANDOM) as inside:
        inside.update(f"CREATE TABLE random (id UUID PRIMARY KEY, amount DOUBLE, number BIGINT) WITH ({LEFT_ALONE})")
        for i in range(_BATCHES):
            inside.append("random", _random(n, i).to_reader(data.BATCH_ROWS))
            inside.flush("random")
        shares, totals = _located(inside, n, seeds, 4)
        inside.flush("random")
        more = _located(inside, n, seeds, 2)
    with Inside(world.folder / RANDOM) as inside:
        again, _ = _located(inside, n, seeds, 2)
    first = f"{shares[0]:.0f} and {more[0][0]:.0f}"
    shares, totals = shares + more[0], totals + more[1]
    return Result(
        name=RANDOM,
        ours=median(shares),
        peer=None,
        ratio=None,
        target=Target("ours", "at most", _MOST_PERCENT),
        unit="%",
        peer_name="",
        runs=len(shares),
        note=f"of an ingest of {n:,} new random UUIDs into {n * _BATCHES:,} cold ones goes into locating them; the first after "
        f"a flush {first} %, after a restart {again[0]:.0f} %, the next {again[1]:.0f} %; "
        f"the whole takes {spread(totals, 1, 's')}",
    )


def _located(inside: Inside, n: int, seeds: Iterator[int], ingests: int) -> tuple[list[float], list[float]]:
    """Of each ingest the share that goes into locating, in percent, and its seconds."""
    seconds = defaultdict[str, float](float)

    @contextmanager
    def spent(step: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds[step] += time.perf_counter() - started

    parts = inside.kalam.parts
    session = inside.new_session(replace(parts, writer=Writer(parts.scopes, spent)))
    shares, totals = [], []
    for _ in range(ingests):
        rows = _random(n, next(seeds)).to_reader(data.BATCH_ROWS)
        seconds.clear()
        total = timed(lambda rows=rows: session.ingest(Append("random"), rows.schema, iter(rows), {}))  # type: ignore[misc]
        shares.append(100 * seconds["locate"] / total)
        totals.append(total)
    return shares, totals


def _random(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng((data.SEED, seed))
    return pa.table([uuids(rng, n), rng.random(n), np.arange(n)], schema=_UUIDS)


def uuids(rng: np.random.Generator, n: int) -> pa.Array:
    """Random UUIDs as text, made a column at a time."""
    digits = np.frombuffer(rng.bytes(16 * n).hex().encode(), np.uint8).reshape(n, 32)
    text = np.full((n, 36), ord("-"), np.uint8)
    for start, end, at in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        text[:, at : at + end - start] = digits[:, start:end]
    offsets = np.arange(0, 36 * (n + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
