"""Rows on their way in: cast to a table's storage types, kept in memory while they are few, staged in a file when not.

However large a write is, what lies in memory is one batch of it and, later, the hashes of its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import pyarrow as pa

from flightkalam.errors import InvalidValue
from flightkalam.model.schema import Table
from flightkalam.model.types import to_storage
from flightkalam.table.staging import Staged, Staging

Cast = Callable[[pa.RecordBatch], pa.RecordBatch]


class Intake:
    """Collects the rows of one write.

    Use as a context manager: what was staged and not committed is removed at the end.

    :param cast: makes a batch of the table's storage columns, in schema order, of a batch that arrives.
    """

    def __init__(self, table: Table, staging: Staging, cast: Cast) -> None:
        self._cast = cast
        self._staged = Staged(table, staging)

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._staged.close()

    def take(self, batches: Iterable[pa.RecordBatch]) -> Staged:
        """Read every batch; the rows are then ready for the write door."""
        return self.take_storage(self._cast(batch) for batch in batches if batch.num_rows)

    def take_storage(self, batches: Iterable[pa.RecordBatch]) -> Staged:
        """The same for batches that are of the storage columns already."""
        for batch in batches:
            self._staged.add(batch)
        self._staged.finish()
        return self._staged


def storage_batch(table: Table, arrays: Sequence[pa.Array]) -> pa.RecordBatch:
    """Arrays in schema order as a batch of the table's storage columns, each cast exactly or refused."""
    columns = []
    for column, array in zip(table.schema.columns, arrays, strict=True):
        stored = to_storage(array, column.type, column.name)
        if isinstance(stored, pa.ChunkedArray):
            stored = stored.combine_chunks()
            stored = stored.chunk(0) if isinstance(stored, pa.ChunkedArray) else stored
        if len(stored) != len(arrays[0]):
            raise InvalidValue(f'column "{column.name}" has {len(stored)} values where {len(arrays[0])} were expected')
        columns.append(stored)
    return pa.RecordBatch.from_arrays(columns, schema=table.schema.storage)
