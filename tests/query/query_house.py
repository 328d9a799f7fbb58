"""A small house for the query room: tables of batch files and hot rows, without any storage room."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from flightkalam.errors import undefined_table
from flightkalam.model.predicate import Predicate
from flightkalam.model.schema import Column, Table, TableKind, TableSchema, View
from flightkalam.model.types import parse_type, to_storage
from flightkalam.query import params
from flightkalam.query.compute import CancelToken, Setting
from flightkalam.query.duckdb_engine import DuckDBEngine
from flightkalam.query.execute import Executor
from flightkalam.query.guard import Guard
from flightkalam.query.planner import (
    ArrowRelation,
    Planned,
    Relation,
    ScanRequest,
    TableRelation,
    ViewRelation,
    bind,
    plan,
)
from flightkalam.table.scan import DirtyBatch


@dataclass(frozen=True)
class FakeScan:
    schema: TableSchema
    hot: pa.Table | None = None
    clean: tuple[str, ...] = ()
    dirty: tuple[DirtyBatch, ...] = ()
    blank: int = 0


def make_table(name: str, columns: dict[str, str], *, key: int = 1, namespace: str = "main", hidden_key: bool = False) -> Table:
    made = [Column(i + 1, n, parse_type(t), not_null=i + 1 == key) for i, (n, t) in enumerate(columns.items())]
    if hidden_key:
        made.append(Column(len(made) + 1, "_id", parse_type("BIGINT"), not_null=True, hidden=True))
        key = len(made)
    schema = TableSchema(1, tuple(made), (key,))
    return Table(
        id=zlib.crc32(f"{namespace}.{name}".encode()) % 10_000,
        namespace=namespace,
        name=name,
        kind=TableKind.SHARED,
        schema=schema,
        next_column_id=len(made) + 1,
        created_by="root",
        created_at_us=0,
        folder=f"{namespace}/{name}~1",
    )


def make_rows(table: Table, rows: list[dict[str, object]], *, first_seq: int = 100, deleted: bool = False) -> pa.Table:
    """Rows of a table in its storage form."""
    n = len(rows)
    arrays = [to_storage(pa.array([r.get(c.name) for r in rows], c.type.wire), c.type, c.name) for c in table.schema.columns]
    arrays += [pa.array(np.arange(first_seq, first_seq + n)), pa.array([deleted] * n)]
    return pa.table(arrays, schema=table.schema.file)


_IDS = itertools.count(1, 1_000_000)


def make_engine(root: Path) -> DuckDBEngine:
    def ids(n: int) -> np.ndarray:
        first = next(_IDS)
        return np.arange(first, first + n, dtype=np.int64)

    return DuckDBEngine(directories=[root], ids=ids, threads=2, version="FlightKalam test")


@dataclass
class House:
    """Tables, views and a session that may read all of them."""

    root: Path
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    scans: dict[tuple[str, str], FakeScan] = field(default_factory=dict)
    views: dict[tuple[str, str], View] = field(default_factory=dict)
    arrow: dict[tuple[str, str], pa.Table] = field(default_factory=dict)
    requests: list[ScanRequest] = field(default_factory=list)
    tombstones: dict[tuple[str, str], pa.Table] = field(default_factory=dict)
    on_scan: Callable[[ScanRequest], None] | None = None

    engine: DuckDBEngine = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.engine = self.engine or make_engine(self.root)
        self.guard = Guard(self.engine)
        self.executor = Executor(self.engine)

    # -- contents ---------------------------------------------------------------------------------------------

    def add(
        self,
        table: Table,
        *,
        hot: list[dict[str, object]] = (),  # type: ignore[assignment]
        batches: list[list[dict[str, object]]] = (),  # type: ignore[assignment]
        dead: dict[int, list[int]] | None = None,
    ) -> Table:
        """:param dead: dead row numbers by batch number."""
        name = (table.namespace.lower(), table.name.lower())
        clean, dirty = [], []
        for i, rows in enumerate(batches):
            path = self.write(table, make_rows(table, rows, first_seq=i * 1000), i)
            if dead and i in dead:
                dirty.append(DirtyBatch(path, BitMap(dead[i]), len(rows)))
            else:
                clean.append(path)
        rows = make_rows(table, hot, first_seq=1_000_000) if hot else None
        self.tables[name] = table
        self.scans[name] = FakeScan(table.schema, rows, tuple(clean), tuple(dirty))
        return table

    def write(self, table: Table, rows: pa.Table, number: int, **options: object) -> str:
        folder = self.root / table.folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"batch-{number}.parquet"
        pq.write_table(rows, path, row_group_size=1000, **options)
        return str(path)

    def view(self, name: str, text: str, columns: tuple[str, ...] | None = None, namespace: str = "main") -> None:
        self.views[(namespace, name)] = View(namespace, name, text, columns, "root", 0, namespace)

    # -- the session's part -----------------------------------------------------------------------------------

    def resolve(self, parts: tuple[str, ...], namespace: str | None) -> Relation:
        name = (parts[0].lower() if len(parts) == 2 else (namespace or "main"), parts[-1].lower())
        if name in self.tables:
            return TableRelation(self.tables[name])
        if name in self.views:
            return ViewRelation(self.views[name])
        if name in self.arrow:
            return ArrowRelation(*name, self.arrow[name])
        raise undefined_table(".".join(parts))

    def scan(self, request: ScanRequest) -> FakeScan:
        self.requests.append(request)
        name = (request.table.namespace.lower(), request.table.name.lower())
        scan = self.scans[name]
        if request.tombstones and name in self.tombstones:
            parts = [t for t in (scan.hot, self.tombstones[name]) if t is not None]
            return FakeScan(scan.schema, pa.concat_tables(parts), scan.clean, scan.dirty)
        return scan

    # -- running ----------------------------------------------------------------------------------------------

    def plan(self, text: str, *values: object, setting: Setting | None = None) -> Planned:
        self.requests.clear()
        guarded = self.guard.check(text)
        zone = (setting or Setting()).time_zone
        bound = bind(guarded, self.guard, self.resolve, parameters=_literals(values), time_zone=zone)
        return plan(bound, self.scan)

    def table(self, text: str, *values: object, setting: Setting | None = None) -> pa.Table:
        """The statement's rows, as announced."""
        setting = setting or Setting()
        self.requests.clear()
        guarded = self.guard.check(text)
        bound = bind(guarded, self.guard, self.resolve, parameters=_literals(values), time_zone=setting.time_zone)
        schema = self.executor.schema(bound, setting)
        rows = self.executor.rows(plan(bound, self.scan), schema, setting, CancelToken())
        return rows.read_all()

    def rows(self, text: str, *values: object, setting: Setting | None = None) -> list[tuple[object, ...]]:
        table = self.table(text, *values, setting=setting)
        return list(zip(*(c.to_pylist() for c in table.columns), strict=True)) if table.num_columns else []

    def predicate(self, text: str, *values: object, zone: str = "UTC") -> Predicate:
        """The predicate of the statement's first table."""
        self.plan(text, *values, setting=Setting(zone))
        return self.requests[0].predicate


def _literals(values: tuple[object, ...]) -> list[params.Literal]:
    return [params.literal(v if isinstance(v, pa.Scalar) else pa.scalar(v)) for v in values]
