"""Bad input through every door of the real service: the right status, one clear message, no traceback, a server unharmed."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kalam_world import ROOT_PASSWORD, World
from live_server import PASSWORD, LiveServer

from flightkalam.flight import commands, dispatch
from flightkalam.flight import flight_sql_pb2 as pb

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Options = flight.FlightCallOptions
# What a client could mean, for every command: spoiled, it goes as deep as bad input can.
DEFINITION = pb.CommandStatementIngest.TableDefinitionOptions(if_not_exist=1, if_exists=2)
MEANT = [
    pb.CommandStatementQuery(query="SELECT * FROM t", transaction_id=b"x" * 16),
    pb.CommandStatementUpdate(query="DELETE FROM t WHERE id = 1"),
    pb.CommandStatementSubstraitPlan(plan=pb.SubstraitPlan(plan=b"\x0a" * 50, version="1")),
    pb.CommandPreparedStatementQuery(prepared_statement_handle=b"h" * 16),
    pb.CommandPreparedStatementUpdate(prepared_statement_handle=b"h" * 16),
    pb.TicketStatementQuery(statement_handle=b"\x01S" + b"m" * 40),
    pb.CommandStatementIngest(
        table="t", schema="main", catalog="flightkalam", table_definition_options=DEFINITION, options={"a": "b"}
    ),
    pb.CommandGetTables(
        db_schema_filter_pattern="%", table_name_filter_pattern="t_", table_types=["TABLE"], include_schema=True
    ),
    pb.CommandGetSqlInfo(info=[0, 8, 4_000_000_000]),
    pb.CommandGetXdbcTypeInfo(data_type=-(2**31)),
    pb.CommandGetPrimaryKeys(table="t" * 1000),
    pb.CommandGetCrossReference(pk_table="t", fk_table="t"),
]
ACTIONS = {
    "CreatePreparedStatement": pb.ActionCreatePreparedStatementRequest(query="SELECT ?", transaction_id=b"t"),
    "CreatePreparedSubstraitPlan": pb.ActionCreatePreparedSubstraitPlanRequest(plan=pb.SubstraitPlan(plan=b"\x01")),
    "ClosePreparedStatement": pb.ActionClosePreparedStatementRequest(prepared_statement_handle=b"h"),
    "EndTransaction": pb.ActionEndTransactionRequest(transaction_id=b"t" * 16, action=1),
    "BeginSavepoint": pb.ActionBeginSavepointRequest(transaction_id=b"t" * 16, name="s"),
    "EndSavepoint": pb.ActionEndSavepointRequest(savepoint_id=b"s" * 16, action=2),
    "CancelFlightInfo": pb.CancelFlightInfoRequest(
        info=pb.FlightInfo(endpoint=[pb.FlightEndpoint(ticket=pb.Ticket(ticket=b"t"))])
    ),
    "RenewFlightEndpoint": pb.RenewFlightEndpointRequest(endpoint=pb.FlightEndpoint(ticket=pb.Ticket(ticket=b"t"))),
    "SetSessionOptions": pb.SetSessionOptionsRequest(session_options={"schema": pb.SessionOptionValue(string_value="nope")}),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("hostile") / "data")
    root = made.in_process()
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")
    root.run("INSERT INTO t VALUES (7, 'x')")
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[flight.FlightClient]:
    with flight.connect(world.uri) as connected:
        yield connected


@pytest.fixture(scope="module")
def me(client: flight.FlightClient) -> Options:
    return Options(headers=[client.authenticate_basic_token("root", ROOT_PASSWORD)])


def refused(attempt) -> str | None:
    """What it says, if it is refused; however it is, it must be said well."""
    try:
        attempt()
    except (pa.ArrowException, flight.FlightError, NotImplementedError) as error:
        text = str(error)
        assert "Traceback" not in text and ".py" not in text and "internal error" not in text.lower(), text
        assert "[SQLSTATE " in text, text
        return text
    return None


def put(client: flight.FlightClient, descriptor: flight.FlightDescriptor, options: Options, table: pa.Table) -> bytes:
    writer, reader = client.do_put(descriptor, table.schema, options)
    with writer:
        writer.write_table(table)
        writer.done_writing()
        return reader.read().to_pybytes()


def described(message: object) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(commands.pack(message))


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """A message cut short, with bytes changed, repeated, or with junk behind it."""
    kind = draw(st.sampled_from(["cut", "change", "repeat", "append"]))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == "repeat":
        return whole * draw(st.integers(2, 50))
    if kind == "append":
        return whole + draw(st.binary(min_size=1, max_size=40))
    changed = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def try_everything(client: flight.FlightClient, me: Options, data: st.DataObject) -> None:
    meant = data.draw(st.sampled_from(MEANT))
    name = data.draw(st.sampled_from([meant.DESCRIPTOR.name, *(m.DESCRIPTOR.name for m in MEANT)]))
    body = data.draw(spoiled(meant.SerializeToString()))
    command = pb.Any(type_url=commands.TYPE_URL + name, value=body).SerializeToString()
    descriptor = flight.FlightDescriptor.for_command(command)
    refused(lambda: client.get_flight_info(descriptor, me))
    refused(lambda: client.get_schema(descriptor, me))
    refused(lambda: client.do_get(flight.Ticket(command), me).read_all())
    refused(lambda: put(client, descriptor, me, pa.table({"id": pa.array([7], pa.int64())})))
    action = data.draw(st.sampled_from(sorted(ACTIONS)))
    body = ACTIONS[action].SerializeToString()
    if dispatch.ROWS[action].message is not None:
        body = commands.pack(ACTIONS[action])
    body = data.draw(spoiled(body))
    refused(lambda: list(client.do_action(flight.Action(action, body), me)))


def unharmed(client: flight.FlightClient, me: Options) -> None:
    info = client.get_flight_info(described(pb.CommandStatementQuery(query="SELECT count(*) AS n FROM system.users")), me)
    assert client.do_get(info.endpoints[0].ticket, me).read_all().column(0)[0].as_py() >= 1


class TestSpoiledMessages:
    @settings(REPEATABLE, max_examples=60)
    @given(st.data())
    def test_every_rpc(self, client, me, data):
        try_everything(client, me, data)

    @pytest.mark.slow
    @settings(REPEATABLE, max_examples=5_000)
    @given(st.data())
    def test_every_rpc_for_long(self, client, me, data):
        try_everything(client, me, data)

    def test_the_server_is_unharmed(self, client, me):
        unharmed(client, me)


class TestHugeInput:
    def test_a_list_of_a_million_elements_is_refused_by_its_size(self, client, me):
        sql = f"SELECT * FROM t WHERE id IN ({','.join(map(str, range(1_000_000)))})"
        said = refused(lambda: client.get_flight_info(described(pb.CommandStatementQuery(query=sql)), me))
        assert said is not None and "limit" in said
        unharmed(client, me)

    def test_a_message_of_many_megabytes(self, client, me):
        said = refused(
            lambda: client.do_get(
                flight.Ticket(commands.pack(pb.TicketStatementQuery(statement_handle=b"x" * (8 << 20)))), me
            ).read_all()
        )
        assert said is not None and "no such ticket" in said
        unharmed(client, me)

    def test_nesting_without_end(self, client, me):
        sql = "SELECT " + "(" * 5_000 + "1" + ")" * 5_000
        assert refused(lambda: client.get_flight_info(described(pb.CommandStatementQuery(query=sql)), me)) is not None
        unharmed(client, me)

    @pytest.mark.parametrize("name", ["x-kalam-as-user", "x-kalam-idempotency-key", "x-unknown"])
    def test_headers_of_four_kilobytes(self, client, me, name):
        options = Options(headers=[*me.headers, (name.encode(), b"v" * 4096)])
        refused(lambda: client.get_flight_info(described(pb.CommandStatementQuery(query="SELECT 1")), options))
        unharmed(client, me)


class TestWhatIsNotThere:
    @pytest.mark.parametrize("message", [pb.CommandPreparedStatementQuery, pb.CommandPreparedStatementUpdate])
    def test_unknown_handles(self, client, me, message):
        descriptor = described(message(prepared_statement_handle=b"unknown"))
        with pytest.raises(pa.ArrowKeyError, match="26000"):
            put(client, descriptor, me, pa.table({"a": [1]}))

    def test_a_closed_session_has_nothing_prepared(self, client, me):
        (body,) = client.do_action(
            flight.Action(
                "CreatePreparedStatement", commands.pack(ACTIONS["CreatePreparedStatement"].__class__(query="SELECT 1"))
            ),
            me,
        )
        handle = pb.ActionCreatePreparedStatementResult.FromString(
            commands.unpack(body.body.to_pybytes())[1]
        ).prepared_statement_handle
        list(client.do_action(flight.Action("CloseSession", b""), me))
        with pytest.raises(pa.ArrowKeyError, match="prepare it again"):
            client.get_flight_info(described(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle)), me)


class TestStatementsThatDoNotFit:
    @pytest.mark.parametrize("rows", [(), (1, 2), ("text",)])
    def test_parameters_of_another_number_or_type(self, world, rows):
        with world.adbc().connection.cursor() as cursor, pytest.raises(Exception, match="SQLSTATE (07001|22|0A000|42)"):
            cursor.execute("SELECT * FROM t WHERE id = ?::BIGINT", rows)
            cursor.fetchall()

    def test_a_table_that_changed_since_prepare(self, world):
        root = world.in_process()
        root.run("CREATE TABLE moving (id BIGINT PRIMARY KEY, v INT)")
        prepared = root.session.prepare("SELECT * FROM moving", None)
        planned = root.session.plan_prepared(prepared.handle)
        root.run("ALTER TABLE moving ADD COLUMN w INT")
        with pytest.raises(Exception, match="prepare it again"):
            root.session.fetch(planned.handle)

    def test_an_ingest_of_no_batch_makes_the_table(self, client, me, world):
        message = pb.CommandStatementIngest(table="empty", table_definition_options=DEFINITION)
        empty = pa.table({"id": pa.array([], pa.int64())})
        assert pb.DoPutUpdateResult.FromString(put(client, described(message), me, empty)).record_count == 0
        assert world.in_process().run("SELECT * FROM empty").rows.schema.names == ["id"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_a_result_larger_than_the_memory_streams(tmp_path: Path) -> None:
    """1 GB of rows through a server that may allocate 300 MB more than it has when it is idle."""
    with LiveServer(tmp_path / "data") as server, flight.connect(server.uri) as client:
        me = Options(headers=[client.authenticate_basic_token("root", PASSWORD)])

        def read(rows: int) -> int:
            sql = f"SELECT range AS id, repeat('x', 100) || range AS s FROM range({rows})"
            info = client.get_flight_info(described(pb.CommandStatementQuery(query=sql)), me)
            return sum(chunk.data.nbytes for chunk in client.do_get(info.endpoints[0].ticket, me))

        read(1_000_000)
        held = next(
            int(line.split()[1]) << 10
            for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
            if line.startswith("VmData")
        )
        limit = held + (300 << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (limit, limit))
        assert read(8_000_000) > 900_000_000
        assert server.process.poll() is None
