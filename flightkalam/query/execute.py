"""Running a planned statement: its schema once, its rows as they come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from flightkalam.query.compute import CancelToken, Engine, EngineStream, Setting
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
        self._schemas: OrderedDict[tuple[object, ...], pa.Schema] = OrderedDict()
        self._lock = threading.Lock()

    def schema(self, bound: Bound, setting: Setting) -> pa.Schema:
        """What the statement returns, found without reading a row: its relations are empty, with the same types."""
        key = bound.signature
        with self._lock:
            found = self._schemas.get(key)
            if found is not None:
                self._schemas.move_to_end(key)
                return found
        sql, inputs = render(bound, [None] * len(bound.requests))
        schema = wire_schema(self.engine.describe(sql, inputs, _setting(bound.asks_caller, setting)))
        with self._lock:
            self._schemas[key] = schema
            while len(self._schemas) > self._cached:
                self._schemas.popitem(last=False)
        return schema

    def rows(self, planned: Planned, schema: pa.Schema, setting: Setting, cancel: CancelToken) -> Rows:
        """:param schema: what was announced; every batch is exactly of it."""
        stream = self.engine.stream(
            planned.sql,
            planned.inputs,
            _setting(planned.asks_caller, setting),
            batch_rows=self._batch_rows,
            cancel=cancel,
        )
        return Rows(stream, schema, self._max_bytes)

    def explain(self, planned: Planned, setting: Setting, *, analyze: bool = False, as_json: bool = False) -> str:
        """The engine's plan of a statement; the figures of its tables are in `planned.scans`."""
        return self.engine.explain(
            planned.sql, planned.inputs, _setting(planned.asks_caller, setting), analyze=analyze, as_json=as_json
        )


def _setting(asks_caller: bool, setting: Setting) -> Setting:
    """Telling the engine who is asking costs four statements; most never ask."""
    return setting if asks_caller else replace(setting, caller=None)
