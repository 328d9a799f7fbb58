"""The settings of a service in operation: what it may use, and what it says about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize

from flightkalam.config_section import Section, setting

MIB = 1 << 20


class HttpConfig(Section):
    """The side port for monitoring: `/healthz`, `/readyz`, `/metrics`. It shows no rows, names or statements."""

    enabled: bool = setting(False)
    """Whether there is a side port. Off by default, so that a first start listens in one place only."""

    host: str = setting("127.0.0.1", min_length=1)
    """The address to listen on. Loopback by default; beyond it everybody who reaches it sees the figures."""

    port: int = setting(31338, ge=0, le=65535)
    """The port to listen on; 0 takes any free one and prints it."""


class LimitsConfig(Section):
    """What clients may use at a time."""

    statements: int = setting(100, unit="statements", ge=1, le=10_000)
    """Statements that may compute at a time; further ones wait. One that waits for its client to take or send rows does not
    count."""

    user_share: int = setting(75, unit="%", ge=1, le=100)
    """How many of these may be one user's, so that nobody keeps everybody else out."""

    queue_statements: int = setting(1_000, unit="statements", ge=0, le=100_000)
    """Statements that may wait; further ones are refused at once (53300). Each holds a thread."""

    queue_seconds: float = setting(30.0, unit="seconds", ge=0.0, le=3_600.0, allowed="a number from 0 to 3,600")
    """How long a statement may wait before it is refused (53300)."""

    result_bytes: ByteSize = setting(0, unit="bytes", ge=0)
    """The largest result that is sent, as Arrow data; a larger one ends with an error (54000) instead of going on. 0: no
    limit."""


class MemoryConfig(Section):
    """Memory for hot rows, those that have not been flushed to Parquet yet."""

    hot_bytes: ByteSize = setting(0, unit="bytes", ge=0)
    """What hot rows may take; 0: a fifth of the machine's (or container's) memory. From three quarters of it on the largest
    scopes are flushed, whatever their FLUSH_POLICY, and writers are slowed down; at all of it writes wait for a flush."""

    wait_seconds: float = setting(10.0, unit="seconds", ge=0.0, le=600.0, allowed="a number from 0 to 600")
    """How long a write waits for hot memory before it is refused (53200)."""

    open_scopes: int = setting(10_000, unit="scopes", ge=16, le=10_000_000)
    """Scopes (a SHARED table, or one user's part of a table) kept in memory; the longest unused leave first and are read from
    the log again when somebody comes back."""

    idle_seconds: int = setting(3_600, unit="seconds", ge=1, le=604_800)
    """A scope that nobody has used for so long leaves memory."""


class LogConfig(Section):
    """What the service says about itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info")
    """The least serious message that is written. `debug` has a line for every statement, `info` one for each that failed or was
    cancelled."""

    format: Literal["console", "json"] = setting("console")
    """`console` for people, `json` (one object a line) for log collectors."""

    slow_statement_ms: int = setting(5_000, unit="milliseconds", ge=0, le=86_400_000)
    """A statement that takes longer is logged as a warning, with what each step took; 0: none is."""


class TracingConfig(Section):
    """OpenTelemetry: a trace for each statement, with a span for each of its steps."""

    endpoint: str = setting("", pattern=r"^$|^https?://.+$", allowed="empty, or a URI such as http://127.0.0.1:4318/v1/traces")
    """Where traces are sent, by OTLP over HTTP; empty: nowhere, at no cost. Needs the extra `tracing`
    (`pip install flightkalam[tracing]`)."""

    sample: float = setting(1.0, ge=0.0, le=1.0, allowed="a number from 0 to 1")
    """The share of statements that are traced."""
