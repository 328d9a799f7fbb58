"""CHECK TABLE: whether what queries see is what the versions say."""

from __future__ import annotations

import pyarrow as pa

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
