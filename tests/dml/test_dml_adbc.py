"""ADBC with autocommit off: the driver opens a transaction at connect and another after each commit or rollback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from kalam_world import ROOT_PASSWORD, Adbc, InProcess, Refused, World, refused


@pytest.fixture
def manual(world: World, root: InProcess) -> adbc.Connection:
    """A connection with autocommit off, and a table with one row cold and one hot."""
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT CHECK (n < 100))")
    root.run("INSERT INTO t VALUES (1, 10)")
    world.flush()
    root.run("INSERT INTO t VALUES (2, 20)")
    return connect(world)


def connect(world: World, *, autocommit: bool = False) -> adbc.Connection:
    login = {"username": "root", "password": ROOT_PASSWORD}
    connection = adbc.connect(world.uri, db_kwargs=login, autocommit=autocommit)
    world._kept(Adbc(connection))
    return connection


def run(connection: adbc.Connection, sql: str, parameters: Sequence[Any] | None = None) -> Any:
    """Rows, or a count."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def seen(root: InProcess) -> list[tuple[Any, ...]]:
    rows = root.run("SELECT id, n FROM t ORDER BY id").rows
    assert rows is not None
    return [tuple(r.values()) for r in rows.to_pylist()]


BEFORE = [(1, 10), (2, 20)]


def test_commit(manual: adbc.Connection, world: World, root: InProcess) -> None:
    assert run(manual, "UPDATE t SET n = n + 1") == 2
    assert run(manual, "INSERT INTO t VALUES (?, ?)", (3, 30)) == 1
    assert run(manual, "DELETE FROM t WHERE id = ?", (2,)) == 1
    assert run(manual, "SELECT id, n, _seq IS NULL FROM t ORDER BY id") == [(1, 11, True), (3, 30, True)]
    assert seen(root) == BEFORE
    manual.commit()
    assert seen(root) == [(1, 11), (3, 30)]
    run(manual, "INSERT INTO t VALUES (4, 40)")
    manual.commit()
    assert seen(root) == [(1, 11), (3, 30), (4, 40)]
    world.check()


def test_rollback(manual: adbc.Connection, root: InProcess) -> None:
    run(manual, "TRUNCATE t")
    assert run(manual, "SELECT count(*) FROM t") == [(0,)]
    manual.rollback()
    assert run(manual, "SELECT count(*) FROM t") == [(2,)]
    assert seen(root) == BEFORE


def test_close_without_commit_rolls_back(manual: adbc.Connection, root: InProcess) -> None:
    run(manual, "DELETE FROM t")
    manual.close()
    assert seen(root) == BEFORE
    assert root.run("UPDATE t SET n = n + 1").count == 2, "nothing is held any more"


def test_an_idle_connection_sees_what_is_new(manual: adbc.Connection, root: InProcess) -> None:
    """The snapshot is taken by the first statement, not at connect or after a commit."""
    root.run("INSERT INTO t VALUES (3, 30)")
    assert run(manual, "SELECT count(*) FROM t") == [(3,)]
    root.run("INSERT INTO t VALUES (4, 40)")
    assert run(manual, "SELECT count(*) FROM t") == [(3,)]
    manual.commit()
    assert run(manual, "SELECT count(*) FROM t") == [(4,)]


def test_a_conflict_is_an_error_of_commit(manual: adbc.Connection, world: World, root: InProcess) -> None:
    """The driver then has no transaction and takes nothing more, so nothing can be committed by mistake: connect again."""
    run(manual, "UPDATE t SET n = n + 1 WHERE id = 1")
    root.run("UPDATE t SET n = n + 10 WHERE id = 1")
    with pytest.raises(adbc.Error) as failed:
        manual.commit()
    assert refused(failed.value).sqlstate == "40001"
    assert seen(root) == [(1, 20), (2, 20)]
    with pytest.raises(adbc.Error, match="missing a valid transaction"):
        run(manual, "UPDATE t SET n = n + 1 WHERE id = 1")
    again = connect(world)
    run(again, "UPDATE t SET n = n + 1 WHERE id = 1")
    again.commit()
    assert seen(root) == [(1, 21), (2, 20)]


def test_a_failed_statement_leaves_the_others(manual: adbc.Connection, root: InProcess) -> None:
    run(manual, "INSERT INTO t VALUES (3, 30)")
    with pytest.raises(adbc.Error) as failed:
        run(manual, "INSERT INTO t VALUES (4, 40), (1, 1)")
    assert refused(failed.value).sqlstate == "23505"
    manual.commit()
    assert seen(root) == [*BEFORE, (3, 30)]


def test_ingest_is_part_of_the_transaction(manual: adbc.Connection, root: InProcess) -> None:
    rows = pa.table({"id": [3, 4], "n": [30, 40]})
    with manual.cursor() as cursor:
        assert cursor.adbc_ingest("t", rows, mode="append") == 2
    assert run(manual, "SELECT count(*) FROM t") == [(4,)]
    assert run(manual, "UPDATE t SET n = n + 1 WHERE id >= 3") == 2
    assert seen(root) == BEFORE
    with manual.cursor() as cursor, pytest.raises(adbc.Error) as failed:
        cursor.adbc_ingest("t", pa.table({"id": [9, 3], "n": [9, 9]}), mode="append")
    assert refused(failed.value).sqlstate == "23505"
    manual.rollback()
    assert seen(root) == BEFORE
    with manual.cursor() as cursor:
        cursor.adbc_ingest("t", rows, mode="append")
    manual.commit()
    assert seen(root) == [*BEFORE, (3, 30), (4, 40)]


def test_ingest_that_creates_commits_by_itself_and_only_before_a_write(
    manual: adbc.Connection, world: World, root: InProcess
) -> None:
    rows = pa.table({"id": [1]})
    with manual.cursor() as cursor:
        assert cursor.adbc_ingest("made", rows, mode="create") == 1
    assert root.run("SELECT count(*) AS n FROM made").rows.to_pylist() == [{"n": 1}]
    run(manual, "INSERT INTO t VALUES (3, 30)")
    with manual.cursor() as cursor, pytest.raises(adbc.Error) as failed:
        cursor.adbc_ingest("made", rows, mode="replace")
    assert refused(failed.value).sqlstate == "25001"
    manual.commit()
    assert seen(root) == [*BEFORE, (3, 30)]


@pytest.mark.parametrize("autocommit", [True, False])
def test_many_updates_are_one(manual: adbc.Connection, world: World, root: InProcess, autocommit: bool) -> None:
    connection = connect(world, autocommit=True) if autocommit else manual
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE t SET n = ? WHERE id = ?", [(11, 1), (21, 2), (31, 3), (12, 1)])
        assert cursor.rowcount in (3, -1)
    if not autocommit:
        assert seen(root) == BEFORE
        connection.commit()
    assert seen(root) == [(1, 12), (2, 21)]


def test_of_many_updates_one_that_fails_undoes_all(manual: adbc.Connection, world: World, root: InProcess) -> None:
    connection = connect(world, autocommit=True)
    with connection.cursor() as cursor, pytest.raises(adbc.Error) as failed:
        cursor.executemany("UPDATE t SET n = ? WHERE id = ?", [(11, 1), (500, 2)])
    assert refused(failed.value).sqlstate == "23514"
    with connection.cursor() as cursor, pytest.raises(adbc.Error):
        cursor.executemany("DELETE FROM t WHERE id = ? AND n / ? > 0 AND n < CAST(? AS INT)", [(1, 1, "50"), (2, 1, "x")])
    with connection.cursor() as cursor, pytest.raises(adbc.Error):
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(3, 3), (4, 4), (1, 1)])
    assert seen(root) == BEFORE


def test_inside_a_transaction_the_failed_many_are_undone_and_the_rest_stays(manual: adbc.Connection, root: InProcess) -> None:
    run(manual, "INSERT INTO t VALUES (3, 30)")
    with manual.cursor() as cursor, pytest.raises(adbc.Error) as failed:
        cursor.executemany("UPDATE t SET n = ? WHERE id = ?", [(11, 1), (500, 2)])
    assert refused(failed.value).sqlstate == "23514"
    manual.commit()
    assert seen(root) == [*BEFORE, (3, 30)]


def test_a_prepared_statement_outlives_its_transaction(manual: adbc.Connection, root: InProcess) -> None:
    with manual.cursor() as cursor:
        for n in (1, 2, 3):
            cursor.execute("UPDATE t SET n = n + ? WHERE id = 1", (n,))
            manual.commit()
    assert seen(root) == [(1, 16), (2, 20)]


def test_sql_cannot_end_the_drivers_transaction(manual: adbc.Connection, root: InProcess) -> None:
    run(manual, "INSERT INTO t VALUES (3, 30)")
    for sql in ("COMMIT", "ROLLBACK", "BEGIN"):
        with pytest.raises(adbc.Error) as failed:
            run(manual, sql)
        assert refused(failed.value).sqlstate == "25001"
    manual.commit()
    assert seen(root) == [*BEFORE, (3, 30)]


def test_begin_in_sql_with_autocommit_on(manual: adbc.Connection, world: World, root: InProcess) -> None:
    client = Adbc(connect(world, autocommit=True))
    client.run("BEGIN")
    assert client.run("UPDATE t SET n = 0").count == 2
    with client.connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"id": [3], "n": [30]}), mode="append")
    assert seen(root) == BEFORE
    client.run("COMMIT")
    assert seen(root) == [(1, 0), (2, 0), (3, 30)]
    with pytest.raises(Refused) as failed:
        client.run("COMMIT")
    assert failed.value.sqlstate == "25P01"


def test_after_ddl_that_commits_by_itself_a_transaction_sees_it(manual: adbc.Connection, root: InProcess) -> None:
    """A transaction that has only read begins anew behind a statement that commits by itself."""
    assert run(manual, "SELECT count(*) FROM t") == [(2,)]
    run(manual, "CREATE TABLE later (id BIGINT PRIMARY KEY)")
    run(manual, "INSERT INTO later VALUES (1)")
    assert run(manual, "SELECT * FROM later") == [(1,)]
    manual.rollback()
    assert run(manual, "SELECT count(*) FROM later") == [(0,)]
    with manual.cursor() as cursor:
        cursor.adbc_ingest("loaded", pa.table({"a": [1]}), mode="create")
    assert run(manual, "SELECT * FROM loaded") == [(1,)]
    run(manual, "INSERT INTO later VALUES (2)")
    with pytest.raises(Exception, match="25001"):
        run(manual, "DROP TABLE loaded")


@pytest.mark.parametrize("autocommit", [True, False])
def test_parameters_of_a_write_with_returning(world: World, root: InProcess, autocommit: bool) -> None:
    root.run("CREATE TABLE r (id BIGINT PRIMARY KEY, v TEXT)")
    connection = connect(world, autocommit=autocommit)
    assert run(connection, "INSERT INTO r VALUES (?, ?), (?, ?) RETURNING id, v", (1, "a", 2, "b")) == [(1, "a"), (2, "b")]
    assert run(connection, "UPDATE r SET v = ? WHERE id = ? RETURNING v", ("c", 2)) == [("c",)]
    assert run(connection, "DELETE FROM r WHERE v = ? RETURNING id", ("a",)) == [(1,)]
    merge = "MERGE INTO r USING (SELECT ? AS id) AS s ON r.id = s.id WHEN MATCHED THEN DELETE RETURNING id"
    assert run(connection, merge, (2,)) == [(2,)]
    with pytest.raises(Exception, match="07001"):
        run(connection, "INSERT INTO r VALUES (?, ?) RETURNING id", (1,))
    assert run(connection, "EXPLAIN SELECT * FROM r WHERE id = ?", (1,))
