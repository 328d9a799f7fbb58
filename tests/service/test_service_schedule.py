"""What a running service does by itself, with a clock that stands still until the test moves it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kalam_world import InProcess, World

from flightkalam import failpoints
from flightkalam.auth.identity import Role
from flightkalam.clock import SystemClock
from flightkalam.errors import DiskFull, InternalError
from flightkalam.jobs.job import Job
from flightkalam.model.ids import Scope

SECRET = "4711-Xanthippe"
HOURS = 3_600.0


class Clock:
    """The time of day, and as much more as the test says."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self.ahead = 0.0

    def pass_(self, seconds: float) -> None:
        self.ahead += seconds

    def now_us(self) -> int:
        return self._system.now_us() + round(self.ahead * 1_000_000)

    def monotonic(self) -> float:
        return self._system.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    made = World(tmp_path / "data", {"auth": {"session_idle_seconds": 86_400}}, clock=clock)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def _disk_full() -> None:
    raise DiskFull("the data disk is full")


def _broken() -> None:
    raise InternalError("broken")


def ended(world: World, job: Job) -> Job:
    """The job when it is completed."""
    for _ in range(500):
        found = world.kalam.parts.jobs.get(job.job_id)
        if found.status == "completed":
            return found
        world.kalam.parts.jobs.look()
        time.sleep(0.01)
    raise AssertionError(f"the job does not end: {found}")


def check(world: World) -> list[Job]:
    """One look of the scheduler; the jobs that it asked for, when they are done."""
    jobs = world.kalam.parts.jobs
    before = {j.job_id for j in jobs.list()}
    world.kalam.schedule.check()
    for _ in range(200):
        fresh = [j for j in jobs.list() if j.job_id not in before]
        if all(j.status not in ("queued", "running") for j in fresh):
            return fresh
        time.sleep(0.02)
    raise AssertionError(f"jobs do not end: {fresh}")


def flushed(world: World) -> list[dict[str, Any]]:
    return [j.parameters for j in check(world) if j.kind == "flush" and j.status == "completed"]


def hot(world: World, table: str, owner: str | None = None) -> int:
    found = world.kalam.parts.catalog.state.find(*table.split("."))
    assert found is not None
    return world.kalam.parts.scopes.open(found, owner).state.hot.n  # type: ignore[arg-type]


def files_with(world: World, text: str) -> list[str]:
    return [p.name for p in world.data_dir.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_rows_flush_when_they_are_enough(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:3')")
    root.run("INSERT INTO t VALUES (1), (2)")
    assert flushed(world) == []
    root.run("INSERT INTO t VALUES (3)")
    assert flushed(world) == [{"tables": ["main.t"], "owners": [None]}]
    assert hot(world, "main.t") == 0
    assert flushed(world) == []


def test_an_interval_flushes_even_one_row(world: World, root: InProcess, clock: Clock) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='interval:60')")
    root.run("INSERT INTO t VALUES (1)")
    clock.pass_(50)
    assert flushed(world) == []
    clock.pass_(11)
    assert len(flushed(world)) == 1
    assert hot(world, "main.t") == 0


def test_owners_are_flushed_each_by_their_own_rows(world: World, root: InProcess) -> None:
    root.run("CREATE USER TABLE u (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:2')")
    for name, rows in (("ann", "(1), (2)"), ("bob", "(1)")):
        world.in_process(name, Role.USER).run(f"INSERT INTO u VALUES {rows}")
    assert flushed(world) == [{"tables": ["main.u"], "owners": ["ann"]}]
    assert (hot(world, "main.u", "ann"), hot(world, "main.u", "bob")) == (0, 1)


@pytest.mark.parametrize("policy", ["interval:60", "rows:2"])
def test_what_a_stop_left_in_the_log_is_flushed_though_nobody_asks_for_the_table(
    world: World, root: InProcess, clock: Clock, policy: str
) -> None:
    root.run(f"CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='{policy}')")
    root.run("INSERT INTO t VALUES (1), (2)")
    world.restart()
    clock.pass_(61)
    assert len(flushed(world)) == 1
    assert flushed(world) == []
    assert hot(world, "main.t") == 0


def test_a_flush_that_fails_is_tried_again_by_itself_and_asked_for_once(world: World, root: InProcess, clock: Clock) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:1')")
    root.run("INSERT INTO t VALUES (1)")
    failpoints.arm("flush.batch_written", _disk_full)
    (job,) = check(world)
    assert (job.status, job.error) == ("retrying", "the data disk is full")
    assert check(world) == []
    failpoints.disarm()
    clock.pass_(2)
    assert ended(world, job).attempts == 2
    assert check(world) == []


def test_a_flush_that_failed_for_good_is_asked_for_again_after_a_minute(world: World, root: InProcess, clock: Clock) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:1')")
    root.run("INSERT INTO t VALUES (1)")
    failpoints.arm("flush.batch_written", _broken)
    assert [j.status for j in check(world)] == ["failed"]
    failpoints.disarm()
    clock.pass_(59)
    assert check(world) == []
    clock.pass_(2)
    assert len(flushed(world)) == 1


def test_what_is_over_its_time_while_the_service_is_down_is_done_after_the_next_start(tmp_path: Path, clock: Clock) -> None:
    """A job that waits to be tried again is not lost by a stop."""
    world = World(tmp_path / "again", clock=clock)
    root = world.in_process()
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:1')")
    root.run("INSERT INTO t VALUES (1)")
    failpoints.arm("flush.batch_written", _disk_full)
    (job,) = check(world)
    failpoints.disarm()
    clock.pass_(60)
    world.restart()
    assert ended(world, job).result == {"batches": 1, "rows": 1, "bytes": ended(world, job).result["bytes"]}
    world.close()


def test_too_much_hot_memory_flushes_the_largest_scopes_whatever_their_policy(tmp_path: Path, clock: Clock) -> None:
    world = World(tmp_path / "small", {"flush": {"hot_bytes": 2_000_000}}, clock=clock)
    root = world.in_process()
    for name, rows in (("small", 10), ("large", 9_000)):
        root.run(f"CREATE TABLE {name} (k INT PRIMARY KEY, v TEXT)")
        root.run(f"INSERT INTO {name} SELECT i, repeat('x', 100) FROM range({rows}) r(i)")
    assert check(world) == []
    root.run("INSERT INTO large SELECT i, repeat('x', 100) FROM range(9000, 18000) r(i)")
    assert [j.parameters["tables"] for j in check(world) if j.kind == "flush"] == [["main.large"]]
    assert check(world) == []
    world.close()


def test_a_stream_table_is_never_flushed(world: World, root: InProcess, clock: Clock) -> None:
    root.run("CREATE STREAM TABLE s (k INT PRIMARY KEY) WITH (TTL_SECONDS=100000)")
    root.run("INSERT INTO s VALUES (1)")
    clock.pass_(48 * HOURS)
    assert [j.kind for j in check(world) if j.kind == "flush"] == []


def test_ten_thousand_idle_tables_cost_less_than_a_hundredth_of_a_core(world: World, root: InProcess) -> None:
    """Open scopes with a row each, none due: a check every ten seconds may take a tenth of one."""
    root.run("CREATE TABLE t (k INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:2')")
    root.run("INSERT INTO t VALUES (1)")
    scopes = world.kalam.parts.scopes
    one = scopes.opened()[0]
    scopes._live.update({Scope(one.scope.table_id, str(i)): one for i in range(10_000)})
    world.kalam.schedule.check()
    times = []
    for _ in range(5):
        started = time.thread_time()
        world.kalam.schedule.check()
        times.append(time.thread_time() - started)
    assert min(times) < 0.1


def test_rows_past_their_retention_go_by_themselves(world: World, root: InProcess, clock: Clock) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY, ts TIMESTAMPTZ) WITH (ROW_RETENTION='1d BY ts')")
    root.run("INSERT INTO t VALUES (1, now()), (2, now() + INTERVAL 3 DAY)")
    clock.pass_(23 * HOURS)
    check(world)
    assert root.run("SELECT k FROM t").rows.num_rows == 2  # type: ignore[union-attr]
    clock.pass_(2 * HOURS)
    assert "retention" in [j.kind for j in check(world)]
    assert root.run("SELECT k FROM t").rows.column("k").to_pylist() == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize("where", ["hot", "cold", "mixed", "segment"])
def test_a_deleted_or_superseded_value_leaves_every_file_in_time(
    world: World, root: InProcess, clock: Clock, where: str
) -> None:
    """SEMANTICS §3: DELETED_RETENTION_HOURS + 24 h later at the latest, though the policy flushes nothing by itself."""
    root.run("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT) WITH (FLUSH_POLICY='rows:1000000', DELETED_RETENTION_HOURS=5)")
    root.run(f"INSERT INTO t VALUES ('{SECRET}', 'a'), ('b', '{SECRET}'), ('c', 'kept')")
    if where == "segment":
        root.run(f"INSERT INTO t SELECT 'n' || range, '{SECRET}' || repeat('x', 100) FROM range(20000)")
    if where == "cold":
        root.run("FLUSH TABLE t WAIT")
    root.run(f"DELETE FROM t WHERE k = '{SECRET}' OR k LIKE 'n%'")
    if where == "mixed":
        root.run("FLUSH TABLE t WAIT")
    root.run("UPDATE t SET v = 'new' WHERE k = 'b'")
    if where == "cold":
        root.run("FLUSH TABLE t WAIT")
    assert files_with(world, SECRET)
    for _ in range(5 + 24):
        check(world)
        clock.pass_(1 * HOURS)
    assert files_with(world, SECRET) == []
    assert root.run("SELECT * FROM t ORDER BY k").rows.to_pylist() == [  # type: ignore[union-attr]
        {"k": "b", "v": "new"},
        {"k": "c", "v": "kept"},
    ]
    world.check()


def test_a_batch_is_written_anew_once_in_a_retention_and_not_at_every_check(
    world: World, root: InProcess, clock: Clock
) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY, v INT) WITH (FLUSH_POLICY='interval:60', DELETED_RETENTION_HOURS=10)")
    root.run("INSERT INTO t SELECT range, 0 FROM range(100)")
    rewritten = 0
    for hour in range(60):
        root.run(f"UPDATE t SET v = {hour + 1} WHERE k = {hour}")
        clock.pass_(1 * HOURS)
        rewritten += sum(j.kind == "retention" for j in check(world))
    assert 2 <= rewritten <= 15
    world.check()
