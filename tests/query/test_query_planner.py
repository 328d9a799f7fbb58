"""Splicing: the client's own text with relations in the places of names."""

from __future__ import annotations

import pyarrow as pa
import pytest
from query_house import House, make_rows, make_table

from flightkalam.errors import BadRequest, InvalidValue, KalamError, SqlSyntaxError, UndefinedObject, Unsupported
from flightkalam.query.compute import Caller, Setting
from flightkalam.query.params import NULL
from flightkalam.query.planner import bind


@pytest.fixture
def small(house: House) -> House:
    house.add(make_table("t", {"k": "BIGINT", "x": "TEXT"}), hot=[{"k": 1, "x": "a"}, {"k": 2, "x": "b"}])
    house.add(make_table("u", {"k": "BIGINT", "y": "TEXT"}), hot=[{"k": 2, "y": "c"}], batches=[[{"k": 3, "y": "d"}]])
    house.add(make_table("g", {"a": "INT"}, namespace="ns", hidden_key=True), hot=[{"a": 1, "_id": 77}])
    house.add(make_table("s", {"k": "BIGINT", "t": "STRUCT(k BIGINT, x TEXT)"}), hot=[{"k": 5, "t": {"k": 6, "x": "z"}}])
    house.arrow[("system", "jobs")] = pa.table({"job_id": ["FL-1"], "status": ["queued"]})
    house.view("v", "SELECT k, x FROM t WHERE k < 2 -- the first\n;")
    house.view("named", "SELECT k, x AS xx FROM v", ("a", "b"))
    house.view("loop", "SELECT * FROM loop2")
    house.view("loop2", "SELECT * FROM main.loop")
    house.view("needs", "SELECT ?")
    house.add(make_table("t", {"other": "INT"}, namespace="ns"), hot=[{"other": 42}])
    house.view("in_ns", "SELECT * FROM t", namespace="ns")
    return house


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT * FROM t ORDER BY k", [(1, "a"), (2, "b")]),
        ("SELECT t.k, T.X FROM T ORDER BY 1", [(1, "a"), (2, "b")]),
        ("SELECT main.t.k, flightkalam.main.t.x FROM main.t WHERE main.t.k = 1", [(1, "a")]),
        ('SELECT "main" . "t" . "k" FROM t WHERE main.t.k IN (SELECT u.k FROM main.u WHERE main.t.k = main.u.k)', [(2,)]),
        ("SELECT p.k FROM main.t AS p WHERE EXISTS (SELECT 1 FROM u WHERE u.k = p.k)", [(2,)]),
        ("SELECT * FROM t JOIN u USING (k)", [(2, "b", "c")]),
        ("SELECT * FROM t NATURAL JOIN u", [(2, "b", "c")]),
        ("SELECT count(*) FROM t, u", [(4,)]),
        ("SELECT a.k, b.k FROM t a, t b WHERE a.k < b.k", [(1, 2)]),
        ("SELECT z FROM t AS q(w, z) WHERE w = 1", [("a",)]),
        ("FROM t WHERE k = 1", [(1, "a")]),
        ("TABLE t ORDER BY k LIMIT 1", [(1, "a")]),
        ("SELECT t FROM t WHERE k = 1", [({"k": 1, "x": "a"},)]),
        ("SELECT t.k, t.t.x FROM s AS t", [(5, "z")]),
        ("SELECT s.t.k FROM s", [(6,)]),
        ("WITH t AS (SELECT 9 AS k) SELECT * FROM t, main.t AS m WHERE m.k = 1", [(9, 1, "a")]),
        ("SELECT (SELECT max(k) FROM u), sum(k) FROM t", [(3, 3)]),
        ("SELECT q.k FROM t, LATERAL (SELECT u.k FROM u WHERE u.k = t.k) q", [(2,)]),
        ("SELECT jobs.status, system.jobs.job_id FROM system.jobs", [("queued", "FL-1")]),
        ("SELECT * FROM v", [(1, "a")]),
        ("SELECT w.x FROM v w JOIN t USING (k)", [("a",)]),
        ("SELECT main.v.k FROM main.v", [(1,)]),
        ("SELECT b, a FROM named", [("a", 1)]),
        ("SELECT c1 FROM named AS q(c1)", [(1,)]),
        ("SELECT * FROM ns.in_ns", [(42,)]),
        ("PIVOT t ON x IN ('a', 'b') USING sum(k)", [(1, 2)]),
        ("SELECT count(*) FROM t TABLESAMPLE 100%", [(2,)]),
        ("SELECT 'SELECT * FROM t' -- FROM u", [("SELECT * FROM t",)]),
        ("SELECT k FROM t UNION SELECT k FROM u ORDER BY k", [(1,), (2,), (3,)]),
        ("SELECT max(k) OVER w, count(*) FILTER (WHERE k > 1) OVER w FROM t WINDOW w AS () LIMIT 1", [(2, 1)]),
    ],
)
def test_a_name_reads_as_the_relation_behind_it(small: House, text: str, rows: list[tuple[object, ...]]) -> None:
    assert small.rows(text) == rows


def test_summarize_a_table(small: House) -> None:
    assert [r[0] for r in small.rows("SUMMARIZE t")] == ["k", "x"]


@pytest.mark.parametrize(
    ("text", "kind", "state"),
    [
        ("SELECT * FROM nope", UndefinedObject, "42P01"),
        ("SELECT * FROM a.b.c", UndefinedObject, "42P01"),
        ("SELECT nope FROM t", UndefinedObject, "42703"),
        ("SELECT t.nope FROM t", UndefinedObject, "42703"),
        ("SELECT k FROM t, u", UndefinedObject, "42702"),
        ("SELECT * FROM loop", Unsupported, "0A000"),
        ("SELECT * FROM needs", SqlSyntaxError, "42601"),
        ("SELECT k + 'x' FROM t", InvalidValue, "22P02"),
    ],
)
def test_errors_name_what_the_client_wrote(small: House, text: str, kind: type[KalamError], state: str) -> None:
    with pytest.raises(kind) as caught:
        small.rows(text)
    assert caught.value.sqlstate == state
    assert "__" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------
# System columns


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT _seq, k FROM t WHERE k = 1", [(1_000_000, 1)]),
        ("SELECT * FROM t WHERE _seq > 0 ORDER BY _seq", [(1, "a"), (2, "b")]),
        ("SELECT *, _seq FROM t WHERE k = 1", [(1, "a", 1_000_000)]),
        (
            "SELECT t.*, u.*, t._seq FROM t, u WHERE t.k = 1 AND u._deleted IS NOT NULL AND u.k = 2",
            [(1, "a", 2, "c", 1_000_000)],
        ),
        ("SELECT u.*, t._seq FROM t JOIN u USING (k)", [(2, "c", 1_000_001)]),
        ("SELECT * EXCLUDE (x) FROM t WHERE _seq = 1000000", [(1,)]),
        ("SELECT * EXCLUDE (_seq) FROM t WHERE k = 1", [(1, "a")]),
        ("SELECT * REPLACE (_seq AS x) FROM t WHERE k = 1", [(1, 1_000_000)]),
        ("SELECT COLUMNS(*) FROM t WHERE _seq = 1000000", [(1, "a")]),
        ("SELECT * FROM t WHERE k = (SELECT max(k) FROM u WHERE _seq > 5)", [(2, "b")]),
        ("SELECT *, (SELECT max(u._seq) FROM u WHERE u.k = t.k) FROM t WHERE k = 2", [(2, "b", 1_000_000)]),
        ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t._seq > 0 AND u.k = t.k)", [(2, "b")]),
        ("SELECT q.* FROM (SELECT *, _seq FROM t) q WHERE _seq = 1000000", [(1, "a", 1_000_000)]),
        ("WITH c AS (SELECT *, _seq AS version FROM t) SELECT version FROM c WHERE k = 1", [(1_000_000,)]),
        ("SELECT count(*) FROM t GROUP BY _seq > 0", [(2,)]),
        ("SELECT * FROM t AS q(a, b) WHERE _seq = 1000000", [(1, "a")]),
        ("SELECT *, _id FROM ns.g", [(1, 77)]),
        ("SELECT ns.g._id FROM ns.g", [(77,)]),
        ("SELECT * FROM ns.g", [(1,)]),
        ("SELECT '_seq', * FROM t WHERE k = 1", [("_seq", 1, "a")]),
        ("SELECT a.k FROM t a JOIN t b USING (_seq) WHERE a.k = 1", [(1,)]),
        ("SELECT k FROM t ORDER BY _seq DESC LIMIT 1", [(2,)]),
        ("SELECT * FROM t WHERE _seq > 0 ORDER BY ALL", [(1, "a"), (2, "b")]),
        ("SELECT 2 * _seq, * FROM t WHERE k = 1", [(2_000_000, 1, "a")]),
    ],
)
def test_system_columns_are_selectable_and_never_in_a_star(small: House, text: str, rows: list[tuple[object, ...]]) -> None:
    """T-50."""
    assert small.rows(text) == rows


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM t NATURAL JOIN u WHERE t._seq > 0",
        "SELECT COLUMNS('.*') FROM t WHERE _seq > 0",
        "SELECT COLUMNS(c -> true) FROM t WHERE _seq > 0",
        "FROM t WHERE _seq > 0",
        "SELECT t FROM t WHERE _seq > 0",
        "SELECT * FROM t PIVOT (max(_seq) FOR k IN (1))",
        "SELECT * FROM t a JOIN t b USING (_seq)",
        "SELECT * EXCLUDE x FROM t WHERE _seq > 0",
    ],
)
def test_where_a_system_column_would_show_the_statement_is_refused(small: House, text: str) -> None:
    with pytest.raises(Unsupported, match=r"system column|EXCLUDE"):
        small.rows(text)


def test_no_user_column_hides_behind_a_system_name(small: House) -> None:
    with pytest.raises(UndefinedObject):
        small.rows("SELECT _id FROM t")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT k FROM t", False),
        ("SELECT k, _deleted FROM t", False),
        ("SELECT k FROM t WHERE _deleted", True),
        ("SELECT k FROM t WHERE NOT _deleted", True),
        ("SELECT k FROM t WHERE t._deleted OR k = 1", True),
        ("SELECT k FROM t WHERE _seq > 5", False),
        ("SELECT k, _deleted FROM t WHERE _seq > 5", True),
        ("SELECT k, _deleted FROM t WHERE 5 <= t._seq AND k > 0", True),
        ("SELECT k, _deleted FROM t WHERE _seq BETWEEN 1 AND 2", True),
        ("SELECT k, _deleted FROM t WHERE _seq > (SELECT max(k) FROM u)", True),
        ("SELECT k, _deleted FROM t WHERE _seq <= 5", False),
        ("SELECT k, _deleted FROM t WHERE _seq > 5 OR k = 1", False),
        ("SELECT k FROM t WHERE _seq > 5 ORDER BY _deleted", False),
        ("SELECT CASE WHEN _deleted THEN 1 END FROM t WHERE _seq > 5", True),
        ("SELECT t.k FROM u, t WHERE u._deleted", False),
        ("SELECT t.k, t._deleted FROM t, u WHERE u._seq > 5", False),
        ("SELECT 1 FROM t JOIN u ON t.k = u.k AND t._deleted", True),
        ("SELECT q.k FROM (SELECT k, _deleted FROM t) q WHERE q._deleted", False),
    ],
)
def test_who_sees_tombstones(small: House, text: str, shown: bool) -> None:
    """SEMANTICS §2: a reference filtered by its `_deleted`, or a change feed."""
    small.plan(text)
    assert [r.tombstones for r in small.requests if r.table.name == "t"] == [shown]


def test_a_change_feed_shows_deleted_keys(small: House) -> None:
    table = small.tables[("main", "t")]
    small.tombstones[("main", "t")] = make_rows(table, [{"k": 3}], first_seq=2_000_000, deleted=True)
    assert small.rows("SELECT k, _deleted FROM t WHERE _seq > 1000000") == [(2, False), (3, True)]
    assert small.rows("SELECT k FROM t WHERE _seq > 1000000") == [(2,)]


# ---------------------------------------------------------------------------------------------------------------
# Parameters and the caller


def test_parameters_are_spliced_where_they_stand(small: House) -> None:
    assert small.rows("SELECT -?, ? - ?, ?::INT, x FROM t WHERE k = ?", -5, 1, -1, "7", 1) == [(5, 2, 7, "a")]
    assert small.rows("SELECT $2, $1, $2", "it's", "b") == [("b", "it's", "b")]
    assert small.rows("SELECT k FROM t ORDER BY k LIMIT ?", 1) == [(1,)]


def test_the_number_of_values_must_be_right(small: House) -> None:
    for values in ((), (1, 2)):
        with pytest.raises(InvalidValue, match="1 parameters"):
            small.rows("SELECT ?", *values)


def test_a_statement_can_be_described_before_it_is_bound(small: House) -> None:
    guarded = small.guard.check("SELECT k, x, ? AS p FROM t WHERE k = ?")
    bound = bind(guarded, small.guard, small.resolve, parameters=None)
    assert small.executor.schema(bound, Setting()).names == ["k", "x", "p"]
    assert NULL.sql == "NULL"


def test_current_user_and_its_kin_answer_for_the_service(small: House) -> None:
    setting = Setting(caller=Caller(user="ann", role="service", actor="root", namespace="ns"))
    text = (
        "SELECT CURRENT_USER, user, session_user, current_user(), CURRENT_ROLE, CURRENT_ACTOR(), current_schema(),"
        " current_schema, current_database(), current_catalog, version()"
    )
    assert small.rows(text, setting=setting) == [
        ("ann", "ann", "ann", "ann", "service", "root", "ns", "ns", "flightkalam", "flightkalam", "FlightKalam test")
    ]
    other = Setting(caller=Caller(user="it's", role="user", actor="it's"))
    assert small.rows("SELECT k FROM t WHERE current_user = 'it''s' ORDER BY k", setting=other) == [(1,), (2,)]


def test_a_column_called_user_is_that_column(small: House) -> None:
    small.add(make_table("p", {"k": "BIGINT", "user": "TEXT"}), hot=[{"k": 1, "user": "bob"}])
    setting = Setting(caller=Caller("ann", "user", "ann"))
    assert small.rows("SELECT user, p.user, current_user FROM p", setting=setting) == [("bob", "bob", "ann")]
    assert small.rows("SELECT user FROM (SELECT user FROM p) q", setting=setting) == [("bob",)]


def test_ids_are_new_in_every_row(small: House) -> None:
    rows = small.rows("SELECT SNOWFLAKE_ID(), UUID_V7()::VARCHAR, ULID() FROM range(5000)")
    ids, uuids, ulids = (list(c) for c in zip(*rows, strict=True))
    assert len(set(ids)) == len(set(uuids)) == len(set(ulids)) == 5000
    assert all(isinstance(u, str) and len(u) == 26 for u in ulids)
    assert sorted(ulids) == ulids  # type: ignore[type-var]


def test_the_announced_schema_is_the_streamed_one(small: House) -> None:
    for text in ("SELECT * FROM t", "SELECT sum(k), avg(k), min(x), count(*), NULL n FROM t", "SELECT [k], {'a': x} FROM t"):
        guarded = small.guard.check(text)
        bound = bind(guarded, small.guard, small.resolve)
        assert small.table(text).schema == small.executor.schema(bound, Setting())


def test_a_refusal_of_resolve_reaches_the_client(small: House) -> None:
    guarded = small.guard.check("SELECT * FROM v")

    def refuse(parts: tuple[str, ...], namespace: str | None) -> object:
        if parts == ("t",):
            raise UndefinedObject('table "t" does not exist')
        return small.resolve(parts, namespace)

    with pytest.raises(BadRequest, match='"t" does not exist'):
        bind(guarded, small.guard, refuse)  # type: ignore[arg-type]
