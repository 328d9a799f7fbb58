"""Reads by key take a short way, and must give what the long way gives: of every key type, hot and cold, alive and dead, under
later schemas, and whatever the row groups' own bounds say."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from table_world import World, scratch_folder, seen, table_of

from flightkalam.model import predicate as p
from flightkalam.model import types as t
from flightkalam.model.predicate import comparable
from flightkalam.model.schema import DELETED, SEQ, Column, Table, TableKind
from flightkalam.model.types import ColumnType
from flightkalam.table.mutation import OnConflict

UPDATE = OnConflict.UPDATE
MOMENT = dt.datetime(2024, 2, 29, 23, 59, 59, 999_999)
KEYS: list[tuple[ColumnType, list[Any]]] = [
    (t.BOOLEAN, [False, True]),
    (t.SMALLINT, [-(2**15), -1, 0, 1, 5, 6, 7, 8, 9, 2**15 - 1]),
    (t.INT, [-(2**31), -1, 0, 1, 5, 6, 7, 8, 9, 2**31 - 1]),
    (t.BIGINT, [-(2**63), -1, 0, 1, 5, 6, 7, 8, 2**53 + 1, 2**63 - 1]),
    (t.decimal(38, 2), [Decimal("-1.50"), Decimal("0.00"), Decimal("0.01"), Decimal(10**35), Decimal(1), Decimal(2)]),
    (t.TEXT, ["", "\x00", "a", "a\x00", "ab", "z" * 40, "z" * 40 + "y", "z" * 300, "é", "\U0010ffff" * 20]),
    (t.BLOB, [b"", b"\x00", b"a", b"a\x00", b"\xff" * 40, b"\xff" * 41]),
    (t.UUID, [f"550e8400-e29b-41d4-a716-44665544000{i}" for i in range(10)]),
    (t.DATE, [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]),
    (t.TIME, [dt.time(0), dt.time(0, 0, 0, 1), dt.time(12), dt.time(23, 59, 59, 999_999), dt.time(5), dt.time(6)]),
    (t.TIMESTAMP, [MOMENT, dt.datetime(1, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 1), dt.datetime(9999, 12, 31)]),
    (t.TIMESTAMPTZ, [MOMENT.replace(tzinfo=dt.UTC), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)]),
]


def keyed(type_: ColumnType) -> Table:
    return table_of(1, "t", TableKind.SHARED, (Column(1, "k", type_, True), Column(2, "n", t.INT)), (1,))


def asked(type_: ColumnType, value: Any) -> p.Compare:
    found = comparable(pa.scalar(value, type_.storage), type_)
    assert found is not None
    return p.Compare(1, "=", found)


def agree(world: World, table: Table, keys: list[Any]) -> None:
    """Filtered by the key, the short way and the whole scan give the same rows, tombstones too."""
    snapshot = world.snapshot(table)
    name = table.schema.key_columns[0].name
    for tombstones in (False, True):
        every = seen(snapshot, tombstones=tombstones)
        for key in keys:
            predicate = asked(table.schema.key_columns[0].type, key)
            for asking in (predicate, p.All((predicate, p.IsNotNull(1)))):
                found = [r for r in seen(snapshot, asking, tombstones) if r[name] == key]
                assert found == [r for r in every if r[name] == key], key


@pytest.mark.parametrize(("type_", "keys"), KEYS, ids=lambda v: str(v) if isinstance(v, ColumnType) else "")
def test_a_key_is_found_by_the_short_way_as_by_the_long(type_: ColumnType, keys: list[Any]) -> None:
    table = keyed(type_)
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        world.write(table, [{"k": k, "n": i} for i, k in enumerate(keys)])
        agree(world, table, keys)
        world.flush(table)
        agree(world, table, keys)
        world.write(table, [{"k": k, "n": 100} for k in keys[::3]], None, UPDATE)
        world.delete(table, [{"k": k} for k in keys[1::3]])
        agree(world, table, keys)
        world.flush(table)
        agree(world, table, keys)
        world.write(table, [{"k": k, "n": 200} for k in keys[1::3]])
        agree(world, table, keys)
        world.close()


def test_a_key_beyond_what_python_dates_can_hold_is_found() -> None:
    """The engine's timestamps reach further than year 9999, and to infinity."""
    numbers = [-(2**62), -1, 0, 2**62, 2**63 - 1]
    stamps = pa.array(numbers, pa.int64()).cast(pa.timestamp("us"))
    table = keyed(t.TIMESTAMP)
    with scratch_folder() as root:
        world = World(root, {1: table}, durable=False)
        from flightkalam.table.mutation import Mutation
        from flightkalam.table.scan import scan

        rows = pa.table([stamps, pa.array(range(5), pa.int32())], schema=table.schema.storage)
        world.writer.write([Mutation(table, None, rows)])
        world.flush(table)
        for number in numbers:
            plan = scan(world.snapshot(table), p.Compare(1, "=", number))
            found = plan.hot.column("k").cast(pa.int64()).to_pylist() if plan.hot is not None else []
            assert number in found or plan.clean, number
        world.close()


@pytest.mark.parametrize("absent", [5, -(2**63), 2**63 - 1, 2**70])
def test_a_key_that_is_nowhere_is_not_found(world: World, absent: int) -> None:
    table = keyed(t.SMALLINT)
    world.tables[1] = table
    world.write(table, [{"k": k, "n": 0} for k in (-9, 4, 6, 9)])
    world.flush(table)
    assert [r for r in seen(world.snapshot(table), p.Compare(1, "=", absent)) if r["k"] == absent] == []


def test_keys_are_found_under_a_wider_type_and_another_name(world: World) -> None:
    """T-31, T-33."""
    table = keyed(t.SMALLINT)
    world.tables[1] = table
    world.write(table, [{"k": k, "n": k} for k in range(20)])
    world.flush(table)
    columns = (replace(table.schema.columns[0], type=t.BIGINT, name="key"), table.schema.columns[1])
    added = Column(7, "k", t.TEXT)
    world.tables[1] = wider = table.with_schema((*columns, added), next_column_id=8)
    world.write(wider, [{"key": 5, "n": 50, "k": "x"}, {"key": 2**40, "n": 0}], None, UPDATE)
    agree(world, wider, [0, 5, 19, 2**40])
    world.flush(wider)
    agree(world, wider, [0, 5, 19, 2**40])
    (row,) = seen(world.snapshot(wider), p.Compare(1, "=", 7))
    assert {k: v for k, v in row.items() if k not in (SEQ, DELETED)} == {"key": 7, "n": 7, "k": None}


def test_a_key_in_many_batches_is_found_once(world: World) -> None:
    table = keyed(t.BIGINT)
    world.tables[1] = table
    for n in range(12):
        world.write(table, [{"k": k, "n": n} for k in (0, 50 + n, 99)], None, UPDATE)
        world.flush(table)
        agree(world, table, [0, 50 + n, 99])


def test_the_first_of_two_key_columns_is_enough(world: World) -> None:
    columns = (Column(1, "k", t.TEXT, True), Column(2, "n", t.INT, True))
    table = table_of(1, "t", TableKind.SHARED, columns, (1, 2))
    world.tables[1] = table
    world.write(table, [{"k": k, "n": n} for k in ("a", "b") for n in range(9)])
    world.flush(table)
    world.delete(table, [{"k": "a", "n": 3}])
    agree(world, table, ["a", "b", "c"])
