"""A compaction with a writer beside it that ends, or is refused, at a chosen place.

Run as a program it serves cases, one JSON line each, in forked children: the parent has opened nothing, so a case costs
milliseconds (T-54).  Every acknowledged write is journalled unbuffered.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "table"))

from compact_support import WEEK_US, compactor, flushed
from table_world import HandClock, World, shared_table

from flightkalam import failpoints, telemetry
from flightkalam.config import LogConfig
from flightkalam.errors import DiskFull, KalamError
from flightkalam.table.mutation import OnConflict

CRASHED = 9
# Every place that a compaction passes; the test compares this list with what an undisturbed one passes.
PLACES = (
    "batch.published",
    "batch.written",
    "compact.appended",
    "compact.batch_written",
    "compact.before_commit",
    "compact.before_install",
    "compact.chunk_merged",
    "compact.committed",
    "compact.published",
    "file.after_rename",
    "file.before_rename",
    "file.before_sync",
    "installs.before_remove",
    "manifest.before_publish",
    "manifest.published",
)
ROWS_PER_BATCH = 11


def opened(root: Path, ms: int) -> World:
    return World(root, {1: shared_table()}, HandClock(ms))


class Case:
    """:param target: (place, hit) at which `action` happens, once."""

    def __init__(self, root: Path, target: tuple[str, int] | None, action: Callable[[], None]) -> None:
        self.world = opened(root, 1_000_000)
        self.table = self.world.tables[1]
        self.target, self.action = target, action
        self.hits: Counter[str] = Counter()
        self.written = 0
        self.journal = os.open(root / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self) -> None:
        self.prepare()
        for name in PLACES:
            failpoints.arm(name, lambda name=name: self.hit(name))  # type: ignore[misc]
        run = compactor(self.world, ROWS_PER_BATCH)
        try:
            run.compact(self.table, None)
        except (KalamError, OSError) as e:
            self.note({"refused": type(e).__name__})
        failpoints.disarm()
        self.world.close()

    def prepare(self) -> None:
        """Batches with superseded rows, tombstones old enough to go and others that are not, and hot rows."""
        for i in range(6):
            flushed(self.world, self.table, range(i, 40, 6), "a")
        self.world.delete(self.table, [{"k": k} for k in (1, 2, 3)])
        flushed(self.world, self.table, [10, 11], "b")
        self.world.clock.us += WEEK_US  # type: ignore[attr-defined]
        self.world.delete(self.table, [{"k": k} for k in (20, 21)])
        flushed(self.world, self.table, [1, 12], "c")
        self.put([13, 2], "hot")
        self.note({"set": {r["k"]: r["v"] for r in self.world.see(self.table)}})

    def hit(self, name: str) -> None:
        self.hits[name] += 1
        if self.target == (name, self.hits[name]):
            self.action()
        if name == "compact.chunk_merged":
            self.written += 1
            self.put([self.written, 40 - self.written], f"w{self.written}-")

    def put(self, keys: list[int], value: str) -> None:
        rows = [{"k": k, "v": f"{value}{k}", "n": k} for k in keys]
        self.world.write(self.table, rows, mode=OnConflict.UPDATE)
        self.note({"put": {r["k"]: r["v"] for r in rows}})

    def note(self, record: dict[str, Any]) -> None:
        os.write(self.journal, json.dumps(record).encode() + b"\n")


def acknowledged(root: Path) -> dict[int, str]:
    """What the journal says is there."""
    state: dict[str, str] = {}
    for line in (root / "journal").read_bytes().splitlines():
        record = json.loads(line)
        state = record["set"] if "set" in record else {**state, **record.get("put", {})}
    return {int(k): v for k, v in state.items()}


def _io_error() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _disk_full() -> None:
    raise DiskFull("the data disk is full; free space, then try again")


_ACTIONS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "crash": lambda: os._exit(CRASHED),
    "io_error": _io_error,
    "disk_full": _disk_full,
}


def _child(case: dict[str, Any]) -> int:
    root = Path(case["root"])
    with (root / "stderr").open("w") as errors:
        try:
            made = Case(root, tuple(case["target"]) if case.get("target") else None, _ACTIONS[case.get("action", "none")])
            seen = failpoints.record() if case.get("target") is None else set()
            made.run()
            (root / "hits").write_text(json.dumps({"hits": made.hits, "seen": sorted(seen)}))
            return 0
        except BaseException:
            traceback.print_exc(file=errors)
            return 1


def serve() -> None:
    import pyarrow.dataset

    assert len(pyarrow.array([1])) == 1  # loads what every child would load again
    telemetry.configure(LogConfig(level="error"))  # the log's place is the answers' place
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_child(case))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
