"""A table of very many small batches, each of which spans all keys: the worst case for ranges, made without as many flushes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from flightkalam.app import Kalam, open_kalam
from flightkalam.auth.identity import Identity, Role
from flightkalam.cold.batch_file import BatchStyle, write_batch
from flightkalam.cold.manifest import ManifestEdit
from flightkalam.config import Config
from flightkalam.jobs import installs
from flightkalam.model.schema import Table
from flightkalam.session import Session
from flightkalam.session.results import Results
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch
from flightkalam.table.scopes import OpenScope
from flightkalam.table.snapshot import Snapshot

TABLE = "CREATE TABLE {} (k BIGINT PRIMARY KEY, label TEXT, price DOUBLE) WITH (COMPACTION = 'manual')"
_STEP = 500  # batches per install


class Service:
    """The service in this process, and a session of it."""

    def __init__(self, folder: Path) -> None:
        self.kalam: Kalam = open_kalam(Config(server={"data_dir": folder, "port": 0}, log={"level": "error"}))
        identity = Identity.of("root", Role.SYSTEM, session_id="perf", via="password")
        self.session = Session(self.kalam.parts, identity, "perf", Results())

    def close(self) -> None:
        self.session.close()
        self.kalam.close()

    def run(self, sql: str) -> pa.Table | None:
        prepared = self.session.prepare(sql, None)
        try:
            if prepared.is_update:
                self.session.update_prepared(prepared.handle, None)
                return None
            planned = self.session.plan_prepared(prepared.handle)
            rows = self.session.fetch(planned.handle)
            return pa.Table.from_batches(list(rows), rows.schema)
        finally:
            self.session.close_prepared(prepared.handle)

    def table(self, name: str) -> Table:
        found = self.kalam.parts.catalog.state.resolve((name,), "main")
        assert isinstance(found, Table)
        return found

    def snapshot(self, name: str) -> Snapshot:
        scopes = self.kalam.parts.scopes
        return Snapshot.take(scopes, self.table(name), None, scopes.door.watermark)


def fill(service: Service, name: str, batches: int, rows: int, seed: int = 0) -> np.ndarray:
    """Create a table of so many batches, and return its keys."""
    service.run(TABLE.format(name))
    service.run(f"INSERT INTO {name} VALUES (-1, 'first', 0)")
    service.run(f"FLUSH TABLE {name} WAIT")
    keys = np.random.default_rng(seed).choice(1 << 40, batches * rows, replace=False).astype(np.int64)
    table = service.table(name)
    scope = service.kalam.parts.scopes.open(table, None)
    first = 0
    while first < batches:
        # A filter depends on how many batches there were before, so the first installs are small, as flushes are.
        last = min(batches, first + min(_STEP, max(1, first)))
        _install(service, table, scope, [keys[i * rows : (i + 1) * rows] for i in range(first, last)])
        first = last
    return keys


def _install(service: Service, table: Table, scope: OpenScope, batches: list[np.ndarray]) -> None:
    scopes = service.kalam.parts.scopes
    manifest = scope.state.manifest
    added = []
    for i, keys in enumerate(batches):
        rows = _rows(table, np.sort(keys), manifest.flushed_seq)
        number = manifest.max_batch + 1 + i
        style = installs.filter_style(table, manifest, rows)
        added.append(
            write_batch(
                scope.folder,
                number,
                rows,
                table.schema,
                scope.scope,
                style=BatchStyle(),
                flushed_seq=manifest.flushed_seq,
                filters=style,
            )
        )
    with scope.lock, scopes.door.mutex:
        batch = Batch()
        edited = ManifestEdit(add=tuple(added)).apply(manifest, service.kalam.parts.clock.now_us())
        entry = scopes.manifests.stage(batch, edited, scope.folder)
        position = scopes.door.append(batch, None)
        scopes.manifests.committed(entry)
        state = scope.state
        scope.swap(replace(state, layout=state.layout + 1, manifest=edited), scopes.door.oldest_pin())
    scopes.door.wait(position)
    scopes.manifests.publish(scope.scope, scope.folder, table.qualified)


def _rows(table: Table, keys: np.ndarray, newest: int) -> pa.Table:
    n = len(keys)
    labels = pa.array([f"row {k}" for k in keys.tolist()])
    seqs = pa.array(np.arange(newest - n, newest))
    columns = [pa.array(keys), labels, pa.array(np.linspace(0, 1, n)), seqs, pa.array(np.zeros(n, bool))]
    return pa.table(columns, schema=table.schema.file)


def size_of(scope: OpenScope) -> int:
    return sum(objects.size(scope.folder / b.file) for b in scope.state.manifest.batches)
