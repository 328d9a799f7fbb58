"""STREAM tables: rows that expire by themselves, and leave for good when they are deleted."""

from __future__ import annotations

import pyarrow as pa
import pytest
from kalam_world import InProcess, Refused, World
from stream_support import RESTART_AHEAD, TTL, StillClock, evict, logged, rows, scope_of

from flightkalam import failpoints
from flightkalam.auth.identity import Role

CREATE = f"CREATE STREAM TABLE s (k BIGINT PRIMARY KEY, v TEXT) WITH (TTL_SECONDS={TTL})"


@pytest.fixture
def ann(world: World) -> InProcess:
    world.in_process().run(CREATE)
    return world.in_process("ann", Role.USER)


@pytest.fixture(autouse=True)
def nothing_stays_armed():
    yield
    failpoints.disarm()


def test_a_row_is_visible_up_to_the_last_millisecond_of_its_life_and_not_after(ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a')")
    clock.pass_(TTL - 0.001)
    assert rows(ann, "SELECT k, v FROM s") == [(1, "a")]
    clock.pass_(0.000999)
    assert rows(ann, "SELECT k FROM s WHERE k = 1") == [(1,)]
    clock.pass_(0.000001)
    assert rows(ann, "SELECT k FROM s") == rows(ann, "SELECT k FROM s WHERE k = 1") == []
    assert rows(ann, "SELECT count(*), max(_seq) FROM s") == [(0, None)]
    assert ann.run("DELETE FROM s WHERE k = 1").count == 0


def test_a_key_is_free_again_when_its_row_has_expired_and_not_before(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    clock.pass_(TTL / 2)
    with pytest.raises(Refused, match="23505"):
        ann.run("INSERT INTO s VALUES (1, 'b')")
    clock.pass_(TTL / 2)
    assert ann.run("INSERT INTO s VALUES (1, 'c') ON CONFLICT DO NOTHING").count == 1
    assert rows(ann, "SELECT * FROM s") == [(1, "c")]
    assert [r["2"] for r in logged(world, "ann")] == ["b", "c"]  # one row of a key at most, ever
    world.check()


def test_each_user_has_their_own(world: World, ann: InProcess) -> None:
    bob = world.in_process("bob", Role.USER)
    ann.run("INSERT INTO s VALUES (1, 'ann')")
    bob.run("INSERT INTO s VALUES (1, 'bob')")
    assert rows(ann, "SELECT v FROM s") == [("ann",)] and rows(bob, "SELECT v FROM s") == [("bob",)]
    assert bob.run("DELETE FROM s").count == 1
    assert rows(ann, "SELECT v FROM s") == [("ann",)]
    assert rows(world.in_process(), "SELECT v FROM s") == []


def test_a_delete_is_physical(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'secret'), (3, 'c')")
    before = rows(ann, "SELECT max(_seq) FROM s")[0][0]
    assert ann.run("DELETE FROM s WHERE k = 2").count == 1
    assert [r["2"] for r in logged(world, "ann")] == ["a", "c"]
    # no tombstone, and no change feed
    assert rows(ann, f"SELECT k, _deleted FROM s WHERE _seq > {before}") == []
    assert rows(ann, "SELECT k FROM s WHERE _deleted") == []
    assert ann.run("DELETE FROM s WHERE k = 2").count == 0
    assert ann.run("INSERT INTO s VALUES (2, 'again')").count == 1
    world.check()


def test_what_is_left_of_an_entry_keeps_its_seq_over_a_restart(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s SELECT i, 'v' || i FROM range(10) r(i)")
    for gone in (0, 4, 5, 9):
        ann.run(f"DELETE FROM s WHERE k = {gone}")
    before = rows(ann, "SELECT k, v, _seq FROM s ORDER BY k")
    assert [r[0] for r in before] == [1, 2, 3, 6, 7, 8]
    world.restart()
    ann = world.in_process("ann", Role.USER)
    assert rows(ann, "SELECT k, v, _seq FROM s ORDER BY k") == before
    clock.pass_(RESTART_AHEAD)
    with pytest.raises(Refused, match="23505"):
        ann.run("INSERT INTO s VALUES (6, 'x')")
    assert ann.run("DELETE FROM s WHERE k IN (1, 8)").count == 2
    world.check()
    clock.pass_(TTL - RESTART_AHEAD)
    assert rows(ann, "SELECT * FROM s") == []


def test_a_staged_file_goes_when_rows_of_it_are_deleted(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s SELECT i, repeat('x', 100) || i FROM range(20000) r(i)")
    hot = world.data_dir / "hot"
    assert len(list(hot.iterdir())) == 1
    assert ann.run("DELETE FROM s WHERE k = 77").count == 1
    assert list(hot.iterdir()) == []
    assert ann.run("DELETE FROM s WHERE k = 78").count == 1
    assert rows(ann, "SELECT count(*), sum(k) FROM s") == [(19998, sum(range(20000)) - 77 - 78)]
    world.check()
    world.restart()
    ann = world.in_process("ann", Role.USER)
    assert rows(ann, "SELECT count(*), sum(k) FROM s") == [(19998, sum(range(20000)) - 77 - 78)]
    assert ann.run("TRUNCATE s").count == 19998
    assert logged(world, "ann") == [] and not world.stray_files()


def test_a_row_of_a_new_one_in_its_place_leaves_too(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    assert ann.run("INSERT OR REPLACE INTO s VALUES (2, 'new'), (3, 'c')").count == 2
    assert ann.run("INSERT OR IGNORE INTO s VALUES (3, 'no'), (4, 'd')").count == 1
    assert rows(ann, "SELECT * FROM s ORDER BY k") == [(1, "a"), (2, "new"), (3, "c"), (4, "d")]
    assert [r["2"] for r in logged(world, "ann")] == ["a", "new", "c", "d"]
    world.check()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE s SET v = 'x'",
        "UPDATE s SET v = 'x' WHERE k = 1 RETURNING k",
        "INSERT INTO s VALUES (1, 'x') ON CONFLICT (k) DO UPDATE SET v = excluded.v",
        "MERGE INTO s USING (SELECT 1 AS k) q ON s.k = q.k WHEN MATCHED THEN UPDATE SET v = 'x'",
    ],
)
def test_rows_are_never_updated(world: World, ann: InProcess, statement: str) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a')")
    with pytest.raises(Refused, match="rows of STREAM table .* cannot be updated; DELETE and INSERT") as refusal:
        ann.run(statement)
    assert refusal.value.sqlstate == "42809"
    assert rows(ann, "SELECT * FROM s") == [(1, "a")]


def test_merge_may_insert_and_delete(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    merge = "MERGE INTO s USING (VALUES (2), (3)) q(k) ON s.k = q.k WHEN MATCHED THEN DELETE"
    assert ann.run(merge + " WHEN NOT MATCHED THEN INSERT VALUES (q.k, 'm')").count == 2
    assert rows(ann, "SELECT * FROM s ORDER BY k") == [(1, "a"), (3, "m")]
    world.check()


def test_nothing_of_it_is_ever_in_a_file(world: World, ann: InProcess) -> None:
    root = world.in_process()
    ann.run("INSERT INTO s VALUES (1, 'a')")
    for statement in ("FLUSH TABLE s", "COMPACT TABLE s"):
        with pytest.raises(Refused, match="STREAM") as refusal:
            root.run(statement)
        assert refusal.value.sqlstate == "42809"
    world.flush()
    root.run("STORAGE FLUSH ALL")
    assert not list(world.data_dir.rglob("*.parquet"))
    assert rows(ann, "SELECT * FROM s") == [(1, "a")]


def test_eviction_takes_the_expired_rows_out_of_log_and_memory(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s SELECT i, repeat('x', 100) || i FROM range(20000) r(i)")  # in a file of its own
    ann.run("INSERT INTO s VALUES (-1, 'a')")
    clock.pass_(1)
    ann.run("INSERT INTO s VALUES (-2, 'b')")
    assert evict(world) == 0
    clock.pass_(TTL - 0.99)  # 20,000 ids take 5 ms
    held = world.kalam.parts.scopes.open(world.kalam.parts.catalog.state.find("main", "s"), "ann")
    large = held.state.hot.n
    assert evict(world, tables=["main.other"]) == 0
    assert evict(world, tables=["main.s"]) == 20001
    assert (large, held.state.hot.n) == (20002, 1) and held.past == []
    assert [r["2"] for r in logged(world, "ann")] == ["b"]
    assert not world.stray_files() and not list((world.data_dir / "hot").iterdir())
    assert rows(ann, "SELECT v FROM s") == [("b",)]
    world.check()
    clock.pass_(1)
    assert evict(world) == 1 and logged(world, "ann") == []


def test_a_reader_from_before_an_eviction_and_a_delete_reads_on(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s SELECT i, 'v' FROM range(10) r(i)")
    other = world.in_process("ann", Role.USER)
    ann.run("BEGIN")
    assert rows(ann, "SELECT count(*) FROM s") == [(10,)]
    assert other.run("DELETE FROM s WHERE k < 9").count == 9
    assert rows(other, "SELECT count(*) FROM s") == [(1,)]
    assert rows(ann, "SELECT count(*) FROM s") == [(10,)]
    assert evict(world) == 0
    assert rows(ann, "SELECT count(*) FROM s WHERE k = 3") == [(1,)]
    clock.pass_(TTL)  # expiry is not a change that a snapshot hides
    assert rows(ann, "SELECT count(*) FROM s") == [(0,)]
    ann.run("COMMIT")


def test_a_crash_before_the_log_says_so_leaves_the_rows_for_the_next_eviction(
    world: World, ann: InProcess, clock: StillClock
) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a')")
    clock.pass_(TTL)

    def plug() -> None:
        raise RuntimeError("pulled")

    failpoints.arm("evict.before_append", plug)
    with pytest.raises(Exception, match="internal"):
        evict(world)
    failpoints.disarm()
    assert len(logged(world, "ann")) == 1 and rows(ann, "SELECT * FROM s") == []
    assert evict(world) == 1 and logged(world, "ann") == []


# -- transactions ---------------------------------------------------------------------------------------------------------


def test_the_first_to_delete_wins(world: World, ann: InProcess) -> None:
    other = world.in_process("ann", Role.USER)
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    ann.run("BEGIN")
    assert ann.run("DELETE FROM s WHERE k = 1").count == 1
    assert rows(ann, "SELECT k FROM s") == [(2,)] and len(rows(other, "SELECT k FROM s")) == 2
    assert other.run("DELETE FROM s WHERE k = 1").count == 1
    with pytest.raises(Refused, match="40001"):
        ann.run("COMMIT")
    assert rows(ann, "SELECT k FROM s") == [(2,)]


def test_a_row_that_expires_under_a_transaction_is_no_conflict(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a')")
    ann.run("BEGIN")
    ann.run("INSERT OR REPLACE INTO s VALUES (1, 'new')")
    ann.run("INSERT INTO s VALUES (2, 'own')")
    clock.pass_(TTL)
    assert evict(world) == 1
    assert rows(ann, "SELECT * FROM s ORDER BY k") == [(1, "new"), (2, "own")]
    ann.run("COMMIT")
    assert rows(ann, "SELECT * FROM s ORDER BY k") == [(1, "new"), (2, "own")]  # their life begins with the commit
    assert len(logged(world, "ann")) == 2
    world.check()


def test_rollback_deletes_nothing(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a')")
    ann.run("BEGIN")
    ann.run("TRUNCATE s")
    ann.run("ROLLBACK")
    assert rows(ann, "SELECT * FROM s") == [(1, "a")] and len(logged(world, "ann")) == 1


# -- tables of all kinds --------------------------------------------------------------------------------------------------


def test_without_a_key_rows_are_told_apart_by_a_hidden_one(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run(f"CREATE STREAM TABLE events (text TEXT) WITH (TTL_SECONDS={TTL})")
    ann.run("INSERT INTO events VALUES ('a'), ('a'), ('b')")
    assert ann.run("DELETE FROM events WHERE text = 'b'").count == 1
    assert rows(ann, "SELECT * FROM events") == [("a",), ("a",)]
    clock.pass_(TTL)
    assert rows(ann, "SELECT * FROM events") == []


def test_from_a_query(world: World, ann: InProcess, clock: StillClock) -> None:
    ann.run(f"CREATE STREAM TABLE c (PRIMARY KEY (i)) WITH (TTL_SECONDS={TTL}) AS SELECT i FROM range(5) r(i)")
    assert rows(ann, "SELECT count(*) FROM c") == [(5,)]
    world.check()
    clock.pass_(TTL)
    assert rows(ann, "SELECT count(*) FROM c") == [(0,)]


def test_bulk_ingest_through_a_client(world: World, ann: InProcess) -> None:
    client = world.adbc("ann", Role.USER, x_kalam_on_conflict="update")
    with client.connection.cursor() as cursor:
        assert cursor.adbc_ingest("s", pa.table({"k": [1, 2], "v": ["a", "b"]}), mode="append") == 2
        assert cursor.adbc_ingest("s", pa.table({"k": [2, 3], "v": ["x", "c"]}), mode="append") == 2
    assert rows(client, "SELECT * FROM s ORDER BY k") == [(1, "a"), (2, "x"), (3, "c")]
    assert len(logged(world, "ann")) == 3


def test_columns_may_come_and_go(world: World, ann: InProcess) -> None:
    root = world.in_process()
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    root.run("ALTER TABLE s ADD COLUMN n INT DEFAULT 7")
    ann.run("INSERT INTO s VALUES (3, 'c', 8)")
    assert ann.run("DELETE FROM s WHERE k = 1").count == 1  # an entry of the old schema is written again
    root.run("ALTER TABLE s DROP COLUMN v")
    world.restart()
    ann = world.in_process("ann", Role.USER)
    assert rows(ann, "SELECT * FROM s ORDER BY k") == [(2, 7), (3, 8)]
    world.check()


def test_a_longer_life_brings_nothing_back(world: World, ann: InProcess, clock: StillClock) -> None:
    root = world.in_process()
    ann.run("INSERT INTO s VALUES (1, 'a')")
    clock.pass_(TTL)
    ann.run("INSERT INTO s VALUES (2, 'b')")
    root.run(f"ALTER TABLE s SET OPTIONS (TTL_SECONDS={10 * TTL})")
    assert rows(ann, "SELECT k FROM s") == [(2,)]
    clock.pass_(5 * TTL)
    assert rows(ann, "SELECT k FROM s") == [(2,)]
    root.run("ALTER TABLE s SET OPTIONS (TTL_SECONDS=1)")
    assert rows(ann, "SELECT k FROM s") == []


def test_a_dropped_table_leaves_nothing(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s SELECT i, repeat('x', 100) || i FROM range(20000) r(i)")
    scope = scope_of(world, "ann")
    world.in_process().run("DROP TABLE s")
    world.in_process().run("CREATE SHARED TABLE waited (k INT PRIMARY KEY)")
    world.flush()  # one job after another: the cleanup is over
    assert list(world.kalam.parts.scopes.log.entries(scope)) == []
    assert not list((world.data_dir / "hot").iterdir())


def test_erase_and_check_know_it(world: World, ann: InProcess) -> None:
    ann.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    erased = ann.run("ERASE FROM s WHERE k = 1").rows
    assert erased is not None and erased.column("rows").to_pylist() == [1]
    report = world.in_process().run("CHECK TABLE s").rows
    assert report is not None
    assert report.select(["versions", "visible_rows", "problem"]).to_pylist() == [
        {"versions": 1, "visible_rows": 1, "problem": None}
    ]
