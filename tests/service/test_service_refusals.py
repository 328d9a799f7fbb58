"""Bad input: one clear error each, with its SQLSTATE and without a traceback; nothing lost, nothing half done, and the service
goes on (SEMANTICS §1, §6; T-50)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kalam_world import Adbc, InProcess, Refused, World, refused

from flightkalam import failpoints
from flightkalam.config import Config
from flightkalam.errors import ConfigError

SECRET = "the-content-of-a-file"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("refusals")
    (made / "secret.csv").write_text(f"a\n{SECRET}\n")
    pq.write_table(pa.table({"a": [SECRET]}), made / "secret.parquet")
    return made


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    made = World(folder / "data")
    client = made.in_process()
    client.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v INT, s TEXT)")
    client.run("INSERT INTO t VALUES (1, 10, 'one'), (2, 20, 'two')")
    made.flush()
    client.run("INSERT INTO t VALUES (3, 30, 'three')")
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire(world: World) -> Adbc:
    return world.adbc()


@pytest.fixture(autouse=True)
def all_is_well_afterwards(world: World) -> Iterator[None]:
    yield
    failpoints.disarm()
    rows = world.in_process().run("SELECT sum(v) AS v, count(*) AS n FROM t").rows
    assert rows is not None and rows.to_pylist() == [{"v": 60, "n": 3}]


def refusal(run: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        run()
    assert SECRET not in caught.value.message
    return caught.value


NAMES_AND_TYPES = [
    ("SELECT * FROM nope", "42P01", 'table "nope" does not exist'),
    ("SELECT * FROM nope.t", "42P01", "nope.t"),
    ("SELECT nope FROM t", "42703", '"nope"'),
    ("SELECT t.nope FROM t", "42703", "nope"),
    ("SELECT x.v FROM t", "42", "x"),
    ("SELECT v FROM t, t AS u", "42702", "v"),
    ("SELECT nope(1)", "42883", "nope"),
    ("SELECT abs('a', 2, 3)", "42", "abs"),
    ("SELECT v + s FROM t WHERE s > [1]", "42", ""),
    ("SELECT CAST('abc' AS INT)", "22P02", "abc"),
    ("SELECT CAST(300 AS SMALLINT) * 300::SMALLINT", "22003", ""),
    ("SELECT 1 / 'x'", "22", ""),
    ("SELECT DATE 'never'", "22", "never"),
    ("SELECT (SELECT v FROM t)", "21000", ""),
    ("SELECT sum(v), s FROM t", "42", "s"),
    ("SELECT v FROM t GROUP BY s", "42", "v"),
    ("SELECT * FROM t ORDER BY nope", "42703", "nope"),
    ("SELECT * FROM t LIMIT -1", "42", "negative"),
    ("SELECT * FROM t UNION SELECT 1", "42", ""),
    ("SELECT error('my own words')", "22", "my own words"),
    ("SELECT", "42601", ""),
    ("SELEC 1", "42601", "SELEC"),
    ("SELECT 1 FROM", "42601", ""),
    ("SELECT 'unclosed", "42601", ""),
    ('SELECT "unclosed', "42601", ""),
    ("SELECT (1", "42601", ""),
    ("SELECT 1 /* unclosed", "42601", ""),
    ("   -- only a comment", "42601", ""),
    (";", "42601", ""),
    ("SELECT 1; SELECT 2", "42601", "one statement"),
    ("SELECT 1; DROP TABLE t", "42601", "one statement"),
    ("INSERT INTO t VALUES (9, 9, 'x'); DELETE FROM t", "42601", "one statement"),
    ("SELECT ?", "07001", "parameter"),
    ("SELECT 1 AS a FROM t WHERE v = $2", "07001", "parameter"),
    ("SELECT \0 1", "42601", ""),
    ("INSERT INTO t (id) VALUES (NULL)", "23502", "id"),
    ("INSERT INTO t VALUES (1, 2, 'x')", "23505", "(id) = (1)"),
    ("INSERT INTO t VALUES (4, 'x', 'x')", "22P02", "x"),
    ("INSERT INTO t SELECT id, s, v FROM t", "22P02", ""),
    ("INSERT INTO t (id, v) VALUES (4, 99999999999)", "22003", ""),
    ("INSERT INTO t (id, nope) VALUES (4, 1)", "42703", "nope"),
    ("INSERT INTO t (id) VALUES (4), (5, 6)", "42601", ""),
    ("CREATE TABLE t (id BIGINT PRIMARY KEY)", "42P07", "t"),
    ("ALTER TABLE t ALTER COLUMN v SET DATA TYPE SMALLINT", "0A000", "wider"),
]


@pytest.mark.parametrize(("sql", "sqlstate", "message"), NAMES_AND_TYPES, ids=lambda v: v[:50] if isinstance(v, str) else "")
def test_wrong_names_types_and_texts(wire, sql, sqlstate, message):
    caught = refusal(lambda: wire.run(sql))
    assert caught.sqlstate.startswith(sqlstate) and message in caught.message, caught


REACHING_OUT = [
    "SELECT * FROM read_csv('{csv}')",
    "SELECT * FROM read_csv_auto('{csv}')",
    "SELECT * FROM read_text('{csv}')",
    "SELECT * FROM read_blob('{csv}')",
    "SELECT * FROM read_parquet('{parquet}')",
    "SELECT * FROM parquet_scan('{parquet}')",
    "SELECT * FROM parquet_metadata('{parquet}')",
    "SELECT * FROM read_json('{csv}')",
    "SELECT * FROM '{parquet}'",
    'SELECT * FROM "{parquet}"',
    "SELECT * FROM '{csv}' AS x",
    "FROM '{parquet}'",
    "WITH a AS (SELECT * FROM '{parquet}') SELECT * FROM a",
    "SELECT (SELECT a FROM '{parquet}')",
    "SELECT * FROM t WHERE s IN (SELECT a FROM '{parquet}')",
    "SELECT * FROM t JOIN '{parquet}' p ON true",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM sniff_csv('{csv}')",
    "SELECT * FROM query('SELECT * FROM ''{parquet}''')",
    "SELECT * FROM query_table('t')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('memory_limit')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pragma_version()",
    "SELECT * FROM __kalam_x",
    "SELECT __kalam_snowflake_id(0)",
    "COPY t TO '{folder}/out.csv'",
    "COPY t FROM '{csv}'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/other.db' AS other",
    "DETACH other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA database_list",
    "PRAGMA table_info('t')",
    "CALL pragma_version()",
    "SET memory_limit = '1TB'",
    "SET enable_external_access = true",
    "SET GLOBAL threads = 1",
    "SET VARIABLE x = 1",
    "RESET memory_limit",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "CREATE MACRO m(a) AS a",
    "CREATE SECRET s (TYPE s3)",
    "CREATE SEQUENCE s",
    "CREATE TYPE mood AS ENUM ('a')",
    "CREATE FUNCTION f() AS 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "INSERT INTO t SELECT 9, 9, a FROM '{parquet}'",
    "INSERT INTO t SELECT 9, 9, content FROM read_text('{csv}')",
    "INSERT INTO t VALUES (9, 9, (SELECT a FROM '{parquet}'))",
    "CREATE TABLE x AS SELECT * FROM '{parquet}'",
    "CREATE VIEW x AS SELECT * FROM '{parquet}'",
    "CREATE TABLE x (id BIGINT PRIMARY KEY, s TEXT DEFAULT (SELECT a FROM '{parquet}'))",
    "CREATE TABLE x (id BIGINT PRIMARY KEY, CHECK (id IN (SELECT 1 FROM '{parquet}')))",
    "ALTER TABLE t ADD COLUMN x TEXT DEFAULT (SELECT a FROM '{parquet}')",
    "EXPLAIN SELECT * FROM '{parquet}'",
    "EXPLAIN ANALYZE SELECT * FROM read_csv('{csv}')",
    "DESCRIBE SELECT * FROM '{parquet}'",
    "UPDATE t SET s = (SELECT a FROM '{parquet}')",
    "DELETE FROM t WHERE s = (SELECT a FROM read_csv('{csv}'))",
]


@pytest.mark.parametrize("template", REACHING_OUT, ids=lambda t: t[:60])
def test_what_reaches_files_settings_or_the_engine_is_refused(wire, folder, template):
    sql = template.format(csv=folder / "secret.csv", parquet=folder / "secret.parquet", folder=folder)
    caught = refusal(lambda: wire.run(sql))
    assert caught.sqlstate in ("0A000", "42P01", "42601", "42883"), caught
    assert not list(folder.glob("out*")) and not list(folder.glob("other*"))
    refusal(lambda: wire.run("SELECT * FROM x"))


def test_not_even_the_files_of_a_table_are_readable_past_it(world, wire):
    files = list(world.data_dir.rglob("*.parquet"))
    assert files
    for file in files:
        for sql in (f"SELECT * FROM '{file}'", f"SELECT * FROM read_parquet('{file}')", f"SELECT * FROM read_text('{file}')"):
            assert refusal(lambda sql=sql: wire.run(sql)).sqlstate == "0A000"


GREEDY = [
    "SELECT repeat('x', 2000000000)",
    "SELECT repeat(s, v * 100000000) FROM t",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT format('{:>2000000000}', 'x')",
    "SELECT printf('%2000000000d', 1)",
    "SELECT range(2000000000)",
    "SELECT unnest(range(2000000000))",
    "SELECT list_resize([1], 2000000000)",
]


@pytest.mark.parametrize("sql", GREEDY)
def test_little_that_would_make_much_is_refused_before_it_runs(wire, sql):
    assert refusal(lambda: wire.run(sql)).sqlstate in ("54000", "22023", "0A000", "42000", "22003")


def test_an_empty_text(world):
    """A client library does not even send it."""
    assert refusal(lambda: world.in_process().run("")).sqlstate == "42601"


class TestLargeTexts:
    def test_5_mb_of_sql_are_refused(self, wire):
        caught = refusal(lambda: wire.run("SELECT '" + "x" * 5_000_000 + "'"))
        assert caught.sqlstate in ("54000", "22023") and "the limit is 1,000,000" in caught.message

    def test_a_refusal_does_not_repeat_a_large_text(self, wire):
        caught = refusal(lambda: wire.run("SELECT " + "nope_" * 150_000))
        assert len(caught.message) < 3_000

    def test_deep_nesting(self, wire):
        for sql in (
            "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
            "SELECT " + "NOT " * 20_000 + "true",
            "SELECT " + "+ " * 50_000 + "1",
        ):
            caught = refusal(lambda sql=sql: wire.run(sql))
            assert caught.sqlstate in ("54001", "42601", "54000"), caught

    def test_many_values_in_a_list_are_fine(self, wire):
        numbers = ", ".join(map(str, range(2_000)))
        assert wire.run(f"SELECT count(*) AS n FROM t WHERE id IN ({numbers})").rows.column("n").to_pylist() == [3]


class TestParameters:
    @pytest.mark.parametrize(
        ("sql", "values", "sqlstate"),
        [
            ("SELECT * FROM t WHERE id = ?", (), "07001"),
            ("SELECT * FROM t WHERE id = ?", (1, 2), "07001"),
            ("SELECT * FROM t WHERE id = ?", ("abc",), "22P02"),
            ("SELECT * FROM ?", ("t",), "42601"),
            ("INSERT INTO t VALUES (?, ?, ?)", (1, 1, "x"), "23505"),
            ("INSERT INTO t VALUES (?, ?, ?)", (None, 1, "x"), "23502"),
            ("INSERT INTO t VALUES (?, ?, ?)", (9, "abc", "x"), "22"),
            ("INSERT INTO t VALUES (?, ?, ?)", (9, 1 << 40, "x"), "22003"),
            ("INSERT INTO t VALUES (?, ?)", (9, 1), "42601"),
        ],
    )
    def test_wrong_ones(self, wire, sql, values, sqlstate):
        with wire.connection.cursor() as cursor:
            with pytest.raises(Exception) as caught:
                cursor.execute(sql, values)
                cursor.fetchall()
            assert refused(caught.value).sqlstate.startswith(sqlstate), caught.value

    def test_a_bad_row_among_many_writes_none(self, wire):
        with wire.connection.cursor() as cursor, pytest.raises(Exception, match="23505"):
            cursor.executemany("INSERT INTO t VALUES (?, ?, ?)", [(100, 1, "a"), (101, 1, "b"), (3, 1, "c")])

    def test_a_value_is_never_read_as_sql(self, wire):
        with wire.connection.cursor() as cursor:
            cursor.execute("SELECT ? AS a, ? AS b FROM t WHERE s = ?", ("'; DROP TABLE t; --", "\\'\"$1 ?", "one' OR '1'='1"))
            assert cursor.fetchall() == []
            cursor.execute("SELECT ? AS a", ("'; DROP TABLE t; --\0",))
            assert cursor.fetchall() == [("'; DROP TABLE t; --\0",)]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("server.prot", 1, "server.port"),
            ("sever.port", 1, "sever"),
            ("server.port", 70_000, "65,535"),
            ("server.port", "many", "integer"),
            ("flush.check_interval_seconds", 0, "1"),
            ("engine.memory_limit", "lots", "%"),
            ("storage.durability", "maybe", "sync"),
            ("server.host", "0.0.0.0", "TLS"),
        ],
    )
    def test_a_bad_key_stops_the_start_and_is_named(self, key, value, said):
        with pytest.raises(ConfigError) as caught:
            Config.load(None, {key: value}, environ={})
        assert key in caught.value.message and said in caught.value.message

    def test_the_environment_too(self):
        with pytest.raises(ConfigError, match="FLIGHTKALAM__SERVER__PROT"):
            Config.load(None, {}, environ={"FLIGHTKALAM__SERVER__PROT": "1"})


class TestFullDisk:
    """T-16: what cannot be written is refused, what was there stays, and work goes on once there is room."""

    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        real = os.statvfs

        def no_room(path: object) -> os.statvfs_result:
            found = list(real(path))  # type: ignore[call-overload]
            found[4] = 10  # f_bavail
            return os.statvfs_result(found)

        monkeypatch.setattr(os, "statvfs", no_room)
        return monkeypatch.undo

    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO t VALUES (50, 1, 'x')",
            "INSERT OR REPLACE INTO t VALUES (1, 1, 'x')",
            "CREATE TABLE fresh (id BIGINT PRIMARY KEY)",
            "CREATE TABLE fresh AS SELECT * FROM t",
            "ALTER TABLE t ADD COLUMN more INT",
            "UPDATE t SET v = v + 1",
        ],
    )
    def test_a_write_is_refused_before_it_begins(self, wire, full, sql):
        caught = refusal(lambda: wire.run(sql))
        assert caught.sqlstate == "53100" and "full" in caught.message
        assert wire.run("SELECT count(*) AS n FROM t").rows.column("n").to_pylist() == [3]
        full()
        refusal(lambda: wire.run("SELECT * FROM fresh"))

    def test_an_ingest(self, world, wire, full):
        rows = pa.table({"id": list(range(100, 200_000)), "v": [1] * 199_900})
        with wire.connection.cursor() as cursor, pytest.raises(Exception) as caught:
            cursor.adbc_ingest("t", rows, mode="append")
        assert refused(caught.value).sqlstate == "53100"
        full()
        assert world.stray_files() == []

    @pytest.mark.parametrize("place", ["file.before_sync", "file.before_rename"])
    def test_a_flush_fails_and_the_next_one_succeeds(self, world, place):
        root = InProcess(world.session())
        root.run("CREATE TABLE IF NOT EXISTS flushed (id BIGINT PRIMARY KEY, s TEXT)")
        root.run("INSERT OR REPLACE INTO flushed SELECT i, repeat('x', 100) FROM range(1000) r(i)")

        def no_room() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        failpoints.arm(place, no_room)
        assert refusal(lambda: root.run("FLUSH TABLE flushed WAIT")).sqlstate == "53100"
        failpoints.disarm()
        assert world.stray_files() == []
        job = root.run("SELECT status, error FROM system.jobs WHERE status = 'failed'").rows.to_pylist()[0]
        assert "full" in job["error"]
        assert root.run("SELECT count(*) AS n FROM flushed").rows.column("n").to_pylist() == [1000]
        root.run("FLUSH TABLE flushed WAIT")
        assert root.run("SELECT count(*) AS n FROM flushed").rows.column("n").to_pylist() == [1000]
        world.check()
        root.run("DROP TABLE flushed")
