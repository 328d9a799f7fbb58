"""Every type comes back exactly as it went in: hot, cold, and after a restart; by ingest and by parameters (SEMANTICS §1).

T-27, T-28, T-34, T-35, T-36.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from kalam_world import Adbc, World
from service_types import KINDS, Kind, assert_same, ddl, edges, plain, tables

_names = (f"t{i}" for i in itertools.count())
EXAMPLES = settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("types"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire(world: World) -> Adbc:
    return world.adbc()


def read(client: Adbc, table: str) -> pa.Table:
    rows = client.run(f"SELECT * FROM {table} ORDER BY id").rows
    assert rows is not None
    return rows


def by_ingest(client: Adbc, table: str, rows: pa.Table) -> None:
    with client.connection.cursor() as cursor:
        assert cursor.adbc_ingest(table, rows, mode="append") == rows.num_rows


def by_parameters(client: Adbc, table: str, rows: pa.Table) -> None:
    marks = ", ".join("?" * rows.num_columns)
    with client.connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        assert cursor.rowcount == rows.num_rows


def by_statements_of_parameters(client: Adbc, table: str, rows: pa.Table) -> None:
    """As literals: an INSERT … SELECT runs once for each row of parameters."""
    marks = ", ".join("?" * rows.num_columns)
    with client.connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} SELECT {marks}", rows)


WAYS = {"ingest": by_ingest, "parameters": by_parameters, "literals": by_statements_of_parameters}


@pytest.mark.parametrize("way", WAYS)
def test_random_values_of_every_type_come_back_exactly(tmp_path: Path, way: str) -> None:
    world = World(tmp_path)
    written: dict[str, pa.Table] = {}
    try:
        client = world.adbc()

        @settings(EXAMPLES, max_examples=4 if way == "literals" else 12)
        @given(tables())
        def each(rows: pa.Table) -> None:
            name = next(_names)
            client.run(ddl(name))
            WAYS[way](client, name, rows)
            assert_same(read(client, name), rows)
            written[name] = rows

        each()
        world.flush()
        for name, rows in written.items():
            assert_same(read(client, name), rows)
        world.restart()
        client = world.adbc()
        for name, rows in written.items():
            assert_same(read(client, name), rows)
    finally:
        world.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_edges_of_every_type_come_back_exactly(world: World, wire: Adbc, way: str) -> None:
    name, rows = next(_names), edges()
    wire.run(ddl(name))
    WAYS[way](wire, name, rows)
    assert_same(read(wire, name), rows)
    world.flush()
    assert_same(read(wire, name), rows)


def test_the_rows_of_a_restart_without_a_flush(tmp_path: Path) -> None:
    world, rows = World(tmp_path), edges()
    client = world.adbc()
    client.run(ddl("t"))
    by_ingest(client, "t", rows)
    world.restart()
    assert_same(read(world.adbc(), "t"), rows)
    world.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_value_is_found_by_itself(world: World, wire: Adbc, kind: Kind) -> None:
    """A parameter equals the stored value that it was, hot and cold; whatever is pruned, nothing equal is missed."""
    name = next(_names)
    wire.run(ddl(name, (kind,)))
    by_ingest(wire, name, edges((kind,)))
    for _ in range(2):
        rows = read(wire, name)
        for i in range(rows.num_rows):
            value = rows.slice(i, 1).select([kind.name])
            with wire.connection.cursor() as cursor:
                cursor.execute(f"SELECT id FROM {name} WHERE {kind.name} IS NOT DISTINCT FROM ?", value)
                assert i in [r[0] for r in cursor.fetchall()], plain(value.column(0))
        world.flush()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_table_made_by_ingest_has_the_type_that_arrived(world: World, wire: Adbc, kind: Kind) -> None:
    name, rows = next(_names), edges((kind,))
    with wire.connection.cursor() as cursor:
        cursor.adbc_ingest(name, rows, mode="create")
    described = wire.run(f"DESCRIBE {name}").rows
    assert described is not None
    expected = {"json": "TEXT", "uuid": "TEXT"}.get(kind.name, kind.sql)
    assert described.column("column_type").to_pylist()[1].replace('"', "") == expected
    assert_same(read(wire, name), rows)
    world.flush()
    assert_same(read(wire, name), rows)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_create_table_as_keeps_type_and_values(world: World, wire: Adbc, kind: Kind) -> None:
    name, rows = next(_names), edges((kind,))
    wire.run(ddl(name, (kind,)))
    by_ingest(wire, name, rows)
    copy = next(_names)
    wire.run(f"CREATE TABLE {copy} AS SELECT * FROM {name}")
    assert_same(read(wire, copy), rows)
    described = wire.run(f"DESCRIBE {copy}").rows
    assert described is not None
    # To queries a JSON column is text: what they make of it is a text column.
    expected = "TEXT" if kind.sql == "JSON" else kind.sql
    assert described.column("column_type").to_pylist()[1].replace('"', "") == expected
    wire.run(f"INSERT INTO {copy} SELECT * REPLACE (id + 1000 AS id) FROM {name}")
    world.flush()
    assert_same(read(wire, copy).slice(rows.num_rows).drop_columns("id"), rows.drop_columns("id"))
