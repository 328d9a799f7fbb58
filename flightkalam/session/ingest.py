"""Bulk ingest: Arrow batches from a client into a table, in one commit.

Columns are matched by name; missing ones take their default or NULL, extra ones are refused by name.  Rows stream through the
intake, so memory holds one batch of the upload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import pyarrow as pa

from flightkalam.auth.authorise import Action
from flightkalam.auth.identity import Role
from flightkalam.catalog.edits import NewColumn, NewTable
from flightkalam.catalog.state import split_name
from flightkalam.errors import DuplicateObject, InvalidValue, Unsupported, undefined_table
from flightkalam.model.schema import Table, TableKind, View
from flightkalam.model.types import from_arrow
from flightkalam.session import ddl, dml, writes
from flightkalam.session.arriving import Arriving, refuse_system_columns
from flightkalam.session.execution import Execution
from flightkalam.session.intake import Intake
from flightkalam.table.mutation import OnConflict

KEY_HEADER = "x-kalam-primary-key"
CONFLICT_HEADER = "x-kalam-on-conflict"
TYPE_HEADER = "x-kalam-table-type"


class IngestRequest(Protocol):
    """What the wire says of an ingest."""

    @property
    def table(self) -> str: ...
    @property
    def namespace(self) -> str | None: ...
    @property
    def catalog(self) -> str | None: ...
    @property
    def if_not_exist(self) -> str: ...
    @property
    def if_exists(self) -> str: ...
    @property
    def temporary(self) -> bool: ...


def ingest(
    e: Execution,
    request: IngestRequest,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    headers: Mapping[str, str],
) -> int:
    """Run an ingest; returns how many rows were written."""
    if request.temporary:
        raise Unsupported("temporary tables are not supported; ingest into a table of its own")
    parts = tuple(p for p in (request.catalog, request.namespace or e.namespace, request.table) if p)
    found = e.state.find(*split_name(parts, e.namespace))
    if isinstance(found, Table):
        e.refuse_shared_target(found, ".".join(parts[-2:]))
    found = found if found is not None and e.visible(found) else None
    if e.transaction is not None and (found is None or request.if_exists != "append"):
        with e.transaction.lock:
            e.transaction.refuse_after_write("an ingest that creates or replaces a table")
            with e.renewed() as apart:
                count = ingest(apart, request, schema, batches, headers)
            e.transaction.begin_anew()
            return count
    if found is None:
        if request.if_not_exist != "create":
            raise undefined_table(".".join(parts[-2:]))
        return _create(e, parts, schema, batches, headers, None)
    if request.if_exists == "append":
        return _append(e, e.table(parts, Action.WRITE), schema, batches, headers)
    if request.if_exists == "replace":
        if isinstance(found, View):
            raise InvalidValue(f'"{found.qualified}" is a view and cannot be replaced by a table', sqlstate="42809")
        e.require(Action.WRITE, found)
        return _create(e, parts, schema, batches, headers, found)
    raise DuplicateObject(f'table "{found.qualified}" already exists; ingest with mode append or replace')


def _append(
    e: Execution, table: Table, schema: pa.Schema, batches: Iterator[pa.RecordBatch], headers: Mapping[str, str]
) -> int:
    stated = _key_of(headers)
    if stated and [k.lower() for k in stated] != [c.name.lower() for c in table.schema.key_columns]:
        raise InvalidValue(f'{KEY_HEADER}: table "{table.qualified}" has another primary key; leave the header out')
    cast = Arriving(e, table, schema)
    with Intake(table, e.parts.staging, cast) as intake:
        staged = intake.take(batches)
        if e.transaction is not None:
            with e.transaction.lock:
                change = dml.inserted(e, table, staged.rows, _conflict_of(headers))
                staged.keep()  # the overlay reads from what was staged; the next start sweeps it
                return dml.add_to_transaction(e, table, change).count
        return writes.commit_rows(e, table, staged, _conflict_of(headers)).count


def _create(
    e: Execution,
    parts: tuple[str, ...],
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    headers: Mapping[str, str],
    replaces: Table | None,
) -> int:
    namespace, name = split_name(parts, e.namespace)
    refuse_system_columns(schema)
    columns = tuple(NewColumn(f.name, from_arrow(f.type, f.name)) for f in schema)
    new = NewTable(
        e.state.namespace(namespace).name,
        name,
        columns,
        e.identity.user_id,
        _kind_of(e, headers),
        _key_of(headers),
        hidden_key=True,
    )
    ddl.require_create(e, new)
    with writes.NewTableWrite(e, new, replaces) as write:
        return write.commit(batches, Arriving(e, write.table, schema), _conflict_of(headers))


def _key_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    text = headers.get(KEY_HEADER, "")
    return tuple(k.strip() for k in text.split(",") if k.strip())


def _conflict_of(headers: Mapping[str, str]) -> OnConflict:
    text = headers.get(CONFLICT_HEADER, "error").strip().lower()
    try:
        return OnConflict(text)
    except ValueError:
        raise InvalidValue(f"{CONFLICT_HEADER} is error, ignore or update, not {text!r}") from None


def _kind_of(e: Execution, headers: Mapping[str, str]) -> TableKind:
    text = headers.get(TYPE_HEADER, "").strip().upper()
    if not text:
        return TableKind.USER if e.identity.role is Role.USER else TableKind.SHARED
    try:
        return TableKind(text)
    except ValueError:
        raise InvalidValue(f"{TYPE_HEADER} is USER, SHARED or STREAM, not {text!r}") from None
