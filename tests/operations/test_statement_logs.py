"""What is said of statements: in log lines, in the slow-query log, in traces.  Never their texts or values."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from kalam_world import Refused, World
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flightkalam import telemetry
from flightkalam.auth.audit import statement_hash
from flightkalam.auth.identity import Role
from flightkalam.config import LogConfig
from flightkalam.errors import ConfigError
from flightkalam.session import tracing


@pytest.fixture
def logged() -> Iterator[Callable[..., io.StringIO]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(at: str) -> io.StringIO:
        stream = io.StringIO()
        telemetry.configure(LogConfig(level=at, format="json"), stream=stream)  # type: ignore[arg-type]
        return stream

    yield configure
    telemetry.configure(LogConfig())
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if line["event"] == event]


def test_every_statement_has_a_line_at_debug(world: World, logged: Callable[[str], io.StringIO]) -> None:
    client, stream = world.adbc(x_request_id="shop-42"), logged("debug")
    client.run("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)")
    client.run("INSERT INTO t VALUES (1, 'a-very-private-value')")
    client.run("SELECT s FROM t WHERE id = 1")
    by_kind = {line["kind"]: line for line in lines(stream, "statement_ended")}
    assert by_kind.keys() >= {"CREATE TABLE", "INSERT", "SELECT"}
    select = by_kind["SELECT"]
    assert select["hash"] == statement_hash("SELECT s FROM t WHERE id = 1")
    assert (select["actor"], select["subject"], select["outcome"], select["rows"]) == ("root", "root", "ok", 1)
    assert select["request_id"] == "shop-42" and select["query_id"].startswith("Q-")
    assert "private" not in stream.getvalue() and "INTO" not in stream.getvalue()


def test_for_whom_it_ran_is_said_beside_who_sent_it(world: World, logged: Callable[[str], io.StringIO]) -> None:
    world.user("ann", Role.USER)
    root, stream = world.in_process(), logged("debug")
    root.run("CREATE USER TABLE mine (id INT PRIMARY KEY)")
    root.run("INSERT INTO mine AS USER 'ann' VALUES (1)")
    (line,) = [entry for entry in lines(stream, "statement_ended") if entry["kind"] == "INSERT"]
    assert (line["actor"], line["subject"]) == ("root", "ann")


def test_at_info_there_are_those_that_were_cancelled_or_failed(world: World, logged: Callable[[str], io.StringIO]) -> None:
    root, stream = world.in_process(), logged("info")
    root.run("SELECT 1 AS one")
    with pytest.raises(Refused):
        root.run("SELECT * FROM nowhere")
    rows = world.session().query("SELECT range AS n, repeat('x', 1000) AS s FROM range(200000)")
    next(iter(rows))
    rows.close()
    assert [line["outcome"] for line in lines(stream, "statement_ended")] == ["cancelled"]


def test_a_slow_statement_is_logged_with_its_steps(make: Callable[..., World], logged: Callable[[str], io.StringIO]) -> None:
    world = make(log={"slow_statement_ms": 1})
    root, stream = world.in_process(), logged("warning")
    root.run("SELECT count(*) AS n FROM range(3000000) a WHERE sqrt(a.range) > 10")
    (slow,) = lines(stream, "slow_statement")
    assert slow["ms"] >= 1 and {"parse_ms", "plan_ms", "execute_ms", "stream_ms"} <= slow.keys()
    assert world.kalam.parts.counters.snapshot()["statements_slow"] == 1


def test_a_trace_has_a_span_for_each_step(world: World) -> None:
    exporter = InMemorySpanExporter()
    traces = tracing.Traces(exporter)
    world.kalam.parts.queries._hooks = (traces,)  # as `hooks` makes it for an endpoint
    world.in_process().run("SELECT 1 AS one")
    traces.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans["SELECT"]
    assert spans.keys() >= {"SELECT", "parse", "plan", "execute", "stream"}
    for name in ("parse", "plan", "execute", "stream"):
        assert spans[name].parent.span_id == root.context.span_id
        assert root.start_time <= spans[name].start_time <= spans[name].end_time
    assert root.attributes["flightkalam.statement_hash"] == statement_hash("SELECT 1 AS one")
    assert not any("SELECT 1" in str(value) for value in root.attributes.values())


def test_without_an_endpoint_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing.importlib, "import_module", lambda name: pytest.fail(f"{name} was loaded"))
    assert tracing.hooks(tracing.TracingConfig()) == ()


def test_an_endpoint_without_the_library_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(tracing.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"flightkalam\[tracing\]"):
        tracing.hooks(tracing.TracingConfig(endpoint="http://127.0.0.1:4318/v1/traces"))
