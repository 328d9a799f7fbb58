"""Reading the rows that a statement is going to supersede, together with where they sit.

The SELECT of an UPDATE or DELETE asks its target's relation for one column more, `$at`.  No text of a client may name it: one
that does is run without, and then the engine says that there is no such column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flightkalam.model.keys import I64
from flightkalam.model.schema import POSITION, Table, TableKind
from flightkalam.query.relation import POSITION_STRIDE, files_in_order
from flightkalam.session import reads
from flightkalam.session.execution import Execution
from flightkalam.sql.text import quote_ident
from flightkalam.table.positions import Positions
from flightkalam.table.scan import ScanPlan, numbers_of

POSITION_OUT = quote_ident(POSITION)


@dataclass(frozen=True)
class Found:
    """:param rows: what the query gave.
    :param plan: how the target was read; None when nobody asked for positions.
    """

    rows: pa.Table
    plan: ScanPlan | None = None


def may_ask(e: Execution, table: Table, query: str) -> bool:
    """Whether a statement's query can ask for positions.

    :param query: as it is without them, the client's text in it.
    """
    return e.transaction is None and table.kind is not TableKind.STREAM and POSITION not in query.lower()


def find(e: Execution, query: str, inputs: reads.Inputs | None = None, *, positions: bool = False) -> Found:
    """Run a query of our own.

    :param positions: it selects the target's `$at`.
    """
    bound = reads.bind(e, query, inputs or {}, positions=positions)
    planned = reads.plan(e, bound)
    batches = list(reads.streamed(e, planned))
    rows = pa.Table.from_batches(batches) if batches else e.parts.executor.schema(bound, e.setting).empty_table()
    plans = [s for r, s in zip(planned.requests, planned.scans, strict=True) if POSITION in {c.name for c in r.shows.hidden}]
    if not positions or len(plans) != 1 or not isinstance(plans[0], ScanPlan):
        return Found(rows)
    return Found(rows, plans[0])


def positions(e: Execution, table: Table, found: Found, seqs: I64) -> Positions | None:
    """Where the rows sit; None when that is not known of all of them: then their keys have to be looked for.

    :param seqs: their `_seq`.
    """
    if found.plan is None:
        return None
    state = e.snapshot(table).state
    at = found.rows.column(POSITION).to_numpy().astype(np.int64)
    cold = at >= 0
    if (seqs[~cold] <= state.manifest.flushed_seq).any():
        return None  # read by key, ahead of the engine
    batch, row = np.full(len(at), -1, np.int64), np.zeros(len(at), np.int64)
    batch[cold] = numbers_of(files_in_order(found.plan))[at[cold] // POSITION_STRIDE]
    row[cold] = at[cold] % POSITION_STRIDE
    return Positions(state.layout, batch, row, seqs)
