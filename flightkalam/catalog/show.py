"""What exists, as Arrow tables: SHOW TABLES, SHOW NAMESPACES, DESCRIBE, SHOW CREATE TABLE.

Pure.  What a caller may see is handed in as `visible`; DESCRIBE and SHOW CREATE take a table that the caller was
already allowed to name.  All of them list what `SELECT *` lists: no system columns and no hidden key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from flightkalam.catalog.names import DEFAULT_NAMESPACE, fold
from flightkalam.catalog.options import HIDDEN_KEY, shown
from flightkalam.catalog.state import CatalogState, Visible
from flightkalam.catalog.text import is_one_operand, quote_identifier, quote_list, quote_literal
from flightkalam.errors import undefined_namespace
from flightkalam.model.schema import Column, Table, TableKind, View
from flightkalam.model.types import ColumnType

TIMESTAMP = pa.timestamp("us", "UTC")

TABLES_SCHEMA = pa.schema(
    [
        ("namespace", pa.utf8()),
        ("table_name", pa.utf8()),
        ("table_type", pa.utf8()),
        ("access_level", pa.utf8()),
        ("created_at", TIMESTAMP),
        ("comment", pa.utf8()),
    ]
)
NAMESPACES_SCHEMA = pa.schema([("namespace", pa.utf8()), ("tables", pa.int64()), ("comment", pa.utf8())])
# The engine's own DESCRIBE, with our comment where it has "extra".
DESCRIBE_SCHEMA = pa.schema(
    [
        ("column_name", pa.utf8()),
        ("column_type", pa.utf8()),
        ("null", pa.utf8()),
        ("key", pa.utf8()),
        ("default", pa.utf8()),
        ("comment", pa.utf8()),
    ]
)
CREATE_SCHEMA = pa.schema([("table_name", pa.utf8()), ("statement", pa.utf8())])


def show_tables(state: CatalogState, visible: Visible, namespace: str | None = None) -> pa.Table:
    """Tables and views, of one namespace or of all.

    :raises UndefinedObject: the namespace does not exist, or every object in it is hidden from the caller.
    """
    if namespace is not None:
        require_visible_namespace(state, visible, namespace)
    return to_arrow(
        TABLES_SCHEMA,
        [
            {
                "namespace": found.namespace,
                "table_name": found.name,
                "table_type": type_of(found),
                "access_level": access_level_of(found),
                "created_at": found.created_at_us,
                "comment": found.comment,
            }
            for found in state.objects(namespace)
            if visible(found)
        ],
    )


def show_namespaces(state: CatalogState, visible: Visible) -> pa.Table:
    counts: dict[str, int] = {}
    for found in state.objects():
        if visible(found):
            counts[fold(found.namespace)] = counts.get(fold(found.namespace), 0) + 1
    return to_arrow(
        NAMESPACES_SCHEMA,
        [
            {"namespace": n.name, "tables": counts.get(fold(n.name), 0), "comment": n.comment}
            for n in state.visible_namespaces(visible)
        ],
    )


def require_visible_namespace(state: CatalogState, visible: Visible, name: str) -> str:
    """The namespace's kept name; one that the caller may not see is missing, in the same words."""
    namespace = state.namespace(name)
    if namespace not in state.visible_namespaces(visible):
        raise undefined_namespace(name)
    return namespace.name


def describe_table(table: Table) -> pa.Table:
    key = set(table.schema.key)
    return to_arrow(
        DESCRIBE_SCHEMA,
        [
            {
                "column_name": c.name,
                "column_type": c.type.name,
                "null": yes_no(not c.not_null),
                "key": "PRI" if c.id in key else None,
                "default": c.default,
                "comment": c.comment,
            }
            for c in table.schema.visible
        ],
    )


def describe_columns(columns: Iterable[tuple[str, ColumnType | str]]) -> pa.Table:
    """DESCRIBE of a view or a query, whose columns only the engine knows."""
    return to_arrow(DESCRIBE_SCHEMA, [{"column_name": n, "column_type": str(t), "null": "YES"} for n, t in columns])


def show_create(found: Table | View) -> pa.Table:
    """One row per statement, the CREATE first where nothing must go before it."""
    statements = create_table_statements(found) if isinstance(found, Table) else create_view_statements(found)
    return to_arrow(CREATE_SCHEMA, [{"table_name": found.qualified, "statement": s} for s in statements])


# ---------------------------------------------------------------------------------------------------------------
# Statements that make it again


def create_table_statements(table: Table) -> list[str]:
    """CREATE TABLE, then a COMMENT ON for each comment."""
    statements = [create_table_text(table)]
    name = qualified(table)
    if table.comment is not None:
        statements.append(f"COMMENT ON TABLE {name} IS {quote_literal(table.comment)}")
    for column in table.schema.visible:
        if column.comment is not None:
            target = f"{name}.{quote_identifier(column.name)}"
            statements.append(f"COMMENT ON COLUMN {target} IS {quote_literal(column.comment)}")
    return statements


def create_table_text(table: Table) -> str:
    """The statement that makes the table as it is now: columns, key, checks, and each option not at its default."""
    stated_key = [c for c in table.schema.key_columns if not c.hidden]
    lines = [_column_text(c, c in stated_key) for c in table.schema.visible]
    if stated_key:
        lines.append(f"PRIMARY KEY ({quote_list(c.name for c in stated_key)})")
    lines += [f"CONSTRAINT {quote_identifier(name)} CHECK ({_ended(text)})" for name, text in table.checks]
    options = shown(table.options)
    if not stated_key and table.kind is not TableKind.STREAM:
        options.append((HIDDEN_KEY, "true"))
    with_ = f" WITH ({', '.join(f'{name} = {value}' for name, value in options)})" if options else ""
    body = ",\n".join(f"    {line}" for line in lines)
    return f"CREATE {table.kind.value} TABLE {qualified(table)} (\n{body}\n){with_}"


def _column_text(column: Column, in_key: bool) -> str:
    parts = [quote_identifier(column.name), column.type.name]
    if column.not_null and not in_key:
        parts.append("NOT NULL")
    if column.default is not None:
        default = column.default
        parts.append(f"DEFAULT {default if is_one_operand(default) else f'({_ended(default)})'}")
    return " ".join(parts)


def _ended(text: str) -> str:
    """The text such that a comment at its end does not swallow what follows."""
    return f"{text}\n" if "--" in text.rsplit("\n", 1)[-1] else text


def create_view_statements(view: View) -> list[str]:
    """CREATE VIEW, after a USE where the query's names are looked up elsewhere than in the default namespace."""
    columns = f" ({quote_list(view.columns)})" if view.columns is not None else ""
    statements = [f"CREATE VIEW {qualified(view)}{columns} AS {view.text}"]
    if fold(view.default_namespace) != DEFAULT_NAMESPACE:
        statements.insert(0, f"USE {quote_identifier(view.default_namespace)}")
    if view.comment is not None:
        statements.append(f"COMMENT ON VIEW {qualified(view)} IS {quote_literal(view.comment)}")
    return statements


def qualified(found: Table | View) -> str:
    return f"{quote_identifier(found.namespace)}.{quote_identifier(found.name)}"


# ---------------------------------------------------------------------------------------------------------------
# Shared with the providers


def type_of(found: Table | View) -> str:
    return found.kind.value if isinstance(found, Table) else "VIEW"


def access_level_of(found: Table | View) -> str | None:
    if isinstance(found, Table) and found.kind is TableKind.SHARED:
        return found.options.access_level.value
    return None


def yes_no(value: bool) -> str:
    return "YES" if value else "NO"


def to_arrow(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One Arrow table of exactly `schema`; what a row does not name is NULL."""
    return pa.table([pa.array([r.get(f.name) for r in rows], f.type) for f in schema], schema=schema)
