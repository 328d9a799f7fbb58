"""A bare pyarrow.flight server: a ticket is a query, its answer is DuckDB's reader handed to Arrow as it is.

No SQL of its own, no accounts, no limits on the size of a batch: what streaming costs when nothing stands in between.
"""

from __future__ import annotations

import signal
import threading

import duckdb
import pyarrow.flight as flight

from perf.data import BATCH_ROWS

# What the service tells its engine, too: files never change under their name.
IMMUTABLE_FILES = "SET parquet_metadata_cache = true; SET validate_external_file_cache = 'NO_VALIDATION'"


class Bare(flight.FlightServerBase):
    def __init__(self, location: str) -> None:
        self._database = duckdb.connect()
        self._database.execute(IMMUTABLE_FILES)
        super().__init__(location)

    def get_flight_info(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        with self._database.cursor() as cursor:
            schema = cursor.sql(descriptor.command.decode()).limit(0).to_arrow_table().schema
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        relation = self._database.cursor().sql(ticket.ticket.decode())
        return flight.RecordBatchStream(relation.to_arrow_reader(BATCH_ROWS))


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = Bare("grpc://127.0.0.1:0")
    print(f"bare ready grpc://127.0.0.1:{server.port}", flush=True)
    stop.wait()
    server.shutdown()


if __name__ == "__main__":
    main()
