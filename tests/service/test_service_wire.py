"""The protocol beyond statements, against the real service: paths, listings, savepoints, exchange, options."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from kalam_world import ROOT_PASSWORD, World

from flightkalam.auth.identity import Role
from flightkalam.flight import commands
from flightkalam.flight import flight_sql_pb2 as pb

Options = flight.FlightCallOptions
PEOPLE = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", "c"]})


@pytest.fixture
def client(world: World) -> Iterator[flight.FlightClient]:
    with flight.connect(world.uri) as connected:
        yield connected


def login(client: flight.FlightClient, user: str = "root", password: str = ROOT_PASSWORD) -> Options:
    return with_headers(Options(headers=[client.authenticate_basic_token(user, password)]))


def with_headers(options: Options, **headers: str) -> Options:
    more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Options(headers=[*options.headers, *more])


@pytest.fixture
def people(world: World, client: flight.FlightClient) -> Options:
    """A SHARED table `main.people` and a private one in another namespace; `root`'s options for calls."""
    root = world.in_process()
    for text in (
        "CREATE TABLE people (id BIGINT PRIMARY KEY, name TEXT) WITH (ACCESS_LEVEL='PUBLIC')",
        "INSERT INTO people VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "CREATE NAMESPACE hidden",
        "CREATE TABLE hidden.secrets (id BIGINT PRIMARY KEY)",
    ):
        root.run(text)
    return login(client)


def path(*parts: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_path(*parts)


def ingest(table: str, mode: int = 2) -> flight.FlightDescriptor:
    definition = pb.CommandStatementIngest.TableDefinitionOptions(if_not_exist=1, if_exists=mode)
    return flight.FlightDescriptor.for_command(
        commands.pack(pb.CommandStatementIngest(table=table, table_definition_options=definition))
    )


def act(client: flight.FlightClient, options: Options, type_: str, body: bytes) -> list[bytes]:
    return [r.body.to_pybytes() for r in client.do_action(flight.Action(type_, body), options)]


class TestPaths:
    @pytest.mark.parametrize("parts", [("people",), ("main", "people"), ("flightkalam", "MAIN", "People")])
    def test_a_path_is_the_table_with_all_its_rows(self, client, people, parts):
        info = client.get_flight_info(path(*parts), people)
        assert client.get_schema(path(*parts), people).schema.equals(info.schema)
        assert client.do_get(info.endpoints[0].ticket, people).read_all().sort_by("id").equals(PEOPLE)

    @pytest.mark.parametrize("parts", [("nobody",), ("hidden", "people"), ("elsewhere", "main", "people")])
    def test_a_path_to_nothing_is_not_found(self, client, people, parts):
        with pytest.raises(pa.ArrowKeyError, match=r"does not exist.*SQLSTATE (42P01|3F000)"):
            client.get_flight_info(path(*parts), people)

    def test_rows_sent_to_a_path_are_appended(self, client, people):
        more = pa.table({"id": pa.array([4], pa.int64()), "name": ["d"]})
        writer, reader = client.do_put(path("main", "people"), more.schema, people)
        with writer:
            writer.write_table(more)
            writer.done_writing()
            assert pb.DoPutUpdateResult.FromString(reader.read().to_pybytes()).record_count == 1
        info = client.get_flight_info(path("people"), people)
        assert client.do_get(info.endpoints[0].ticket, people).read_all().num_rows == 4


class TestListing:
    def names(self, client, options, criteria=b"") -> list[str]:
        listed = list(client.list_flights(criteria, options))
        return [".".join(part.decode() for part in info.descriptor.path) for info in listed]

    def test_the_tables_that_the_caller_may_see_are_flights(self, client, world, people):
        names = self.names(client, people)
        assert {"main.people", "hidden.secrets", "system.users", "information_schema.tables"} <= set(names)
        world.user("eve", Role.USER)
        theirs = self.names(client, login(client, "eve", "secret-of-eve"))
        assert "main.people" in theirs and not {"hidden.secrets", "system.users"} & set(theirs)

    @pytest.mark.parametrize("criteria", [b"main.%", b"peop_e", b"m%.people"])
    def test_criteria_are_a_pattern_of_names(self, client, people, criteria):
        assert self.names(client, people, criteria) == ["main.people"]

    def test_criteria_that_are_no_text_are_refused(self, client, people):
        with pytest.raises(pa.ArrowInvalid, match="criteria"):
            self.names(client, people, b"\xff")

    def test_a_listed_flight_is_read_by_its_ticket_and_by_its_path(self, client, people):
        (info,) = client.list_flights(b"main.people", people)
        read = client.do_get(info.endpoints[0].ticket, people).read_all()
        assert read.sort_by("id").equals(PEOPLE)
        again = client.get_flight_info(info.descriptor, people)
        assert client.do_get(again.endpoints[0].ticket, people).read_all().num_rows == 3

    def test_a_ticket_of_the_listing_has_the_readers_rights(self, client, world, people):
        (info,) = client.list_flights(b"hidden.secrets", people)
        world.user("eve", Role.USER)
        with pytest.raises(pa.ArrowKeyError, match="does not exist"):
            client.do_get(info.endpoints[0].ticket, login(client, "eve", "secret-of-eve")).read_all()

    def test_only_a_query_is_a_ticket_by_itself(self, client, people):
        ticket = flight.Ticket(commands.encode_statement("DELETE FROM people"))
        with pytest.raises(pa.ArrowInvalid, match="only a query"):
            client.do_get(ticket, people).read_all()
        returning = flight.Ticket(commands.encode_statement("DELETE FROM people RETURNING id"))
        with pytest.raises(pa.ArrowInvalid, match="only a query"):
            client.do_get(returning, people).read_all()
        (info,) = client.list_flights(b"main.people", people)
        assert client.do_get(info.endpoints[0].ticket, people).read_all().num_rows == 3


class TestExchange:
    def exchange(self, client, descriptor, options, batches) -> list[dict]:
        writer, reader = client.do_exchange(descriptor, options)
        said = []
        with writer:
            writer.begin(batches[0].schema)
            for batch in batches:
                writer.write_batch(batch)
            writer.done_writing()
            while True:
                try:
                    chunk = reader.read_chunk()
                except StopIteration:
                    return said
                said.append(json.loads(chunk.app_metadata.to_pybytes()))

    def batches(self, *starts: int) -> list[pa.RecordBatch]:
        return [
            pa.record_batch({"id": pa.array([n, n + 1], pa.int64()), "name": pa.array([str(n), str(n + 1)])}) for n in starts
        ]

    def count(self, world) -> int:
        return world.in_process().run("SELECT count(*) AS n FROM people").rows.column(0)[0].as_py()

    def test_one_commit_and_an_answer_for_each_batch(self, client, world, people):
        said = self.exchange(client, path("people"), people, self.batches(10, 20, 30))
        assert [s["rows"] for s in said] == [2, 4, 6, 6]
        assert [s["committed"] for s in said] == [False, False, False, True]
        assert self.count(world) == 9

    def test_a_commit_for_each_batch(self, client, world, people):
        options = with_headers(people, x_kalam_ingest_commit="batch")
        writer, reader = client.do_exchange(ingest("people"), options)
        first, second = self.batches(10, 20)
        with writer:
            writer.begin(first.schema)
            writer.write_batch(first)
            assert json.loads(reader.read_chunk().app_metadata.to_pybytes()) == {"batches": 1, "rows": 2, "committed": True}
            assert self.count(world) == 5, "what is acknowledged is there before the stream ends"
            writer.write_batch(second)
            assert json.loads(reader.read_chunk().app_metadata.to_pybytes())["rows"] == 4
            writer.done_writing()
        assert self.count(world) == 7

    @pytest.mark.parametrize("each", ["end", "batch"])
    def test_a_table_is_made_when_it_is_missing_also_of_no_batch(self, client, world, people, each):
        options = with_headers(people, x_kalam_ingest_commit=each)
        empty = self.batches(1)[0].slice(0, 0)
        assert self.exchange(client, ingest("made"), options, [empty])[-1]["committed"]
        assert world.in_process().run("SELECT * FROM made").rows.num_rows == 0

    def test_a_duplicate_leaves_nothing_of_one_commit_and_the_batches_before_of_many(self, client, world, people):
        batches = self.batches(10, 1)
        with pytest.raises(pa.ArrowInvalid, match="duplicate key"):
            self.exchange(client, path("people"), people, batches)
        assert self.count(world) == 3
        with pytest.raises(pa.ArrowInvalid, match="duplicate key"):
            self.exchange(client, path("people"), with_headers(people, x_kalam_ingest_commit="batch"), batches)
        assert self.count(world) == 5

    def test_an_unknown_way_to_commit_is_refused(self, client, people):
        with pytest.raises(pa.ArrowInvalid, match="end or batch"):
            self.exchange(client, path("people"), with_headers(people, x_kalam_ingest_commit="now"), self.batches(1))

    def test_an_idempotency_key_is_of_one_commit(self, client, people):
        options = with_headers(people, x_kalam_ingest_commit="batch", x_kalam_idempotency_key="k")
        with pytest.raises(NotImplementedError, match="one commit"):
            self.exchange(client, path("people"), options, self.batches(1))


class TestSavepoints:
    def begin(self, client, options) -> bytes:
        (body,) = act(client, options, "BeginTransaction", commands.pack(pb.ActionBeginTransactionRequest()))
        return pb.ActionBeginTransactionResult.FromString(commands.unpack(body)[1]).transaction_id

    def savepoint(self, client, options, transaction: bytes, name: str = "s") -> bytes:
        request = pb.ActionBeginSavepointRequest(transaction_id=transaction, name=name)
        (body,) = act(client, options, "BeginSavepoint", commands.pack(request))
        return pb.ActionBeginSavepointResult.FromString(commands.unpack(body)[1]).savepoint_id

    def end_savepoint(self, client, options, savepoint: bytes, action: int) -> None:
        act(client, options, "EndSavepoint", commands.pack(pb.ActionEndSavepointRequest(savepoint_id=savepoint, action=action)))

    def update(self, client, options, transaction: bytes, sql: str) -> None:
        command = commands.pack(pb.CommandStatementUpdate(query=sql, transaction_id=transaction))
        writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), pa.schema([]), options)
        with writer:
            writer.done_writing()
            reader.read()

    def commit(self, client, options, transaction: bytes) -> None:
        act(
            client,
            options,
            "EndTransaction",
            commands.pack(pb.ActionEndTransactionRequest(transaction_id=transaction, action=1)),
        )

    def test_going_back_undoes_what_came_after_and_keeps_the_savepoint(self, client, world, people):
        transaction = self.begin(client, people)
        self.update(client, people, transaction, "INSERT INTO people VALUES (4, 'd')")
        first = self.savepoint(client, people, transaction)
        self.update(client, people, transaction, "DELETE FROM people")
        second = self.savepoint(client, people, transaction)
        for _ in range(2):
            self.end_savepoint(client, people, first, 2)
        with pytest.raises(pa.ArrowKeyError, match="3B001"):
            self.end_savepoint(client, people, second, 2)
        self.commit(client, people, transaction)
        assert world.in_process().run("SELECT count(*) FROM people").rows.column(0)[0].as_py() == 4

    def test_a_released_one_is_gone_and_its_writes_stay(self, client, world, people):
        transaction = self.begin(client, people)
        point = self.savepoint(client, people, transaction)
        self.update(client, people, transaction, "DELETE FROM people")
        self.end_savepoint(client, people, point, 1)
        with pytest.raises(pa.ArrowKeyError, match="3B001"):
            self.end_savepoint(client, people, point, 2)
        self.commit(client, people, transaction)
        assert world.in_process().run("SELECT count(*) FROM people").rows.column(0)[0].as_py() == 0

    def test_nobody_elses(self, client, world, people):
        transaction = self.begin(client, people)
        point = self.savepoint(client, people, transaction)
        world.user("eve", Role.USER)
        eve = login(client, "eve", "secret-of-eve")
        with pytest.raises(pa.ArrowKeyError, match="25P01"):
            self.savepoint(client, eve, transaction)
        with pytest.raises(pa.ArrowKeyError, match="3B001"):
            self.end_savepoint(client, eve, point, 2)

    def test_an_end_that_is_neither_is_refused(self, client, people):
        with pytest.raises(pa.ArrowInvalid, match="RELEASE or ROLLBACK"):
            self.end_savepoint(client, people, b"x", 0)


class TestOptions:
    def set(self, client, options, name: str, value: pb.SessionOptionValue) -> dict[str, int]:
        request = pb.SetSessionOptionsRequest(session_options={name: value})
        (body,) = act(client, options, "SetSessionOptions", request.SerializeToString())
        return {n: e.value for n, e in pb.SetSessionOptionsResult.FromString(body).errors.items()}

    def get(self, client, options) -> dict[str, str]:
        (body,) = act(client, options, "GetSessionOptions", b"")
        return {n: v.string_value for n, v in pb.GetSessionOptionsResult.FromString(body).session_options.items()}

    @pytest.mark.parametrize(
        ("name", "value", "kept"),
        [
            ("schema", pb.SessionOptionValue(string_value="HIDDEN"), "hidden"),
            ("time_zone", pb.SessionOptionValue(string_value="europe/berlin"), "Europe/Berlin"),
            ("statement_timeout", pb.SessionOptionValue(string_value="5s"), "5000ms"),
            ("statement_timeout", pb.SessionOptionValue(int64_value=250), "250ms"),
            ("compression", pb.SessionOptionValue(string_value="zstd"), "zstd"),
        ],
    )
    def test_what_is_set_is_read_back_and_unset_again(self, client, people, name, value, kept):
        before = self.get(client, people)
        assert self.set(client, people, name, value) == {}
        assert self.get(client, people)[name] == kept
        assert self.set(client, people, name, pb.SessionOptionValue()) == {}
        assert self.get(client, people) == before

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("nonsense", pb.SessionOptionValue(string_value="x"), 1),
            ("catalog", pb.SessionOptionValue(string_value="other"), 2),
            ("time_zone", pb.SessionOptionValue(string_value="Atlantis"), 2),
            ("statement_timeout", pb.SessionOptionValue(bool_value=True), 2),
            ("statement_timeout", pb.SessionOptionValue(double_value=-1), 2),
            ("compression", pb.SessionOptionValue(string_value="gzip"), 2),
            ("schema", pb.SessionOptionValue(string_list_value={"values": ["main"]}), 2),
        ],
    )
    def test_what_is_wrong_is_told_apart_and_changes_nothing(self, client, people, name, value, error):
        before = self.get(client, people)
        assert self.set(client, people, name, value) == {name: error}
        assert self.get(client, people) == before


class TestStreams:
    def read(self, client, options, sql: str) -> list[flight.FlightStreamChunk]:
        query = flight.FlightDescriptor.for_command(commands.encode_statement(sql))
        info = client.get_flight_info(query, options)
        return list(client.do_get(info.endpoints[0].ticket, options))

    def test_each_batch_says_how_many_rows_there_have_been(self, client, people):
        chunks = self.read(client, people, "SELECT range AS n, repeat('x', 100) AS s FROM range(100000)")
        seen = 0
        for chunk in chunks:
            seen += chunk.data.num_rows
            assert json.loads(chunk.app_metadata.to_pybytes()) == {"rows": seen, "total": -1}
            assert chunk.data.nbytes <= 2 << 20
        assert seen == 100_000 and len(chunks) > 2

    @pytest.mark.parametrize("how", ["none", "lz4", "zstd"])
    def test_a_compressed_result_is_the_same_result(self, client, people, how):
        options = with_headers(people, x_kalam_compression=how)
        (chunk,) = self.read(client, options, "SELECT range AS n FROM range(1000)")
        assert chunk.data.column(0).to_pylist() == list(range(1000))

    def test_an_unknown_compression_is_refused(self, client, people):
        with pytest.raises(pa.ArrowInvalid, match="none, lz4, zstd"):
            self.read(client, with_headers(people, x_kalam_compression="gzip"), "SELECT 1")


class TestStopping:
    """A call whose client goes away stops, whatever it is doing (T-52)."""

    HEAVY = "sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"

    def idle_soon(self, world: World) -> bool:
        """Whether the service stops computing."""
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            before = time.process_time()
            time.sleep(0.2)
            if time.process_time() - before < 0.1:
                return True
        return False

    @pytest.mark.parametrize(
        "sql", [f"INSERT INTO people SELECT 9, ({'SELECT ' + HEAVY})::TEXT", f"DELETE FROM people WHERE id = (SELECT {HEAVY})"]
    )
    def test_a_long_update_stops_at_its_deadline_and_changes_nothing(self, client, world, people, sql):
        command = commands.pack(pb.CommandStatementUpdate(query=sql))
        options = Options(headers=people.headers, timeout=0.5)
        with pytest.raises(flight.FlightTimedOutError):
            writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), pa.schema([]), options)
            with writer:
                writer.done_writing()
                reader.read()
        assert self.idle_soon(world)
        assert world.in_process().run("SELECT count(*) FROM people").rows.column(0)[0].as_py() == 3

    def test_an_ingest_that_is_broken_off_changes_nothing(self, client, world, people):
        writer, _ = client.do_exchange(path("people"), Options(headers=people.headers, timeout=0.5))
        batch = pa.record_batch({"id": pa.array([50], pa.int64()), "name": pa.array(["x"])})
        with pytest.raises((pa.ArrowException, flight.FlightError)):
            writer.begin(batch.schema)
            writer.write_batch(batch)
            time.sleep(1.0)
            writer.write_batch(batch)
            writer.close()
        assert world.in_process().run("SELECT count(*) FROM people").rows.column(0)[0].as_py() == 3

    def test_other_calls_go_on_meanwhile(self, client, world, people):
        command = commands.pack(pb.CommandStatementUpdate(query=f"DELETE FROM people WHERE id = (SELECT {self.HEAVY})"))

        def heavy() -> None:
            with pytest.raises(flight.FlightTimedOutError):
                writer, reader = client.do_put(
                    flight.FlightDescriptor.for_command(command), pa.schema([]), Options(headers=people.headers, timeout=1.0)
                )
                with writer:
                    writer.done_writing()
                    reader.read()

        thread = threading.Thread(target=heavy)
        thread.start()
        info = client.get_flight_info(path("people"), people)
        assert client.do_get(info.endpoints[0].ticket, people).read_all().num_rows == 3
        thread.join()
