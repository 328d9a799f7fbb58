"""How a scan plan reads as a SQL relation.

    clean batches   one read_parquet for all of them
    dirty batches   without the rows whose positions are dead (`dead_rows`)
    hot rows        an Arrow input
    blank rows      rows that are only counted, so no file is read for them
    ──────────────  UNION ALL, with the same columns and types in each

Files are read by field id, never by name (T-32, T-33), and always with `can_have_nan` (T-27).  Inside, columns are
called by their id, so that no name of a client can meet a virtual column of the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from flightkalam.model.schema import DELETED_COLUMN, POSITION_COLUMN, POSITION_ID, SEQ_COLUMN, Column, TableSchema
from flightkalam.query import dead_rows
from flightkalam.query.compute import Input
from flightkalam.sql.text import quote_ident, quote_literal

POSITION_STRIDE = 1 << 32
_INTERVAL_ENGINE = "STRUCT(months INTEGER, days INTEGER, micros BIGINT)"


class Scan(Protocol):
    """What this room needs of a scan plan (`flightkalam.table.scan.ScanPlan`)."""

    @property
    def schema(self) -> TableSchema: ...

    @property
    def hot(self) -> pa.Table | None: ...

    @property
    def clean(self) -> Sequence[str]: ...

    @property
    def dirty(self) -> Sequence[dead_rows.Dirty]: ...

    @property
    def blank(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """The columns that a reference shows: the visible ones, then the hidden ones that the statement names."""

    columns: tuple[Column, ...]
    hidden: tuple[Column, ...] = ()

    @property
    def all(self) -> tuple[Column, ...]:
        return self.columns + self.hidden


@dataclass(frozen=True, slots=True)
class Rendered:
    sql: str
    inputs: dict[str, Input]


def shown(schema: TableSchema, named: frozenset[str]) -> Shown:
    """:param named: hidden columns that the statement names, in lower case."""
    candidates = (*(c for c in schema.columns if c.hidden), SEQ_COLUMN, DELETED_COLUMN, POSITION_COLUMN)
    return Shown(schema.visible, tuple(c for c in candidates if c.name.lower() in named))


def relation_sql(scan: Scan | None, shows: Shown, name: str) -> Rendered:
    """The relation of one table reference, in parentheses.

    :param scan: None renders the same columns and types without a row.
    :param name: prefix for its inputs, unique in the statement.
    """
    inputs: dict[str, Input] = {}
    parts: list[str] = []
    if scan is not None:
        if scan.clean:
            parts.append(f"SELECT {_read_columns(shows, 0)} FROM {_read(scan.clean, shows)}")
        files = len(scan.clean)
        for part in dead_rows.parts(scan.dirty, name):
            inputs[part.name] = part.input
            parts.append(f"SELECT {_read_columns(shows, files)} FROM {_read(part.paths, shows)} WHERE {part.condition}")
            files += len(part.paths)
        if scan.hot is not None and scan.hot.num_rows:
            inputs[name] = scan.hot.select([c.name for c in _stored(shows)])
            parts.append(f"SELECT {arrow_columns(shows.all)} FROM {name}")
        if scan.blank:
            parts.append(f"SELECT {_null_columns(shows)} FROM range({scan.blank})")
    if not parts:
        parts.append(f"SELECT {_null_columns(shows)} WHERE false")
    return Rendered(f"({' UNION ALL '.join(parts)})", inputs)


def arrow_sql(name: str) -> str:
    return f"(SELECT * FROM {name})"


# ---------------------------------------------------------------------------------------------------------------
# Columns: inside by id, outside by name


def _inner(column: Column) -> str:
    return f"__c{column.id}"


def _stored(shows: Shown) -> list[Column]:
    return [c for c in shows.all if c.id != POSITION_ID]


def _read_columns(shows: Shown, files: int) -> str:
    """:param files: how many files of the scan come before those that are read."""
    return ", ".join(
        f"{_from_file(c) if c.id != POSITION_ID else _position(files)} AS {quote_ident(c.name)}" for c in shows.all
    )


def files_in_order(scan: Scan) -> list[str]:
    """The files of a scan as positions number them."""
    return [*scan.clean, *(d.path for d in dead_rows.in_order(scan.dirty))]


def _position(files: int) -> str:
    """The file's number in the scan, and the row's in the file, as one number."""
    return f"(CAST(file_index AS BIGINT) + {files}) * {POSITION_STRIDE} + file_row_number"


def _from_file(column: Column) -> str:
    inner = _inner(column)
    if not pa.types.is_struct(column.type.storage):
        return inner
    # A file from before the column has none of its fields, and the engine fails for good when it is asked for one of
    # them alone: so a struct is always read whole.
    whole = f"(CASE WHEN {inner} IS NULL THEN NULL ELSE {inner} END)"
    return _interval(whole) if column.type.kind == "interval" else whole


def _interval(expression: str) -> str:
    return f"to_months({expression}.months) + to_days({expression}.days) + to_microseconds({expression}.micros)"


def arrow_columns(columns: Sequence[Column]) -> str:
    """The select list that reads storage columns, by name, as the engine's types."""
    return ", ".join(f"{_from_arrow(c)} AS {quote_ident(c.name)}" for c in columns)


def _from_arrow(column: Column) -> str:
    name = quote_ident(column.name)
    if column.id == POSITION_ID:
        return "CAST(-1 AS BIGINT)"
    if column.type.kind == "interval":
        return _interval(name)
    # Storage keeps a UUID as text, also inside lists and structs.
    return f"CAST({name} AS {column.type.engine})" if "UUID" in column.type.engine else name


def _null_columns(shows: Shown) -> str:
    return ", ".join(f"CAST(NULL AS {_engine_type(c)}) AS {quote_ident(c.name)}" for c in shows.all)


def _engine_type(column: Column) -> str:
    """JSON stays text: a cast to the engine's JSON would check every value again at each read."""
    return "VARCHAR" if column.type.kind == "json" else column.type.engine


def _file_type(column: Column) -> str:
    return _INTERVAL_ENGINE if column.type.kind == "interval" else _engine_type(column)


# ---------------------------------------------------------------------------------------------------------------
# Batches


def _read(paths: Sequence[str], shows: Shown) -> str:
    files = ", ".join(quote_literal(p) for p in paths)
    fields = ", ".join(_field(c) for c in _stored(shows))
    return f"read_parquet([{files}], schema = MAP {{{fields}}}, can_have_nan = true)"


def _field(column: Column) -> str:
    fill = "NULL" if column.fill_text is None else quote_literal(column.fill_text)
    return f"{column.id}: {{name: '{_inner(column)}', type: {quote_literal(_file_type(column))}, default_value: {fill}}}"
