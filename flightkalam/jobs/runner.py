"""Running jobs in the background, with a record of each.

A job is durable from the moment its id is handed out: a crash leaves it `running`, and the next start marks it `failed`, never
stuck.  One worker runs jobs one after another: on a small machine a second big job only takes from the queries.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from flightkalam.clock import Clock
from flightkalam.errors import Cancelled, InternalError, KalamError, TryAgain
from flightkalam.storage.kv import Batch, Store
from flightkalam.telemetry import logger

FAMILY = "jobs"
UNFINISHED = frozenset(("queued", "running"))
_PREFIXES = {"flush": "FL", "cleanup": "CL", "manifest_rebuild": "MR", "manifest_eviction": "ME", "orphan_sweep": "OS"}
log = logger("jobs")


@dataclass(frozen=True)
class Job:
    """One job as it is kept.

    :param parameters: of its kind, as JSON values; a table as `ns.t`.
    :param status: queued, running, completed, failed, cancelled or skipped.
    """

    job_id: str
    kind: str
    parameters: dict[str, Any]
    created_at_us: int
    status: str = "queued"
    started_at_us: int | None = None
    finished_at_us: int | None = None
    result: dict[str, Any] | None = None
    error: str | None = None


Executor = Callable[[Job, threading.Event], dict[str, Any]]


@dataclass
class _Running:
    job: Job
    done: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    failure: KalamError | None = None


class Jobs:
    """:param executors: per kind, what runs it: returns the result, or raises."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._executors: dict[str, Executor] = {}
        self._queue: queue.Queue[_Running | None] = queue.Queue()
        self._lock = threading.Lock()
        self._active: dict[str, _Running] = {}
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="kalam-jobs", daemon=True)

    def register(self, kind: str, executor: Executor) -> None:
        self._executors[kind] = executor

    def start(self) -> None:
        """Settle what a crash left, then begin to work."""
        for job in self.list():
            if job.status in UNFINISHED:
                self._save(replace(job, status="failed", error="the service stopped while the job was under way"))
        self._worker.start()

    def submit(self, kind: str, parameters: dict[str, Any]) -> str:
        """Queue a job and return its id; the job already waiting, when the same one is (one active job per target)."""
        with self._lock:
            if self._closing:
                raise TryAgain("the service is shutting down", sqlstate="57P01")
            for active in self._active.values():
                same = active.job.kind == kind and active.job.parameters == parameters
                if same and active.job.status == "queued":
                    return active.job.job_id
            job_id = f"{_PREFIXES.get(kind, kind[:2].upper())}-{secrets.token_hex(6)}"
            running = _Running(Job(job_id, kind, parameters, self._clock.now_us()))
            self._active[job_id] = running
        self._save(running.job)
        self._queue.put(running)
        return job_id

    def wait(self, job_id: str, cancelled: Callable[[], bool] = lambda: False) -> Job:
        """Return the finished job.

        :param cancelled: polled while waiting; the wait ends, the job goes on.
        :raises KalamError: what the job failed with.
        """
        with self._lock:
            running = self._active.get(job_id)
        if running is None:
            return self.get(job_id)
        while not running.done.wait(0.05):
            if cancelled():
                raise Cancelled(f"the wait for job {job_id} was cancelled; the job goes on")
        if running.failure is not None:
            raise running.failure
        return running.job

    def get(self, job_id: str) -> Job:
        data = self._store.get(FAMILY, job_id.encode())
        if data is None:
            raise InternalError(f"job {job_id} has no record")
        return Job(**json.loads(data))

    def list(self) -> list[Job]:
        """Every kept job, the oldest first."""
        jobs = [Job(**json.loads(value)) for _, value in self._store.scan(FAMILY)]
        return sorted(jobs, key=lambda j: (j.created_at_us, j.job_id))

    def close(self) -> None:
        """Finish the running job, leave the queued ones to be marked at the next start."""
        with self._lock:
            self._closing = True
            for running in self._active.values():
                if running.job.status == "queued":
                    running.cancelled.set()
        self._queue.put(None)
        if self._worker.is_alive():
            self._worker.join()

    def _save(self, job: Job) -> None:
        batch = Batch()
        batch.put(FAMILY, job.job_id.encode(), json.dumps(job.__dict__).encode())
        self._store.append(batch)

    def _work(self) -> None:
        while (running := self._queue.get()) is not None:
            try:
                self._run(running)
            except Exception as e:
                # The record or the log line could not be written; the next start settles it.  The worker lives on.
                with contextlib.suppress(Exception):
                    log.error("job_record_lost", job_id=running.job.job_id, error=str(e))
            finally:
                with self._lock:
                    self._active.pop(running.job.job_id, None)
                running.done.set()

    def _run(self, running: _Running) -> None:
        running.job = replace(running.job, status="running", started_at_us=self._clock.now_us())
        self._save(running.job)
        status, result, error = "completed", None, None
        try:
            if running.cancelled.is_set():
                raise Cancelled("the service is shutting down")
            result = self._executors[running.job.kind](running.job, running.cancelled)
        except Cancelled as e:
            status, error, running.failure = "cancelled", e.message, e
        except KalamError as e:
            status, error, running.failure = "failed", e.message, e
        except Exception as e:
            log.exception("job_failed", job_id=running.job.job_id)
            running.failure = InternalError(f"job {running.job.job_id} failed by an internal error ({type(e).__name__})")
            status, error = "failed", running.failure.message
        running.job = replace(running.job, status=status, result=result, error=error, finished_at_us=self._clock.now_us())
        self._save(running.job)
        log.info("job_finished", job_id=running.job.job_id, kind=running.job.kind, status=status, error=error)
