"""The write door: what it refuses, that a refusal writes nothing, and where it finds the versions that it supersedes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_world import Row, World, newest_versions, plain, rows_of, scratch_folder, seen, seqs_of, shared_table, table_of

from flightkalam import failpoints
from flightkalam.clock import id_time_us
from flightkalam.errors import DataCorrupted, DiskFull, DuplicateKey, InternalError, KalamError, NotNullViolation
from flightkalam.model.keys import Probe
from flightkalam.model.schema import SEQ, Column, Table, TableKind
from flightkalam.model.types import BIGINT, BOOLEAN, TEXT
from flightkalam.storage.kv import Batch
from flightkalam.table import locate as locate_
from flightkalam.table.check import check
from flightkalam.table.locate import locate
from flightkalam.table.mutation import Mutation, OnConflict, SchemaMoved, Versions
from flightkalam.table.staging import Staged

UPDATE, IGNORE = OnConflict.UPDATE, OnConflict.IGNORE


@pytest.fixture
def table(world: World) -> Table:
    return world.tables[1]


def row(k: int | None, n: int = 0) -> Row:
    return {"k": k, "v": f"v{n}", "n": n}


def nothing_written(world: World, before: list[Row]) -> None:
    assert world.see(world.tables[1]) == before
    assert newest_versions(world, world.tables[1]) == before


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([row(5), row(1)], DuplicateKey, r'"main\.t": \(k\) = \(1\) already exists'),
        ([row(5), row(6), row(5)], DuplicateKey, r"\(k\) = \(5\) is twice in the statement"),
        ([row(5), row(None)], NotNullViolation, r'"k" of table "main\.t"'),
    ],
)
def test_a_refused_statement_writes_nothing(
    world: World, table: Table, flushed: bool, rows: list[Row], error: type[KalamError], says: str
) -> None:
    world.write(table, [row(1)])
    if flushed:
        world.flush(table)
    before = world.see(table)
    with pytest.raises(error, match=says):
        world.write(table, rows)
    nothing_written(world, before)


def test_one_refused_mutation_refuses_all_of_the_commit(world: World, table: Table) -> None:
    other = shared_table(2, "other")
    world.tables[2] = other
    world.write(table, [row(1)])
    with pytest.raises(DuplicateKey):
        world.writer.write([Mutation(other, None, rows_of(other, [row(7)])), Mutation(table, None, rows_of(table, [row(1)]))])
    assert world.see(other) == []


def test_a_null_in_a_column_that_is_not_a_key_is_refused_too(world: World) -> None:
    columns = (Column(1, "k", BIGINT, True), Column(2, "v", TEXT, True))
    table = table_of(3, "strict", TableKind.SHARED, columns, (1,))
    world.tables[3] = table
    with pytest.raises(NotNullViolation, match='"v"'):
        world.write(table, [{"k": 1, "v": None}])
    world.write(table, [{"k": 1, "v": "x"}])
    world.delete(table, [{"k": 1}])  # a tombstone holds the key alone
    assert world.see(table) == []


def test_ignore_keeps_the_first_and_what_is_there(world: World, table: Table) -> None:
    """T-24."""
    world.write(table, [row(1)])
    done = world.write(table, [row(1, 9), row(2, 1), row(2, 2)], None, IGNORE)
    assert done.rows == (1,)
    assert plain(world.see(table)) == [row(1), row(2, 1)]


def test_update_keeps_the_last(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    done = world.write(table, [row(1, 9), row(2, 1), row(2, 2)], None, UPDATE)
    assert done.rows == (2,)
    assert plain(world.see(table)) == [row(1, 9), row(2, 2)]


def test_a_write_of_no_rows_is_no_commit(world: World, table: Table) -> None:
    appended = world.store.appended
    assert world.write(table, []).rows == (0,)
    assert world.write(table, [], None, UPDATE).rows == (0,)
    world.write(table, [row(1)])
    assert world.write(table, [row(1)], None, IGNORE).rows == (0,)
    assert len(list(world.log.entries(world.scope(table)))) == 1
    assert world.store.appended - appended <= 2


def test_users_of_one_table_do_not_meet(world: World) -> None:
    user = table_of(2, "u", TableKind.USER, world.tables[1].schema.columns, (1,))
    world.tables[2] = user
    for owner in ("ann", "bob", "ann\x00", "a"):
        world.write(user, [{**row(1), "v": owner}], owner)
        world.flush(user, owner)
        world.write(user, [{**row(2), "v": owner}], owner)
    for owner in ("ann", "bob", "ann\x00", "a"):
        assert [r["v"] for r in world.see(user, owner)] == [owner, owner]
    assert world.see(user, "nobody") == []


def test_seqs_are_handed_out_in_the_order_of_the_rows(world: World, table: Table) -> None:
    one = seqs_of(world.write(table, [row(3), row(1), row(2)]))
    two = seqs_of(world.write(table, [row(9)]))
    assert [r[SEQ] for r in world.see(table)] == one + two
    assert [r["k"] for r in world.see(table)] == [3, 1, 2, 9]
    assert one + two == sorted(set(one + two))
    assert abs(id_time_us(one[0]) - world.clock.now_us()) < 10_000_000


def test_extra_records_commit_with_the_rows_or_not_at_all(world: World, table: Table) -> None:
    def record(batch: Batch, versions: Versions) -> None:
        batch.put("audit", b"1", b"%d" % versions.count)

    world.writer.write([Mutation(table, None, rows_of(table, [row(1), row(2)]))], record)
    assert world.store.get("audit", b"1") == b"2"

    def refuse(batch: Batch, versions: Versions) -> None:
        batch.put("audit", b"2", b"")
        raise DiskFull("no")

    before = world.see(table)
    with pytest.raises(DiskFull):
        world.writer.write([Mutation(table, None, rows_of(table, [row(3)]))], refuse)
    assert world.store.get("audit", b"2") is None
    nothing_written(world, before)
    world.write(table, [row(3)])


@pytest.mark.parametrize("how", ["changed", "dropped"])
def test_a_table_that_moved_since_the_plan_refuses_the_write(world: World, table: Table, how: str) -> None:
    world.write(table, [row(1)])
    if how == "changed":
        world.tables[1] = table.with_schema(table.schema.columns)
    else:
        del world.tables[1]
    with pytest.raises(SchemaMoved, match=r"main\.t.*again"):
        world.write(table, [row(2)])


def test_a_full_disk_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    """T-16."""
    table = shared_table()
    world = World(tmp_path, {1: table})
    world.write(table, [row(1)])
    before = world.see(table)
    world.store._reserve = 1 << 62
    with pytest.raises(DiskFull):
        world.write(table, [row(2)])
    world.store._reserve = 0
    nothing_written(world, before)
    world.write(table, [row(2)])
    world.close()


def test_after_a_failed_sync_nothing_is_acknowledged_and_readers_go_on(world: World, table: Table) -> None:
    """T-15."""
    world.write(table, [row(1)])
    before = world.see(table)
    real = world.store._db

    class Broken:
        def flush_wal(self, sync: bool) -> None:
            raise OSError("IO error")

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    world.store._db = Broken()
    for _ in range(2):
        with pytest.raises(InternalError, match="restarted"):
            world.write(table, [row(2)])
    assert world.see(table) == before
    world.store._db = real
    world.reopen()
    assert world.see(table)[:1] == before, "what was doubtful is there or not, what was durable is there"
    world.write(table, [row(2, 5)], None, UPDATE)
    assert plain(world.see(table)) == [row(1), row(2, 5)]


# -- large writes ---------------------------------------------------------------------------------------------------------


def test_a_large_write_lies_in_a_file_and_reads_like_any_other(world: World, table: Table) -> None:
    world.write_staged(table, [row(k, k) for k in range(30)])
    assert len(world.log.files_of(1)) == 1
    world.write(table, [row(3, 99)], None, UPDATE)
    before = world.see(table)
    assert sorted(r["k"] for r in before) == list(range(30))
    world.reopen()
    assert world.see(table) == before
    with pytest.raises(DuplicateKey):
        world.write_staged(table, [row(k) for k in range(29, 60)])
    assert len(world.log.files_of(1)) == 1 == len(list(world.log.folder.iterdir()))


@pytest.mark.parametrize("mode", [IGNORE, UPDATE])
def test_a_large_write_with_rows_left_out_gets_a_file_of_what_is_left(world: World, table: Table, mode: OnConflict) -> None:
    world.write(table, [row(3), row(4)])
    rows = [row(k, i) for i, k in enumerate([*range(20), 7, 8])]
    done = world.write_staged(table, rows, None, mode)
    assert done.rows == (18 if mode is IGNORE else 20,)
    found = {r["k"]: r["n"] for r in world.see(table)}
    assert found[7] == (7 if mode is IGNORE else 20) and found[3] == (0 if mode is IGNORE else 3)
    assert len(list(world.log.folder.iterdir())) == 1, "the files with the rows that were left out are gone"
    before = world.see(table)
    world.reopen()
    assert world.see(table) == before


@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "other"])
def test_a_damaged_segment_file_is_said_and_never_read_as_less(world: World, table: Table, damage: str) -> None:
    world.write_staged(table, [row(k, k) for k in range(30)])
    (path,) = world.log.folder.iterdir()
    data = path.read_bytes()
    world.close()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"changed": data[:200] + bytes([data[200] ^ 1]) + data[201:], "cut": data[:-50], "other": b"x" * 100}
        path.write_bytes(changed[damage])
    world.open()
    with pytest.raises(DataCorrupted, match=path.name):
        world.see(table)


@pytest.mark.parametrize("mode", [IGNORE, UPDATE])
def test_a_large_write_that_is_refused_leaves_no_file(world: World, table: Table, mode: OnConflict) -> None:
    """Not even when rows had been left out before the refusal."""

    def refuse() -> None:
        raise DiskFull("no")

    world.write(table, [row(3)])
    failpoints.arm("write.decided", refuse)
    with pytest.raises(DiskFull):
        world.write_staged(table, [row(k) for k in [*range(20), 7]], None, mode)
    assert list(world.log.folder.iterdir()) == []


def test_what_was_staged_and_not_committed_leaves_nothing(world: World, table: Table) -> None:
    for finish in (False, True):
        staged = Staged(table, world.staging)
        for batch in rows_of(table, [row(k) for k in range(20)]).to_batches(max_chunksize=4):
            staged.add(batch)
        if finish:
            staged.finish()
        staged.close()
        assert list(world.log.folder.iterdir()) == []


def test_a_segment_file_without_an_entry_is_swept_at_the_start(world: World, table: Table) -> None:
    world.write_staged(table, [row(k) for k in range(20)])
    (kept,) = world.log.folder.iterdir()
    (world.log.folder / "seg-stranger.arrow").write_bytes(b"x")
    (world.log.folder / ".seg-half.arrow.tmp").write_bytes(b"x")
    world.reopen()
    assert list(world.log.folder.iterdir()) == [kept]


# -- watermark and readers --------------------------------------------------------------------------------------------------


def test_what_is_not_durable_is_not_visible(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    looked: list[list[Row]] = []
    real, before = world.store._db, world.door.watermark

    class Slow:
        def flush_wal(self, sync: bool) -> None:
            looked.append(seen(world.snapshot(table)))
            assert world.door.watermark == before
            real.flush_wal(sync)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    world.store._db = Slow()
    world.write(table, [row(2), row(1, 7)], None, UPDATE)
    world.store._db = real
    assert [plain(rows) for rows in looked] == [[row(1)]]
    assert plain(world.see(table)) == [row(2), row(1, 7)]


def test_the_watermark_after_a_restart_covers_what_was_acknowledged(world: World, table: Table) -> None:
    """T-1."""
    last = seqs_of(world.write(table, [row(1), row(2)]))[-1]
    world.reopen()
    assert world.door.watermark == last
    assert seqs_of(world.write(table, [row(3)]))[0] > last


def test_layouts_are_forgotten_when_their_last_reader_ends(world: World, table: Table) -> None:
    world.write(table, [row(1)])
    pins = []
    for i in range(3):
        pins.append(world.door.pin())
        world.write(table, [row(1, i)], None, UPDATE)
        world.flush(table)
    scope = world.scopes.open(table, None)
    assert len(scope.past) == 3
    for pin in pins:
        world.door.unpin(pin)
    world.write(table, [row(2)])
    world.flush(table)
    assert scope.past == []


def test_pins_are_counted(world: World, table: Table) -> None:
    first = world.door.pin()
    world.write(table, [row(1)])
    second = world.door.pin()
    assert world.door.oldest_pin() == first.watermark < second.watermark
    mark = world.door.readers_before()
    third = world.door.pin()
    world.door.unpin(first)
    assert world.door.oldest_pin() == second.watermark and not world.door.readers_gone(mark)
    world.door.unpin(second)
    world.door.unpin(second)
    assert world.door.readers_gone(mark)
    world.door.unpin(third)
    assert world.door.oldest_pin() == world.door.watermark


# -- locate -----------------------------------------------------------------------------------------------------------------

KEYS: dict[str, tuple[tuple[Column, ...], list[tuple[Any, ...]]]] = {
    "int": ((Column(1, "a", BIGINT, True),), [(k,) for k in (-(2**63), -5, 0, 3, 4, 70, 2**63 - 1)]),
    "text": (
        (Column(1, "a", TEXT, True),),
        [(k,) for k in ("", "a", "a\x00", "ab", "z" * 40, "z" * 40 + "y", "\U0010ffff" * 9)],
    ),
    "bool": ((Column(1, "a", BOOLEAN, True), Column(2, "b", BIGINT, True)), [(x, y) for x in (False, True) for y in (1, 2)]),
    "pair": (
        (Column(1, "a", TEXT, True), Column(2, "b", TEXT, True)),
        [("a", "bc"), ("ab", "c"), ("", "abc"), ("h" * 70 + "1" + "t" * 70, ""), ("h" * 70 + "2" + "t" * 70, "")],
    ),
}


@pytest.mark.parametrize("few", [True, False], ids=["one by one", "by extremes"])
@pytest.mark.parametrize("name", KEYS)
def test_every_live_version_is_located_where_it_sits(name: str, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot, cold, superseded, deleted, re-inserted, absent; in any order of steps."""
    monkeypatch.setattr(locate_, "_FEW", 2_048 if few else 0)
    columns, keys = KEYS[name]
    table = table_of(1, "t", TableKind.SHARED, columns, tuple(c.id for c in columns))
    names = [c.name for c in columns]
    picks = st.lists(st.integers(0, len(keys) - 1), min_size=1, max_size=4, unique=True)
    steps = st.lists(st.tuples(st.sampled_from(["upsert", "delete", "flush"]), picks), max_size=8)

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(steps)
    def check_steps(drawn: list[tuple[str, list[int]]]) -> None:
        with scratch_folder() as root:
            world = World(root, {1: table}, durable=False)
            live: dict[tuple[Any, ...], bool] = {}
            for what, some in drawn:
                rows = [dict(zip(names, keys[i], strict=True)) for i in some]
                if what == "flush":
                    world.flush(table)
                else:
                    world.write(table, rows, None, UPDATE, [what == "delete"] * len(rows))
                    live.update({keys[i]: what == "delete" for i in some})
            probe = Probe.of([pa.array([k[i] for k in keys], c.type.storage) for i, c in enumerate(columns)])
            found = locate(world.scopes, world.scopes.open(table, None), table.schema, probe)
            assert found.found.tolist() == [k in live for k in keys]
            assert found.visible.tolist() == [live.get(k) is False for k in keys]
            assert not np.any((found.hot >= 0) & (found.batch >= 0))
            assert check(world.snapshot(table)).problems == []
            world.close()

    check_steps()


# -- CHECK: it must notice what is wrong, or its agreement elsewhere means nothing -------------------------------------------


def settled(world: World, table: Table) -> None:
    world.write(table, [row(k) for k in range(6)])
    world.flush(table)
    world.write(table, [row(0, 1), row(9, 1)], None, UPDATE)
    world.delete(table, [{"k": 1}])
    world.flush(table)
    world.write(table, [row(2, 2)], None, UPDATE)
    assert check(world.snapshot(table)).problems == []


def test_check_counts_what_it_looked_at(world: World, table: Table) -> None:
    settled(world, table)
    report = check(world.snapshot(table))
    assert (report.batches, report.versions, report.visible, report.scope) == (2, 10, 6, "shared")


def forget_marks(world: World, table: Table) -> None:
    world.scopes.open(table, None).state.hot.cold_marks.n = 0


def mark_too_much(world: World, table: Table) -> None:
    hot = world.scopes.open(table, None).state.hot
    hot.mark_cold(np.array([0]), np.array([5]), np.array([world.door.watermark]))


def drop_vectors(world: World, table: Table) -> None:
    change_entry(world, table, 0, dead=None)


def change_entry(world: World, table: Table, at: int, **changes: Any) -> None:
    scope = world.scopes.open(table, None)
    batches = list(scope.state.manifest.batches)
    batches[at] = replace(batches[at], **changes)
    manifest = replace(scope.state.manifest, batches=tuple(batches))
    scope.state = replace(scope.state, manifest=manifest)


def miscount(world: World, table: Table) -> None:
    change_entry(world, table, 1, tombstones=0)


def missize(world: World, table: Table) -> None:
    change_entry(world, table, 0, size_bytes=1)


def remove_file(world: World, table: Table) -> None:
    (world.folder(table) / "batch-0.parquet").unlink()


def damage_page(world: World, table: Table) -> None:
    path = world.folder(table) / "batch-0.parquet"
    data = bytearray(path.read_bytes())
    at = data.index(b"v0")
    data[at : at + 2] = b"w0"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (forget_marks, "read by a query and not visible"),
        (mark_too_much, "visible by MAX"),
        (drop_vectors, "read by a query and not visible"),
        (miscount, "tombstones"),
        (missize, "size in bytes"),
        (remove_file, "missing"),
        (damage_page, "damaged"),
    ],
)
def test_check_finds_what_is_wrong(world: World, table: Table, damage: Any, says: str) -> None:
    settled(world, table)
    damage(world, table)
    problems = check(world.snapshot(table)).problems
    assert any(says in p for p in problems), problems


# -- write_new ---------------------------------------------------------------------------------------------------------------


def test_a_new_tables_rows_and_record_are_one_commit(world: World) -> None:
    table = shared_table(5, "made")
    steps: list[str] = []

    def create(batch: Batch) -> None:
        steps.append("create")
        batch.put("catalog", b"made", b"")

    def publish() -> None:
        assert world.store._synced == world.store.appended, "nobody may build on what a crash could take away"
        steps.append("publish")
        world.tables[5] = table

    done = world.writer.write_new(Mutation(table, None, rows_of(table, [row(1), row(2)])), create, publish)
    assert done.rows == (2,) and steps == ["create", "publish"]
    assert plain(world.see(table)) == [row(1), row(2)]
    world.reopen()
    assert plain(world.see(table)) == [row(1), row(2)]


def test_a_new_table_that_failed_is_not_there(world: World) -> None:
    table = shared_table(5, "made")
    failpoints.arm("write_new.before_append", lambda: (_ for _ in ()).throw(DiskFull("no")))
    with pytest.raises(DiskFull):
        world.writer.write_new(Mutation(table, None, rows_of(table, [row(1)])), lambda b: None, lambda: None)
    assert world.log.scopes(5) == []
    with pytest.raises(DuplicateKey):
        twice = rows_of(table, [row(1), row(1)])
        world.writer.write_new(Mutation(table, None, twice), lambda b: None, lambda: None)
