"""Health and figures over HTTP; the same figures in SQL."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from kalam_world import Refused, World
from prometheus_client.parser import text_string_to_metric_families

from flightkalam.app import listen
from flightkalam.errors import ConfigError
from flightkalam.figures import FIGURES, markdown
from flightkalam.web.side import Side

HTTP = {"enabled": True, "port": 0}


def get(location: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(location + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def location(world: World) -> str:
    assert world.uri and world._listener is not None and world._listener.side.port is not None
    return world._listener.side.port.location


def figures(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def test_there_is_no_side_port_unless_it_is_asked_for(world: World) -> None:
    assert world.uri and world._listener is not None
    assert world._listener.side.port is None


def test_a_service_that_serves_is_ready(make: Callable[..., World]) -> None:
    at = location(make(http=HTTP))
    assert get(at, "/healthz") == (200, "ok\n")
    assert get(at, "/readyz") == (200, '{"state":"serving"}')
    assert get(at, "/nowhere")[0] == 404


def test_one_that_starts_or_drains_is_alive_and_not_ready(make: Callable[..., World]) -> None:
    side = Side(make(http=HTTP).config.http)
    assert side.port is not None
    try:
        at = side.port.location
        assert get(at, "/healthz")[0] == 200
        assert get(at, "/metrics")[0] == 200
        code, body = get(at, "/readyz")
        assert (code, json.loads(body)["state"]) == (503, "starting")
        side.drains()
        code, body = get(at, "/readyz")
        assert (code, json.loads(body)["state"]) == (503, "draining")
    finally:
        side.close()


def test_one_whose_disk_is_full_is_degraded_until_there_is_room_again(make: Callable[..., World]) -> None:
    """T-16: writes are refused before they begin, queries go on, and nobody has to restart anything."""
    world = make(http=HTTP)
    at, root = location(world), world.in_process()
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    store, reserve = world.kalam.store, world.kalam.store._reserve
    store._reserve = 1 << 62
    code, body = get(at, "/readyz")
    assert code == 503 and json.loads(body) == {
        "state": "degraded",
        "problem": "the data disk is full; queries are answered, writes refused",
    }
    with pytest.raises(Refused) as refused:
        root.run("INSERT INTO t VALUES (1)")
    assert refused.value.sqlstate == "53100"
    assert root.run("SELECT count(*) FROM t").rows.column(0).to_pylist() == [0]
    assert "flightkalam_writable 0.0" in get(at, "/metrics")[1]
    store._reserve = reserve
    assert get(at, "/readyz")[0] == 200
    assert root.run("INSERT INTO t VALUES (1)").count == 1


def test_a_port_that_is_taken_stops_the_start(make: Callable[..., World]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = make(http=HTTP | {"port": taken.getsockname()[1]}).config
        with pytest.raises(ConfigError, match=r"choose another http\.port"):
            listen(config)


def test_what_clients_do_is_counted(make: Callable[..., World]) -> None:
    world = make(http=HTTP)
    at, client = location(world), world.adbc()
    client.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    client.run("INSERT INTO t SELECT range, 0 FROM range(1000)")
    client.run("SELECT * FROM t")
    with pytest.raises(Refused):
        client.run("SELECT * FROM nowhere")
    with pytest.raises(Refused):
        client.run("INSERT INTO t VALUES (1, 1)")
    world.flush()
    found = figures(get(at, "/metrics")[1])
    assert found["flightkalam_statements_total", (("kind", "INSERT"), ("outcome", "ok"))] == 1
    assert found["flightkalam_statements_total", (("kind", "INSERT"), ("outcome", "refused"))] == 1
    assert found["flightkalam_errors_total", (("sqlstate", "42P01"),)] >= 1
    assert found["flightkalam_errors_total", (("sqlstate", "23505"),)] == 1
    assert found["flightkalam_rows_changed_total", ()] == 1000
    assert found["flightkalam_rows_out_total", ()] >= 1000
    assert found["flightkalam_versions_written_total", ()] == 1000
    assert found["flightkalam_statement_seconds_count", (("kind", "SELECT"),)] == 1
    assert found["flightkalam_fsync_seconds_count", ()] >= 1
    assert found["flightkalam_hot_rows", ()] == 0
    assert found["flightkalam_flush_rows_total", ()] == 1000
    assert found["flightkalam_writable", ()] == 1
    buckets = [v for (name, labels), v in sorted(found.items()) if name == "flightkalam_commit_seconds_bucket"]
    assert max(buckets) == found["flightkalam_commit_seconds_count", ()] == 1


def test_sql_shows_the_same_figures(make: Callable[..., World]) -> None:
    world = make(http=HTTP)
    at, root = location(world), world.in_process()
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("INSERT INTO t VALUES (1), (2)")
    by_http = figures(get(at, "/metrics")[1])
    rows = root.run("SELECT name, labels, value FROM system.metrics").rows.to_pylist()
    by_sql = {(r["name"], tuple(sorted(json.loads(r["labels"]).items()))): r["value"] for r in rows}
    changing = ("memory_bytes", "statement", "admission", "fsync", "disk_free")  # time goes on in between
    same = [key for key in by_http if not any(word in key[0] for word in changing)]
    assert len(same) > 20
    assert {key: by_sql[key] for key in same} == {key: by_http[key] for key in same}


def test_every_figure_that_is_counted_is_listed(world: World) -> None:
    root = world.in_process()
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 1)")
    world.flush()
    root.run("SELECT * FROM t WHERE id = 2")
    assert {s.name for s in world.kalam.parts.counters.samples()} <= FIGURES.keys()


@pytest.mark.parametrize("relation", ["metrics", "queries", "sessions", "settings"])
def test_system_tables_are_for_dbas(world: World, relation: str) -> None:
    from flightkalam.auth.identity import Role

    with pytest.raises(Refused) as refused:
        world.in_process("ann", Role.USER).run(f"SELECT * FROM system.{relation}")
    assert refused.value.sqlstate == "42501"
    assert world.in_process().run(f"SELECT count(*) FROM system.{relation}").rows is not None


def test_settings_are_shown_without_secrets(world: World) -> None:
    rows = world.in_process().run("SELECT name, value FROM system.settings").rows.to_pylist()
    shown = {r["name"]: r["value"] for r in rows}
    assert shown["limits.statements"] == "100" and shown["auth.root_password"] == "********"


def test_the_documentation_lists_every_figure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert f"<!-- figures -->\n{markdown()}<!-- end of figures -->" in page
