"""The jobs that wait for their turn: in memory, in order; the records are in the store."""

from __future__ import annotations

import heapq

from flightkalam.jobs.job import Job


class Waiting:
    """Ordered by `Job.order`, big ones apart, those that may not begin yet aside.  Not thread-safe.

    Entries are left in the heaps when a job leaves or moves, and passed over when they come up.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ready: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
        self._later: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Add a job, or give it another place."""
        self._jobs[job.job_id] = job
        heapq.heappush(self._later, (job.not_before_us, job.job_id))

    def remove(self, job_id: str) -> Job | None:
        return self._jobs.pop(job_id, None)

    def take(self, now_us: int, *, big: bool) -> Job | None:
        """Remove and return the next job that may begin.

        :param big: whether it may be a big one.
        """
        self._ripen(now_us)
        heads = [head for size in ((True, False) if big else (False,)) if (head := self._head(size, now_us)) is not None]
        return self._jobs.pop(min(heads)[1]) if heads else None

    def ready_us(self) -> int | None:
        """When the next of those aside may begin; None: there is none."""
        while self._later and not self._current(self._later[0]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _ripen(self, now_us: int) -> None:
        while self._later and self._later[0][0] <= now_us:
            entry = heapq.heappop(self._later)
            if self._current(entry):
                job = self._jobs[entry[1]]
                heapq.heappush(self._ready[job.big], (job.order, job.job_id))

    def _current(self, entry: tuple[int, str]) -> bool:
        job = self._jobs.get(entry[1])
        return job is not None and job.not_before_us == entry[0]

    def _head(self, big: bool, now_us: int) -> tuple[int, str] | None:
        heap = self._ready[big]
        while heap:
            job = self._jobs.get(heap[0][1])
            if job is not None and job.order == heap[0][0] and job.not_before_us <= now_us:
                return heap[0]
            heapq.heappop(heap)
        return None
