"""Statements about one row by its key run without the engine, and nobody can tell.

Two services are told the same: one may take the short way, the other may not.  Every answer must be alike: schema, rows,
counts, errors word by word, and what the tables hold in the end; whether the rows are hot, cold, both, or were deleted.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flightkalam.auth.identity import Role
from flightkalam.errors import KalamError
from flightkalam.session import keyed
from flightkalam.sql.keyed import read_keyed
from tests.kalam_world import Answer, InProcess, Refused, World

_TABLES = {
    "a": "k BIGINT PRIMARY KEY, n BIGINT, s SMALLINT, label TEXT, d DECIMAL(10,2), f DOUBLE, r REAL, b BOOLEAN, j JSON, "
    "u UUID, day DATE, at TIMESTAMP, tz TIMESTAMPTZ, x BLOB, l INT[], e EMBEDDING(2), req INT NOT NULL DEFAULT 7",
    "t": 'k TEXT PRIMARY KEY, "Odd Name" INT, "größe" INT, other TEXT DEFAULT \'none\'',
    "c": "a INT, b TEXT, v INT, w INT, PRIMARY KEY (b, a)",
    "d": "k DECIMAL(8,2) PRIMARY KEY, v INT",
    "y": "k DATE PRIMARY KEY, v INT",
    "u": "k UUID PRIMARY KEY, v INT",
    "o": "k BOOLEAN PRIMARY KEY, v INT",
    "z": "k TIMESTAMP PRIMARY KEY, v INT",
    "checked": "k INT PRIMARY KEY, v INT CHECK (v < 100)",
}
_UUIDS = ("00000000-0000-0000-0000-00000000000a", "123e4567-e89b-12d3-a456-426614174000")
_ROWS = [
    f"INSERT INTO a SELECT i, i * 10, i, 'l' || i, i + 0.25, i / 4.0, i / 4.0, i % 2 = 0, '{{\"i\": 1}}', '{_UUIDS[0]}', "
    "DATE '2024-02-28' + i::INT, TIMESTAMP '2024-01-01 10:00:00', TIMESTAMPTZ '2024-01-01 10:00:00+00', '\\x01'::BLOB, "
    "[1, NULL], [0.5, 1.5], 1 FROM range(-2, 5) AS r(i)",
    "INSERT INTO a (k, req) VALUES (9223372036854775807, 1), (-9223372036854775808, 2)",
    "INSERT INTO t VALUES ('a', 1, 1, 'x'), ('A', 2, 2, 'y'), ('1', 3, 3, NULL), ('', 4, 4, ''), ('ä''ö', 5, 5, '-- no')",
    "INSERT INTO c SELECT i % 3, 'b' || (i // 3), i, NULL FROM range(9) AS r(i)",
    "INSERT INTO d VALUES (0, 0), (1.5, 1), (-2.25, 2), (999999.99, 3)",
    "INSERT INTO y VALUES ('2024-02-29', 1), ('1969-12-31', 2)",
    f"INSERT INTO u VALUES ('{_UUIDS[0]}', 1), ('{_UUIDS[1]}', 2)",
    "INSERT INTO o VALUES (true, 1)",
    "INSERT INTO z VALUES ('2024-01-01 00:00:00.5', 1)",
    "INSERT INTO checked VALUES (1, 1)",
]


def _examples(n: int) -> settings:
    """Each example goes on from where the last one left the tables, so a failing one cannot be made smaller."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=n, suppress_health_check=quiet, deadline=None, phases=[Phase.generate])


class Pair:
    """The same service twice; the first takes the short way."""

    def __init__(self, folder: Path) -> None:
        self.worlds = [World(folder / name) for name in ("short", "ordinary")]
        self.worlds[1].kalam.parts.statements.keyed = False
        self.clients: list[InProcess] = [w.in_process() for w in self.worlds]
        self.taken = 0

    def both(self, sql: str) -> list[Answer | Refused]:
        return [_run(c, sql) for c in self.clients]

    def same(self, sql: str, bound: pa.Table | None = None) -> Answer | Refused:
        one, other = [_run(c, sql, bound) for c in self.clients]
        assert _shape(one) == _shape(other), sql
        return one

    def flush(self) -> None:
        for world in self.worlds:
            world.flush()

    def agree(self) -> None:
        for table in _TABLES:
            key = "b, a" if table == "c" else "k"
            self.same(f"SELECT * FROM {table} ORDER BY {key}")

    def close(self) -> None:
        for world in self.worlds:
            world.close()


def _run(client: InProcess, sql: str, bound: pa.Table | None = None) -> Answer | Refused:
    session = client.session
    try:
        if bound is None:
            return client.run(sql)
        prepared = session.prepare(sql, None)
        try:
            if prepared.is_update:
                return Answer(count=session.update_prepared(prepared.handle, iter(bound.to_batches())))
            session.bind(prepared.handle, bound)
            planned = session.plan_prepared(prepared.handle)
            rows = session.fetch(planned.handle)
            return Answer(rows=pa.Table.from_batches(list(rows), rows.schema))
        finally:
            session.close_prepared(prepared.handle)
    except Refused as e:
        return e
    except KalamError as e:
        return Refused(e.sqlstate, e.message)


def _shape(answer: Answer | Refused) -> Any:
    if isinstance(answer, Refused):
        # Which of several values a cast complains of depends on the order in which the engine meets them.
        return (answer.sqlstate, re.sub(r"\"[^\"]*\"|'[^']*'", "…", answer.message))
    if answer.rows is None:
        return answer.count
    return (answer.rows.schema, str(answer.rows.to_pylist()))  # NaN equals itself as text


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("keyed"))
    for name, columns in _TABLES.items():
        made.both(f"CREATE TABLE {name} ({columns}) WITH (COMPACTION = 'manual')")
    for sql in _ROWS:
        assert not isinstance(made.same(sql), Refused), sql
    yield made
    made.close()


# -- statements of every kind -----------------------------------------------------------------------------------------

_INTS = st.sampled_from(
    ["0", "1", "-1", "2", "- 2", "3", "4", "007", "1e0", "1.0", "1_0", "0x1", "99999", "9223372036854775807",
     "-9223372036854775808", "9223372036854775808", "2147483648", "+1", "--1\n2", "(1)", "1 + 0"]
)  # fmt: skip
_OTHERS = st.sampled_from(
    ["'1'", "'a'", "'A'", "''", "'ä''ö'", "E'a'", "'b' 'c'", "'b0'", "'b2'", "NULL", "TRUE", "false", "1.5", "-2.25", "1.50",
     "1.555", ".5", "5.", "0.1", "999999.99", "12345678.123", "'2024-02-29'", "'1969-12-31'", "'2023-02-29'", "DATE '2024-02-29'",
     "'2024-01-01 00:00:00.5'", "'2024-01-01T00:00:00.5'", "'{\"i\": 2}'", "'\\x01'", "[1]", "current_date",
     f"'{_UUIDS[0]}'", f"'{_UUIDS[1].upper()}'", "'nonsense'", "k", "n", "DEFAULT"]
)  # fmt: skip
_VALUES = st.one_of(_INTS, _OTHERS)
_SPACES = st.sampled_from([" ", "  ", "\n", "\t", " /* k = 2 */ ", " -- = 3\n", "\u00a0"])
_SETTABLE = {
    "a": ["n", "s", "label", "d", "f", "r", "b", "j", "u", "day", "at", "tz", "x", "l", "req", "k", '"N"', "missing", "_seq"],
    "t": ['"Odd Name"', '"größe"', '"GRÖSSE"', "größe", '"odd name"', "other", "k"],
    "c": ["v", "w", "a", "V"],
}


@st.composite
def _condition(draw: st.DrawFn, table: str, name: str) -> str:
    columns = ["a", "b"] if table == "c" else ["k"]
    if draw(st.integers(0, 9)) == 0:
        columns = draw(st.sampled_from([["k"], ["a"], ["b", "a"], ["k", "k"], ["v", "k"], ["rowid"], ["label", "k"]]))
    columns = draw(st.permutations(columns))
    parts = []
    for column in columns:
        value = draw(_VALUES) if draw(st.booleans()) else draw(_fitting(table, column))
        qualifier = draw(st.sampled_from(["", "", "", f"{name}.", f"{name.upper()}.", "main.", "q."]))
        shown = draw(st.sampled_from([column, column.upper(), f'"{column}"', f'"{column.upper()}"']))
        equals = draw(st.sampled_from([" = ", "=", " == ", " =", " > ", " IS NOT DISTINCT FROM "] + [" = "] * 6))
        parts.append(f"{qualifier}{shown}{equals}{value}")
    joint = draw(st.sampled_from([" AND ", "\nand\t", " OR "] + [" AND "] * 4))
    return joint.join(parts)


def _fitting(table: str, column: str) -> st.SearchStrategy[str]:
    by_column = {
        ("t", "k"): ["'a'", "'A'", "'1'", "''", "'ä''ö'", "'none'"],
        ("c", "a"): ["0", "1", "2", "7"],
        ("c", "b"): ["'b0'", "'b1'", "'b2'"],
        ("d", "k"): ["0", "1.5", "-2.25", "999999.99", "1.50", "1.500", "77"],
        ("y", "k"): ["'2024-02-29'", "'1969-12-31'", "'2024-03-01'"],
        ("u", "k"): [f"'{_UUIDS[0]}'", f"'{_UUIDS[1].upper()}'"],
        ("o", "k"): ["TRUE", "false"],
        ("z", "k"): ["'2024-01-01 00:00:00.5'", "'2024-01-01 00:00:00.500000'"],
    }
    return st.sampled_from(by_column.get((table, column), ["1", "2", "-1", "3", "100"]))


@st.composite
def _statements(draw: st.DrawFn) -> str:
    table = draw(st.sampled_from([*_TABLES, "a", "a", "t", "c", "c"]))
    shown = draw(st.sampled_from([table, table.upper(), f'"{table}"', f"main.{table}", f"flightkalam.main.{table}"]))
    alias = draw(st.sampled_from(["", "", "", "x", "AS x", 'AS "My x"', "semi"]))
    name = alias.removeprefix("AS ") or table
    where = draw(_condition(table, name))
    kind = draw(st.sampled_from(["select", "update", "update", "delete", "insert"]))
    columns = _SETTABLE.get(table, ["v", "k"])
    output = draw(st.sampled_from(["*", "*", "k", "K", ", ".join(columns[:2]), f"{name}.{columns[0]}", "1", "k AS z", "*, k"]))
    end = draw(st.sampled_from(["", "", "", ";", " ;; ", " -- end", " LIMIT 1"]))
    if kind == "select":
        text = f"SELECT {output} FROM {shown} {alias} WHERE {where}{end}"
    elif kind == "update":
        count = draw(st.integers(1, 2))
        sets = ", ".join(f"{draw(st.sampled_from(columns))} = {draw(_assigned(columns))}" for _ in range(count))
        text = f"UPDATE {shown} {alias} SET {sets} WHERE {where}{draw(st.sampled_from(['', '', f' RETURNING {output}']))}{end}"
    elif kind == "delete":
        text = f"DELETE FROM {shown} {alias} WHERE {where}{draw(st.sampled_from(['', '', f' RETURNING {output}']))}{end}"
    else:
        text = draw(st.sampled_from(_INSERTS))
    space = draw(_SPACES)
    return text.replace(" ", space) if draw(st.integers(0, 5)) == 0 and "'" not in text else text


_INSERTS = [
    "INSERT INTO a (k, n, req) VALUES (1, 5, 1) ON CONFLICT DO NOTHING",
    "INSERT INTO a (k, n, s, d, f, r, req) VALUES (2, 1, 1, 1, 1, 1, 3) ON CONFLICT DO NOTHING",
    "INSERT INTO t (k) VALUES ('a') ON CONFLICT DO NOTHING",
    "INSERT INTO c VALUES (1, 'b1', 2, 3), (2, 'b2', 3, 4) ON CONFLICT DO NOTHING",
    "INSERT INTO o VALUES (true, 1), (false, 2) ON CONFLICT DO NOTHING",
]


@st.composite
def _assigned(draw: st.DrawFn, columns: list[str]) -> str:
    value = draw(_VALUES)
    column = draw(st.sampled_from([c for c in columns if c != "_seq"]))  # which differs between two services
    forms = [value, value, value, f"{column} + {value}", f"{column}-{value}", f"{column}+1", column, f"{column} || {value}"]
    return draw(st.sampled_from(forms))


@_examples(400)
@given(statement=_statements(), flush=st.integers(0, 19))
def test_both_ways_answer_alike(pair: Pair, statement: str, flush: int) -> None:
    if flush == 0:
        pair.flush()
    pair.same(statement)


def test_both_ways_leave_the_same_tables(pair: Pair) -> None:
    pair.agree()
    pair.flush()
    pair.agree()
    for world in pair.worlds:
        world.check()


# -- parameters -------------------------------------------------------------------------------------------------------

_PARAMETERS = st.sampled_from(
    [
        pa.scalar(1, pa.int64()), pa.scalar(2, pa.int32()), pa.scalar(-1, pa.int8()), pa.scalar(None, pa.int64()),
        pa.scalar(2**63, pa.uint64()), pa.scalar(1.0), pa.scalar(0.1), pa.scalar(float("nan")), pa.scalar(float("inf")),
        pa.scalar(-0.0), pa.scalar(0.5, pa.float32()), pa.scalar("1"), pa.scalar("a"), pa.scalar("a\0b"), pa.scalar("l1"),
        pa.scalar("x", pa.large_string()), pa.scalar(Decimal("1.5")), pa.scalar(Decimal("1.555")), pa.scalar(True),
        pa.scalar(b"\x00\x01"), pa.scalar(dt.date(2024, 2, 29)), pa.scalar(dt.datetime(2024, 1, 1, 0, 0, 0, 500000)),
        pa.scalar(5, pa.timestamp("s")), pa.scalar(5, pa.timestamp("ns")), pa.scalar(5, pa.timestamp("ms", "UTC")),
        pa.scalar(5, pa.timestamp("us", "Europe/Berlin")), pa.scalar(_UUIDS[0]), pa.scalar(2**31 - 1, pa.date32()),
        pa.scalar(None, pa.null()), pa.scalar([1, 2]), pa.scalar(dt.time(1, 2)),
    ]
)  # fmt: skip


@_examples(250)
@given(
    table=st.sampled_from(["a", "a", "a", "t", "d", "y", "u", "o", "z"]),
    kind=st.sampled_from(["select", "update", "sum", "delete", "returning"]),
    values=st.tuples(_PARAMETERS, _PARAMETERS),
    column=st.sampled_from(_SETTABLE["a"][:15]),
    good_key=st.booleans(),
)
def test_both_ways_understand_parameters_alike(
    pair: Pair, table: str, kind: str, values: tuple[pa.Scalar, pa.Scalar], column: str, good_key: bool
) -> None:
    if table != "a":
        column = '"Odd Name"' if table == "t" else "v"
    key = pa.scalar(1, pa.int64()) if good_key and table == "a" else values[1]
    texts = {
        "select": (f"SELECT * FROM {table} WHERE k = $1", [key]),
        "update": (f"UPDATE {table} SET {column} = ? WHERE k = ?", [values[0], key]),
        "sum": (f"UPDATE {table} SET {column} = {column} + ? WHERE k = ?", [values[0], key]),
        "delete": (f"DELETE FROM {table} WHERE k = ?", [key]),
        "returning": (f"UPDATE {table} SET {column} = $2 WHERE k = $1 RETURNING *", [key, values[0]]),
    }
    text, bound = texts[kind]
    pair.same(text, pa.table([pa.array([v], v.type) for v in bound], names=[str(i) for i in range(len(bound))]))


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM u WHERE k = ?", "UPDATE u SET v = v + 1 WHERE k = ?", "DELETE FROM u WHERE k = ?"]
)
def test_bytes_that_are_no_text_are_refused_like_any_value_that_does_not_fit(pair: Pair, sql: str) -> None:
    pair.same("DELETE FROM u")  # a row that is not flushed is read whatever is asked of it
    pair.same(f"INSERT INTO u VALUES ('{_UUIDS[0]}', 1)")
    refused = pair.same(sql, pa.table([pa.array([b"\x80\xff"])], names=["0"]))
    assert isinstance(refused, Refused) and refused.sqlstate == "22P02", refused


# -- what takes the short way, so that the comparison above is one ----------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a WHERE k = 1",
        "SELECT n, label FROM main.a AS x WHERE x.k = -1;",
        "SELECT b FROM c WHERE b = 'b0' AND a = 1",
        "UPDATE a SET n = n + 1, label = 'it''s', d = 1.5, req = 2 WHERE k = 1",
        "UPDATE a SET day = '2024-05-06', u = '123E4567-e89b-12d3-a456-426614174000', f = 2.5, n = NULL WHERE K=-1",
        "UPDATE t SET \"odd name\" = DEFAULT WHERE k = 'a' RETURNING *",
        "DELETE FROM a WHERE k = 4",
        "DELETE FROM c WHERE a = 2 AND b = 'b2' RETURNING v",
    ],
)
def test_these_take_the_short_way(pair: Pair, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(*_: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(pair.worlds[0].kalam.parts.guard, "check", engine)
    assert not isinstance(_run(pair.clients[0], sql), Refused)
    monkeypatch.undo()
    _run(pair.clients[1], sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a WHERE k = 1 OR k = 2",
        "SELECT *, k FROM a WHERE k = 1",
        "SELECT k + 1 FROM a WHERE k = 1",
        "SELECT * FROM a, c WHERE k = 1",
        "SELECT * FROM a WHERE k = 1 FOR UPDATE",
        "SELECT * FROM a WHERE (k = 1)",
        "SELECT * FROM a WHERE k = 1 AND",
        "SELECT _seq FROM a WHERE k = 1",
        "SELECT user FROM a WHERE k = 1",
        "SELECT * FROM a WHERE k = 1; SELECT 2",
        "SELECT * FROM a WHERE k = 1 AS USER 'bob'",
        "UPDATE a AS USER 'bob' SET n = 1 WHERE k = 1",
        "DELETE FROM a USING c WHERE k = 1",
        "DELETE FROM a",
        "UPDATE a SET n = 1",
        "WITH x AS (SELECT 1) SELECT * FROM a WHERE k = 1",
        "EXPLAIN SELECT * FROM a WHERE k = 1",
        "SELECT * FROM a WHERE k = 'a' 'b'",
        "SELECT * FROM a WHERE k = E'a'",
        "SELECT * FROM read_parquet('x') WHERE k = 1",
    ],
)
def test_these_are_not_recognised(sql: str) -> None:
    assert read_keyed(sql) is None


def test_only_whole_keys_of_stored_tables_take_it(pair: Pair) -> None:
    with pair.clients[0].session._look("SELECT") as e:
        for sql in (
            "SELECT * FROM c WHERE a = 1",
            "SELECT * FROM a WHERE n = 1",
            "SELECT * FROM system.tables WHERE k = 1",
            "SELECT * FROM information_schema.tables WHERE table_name = 'a'",
            "UPDATE checked SET v = 1000 WHERE k = 1",
            "UPDATE a SET k = 2 WHERE k = 1",
            "SELECT * FROM a WHERE k = '1'",
            "SELECT * FROM a WHERE k = NULL",
        ):
            recognised = read_keyed(sql)
            assert recognised is not None, sql
            found = keyed.call(recognised, None)
            assert found is not None and keyed.rows(e, found) is None, sql


def test_rights_are_the_same(pair: Pair) -> None:
    clients = [w.in_process("uma", Role.USER) for w in pair.worlds]
    for sql in ("SELECT * FROM a WHERE k = 1", "UPDATE a SET n = 1 WHERE k = 1", "DELETE FROM nowhere WHERE k = 1"):
        one, other = [_run(c, sql) for c in clients]
        assert isinstance(one, Refused) and _shape(one) == _shape(other)


def test_rows_of_a_user_table_belong_to_its_user(pair: Pair) -> None:
    pair.same("CREATE USER TABLE mine (k INT PRIMARY KEY, v INT)")
    for user in ("ann", "bea"):
        for world in pair.worlds:
            client = world.in_process(user, Role.USER)
            assert client.run(f"INSERT INTO mine VALUES (1, {len(user)})").count == 1
            assert client.run(f"UPDATE mine SET v = {ord(user[0])} WHERE k = 1").count == 1
            rows = client.run("SELECT v FROM mine WHERE k = 1").rows
            assert rows is not None and rows.column("v").to_pylist() == [ord(user[0])]
    assert pair.same("SELECT * FROM mine WHERE k = 1").rows.num_rows == 0
