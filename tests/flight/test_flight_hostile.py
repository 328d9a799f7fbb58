"""Bytes from anybody: whatever arrives, one clear error leaves, and nothing of ours with it."""

from __future__ import annotations

import base64
import string

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from flight_wire import bearer, pb
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flightkalam.errors import BadRequest, KalamError, Unauthenticated, UndefinedObject
from flightkalam.flight import commands, credentials, dispatch
from flightkalam.flight.ports import Credentials
from flightkalam.flight.tickets import Kind, Tickets

JUNK = st.binary(max_size=200)
NAMES = st.sampled_from(sorted(dispatch.ROWS)) | st.text(string.printable, max_size=30)
# The same examples in every run, and no database of failures in the checkout.
REPEATABLE = settings(derandomize=True, database=None, deadline=None)
SHORT = settings(REPEATABLE, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def wrapped(name: str, body: bytes) -> bytes:
    return pb.Any(type_url=commands.TYPE_URL + name, value=body).SerializeToString()


class TestDecoding:
    @SHORT
    @given(JUNK)
    def test_junk_is_no_command(self, data):
        try:
            commands.unpack(data)
        except BadRequest:
            return
        pytest.fail("200 bytes of junk cannot name our package")

    @settings(REPEATABLE, max_examples=300)
    @given(st.sampled_from(sorted(dispatch.ROWS)), JUNK)
    def test_every_decoder_answers_junk_with_a_command_or_a_bad_request(self, name, body):
        try:
            first = dispatch.ROWS[name].decode(body)
        except BadRequest:
            return
        assert first == dispatch.ROWS[name].decode(body)

    def test_an_envelope_is_the_well_known_any(self):
        envelope = any_pb2.Any(
            type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables",
            value=pb.CommandGetTables(catalog="c").SerializeToString(),
        )
        assert commands.unpack(envelope.SerializeToString()) == ("CommandGetTables", envelope.value)
        assert commands.pack(pb.CommandGetTables(catalog="c")) == envelope.SerializeToString()

    def test_another_library_may_define_the_same_names_in_this_process(self):
        pool = descriptor_pool.Default()
        theirs = descriptor_pb2.FileDescriptorProto(
            name="their_flight_sql.proto", package="arrow.flight.protocol.sql", syntax="proto3"
        )
        theirs.message_type.add(name="CommandGetTables")
        pool.Add(theirs) if hasattr(pool, "Add") else pool.AddSerializedFile(theirs.SerializeToString())
        assert pool.FindMessageTypeByName("arrow.flight.protocol.sql.CommandGetTables").fields == []
        assert pb.CommandGetTables(catalog="c").catalog == "c"

    def test_sql_info_codes_packed_and_one_by_one(self):
        assert commands.get_sql_info(b"\x0a\x02\x03\x08").codes == (3, 8)
        assert commands.get_sql_info(b"\x08\x03\x08\x08").codes == (3, 8)


class TestThroughTheServer:
    """Each of these must come back as a clean refusal, and the server must live on."""

    def refused(self, attempt):
        try:
            attempt()
        except (pa.ArrowException, flight.FlightError) as error:
            assert "Traceback" not in str(error) and "internal error" not in str(error)
            assert "[SQLSTATE " in str(error)

    @SHORT
    @given(NAMES, JUNK)
    def test_junk_by_every_rpc(self, client, name, body):
        data = wrapped(name, body)
        described = flight.FlightDescriptor.for_command(data)
        self.refused(lambda: client.get_flight_info(described, bearer()))
        self.refused(lambda: client.get_schema(described, bearer()))
        self.refused(lambda: client.do_get(flight.Ticket(data), bearer()).read_all())
        self.refused(lambda: list(client.do_action(flight.Action(name, body), bearer())))
        self.refused(lambda: list(client.do_action(flight.Action(name, data), bearer())))

    @SHORT
    @given(JUNK)
    def test_junk_that_is_no_envelope(self, client, data):
        self.refused(lambda: client.get_flight_info(flight.FlightDescriptor.for_command(data), bearer()))
        self.refused(lambda: client.do_get(flight.Ticket(data), bearer()).read_all())

    def test_the_server_lives_on(self, client):
        for data in (b"", b"\xff" * 1000):
            self.refused(lambda data=data: client.do_get(flight.Ticket(data), bearer()).read_all())
        assert list(client.list_actions(bearer()))


class TestTickets:
    """T-49: a ticket is its owner's."""

    TICKETS = Tickets(b"k" * 32)

    @REPEATABLE
    @given(st.binary(max_size=40), st.text(max_size=20))
    def test_the_owner_gets_the_handle_back(self, handle, user):
        sealed = self.TICKETS.seal(Kind.STATEMENT, handle, user)
        assert self.TICKETS.open(Kind.STATEMENT, sealed, user) == handle
        assert not user or len(user) < 4 or user.encode() not in sealed.replace(handle, b"")

    @REPEATABLE
    @given(st.binary(min_size=1, max_size=40), st.data())
    def test_a_changed_byte_makes_it_unknown(self, handle, data):
        sealed = bytearray(self.TICKETS.seal(Kind.STATEMENT, handle, "ann"))
        at = data.draw(st.integers(0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(UndefinedObject, match="no such ticket"):
            self.TICKETS.open(Kind.STATEMENT, bytes(sealed), "ann")

    @REPEATABLE
    @given(JUNK)
    def test_junk_and_foreign_tickets_are_one_error(self, junk):
        foreign = self.TICKETS.seal(Kind.STATEMENT, b"handle", "ann")
        texts = set()
        for ticket in (junk, foreign, foreign[:10], b""):
            with pytest.raises(UndefinedObject) as caught:
                self.TICKETS.open(Kind.STATEMENT, ticket, "bob")
            texts.add((caught.value.message, caught.value.sqlstate))
        assert len(texts) == 1

    def test_another_key_is_another_server(self):
        sealed = self.TICKETS.seal(Kind.STATEMENT, b"h", "ann")
        with pytest.raises(UndefinedObject):
            Tickets(b"x" * 32).open(Kind.STATEMENT, sealed, "ann")

    def test_a_name_cannot_be_moved_into_the_handle(self):
        """('ab', 'c') and ('a', 'bc') differ."""
        sealed = self.TICKETS.seal(Kind.STATEMENT, b"c", "ab")
        forged = sealed[:-1] + b"bc"
        with pytest.raises(UndefinedObject):
            self.TICKETS.open(Kind.STATEMENT, forged, "a")


class TestCredentials:
    @REPEATABLE
    @given(st.text(string.ascii_letters + "äß€", min_size=1), st.text("abc:=ü"))
    def test_basic_with_and_without_padding(self, user, password):
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        for value in (encoded, encoded.rstrip("=")):
            for scheme in ("Basic", "basic", "BASIC"):
                assert credentials.parse_authorization(f"{scheme} {value}") == Credentials("basic", user, password)

    def test_bearer(self):
        assert credentials.parse_authorization("Bearer a.b.c") == Credentials("bearer", secret="a.b.c")

    @REPEATABLE
    @given(st.text(max_size=60))
    def test_anything_else_is_unauthenticated(self, value):
        try:
            credentials.parse_authorization(value)
        except KalamError as error:
            assert isinstance(error, Unauthenticated)

    @pytest.mark.parametrize(
        "value", ["", "Basic", "Basic !!!", "Basic YQ==", "Basic /////w==", "Bearer ", "Digest x", "Basic é"]
    )
    def test_what_cannot_be_read_is_refused(self, value):
        with pytest.raises(Unauthenticated):
            credentials.parse_authorization(value)

    def test_two_different_headers_are_refused(self):
        with pytest.raises(Unauthenticated, match="more than one"):
            credentials.credentials_of({"authorization": ["Bearer a", "Bearer b"]})

    def test_secrets_are_neither_shown_nor_passed_on(self):
        assert "hunter2" not in repr(Credentials("basic", "ann", "hunter2"))
        headers = {"authorization": ["Bearer s"], "auth-token-bin": [b"s"], "X-Kalam-As-User": ["bob"], "empty": []}
        assert credentials.public_headers(headers) == {"x-kalam-as-user": "bob"}

    def test_no_value_of_a_repeated_header_is_silently_left_out(self):
        headers = {"x-kalam-as-user": ["ann", "bob"], "cookie": ["a=1", "arrow_flight_session_id=s"]}
        found = credentials.public_headers(headers)
        assert found["x-kalam-as-user"] == "ann, bob", "which is no name: the session refuses it"
        assert credentials.session_cookie(found) == "s"
