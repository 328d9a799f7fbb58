"""The queue of jobs as the settings want it."""

from __future__ import annotations

from flightkalam.clock import Clock
from flightkalam.config import Config
from flightkalam.jobs.control import Manners
from flightkalam.jobs.records import RecordCleanup
from flightkalam.jobs.runner import Jobs, Limits
from flightkalam.table.door import CommitDoor
from flightkalam.telemetry import Counters


def jobs_of(config: Config, clock: Clock, door: CommitDoor, counters: Counters) -> Jobs:
    """With the job that looks after the queue's own records."""
    wanted = config.jobs
    limits = Limits(wanted.workers, wanted.big_at_once, wanted.stop_grace_seconds)
    manners = Manners(wanted.busy_percent / 100, door.readers_before, clock.monotonic)
    jobs = Jobs(door.store, clock, limits, manners, counters.add)
    jobs.register("job_cleanup", RecordCleanup(jobs.records, clock, wanted.keep_days, wanted.keep_most).run)
    return jobs
