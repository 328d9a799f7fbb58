"""Log lines hold no secrets, and counters count."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from flightkalam import telemetry
from flightkalam.config import LogConfig
from flightkalam.telemetry import Counters, logger


class Clock:
    def now_us(self) -> int:
        return 1_704_067_200_123_000

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(format_: str = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    telemetry.configure(LogConfig.model_validate({"format": format_, "level": level}), clock=Clock(), stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_says_when_where_how_serious_and_what() -> None:
    stream = configured()
    logger("jobs").info("flushed", table="main.t", rows=3)
    assert lines(stream) == [
        {
            "timestamp": "2024-01-01T00:00:00.123Z",
            "room": "jobs",
            "level": "info",
            "event": "flushed",
            "table": "main.t",
            "rows": 3,
        }
    ]


def test_a_logger_made_and_used_before_the_settings_are_known_obeys_them() -> None:
    early = logger("early")
    configured()
    early.info("elsewhere")
    stream = configured(level="warning")
    early.info("unheard")
    early.warning("heard")
    assert [line["event"] for line in lines(stream)] == ["heard"]


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize(
    "field", ["password", "new_password", "root_password", "token", "Authorization", "sql", "parameters", "values"]
)
def test_fields_that_may_hold_secrets_or_rows_are_masked(format_: str, field: str) -> None:
    stream = configured(format_)
    logger("auth").warning("odd", **{field: "hush-hush"}, headers={field: "hush-hush", "host": "h"})
    assert "hush-hush" not in stream.getvalue()
    assert "odd" in stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_comes_without_local_variables(format_: str) -> None:
    stream = configured(format_)

    def fail(row: str) -> None:
        raise RuntimeError("broken")

    try:
        fail("salary " + "12345")
    except RuntimeError:
        logger("flight").exception("unexpected")
    assert "RuntimeError: broken" in stream.getvalue() and "in fail" in stream.getvalue()
    assert "salary 12345" not in stream.getvalue()


def test_libraries_are_heard_from_warning_on_and_in_our_form() -> None:
    stream = configured(level="debug")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble %s", "ahead")
    assert [(line["event"], line["level"]) for line in lines(stream)] == [("trouble ahead", "warning")]


def test_a_counter_grows_and_a_gauge_is_set_or_watched() -> None:
    counters = Counters()
    counters.add("rows", 5)
    counters.add("rows")
    counters.set("sessions", 3)
    counters.set("sessions", 2)
    counters.watch("cache_bytes", lambda: 7)
    assert counters.snapshot() == {"cache_bytes": 7, "rows": 6, "sessions": 2}
    assert counters.gauge_names() == {"cache_bytes", "sessions"}


def test_a_counter_never_shrinks() -> None:
    with pytest.raises(ValueError, match="rows"):
        Counters().add("rows", -1)


def test_a_snapshot_is_a_copy() -> None:
    counters = Counters()
    before = counters.snapshot()
    counters.add("rows")
    assert before == {}


def test_a_watched_gauge_may_count() -> None:
    counters = Counters()

    def read() -> int:
        counters.add("reads")
        return 1

    counters.watch("gauge", read)
    assert counters.snapshot()["gauge"] == 1


def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()
    threads = [threading.Thread(target=lambda: [counters.add("n") for _ in range(2_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot() == {"n": 16_000}
