"""EXPLAIN: figures of each table, the engine's plan, and nothing of the inside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from query_house import House, make_table

from flightkalam.query.compute import Setting
from flightkalam.query.explain import as_json, as_text, plan_batch, table_figures
from flightkalam.query.planner import Planned


@dataclass(frozen=True)
class Figures:
    table: str = "main.t"
    scope: str = "shared"
    batches_total: int = 3
    pruned_by_range: int = 1
    pruned_by_bloom: int = 0
    batches_read: int = 2
    hot_rows: int = 1
    dead_rows: int = 1


@pytest.fixture
def planned(house: House) -> Planned:
    house.add(
        make_table("t", {"k": "BIGINT", "s": "TEXT"}),
        hot=[{"k": 9, "s": "h"}],
        batches=[[{"k": i, "s": "x"} for i in range(10)], [{"k": 50, "s": "y"}, {"k": 51, "s": "z"}]],
        dead={1: [0]},
    )
    plan = house.plan("SELECT s, count(*) FROM t WHERE k > 3 GROUP BY s")
    for scan in plan.scans:
        object.__setattr__(scan, "figures", Figures())
    return plan


@pytest.mark.parametrize("analyze", [False, True])
def test_the_json_form_has_the_promised_shape(house: House, planned: Planned, analyze: bool) -> None:
    engine_plan = house.executor.explain(planned, Setting(), analyze=analyze, as_json=True)
    text = as_json(table_figures(planned), 0.25, engine_plan)
    plan: dict[str, Any] = json.loads(plan_batch(text).column(0)[0].as_py())
    assert set(plan) == {"tables", "planning_ms", "engine"}
    assert plan["tables"] == [
        {
            "table": "main.t",
            "scope": "shared",
            "batches_total": 3,
            "pruned_by_range": 1,
            "pruned_by_bloom": 0,
            "batches_read": 2,
            "hot_rows": 1,
            "dead_rows": 1,
        }
    ]
    assert plan["planning_ms"] == 0.25
    assert isinstance(plan["engine"], dict)
    assert str(house.root) not in text
    assert "__" not in text


@pytest.mark.parametrize("analyze", [False, True])
def test_the_text_form_names_no_path(house: House, planned: Planned, analyze: bool) -> None:
    text = as_text(table_figures(planned), 0.25, house.executor.explain(planned, Setting(), analyze=analyze))
    assert text.startswith("main.t (shared): 2 of 3 batches read (1 pruned by range, 0 by Bloom filter)")
    assert str(house.root) not in text
    assert "__" not in text
