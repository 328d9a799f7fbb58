"""The rows of small batches, read here and kept decoded, instead of by the engine.

    own rows of one of many users     a scope of a few hundred rows, in one or two batches
    a change feed of little           the batches that are left after pruning by `_seq`

To open one Parquet file costs an engine more than to read a few thousand rows that are there already.  It is all or nothing:
a scan that has to open a file anyway gains little from not opening another.  What is handed on are whole batches without
their dead rows, so every filter stays the statement's own; where they sit is not known to the engine, and a write that needs
it looks for their keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from flightkalam.table.snapshot import Snapshot
from flightkalam.table.spare import Part

MOST_FILES = 16


def small_batches(parts: Sequence[Part], snapshot: Snapshot) -> list[pa.Table] | None:
    """The rows of all batches that count, with `_deleted` and `_seq`; None where the engine had better read them.

    :param parts: batches with live rows.
    """
    scopes, schema, folder = snapshot.scopes, snapshot.table.schema, snapshot.scope.folder
    if len(parts) > MOST_FILES or sum(part.entry.rows for part in parts) > scopes.small_batch_rows:
        return None
    found: list[pa.Table] = []
    for part in parts:
        rows = scopes.groups.whole(folder, part.entry, schema)
        if rows is None:
            return None
        found.append(_without(rows, part.dead) if part.dead else rows)
    return found


def _without(rows: pa.Table, dead: BitMap) -> pa.Table:
    alive = np.ones(rows.num_rows, bool)
    alive[np.frombuffer(dead.to_array(), np.uint32)] = False
    return rows.filter(pa.array(alive))
