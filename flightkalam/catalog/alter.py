"""Edits of a table's columns and options (ALTER TABLE, COMMENT ON COLUMN).

A column's id is given once and never again: files carry ids, so RENAME leaves old files readable and DROP + ADD of one
name does not bring old values back (T-32, T-33).  Every ALTER bumps the schema version, so that a statement
planned against the table as it was is planned again (T-49).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from flightkalam.catalog.edits import MAX_COLUMNS, NewColumn, built_column
from flightkalam.catalog.names import check_column_name, fold
from flightkalam.catalog.options import (
    OptionValue,
    can_have_bloom_filter,
    options_changed,
    options_naming,
    row_retention,
    with_column_renamed,
)
from flightkalam.catalog.state import CatalogState, Change, Draft
from flightkalam.catalog.text import mentions, rewritten, uses_word
from flightkalam.errors import DependentObjects, DuplicateObject, InvalidValue, NotNullViolation, Unsupported
from flightkalam.model.schema import Column, Table
from flightkalam.model.types import DOUBLE, REAL, ColumnType, widens


def add_column(
    state: CatalogState,
    table_id: int,
    new: NewColumn,
    *,
    fill_text: str | None = None,
    fill_ipc: bytes | None = None,
    empty: bool = False,
) -> Change:
    """A new last column.

    :param fill_text: what rows that exist show in it, as the engine's text; the default, evaluated once by the caller.
    :param fill_ipc: the same as `model.schema.fill_bytes` makes it.
    :param empty: the table holds no row, so that NOT NULL needs no default.
    """
    table = state.table(table_id)
    if len(table.schema.columns) >= MAX_COLUMNS:
        raise InvalidValue(f'table "{table.qualified}" has {MAX_COLUMNS} columns, the most there can be', sqlstate="54011")
    column = built_column(new, table.next_column_id)
    _check_free(table, column.name)
    if new.identity and not empty:
        raise Unsupported(
            f'column "{new.name}" numbers itself: table "{table.qualified}" has rows, which would all get one id; '
            "add it as BIGINT and fill it with UPDATE"
        )
    if column.not_null and fill_ipc is None and not empty:
        raise NotNullViolation(
            f'column "{new.name}" is NOT NULL and table "{table.qualified}" has rows; give the column a DEFAULT'
        )
    column = replace(column, fill_text=fill_text, fill_ipc=fill_ipc)
    columns = (*table.schema.columns, column)
    return _changed(state, table.with_schema(columns, next_column_id=table.next_column_id + 1))


def drop_column(state: CatalogState, table_id: int, name: str) -> Change:
    table, column = _editable(state, table_id, name)
    if column.id in table.schema.key:
        raise DependentObjects(f'column "{column.name}" is in the primary key of table "{table.qualified}": it must stay')
    if len(table.schema.visible) == 1:
        raise DependentObjects(f'column "{column.name}" is the last of table "{table.qualified}"; drop the table')
    for option in options_naming(table.options, column.name):
        raise DependentObjects(f'column "{column.name}" is named by option {option}; change the option first')
    for check, text in table.checks:
        if mentions(text, table, column.name):
            raise DependentObjects(
                f'column "{column.name}" is used by the constraint "{check}" of table "{table.qualified}"; it must stay'
            )
    return _changed(state, table.with_schema([c for c in table.schema.columns if c.id != column.id]))


def rename_column(state: CatalogState, table_id: int, name: str, new_name: str) -> Change:
    """Another name for the same id; options and checks that name the column follow."""
    table, column = _editable(state, table_id, name)
    check_column_name(new_name)
    if fold(new_name) != fold(column.name):
        _check_free(table, new_name)
    for check, text in table.checks:
        # `new_name` may stand for something else there, such as a lambda's argument, and would capture it.
        if fold(new_name) != fold(column.name) and mentions(text, table, column.name) and uses_word(text, new_name):
            raise DependentObjects(
                f'column "{column.name}" cannot be renamed to "{new_name}": the constraint "{check}" uses that word'
            )

    def renamed(mentioned: str | None) -> str | None:
        return new_name if mentioned == column.name else None

    return _changed(
        state,
        _with_column(
            table,
            replace(column, name=new_name),
            options=with_column_renamed(table.options, column.name, new_name),
            checks=tuple((n, rewritten(text, table, renamed)) for n, text in table.checks),
        ),
    )


def set_default(state: CatalogState, table_id: int, name: str, default: str) -> Change:
    """The default of rows to come; what older rows show (`fill_*`) stays."""
    table, column = _editable(state, table_id, name)
    return _changed(state, _with_column(table, replace(column, default=default)))


def drop_default(state: CatalogState, table_id: int, name: str) -> Change:
    table, column = _editable(state, table_id, name)
    return _changed(state, _with_column(table, replace(column, default=None)))


def set_not_null(state: CatalogState, table_id: int, name: str) -> Change:
    """The caller has made sure that no visible row is NULL there."""
    table, column = _editable(state, table_id, name)
    return _changed(state, _with_column(table, replace(column, not_null=True)))


def drop_not_null(state: CatalogState, table_id: int, name: str) -> Change:
    table, column = _editable(state, table_id, name)
    if column.id in table.schema.key:
        raise InvalidValue(
            f'column "{column.name}" of table "{table.qualified}" is in the primary key and stays NOT NULL',
            sqlstate="42P16",
        )
    return _changed(state, _with_column(table, replace(column, not_null=False)))


def set_type(state: CatalogState, table_id: int, name: str, type_: ColumnType) -> Change:
    """A wider type: old files keep the narrow one, and each of their values is a value of the new (T-31)."""
    table, column = _editable(state, table_id, name)
    if not widens(column.type, type_):
        raise Unsupported(
            f'column "{column.name}" of table "{table.qualified}" is {column.type} and cannot become {type_}: '
            "only a wider type keeps every value; add a column and fill it with UPDATE"
        )
    if column.id in table.schema.key and column.type != type_ and (column.type.kind, type_.kind) != ("int", "int"):
        raise Unsupported(
            f'column "{column.name}" of table "{table.qualified}" is in the primary key: {column.type} cannot become '
            f"{type_}, as its values would sort and compare in another form; whole numbers may become wider ones"
        )
    # Older bounds count days, not microseconds, or whole units, not hundredths: they say nothing about the new type.
    same_scale = (column.type.kind, column.type.scale) == (type_.kind, type_.scale)
    since = column.bounds_since if same_scale else table.schema.version + 1
    changed = replace(column, type=type_, fill_text=_widened_fill(column, type_), bounds_since=since)
    _check_options_allow(table, changed)
    return _changed(state, _with_column(table, changed))


def _widened_fill(column: Column, type_: ColumnType) -> str | None:
    """The fill as text: "0.1" is one number as REAL and another as DOUBLE, and old rows must go on showing theirs."""
    if column.type != REAL or type_ != DOUBLE or column.fill_ipc is None:
        return column.fill_text
    value = column.fill_array(1).cast(pa.float64())[0].as_py()
    return None if value is None else repr(value)


def _check_options_allow(table: Table, column: Column) -> None:
    naming = options_naming(table.options, column.name)
    if "BLOOM_FILTER_COLUMNS" in naming and not can_have_bloom_filter(column):
        raise DependentObjects(
            f'column "{column.name}" is named by option BLOOM_FILTER_COLUMNS, and {column.type} has no filter; '
            "change the option first"
        )
    assert "ROW_RETENTION" not in naming or column.type.kind in ("date", "timestamp", "timestamptz")


def set_options(state: CatalogState, table_id: int, pairs: Iterable[tuple[str, OptionValue]]) -> Change:
    table = state.table(table_id)
    options = options_changed(table.options, table.kind, table.schema, pairs)
    return _changed(state, table.with_schema(table.schema.columns, options=options))


def comment_on_column(state: CatalogState, table_id: int, name: str, comment: str | None) -> Change:
    """No new schema version: a comment changes no plan."""
    table, column = _editable(state, table_id, name)
    schema = replace(table.schema, columns=_replaced(table, replace(column, comment=comment)))
    return _changed(state, replace(table, schema=schema))


# ---------------------------------------------------------------------------------------------------------------


def retention_column(table: Table) -> tuple[Column, int] | None:
    """The column that ROW_RETENTION goes by and the seconds a row stays, or None."""
    if table.options.row_retention is None:
        return None
    rule = row_retention(table.options.row_retention)
    return table.schema.column(rule.column, table.qualified), rule.seconds


def _editable(state: CatalogState, table_id: int, name: str) -> tuple[Table, Column]:
    table = state.table(table_id)
    column = table.schema.column(name, table.qualified)
    if column.hidden:
        raise InvalidValue(f'column "{column.name}" is the hidden key of table "{table.qualified}" and cannot change')
    return table, column


def _check_free(table: Table, name: str) -> None:
    found = table.schema.find(name)
    if found is not None:
        raise DuplicateObject(f'column "{found.name}" of table "{table.qualified}" already exists', sqlstate="42701")


def _replaced(table: Table, column: Column) -> tuple[Column, ...]:
    return tuple(column if c.id == column.id else c for c in table.schema.columns)


def _with_column(table: Table, column: Column, **changes: object) -> Table:
    return table.with_schema(_replaced(table, column), **changes)


def _changed(state: CatalogState, table: Table) -> Change:
    draft = Draft(state)
    draft.put_table(table)
    return draft.change(table)
