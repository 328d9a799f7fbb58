"""What may run, and what may not, however it is written (T-50)."""

from __future__ import annotations

import pytest
from query_house import House, make_table

from flightkalam.errors import BadRequest, InvalidValue, KalamError, SqlSyntaxError, UndefinedObject, Unsupported
from flightkalam.query.functions import BOUNDED, FORMATS, OWN, SCALARS, TABLE_FUNCTIONS, forbidden
from flightkalam.query.guard import Guard, Limits

HOSTILE = [
    # files as tables
    "SELECT * FROM 'secret.csv'",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    'SELECT * FROM "secret.parquet"',
    "FROM 'secret.csv'",
    "TABLE 'secret.csv'",
    "SUMMARIZE 'secret.csv'",
    "DESCRIBE 'secret.csv'",
    "SELECT * FROM t JOIN 'secret.csv' USING (k)",
    "SELECT * FROM t WHERE k IN (FROM 'secret.csv')",
    "SELECT (SELECT count(*) FROM 'secret.csv')",
    "SELECT * FROM t, LATERAL (SELECT * FROM 'secret.csv') q",
    "WITH a AS (SELECT * FROM 'secret.csv') SELECT * FROM a",
    "WITH a AS (WITH b AS (FROM 'x.csv') FROM b) FROM a",
    'WITH "x.csv" AS (SELECT 1) SELECT * FROM "y.csv"',
    "SELECT 1 UNION ALL SELECT * FROM 'secret.csv'",
    "SELECT /* FROM t */ * FROM /* t */ 'secret.csv' -- t",
    "PIVOT 'secret.csv' ON a IN (1) USING sum(b)",
    "SELECT * FROM a: 'secret.csv'",
    # functions that reach files, the network or the catalog
    "SELECT * FROM read_csv('secret.csv')",
    "SELECT * FROM READ_CSV_AUTO('secret.csv')",
    "SELECT * FROM \"read_text\"('/etc/passwd')",
    "SELECT * FROM main.read_text('/etc/passwd')",
    "SELECT * FROM system.main.read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet(['batch-0.parquet'])",
    "SELECT * FROM parquet_scan('batch-0.parquet')",
    "SELECT * FROM parquet_metadata('batch-0.parquet')",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM t, LATERAL read_text(t.s)",
    "SELECT * FROM t WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('t')",
    "SELECT * FROM sniff_csv('x')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pragma_table_info('t')",
    "SELECT * FROM seq_scan('t')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM which_secret('x', 's3')",
    "SELECT * FROM repeat(1, 5)",
    "SELECT getenv('HOME')",
    "SELECT 'HOME'.getenv()",
    "SELECT t.s.getenv() FROM t",
    "SELECT list_transform(['HOME'], x -> getenv(x))",
    "SELECT [getenv(x) FOR x IN ['HOME']]",
    "SELECT current_setting('memory_limit')",
    "SELECT getvariable('kalam_user')",
    "SELECT nextval('s')",
    "SELECT json_serialize_sql('SELECT 1')",
    "SELECT write_log('x')",
    "SELECT pg_sleep(10)",
    "SELECT current_query()",
    "SELECT __kalam_snowflake_id(random())",
    "SELECT sum(k) OVER (ORDER BY getenv('HOME')) FROM t",
    "SELECT k FROM t ORDER BY getenv('HOME')",
    "SELECT k FROM t LIMIT (SELECT length(getenv('HOME')))",
    "SELECT CASE WHEN true THEN getenv('HOME') END",
    "SELECT count(*) FILTER (WHERE getenv('HOME') = '') FROM t",
    "SELECT k FROM t QUALIFY row_number() OVER (PARTITION BY getenv('HOME')) = 1",
    "VALUES (getenv('HOME'))",
    "SELECT * REPLACE (getenv('HOME') AS k) FROM t",
    "SELECT COLUMNS(c -> getenv('HOME') = c) FROM t",
    # views and inputs of the engine
    "SELECT * FROM __kalam_t0",
    "SELECT * FROM k.__kalam_t0",
    "WITH __kalam_t0 AS (SELECT 1) SELECT * FROM __kalam_t0",
    "WITH duckdb_tables AS (SELECT 1) SELECT * FROM duckdb_tables",
    # statements that are no query
    "COPY t TO 'x.csv'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "ATTACH '/tmp/x.db'",
    "DETACH memory",
    "PRAGMA database_list",
    "SET memory_limit = '1TB'",
    "RESET ALL",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL pragma_version()",
    "EXPORT DATABASE 'x'",
    "CREATE TABLE x AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "DROP TABLE t",
    "INSERT INTO t VALUES (1)",
    "DELETE FROM t",
    "EXPLAIN SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CHECKPOINT",
    "VACUUM",
    "USE memory",
    "BEGIN",
    "SHOW TABLES",
    "SELECT * FROM (SHOW ALL TABLES)",
    "SELECT * FROM (DESCRIBE t)",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "SELECT * FROM t AT (VERSION => 1)",
    # more than one
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY t TO 'x'",
    "SELECT 1;;SELECT 2",
    "",
    ";",
    "-- nothing",
    "SELECT 1\0",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_reaches_beyond_the_tables_is_refused(house: House, text: str) -> None:
    house.add(make_table("t", {"k": "BIGINT", "s": "TEXT"}))
    (house.root / "secret.csv").write_text("k\n1\n")
    with pytest.raises(BadRequest) as caught:
        house.table(text)
    assert "/etc/passwd" not in str(caught.value) or "/etc/passwd" in text
    assert str(house.root) not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT repeat('x', 2000000000)",
        "SELECT repeat('x', k) FROM t",
        "SELECT repeat(repeat('x', 9999), 9999)",
        "SELECT lpad('x', 2000000000, ' ')",
        "SELECT rpad(s, k, ' ') FROM t",
        "SELECT format('{:>2000000000}', 'x')",
        "SELECT format('{:{}}', 'x', 2000000000)",
        "SELECT format(s, 1) FROM t",
        "SELECT printf('%2000000000d', 1)",
        "SELECT printf('%*d', 2000000000, 1)",
        "SELECT unnest(range(2000000000))",
        "SELECT range(-2000000000, 1)",
        "SELECT generate_series(k, k) FROM t",
        "SELECT list_resize([1], 2000000000)",
        "SELECT bar(1, 0, 10, 2000000000)",
    ],
)
def test_much_out_of_little_is_bounded(house: House, text: str) -> None:
    house.add(make_table("t", {"k": "BIGINT", "s": "TEXT"}))
    with pytest.raises(Unsupported, match=r"\(\)"):
        house.table(text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT repeat('ab', 2), lpad('x', 3, '.'), format('{:>3}', 'x'), printf('%03d', 7)", [("abab", "..x", "  x", "007")]),
        ("SELECT count(*) FROM range(1000000)", [(1_000_000,)]),
        ("SELECT len(range(10)), list_resize([1], 2)", [(10, [1, None])]),
        ("SELECT sum(x) FROM unnest([1, 2, 3]) u(x)", [(6,)]),
        ("SELECT 'a'.upper(), [x + 1 FOR x IN [1, 2] IF x > 1], {'a': 1}.a", [("A", [3], 1)]),
        ("SELECT count(*) OVER (), row_number() OVER (ORDER BY 1)", [(1, 1)]),
        ("SELECT extract(year FROM DATE '2024-05-06'), INTERVAL 1 DAY + DATE '2024-01-01' = '2024-01-02'", [(2024, True)]),
        ("SELECT 'x' SIMILAR TO 'x|y', 'xyz' LIKE 'x%', 'X' ILIKE 'x', 'a' || 'b'", [(True, True, True, "ab")]),
        ("SELECT coalesce(NULL, 1), nullif(1, 1), if(true, 1, 2), greatest(1, 2)", [(1, None, 1, 2)]),
        ("SELECT '{\"a\": [1]}'::JSON -> 'a' ->> 0", [("1",)]),
        ("VALUES (1, 'a'), (2, 'b')", [(1, "a"), (2, "b")]),
        ("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 3) SELECT sum(x) FROM r", [(6,)]),
        ("SELECT 1 -- the end;", [(1,)]),
        ("SELECT 1 /* x */ ; ; ", [(1,)]),
    ],
)
def test_plain_sql_runs(house: House, text: str, rows: list[tuple[object, ...]]) -> None:
    assert house.rows(text) == rows


# ---------------------------------------------------------------------------------------------------------------
# Names


def names(house: House, text: str) -> list[str]:
    guarded = house.guard.check(text)
    return [guarded.text[t.start : t.end] for t in guarded.tables]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM t", ["t"]),
        ("SELECT * FROM main . t AS x(a, b)", ["main . t"]),
        ('SELECT * FROM "wëird ""n" . "T /* no */" /* t */ x', ['"wëird ""n" . "T /* no */"']),
        ("SELECT 'é', * FROM é JOIN ü USING (k)", ["é", "ü"]),
        ("FROM t SELECT k", ["t"]),
        ("TABLE t", ["t"]),
        ("SUMMARIZE t", ["t"]),
        ("SELECT * FROM (TABLE main.t)", ["main.t"]),
        ("SELECT * FROM a: t, b: main.u", ["t", "main.u"]),
        ("PIVOT t ON s IN ('a') USING sum(k)", ["t"]),
        ("SELECT * FROM t PIVOT (sum(k) FOR s IN ('a'))", ["t"]),
        ("UNPIVOT t ON k, s", ["t"]),
        ("SELECT * FROM t TABLESAMPLE 10%, u", ["t", "u"]),
        # WITH hides a table of its name, in its scope and nowhere else
        ("WITH t AS (SELECT 1) SELECT * FROM t", []),
        ("WITH T AS (SELECT 1) SELECT * FROM t", []),
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", ["t"]),
        ("WITH t AS (SELECT 1) SELECT * FROM main.t", ["main.t"]),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", ["b"]),
        ("SELECT * FROM t, (WITH t AS (SELECT 1) SELECT * FROM t) q", ["t"]),
        ("WITH t AS (SELECT 1) SELECT (SELECT max(x) FROM u, t)", ["u"]),
        ("WITH RECURSIVE t AS (SELECT * FROM t UNION ALL SELECT * FROM t, u) SELECT * FROM t", ["t", "u"]),
        ("(WITH t AS (SELECT 1) SELECT * FROM t) UNION ALL SELECT * FROM t", ["t"]),
        ("SELECT * FROM u WHERE k IN (WITH t AS (SELECT 1 k) SELECT k FROM t) AND EXISTS (FROM t)", ["u", "t"]),
        ("WITH a AS (WITH t AS (SELECT 1) FROM t) SELECT * FROM a, t", ["t"]),
    ],
)
def test_table_names_are_found_where_they_stand(house: House, text: str, expected: list[str]) -> None:
    assert names(house, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT ?, ?", [1, 2]),
        ("SELECT $2, $1, $2", [2, 1, 2]),
        ("SELECT $b, $a, $b", [1, 2, 1]),
        ("SELECT '?', \"?\" FROM t WHERE k = ? -- ?", [1]),
    ],
)
def test_parameters_are_found_where_they_stand(house: House, text: str, expected: list[int]) -> None:
    guarded = house.guard.check(text)
    assert [p.index for p in guarded.parameters] == expected
    assert all(guarded.text[p.start] in "?$" for p in guarded.parameters)


# ---------------------------------------------------------------------------------------------------------------
# Errors and limits


@pytest.mark.parametrize(
    ("text", "kind", "state", "words"),
    [
        ("SELEC 1", SqlSyntaxError, "42601", 'syntax error at or near "SELEC" at line 1, column 1'),
        ("SELECT 1\nFROM t WHERE (", SqlSyntaxError, "42601", "line 2"),
        ("SELECT nofunc(1)", UndefinedObject, "42883", "function nofunc() does not exist"),
        ("SELECT uper('x')", UndefinedObject, "42883", 'did you mean "upper"?'),
        ("SELECT * FROM nofunc(1)", UndefinedObject, "42883", "function nofunc() does not exist"),
        ("SELECT getenv('x')", Unsupported, "0A000", "getenv() is not supported"),
        ("SELECT * FROM read_csv('x')", Unsupported, "0A000", "read_csv() is not supported in FROM"),
        ("SELECT 1; SELECT 2", InvalidValue, "42601", "one statement at a time"),
    ],
)
def test_refusals_say_what_and_what_next(house: House, text: str, kind: type[KalamError], state: str, words: str) -> None:
    with pytest.raises(kind) as caught:
        house.guard.check(text)
    assert caught.value.sqlstate == state
    assert words in str(caught.value)


def test_deep_nesting_is_an_error_and_no_crash(house: House) -> None:
    for text in (
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "SELECT " + "+".join(["1"] * 3000),
        "SELECT " + "-" * 1 + "- " * 3000 + "1",
    ):
        with pytest.raises((Unsupported, SqlSyntaxError)):
            house.guard.check(text)


def test_limits(house: House) -> None:
    guard = Guard(house.engine, Limits(max_chars=100, max_literals=5, max_tables=2))
    with pytest.raises(InvalidValue, match="100"):
        guard.check("SELECT " + "1" * 100)
    with pytest.raises(Unsupported, match="literals"):
        guard.check("SELECT 1, 2, 3, 4, 5, 6")
    with pytest.raises(Unsupported, match="tables"):
        guard.check("SELECT * FROM a, b, c")


def test_a_text_is_read_once(house: House) -> None:
    guard = Guard(house.engine, Limits(cached_texts=2))
    first = guard.check("SELECT 1")
    assert guard.check("SELECT 1") is first
    guard.check("SELECT 2")
    guard.check("SELECT 3")
    assert guard.check("SELECT 1") is not first


def test_the_function_lists_hold_together(house: House) -> None:
    assert not {f for f in SCALARS if forbidden(f) and f not in {"pg_typeof", "pg_size_pretty", "st_asbinary"}}
    assert set(BOUNDED) | FORMATS | OWN <= SCALARS
    assert {"range", "generate_series", "unnest"} == TABLE_FUNCTIONS
