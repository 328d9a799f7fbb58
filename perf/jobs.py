"""Background work: what it costs, and what queries feel of it.

job_parameters      refusing wrong parameters of a job, with the message that shows the expected shape
idle_tables         a check of the schedule over ten thousand scopes with a row each, none due, as a share of a core
flush_rows          FLUSH … WAIT of a table, beside pyarrow writing the same rows sorted by key with the same settings
reads_in_flush      p99 of point queries by key while a million rows of another table are flushed, beside the same without
reads_in_compaction p99 of point queries by key while another table is compacted, beside the same without
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pyarrow.parquet as pq

from flightkalam.errors import InvalidValue
from flightkalam.jobs.kinds import kind_of, read
from flightkalam.model.ids import Scope
from perf import data
from perf.inside import LEFT_ALONE, Inside
from perf.result import Result, Target, median, timed
from perf.world import World

PARAMETERS, IDLE, FLUSH = "job_parameters", "idle_tables", "flush_rows"
IN_FLUSH, IN_COMPACTION = "reads_in_flush", "reads_in_compaction"
_IDLE_TABLES, _CHECK_SECONDS = 10_000, 10


def measure_parameters(world: World) -> Result:
    kind = kind_of("flush")

    def refuse() -> None:
        try:
            read(kind, {"tables": [7, "t"], "owners": 3})
        except InvalidValue:
            return
        raise AssertionError("wrong parameters were accepted")

    times = [timed(refuse) for _ in range(world.sizes.calls)]
    return Result(PARAMETERS, median(times) * 1000, None, None, Target("ours", "at most", 1), "ms", "", len(times))


def measure_idle(world: World) -> Result:
    with Inside(world.folder / IDLE) as inside:
        inside.update(f"CREATE TABLE t ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
        inside.append("t", data.reader(1))
        scopes, schedule = inside.kalam.parts.scopes, inside.kalam.schedule
        one = scopes.opened()[0]
        scopes._open.update({Scope(one.scope.table_id, str(i)): one for i in range(_IDLE_TABLES)})
        schedule.check()
        times = []
        for _ in range(world.sizes.repeats):
            started = time.thread_time()
            schedule.check()
            times.append(time.thread_time() - started)
        for i in range(_IDLE_TABLES):
            del scopes._open[Scope(one.scope.table_id, str(i))]
    share = 100 * median(times) / _CHECK_SECONDS
    note = f"one check takes {median(times) * 1000:.1f} ms, one every {_CHECK_SECONDS} s"
    return Result(IDLE, share, None, None, Target("ours", "at most", 1), "% of a core", "", len(times), note)


def measure_flush(world: World) -> Result:
    rows = data.table(world.sizes.ingest_rows)
    bare = world.folder / "bare.parquet"
    ours, peer = [], []
    with Inside(world.folder / FLUSH) as inside:
        inside.update(f"CREATE TABLE t ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
        for i in range(3):
            inside.append("t", rows.to_reader())
            took = timed(lambda: inside.flush("t"))
            bare_took = timed(
                lambda: pq.write_table(rows, bare, row_group_size=24_576, compression="zstd", compression_level=1)
            )
            if i:
                ours.append(took)
                peer.append(bare_took)
            inside.update("DROP TABLE t")
            inside.update(f"CREATE TABLE t ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
    bare.unlink()
    a, b = median(ours), median(peer)
    return Result(FLUSH, a, b, a / b, Target("ratio", "at most", 2.5), "s", "pyarrow writes the rows", len(ours))


def measure_in_flush(world: World) -> Result:
    n = world.sizes.ingest_rows

    def prepare(inside: Inside, at: int) -> None:
        inside.append("busy", data.reader(n, at * n))

    return _beside(world, IN_FLUSH, prepare, "FLUSH TABLE busy WAIT")


def measure_in_compaction(world: World) -> Result:
    n = world.sizes.ingest_rows // 4

    def prepare(inside: Inside, at: int) -> None:
        for i in range(4):
            inside.append("busy", data.reader(n, (4 * at + i) * n))
            inside.flush("busy")

    return _beside(world, IN_COMPACTION, prepare, "COMPACT TABLE busy WAIT")


def _beside(world: World, name: str, prepare: Callable[[Inside, int], None], job: str) -> Result:
    """Point queries by key while `job` runs, which `prepare` has made ready meanwhile unmeasured; and while nothing runs."""
    with Inside(world.folder / name) as inside:
        for table in ("t", "busy"):
            inside.update(f"CREATE TABLE {table} ({data.COLUMNS_SQL}) WITH ({LEFT_ALONE})")
        inside.append("t", data.reader(world.sizes.ingest_rows // 10))
        inside.flush("t")
        reads = _Reads(inside, world.sizes.ingest_rows // 10)
        reads.while_(lambda: len(reads.taken) < 200)
        reads.taken.clear()
        reads.while_(lambda: len(reads.taken) < world.sizes.calls * 3)
        idle, busy = list(reads.taken), []
        for at in range(max(2, world.sizes.repeats // 2)):
            prepare(inside, at)
            reads.taken.clear()
            worker = threading.Thread(target=inside.run, args=(job,))
            worker.start()
            reads.while_(worker.is_alive)
            busy += reads.taken
    a, b = _p99(busy), _p99(idle)
    note = f"p50 {median(busy) * 1000:.2f} and {median(idle) * 1000:.2f} ms"
    return Result(name, a * 1000, b * 1000, a / b, Target("ratio", "at most", 2), "ms", "the same, idle", len(busy), note)


class _Reads:
    """Point queries of random keys, one after another."""

    def __init__(self, inside: Inside, rows: int) -> None:
        self.taken: list[float] = []
        self._session = inside.new_session()
        self._keys = data.permuted(rows)
        self._at = 0

    def while_(self, going: Callable[[], bool]) -> None:
        while going():
            self.taken.append(timed(self._read))

    def _read(self) -> None:
        key = int(self._keys[self._at % len(self._keys)])
        self._at += 1
        rows = self._session.query(f"SELECT label FROM t WHERE k = {key}")
        if sum(batch.num_rows for batch in rows) != 1:
            raise AssertionError(f"the row of {key} was not found")


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]
