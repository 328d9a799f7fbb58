"""A whole table to a client by GetFlightInfo and DoGet, beside a bare Flight server that streams the same DuckDB result."""

from __future__ import annotations

import pyarrow.flight as flight

from flightkalam.flight import flight_sql_pb2 as pb
from perf import data, servers
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World, file_list

NAME = "stream_rows"
_COLUMNS = ", ".join(data.SCHEMA.names)


def measure(world: World) -> Result:
    files = world.scanned
    query = pb.CommandStatementQuery(query=f"SELECT {_COLUMNS} FROM scanned").SerializeToString()
    command = pb.Any(
        type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery", value=query
    ).SerializeToString()
    bare = f"SELECT {_COLUMNS} FROM read_parquet({file_list(files)})".encode()
    with flight.connect(world.kalam.uri) as kalam, flight.connect(world.bare.uri) as peer:
        token = kalam.authenticate_basic_token(servers.USER, servers.PASSWORD)
        options = flight.FlightCallOptions(headers=[token])
        rows = world.sizes.scan_rows
        a, b = interleaved(
            lambda: timed(lambda: _read(kalam, command, options, rows)),
            lambda: timed(lambda: _read(peer, bare, flight.FlightCallOptions(), rows)),
            world.sizes.repeats * 2,
        )
    return Result(
        name=NAME,
        ours=rows / median(a) / 1e6,
        peer=rows / median(b) / 1e6,
        ratio=median(b) / median(a),
        target=Target("ratio", "at least", 0.8),
        unit="M rows/s",
        peer_name="bare pyarrow.flight",
        runs=len(a),
        note=f"{rows:,} rows × 8 columns; ours {spread(a, 1, 's')}, peer {spread(b, 1, 's')}",
    )


def _read(client: flight.FlightClient, command: bytes, options: flight.FlightCallOptions, expected: int) -> None:
    """Read every batch and let it go: what the client would do with the rows is not measured."""
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
    reader = client.do_get(info.endpoints[0].ticket, options)
    rows = sum(chunk.data.num_rows for chunk in reader)
    if rows != expected:
        raise AssertionError(f"{rows} rows came where {expected} were expected")
