"""One job as it is kept, and the states that it passes.

         ┌────────────────── put back: the service stopped under it ─────────────────┐
         ▼                                                                            │
    new ──▶ queued ──▶ running ──▶ completed | failed | cancelled | skipped           │
               │  ▲        ├──▶ retrying ──▶ running        what stopped it may be over later
               │  └────────┴──────────────────────────────────────────────────────────┘
               └──▶ cancelled

`TRANSITIONS` is the picture as data; `moved` takes no other way, so a finished job stays what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from flightkalam.errors import Cancelled, Conflict, InternalError, KalamError, TryAgain
from flightkalam.jobs.kinds import KINDS

FINISHED = frozenset({"completed", "failed", "cancelled", "skipped"})
UNFINISHED = frozenset({"new", "queued", "running", "retrying"})
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "new": frozenset({"queued", "cancelled"}),
    "queued": frozenset({"running", "cancelled", "failed"}),
    "running": frozenset({"retrying", "queued"}) | FINISHED,
    "retrying": frozenset({"queued", "running", "cancelled", "failed"}),
    **{status: frozenset() for status in FINISHED},
}

_FIRST_PAUSE_US, _LONGEST_PAUSE_US = 1_000_000, 300_000_000
_LEVEL_US = 600_000_000  # what one level of priority is worth in waiting


@dataclass(frozen=True, slots=True)
class Job:
    """:param parameters: of its kind, as JSON values; a table as `ns.t`.
    :param priority: see `kinds`.
    :param attempts: how often it was begun.
    :param most_attempts: how often it is begun at most.
    :param not_before_us: when it may begin.
    :param asked_by: the users who asked for it; none for one that began by itself.
    :param killed: KILL JOB was said; whatever stops the service then, it does not begin again.
    :param result: what it did, once it is completed.
    :param error: why it failed, was cancelled or skipped, or is tried again.
    """

    job_id: str
    kind: str
    parameters: dict[str, Any]
    created_at_us: int
    status: str = "new"
    priority: int = 2
    attempts: int = 0
    most_attempts: int = 1
    not_before_us: int = 0
    asked_by: Sequence[str] = ()
    killed: bool = False
    started_at_us: int | None = None
    finished_at_us: int | None = None
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def order(self) -> int:
        """Jobs begin in this order: by age, a level of priority counting like ten minutes of it."""
        return self.created_at_us + self.priority * _LEVEL_US

    @property
    def big(self) -> bool:
        return self.kind in KINDS and KINDS[self.kind].big

    def moved(self, status: str, **changes: Any) -> Job:
        """The job in its next state."""
        if status not in TRANSITIONS[self.status]:
            raise InternalError(f"job {self.job_id} cannot go from {self.status} to {status}")
        return replace(self, status=status, **changes)

    def to_bytes(self) -> bytes:
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Job:
        """Fields of another release are passed over."""
        record = json.loads(data)
        return Job(**{name: value for name, value in record.items() if name in _FIELDS})


_FIELDS = frozenset(f.name for f in fields(Job))


class Skipped(KalamError):
    """Raised by an executor: there is nothing left that the job could work on."""


class NotYet(KalamError):
    """Raised by an executor: something else must end first.  The job goes back to the queue, and no attempt is counted.

    :param seconds: when to look again.
    """

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds


def pause_us(attempts: int) -> int:
    """How long to wait after so many attempts: 1 s, 2 s, 4 s … 5 minutes."""
    return min(_FIRST_PAUSE_US << min(attempts - 1, 30), _LONGEST_PAUSE_US)


def completed(job: Job, result: dict[str, Any], now_us: int) -> Job:
    return job.moved("completed", result=result, error=None, finished_at_us=now_us)


def stopped(job: Job, error: KalamError, now_us: int, *, closing: bool) -> Job:
    """The running job's next state after its executor raised `error`.

    :param closing: the service is shutting down, and has asked the job to stop.
    """
    if isinstance(error, NotYet) and not job.killed:
        after = now_us + int(error.seconds * 1_000_000)
        return job.moved("queued", attempts=job.attempts - 1, not_before_us=after, error=error.message)
    if isinstance(error, Cancelled) and closing and not job.killed:
        return job.moved("queued", attempts=job.attempts - 1, error="the service stopped while the job was under way")
    if isinstance(error, Cancelled) or job.killed:
        return job.moved("cancelled", error=error.message, finished_at_us=now_us)
    if isinstance(error, Skipped):
        return job.moved("skipped", error=error.message, finished_at_us=now_us)
    if isinstance(error, (TryAgain, Conflict)) and job.attempts < job.most_attempts:
        return job.moved("retrying", error=error.message, not_before_us=now_us + pause_us(job.attempts))
    return job.moved("failed", error=error.message, finished_at_us=now_us)


def recovered(job: Job, now_us: int) -> Job:
    """What becomes of a job that the last process left unfinished: it begins again, unless that was its last attempt."""
    if job.killed:
        return replace(job, status="cancelled", error="the job was cancelled", finished_at_us=now_us)
    if job.kind not in KINDS:
        return replace(job, status="failed", error=f'this release knows no jobs of kind "{job.kind}"', finished_at_us=now_us)
    if job.status == "running" and job.attempts >= job.most_attempts:
        error = "the service stopped while the job was under way"
        return replace(job, status="failed", error=error, finished_at_us=now_us)
    return replace(job, status="queued")
