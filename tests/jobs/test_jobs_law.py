"""The queue against a naive model, with crashes: no job is lost, stuck or begun twice at once, and a finished one stays what it is."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from table_world import HandClock, scratch_folder

from flightkalam.errors import Cancelled, DiskFull, InternalError, InvalidValue, KalamError
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import FINISHED, TRANSITIONS, Job
from flightkalam.jobs.kinds import ASKED, BACKGROUND
from flightkalam.jobs.runner import Jobs, Limits
from flightkalam.storage.kv import Store

TABLES = st.sampled_from(["main.a", "main.b", "main.c"])
KINDS = st.sampled_from(["flush", "compact"])
OUTCOMES = st.sampled_from(["done", "full", "broken", "killed", "asked again", "crash"])


class Crash(BaseException):
    """The process ends here."""


class QueueLaw(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = scratch_folder()
        self.store = Store(self.folder.__enter__() / "kv", durable=False)
        self.clock = HandClock()
        self.outcome = "done"
        self.seen: dict[str, Job] = {}
        self.running: str | None = None
        self.begin()

    def begin(self) -> None:
        """The process that takes over knows what is on disk, and nothing else."""
        self.running = None
        self.jobs = Jobs(self.store, self.clock, Limits())
        for kind in ("flush", "compact"):
            self.jobs.register(kind, self.execute)
        self.jobs.recover()

    def teardown(self) -> None:
        self.store.close()
        self.folder.__exit__(None, None, None)

    def execute(self, wanted: Any, control: Control) -> dict[str, Any]:
        (self.running,) = [j.job_id for j in self.jobs.list() if j.status == "running"]
        if self.outcome == "crash":
            raise Crash
        if self.outcome == "full":
            raise DiskFull("full")
        if self.outcome == "broken":
            raise InternalError("broken")
        if self.outcome == "killed":
            try:
                self.jobs.kill(self.running, lambda: True)
            except Cancelled:
                control.step()
        if self.outcome == "asked again":
            self.outcome = "done"
            found = self.jobs.get(self.running)
            again = self.jobs.submit(found.kind, found.parameters)
            assert (again == self.running) == (found.kind == "flush")
        return {"n": 1}

    @rule(
        target=ids, kind=KINDS, table=TABLES, priority=st.sampled_from([ASKED, BACKGROUND]), attempts=st.sampled_from([None, 1])
    )
    def submit(self, kind: str, table: str, priority: int, attempts: int | None) -> str:
        parameters = {"tables": [table]} if kind == "flush" else {"table": table}
        job_id = self.jobs.submit(kind, parameters, priority=priority, attempts=attempts)
        assert self.jobs.get(job_id).status in ("queued", "retrying"), "nothing runs now, and what is finished takes nobody in"
        return job_id

    @rule(outcome=OUTCOMES)
    def run(self, outcome: str) -> None:
        self.outcome = outcome
        waiting = [j for j in self.jobs.list() if j.status not in FINISHED]
        ready = [j for j in waiting if j.not_before_us <= self.clock.us]
        try:
            ran = self.jobs.run_next()
        except Crash:
            self.begin()
            return
        assert ran == bool(ready) or not ready  # the clock moves a little while it is looked at
        if ran and ready and self.running is not None:
            first = min(ready, key=lambda j: (j.order, j.job_id))
            assert self.running == first.job_id or first.order >= next(j.order for j in waiting if j.job_id == self.running)

    @rule(job_id=ids)
    def kill(self, job_id: str) -> None:
        before = self.jobs.get(job_id).status
        try:
            assert self.jobs.kill(job_id).status == "cancelled"
            assert before not in FINISHED
        except InvalidValue:
            assert before in FINISHED

    @rule(job_id=ids)
    def wait(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job.status in FINISHED:
            try:
                assert self.jobs.wait(job_id) == job
            except KalamError as error:
                assert job.status != "completed" and error.message == job.error

    @rule(seconds=st.sampled_from([0.5, 3, 700]))
    def pass_(self, seconds: float) -> None:
        self.clock.us += int(seconds * 1_000_000)

    @rule()
    def crash(self) -> None:
        self.begin()

    @invariant()
    def nothing_is_lost_or_changed_afterwards(self) -> None:
        found = {j.job_id: j for j in self.jobs.list()}
        assert found.keys() >= self.seen.keys()
        for job_id, old in self.seen.items():
            if old.status in FINISHED:
                assert found[job_id] == old
        assert all(j.status in TRANSITIONS and j.status != "running" for j in found.values()), "nothing is stuck"
        assert all(j.attempts <= j.most_attempts for j in found.values())
        active = [(j.kind, str(j.parameters)) for j in found.values() if j.status not in FINISHED]
        assert len(active) == len(set(active)), "one active job for each target"
        self.seen = found


QueueLaw.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestQueueLaw = QueueLaw.TestCase
