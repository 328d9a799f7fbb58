"""The records of jobs in the store, and how old ones go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flightkalam.clock import Clock
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import FINISHED, Job
from flightkalam.jobs.kinds import JobCleanup
from flightkalam.storage.kv import Batch, Store

FAMILY = "jobs"
_DAY_US = 86_400_000_000


class Records:
    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, job: Job) -> int:
        """Write a job's record and return the position to wait for."""
        batch = Batch()
        batch.put(FAMILY, job.job_id.encode(), job.to_bytes())
        return self._store.append(batch)

    def wait(self, position: int) -> None:
        """Return when a record is durable."""
        self._store.wait(position)

    def find(self, job_id: str) -> Job | None:
        data = self._store.get(FAMILY, job_id.encode())
        return None if data is None else Job.from_bytes(data)

    def list(self) -> list[Job]:
        """Every kept job, the oldest first."""
        jobs = [Job.from_bytes(value) for _, value in self._store.scan(FAMILY)]
        return sorted(jobs, key=lambda j: (j.created_at_us, j.job_id))

    def remove(self, jobs: Sequence[Job]) -> None:
        batch = Batch()
        for job in jobs:
            batch.delete(FAMILY, job.job_id.encode())
        self._store.append(batch)


def outdated(jobs: Sequence[Job], now_us: int, keep_us: int, keep_most: int) -> list[Job]:
    """The records that go: finished longer ago than `keep_us`, and of the others all but the newest `keep_most`."""
    finished = sorted((j for j in jobs if j.status in FINISHED), key=_ended)
    excess = len(finished) - keep_most
    return [j for i, j in enumerate(finished) if i < excess or _ended(j) < now_us - keep_us]


def _ended(job: Job) -> int:
    return job.created_at_us if job.finished_at_us is None else job.finished_at_us


@dataclass(frozen=True)
class RecordCleanup:
    """The job of kind job_cleanup.

    :param keep_days: where the job says nothing else.
    """

    records: Records
    clock: Clock
    keep_days: float
    keep_most: int

    def run(self, wanted: JobCleanup, control: Control) -> dict[str, Any]:
        days = self.keep_days if wanted.keep_days is None else wanted.keep_days
        gone = outdated(self.records.list(), self.clock.now_us(), int(days * _DAY_US), self.keep_most)
        control.step()
        self.records.remove(gone)
        return {"removed": len(gone)}
