"""Arrow that a client sends: read, checked, and never trusted (T-53).

Every batch is fully validated before anybody looks into it, because Arrow reads buffers by the offsets that the sender
wrote.  An upload that the client breaks off ends like a finished one, as the end of the stream; only the call knows
that it was cancelled.  So the end is asked about before it is believed, or half a file would be loaded as if it were
all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.errors import BadRequest, Cancelled, InvalidValue

# Parameters are held in memory until the statement runs.
MAX_BIND_BYTES = 64 << 20
MAX_COLUMNS = 10_000
_BROKEN = (flight.FlightError, pa.ArrowException, OSError, ValueError, KeyError)
_NO_DATA = "Client never sent a data message"


class Upload:
    """One DoPut's stream."""

    def __init__(self, reader: flight.MetadataRecordBatchReader, context: flight.ServerCallContext) -> None:
        self._reader = reader
        self._context = context
        self._finished = False

    def schema(self) -> pa.Schema | None:
        """The stream's schema, or None if the client sent nothing but the command."""
        try:
            schema = self._reader.schema
        except _BROKEN as error:
            self._finished = True
            self._raise_if_cancelled()
            if _NO_DATA in str(error):
                return None
            raise _broken(error) from None
        if len(schema) > MAX_COLUMNS:
            raise InvalidValue(f"the stream has {len(schema)} columns; the most is {MAX_COLUMNS}")
        return schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The checked batches.

        :raises BadRequest: the stream is not well-formed Arrow.
        :raises Cancelled: the client gave up before its end.
        """
        while not self._finished:
            batch = self._next()
            if batch is not None:
                yield batch

    def table(self) -> pa.Table:
        """All of it, for parameters."""
        schema = self.schema()
        if schema is None:
            return pa.table({})
        batches: list[pa.RecordBatch] = []
        size = 0
        for batch in self.batches():
            size += batch.nbytes
            if size > MAX_BIND_BYTES:
                raise InvalidValue(f"the parameters exceed {MAX_BIND_BYTES} bytes; bind fewer rows or ingest them")
            batches.append(batch)
        return pa.Table.from_batches(batches, schema)

    def drain(self) -> None:
        """Read what is left: an answer that comes before the end looks like a broken connection to some clients.

        What is left was not asked for, so it cannot spoil an answer that is already decided.
        """
        while not self._finished:
            try:
                self._reader.read_chunk()
            except (StopIteration, *_BROKEN):
                self._finished = True

    def _next(self) -> pa.RecordBatch | None:
        try:
            batch = self._reader.read_chunk().data
            if batch is not None:
                batch.validate(full=True)
        except StopIteration:
            self._finished = True
            self._raise_if_cancelled()
            return None
        except _BROKEN as error:
            self._finished = True
            self._raise_if_cancelled()
            raise _broken(error) from None
        return batch

    def _raise_if_cancelled(self) -> None:
        if self._context.is_cancelled():
            raise Cancelled("the upload was broken off by the client; nothing of it is kept")


def _broken(error: BaseException) -> BadRequest:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return BadRequest(f"the stream is not valid Arrow: {reason}")
