"""Predicates only weaken (T-27, T-28, T-30, T-34, T-35, T-39): every row the engine keeps satisfies them."""

from __future__ import annotations

import datetime as dt
import math
import random
from decimal import Decimal

import pyarrow as pa
import pytest
from query_house import House, make_rows, make_table

from flightkalam.errors import KalamError
from flightkalam.model.predicate import (
    FALSE,
    TRUE,
    All,
    Always,
    Any_,
    Comparable,
    Compare,
    EqualsSome,
    IsNotNull,
    IsNull,
    Never,
    OneOf,
    Predicate,
    StartsWith,
    comparable,
    replaced,
)
from flightkalam.model.schema import DELETED_ID, SEQ_ID
from flightkalam.query.compute import Setting

COLUMNS = {
    "k": "BIGINT",
    "n": "SMALLINT",
    "f": "DOUBLE",
    "r": "REAL",
    "d": "DECIMAL(10,2)",
    "w": "DECIMAL(38,10)",
    "s": "TEXT",
    "day": "DATE",
    "ts": "TIMESTAMP",
    "tz": "TIMESTAMPTZ",
    "tm": "TIME",
    "u": "UUID",
    "b": "BOOLEAN",
    "bl": "BLOB",
    "j": "JSON",
}
K, N, F, R, D, W, S, DAY, TS, TZ, TM, U, B, BL, J = range(1, 16)
UTC = dt.UTC

VALUES: dict[str, list[object]] = {
    "k": [0, 1, -1, 5, 9_007_199_254_740_993, 2**63 - 1, -(2**63), None],
    "n": [0, 1, -1, 5, 32767, None],
    "f": [0.0, -0.0, 1.0, 1.5, 0.1, math.nan, math.inf, -math.inf, 9_007_199_254_740_992.0, None],
    "r": [0.0, -0.0, 1.0, 0.5, 0.1, math.nan, math.inf, 16_777_216.0, None],
    "d": [Decimal("0"), Decimal("1.00"), Decimal("1.50"), Decimal("0.10"), Decimal("-1.25"), None],
    "w": [Decimal("1.0999999999"), Decimal("1.1"), Decimal("12345678901234567890.0000000001"), None],
    "s": ["", "a", "ab", "abc", "é", "z", "1", "2024-01-01", "%", None],
    "day": [dt.date(2024, 1, 1), dt.date(2024, 1, 2), dt.date(1970, 1, 1), dt.date(1, 1, 1), None],
    "ts": [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 12), dt.datetime(2024, 1, 2, 0, 0, 0, 1), None],
    "tz": [
        dt.datetime(2024, 1, 1, tzinfo=UTC),
        dt.datetime(2024, 1, 1, 12, tzinfo=UTC),
        dt.datetime(2023, 12, 31, 23, tzinfo=UTC),
        None,
    ],
    "tm": [dt.time(0), dt.time(12, 30), dt.time(23, 59, 59, 999_999), None],
    "u": ["00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff", None],
    "b": [True, False, None],
    "bl": [b"", b"\x00", b"a", b"\xab", None],
    "j": ["{}", "1", None],
}
LITERALS: dict[str, list[str]] = {
    "k": [
        "0",
        "1",
        "-1",
        "5",
        "1.0",
        "1.5",
        "-0.5",
        "1e0",
        "1.5e0",
        "'1'",
        "'5'",
        "9007199254740992",
        "9007199254740993",
        "9007199254740993.0",
        "9.007199254740993e15",
        "99999999999999999999",
        "-99999999999999999999",
        "1::SMALLINT",
        "CAST('5' AS BIGINT)",
        "1::DOUBLE",
        "NULL",
        "1::DECIMAL(4,2)",
        "true",
    ],
    "n": ["0", "1", "5", "40000", "-40000", "1.5", "'1'", "1e0", "NULL", "5::BIGINT"],
    "f": [
        "0",
        "0.0",
        "-0.0",
        "1",
        "0.1",
        "1.5",
        "1e0",
        "'0.1'",
        "'nan'",
        "'inf'",
        "'-inf'",
        "'nan'::DOUBLE",
        "9007199254740993",
        "0.1::REAL",
        "0.1::DOUBLE",
        "NULL",
        "0.1000000000000000055",
    ],
    "r": [
        "0",
        "1",
        "0.5",
        "0.1",
        "'0.1'",
        "'0.5'",
        "0.1::REAL",
        "0.1::DOUBLE",
        "0.5::DOUBLE",
        "16777217",
        "16777217.0",
        "'nan'",
        "NULL",
    ],
    "d": [
        "0",
        "1",
        "1.5",
        "1.500",
        "0.1",
        "0.105",
        "1e0",
        "'1.5'",
        "'0.105'",
        "'0.1'",
        "1.5::DOUBLE",
        "-1.25",
        "99999999999999999999999999999999999999",
        "NULL",
        "1.50::DECIMAL(10,2)",
    ],
    "w": [
        "1.1",
        "1.1e0",
        "1.1::DOUBLE",
        "'1.1'",
        "1.0999999999",
        "12345678901234567890.0000000001",
        "1.10999999999999999999999",
        "12345678901234567890",
    ],
    "s": ["''", "'a'", "'ab'", "'abc'", "'é'", "'%'", "1", "'a'::VARCHAR", "NULL", "DATE '2024-01-01'", "E'a'", "$$a$$"],
    "day": [
        "'2024-01-01'",
        "DATE '2024-01-01'",
        "'2024-01-01 12:00:00'",
        "TIMESTAMP '2024-01-01 12:00:00'",
        "TIMESTAMP '2024-01-01'",
        "'2024-1-2'",
        "TIMESTAMPTZ '2024-01-01 00:00:00+00'",
        "'epoch'",
        "'0001-01-01'",
        "NULL",
    ],
    "ts": [
        "'2024-01-01'",
        "'2024-01-01 12:00:00'",
        "'2024-01-01T12:00:00'",
        "'2024-01-01 12:00:00+02'",
        "TIMESTAMP '2024-01-02 00:00:00.000001'",
        "DATE '2024-01-02'",
        "'2024-01-01 12:00'",
        "TIMESTAMPTZ '2024-01-01 12:00:00+02'",
        "'2024-01-02 00:00:00.0000009'",
        "NULL",
    ],
    "tz": [
        "'2024-01-01'",
        "'2024-01-01 12:00:00'",
        "'2024-01-01 12:00:00+00'",
        "'2024-01-01 00:00:00+01'",
        "'2024-01-01 05:30:00+05:30'",
        "'2024-01-01 00:00:00Z'",
        "TIMESTAMP '2024-01-01 12:00:00'",
        "DATE '2024-01-01'",
        "TIMESTAMPTZ '2024-01-01 00:00:00-01'",
        "NULL",
    ],
    "tm": ["'12:30:00'", "TIME '12:30:00'", "'23:59:59.999999'", "'12:30'", "'24:00:00'", "NULL"],
    "u": [
        "'00000000-0000-0000-0000-000000000001'",
        "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'",
        "'00000000000000000000000000000001'",
        "'80000000-0000-0000-0000-000000000000'::UUID",
        "NULL",
    ],
    "b": ["true", "false", "'true'", "'t'", "1", "0", "NULL"],
    "bl": ["'a'", "'\\xAB'", "'\\xAB'::BLOB", "''", "'a'::BLOB", "NULL"],
    "j": ["'{}'", "NULL"],
}
OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]


def holds(predicate: Predicate, row: dict[int, Comparable | None], nan: set[int]) -> bool:
    """What a predicate means for one row; NaN is above every number, as in the engine."""
    if isinstance(predicate, Always):
        return True
    if isinstance(predicate, Never):
        return False
    if isinstance(predicate, All):
        return all(holds(p, row, nan) for p in predicate.parts)
    if isinstance(predicate, Any_):
        return any(holds(p, row, nan) for p in predicate.parts)
    if predicate.column in nan:
        return not (
            isinstance(predicate, IsNull | OneOf) or (isinstance(predicate, Compare) and predicate.op in ("=", "<", "<="))
        )
    value = row[predicate.column]
    if isinstance(predicate, IsNull):
        return value is None
    if isinstance(predicate, IsNotNull):
        return value is not None
    if value is None:
        return False
    if isinstance(predicate, EqualsSome):
        return True  # at most: a value from elsewhere is known at planning
    if isinstance(predicate, OneOf):
        return value in predicate.values
    if isinstance(predicate, StartsWith):
        return isinstance(value, bytes) and value.startswith(predicate.prefix)
    less, equal = value < predicate.value, value == predicate.value  # type: ignore[operator]
    return {"=": equal, "!=": not equal, "<": less, "<=": less or equal, ">": not (less or equal), ">=": not less}[predicate.op]


class World:
    """One table with a row for each corner, and what each row is to a predicate."""

    def __init__(self, house: House) -> None:
        rng = random.Random(7)
        rows: list[dict[str, object]] = []
        for name, values in VALUES.items():
            for value in values:
                row = {c: rng.choice(v) for c, v in VALUES.items()}
                row[name] = value
                rows.append(row)
        self.house = house
        columns = {"id": "BIGINT", **COLUMNS}
        self.table = house.add(make_table("t", columns), hot=[{"id": i, **r} for i, r in enumerate(rows)])
        stored = make_rows(self.table, [{"id": i, **r} for i, r in enumerate(rows)])
        self.rows: list[dict[int, Comparable | None]] = []
        self.nan: list[set[int]] = []
        for i in range(stored.num_rows):
            scalars = {c.id: (stored.column(c.name)[i], c.type) for c in self.table.schema.columns}
            self.rows.append(
                {j: comparable(s, t) if t.has_bounds else (b"" if s.is_valid else None) for j, (s, t) in scalars.items()}
            )
            self.nan.append({j for j, (s, t) in scalars.items() if t.kind == "float" and s.is_valid and s.as_py() != s.as_py()})

    def check(self, condition: str, zone: str = "UTC") -> Predicate | None:
        """The predicate of a condition, proved on every row; None when the engine refuses the condition."""
        try:
            kept = self.house.rows(f"SELECT id FROM t WHERE {condition}", setting=Setting(zone))
        except KalamError:
            return None
        predicate = self.house.requests[0].predicate
        for (i,) in kept:
            assert isinstance(i, int)
            assert holds(predicate, self.rows[i], self.nan[i]), f"{condition}: {predicate} loses {self.rows[i]}"
        return predicate


@pytest.fixture
def world(house: House) -> World:
    return World(house)


@pytest.mark.parametrize("column", sorted(LITERALS))
def test_a_comparison_keeps_every_row_that_the_engine_keeps(world: World, column: str) -> None:
    useful = 0
    for literal in LITERALS[column]:
        conditions = [f"{column} {operator} {literal}" for operator in OPERATORS]
        conditions += [f"{literal} < {column}", f"NOT ({column} >= {literal})", f"NOT ({literal} = {column})"]
        useful += sum(world.check(c) not in (None, TRUE) for c in conditions)
    assert useful > 5 or column == "j"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Zurich", "America/New_York"])
def test_time_zones_never_lose_a_row(world: World, zone: str) -> None:
    """T-34: a text without a zone is a time of the session's zone."""
    for column in ("tz", "ts", "day"):
        for literal in LITERALS[column]:
            for operator in ("=", "<", ">="):
                world.check(f"{column} {operator} {literal}", zone)


def test_random_conditions_never_lose_a_row(world: World) -> None:
    rng = random.Random(11)
    useful = 0
    for _ in range(300):
        useful += world.check(_condition(rng, 3)) not in (None, TRUE)
    assert useful > 60


def _condition(rng: random.Random, depth: int) -> str:
    if depth and rng.random() < 0.55:
        a, b = _condition(rng, depth - 1), _condition(rng, depth - 1)
        return rng.choice([f"({a} AND {b})", f"({a} OR {b})", f"NOT ({a})", f"({a} AND k > id)", f"({a} OR s = j::VARCHAR)"])
    column = rng.choice(sorted(LITERALS))
    one, two, three = (rng.choice(LITERALS[column]) for _ in range(3))
    return rng.choice(
        [
            f"{column} {rng.choice(OPERATORS)} {one}",
            f"{column} IN ({one}, {two}, {three})",
            f"{column} NOT IN ({one}, {two})",
            f"{column} BETWEEN {one} AND {two}",
            f"{column} NOT BETWEEN {one} AND {two}",
            f"{column} IS NULL",
            f"{column} IS NOT NULL",
            "s LIKE 'a%'",
            "s LIKE 'a_'",
            "s LIKE '%b'",
            "s NOT LIKE 'a%'",
            "s LIKE 'abc'",
            "s ILIKE 'A%'",
            "starts_with(s, 'ab')",
            "s ^@ 'a'",
            "b",
            "NOT b",
            "b IS TRUE",
            "b IS NOT FALSE",
            "true",
            "NULL",
            "1 = 0",
            f"coalesce({column}, {one}) = {two}",
            f"CASE WHEN b THEN {column} = {one} ELSE false END",
        ]
    )


# ---------------------------------------------------------------------------------------------------------------
# How much is understood


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("k = 5", Compare(K, "=", 5)),
        ("5 < k", Compare(K, ">", 5)),
        ("k = 5.0", Compare(K, "=", 5)),
        ("k = '5'", Compare(K, "=", 5)),
        ("k = CAST('5' AS BIGINT)", Compare(K, "=", 5)),
        ("k > 1.5", Compare(K, ">", 1)),
        ("k <= 1.5", Compare(K, "<=", 1)),
        ("k = 1.5", FALSE),
        ("k <> 1.5", IsNotNull(K)),
        ("k < 99999999999999999999", IsNotNull(K)),
        ("k > 99999999999999999999", FALSE),
        ("k = NULL", FALSE),
        ("k = -5", Compare(K, "=", -5)),
        ("NOT k > 5", Compare(K, "<=", 5)),
        ("k IN (1, 2, 1, NULL)", OneOf(K, (1, 2))),
        ("k NOT IN (1, 2)", All((Compare(K, "!=", 1), Compare(K, "!=", 2)))),
        ("k NOT IN (1, NULL)", FALSE),
        ("k BETWEEN 1 AND 3", All((Compare(K, ">=", 1), Compare(K, "<=", 3)))),
        ("NOT k BETWEEN 1 AND 3", Any_((Compare(K, "<", 1), Compare(K, ">", 3)))),
        ("k = 1 OR k = 2", Any_((Compare(K, "=", 1), Compare(K, "=", 2)))),
        ("k = 1 OR f > s", TRUE),
        ("k = 1 AND f > s", Compare(K, "=", 1)),
        ("NOT (k = 1 AND f > s)", TRUE),
        ("NOT (k = 1 OR f > s)", Compare(K, "!=", 1)),
        ("f > 1", Compare(F, ">", 1.0)),
        ("f = 'nan'", TRUE),
        ("r = 0.5", Compare(R, "=", 0.5)),
        ("r = 0.1", TRUE),
        ("d > 1.255", Compare(D, ">", 125)),
        ("d = 1.5", Compare(D, "=", 150)),
        ("d = 1.5e0", TRUE),
        ("s = 'ab'", Compare(S, "=", b"ab")),
        ("s LIKE 'ab%c'", StartsWith(S, b"ab")),
        ("s LIKE 'ab'", Compare(S, "=", b"ab")),
        ("s LIKE '%'", IsNotNull(S)),
        ("starts_with(s, 'é')", StartsWith(S, "é".encode())),
        ("lower(s) = 'a'", TRUE),
        ("s COLLATE NOCASE = 'a'", TRUE),
        ("day = '2024-01-01'", Compare(DAY, "=", 19723)),
        ("day > TIMESTAMP '2024-01-01 12:00:00'", Compare(DAY, ">", 19723)),
        ("ts = DATE '1970-01-02'", Compare(TS, "=", 86_400_000_000)),
        ("tz = '1970-01-01 01:00:00+01'", Compare(TZ, "=", 0)),
        ("tm = '00:00:01'", Compare(TM, "=", 1_000_000)),
        ("u = '00000000-0000-0000-0000-0000000000AB'", Compare(U, "=", b"00000000-0000-0000-0000-0000000000ab")),
        ("b", Compare(B, "=", 1)),
        ("NOT b", Compare(B, "=", 0)),
        ("bl = '\\xAB'", Compare(BL, "=", b"\xab")),
        ("j IS NULL", IsNull(J)),
        ("j = '{}'", TRUE),
        ("1 = 0", FALSE),
        ("_seq > 7", Compare(SEQ_ID, ">", 7)),
        ("_deleted", Compare(DELETED_ID, "=", 1)),
        (
            "t.k = 5 AND main.t.k < 9 AND flightkalam.main.t.k > 1",
            All((Compare(K, "=", 5), Compare(K, "<", 9), Compare(K, ">", 1))),
        ),
        ("k = (SELECT 5)", TRUE),
        ("k > random()", TRUE),
    ],
)
def test_what_is_understood(house: House, condition: str, expected: Predicate) -> None:
    house.add(make_table("t", COLUMNS))
    assert house.predicate(f"SELECT 1 FROM t WHERE {condition}") == expected


def test_a_text_against_timestamptz_counts_in_the_sessions_zone(house: House) -> None:
    house.add(make_table("t", COLUMNS))
    text = "SELECT 1 FROM t WHERE tz = '1970-01-01 00:00:00'"
    assert house.predicate(text) == Compare(TZ, "=", 0)
    assert house.predicate(text, zone="Europe/Zurich") == TRUE


def test_a_bound_parameter_prunes_like_a_literal(house: House) -> None:
    house.add(make_table("t", COLUMNS))
    text = "SELECT 1 FROM t WHERE {} = ?"
    cases: list[tuple[str, object, Predicate]] = [
        ("k", 5, Compare(K, "=", 5)),
        ("k", -5, Compare(K, "=", -5)),
        ("k", None, FALSE),
        ("k", pa.scalar(None, pa.int64()), FALSE),
        ("s", "it's", Compare(S, "=", b"it's")),
        ("f", 0.1, Compare(F, "=", 0.1)),
        ("d", Decimal("1.50"), Compare(D, "=", 150)),
        ("day", dt.date(2024, 1, 1), Compare(DAY, "=", 19723)),
        ("ts", dt.datetime(1970, 1, 1, 0, 0, 1), Compare(TS, "=", 1_000_000)),
        ("tz", dt.datetime(1970, 1, 1, 1, tzinfo=UTC), Compare(TZ, "=", 3_600_000_000)),
        ("tm", dt.time(0, 0, 1), Compare(TM, "=", 1_000_000)),
        ("b", True, Compare(B, "=", 1)),
        ("bl", b"\x00\xab", Compare(BL, "=", b"\x00\xab")),
    ]
    for column, value, expected in cases:
        assert house.predicate(text.format(column), value) == expected, column


# ---------------------------------------------------------------------------------------------------------------
# Which reference a condition binds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1 FROM a JOIN b ON a.k = b.k WHERE a.x = 1 AND b.y = 2", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a, b WHERE x = 1 AND y = 2", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a, b WHERE k = 1", ["", ""]),
        ("SELECT 1 FROM a JOIN b USING (k) WHERE k = 1", ["", ""]),
        ("SELECT 1 FROM a JOIN b ON a.k = b.k AND b.y = 2 AND a.x = 1", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a p JOIN a q ON p.k = q.k WHERE p.x = 1", ["a.x = 1", ""]),
        # outer joins
        ("SELECT 1 FROM a LEFT JOIN b ON a.k = b.k AND a.x = 1 AND b.y = 2", ["", "b.y = 2"]),
        ("SELECT 1 FROM a LEFT JOIN b ON a.k = b.k WHERE b.y = 2 AND a.x = 1", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a LEFT JOIN b ON a.k = b.k WHERE b.y IS NULL", ["", ""]),
        ("SELECT 1 FROM a LEFT JOIN b ON a.k = b.k WHERE b.y IS NULL OR b.y = 2", ["", ""]),
        ("SELECT 1 FROM a RIGHT JOIN b ON a.k = b.k AND a.x = 1 AND b.y = 2", ["a.x = 1", ""]),
        ("SELECT 1 FROM a FULL JOIN b ON a.k = b.k AND a.x = 1 WHERE b.y = 2", ["", "b.y = 2"]),
        ("SELECT 1 FROM a LEFT JOIN (b JOIN a q ON b.y = 2 AND q.x = 1) ON a.k = b.k", ["", "b.y = 2", "a.x = 1"]),
        ("SELECT 1 FROM (a LEFT JOIN b ON a.k = b.k) JOIN a q ON b.y IS NULL AND a.x IS NULL", ["a.x null", "", ""]),
        ("SELECT 1 FROM a SEMI JOIN b ON a.k = b.k AND b.y = 2 AND a.x = 1", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a ANTI JOIN b ON a.k = b.k AND b.y = 2 AND a.x = 1", ["", "b.y = 2"]),
        # joins in which a row that does not count decides which rows meet
        ("SELECT 1 FROM a ASOF JOIN b ON a.k >= b.k WHERE a.x = 1 AND b.y = 2", ["", ""]),
        ("SELECT 1 FROM a POSITIONAL JOIN b WHERE a.x = 1 AND b.y = 2", ["", ""]),
        # samples are drawn before WHERE
        ("SELECT 1 FROM a TABLESAMPLE 50% WHERE x = 1", [""]),
        ("SELECT 1 FROM a WHERE x = 1 USING SAMPLE 5", [""]),
        # conditions that stand elsewhere
        ("SELECT x = 1 FROM a", [""]),
        ("SELECT count(*) FROM a HAVING max(x) = 1", [""]),
        ("SELECT 1 FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE a.x = 1 AND b.y = 2)", ["", "b.y = 2"]),
        # of a row for which EXISTS is true its WHERE is true once
        ("SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.x = 1 AND b.y = 2)", ["a.x = 1", "b.y = 2"]),
        ("SELECT 1 FROM a WHERE EXISTS (SELECT count(*) FROM b WHERE a.x = 1)", ["", ""]),
        ("SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b a WHERE a.y = 1)", ["", "b.y = 1"]),
        ("SELECT 1 FROM a WHERE k IN (SELECT k FROM b WHERE y = 2 AND x = 1)", ["", "b.y = 2"]),
        ("SELECT 1 FROM (SELECT * FROM a WHERE x = 1) q WHERE q.x = 3", ["a.x = 1"]),
        (
            "WITH c AS (SELECT * FROM a WHERE x = 1) SELECT 1 FROM c, b WHERE c.x = 5 AND b.y = 2 AND y = 3",
            ["a.x = 1", "b.y = 2"],
        ),
        ("SELECT 1 FROM a, range(3) r(x) WHERE x = 1 AND a.x = 1", ["a.x = 1"]),
        ("SELECT 1 FROM a WHERE list_contains([1], x) AND list_filter([1], x -> x = 1) IS NOT NULL", [""]),
        ("SELECT 1 FROM a AS z(p, q) WHERE q = 1 AND p = 3", ["a.x = 1 and a.k = 3"]),
        ("SELECT 1 FROM a PIVOT (sum(x) FOR k IN (1)) WHERE x = 1", [""]),
        ("SELECT 3 AS x FROM a WHERE x = 1", ["a.x = 1"]),
        ("SELECT 1 FROM a WHERE x = 1 UNION ALL SELECT 1 FROM b WHERE y = 2", ["a.x = 1", "b.y = 2"]),
    ],
)
def test_which_reference_a_condition_binds(house: House, text: str, expected: list[str]) -> None:
    house.add(make_table("a", {"k": "BIGINT", "x": "BIGINT"}))
    house.add(make_table("b", {"k": "BIGINT", "y": "BIGINT"}))
    house.plan(text)
    alone = [replaced(r.predicate, lambda _: TRUE) for r in house.requests]  # joins are a test of their own
    assert [_spoken(r.table.name, p) for r, p in zip(house.requests, alone, strict=True)] == expected


def _spoken(table: str, predicate: Predicate) -> str:
    names = {1: "k", 2: "x" if table == "a" else "y"}
    if isinstance(predicate, Always):
        return ""
    if isinstance(predicate, All):
        return " and ".join(_spoken(table, p) for p in predicate.parts)
    if isinstance(predicate, IsNull):
        return f"{table}.{names[predicate.column]} null"
    assert isinstance(predicate, Compare)
    return f"{table}.{names[predicate.column]} {predicate.op} {predicate.value!r}"


def test_outer_joins_give_the_same_rows_pruned_or_not(house: House) -> None:
    """T-39: a side that a join may fill with NULL is pruned by nothing that NULL passes."""
    a = [{"k": i, "x": i % 3 if i % 4 else None} for i in range(12)]
    b = [{"k": i, "y": i % 2 if i % 5 else None} for i in range(0, 24, 2)]
    rng = random.Random(3)
    parts = [
        "a.x = 1",
        "b.y = 0",
        "b.y IS NULL",
        "a.x IS NULL",
        "b.k > 6",
        "NOT (b.y = 1)",
        "b.y IS NOT NULL",
        "(b.y IS NULL OR b.y = 1)",
    ]
    ta, tb = make_table("a", {"k": "BIGINT", "x": "BIGINT"}), make_table("b", {"k": "BIGINT", "y": "BIGINT"})
    for _ in range(80):
        kind = rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"])
        on = " AND ".join(["a.k = b.k", *rng.sample(parts, rng.randint(0, 2))])
        where = rng.sample(parts, rng.randint(0, 2))
        if kind in ("SEMI JOIN", "ANTI JOIN"):
            where = [w for w in where if "b." not in w]
        text = f"SELECT * FROM a {kind} b ON {on}" + (f" WHERE {' AND '.join(where)}" if where else "")
        house.add(ta, hot=a)
        house.add(tb, hot=b)
        whole = house.rows(text)
        predicates = {r.table.name: r.predicate for r in house.requests}
        house.add(ta, hot=_pruned(ta, a, predicates["a"]))
        house.add(tb, hot=_pruned(tb, b, predicates["b"]))
        assert sorted(map(repr, house.rows(text))) == sorted(map(repr, whole)), (text, predicates)


def _pruned(table: object, rows: list[dict[str, object]], predicate: Predicate) -> list[dict[str, object]]:
    def as_row(r: dict[str, object]) -> dict[int, Comparable | None]:
        return {i + 1: v for i, v in enumerate(r.values())}  # type: ignore[misc]

    return [r for r in rows if holds(predicate, as_row(r), set())]
