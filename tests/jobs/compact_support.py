"""What the tests of compaction share: a compactor with small batches, and what a rebuild would make of the files alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from table_world import Row, World, file_rows, newest_versions, seen

from flightkalam.cold import paths
from flightkalam.cold.batch_file import BatchStyle, Footer
from flightkalam.cold.manifest import Manifest
from flightkalam.jobs.compact import Compactor, CompactSettings
from flightkalam.jobs.compact_policy import Policy
from flightkalam.model.schema import DELETED, SEQ, Table
from flightkalam.table.check import check
from flightkalam.table.mutation import OnConflict

HOUR_US = 3_600_000_000
WEEK_US = 168 * HOUR_US  # the default of DELETED_RETENTION_HOURS


def compactor(world: World, rows_per_batch: int = 1_000, chunk_rows: int = 6) -> Compactor:
    style = BatchStyle(row_group_rows=4, compression="none")
    return Compactor(world.scopes, world.clock, CompactSettings(Policy(rows_per_batch), style, chunk_rows))


def upsert(world: World, table: Table, keys: Iterable[int], value: str) -> None:
    world.write(table, [{"k": k, "v": f"{value}{k}", "n": k} for k in keys], mode=OnConflict.UPDATE)


def flushed(world: World, table: Table, keys: Iterable[int], value: str) -> None:
    upsert(world, table, keys, value)
    world.flush(table)


def remove(world: World, table: Table, keys: Iterable[int]) -> None:
    world.delete(table, [{"k": k} for k in keys])


def later(world: World, us: int = WEEK_US) -> None:
    """Time goes by; a little more than asked for, since an id has only milliseconds."""
    world.clock.us += us + 10_000  # type: ignore[attr-defined]


def manifest(world: World, table: Table, owner: str | None = None) -> Manifest:
    return world.manifests.get(world.scope(table, owner))


def files(world: World, table: Table) -> set[str]:
    """The batch files and vectors that lie in the table's folder."""
    return {p.name for p in world.folder(table).iterdir() if p.name != paths.MANIFEST}


def named(world: World, table: Table) -> set[str]:
    """Those that the committed manifest names."""
    batches = manifest(world, table).batches
    return {b.file for b in batches} | {b.dead.file for b in batches if b.dead is not None}


def footer(folder: Path, name: str) -> Footer:
    return Footer.from_metadata(pq.read_metadata(folder / name), name)


def rebuilt(folder: Path, table: Table) -> dict[Any, Row]:
    """The visible rows by key as the batch files alone give them: replaced files left out, MAX(_seq) per key."""
    names = [p.name for p in folder.iterdir() if paths.batch_number(p.name) is not None]
    replaced = {n for name in names for n in footer(folder, name).replaces}
    best: dict[Any, Row] = {}
    for name in names:
        if paths.batch_number(name) in replaced:
            continue
        for row in file_rows(folder / name, table.schema):
            key = tuple(row[c.name] for c in table.schema.key_columns)
            if key not in best or best[key][SEQ] < row[SEQ]:
                best[key] = row
    return {key: row for key, row in best.items() if not row[DELETED]}


def agree(world: World, table: Table) -> None:
    """What a query sees is what the stored versions say, and CHECK finds nothing."""
    snapshot = world.snapshot(table)
    assert seen(snapshot) == newest_versions(world, table)
    assert check(snapshot).problems == []


def agree_with_files(world: World, table: Table) -> None:
    """The same, when nothing is hot: also the files alone, without any manifest, say so."""
    agree(world, table)
    assert sorted(rebuilt(world.folder(table), table).values(), key=lambda r: r[SEQ]) == world.see(table)
