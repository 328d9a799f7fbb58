"""The wire without a Flight SQL client: sign-in, statements, actions and refusals as messages."""

from __future__ import annotations

import base64
import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from flight_fakes import INT, SECRET
from flight_wire import act, bearer, descriptor, flight_data, info, ipc, pb, put, put_raw, rows

from flightkalam.flight import commands

BATCH = pa.record_batch({"a": pa.array(range(1000), pa.int64())})


class PayloadLogin(flight.ClientAuthHandler):
    """The older handshake: a BasicAuth message in, a token out."""

    def __init__(self, user: str, password: str) -> None:
        super().__init__()
        self._login = flight.BasicAuth(user, password)
        self.token = b""

    def authenticate(self, outgoing, incoming):
        outgoing.write(self._login.serialize())
        self.token = incoming.read()

    def get_token(self):
        return self.token


class TestSignIn:
    def test_handshake_by_header(self, client):
        assert client.authenticate_basic_token("ann", "p:ann") == (b"authorization", b"Bearer token-ann")

    def test_handshake_by_payload(self, client, service):
        client.authenticate(PayloadLogin("ann", "p:ann"))
        assert list(client.list_actions())
        assert service.shown[-1].secret == "token-ann"

    @pytest.mark.parametrize("user", ["ann", "nobody"])
    def test_a_failed_handshake_says_why(self, client, user):
        with pytest.raises(flight.FlightUnauthenticatedError, match="SQLSTATE 28000"):
            client.authenticate_basic_token(user, "wrong")
        with pytest.raises(flight.FlightUnauthenticatedError, match="SQLSTATE 28000"):
            client.authenticate(PayloadLogin(user, "wrong"))

    def test_a_handshake_without_credentials_gains_nothing(self, client):
        class Silent(PayloadLogin):
            def authenticate(self, outgoing, incoming):
                pass

        client.authenticate(Silent("", ""))
        with pytest.raises(flight.FlightUnauthenticatedError):
            list(client.list_actions())

    @pytest.mark.parametrize("padded", [True, False])
    def test_basic_on_every_call(self, client, padded):
        encoded = base64.b64encode(b"ann:p:ann").decode()
        value = f"Basic {encoded if padded else encoded.rstrip('=')}"
        options = flight.FlightCallOptions(headers=[(b"authorization", value.encode())])
        assert list(client.do_action(flight.Action("GetSessionOptions", b""), options))

    def test_a_bearer_token_shakes_hands_too(self, server):
        """Some clients confirm their token by a handshake."""
        grpc = pytest.importorskip("grpc")
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.stream_stream("/arrow.flight.protocol.FlightService/Handshake")(
                iter(()), metadata=[("authorization", "Bearer token-ann")]
            )
            assert ("authorization", "Bearer token-ann") in [tuple(pair) for pair in call.initial_metadata()]

    def test_no_credentials_no_answer(self, client):
        for attempt in (
            lambda: list(client.list_actions()),
            lambda: client.get_flight_info(descriptor(pb.CommandGetCatalogs())),
            lambda: client.do_get(flight.Ticket(commands.pack(pb.CommandGetCatalogs()))).read_all(),
            lambda: list(client.do_action(flight.Action("CloseSession", b""))),
        ):
            with pytest.raises(flight.FlightUnauthenticatedError, match=r"log in.*SQLSTATE 28000"):
                attempt()


class TestStatements:
    def test_a_query_by_hand(self, client):
        message = pb.CommandStatementQuery(query="SELECT 1")
        assert info(client, message).total_records == 1
        assert rows(client, message).to_pydict() == {"n": [1]}

    def test_get_schema_is_the_schema_of_the_stream(self, client):
        for message in (
            pb.CommandStatementQuery(query="SELECT 1"),
            pb.CommandPreparedStatementQuery(prepared_statement_handle=b"SELECT 1"),
        ):
            assert client.get_schema(descriptor(message), bearer()).schema.equals(INT)

    def test_an_older_client_runs_an_update_by_get_flight_info_and_it_happens_once(self, client, service):
        promised = info(client, pb.CommandStatementQuery(query="INSERT 4"))
        info(client, pb.CommandStatementQuery(query="INSERT 4"))
        assert not [c for c in service.calls if c[0] == "executed"]
        table = client.do_get(promised.endpoints[0].ticket, bearer()).read_all()
        assert table.to_pydict() == {"count": [4]}
        assert [c for c in service.calls if c[0] == "executed"] == [("executed", "INSERT 4")]

    def test_preparing_says_whether_it_is_an_update(self, client):
        for sql, update in (("SELECT 1", True), ("INSERT 1", False)):
            request = commands.pack(pb.ActionCreatePreparedStatementRequest(query=sql))
            name, body = commands.unpack(act(client, "CreatePreparedStatement", request)[0])
            assert name == "ActionCreatePreparedStatementResult"
            result = pb.ActionCreatePreparedStatementResult.FromString(body)
            assert result.HasField("is_update")
            assert result.is_update is not update
            # Clients that do not know is_update tell an update by its empty dataset schema.
            assert bool(result.dataset_schema) is update
            if update:
                assert pa.ipc.read_schema(pa.py_buffer(result.dataset_schema)).equals(INT)

    def test_binding_answers_with_the_handle_to_use(self, client, service):
        table = pa.table({"0": [5]})
        message = pb.CommandPreparedStatementQuery(prepared_statement_handle=b"SELECT ?")
        result = pb.DoPutPreparedStatementResult.FromString(put(client, message, table))
        assert result.prepared_statement_handle == b"SELECT ?"
        assert rows(client, message).to_pydict() == {"n": [5]}

    def test_the_prepared_command_itself_is_a_ticket(self, client):
        """Some servers hand it out as one, so some clients make their own."""
        message = pb.CommandPreparedStatementQuery(prepared_statement_handle=b"SELECT 1")
        table = client.do_get(flight.Ticket(commands.pack(message)), bearer()).read_all()
        assert table.to_pydict() == {"n": [1]}

    def test_an_update_without_a_stream(self, server):
        """Nothing but the descriptor: the server must not wait for a schema."""
        message = flight_data(message=pb.CommandStatementUpdate(query="INSERT 6"))
        (answer,) = put_raw(server.port, [message])
        assert pb.DoPutUpdateResult.FromString(pb_result(answer)).record_count == 6

    def test_the_answer_comes_before_the_client_ends_its_stream(self, client):
        """Some clients wait for it before they close (T-52 the other way round): no deadlock."""
        command = descriptor(pb.CommandStatementUpdate(query="INSERT 6"))
        options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer token-ann")], timeout=10)
        writer, reader = client.do_put(command, pa.schema([]), options)
        result = pb.DoPutUpdateResult()
        result.ParseFromString(reader.read().to_pybytes())
        writer.close()
        assert result.record_count == 6

    def test_a_prepared_update_without_a_stream(self, server, service):
        message = flight_data(message=pb.CommandPreparedStatementUpdate(prepared_statement_handle=b"INSERT 6"))
        (answer,) = put_raw(server.port, [message])
        assert pb.DoPutUpdateResult.FromString(pb_result(answer)).record_count == 6
        assert ("update_prepared", False) in service.calls

    def test_rows_that_the_session_did_not_read_do_not_disturb_the_answer(self, client):
        message = pb.CommandPreparedStatementUpdate(prepared_statement_handle=b"INSERT 0 rows read")
        table = pa.table({"0": range(5_000_000)})
        writer, reader = client.do_put(descriptor(message), table.schema, bearer())
        with writer:
            writer.write_table(table, max_chunksize=100_000)
            writer.done_writing()
            assert pb.DoPutUpdateResult.FromString(reader.read().to_pybytes()).record_count == 0

    def test_a_result_without_columns_is_a_bug_and_not_an_answer(self, client):
        with pytest.raises(flight.FlightInternalError, match="without columns"):
            info(client, pb.CommandStatementQuery(query="SELECT NOTHING"))


def pb_result(put_result: bytes) -> bytes:
    """The app_metadata of a PutResult: field 1, at most 127 bytes."""
    assert put_result[0] == 0x0A
    return put_result[2 : 2 + put_result[1]]


class TestUploads:
    """T-53: Arrow from a client is not trusted."""

    MESSAGE = pb.CommandStatementIngest(table="t")

    def ingest(self, server, *messages, **options):
        schema, _ = ipc(BATCH.schema.serialize())
        return put_raw(server.port, [flight_data(schema, message=self.MESSAGE), *messages], **options)

    def test_raw_bytes_that_are_right_are_loaded(self, server, service):
        self.ingest(server, flight_data(*ipc(BATCH.serialize())))
        assert service.ingested[0][1].num_rows == 1000

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda header, body: (header, body[:100]),
            lambda header, body: (header, b""),
            lambda header, body: (header[:20], body),
            lambda header, body: (bytes(b ^ 0x55 for b in header), body),
            lambda header, body: (b"\x07" * 64, body),
        ],
        ids=["short body", "no body", "short header", "flipped header", "junk header"],
    )
    def test_broken_ipc_is_a_bad_request_and_loads_nothing(self, server, service, spoil):
        grpc = pytest.importorskip("grpc")
        with pytest.raises(grpc.RpcError) as caught:
            self.ingest(server, flight_data(*spoil(*ipc(BATCH.serialize()))))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "not valid Arrow" in caught.value.details() and "[SQLSTATE 22000]" in caught.value.details()
        assert not service.ingested

    def test_offsets_that_point_outside_their_buffer_are_found(self, client, service):
        # The ends are right, so only a full look finds the middle.
        offsets = pa.array([0, 1_000_000, 6], pa.int32()).buffers()[1]
        hostile = pa.Array.from_buffers(pa.utf8(), 2, [None, offsets, pa.py_buffer(b"abcdef")])
        with pytest.raises(pa.ArrowInvalid, match="not valid Arrow"):
            put(client, self.MESSAGE, pa.table({"s": hostile}))
        assert not service.ingested

    def test_text_that_is_not_utf8_is_found(self, client, service):
        offsets = pa.array([0, 2], pa.int32()).buffers()[1]
        hostile = pa.Array.from_buffers(pa.utf8(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
        with pytest.raises(pa.ArrowInvalid, match="not valid Arrow"):
            put(client, self.MESSAGE, pa.table({"s": hostile}))
        assert not service.ingested

    def test_dictionary_indices_that_point_nowhere_are_found(self, client, service):
        hostile = pa.DictionaryArray.from_arrays(pa.array([0, 9], pa.int8()), ["a"], safe=False)
        with pytest.raises(pa.ArrowInvalid, match="not valid Arrow"):
            put(client, self.MESSAGE, pa.table({"s": hostile}))
        assert not service.ingested

    def test_an_upload_that_is_broken_off_is_not_taken_for_a_finished_one(self, server, service):
        grpc = pytest.importorskip("grpc")
        for pause in (0.0, 0.002, 0.01):
            with pytest.raises(grpc.RpcError):
                self.ingest(server, *[flight_data(*ipc(BATCH.serialize()))] * 3, cancel_after=pause)
        time.sleep(0.1)
        assert not service.ingested

    def test_parameters_are_checked_too(self, client):
        offsets = pa.array([0, 9, 2], pa.int32()).buffers()[1]
        hostile = pa.table({"0": pa.Array.from_buffers(pa.utf8(), 2, [None, offsets, pa.py_buffer(b"ab")])})
        for message in (
            pb.CommandPreparedStatementQuery(prepared_statement_handle=b"SELECT ?"),
            pb.CommandPreparedStatementUpdate(prepared_statement_handle=b"INSERT 1"),
        ):
            with pytest.raises(pa.ArrowInvalid, match="not valid Arrow"):
                put(client, message, hostile)

    def test_an_ingest_without_columns_is_refused(self, client):
        with pytest.raises(pa.ArrowInvalid, match="no columns"):
            put(client, self.MESSAGE, pa.table({}))

    def test_an_ingest_that_says_nothing_creates_and_changes_nothing(self, client, service):
        put(client, self.MESSAGE, pa.Table.from_batches([BATCH]))
        request = service.ingested[0][0]
        assert (request.if_not_exist, request.if_exists) == ("fail", "fail")

    def test_all_of_an_ingests_fields(self, client, service):
        options = pb.CommandStatementIngest.TableDefinitionOptions(if_not_exist=1, if_exists=3)
        message = pb.CommandStatementIngest(
            table_definition_options=options,
            table="t",
            schema="s",
            catalog="c",
            temporary=True,
            transaction_id=b"123",
            options={"k": "v"},
        )
        result = put(client, message, pa.Table.from_batches([BATCH]))
        assert pb.DoPutUpdateResult.FromString(result).record_count == 1000
        request = service.ingested[0][0]
        assert (request.if_not_exist, request.if_exists) == ("create", "replace")
        assert (request.namespace, request.catalog, request.temporary) == ("s", "c", True)
        assert (request.transaction, request.options) == (b"123", {"k": "v"})


class TestTransactions:
    def test_begin_and_end(self, client, service):
        begun = act(client, "BeginTransaction", commands.pack(pb.ActionBeginTransactionRequest()))
        name, body = commands.unpack(begun[0])
        assert name == "ActionBeginTransactionResult"
        transaction = pb.ActionBeginTransactionResult.FromString(body).transaction_id
        for action, committed in ((1, True), (2, False)):
            request = pb.ActionEndTransactionRequest(transaction_id=transaction, action=action)
            assert act(client, "EndTransaction", commands.pack(request)) == []
            assert service.calls[-1] == ("end", b"tx1", committed)

    def test_an_end_that_is_neither_commit_nor_rollback_is_refused(self, client, service):
        for action in (0, 3):
            request = pb.ActionEndTransactionRequest(transaction_id=b"tx1", action=action)
            with pytest.raises(pa.ArrowInvalid, match="COMMIT or ROLLBACK"):
                act(client, "EndTransaction", commands.pack(request))
        assert not service.calls


class TestSessionActions:
    def test_options_of_every_type_are_set_and_read_back(self, client, service):
        request = pb.SetSessionOptionsRequest()
        request.session_options["text"].string_value = "a"
        request.session_options["flag"].bool_value = True
        request.session_options["whole"].int64_value = -5
        request.session_options["real"].double_value = 1.5
        request.session_options["list"].string_list_value.values.extend(["x", "y"])
        request.session_options["unset"].SetInParent()
        assert act(client, "SetSessionOptions", request.SerializeToString()) == [b""]
        assert service.options == {
            "text": "a",
            "flag": True,
            "whole": -5,
            "real": 1.5,
            "list": ["x", "y"],
            "unset": None,
        }
        read = pb.GetSessionOptionsResult.FromString(act(client, "GetSessionOptions", b"")[0]).session_options
        expected = {**{name: request.session_options[name] for name in service.options}}
        assert {name: value.SerializeToString() for name, value in read.items()} == {
            name: value.SerializeToString() for name, value in expected.items()
        }

    def test_what_is_wrong_with_an_option_is_said_beside_the_others(self, client, service):
        request = pb.SetSessionOptionsRequest()
        request.session_options["nope"].string_value = "a"
        request.session_options["schema"].string_value = "bad"
        request.session_options["catalog"].string_value = "good"
        (body,) = act(client, "SetSessionOptions", request.SerializeToString())
        refused = pb.SetSessionOptionsResult.FromString(body).errors
        assert {name: e.value for name, e in refused.items()} == {"nope": 1, "schema": 2}
        assert service.options == {"catalog": "good"}

    def test_close(self, client, service):
        (body,) = act(client, "CloseSession", b"")
        assert pb.CloseSessionResult.FromString(body).status == pb.CloseSessionResult.CLOSED
        assert service.closed == ["sid-ann"]

    def test_list_actions_names_what_works(self, client):
        listed = {action.type: action.description for action in client.list_actions(bearer())}
        assert set(listed) == {
            *("CreatePreparedStatement", "CreatePreparedSubstraitPlan", "ClosePreparedStatement"),
            *("BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"),
            *("CancelQuery", "CancelFlightInfo", "RenewFlightEndpoint"),
            *("SetSessionOptions", "GetSessionOptions", "CloseSession"),
            *("kalam.flush", "kalam.compact", "kalam.job"),
        }
        assert all(listed.values())


def read_on(reader):
    """To the end.  pyarrow's own `read_all` takes a cancelled stream for the user's Ctrl-C."""
    while True:
        try:
            reader.read_chunk()
        except StopIteration:
            return


class TestCancelAction:
    def promise(self, client):
        promised = info(client, pb.CommandStatementQuery(query="SELECT forever"))
        return promised, pb.FlightInfo.FromString(promised.serialize())

    def cancel(self, client, message, user="ann"):
        (body,) = act(client, "CancelFlightInfo", pb.CancelFlightInfoRequest(info=message).SerializeToString(), user)
        return pb.CancelFlightInfoResult.FromString(body).status

    def test_a_running_query_stops_with_its_reason(self, client, service):
        promised, message = self.promise(client)
        reader = client.do_get(promised.endpoints[0].ticket, bearer())
        reader.read_chunk()
        assert self.cancel(client, message) == pb.CANCEL_STATUS_CANCELLED
        with pytest.raises(flight.FlightCancelledError, match=r"cancelled by its client.*57014"):
            read_on(reader)
        assert service.rows[0].closed.is_set()

    def test_a_query_that_has_not_started_never_does(self, client, service):
        promised, message = self.promise(client)
        assert self.cancel(client, message) == pb.CANCEL_STATUS_CANCELLED
        with pytest.raises(flight.FlightCancelledError, match="57014"):
            read_on(client.do_get(promised.endpoints[0].ticket, bearer()))
        assert not service.rows

    def test_a_query_that_has_ended_cannot_be_cancelled(self, client, service):
        promised = info(client, pb.CommandStatementQuery(query="SELECT 1"))
        client.do_get(promised.endpoints[0].ticket, bearer()).read_all()
        assert service.rows[0].closed.wait(5)
        message = pb.FlightInfo.FromString(promised.serialize())
        assert self.cancel(client, message) == pb.CANCEL_STATUS_NOT_CANCELLABLE

    def test_somebody_elses_query_cannot_be_cancelled(self, client):
        _, message = self.promise(client)
        with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
            self.cancel(client, message, "bob")

    def test_the_older_form(self, client):
        _, message = self.promise(client)
        request = pb.ActionCancelQueryRequest(info=message.SerializeToString())
        name, body = commands.unpack(act(client, "CancelQuery", commands.pack(request))[0])
        assert name == "ActionCancelQueryResult"
        result = pb.ActionCancelQueryResult.FromString(body).result
        assert result == pb.ActionCancelQueryResult.CANCEL_RESULT_CANCELLED

    def test_renewing_gives_the_endpoint_back_to_its_owner_only(self, client):
        _, message = self.promise(client)
        endpoint = message.endpoint[0]
        request = pb.RenewFlightEndpointRequest(endpoint=endpoint).SerializeToString()
        assert act(client, "RenewFlightEndpoint", request) == [endpoint.SerializeToString()]
        with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
            act(client, "RenewFlightEndpoint", request, "bob")


class TestRefusals:
    def test_unknown_commands_by_the_conventions_that_clients_probe_for(self, client):
        unknown = pb.ActionCancelQueryResult()
        with pytest.raises(pa.ArrowInvalid, match="does not take ActionCancelQueryResult"):
            info(client, unknown)
        with pytest.raises(pa.ArrowInvalid):
            client.do_get(flight.Ticket(commands.pack(unknown)), bearer()).read_all()
        with pytest.raises(NotImplementedError):
            client.get_schema(descriptor(unknown), bearer())
        with pytest.raises(NotImplementedError):
            put(client, unknown, pa.table({"a": [1]}))
        with pytest.raises(NotImplementedError, match="unknown action"):
            act(client, "Nonsense", b"")

    def test_what_is_known_and_not_offered_is_unimplemented(self, client):
        with pytest.raises(NotImplementedError, match="GetFlightInfo does not take CommandStatementUpdate"):
            info(client, pb.CommandStatementUpdate(query="INSERT 1"))
        with pytest.raises(NotImplementedError, match="DoExchange"):
            writer, reader = client.do_exchange(descriptor(pb.CommandGetCatalogs()), bearer())
            with writer:
                writer.done_writing()
                reader.read_all()

    def test_an_action_is_no_command_and_a_command_no_action(self, client):
        named = pb.Any(type_url=commands.TYPE_URL + "BeginTransaction").SerializeToString()
        with pytest.raises(pa.ArrowException):
            client.get_flight_info(flight.FlightDescriptor.for_command(named), bearer())
        with pytest.raises(NotImplementedError):
            act(client, "CommandStatementQuery", b"")

    def test_an_action_with_another_actions_message_is_refused(self, client, service):
        wrong = commands.pack(pb.ActionBeginTransactionRequest())
        with pytest.raises(pa.ArrowInvalid, match="takes an ActionEndTransactionRequest"):
            act(client, "EndTransaction", wrong)
        assert not service.calls

    @pytest.mark.parametrize("path", [(), ("a", "b", "c", "d"), ("",), ("a", "")])
    def test_a_path_that_names_no_table_is_refused(self, client, path):
        with pytest.raises(pa.ArrowInvalid, match="path"):
            client.get_flight_info(flight.FlightDescriptor.for_path(*path), bearer())

    def test_errors_of_every_rpc_leave_without_traceback(self, client):
        crash = pb.CommandStatementQuery(query="CRASH")
        prepare = commands.pack(pb.ActionCreatePreparedStatementRequest(query="CRASH"))
        for attempt in (
            lambda: info(client, crash),
            lambda: client.get_schema(descriptor(crash), bearer()),
            lambda: act(client, "CreatePreparedStatement", prepare),
            lambda: rows(client, pb.CommandStatementQuery(query="SELECT breaks")),
            lambda: put(client, pb.CommandStatementUpdate(query="CRASH"), pa.table({})),
        ):
            with pytest.raises(pa.ArrowException, match=r"internal error \d+") as caught:
                attempt()
            shown = str(caught.value) + str(getattr(caught.value, "extra_info", ""))
            assert SECRET not in shown and "Traceback" not in shown and ".py" not in shown

    def test_get_schema_keeps_the_classes_it_can(self, client):
        for error, raised in (
            ("UndefinedObject", pa.ArrowKeyError),
            ("SqlSyntaxError", pa.ArrowInvalid),
            ("Unsupported", pa.ArrowNotImplementedError),
            ("AccessDenied", pa.ArrowException),
        ):
            with pytest.raises(raised, match=r"it did not work.*SQLSTATE") as caught:
                client.get_schema(descriptor(pb.CommandStatementQuery(query=f"FAIL {error}")), bearer())
            assert "Traceback" not in str(caught.value)

    @pytest.mark.parametrize("error", ["SqlSyntaxError", "Conflict"])
    def test_a_long_message_is_cut_and_keeps_its_sqlstate(self, client, error):
        """gRPC drops an answer whose trailers exceed about 8 KB."""
        with pytest.raises(pa.ArrowException, match=r"é{500,600}… \[SQLSTATE 4"):
            info(client, pb.CommandStatementQuery(query=f"FAIL {error} 50000"))
