"""A seeded workload that can be made to fail at any place, and what must be true afterwards.

Run as a program it serves cases: one JSON line in, one forked child per case, one line with its exit status out.  The parent
is forked from before it has opened anything, so that a case costs milliseconds (T-54).

Every operation is journalled before and after, in a file that no buffer delays; so the reader of the journal knows what was
acknowledged when the child ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from table_world import World, newest_versions, plain, shared_table, table_of

from flightkalam import failpoints
from flightkalam.clock import SystemClock
from flightkalam.cold import paths
from flightkalam.errors import DiskFull, KalamError
from flightkalam.jobs.cleanup import Cleanup
from flightkalam.jobs.control import Control
from flightkalam.jobs.kinds import Cleanup as Wanted
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Column, Table, TableKind
from flightkalam.model.types import BIGINT, INT, TEXT
from flightkalam.storage.kv import Batch
from flightkalam.table.check import check
from flightkalam.table.mutation import Mutation, OnConflict
from flightkalam.table.staging import Staged

CRASHED = 9
_NEW = b"table/"
Rows = dict[int, tuple[Any, ...]]  # key -> the other columns
State = dict[str, Rows]  # "table id/owner" -> rows


def user_table() -> Table:
    columns = (Column(1, "k", BIGINT, True), Column(2, "v", TEXT), Column(3, "n", INT))
    return table_of(2, "u", TableKind.USER, columns, (1,))


@dataclass
class CrashWorld:
    """The two tables that always exist and those that `write_new` made; which ones exist is read from the store, as from a
    catalog."""

    root: Path

    def __post_init__(self) -> None:
        self.tables = {1: shared_table(), 2: user_table()}
        self.world = World(self.root, self.tables, SystemClock())
        for key, _ in self.world.store.scan("meta", _NEW):
            table_id = int(key[len(_NEW) :])
            self.tables[table_id] = shared_table(table_id, f"new{table_id}")
        self.cleanup = Cleanup(self.world.store, self.world.log, self.world.manifests, self.world.door)

    def create(self, table: Table, rows: Any, segment: str | None = None) -> Any:
        def record(batch: Batch) -> None:
            batch.put("meta", _NEW + b"%d" % table.id, b"")

        def publish() -> None:
            self.tables[table.id] = table

        return self.world.writer.write_new(Mutation(table, None, rows, segment), record, publish)

    def drop(self, table: Table) -> None:
        def remove(batch: Batch, versions: int) -> None:
            batch.delete("meta", _NEW + b"%d" % table.id)
            self.cleanup.dropped(batch, table)

        self.world.writer.write([], remove)
        del self.tables[table.id]
        self.world.scopes.forget(table.id)

    def clean_up(self) -> None:
        """What a start and the job worker do for dropped tables."""
        for key, _ in self.world.store.scan("meta", b"dropped/"):
            self.cleanup.run(Wanted(table_id=int(key.rpartition(b"/")[2])), Control())

    def state(self) -> State:
        """Every visible row of every table."""
        out: State = {}
        for table in self.tables.values():
            for scope in self.world.scopes.of_table(table):
                rows = plain(self.world.see(table, scope.owner))
                assert len({r["k"] for r in rows}) == len(rows), "a key is visible twice"
                out[_name(table.id, scope.owner)] = {r["k"]: (r["v"], r["n"]) for r in rows}
        return {name: rows for name, rows in out.items() if rows}


def _name(table_id: int, owner: str | None) -> str:
    return f"{table_id}/{owner or ''}"


# ---------------------------------------------------------------------------------------------------------------
# The workload


@dataclass
class Workload:
    """Runs operations one after another.

    :param target: (failpoint, hit) at which `action` happens, once.
    """

    made: CrashWorld
    seed: int
    journal: Path
    target: tuple[str, int] | None = None
    action: Callable[[], None] = lambda: None
    hits: Counter[str] = field(default_factory=Counter)
    interleaved: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.file = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.stamp = 0
        self.next_table = 10
        self.state: State = {}  # what has been acknowledged

    def run(self) -> None:
        self.script([self.insert, self.insert_staged, self.upsert, self.write_new, self.flush])
        self.script([self.upsert, self.delete, self.insert, self.flush, self.flush_user, self.drop])
        chosen = [self.insert, self.insert_staged, self.upsert, self.delete, self.flush, self.flush_user, self.write_new]
        self.script(self.random.choices(chosen, k=8))
        self.script([self.upsert_staged, self.delete, self.flush, self.write_new, self.drop])
        self.script([self.upsert_all, self.flush, self.upsert_all, self.flush])
        self.script([self.together, self.flush, self.together])

    def script(self, operations: list[Callable[[], None]]) -> None:
        for operation in operations:
            operation()

    def hit(self, name: str) -> None:
        self.hits[name] += 1
        if self.target == (name, self.hits[name]):
            self.action()
        if name == "flush.batch_written" and not self.interleaved:
            self.interleaved = True
            try:  # a writer that does not wait for the flush: what it supersedes is moving (T-7)
                self.upsert(1, None)
                self.delete(1, None)
            finally:
                self.interleaved = False

    # -- one operation ----------------------------------------------------------------------------------------

    def attempt(self, expected: dict[str, dict[str, Any]], operate: Callable[[], object]) -> None:
        """Journal, do, journal.

        :param expected: what becomes of which keys, per scope: a value list, or None when the key goes.
        """
        self.note({"begin": expected})
        try:
            operate()
        except (KalamError, OSError) as e:
            # Refused or in doubt: either way all or nothing, and readable as soon as what was appended is durable.
            self.made.world.door.wait(self.made.world.store.appended)
            now, done = self.made.state(), _applied(self.state, expected)
            assert now in (self.state, done), f"half of a statement is there after {e!r}"
            self.note({"end": now == done, "error": type(e).__name__})
            self.state = now
        else:
            self.note({"end": True})
            self.state = _applied(self.state, expected)

    def note(self, record: dict[str, Any]) -> None:
        os.write(self.file, json.dumps(record).encode() + b"\n")

    def rows(self, keys: list[int]) -> list[dict[str, Any]]:
        out = []
        for k in keys:
            self.stamp += 1
            out.append({"k": k, "v": f"{self.seed}-{self.stamp}", "n": self.stamp})
        return out

    def somewhere(self) -> tuple[int, str | None]:
        return self.random.choice([(1, None), (1, None), (2, "ann"), (2, "b/../ob")])

    def keys_there(self, table_id: int, owner: str | None) -> list[int]:
        return sorted(self.state.get(_name(table_id, owner), {}))

    # -- operations -------------------------------------------------------------------------------------------

    def insert(self) -> None:
        table_id, owner = self.somewhere()
        free = sorted(set(range(40)) - set(self.keys_there(table_id, owner)))
        rows = self.rows(self.random.sample(free, min(5, len(free))))
        table = self.made.tables[table_id]
        self.attempt(_puts(table_id, owner, rows), lambda: self.made.world.write(table, rows, owner))

    def insert_staged(self) -> None:
        free = sorted(set(range(100)) - set(self.keys_there(1, None)))
        self.staged(1, None, self.rows(self.random.sample(free, 12)), OnConflict.ERROR)

    def upsert_staged(self) -> None:
        self.staged(2, "ann", self.rows(list(range(9))), OnConflict.UPDATE)

    def staged(self, table_id: int, owner: str | None, rows: list[dict[str, Any]], mode: OnConflict) -> None:
        table = self.made.tables[table_id]
        self.attempt(_puts(table_id, owner, rows), lambda: self.made.world.write_staged(table, rows, owner, mode))

    def upsert(self, table_id: int | None = None, owner: str | None = None) -> None:
        if table_id is None:
            table_id, owner = self.somewhere()
        rows = self.rows(self.random.sample(range(40), 6))
        table = self.made.tables[table_id]
        self.attempt(_puts(table_id, owner, rows), lambda: self.made.world.write(table, rows, owner, OnConflict.UPDATE))

    def together(self) -> None:
        """Three writers in line: one commit, and if that fails each on its own."""
        table, keys = self.made.tables[1], self.random.sample(range(40), 6)
        parts = [self.rows(keys[i : i + 2]) for i in range(0, 6, 2)]
        changes = [_puts(1, None, rows) for rows in parts]
        for change in changes:
            self.note({"begin": change})
        write = self.made.world.write
        jobs = [lambda rows=rows: write(table, rows, None, OnConflict.UPDATE) for rows in parts]
        self.made.world.write_in_line(table, jobs)
        self.made.world.door.wait(self.made.world.store.appended)
        now = self.made.state()
        for change in reversed(changes):
            done = _applied(now, change) == now
            self.state = _applied(self.state, change) if done else self.state
            self.note({"end": done})
        assert now == self.state, "half of a statement is there"

    def upsert_all(self) -> None:
        """Every row of every batch dies, so that older deletion vectors are no longer named."""
        rows = self.rows(list(range(100)))
        table = self.made.tables[1]
        self.attempt(_puts(1, None, rows), lambda: self.made.world.write(table, rows, None, OnConflict.UPDATE))

    def delete(self, table_id: int | None = None, owner: str | None = None) -> None:
        if table_id is None:
            table_id, owner = self.somewhere()
        keys = [{"k": k} for k in self.random.sample(range(40), 4)]
        table = self.made.tables[table_id]
        gone = {_name(table_id, owner): {str(k["k"]): None for k in keys}}
        self.attempt(gone, lambda: self.made.world.delete(table, keys, owner))

    def flush(self) -> None:
        self.attempt({}, lambda: self.made.world.flush(self.made.tables[1]))

    def flush_user(self) -> None:
        self.attempt({}, lambda: self.made.world.flush(self.made.tables[2], "ann"))

    def write_new(self) -> None:
        """CREATE TABLE AS and creating ingest: table and rows in one commit."""
        self.next_table += 1
        table = shared_table(self.next_table, f"new{self.next_table}")
        rows = self.rows(list(range(12)))

        def create() -> None:
            from table_world import rows_of

            staged = Staged(table, self.made.world.staging)
            try:
                for batch in rows_of(table, rows).to_batches(max_chunksize=4):
                    staged.add(batch)
                staged.finish()
                staged.committed(self.made.create(table, staged.rows, staged.segment))
            finally:
                staged.close()

        self.attempt(_puts(table.id, None, rows), create)

    def drop(self) -> None:
        made = [t for t in self.made.tables.values() if t.id >= 10]
        if not made:
            return
        table = made[0]
        with contextlib.suppress(KalamError, OSError):
            self.made.world.flush(table)
        gone = {_name(table.id, None): {str(k): None for k in range(12)}}
        self.attempt(gone, lambda: self.made.drop(table))
        self.attempt({}, self.made.clean_up)


def _puts(table_id: int, owner: str | None, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {_name(table_id, owner): {str(r["k"]): [r["v"], r["n"]] for r in rows}}


def _applied(state: State, change: dict[str, dict[str, Any]]) -> State:
    out = {name: dict(rows) for name, rows in state.items()}
    for name, rows in change.items():
        mine = out.setdefault(name, {})
        for key, value in rows.items():
            mine.pop(int(key), None)
            if value is not None:
                mine[int(key)] = tuple(value)
    return {name: rows for name, rows in out.items() if rows}


def journalled(journal: Path) -> tuple[State, list[State]]:
    """What was acknowledged, and the states that are allowed besides: the operations that were under way.

    Operations nest when a writer comes in the middle of a flush, so more than one can be open.
    """
    state: State = {}
    under_way: list[dict[str, dict[str, Any]]] = []
    for line in journal.read_bytes().splitlines():
        record = json.loads(line)
        if "begin" in record:
            under_way.append(record["begin"])
        else:
            change = under_way.pop()
            if record["end"]:
                state = _applied(state, change)
    allowed = [state]
    for change in under_way:
        allowed += [_applied(s, change) for s in allowed]
    return state, allowed


# ---------------------------------------------------------------------------------------------------------------
# What must be true after a start


def examine(root: Path) -> None:
    """Open what a case left behind: acknowledged is there exactly once, the rest all or nothing, nothing lies about, and
    work goes on."""
    _, allowed = journalled(root / "journal")
    made = CrashWorld(root)
    try:
        now = made.state()
        assert now in allowed, "what was acknowledged is not what is there"
        made.clean_up()
        _agrees(made)
        go_on = [{"k": k, "v": "after", "n": k} for k in range(40)]
        made.world.write(made.tables[1], go_on, None, OnConflict.UPDATE)
        made.world.write(made.tables[2], go_on, "ann", OnConflict.UPDATE)
        for table in made.tables.values():
            for scope in made.world.scopes.of_table(table):
                made.world.flush(table, scope.owner)
        expected = _applied(now, {**_puts(1, None, go_on), **_puts(2, "ann", go_on)})
        assert made.state() == expected
        _agrees(made)
        _no_orphans(made)
        made.world.reopen()
        assert made.state() == expected
    finally:
        made.world.close()


def _agrees(made: CrashWorld) -> None:
    """The stored versions, by MAX(_seq), give what a query sees."""
    for table in made.tables.values():
        for scope in made.world.scopes.of_table(table):
            assert newest_versions(made.world, table, scope.owner) == made.world.see(table, scope.owner)
            assert check(made.world.snapshot(table, scope.owner)).problems == []


def _no_orphans(made: CrashWorld) -> None:
    """After a flush of everything, every file is one that a committed manifest or a log entry names."""
    world = made.world
    named: set[Path] = set()
    for table in made.tables.values():
        for scope in world.scopes.of_table(table):
            folder = paths.scope_folder(world.manifests.root, table.folder, Scope(table.id, scope.owner))
            manifest = world.manifests.get(scope)
            named |= {folder / b.file for b in manifest.batches}
            named |= {folder / b.dead.file for b in manifest.batches if b.dead is not None}
            if manifest.version:
                named.add(folder / paths.MANIFEST)
        named |= {world.log.folder / name for name in world.log.files_of(table.id)}
    cold = (p for p in world.manifests.root.rglob("*") if p.is_file())
    there = {*cold, *(world.log.folder.iterdir() if world.log.folder.is_dir() else ())}
    assert {p.name for p in there ^ named} == set()


# ---------------------------------------------------------------------------------------------------------------
# The program


def run_case(case: dict[str, Any]) -> dict[str, int]:
    """Run a case in this process; returns how often each failpoint was hit."""
    root = Path(case["root"])
    made = CrashWorld(root)
    target = tuple(case["target"]) if case.get("target") else None
    work = Workload(made, case["seed"], root / "journal", target, _ACTIONS[case.get("action", "none")])
    for name in case["names"]:
        failpoints.arm(name, lambda name=name: work.hit(name))  # type: ignore[misc]
    seen = failpoints.record()
    work.run()
    failpoints.disarm()
    made.world.close()
    return {name: work.hits[name] for name in seen}


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


def serve() -> None:
    import pyarrow.dataset

    assert len(pyarrow.array([1])) == 1  # loads what every child would load again
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(Path(case["root"]) / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor in (1, 2):
                os.dup2(output, descriptor)
            try:
                hits = run_case(case)
                (Path(case["root"]) / "hits").write_text(json.dumps(hits))
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
