"""Pruning never changes an answer (SEMANTICS §4): generated predicates, orders and limits over every type, against queries of a
form that prunes nothing.

The truth of a predicate is taken from the select list, where it excludes no batch; the pruned scan must still hold every row
for which it is true.  So a thousand predicates cost one query.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from kalam_world import InProcess, Refused, World

from flightkalam.model.demand import EVERYTHING, Extremes, First, RowCount
from flightkalam.query import planner
from flightkalam.query.planner import Bound, TableRelation
from flightkalam.table.scan import ScanPlan, scan
from flightkalam.table.snapshot import Snapshot

COLUMNS = """k BIGINT PRIMARY KEY, i INT, s SMALLINT, d DECIMAL(8,2), r REAL, f DOUBLE, t TEXT, b BOOLEAN, bl BLOB, u UUID,
  da DATE, tm TIME, ts TIMESTAMP, tz TIMESTAMPTZ, old_name INT, gone INT"""
FILTERED = "k,i,s,d,t,bl,u,da,tm,ts,tz,old_name"
TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "abc",
    "ß",
    "ẞ",
    "é",
    "e\u0301",
    "日本",
    "z" * 31,
    "z" * 32,
    "z" * 33,
    "z" * 40 + "q",
    "\U0010ffff" * 9,
    "a%",
    "a_b",
]
FLOATS = ["0.0", "-0.0", "'NaN'", "'Infinity'", "'-Infinity'", "0.1", "-2.5", "1e300", "16777217", "3"]


def _uuid(rng: random.Random) -> str:
    return f"550e8400-e29b-41d4-a716-4466554400{rng.randrange(60):02x}"


def _sql_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# Column -> a value of it as SQL, from a small pool so that values meet.
VALUES: dict[str, Any] = {
    "k": lambda r: str(r.randrange(4000)),
    "i": lambda r: str(r.choice([r.randrange(-50, 50), 2**31 - 1, -(2**31)])),
    "s": lambda r: str(r.randrange(-20, 20)),
    "d": lambda r: f"{r.randrange(-3000, 3000) / 100:.2f}",
    "r": lambda r: f"CAST({r.choice(FLOATS[:7])} AS REAL)",
    "f": lambda r: f"CAST({r.choice(FLOATS)} AS DOUBLE)",
    "t": lambda r: _sql_text(r.choice(TEXTS)),
    "b": lambda r: r.choice(["true", "false"]),
    "bl": lambda r: r.choice(["'a'::BLOB", "''::BLOB", r"'\x00'::BLOB", r"'\xFF\xFF'::BLOB"]),
    "u": lambda r: f"'{_uuid(r)}'",
    "da": lambda r: f"DATE '2024-0{r.randrange(1, 10)}-{r.randrange(10, 29)}'",
    "tm": lambda r: f"TIME '{r.randrange(24):02}:00:00.{r.randrange(3)}'",
    "ts": lambda r: f"TIMESTAMP '2024-01-{r.randrange(10, 29)} {r.randrange(24):02}:00:00'",
    "tz": lambda r: f"TIMESTAMPTZ '2024-01-{r.randrange(10, 29)} {r.randrange(24):02}:00:00+00'",
    "old_name": lambda r: str(r.randrange(30)),
    "gone": lambda r: str(r.randrange(30)),
}
# Literals of other types and awkward forms, for any column of the family.
NUMBERS = [
    "1",
    "1.0",
    "1.5",
    "'1'",
    "1e0",
    "-1",
    "2147483648",
    "99999999999999999999",
    "0.01",
    "CAST(3 AS DOUBLE)",
    "NULL",
    "-0.0",
    "'7'",
]
ODD: dict[str, list[str]] = {
    **dict.fromkeys(("k", "i", "s", "d", "r", "f", "new_name", "added"), NUMBERS),
    "r": [*NUMBERS, "0.1", "CAST(0.1 AS REAL)", "'NaN'::REAL", "1e300"],
    "f": [*NUMBERS, "'NaN'::DOUBLE", "'Infinity'::DOUBLE", "0.1"],
    "t": ["NULL", "'zz'", "'z'", "1::VARCHAR"],
    "da": ["'2024-03-15'", "TIMESTAMP '2024-03-15 00:00:00'", "TIMESTAMP '2024-03-15 12:00:00'", "NULL"],
    "ts": ["'2024-01-15'", "DATE '2024-01-15'", "NULL", "'2024-01-15 10:00:00'"],
    "tz": ["'2024-01-15'", "DATE '2024-01-15'", "TIMESTAMP '2024-01-15 10:00:00'", "'2024-01-15 12:00:00+02'", "NULL"],
    "u": ["NULL", "'550E8400-E29B-41D4-A716-446655440001'"],
    "late": ["NULL", "'x'"],
}
NOW = {**VALUES, "new_name": VALUES["old_name"], "added": VALUES["s"], "late": VALUES["t"]}
NAMES = [n for n in NOW if n not in ("old_name", "gone")]


def insert(rng: random.Random, columns: list[str], keys: list[int]) -> str:
    rows = []
    for key in keys:
        values = [str(key) if c == "k" else "NULL" if rng.random() < 0.15 else NOW[c](rng) for c in columns]
        rows.append("(" + ", ".join(values) + ")")
    return f"INSERT OR REPLACE INTO zoo ({', '.join(columns)}) VALUES {', '.join(rows)}"


def build(client: InProcess) -> None:
    """Batches under four schemas, with superseded rows, tombstones, and rows that are still hot."""
    rng = random.Random(11)
    client.run(
        f"CREATE TABLE zoo ({COLUMNS}) WITH (COMPACTION='manual', BLOOM_FILTER_COLUMNS='{FILTERED}', FLUSH_POLICY='rows:1000000')"
    )
    columns = list(VALUES)
    keys = rng.sample(range(4000), 460)

    def write(n: int) -> None:
        client.run(insert(rng, columns, [*keys[:n], *rng.sample(range(4000), 3)]))
        del keys[:n]

    def flush() -> None:
        client.run("FLUSH TABLE zoo WAIT")

    for _ in range(5):
        write(40)
        flush()
    client.run("ALTER TABLE zoo ALTER COLUMN i SET DATA TYPE BIGINT")
    client.run("ALTER TABLE zoo ALTER COLUMN r SET DATA TYPE DOUBLE")
    client.run("ALTER TABLE zoo ALTER COLUMN d SET DATA TYPE DECIMAL(12,3)")
    client.run("ALTER TABLE zoo RENAME COLUMN old_name TO new_name")
    client.run("ALTER TABLE zoo DROP COLUMN gone")
    columns[columns.index("old_name")] = "new_name"
    columns.remove("gone")
    write(40)
    flush()
    client.run("ALTER TABLE zoo ADD COLUMN gone INT")  # the old values must not come back (T-32)
    client.run("ALTER TABLE zoo DROP COLUMN gone")
    client.run("ALTER TABLE zoo ADD COLUMN added SMALLINT DEFAULT 7")
    client.run("ALTER TABLE zoo ADD COLUMN late TEXT")
    columns += ["added", "late"]
    for _ in range(3):
        write(40)
        client.run(f"DELETE FROM zoo WHERE k % 13 = {rng.randrange(13)}")
        flush()
    client.run("UPDATE zoo SET t = 'changed', f = 'NaN' WHERE k % 17 = 3")
    write(40)


@dataclass
class Zoo:
    world: World
    client: InProcess

    @property
    def snapshot(self) -> Snapshot:
        parts = self.world.kalam.parts
        return Snapshot.take(parts.scopes, parts.catalog.state.resolve(("zoo",), "main"), None, parts.scopes.door.watermark)

    def bound(self, sql: str) -> Bound:
        parts = self.world.kalam.parts
        table = parts.catalog.state.resolve(("zoo",), "main")
        return planner.bind(parts.guard.check(sql), parts.guard, lambda *_: TableRelation(table))

    def plan(self, sql: str) -> ScanPlan:
        (request,) = self.bound(sql).requests
        return scan(self.snapshot, request.predicate, tombstones=request.tombstones, demand=request.demand)

    def seqs(self, plan: ScanPlan) -> set[int]:
        """`_seq` of every row that a plan gives the engine."""
        snapshot = self.snapshot
        found = set() if plan.hot is None else set(plan.hot.column("_seq").to_pylist())
        entries = {str(snapshot.scope.folder / b.file): b for b in snapshot.state.manifest.batches}
        for path, dead in [*((p, ()) for p in plan.clean), *((d.path, d.dead) for d in plan.dirty)]:
            every = snapshot.scopes.keys.seqs(snapshot.scope.folder, entries[path], snapshot.table.schema)
            found.update(np.delete(every, np.array(list(dead), np.int64)).tolist())
        return found

    def rows(self, sql: str) -> pa.Table:
        table = self.client.run(sql).rows
        assert table is not None
        return table


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    world = World(Path(tmp_path_factory.mktemp("zoo")) / "data")
    client = world.in_process()
    build(client)
    yield Zoo(world, client)
    world.close()


# ---------------------------------------------------------------------------------------------------------------------
# Predicates


def literal(rng: random.Random, column: str) -> str:
    return rng.choice(ODD[column]) if column in ODD and rng.random() < 0.35 else NOW[column](rng)


def atom(rng: random.Random) -> str:
    c = rng.choice(NAMES)
    kind = rng.randrange(12)
    if kind < 5:
        a, b = c, literal(rng, c)
        if rng.random() < 0.2:
            a, b = b, a
        return f"{a} {rng.choice(['=', '=', '=', '<>', '<', '<=', '>', '>=', 'IS NOT DISTINCT FROM', 'IS DISTINCT FROM'])} {b}"
    if kind == 5:
        return f"{c} {rng.choice(['', 'NOT '])}BETWEEN {literal(rng, c)} AND {literal(rng, c)}"
    if kind < 8:
        return f"{c} {rng.choice(['', '', 'NOT '])}IN ({', '.join(literal(rng, c) for _ in range(rng.randrange(1, 6)))})"
    if kind == 8:
        return f"{c} IS {rng.choice(['', 'NOT '])}NULL"
    if kind == 9:
        return (
            f"t {rng.choice(['', 'NOT '])}LIKE {rng.choice(['a%', 'z%', '日%', '%', 'a_%', 'a!%', 'zzz%q', 'ß', 'changed'])!r}"
        )
    if kind == 10:
        return f"CAST({rng.choice(['i', 's', 'k', 'new_name'])} AS {rng.choice(['BIGINT', 'DOUBLE', 'VARCHAR', 'HUGEINT'])}) {rng.choice(['=', '<', '>'])} '5'"
    return rng.choice(["b", "NOT b", "b = true", "starts_with(t, 'z')", "NULL", "1 = 0", "_seq > 5", "_seq < 5"])


def predicate(rng: random.Random, depth: int = 0) -> str:
    if depth > 2 or rng.random() < 0.5:
        return atom(rng)
    parts = [predicate(rng, depth + 1) for _ in range(rng.randrange(2, 4))]
    joined = f" {rng.choice(['AND', 'OR'])} ".join(f"({p})" for p in parts)
    return f"NOT ({joined})" if rng.random() < 0.25 else joined


def truths(zoo: Zoo, predicates: list[str]) -> dict[str, set[int]]:
    """The `_seq`s for which each predicate is true, without pruning; one that the engine refuses is left out."""
    marks = ", ".join(f"({p}) IS TRUE AS p{i}" for i, p in enumerate(predicates))
    try:
        table = zoo.rows(f"SELECT _seq AS n, {marks} FROM zoo")
    except Refused:
        if len(predicates) == 1:
            return {}
        half = len(predicates) // 2
        return truths(zoo, predicates[:half]) | truths(zoo, predicates[half:])
    seqs = table.column("n").to_numpy()
    return {p: set(seqs[table.column(f"p{i}").to_numpy()].tolist()) for i, p in enumerate(predicates)}


def check_predicates(zoo: Zoo, seed: int, n: int) -> None:
    rng = random.Random(seed)
    known: dict[str, set[int]] = {}
    while len(known) < n:
        known |= truths(zoo, [predicate(rng) for _ in range(80)])
    spared = 0
    for text, expected in known.items():
        plan = zoo.plan(f"SELECT * FROM zoo WHERE {text}")
        missing = expected - zoo.seqs(plan)
        assert not missing, f"pruning loses rows of: {text}"
        spared += plan.figures.pruned_by_range + plan.figures.pruned_by_bloom
    assert spared > len(known), "the generator makes nothing that prunes"


def test_generated_predicates_lose_no_row(zoo: Zoo) -> None:
    check_predicates(zoo, 1, 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
def test_many_more_predicates_lose_no_row(zoo: Zoo, seed: int) -> None:
    check_predicates(zoo, seed, 4_000)


def test_every_stored_value_is_found_by_equality(zoo: Zoo) -> None:
    """One equality per value and column, through the engine, against the same over a subquery."""
    for column in NAMES:
        values = zoo.rows(
            f"SELECT DISTINCT {column} AS v FROM (SELECT * FROM zoo) WHERE {column} IS NOT NULL ORDER BY v"
        ).column("v")
        rng = random.Random(column)
        for _ in range(6):
            value = rng.choice(values.to_pylist())
            text = _as_sql(value, column)
            where = f"WHERE {column} = {text}"
            pruned = zoo.rows(f"SELECT k FROM zoo {where} ORDER BY k").column("k").to_pylist()
            whole = zoo.rows(f"SELECT k FROM (SELECT * FROM zoo) AS z {where} ORDER BY k").column("k").to_pylist()
            assert pruned == whole, (column, value)
            assert whole or column == "f"


def _as_sql(value: Any, column: str) -> str:
    if isinstance(value, bytes):
        return "'" + "".join(f"\\x{b:02X}" for b in value) + "'::BLOB"
    if isinstance(value, float):
        return "'NaN'::DOUBLE" if math.isnan(value) else f"'{value!r}'::DOUBLE"
    if column == "tz":
        return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
    return _sql_text(str(value)) if not isinstance(value, bool | int) else str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Less than all rows


ORDERS = ["", "ASC", "DESC", "ASC NULLS FIRST", "DESC NULLS FIRST", "DESC NULLS LAST"]


@pytest.mark.parametrize("column", [*NAMES, "_seq"])
def test_the_first_rows_in_an_order_are_the_right_ones(zoo: Zoo, column: str) -> None:
    for order in ORDERS:
        for limit in (1, 3, 40, 10_000):
            tail = f"ORDER BY {column} {order}, k LIMIT {limit}"
            pruned = zoo.rows(f"SELECT k, {column} AS v FROM zoo {tail}")
            whole = zoo.rows(f"SELECT k, v FROM (SELECT k, {column} AS v FROM zoo) {tail.replace(column, 'v', 1)}")
            assert str(pruned.to_pylist()) == str(whole.to_pylist()), tail


def test_an_order_reads_only_the_batches_that_can_win(zoo: Zoo) -> None:
    for order, others in (("ASC", "NULLS FIRST"), ("DESC", "NULLS LAST, t")):
        plan = zoo.plan(f"SELECT k FROM zoo ORDER BY _seq {order} {others} LIMIT 2")
        assert 0 < plan.figures.batches_read <= 2


def test_limit_reads_as_many_batches_as_it_needs_and_dead_rows_do_not_count(zoo: Zoo) -> None:
    total = zoo.rows("SELECT count(k) AS n FROM zoo").column("n")[0].as_py()
    whole = zoo.rows("SELECT k FROM (SELECT * FROM zoo)").column("k").to_pylist()
    for limit, offset in ((1, 0), (5, 30), (60, 0), (total - 1, 0), (total, 0), (5, total - 5), (total, total), (10, 3)):
        plan = zoo.plan(f"SELECT k FROM zoo LIMIT {limit} OFFSET {offset}")
        assert len(zoo.seqs(plan)) >= min(limit + offset, total)
        page = zoo.rows(f"SELECT k FROM zoo LIMIT {limit} OFFSET {offset}").column("k").to_pylist()
        assert len(page) == max(0, min(limit, total - offset))
        assert set(page) <= set(whole)
    assert zoo.plan("SELECT k FROM zoo LIMIT 1").figures.batches_read == 1


def test_pages_without_an_order_show_each_row_once(zoo: Zoo) -> None:
    seen: list[int] = []
    while page := zoo.rows(f"SELECT k FROM zoo LIMIT 37 OFFSET {len(seen)}").column("k").to_pylist():
        seen += page
    assert sorted(seen) == zoo.rows("SELECT k FROM (SELECT * FROM zoo) ORDER BY k").column("k").to_pylist()


@pytest.mark.parametrize("column", [*NAMES, "_seq"])
def test_the_ends_of_a_column_are_the_right_ones(zoo: Zoo, column: str) -> None:
    found = zoo.rows(f"SELECT min({column}) AS a, max({column}) AS b, max(k) AS c FROM zoo")
    whole = zoo.rows(f"SELECT min(v) AS a, max(v) AS b, max(k) AS c FROM (SELECT {column} AS v, k FROM zoo)")
    assert found.schema == whole.schema
    assert str(found.to_pylist()) == str(whole.to_pylist())


def test_counting_reads_no_file(zoo: Zoo) -> None:
    whole = zoo.rows("SELECT count(k) AS n FROM zoo").column("n")[0].as_py()
    for text in (
        "SELECT count(*) AS n FROM zoo",
        "SELECT count(1) AS n FROM zoo",
        "SELECT sum(1)::BIGINT AS n FROM zoo",
        "SELECT count(*) AS n FROM zoo AS z",
    ):
        assert zoo.rows(text).column("n")[0].as_py() == whole
        figures = zoo.plan(text).figures
        assert (figures.batches_read, figures.pruned_by_range) == (0, figures.batches_total)
    assert zoo.rows("SELECT count(*) AS n FROM zoo WHERE 1 = 0").column("n")[0].as_py() == 0
    assert zoo.rows("SELECT 1 AS n FROM zoo").num_rows == whole


def test_a_transaction_counts_and_orders_what_it_wrote(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (k BIGINT PRIMARY KEY, v INT)")
    for i in range(3):
        root.run(f"INSERT INTO t SELECT range, range FROM range({i * 10}, {i * 10 + 10})")
        root.run("FLUSH TABLE t WAIT")
    root.run("BEGIN")
    root.run("DELETE FROM t WHERE k < 12")
    root.run("INSERT INTO t VALUES (-1, 500)")
    assert run(root, "SELECT count(*) FROM t") == [(19,)]
    assert run(root, "SELECT k FROM t ORDER BY v LIMIT 2") == [(12,), (13,)]
    assert run(root, "SELECT max(v), min(k) FROM t") == [(500, -1)]
    assert len(run(root, "SELECT k FROM t LIMIT 15")) == 15
    root.run("ROLLBACK")
    assert run(root, "SELECT count(*), 1 FROM t") == [(30, 1)]


def run(client: InProcess, sql: str) -> list[tuple[Any, ...]]:
    table = client.run(sql).rows
    assert table is not None
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM zoo LIMIT 5", First),
        ("SELECT k + 1, upper(t) FROM zoo ORDER BY 1 LIMIT 5", None),
        ("SELECT k, t FROM zoo ORDER BY 2 LIMIT 5", First),
        ("SELECT k AS t, t AS k FROM zoo ORDER BY t LIMIT 5", First),
        ("FROM zoo ORDER BY zoo.t DESC LIMIT 5 OFFSET 2", First),
        ("SELECT count(*) FROM zoo", RowCount),
        ("SELECT min(k), max(main.zoo.t) FROM zoo", Extremes),
        ("SELECT count(*), min(k) FROM zoo", None),
        ("SELECT sum(k) FROM zoo LIMIT 1", None),
        ("SELECT unnest([k, k]) FROM zoo LIMIT 1", None),
        ("SELECT DISTINCT k FROM zoo LIMIT 1", None),
        ("SELECT k FROM zoo WHERE t = 'a' LIMIT 1", None),
        ("SELECT k FROM zoo GROUP BY k LIMIT 1", None),
        ("SELECT k, row_number() OVER () FROM zoo LIMIT 1", None),
        ("SELECT k FROM zoo QUALIFY row_number() OVER (ORDER BY t) = 3 LIMIT 1", None),
        ("SELECT k FROM zoo USING SAMPLE 3 LIMIT 1", None),
        ("SELECT k FROM zoo LIMIT 10%", None),
        ("SELECT k FROM zoo ORDER BY ALL LIMIT 1", None),
        ("SELECT k FROM zoo ORDER BY t COLLATE NOCASE LIMIT 1", None),
        ("SELECT k FROM zoo ORDER BY sum(k) OVER () LIMIT 1", None),
        ("SELECT min(k) FILTER (WHERE b) FROM zoo", None),
        ("SELECT min(k) FROM zoo WHERE b", None),
        ("SELECT #1 FROM zoo", None),
        ("SELECT zoo FROM zoo", None),
        ("SELECT min(zoo) FROM zoo", None),
        ("SELECT t FROM zoo UNION ALL SELECT t FROM range(3) r(t) LIMIT 1", None),
        ("SELECT max(k) FROM zoo AS z(a, k)", Extremes),
    ],
)
def test_only_certain_forms_need_less(zoo: Zoo, sql: str, expected: type | None) -> None:
    (request,) = zoo.bound(sql).requests
    assert isinstance(request.demand, expected) if expected is not None else request.demand is EVERYTHING


def test_an_alias_is_meant_before_a_column(zoo: Zoo) -> None:
    """`ORDER BY t` is the alias, which is the column k."""
    found = zoo.rows("SELECT k AS t, t AS k FROM zoo ORDER BY t DESC LIMIT 5").column("t").to_pylist()
    assert found == zoo.rows("SELECT k FROM (SELECT * FROM zoo) ORDER BY k DESC LIMIT 5").column("k").to_pylist()
