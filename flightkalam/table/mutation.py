"""What is written: new versions for one scope, what they do where a key is taken, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.clock import id_after
from flightkalam.errors import Conflict, DuplicateKey, NotNullViolation
from flightkalam.model.keys import combined, key_text
from flightkalam.model.schema import DELETED, Table, TableSchema
from flightkalam.storage.kv import Batch
from flightkalam.table.positions import Positions


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions that a commit holds: a run of ids.

    :param first: the first one's `_seq`.
    """

    count: int
    first: int

    @property
    def last(self) -> int:
        """The last one's `_seq`, when there is any."""
        return id_after(self.first, self.count - 1)


# Adds to the atomic batch, given the versions that it holds.
Extra = Callable[[Batch, Versions], None]


class OnConflict(Enum):
    """What happens to a new row whose key is visible."""

    ERROR = "error"
    IGNORE = "ignore"
    UPDATE = "update"


@dataclass(frozen=True)
class Mutation:
    """New versions for one scope.

    :param table: the table as planned; the commit refuses if its schema has changed since.
    :param rows: every stored column in storage types, in schema order; `_deleted` last when some are tombstones.
    :param segment: name of the segment file that holds exactly these rows, for a large write.
    :param fresh_keys: the keys were drawn for these rows, so that nothing can hold them already.
    :param supersedes: bool[rows]; rows that may take the place of a visible one whatever `on_conflict` says, because the
        statement found it there.
    :param snapshot: the watermark of the transaction that wrote the rows; a key with a newer version is a conflict.
    :param base: int64[rows]: `_seq` of the row that the transaction found there, 0 where it found none.
    :param at: where the rows sit that these supersede, each of them, as the statement found it.
    """

    table: Table
    owner: str | None
    rows: pa.Table
    segment: str | None = None
    on_conflict: OnConflict = OnConflict.ERROR
    fresh_keys: bool = False
    supersedes: npt.NDArray[np.bool_] | None = None
    snapshot: int | None = None
    base: npt.NDArray[np.int64] | None = None
    at: Positions | None = None


@dataclass(frozen=True)
class Committed:
    """What a commit did: versions written per mutation, and the position to wait for (already waited for)."""

    rows: tuple[int, ...]
    first_seq: int
    tables: tuple[pa.Table, ...]  # what was written, per mutation
    segments: frozenset[str]  # segment files that the log now names


class HeadMoved(Exception):
    """The scope has newer versions than the statement has seen: run it again, alone."""


class SchemaMoved(Conflict):
    """The table changed between plan and commit: plan again."""


def check_rows(table: Table, rows: pa.Table) -> None:
    """:raises NotNullViolation: a NULL where the table allows none (T-21)."""
    if DELETED in rows.schema.names:  # a tombstone holds the key alone
        rows = rows.filter(pc.invert(rows.column(DELETED)))
    for column in table.schema.columns:
        if column.not_null and rows.column(column.name).null_count:
            raise NotNullViolation(f'null value in column "{column.name}" of table "{table.qualified}", which is NOT NULL')


def duplicate_key(table: Table, columns: Sequence[pa.Array], row: int) -> DuplicateKey:
    names = ", ".join(c.name for c in table.schema.key_columns)
    return DuplicateKey(f'duplicate key in table "{table.qualified}": ({names}) = {key_text(columns, row)} already exists')


def key_of(schema: TableSchema, rows: pa.Table) -> list[pa.Array]:
    return [combined(rows.column(c.name)) for c in schema.key_columns]


def last_or_first(rows: pa.Table, columns: Sequence[pa.Array], *, keep_last: bool) -> pa.Table:
    """Drop all but the first or last row of each key, keeping the order."""
    names = [f"k{i}" for i in range(len(columns))]
    keys = pa.table([*columns, pa.array(np.arange(rows.num_rows))], names=[*names, "row"])
    how = "max" if keep_last else "min"
    kept = keys.group_by(names).aggregate([("row", how)]).column(f"row_{how}")
    return rows.take(pa.array(np.sort(kept.to_numpy())))
