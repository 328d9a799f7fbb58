"""Jobs: durable from the moment their id is handed out, never stuck, and what they failed with is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from table_world import HandClock

from flightkalam.errors import Cancelled, DiskFull, InternalError, InvalidValue, TryAgain, UndefinedObject
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import Job, Skipped
from flightkalam.jobs.kinds import ASKED, BACKGROUND, Flush
from flightkalam.jobs.runner import Jobs, Limits
from flightkalam.storage.kv import Batch, Store

FIRST, SECOND = {"tables": ["main.a"]}, {"tables": ["main.b"]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "kv", durable=False)
    yield made
    made.close()


class Worker:
    """An executor that waits until it is told what to do."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.error: BaseException | None = None
        self.seen: list[list[str]] = []

    def __call__(self, wanted: Flush, control: Control) -> dict[str, Any]:
        self.seen.append(wanted.tables)
        self.began.set()
        while not self.go_on.wait(0.005):
            control.step()
        if self.error is not None:
            raise self.error
        return {"n": 1}


@pytest.fixture
def worker() -> Worker:
    return Worker()


def started(store: Store, worker: Callable[[Flush, Control], dict[str, Any]], clock: HandClock | None = None) -> Jobs:
    jobs = Jobs(store, clock or HandClock(), Limits(grace_seconds=60))
    jobs.register("flush", worker)
    jobs.start()
    return jobs


def test_a_job_runs_and_its_record_says_how_it_went(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    worker.go_on.set()
    job_id = jobs.submit("flush", {"tables": ["main.t"]})
    assert job_id.startswith("FL-")
    job = jobs.wait(job_id)
    assert (job.status, job.result, job.error) == ("completed", {"n": 1}, None)
    assert job.created_at_us < (job.started_at_us or 0) < (job.finished_at_us or 0)
    assert jobs.get(job_id) == job == jobs.list()[-1]
    assert jobs.wait(job_id) == job, "a wait for a job that is over returns it"
    jobs.close()


def test_the_states_are_passed_in_order(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    first, second = jobs.submit("flush", FIRST), jobs.submit("flush", SECOND)
    assert worker.began.wait(5)
    assert jobs.get(first).status == "running" and jobs.get(second).status == "queued"
    worker.go_on.set()
    assert jobs.wait(second).status == "completed"
    assert worker.seen == [["main.a"], ["main.b"]], "one after another, in the order of their submission"
    jobs.close()


def test_one_flush_of_a_scope_is_active_and_looks_again_for_who_comes_late(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running = jobs.submit("flush", FIRST)
    assert worker.began.wait(5)
    assert jobs.submit("flush", FIRST, asked_by="ann") == running
    assert jobs.get(running).asked_by == ["ann"]
    other = jobs.submit("flush", SECOND)
    assert other != running and jobs.submit("flush", SECOND) == other, "one that waits needs not look again"
    worker.go_on.set()
    assert jobs.wait(running).result == {"n": 2}, "it may have missed what the second was for: so it looked once more"
    assert jobs.wait(other).result == {"n": 1}
    assert worker.seen == [["main.a"], ["main.a"], ["main.b"]]
    assert jobs.submit("flush", FIRST) != running, "a finished job takes nobody in"
    jobs.close()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DiskFull("the data disk is full"), "failed", DiskFull),
        (Cancelled("stopped"), "cancelled", Cancelled),
        (Skipped("the table is gone"), "skipped", Skipped),
        (ValueError("secret detail"), "failed", InternalError),
    ],
)
def test_what_a_job_failed_with_is_kept_and_told(
    store: Store, worker: Worker, error: Exception, status: str, told: type[Exception]
) -> None:
    worker.error = error
    worker.go_on.set()
    jobs = started(store, worker)
    job_id = jobs.submit("flush", FIRST, attempts=1)
    with pytest.raises(told) as raised:
        while True:  # the record outlives the run: a late waiter reads it instead
            job = jobs.wait(job_id)
            assert job.status == status
            raise told(job.error or "")
    assert "secret" not in str(raised.value)
    assert jobs.get(job_id).status == status
    assert jobs.get(job_id).error
    jobs.close()


def test_a_worker_outlives_a_job_that_failed(store: Store, worker: Worker) -> None:
    worker.error = ValueError()
    worker.go_on.set()
    jobs = started(store, worker)
    with pytest.raises(InternalError):
        jobs.wait(jobs.submit("flush", FIRST))
        raise InternalError("already over")
    worker.error = None
    assert jobs.wait(jobs.submit("flush", SECOND)).status == "completed"
    jobs.close()


def test_a_wait_can_end_while_the_job_goes_on(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    job_id = jobs.submit("flush", FIRST, attempts=1)
    assert worker.began.wait(5)
    with pytest.raises(Cancelled, match=job_id):
        jobs.wait(job_id, lambda: True)
    worker.go_on.set()
    assert jobs.wait(job_id).status == "completed"
    jobs.close()


def test_jobs_that_a_crash_interrupted_begin_again(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running, queued = jobs.submit("flush", FIRST), jobs.submit("flush", SECOND)
    assert worker.began.wait(5)
    second = Worker()
    second.go_on.set()
    again = started(store, second)  # the process that takes over reads what is on disk
    assert [again.wait(j).status for j in (running, queued)] == ["completed", "completed"]
    assert second.seen == [["main.a"], ["main.b"]] and again.get(running).attempts == 2
    again.close()
    worker.go_on.set()
    jobs.close()


def test_a_job_that_was_interrupted_too_often_is_failed_and_not_stuck(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    job_id = jobs.submit("flush", FIRST, attempts=1)
    assert worker.began.wait(5)
    again = Jobs(store, HandClock())
    again.recover()
    assert again.get(job_id).status == "failed" and "stopped" in (again.get(job_id).error or "")
    worker.go_on.set()
    jobs.close()


def test_what_a_newer_release_has_queued_is_read_as_far_as_it_is_known(store: Store) -> None:
    records = Jobs(store, HandClock()).records
    known = Job("FL-1", "flush", {"tables": ["main.a"], "of_tomorrow": 1}, 1, status="queued").to_bytes()
    batch = Batch()
    batch.put("jobs", b"FL-1", known[:-1] + b', "tomorrow": true}')
    store.append(batch)
    records.save(Job("XX-1", "tomorrow", {}, 2, status="running"))
    records.save(Job("FL-2", "flush", {"table": "main.a"}, 3, status="queued"))
    jobs = Jobs(store, HandClock())
    jobs.register("flush", lambda wanted, control: {"tables": wanted.tables})
    jobs.recover()
    assert jobs.run_next() and not jobs.run_next()
    assert [j.status for j in jobs.list()] == ["completed", "failed", "failed"]


def test_closing_finishes_what_runs_and_takes_nothing_new(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running, queued = jobs.submit("flush", FIRST), jobs.submit("flush", SECOND)
    assert worker.began.wait(5)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    while not jobs._closing:
        closing.join(0.001)
    with pytest.raises(TryAgain, match="shutting down"):
        jobs.submit("flush", {"tables": ["main.c"]})
    worker.go_on.set()
    closing.join(10)
    assert jobs.get(running).status == "completed"
    assert jobs.get(queued).status == "queued", "it begins at the next start"
    assert worker.seen == [["main.a"]]
    with pytest.raises(Cancelled, match="next start"):
        jobs.wait(queued)


def test_a_job_that_does_not_end_in_time_is_put_back(store: Store, worker: Worker) -> None:
    jobs = Jobs(store, HandClock(), Limits(grace_seconds=0))
    jobs.register("flush", worker)
    jobs.start()
    job_id = jobs.submit("flush", FIRST, attempts=1)
    assert worker.began.wait(5)
    jobs.close()
    job = jobs.get(job_id)
    assert (job.status, job.attempts) == ("queued", 0), "the stop was ours: it does not count as an attempt"


def test_jobs_without_a_record_are_refused(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    with pytest.raises(UndefinedObject, match="FL-nothing"):
        jobs.get("FL-nothing")
    jobs.close()


def test_a_log_line_that_cannot_be_written_does_not_end_the_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is the only one: without it every later FLUSH … WAIT would wait for ever."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr("flightkalam.jobs.runner.log", Broken())
    jobs = started(store, lambda wanted, control: {"n": 1})
    for _ in range(2):
        assert jobs.wait(jobs.submit("flush", {"tables": ["main.t"]})).status == "completed"
    jobs.close()


# -- without threads: a test says when the next job runs ----------------------------------------------------------------


class Plan:
    """An executor that does what it is told, attempt by attempt."""

    def __init__(self, *outcomes: BaseException | dict[str, Any]) -> None:
        self.outcomes = list(outcomes)

    def __call__(self, wanted: Any, control: Control) -> dict[str, Any]:
        control.step()
        outcome = self.outcomes.pop(0) if self.outcomes else {}
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def queue_of(store: Store, clock: HandClock, executor: Callable[..., dict[str, Any]], **limits: int) -> Jobs:
    jobs = Jobs(store, clock, Limits(**limits))
    for kind in ("flush", "compact", "manifest_eviction", "audit_retention", "cleanup"):
        jobs.register(kind, executor)
    return jobs


def test_what_may_be_over_later_is_tried_again_with_growing_pauses(store: Store) -> None:
    clock = HandClock()
    jobs = queue_of(store, clock, Plan(DiskFull("full"), DiskFull("full"), {"n": 1}))
    job_id = jobs.submit("flush", FIRST)
    for pause in (1, 2):
        assert jobs.run_next() and not jobs.run_next()
        job = jobs.get(job_id)
        assert (job.status, job.error) == ("retrying", "full")
        assert job.not_before_us - clock.us == pytest.approx(pause * 1_000_000, abs=10_000)
        with pytest.raises(DiskFull):
            jobs.wait(job_id)
        clock.us = job.not_before_us
    assert jobs.run_next()
    job = jobs.wait(job_id)
    assert (job.status, job.result, job.error, job.attempts) == ("completed", {"n": 1}, None, 3)


def test_attempts_are_counted_and_end(store: Store) -> None:
    clock = HandClock()
    jobs = queue_of(store, clock, Plan(*[DiskFull("full")] * 9))
    job_id = jobs.submit("flush", FIRST)
    runs = 0
    while jobs.get(job_id).status != "failed":
        clock.us += 400_000_000
        assert jobs.run_next()
        runs += 1
    assert runs == 5
    with pytest.raises(DiskFull):
        jobs.wait(job_id)


def test_who_asks_for_a_job_that_waits_to_be_tried_again_need_not_wait(store: Store) -> None:
    jobs = queue_of(store, HandClock(), Plan(DiskFull("full"), {"n": 1}))
    job_id = jobs.submit("flush", FIRST)
    assert jobs.run_next() and not jobs.run_next()
    assert jobs.submit("flush", FIRST) == job_id
    assert jobs.run_next()
    assert jobs.wait(job_id).status == "completed"


def test_one_big_job_at_a_time_and_small_ones_beside_it(store: Store) -> None:
    jobs = queue_of(store, HandClock(), Plan(), workers=2, big=1)
    order = []

    def big(wanted: Any, control: Control) -> dict[str, Any]:
        order.append("big")
        if len(order) == 1:
            assert jobs.run_next(), "the small one, though it came last"
            assert not jobs.run_next(), "the second big one has to wait"
        return {}

    jobs.register("flush", big)
    jobs.register("audit_retention", lambda wanted, control: order.append("small") or {})
    for kind, parameters in (("flush", FIRST), ("flush", SECOND), ("audit_retention", {})):
        jobs.submit(kind, parameters)
    while jobs.run_next():
        pass
    assert order == ["big", "small", "big"]


def test_urgent_jobs_go_first_and_none_waits_for_ever(store: Store) -> None:
    clock, seen = HandClock(), []
    jobs = queue_of(store, clock, lambda wanted, control: seen.append(wanted.tables[0]) or {})
    jobs.submit("flush", {"tables": ["main.old"]}, priority=BACKGROUND)
    clock.us += 1_300_000_000
    jobs.submit("flush", {"tables": ["main.new"]}, priority=BACKGROUND)
    jobs.submit("flush", {"tables": ["main.asked"]}, priority=ASKED)
    while jobs.run_next():
        pass
    assert seen == ["main.old", "main.asked", "main.new"], "twenty minutes of waiting outweigh two levels"


def test_asking_for_a_waiting_job_makes_it_as_urgent(store: Store) -> None:
    seen: list[str] = []
    jobs = queue_of(store, HandClock(), lambda wanted, control: seen.append(wanted.tables[0]) or {})
    jobs.submit("flush", FIRST)
    second = jobs.submit("flush", SECOND)
    assert jobs.submit("flush", SECOND, priority=ASKED) == second
    while jobs.run_next():
        pass
    assert seen == ["main.b", "main.a"]


def test_killed_before_it_began_a_job_never_begins(store: Store) -> None:
    jobs = queue_of(store, HandClock(), Plan())
    job_id = jobs.submit("flush", FIRST)
    assert jobs.kill(job_id).status == "cancelled"
    assert not jobs.run_next()
    with pytest.raises(Cancelled):
        jobs.wait(job_id)
    with pytest.raises(InvalidValue, match="it is cancelled"):
        jobs.kill(job_id)
    again = queue_of(store, HandClock(), Plan())
    again.recover()
    assert not again.run_next() and again.get(job_id).status == "cancelled"


def test_killed_while_it_runs_a_job_stops_and_stays_cancelled(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    job_id = jobs.submit("flush", FIRST)
    assert worker.began.wait(5)
    job = jobs.kill(job_id)
    assert (job.status, job.result) == ("cancelled", None) and jobs.get(job_id) == job
    with pytest.raises(InvalidValue, match="it is cancelled"):
        jobs.kill(job_id)
    jobs.close()
    assert jobs.get(job_id).status == "cancelled"


def test_a_kill_outlives_a_crash(store: Store) -> None:
    """The process ends between the KILL and the job's next step."""
    jobs = queue_of(store, HandClock(), Plan())
    job_id = jobs.submit("flush", FIRST)
    seen = []

    def crash(wanted: Any, control: Control) -> dict[str, Any]:
        with pytest.raises(Cancelled, match="told to stop"):
            jobs.kill(job_id, lambda: True)
        again = queue_of(store, HandClock(), Plan())
        again.recover()
        seen.append(again.get(job_id).status)
        return {}

    jobs.register("flush", crash)
    assert jobs.run_next()
    assert seen == ["cancelled"]


def test_a_job_past_its_last_step_is_completed_and_the_kill_says_so(store: Store, worker: Worker) -> None:
    jobs = started(store, lambda wanted, control: worker.began.set() or (worker.go_on.wait() and {"n": 1}))  # looks at nothing
    job_id = jobs.submit("flush", FIRST)
    assert worker.began.wait(5)
    killed: list[Job] = []
    thread = threading.Thread(target=lambda: killed.append(jobs.kill(job_id)))
    thread.start()
    while not jobs.get(job_id).killed:
        thread.join(0.001)
    worker.go_on.set()
    thread.join(5)
    assert killed[0].status == "completed"
    jobs.close()


@pytest.mark.parametrize("job_id", ["FL-nothing", "", "x" * 1_000])
def test_there_must_be_a_job_to_kill(store: Store, job_id: str) -> None:
    with pytest.raises(UndefinedObject, match="there is no job"):
        queue_of(store, HandClock(), Plan()).kill(job_id)
