"""The record of running statements, as the settings want it."""

from __future__ import annotations

from flightkalam.clock import Clock
from flightkalam.config import Config
from flightkalam.session.admission import Admission, Places
from flightkalam.session.queries import Queries
from flightkalam.session.tracing import hooks
from flightkalam.telemetry import Counters


def queries_of(config: Config, clock: Clock, counters: Counters) -> Queries:
    """As the settings want it."""
    limits = config.limits
    mine = max(1, limits.statements * limits.user_share // 100)
    places = Places(limits.statements, mine, limits.queue_statements, limits.queue_seconds)
    return Queries(
        clock,
        counters,
        Admission(places, clock, counters),
        slow_seconds=config.log.slow_statement_ms / 1000,
        result_bytes=limits.result_bytes,
        hooks=hooks(config.tracing),
    )
