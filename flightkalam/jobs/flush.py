"""Flush: settle a scope's hot rows as Parquet batches.

    1 choose    S = the durable watermark; the rows with _seq ≤ S that no version ≤ S supersedes; tombstones included
    2 do        batch files (temporary name, sync, rename), deletion vectors with the marks ≤ S; no lock that a writer wants
    3 install   under the scope's write lock one atomic batch: the manifest (`pending_write`, flushed_seq = S), marks > S on
                rows that moved re-pointed to their new place.  THIS IS THE COMMIT.
    4 publish   manifest.json; only then the log's entries ≤ S and their segment files go

A crash before 3 leaves files that no manifest names; they are removed before the scope's next install, and their numbers may be
used again, since no committed manifest ever named them.  A crash after 3 leaves entries ≤ flushed_seq in the log, which nobody
reads, and a pending manifest, which is published when the scope is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from flightkalam import failpoints
from flightkalam.clock import Clock
from flightkalam.cold import deletion_vectors
from flightkalam.cold.batch_file import BatchStyle, sort_by_key, write_batch
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit
from flightkalam.errors import Cancelled
from flightkalam.hot import log
from flightkalam.hot.rows import HotRows, Segment, cold_marks
from flightkalam.jobs import installs
from flightkalam.jobs.control import Control
from flightkalam.model.keys import I64
from flightkalam.model.schema import DELETED, SEQ, Table, TableSchema
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState


@dataclass(frozen=True, slots=True)
class FlushSettings:
    """:param rows_per_batch: a flush of more rows writes several batches, so that its memory is bounded."""

    rows_per_batch: int = 1_000_000
    style: BatchStyle = field(default_factory=BatchStyle)


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush of one scope did."""

    batches: tuple[int, ...]
    rows: int
    bytes: int


NOTHING = Flushed((), 0, 0)


@dataclass(frozen=True)
class _Written:
    """A new batch and the hot row that each of its rows was."""

    entry: BatchEntry
    hot_rows: I64


class Flusher:
    def __init__(self, scopes: Scopes, clock: Clock, settings: FlushSettings) -> None:
        self._scopes = scopes
        self._clock = clock
        self._settings = settings

    def flush(self, table: Table, owner: str | None, control: Control | None = None) -> Flushed:
        """Flush one scope up to the durable watermark.

        :raises Cancelled: `control` was set, or the table was dropped; nothing has changed.
        """
        control = control or Control()
        scope = self._scopes.open(table, owner)
        with scope.installs:
            installs.sweep(self._scopes, scope, table.qualified)
            table = self._scopes.current(table.id) or table
            state, watermark = scope.state, self._scopes.door.watermark
            dead = state.hot.superseded_by
            n = int(np.searchsorted(state.hot.ids.values(), watermark, "right"))
            if n == 0:
                return NOTHING
            by = dead.values()[:n]
            live = np.flatnonzero((by == 0) | (by > watermark))
            objects.make_folder(scope.folder)
            written = []
            try:
                for number, rows in self._numbered(state, live, table.schema):
                    control.step()
                    written.append(self._write(scope, table, number, rows, watermark))
                vectors = self._vectors(scope, state, watermark)
                control.step()
                self._install(scope, table, state, written, vectors, watermark, n)
            except BaseException:
                if scope.state is state:  # not installed: the files are nobody's
                    installs.discard(self._scopes, scope)
                raise
            files = [g.source for g in state.hot.segments if g.source is not None and g.start < n]
            self._publish(scope, table, state.manifest, watermark, files)
        return Flushed(tuple(w.entry.number for w in written), len(live), sum(w.entry.size_bytes for w in written))

    def _numbered(self, state: ScopeState, live: I64, schema: TableSchema) -> Iterator[tuple[int, I64]]:
        """Cut the rows into batches and number them.

        They are in key order before they are cut, so that no two batches of one flush overlap and a key lies in one of them.
        Only the keys are brought together for that; the rows follow a batch at a time.
        """
        step = self._settings.rows_per_batch
        if len(live) > step:
            live = live[_key_order(state.hot, live, schema)]
        for i, at in enumerate(range(0, len(live), step)):
            yield state.manifest.max_batch + 1 + i, live[at : at + step]

    def _write(self, scope: OpenScope, table: Table, number: int, rows: I64, watermark: int) -> _Written:
        schema = table.schema
        unsorted = hot_table(scope.state.hot, rows, schema)
        ordered, before = sort_by_key(unsorted, schema)
        entry = write_batch(
            scope.folder,
            number,
            ordered,
            schema,
            scope.scope,
            style=self._settings.style,
            flushed_seq=watermark,
            filters=installs.filter_style(table, scope.state.manifest, ordered),
            definition=table,
        )
        failpoints.hit("flush.batch_written")
        if scope.sought:
            self._scopes.keys.seed(entry, schema, ordered)
        return _Written(entry, rows[before])

    def _vectors(self, scope: OpenScope, state: ScopeState, watermark: int) -> Mapping[int, deletion_vectors.VectorRef]:
        """Write the deletion vectors of the batches that versions ≤ watermark supersede rows of."""
        changed = {}
        for number, fresh in state.hot.dead_cold(watermark).items():
            place = state.manifest.by_number.get(number)
            if place is None:
                continue
            ref = state.manifest.batches[place].dead
            old = self._scopes.vectors.get(scope.folder, ref) if ref is not None else BitMap()
            changed[number] = old | fresh
        if not changed:
            return {}
        refs = deletion_vectors.write(scope.folder, state.manifest.version + 1, changed)
        failpoints.hit("flush.vectors_written")
        return refs

    def _install(
        self,
        scope: OpenScope,
        table: Table,
        state: ScopeState,
        written: list[_Written],
        vectors: Mapping[int, deletion_vectors.VectorRef],
        watermark: int,
        n: int,
    ) -> None:
        """Step 3: the commit."""
        door = self._scopes.door
        edit = ManifestEdit(add=tuple(w.entry for w in written), vectors=vectors, flushed_seq=watermark)
        with scope.lock:
            places = _places(written, n)
            hot = remaining(state.hot, n, watermark, places)
            with door.mutex:
                if self._scopes.current(table.id) is None:
                    raise Cancelled(f'table "{table.qualified}" was dropped during the flush')
                batch = Batch()
                manifest = edit.apply(state.manifest, self._clock.now_us())
                entry = self._scopes.manifests.stage(batch, manifest, scope.folder, edit)
                self._repoint_log(batch, scope, table, state.hot, places, watermark)
                failpoints.hit("flush.before_commit")
                position = door.append(batch, None)  # what could fail has been done: the swap follows
                self._scopes.manifests.committed(entry)
                scope.swap(ScopeState(state.layout + 1, manifest, hot), door.oldest_pin())
        failpoints.hit("flush.appended")
        door.wait(position)
        failpoints.hit("flush.committed")

    def _repoint_log(self, batch: Batch, scope: OpenScope, table: Table, hot: HotRows, places: _Places, watermark: int) -> None:
        """Rewrite the log's entries > S whose marks name rows that have just become cold."""
        for loaded in self._scopes.log.entries(scope.scope, watermark):
            marks = loaded.entry.hot_marks
            moved = marks["target"] <= watermark
            if not moved.any():
                continue
            rows = hot.rows_of(marks["target"][moved])
            numbers, positions = places.batch[rows], places.row[rows]
            fresh = cold_marks(numbers, positions, marks["by"][moved])
            entry = replace(loaded.entry, hot_marks=marks[~moved], cold_marks=np.concatenate([loaded.entry.cold_marks, fresh]))
            batch.put("log", loaded.key, log.encode(entry))

    def _publish(self, scope: OpenScope, table: Table, old: Manifest, watermark: int, files: list[str]) -> None:
        """Step 4.  Whatever fails here is done again by the next flush, or when the scope is next opened."""
        scopes = self._scopes
        scope.swept = False
        installs.publish(scopes, scope, table.qualified)
        batch = Batch()
        scopes.log.trim(batch, scope.scope, watermark, files)
        failpoints.hit("flush.before_trim")
        scopes.door.store.commit(batch)
        failpoints.hit("flush.trimmed")
        installs.leave_segments(scopes, files)
        scope.swept = True
        installs.leave(scopes, scope, old)


@dataclass(frozen=True)
class _Places:
    """Where each hot row went: batch number (-1: nowhere) and row, int64[n]."""

    batch: I64
    row: I64


def _key_order(hot: HotRows, rows: I64, schema: TableSchema) -> I64:
    """The places among some hot rows that put their keys in order, int64[n]."""
    names = [c.name for c in schema.key_columns]
    _, before = sort_by_key(pa.table(hot.take(rows, schema, names), names=names), schema)
    return before


def _places(written: list[_Written], n: int) -> _Places:
    batch, row = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    for w in written:
        batch[w.hot_rows] = w.entry.number
        row[w.hot_rows] = np.arange(len(w.hot_rows))
    return _Places(batch, row)


def hot_table(hot: HotRows, rows: I64, schema: TableSchema) -> pa.Table:
    """The given hot rows as `schema.file` has them, in their order."""
    names = [*(c.name for c in schema.columns), DELETED]
    columns = hot.take(rows, schema, names)
    seqs = pa.array(hot.ids.values()[rows])
    table = pa.table([*columns[:-1], seqs, columns[-1]], names=[*names[:-1], SEQ, DELETED])
    return table.cast(schema.file)


def remaining(old: HotRows, n: int, watermark: int, places: _Places) -> HotRows:
    """The hot rows after the first n have become cold.  Call with the scope's lock held."""
    new = HotRows()
    for s in old.segments:
        low = max(s.start, n)
        if low < s.end:
            part = Segment(low - n, s.table.slice(low - s.start), s.schema_version, s.size_class, s.source)
            new.segments = (*new.segments, part)
    new.ids.extend(old.ids.values()[n:])
    new.superseded_by.extend(old.superseded_by.values()[n:])
    marks = old.marks.values()
    marks = marks[marks["by"] > watermark]
    stays = marks["row"] >= n
    kept = marks[stays].copy()
    kept["row"] -= n
    new.marks.extend(kept)
    moved = marks[~stays]
    cold = old.cold_marks.values()
    cold = cold[cold["by"] > watermark]
    triples = np.concatenate([cold, _as_cold(moved, places, cold.dtype)])
    new.cold_marks.extend(triples[np.argsort(triples["by"], kind="stable")])
    return new


def _as_cold(marks: npt.NDArray[np.void], places: _Places, dtype: np.dtype) -> npt.NDArray[np.void]:
    out = np.empty(len(marks), dtype)
    out["batch"], out["row"], out["by"] = places.batch[marks["row"]], places.row[marks["row"]], marks["by"]
    return out
