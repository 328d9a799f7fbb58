"""What the service tells about itself: structured log lines and named counters.

A log line says who did what to which object and how it went; it never holds values of rows, statement text, passwords
or tokens.  Two nets keep it so: fields with telling names are masked, and tracebacks come without local variables.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from flightkalam.clock import Clock, SystemClock

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
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
    target = stream if stream is not None else sys.stderr
    level = _LEVELS[settings.level]
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


def logger(name: str) -> Any:
    """A logger whose lines carry `name` as `room`, where they come from.  Fields are keyword arguments."""
    return structlog.get_logger(room=name)


# ---------------------------------------------------------------------------------------------------------------
# Counters

Number = int | float


class Counters:
    """Named numbers, safe to change from any thread: counters only grow, gauges are set or read on demand.

    Deliberately this small: rooms count, and only the exporter knows about any metrics system.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Number] = {}
        self._gauges: MutableMapping[str, Number | Callable[[], Number]] = {}

    def add(self, name: str, n: Number = 1) -> None:
        """Let a counter grow by n."""
        if n < 0:
            raise ValueError(f"counter {name} cannot shrink by {-n}: use a gauge")
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + n

    def set(self, name: str, value: Number) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name] = value

    def watch(self, name: str, read: Callable[[], Number]) -> None:
        """Have a gauge read by `read()` whenever somebody looks: for sizes that are known anyway."""
        with self._lock:
            self._gauges[name] = read

    def gauge_names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._gauges)

    def snapshot(self) -> dict[str, Number]:
        """All values, sorted by name; counters of one moment."""
        with self._lock:
            values: dict[str, Number] = dict(self._counters)
            gauges = dict(self._gauges)
        # Outside the lock: a watched gauge may take the lock of its room, whose owner may be counting.
        values.update((name, value() if callable(value) else value) for name, value in gauges.items())
        return dict(sorted(values.items()))
