"""One statement, of a kind we know, or a clear refusal."""

from __future__ import annotations

import pytest
from sql_plain import plain

from flightkalam.errors import InvalidValue, KalamError, SqlSyntaxError, Unsupported
from flightkalam.sql import MAX_SQL_CHARS, parse, split
from flightkalam.sql.statements import Delete, Explain, Insert, Merge, Query, Update


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "select a.from, b AS where from t order by 1",
        "FROM t",
        "FROM t SELECT a",
        "VALUES (1), (2)",
        "TABLE t",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH x AS (SELECT 1) FROM x",
        "WITH x AS (SELECT 1) (SELECT * FROM x)",
        "WITH RECURSIVE x(n) USING KEY (n) AS (SELECT 1 UNION SELECT n FROM x) SELECT * FROM x",
        "WITH x AS (SELECT 1) SELECT f(a) insert FROM x",
        "WITH insert AS (SELECT 1), delete(a) AS (SELECT 2) SELECT * FROM insert",
        "PIVOT t ON a USING sum(b)",
        "UNPIVOT t ON a, b INTO NAME x VALUE y",
        "SUMMARIZE t",
        "SELECT {'a': 1}.a, [1, 2][1:2], x -> x + 1, a::INT, b->>'c', $1, ?, $name FROM t",
    ],
)
def test_plain_queries_pass_through_verbatim(text: str) -> None:
    assert parse(text) == Query(text)


@pytest.mark.parametrize(
    ("text", "kind"), [("INSERT INTO t FROM x", Insert), ("UPDATE t SET a = 1", Update), ("DELETE FROM t", Delete),
                       ("MERGE INTO t USING x ON true WHEN MATCHED THEN DELETE", Merge)]
)  # fmt: skip
def test_with_before_a_write_is_that_write(text: str, kind: type) -> None:
    for with_clause in ("WITH x AS (SELECT 1)", "WITH x(a) AS NOT MATERIALIZED (SELECT ')'), y AS (FROM x)"):
        found = parse(f"{with_clause} {text}")
        assert isinstance(found, kind) and plain(found)["with_clause"] == with_clause


@pytest.mark.parametrize(
    ("text", "analyze", "form"),
    [
        ("EXPLAIN SELECT 1", False, "text"),
        ("EXPLAIN ANALYZE SELECT 1", True, "text"),
        ("EXPLAIN (FORMAT JSON) SELECT 1", False, "json"),
        ("EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1", True, "json"),
        ("EXPLAIN (FORMAT TEXT, ANALYZE TRUE) SELECT 1", True, "text"),
        ("EXPLAIN (ANALYZE FALSE) SELECT 1", False, "text"),
        ("EXPLAIN (SELECT 1)", False, "text"),
        ("EXPLAIN DELETE FROM t", False, "text"),
    ],
)
def test_explain(text: str, analyze: bool, form: str) -> None:
    found = parse(text)
    assert isinstance(found, Explain) and (found.analyze, found.format) == (analyze, form)
    assert isinstance(found.inner, Query | Delete)


def test_the_explained_query_keeps_its_positions() -> None:
    text = "EXPLAIN ANALYZE SELECT 1"
    found = parse(text)
    assert isinstance(found, Explain) and isinstance(found.inner, Query)
    assert found.inner.text == " " * text.index("SELECT") + "SELECT 1"


@pytest.mark.parametrize("text", ["SELECT 1;", ";;SELECT 1 ; ;", " ; /* ; */ SELECT 1 -- ;"])
def test_empty_statements_around_one_are_fine(text: str) -> None:
    found = parse(text)
    assert isinstance(found, Query) and found.text.strip() == "SELECT 1"


@pytest.mark.parametrize("text", ["SELECT 1; SELECT 2", "INSERT INTO t VALUES (1); DROP TABLE t", "BEGIN; SELECT 1;"])
def test_two_statements_are_refused(text: str) -> None:
    with pytest.raises(SqlSyntaxError, match="one statement at a time"):
        parse(text)


@pytest.mark.parametrize("text", ["", "  \n", ";", "-- only a comment", "/* ; */ ;"])
def test_no_statement_is_refused(text: str) -> None:
    with pytest.raises(SqlSyntaxError, match="no statement"):
        parse(text)


def test_a_text_over_the_limit_is_refused() -> None:
    assert isinstance(parse("SELECT 1", limit=8), Query)
    with pytest.raises(InvalidValue, match="9 characters, the limit is 8"):
        parse("SELECT 12", limit=8)
    with pytest.raises(InvalidValue):
        parse(" " * (MAX_SQL_CHARS + 1))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("COPY t TO 'x.parquet'", "COPY"),
        ("ATTACH 'other.db'", "ATTACH"),
        ("DETACH x", "DETACH"),
        ("PRAGMA database_list", "PRAGMA"),
        ("INSTALL httpfs", "INSTALL"),
        ("LOAD httpfs", "LOAD"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
        ("IMPORT DATABASE 'x'", "IMPORT"),
        ("CALL pragma_version()", "CALL"),
        ("CHECKPOINT", "CHECKPOINT"),
        ("FORCE CHECKPOINT", "FORCE"),
        ("VACUUM", "VACUUM"),
        ("ANALYZE", "ANALYZE"),
        ("GRANT SELECT ON t TO x", "GRANT"),
        ("REVOKE SELECT ON t FROM x", "REVOKE"),
        ("PREPARE x AS SELECT 1", "PREPARE"),
        ("DEALLOCATE x", "DEALLOCATE"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE"),
        ("LISTEN x", "LISTEN"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX"),
        ("CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX"),
        ("CREATE FUNCTION f(a) AS a + 1", "CREATE FUNCTION"),
        ("CREATE OR REPLACE MACRO f(a) AS a + 1", "CREATE MACRO"),
        ("CREATE TEMP MACRO f(a) AS a + 1", "CREATE TEMP MACRO"),
        ("CREATE SEQUENCE s", "CREATE SEQUENCE"),
        ("CREATE TYPE x AS ENUM ('a')", "CREATE TYPE"),
        ("CREATE PERSISTENT SECRET s (TYPE s3)", "CREATE PERSISTENT SECRET"),
        ("CREATE SECRET s (TYPE s3)", "CREATE SECRET"),
        ("CREATE TRIGGER x AFTER INSERT ON t", "CREATE TRIGGER"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE MATERIALIZED VIEW"),
        ("CREATE ROLE x", "CREATE ROLE"),
        ("DROP INDEX i", "DROP INDEX"),
        ("DROP FUNCTION f", "DROP FUNCTION"),
        ("ALTER SEQUENCE s OWNED BY t", "ALTER SEQUENCE"),
        ("ALTER VIEW v RENAME TO w", "ALTER VIEW"),
        ("EXPLAIN CREATE TABLE t (a INT)", "EXPLAIN CREATE"),
        ("EXPLAIN (VERBOSE) SELECT 1", "EXPLAIN option VERBOSE"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse(text)
    assert caught.value.message.startswith(f"{named} is not supported")


@pytest.mark.parametrize(
    "text",
    [
        "FOO",
        "1",
        "'SELECT'",
        '"SELECT" 1',
        "SELEC 1",
        "EXPLAIN",
        "EXPLAIN EXPLAIN SELECT 1",
        "EXPLAIN FOO",
        "EXPLAIN ANALYZE",
        "CREATE",
        "DROP",
        "ALTER",
        "CREATE FOO x",
        "SHOW",
        "SET",
    ],
)
def test_what_nobody_knows_is_a_syntax_error(text: str) -> None:
    with pytest.raises(SqlSyntaxError):
        parse(text)


def test_hostile_nesting_ends_in_one_error_or_a_query() -> None:
    assert isinstance(parse("SELECT " + "(" * 50_000 + "1" + ")" * 50_000), Query)
    for text in ("EXPLAIN " * 50_000 + "SELECT 1", "(" * 50_000, "WITH a AS (SELECT 1) " * 5_000, "/*" * 50_000):
        try:
            assert parse(text)
        except KalamError as error:
            assert len(error.message) < 300


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("  ;; -- x\n ; ", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2 ;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';' ; SELECT $$;$$; SELECT \";\"", ["SELECT ';'", "SELECT $$;$$", 'SELECT ";"']),
        ("-- a;b\nSELECT 1 /* ; */ + 1; /* tail; */", ["-- a;b\nSELECT 1 /* ; */ + 1"]),
    ],
)
def test_split(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


def test_split_refuses_what_never_ends() -> None:
    with pytest.raises(SqlSyntaxError, match="never closed"):
        split("SELECT 1; SELECT 'a; SELECT 2")
