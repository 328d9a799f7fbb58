"""Idempotency keys (SEMANTICS §2, T-51): a write sent again with its key answers the first result and writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from kalam_world import HEADER, ROOT_PASSWORD, Adbc, InProcess, Refused, World

from flightkalam.auth.identity import Role
from flightkalam.session.call import Call


def keyed(world: World, key: str, user: str = "root", role: Role = Role.SYSTEM) -> Adbc:
    return world.adbc(user, role, x_kalam_idempotency_key=key)


def count(root: InProcess, table: str = "t") -> int:
    rows = root.run(f"SELECT count(*) AS n FROM {table}").rows
    assert rows is not None
    return int(rows.column("n")[0].as_py())


@pytest.fixture(autouse=True)
def tables(root: InProcess) -> None:
    root.run("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    root.run("CREATE USER TABLE own (id INT PRIMARY KEY, n INT)")


def test_a_repeat_answers_the_first_result(world: World, root: InProcess) -> None:
    assert keyed(world, "a").run("INSERT INTO t VALUES (1, 1), (2, 2)").count == 2
    assert keyed(world, "a").run("INSERT INTO t VALUES (1, 1), (2, 2)").count == 2
    assert keyed(world, "b").run("UPDATE t SET n = n + 1").count == 2
    assert keyed(world, "b").run("UPDATE t SET n = n + 1").count == 2
    assert keyed(world, "c").run("DELETE FROM t WHERE id = 1").count == 1
    assert keyed(world, "c").run("DELETE FROM t WHERE id = 1").count == 1
    assert root.run("SELECT * FROM t").rows.to_pylist() == [{"id": 2, "n": 3}]


def test_it_does_after_a_restart(world: World, root: InProcess) -> None:
    assert keyed(world, "a").run("INSERT INTO t VALUES (1, 1)").count == 1
    world.flush()
    world.restart()
    assert keyed(world, "a").run("INSERT INTO t VALUES (1, 1)").count == 1
    assert count(world.in_process()) == 1


def test_a_write_that_changed_nothing_is_known_too(world: World, root: InProcess) -> None:
    assert keyed(world, "a").run("DELETE FROM t WHERE id = 1").count == 0
    root.run("INSERT INTO t VALUES (1, 1)")
    assert keyed(world, "a").run("DELETE FROM t WHERE id = 1").count == 0
    assert count(root) == 1


def test_a_refused_write_may_be_tried_again(world: World, root: InProcess) -> None:
    root.run("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(Refused) as failed:
        keyed(world, "a").run("INSERT INTO t VALUES (1, 1)")
    assert failed.value.sqlstate == "23505"
    root.run("DELETE FROM t")
    assert keyed(world, "a").run("INSERT INTO t VALUES (1, 1)").count == 1


def test_a_key_is_each_users_own(world: World, root: InProcess) -> None:
    assert keyed(world, "a", "ann", Role.USER).run("INSERT INTO own VALUES (1, 1)").count == 1
    assert keyed(world, "a", "bob", Role.USER).run("INSERT INTO own VALUES (1, 1), (2, 2)").count == 2
    assert count(world.in_process("bob", Role.USER), "own") == 2


def test_repeats_at_once_write_once(world: World, root: InProcess) -> None:
    """While the first is under way, the others wait for it."""
    root.run("INSERT INTO t VALUES (1, 0)")
    clients = [keyed(world, "a") for _ in range(6)]
    counts: list[int | None] = []
    threads = [threading.Thread(target=lambda c=c: counts.append(c.run("UPDATE t SET n = n + 1").count)) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 6
    assert root.run("SELECT n FROM t").rows.column("n").to_pylist() == [1]


def test_an_ingest_is_written_once(world: World, root: InProcess) -> None:
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int32()), "n": pa.array([1, 2, 3], pa.int32())})
    for _ in range(2):
        with keyed(world, "a").connection.cursor() as cursor:
            assert cursor.adbc_ingest("t", rows, mode="append") == 3
    assert count(root) == 3


def test_returning_answers_the_same_rows(world: World, root: InProcess) -> None:
    insert = "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 5 FROM t RETURNING id, n, _seq"
    first = keyed(world, "a").run(insert).rows
    assert first.num_rows == 1
    assert keyed(world, "a").run(insert).rows == first
    world.restart()
    assert keyed(world, "a").run(insert).rows == first
    with pytest.raises(Refused, match="belongs to another statement") as failed:
        keyed(world, "a").run("DELETE FROM t RETURNING id")
    assert failed.value.sqlstate == "22023"
    assert count(world.in_process()) == 1


def test_returning_too_much_to_keep_is_still_written_once(world: World, root: InProcess) -> None:
    insert = "INSERT INTO t SELECT i, i FROM range(200000) r(i) RETURNING id, n"
    assert keyed(world, "a").run(insert).rows.num_rows == 200_000
    with pytest.raises(Refused, match="was done before and changed 200000 row"):
        keyed(world, "a").run(insert)
    assert count(root) == 200_000


def test_a_write_that_is_fetched_is_done_once(world: World, root: InProcess) -> None:
    """Some clients ask for the count of a write as if it were a result."""
    for _ in range(2):
        client = call(world, "a")
        planned = client.plan("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 5 FROM t", None)
        counts = [b.column(0).to_pylist() for b in client.fetch(planned.handle)]
        assert counts == [[1]]
    assert count(root) == 1


def test_the_key_of_a_query_means_nothing(world: World, root: InProcess) -> None:
    client = keyed(world, "a")
    client.run("SET TimeZone = 'Europe/Vienna'")
    assert client.run("SELECT count(*) AS n FROM t").rows.to_pylist() == [{"n": 0}]
    assert client.run("INSERT INTO t VALUES (1, 1)").count == 1
    assert client.run("SELECT count(*) AS n FROM t").rows.to_pylist() == [{"n": 1}]


def test_a_key_has_1_to_256_characters(world: World, root: InProcess) -> None:
    with pytest.raises(Refused) as failed:
        keyed(world, "x" * 257).run("INSERT INTO t VALUES (1, 1)")
    assert failed.value.sqlstate == "22023"
    assert count(root) == 0


# -- inside a transaction the key belongs to COMMIT -------------------------------------------------------------------


def test_a_repeated_transaction_commits_once(world: World, root: InProcess) -> None:
    for _ in range(2):
        client = keyed(world, "a")
        client.run("BEGIN")
        assert client.run("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0 FROM t").count == 1
        assert client.run("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0 FROM t").count == 1
        assert client.run("COMMIT").count == 0
        client.run("BEGIN")  # nothing was left open
        client.run("ROLLBACK")
    assert count(root) == 2


def test_a_rolled_back_transaction_leaves_the_key(world: World, root: InProcess) -> None:
    client = keyed(world, "a")
    client.run("BEGIN")
    client.run("INSERT INTO t VALUES (1, 1)")
    client.run("ROLLBACK")
    assert client.run("INSERT INTO t VALUES (2, 2)").count == 1
    assert root.run("SELECT id FROM t").rows.column("id").to_pylist() == [2]


def test_a_commit_that_met_a_conflict_leaves_the_key(world: World, root: InProcess) -> None:
    root.run("INSERT INTO t VALUES (1, 1)")
    client = keyed(world, "a")
    client.run("BEGIN")
    client.run("UPDATE t SET n = 2")
    root.run("UPDATE t SET n = 3")
    with pytest.raises(Refused) as failed:
        client.run("COMMIT")
    assert failed.value.sqlstate == "40001"
    client.run("BEGIN")
    client.run("UPDATE t SET n = n * 2")
    client.run("COMMIT")
    assert root.run("SELECT n FROM t").rows.column("n").to_pylist() == [6]


def call(world: World, key: str) -> Call:
    headers: Mapping[str, str] = {"x-kalam-idempotency-key": key}
    return Call(world.session(), headers)


def test_a_commit_on_the_wire_is_done_once(world: World, root: InProcess) -> None:
    for _ in range(2):
        client = call(world, "a")
        empty = client.begin()
        client.end(empty, True)  # a COMMIT of nothing leaves the key
        transaction = client.begin()
        assert client.update("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0 FROM t", transaction) == 1
        client.end(transaction, True)
        client.end(transaction, True)  # the answer was lost, so the client asks again
        with pytest.raises(Exception, match="does not exist or has expired"):
            client.update("INSERT INTO t VALUES (99, 1)", transaction)
        client.session.close()
    assert count(root) == 1


def test_manual_commit_through_a_driver(world: World, root: InProcess) -> None:
    options = {"username": "root", "password": ROOT_PASSWORD, HEADER + "x-kalam-idempotency-key": "a"}
    for _ in range(2):
        with adbc.connect(world.uri, db_kwargs=options) as connection:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 0 FROM t")
            connection.commit()
    assert count(root) == 1
