"""SHOW TABLES, SHOW NAMESPACES, DESCRIBE and SHOW CREATE TABLE, as a client reads them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from catalog_support import NOW_US, column, empty_state, made, new_table, recreated, table

from flightkalam.catalog import alter, edits, show
from flightkalam.catalog.edits import NewColumn, NewTable, NewView
from flightkalam.catalog.state import CatalogState
from flightkalam.errors import UndefinedObject
from flightkalam.model.schema import Table, TableKind, View
from flightkalam.model.types import TEXT, parse_type

NOW = dt.datetime.fromtimestamp(NOW_US / 1e6, dt.UTC)


def everything(_: Table | View) -> bool:
    return True


def no_private(found: Table | View) -> bool:
    return isinstance(found, View) or found.kind is not TableKind.SHARED


def world() -> CatalogState:
    state = empty_state()
    for name in ("Sales", "hidden", "unused"):
        state = edits.create_namespace(state, name, created_by="root", now_us=NOW_US).state
    state, _ = made(state, new_table("sales.Orders", kind=TableKind.USER), 1)
    state, _ = made(state, new_table("sales.prices", options=(("ACCESS_LEVEL", "PUBLIC"),)), 2)
    state, _ = made(state, new_table("hidden.secret"), 3)
    state = edits.comment_on_table(state, 1, "what was bought").state
    view = NewView("main", "v", "SELECT 1", "ann", "main")
    return edits.create_view(state, view, now_us=NOW_US).state


# -- SHOW -------------------------------------------------------------------------------------------------------


def test_show_tables_lists_tables_and_views_by_name() -> None:
    shown = show.show_tables(world(), everything)
    assert shown.schema == show.TABLES_SCHEMA
    assert [tuple(r.values()) for r in shown.to_pylist()] == [
        ("hidden", "secret", "SHARED", "PRIVATE", NOW, None),
        ("main", "v", "VIEW", None, NOW, None),
        ("Sales", "Orders", "USER", None, NOW, "what was bought"),
        ("Sales", "prices", "SHARED", "PUBLIC", NOW, None),
    ]


def test_show_tables_in_a_namespace_lists_that_one() -> None:
    assert show.show_tables(world(), everything, "SALES")["table_name"].to_pylist() == ["Orders", "prices"]
    assert show.show_tables(world(), everything, "unused").num_rows == 0


def test_what_the_caller_may_not_see_is_not_there() -> None:
    assert show.show_tables(world(), no_private)["table_name"].to_pylist() == ["v", "Orders"]
    assert show.show_namespaces(world(), no_private).to_pylist() == [
        {"namespace": "main", "tables": 1, "comment": None},
        {"namespace": "Sales", "tables": 1, "comment": None},
        {"namespace": "unused", "tables": 0, "comment": None},
    ]


def test_a_hidden_namespace_and_a_missing_one_are_told_in_the_same_words() -> None:
    for name in ("hidden", "nope"):
        with pytest.raises(UndefinedObject) as caught:
            show.show_tables(world(), no_private, name)
        assert caught.value.message == f'namespace "{name}" does not exist'


def test_show_namespaces_lists_all_for_who_may_see_all() -> None:
    shown = show.show_namespaces(world(), everything)
    assert shown.schema == show.NAMESPACES_SCHEMA
    assert shown["namespace"].to_pylist() == ["hidden", "main", "Sales", "unused"]
    assert shown["tables"].to_pylist() == [1, 1, 2, 0]


def test_show_on_nothing_keeps_its_schema() -> None:
    assert show.show_tables(CatalogState(), everything).schema == show.TABLES_SCHEMA


# -- DESCRIBE ---------------------------------------------------------------------------------------------------


def test_describe_lists_what_select_star_lists() -> None:
    t = table("a DECIMAL(9,2)", column("b TEXT", not_null=True, default="'x'"), key=(), hidden_key=True)
    described = show.describe_table(t)
    assert described.schema == show.DESCRIBE_SCHEMA
    assert [tuple(r.values()) for r in described.to_pylist()] == [
        ("a", "DECIMAL(9,2)", "YES", None, None, None),
        ("b", "TEXT", "NO", None, "'x'", None),
    ]


def test_describe_marks_the_key() -> None:
    described = show.describe_table(table("a INT", "b INT", "c INT", key=("b", "a")))
    assert described["key"].to_pylist() == ["PRI", "PRI", None]
    assert described["null"].to_pylist() == ["NO", "NO", "YES"]


def test_describe_of_a_view_takes_its_columns_from_the_engine() -> None:
    described = show.describe_columns([("x", parse_type("INT")), ("y", "HUGEINT")])
    assert described["column_type"].to_pylist() == ["INT", "HUGEINT"]


# -- SHOW CREATE TABLE ------------------------------------------------------------------------------------------

PLAIN = table(column("id BIGINT", identity=True), "name TEXT")
RICH = made(
    empty_state(),
    NewTable(
        "main",
        "Order Lines",
        (
            NewColumn("select", TEXT),
            column("Line INT"),
            column("price DECIMAL(12,2)", not_null=True, default="0"),
            column("note TEXT", default="'it''s' || ' new'"),
            column("at TIMESTAMPTZ", default="now()"),
            column('shape STRUCT("x y" INT, z TEXT[])'),
            column("v EMBEDDING(3)"),
        ),
        "ann",
        TableKind.USER,
        ("Line", "select"),
        (("positive", "price >= 0"), (None, "note <> '' -- not empty")),
        (
            ("FLUSH_POLICY", "rows:5000"),
            ("ROW_RETENTION", "90d BY at"),
            ("BLOOM_FILTER_COLUMNS", 'Line,"select"'),
            ("BLOOM_FILTER_FPP", 0.001),
            ("DELETED_RETENTION_HOURS", 24),
            ("COMPACTION", "manual"),
            ("STORAGE_ID", "it's cold"),
        ),
    ),
)[1]
HIDDEN = table("a INT", key=(), hidden_key=True)
STREAM = table("a INT", key=(), kind=TableKind.STREAM, options=(("TTL_SECONDS", 30),))
PUBLIC = table("a INT", options=(("ACCESS_LEVEL", "PUBLIC"), ("BLOOM_FILTER_COLUMNS", "")))

GOLDEN = {
    "plain": (
        PLAIN,
        """CREATE SHARED TABLE main.t (
    id BIGINT DEFAULT SNOWFLAKE_ID(),
    name TEXT,
    PRIMARY KEY (id)
)""",
    ),
    "rich": (
        RICH,
        """CREATE USER TABLE main."Order Lines" (
    "select" TEXT,
    Line INT,
    price DECIMAL(12,2) NOT NULL DEFAULT 0,
    note TEXT DEFAULT ('it''s' || ' new'),
    "at" TIMESTAMPTZ DEFAULT now(),
    shape STRUCT("x y" INT, "z" TEXT[]),
    v EMBEDDING(3),
    PRIMARY KEY (Line, "select"),
    CONSTRAINT positive CHECK (price >= 0),
    CONSTRAINT "Order Lines_check" CHECK (note <> '' -- not empty
)
) WITH (FLUSH_POLICY = 'rows:5000', DELETED_RETENTION_HOURS = 24, ROW_RETENTION = '90d BY "at"', \
BLOOM_FILTER_COLUMNS = 'Line, "select"', BLOOM_FILTER_FPP = 0.001, COMPACTION = 'manual', STORAGE_ID = 'it''s cold')""",
    ),
    "hidden key": (
        HIDDEN,
        """CREATE SHARED TABLE main.t (
    a INT
) WITH (HIDDEN_KEY = true)""",
    ),
    "stream": (
        STREAM,
        """CREATE STREAM TABLE main.t (
    a INT
) WITH (TTL_SECONDS = 30)""",
    ),
    "public": (
        PUBLIC,
        """CREATE SHARED TABLE main.t (
    a INT,
    PRIMARY KEY (a)
) WITH (ACCESS_LEVEL = 'PUBLIC', BLOOM_FILTER_COLUMNS = '')""",
    ),
}


def without_spelling(t: Table) -> Table:
    """The table but for parentheses and white space around its expressions."""

    def bare(text: str | None) -> str | None:
        return text.strip().removeprefix("(").removesuffix(")") if text and text.startswith("(") else text

    columns = tuple(replace(c, default=bare(c.default)) for c in t.schema.columns)
    checks = tuple((n, text.split("--")[0].strip()) for n, text in t.checks)
    return replace(t, schema=replace(t.schema, columns=columns), checks=checks)


@pytest.mark.parametrize("name", GOLDEN)
def test_show_create_table_is_this_text(name: str) -> None:
    t, text = GOLDEN[name]
    assert show.create_table_text(t) == text


@pytest.mark.parametrize("name", GOLDEN)
def test_the_text_makes_the_table_again(name: str) -> None:
    t, text = GOLDEN[name]
    again = recreated(text)
    assert without_spelling(again) == without_spelling(t)
    assert show.create_table_text(recreated(show.create_table_text(again))) == show.create_table_text(again)


def test_show_create_gives_one_row_per_statement() -> None:
    state, t = made(empty_state(), new_table("t", "id BIGINT", "a INT"))
    assert show.show_create(t)["statement"].to_pylist() == [show.create_table_text(t)]
    state = edits.comment_on_table(state, 1, "it's mine").state
    commented: Any = alter.comment_on_column(state, 1, "a", "an a").table
    shown = show.show_create(commented)
    assert shown.schema == show.CREATE_SCHEMA
    assert shown["table_name"].to_pylist() == ["main.t"] * 3
    assert shown["statement"].to_pylist()[1:] == [
        "COMMENT ON TABLE main.t IS 'it''s mine'",
        "COMMENT ON COLUMN main.t.a IS 'an a'",
    ]


def test_show_create_of_a_view_says_where_its_names_are_looked_up() -> None:
    view = View("main", "V", "SELECT a FROM t", ("x", "y z"), "ann", NOW_US, "Sales", "ours")
    assert show.create_view_statements(view) == [
        "USE Sales",
        'CREATE VIEW main.V (x, "y z") AS SELECT a FROM t',
        "COMMENT ON VIEW main.V IS 'ours'",
    ]
