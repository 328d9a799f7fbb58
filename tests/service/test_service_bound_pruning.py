"""Parameters of a prepared statement prune as the same values written out do (SEMANTICS §4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kalam_world import InProcess, World

BATCHES = 10


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Ten batches of a hundred rows: `id` in runs, `code` all over the place, so that only its Bloom filter helps."""
    folder: Path = tmp_path_factory.mktemp("bound")
    made = World(folder / "data", {"manifest": {"small_batch_rows": 0}})
    root = made.in_process()
    root.run(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, code TEXT, day DATE) WITH (BLOOM_FILTER_COLUMNS='id,code', COMPACTION='manual')"
    )
    for i in range(BATCHES):
        root.run(
            f"INSERT INTO t SELECT {i * 100} + range, md5(({i * 100} + range)::TEXT), DATE '2024-01-01' + {i} FROM range(100)"
        )
        made.flush()
    yield made
    made.close()


def read(world: World, sql: str, bound: pa.Table | None = None) -> tuple[list[Any], int]:
    """The rows, and how many batches the engine was given."""
    client: InProcess = world.in_process()
    counters = world.kalam.parts.counters
    prepared = client.session.prepare(sql, None)
    if bound is not None:
        client.session.bind(prepared.handle, bound)
    before = counters.snapshot().get("scan_batches_read", 0)
    planned = client.session.plan_prepared(prepared.handle)
    rows = client.session.fetch(planned.handle)
    found = pa.Table.from_batches(list(rows), rows.schema)
    client.session.close_prepared(prepared.handle)
    return found.to_pylist(), counters.snapshot().get("scan_batches_read", 0) - before


CASES = [
    ("SELECT id, day FROM t WHERE id >= {} AND id < {} ORDER BY id", (150, 250), 2),
    ("SELECT id, day FROM t WHERE id BETWEEN {} AND {} ORDER BY id", (0, 99), 1),
    ("SELECT id FROM t WHERE id IN ({}, {}) ORDER BY id", (5, 905), 2),
    ("SELECT id FROM t WHERE id = {} OR id = {} ORDER BY id", (5, 2_000), 1),
    ("SELECT count(*) AS n FROM t WHERE day = {}::DATE", ("2024-01-03",), 1),
    ("SELECT id, day FROM t WHERE code = {}", ("a87ff679a2f3e71d9181a67b7542122c",), 1),
    ("SELECT id FROM t WHERE id > {}", (5_000,), 0),
]


@pytest.mark.parametrize(("sql", "values", "most"), CASES)
def test_a_parameter_prunes_as_a_literal_does(world: World, sql: str, values: tuple[Any, ...], most: int) -> None:
    written = sql.format(*(f"'{v}'" if isinstance(v, str) else v for v in values))
    bound = pa.table({str(i): [v] for i, v in enumerate(values)})
    literal, parameter = read(world, written), read(world, sql.format(*("?" for _ in values)), bound)
    assert literal == parameter
    assert parameter[1] <= most, "batches read"
