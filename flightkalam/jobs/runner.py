"""The queue of jobs, and the threads that work it off.

A job is durable from the moment its id is handed out, and so is each state that it reaches (`job`).  What a stop or a crash
leaves unfinished begins again at the next start, so every kind can be begun again: it chooses from what is there, does, and
installs in one commit.

    submit ─▶ attach to a job that does the same, or a new record ─▶ waiting ─▶ a worker ─▶ executor ─▶ settle
                                                                        ▲                                │
                                                                        └── retrying, put back ◀─────────┘

On a small machine a second big job only takes from the queries: `Limits.big` at most run at a time, whatever the number of
workers; the others are for small jobs, which need not wait for an hour of compaction.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flightkalam import failpoints
from flightkalam.clock import Clock
from flightkalam.errors import Cancelled, InternalError, InvalidValue, KalamError, TryAgain, UndefinedObject
from flightkalam.jobs.control import NO_MANNERS, Control, Manners
from flightkalam.jobs.job import FINISHED, UNFINISHED, Job, completed, recovered, stopped
from flightkalam.jobs.kinds import KINDS, Kind, Parameters, kind_of, read
from flightkalam.jobs.records import Records
from flightkalam.jobs.waiting import Waiting
from flightkalam.storage.kv import Store
from flightkalam.storage.patience import stopped_by
from flightkalam.telemetry import logger

_RECENT = 256  # outcomes that are kept as raised, for those who wait a little late
_STEP_SECONDS = 0.05
log = logger("jobs")

Executor = Callable[[Any, Control], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """:param workers: jobs at a time.
    :param big: of them big ones.
    :param grace_seconds: what running jobs are given at a shutdown before they are stopped, to begin again at the next start.
    """

    workers: int = 2
    big: int = 1
    grace_seconds: float = 5.0


@dataclass
class _Active:
    """An unfinished job.

    :ivar again: the same was asked for while it ran: it looks once more.
    :ivar tried: set when an attempt has ended; replaced by the next attempt's.
    :ivar failure: of that attempt.
    """

    job: Job
    kind: Kind
    wanted: Parameters
    control: Control
    again: bool = False
    settled: bool = False
    tried: threading.Event = field(default_factory=threading.Event)
    failure: KalamError | None = None

    def covers(self, wanted: Parameters) -> bool:
        """Whether somebody who wants this is served by the job."""
        if self.settled or self.job.killed or not self.wanted.covers(wanted):
            return False
        return self.job.status != "running" or self.kind.repeats


class Jobs:
    """:param count: adds to a counter."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limits: Limits | None = None,
        manners: Manners = NO_MANNERS,
        count: Callable[[str, int], None] = lambda name, n: None,
    ) -> None:
        self.records = Records(store)
        self._clock = clock
        self._limits = limits or Limits()
        self._manners = manners
        self._count = count
        self._executors: dict[str, Executor] = {}
        self._changed = threading.Condition(threading.Lock())
        self._active: dict[str, _Active] = {}
        self._of_target: dict[tuple[str, str], set[str]] = {}
        self._waiting = Waiting()
        self._recent: OrderedDict[str, _Active] = OrderedDict()
        self._running_big = 0
        self._closing = False
        self._workers = [
            threading.Thread(target=self._work, name=f"kalam-jobs-{i}", daemon=True) for i in range(self._limits.workers)
        ]

    def register(self, kind: str, executor: Executor) -> None:
        """:param executor: takes the kind's parameters and a control, returns the result, or raises."""
        self._executors[kind_of(kind).name] = executor

    def start(self) -> None:
        """Settle what the last process left, then begin to work."""
        self.recover()
        for worker in self._workers:
            worker.start()

    def recover(self) -> None:
        for job in self.records.list():
            if job.status in UNFINISHED:
                job = recovered(job, self._clock.now_us())
                wanted = self._readable(job) if job.status == "queued" else None
                if job.status == "queued" and wanted is None:
                    job = replace(job, status="failed", error="its parameters cannot be read by this release")
                self.records.save(job)
                if wanted is not None:
                    self._add(_Active(job, KINDS[job.kind], wanted, Control(self._manners)))

    def _readable(self, job: Job) -> Parameters | None:
        try:
            return read(KINDS[job.kind], job.parameters)
        except InvalidValue:
            return None

    # -- asking -----------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        parameters: Mapping[str, Any],
        *,
        priority: int | None = None,
        attempts: int | None = None,
        asked_by: str | None = None,
    ) -> str:
        """Queue a job and return its id, once it is durable; that of an unfinished job when one does the same.

        :param priority: where it is more urgent than its kind.
        :param attempts: how often it is begun at most: once, where somebody waits who can ask again.
        :param asked_by: the user who wants it.
        :raises InvalidValue: the parameters are not those of the kind; nothing is queued.
        """
        row = kind_of(kind)
        wanted = read(row, parameters)
        urgent = row.priority if priority is None else priority
        with self._changed:
            if self._closing:
                raise TryAgain("the service is shutting down", sqlstate="57P01")
            found = self._attached(row, wanted, urgent, asked_by)
            if found is not None:
                return found.job.job_id
            job = Job(
                f"{row.prefix}-{secrets.token_hex(6)}",
                row.name,
                wanted.model_dump(exclude_none=True),
                self._clock.now_us(),
                priority=urgent,
                most_attempts=attempts or row.attempts,
                asked_by=[] if asked_by is None else [asked_by],
            ).moved("queued")
            position = self.records.save(job)
            self._add(_Active(job, row, wanted, Control(self._manners)))
            self._changed.notify()
        self.records.wait(position)
        return job.job_id

    def _attached(self, kind: Kind, wanted: Parameters, priority: int, asked_by: str | None) -> _Active | None:
        for job_id in self._of_target.get((kind.name, wanted.targets[0]), ()):
            active = self._active[job_id]
            if not active.covers(wanted):
                continue
            if asked_by is not None and asked_by not in active.job.asked_by:
                active.job = replace(active.job, asked_by=[*active.job.asked_by, asked_by])
            if active.job.status == "running":
                active.again = True
                self._save(active.job)
            else:  # at once, and no later than the newcomer would have been
                active.job = replace(active.job, priority=min(active.job.priority, priority), not_before_us=0)
                active.tried, active.failure = threading.Event(), None
                self._waiting.put(active.job)
                self._save(active.job)
                self._changed.notify()
            return active
        return None

    def _add(self, active: _Active) -> None:
        self._active[active.job.job_id] = active
        for target in active.wanted.targets:
            self._of_target.setdefault((active.kind.name, target), set()).add(active.job.job_id)
        self._waiting.put(active.job)

    def wait(self, job_id: str, cancelled: Callable[[], bool] = lambda: False) -> Job:
        """Return the finished job.

        :param cancelled: polled while waiting; the wait ends, the job goes on.
        :raises KalamError: what the job failed with, also when it will be tried again.
        """
        with self._changed:
            active = self._active.get(job_id) or self._recent.get(job_id)
            tried = active.tried if active is not None else None
        if active is None or tried is None:
            return self.get(job_id)
        while not tried.wait(_STEP_SECONDS):
            if cancelled():
                raise Cancelled(f"the wait for job {job_id} was cancelled; the job goes on")
        if active.failure is not None:
            raise active.failure
        return active.job

    def find(self, job_id: str) -> Job | None:
        return self.records.find(job_id)

    def get(self, job_id: str) -> Job:
        """:raises UndefinedObject: there is no such job."""
        found = self.find(job_id)
        if found is None:
            raise UndefinedObject(f'there is no job "{job_id[:80]}"; SHOW JOBS lists those that are kept', sqlstate="42704")
        return found

    def list(self) -> list[Job]:
        """Every kept job, the oldest first."""
        return self.records.list()

    def kill(self, job_id: str, cancelled: Callable[[], bool] = lambda: False) -> Job:
        """Cancel a job and return it as it ended: cancelled, unless it was past its last step.

        :param cancelled: polled while waiting for its end.
        :raises UndefinedObject: there is no such job.
        :raises InvalidValue: it is finished.
        """
        with self._changed:
            active = self._active.get(job_id)
            if active is None or active.settled:
                status = self.get(job_id).status
                state = status if status in FINISHED else "past its last step"
                raise InvalidValue(f"job {job_id} cannot be killed: it is {state}", sqlstate="55000")
            active.job = replace(active.job, killed=True)
            position = self.records.save(active.job)
            tried = active.tried
            active.control.set()
            if self._waiting.remove(job_id) is not None:
                error = Cancelled("the job was cancelled before it began")
                ended = active.job.moved("cancelled", error=error.message, finished_at_us=self._clock.now_us())
                self._settle(active, ended, error)
        self.records.wait(position)
        while not tried.wait(_STEP_SECONDS):
            if cancelled():
                raise Cancelled(f"job {job_id} has been told to stop, and will")
        return active.job

    # -- working ----------------------------------------------------------------------------------------------

    def run_next(self) -> bool:
        """Run the next job that may begin, in this thread; False when there is none."""
        with self._changed:
            active = self._taken()
        if active is None:
            return False
        self._run(active)
        return True

    def _taken(self) -> _Active | None:
        job = self._waiting.take(self._clock.now_us(), big=self._running_big < self._limits.big)
        if job is None:
            return None
        active = self._active[job.job_id]
        self._running_big += active.kind.big
        active.job = job.moved("running", attempts=job.attempts + 1, started_at_us=job.started_at_us or self._clock.now_us())
        if active.tried.is_set():
            active.tried, active.failure = threading.Event(), None
        return active

    def look(self) -> None:
        """Have the workers look at the clock: it may have been moved."""
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (active := self._taken()) is None:
                    ready = self._waiting.ready_us()
                    self._changed.wait(None if ready is None else max(0.001, (ready - self._clock.now_us()) / 1_000_000))
                if self._closing:
                    return
            assert active is not None
            self._run(active)

    def _run(self, active: _Active) -> None:
        error: KalamError | None = None
        result: dict[str, Any] = {}
        try:
            self._save(active.job)
            failpoints.hit("jobs.running")
            result = self._executed(active)
        except KalamError as e:
            error = e
        except Exception as e:
            with contextlib.suppress(Exception):
                log.exception("job_failed", job_id=active.job.job_id)
            error = InternalError(f"job {active.job.job_id} failed by an internal error ({type(e).__name__})")
        with self._changed:
            now = self._clock.now_us()
            if error is None:
                self._settle(active, completed(active.job, result, now), None)
            else:
                self._settle(active, stopped(active.job, error, now, closing=self._closing), error)

    def _executed(self, active: _Active) -> dict[str, Any]:
        """Run the executor, once more for those who have come meanwhile."""
        executor = self._executors[active.kind.name]
        result: dict[str, Any] = {}
        while True:
            with stopped_by(active.control.is_set):
                active.control.begin()
                result = _summed(result, executor(active.wanted, active.control))
            with self._changed:
                if not active.again:
                    active.settled = True  # who comes from now on needs a job of their own
                    return result
                active.again = False

    def _settle(self, active: _Active, job: Job, error: KalamError | None) -> None:
        """The job's next state after it ran, or was cancelled before.  Call with the lock held."""
        if active.job.status == "running":
            self._running_big -= active.kind.big
        active.job, active.again, active.settled = job, False, job.status in FINISHED
        self._save(job)
        if active.settled or self._closing:
            self._forget(active)
        else:
            self._waiting.put(job)
        if job.status != "queued" or self._closing:  # who waits for a job that was put back goes on waiting
            active.failure = error
            active.tried.set()
        if active.settled:
            self._count(f"jobs_{job.status}", 1)
            with contextlib.suppress(Exception):
                log.info("job_finished", job_id=job.job_id, kind=job.kind, status=job.status, error=job.error)
        self._changed.notify_all()

    def _save(self, job: Job) -> None:
        """Keep a state.  One that cannot be written the next start settles; the worker lives on."""
        try:
            self.records.save(job)
        except Exception as e:
            with contextlib.suppress(Exception):
                log.error("job_record_lost", job_id=job.job_id, error=str(e))

    def _forget(self, active: _Active) -> None:
        del self._active[active.job.job_id]
        for target in active.wanted.targets:
            key = (active.kind.name, target)
            self._of_target[key].discard(active.job.job_id)
            if not self._of_target[key]:
                del self._of_target[key]
        self._recent[active.job.job_id] = active
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let running jobs end, stop those that do not; whatever is unfinished begins again at the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for active in self._active.values():
                if active.job.status != "running":
                    active.failure = Cancelled("the service is shutting down; the job goes on at the next start")
                    active.tried.set()
        left = self._limits.grace_seconds
        started = [worker for worker in self._workers if worker.is_alive()]
        for worker in started:
            began = self._clock.monotonic()
            worker.join(max(0.0, left))
            left -= self._clock.monotonic() - began
        with self._changed:
            for active in self._active.values():
                active.control.set()
        for worker in started:
            worker.join()


def _summed(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The result of a job that looked twice: its figures added up."""
    total = {**first, **second}
    for name in first.keys() & second.keys():
        if type(first[name]) is int and type(second[name]) is int:
            total[name] = first[name] + second[name]
    return total
