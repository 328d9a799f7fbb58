"""What is known anyway and read when somebody looks at the figures."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

from flightkalam.session.parts import Parts
from flightkalam.session.service import Service
from flightkalam.telemetry import Number

_PAGE = os.sysconf("SC_PAGE_SIZE")


def watch(parts: Parts, service: Service) -> None:
    """Register every gauge."""
    counters, admission, store = parts.counters, parts.queries.admission, parts.scopes.door.store
    data_dir = parts.config.server.data_dir

    def hot() -> tuple[int, int]:
        states = [scope.state.hot for scope in parts.scopes.opened()]
        return sum(h.n for h in states), sum(h.nbytes for h in states)

    counters.watch("statements_running", parts.queries.states)
    counters.watch("admission_running", lambda: admission.running)
    counters.watch("admission_waiting", lambda: admission.waiting)
    counters.watch("sessions", lambda: len(service.sessions()))
    counters.watch("transactions_open", lambda: sum(s.open_transactions for s in service.sessions()))
    counters.watch("hot_rows", lambda: hot()[0])
    counters.watch("hot_bytes", lambda: hot()[1])
    counters.watch("hot_limit_bytes", lambda: parts.scopes.budget.limit)
    counters.watch("hot_scopes", lambda: len(parts.scopes.opened()))
    counters.watch("jobs", lambda: _jobs(parts))
    counters.watch("disk_free_bytes", lambda: shutil.disk_usage(data_dir).free)
    counters.watch("writable", lambda: int(store.why_not_writable() is None))
    counters.watch("memory_bytes", _resident)


def _jobs(parts: Parts) -> dict[str, Number]:
    return dict(Counter(job.status for job in parts.jobs.list()))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
