"""A Flight SQL server that does nothing: the floor under every short statement.

Each answer is a constant, but every call is the one that a real server gets: prepare, bind, GetFlightInfo, DoGet, DoPut,
through pyarrow.flight and the same generated protobuf.  What a statement costs above this is the service's own.

    INSERT, UPDATE, DELETE          one row was written
    statement has a WHERE           one row of the measured table
    anything else                   one row with the number 1
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as flight
from google.protobuf.message import Message

from flightkalam.flight import flight_sql_pb2 as pb
from perf import data

_TYPE_URL = "type.googleapis.com/arrow.flight.protocol.sql."
_ONE = pa.table({"1": pa.array([1], pa.int32())})
_ROW = data.table(1)
_RESULTS = {b"one": _ONE, b"row": _ROW}
_INSERT = b"insert"


def _pack(message: Message) -> bytes:
    return pb.Any(type_url=_TYPE_URL + message.DESCRIPTOR.name, value=message.SerializeToString()).SerializeToString()


def _unpack(data_: bytes) -> tuple[str, bytes]:
    envelope = pb.Any.FromString(data_)
    return envelope.type_url.removeprefix(_TYPE_URL), envelope.value


def _handle_of(sql: str) -> bytes:
    if sql.startswith(("INSERT", "UPDATE", "DELETE")):
        return _INSERT
    return b"row" if "WHERE" in sql else b"one"


class Stub(flight.FlightServerBase):
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        if action.type == "ClosePreparedStatement":
            return iter(())
        if action.type != "CreatePreparedStatement":
            raise NotImplementedError(action.type)
        _, body = _unpack(action.body.to_pybytes())
        handle = _handle_of(pb.ActionCreatePreparedStatementRequest.FromString(body).query)
        schema = b"" if handle == _INSERT else _RESULTS[handle].schema.serialize().to_pybytes()
        answer = pb.ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle, dataset_schema=schema, is_update=handle == _INSERT
        )
        return iter((_pack(answer),))

    def get_flight_info(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        name, body = _unpack(descriptor.command)
        if name != "CommandPreparedStatementQuery":
            raise NotImplementedError(name)
        handle = pb.CommandPreparedStatementQuery.FromString(body).prepared_statement_handle
        ticket = _pack(pb.TicketStatementQuery(statement_handle=handle))
        return flight.FlightInfo(_RESULTS[handle].schema, descriptor, [flight.FlightEndpoint(ticket, [])], -1, -1)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        _, body = _unpack(ticket.ticket)
        return flight.RecordBatchStream(_RESULTS[pb.TicketStatementQuery.FromString(body).statement_handle])

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        name, body = _unpack(descriptor.command)
        reader.read_all()
        if name == "CommandPreparedStatementQuery":
            handle = pb.CommandPreparedStatementQuery.FromString(body).prepared_statement_handle
            answer: Message = pb.DoPutPreparedStatementResult(prepared_statement_handle=handle)
        else:
            answer = pb.DoPutUpdateResult(record_count=1)
        writer.write(pa.py_buffer(answer.SerializeToString()))


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = Stub("grpc://127.0.0.1:0")
    print(f"stub ready grpc://127.0.0.1:{server.port}", flush=True)
    stop.wait()
    server.shutdown()


if __name__ == "__main__":
    main()
