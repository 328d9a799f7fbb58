"""What a statement gives back: rows that stream, or a count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa


class Rows:
    """A result that streams.  Iterate once; `close` in any case; `cancel` from any thread.

    :param soon: its first rows are there, or will be at once.
    """

    def __init__(
        self,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        *,
        total: int = -1,
        soon: bool = False,
        close: Callable[[], None] = lambda: None,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.schema = schema
        self.total = total
        self.soon = soon
        self._batches = batches
        self._close = close
        self._cancel = cancel
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        finally:
            self.close()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._close()

    def cancel(self) -> None:
        if not self._closed:
            self._cancel()


def rows_of(table: pa.Table) -> Rows:
    """A small result that lies in memory."""
    return Rows(table.schema, table.to_batches(max_chunksize=16_384), total=table.num_rows, soon=True)


COUNT_SCHEMA = pa.schema([pa.field("count", pa.int64(), nullable=False)])


def count_rows(count: int) -> Rows:
    """A count as a result, for clients that fetch one where they should have asked for an update."""
    return rows_of(pa.table([[count]], schema=COUNT_SCHEMA))
