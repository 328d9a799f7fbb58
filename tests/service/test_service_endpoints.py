"""What a ticket is good for: results in parts of one snapshot, restarts, other connections, and changes that happen once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from kalam_world import ROOT_PASSWORD, World

from flightkalam.auth.identity import Role
from flightkalam.flight import commands
from flightkalam.flight import flight_sql_pb2 as pb

ROWS, BATCHES = 4_000, 4
Options = flight.FlightCallOptions


def fill(world: World, *, dead: bool = True) -> None:
    """A table of four batches, some of whose rows are dead, and a few hot rows."""
    root = world.in_process()
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")
    step = ROWS // BATCHES
    for start in range(0, ROWS, step):
        root.run(f"INSERT INTO t SELECT range, 'v' || range FROM range({start}, {start + step})")
        world.flush()
    if dead:
        root.run("DELETE FROM t WHERE id % 10 = 0")
    root.run("INSERT INTO t VALUES (-1, 'hot'), (-2, 'hot')")


EXPECTED = sorted([-1, -2, *(n for n in range(ROWS) if n % 10)])


class Wire:
    """A bare Flight connection."""

    def __init__(self, world: World, user: str = "root", password: str = ROOT_PASSWORD, **headers: str) -> None:
        self.client = flight.connect(world.uri)
        more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.options = Options(headers=[self.client.authenticate_basic_token(user, password), *more])

    def info(self, sql: str) -> flight.FlightInfo:
        return self.client.get_flight_info(flight.FlightDescriptor.for_command(commands.encode_statement(sql)), self.options)

    def get(self, ticket: flight.Ticket) -> pa.Table:
        return self.client.do_get(ticket, self.options).read_all()

    def act(self, type_: str, body: bytes) -> list[bytes]:
        return [r.body.to_pybytes() for r in self.client.do_action(flight.Action(type_, body), self.options)]

    def renew(self, endpoint: flight.FlightEndpoint) -> flight.FlightEndpoint:
        message = pb.FlightEndpoint.FromString(endpoint.serialize())
        (body,) = self.act("RenewFlightEndpoint", pb.RenewFlightEndpointRequest(endpoint=message).SerializeToString())
        return flight.FlightEndpoint.deserialize(body)

    def cancel(self, info: flight.FlightInfo) -> None:
        message = pb.FlightInfo.FromString(info.serialize())
        self.act("CancelFlightInfo", pb.CancelFlightInfoRequest(info=message).SerializeToString())


@pytest.fixture
def wire(world: World) -> Iterator[Callable[..., Wire]]:
    made: list[Wire] = []

    def connect(*args: str, **headers: str) -> Wire:
        made.append(Wire(world, *args, **headers))
        return made[-1]

    yield connect
    for each in made:
        each.client.close()


def ids(tables: list[pa.Table]) -> list[int]:
    return sorted(n for table in tables for n in table.column("id").to_pylist())


class TestParts:
    def test_without_asking_a_result_is_one_part(self, world, wire):
        fill(world)
        info = wire().info("SELECT * FROM t")
        assert len(info.endpoints) == 1 and info.endpoints[0].expiration_time is None

    @pytest.mark.parametrize("most", [2, 3, 100])
    def test_the_parts_together_are_the_rows_each_once(self, world, wire, most):
        fill(world)
        one = wire(x_kalam_partitions=str(most))
        info = one.info("SELECT id, v || '!' AS w FROM t")
        assert len(info.endpoints) == min(most, BATCHES + 1)
        assert info.total_records == len(EXPECTED)
        parts = [one.get(endpoint.ticket) for endpoint in info.endpoints]
        assert all(part.schema.equals(info.schema) and part.num_rows for part in parts)
        assert ids(parts) == EXPECTED

    def test_a_condition_holds_in_every_part_and_the_total_is_not_known(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="4")
        info = one.info("SELECT id FROM t WHERE id > 500 AND id < 3500")
        assert info.total_records == -1 and len(info.endpoints) > 1
        assert ids([one.get(e.ticket) for e in info.endpoints]) == [n for n in EXPECTED if 500 < n < 3500]

    def test_all_parts_are_of_one_moment(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="5")
        info = one.info("SELECT id, v FROM t")
        first = one.get(info.endpoints[0].ticket)
        root = world.in_process()
        for text in ("DELETE FROM t WHERE id < 2000", "UPDATE t SET v = 'new'", "INSERT INTO t VALUES (-3, 'late')"):
            root.run(text)
        world.flush()
        root.run("COMPACT TABLE t WAIT")
        parts = [first, *(one.get(e.ticket) for e in info.endpoints[1:])]
        assert ids(parts) == EXPECTED
        assert "new" not in {v for part in parts for v in part.column("v").to_pylist()}
        assert ids([one.get(e.ticket) for e in info.endpoints]) == EXPECTED, "and may be read again"

    def test_another_connection_of_the_same_user_reads_them_and_nobody_else(self, world, wire):
        fill(world)
        info = wire(x_kalam_partitions="3").info("SELECT id FROM t")
        assert ids([wire().get(e.ticket) for e in info.endpoints]) == EXPECTED
        world.user("dba", Role.DBA)
        with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
            wire("dba", "secret-of-dba").get(info.endpoints[0].ticket)

    def test_adbc_reads_partitions_on_another_connection(self, world):
        fill(world)
        asking = world.adbc(x_kalam_partitions="4").connection.cursor()
        partitions, schema = asking.adbc_execute_partitions("SELECT id FROM t")
        assert len(partitions) == 4 and schema.names == ["id"]
        found: list[pa.Table] = []
        for partition in partitions:
            with world.adbc().connection.cursor() as cursor:
                cursor.adbc_read_partition(partition)
                found.append(cursor.fetch_arrow_table())
        assert ids(found) == EXPECTED

    def test_a_client_that_asks_for_parts_by_its_session_gets_all_rows_of_an_ordinary_query(self, world):
        fill(world)
        adbc = world.adbc()
        options = {"adbc.flight.sql.session.option.partitions": "4"}
        adbc.connection.adbc_connection.set_options(**options)
        assert ids([adbc.run("SELECT id FROM t").rows]) == EXPECTED

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT count(*) AS id FROM t",
            "SELECT DISTINCT id FROM t",
            "SELECT id FROM t ORDER BY id",
            "SELECT id FROM t LIMIT 5",
            "SELECT max(id) AS id FROM t GROUP BY v",
            "SELECT row_number() OVER () AS id FROM t",
            "SELECT a.id FROM t a JOIN t b ON a.id = b.id",
            "SELECT id FROM t UNION ALL SELECT id FROM t",
            "SELECT id FROM t WHERE id = (SELECT max(id) FROM t)",
            "WITH x AS (SELECT id FROM t) SELECT id FROM x",
            "SELECT unnest([id, id]) AS id FROM t",
            "SELECT id, now() AS at FROM t",
            "SELECT id, random() AS r FROM t",
            "SELECT id FROM several",
            "SELECT id FROM t TABLESAMPLE 10 ROWS",
            "SELECT range AS id FROM range(10)",
            "SELECT 1 AS id",
        ],
    )
    def test_what_needs_rows_together_is_one_part(self, world, wire, sql):
        fill(world, dead=False)
        world.in_process().run("CREATE VIEW several AS SELECT count(*) AS id FROM t")
        assert len(wire(x_kalam_partitions="4").info(sql).endpoints) == 1

    def test_in_a_transaction_a_result_is_one_part(self, world):
        fill(world)
        client = world.adbc(x_kalam_partitions="4")
        client.run("BEGIN")
        client.run("INSERT INTO t VALUES (-5, 'mine')")
        assert ids([client.run("SELECT id FROM t").rows]) == [-5, *EXPECTED]
        client.run("ROLLBACK")

    @pytest.mark.parametrize("number", ["0", "257", "x", "-1", "1e9", "9" * 500])
    def test_a_number_that_is_none_is_refused(self, wire, number):
        with pytest.raises(pa.ArrowInvalid, match="x-kalam-partitions is a number from 1 to 256"):
            wire(x_kalam_partitions=number).info("SELECT 1")

    def test_a_table_that_changes_its_columns_is_a_clear_conflict(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="3")
        info = one.info("SELECT id FROM t")
        world.in_process().run("ALTER TABLE t ADD COLUMN w INT")
        with pytest.raises(flight.FlightServerError, match="run the statement again.*40001"):
            one.get(info.endpoints[0].ticket)
        world.in_process().run("DROP TABLE t")
        with pytest.raises(pa.ArrowKeyError, match='"t" does not exist'):
            one.get(info.endpoints[0].ticket)


class TestExpiry:
    @pytest.fixture
    def world(self, tmp_path) -> Iterator[World]:
        made = World(tmp_path / "data", {"engine": {"partition_seconds": 1}})
        yield made
        made.close()

    def pins(self, world: World) -> int:
        return len(world.kalam.parts.scopes.door._pins)

    def test_parts_say_when_they_expire_and_let_go_of_their_snapshot_then(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="3")
        before = self.pins(world)
        info = one.info("SELECT id FROM t")
        left = info.endpoints[0].expiration_time.as_py().timestamp() - time.time()
        assert 0 < left <= 1 and self.pins(world) == before + 1
        time.sleep(1.3)
        assert self.pins(world) == before
        with pytest.raises(pa.ArrowKeyError, match="run the statement again.*26000"):
            one.get(info.endpoints[0].ticket)
        with pytest.raises(pa.ArrowKeyError, match="26000"):
            one.renew(info.endpoints[0])

    def test_renewing_one_part_keeps_them_all(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="3")
        info = one.info("SELECT id FROM t")
        for _ in range(3):
            time.sleep(0.6)
            renewed = one.renew(info.endpoints[0])
        assert renewed.expiration_time.as_py() > info.endpoints[0].expiration_time.as_py()
        assert ids([one.get(e.ticket) for e in info.endpoints]) == EXPECTED

    def test_cancelling_lets_go_at_once(self, world, wire):
        fill(world)
        one = wire(x_kalam_partitions="3")
        before = self.pins(world)
        info = one.info("SELECT id FROM t")
        one.cancel(info)
        assert self.pins(world) == before
        with pytest.raises((flight.FlightCancelledError, pa.ArrowKeyError)):
            one.get(info.endpoints[0].ticket)


class TestTickets:
    def test_a_query_is_planned_again_after_a_restart(self, world, wire):
        fill(world)
        root = world.in_process()
        root.run("CREATE NAMESPACE other")
        one = wire()
        info = one.info("SELECT id, CURRENT_USER AS me FROM t WHERE id < 5")
        world.restart()
        world.in_process().run("DELETE FROM t WHERE id = 1")
        again = wire().get(info.endpoints[0].ticket)
        assert again.schema.equals(info.schema)
        assert sorted(again.column("id").to_pylist()) == [-2, -1, 2, 3, 4]

    def test_names_mean_what_they_meant_where_the_ticket_was_made(self, world, wire):
        root = world.in_process()
        for text in (
            "CREATE NAMESPACE other",
            "CREATE TABLE t (id BIGINT PRIMARY KEY)",
            "CREATE TABLE other.t (id BIGINT PRIMARY KEY)",
            "INSERT INTO other.t VALUES (7)",
        ):
            root.run(text)
        one = wire()
        one.act(
            "SetSessionOptions", pb.SetSessionOptionsRequest(session_options={"schema": _text("other")}).SerializeToString()
        )
        info = one.info("SELECT id FROM t")
        assert wire().get(info.endpoints[0].ticket).column(0).to_pylist() == [7]
        world.restart()
        assert wire().get(info.endpoints[0].ticket).column(0).to_pylist() == [7]

    def test_a_schema_that_changed_meanwhile_is_a_conflict(self, world, wire):
        fill(world)
        info = wire().info("SELECT * FROM t")
        world.restart()
        world.in_process().run("ALTER TABLE t ADD COLUMN w INT")
        with pytest.raises(flight.FlightServerError, match="prepare it again.*40001"):
            wire().get(info.endpoints[0].ticket)

    @pytest.mark.parametrize("returning", ["", " RETURNING id"])
    def test_a_change_happens_once_also_across_a_restart(self, world, wire, returning):
        world.in_process().run("CREATE TABLE t (id BIGINT PRIMARY KEY, v INT DEFAULT 0)")
        world.in_process().run("INSERT INTO t (id) VALUES (1)")
        info = wire().info("UPDATE t SET v = v + 1" + returning)
        first = wire().get(info.endpoints[0].ticket)
        assert first.equals(wire().get(info.endpoints[0].ticket))
        world.restart()
        assert first.equals(wire().get(info.endpoints[0].ticket))
        assert world.in_process().run("SELECT v FROM t").rows.column(0).to_pylist() == [1]

    def test_a_change_that_was_announced_and_not_fetched_happens_after_the_restart(self, world, wire):
        world.in_process().run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
        info = wire().info("INSERT INTO t VALUES (1), (2)")
        world.restart()
        assert wire().get(info.endpoints[0].ticket).column(0).to_pylist() == [2]

    def test_many_fetches_at_once_make_one_change(self, world, wire):
        world.in_process().run("CREATE TABLE t (id BIGINT PRIMARY KEY, v INT)")
        world.in_process().run("INSERT INTO t VALUES (1, 0)")
        info = wire().info("UPDATE t SET v = v + 1")
        connections = [wire() for _ in range(8)]
        counts: list[int] = []
        fetch = [lambda c=c: counts.append(c.get(info.endpoints[0].ticket).column(0)[0].as_py()) for c in connections]
        threads = [threading.Thread(target=f) for f in fetch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [1] * 8
        assert world.in_process().run("SELECT v FROM t").rows.column(0).to_pylist() == [1]

    def test_a_transactions_ticket_does_not_outlive_it(self, world, wire):
        fill(world)
        one = wire()
        (body,) = one.act("BeginTransaction", commands.pack(pb.ActionBeginTransactionRequest()))
        transaction = pb.ActionBeginTransactionResult.FromString(commands.unpack(body)[1]).transaction_id
        command = commands.pack(pb.CommandStatementQuery(query="SELECT id FROM t", transaction_id=transaction))
        info = one.client.get_flight_info(flight.FlightDescriptor.for_command(command), one.options)
        world.restart()
        with pytest.raises(pa.ArrowKeyError, match="run the statement again"):
            wire().get(info.endpoints[0].ticket)

    def test_a_partitions_ticket_does_not_outlive_its_snapshot(self, world, wire):
        fill(world)
        info = wire(x_kalam_partitions="3").info("SELECT id FROM t")
        world.restart()
        with pytest.raises(pa.ArrowKeyError, match="run the statement again.*26000"):
            wire().get(info.endpoints[0].ticket)

    def test_parameters_travel_with_the_ticket(self, world):
        fill(world)
        cursor = world.adbc().connection.cursor()
        partitions, _ = cursor.adbc_execute_partitions("SELECT id FROM t WHERE id = ?", (43,))
        world.restart()
        with world.adbc().connection.cursor() as again:
            again.adbc_read_partition(partitions[0])
            assert again.fetch_arrow_table().column(0).to_pylist() == [43]


def _text(value: str) -> pb.SessionOptionValue:
    return pb.SessionOptionValue(string_value=value)
