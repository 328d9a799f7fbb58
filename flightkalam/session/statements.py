"""The table of statements: for each kind what it does, and whether it answers with rows or with a count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.catalog import show
from flightkalam.errors import Unsupported
from flightkalam.model.schema import Table, View
from flightkalam.session import (
    checks,
    ddl,
    dml,
    erase,
    maintenance,
    manifests,
    merge,
    overview,
    reads,
    returning,
    storages,
    tokens,
    users,
    writes,
)
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.session.writes import Written
from flightkalam.sql import statements as s

# Each takes the execution and a statement of its own kind.
Count = Callable[..., int]
Answer = Callable[..., Rows]


@dataclass(frozen=True, slots=True)
class Row:
    """:param schema: of the rows, without running the statement.
    :param rows: run it and answer with rows.
    :param count: run it and answer with a count.
    :param writes: it answers with rows and changes data, so it runs once, however often its result is fetched.
    """

    schema: Callable[..., pa.Schema] | None = None
    rows: Answer | None = None
    count: Count | None = None
    writes: bool = False


def _table(make: Callable[..., pa.Table]) -> Row:
    """A statement whose small answer is computed at once, for its schema too: it changes nothing."""
    return Row(lambda e, st: make(e, st).schema, lambda e, st: rows_of(make(e, st)))


def _count(run: Callable[..., int]) -> Row:
    return Row(count=run)


# -- looking ----------------------------------------------------------------------------------------------------------


def _describe(e: Execution, statement: s.Describe | s.ShowColumns) -> pa.Table:
    if isinstance(statement, s.Describe) and statement.query is not None:
        described = reads.describe(e, statement.query.text)
        return show.describe_columns([(c.name, reads.shown_type(c.type)) for c in described])
    assert statement.name is not None
    system = reads.system_relation(e, tuple(p.value for p in statement.name.parts))
    if system is not None:
        return show.describe_columns([(f.name, reads.arrow_type_name(f.type)) for f in system.schema])
    found = e.existing(statement.name)
    if isinstance(found, Table):
        return show.describe_table(found)
    return show.describe_columns(view_columns(e, found))


def view_columns(e: Execution, view: View) -> list[tuple[str, str]]:
    described = reads.describe(e, f"SELECT * FROM {show.qualified(view)}")
    return [(c.name, reads.shown_type(c.type)) for c in described]


def _show_tables(e: Execution, statement: s.ShowTables) -> pa.Table:
    namespace = statement.namespace.value if statement.namespace is not None else None
    return show.show_tables(e.state, e.visible, namespace)


def _show_create(e: Execution, statement: s.ShowCreateTable) -> pa.Table:
    return show.show_create(e.existing(statement.name))


# -- writing rows -----------------------------------------------------------------------------------------------------


_DML: dict[type[s.Statement], Callable[..., Written]] = {
    s.Insert: dml.insert,
    s.Update: dml.update,
    s.Delete: dml.delete,
    s.Merge: merge.merge,
    s.Truncate: dml.truncate,
}


def _returning(run: Callable[..., Written]) -> Row:
    """A write that answers with the rows it wrote."""
    return Row(
        schema=lambda e, st: returning.schema(e, st),
        rows=lambda e, st: returning.rows(e, st, run(e, st)),
        writes=True,
    )


# -- the table --------------------------------------------------------------------------------------------------------

TABLE: dict[type[s.Statement], Row] = {
    s.Query: Row(lambda e, st: reads.schema(e, st.text), lambda e, st: reads.open_rows(e, st.text)),
    s.Explain: Row(lambda e, st: reads.EXPLAIN_SCHEMA, reads.explain),
    s.Describe: _table(_describe),
    s.ShowColumns: _table(_describe),
    s.ShowTables: _table(_show_tables),
    s.ShowNamespaces: _table(lambda e, st: show.show_namespaces(e.state, e.visible)),
    s.ShowCreateTable: _table(_show_create),
    s.RebuildManifest: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.rebuild),
    s.ShowManifestCache: _table(manifests.show_cache),
    s.ShowJobs: _table(maintenance.show_jobs),
    s.ShowQueries: _table(overview.show_queries),
    s.KillQuery: _count(overview.kill_query),
    s.ShowJob: _table(maintenance.show_job),
    s.RunJob: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.run_job, writes=True),
    s.KillJob: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.kill_job, writes=True),
    s.Flush: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.flush),
    s.Compact: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.compact),
    s.Backup: Row(lambda e, st: maintenance.JOB_SCHEMA, maintenance.backup, writes=True),
    s.Erase: Row(lambda e, st: erase.ERASE_SCHEMA, erase.erase, writes=True),
    s.CheckTable: Row(lambda e, st: checks.CHECK_SCHEMA, checks.check_table),
    s.CheckAudit: Row(lambda e, st: checks.AUDIT_SCHEMA, checks.check_audit),
    **{kind: _count(lambda e, st, run=run: run(e, st).count) for kind, run in _DML.items()},
    s.CreateTable: _count(lambda e, st: writes.create_table_as(e, st) if st.as_query else ddl.create_table(e, st)),
    s.DropTable: _count(ddl.drop_table),
    s.AlterTable: _count(ddl.alter_table),
    s.CreateView: _count(ddl.create_view),
    s.DropView: _count(ddl.drop_view),
    s.CreateNamespace: _count(ddl.create_namespace),
    s.DropNamespace: _count(ddl.drop_namespace),
    s.Comment: _count(ddl.comment),
    s.CreateUser: _count(users.create_user),
    s.AlterUser: _count(users.alter_user),
    s.DropUser: _count(users.drop_user),
    s.ShowUsers: _table(users.show_users),
    s.CreateStorage: _count(storages.create_storage),
    s.AlterStorage: _count(storages.alter_storage),
    s.DropStorage: _count(storages.drop_storage),
    s.ShowStorages: _table(storages.show_storages),
    s.CreateToken: Row(lambda e, st: tokens.CREATED_SCHEMA, tokens.create_token, writes=True),
    s.DropToken: _count(tokens.drop_token),
    s.ShowTokens: _table(tokens.show_tokens),
}


def row_of(statement: s.Statement) -> Row:
    """:raises Unsupported: a statement that this release understands and does not run."""
    row = TABLE.get(type(statement))
    if getattr(statement, "returning", None) is not None:
        return _returning(_DML[type(statement)])
    if row is None:
        raise Unsupported(f"{spoken(type(statement))} is not supported by this release")
    return row


def target_of(statement: s.Statement | None) -> str | None:
    """What a statement is about, as it names it."""
    for field in ("table", "target", "name", "id", "to"):
        found = getattr(statement, field, None)
        if found is not None:
            return found.value if isinstance(found, s.Ident) else str(found)
    return None


def spoken(kind: type) -> str:
    """ReleaseSavepoint -> RELEASE SAVEPOINT."""
    return "".join(f" {c}" if c.isupper() else c for c in kind.__name__).strip().upper()
