"""The law of STREAM tables, against a dictionary: a row is there from its commit until its time is over, whatever is deleted,
replaced, rolled back, evicted or restarted in between; and the log never holds more than one row of a key.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kalam_world import InProcess, Refused, World
from stream_support import RESTART_AHEAD, TTL, StillClock, evict, logged, rows
from table_world import scratch_folder

from flightkalam.auth.identity import Role

OWNERS = ("ann", "bob/..")
OWNER = st.sampled_from(OWNERS)
KEYS = st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True)
ACTION = st.sampled_from(["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "DELETE"])
PASS = st.sampled_from([0.001, 1, TTL / 2, TTL - 0.001, TTL])
Rows = dict[int, tuple[int, int]]  # key -> value, microsecond at which it is over


class StreamLaw(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = StillClock()
        self.folder = scratch_folder()
        self.world = World(self.folder.__enter__(), {"storage": {"durability": "async", "hot_stage_bytes": 65_536}}, self.clock)
        self.model: dict[str, Rows] = {owner: {} for owner in OWNERS}
        self.value = 0

    @initialize()
    def begin(self) -> None:
        root = self.world.in_process()
        root.run(f"CREATE STREAM TABLE s (k BIGINT PRIMARY KEY, v BIGINT) WITH (TTL_SECONDS={TTL})")
        self.people()

    def people(self) -> None:
        self.clients: dict[str, InProcess] = {owner: self.world.in_process(owner, Role.USER) for owner in OWNERS}

    def teardown(self) -> None:
        self.world.close()
        self.folder.__exit__(None, None, None)

    # -- the model ----------------------------------------------------------------------------------------------------

    def alive(self, model: Rows) -> Rows:
        return {k: r for k, r in model.items() if r[1] is None or self.clock.us < r[1]}

    def expected(self, model: Rows, action: str, keys: list[int]) -> int | None:
        """Change the model; returns the count, None for a refusal."""
        there = self.alive(model)
        if action == "DELETE":
            gone = [k for k in keys if k in there]
            for k in gone:
                del model[k]
            return len(gone)
        if action == "INSERT" and any(k in there for k in keys):
            return None
        written = [k for k in keys if action != "INSERT OR IGNORE" or k not in there]
        for k in written:
            model[k] = (self.value, self.clock.us // 1000 * 1000 + TTL * 1_000_000)
        return len(written)

    def run(self, owner: str, action: str, keys: list[int]) -> int | None:
        client = self.clients[owner]
        try:
            if action == "DELETE":
                return client.run(f"DELETE FROM s WHERE k IN ({', '.join(map(str, keys))})").count
            return client.run(f"{action} INTO s VALUES " + ", ".join(f"({k}, {self.value})" for k in keys)).count
        except Refused as e:
            assert e.sqlstate == "23505"
            return None

    # -- what may happen ----------------------------------------------------------------------------------------------

    @rule(owner=OWNER, action=ACTION, keys=KEYS)
    def write(self, owner: str, action: str, keys: list[int]) -> None:
        self.value += 1
        assert self.run(owner, action, keys) == self.expected(self.model[owner], action, keys)

    @rule(owner=OWNER, writes=st.lists(st.tuples(ACTION, KEYS), min_size=1, max_size=4), time=PASS, commit=st.booleans())
    def transaction(self, owner: str, writes: list[tuple[str, list[int]]], time: float, commit: bool) -> None:
        client, model = self.clients[owner], dict(self.model[owner])
        client.run("BEGIN")
        for action, keys in writes:
            self.value += 1
            assert self.run(owner, action, keys) == self.expected(model, action, keys)
            own = {k: (v, None) for k, (v, _) in model.items() if (k, v) not in self.pairs(self.model[owner])}
            model |= own  # not committed, so its life has not begun
        if time < TTL:
            self.clock.pass_(time)
        assert self.seen(owner) == self.pairs(self.alive(model))
        client.run("COMMIT" if commit else "ROLLBACK")
        if commit:
            over = self.clock.us // 1000 * 1000 + TTL * 1_000_000
            self.model[owner] = {k: (v, over if until is None else until) for k, (v, until) in model.items()}

    @rule(time=PASS)
    def time_passes(self, time: float) -> None:
        self.clock.pass_(time)

    @rule()
    def eviction(self) -> None:
        evict(self.world)

    @rule()
    def restart(self) -> None:
        self.world.restart()
        self.clock.pass_(RESTART_AHEAD)
        self.people()

    # -- what must hold -----------------------------------------------------------------------------------------------

    def pairs(self, model: Rows) -> set[tuple[int, Any]]:
        return {(k, v) for k, (v, _) in model.items()}

    def seen(self, owner: str) -> set[tuple[Any, ...]]:
        found = rows(self.clients[owner], "SELECT k, v FROM s")
        assert len(found) == len(set(found))
        return set(found)

    @invariant()
    def what_is_seen_is_what_has_not_expired(self) -> None:
        for owner in OWNERS if hasattr(self, "clients") else ():
            assert self.seen(owner) == self.pairs(self.alive(self.model[owner]))
            keys = [r["1"] for r in logged(self.world, owner)]
            assert len(keys) == len(set(keys))

    @invariant()
    def log_and_memory_agree(self) -> None:
        if hasattr(self, "clients"):
            self.world.check()


def law(examples: int, steps: int) -> type:
    case: Any = type("Case", (StreamLaw.TestCase,), {})
    case.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True)
    return case


TestStreamLaw = law(25, 20)


@pytest.mark.slow
class TestStreamLawLong(law(150, 60)):  # type: ignore[misc]
    pass
