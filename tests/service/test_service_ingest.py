"""Bulk ingest as an ADBC client does it: modes, headers, columns by name, and that a failing one leaves nothing (SEMANTICS §1)."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from kalam_world import Adbc, Client, Refused, World, refused

from flightkalam import failpoints
from flightkalam.auth.identity import Role
from flightkalam.errors import DiskFull, InternalError

_names = (f"t{i}" for i in itertools.count())
ABC = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
NO_ROWS = pa.record_batch({"a": pa.array([], pa.int64()), "b": pa.array([], pa.utf8())})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # A small threshold, so that rows of these tests go both ways: through the log and through a segment file.
    made = World(tmp_path_factory.mktemp("ingest"), {"storage": {"hot_stage_bytes": 64 << 10}})
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire(world: World) -> Adbc:
    return world.adbc()


@pytest.fixture
def name() -> str:
    return next(_names)


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def ingest(client: Adbc, table: str, rows: Any, mode: str = "create", **options: Any) -> int:
    with client.connection.cursor() as cursor:
        try:
            return cursor.adbc_ingest(table, rows, mode=mode, **options)
        except Exception as e:
            raise refused(e) from None


def rows_of(client: Client, sql: str) -> list[tuple[Any, ...]]:
    found = client.run(sql).rows
    assert found is not None
    return [tuple(r.values()) for r in found.to_pylist()]


def refuses(sqlstate: str, message: str, run: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        run()
    assert caught.value.sqlstate == sqlstate and message in caught.value.message


class TestModes:
    def test_create_makes_a_table_with_a_hidden_key(self, wire, name):
        assert ingest(wire, name, ABC) == 3
        assert rows_of(wire, f"SELECT * FROM {name} ORDER BY a") == [(1, "x"), (2, None), (3, "z")]
        assert rows_of(wire, f"SELECT count(DISTINCT _id) FROM {name}") == [(3,)]

    def test_create_refuses_a_table_that_exists(self, wire, name):
        ingest(wire, name, ABC)
        refuses("42P07", "already exists", lambda: ingest(wire, name, ABC))
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(3,)]

    def test_append_needs_a_table(self, wire, name):
        refuses("42P01", name, lambda: ingest(wire, name, ABC, "append"))
        ingest(wire, name, ABC)
        assert ingest(wire, name, ABC, "append") == 3
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(6,)]

    def test_create_append_does_either(self, wire, name):
        assert ingest(wire, name, ABC, "create_append") == 3
        assert ingest(wire, name, ABC, "create_append") == 3
        assert rows_of(wire, f"SELECT count(*), count(DISTINCT a) FROM {name}") == [(6, 3)]

    def test_replace_makes_a_new_table_whatever_was_there(self, wire, name):
        assert ingest(wire, name, ABC, "replace") == 3
        assert ingest(wire, name, pa.table({"other": [1.5]}), "replace") == 1
        assert rows_of(wire, f"SELECT * FROM {name}") == [(1.5,)]

    def test_a_stream_of_no_rows_makes_an_empty_table(self, wire, name):
        # A client that has no batch sends nothing at all, not even a schema; so one of no rows.
        assert ingest(wire, name, NO_ROWS) == 0
        assert rows_of(wire, f"SELECT * FROM {name}") == []
        assert ingest(wire, name, NO_ROWS, "append") == 0

    def test_names_of_a_namespace_and_the_catalog(self, wire, name):
        wire.run(f"CREATE NAMESPACE ns_{name}")
        ingest(wire, "t", ABC, db_schema_name=f"ns_{name}", catalog_name="flightkalam")
        assert rows_of(wire, f"SELECT count(*) FROM ns_{name}.t") == [(3,)]
        refuses("3F000", "nowhere", lambda: ingest(wire, "t", ABC, db_schema_name="nowhere"))

    def test_names_match_without_regard_to_case(self, wire, name):
        ingest(wire, name.upper(), ABC)
        ingest(wire, name, ABC.rename_columns(["A", "B"]), "append")
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(6,)]

    def test_what_is_no_table(self, wire, name):
        wire.run(f"CREATE VIEW {name} AS SELECT 1 AS a")
        for mode in ("append", "replace"):
            refuses("42809", "view", lambda mode=mode: ingest(wire, name, ABC, mode))
        refuses("42P01", "", lambda: ingest(wire, "tables", ABC, "append", db_schema_name="system"))
        refuses("3F000", "", lambda: ingest(wire, "mine", ABC, "create", db_schema_name="system"))
        refuses("0A000", "temporary", lambda: ingest(wire, f"{name}x", ABC, temporary=True))

    def test_replace_is_one_swap_that_readers_see_whole(self, world, wire, name):
        ingest(wire, name, pa.table({"v": [0] * 1000}))
        world.flush()
        reader, ingesting, seen = world.in_process(), world.adbc(), set()

        def replace_often() -> None:
            for i in range(1, 15):
                ingest(ingesting, name, pa.table({"v": [i] * (1000 + i)}), "replace")

        thread = threading.Thread(target=replace_often)
        thread.start()
        while thread.is_alive():
            seen.add(rows_of(reader, f"SELECT count(*), min(v), max(v) FROM {name}")[0])
        thread.join()
        assert len(seen) > 1 and seen <= {(1000 + i, i, i) for i in range(15)}


class TestHeaders:
    def test_a_stated_key_is_the_tables_key(self, world, wire, name):
        keyed = world.adbc(x_kalam_primary_key="a, B")
        rows = pa.table({"a": [1, 1], "b": ["x", "y"], "v": [1, 2]})
        assert ingest(keyed, name, rows) == 2
        assert [r[:4] for r in rows_of(wire, f"DESCRIBE {name}")] == [
            ("a", "BIGINT", "NO", "PRI"),
            ("b", "TEXT", "NO", "PRI"),
            ("v", "BIGINT", "YES", None),
        ]
        refuses("23505", "(a, b) = (1, 'x')", lambda: ingest(wire, name, rows, "append"))
        assert ingest(keyed, name, rows.set_column(0, "a", [[5, 6]]), "append") == 2

    def test_a_key_that_cannot_be(self, world, name):
        for header, sqlstate, message in (("nope", "42703", "nope"), ("f", "42P16", "DOUBLE"), ("a,a", "42701", "a")):
            client = world.adbc(x_kalam_primary_key=header)
            rows = pa.table({"a": [1], "f": [1.5]})
            refuses(sqlstate, message, lambda c=client, r=rows: ingest(c, name, r))
        assert rows_of(world.adbc(), f"SELECT count(*) FROM information_schema.tables WHERE table_name = '{name}'") == [(0,)]

    def test_another_key_than_the_tables_is_refused_on_append(self, world, wire, name):
        ingest(world.adbc(x_kalam_primary_key="a"), name, ABC)
        refuses("22023", "primary key", lambda: ingest(world.adbc(x_kalam_primary_key="b"), name, ABC, "append"))

    @pytest.mark.parametrize("cold", [False, True])
    def test_on_conflict(self, world, wire, name, cold):
        ingest(world.adbc(x_kalam_primary_key="a"), name, ABC)
        if cold:
            world.flush()
        more = pa.table({"a": [3, 4], "b": ["new", "new"]})
        refuses("23505", "(a) = (3)", lambda: ingest(wire, name, more, "append"))
        refuses("23505", "(a) = (3)", lambda: ingest(world.adbc(x_kalam_on_conflict="error"), name, more, "append"))
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(3,)]
        assert ingest(world.adbc(x_kalam_on_conflict="ignore"), name, more, "append") == 1
        assert rows_of(wire, f"SELECT b FROM {name} WHERE a >= 3 ORDER BY a") == [("z",), ("new",)]
        assert ingest(world.adbc(x_kalam_on_conflict="UPDATE"), name, more, "append") == 2
        assert rows_of(wire, f"SELECT b FROM {name} WHERE a >= 3 ORDER BY a") == [("new",), ("new",)]
        refuses("22023", "x-kalam-on-conflict", lambda: ingest(world.adbc(x_kalam_on_conflict="what"), name, more, "append"))

    def test_a_key_twice_in_one_stream_over_several_batches(self, world, wire, name):
        """T-24."""
        reader = pa.Table.from_batches(
            [pa.record_batch({"a": [1, 2], "b": ["1st", "1st"]}), pa.record_batch({"a": [3, 1], "b": ["2nd", "2nd"]})]
        )
        keyed = world.adbc(x_kalam_primary_key="a")
        refuses("23505", "(a) = (1)", lambda: ingest(keyed, name, reader))
        refuses("42P01", name, lambda: wire.run(f"SELECT * FROM {name}"))
        ingest(keyed, name, NO_ROWS)
        ingest(world.adbc(x_kalam_on_conflict="update"), name, reader, "append")
        assert rows_of(wire, f"SELECT b FROM {name} WHERE a = 1") == [("2nd",)]
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(3,)]

    def test_the_type_of_a_new_table(self, world, wire, name):
        ingest(wire, f"{name}s", ABC)
        ingest(world.adbc(x_kalam_table_type="user"), f"{name}u", ABC)
        ann = world.adbc("ann", Role.USER)
        ingest(ann, f"{name}a", ABC)
        types = rows_of(wire, f"SELECT table_type FROM system.tables WHERE table_name LIKE '{name}_' ORDER BY table_name")
        assert types == [("USER",), ("SHARED",), ("USER",)]
        assert rows_of(ann, f"SELECT count(*) FROM {name}a") == [(3,)]
        assert rows_of(wire, f"SELECT count(*) FROM {name}a") == [(0,)]
        refuses("22023", "x-kalam-table-type", lambda: ingest(world.adbc(x_kalam_table_type="x"), f"{name}z", ABC))
        shared = world.adbc("ann", Role.USER, x_kalam_table_type="SHARED")
        refuses("42501", "create", lambda: ingest(shared, f"{name}z", ABC))
        refuses("42P01", name, lambda: ingest(ann, f"{name}s", ABC, "append"))

    def test_replace_needs_the_right_to_create(self, world, wire, name):
        wire.run(f"CREATE TABLE {name} (a BIGINT PRIMARY KEY, b TEXT) WITH (ACCESS_LEVEL='PUBLIC')")
        ann = world.adbc("ann", Role.USER)
        refuses("42501", "", lambda: ingest(ann, name, ABC, "replace"))
        refuses("42501", "", lambda: ingest(ann, name, ABC, "append"))
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(0,)]


class TestColumns:
    def test_they_match_by_name_in_any_order(self, wire, name):
        wire.run(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, a INT, b TEXT)")
        ingest(wire, name, pa.table({"b": ["x"], "id": [1], "A": [7]}), "append")
        assert rows_of(wire, f"SELECT * FROM {name}") == [(1, 7, "x")]

    def test_missing_ones_take_default_or_null(self, wire, name):
        wire.run(
            f"CREATE TABLE {name} (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), a INT DEFAULT 41 + 1, b TEXT, "
            "u TEXT DEFAULT CURRENT_USER, l TEXT DEFAULT ULID(), d DATE DEFAULT '2020-02-29')"
        )
        ingest(wire, name, pa.table({"b": ["x", "y"]}), "append")
        assert rows_of(wire, f"SELECT a, b, u, d, length(l) FROM {name} ORDER BY b") == [
            (42, "x", "root", dt.date(2020, 2, 29), 26),
            (42, "y", "root", dt.date(2020, 2, 29), 26),
        ]
        assert rows_of(wire, f"SELECT count(DISTINCT id), count(DISTINCT l) FROM {name}") == [(2, 2)]

    @pytest.mark.parametrize(
        ("rows", "sqlstate", "message"),
        [
            (pa.table({"id": [1], "nope": [1]}), "42703", "nope"),
            (pa.table([[1], [1]], names=["id", "ID"]), "42701", "ID"),
            (pa.table({"id": [1], "_seq": [1]}), "428C9", "_seq"),
            (pa.table({"id": [1], "_DELETED": [True]}), "428C9", "_DELETED"),
            (pa.table({"a": [1]}), "23502", "id"),
            (pa.table({"id": pa.array([None], pa.int64())}), "23502", "id"),
            (pa.table({"id": [1], "must": pa.array([None], pa.utf8())}), "23502", "must"),
            (pa.table({"id": ["abc"]}), "22", "id"),
            (pa.table({"id": [1.5]}), "22", "id"),
            (pa.table({"id": [1], "a": [1 << 40]}), "22003", "a"),
            (pa.table({"id": [1], "dec": [Decimal("1.234")]}), "22", "dec"),
            (pa.table({"id": [1], "ts": pa.array([1001], pa.timestamp("ns"))}), "22", "ts"),
            (pa.table({"id": [1], "a": [{"x": 1}]}), "42804", "a"),
            (pa.table({"id": [1], "v": [7]}), "23514", "v <> 7"),
        ],
        ids=lambda v: ",".join(v.column_names) if isinstance(v, pa.Table) else v,
    )
    def test_what_does_not_fit_is_refused_and_nothing_written(self, wire, name, rows, sqlstate, message):
        wire.run(
            f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, a INT, must TEXT NOT NULL DEFAULT 'm', dec DECIMAL(9,2), "
            "ts TIMESTAMP, tz TIMESTAMPTZ, v INT CHECK (v <> 7))"
        )
        with pytest.raises(Refused) as caught:
            ingest(wire, name, rows, "append")
        assert caught.value.sqlstate.startswith(sqlstate) and message in caught.value.message, caught.value
        assert rows_of(wire, f"SELECT count(*) FROM {name}") == [(0,)]

    def test_what_fits_without_loss_is_taken(self, wire, name):
        wire.run(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, a INT, dec DECIMAL(9,2), ts TIMESTAMP, f DOUBLE, t TEXT)")
        rows = pa.table(
            {
                "id": pa.array([1, 2], pa.int16()),
                "a": pa.array([1, 2], pa.uint8()),
                "dec": pa.array([Decimal("1.5000"), None]),
                "ts": pa.array([1_000, 2_000_000], pa.timestamp("ns")),
                "f": pa.array([1, 2], pa.int32()),
                "t": pa.array(["x", "y"]).dictionary_encode(),
            }
        )
        ingest(wire, name, rows, "append")
        assert rows_of(wire, f"SELECT id, a, dec, epoch_us(ts), f, t FROM {name} ORDER BY id") == [
            (1, 1, Decimal("1.50"), 1, 1.0, "x"),
            (2, 2, None, 2000, 2.0, "y"),
        ]

    @pytest.mark.parametrize(
        ("array", "type_"),
        [
            (pa.array([1], pa.uint64()), "DECIMAL(20,0)"),
            (pa.array([1], pa.uint32()), "BIGINT"),
            (pa.array([1], pa.int8()), "SMALLINT"),
            (pa.array(["x"], pa.large_utf8()), "TEXT"),
            (pa.array(["x"], pa.string_view()), "TEXT"),
            (pa.array(["x", "x"]).dictionary_encode(), "TEXT"),
            (pa.array([b"x"], pa.binary(1)), "BLOB"),
            (pa.array([1], pa.timestamp("s")), "TIMESTAMP"),
            (pa.array([1], pa.timestamp("ms", "Europe/Vienna")), "TIMESTAMPTZ"),
            (pa.array([86_400_000], pa.date64()), "DATE"),
            (pa.array([1], pa.time32("s")), "TIME"),
            (pa.array([[1, 2]], pa.large_list(pa.int64())), "BIGINT[]"),
            (pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)), "DOUBLE[]"),
            (pa.array([None], pa.null()), "TEXT"),
            (pa.array([1.5], pa.float16()), "REAL"),
        ],
        ids=lambda v: str(v.type) if isinstance(v, pa.Array) else v,
    )
    def test_every_form_of_arrow_finds_a_type(self, world, wire, name, array, type_):
        rows = pa.table({"v": array})
        ingest(wire, name, rows)
        assert [r[1] for r in rows_of(wire, f"DESCRIBE {name}")] == [type_]
        before = rows_of(wire, f"SELECT v::TEXT FROM {name}")
        world.flush()
        assert rows_of(wire, f"SELECT v::TEXT FROM {name}") == before

    @pytest.mark.parametrize("type_", [pa.decimal256(50, 2), pa.map_(pa.utf8(), pa.int64()), pa.duration("us")], ids=str)
    def test_a_type_that_no_column_has_is_refused_by_name(self, wire, name, type_):
        rows = pa.table({"odd": pa.nulls(1, type_)})
        refuses("42704", "odd", lambda: ingest(wire, name, rows))
        refuses("42P01", name, lambda: wire.run(f"SELECT * FROM {name}"))

    def test_names_that_cannot_be(self, wire, name):
        refuses("42939", "_id", lambda: ingest(wire, name, pa.table({"_id": [1]})))
        refuses("42602", "", lambda: ingest(wire, name, pa.table([[1]], names=[""])))
        refuses("42701", "", lambda: ingest(wire, name, pa.table([[1], [2]], names=["x", "X"])))


class TestLargeOnes:
    """Beyond the threshold rows go to a segment file, which one small entry of the log names."""

    ROWS = pa.table({"a": list(range(40_000)), "b": [f"text {i}" for i in range(40_000)]})

    def test_rows_in_many_batches_arrive_whole(self, world, wire, name):
        assert ingest(wire, name, self.ROWS.to_reader(1_000)) == 40_000
        assert rows_of(wire, f"SELECT count(*), sum(a), count(DISTINCT b) FROM {name}") == [(40_000, 799_980_000, 40_000)]
        world.flush()
        assert rows_of(wire, f"SELECT count(*), sum(a), count(DISTINCT b) FROM {name}") == [(40_000, 799_980_000, 40_000)]
        assert world.stray_files() == []

    @pytest.mark.parametrize("bad", ["the last row", "a key of another commit", "a broken stream"])
    def test_a_failure_at_the_end_leaves_nothing(self, world, wire, name, bad):
        keyed = world.adbc(x_kalam_primary_key="a")
        ingest(keyed, name, pa.table({"a": [-1], "b": ["there"]}))
        batches = self.ROWS.to_batches(1_000)
        if bad == "the last row":
            batches.append(pa.record_batch({"a": [5], "b": ["twice"]}))
        elif bad == "a key of another commit":
            batches.append(pa.record_batch({"a": [-1], "b": ["taken"]}))

        def stream() -> Iterator[pa.RecordBatch]:
            yield from batches
            if bad == "a broken stream":
                raise ValueError("the client's own trouble")

        with pytest.raises(Exception):
            ingest(wire, name, pa.RecordBatchReader.from_batches(self.ROWS.schema, stream()), "append")
        _settled(world)
        assert rows_of(wire, f"SELECT * FROM {name}") == [(-1, "there")]
        assert world.stray_files() == []

    @pytest.mark.parametrize("mode", ["create", "append", "replace"])
    @pytest.mark.parametrize("place", ["segment.add", "file.before_sync", "file.before_rename", "segment.published"])
    @pytest.mark.parametrize("error", [DiskFull("the data disk is full"), InternalError("no such luck", sqlstate="58030")])
    def test_a_failing_disk_leaves_what_was(self, world, wire, name, mode, place, error):
        """T-16."""
        if mode != "create":
            ingest(wire, name, ABC)

        def fail() -> None:
            raise error

        failpoints.arm(place, fail)
        refuses(error.sqlstate, error.message, lambda: ingest(wire, name, self.ROWS, mode))
        failpoints.disarm()
        if mode == "create":
            refuses("42P01", name, lambda: wire.run(f"SELECT * FROM {name}"))
        else:
            assert rows_of(wire, f"SELECT * FROM {name} ORDER BY a") == [(1, "x"), (2, None), (3, "z")]
        assert world.stray_files() == []
        assert ingest(wire, name, self.ROWS, "replace") == 40_000
        wire.run(f"DROP TABLE {name}")


def _settled(world: World) -> None:
    """A stream that a client breaks off ends in the server a moment later."""
    deadline = time.monotonic() + 5
    while world.stray_files() and time.monotonic() < deadline:
        time.sleep(0.02)
