"""What manifests cost: in memory, at a restart, at each flush, and when they are lost.

`flush_late` writes the same flush into a table of 10 and of 5,000 batches.  `manifests_cached` holds 50,000 scopes' manifests
of two batches with eight columns each in memory, then starts again and asks for one.  `rebuild` makes the manifest of 100
batches again from their files.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from flightkalam.clock import SystemClock
from flightkalam.cold import paths
from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit
from flightkalam.cold.manifests import Manifests
from flightkalam.jobs.flush import Flusher, FlushSettings
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table
from flightkalam.storage.kv import Batch, Store
from flightkalam.table import recovery
from flightkalam.table.mutation import Mutation
from perf.inside import LEFT_ALONE, Inside
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World

LATE, CACHED, REBUILD = "flush_late", "manifests_cached", "rebuild"
_ROWS, _EARLY, _FLUSHES = 1_000, 10, 3


def measure_each() -> dict[str, Callable[[World], Result]]:
    return {LATE: measure_late, CACHED: measure_cached, REBUILD: measure_rebuild}


# -- a flush ----------------------------------------------------------------------------------------------------------


class _Flushed:
    """One table, and flushes of the same number of new rows."""

    def __init__(self, inside: Inside, name: str) -> None:
        self.parts = inside.kalam.parts
        inside.update(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, a INT, b DOUBLE, c TEXT) WITH ({LEFT_ALONE})")
        found = self.parts.catalog.state.find("main", name)
        assert isinstance(found, Table)
        self.table = found
        self._next = 0
        self._flusher = Flusher(self.parts.scopes, self.parts.clock, FlushSettings())

    @property
    def manifest(self) -> Manifest:
        return self.parts.scopes.manifests.get(Scope(self.table.id))

    def flush(self, rows: int = _ROWS) -> float:
        ids = pa.array(range(self._next, self._next + rows), pa.int64())
        self._next += rows
        columns = [ids, ids.cast(pa.int32()), ids.cast(pa.float64()), ids.cast(pa.utf8())]
        self.parts.writer.write([Mutation(self.table, None, pa.table(columns, schema=self.table.schema.storage))])
        return timed(lambda: self._flusher.flush(self.table, None))

    def grow(self, batches: int) -> None:
        """Commit so many more entries, as so many flushes would have; a flush reads none of their files."""
        manifests, scope = self.parts.scopes.manifests, self.parts.scopes.open(self.table, None)
        like = self.manifest.batches[-1]
        while len(self.manifest.batches) < batches:
            old = self.manifest
            number = old.max_batch + 1
            edit = ManifestEdit((replace(like, number=number, file=paths.batch_name(number), uuid=f"{number:032x}"),))
            batch, new = Batch(), edit.apply(old, 1)
            entry = manifests.stage(batch, new, scope.folder, edit)
            self.parts.scopes.door.store.append(batch)
            manifests.committed(entry)
        scope.state = replace(scope.state, manifest=self.manifest)
        manifests.publish(scope.scope, scope.folder, self.table.qualified)


def measure_late(world: World) -> Result:
    late_batches = world.sizes.manifest_batches
    folder = world.folder / LATE
    with Inside(folder) as inside:
        early, late = _Flushed(inside, "early"), _Flushed(inside, "late")
        for one in (early, late):
            for _ in range(_EARLY):
                one.flush()
        late.grow(late_batches)

        def at(one: _Flushed) -> float:
            return sum(one.flush() for _ in range(_FLUSHES)) / _FLUSHES * 1000

        # A few more runs than elsewhere: what is folded now and then is to be among them.
        a, b = interleaved(lambda: at(late), lambda: at(early), 2 * world.sizes.repeats)
        parts = len(getattr(inside.kalam.parts.scopes.manifests.entry(Scope(late.table.id)), "parts", ()))
    shutil.rmtree(folder)
    return Result(
        name=LATE,
        ours=median(a),
        peer=median(b),
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", 1.5),
        unit="ms",
        peer_name=f"itself at {_EARLY} batches",
        runs=len(a),
        note=f"{_ROWS:,} rows into {late_batches:,} batches, in-process; ours {spread(a, 1, 'ms')}; {parts} parts",
    )


# -- the cache --------------------------------------------------------------------------------------------------------


def measure_cached(world: World) -> Result:
    n, folder = world.sizes.manifests, world.folder / CACHED
    store = Store(folder / "kv", durable=False)
    manifests = Manifests(store, SystemClock(), folder / "cold", n)
    for i in range(n):
        batch = Batch()
        manifests.stage(batch, _small(i), folder, None)
        store.append(batch)
    store.close()
    starts: list[float] = []
    before = _resident()
    for _ in range(world.sizes.repeats):
        started = time.perf_counter()
        store = Store(folder / "kv", durable=False)
        manifests = Manifests(store, SystemClock(), folder / "cold", n)
        assert manifests.get(_scope(n // 2)).batches
        starts.append(time.perf_counter() - started)
        if len(starts) < world.sizes.repeats:
            store.close()
    for i in range(n):
        manifests.get(_scope(i)).column(1)
    gc.collect()
    used = (_resident() - before) / 2**20
    store.close()
    shutil.rmtree(folder)
    return Result(
        name=CACHED,
        ours=used,
        peer=None,
        ratio=None,
        target=Target("ours", "at most", 400),
        unit="MiB",
        peer_name="",
        runs=1,
        note=f"{n:,} manifests of 2 batches × 8 columns, the key's bounds stacked; open to first answer {median(starts):.2f} s",
    )


def _scope(i: int) -> Scope:
    return Scope(1, f"user-{i:06d}")


def _small(i: int) -> Manifest:
    bounds = {c: Bounds(i * c, i * c + 1_000, 0) if c % 2 else Bounds(b"from %d" % i, b"to %d" % i, 3) for c in range(1, 9)}
    batches = tuple(
        BatchEntry(b, paths.batch_name(b), f"{i:016x}{b:016x}", 1, 9, 1_000, 50_000, 1, bounds, xxh3=f"{i:016x}")
        for b in range(2)
    )
    return Manifest(_scope(i), 2, 1, 1, 9, batches)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- a rebuild --------------------------------------------------------------------------------------------------------


def measure_rebuild(world: World) -> Result:
    batches, rows, folder = 100, world.sizes.rebuild_rows, world.folder / REBUILD
    with Inside(folder) as inside:
        one = _Flushed(inside, "lost")
        for _ in range(batches):
            one.flush(rows)
        scopes = one.parts.scopes
        scope = scopes.open(one.table, None)

        def rebuild() -> float:
            at = (scopes.manifests, scopes.log, scopes.reader, one.table, scope.scope, scope.folder, 1)
            started = time.perf_counter()
            found = recovery.derived(*at)
            seconds = time.perf_counter() - started
            assert found.batches == one.manifest.batches
            return seconds

        taken = [rebuild() for _ in range(world.sizes.repeats)]
    shutil.rmtree(folder)
    return Result(
        name=REBUILD,
        ours=median(taken),
        peer=None,
        ratio=None,
        target=Target("ours", "at most", 1.0),
        unit="s",
        peer_name="",
        runs=len(taken),
        note=f"{batches} batches of {rows:,} rows, every page verified; {spread(taken, 1, 's')}",
    )
