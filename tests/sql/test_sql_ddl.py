"""Tables, views and namespaces; what is not enforced is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from sql_plain import plain

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.sql import parse
from flightkalam.sql.statements import CreateTable, Statement


def column(name: str, type_text: str, **more: Any) -> dict[str, Any]:
    return {"is": "ColumnDef", "name": name, "type_text": type_text} | more


def check(expr: str, name: str | None = None) -> dict[str, Any]:
    return {"is": "Check", "name": name, "expr": expr}


def only_column(definition: str) -> Any:
    found = parse(f"CREATE TABLE t ({definition}, z INT)")
    assert isinstance(found, CreateTable) and len(found.columns) == 2
    return plain(found.columns[0])


CREATE_TABLES = [
    ("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", {
        "name": "t", "columns": [column("a", "INT", primary_key=True), column("b", "TEXT")], "primary_key": ["a"]}),
    ("create user table if not exists n.\"T\" (a INT, b INT, primary key (a, b)) "
     "with (type = 'USER', flush_policy='rows:5')", {
        "name": "n.T", "kind": "USER", "if_not_exists": True, "columns": [column("a", "INT"), column("b", "INT")],
        "primary_key": ["a", "b"], "options": [["TYPE", "USER"], ["FLUSH_POLICY", "rows:5"]]}),
    ("CREATE STREAM TABLE t (a INT) WITH (TTL_SECONDS=60, BLOOM_FILTER_FPP=0.01, X=TRUE, Y=false, Z=-1)", {
        "name": "t", "kind": "STREAM", "columns": [column("a", "INT")],
        "options": [["TTL_SECONDS", 60], ["BLOOM_FILTER_FPP", 0.01], ["X", True], ["Y", False], ["Z", -1]]}),
    ("CREATE SHARED TABLE t (a INT, CONSTRAINT k PRIMARY KEY (a), CHECK (a > 0), CONSTRAINT c CHECK (a IN (1, 2)),)", {
        "name": "t", "kind": "SHARED", "columns": [column("a", "INT")], "primary_key": ["a"],
        "checks": [check("a > 0"), check("a IN (1, 2)", "c")]}),
    ("CREATE TABLE t AS SELECT 1 AS a", {"name": "t", "as_query": "SELECT 1 AS a"}),
    ("CREATE TABLE t WITH (TYPE='SHARED') AS WITH x AS (SELECT 1) SELECT * FROM x", {
        "name": "t", "options": [["TYPE", "SHARED"]], "as_query": "WITH x AS (SELECT 1) SELECT * FROM x"}),
    ("CREATE TABLE t (PRIMARY KEY (a, b)) AS FROM s", {"name": "t", "primary_key": ["a", "b"], "as_query": "FROM s"}),
    ("CREATE TABLE t (PRIMARY KEY (a)) WITH (X=1) AS (SELECT 1)", {
        "name": "t", "primary_key": ["a"], "options": [["X", 1]], "as_query": "(SELECT 1)"}),
    ("CREATE USER TABLE t AS SELECT 1 AS USER 'u'", {
        "name": "t", "kind": "USER", "as_query": "SELECT 1", "as_user": "u"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CREATE_TABLES)
def test_create_table(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": "CreateTable"} | expected


@pytest.mark.parametrize(
    "type_text",
    ["INT", "DECIMAL(10, 2)", "VARCHAR(20)", "INTEGER[]", "FLOAT[3][]", "STRUCT(a INT, b VARCHAR[])", "DOUBLE PRECISION",
     "TIMESTAMP WITH TIME ZONE", "EMBEDDING(384)", "MAP(INT, TEXT)", '"Mood"', "TIME WITHOUT TIME ZONE", "INTERVAL"],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["", " NOT NULL", " NULL", " DEFAULT NULL", " PRIMARY KEY", " CHECK (a)", " /* NOT */"])
def test_a_type_is_sliced_and_not_read(type_text: str, rest: str) -> None:
    assert only_column(f"a {type_text}{rest}")["type_text"] == type_text


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("a INT NOT NULL DEFAULT 5 CHECK (a > 0)", column("a", "INT", not_null=True, default="5", checks=[check("a > 0")])),
        ("a INT DEFAULT (1 + 2) NOT NULL", column("a", "INT", default="(1 + 2)", not_null=True)),
        ("a INT DEFAULT f(1, 2) + 3 PRIMARY KEY", column("a", "INT", default="f(1, 2) + 3", primary_key=True)),
        ("a BOOLEAN DEFAULT b IS NOT NULL NOT NULL", column("a", "BOOLEAN", default="b IS NOT NULL", not_null=True)),
        ("a BOOLEAN DEFAULT NOT true NOT NULL", column("a", "BOOLEAN", default="NOT true", not_null=True)),
        ("a TEXT DEFAULT 'x NOT NULL, y' NULL", column("a", "TEXT", default="'x NOT NULL, y'")),
        ("a INT DEFAULT NULL", column("a", "INT", default="NULL")),
        ("a INT DEFAULT CASE WHEN true THEN 1 END", column("a", "INT", default="CASE WHEN true THEN 1 END")),
        (
            "a TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL",
            column("a", "TIMESTAMP", default="CURRENT_TIMESTAMP", not_null=True),
        ),
        (
            "a INT CHECK (a > 0) CONSTRAINT c CHECK (a < 9)",
            column("a", "INT", checks=[check("a > 0"), check("a < 9", "c")]),
        ),
        ("a SERIAL", column("a", "SERIAL", identity=True)),
        ("a bigserial PRIMARY KEY", column("a", "bigserial", identity=True, primary_key=True)),
        ("a BIGINT AUTO_INCREMENT", column("a", "BIGINT", identity=True)),
        ("a BIGINT IDENTITY NOT NULL", column("a", "BIGINT", identity=True, not_null=True)),
        ("a BIGINT GENERATED ALWAYS AS IDENTITY", column("a", "BIGINT", identity=True)),
        ("a BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", column("a", "BIGINT", identity=True, primary_key=True)),
        ('"from" INT', column("from", "INT")),
        ("user TEXT", column("user", "TEXT")),
    ],
)
def test_columns(definition: str, expected: dict[str, Any]) -> None:
    assert only_column(definition) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP TABLE IF EXISTS n.t", {"is": "DropTable", "name": "n.t", "if_exists": True}),
        ("DROP USER TABLE t CASCADE", {"is": "DropTable", "name": "t", "cascade": True}),
        ("CREATE VIEW n.v AS SELECT 1", {"is": "CreateView", "name": "n.v", "query": "SELECT 1"}),
        ("CREATE OR REPLACE VIEW v (a, b) AS FROM t", {
            "is": "CreateView", "name": "v", "or_replace": True, "columns": ["a", "b"], "query": "FROM t"}),
        ("CREATE VIEW IF NOT EXISTS v AS WITH x AS (SELECT 1) FROM x", {
            "is": "CreateView", "name": "v", "if_not_exists": True, "query": "WITH x AS (SELECT 1) FROM x"}),
        ("DROP VIEW IF EXISTS v", {"is": "DropView", "name": "v", "if_exists": True}),
        ("CREATE NAMESPACE n", {"is": "CreateNamespace", "name": "n"}),
        ("CREATE SCHEMA IF NOT EXISTS flightkalam.n", {"is": "CreateNamespace", "name": "n", "if_not_exists": True}),
        ("DROP NAMESPACE n", {"is": "DropNamespace", "name": "n"}),
        ("DROP SCHEMA IF EXISTS n CASCADE", {"is": "DropNamespace", "name": "n", "if_exists": True, "cascade": True}),
        ("DROP NAMESPACE n RESTRICT", {"is": "DropNamespace", "name": "n"}),
        ("COMMENT ON TABLE n.t IS 'it''s'", {"is": "Comment", "on": "table", "name": "n.t", "text": "it's"}),
        ("COMMENT ON COLUMN n.t.c IS NULL", {"is": "Comment", "on": "column", "name": "n.t", "column": "c", "text": None}),
        ("COMMENT ON COLUMN t.c IS ''", {"is": "Comment", "on": "column", "name": "t", "column": "c", "text": ""}),
        ("COMMENT ON VIEW v IS 'x'", {"is": "Comment", "on": "view", "name": "v", "text": "x"}),
        ("COMMENT ON SCHEMA n IS 'x'", {"is": "Comment", "on": "namespace", "name": "n", "text": "x"}),
    ],
)  # fmt: skip
def test_other_definitions(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ADD COLUMN a DECIMAL(5, 2) NOT NULL DEFAULT 1", {
            "is": "AddColumn", "column": column("a", "DECIMAL(5, 2)", not_null=True, default="1")}),
        ("ADD IF NOT EXISTS a INT CHECK (a > 0)", {
            "is": "AddColumn", "column": column("a", "INT", checks=[check("a > 0")]), "if_not_exists": True}),
        ("DROP COLUMN IF EXISTS a", {"is": "DropColumn", "column": "a", "if_exists": True}),
        ("DROP a RESTRICT", {"is": "DropColumn", "column": "a"}),
        ("RENAME COLUMN a TO \"B\"", {"is": "RenameColumn", "column": "a", "to": "B"}),
        ("RENAME a TO b", {"is": "RenameColumn", "column": "a", "to": "b"}),
        ("RENAME TO u", {"is": "RenameTable", "to": "u"}),
        ("ALTER COLUMN a SET DEFAULT f(1, 2)", {"is": "SetDefault", "column": "a", "default": "f(1, 2)"}),
        ("ALTER a DROP DEFAULT", {"is": "DropDefault", "column": "a"}),
        ("ALTER COLUMN a SET NOT NULL", {"is": "SetNotNull", "column": "a"}),
        ("ALTER COLUMN a DROP NOT NULL", {"is": "DropNotNull", "column": "a"}),
        ("ALTER COLUMN a SET DATA TYPE TIMESTAMP WITH TIME ZONE", {
            "is": "SetType", "column": "a", "type_text": "TIMESTAMP WITH TIME ZONE"}),
        ("ALTER a TYPE BIGINT", {"is": "SetType", "column": "a", "type_text": "BIGINT"}),
        ("SET OPTIONS (FLUSH_POLICY='rows:1')", {"is": "SetOptions", "options": [["FLUSH_POLICY", "rows:1"]]}),
        ("SET (TTL_SECONDS = 5)", {"is": "SetOptions", "options": [["TTL_SECONDS", 5]]}),
    ],
)  # fmt: skip
def test_alter_table(change: str, expected: dict[str, Any]) -> None:
    assert plain(parse(f"ALTER TABLE n.t {change}")) == {"is": "AlterTable", "name": "n.t", "action": expected}
    assert plain(parse(f"ALTER TABLE IF EXISTS n.t {change}"))["if_exists"] is True


def test_a_name_knows_its_namespace_and_its_place() -> None:
    found = parse('DROP TABLE flightkalam . n . "T""x"')
    name = found.name  # type: ignore[attr-defined]
    assert (name.namespace, name.table, name.start, name.end) == ("n", 'T"x', 11, 35)
    assert [part.quoted for part in name.parts] == [False, False, True]
    assert parse("DROP TABLE t").name.namespace is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CREATE TABLE t (a INT UNIQUE)", "UNIQUE on a column"),
        ("CREATE TABLE t (a INT REFERENCES s (a))", "REFERENCES on a column"),
        ("CREATE TABLE t (a TEXT COLLATE nocase)", "COLLATE on a column"),
        ("CREATE TABLE t (a TEXT DEFAULT 'x' COLLATE nocase)", "COLLATE on a column"),
        ("CREATE TABLE t (a INT USING COMPRESSION rle)", "USING on a column"),
        ("CREATE TABLE t (a INT AS (b + 1))", "a generated column"),
        ("CREATE TABLE t (a INT GENERATED ALWAYS AS (b + 1) STORED)", "a generated column"),
        ("CREATE TABLE t (a BIGINT GENERATED ALWAYS AS IDENTITY (START WITH 5))", "IDENTITY with its own start"),
        ("CREATE TABLE t (a BIGINT IDENTITY(1, 1))", "IDENTITY with its own start"),
        ("CREATE TABLE t (a INT, UNIQUE (a))", "UNIQUE in CREATE TABLE"),
        ("CREATE TABLE t (a INT, CONSTRAINT u UNIQUE (a))", "UNIQUE in CREATE TABLE"),
        ("CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES s (a))", "FOREIGN KEY in CREATE TABLE"),
        ("CREATE TABLE t (LIKE s)", "LIKE in CREATE TABLE"),
        ("CREATE TEMP TABLE t (a INT)", "CREATE TEMP TABLE"),
        ("CREATE OR REPLACE TABLE t (a INT)", "CREATE OR REPLACE TABLE"),
        ("CREATE OR REPLACE USER TABLE t (a INT)", "CREATE OR REPLACE TABLE"),
        ("CREATE TABLE t AS SELECT 1 WITH NO DATA", "WITH [NO] DATA"),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", "CREATE TEMPORARY VIEW"),
        ("ALTER TABLE t ADD UNIQUE (a)", "ADD UNIQUE"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "ADD PRIMARY"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", "ADD CONSTRAINT"),
        ("ALTER TABLE t DROP CONSTRAINT c", "DROP CONSTRAINT"),
        ("ALTER TABLE t DROP COLUMN a CASCADE", "CASCADE"),
        ("ALTER TABLE t ALTER a TYPE INT USING a::INT", "USING"),
        ("ALTER TABLE t SET SCHEMA n", "SET SCHEMA"),
        ("ALTER TABLE t DROP a, DROP b", "more than one change"),
        ("DROP TABLE t, s", "several objects"),
    ],
)
def test_what_is_not_enforced_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse(text)
    assert says in caught.value.message and "not supported" in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CREATE TABLE t", "expected ( and columns"),
        ("CREATE TABLE t ()", "expected a column name"),
        ("CREATE TABLE t (PRIMARY KEY (a))", "expected ( and columns"),
        ("CREATE TABLE t (a)", 'the type of column "a"'),
        ("CREATE TABLE t (a PRIMARY KEY)", 'the type of column "a"'),
        ("CREATE TABLE t (a INT NOT NULL b)", "expected a constraint"),
        ("CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)", "only one primary key"),
        ("CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))", "only one primary key"),
        ("CREATE TABLE t (a SERIAL DEFAULT 1)", "both a DEFAULT and generated ids"),
        ("CREATE TABLE t (a INT DEFAULT 1 DEFAULT 2)", "a DEFAULT already"),
        ("CREATE TABLE t (a INT) AS SELECT 1", "the columns come from the query"),
        ("CREATE TABLE t (CHECK (a)) AS SELECT 1", "the columns come from the query"),
        ("CREATE TABLE t AS INSERT INTO s VALUES (1)", "expected a query"),
        ("CREATE TABLE t (a INT) WITH (X)", 'expected "="'),
        ("CREATE TABLE t (a INT) WITH (TYPE=USER)", "option TYPE takes a string"),
        ("CREATE TABLE t (a INT) WITH (X=1, x=2)", "option X is given twice"),
        ("CREATE TABLE t (a INT) WITH (X=" + "9" * 5000 + ")", "option X takes"),
        ("CREATE TABLE t (select INT)", "reserved word"),
        ("CREATE VIEW v", "expected AS"),
        ("CREATE VIEW v AS DELETE FROM t", "expected a query"),
        ("CREATE NAMESPACE a.b", "only catalog is flightkalam"),
        ("ALTER TABLE t", "expected ADD, DROP"),
        ("ALTER TABLE t ALTER a", "expected SET DEFAULT"),
        ("ALTER TABLE t ADD a INT PRIMARY KEY", "cannot be the primary key"),
        ("ALTER TABLE t RENAME TO n.u", "should end here"),
        ("COMMENT ON COLUMN c IS 'x'", "expected table.column"),
        ("COMMENT ON INDEX i IS 'x'", "expected TABLE, VIEW"),
        ("COMMENT ON TABLE t IS x", "a comment as a string"),
    ],
)  # fmt: skip
def test_malformed_definitions(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        parse(text)
    assert says in caught.value.message


def test_statements_are_values() -> None:
    text = "CREATE TABLE t (a INT PRIMARY KEY)"
    found: Statement = parse(text)
    assert found == parse(text) and hash(found) == hash(parse(text))
