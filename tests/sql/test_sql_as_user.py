"""AS USER: found by tokens in its three places, and nowhere taken for something else (SEMANTICS §5, T-48)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_plain import plain, slices

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.sql import parse
from flightkalam.sql.statements import Explain, Query, Statement


def subject(text: str) -> str | None:
    as_user = parse(text).as_user
    return None if as_user is None else as_user.user


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t AS USER 'u' VALUES (1)",
        "INSERT INTO n.t AS USER 'u' (a, b) VALUES (1, 2)",
        "INSERT INTO t AS USER 'u' SELECT 1 AS user",
        "INSERT INTO t as User'u' AS x SELECT 1",
        "INSERT INTO t AS x AS USER 'u' SELECT 1",
        "UPDATE t AS USER 'u' SET a = 1",
        "UPDATE t AS USER 'u' AS x SET a = 1",
        "UPDATE t x AS USER 'u' SET a = 1",
        "DELETE FROM t AS USER 'u'",
        "DELETE FROM t AS USER 'u' WHERE a = 1",
        "MERGE INTO t AS USER 'u' USING s ON true WHEN MATCHED THEN DELETE",
        "ERASE FROM t AS USER 'u' WHERE a = 1",
        "WITH x AS (SELECT 1) UPDATE t AS USER 'u' SET a = 1",
        "SELECT 1 AS USER 'u'",
        "SELECT a FROM t WHERE b = 'c' /* as */ AS -- user\n USER\u200b'u' ; ;",
        "SELECT a AS user FROM t AS user AS USER 'u'",
        "(SELECT 1) AS USER 'u'",
        "WITH x AS (SELECT 1) FROM x AS USER 'u'",
        "INSERT INTO t VALUES (1) AS USER 'u'",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING RETURNING a AS USER 'u'",
        "UPDATE t SET a = 1 AS USER 'u'",
        "UPDATE t SET a = 1 WHERE b AS USER 'u'",
        "DELETE FROM t WHERE a = 1 RETURNING * AS USER 'u'",
        "TRUNCATE TABLE t AS USER 'u'",
        "DESCRIBE t AS USER 'u'",
        "EXPLAIN SELECT 1 AS USER 'u'",
        "EXPLAIN UPDATE t AS USER 'u' SET a = 1",
        "EXECUTE AS USER 'u' (SELECT 1)",
        "EXECUTE AS USER 'u' (INSERT INTO t VALUES (1));",
        "EXECUTE AS USER 'u' (EXPLAIN (FORMAT JSON) SELECT 1)",
        "EXECUTE AS USER 'u' ((SELECT 1))",
    ],
)
def test_where_the_clause_may_stand(text: str) -> None:
    assert subject(text) == "u"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a AS user FROM t",
        "SELECT a AS USER",
        "SELECT * FROM t AS USER",
        "SELECT ' AS USER ''u'''",
        "SELECT 1 -- AS USER 'u'",
        "SELECT 1 /* AS USER 'u' */",
        "SELECT $$ AS USER 'u' $$",
        "SELECT 1 AS \"x AS USER 'u'\"",
        "INSERT INTO t VALUES (' AS USER ''u'' ')",
        "INSERT INTO t SELECT 1 AS USER",
        "INSERT INTO t VALUES (1) RETURNING a AS USER",
        'UPDATE t AS "user" SET a = 1',
        "UPDATE t user SET a = 1",
        "DELETE FROM t USING s AS user WHERE true",
    ],
)
def test_what_only_looks_like_it_is_data_or_an_alias(text: str) -> None:
    assert subject(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("INSERT INTO t AS USER VALUES (1)", "in single quotes"),
        ("INSERT INTO t AS USER u VALUES (1)", "in single quotes"),
        ('UPDATE t AS USER "u" SET a = 1', "in single quotes"),
        ("DELETE FROM t AS USER", "in single quotes"),
        ("DELETE FROM t AS USER WHERE a = 1", "in single quotes"),
        ("DELETE FROM t AS USER ? WHERE a = 1", "in single quotes"),
        ("SELECT 1 AS USER ?", "in single quotes"),
        ("SELECT 1 AS USER $1", "in single quotes"),
        ("SELECT 1 AS USER E'u'", "in single quotes"),
        ("SELECT 1 AS USER $$u$$", "in single quotes"),
        ("SELECT 1 AS USER n'u'", "in single quotes"),
        ("SELECT 1 AS USER 'u'\n'v'", "may stand right after"),
        ("DELETE FROM t AS USER 'u'\n'v' WHERE a", "second string"),
        ("SELECT a AS USER 'u' FROM t", "may stand right after"),
        ("SELECT * FROM (SELECT 1 AS USER 'u')", "may stand right after"),
        ("INSERT INTO t SELECT a AS USER 'u' FROM s", "may stand right after"),
        ("DELETE FROM t USING s AS USER 'u' WHERE true", "may stand right after"),
        ("UPDATE t SET a = (SELECT 1 AS USER 'u')", "may stand right after"),
        ("INSERT INTO t AS USER 'u' VALUES (1) AS USER 'u'", "at most one"),
        ("INSERT INTO t AS USER 'u' AS USER 'v' VALUES (1)", "at most one"),
        ("SELECT 1 AS USER 'u' AS USER 'v'", "at most one"),
        ("EXECUTE AS USER 'u' (SELECT 1 AS USER 'v')", "at most one"),
        ("EXECUTE AS USER 'u' (EXECUTE AS USER 'v' (SELECT 1))", "at most one"),
        ("EXECUTE AS USER 'u' SELECT 1", "expected ( and a statement"),
        ("EXECUTE AS USER 'u' ()", "expected a statement"),
        ("EXECUTE AS USER 'u' (SELECT 1) FROM t", "should end here"),
        ("EXECUTE AS USER 'u' (SELECT 1; SELECT 2)", "one statement at a time"),
        ("EXECUTE AS USER 'u'", "expected ( and a statement"),
        ("EXECUTE AS USER u (SELECT 1)", "in single quotes"),
        ("UPDATE t SET a = 1 AS USER", "AS is not expected"),
        ("UPDATE t SET a = 1 WHERE b AS USER", "AS is not expected"),
        ("DELETE FROM t WHERE a = 1 AS USER u", "AS is not expected"),
        ("INSERT INTO t VALUES (1) AS USER", "after the rows"),
        ("AS USER 'u'", "no statement begins"),
    ],
)
def test_a_malformed_clause_is_never_run_as_the_actor(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        parse(text)
    assert says in caught.value.message


def test_execute_of_prepared_statements_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="EXECUTE of a prepared statement"):
        parse("EXECUTE my_statement (1)")


def test_the_name_is_the_strings_content() -> None:
    assert subject("SELECT 1 AS USER 'O''Brien; -- é'") == "O'Brien; -- é"


def test_a_querys_text_loses_the_clause_and_keeps_its_positions() -> None:
    text = "/* a */ SELECT x,\n y -- b\n FROM t AS USER\n 'u' ; -- c"
    found = parse(text)
    assert isinstance(found, Query) and len(found.text) == len(text) and found.text.count("\n") == text.count("\n")
    assert found.text.strip() == "SELECT x,\n y -- b\n FROM t"
    assert found.text.index("SELECT") == text.index("SELECT") and found.text.index("FROM") == text.index("FROM")


def test_execute_blanks_all_but_the_inner_query() -> None:
    text = "EXECUTE AS USER 'u' ( SELECT ')' );"
    found = parse(text)
    assert isinstance(found, Query)
    assert found.text == " " * text.index("SELECT") + "SELECT ')'" + "   "


def test_explain_passes_the_subject_on() -> None:
    for text in (
        "EXPLAIN SELECT 1 AS USER 'u'",
        "EXPLAIN DELETE FROM t AS USER 'u'",
        "EXECUTE AS USER 'u' (EXPLAIN SELECT 1)",
    ):
        found = parse(text)
        assert isinstance(found, Explain) and found.as_user == found.inner.as_user and found.as_user is not None


STATEMENTS = st.sampled_from(
    ["SELECT a AS user FROM t", "INSERT INTO t VALUES (1, 'x')", "UPDATE t SET a = 'AS USER' WHERE b = 1",
     "DELETE FROM t WHERE a IN ('x', ' AS USER ')", "INSERT INTO t SELECT 1 AS user", "DELETE FROM t RETURNING a AS b"]
)  # fmt: skip
GAPS = st.sampled_from([" ", "\n", "\t/* AS USER 'z' */ ", " -- AS USER 'z'\n", "\u00a0", " /* ' */ "])


@settings(max_examples=200, deadline=None)
@given(STATEMENTS, GAPS, GAPS, GAPS, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_the_clause_at_the_end_changes_nothing_else(text: str, g1: str, g2: str, g3: str, user: str) -> None:
    quoted = "'" + user.replace("'", "''") + "'"
    alone, with_clause = parse(text), parse(f"{text}{g1}AS{g2}USER{g3}{quoted}{g1};")
    assert with_clause.as_user is not None and with_clause.as_user.user == user
    assert _without_subject(with_clause) == _without_subject(alone)


def _without_subject(statement: Statement) -> object:
    if isinstance(statement, Query):
        return statement.text.rstrip()
    return plain(statement) | {"as_user": None}, list(slices(statement))
