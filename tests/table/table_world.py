"""A small world for the storage rooms: a store, its doors and a few tables, without SQL and without sessions.

Reading goes through `scan`, but the plan is evaluated here, with pyarrow and by field id, so that nothing under test reads
its own writing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from flightkalam.clock import EPOCH_MS, Clock, Snowflakes, id_range, node_number
from flightkalam.cold.batch_file import BatchStyle
from flightkalam.cold.manifests import Manifests
from flightkalam.hot.store import HotLog
from flightkalam.jobs.flush import Flusher, FlushSettings
from flightkalam.model.ids import Scope
from flightkalam.model.predicate import TRUE, Predicate
from flightkalam.model.schema import DELETED, FIELD_ID, SEQ, Column, Table, TableKind, TableSchema
from flightkalam.model.types import BIGINT, INT, TEXT
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.door import CommitDoor
from flightkalam.table.mutate import LAST_SEQ, Writer
from flightkalam.table.mutation import Committed, Mutation, OnConflict
from flightkalam.table.scan import scan
from flightkalam.table.scopes import Scopes
from flightkalam.table.snapshot import Snapshot
from flightkalam.table.staging import Staged, Staging

RESERVED = b"reserved_id"
Row = dict[str, Any]


class HandClock:
    """A clock that a test turns by hand; each look moves it a little, so that nothing depends on real time."""

    def __init__(self, ms: int = 1_000_000) -> None:
        self.us = (EPOCH_MS + ms) * 1000

    def now_us(self) -> int:
        self.us += 100
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000


def shared_table(table_id: int = 1, name: str = "t", key: tuple[int, ...] = (1,)) -> Table:
    """k BIGINT, v TEXT, n INT."""
    columns = (Column(1, "k", BIGINT, True), Column(2, "v", TEXT), Column(3, "n", INT))
    return table_of(table_id, name, TableKind.SHARED, columns, key)


def table_of(table_id: int, name: str, kind: TableKind, columns: tuple[Column, ...], key: tuple[int, ...]) -> Table:
    schema = TableSchema(1, columns, key)
    next_id = max(c.id for c in columns) + 1
    return Table(table_id, "main", name, kind, schema, next_id, "root", 0, f"main/{name}~{table_id}")


def rows_of(table: Table, rows: Sequence[Mapping[str, Any]], deleted: Sequence[bool] | None = None) -> pa.Table:
    """Rows in storage types; columns that a row lacks are NULL."""
    arrays = [pa.array([r.get(c.name) for r in rows], c.type.storage) for c in table.schema.columns]
    out = pa.table(arrays, schema=table.schema.storage)
    if deleted is None:
        return out
    return out.append_column(pa.field(DELETED, pa.bool_(), nullable=False), pa.array(list(deleted), pa.bool_()))


@dataclass
class World:
    """Everything that stores and reads rows in one directory.

    :param staging: writes above so many bytes go to a segment file.
    """

    root: Path
    tables: dict[int, Table]
    clock: Clock = field(default_factory=HandClock)
    settings: FlushSettings = field(
        default_factory=lambda: FlushSettings(style=BatchStyle(row_group_rows=4, compression="none"))
    )
    durable: bool = True
    staging_bytes: int = 64

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.store = Store(self.root / "kv", durable=self.durable, reserve_bytes=0)
        last, reserved = self._number(LAST_SEQ), self._number(RESERVED)
        self.ids = Snowflakes(self.clock, node_number("n"), floor=max(last, reserved), reserve=self._reserve)
        self.door = CommitDoor(self.store, self.ids, last)
        self.log = HotLog(self.store, self.root / "hot")
        self.log.sweep()
        self.manifests = Manifests(self.store, self.clock, self.root / "cold")
        self.scopes = Scopes(self.log, self.manifests, self.door, self.tables.get)
        self.writer = Writer(self.scopes)
        self.flusher = Flusher(self.scopes, self.clock, self.settings)
        self.staging = Staging(self.log.folder, self.staging_bytes, 3)

    def close(self) -> None:
        self.store.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def _number(self, key: bytes) -> int:
        return int.from_bytes(self.store.get("meta", key) or b"\0", "big")

    def _reserve(self, id_: int) -> None:
        batch = Batch()
        batch.put("meta", RESERVED, id_.to_bytes(8, "big"))
        self.store.append(batch)

    # -- writing ----------------------------------------------------------------------------------------------

    def write(
        self,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        owner: str | None = None,
        mode: OnConflict = OnConflict.ERROR,
        deleted: Sequence[bool] | None = None,
        fresh: bool = False,
    ) -> Committed:
        mutation = Mutation(table, owner, rows_of(table, rows, deleted), None, mode, fresh)
        return self.writer.write([mutation])

    def write_in_line(
        self,
        table: Table,
        jobs: Sequence[Callable[[], object]],
        owner: str | None = None,
        alone: Callable[[], object] | None = None,
    ) -> list[BaseException | None]:
        """Run writes of one scope in threads, so that they stand in line in this order when the first may begin.

        :param alone: what whoever keeps them waiting does before it lets them.
        :return: what each raised.
        """
        scope = self.scopes.open(table, owner)
        raised: list[BaseException | None] = [None] * len(jobs)

        def run(i: int) -> None:
            try:
                jobs[i]()
            except BaseException as e:
                raised[i] = e

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
        with self.writer.alone(table, owner):
            for thread in threads:
                before = len(scope.line)
                thread.start()
                while thread.is_alive() and len(scope.line) == before:
                    time.sleep(0.0005)
            if alone is not None:
                alone()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"
        return raised

    def write_staged(
        self, table: Table, rows: Sequence[Mapping[str, Any]], owner: str | None = None, mode: OnConflict = OnConflict.ERROR
    ) -> Committed:
        """As a large write: through a segment file."""
        staged = Staged(table, self.staging)
        try:
            for batch in rows_of(table, rows).to_batches(max_chunksize=4):
                staged.add(batch)
            staged.finish()
            done = self.writer.write([Mutation(table, owner, staged.rows, staged.segment, mode)])
            staged.committed(done)
            return done
        finally:
            staged.close()

    def delete(self, table: Table, keys: Sequence[Mapping[str, Any]], owner: str | None = None) -> Committed:
        """Tombstones: the key, every other column NULL."""
        return self.write(table, keys, owner, OnConflict.UPDATE, [True] * len(keys))

    def flush(self, table: Table, owner: str | None = None) -> None:
        self.flusher.flush(table, owner)

    # -- reading ----------------------------------------------------------------------------------------------

    def snapshot(self, table: Table, owner: str | None = None, watermark: int | None = None) -> Snapshot:
        return Snapshot.take(self.scopes, table, owner, self.door.watermark if watermark is None else watermark)

    def see(self, table: Table, owner: str | None = None, predicate: Predicate = TRUE) -> list[Row]:
        """What an ordinary reader sees now, ordered by `_seq`."""
        return seen(self.snapshot(table, owner), predicate)

    def folder(self, table: Table, owner: str | None = None) -> Path:
        return self.manifests.folder(table, Scope(table.id, owner if table.kind.per_user else None))

    def scope(self, table: Table, owner: str | None = None) -> Scope:
        return Scope(table.id, owner if table.kind.per_user else None)


def seen(snapshot: Snapshot, predicate: Predicate = TRUE, tombstones: bool = False) -> list[Row]:
    """The rows of a scan plan with `_seq` and `_deleted`, ordered by `_seq`."""
    plan = scan(snapshot, predicate, tombstones=tombstones)
    out: list[Row] = [] if plan.hot is None else plan.hot.to_pylist()
    for path, dead in [*((p, BitMap()) for p in plan.clean), *((d.path, d.dead) for d in plan.dirty)]:
        rows = file_rows(Path(path), plan.schema)
        out += [row for i, row in enumerate(rows) if i not in dead]
    return sorted(out, key=lambda r: r[SEQ])


def file_rows(path: Path, schema: TableSchema) -> list[Row]:
    """Every row of a batch file under `schema`, by field id."""
    table = pq.read_table(path, partitioning=None)
    by_id = {int(f.metadata[FIELD_ID]): i for i, f in enumerate(table.schema)}
    out: list[Row] = [{} for _ in range(table.num_rows)]
    for column in schema.columns:
        at = by_id.get(column.id)
        array = column.fill_array(table.num_rows) if at is None else table.column(at).cast(column.type.storage)
        for row, value in zip(out, array.to_pylist(), strict=True):
            row[column.name] = value
    for name in (SEQ, DELETED):
        for row, value in zip(out, table.column(name).to_pylist(), strict=True):
            row[name] = value
    return out


def all_versions(world: World, table: Table, owner: str | None = None) -> list[Row]:
    """Every version in the files that the committed manifest names and in the log, each once (T-6)."""
    scope = world.scope(table, owner)
    manifest = world.manifests.get(scope)
    folder = world.folder(table, owner)
    found = {r[SEQ]: r for b in manifest.batches for r in file_rows(folder / b.file, table.schema)}
    for loaded in world.log.entries(scope):
        for row in _log_rows(world, loaded.entry, table.schema):
            assert found.setdefault(row[SEQ], row) == row, "one _seq, two rows"
    return list(found.values())


def _log_rows(world: World, entry: Any, schema: TableSchema) -> Iterator[Row]:
    stored = world.log.table_of(entry, verify=True)
    names = stored.schema.names
    columns = {}
    for c in schema.columns:
        at = str(c.id)
        array = stored.column(at) if at in names else c.fill_array(entry.rows)
        columns[c.name] = array.cast(c.type.storage).to_pylist()
    columns[SEQ] = id_range(entry.first_seq, entry.rows).tolist()
    columns[DELETED] = stored.column(DELETED).to_pylist() if DELETED in names else [False] * entry.rows
    for i in range(entry.rows):
        yield {name: values[i] for name, values in columns.items()}


def newest_versions(world: World, table: Table, owner: str | None = None) -> list[Row]:
    """The rule: MAX(_seq) per key over everything stored, tombstones left out; ordered by `_seq`."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in all_versions(world, table, owner):
        key = tuple(row[c.name] for c in table.schema.key_columns)
        if key not in best or best[key][SEQ] < row[SEQ]:
            best[key] = row
    return sorted((r for r in best.values() if not r[DELETED]), key=lambda r: r[SEQ])


def plain(rows: Iterable[Row]) -> list[Row]:
    """Rows without system columns."""
    return [{k: v for k, v in r.items() if k not in (SEQ, DELETED)} for r in rows]


def keys_of(rows: Iterable[Row]) -> list[Any]:
    return sorted(r["k"] for r in rows)


def seqs_of(committed: Committed) -> list[int]:
    return np.asarray(id_range(committed.first_seq, sum(committed.rows))).tolist()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in memory where there is one: a property test opens hundreds of stores."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="kalam-test-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
