"""Many clients at once: each statement is whole, readers see constants, writers of one key agree (SEMANTICS §2; T-11, T-13)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from kalam_world import Adbc, InProcess, Refused, World

THREADS = 8


def together(*works: Callable[[], None]) -> None:
    """Run each in a thread; what one raises is raised here."""
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=guarded, args=(w,)) for w in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise failed[0]


def one(client: Adbc | InProcess, sql: str) -> tuple[Any, ...]:
    rows = client.run(sql).rows
    assert rows is not None
    return tuple(rows.to_pylist()[0].values())


def test_eight_clients_of_mixed_statements(world: World) -> None:
    root = world.adbc()
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, w INT, v INT)")
    clients = [world.adbc() for _ in range(THREADS)]

    def work(w: int) -> None:
        client = clients[w]
        for i in range(12):
            key = w * 1000 + i
            client.run(f"INSERT INTO t VALUES ({key}, {w}, {i})")
            assert one(client, f"SELECT v FROM t WHERE id = {key}") == (i,)
            client.run(f"INSERT OR REPLACE INTO t VALUES ({key}, {w}, {i + 100})")
            assert one(client, f"SELECT count(*), sum(v) FROM t WHERE w = {w}")[0] == i + 1
            if i % 6 == 0:
                client.run("FLUSH TABLE t WAIT")
                client.run(f"CREATE TABLE own_{w}_{i} (PRIMARY KEY (id)) AS SELECT * FROM t WHERE w = {w}")
                client.run(f"ALTER TABLE own_{w}_{i} ADD COLUMN more INT DEFAULT {w}")
                assert one(client, f"SELECT count(*), min(more) FROM own_{w}_{i}") == (i + 1, w)
                client.run(f"DROP TABLE own_{w}_{i}")

    together(*[lambda w=w: work(w) for w in range(THREADS)])
    assert one(root, "SELECT count(*), count(DISTINCT id), sum(v) FROM t") == (96, 96, THREADS * sum(range(100, 112)))
    world.check()


def test_of_many_inserts_of_one_key_one_wins(world: World) -> None:
    world.adbc().run("CREATE TABLE t (id BIGINT PRIMARY KEY, w INT)")
    clients = [world.adbc() for _ in range(THREADS)]
    won: Counter[int] = Counter()
    start = threading.Barrier(THREADS)

    def work(w: int) -> None:
        for key in range(15):
            start.wait()
            try:
                clients[w].run(f"INSERT INTO t VALUES ({key}, {w})")
                won[key] += 1
            except Refused as e:
                assert e.sqlstate == "23505"

    together(*[lambda w=w: work(w) for w in range(THREADS)])
    assert won == dict.fromkeys(range(15), 1)


def test_readers_see_constants_while_rows_are_flushed_and_replaced(world: World) -> None:
    """Every statement keeps the sum; a reader that saw half of one, a row twice or not at all would see another."""
    root = world.adbc()
    with root.connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"id": list(range(2000)), "v": [1] * 2000}), mode="create")
    keyed = "CREATE TABLE k (PRIMARY KEY (id)) AS SELECT * FROM t"
    root.run(keyed)
    done = threading.Event()
    readers = [world.in_process(), world.adbc(), world.adbc()]
    writer, flusher = world.adbc(), world.adbc()
    seen: set[tuple[Any, ...]] = set()
    reads = 0

    def read(client: Adbc | InProcess) -> None:
        nonlocal reads
        while not done.is_set():
            seen.add(one(client, "SELECT count(*), count(DISTINCT id), sum(v) FROM k"))
            seen.add(one(client, "SELECT count(*), count(DISTINCT id), sum(v) FROM k WHERE id >= 0 AND v <> 7"))
            reads += 2

    def write() -> None:
        try:
            for i in range(15):
                # Moves 1 from one key to the next ones: the sum stays.
                changed = f"SELECT id, CASE WHEN id % 2 = {i % 2} THEN 0 ELSE 2 END FROM range(0, 2000) r(id)"
                assert writer.run(f"INSERT OR REPLACE INTO k {changed}").count == 2000
        finally:
            done.set()

    def flush() -> None:
        while not done.is_set():
            flusher.run("FLUSH TABLE k WAIT")

    together(write, flush, *[lambda c=c: read(c) for c in readers])
    assert seen == {(2000, 2000, 2000)} and reads > 10
    world.check()


def test_a_long_result_is_not_disturbed_by_what_happens_meanwhile(world: World) -> None:
    root = world.adbc()
    with root.connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"id": list(range(300_000))}), mode="create")
    world.flush()
    reading = world.adbc()
    with reading.connection.cursor() as cursor:
        cursor.execute("SELECT id FROM t")
        batches = cursor.fetch_record_batch()
        ids = [batches.read_next_batch().column(0)]
        with root.connection.cursor() as other:
            other.adbc_ingest("t", pa.table({"id": list(range(300_000, 310_000))}), mode="append")
        world.flush()
        root.run("ALTER TABLE t ADD COLUMN more INT DEFAULT 1")
        root.run("DROP TABLE t")
        ids += [b.column(0) for b in batches]
    assert sorted(pa.chunked_array(ids).to_pylist()) == list(range(300_000))


def test_sessions_are_each_their_own(world: World) -> None:
    a, b = world.adbc(), world.adbc()
    a.run("CREATE NAMESPACE n")
    a.run("USE n")
    a.run("SET TimeZone = 'Europe/Vienna'")
    assert one(a, "SELECT current_schema(), '2020-06-01 12:00:00+00'::TIMESTAMPTZ::TEXT") == ("n", "2020-06-01 14:00:00+02")
    assert one(b, "SELECT current_schema(), '2020-06-01 12:00:00+00'::TIMESTAMPTZ::TEXT") == ("main", "2020-06-01 12:00:00+00")
