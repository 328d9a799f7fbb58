"""Hot rows stay within their memory: writers wait, the largest scopes are flushed, idle ones leave and come back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest
from kalam_world import Refused, World

from flightkalam.auth.identity import Role
from flightkalam.clock import SystemClock
from flightkalam.config_running import MemoryConfig
from flightkalam.errors import OutOfMemory
from flightkalam.jobs.memory import Held, MemoryKeeper, to_flush, to_release
from flightkalam.model.ids import Scope
from flightkalam.table.budget import HotBudget
from flightkalam.telemetry import Counters


def held(*sizes: int) -> list[Held]:
    return [Held(Scope(i, None), size, float(i)) for i, size in enumerate(sizes)]


def test_the_largest_are_flushed_first_and_no_more_than_needed() -> None:
    assert [s.table_id for s in to_flush(held(5, 50, 10, 40), 60)] == [1, 3]
    assert to_flush(held(0, 0), 60) == [] and to_flush(held(5), 0) == []


def test_the_longest_unused_leave_first() -> None:
    assert [s.table_id for s in to_release(held(1, 1, 1, 1), now=10.0, idle_seconds=8.5, most=100)] == [0, 1]
    assert [s.table_id for s in to_release(held(1, 1, 1, 1), now=10.0, idle_seconds=100.0, most=1)] == [0, 1, 2]


def test_writers_go_on_then_slow_down_then_are_refused() -> None:
    counters = Counters()
    budget = HotBudget(1_000, 0.03, SystemClock(), counters)
    budget.grew(700)
    budget.admit()
    assert not budget.short.is_set() and counters.snapshot() == {}
    budget.grew(200)
    budget.admit()
    assert budget.short.is_set() and counters.snapshot() == {"hot_slowed": 1}
    budget.grew(100)
    with pytest.raises(OutOfMemory, match=r"memory\.hot_bytes.*try again") as refused:
        budget.admit()
    assert refused.value.sqlstate == "53200" and counters.snapshot()["hot_refused"] == 1
    budget.counted(100, budget.grown)
    budget.admit()


def test_a_writer_that_waits_goes_on_when_there_is_room() -> None:
    budget = HotBudget(1_000, 20.0, SystemClock(), Counters())
    budget.grew(1_000)
    threading.Timer(0.05, lambda: budget.counted(0, 1_000)).start()
    budget.admit()
    assert budget.used == 0


def test_what_grew_while_it_was_counted_is_not_forgotten() -> None:
    budget = HotBudget(1_000, 0.0, SystemClock(), Counters())
    budget.grew(10)
    before = budget.grown
    budget.grew(5)
    budget.counted(10, before)
    assert budget.used == 15


def test_a_loader_that_never_stops_is_held_within_the_budget(make: Callable[..., World]) -> None:
    world = make(memory={"hot_bytes": 2_000_000, "wait_seconds": 60}, storage={"hot_stage_bytes": 1 << 30})
    client = world.adbc()
    client.run("CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT) WITH (FLUSH_POLICY='rows:100000000')")
    most = 0
    for i in range(12):
        client.run(f"INSERT INTO t SELECT range + {i * 5000}, repeat('x', 100) FROM range(5000)")
        most = max(most, world.kalam.parts.counters.snapshot()["hot_bytes"])
    assert most < 4_000_000, "one write more than the budget at the most"
    assert client.run("SELECT count(*), count(DISTINCT id) FROM t").rows.to_pylist()[0] == {
        "count_star()": 60_000,
        "count(DISTINCT id)": 60_000,
    }
    assert world.kalam.parts.counters.snapshot()["flush_rows"] > 0
    world.check()


def test_without_anybody_who_flushes_a_write_is_refused_and_reads_go_on(make: Callable[..., World]) -> None:
    world = make(memory={"hot_bytes": 100_000, "wait_seconds": 0.05})
    client = world.in_process()  # without a listener nothing runs by itself
    client.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    client.run("INSERT INTO t SELECT range FROM range(5000)")
    with pytest.raises(Refused) as refused:
        client.run("INSERT INTO t VALUES (-1)")
    assert refused.value.sqlstate == "53200" and "try again" in refused.value.message
    assert client.run("SELECT count(*) AS n FROM t").rows.column(0).to_pylist() == [5_000]
    world.flush()
    world.kalam.memory._counted_at = -1e9
    world.kalam.memory.check()
    assert client.run("INSERT INTO t VALUES (-1)").count == 1


def keeper(world: World) -> MemoryKeeper:
    """One that lets everything go that may go."""
    parts, settings = world.kalam.parts, MemoryConfig.model_construct(idle_seconds=1_000_000, open_scopes=0)
    return MemoryKeeper(parts.scopes, parts.jobs, parts.scopes.clock, lambda: parts.catalog.state.tables, settings)


def test_an_idle_scope_leaves_and_comes_back_as_it_was(world: World) -> None:
    root, scopes = world.in_process(), world.kalam.parts.scopes
    root.run("CREATE USER TABLE t (id INT PRIMARY KEY, n INT)")
    people = [world.in_process(name, Role.USER) for name in ("ann", "bob", "cid")]
    for client in people:
        client.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    world.flush()
    for client in people:
        client.run("UPDATE t SET n = 20 WHERE id = 2")
        client.run("DELETE FROM t WHERE id = 3")
        client.run("INSERT INTO t VALUES (4, 4)")
    keeper(world).check()
    assert scopes.opened() == [] and len(scopes.resting()) == 3
    assert {(w.rows) for w in world.kalam.schedule._waiting(world.kalam.parts.catalog.state.tables)} == {3}, (
        "still to be flushed"
    )
    for client in people:
        assert client.run("SELECT id, n FROM t ORDER BY id").rows.to_pylist() == [
            {"id": 1, "n": 1},
            {"id": 2, "n": 20},
            {"id": 4, "n": 4},
        ]
        assert client.run("UPDATE t SET n = n + 1").count == 3
    assert scopes.resting() == []
    world.check()


def test_whoever_still_uses_a_scope_that_was_let_go_shares_it_with_those_to_come(world: World) -> None:
    root, scopes = world.in_process(), world.kalam.parts.scopes
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("INSERT INTO t VALUES (1)")
    (writer,) = scopes.opened()
    keeper(world).check()
    assert [scope for scope, _, _ in scopes.resting()] == [writer.scope]
    root.run("INSERT INTO t VALUES (2)")
    assert scopes.opened() == [writer] and scopes.resting() == []


def test_a_scope_stays_while_a_reader_needs_an_older_layout_of_it(world: World) -> None:
    root, session, scopes = world.in_process(), world.session(), world.kalam.parts.scopes
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("INSERT INTO t VALUES (1)")
    transaction = session.begin()
    planned = session.plan("SELECT count(*) AS n FROM t", transaction)
    assert next(iter(session.fetch(planned.handle))).to_pylist() == [{"n": 1}]
    root.run("INSERT INTO t VALUES (2)")
    world.flush()
    keeper(world).check()
    assert len(scopes.opened()) == 1
    assert next(iter(session.fetch(planned.handle))).to_pylist() == [{"n": 1}]
    session.end(transaction, False)
    again = keeper(world)
    again.check()
    gc.collect()
    assert scopes.opened() == []


def test_an_update_that_found_its_rows_before_the_scope_went_still_finds_them(world: World) -> None:
    """A position holds for one layout, and no layout after a release has the number of one before."""
    root, scopes = world.in_process(), world.kalam.parts.scopes
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 0)")
    before = scopes.opened()[0].state.layout
    world.flush()
    keeper(world).check()
    root.run("UPDATE t SET n = 1")
    assert scopes.opened()[0].state.layout > before + 1
