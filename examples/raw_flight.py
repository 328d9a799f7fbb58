"""Without ADBC: pyarrow.flight and a Flight SQL command by hand: python examples/raw_flight.py [URI USER PASSWORD]

For clients in places where only a Flight library is at hand.  A Flight SQL command is a protobuf message packed into an
`Any`; the few bytes of a query are easily written out.
"""

from __future__ import annotations

import sys

import pyarrow.flight as flight


def main(uri: str = "grpc://127.0.0.1:31337", user: str = "root", password: str = "secret-password") -> None:
    with flight.connect(uri) as client:
        # A login answers with a header that carries a token; it goes with every call from then on.
        token = client.authenticate_basic_token(user, password)
        options = flight.FlightCallOptions(headers=[token])

        descriptor = flight.FlightDescriptor.for_command(statement_query("SELECT range AS n, n * n AS square FROM range(5)"))
        info = client.get_flight_info(descriptor, options)
        for endpoint in info.endpoints:
            print(client.do_get(endpoint.ticket, options).read_all().to_pylist())


def statement_query(sql: str) -> bytes:
    """Any { type_url = 1: …CommandStatementQuery, value = 2: CommandStatementQuery { query = 1 } }"""
    command = _field(1, sql.encode())
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return _field(1, url) + _field(2, command)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


if __name__ == "__main__":
    main(*sys.argv[1:])
