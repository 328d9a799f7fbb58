"""Positions that a statement's SELECT has found: they spare the write door from looking for the keys again.

    SELECT at watermark W, layout 4      _seq 31, batch 2, row 17      what the new version supersedes
    the door, with the scope's lock      layout 4, head W              the position holds, as it stands
                                         layout 5 (a flush, say)       it does not: look for the keys
                                         head above W                  it may not: run the statement again

A hot row needs no position: its `_seq` is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flightkalam.errors import InternalError
from flightkalam.hot.rows import HotRows
from flightkalam.model.keys import I64
from flightkalam.table.locate import Located, superseded
from flightkalam.table.scopes import OpenScope, Scopes


@dataclass(frozen=True)
class Positions:
    """Where the rows sit that a mutation's rows supersede, one for each.

    :param layout: of the scope; they hold for no other.
    :param batch: batch number, -1 for a hot row.
    :param row: row number in the batch.
    :param seq: `_seq` of the row.
    """

    layout: int
    batch: I64
    row: I64
    seq: I64


def located(scopes: Scopes, scope: OpenScope, at: Positions) -> Located:
    """The positions as the door wants them.  Call with the scope's lock held, on the layout of the positions.

    :raises InternalError: a position is not that of the live version with the `_seq` it came with, or is there twice.
    """
    hot_rows, cold = scope.state.hot, at.batch >= 0
    hot = np.full(len(at.seq), -1, np.int64)
    hot[~cold] = _hot(hot_rows, at.seq[~cold])
    _require(_each_once(hot[~cold]))
    for entry in scope.state.manifest.batches:
        mine = np.flatnonzero(at.batch == entry.number)
        if len(mine):
            rows, seqs = at.row[mine], at.seq[mine]
            _require(bool((rows < entry.rows).all() and (seqs >= entry.min_seq).all() and (seqs <= entry.max_seq).all()))
            _require(_each_once(rows) and not superseded(scopes, scope, entry, rows).any())
    known = np.isin(at.batch[cold], [entry.number for entry in scope.state.manifest.batches])
    _require(bool(known.all()))
    return Located(hot, at.batch, at.row, np.zeros(len(hot), bool))


def _hot(rows: HotRows, seqs: I64) -> I64:
    ids = rows.ids.values()
    found = rows.rows_of(seqs)
    _require(bool((found < len(ids)).all()))
    _require(bool((ids[found] == seqs).all() and (rows.superseded_by.data[found] == 0).all()))
    return found


def _each_once(rows: I64) -> bool:
    ordered = np.sort(rows)
    return bool((ordered[1:] != ordered[:-1]).all())


def _require(holds: bool) -> None:
    if not holds:
        raise InternalError(
            "a row is not where the statement found it; nothing was written, run the statement again and report this"
        )
