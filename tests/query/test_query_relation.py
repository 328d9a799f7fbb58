"""A table out of clean batches, batches with dead rows and hot rows reads as one relation."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap
from query_house import FakeScan, House, make_rows, make_table

from flightkalam.errors import DataCorrupted, Unsupported
from flightkalam.model.schema import SEQ_COLUMN, Column, TableSchema, fill_bytes
from flightkalam.model.types import parse_type
from flightkalam.query import dead_rows
from flightkalam.query.compute import Setting
from flightkalam.query.relation import shown
from flightkalam.table.scan import DirtyBatch

TYPES = {
    "k": "BIGINT",
    "i": "INT",
    "n": "SMALLINT",
    "f": "DOUBLE",
    "r": "REAL",
    "d": "DECIMAL(38,10)",
    "s": "TEXT",
    "bl": "BLOB",
    "b": "BOOLEAN",
    "day": "DATE",
    "tm": "TIME",
    "ts": "TIMESTAMP",
    "tz": "TIMESTAMPTZ",
    "u": "UUID",
    "j": "JSON",
    "iv": "INTERVAL",
    "l": "INT[]",
    "lu": "UUID[]",
    "st": "STRUCT(a INT, b TEXT[], c UUID)",
    "e": "EMBEDDING(2)",
}


def a_row(k: int) -> dict[str, object]:
    if k % 4 == 3:
        return {"k": k}
    u = str(uuid.UUID(int=k))
    return {
        "k": k,
        "i": k,
        "n": k,
        "f": float("nan") if k % 4 == 1 else -0.0,
        "r": 0.5,
        "d": Decimal("1.0000000001"),
        "s": f"é\0{k}",
        "bl": b"\0\xff",
        "b": k % 2 == 0,
        "day": dt.date(1, 1, 1),
        "tm": dt.time(23, 59, 59, 999_999),
        "ts": dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),
        "tz": dt.datetime(1969, 7, 20, 20, 17, tzinfo=dt.UTC),
        "u": u,
        "j": '{"a": [1, 2]}',
        "iv": pa.MonthDayNano([-1, 2, 3000]),
        "l": [1, None],
        "lu": [u, None],
        "st": {"a": 1, "b": ["x", None], "c": u},
        "e": [0.5, 1.5],
    }


def test_every_type_reads_the_same_from_hot_and_cold(house: House) -> None:
    table = make_table("t", TYPES)
    rows = [a_row(k) for k in range(8)]
    house.add(table, hot=rows)
    hot = house.table("SELECT * FROM t ORDER BY k")
    house.add(table, batches=[rows[:4], rows[4:]])
    clean = house.table("SELECT * FROM t ORDER BY k")
    house.add(table, batches=[rows[:4], [*rows[4:], a_row(99)]], dead={1: [4]})
    dirty = house.table("SELECT * FROM t ORDER BY k")
    assert hot.schema == clean.schema == dirty.schema
    assert repr(hot.to_pylist()) == repr(clean.to_pylist()) == repr(dirty.to_pylist())
    assert hot.schema.types == [f.type for f in pa.schema([(n, parse_type(t).wire) for n, t in TYPES.items()])]
    assert hot.column("u")[0].as_py() == str(uuid.UUID(int=0))
    assert hot.column("iv")[0].as_py() == pa.MonthDayNano([-1, 2, 3000])


def test_an_empty_table_keeps_its_types(house: House) -> None:
    house.add(make_table("t", TYPES), hot=[a_row(0)])
    full = house.table("SELECT * FROM t")
    house.add(make_table("t", TYPES))
    empty = house.table("SELECT * FROM t")
    assert empty.schema == full.schema
    assert empty.num_rows == 0


@pytest.mark.parametrize("dead", [[0], [0, 1, 2, 999], [999], list(range(0, 1000, 3)), list(range(999))])
@pytest.mark.parametrize("few", [1, 10_000_000])
def test_dead_positions_are_skipped_in_each_way(
    house: House, monkeypatch: pytest.MonkeyPatch, dead: list[int], few: int
) -> None:
    """T-47: positions belong to their file, whatever the order in which files are read."""
    monkeypatch.setattr("flightkalam.query.dead_rows._FEW", few)
    table = make_table("t", {"k": "BIGINT"})
    batches = [[{"k": b * 10_000 + i} for i in range(1000)] for b in range(12)]
    house.add(table, batches=batches, dead=dict.fromkeys(range(0, 12, 2), dead) | {1: [5]})
    expected = [b * 10_000 + i for b in range(12) for i in range(1000) if not (i in dead if b % 2 == 0 else b == 1 and i == 5)]
    assert [k for (k,) in house.rows("SELECT k FROM t ORDER BY k")] == expected
    assert house.rows("SELECT count(*) FROM t WHERE k % 10000 >= 500") == [(sum(1 for k in expected if k % 10_000 >= 500),)]


def dirty(rows: int, dead: Iterable[int]) -> DirtyBatch:
    return DirtyBatch(f"/x/batch-{rows}.parquet", BitMap(dead), rows)


def test_each_batch_is_read_in_the_way_that_suits_it() -> None:
    sparse, dense = dirty(10_000, [5_000]), dirty(5_000, range(0, 5_000, 2))
    by_list, by_bits = dead_rows.parts([sparse, dense], "a")
    assert (by_list.paths, by_bits.paths) == ((sparse.path,), (dense.path,))
    assert "NOT IN" in by_list.condition
    assert "get_bit" in by_bits.condition


def test_no_constant_of_bits_is_large_or_mostly_waste() -> None:
    """The engine copies a constant for every file; and one long batch must not give each short one its length."""
    batches = [dirty(rows, [0, rows - 1]) for rows in [100_000] * 100 + [1_000] * 200 + [50_000_000] + [10] * 30]
    parts = dead_rows._groups(batches)
    seen = []
    for group in parts:
        bits = max(d.rows for d in group) * len(group)
        assert bits <= 2 * sum(d.rows for d in group) + dead_rows._SPARE
        assert len(group) == 1 or bits // 8 * len(group) <= dead_rows._COPIED
        seen += group
    assert seen == batches


def test_more_rows_than_an_integer_counts_are_refused() -> None:
    """T-26."""
    with pytest.raises(Unsupported, match="2\\^31 rows"):
        dead_rows.parts([dirty(1 << 31, range(1 << 21))], "a")


def test_positions_in_several_groups(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flightkalam.query.dead_rows._MAX_BITS", 25)
    table = make_table("t", {"k": "BIGINT"})
    house.add(table, batches=[[{"k": b * 10 + i} for i in range(10)] for b in range(5)], dead={b: [3] for b in range(5)})
    assert house.rows("SELECT count(*), count(*) FILTER (WHERE k % 10 = 3) FROM t") == [(45, 0)]


@pytest.mark.parametrize("options", [{"analyze": True}, {"as_json": True}, {"analyze": True, "as_json": True}, {}])
def test_a_plan_does_not_spell_the_bits_out(house: House, options: dict[str, bool]) -> None:
    table = make_table("t", {"k": "BIGINT"})
    house.add(table, batches=[[{"k": i} for i in range(10_000)]], dead={0: list(range(0, 10_000, 7))})
    text = house.executor.explain(house.plan("SELECT sum(k) FROM t"), Setting(), **options)
    assert "get_bit" in text
    assert not re.search("[01]{65}", text)
    assert len(text) < 20_000


def test_nan_and_zero_are_found_in_files(house: House) -> None:
    """T-27, T-28: rows with NaN are not lost to the file's statistics, and both zeros are one."""
    rows: list[dict[str, object]] = [{"k": i, "f": f} for i, f in enumerate([1.0, float("nan"), -0.0, 0.0, None])]
    for where in ({"batches": [rows]}, {"hot": rows}):
        house.add(make_table("t", {"k": "BIGINT", "f": "DOUBLE"}), **where)  # type: ignore[arg-type]
        assert house.rows("SELECT count(*) FROM t WHERE f > 5") == [(1,)]
        assert house.rows("SELECT count(*) FROM t WHERE f = 0") == [(2,)]
        assert house.rows("SELECT count(*) FROM t WHERE f = -0.0") == [(2,)]
        assert house.rows("SELECT max(f)::VARCHAR FROM t") == [("nan",)]


def test_files_are_read_by_field_id(house: House) -> None:
    """T-31, T-32, T-33: rename, widening, an added column with a default, a dropped name that came back."""
    old = make_table("t", {"k": "BIGINT", "a": "INT", "b": "TEXT"})
    path = house.write(old, make_rows(old, [{"k": 1, "a": 7, "b": "old"}]), 0)
    fill = pa.array(["new"], pa.utf8())
    columns = (
        old.schema.columns[0],
        replace(old.schema.columns[1], name="renamed", type=parse_type("BIGINT")),
        Column(9, "b", parse_type("TEXT"), fill_text="new", fill_ipc=fill_bytes(fill)),
        Column(10, "c", parse_type("DECIMAL(6,2)"), fill_text="1.50"),
        Column(11, "d", parse_type("INT[]")),
        Column(12, "w", parse_type("TIMESTAMPTZ"), fill_text="2024-01-01 00:00:00+00"),
    )
    new = replace(old, schema=TableSchema(2, columns, (1,)))
    house.tables[("main", "t")] = new
    house.scans[("main", "t")] = FakeScan(new.schema, None, (path,))
    assert house.rows("SELECT * FROM t") == [(1, 7, "new", Decimal("1.50"), None, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))]
    assert house.rows("SELECT k FROM t WHERE b = 'new' AND c = 1.5 AND renamed = 7") == [(1,)]
    assert house.rows("SELECT k FROM t WHERE b = 'old'") == []


def test_a_column_may_be_called_like_anything(house: House) -> None:
    odd = {"file_row_number": "BIGINT", "file_index": "INT", 'a "b"': "INT", "select": "INT", "filename": "TEXT", "dead": "INT"}
    table = make_table("t", odd)
    rows: list[dict[str, object]] = [{n: "x" if t == "TEXT" else i for n, t in odd.items()} for i in range(3)]
    house.add(table, batches=[rows], dead={0: [1]}, hot=[dict.fromkeys(odd, 9) | {"filename": "y"}])
    assert house.rows('SELECT file_row_number, "a ""b""", "select", filename, dead FROM t ORDER BY 1') == [
        (0, 0, 0, "x", 0),
        (2, 2, 2, "x", 2),
        (9, 9, 9, "y", 9),
    ]


def test_system_columns_are_in_every_part(house: House) -> None:
    table = make_table("t", {"k": "BIGINT"})
    house.add(table, hot=[{"k": 3}], batches=[[{"k": 1}], [{"k": 2}, {"k": 9}]], dead={1: [1]})
    assert house.rows("SELECT k, _seq, _deleted FROM t ORDER BY k") == [
        (1, 0, False),
        (2, 1000, False),
        (3, 1_000_000, False),
    ]


def test_the_relation_shows_hidden_columns_only_when_named() -> None:
    table = make_table("t", {"k": "BIGINT"}, hidden_key=True)
    assert [c.name for c in shown(table.schema, frozenset()).all] == ["k"]
    assert [c.name for c in shown(table.schema, frozenset({"_seq", "_id"})).all] == ["k", "_id", SEQ_COLUMN.name]


def test_a_missing_or_damaged_batch_is_named_without_its_path(house: House) -> None:
    table = make_table("t", {"k": "BIGINT"})
    house.add(table, batches=[[{"k": i} for i in range(5000)], [{"k": 2}]])
    first, second = house.scans[("main", "t")].clean
    Path(second).write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataCorrupted, match=r"batch-1\.parquet") as caught:
        house.rows("SELECT * FROM t")
    assert str(house.root) not in str(caught.value)
    house.scans[("main", "t")] = FakeScan(table.schema, None, (first.replace("batch-0", "batch-77"),))
    with pytest.raises(DataCorrupted, match=r"batch-77\.parquet") as caught:
        house.rows("SELECT * FROM t")
    assert str(house.root) not in str(caught.value)


def test_a_damaged_page_is_an_error_in_the_stream(house: House) -> None:
    table = make_table("t", {"k": "BIGINT", "s": "TEXT"})
    path = house.write(
        table, make_rows(table, [{"k": i, "s": f"{i * 7919 % 1000}"} for i in range(20_000)]), 0, compression="zstd"
    )
    data = bytearray(Path(path).read_bytes())
    data[2_000:60_000] = np.random.default_rng(1).integers(0, 256, 58_000, dtype=np.uint8).tobytes()
    Path(path).write_bytes(data)
    house.tables[("main", "t")] = table
    house.scans[("main", "t")] = FakeScan(table.schema, None, (path,))
    with pytest.raises(DataCorrupted) as caught:
        house.rows("SELECT * FROM t")
    assert str(house.root) not in str(caught.value)
