"""When the SQL engine breaks down by itself, one statement fails and the service goes on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kalam_world import World

from flightkalam.errors import InternalError, KalamError
from flightkalam.query.compute import Setting

# DuckDB 2.0 fails for good when one field of a struct is asked of a file without that struct.
BREAKING = (
    "SELECT b.x FROM read_parquet(['{file}'], schema = MAP {{"
    "1: {{name: 'a', type: 'BIGINT', default_value: NULL}}, "
    "2: {{name: 'b', type: 'STRUCT(x INTEGER, y INTEGER)', default_value: NULL}}}})"
)


def _file_without_a_struct(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    field = pa.field("a", pa.int64(), metadata={b"PARQUET:field_id": b"1"})
    pq.write_table(pa.table([pa.array([1, 2])], schema=pa.schema([field])), folder / "odd.parquet")
    return folder / "odd.parquet"


def test_an_internal_error_of_the_engine_ends_one_statement_only(world: World) -> None:
    root = world.in_process()
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, u TEXT DEFAULT CURRENT_USER, l TEXT DEFAULT ULID())")
    root.run("INSERT INTO t (id) VALUES (1)")
    world.flush()
    engine = world.kalam._engine
    breaking = BREAKING.format(file=_file_without_a_struct(world.data_dir / "cold"))
    for _ in range(3):
        with pytest.raises(InternalError) as caught:
            engine.table(breaking, {}, Setting("UTC"))
        assert "Traceback" not in caught.value.message
        rows = root.run("SELECT id, u, length(l) AS n, version() = version() AS v, current_user AS me FROM t").rows
        assert rows is not None and rows.to_pylist() == [{"id": 1, "u": "root", "n": 26, "v": True, "me": "root"}]
    root.run("INSERT INTO t (id) VALUES (2)")
    outside = _file_without_a_struct(world.data_dir.parent / "outside")
    with pytest.raises(KalamError):  # the new database is as far from the machine's files as the first
        engine.table(f"SELECT * FROM read_parquet('{outside}')", {}, Setting("UTC"))
    world.check()


def test_words_like_those_of_a_breakdown_are_only_words(world: World) -> None:
    engine = world.kalam._engine
    before = engine._connection  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="FATAL Error"):
        engine.table("SELECT error('INTERNAL Error: FATAL Error')", {}, Setting("UTC"))
    assert engine._connection is before  # type: ignore[attr-defined]
