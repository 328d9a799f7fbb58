"""Jobs: durable from the moment their id is handed out, never stuck, and what they failed with is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from table_world import HandClock

from flightkalam.errors import Cancelled, DiskFull, InternalError, TryAgain
from flightkalam.jobs.runner import Job, Jobs
from flightkalam.storage.kv import Store


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
        self.seen: list[dict[str, Any]] = []

    def __call__(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        self.seen.append(job.parameters)
        self.began.set()
        while not self.go_on.wait(0.005):
            if cancelled.is_set():
                raise Cancelled("stopped")
        if self.error is not None:
            raise self.error
        return {"n": len(self.seen)}


@pytest.fixture
def worker() -> Worker:
    return Worker()


def started(store: Store, worker: Callable[[Job, threading.Event], dict[str, Any]]) -> Jobs:
    jobs = Jobs(store, HandClock())
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
    first, second = jobs.submit("flush", {"n": 1}), jobs.submit("flush", {"n": 2})
    assert worker.began.wait(5)
    assert jobs.get(first).status == "running" and jobs.get(second).status == "queued"
    worker.go_on.set()
    assert jobs.wait(second).status == "completed"
    assert worker.seen == [{"n": 1}, {"n": 2}], "one after another, in the order of their submission"
    jobs.close()


def test_the_same_job_is_queued_once(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running = jobs.submit("flush", {"n": 1})
    assert worker.began.wait(5)
    waiting = jobs.submit("flush", {"n": 1})
    assert waiting != running, "the running one may have missed what this one is for"
    assert jobs.submit("flush", {"n": 1}) == waiting
    assert jobs.submit("flush", {"n": 2}) != waiting
    worker.go_on.set()
    jobs.close()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DiskFull("the data disk is full"), "failed", DiskFull),
        (Cancelled("stopped"), "cancelled", Cancelled),
        (ValueError("secret detail"), "failed", InternalError),
    ],
)
def test_what_a_job_failed_with_is_kept_and_told(
    store: Store, worker: Worker, error: Exception, status: str, told: type[Exception]
) -> None:
    worker.error = error
    worker.go_on.set()
    jobs = started(store, worker)
    job_id = jobs.submit("flush", {})
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
        jobs.wait(jobs.submit("flush", {"n": 1}))
        raise InternalError("already over")
    worker.error = None
    assert jobs.wait(jobs.submit("flush", {"n": 2})).status == "completed"
    jobs.close()


def test_a_wait_can_end_while_the_job_goes_on(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    job_id = jobs.submit("flush", {})
    assert worker.began.wait(5)
    with pytest.raises(Cancelled, match=job_id):
        jobs.wait(job_id, lambda: True)
    worker.go_on.set()
    assert jobs.wait(job_id).status == "completed"
    jobs.close()


def test_a_job_that_a_crash_interrupted_is_failed_and_not_stuck(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running, queued = jobs.submit("flush", {"n": 1}), jobs.submit("flush", {"n": 2})
    assert worker.began.wait(5)
    again = started(store, worker)  # the process that takes over reads what is on disk
    assert [again.get(j).status for j in (running, queued)] == ["failed", "failed"]
    assert "stopped" in (again.get(running).error or "")
    again.close()
    worker.go_on.set()
    jobs.close()


def test_closing_finishes_what_runs_and_takes_nothing_new(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    running, queued = jobs.submit("flush", {"n": 1}), jobs.submit("flush", {"n": 2})
    assert worker.began.wait(5)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    while not jobs._closing:
        closing.join(0.001)
    with pytest.raises(TryAgain, match="shutting down"):
        jobs.submit("flush", {"n": 3})
    worker.go_on.set()
    closing.join(10)
    assert jobs.get(running).status == "completed"
    assert jobs.get(queued).status in ("cancelled", "failed", "queued")
    assert worker.seen == [{"n": 1}]


def test_jobs_without_a_record_are_refused(store: Store, worker: Worker) -> None:
    jobs = started(store, worker)
    with pytest.raises(InternalError, match="FL-nothing"):
        jobs.get("FL-nothing")
    jobs.close()


def test_a_log_line_that_cannot_be_written_does_not_end_the_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is the only one: without it every later FLUSH … WAIT would wait for ever."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr("flightkalam.jobs.runner.log", Broken())
    jobs = started(store, lambda job, cancelled: {"n": 1})
    for _ in range(2):
        assert jobs.wait(jobs.submit("flush", {"tables": []})).status == "completed"
    jobs.close()
