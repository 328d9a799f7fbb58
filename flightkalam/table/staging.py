"""The rows of one large write before its commit: in memory while they are few, in a segment file when not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flightkalam.hot.segments import SegmentWriter, file_of, open_segment
from flightkalam.hot.store import batch_schema
from flightkalam.model.schema import DELETED, Table
from flightkalam.storage import objects
from flightkalam.table.mutation import Committed

_DELETED = pa.field(DELETED, pa.bool_(), nullable=False)


_NO_ROWS = pa.table({})


@dataclass(frozen=True, slots=True)
class Staging:
    """:param threshold_bytes: a write larger than this goes to a segment file.
    :param batch_rows: rows of one batch in the file."""

    folder: Path
    threshold_bytes: int = 1 << 20
    batch_rows: int = 65_536


class Staged:
    """Collects storage batches of one table: `add`…, `finish`, then read `rows` and `segment`; `close` in any case.

    :param tombstones: the batches have a last column `_deleted`.
    """

    def __init__(self, table: Table, staging: Staging, *, tombstones: bool = False) -> None:
        storage, by_id = table.schema.storage, batch_schema(table.schema)
        self.schema = storage.append(_DELETED) if tombstones else storage
        self._by_id = by_id.append(_DELETED) if tombstones else by_id
        self._staging = staging
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._writer: SegmentWriter | None = None
        self._committed: frozenset[str] = frozenset()
        self.rows: pa.Table = _NO_ROWS
        self.segment: str | None = None

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch of the storage columns."""
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes > self._staging.threshold_bytes:
            self._spill()

    def finish(self) -> None:
        """No more batches: make a segment file durable, if there is one."""
        if self._writer is None:
            self.rows = pa.Table.from_batches(self._held, self.schema)
            return
        self._spill()
        self.segment = self._writer.finish()
        by_id = open_segment(self._staging.folder, self.segment, verify=False)
        self.rows = by_id.rename_columns(self.schema.names)

    def committed(self, result: Committed) -> None:
        """The write is in the log: the files that it names stay."""
        self._committed = result.segments

    def keep(self) -> None:
        """Whether the write is in the log is not known; the next start decides."""
        if self.segment is not None:
            self._committed = frozenset((file_of(self.segment),))

    def close(self) -> None:
        """Remove what was staged and not committed."""
        if self._writer is None:
            return
        if self.segment is None:
            self._writer.discard()
        elif file_of(self.segment) not in self._committed:
            with contextlib.suppress(Exception):  # swept at the next start
                objects.remove(self._writer.path)

    def _spill(self) -> None:
        schema = self._by_id
        if self._writer is None:
            self._writer = SegmentWriter(self._staging.folder, schema)
        table = pa.Table.from_batches(self._held, self.schema)
        for batch in table.rename_columns(schema.names).combine_chunks().to_batches(self._staging.batch_rows):
            self._writer.add(batch.cast(schema) if batch.schema != schema else batch)
        self._held, self._held_bytes = [], 0


def stage(table: Table, staging: Staging, rows: pa.Table) -> Staged:
    """Rows that are already there, finished; close it when the write is over."""
    staged = Staged(table, staging, tombstones=DELETED in rows.schema.names)
    try:
        for batch in rows.cast(staged.schema).to_batches(max_chunksize=staging.batch_rows):
            staged.add(batch)
        staged.finish()
    except BaseException:
        staged.close()
        raise
    return staged
