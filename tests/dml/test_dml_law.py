"""The law of writing: whatever is inserted, changed, deleted, merged, flushed, compacted, altered and reopened, by itself or in
transactions, queries see what a dictionary of newest versions says.

The model knows nothing of tiers, marks or snapshots; of `_seq` it knows only what the service last said.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from kalam_world import InProcess, Refused, World

from flightkalam.auth.identity import Role

Key = tuple[Any, ...]
Values = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """A table of the test: its key's columns, and how a number makes a key."""

    name: str
    key_columns: tuple[str, ...]
    make_key: Callable[[int], Key]

    def where(self, key: Key, alias: str = "") -> str:
        return " AND ".join(f"{alias}{c} = {literal(v)}" for c, v in zip(self.key_columns, key, strict=True))

    def joined(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{c} = {right}.{c}" for c in self.key_columns)


# Composite keys that a careless encoding takes for one another (T-22).
TEXTS = ("a", "ab", "", "b")
PAIRS = Spec("pairs", ("a", "b"), lambda n: (TEXTS[n % 4], n // 4))
NOTES = Spec("notes", ("id",), lambda n: (n,))


def literal(value: Any) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


@dataclass
class State:
    """Newest version of each key of one scope: its values, or None for a tombstone."""

    newest: dict[Key, Values | None] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.newest))

    @property
    def visible(self) -> dict[Key, Values]:
        return {k: v for k, v in self.newest.items() if v is not None}


Scope = tuple[str, str]  # table, user


class Refusal(Exception):
    """The model says that a statement must be refused, with this SQLSTATE."""


# Few keys, so that statements meet: on each other's rows, and on their own of the same transaction.
NUMBERS = st.integers(0, 6)
SMALL = st.lists(NUMBERS, min_size=1, max_size=4)
SCOPES = st.sampled_from([(PAIRS, "root"), (NOTES, "ann"), (NOTES, "bob")])
DEPTH = 14


@dataclass(frozen=True)
class Write:
    """One statement on one scope: its text, and what it does to the model (the count, or a refusal)."""

    sql: str
    apply: Callable[[State], int]


class Law(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="law-"))
        self.world = World(self.folder / "data")
        self.specs = {"pairs": PAIRS, "notes": NOTES}
        self.columns: dict[str, dict[str, Any]] = {"pairs": {"v": None, "s": None}, "notes": {"v": None, "s": None}}
        self.states: dict[Scope, State] = {(t.name, u): State() for t, u in ((PAIRS, "root"), (NOTES, "ann"), (NOTES, "bob"))}
        self.marks: dict[Scope, tuple[int, State]] = {}
        self.stamp = 0
        self.connect()
        root = self.clients["root"]
        root.run("CREATE TABLE pairs (a TEXT, b INT, v INT, s TEXT, PRIMARY KEY (a, b)) WITH (COMPACTION='manual')")
        root.run("CREATE USER TABLE notes (id INT PRIMARY KEY, v INT, s TEXT) WITH (COMPACTION='manual')")
        for (table, user), state in self.states.items():  # something to meet from the start
            spec = self.specs[table]
            assert self.play(self.clients[user], self.insert(spec, [0, 1, 2, 3], "error"), state)

    def connect(self) -> None:
        self.clients: dict[str, InProcess] = {
            "root": self.world.in_process(),
            "ann": self.world.in_process("ann", Role.USER),
            "bob": self.world.in_process("bob", Role.SERVICE),
        }

    def teardown(self) -> None:
        try:
            self.world.check()
        finally:
            self.world.close()
            shutil.rmtree(self.folder)

    # -- statements -------------------------------------------------------------------------------------------

    def fresh(self) -> int:
        self.stamp += 1
        return self.stamp

    def full(self, spec: Spec, given: Values) -> Values:
        return {**self.columns[spec.name], **given}

    def rows(self, spec: Spec, numbers: list[int]) -> list[tuple[Key, int]]:
        return [(spec.make_key(n), self.fresh()) for n in numbers]

    def values_sql(self, rows: list[tuple[Key, int]]) -> str:
        return ", ".join("(" + ", ".join(map(literal, (*k, v))) + ")" for k, v in rows)

    def insert(self, spec: Spec, numbers: list[int], mode: str) -> Write:
        rows = self.rows(spec, numbers)
        names = ", ".join((*spec.key_columns, "v"))
        head, tail = {
            "error": ("INSERT", ""),
            "ignore": ("INSERT OR IGNORE", ""),
            "replace": ("INSERT OR REPLACE", ""),
            "upsert": ("INSERT", f" ON CONFLICT DO UPDATE SET v = {spec.name}.v * 1000 + excluded.v WHERE {spec.name}.v < 50"),
        }[mode]

        def apply(state: State) -> int:
            return getattr(self, f"_insert_{mode}")(spec, state, rows)

        return Write(f"{head} INTO {spec.name} ({names}) VALUES {self.values_sql(rows)}{tail}", apply)

    def _insert_error(self, spec: Spec, state: State, rows: list[tuple[Key, int]]) -> int:
        keys = [k for k, _ in rows]
        if len(set(keys)) < len(keys) or set(keys) & set(state.visible):
            raise Refusal("23505")
        state.newest.update({k: self.full(spec, {"v": v}) for k, v in rows})
        return len(rows)

    def _insert_ignore(self, spec: Spec, state: State, rows: list[tuple[Key, int]]) -> int:
        return sum(self._insert_error(spec, state, [r]) for r in rows if r[0] not in state.visible)

    def _insert_replace(self, spec: Spec, state: State, rows: list[tuple[Key, int]]) -> int:
        last = {k: self.full(spec, {"v": v}) for k, v in rows}
        state.newest.update(last)
        return len(last)

    def _insert_upsert(self, spec: Spec, state: State, rows: list[tuple[Key, int]]) -> int:
        if len({k for k, _ in rows}) < len(rows):
            raise Refusal("21000")
        count = 0
        for key, v in rows:
            old = state.visible.get(key)
            if old is None:
                state.newest[key], count = self.full(spec, {"v": v}), count + 1
            elif old["v"] is not None and old["v"] < 50:
                state.newest[key], count = {**old, "v": old["v"] * 1000 + v}, count + 1
        return count

    def update(self, spec: Spec, numbers: list[int], mode: str) -> Write:
        keys = {spec.make_key(n) for n in numbers}
        where = " OR ".join(f"({spec.where(k)})" for k in sorted(keys))
        stamp = f"s{self.fresh()}"
        assigned, change = {
            "same": ("v = v", lambda old: old),
            "text": (f"s = '{stamp}'", lambda old: {**old, "s": stamp}),
            "null": ("v = NULL", lambda old: {**old, "v": None}),
            "small": ("v = 1", lambda old: {**old, "v": 1}),
        }[mode]

        def apply(state: State) -> int:
            new = {k: change(v) for k, v in state.visible.items() if k in keys}
            changed = {k: v for k, v in new.items() if v != state.newest[k]}
            state.newest.update(changed)
            return len(changed)

        return Write(f"UPDATE {spec.name} SET {assigned} WHERE {where}", apply)

    def move(self, spec: Spec, numbers: list[int], by: int) -> Write:
        """Shift keys: onto keys that are vacated by the same statement, free ones, or taken ones."""
        column = spec.key_columns[-1]
        keys = {spec.make_key(n) for n in numbers}
        where = " OR ".join(f"({spec.where(k)})" for k in sorted(keys))

        def apply(state: State) -> int:
            moving = {k: v for k, v in state.visible.items() if k in keys} if by else {}
            target = {(*k[:-1], k[-1] + by): v for k, v in moving.items()}
            if set(target) & (set(state.visible) - set(moving)):
                raise Refusal("23505")
            state.newest.update(dict.fromkeys(moving))
            state.newest.update(target)
            return len(moving)

        return Write(f"UPDATE {spec.name} SET {column} = {column} + {by} WHERE {where}", apply)

    def delete(self, spec: Spec, numbers: list[int]) -> Write:
        keys = {spec.make_key(n) for n in numbers}
        where = " OR ".join(f"({spec.where(k)})" for k in sorted(keys))

        def apply(state: State) -> int:
            gone = [k for k in state.visible if k in keys]
            state.newest.update(dict.fromkeys(gone))
            return len(gone)

        return Write(f"DELETE FROM {spec.name} WHERE {where}", apply)

    def merge(self, spec: Spec, numbers: list[int]) -> Write:
        """Odd new values update, even ones delete what matches; what does not match is inserted."""
        rows = self.rows(spec, numbers)
        names = ", ".join((*spec.key_columns, "v"))
        sql = (
            f"MERGE INTO {spec.name} AS t USING (VALUES {self.values_sql(rows)}) AS q({names}) ON {spec.joined('t', 'q')} "
            f"WHEN MATCHED AND q.v % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = q.v "
            f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({', '.join('q.' + c for c in (*spec.key_columns, 'v'))})"
        )

        def apply(state: State) -> int:
            keys = [k for k, _ in rows]
            twice = {k for k in keys if keys.count(k) > 1}
            if twice & set(state.visible):
                raise Refusal("21000")
            if twice:
                raise Refusal("23505")
            for key, v in rows:
                old = state.visible.get(key)
                if old is None:
                    state.newest[key] = self.full(spec, {"v": v})
                else:
                    state.newest[key] = None if v % 2 == 0 else {**old, "v": v}
            return len(rows)

        return Write(sql, apply)

    def truncate(self, spec: Spec) -> Write:
        return Write(f"TRUNCATE {spec.name}", lambda state: self.delete_all(state))

    def delete_all(self, state: State) -> int:
        gone = list(state.visible)
        state.newest.update(dict.fromkeys(gone))
        return len(gone)

    def draw(self, data: st.DataObject, spec: Spec) -> Write:
        numbers = data.draw(SMALL)
        kind = data.draw(
            st.sampled_from(["insert"] * 4 + ["update"] * 3 + ["move"] * 2 + ["delete"] * 2 + ["merge"] * 2 + ["truncate"])
        )
        if kind == "truncate":
            return self.truncate(spec)
        if kind == "insert":
            return self.insert(spec, numbers, data.draw(st.sampled_from(["error", "ignore", "replace", "upsert"])))
        if kind == "update":
            return self.update(spec, numbers, data.draw(st.sampled_from(["same", "text", "null", "small"])))
        if kind == "move":
            return self.move(spec, numbers, data.draw(st.integers(-1, 2)))
        return self.delete(spec, numbers) if kind == "delete" else self.merge(spec, numbers)

    def play(self, client: InProcess, write: Write, state: State) -> bool:
        """Run a statement in the service and in the model; whether both took it."""
        after = state.copy()
        try:
            expected: int | str = write.apply(after)
        except Refusal as e:
            expected = str(e)
        try:
            found: int | str | None = client.run(write.sql).count
        except Refused as e:
            found = e.sqlstate
        assert found == expected, f"{write.sql}: {found}, not {expected}"
        if isinstance(expected, int):
            state.newest = after.newest
            return True
        return False

    # -- rules ------------------------------------------------------------------------------------------------

    @rule(scope=SCOPES, data=st.data())
    def write(self, scope: tuple[Spec, str], data: st.DataObject) -> None:
        spec, user = scope
        self.play(self.clients[user], self.draw(data, spec), self.states[spec.name, user])
        self.compare(spec, user)

    @rule(
        user=st.sampled_from(["ann", "bob"]),
        size=st.integers(2, 6),
        outside=st.booleans(),
        commit=st.booleans(),
        data=st.data(),
    )
    def transaction(self, user: str, size: int, outside: bool, commit: bool, data: st.DataObject) -> None:
        """A few statements as one, somebody else's write in between: nothing of it is seen inside."""
        mine = self.world.in_process(user, Role.SERVICE)
        scopes = {NOTES.name: (NOTES, user), PAIRS.name: (PAIRS, "root")}
        mine.run("BEGIN")
        mine.run("SELECT count(*) FROM notes")
        inside = {name: self.states[name, u].copy() for name, (_, u) in scopes.items()}
        begun = {name: state.copy() for name, state in inside.items()}
        touched: set[tuple[str, Key]] = set()
        for _ in range(size):
            spec = data.draw(st.sampled_from([NOTES, PAIRS]))
            before = inside[spec.name].copy()
            self.play(mine, self.draw(data, spec), inside[spec.name])
            touched |= {(spec.name, k) for k, v in inside[spec.name].newest.items() if before.newest.get(k, 0) != v}
            self.see(mine, spec, inside[spec.name], numbered=False)
        written = {(n, k) for n, k in touched if k in begun[n].visible or inside[n].newest[k] is not None}
        conflict = outside and self.disturb(written, data)
        if outside:
            for spec, _ in scopes.values():
                self.see(mine, spec, inside[spec.name], numbered=False)
        self.finish(mine, commit, conflict, {(n, u): inside[n] for n, (_, u) in scopes.items()}, written)

    def disturb(self, written: set[tuple[str, Key]], data: st.DataObject) -> bool:
        """Somebody else writes one row of `pairs`; whether the transaction has written it too."""
        key = PAIRS.make_key(data.draw(NUMBERS))
        state = self.states["pairs", "root"]
        sql = f"INSERT OR REPLACE INTO pairs (a, b, v) VALUES ({literal(key[0])}, {key[1]}, {self.fresh()})"
        self.clients["root"].run(sql)
        state.newest[key] = self.full(PAIRS, {"v": self.stamp})
        return (PAIRS.name, key) in written

    def finish(
        self, mine: InProcess, commit: bool, conflict: bool, inside: dict[Scope, State], written: set[tuple[str, Key]]
    ) -> None:
        if not commit:
            mine.run("ROLLBACK")
        elif conflict:
            try:
                mine.run("COMMIT")
            except Refused as e:
                assert e.sqlstate == "40001"
            else:
                raise AssertionError("a conflict was not seen")
        else:
            mine.run("COMMIT")
            for scope, state in inside.items():
                newest = self.states[scope].newest
                newest.update({k: state.newest[k] for n, k in written if n == scope[0]})
        for table, user in inside:
            self.compare(self.specs[table], user)

    @rule()
    def flush(self) -> None:
        self.world.flush()
        self.compare_all()

    @rule(table=st.sampled_from(["pairs", "notes"]))
    def compact(self, table: str) -> None:
        self.clients["root"].run(f"COMPACT TABLE {table} WAIT")
        self.compare_all()

    @rule()
    def restart(self) -> None:
        self.world.restart()
        self.connect()
        self.compare_all()

    @precondition(lambda self: all(len(c) < 4 for c in self.columns.values()))
    @rule(table=st.sampled_from(["pairs", "notes"]))
    def add_column(self, table: str) -> None:
        name, default = f"c{self.fresh()}", self.stamp
        self.clients["root"].run(f"ALTER TABLE {table} ADD COLUMN {name} INT DEFAULT {default}")
        self.columns[table][name] = default
        for (t, _), state in self.states.items():
            if t == table:
                state.newest = {k: v if v is None else {**v, name: default} for k, v in state.newest.items()}
        for t, user in self.states:
            if t == table:
                self.compare(self.specs[t], user)

    @rule(scope=SCOPES)
    def mark(self, scope: tuple[Spec, str]) -> None:
        """From here on a change feed is followed."""
        spec, user = scope
        rows = self.clients[user].run(f"SELECT coalesce(max(_seq), 0) AS s FROM {spec.name} WHERE _deleted IS NOT NULL").rows
        assert rows is not None
        self.marks[spec.name, user] = (rows.column("s")[0].as_py(), self.states[spec.name, user].copy())

    # -- what must hold ---------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        for table, user in self.states:
            self.compare(self.specs[table], user)

    def compare(self, spec: Spec, user: str) -> None:
        state = self.states[spec.name, user]
        self.see(self.clients[user], spec, state)
        self.feed(self.clients[user], spec, user, state)

    def rows_of(self, client: InProcess, sql: str) -> list[dict[str, Any]]:
        rows = client.run(sql).rows
        assert rows is not None
        return rows.to_pylist()

    def see(self, client: InProcess, spec: Spec, state: State, *, numbered: bool = True) -> None:
        expected = sorted(
            [dict(zip(spec.key_columns, k, strict=True)) | v for k, v in state.visible.items()],
            key=lambda r: self.key_of(spec, r),
        )
        order = ", ".join(spec.key_columns)
        found = self.rows_of(client, f"SELECT * FROM {spec.name} ORDER BY {order}")
        names = set(expected[0]) if expected else set()
        assert [{n: r[n] for n in names} for r in found] == expected
        small = [r for r in expected if r["v"] is not None and r["v"] <= 1]
        assert self.rows_of(client, f"SELECT {order} FROM {spec.name} WHERE v <= 1 ORDER BY {order}") == [
            {c: r[c] for c in spec.key_columns} for r in small
        ]
        totals = self.rows_of(client, f"SELECT count(*) AS n, count(s) AS s, sum(v)::BIGINT AS v FROM {spec.name}")[0]
        values = [r["v"] for r in expected if r["v"] is not None]
        assert totals == {
            "n": len(expected),
            "s": sum(r["s"] is not None for r in expected),
            "v": sum(values) if values else None,
        }

    def key_of(self, spec: Spec, row: dict[str, Any]) -> Key:
        return tuple(row[c] for c in spec.key_columns)

    def feed(self, client: InProcess, spec: Spec, user: str, state: State) -> None:
        """`_seq > x` shows the newest version of every key that has changed since, deletions too."""
        after, then = self.marks.get((spec.name, user), (0, State()))
        names = ", ".join(spec.key_columns)
        rows = self.rows_of(client, f"SELECT {names}, v, s, _deleted FROM {spec.name} WHERE _seq > {after} ORDER BY _seq")
        found = {self.key_of(spec, r): None if r["_deleted"] else r["v"] for r in rows}
        assert len(found) == len(rows), "a key twice in a change feed"
        assert all(r["v"] is None and r["s"] is None for r in rows if r["_deleted"]), "a tombstone holds the key alone"
        now = {k: None if v is None else v["v"] for k, v in state.newest.items()}
        assert found.items() <= now.items()
        changed = {k for k, v in now.items() if k not in then.newest or (then.newest[k] or {}).get("v") != v}
        assert changed <= set(found), "a change is missing from the feed"
        old = self.rows_of(client, f"SELECT {names} FROM {spec.name} WHERE _seq <= {after}")
        assert {self.key_of(spec, r) for r in old} == set(state.visible) - set(found), "a superseded version came back"


Law.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=DEPTH,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
test_queries_see_what_the_model_says = Law.TestCase
