"""CHECK TABLE: whether what queries see is what the versions say.  CHECK AUDIT: whether the log is as it was written."""

from __future__ import annotations

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.sql import statements as s
from flightkalam.table.check import check

CHECK_SCHEMA = pa.schema(
    [
        pa.field("table", pa.utf8(), nullable=False),
        pa.field("scope", pa.utf8(), nullable=False),
        pa.field("batches", pa.int64(), nullable=False),
        pa.field("versions", pa.int64(), nullable=False),
        pa.field("visible_rows", pa.int64(), nullable=False),
        pa.field("problem", pa.utf8()),
    ]
)


def check_table(e: Execution, statement: s.CheckTable) -> Rows:
    """One row for each scope that is well, one for each problem of the others."""
    table = e.table(statement.table, Action.CHECK)
    rows: list[tuple[object, ...]] = []
    for scope in e.parts.scopes.of_table(table):
        found = check(e.snapshot_of(table, scope.owner), lambda: e.cancel.cancelled)
        figures = (found.table, found.scope, found.batches, found.versions, found.visible)
        problems: list[str | None] = [*found.problems] or [None]
        rows += [(*figures, problem) for problem in problems]
    columns = list(zip(*rows, strict=True)) or [()] * len(CHECK_SCHEMA)
    return rows_of(pa.table([pa.array(c, f.type) for c, f in zip(columns, CHECK_SCHEMA, strict=True)], schema=CHECK_SCHEMA))


AUDIT_SCHEMA = pa.schema(
    [
        pa.field("records", pa.int64(), nullable=False),
        pa.field("first_id", pa.int64()),
        pa.field("last_id", pa.int64()),
        pa.field("head", pa.utf8(), nullable=False),
        pa.field("problem", pa.utf8()),
    ]
)


def check_audit(e: Execution, _: s.CheckAudit) -> Rows:
    """One row when the chain is whole, else one for each place where it breaks; `head` stands for the whole log."""
    authorise.require(e.identity, Action.READ_SYSTEM)
    found = e.parts.audit.check()
    last = found.head.number if found.records else None
    problems: list[str | None] = [*found.problems] or [None]
    rows = [(found.records, found.first, last, found.head.hash.hex(), problem) for problem in problems]
    columns = zip(*rows, strict=True)
    return rows_of(pa.table([pa.array(c, f.type) for c, f in zip(columns, AUDIT_SCHEMA, strict=True)], schema=AUDIT_SCHEMA))
