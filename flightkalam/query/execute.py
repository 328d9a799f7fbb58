"""Running a planned statement: its schema once, its rows as they come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from flightkalam.query.compute import CancelToken, Engine, EngineStream, ResultColumn, Setting
from flightkalam.query.planner import Bound, Planned, render
from flightkalam.query.result import MAX_BATCH_BYTES, conform, wire_schema


class Rows:
    """The rows of one statement: iterate once; `close` ends it early and gives back what it holds (T-52)."""

    def __init__(self, stream: EngineStream, schema: pa.Schema, max_bytes: int) -> None:
        self.schema = schema
        self._stream = stream
        self._batches = conform(stream, schema, max_bytes)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches

    def read_all(self) -> pa.Table:
        with self:
            return pa.Table.from_batches(self._batches, self.schema)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Executor:
    """Describes and runs bound statements on one engine.

    :param batch_rows: rows the engine puts into a batch before it is cut to `max_batch_bytes`.
    :param cached_schemas: schemas remembered by what they depend on; describing costs a plan of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch_rows: int = 65_536,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        cached_schemas: int = 1_024,
    ) -> None:
        self.engine = engine
        self._batch_rows = batch_rows
        self._max_bytes = max_batch_bytes
        self._cached = cached_schemas
        self._described: OrderedDict[tuple[object, ...], list[ResultColumn]] = OrderedDict()
        self._lock = threading.Lock()

    def columns(self, bound: Bound, setting: Setting) -> list[ResultColumn]:
        """What the statement returns, found without reading a row: its relations are empty, with the same types."""
        key = bound.signature
        with self._lock:
            found = self._described.get(key)
            if found is not None:
                self._described.move_to_end(key)
                return found
        sql, inputs = render(bound, [None] * len(bound.requests))
        columns = self.engine.describe(sql, inputs, _setting(bound.asks_caller, setting))
        with self._lock:
            self._described[key] = columns
            while len(self._described) > self._cached:
                self._described.popitem(last=False)
        return columns

    def schema(self, bound: Bound, setting: Setting) -> pa.Schema:
        """What is announced for the statement."""
        return wire_schema(self.columns(bound, setting))

    def stream(self, planned: Planned, setting: Setting, cancel: CancelToken) -> EngineStream:
        """The rows as the engine gives them, for writes."""
        return self.engine.stream(
            planned.sql,
            planned.inputs,
            _setting(planned.asks_caller, setting),
            batch_rows=self._batch_rows,
            cancel=cancel,
        )

    def rows(self, planned: Planned, schema: pa.Schema, setting: Setting, cancel: CancelToken) -> Rows:
        """:param schema: what was announced; every batch is exactly of it."""
        return Rows(self.stream(planned, setting, cancel), schema, self._max_bytes)

    def table(self, planned: Planned, setting: Setting, cancel: CancelToken) -> pa.Table:
        """A small result at once."""
        return self.engine.table(planned.sql, planned.inputs, _setting(planned.asks_caller, setting), cancel=cancel)

    def explain(self, planned: Planned, setting: Setting, *, analyze: bool = False, as_json: bool = False) -> str:
        """The engine's plan of a statement; the figures of its tables are in `planned.scans`."""
        return self.engine.explain(
            planned.sql, planned.inputs, _setting(planned.asks_caller, setting), analyze=analyze, as_json=as_json
        )


def _setting(asks_caller: bool, setting: Setting) -> Setting:
    """Telling the engine who is asking costs four statements; most never ask."""
    return setting if asks_caller else replace(setting, caller=None)
