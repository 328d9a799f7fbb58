"""The Flight server: one short method per RPC, each of them decode, call the session, encode.

Every handler is wrapped by `status.answered`; what an RPC means is in the table of `dispatch`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.errors import Cancelled, TryAgain
from flightkalam.flight import commands, credentials, dispatch
from flightkalam.flight.ports import Credentials, Service, Session
from flightkalam.flight.status import answered
from flightkalam.flight.streams import Streams
from flightkalam.flight.tickets import KEY_BYTES, Tickets
from flightkalam.flight.uploads import Upload

_MICROSECONDS = pa.timestamp("us", "UTC")
# What a result that was told to stop may take to notice, beyond the deadline.
_STOP_SECONDS = 5.0


class FlightKalamServer(flight.FlightServerBase):
    """A Flight SQL listener over one service; it answers as soon as it is made.

    :param service: the front door; several listeners may share one.
    :param location: `grpc://host:port`, `grpc+tls://host:port` or `grpc+unix:///path`; port 0 takes a free one,
        which `port` tells.
    :param tls_certificates: (certificate, key) pairs in PEM.
    :param verify_client: demand client certificates, and take their names as identity where a call has no
        authorization header.  Flight tells these names only to a server without handshake, so a listener has the one or
        the other; use two for both.
    :param root_certificates: PEM; who may sign client certificates.
    :param ticket_key: secret of the tickets; listeners and restarts that share it accept each other's.
    """

    def __init__(
        self,
        service: Service,
        location: str,
        tls_certificates: Sequence[tuple[bytes, bytes]] | None = None,
        verify_client: bool = False,
        root_certificates: bytes | None = None,
        ticket_key: bytes | None = None,
    ) -> None:
        # The base class starts to answer in its constructor, so it comes last.
        self._service = service
        self._certificates_identify = verify_client
        self._tickets = Tickets(ticket_key if ticket_key is not None else secrets.token_bytes(KEY_BYTES))
        self._streams = Streams(service.count_error)
        super().__init__(
            location,
            auth_handler=None if verify_client else credentials.Handshake(service),
            tls_certificates=list(tls_certificates) if tls_certificates else None,
            verify_client=verify_client,
            root_certificates=root_certificates,
            middleware={credentials.MIDDLEWARE: credentials.HeaderReader(service)},
        )

    # -------------------------------------------------------------------------------------------------------- RPCs

    @answered
    def get_flight_info(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        row, body, raw = _row(descriptor, "info", "GetFlightInfo")
        call = self._call(context, row, raw)
        assert row.info is not None
        with self._watched(call):
            answer = row.info(call, row.decode(body))
        expires = None if answer.expires_us is None else pa.scalar(answer.expires_us, _MICROSECONDS)
        endpoints = [flight.FlightEndpoint(ticket, [], expires) for ticket in answer.tickets]
        return flight.FlightInfo(answer.schema, descriptor, endpoints, answer.total, -1)

    @answered
    def get_schema(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.SchemaResult:
        row, body, raw = _row(descriptor, "schema", "GetSchema")
        call = self._call(context, row, raw)
        assert row.schema is not None
        with self._watched(call):
            return flight.SchemaResult(row.schema(call, row.decode(body)))

    @answered
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        name, body = commands.unpack(ticket.ticket)
        row = dispatch.command_row(name, "get", "DoGet")
        call = self._call(context, row, ticket.ticket)
        assert row.get is not None
        return row.get(call, row.decode(body))

    @answered
    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        row, body, raw = _row(descriptor, "put", "DoPut")
        call = self._call(context, row, raw)
        assert row.put is not None
        upload = Upload(reader, context)
        with self._watched(call):
            result = row.put(call, row.decode(body), upload)
        # The answer first: some clients wait for it before they end their stream.
        writer.write(pa.py_buffer(result))
        upload.drain()

    @answered
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        row, body = dispatch.action_row(action.type, action.body.to_pybytes())
        call = self._call(context, row, body)
        assert row.action is not None
        with self._watched(call):
            return row.action(call, row.decode(body))

    @answered
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        self._authenticate(context)
        return dispatch.listed_actions()

    @answered
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> list[flight.FlightInfo]:
        return list(dispatch.flights(self._call(context, dispatch.PATH, b""), criteria))

    @answered
    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        row, body, raw = _row(descriptor, "exchange", "DoExchange")
        call = self._call(context, row, raw)
        assert row.exchange is not None
        with self._watched(call):
            row.exchange(
                call, row.decode(body), Upload(reader, context), lambda said: writer.write_metadata(pa.py_buffer(said))
            )

    # ------------------------------------------------------------------------------------------------------ the call

    def count_error(self, sqlstate: str) -> None:
        self._service.count_error(sqlstate)

    def user_agent_of(self, context: flight.ServerCallContext) -> str:
        return context.get_middleware(credentials.MIDDLEWARE).user_agent

    def _authenticate(self, context: flight.ServerCallContext) -> tuple[Session, dict[str, str]]:
        raw = context.get_middleware(credentials.MIDDLEWARE).raw
        shown = credentials.credentials_of(raw)
        if shown is None and self._certificates_identify:
            shown = Credentials("certificate", context.peer_identity().decode("utf-8", "replace"))
        headers = credentials.public_headers(raw)
        return self._service.session(shown, context.peer(), headers), headers

    def _call(self, context: flight.ServerCallContext, row: dispatch.Row, raw: bytes) -> dispatch.Call:
        if self._service.draining and not row.finishing:
            raise TryAgain("the server is shutting down; connect again in a moment")
        session, headers = self._authenticate(context)
        user_agent = self.user_agent_of(context)
        return dispatch.Call(self._service, session, headers, user_agent, context, self._tickets, self._streams, raw)

    @contextmanager
    def _watched(self, call: dispatch.Call) -> Iterator[None]:
        """What the call runs stops when its client goes away."""
        with self._streams.opening((call.user, b""), call.context) as opening:
            call.session.watched(opening.can_stop)
            try:
                yield
            except Cancelled as error:
                raise opening.reason or error from None
            finally:
                call.session.watched(_unwatched)

    # ------------------------------------------------------------------------------------------------------ the end

    def shutdown(self) -> None:
        """Stop at once and wait for the calls that run."""
        super().shutdown()
        self._streams.close()

    def drain(self, deadline_s: float) -> bool:
        """Take no new work, let running results end, stop those that are left at the deadline, and shut down.

        :return: whether every call has ended; a client that stalls in the middle of an upload cannot be made to.
        """
        self._service.draining = True
        self._streams.wait_idle(deadline_s)
        self._streams.stop_all(TryAgain("the server is shutting down; run the query again in a moment"))
        # Arrow's shutdown waits for the last call, however long it takes.
        closing = threading.Thread(target=self.shutdown, name="flight-shutdown", daemon=True)
        closing.start()
        closing.join(_STOP_SECONDS)
        return not closing.is_alive()


def _row(descriptor: flight.FlightDescriptor, entry: str, rpc: str) -> tuple[dispatch.Row, Any, bytes]:
    """The row of a descriptor, what the row is to decode, and the command as it came."""
    raw = descriptor.command
    if raw is None:
        return dispatch.PATH, commands.path(descriptor.path), b""
    name, body = commands.unpack(raw)
    return dispatch.command_row(name, entry, rpc), body, raw


def _unwatched(stop: Callable[[], None]) -> None:
    """Nobody looks at the call any more."""
