"""Arrow that a client receives: running results, and who may stop them.

Four things end a result early: the client goes away, a CancelFlightInfo action, the server shutting down, an error.  A
result that is between two batches notices by itself; one that is computing has to be interrupted from outside, so one
thread looks at all running calls a few times a second.

    GeneratorStream (Arrow's) -> _Iterator -> _Running <- Streams <- the watching thread, actions, drain

A small result that is there at once (`Rows.soon`) is read to its end before the call answers, and Arrow sends it without
asking us again: for one row the way through Python and back costs more than the row.  Others answer with their schema first.

Arrow drops its stream, and with it the `_Iterator`, before it frees the call's context.  That is why only `_Iterator`
holds the end of the chain: when it goes, `_Running.close` takes the lock that the watching thread holds while it asks
the context, and after that nobody asks again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.errors import Cancelled, KalamError
from flightkalam.flight import status
from flightkalam.flight.ports import Rows

_WATCH_SECONDS = 0.05
# How many results are remembered after their end, so that a late cancel is answered truly.
_REMEMBERED = 10_000
# A result whose first batch has more rows streams.
_FEW_ROWS = 2_048

Key = tuple[str, bytes]  # user, handle
_OPTIONS: dict[str | None, pa.ipc.IpcWriteOptions] = {
    name: pa.ipc.IpcWriteOptions(compression=name) for name in ("lz4", "zstd")
}


class Streams:
    """All running results of one server."""

    def __init__(self, told: Callable[[str], None] = lambda sqlstate: None) -> None:
        """:param told: hears the SQLSTATE of every error that ends a result."""
        self.told = told
        # Reentrant: a dropped iterator may close itself in the middle of any of these blocks.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._running: dict[int, _Running | _Opening] = {}
        self._ended: OrderedDict[Key, bool] = OrderedDict()  # True: cancelled before it ran
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="flight-watch", daemon=True)
        self._watcher.start()

    def check(self, key: Key) -> None:
        """:raises Cancelled: the result was cancelled before anybody asked for its rows."""
        with self._lock:
            cancelled = self._ended.get(key, False)
        if cancelled:
            raise Cancelled("the query was cancelled; run it again")

    @contextmanager
    def opening(self, key: Key, context: flight.ServerCallContext) -> Iterator[_Opening]:
        """A result that computes before its first row is watched like one that streams."""
        opening = _Opening(key, context)
        with self._lock:
            self._running[id(opening)] = opening
        try:
            yield opening
        finally:
            with self._lock:
                self._running.pop(id(opening), None)

    def serve(self, rows: Rows, opening: _Opening, user_agent: str, compression: str | None = None) -> flight.FlightDataStream:
        """The answer to the call that `opening` is of; to be asked for inside it, since rows are read ahead here."""
        held, rest = _ahead(rows, opening) if rows.soon else ([], iter(rows))
        options = _OPTIONS.get(compression)
        if rest is None:
            rows.close()
            with self._lock:
                self._remember(opening.key, cancelled=False)
            return flight.RecordBatchStream(pa.Table.from_batches(held, rows.schema), options)
        running = _Running(self, rows, opening.key, opening.context)
        with self._lock:
            self._running[id(running)] = running
        return flight.GeneratorStream(rows.schema, _Iterator(running, chain(held, rest), user_agent), options)

    def cancel(self, key: Key) -> bool:
        """Stop a result, or keep one from starting; False if it has ended already."""
        with self._lock:
            found = [r for r in self._running.values() if r.key == key]
            if not found:
                if key in self._ended:
                    return self._ended[key]
                self._remember(key, cancelled=True)
                return True
        for running in found:
            running.stop(Cancelled("the query was cancelled by its client"))
        return True

    def wait_idle(self, seconds: float) -> bool:
        """Whether no result was left running within the time."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, timeout=seconds)

    def stop_all(self, reason: KalamError) -> None:
        with self._lock:
            found = list(self._running.values())
        for running in found:
            running.stop(reason)

    def close(self) -> None:
        self._stopping.set()
        self._watcher.join()

    def forget(self, running: _Running) -> None:
        with self._lock:
            self._running.pop(id(running), None)
            self._remember(running.key, cancelled=False)
            if not self._running:
                self._idle.notify_all()

    def _remember(self, key: Key, *, cancelled: bool) -> None:
        self._ended[key] = cancelled
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            with self._lock:
                left = [r for r in list(self._running.values()) if r.left()]
            for running in left:
                running.stop(Cancelled("the query was cancelled by its client"))


def _ahead(rows: Rows, opening: _Opening) -> tuple[list[pa.RecordBatch], Iterator[pa.RecordBatch] | None]:
    """The first batches of a result and the rest of it; None when there is no rest."""
    opening.can_stop(rows.cancel)
    held: list[pa.RecordBatch] = []
    rest = iter(rows)
    try:
        for batch in rest:
            held.append(batch)
            if batch.num_rows > _FEW_ROWS or len(held) > 1:
                return held, rest
    except BaseException as error:
        rows.close()
        raise (opening.reason or error) from None
    return held, None


class _Opening:
    """A result that has not given its first row yet."""

    def __init__(self, key: Key, context: flight.ServerCallContext) -> None:
        self.key = key
        self.context = context
        self.reason: KalamError | None = None
        self._stops: Callable[[], None] | None = None

    def can_stop(self, how: Callable[[], None]) -> None:
        self._stops = how
        if self.reason is not None:
            how()

    def left(self) -> bool:
        return self.reason is None and bool(self.context.is_cancelled())

    def stop(self, reason: KalamError) -> None:
        self.reason = reason
        if self._stops is not None:
            self._stops()


class _Running:
    """One result on its way."""

    def __init__(self, streams: Streams, rows: Rows, key: Key, context: flight.ServerCallContext) -> None:
        self.key = key
        self.rows = rows
        self.context = context
        self.reason: KalamError | None = None
        self.told = streams.told
        self._streams = streams
        self._closed = False

    def left(self) -> bool:
        """Whether the client is gone.  Only to be asked while the result is registered."""
        return self.reason is None and bool(self.context.is_cancelled())

    def stop(self, reason: KalamError) -> None:
        if self.reason is None and not self._closed:
            self.reason = reason
            self.rows.cancel()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._streams.forget(self)
        self.rows.close()


class _Iterator:
    """What Arrow pulls.  Not a generator: one that was never started would not run its `finally`."""

    def __init__(self, running: _Running, batches: Iterator[pa.RecordBatch], user_agent: str) -> None:
        self._running = running
        self._batches = batches
        self._user_agent = user_agent
        self._sent = 0

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> tuple[pa.RecordBatch, bytes]:
        """A batch, and how many rows there have been with it."""
        running = self._running
        try:
            if running.left():
                running.stop(Cancelled("the query was cancelled by its client"))
            if running.reason is not None:
                raise running.reason
            batch = next(self._batches)
            self._sent += batch.num_rows
            return batch, b'{"rows": %d, "total": %d}' % (self._sent, running.rows.total)
        except StopIteration:
            running.close()
            raise
        except Exception as error:
            running.close()
            # An interrupted engine complains in its own words; why it was interrupted is the better answer.
            cause = running.reason or error
            raise status.to_flight(cause, running.context, user_agent=self._user_agent, told=running.told) from None

    def __del__(self) -> None:
        self._running.close()
