"""The law: whatever is written, deleted, flushed, altered and reopened, a reader at W sees MAX(_seq ≤ W) of every key, unless
that is a tombstone; and it goes on seeing it for as long as it holds its pin.

The model is a list of versions per scope and knows neither marks nor positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from table_world import Row, World, newest_versions, rows_of, scratch_folder, seen, seqs_of, table_of

from flightkalam.errors import DuplicateKey
from flightkalam.model.schema import DELETED, SEQ, Column, Table, TableKind, fill_bytes
from flightkalam.model.types import BIGINT, BOOLEAN, INT, SMALLINT, TEXT, UUID
from flightkalam.table.check import check
from flightkalam.table.door import Pin
from flightkalam.table.mutation import Mutation, OnConflict
from flightkalam.table.snapshot import Snapshot

NOTES, PAIRS = 1, 2
OWNERS = ("ann", "b\x00ob/../ann")
SCOPES: tuple[tuple[int, str | None], ...] = ((NOTES, OWNERS[0]), (NOTES, OWNERS[1]), (PAIRS, None))
# Composite keys that a careless encoding takes for one another (T-22), and texts of very different lengths.
PAIR_KEYS = [(a, b) for a in ("a", "ab", "a\x00", "", "z" * 200, "z" * 199 + "y") for b in ("bc", "c", "")]
NEW_TYPES = [TEXT, INT, BOOLEAN, UUID]


def notes_table() -> Table:
    columns = (Column(1, "k", INT, True), Column(2, "v", TEXT), Column(3, "n", SMALLINT))
    return table_of(NOTES, "notes", TableKind.USER, columns, (1,))


def pairs_table() -> Table:
    columns = (Column(1, "a", TEXT, True), Column(2, "b", TEXT, True), Column(3, "n", INT))
    return table_of(PAIRS, "pairs", TableKind.SHARED, columns, (1, 2))


@dataclass(frozen=True)
class Version:
    seq: int
    key: tuple[Any, ...]
    values: dict[int, Any]  # by column id
    deleted: bool


class Model:
    """Versions per scope, in the order of their commits."""

    def __init__(self) -> None:
        self.versions: dict[tuple[int, str | None], list[Version]] = {s: [] for s in SCOPES}

    def newest(self, scope: tuple[int, str | None], watermark: int) -> dict[tuple[Any, ...], Version]:
        best: dict[tuple[Any, ...], Version] = {}
        for version in self.versions[scope]:
            if version.seq <= watermark and (version.key not in best or best[version.key].seq < version.seq):
                best[version.key] = version
        return best

    def rows(self, scope: tuple[int, str | None], watermark: int, table: Table, tombstones: bool = False) -> list[Row]:
        """What a reader at the watermark must see, ordered by `_seq`."""
        found = [v for v in self.newest(scope, watermark).values() if tombstones or not v.deleted]
        return [_row(v, table) for v in sorted(found, key=lambda v: v.seq)]


def _row(version: Version, table: Table) -> Row:
    row: Row = {}
    for column in table.schema.columns:
        fill = column.fill_array(1)[0].as_py()
        row[column.name] = version.values.get(column.id, fill)
    return {**row, SEQ: version.seq, DELETED: version.deleted}


@dataclass
class Reader:
    """A reader with its pin, and what it saw when it began."""

    pin: Pin
    table: Table
    owner: str | None
    expected: list[Row]
    changes: list[Row]


KEYS = st.integers(0, 7)
SIZES = st.lists(KEYS, min_size=1, max_size=6)
WHICH = st.sampled_from(SCOPES)
MODES = st.sampled_from(list(OnConflict))
ROUND = st.tuples(st.lists(KEYS, max_size=3), st.lists(KEYS, max_size=2), st.booleans())  # upserts, deletes, flush


class Law(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        root = self.resources.enter_context(scratch_folder())
        self.tables = {NOTES: notes_table(), PAIRS: pairs_table()}
        self.world = World(root, self.tables, durable=False)
        self.model = Model()
        self.readers: list[Reader] = []
        self.drawn = 100
        self.stamp = 0

    def teardown(self) -> None:
        for scope in SCOPES:
            self.compare(scope)
        self.world.close()
        self.resources.close()

    # -- writing ----------------------------------------------------------------------------------------------

    def new_row(self, table: Table, key: int) -> Row:
        self.stamp += 1
        names = [c.name for c in table.schema.key_columns]
        values = (key,) if len(names) == 1 else PAIR_KEYS[key % len(PAIR_KEYS)]
        row: Row = dict(zip(names, values, strict=True))
        for column in table.schema.columns:
            if column.name not in row:
                row[column.name] = _value(column, self.stamp)
        return row

    def decide(self, scope: tuple[int, str | None], rows: list[Row], mode: OnConflict) -> list[int] | None:
        """The rows that the statement writes; None when it must be refused."""
        table = self.tables[scope[0]]
        keys = [_key(table, r) for r in rows]
        newest = self.model.newest(scope, 2**62)
        visible = {k for k, v in newest.items() if not v.deleted}
        if mode is OnConflict.ERROR:
            return None if len(set(keys)) < len(keys) or visible & set(keys) else list(range(len(rows)))
        if mode is OnConflict.IGNORE:
            return [i for i, k in enumerate(keys) if k not in visible and k not in keys[:i]]
        return [i for i, k in enumerate(keys) if k not in keys[i + 1 :]]

    def record(self, scope: tuple[int, str | None], rows: list[Row], deleted: list[bool], seqs: list[int]) -> None:
        table = self.tables[scope[0]]
        for row, gone, seq in zip(rows, deleted, seqs, strict=True):
            values = {c.id: row.get(c.name) for c in table.schema.columns}
            self.model.versions[scope].append(Version(seq, _key(table, row), values, gone))

    @rule(scope=WHICH, keys=SIZES, mode=MODES, staged=st.booleans())
    def insert(self, scope: tuple[int, str | None], keys: list[int], mode: OnConflict, staged: bool) -> None:
        table = self.tables[scope[0]]
        rows = [self.new_row(table, k) for k in keys]
        kept = self.decide(scope, rows, mode)
        write = self.world.write_staged if staged else self.world.write
        if kept is None:
            with pytest.raises(DuplicateKey, match=table.name):
                write(table, rows, scope[1], mode)
        else:
            done = write(table, rows, scope[1], mode)
            assert done.rows == (len(kept),)
            self.record(scope, [rows[i] for i in kept], [False] * len(kept), seqs_of(done))
        self.compare(scope)

    @rule(scope=WHICH, keys=SIZES, gone=st.lists(st.booleans(), min_size=6, max_size=6))
    def delete_and_update(self, scope: tuple[int, str | None], keys: list[int], gone: list[bool]) -> None:
        """Tombstones and new versions in one statement, of keys that exist and of keys that do not."""
        table = self.tables[scope[0]]
        names = [c.name for c in table.schema.key_columns]
        rows = [self.new_row(table, k) for k in keys]
        deleted = gone[: len(rows)]
        rows = [{n: r[n] for n in names} if d else r for r, d in zip(rows, deleted, strict=True)]
        kept = self.decide(scope, rows, OnConflict.UPDATE)
        assert kept is not None
        done = self.world.write(table, rows, scope[1], OnConflict.UPDATE, deleted)
        self.record(scope, [rows[i] for i in kept], [deleted[i] for i in kept], seqs_of(done))
        self.compare(scope)

    @rule(n=st.integers(1, 5))
    def insert_drawn_keys(self, n: int) -> None:
        scope = SCOPES[0]
        table = self.tables[NOTES]
        rows = [self.new_row(table, self.drawn + i) for i in range(n)]
        self.drawn += n
        done = self.world.write(table, rows, scope[1], fresh=True)
        self.record(scope, rows, [False] * n, seqs_of(done))
        self.compare(scope)

    @rule(keys=st.lists(SIZES, min_size=3, max_size=3), modes=st.lists(MODES, min_size=3, max_size=3))
    def write_every_scope_at_once(self, keys: list[list[int]], modes: list[OnConflict]) -> None:
        """One commit over all scopes: all of it or none of it."""
        mutations, plans = [], []
        for scope, some, mode in zip(SCOPES, keys, modes, strict=True):
            table = self.tables[scope[0]]
            rows = [self.new_row(table, k) for k in some]
            plans.append((scope, rows, self.decide(scope, rows, mode)))
            mutations.append(Mutation(table, scope[1], rows_of(table, rows), None, mode))
        if any(kept is None for *_, kept in plans):
            with pytest.raises(DuplicateKey):
                self.world.writer.write(mutations)
        else:
            done = self.world.writer.write(mutations)
            seqs = seqs_of(done)
            for scope, rows, kept in plans:
                assert kept is not None
                mine, seqs = seqs[: len(kept)], seqs[len(kept) :]
                self.record(scope, [rows[i] for i in kept], [False] * len(kept), mine)
        for scope in SCOPES:
            self.compare(scope)

    # -- settling ---------------------------------------------------------------------------------------------

    @rule(scope=WHICH, rows_per_batch=st.sampled_from([2, 1_000_000]))
    def flush(self, scope: tuple[int, str | None], rows_per_batch: int) -> None:
        self.world.flusher._settings = replace(self.world.settings, rows_per_batch=rows_per_batch)
        self.world.flush(self.tables[scope[0]], scope[1])
        assert self.world.manifests.get(self.world.scope(self.tables[scope[0]], scope[1])).flushed_seq >= 0
        assert not list(self.world.log.entries(self.world.scope(self.tables[scope[0]], scope[1])))
        self.compare(scope)

    @rule(
        scope=WHICH,
        rounds=st.lists(
            st.tuples(st.lists(KEYS, max_size=3), st.lists(KEYS, max_size=2), st.booleans()), min_size=3, max_size=7
        ),
    )
    def change_and_flush_again_and_again(
        self, scope: tuple[int, str | None], rounds: list[tuple[list[int], list[int], bool]]
    ) -> None:
        """Batches of which some rows died long ago, some just now, some are tombstones, some are dead tombstones."""
        table = self.tables[scope[0]]
        names = [c.name for c in table.schema.key_columns]
        for keys, gone, settle in rounds:
            rows = [self.new_row(table, k) for k in keys] + [self.new_row(table, k) for k in gone]
            deleted = [False] * len(keys) + [True] * len(gone)
            rows = [{n: r[n] for n in names} if d else r for r, d in zip(rows, deleted, strict=True)]
            kept = self.decide(scope, rows, OnConflict.UPDATE)
            assert kept is not None
            if rows:
                done = self.world.write(table, rows, scope[1], OnConflict.UPDATE, deleted)
                self.record(scope, [rows[i] for i in kept], [deleted[i] for i in kept], seqs_of(done))
            if settle:
                self.world.flush(table, scope[1])
        self.compare(scope)

    @rule()
    def reopen(self) -> None:
        for reader in self.readers:
            self.world.door.unpin(reader.pin)
        self.readers.clear()
        self.world.reopen()
        for scope in SCOPES:
            self.compare(scope)

    # -- altering ---------------------------------------------------------------------------------------------

    def alter(self, table: Table) -> None:
        self.tables[table.id] = table

    @rule(table_id=st.sampled_from([NOTES, PAIRS]), type_=st.sampled_from(NEW_TYPES), filled=st.booleans())
    def add_column(self, table_id: int, type_: Any, filled: bool) -> None:
        """Old rows show the fill, whether they are hot or cold (T-32).  The name may have been used before."""
        table = self.tables[table_id]
        if len(table.schema.columns) > 5:
            return
        taken = {c.name for c in table.schema.columns}
        name = next(n for n in ("x", "y", "z", "w", "u", "v", "q") if n not in taken)
        column = Column(table.next_column_id, name, type_)
        if filled:
            value = pa.array([_value(column, 0)], type_.storage)
            column = replace(column, fill_ipc=fill_bytes(value), fill_text="x")
        self.alter(table.with_schema((*table.schema.columns, column), next_column_id=table.next_column_id + 1))

    @rule(table_id=st.sampled_from([NOTES, PAIRS]), name=st.sampled_from(["x", "y", "v", "n", "k", "b"]))
    def rename_column(self, table_id: int, name: str) -> None:
        table = self.tables[table_id]
        column = table.schema.find(name)
        if column is None:
            return
        new = f"r{table.schema.version}"
        columns = [replace(c, name=new) if c.id == column.id else c for c in table.schema.columns]
        self.alter(table.with_schema(columns))

    @rule(table_id=st.sampled_from([NOTES, PAIRS]), at=st.integers(0, 5))
    def drop_column(self, table_id: int, at: int) -> None:
        table = self.tables[table_id]
        plain = [c for c in table.schema.columns if c.id not in table.schema.key]
        if at < len(plain) and len(plain) > 1:
            self.alter(table.with_schema([c for c in table.schema.columns if c.id != plain[at].id]))

    @rule(table_id=st.sampled_from([NOTES, PAIRS]))
    def widen_columns(self, table_id: int) -> None:
        """Whole numbers, the key included, one step wider (T-31)."""
        table = self.tables[table_id]
        wider = {SMALLINT: INT, INT: BIGINT}
        columns = [replace(c, type=wider.get(c.type, c.type)) for c in table.schema.columns]
        if any(a.type != b.type for a, b in zip(columns, table.schema.columns, strict=True)):
            self.alter(table.with_schema(columns))

    # -- reading ----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < 4)
    @rule(scope=WHICH)
    def begin_reading(self, scope: tuple[int, str | None]) -> None:
        pin = self.world.door.pin()
        table = self.tables[scope[0]]
        expected = self.model.rows(scope, pin.watermark, table)
        changes = self.model.rows(scope, pin.watermark, table, tombstones=True)
        self.readers.append(Reader(pin, table, scope[1], expected, changes))

    @precondition(lambda self: self.readers)
    @rule()
    def end_reading(self) -> None:
        self.world.door.unpin(self.readers.pop(0).pin)

    def compare(self, scope: tuple[int, str | None]) -> None:
        """A reader sees the model, stored versions give the same by the rule, CHECK agrees, old readers see what they saw."""
        table, owner = self.tables[scope[0]], scope[1]
        snapshot = self.world.snapshot(table, owner)
        expected = self.model.rows(scope, snapshot.watermark, table)
        assert seen(snapshot) == expected
        assert newest_versions(self.world, table, owner) == expected
        assert seen(snapshot, tombstones=True) == self.model.rows(scope, snapshot.watermark, table, tombstones=True)
        assert check(snapshot).problems == []
        for reader in self.readers:
            if (reader.table.id, reader.owner) == scope:
                again = Snapshot.take(self.world.scopes, reader.table, owner, reader.pin.watermark)
                assert seen(again) == reader.expected
                assert seen(again, tombstones=True) == reader.changes


def _key(table: Table, row: Row) -> tuple[Any, ...]:
    return tuple(row[c.name] for c in table.schema.key_columns)


def _value(column: Column, stamp: int) -> Any:
    if stamp % 5 == 1:
        return None
    if column.type.kind == "int":
        return stamp % 30_000
    if column.type.kind == "bool":
        return stamp % 2 == 0
    return f"550e8400-e29b-41d4-a716-{stamp:012d}" if column.type == UUID else f"v{stamp}"


TestLaw = Law.TestCase
TestLaw.settings = settings(max_examples=25, stateful_step_count=20, deadline=None, derandomize=True)


class TestLongLaw(Law.TestCase):
    pytestmark = [pytest.mark.slow, pytest.mark.timeout(7_200)]
    settings = settings(max_examples=1_000, stateful_step_count=50, deadline=None, print_blob=True)


def walk(seed: int, steps: int) -> None:
    """One world that grows old: what only a long history reaches, and a run of fresh worlds does not."""
    chance = random.Random(seed)

    def keys(least: int = 1) -> list[int]:
        return [chance.randrange(8) for _ in range(chance.randint(least, 5))]

    def mode() -> OnConflict:
        return chance.choice(list(OnConflict))

    law = Law()
    actions: list[tuple[int, Callable[[], object]]] = [
        (6, lambda: law.insert(chance.choice(SCOPES), keys(), mode(), chance.random() < 0.3)),
        (8, lambda: law.delete_and_update(chance.choice(SCOPES), keys(), [chance.random() < 0.3 for _ in range(6)])),
        (2, lambda: law.insert_drawn_keys(chance.randint(1, 4))),
        (3, lambda: law.write_every_scope_at_once([keys() for _ in SCOPES], [mode() for _ in SCOPES])),
        (6, lambda: law.flush(chance.choice(SCOPES), chance.choice([2, 1_000_000]))),
        (3, lambda: law.change_and_flush_again_and_again(chance.choice(SCOPES), [(keys(0)[:3], keys(0)[:2], True)] * 3)),
        (1, law.reopen),
        (1, lambda: law.add_column(chance.choice([NOTES, PAIRS]), chance.choice(NEW_TYPES), chance.random() < 0.5)),
        (1, lambda: law.rename_column(chance.choice([NOTES, PAIRS]), chance.choice("xyvnkb"))),
        (1, lambda: law.drop_column(chance.choice([NOTES, PAIRS]), chance.randrange(4))),
        (1, lambda: law.widen_columns(chance.choice([NOTES, PAIRS]))),
        (3, lambda: law.begin_reading(chance.choice(SCOPES)) if len(law.readers) < 4 else law.end_reading()),
    ]
    weights = [w for w, _ in actions]
    try:
        for step in range(steps):
            ((_, action),) = chance.choices(actions, weights)
            try:
                action()
            except BaseException as e:
                e.add_note(f"seed {seed}, step {step}")
                raise
    finally:
        law.teardown()


@pytest.mark.parametrize("seed", range(2))
def test_the_law_holds_on_a_long_walk(seed: int) -> None:
    walk(seed, steps=150)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", range(100, 120))
def test_the_law_holds_on_longer_walks(seed: int) -> None:
    walk(seed, steps=500)
