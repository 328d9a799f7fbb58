"""The service in this process: a session on a directory of its own, without a wire.

What is measured here is the service's own work; the same statements through a client are in the other rooms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flightkalam import telemetry
from flightkalam.app import Kalam, open_kalam
from flightkalam.auth.identity import Identity, Role
from flightkalam.config import Config
from flightkalam.session import Session
from flightkalam.session.parts import Parts
from flightkalam.session.results import Results
from perf import data, servers

LEFT_ALONE = "COMPACTION = 'manual', FLUSH_POLICY = 'rows:1000000000'"


@dataclass(frozen=True, slots=True)
class Append:
    """An ingest into a table that exists."""

    table: str
    namespace: str | None = None
    catalog: str | None = None
    if_not_exist: str = "fail"
    if_exists: str = "append"
    temporary: bool = False


class Inside:
    """Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        config = Config(
            server={"data_dir": folder, "port": 0},
            auth={"root_password": servers.PASSWORD},
            log={"level": "error"},
        )
        telemetry.configure(config.log)
        self.kalam: Kalam = open_kalam(config)
        self._results = Results()
        self.session = self.new_session()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.session.close()
        self.kalam.close()

    def new_session(self, parts: Parts | None = None) -> Session:
        identity = Identity.of(servers.USER, Role.SYSTEM, session_id="perf", via="password")
        return Session(parts or self.kalam.parts, identity, "perf", self._results)

    def run(self, sql: str) -> pa.Table:
        """A statement with rows."""
        with contextlib.closing(self.session.query(sql)) as rows:
            return pa.Table.from_batches(list(rows), rows.schema)

    def update(self, sql: str) -> int:
        return self.session.update(sql, None)

    def append(self, table: str, rows: pa.RecordBatchReader, headers: Mapping[str, str] | None = None) -> int:
        return self.session.ingest(Append(table), rows.schema, iter(rows), headers or {})

    def load_cold(self, table: str, columns: str, parts: Iterable[pa.RecordBatchReader]) -> None:
        """Ingest each part and flush it to batches of its own, which stay as they are while they are measured."""
        self.update(f"CREATE TABLE {table} ({columns}) WITH ({LEFT_ALONE})")
        for part in parts:
            self.append(table, part)
            self.flush(table)

    def flush(self, table: str) -> None:
        status = self.run(f"FLUSH TABLE {table} WAIT").column("status").to_pylist()
        if status != ["completed"]:
            raise RuntimeError(f"the flush of {table} ended as {status}")


def parts_of(rows: int, parts: int) -> Iterator[pa.RecordBatchReader]:
    """`rows` rows of consecutive keys in so many equal parts."""
    each = rows // parts
    return (data.reader(each, i * each) for i in range(parts))
