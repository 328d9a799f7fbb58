"""information_schema and system relations as Arrow tables."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from catalog_support import NOW_US, column, empty_state, made, new_table

from flightkalam.catalog import alter, edits
from flightkalam.catalog.edits import NewView
from flightkalam.catalog.providers import Context, Providers
from flightkalam.catalog.state import CatalogState
from flightkalam.errors import DuplicateObject, InternalError
from flightkalam.model.schema import Table, TableKind, View
from flightkalam.model.types import parse_type


def world() -> CatalogState:
    state = edits.create_namespace(empty_state(), "Sales", created_by="root", now_us=NOW_US).state
    columns = ("b TEXT", column("id BIGINT", identity=True), "p DECIMAL(9,2)")
    state, _ = made(state, new_table("sales.Orders", *columns, key=("id", "b"), kind=TableKind.USER), 1)
    state, _ = made(state, new_table("main.log", "at TIMESTAMP", key=(), hidden_key=True), 2)
    state = alter.comment_on_column(state, 1, "p", "price").state
    view = NewView("main", "v", "SELECT 1", "ann", "main")
    return edits.create_view(state, view, now_us=NOW_US).state


def context(visible: Any = lambda _: True) -> Context:
    return Context(world(), visible, lambda _: [("one", parse_type("INT"))])


def rows(name: str, *wanted: str, visible: Any = lambda _: True) -> list[tuple[Any, ...]]:
    relation = Providers().find(*name.split("."))
    assert relation is not None
    read = relation.read(context(visible)).select(wanted)
    return [tuple(r.values()) for r in read.to_pylist()]


def only_views(found: Table | View) -> bool:
    return isinstance(found, View)


# -- information_schema -----------------------------------------------------------------------------------------


def test_schemata() -> None:
    assert rows("information_schema.schemata", "catalog_name", "schema_name", "schema_owner") == [
        ("flightkalam", "main", None),
        ("flightkalam", "Sales", None),
    ]


def test_tables() -> None:
    assert rows("information_schema.tables", "table_schema", "table_name", "table_type", "is_insertable_into") == [
        ("main", "log", "BASE TABLE", "YES"),
        ("main", "v", "VIEW", "NO"),
        ("Sales", "Orders", "BASE TABLE", "YES"),
    ]


def test_columns_lists_what_select_star_lists() -> None:
    wanted = (
        "table_name",
        "column_name",
        "ordinal_position",
        "is_nullable",
        "data_type",
        "column_default",
        "column_comment",
    )
    assert rows("information_schema.columns", *wanted) == [
        ("log", "at", 1, "YES", "TIMESTAMP", None, None),
        ("v", "one", 1, "YES", "INT", None, None),
        ("Orders", "b", 1, "NO", "TEXT", None, None),
        ("Orders", "id", 2, "NO", "BIGINT", "SNOWFLAKE_ID()", None),
        ("Orders", "p", 3, "YES", "DECIMAL(9,2)", None, "price"),
    ]


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("SMALLINT", (16, 2, 0, None)),
        ("INT", (32, 2, 0, None)),
        ("BIGINT", (64, 2, 0, None)),
        ("REAL", (24, 2, None, None)),
        ("DOUBLE", (53, 2, None, None)),
        ("DECIMAL(9,2)", (9, 10, 2, None)),
        ("TIMESTAMP", (None, None, None, 6)),
        ("DATE", (None, None, None, 0)),
        ("TEXT", (None, None, None, None)),
    ],
)
def test_precision_is_told_as_postgresql_tells_it(type_: str, expected: tuple[Any, ...]) -> None:
    state, _ = made(empty_state(), new_table("t", f"a {type_}", key=(), hidden_key=True))
    relation = Providers().find("information_schema", "columns")
    assert relation is not None
    read = relation.read(Context(state, lambda _: True))
    wanted = ("numeric_precision", "numeric_precision_radix", "numeric_scale", "datetime_precision")
    assert tuple(read.select(wanted).to_pylist()[0].values()) == expected


def test_the_standard_relations_have_postgresqls_columns_in_its_order() -> None:
    p = Providers()
    counts = {r.name: len(r.schema) for r in p if r.namespace == "information_schema"}
    assert counts == {"schemata": 7, "tables": 12 + 1, "columns": 44 + 1}
    columns = p.find("information_schema", "columns")
    assert columns is not None
    assert columns.schema.names[:8] == [
        "table_catalog", "table_schema", "table_name", "column_name",
        "ordinal_position", "column_default", "is_nullable", "data_type",
    ]  # fmt: skip
    assert columns.schema.names[-2:] == ["is_updatable", "column_comment"]


def test_information_schema_is_limited_to_what_the_caller_may_see() -> None:
    assert rows("information_schema.tables", "table_name", visible=only_views) == [("v",)]
    assert rows("information_schema.columns", "column_name", visible=only_views) == [("one",)]
    assert rows("information_schema.schemata", "schema_name", visible=only_views) == [("main",)]


# -- system -----------------------------------------------------------------------------------------------------


def test_system_relations_show_everything() -> None:
    """The session lets dba and above read them; none asks `visible`."""
    assert rows("system.namespaces", "namespace", "tables", "views", "created_by", visible=only_views) == [
        ("main", 1, 1, None),
        ("Sales", 1, 0, "root"),
    ]
    wanted = ("table_id", "namespace", "table_name", "table_type", "primary_key", "columns", "schema_version", "folder")
    assert rows("system.tables", *wanted, visible=only_views) == [
        (2, "main", "log", "SHARED", ["_id"], 2, 1, "main/log~2"),
        (None, "main", "v", "VIEW", None, None, None, None),
        (1, "Sales", "Orders", "USER", ["id", "b"], 3, 1, "Sales/Orders~1"),
    ]


def test_system_columns_shows_ids_and_hidden_columns() -> None:
    wanted = ("table_name", "column_id", "column_name", "not_null", "key_position", "hidden")
    assert rows("system.columns", *wanted) == [
        ("log", 1, "at", False, None, False),
        ("log", 2, "_id", True, 1, True),
        ("Orders", 1, "b", True, 2, False),
        ("Orders", 2, "id", True, 1, False),
        ("Orders", 3, "p", False, None, False),
    ]


def test_system_tables_shows_the_options_in_force_defaults_included() -> None:
    options = dict(rows("system.tables", "table_name", "options"))
    assert json.loads(options["log"]) == {
        "FLUSH_POLICY": "rows:100000,interval:300",
        "ACCESS_LEVEL": "PRIVATE",
        "DELETED_RETENTION_HOURS": 168,
        "ROW_RETENTION": None,
        "BLOOM_FILTER_COLUMNS": ["_id"],
        "BLOOM_FILTER_FPP": 0.01,
        "COMPACTION": "auto",
        "STORAGE_ID": None,
    }
    assert "ACCESS_LEVEL" not in json.loads(options["Orders"])
    assert options["v"] is None


# -- the registry -----------------------------------------------------------------------------------------------


def test_a_relation_is_found_in_any_case() -> None:
    p = Providers()
    assert p.find("INFORMATION_SCHEMA", "Tables") is p.find("information_schema", "tables") is not None
    assert p.find("system", "nope") is None


def test_only_information_schema_is_for_everyone() -> None:
    assert {r.namespace for r in Providers() if r.for_everyone} == {"information_schema"}


def test_other_rooms_register_theirs() -> None:
    p = Providers()
    schema = pa.schema([("caller", pa.utf8())])
    p.register("system", "whoami", schema, lambda c: pa.table({"caller": [c.caller]}, schema=schema))
    relation = p.find("system", "whoami")
    assert relation is not None
    assert relation.read(Context(CatalogState(), lambda _: True, caller="ann")).to_pylist() == [{"caller": "ann"}]
    with pytest.raises(DuplicateObject, match=r'system relation "System\.WhoAmI" is registered twice'):
        p.register("System", "WhoAmI", schema, lambda c: schema.empty_table())


def test_a_relation_computed_with_another_schema_is_a_bug_that_shows() -> None:
    p = Providers()
    p.register("system", "odd", pa.schema([("a", pa.int64())]), lambda _: pa.table({"a": ["text"]}))
    relation = p.find("system", "odd")
    assert relation is not None
    with pytest.raises(InternalError, match=r"system\.odd was computed with another schema"):
        relation.read(context())


def test_every_relation_keeps_its_schema_when_there_is_nothing() -> None:
    nothing = Context(CatalogState(), lambda _: True)
    for relation in Providers():
        assert relation.read(nothing).schema == relation.schema
        assert relation.read(nothing).num_rows == 0
