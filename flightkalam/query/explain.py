"""What EXPLAIN says: per table what was read and what was spared, and the engine's plan (SEMANTICS §4)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from flightkalam.query.planner import Planned

PLAN_SCHEMA = pa.schema([("plan", pa.utf8())])
_FIELDS = ("batches_total", "pruned_by_range", "pruned_by_bloom", "batches_read", "hot_rows", "dead_rows")
# The engine knows columns by their id and inputs by generated names; paths are nobody's business.
_PATH = re.compile(r"(?:/[^\s\"',│\]]+)+/(batch-\d+\.parquet)")
_INNER_COLUMN = re.compile(r"\b__c(\d+)\b")
_INPUT = re.compile(r"\b__kalam_\w+")


def table_figures(planned: Planned) -> list[dict[str, Any]]:
    """One record for each table reference, in the order of the text (`flightkalam.table.scan.Figures`)."""
    records: list[dict[str, Any]] = []
    for scan in planned.scans:
        figures = getattr(scan, "figures", None)
        if figures is not None:
            records.append({"table": figures.table, "scope": figures.scope, **{f: int(getattr(figures, f)) for f in _FIELDS}})
    return records


def as_json(tables: Sequence[dict[str, Any]], planning_ms: float, engine_plan: str) -> str:
    """EXPLAIN (FORMAT JSON): one object.

    :param engine_plan: the engine's plan, as JSON text where it has that form.
    """
    try:
        engine: Any = json.loads(cleaned(engine_plan))
    except json.JSONDecodeError:
        engine = cleaned(engine_plan)
    plan = engine if isinstance(engine, dict) else {"plan": engine}
    return json.dumps({"tables": list(tables), "planning_ms": round(planning_ms, 3), "engine": plan})


def as_text(tables: Sequence[dict[str, Any]], planning_ms: float, engine_plan: str) -> str:
    lines = [
        f"{t['table']} ({t['scope']}): {t['batches_read']} of {t['batches_total']} batches read"
        f" ({t['pruned_by_range']} pruned by range, {t['pruned_by_bloom']} by Bloom filter),"
        f" {t['hot_rows']} rows in hot, {t['dead_rows']} dead rows skipped"
        for t in tables
    ]
    return "\n".join([*lines, f"planning: {planning_ms:.3f} ms", "", cleaned(engine_plan)])


def cleaned(engine_plan: str) -> str:
    """The engine's plan without paths and names of ours."""
    text = _PATH.sub(r"\1", engine_plan)
    return _INPUT.sub("hot", _INNER_COLUMN.sub(r"#\1", text))


def plan_batch(text: str) -> pa.RecordBatch:
    return pa.record_batch([pa.array([text], pa.utf8())], schema=PLAN_SCHEMA)
