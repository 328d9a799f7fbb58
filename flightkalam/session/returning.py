"""RETURNING: the rows that a write has just written, or deleted, as a query sees them."""

from __future__ import annotations

import pyarrow as pa

from flightkalam.auth.authorise import Action
from flightkalam.clock import id_range
from flightkalam.model.schema import SEQ, SYSTEM_FIELDS, Table
from flightkalam.query.result import conform, wire_schema
from flightkalam.session import reads
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.session.writes import Written
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident
from flightkalam.table.scan import Figures, ScanPlan

Returning = s.Insert | s.Update | s.Delete | s.Merge


def _query(statement: Returning, table: Table) -> str:
    assert statement.returning is not None
    alias = statement.alias.value if statement.alias is not None else None
    name = reads.qualified(table)
    reference = name if alias is None else f"{name} AS {quote_ident(alias)}"
    return f"SELECT {statement.returning.text}\n FROM {reference}"


def _table(e: Execution, statement: Returning) -> Table:
    name = statement.target if isinstance(statement, s.Merge) else statement.table
    return e.table(name, Action.WRITE)


def schema(e: Execution, statement: Returning) -> pa.Schema:
    return reads.schema(e, _query(statement, _table(e, statement)))


def rows(e: Execution, statement: Returning, written: Written) -> Rows:
    """Evaluate RETURNING over what was written."""
    query = _query(statement, written.table)
    announced = wire_schema(reads.describe(e, query))
    found = reads.batches(e, query, scans={written.table.id: as_scan(written)})
    return rows_of(pa.Table.from_batches(list(conform(found, announced)), announced))


def as_scan(written: Written) -> ScanPlan:
    """The written rows in the place of the table's own."""
    rows, n = written.rows, written.rows.num_rows
    if SEQ not in rows.schema.names:
        # Inside a transaction rows get their `_seq` at COMMIT.
        seqs = pa.array(id_range(written.first_seq, n)) if n and written.first_seq else pa.nulls(n, pa.int64())
        rows = rows.append_column(pa.field(SEQ, pa.int64()), seqs)
    rows = rows.append_column(SYSTEM_FIELDS[1], pa.repeat(pa.scalar(False), n))
    figures = Figures(written.table.qualified, "", 0, 0, 0, 0, n, 0)
    return ScanPlan(written.table.schema, rows, (), (), figures)
