"""Nobody learns anything of a neighbour's rows (SEMANTICS §5, §8).

Two services: in the first a neighbour has rows, keys, tables and tickets, marked by a canary; in the second there is nothing
of all that.  The same statements are sent to both, and every answer must be the same: rows, counts, errors, plans, figures.
So it is not only the canary that must not appear; nothing at all may depend on what the neighbour has.

`KALAM_FUZZ_STATEMENTS` says how many are sent in all, 10,000 by default; 1000000 makes it long, `KALAM_FUZZ_SEED` another.
"""

from __future__ import annotations

import io
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from isolation_statements import ME, NEIGHBOUR, Statements
from kalam_world import World

from flightkalam import telemetry
from flightkalam.auth.identity import Role
from flightkalam.config import LogConfig
from flightkalam.errors import KalamError
from flightkalam.session.acts import HEADER
from flightkalam.session.call import Call
from flightkalam.session.session import Session

STATEMENTS = int(os.environ.get("KALAM_FUZZ_STATEMENTS", "10000"))
SEED = int(os.environ.get("KALAM_FUZZ_SEED", "20240101"))
CANARY = "CANARY"
# What EXPLAIN measures (bytes of one's own files too: `_seq` compresses as it comes), and ids that are drawn: not alike in two runs of one service either.
_MEASURED = re.compile(
    r"\d+(?:\.\d+)? ?[mnµ]?s\b|Data Read: \S+ \w+|planning[^,\n]*|~1|FL-\w+|CO-\w+|datetime\.datetime\(.*?\)\)|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*"
)
_DRAWN = re.compile(r"[\s\u2500-\u259f]+|\d+(\.\d+)? ?%")
# Nothing may happen in one of the two services at another moment than in the other: no compaction by itself.
_ALIKE = {
    "storage": {"durability": "async"},
    "engine": {"threads": 1},
    "compaction": {"enabled": False},
    "manifest": {"small_batch_rows": 4_096},
}
Outcome = tuple[object, ...]

SETUP = (
    "CREATE USER TABLE notes (id BIGINT PRIMARY KEY, text TEXT, n INT)",
    "CREATE USER TABLE pairs (id BIGINT PRIMARY KEY, text TEXT, n INT) WITH (BLOOM_FILTER_COLUMNS = 'id,text')",
    "CREATE STREAM TABLE events (id BIGINT PRIMARY KEY, text TEXT, n INT) WITH (TTL_SECONDS = 36000)",
    "CREATE VIEW my_notes AS SELECT id, text, n FROM notes",
    "CREATE VIEW my_union AS SELECT id, text, n FROM notes UNION ALL SELECT id, text, n FROM pairs",
)


class House:
    """One of the two services.

    :param haunted: the neighbour is at home.
    """

    def __init__(self, folder: Path, *, haunted: bool) -> None:
        self.world = World(folder, _ALIKE)
        self.root = self.world.session()
        for name, role in ((ME, Role.USER), (NEIGHBOUR, Role.USER), ("svc", Role.SERVICE)):
            self.world.user(name, role)
        for sql in SETUP:
            self.root.update(sql, None)
        self.mine = Call(self.world.session(ME, Role.USER), {})
        service = self.world.session("svc", Role.SERVICE)
        self.for_me = Call(service, {HEADER: ME})
        self.by_clause = Call(service, {})
        for table in ("notes", "pairs", "events"):
            self.mine.update(f"INSERT INTO {table} SELECT i, 'mine ' || i, i FROM range(8) AS t(i)", None)
        self.neighbour: Session | None = self.world.session(NEIGHBOUR, Role.USER) if haunted else None
        if self.neighbour is not None:
            self._move_in(self.neighbour)

    def _move_in(self, neighbour: Session) -> None:
        rows = "SELECT i, 'CANARY-' || i, i FROM range(0, 200) AS t(i)"
        for table in ("notes", "pairs", "events"):
            neighbour.update(f"INSERT INTO {table} {rows}", None)
        self.root.update(
            "CREATE SHARED TABLE vault (id BIGINT PRIMARY KEY, text TEXT, n INT) WITH (ACCESS_LEVEL = 'DBA')", None
        )
        self.root.update(f"INSERT INTO vault {rows}", None)
        self.haunt(random.Random(1))

    def haunt(self, r: random.Random) -> None:
        """The neighbour writes, deletes and is flushed, as neighbours do."""
        if self.neighbour is None:
            return
        for table in ("notes", "pairs"):
            self.neighbour.update(f"UPDATE {table} SET n = n + 1 WHERE id % 7 = {r.randrange(7)}", None)
            self.neighbour.update(f"DELETE FROM {table} WHERE id = {r.randrange(200)}", None)
            self.neighbour.update(f"INSERT OR REPLACE INTO {table} VALUES ({r.randrange(200)}, 'CANARY again', 1)", None)

    def flush(self) -> None:
        for table in ("notes", "pairs"):
            list(self.root.query(f"FLUSH TABLE {table} WAIT"))

    def handle(self) -> bytes:
        """A ticket of the neighbour's, or one that never was."""
        if self.neighbour is None:
            return b"\0" * 16
        return self.neighbour.plan("SELECT * FROM notes", None).handle


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, House]]:
    folder = tmp_path_factory.mktemp("isolation")
    both = House(folder / "first", haunted=True), House(folder / "other", haunted=False)
    yield both
    for house in both:
        house.world.close()


def outcome(run: Callable[[], pa.Table | int | None]) -> Outcome:
    try:
        found = run()
    except KalamError as e:
        return "error", e.sqlstate, _MEASURED.sub("", e.message)
    if not isinstance(found, pa.Table):
        return "count", found
    told = found.to_pylist()
    if found.column_names == ["plan"] and any("Total Time" in str(row) for row in told):
        # The engine draws its times among its rows, and wraps both as they happen to fit; what is read stands above that.
        told = told[: next(i for i, row in enumerate(told) if not str(row["plan"]).strip())]
    rows = sorted(_MEASURED.sub("", str(row)) for row in told)
    if found.column_names == ["plan"]:  # a figure of time moves all that stands around it in the drawing
        rows = sorted(_DRAWN.sub(" ", row) for row in rows)
    return "rows", tuple(found.column_names), tuple(rows)


def ask(caller: Call, sql: str, door: int) -> pa.Table | int:
    """Through one of the ways that a statement can come by."""
    if door == 0:
        prepared = caller.prepare(sql, None)
        try:
            if prepared.is_update:
                return caller.update_prepared(prepared.handle, None)
            return _read(caller, caller.plan_prepared(prepared.handle).handle)
        finally:
            caller.close_prepared(prepared.handle)
    if door == 1:
        return caller.update(sql, None)
    return _read(caller, caller.plan(sql, None).handle)


def _read(caller: Call, handle: bytes) -> pa.Table:
    rows = caller.fetch(handle)
    return pa.Table.from_batches(list(rows), rows.schema)


def _metadata(caller: Call, what: int) -> pa.Table:
    if what == 0:
        found: list[Any] = [(t.schema, t.name, str(t.arrow_schema)) for t in caller.tables(None, None, "%", (), True)]
    elif what == 1:
        found = [(key,) for key in caller.primary_key(None, "main", "vault")]
    else:
        found = list(caller.schemas(None, None))
    return pa.table({"found": [str(f) for f in found]})


def test_what_a_neighbour_has_changes_no_answer(houses: tuple[House, House]) -> None:
    logged = io.StringIO()
    telemetry.configure(LogConfig(level="debug"), stream=logged)
    haunted, quiet = houses
    r = random.Random(SEED)
    made = {
        "mine": Statements(SEED, "**/*.parquet"),
        "for_me": Statements(SEED + 1, "**/*.parquet"),
        "by_clause": Statements(SEED + 2, "**/*.parquet", f" AS USER '{ME}'"),
    }
    differing: list[str] = []
    refused = answered = 0
    sent: dict[str, list[str]] = {name: [] for name in made}
    for i in range(STATEMENTS // 2):
        who = r.choices(["mine", "for_me", "by_clause"], [80, 15, 5])[0]
        kind = r.random()
        if kind < 0.02:
            sql, run = "a ticket", lambda house: _read(house.mine, house.handle())
        elif kind < 0.04:
            what = r.randrange(3)
            sql, run = f"metadata {what}", lambda house, what=what, who=who: _metadata(getattr(house, _mine(who)), what)
        else:
            # Some once more: what they meet has changed, and what was planned for them may not be remembered wrongly.
            again = kind < 0.3 and len(sent[who]) > 100
            sql, door = r.choice(sent[who]) if again else made[who].one(), r.choice([0, 1, 2, 2])
            sent[who].append(sql)
            if who != "mine" and NEIGHBOUR in sql.replace("/*", "").replace("--", ""):
                continue  # a service may act for the neighbour
            run = lambda house, who=who, sql=sql, door=door: ask(getattr(house, who), sql, door)  # noqa: E731
        first, second = outcome(lambda run=run: run(haunted)), outcome(lambda run=run: run(quiet))
        refused, answered = refused + (second[0] == "error"), answered + (second[0] == "rows")
        if first != second or CANARY in str(first).replace(_quoted(sql), ""):
            differing.append(f"{i} {who}: {sql}\n  haunted: {str(first)[:600]}\n  quiet:   {str(second)[:600]}")
            assert len(differing) < 5, "\n".join(differing)
        if i % 400 == 399:
            haunted.haunt(r)
        if i % 2_000 == 1_999:
            haunted.flush()
            quiet.flush()
    assert not differing, "\n".join(differing)
    assert CANARY not in logged.getvalue()
    assert answered > STATEMENTS // 8 and refused > STATEMENTS // 20, (answered, refused)


def _mine(who: str) -> str:
    return who if who != "by_clause" else "for_me"  # metadata commands have no text to put a clause into


def _quoted(sql: str) -> str:
    """What an error may say back: the sender's own words."""
    return CANARY if CANARY in sql else "\0"
