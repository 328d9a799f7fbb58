"""What runs is shown, and KILL QUERY stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from kalam_world import Refused, World

from flightkalam.auth.identity import Role
from flightkalam.session import Session

FOREVER = "SELECT sum(a.range * b.range) FROM range(100000000) a, range(1000000) b"


def in_background(run: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread, errors


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def running(world: World, kind: str) -> dict[str, Any] | None:
    """The statement of a kind that computes, as a dba sees it."""
    rows = world.in_process().run("SHOW QUERIES").rows.to_pylist()
    return next((r for r in rows if r["kind"] == kind and r["state"] == "running"), None)


def test_a_killed_query_stops_and_says_so(world: World) -> None:
    victim = world.adbc()
    thread, errors = in_background(lambda: victim.run(FOREVER))
    query = until(lambda: running(world, "SELECT"))
    assert query["user_id"] == query["actor_id"] == "root" and query["statement"] == FOREVER
    assert world.in_process().run(f"KILL QUERY '{query['query_id']}'").count == 1
    thread.join(20)
    assert isinstance(errors[0], Refused) and errors[0].sqlstate == "57014" and "KILL QUERY" in errors[0].message
    assert not world.kalam.parts.queries.find(query["query_id"])
    time.sleep(0.3)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.35, "the engine is still at it"


def test_a_killed_update_writes_nothing(world: World) -> None:
    root = world.in_process()
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT)")
    root.run("INSERT INTO t VALUES (1, 0)")
    slow = f"UPDATE t SET n = (SELECT CAST(x % 7 AS BIGINT) FROM ({FOREVER.replace('sum', 'max')} ) AS q(x)) WHERE id < 5"
    thread, errors = in_background(lambda: world.in_process("dora", Role.DBA).run(slow))
    query = until(lambda: running(world, "UPDATE"))
    assert query["statement"] is None and len(query["statement_hash"]) == 64, "a statement holds values: it is its sender's"
    root.run(f"KILL QUERY '{query['query_id']}'")
    thread.join(20)
    assert isinstance(errors[0], Refused) and errors[0].sqlstate == "57014"
    assert root.run("SELECT n FROM t").rows.column(0).to_pylist() == [0]
    assert root.run("UPDATE t SET n = 5").count == 1, "nothing is locked any more"


def test_a_killed_ingest_keeps_nothing(world: World) -> None:
    root, session = world.in_process(), world.session("sam", Role.SERVICE)
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    killed = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [1]})
        killed.wait(20)
        yield pa.record_batch({"id": [2]})

    class Request:
        table, namespace, catalog = "t", None, None
        if_not_exist, if_exists, temporary = "fail", "append", False

    request: Any = Request()
    thread, errors = in_background(lambda: session.ingest(request, pa.schema([("id", pa.int64())]), batches(), {}))

    def waits_for_its_client() -> Any:
        found = [q for q in world.kalam.parts.queries.list() if q.kind == "INGEST" and q.rows and q.state == "sending"]
        return found[0] if found else None

    query = until(waits_for_its_client)
    root.run(f"KILL QUERY '{query.query_id}'")
    killed.set()
    thread.join(20)
    assert getattr(errors[0], "sqlstate", None) == "57014"
    assert root.run("SELECT count(*) FROM t").rows.column(0).to_pylist() == [0]
    assert world.stray_files() == []


def opened(session: Session) -> Any:
    """A result whose client has taken one batch and thinks about the next."""
    rows = session.query("SELECT range AS n, repeat('x', 1000) AS s FROM range(200000)")
    batches = iter(rows)
    next(batches)
    return rows, batches


def test_one_s_own_statements_are_everybody_s_to_see_and_to_stop(world: World) -> None:
    ann, other = world.session("ann", Role.USER), world.session("ann", Role.USER)
    rows, batches = opened(ann)
    shown = world.in_process("ann", Role.USER).run("SHOW QUERIES").rows.to_pylist()
    (mine,) = [r for r in shown if r["kind"] == "SELECT"]
    assert mine["state"] == "sending" and mine["rows"] > 0 and mine["bytes"] > 0 and "repeat" in mine["statement"]
    assert other.update(f"KILL QUERY '{mine['query_id']}'", None) == 1
    with pytest.raises(Exception, match="KILL QUERY"):
        next(batches)
    rows.close()


def test_the_statements_of_others_are_not_even_hinted_at(world: World) -> None:
    rows, _ = opened(world.session("ann", Role.USER))
    bob = world.in_process("bob", Role.SERVICE)
    assert [r["user_id"] for r in bob.run("SHOW QUERIES").rows.to_pylist()] == ["bob"]
    (theirs,) = [q.query_id for q in world.kalam.parts.queries.list() if q.actor == "ann"]
    said = []
    for query_id in (theirs, "Q-nothing"):
        with pytest.raises(Refused) as refused:
            bob.run(f"KILL QUERY '{query_id}'")
        said.append((refused.value.sqlstate, refused.value.message.replace(query_id, "?")))
    assert said[0] == said[1] and said[0][0] == "42704"
    log = world.in_process().run("SELECT outcome, action FROM system.audit_log WHERE action = 'KILL QUERY'").rows.to_pylist()
    assert {"outcome": "denied", "action": "KILL QUERY"} in log, "the audit log knows better"
    rows.close()


def test_a_statement_that_has_ended_cannot_be_killed(world: World) -> None:
    rows, _ = opened(world.session())
    (query,) = [q for q in world.kalam.parts.queries.list() if q.kind == "SELECT"]
    rows.close()
    with pytest.raises(Refused) as refused:
        world.in_process().run(f"KILL QUERY '{query.query_id}'")
    assert refused.value.sqlstate == "42704" and "SHOW QUERIES" in refused.value.message


def test_a_statement_with_a_password_is_shown_to_nobody(world: World) -> None:
    queries, session = world.kalam.parts.queries, world.session()
    seen = []
    end = queries.end
    queries.end = lambda query, error=None: (seen.append(query), end(query, error))[1]  # type: ignore[method-assign, assignment]
    session.update("CREATE USER 'eve' WITH PASSWORD 'hush-hush' ROLE user", None)
    with pytest.raises(Exception, match="SQLSTATE|syntax|expected"):
        session.update("CREATE USER 'eve' WITH WORDPASS 'hush-hush'", None)
    assert [q.statement_hash for q in seen] == [None, None]


def test_nothing_is_left_of_statements_that_have_ended(world: World) -> None:
    root = world.adbc()
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("INSERT INTO t VALUES (1)")
    root.run("SELECT * FROM t WHERE id = 1")
    for bad in ("SELEC 1", "SELECT * FROM nowhere", "INSERT INTO t VALUES (1)", "SELECT 1/0 AS x, error('no') AS y"):
        with pytest.raises(Refused):
            root.run(bad)
    parts = world.kalam.parts
    until(lambda: not parts.queries.list())
    assert parts.queries.admission.running == 0 and parts.queries.admission.waiting == 0
