"""Writers and readers at once (SEMANTICS §2): nobody's change is lost, nobody sees half of one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow as pa
import pytest
from kalam_world import Answer, Client, InProcess, Refused, World

from flightkalam.errors import UndefinedObject


def together(*jobs: Callable[[], None]) -> None:
    """Run all at once; the first error of any of them is the test's."""
    start, errors = threading.Barrier(len(jobs)), []

    def run(job: Callable[[], None]) -> None:
        start.wait()
        try:
            job()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def value(client: Client, sql: str) -> object:
    rows = client.run(sql).rows
    assert rows is not None
    return rows.column(0)[0].as_py()


def outcome(client: Client, sql: str) -> int | str | None:
    """The count, or the SQLSTATE of the refusal."""
    try:
        return client.run(sql).count
    except Refused as e:
        return e.sqlstate


@pytest.mark.parametrize("flushed", [False, True])
def test_no_increment_is_lost(world: World, root: InProcess, flushed: bool) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 0), (2, 0)")
    if flushed:
        world.flush()

    def eight_times(client: InProcess, key: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(8):
                assert client.run(f"UPDATE t SET n = n + 1 WHERE id = {key}").count == 1

        return run

    together(*[eight_times(world.in_process(), 1 + i // 6) for i in range(8)])
    assert value(root, "SELECT n FROM t WHERE id = 1") == 48
    assert value(root, "SELECT n FROM t WHERE id = 2") == 16
    world.check()


def test_increments_and_flushes_do_not_disturb_each_other(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 0)")
    done = threading.Event()

    def increments() -> None:
        client = world.in_process()
        for _ in range(20):
            client.run("UPDATE t SET n = n + 1")

    def both() -> None:
        try:
            together(increments, increments)
        finally:
            done.set()

    def flushes() -> None:
        while not done.is_set():
            world.flush()

    together(both, flushes)
    assert value(root, "SELECT n FROM t") == 40
    assert value(root, "SELECT count(*) FROM t") == 1
    world.check()


@pytest.mark.parametrize("deleted_before", [False, True])
def test_of_many_inserts_of_one_key_one_wins(world: World, root: InProcess, deleted_before: bool) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY, who INT)")
    if deleted_before:
        root.run("INSERT INTO t VALUES (1, -1)")
        world.flush()
        root.run("DELETE FROM t")
    clients = [world.in_process() for _ in range(8)]
    found: list[int | str | None] = [None] * 8

    def insert(i: int) -> None:
        found[i] = outcome(clients[i], f"INSERT INTO t VALUES (1, {i}), ({10 + i}, {i})")

    together(*[lambda i=i: insert(i) for i in range(8)])
    assert sorted(map(str, found)) == ["2"] + ["23505"] * 7
    winner = found.index(2)
    assert value(root, "SELECT who FROM t WHERE id = 1") == winner
    assert value(root, "SELECT count(*) FROM t") == 2, "the losers have written nothing"


def test_of_many_upserts_of_one_key_none_is_lost(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    clients = [world.in_process() for _ in range(8)]
    upsert = "INSERT INTO t VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n"
    together(*[lambda c=c: [c.run(upsert) for _ in range(4)] for c in clients])
    assert value(root, "SELECT n FROM t") == 32


def test_of_many_deletes_one_counts(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("INSERT INTO t FROM range(5)")
    clients = [world.in_process() for _ in range(6)]
    counts: list[int | None] = []
    together(*[lambda c=c: counts.append(c.run("DELETE FROM t").count) for c in clients])
    assert sum(filter(None, counts)) == 5


# -- transactions -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(world: World, root: InProcess) -> tuple[InProcess, InProcess]:
    """Two sessions and a table with keys 1 and 2, one of them cold."""
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 0)")
    world.flush()
    root.run("INSERT INTO t VALUES (2, 0)")
    return world.in_process(), world.in_process()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("UPDATE t SET n = 1 WHERE id = 1", "UPDATE t SET n = 2 WHERE id = 1"),
        ("UPDATE t SET n = 1 WHERE id = 2", "DELETE FROM t WHERE id = 2"),
        ("DELETE FROM t WHERE id = 1", "UPDATE t SET n = 2 WHERE id = 1"),
        ("DELETE FROM t WHERE id = 1", "DELETE FROM t WHERE id = 1"),
        ("INSERT INTO t VALUES (3, 1)", "INSERT INTO t VALUES (3, 2)"),
        ("UPDATE t SET id = 3 WHERE id = 1", "INSERT INTO t VALUES (3, 2)"),
        ("TRUNCATE t", "INSERT OR REPLACE INTO t VALUES (2, 9)"),
    ],
)
def test_the_first_committer_wins(
    pair: tuple[InProcess, InProcess], world: World, root: InProcess, first: str, second: str
) -> None:
    a, b = pair
    for client in pair:
        client.run("BEGIN")
        assert value(client, "SELECT count(*) FROM t") == 2
    b.run(second)
    a.run(first)
    a.run("COMMIT")
    state = root.run("SELECT * FROM t ORDER BY id").rows
    world.flush()
    assert outcome(b, "COMMIT") == "40001"
    assert root.run("SELECT * FROM t ORDER BY id").rows == state
    assert outcome(b, "ROLLBACK") == 0
    world.check()


def test_of_two_that_commit_at_once_one_wins(world: World, pair: tuple[InProcess, InProcess], root: InProcess) -> None:
    found: list[int | str | None] = []
    for client in pair:
        client.run("BEGIN")
        client.run("UPDATE t SET n = n + 1")
    together(*[lambda c=c: found.append(outcome(c, "COMMIT")) for c in pair])
    assert sorted(map(str, found)) == ["0", "40001"]
    assert value(root, "SELECT sum(n) FROM t") == 2


def test_a_snapshot_stands_still(world: World, pair: tuple[InProcess, InProcess], root: InProcess) -> None:
    """Outside writes, flushes and compaction change nothing for an open transaction."""
    reader, _ = pair
    query = "SELECT *, _seq FROM t ORDER BY id"
    reader.run("BEGIN")
    before = reader.run(query).rows
    root.run("UPDATE t SET n = n + 1")
    assert reader.run(query).rows == before
    world.flush()
    assert reader.run(query).rows == before
    root.run("DELETE FROM t WHERE id = 1")
    root.run("INSERT INTO t VALUES (3, 3)")
    world.flush()
    root.run("COMPACT TABLE t WAIT")
    assert reader.run(query).rows == before
    assert reader.run("SELECT * FROM t WHERE id = 1").rows.num_rows == 1
    assert reader.run("SELECT * FROM t WHERE id = 3").rows.num_rows == 0
    reader.run("COMMIT")
    assert value(reader, "SELECT count(*) FROM t WHERE id IN (2, 3)") == 2


def test_write_skew_is_possible(pair: tuple[InProcess, InProcess], root: InProcess) -> None:
    """Reads are not validated: each takes the last one on call to be the other."""
    for client in pair:
        client.run("BEGIN")
    for mine, client in zip((1, 2), pair, strict=True):
        client.run(f"UPDATE t SET n = 1 WHERE id = {mine} AND (SELECT sum(n) FROM t) = 0")
    for client in pair:
        assert outcome(client, "COMMIT") == 0
    assert value(root, "SELECT sum(n) FROM t") == 2


def test_readers_never_see_half_a_transaction(world: World, root: InProcess) -> None:
    """Two tables and a user's own that are always written together always agree, also while they are flushed."""
    for name in ("a", "b"):
        root.run(f"CREATE TABLE {name} (id INT PRIMARY KEY, n INT)")
    root.run("CREATE USER TABLE c (id INT PRIMARY KEY, n INT)")
    for name in "abc":
        root.run(f"INSERT INTO {name} VALUES (1, 0)")
    done = threading.Event()

    def writes() -> None:
        try:
            for n in range(1, 13):
                root.run("BEGIN")
                for name in "abc":
                    root.run(f"UPDATE {name} SET n = {n}")
                    root.run(f"INSERT INTO {name} VALUES ({n + 1}, {n})")
                root.run("COMMIT")
        finally:
            done.set()

    def reads() -> None:
        client = world.in_process()
        sums = ", ".join(f"(SELECT sum(n) * 1000 + count(*) FROM {name}) AS {name}" for name in "abc")
        while not done.is_set():
            row = client.run(f"SELECT {sums}").rows.to_pylist()[0]
            assert row["a"] == row["b"] == row["c"], row

    def flushes() -> None:
        while not done.is_set():
            world.flush()

    together(writes, reads, reads, flushes)
    assert value(root, "SELECT sum(n) FROM c") == 13 * 12
    world.check()


def test_a_result_outlives_its_transaction(world: World, root: InProcess) -> None:
    """What streams goes on to its end, whatever becomes of the files that it reads; what has not begun is refused."""
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t SELECT i, i FROM range(100000) r(i)")
    world.flush()
    session = world.session()
    transaction = session.begin()
    rows = session.fetch(session.plan("SELECT * FROM t", transaction).handle)
    late = session.plan("SELECT * FROM t", transaction)
    never = session.plan("INSERT INTO t VALUES (-1, 0) RETURNING id", transaction)
    batches = iter(rows)
    found = next(batches).num_rows
    session.end(transaction, True)
    root.run("DELETE FROM t WHERE id >= 10")
    world.flush()
    root.run("COMPACT TABLE t WAIT")
    door = world.kalam.parts.scopes.door
    assert door.oldest_pin() < door.watermark, "what streams is held"
    assert found + sum(b.num_rows for b in batches) == 100_000
    for planned in (late, never):
        with pytest.raises(UndefinedObject, match="does not exist or has expired"):
            session.fetch(planned.handle)
    assert value(root, "SELECT count(*) FROM t") == 10
    assert door.oldest_pin() == door.watermark, "nothing is held any more"


def test_many_updates_at_once_try_again(world: World, root: InProcess) -> None:
    """An update bound to many rows is a transaction that nobody began: others make it wait, not fail."""
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("INSERT INTO t VALUES (1, 0), (2, 0)")
    rows = pa.table({"1": pa.array([1, 2], pa.int32())})

    def twice() -> None:
        session = world.session()
        prepared = session.prepare("UPDATE t SET n = n + 1 WHERE id = ?", None)
        for _ in range(2):
            assert session.update_prepared(prepared.handle, iter(rows.to_batches())) == 2

    together(twice, twice)
    assert value(root, "SELECT sum(n) FROM t") == 8


def test_a_closed_session_is_rolled_back(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    client = world.in_process()
    client.run("BEGIN")
    client.run("INSERT INTO t VALUES (1)")
    client.close()
    assert value(root, "SELECT count(*) FROM t") == 0
    assert root.run("INSERT INTO t VALUES (1)") == Answer(count=1)


def test_an_open_transaction_is_gone_after_a_restart(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY)")
    root.run("BEGIN")
    root.run("INSERT INTO t VALUES (1)")
    world.restart()
    again = world.in_process()
    assert value(again, "SELECT count(*) FROM t") == 0
    assert outcome(again, "COMMIT") == "25P01"
