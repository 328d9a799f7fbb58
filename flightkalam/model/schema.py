"""Tables and columns, as the catalog keeps them and every other room reads them.

A column has an id that is never used again: files carry ids, not names, so RENAME leaves old files readable and DROP + ADD
of one name does not bring old values back (T-32, T-33).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

import pyarrow as pa

from flightkalam.errors import undefined_column
from flightkalam.model.types import BIGINT, BOOLEAN, ColumnType, parse_type

SEQ = "_seq"
DELETED = "_deleted"
HIDDEN_KEY = "_id"
SEQ_ID = 1_000_000_001
DELETED_ID = 1_000_000_002
POSITION = "$at"  # where a row sits; only statements of our own may name it
POSITION_ID = 1_000_000_003
FIELD_ID = b"PARQUET:field_id"
SYSTEM_COLUMNS = (SEQ, DELETED)


class TableKind(Enum):
    USER = "USER"
    SHARED = "SHARED"
    STREAM = "STREAM"

    @property
    def per_user(self) -> bool:
        return self is not TableKind.SHARED


class AccessLevel(Enum):
    PUBLIC = "PUBLIC"
    PRIVATE = "PRIVATE"
    RESTRICTED = "RESTRICTED"
    DBA = "DBA"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    :param id: stable field id, also in every Parquet file.
    :param default: SQL text evaluated for a row that does not name the column.
    :param fill: what rows written before the column existed show: the value as the engine's text, and as a
        one-row Arrow stream for readers without an engine.
    :param bounds_since: the schema version from which on bounds of this column mean its type; a change of type that
        changes what a bound's number means (days to microseconds, another scale) makes older bounds unusable.
    """

    id: int
    name: str
    type: ColumnType
    not_null: bool = False
    default: str | None = None
    fill_text: str | None = None
    fill_ipc: bytes | None = None
    hidden: bool = False
    comment: str | None = None
    bounds_since: int = 0

    def storage_field(self) -> pa.Field:
        return pa.field(self.name, self.type.storage, nullable=True, metadata={FIELD_ID: str(self.id).encode()})

    def wire_field(self) -> pa.Field:
        return pa.field(self.name, self.type.wire, nullable=not self.not_null)

    def fill_array(self, n: int) -> pa.Array:
        """n rows of what a row older than the column shows."""
        if self.fill_ipc is None:
            return pa.nulls(n, self.type.storage)
        with pa.ipc.open_stream(self.fill_ipc) as reader:
            scalar = reader.read_all().column(0)[0]
        return pa.repeat(scalar, n).cast(self.type.storage)


def fill_bytes(array: pa.Array) -> bytes:
    """The one-row Arrow stream that `Column.fill_ipc` keeps."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([array], names=["v"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table at one schema version."""

    version: int
    columns: tuple[Column, ...]
    key: tuple[int, ...]

    @cached_property
    def by_id(self) -> dict[int, Column]:
        return {c.id: c for c in self.columns}

    @cached_property
    def by_field_id(self) -> pa.Schema:
        """The storage columns, named by their ids."""
        return pa.schema([pa.field(str(c.id), c.type.storage) for c in self.columns])

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {c.name.lower(): c for c in self.columns}

    @cached_property
    def key_columns(self) -> tuple[Column, ...]:
        return tuple(self.by_id[i] for i in self.key)

    @cached_property
    def visible(self) -> tuple[Column, ...]:
        """What `SELECT *` shows."""
        return tuple(c for c in self.columns if not c.hidden)

    def find(self, name: str) -> Column | None:
        return self._by_name.get(name.lower())

    def column(self, name: str, table: str) -> Column:
        found = self.find(name)
        if found is None:
            raise undefined_column(name, table)
        return found

    @cached_property
    def storage(self) -> pa.Schema:
        """Arrow schema of the stored user columns, in order; no system columns."""
        return pa.schema([c.storage_field() for c in self.columns])

    @cached_property
    def file(self) -> pa.Schema:
        """Arrow schema of a batch file: the stored columns and the two system columns."""
        return pa.schema([*self.storage, *SYSTEM_FIELDS])

    @cached_property
    def wire(self) -> pa.Schema:
        """What `SELECT *` announces."""
        return pa.schema([c.wire_field() for c in self.visible])


SYSTEM_FIELDS = (
    pa.field(SEQ, pa.int64(), nullable=False, metadata={FIELD_ID: str(SEQ_ID).encode()}),
    pa.field(DELETED, pa.bool_(), nullable=False, metadata={FIELD_ID: str(DELETED_ID).encode()}),
)
SEQ_COLUMN = Column(SEQ_ID, SEQ, BIGINT, not_null=True, hidden=True)
DELETED_COLUMN = Column(DELETED_ID, DELETED, BOOLEAN, not_null=True, hidden=True)
POSITION_COLUMN = Column(POSITION_ID, POSITION, BIGINT)


@dataclass(frozen=True, slots=True)
class TableOptions:
    """The WITH options of a table (SEMANTICS §1)."""

    flush_rows: int | None = 100_000
    flush_interval_s: int | None = 300
    ttl_seconds: int | None = None
    access_level: AccessLevel = AccessLevel.PRIVATE
    deleted_retention_hours: int = 168
    row_retention: str | None = None
    bloom_filter_columns: tuple[str, ...] | None = None  # None: the key
    bloom_filter_fpp: float = 0.01
    compaction: str = "auto"
    storage_id: str | None = None


@dataclass(frozen=True)
class Table:
    """One table: identity, schema, options."""

    id: int
    namespace: str
    name: str
    kind: TableKind
    schema: TableSchema
    next_column_id: int
    created_by: str
    created_at_us: int
    folder: str  # "<namespace>/<table>~<id>", fixed at creation
    options: TableOptions = field(default_factory=TableOptions)
    checks: tuple[tuple[str, str], ...] = ()  # (name, SQL text)
    comment: str | None = None

    @property
    def qualified(self) -> str:
        return f"{self.namespace}.{self.name}"

    def with_schema(self, columns: Sequence[Column], **changes: Any) -> Table:
        """A copy with other columns and the next schema version."""
        schema = TableSchema(self.schema.version + 1, tuple(columns), self.schema.key)
        return replace(self, schema=schema, **changes)


@dataclass(frozen=True, slots=True)
class View:
    namespace: str
    name: str
    text: str  # the query, in the client's own words
    columns: tuple[str, ...] | None
    created_by: str
    created_at_us: int
    default_namespace: str  # where unqualified names of the text are looked up
    comment: str | None = None

    @property
    def qualified(self) -> str:
        return f"{self.namespace}.{self.name}"


# ---------------------------------------------------------------------------------------------------------------
# The catalog's durable form


def column_to_json(c: Column) -> dict[str, Any]:
    record: dict[str, Any] = {"id": c.id, "name": c.name, "type": c.type.name}
    if c.not_null:
        record["not_null"] = True
    for key in ("default", "fill_text", "comment"):
        value = getattr(c, key)
        if value is not None:
            record[key] = value
    if c.fill_ipc is not None:
        record["fill_ipc"] = base64.b64encode(c.fill_ipc).decode()
    if c.hidden:
        record["hidden"] = True
    if c.bounds_since:
        record["bounds_since"] = c.bounds_since
    return record


def column_from_json(r: dict[str, Any]) -> Column:
    return Column(
        id=r["id"],
        name=r["name"],
        type=parse_type(r["type"]),
        not_null=r.get("not_null", False),
        default=r.get("default"),
        fill_text=r.get("fill_text"),
        fill_ipc=base64.b64decode(r["fill_ipc"]) if "fill_ipc" in r else None,
        hidden=r.get("hidden", False),
        comment=r.get("comment"),
        bounds_since=r.get("bounds_since", 0),
    )


def table_to_json(t: Table) -> dict[str, Any]:
    o = t.options
    return {
        "id": t.id,
        "namespace": t.namespace,
        "name": t.name,
        "kind": t.kind.value,
        "schema_version": t.schema.version,
        "columns": [column_to_json(c) for c in t.schema.columns],
        "key": list(t.schema.key),
        "next_column_id": t.next_column_id,
        "created_by": t.created_by,
        "created_at_us": t.created_at_us,
        "folder": t.folder,
        "options": {
            "flush_rows": o.flush_rows,
            "flush_interval_s": o.flush_interval_s,
            "ttl_seconds": o.ttl_seconds,
            "access_level": o.access_level.value,
            "deleted_retention_hours": o.deleted_retention_hours,
            "row_retention": o.row_retention,
            "bloom_filter_columns": list(o.bloom_filter_columns) if o.bloom_filter_columns is not None else None,
            "bloom_filter_fpp": o.bloom_filter_fpp,
            "compaction": o.compaction,
            "storage_id": o.storage_id,
        },
        "checks": [list(c) for c in t.checks],
        "comment": t.comment,
    }


def table_from_json(r: dict[str, Any]) -> Table:
    o = dict(r["options"])
    o["access_level"] = AccessLevel(o["access_level"])
    if o["bloom_filter_columns"] is not None:
        o["bloom_filter_columns"] = tuple(o["bloom_filter_columns"])
    return Table(
        id=r["id"],
        namespace=r["namespace"],
        name=r["name"],
        kind=TableKind(r["kind"]),
        schema=TableSchema(r["schema_version"], tuple(column_from_json(c) for c in r["columns"]), tuple(r["key"])),
        next_column_id=r["next_column_id"],
        created_by=r["created_by"],
        created_at_us=r["created_at_us"],
        folder=r["folder"],
        options=TableOptions(**o),
        checks=tuple((n, t) for n, t in r["checks"]),
        comment=r["comment"],
    )
