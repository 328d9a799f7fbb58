"""Ends of the process and refusals of the disk, at every place that a commit, a flush or a cleanup passes.

Whatever the place: what was acknowledged is there exactly once, what was not is there wholly or not at all, the next flush
leaves no file that nobody names, and the next writes work (T-15, T-16, T-40, T-46).
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
import table_crash
from table_crash import CRASHED, examine
from table_world import scratch_folder

import flightkalam

_PROJECT = Path(flightkalam.__file__).parents[1]


class Cases:
    """A process that forks one child per case."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_PROJECT)}
        command = [sys.executable, str(Path(table_crash.__file__))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tempfile.gettempdir()
        )

    def run(self, root: Path, **case: Any) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"root": str(root), **case}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    made = Cases()
    yield made
    made.close()


# Every place of these rooms.  A place that is added to the code and not to this list makes the first test fail.
PLACES = (
    "batch.published",
    "batch.written",
    "cleanup.removed",
    "file.after_rename",
    "file.before_rename",
    "file.before_sync",
    "flush.appended",
    "flush.batch_written",
    "flush.before_commit",
    "flush.before_trim",
    "flush.committed",
    "flush.trimmed",
    "flush.vectors_written",
    "installs.before_remove",
    "manifest.before_publish",
    "manifest.published",
    "segment.add",
    "segment.published",
    "write.appended",
    "write.decided",
    "write.durable",
    "write.ready",
    "write.together",
    "write_new.before_append",
)


def chosen(hits: int, at_most: int, seed: int) -> list[int]:
    """Some of the hits 1..n, spread evenly; another seed takes others."""
    step = max(1, -(-hits // at_most))
    return list(range(1 + seed % step, hits + 1, step)) or [1]


# Where the disk is written and can be full.
WRITING = ("batch", "file", "segment", "flush.before_commit", "write.decided", "write_new", "manifest.before_publish")


def walk(cases: Cases, seed: int, action: str, at_most: int) -> int:
    hits = counted(cases, seed)
    ran = 0
    for name in sorted(n for n in hits if action != "disk_full" or n.startswith(WRITING)):
        for hit in chosen(hits[name], at_most, seed):
            with scratch_folder() as root:
                status = cases.run(root, seed=seed, names=PLACES, target=[name, hit], action=action)
                report = f"{action} at {name} #{hit}, seed {seed}"
                assert status == (CRASHED if action == "crash" else 0), f"{report}\n{(root / 'stderr').read_text()}"
                try:
                    examine(root)
                except BaseException as e:
                    e.add_note(report)
                    raise
                ran += 1
    return ran


def counted(cases: Cases, seed: int) -> dict[str, int]:
    """How often the undisturbed workload passes each place."""
    with scratch_folder() as root:
        assert cases.run(root, seed=seed, names=PLACES) == 0, (root / "stderr").read_text()
        examine(root)
        found: dict[str, int] = json.loads((root / "hits").read_text())
        return found


def test_the_workload_passes_every_place(cases: Cases) -> None:
    assert set(counted(cases, 1)) == set(PLACES)


@pytest.mark.parametrize("action", ["crash", "io_error", "disk_full"])
def test_a_failure_anywhere_loses_and_doubles_nothing(cases: Cases, action: str) -> None:
    assert walk(cases, seed=1, action=action, at_most=2 if action == "crash" else 1) > 9


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("action", ["crash", "io_error", "disk_full"])
def test_a_failure_anywhere_in_other_workloads(cases: Cases, action: str, seed: int) -> None:
    assert walk(cases, seed, action, at_most=8) > 30
