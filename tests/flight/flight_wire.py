"""Helpers that speak to a server below any Flight SQL client: messages packed by hand, and bare gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.flight import commands
from flightkalam.flight import flight_sql_pb2 as pb


def bearer(user: str = "ann", **headers: str) -> flight.FlightCallOptions:
    pairs = [(b"authorization", f"Bearer token-{user}".encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return flight.FlightCallOptions(headers=pairs)


def descriptor(message: Any) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(commands.pack(message))


def info(client: flight.FlightClient, message: Any, user: str = "ann") -> flight.FlightInfo:
    return client.get_flight_info(descriptor(message), bearer(user))


def rows(client: flight.FlightClient, message: Any, user: str = "ann") -> pa.Table:
    """GetFlightInfo and DoGet, which must agree on the schema."""
    promised = info(client, message, user)
    table = client.do_get(promised.endpoints[0].ticket, bearer(user)).read_all()
    assert table.schema.equals(promised.schema)
    return table


def act(client: flight.FlightClient, type_: str, body: bytes, user: str = "ann") -> list[bytes]:
    results = client.do_action(flight.Action(type_, body), bearer(user))
    return [result.body.to_pybytes() for result in results]


def put(client: flight.FlightClient, message: Any, table: pa.Table, user: str = "ann") -> bytes:
    writer, reader = client.do_put(descriptor(message), table.schema, bearer(user))
    with writer:
        writer.write_table(table)
        writer.done_writing()
        return reader.read().to_pybytes()


def put_raw(port: int, messages: Iterable[bytes], *, user: str = "ann", cancel_after: float | None = None) -> list[bytes]:
    """DoPut of ready FlightData messages; `cancel_after` breaks the call off instead of ending it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")

        def requests() -> Iterator[bytes]:
            yield from messages
            if cancel_after is not None:
                time.sleep(cancel_after)
                call.cancel()
                time.sleep(0.05)

        call = method(requests(), metadata=[("authorization", f"Bearer token-{user}")])
        return list(call)


def flight_data(header: bytes = b"", body: bytes = b"", message: Any = None) -> bytes:
    """A FlightData message: descriptor = 1, header = 2, body = 1000."""
    described = b"" if message is None else _field(1, b"\x08\x02" + _field(2, commands.pack(message)))
    return described + _field(2, header) + (_field(1000, body) if body else b"")


def ipc(buffer: pa.Buffer) -> tuple[bytes, bytes]:
    """Header and body of an encapsulated IPC message."""
    data = buffer.to_pybytes()
    size = int.from_bytes(data[4:8], "little")
    return data[8 : 8 + size], data[8 + size :]


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data if data else b""


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


__all__ = ["act", "bearer", "descriptor", "flight_data", "info", "ipc", "pb", "put", "put_raw", "rows"]
