"""System relations: tables that are computed when they are read.

`Providers` maps a name to a schema and a function that makes the rows.  Here are the ones that the catalog itself can
answer; rooms above (jobs, sessions, the manifest cache, …) register theirs.  The name of a relation and who may read it
are two things: `information_schema` is for everyone and limited to what the caller may see, `system` is for dba and
above, and the session keeps that rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flightkalam.catalog.names import CATALOG, fold
from flightkalam.catalog.options import OPTIONS, flush_policy_text
from flightkalam.catalog.show import TIMESTAMP, access_level_of, to_arrow, type_of, yes_no
from flightkalam.catalog.state import CatalogState, Visible
from flightkalam.errors import DuplicateObject, InternalError
from flightkalam.model.predicate import TRUE, Predicate
from flightkalam.model.schema import Column, Table, View
from flightkalam.model.types import ColumnType

INFORMATION_SCHEMA = "information_schema"
SYSTEM = "system"
ViewColumns = Callable[[View], Sequence[tuple[str, ColumnType]]]


def no_columns(_: View) -> Sequence[tuple[str, ColumnType]]:
    return ()


@dataclass(frozen=True, slots=True)
class Context:
    """For whom a relation is computed.

    :param visible: whether the caller may see a table or view.
    :param view_columns: names and types of a view's columns, which only the engine can tell; none for a broken view.
    :param caller: who asks, for relations of rooms that know identities; opaque here.
    :param predicate: rows for which it is not true need not be made; columns count from 0.
    """

    state: CatalogState
    visible: Visible
    view_columns: ViewColumns = no_columns
    caller: Any = None
    predicate: Predicate = TRUE


Fetch = Callable[[Context], pa.Table]


@dataclass(frozen=True, slots=True)
class SystemRelation:
    namespace: str
    name: str
    schema: pa.Schema
    fetch: Fetch

    @property
    def qualified(self) -> str:
        return f"{self.namespace}.{self.name}"

    @property
    def for_everyone(self) -> bool:
        return self.namespace == INFORMATION_SCHEMA

    def read(self, context: Context) -> pa.Table:
        """The rows, of exactly the announced schema."""
        table = self.fetch(context)
        if not table.schema.equals(self.schema):
            raise InternalError(f"relation {self.qualified} was computed with another schema than it announces")
        return table


class Providers:
    """The registry; filled at start, read afterwards."""

    def __init__(self) -> None:
        self._relations: dict[tuple[str, str], SystemRelation] = {}
        for name, schema, fetch in (
            ("schemata", SCHEMATA, _schemata),
            ("tables", TABLES, _tables),
            ("columns", COLUMNS, _columns),
        ):
            self.register(INFORMATION_SCHEMA, name, schema, fetch)
        for name, schema, fetch in (
            ("namespaces", SYSTEM_NAMESPACES, _system_namespaces),
            ("tables", SYSTEM_TABLES, _system_tables),
            ("columns", SYSTEM_COLUMNS, _system_columns),
        ):
            self.register(SYSTEM, name, schema, fetch)

    def register(self, namespace: str, name: str, schema: pa.Schema, fetch: Fetch) -> None:
        key = (fold(namespace), fold(name))
        if key in self._relations:
            raise DuplicateObject(f'system relation "{namespace}.{name}" is registered twice')
        self._relations[key] = SystemRelation(namespace, name, schema, fetch)

    def find(self, namespace: str, name: str) -> SystemRelation | None:
        return self._relations.get((fold(namespace), fold(name)))

    def __iter__(self) -> Iterator[SystemRelation]:
        return iter(sorted(self._relations.values(), key=lambda r: (r.namespace, r.name)))


# ---------------------------------------------------------------------------------------------------------------
# information_schema: PostgreSQL's columns in PostgreSQL's order, then our comment

_TEXT = pa.utf8()
_SCHEMATA_NAMES = """
    catalog_name schema_name schema_owner default_character_set_catalog default_character_set_schema
    default_character_set_name sql_path
"""
_TABLES_NAMES = """
    table_catalog table_schema table_name table_type self_referencing_column_name reference_generation
    user_defined_type_catalog user_defined_type_schema user_defined_type_name is_insertable_into is_typed commit_action
    table_comment
"""
_COLUMNS_NAMES = """
    table_catalog table_schema table_name column_name ordinal_position column_default is_nullable data_type
    character_maximum_length character_octet_length numeric_precision numeric_precision_radix numeric_scale
    datetime_precision interval_type interval_precision character_set_catalog character_set_schema character_set_name
    collation_catalog collation_schema collation_name domain_catalog domain_schema domain_name
    udt_catalog udt_schema udt_name scope_catalog scope_schema scope_name maximum_cardinality dtd_identifier
    is_self_referencing is_identity identity_generation identity_start identity_increment identity_maximum
    identity_minimum identity_cycle is_generated generation_expression is_updatable
    column_comment
"""
_NUMBERS = """
    ordinal_position character_maximum_length character_octet_length numeric_precision numeric_precision_radix
    numeric_scale datetime_precision interval_precision maximum_cardinality
"""


def _standard(names: str) -> pa.Schema:
    numbers = _NUMBERS.split()
    return pa.schema([(name, pa.int32() if name in numbers else _TEXT) for name in names.split()])


SCHEMATA = _standard(_SCHEMATA_NAMES)
TABLES = _standard(_TABLES_NAMES)
COLUMNS = _standard(_COLUMNS_NAMES)


def _schemata(context: Context) -> pa.Table:
    namespaces = context.state.visible_namespaces(context.visible)
    # No owner is told: the names of other users are not everybody's to know.
    return to_arrow(SCHEMATA, [{"catalog_name": CATALOG, "schema_name": n.name} for n in namespaces])


def _tables(context: Context) -> pa.Table:
    return to_arrow(
        TABLES,
        [
            {
                "table_catalog": CATALOG,
                "table_schema": found.namespace,
                "table_name": found.name,
                "table_type": "BASE TABLE" if isinstance(found, Table) else "VIEW",
                "is_insertable_into": yes_no(isinstance(found, Table)),
                "is_typed": "NO",
                "table_comment": found.comment,
            }
            for found in context.state.objects()
            if context.visible(found)
        ],
    )


def _columns(context: Context) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for found in context.state.objects():
        if context.visible(found):
            rows += _table_columns(found) if isinstance(found, Table) else _view_columns(found, context)
    return to_arrow(COLUMNS, rows)


def _table_columns(table: Table) -> list[dict[str, Any]]:
    return [
        _column_row(table, position, c.name, c.type)
        | {
            "column_default": c.default,
            "is_nullable": yes_no(not c.not_null),
            "is_updatable": yes_no(True),
            "column_comment": c.comment,
        }
        for position, c in enumerate(table.schema.visible, 1)
    ]


def _view_columns(view: View, context: Context) -> list[dict[str, Any]]:
    return [
        _column_row(view, position, name, type_) | {"is_nullable": yes_no(True), "is_updatable": yes_no(False)}
        for position, (name, type_) in enumerate(context.view_columns(view), 1)
    ]


def _column_row(found: Table | View, position: int, name: str, type_: ColumnType) -> dict[str, Any]:
    return {
        "table_catalog": CATALOG,
        "table_schema": found.namespace,
        "table_name": found.name,
        "column_name": name,
        "ordinal_position": position,
        "data_type": type_.name,
        "udt_catalog": CATALOG,
        "udt_name": type_.name,
        "dtd_identifier": str(position),
        "is_self_referencing": "NO",
        "is_identity": "NO",
        "is_generated": "NEVER",
        **_precision(type_),
    }


_INT_BITS = {"SMALLINT": 16, "INT": 32, "BIGINT": 64}


def _precision(type_: ColumnType) -> dict[str, int | None]:
    """As PostgreSQL tells it: whole and floating numbers in bits, decimals in digits, times in digits of a second."""
    if type_.kind == "int":
        return {"numeric_precision": _INT_BITS[type_.name], "numeric_precision_radix": 2, "numeric_scale": 0}
    if type_.kind == "float":
        return {"numeric_precision": type_.precision, "numeric_precision_radix": 2}
    if type_.kind == "decimal":
        return {
            "numeric_precision": type_.precision,
            "numeric_precision_radix": 10,
            "numeric_scale": type_.scale,
        }
    if type_.kind in ("time", "timestamp", "timestamptz"):
        return {"datetime_precision": 6}
    return {"datetime_precision": 0} if type_.kind == "date" else {}


# ---------------------------------------------------------------------------------------------------------------
# system: everything, for dba and above

SYSTEM_NAMESPACES = pa.schema(
    [
        ("namespace", _TEXT),
        ("tables", pa.int64()),
        ("views", pa.int64()),
        ("created_by", _TEXT),
        ("created_at", TIMESTAMP),
        ("comment", _TEXT),
    ]
)
SYSTEM_TABLES = pa.schema(
    [
        ("table_id", pa.int64()),
        ("namespace", _TEXT),
        ("table_name", _TEXT),
        ("table_type", _TEXT),
        ("access_level", _TEXT),
        ("primary_key", pa.list_(_TEXT)),
        ("columns", pa.int64()),
        ("schema_version", pa.int64()),
        ("options", _TEXT),
        ("folder", _TEXT),
        ("created_by", _TEXT),
        ("created_at", TIMESTAMP),
        ("comment", _TEXT),
    ]
)
SYSTEM_COLUMNS = pa.schema(
    [
        ("table_id", pa.int64()),
        ("namespace", _TEXT),
        ("table_name", _TEXT),
        ("column_id", pa.int64()),
        ("column_name", _TEXT),
        ("ordinal_position", pa.int32()),
        ("data_type", _TEXT),
        ("not_null", pa.bool_()),
        ("default", _TEXT),
        ("key_position", pa.int32()),
        ("hidden", pa.bool_()),
        ("comment", _TEXT),
    ]
)


def _system_namespaces(context: Context) -> pa.Table:
    held: dict[str, list[int]] = {}
    for found in context.state.objects():
        held.setdefault(fold(found.namespace), [0, 0])[isinstance(found, View)] += 1
    rows: list[dict[str, Any]] = []
    for folded, n in sorted(context.state.namespaces.items()):
        tables, views = held.get(folded, (0, 0))
        rows.append(
            {
                "namespace": n.name,
                "tables": tables,
                "views": views,
                "created_by": n.created_by or None,
                "created_at": n.created_at_us,
                "comment": n.comment,
            }
        )
    return to_arrow(SYSTEM_NAMESPACES, rows)


def _system_tables(context: Context) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for found in context.state.objects():
        row: dict[str, Any] = {
            "namespace": found.namespace,
            "table_name": found.name,
            "table_type": type_of(found),
            "access_level": access_level_of(found),
            "created_by": found.created_by,
            "created_at": found.created_at_us,
            "comment": found.comment,
        }
        if isinstance(found, Table):
            row |= {
                "table_id": found.id,
                "primary_key": [c.name for c in found.schema.key_columns],
                "columns": len(found.schema.columns),
                "schema_version": found.schema.version,
                "options": options_json(found),
                "folder": found.folder,
            }
        rows.append(row)
    return to_arrow(SYSTEM_TABLES, rows)


def options_json(table: Table) -> str:
    """Every option that means something for this kind of table, defaults included."""
    o = table.options
    key = tuple(c.name for c in table.schema.key_columns)
    values: dict[str, Any] = {
        "FLUSH_POLICY": flush_policy_text(o),
        "TTL_SECONDS": o.ttl_seconds,
        "ACCESS_LEVEL": o.access_level.value,
        "DELETED_RETENTION_HOURS": o.deleted_retention_hours,
        "ROW_RETENTION": o.row_retention,
        "BLOOM_FILTER_COLUMNS": list(key if o.bloom_filter_columns is None else o.bloom_filter_columns),
        "BLOOM_FILTER_FPP": o.bloom_filter_fpp,
        "COMPACTION": o.compaction,
        "STORAGE_ID": o.storage_id,
    }
    return json.dumps({p.name: values[p.name] for p in OPTIONS if table.kind in p.kinds}, ensure_ascii=False)


def _system_columns(context: Context) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for table in context.state.objects():
        if isinstance(table, Table):
            rows += [_system_column(table, position, c) for position, c in enumerate(table.schema.columns, 1)]
    return to_arrow(SYSTEM_COLUMNS, rows)


def _system_column(table: Table, position: int, column: Column) -> dict[str, Any]:
    key = table.schema.key
    return {
        "table_id": table.id,
        "namespace": table.namespace,
        "table_name": table.name,
        "column_id": column.id,
        "column_name": column.name,
        "ordinal_position": position,
        "data_type": column.type.name,
        "not_null": column.not_null,
        "default": column.default,
        "key_position": key.index(column.id) + 1 if column.id in key else None,
        "hidden": column.hidden,
        "comment": column.comment,
    }
