"""Ends of the process and refusals of the disk at every place that a compaction passes.

Whatever the place: every acknowledged row is there once, the files alone say the same as soon as nothing is hot, and after
the next compaction no file is left that nobody names (T-9, T-10, T-40, T-44).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compact_crash import CRASHED, PLACES, ROWS_PER_BATCH, acknowledged, opened
from compact_support import agree, agree_with_files, compactor, files, manifest, named, rebuilt
from table_world import scratch_folder

import flightkalam

_PROJECT = Path(flightkalam.__file__).parents[1]
_PROGRAM = Path(__file__).with_name("compact_crash.py")


class Cases:
    """A process that forks one child per case."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_PROJECT)}
        self.process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tempfile.gettempdir(),
        )

    def run(self, root: Path, **case: Any) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"root": str(root), **case}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    made = Cases()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hits(cases: Cases) -> dict[str, int]:
    """How often an undisturbed compaction passes each place."""
    with scratch_folder() as root:
        assert cases.run(root) == 0, (root / "stderr").read_text()
        found = json.loads((root / "hits").read_text())
        passed = {name for name in found["seen"] if name.startswith(("compact.", "installs."))}
        assert passed <= set(PLACES), "a place that these tests do not know"
        counted: dict[str, int] = found["hits"]
        return counted


def examine(root: Path) -> None:
    """Open what a case left and look at it, before and after work goes on."""
    world = opened(root, 10_000_000_000)  # long after every retention
    try:
        table, expected = world.tables[1], acknowledged(root)
        assert {r["k"]: r["v"] for r in world.see(table)} == expected
        agree(world, table)
        world.flush(table)
        assert files(world, table) == named(world, table), "a file that nobody names outlived an install"
        assert {key[0]: row["v"] for key, row in rebuilt(world.folder(table), table).items()} == expected
        agree_with_files(world, table)
        compactor(world, ROWS_PER_BATCH).compact(table, None)
        assert {r["k"]: r["v"] for r in world.see(table)} == expected
        assert sum(b.tombstones for b in manifest(world, table).batches) == 0
        assert files(world, table) == named(world, table)
        agree_with_files(world, table)
    finally:
        world.close()


def test_the_places_are_passed(hits: dict[str, int]) -> None:
    assert set(hits) == set(PLACES)
    assert hits["compact.batch_written"] > 2 and hits["compact.chunk_merged"] > 2


@pytest.mark.parametrize("action", ["crash", "io_error", "disk_full"])
@pytest.mark.parametrize("place", PLACES)
def test_a_failure_loses_nothing_and_brings_nothing_back(cases: Cases, hits: dict[str, int], place: str, action: str) -> None:
    for hit in sorted({1, hits[place]} if action == "crash" else {hits[place]}):
        with scratch_folder() as root:
            status = cases.run(root, target=[place, hit], action=action)
            assert status == (CRASHED if action == "crash" else 0), (root / "stderr").read_text()
            try:
                examine(root)
            except BaseException as e:
                e.add_note(f"{action} at {place} #{hit}")
                raise


def test_a_run_that_was_cut_short_counts_for_nothing(cases: Cases) -> None:
    """The files of half a run lie beside its inputs, and the manifest is lost: the rows are still those that were there."""
    with scratch_folder() as root:
        assert cases.run(root, target=["compact.batch_written", 2], action="crash") == CRASHED
        world = opened(root, 1_000_001_000)
        table = world.tables[1]
        unnamed = files(world, table) - named(world, table)
        assert unnamed
        hot = {r["k"] for loaded in world.log.entries(world.scope(table)) for r in _rows(loaded.entry)}
        cold = {key[0]: row["v"] for key, row in rebuilt(world.folder(table), table).items() if key[0] not in hot}
        assert cold == {k: v for k, v in acknowledged(root).items() if k not in hot}
        world.close()


def _rows(entry: Any) -> list[dict[str, Any]]:
    return [{"k": k} for k in entry.batch.column(0).to_pylist()]
