"""What the service tells about itself: structured log lines and named counters.

A log line says who did what to which object and how it went; it never holds values of rows, statement text, passwords
or tokens.  Two nets keep it so: fields with telling names are masked, and tracebacks come without local variables.
"""

from __future__ import annotations

import bisect
import logging
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from flightkalam.clock import Clock, SystemClock

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_level = logging.INFO  # as `configure` set it
_MASKED_WORDS = ("password", "secret", "token", "authorization", "credential", "cookie")
_MASKED_NAMES = frozenset({"sql", "statement", "parameters", "row", "values"})
MASK = "********"


class LogSettings(Protocol):
    """The part of the settings that logging needs."""

    @property
    def level(self) -> str: ...

    @property
    def format(self) -> str: ...


def configure(settings: LogSettings, *, clock: Clock | None = None, stream: TextIO | None = None) -> None:
    """Send our log lines, and those of the libraries, to standard error."""
    global _level
    target = stream if stream is not None else sys.stderr
    level = _level = _LEVELS[settings.level]
    prepare: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _stamp(clock or SystemClock()),
        mask_secrets,
    ]
    render = _renderers(settings.format, target)
    structlog.configure(
        processors=[*prepare, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(target),
        # Loggers are made at import, before this is called: a cached one would keep the old settings.
        cache_logger_on_first_use=False,
    )
    _configure_libraries(target, level, prepare, render)


def _renderers(format_: str, target: TextIO) -> list[Processor]:
    # The stock formatters of both kinds print local variables with a traceback, and those hold passwords and rows.
    if format_ == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True, default=str)]
    colours = bool(getattr(target, "isatty", lambda: False)())
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _configure_libraries(target: TextIO, level: int, prepare: list[Processor], render: list[Processor]) -> None:
    """Lines of libraries that use the standard logging look like ours; they are only let through from WARNING on."""
    handler = logging.StreamHandler(target)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove_meta, *render], foreign_pre_chain=prepare))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _stamp(clock: Clock) -> Processor:
    def add_timestamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        at = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
        event["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event

    return add_timestamp


def mask_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the values of fields that may hold secrets or rows."""
    for name, value in event.items():
        if _is_secret(name):
            event[name] = MASK
        elif isinstance(value, Mapping):
            event[name] = {k: MASK if _is_secret(str(k)) else v for k, v in value.items()}
    return event


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return lower in _MASKED_NAMES or any(word in lower for word in _MASKED_WORDS)


def enabled(level: str) -> bool:
    """Whether lines of a level are written: what a line would say may cost more than the question."""
    return _LEVELS[level] >= _level


def logger(name: str) -> Any:
    """A logger whose lines carry `name` as `room`, where they come from.  Fields are keyword arguments."""
    return structlog.get_logger(room=name)


# ---------------------------------------------------------------------------------------------------------------
# Counters

Number = int | float
Read = Callable[[], "Number | Mapping[str, Number]"]
# Upper bounds in seconds: from a point read in memory to a statement that people wait for.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations by size.

    :param counts: per bucket of `BUCKETS`, and one for all that is longer; not cumulated.
    """

    counts: tuple[int, ...]
    total: float

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure at one moment.

    :param labels: values of the labels that the figure is split by.
    """

    name: str
    labels: tuple[str, ...]
    value: Number | Spread


class Counters:
    """Named figures, safe to change from any thread: counters only grow, gauges are set or read on demand, durations spread.

    Deliberately this small: rooms count, and only the exporter knows about any metrics system (`figures` lists all names).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, tuple[str, ...]], Number] = {}
        self._spreads: dict[tuple[str, tuple[str, ...]], tuple[list[int], list[float]]] = {}
        self._gauges: MutableMapping[str, Number | Read] = {}

    def add(self, name: str, n: Number = 1, *labels: str) -> None:
        """Let a counter grow by n."""
        if n < 0:
            raise ValueError(f"counter {name} cannot shrink by {-n}: use a gauge")
        key = (name, labels)
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + n

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Note one duration."""
        key, at = (name, labels), bisect.bisect_left(BUCKETS, seconds)
        with self._lock:
            found = self._spreads.get(key)
            if found is None:
                found = self._spreads[key] = ([0] * (len(BUCKETS) + 1), [0.0])
            found[0][at] += 1
            found[1][0] += seconds

    def set(self, name: str, value: Number) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name] = value

    def watch(self, name: str, read: Read) -> None:
        """Have a gauge read by `read()` whenever somebody looks: for sizes that are known anyway.

        It may answer with one number for each value of a label.
        """
        with self._lock:
            self._gauges[name] = read

    def gauge_names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._gauges)

    def samples(self) -> list[Sample]:
        """All figures, sorted; counters and durations of one moment."""
        with self._lock:
            found: list[Sample] = [Sample(*key, value) for key, value in self._counters.items()]
            found += [Sample(*key, Spread(tuple(counts), total[0])) for key, (counts, total) in self._spreads.items()]
            gauges = dict(self._gauges)
        # Outside the lock: a watched gauge may take the lock of its room, whose owner may be counting.
        for name, gauge in gauges.items():
            value = gauge() if callable(gauge) else gauge
            values = {(label,): n for label, n in value.items()} if isinstance(value, Mapping) else {(): value}
            found += [Sample(name, labels, n) for labels, n in values.items()]
        return sorted(found, key=lambda s: (s.name, s.labels))

    def snapshot(self) -> dict[str, Number]:
        """The values of counters and gauges by name, labels in braces."""
        return {
            s.name + ("{" + ",".join(s.labels) + "}" if s.labels else ""): s.value
            for s in self.samples()
            if not isinstance(s.value, Spread)
        }
