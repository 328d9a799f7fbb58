"""What the measurements share; each part is made when the first of them asks, and all of it goes at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa

from perf import data, servers
from perf.inside import Inside, parts_of
from perf.postgres import Postgres
from perf.servers import ServerProcess

_LEFT_ALONE = "COMPACTION = 'manual', FLUSH_POLICY = 'rows:1000000000'"
KEYED = {"x-kalam-primary-key": "k"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """:param repeats: of the long measurements.
    :param calls: of each short statement.
    """

    scan_rows: int = 10_000_000
    ingest_rows: int = 1_000_000
    start_rows: int = 1_000_000
    point_batches: int = 100
    point_batch_rows: int = 10_000
    repeats: int = 7
    calls: int = 400
    dead_rows: int = 2_000_000
    versioned_rows: int = 20_000
    feed_rows: int = 1_000_000
    feed_changes: int = 10_000
    users: int = 10_000
    manifests: int = 50_000
    manifest_batches: int = 5_000
    rebuild_rows: int = 10_000


# Enough to see that everything runs, too little to believe a figure.
QUICK = Sizes(300_000, 100_000, 100_000, 10, 1_000, 2, 40, 100_000, 500, 20_000, 1_000, 50, 500, 300, 200)


class World:
    """Use as a context manager.

    :param parent: where the temporary folder is made; decides which disk is measured.
    """

    def __init__(self, sizes: Sizes, parent: Path | None = None) -> None:
        self.sizes = sizes
        self.timings: dict[str, tuple[list[float], list[float]]] = {}  # of calls that more than one figure is of
        self.folder = Path(tempfile.mkdtemp(prefix="perf-", dir=parent))
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    # -- servers -------------------------------------------------------------------------------------------------

    def _run(self, server: ServerProcess) -> ServerProcess:
        self._stack.callback(server.stop)
        return server

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @cached_property
    def data_dir(self) -> Path:
        return self.folder / "kalam"

    @cached_property
    def kalam(self) -> ServerProcess:
        return self._run(servers.start_kalam(self.data_dir, self.log("kalam")))

    @cached_property
    def stub(self) -> ServerProcess:
        return self._run(servers.start(["perf.stub"], self.log("stub")))

    @cached_property
    def bare(self) -> ServerProcess:
        return self._run(servers.start(["perf.bare"], self.log("bare")))

    @cached_property
    def postgres(self) -> Postgres:
        """:raises NotPossible: it is not installed."""
        server = Postgres(self.folder.parent)
        self._stack.callback(server.close)
        return server

    def connect(self, headers: dict[str, str] | None = None) -> flightsql.Connection:
        """A connection to the service that lives as long as the world."""
        return self._stack.enter_context(servers.connect(self.kalam.uri, headers))

    @cached_property
    def connection(self) -> flightsql.Connection:
        return self.connect()

    @cached_property
    def stub_connection(self) -> flightsql.Connection:
        return self._stack.enter_context(flightsql.connect(self.stub.uri, autocommit=True))

    # -- tables --------------------------------------------------------------------------------------------------

    @cached_property
    def scanned(self) -> list[Path]:
        """The batch files of the cold table `scanned`."""
        load_cold(self.connection, "scanned", [data.reader(self.sizes.scan_rows)])
        return files_of(self.data_dir, "scanned")

    @cached_property
    def in_order(self) -> list[Path]:
        """Batches of consecutive keys: each key lies in the range of one batch."""
        n = self.sizes.point_batch_rows
        load_cold(self.connection, "in_order", (data.reader(n, i * n) for i in range(self.sizes.point_batches)))
        return files_of(self.data_dir, "in_order")

    @cached_property
    def changed(self) -> list[Path]:
        """As `in_order`, for statements that change its rows."""
        n = self.sizes.point_batch_rows
        load_cold(self.connection, "changed", (data.reader(n, i * n) for i in range(self.sizes.point_batches)))
        return files_of(self.data_dir, "changed")

    @cached_property
    def inside(self) -> Inside:
        """A service of its own in this process, with the same table `changed`."""
        made = self._stack.enter_context(Inside(self.folder / "inside"))
        made.load_cold("changed", data.COLUMNS_SQL, parts_of(self.point_rows, self.sizes.point_batches))
        return made

    @cached_property
    def at_random(self) -> list[Path]:
        """Batches of random keys: every key lies in the range of every batch."""
        parts = data.permuted(self.point_rows).reshape(self.sizes.point_batches, -1)
        readers = (data.with_keys(part).to_reader(data.BATCH_ROWS) for part in parts)
        load_cold(self.connection, "at_random", readers)
        return files_of(self.data_dir, "at_random")

    @property
    def point_rows(self) -> int:
        return self.sizes.point_batches * self.sizes.point_batch_rows


def load_cold(
    connection: flightsql.Connection, table: str, parts: Iterator[pa.RecordBatchReader] | list[pa.RecordBatchReader]
) -> None:
    """Ingest each part and flush it to batches of its own, which stay as they are while they are measured."""
    servers.run_sql(connection, f"CREATE TABLE {table} ({data.COLUMNS_SQL}) WITH ({_LEFT_ALONE})")
    with connection.cursor() as cursor:
        for part in parts:
            cursor.adbc_ingest(table, part, mode="append")
            servers.run_sql(connection, f"FLUSH TABLE {table} WAIT")


def files_of(data_dir: Path, table: str) -> list[Path]:
    found = sorted(data_dir.glob(f"cold/**/{table}~*/batch-*.parquet"))
    if not found:
        raise RuntimeError(f'table "{table}" has no batch files below {data_dir}: the flush did not write them')
    return found


def file_list(paths: list[Path]) -> str:
    """The argument of DuckDB's read_parquet."""
    return "[" + ", ".join(f"'{p}'" for p in paths) + "]"
