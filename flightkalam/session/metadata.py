"""What the metadata commands of the wire list: always only what the caller may see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.catalog.names import CATALOG
from flightkalam.catalog.providers import SystemRelation
from flightkalam.errors import KalamError
from flightkalam.model.schema import Column, Table, View
from flightkalam.session import reads
from flightkalam.session.execution import Execution

TABLE, VIEW, SYSTEM_TABLE = "TABLE", "VIEW", "SYSTEM TABLE"
TABLE_TYPES = (SYSTEM_TABLE, TABLE, VIEW)
_PREFIX = "ARROW:FLIGHT:SQL:"


@dataclass(frozen=True, slots=True)
class TableInfo:
    catalog: str
    schema: str
    name: str
    type: str
    arrow_schema: pa.Schema | None


def _like(pattern: str | None) -> re.Pattern[str]:
    """A SQL pattern: `%` any run, `_` one character; None matches all."""
    if pattern is None:
        return re.compile("(?s).*")
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.compile("(?si)" + "".join(parts))


def _in_catalog(catalog: str | None) -> bool:
    return catalog is None or catalog == CATALOG


def schemas(e: Execution, catalog: str | None, pattern: str | None) -> list[tuple[str, str]]:
    if not _in_catalog(catalog):
        return []
    names = {n.name for n in e.state.visible_namespaces(e.visible)} | {r.namespace for r in _system(e)}
    like = _like(pattern)
    return [(CATALOG, n) for n in sorted(names) if like.fullmatch(n)]


def _system(e: Execution) -> list[SystemRelation]:
    may = authorise.allowed(e.identity.role, Action.READ_SYSTEM)
    return [r for r in e.parts.providers if r.for_everyone or may]


def tables(
    e: Execution,
    catalog: str | None,
    schema_pattern: str | None,
    table_pattern: str | None,
    types: Sequence[str],
    include_schema: bool,
) -> list[TableInfo]:
    if not _in_catalog(catalog):
        return []
    in_schema, named = _like(schema_pattern), _like(table_pattern)
    wanted = {t.upper() for t in types}
    out = []
    for namespace, name, type_, found in _everything(e):
        if wanted and type_ not in wanted:
            continue
        if in_schema.fullmatch(namespace) and named.fullmatch(name):
            schema = _schema(e, found) if include_schema else None
            out.append(TableInfo(CATALOG, namespace, name, type_, schema))
    return sorted(out, key=lambda t: (t.schema, t.name, t.type))


def _everything(e: Execution) -> list[tuple[str, str, str, Table | View | SystemRelation]]:
    out: list[tuple[str, str, str, Table | View | SystemRelation]] = []
    for found in e.state.objects():
        if e.visible(found):
            out.append((found.namespace, found.name, TABLE if isinstance(found, Table) else VIEW, found))
    out += [(r.namespace, r.name, SYSTEM_TABLE, r) for r in _system(e)]
    return out


def _schema(e: Execution, found: Table | View | SystemRelation) -> pa.Schema:
    if isinstance(found, Table):
        return pa.schema([_described(found, c) for c in found.schema.visible])
    if isinstance(found, SystemRelation):
        return found.schema
    try:
        return reads.schema(e, f"SELECT * FROM {reads.qualified(found)}")
    except KalamError:  # a view over what is gone, or over what the caller may not see: it has no columns to show
        return pa.schema([])


def _described(table: Table, column: Column) -> pa.Field:
    """A column as the wire's metadata describe it."""
    facts = {
        "CATALOG_NAME": CATALOG,
        "SCHEMA_NAME": table.namespace,
        "DB_SCHEMA_NAME": table.namespace,
        "TABLE_NAME": table.name,
        "TYPE_NAME": column.type.name,
        "PRECISION": column.type.precision,
        "SCALE": column.type.scale,
        "REMARKS": column.comment,
        "IS_AUTO_INCREMENT": "1" if column.default == "SNOWFLAKE_ID()" else "0",
        "IS_CASE_SENSITIVE": "1" if column.type.kind in ("text", "json") else "0",
        "IS_READ_ONLY": "0",
        "IS_SEARCHABLE": "1",
    }
    metadata = {_PREFIX + name: str(value) for name, value in facts.items() if value is not None}
    return column.wire_field().with_metadata(metadata)


def primary_key(e: Execution, catalog: str | None, schema: str | None, table: str) -> list[str]:
    if not _in_catalog(catalog):
        return []
    found = e.state.find(schema or e.namespace, table)
    if not isinstance(found, Table) or not e.visible(found):
        return []
    return [c.name for c in found.schema.key_columns if not c.hidden]
