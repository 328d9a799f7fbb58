"""Several writers at once, durable, beside one of them.

one_record          ten sessions in this process add one to the same row by its key
one_record_engine   the same by an expression that only the engine computes
one_record_adbc     the first over the wire, ten connections
door                thirty-two threads hand ready rows of distinct keys to the commit door: no SQL, no wire; in the note the
                    same threads with the log alone, which is the limit
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from flightkalam.storage.kv import Batch, Store
from flightkalam.table.mutate import LAST_SEQ
from flightkalam.table.mutation import Mutation
from perf import servers
from perf.inside import LEFT_ALONE, Inside
from perf.result import Result, Step, Target, median, spread
from perf.world import World

RECORD, ENGINE, ADBC, DOOR = "one_record", "one_record_engine", "one_record_adbc", "door"
_WRITERS, _DOOR_WRITERS = 10, 32
_CREATE = f"CREATE TABLE counted (id INT PRIMARY KEY, n BIGINT) WITH ({LEFT_ALONE})"
_ADD = "UPDATE counted SET n = n + 1 WHERE id = 1"
_COMPUTED = "UPDATE counted SET n = (n * 2 + 2) // 2 WHERE id = 1"


def measure_record(world: World) -> Result:
    return _record(world, RECORD, _ADD)


def measure_engine(world: World) -> Result:
    return _record(world, ENGINE, _COMPUTED)


def _record(world: World, name: str, statement: str) -> Result:
    with Inside(world.folder / name) as inside:
        inside.update(_CREATE)
        inside.update("INSERT INTO counted VALUES (1, 0)")

        def writer() -> Step:
            session = inside.new_session()
            return lambda: session.update(statement, None)

        result, done = _beside_one(world, name, [writer() for _ in range(_WRITERS)], 0.8)
        _check(inside.run("SELECT n FROM counted").column("n")[0].as_py(), done)
    return result


def measure_adbc(world: World) -> Result:
    servers.run_sql(world.connection, _CREATE)
    servers.run_sql(world.connection, "INSERT INTO counted VALUES (1, 0)")

    def writer() -> Step:
        cursor = world.connect().cursor()
        return lambda: cursor.execute(_ADD)

    result, done = _beside_one(world, ADBC, [writer() for _ in range(_WRITERS)], 0.8)
    with world.connection.cursor() as cursor:
        cursor.execute("SELECT n FROM counted")
        row = cursor.fetchone()
    assert row is not None
    _check(row[0], done)
    return result


def measure_door(world: World) -> Result:
    """The rows are made beforehand: each writer has its own."""
    with Inside(world.folder / DOOR) as inside:
        inside.update(f"CREATE TABLE entered (id BIGINT PRIMARY KEY, label TEXT) WITH ({LEFT_ALONE})")
        parts = inside.kalam.parts
        table = parts.catalog.state.find("main", "entered")
        each = world.sizes.calls * 8 * _ROUNDS

        def ready(first: int) -> Step:
            keys = iter(range(first, first + each))
            rows = iter([pa.table([[next(keys)], ["a label"]], schema=table.schema.storage) for _ in range(each)])
            return lambda: parts.writer.write([Mutation(table, None, next(rows))])

        result, done = _beside_one(world, DOOR, [ready(i * each) for i in range(_DOOR_WRITERS)], 3.0)
        _check(inside.run("SELECT count(*) AS n FROM entered").column("n")[0].as_py(), done)
    limit, _ = _log_alone(world)
    return replace(result, note=f"{result.note}; the log alone {limit.ours:,.0f} writes/s, {limit.ratio:.2g} × one writer")


def _log_alone(world: World) -> tuple[Result, int]:
    """As many bytes for each write, and nothing else: what the group commit itself gives here."""
    store = Store(world.folder / "log-alone")

    def ready(i: int) -> Step:
        keys = iter(range(1 << 62))

        def write() -> None:
            batch = Batch()
            batch.put("log", b"%d/%d" % (i, next(keys)), bytes(400))
            batch.put("meta", LAST_SEQ, bytes(8))
            store.commit(batch)

        return write

    try:
        return _beside_one(world, "log alone", [ready(i) for i in range(_DOOR_WRITERS)], 3.0)
    finally:
        store.close()


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise AssertionError(f"{expected} writes were acknowledged and {found} are there")


_ROUNDS = 3


def _beside_one(world: World, name: str, steps: Sequence[Step], least: float) -> tuple[Result, int]:
    """Writes a second of all the writers together, beside those of the first alone; and how many there were in all."""
    seconds = world.sizes.calls / 200
    one, every, done = [], [], 0
    for _ in range(_ROUNDS):
        for rates, some in ((one, steps[:1]), (every, steps)):
            count, took = _run(some, seconds, limit=world.sizes.calls * 8)
            rates.append(count / took)
            done += count
    result = Result(
        name=name,
        ours=median(every),
        peer=median(one),
        ratio=median(every) / median(one),
        target=Target("ratio", "at least", least),
        unit="writes/s",
        peer_name="one writer",
        runs=_ROUNDS,
        note=f"{len(steps)} writers; {spread(every, 1, 'writes/s')}, one {spread(one, 1, 'writes/s')}",
    )
    return result, done


def _run(steps: Sequence[Callable[[], object]], seconds: float, limit: int) -> tuple[int, float]:
    """Every writer writes until the time is over, or the limit reached; how many writes, in how many seconds."""
    counts, begun = [0] * len(steps), threading.Barrier(len(steps) + 1)

    def work(i: int) -> None:
        begun.wait()
        end = time.perf_counter() + seconds
        while counts[i] < limit // (2 if len(steps) == 1 else 8) and time.perf_counter() < end:
            steps[i]()
            counts[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(steps))]
    for thread in threads:
        thread.start()
    begun.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts), time.perf_counter() - started
