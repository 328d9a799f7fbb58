"""What changes the catalog: each statement chooses a change and commits it through the door, atomically and durably."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.catalog import alter, edits
from flightkalam.catalog.edits import NewColumn, NewTable, NewView
from flightkalam.catalog.options import access_level_of, kind_of
from flightkalam.catalog.state import CatalogState, Change
from flightkalam.errors import InvalidValue, NotNullViolation, UndefinedObject, Unsupported
from flightkalam.jobs.kinds import ASKED
from flightkalam.model.predicate import IsNull
from flightkalam.model.schema import Column, Table, TableKind, View, fill_bytes
from flightkalam.model.types import parse_type, to_storage
from flightkalam.session import reads
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident
from flightkalam.storage.kv import Batch
from flightkalam.table.scan import scan

Choose = Callable[[CatalogState], Change]


def commit(e: Execution, choose: Choose) -> Change:
    """Choose a change on the newest state, commit it durably and publish it, all under the commit mutex.

    The statement's rights were checked on the state it began with; a table that changed since is refused by the edit.
    """
    parts = e.parts
    door = parts.scopes.door
    with door.mutex:
        change = choose(parts.catalog.state)
        batch = Batch()
        parts.catalog.install(change, batch)
        drop_rows(e, batch, change)
        e.record(batch)
        door.store.require_space()
        door.wait(door.append(batch, None))
        parts.catalog.publish(change)
    clean_up(e, change)
    return change


def drop_rows(e: Execution, batch: Batch, change: Change) -> None:
    """Let the rows of dropped tables go with the same commit; their files follow in a job."""
    for table in change.dropped:
        e.parts.cleanup.dropped(batch, table)


def clean_up(e: Execution, change: Change) -> None:
    for table in change.dropped:
        e.parts.scopes.forget(table.id)
        e.parts.jobs.submit("cleanup", {"table_id": table.id, "table": table.qualified})


# -- tables -----------------------------------------------------------------------------------------------------------


def new_column(e: Execution, definition: s.ColumnDef) -> NewColumn:
    type_ = parse_type(definition.type_text.text)
    default = definition.default.text if definition.default is not None else None
    if default is not None:
        check_default(e, default, type_.engine, definition.name.value)
    return NewColumn(definition.name.value, type_, definition.not_null, default, definition.identity)


def check_default(e: Execution, text: str, engine_type: str, column: str) -> None:
    """:raises KalamError: a default that is no expression of constants and functions, or whose value the type does not take."""
    foreign = InvalidValue(f'the default of column "{column}" names a column or table; use constants and functions')
    if reads.names_tables(e, text):
        raise foreign
    try:
        # Evaluated, not only described: whether 'abc' is a number shows in no type.
        reads.table(e, f"SELECT CAST(({text}\n) AS {engine_type}) AS v")
    except UndefinedObject as error:
        raise foreign if error.sqlstate == "42703" else error from None


def new_table(e: Execution, statement: s.CreateTable) -> NewTable:
    """The table that a CREATE TABLE with a column list asks for."""
    namespace, name = e.new_name(statement.name)
    checks = [(c.name.value if c.name else None, c.expr.text) for c in statement.checks]
    checks += [(c.name.value if c.name else None, c.expr.text) for d in statement.columns for c in d.checks]
    return NewTable(
        namespace,
        name,
        tuple(new_column(e, d) for d in statement.columns),
        e.identity.user_id,
        TableKind(statement.kind) if statement.kind else None,
        tuple(i.value for i in statement.primary_key),
        tuple(checks),
        statement.options,
    )


def require_create(e: Execution, new: NewTable) -> None:
    kind = kind_of(new.kind, new.options)
    level = access_level_of(new.options)
    authorise.require(e.identity, Action.CREATE, f"{new.namespace}.{new.name}", kind, level)
    e.refuse_hidden_name(new.namespace, new.name)


def create_table(e: Execution, statement: s.CreateTable) -> int:
    new = new_table(e, statement)
    require_create(e, new)
    if statement.if_not_exists and e.find(statement.name) is not None:
        return 0
    table_id = e.parts.catalog.new_table_id()
    now = e.parts.clock.now_us()
    draft = edits.create_table(e.state, new, table_id=table_id, now_us=now).table
    assert draft is not None
    check_constraints_make_sense(e, draft)
    commit(e, lambda state: edits.create_table(state, new, table_id=table_id, now_us=now))
    return 0


def check_constraints_make_sense(e: Execution, table: Table) -> None:
    """Bind each CHECK over the table's columns, before anything depends on it."""
    if not table.checks:
        return
    types = ", ".join(f"CAST(NULL AS {c.type.engine}) AS {quote_ident(c.name)}" for c in table.schema.columns)
    for name, text in table.checks:
        columns = reads.describe(e, f"SELECT ({text}) AS v FROM (SELECT {types}) AS t")
        if columns[0].type != "BOOLEAN":
            raise InvalidValue(f'CHECK "{name}" of table "{table.qualified}" is not a condition but {columns[0].type}')


def drop_table(e: Execution, statement: s.DropTable) -> int:
    if statement.if_exists and e.find(statement.name) is None:
        return 0
    found = e.existing(statement.name)
    if isinstance(found, View):
        raise InvalidValue(f'"{found.qualified}" is a view; use DROP VIEW', sqlstate="42809")
    e.require(Action.DROP, found, str(statement.name))
    commit(e, lambda state: edits.drop_table(state, found.id))
    return 0


# -- columns ----------------------------------------------------------------------------------------------------------


def alter_table(e: Execution, statement: s.AlterTable) -> int:
    if statement.if_exists and e.find(statement.name) is None:
        return 0
    table = e.table(statement.name, Action.ALTER)
    choose = _ALTER[type(statement.action)](e, table, statement.action)
    if choose is not None:
        commit(e, choose)
    return 0


def _rename_table(e: Execution, table: Table, action: s.RenameTable) -> Choose:
    e.refuse_hidden_name(table.namespace, action.to.value)
    return lambda state: edits.rename_table(state, table.id, action.to.value)


def _add_column(e: Execution, table: Table, action: s.AddColumn) -> Choose | None:
    new = new_column(e, action.column)
    if action.if_not_exists and table.schema.find(new.name) is not None:
        return None
    if action.column.checks or action.column.primary_key:
        raise Unsupported("ADD COLUMN takes a type, NOT NULL and DEFAULT; a CHECK or key is stated at CREATE TABLE")
    default = edits.built_column(new, 0).default
    text, ipc = _fill(e, default, new) if default is not None else (None, None)
    empty = default is None and new.not_null and _is_empty(e, table)
    return lambda state: alter.add_column(state, table.id, new, fill_text=text, fill_ipc=ipc, empty=empty)


def _fill(e: Execution, default: str, new: NewColumn) -> tuple[str | None, bytes | None]:
    """What rows that exist show in a new column: the default, evaluated once."""
    typed = f"CAST(({default}) AS {new.type.engine})"
    row = reads.table(e, f"SELECT v, CAST(v AS VARCHAR) AS t FROM (SELECT {typed} AS v)")
    text = row.column("t")[0].as_py()
    if text is None:
        return None, None
    stored = to_storage(row.column("v"), new.type, new.name)
    stored = stored.combine_chunks() if isinstance(stored, pa.ChunkedArray) else stored
    # Files keep an interval as a struct, and the text is read as what files keep.
    return str(stored[0].as_py()) if new.type.kind == "interval" else text, fill_bytes(stored)


def _is_empty(e: Execution, table: Table) -> bool:
    scopes = e.parts.scopes
    return not any(
        plan.hot is not None or plan.clean or plan.dirty
        for plan in (scan(e.snapshot_of(table, scope.owner)) for scope in scopes.of_table(table))
    )


def _drop_column(e: Execution, table: Table, action: s.DropColumn) -> Choose | None:
    if action.if_exists and table.schema.find(action.column.value) is None:
        return None
    return lambda state: alter.drop_column(state, table.id, action.column.value)


def _set_default(e: Execution, table: Table, action: s.SetDefault) -> Choose:
    column = table.schema.column(action.column.value, table.qualified)
    check_default(e, action.default.text, column.type.engine, column.name)
    return lambda state: alter.set_default(state, table.id, column.name, action.default.text)


def _set_not_null(e: Execution, table: Table, action: s.SetNotNull) -> Choose:
    """NOT NULL is checked under the commit mutex against every durable row of every scope, so no NULL slips in after."""
    column = table.schema.column(action.column.value, table.qualified)

    def choose(state: CatalogState) -> Change:
        scopes = e.parts.scopes
        scopes.door.wait(scopes.door.store.appended)
        with scopes.door.pinned() as watermark:
            for scope in scopes.of_table(table):
                _refuse_nulls(e, state.table(table.id), scope.owner, watermark, column)
        return alter.set_not_null(state, table.id, column.name)

    return choose


def _refuse_nulls(e: Execution, table: Table, owner: str | None, watermark: int, column: Column) -> None:
    plan = scan(e.snapshot_of(table, owner, watermark), IsNull(column.id))
    if reads.count_nulls(e, table, plan, column):
        raise NotNullViolation(f'column "{column.name}" of table "{table.qualified}" holds NULLs; update these rows first')


def _set_options(e: Execution, table: Table, action: s.SetOptions) -> Choose:
    if table.kind is TableKind.STREAM:  # a longer life must not bring back what has expired
        jobs = e.parts.jobs
        job_id = jobs.submit("stream_eviction", {"tables": [table.qualified]}, priority=ASKED, attempts=1)
        jobs.wait(job_id, lambda: e.cancel.cancelled)
    return lambda state: alter.set_options(state, table.id, action.options)


_ALTER: dict[type, Callable[..., Choose | None]] = {
    s.AddColumn: _add_column,
    s.DropColumn: _drop_column,
    s.RenameColumn: lambda e, t, a: lambda st: alter.rename_column(st, t.id, a.column.value, a.to.value),
    s.RenameTable: _rename_table,
    s.SetDefault: _set_default,
    s.DropDefault: lambda e, t, a: lambda st: alter.drop_default(st, t.id, a.column.value),
    s.SetNotNull: _set_not_null,
    s.DropNotNull: lambda e, t, a: lambda st: alter.drop_not_null(st, t.id, a.column.value),
    s.SetType: lambda e, t, a: lambda st: alter.set_type(st, t.id, a.column.value, parse_type(a.type_text.text)),
    s.SetOptions: _set_options,
}


# -- views, namespaces, comments --------------------------------------------------------------------------------------


def create_view(e: Execution, statement: s.CreateView) -> int:
    authorise.require(e.identity, Action.CREATE_VIEW)
    namespace, name = e.new_name(statement.name)
    e.refuse_hidden_name(namespace, name)
    if statement.if_not_exists and e.find(statement.name) is not None:
        return 0
    columns = tuple(c.value for c in statement.columns) if statement.columns is not None else None
    described = reads.describe(e, statement.query.text)
    if columns is not None and len(columns) != len(described):
        raise InvalidValue(f"the view names {len(columns)} columns and its query has {len(described)}", sqlstate="42P16")
    new = NewView(namespace, name, statement.query.text, e.identity.user_id, e.namespace, columns)
    now = e.parts.clock.now_us()
    commit(e, lambda st: edits.create_view(st, new, now_us=now, replace_existing=statement.or_replace))
    return 0


def drop_view(e: Execution, statement: s.DropView) -> int:
    authorise.require(e.identity, Action.DROP_VIEW)
    found = e.find(statement.name)
    if found is None and statement.if_exists:
        return 0
    if isinstance(found, Table):
        raise InvalidValue(f'"{found.qualified}" is a table; use DROP TABLE', sqlstate="42809")
    view = e.existing(statement.name)
    commit(e, lambda state: edits.drop_view(state, view.namespace, view.name))
    return 0


def create_namespace(e: Execution, statement: s.CreateNamespace) -> int:
    authorise.require(e.identity, Action.CREATE_NAMESPACE)
    name = statement.name.value
    if statement.if_not_exists and name.lower() in e.state.namespaces:
        return 0
    now = e.parts.clock.now_us()
    commit(e, lambda st: edits.create_namespace(st, name, created_by=e.identity.user_id, now_us=now))
    return 0


def drop_namespace(e: Execution, statement: s.DropNamespace) -> int:
    authorise.require(e.identity, Action.DROP_NAMESPACE)
    name = statement.name.value
    if statement.if_exists and name.lower() not in e.state.namespaces:
        return 0
    commit(e, lambda state: edits.drop_namespace(state, name, cascade=statement.cascade))
    return 0


def comment(e: Execution, statement: s.Comment) -> int:
    text = statement.text
    if statement.on == "namespace":
        authorise.require(e.identity, Action.CREATE_NAMESPACE)
        commit(e, lambda state: edits.comment_on_namespace(state, statement.name.table, text))
    elif statement.on == "view":
        authorise.require(e.identity, Action.CREATE_VIEW)
        view = e.existing(statement.name)
        commit(e, lambda state: edits.comment_on_view(state, view.namespace, view.name, text))
    else:
        table = e.table(statement.name, Action.ALTER)
        column = statement.column
        if column is None:
            commit(e, lambda state: edits.comment_on_table(state, table.id, text))
        else:
            commit(e, lambda state: alter.comment_on_column(state, table.id, column.value, text))
    return 0
