"""EXPLAIN, golden: what each form of statement reads of a table of six batches (SEMANTICS §4).

batch 0..4   keys k ≡ 0..4 (mod 5) from 0 to 995: every one of them spans all keys; day 0..4, one day a batch
batch 5      keys 2000, 2010, …; four of its rows are superseded, one is deleted
hot          the four new versions, and two new rows
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kalam_world import InProcess, Refused, World

FIELDS = ("batches_total", "pruned_by_range", "pruned_by_bloom", "batches_read", "hot_rows", "dead_rows")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    world = World(Path(tmp_path_factory.mktemp("explain")) / "data")
    root = world.in_process()
    root.run(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, day DATE, label TEXT, price DOUBLE) WITH (COMPACTION = 'manual', BLOOM_FILTER_FPP = 0.0001)"
    )
    for i in range(5):
        root.run(
            f"INSERT INTO t SELECT range * 5 + {i}, DATE '2024-01-01' + {i}, 'row ' || range, range + {i} / 10 FROM range(200)"
        )
        root.run("FLUSH TABLE t WAIT")
    root.run("INSERT INTO t SELECT 2000 + range * 10, DATE '2024-02-01', NULL, range FROM range(20)")
    root.run("FLUSH TABLE t WAIT")
    root.run("DELETE FROM t WHERE k = 2190")
    root.run("UPDATE t SET label = 'new' WHERE k BETWEEN 2000 AND 2030")
    root.run("INSERT INTO t VALUES (-1, DATE '2023-01-01', 'hot', 0), (9999, NULL, 'hot', NULL)")
    yield root
    world.close()


def plan(client: InProcess, sql: str) -> dict[str, Any]:
    table = client.run(f"EXPLAIN (FORMAT JSON) {sql}").rows
    assert table is not None and table.schema.names == ["plan"] and table.num_rows == 1
    return json.loads(table.column("plan")[0].as_py())


GOLDEN = [
    # statement, total, by range, by Bloom, read, hot, dead
    ("SELECT * FROM t", (6, 0, 0, 6, 6, 5)),
    ("SELECT * FROM t WHERE k = 503", (6, 1, 4, 1, 6, 0)),
    ("SELECT * FROM t WHERE k = 503.0", (6, 1, 4, 1, 6, 0)),
    ("SELECT * FROM t WHERE k = '503'", (6, 1, 4, 1, 6, 0)),
    ("SELECT * FROM t WHERE k = 503.5", (6, 6, 0, 0, 6, 0)),
    ("SELECT * FROM t WHERE k IN (503, 504)", (6, 1, 3, 2, 6, 0)),
    ("SELECT * FROM t WHERE k IN (503, 2050)", (6, 0, 4, 2, 6, 5)),
    ("SELECT * FROM t WHERE k = 503 OR k = 504", (6, 1, 3, 2, 6, 0)),
    ("SELECT * FROM t WHERE k = 503 AND label = 'row 1'", (6, 1, 4, 1, 6, 0)),
    ("SELECT * FROM t WHERE k = 503 AND label = 'x'", (6, 6, 0, 0, 6, 0)),
    ("SELECT * FROM t WHERE k BETWEEN 996 AND 1500", (6, 2, 0, 4, 6, 0)),
    ("SELECT * FROM t WHERE k > 1000", (6, 5, 0, 1, 6, 5)),
    ("SELECT * FROM t WHERE NOT k <= 1000", (6, 5, 0, 1, 6, 5)),
    ("SELECT * FROM t WHERE day = '2024-01-03'", (6, 5, 0, 1, 6, 0)),
    ("SELECT * FROM t WHERE day = TIMESTAMP '2024-01-03 00:00:00'", (6, 5, 0, 1, 6, 0)),
    ("SELECT * FROM t WHERE day > DATE '2024-01-04'", (6, 4, 0, 2, 6, 5)),
    ("SELECT * FROM t WHERE label IS NULL", (6, 5, 0, 1, 6, 5)),
    ("SELECT * FROM t WHERE label IS NOT NULL", (6, 1, 0, 5, 6, 0)),
    ("SELECT * FROM t WHERE label LIKE 'zz%'", (6, 6, 0, 0, 6, 0)),
    ("SELECT * FROM t WHERE label LIKE 'ro%'", (6, 1, 0, 5, 6, 0)),
    ("SELECT * FROM t WHERE day NOT IN (DATE '2024-01-01', NULL)", (6, 6, 0, 0, 6, 0)),
    ("SELECT * FROM t WHERE 1 = 0", (6, 6, 0, 0, 6, 0)),
    ("SELECT * FROM t WHERE k + 0 = 503", (6, 0, 0, 6, 6, 5)),
    ("SELECT * FROM t WHERE k = 503 OR price + 1 > 5", (6, 0, 0, 6, 6, 5)),
    ("SELECT * FROM t LIMIT 10", (6, 5, 0, 1, 0, 0)),
    ("SELECT * FROM t LIMIT 10 OFFSET 195", (6, 4, 0, 2, 0, 0)),
    ("SELECT * FROM t ORDER BY day LIMIT 10", (6, 5, 0, 1, 6, 0)),
    ("SELECT * FROM t ORDER BY day DESC LIMIT 10", (6, 5, 0, 1, 6, 5)),
    ("SELECT * FROM t ORDER BY day DESC LIMIT 16", (6, 4, 0, 2, 6, 5)),
    ("SELECT * FROM t ORDER BY day DESC NULLS FIRST LIMIT 10", (6, 5, 0, 1, 6, 5)),
    ("SELECT count(*) FROM t", (6, 6, 0, 0, 6, 0)),
    ("SELECT min(k), max(day) FROM t", (6, 5, 0, 1, 6, 5)),
    ("SELECT min(price) FROM t", (6, 4, 0, 2, 6, 5)),
    ("SELECT sum(k) FROM t", (6, 0, 0, 6, 6, 5)),
]


@pytest.mark.parametrize(("sql", "expected"), GOLDEN, ids=[s for s, _ in GOLDEN])
def test_what_a_statement_reads(client: InProcess, sql: str, expected: tuple[int, ...]) -> None:
    found = plan(client, sql)
    assert set(found) == {"tables", "planning_ms", "engine"}
    (table,) = found["tables"]
    assert (table.pop("table"), table.pop("scope")) == ("main.t", "shared")
    assert tuple(table[f] for f in FIELDS) == expected
    assert set(table) == set(FIELDS)


def test_each_reference_has_its_own_line(client: InProcess) -> None:
    found = plan(client, "SELECT * FROM t AS a JOIN t AS b ON a.k = b.k WHERE a.k = 503 AND b.day = '2024-01-03'")
    assert [(t["pruned_by_range"], t["batches_read"]) for t in found["tables"]] == [(1, 1), (5, 1)]


TEXT = """main.t (shared): 1 of 6 batches read (1 pruned by range, 4 by Bloom filter), 6 rows in hot, 0 dead rows skipped
planning: # ms
"""


@pytest.mark.parametrize("word", ["", "ANALYZE "])
def test_the_text_form(client: InProcess, word: str) -> None:
    table = client.run(f"EXPLAIN {word}SELECT label FROM t WHERE k = 503").rows
    assert table is not None
    lines = table.column("plan").to_pylist()
    assert re.sub(r"\d+\.\d+", "#", "\n".join(lines[:3])) == TEXT
    rest = "\n".join(lines[3:])
    assert "Projection" in rest
    assert ("Total Time" in rest) is bool(word), "times, and rows of each step, come from a run"
    assert ".parquet" not in rest or "/" not in rest


def test_the_figures_are_counted(client: InProcess) -> None:
    counters = client.session.parts.counters
    names = ("scan_batches_total", "scan_pruned_by_range", "scan_pruned_by_bloom", "scan_batches_read")
    before = counters.snapshot()
    client.run("SELECT label || 'x' FROM t WHERE k = 503 AND label <> 'y'")
    after = counters.snapshot()
    assert [after[n] - before[n] for n in names] == [6, 1, 4, 1]


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES (1)", "DELETE FROM t", "EXPLAIN SELECT 1", "FLUSH TABLE t"])
def test_only_queries_are_explained(client: InProcess, sql: str) -> None:
    with pytest.raises(Refused):
        client.run(f"EXPLAIN {sql}")
