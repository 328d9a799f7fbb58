"""Queries: names are resolved and authorised, tables become scan plans, the engine streams.

Everything that any statement evaluates in the engine passes through `bind` here, generated queries too, so the guard and
the caller's rights hold for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.catalog import show
from flightkalam.catalog.names import fold
from flightkalam.catalog.providers import SYSTEM, SystemRelation
from flightkalam.catalog.state import split_name
from flightkalam.errors import KalamError, Unsupported
from flightkalam.model.demand import EVERYTHING
from flightkalam.model.schema import Column, Table, View
from flightkalam.model.types import ColumnType, from_arrow, from_engine
from flightkalam.query import explain as explain_
from flightkalam.query import joins, planner
from flightkalam.query.compute import Input, ResultColumn, Setting
from flightkalam.query.params import Literal
from flightkalam.query.planner import (
    ArrowRelation,
    Bound,
    ComputedRelation,
    Planned,
    Relation,
    ScanRequest,
    TableRelation,
    ViewRelation,
)
from flightkalam.query.relation import Scan
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident
from flightkalam.table.scan import ScanPlan, at_most, scan

# Names no client's table can have stand for Arrow tables that a generated query reads.
PARAMETERS = '"$parameters"'
Inputs = Mapping[str, pa.Table]
_NO_INPUTS: Inputs = {}


def qualified(found: Table | View) -> str:
    return show.qualified(found)


# -- binding ----------------------------------------------------------------------------------------------------------


def bind(
    e: Execution, text: str, inputs: Inputs = _NO_INPUTS, parameters: Sequence[Literal] = (), *, positions: bool = False
) -> Bound:
    """Resolve and authorise every name of a query.

    :param inputs: Arrow tables by the quoted name that the query calls them.
    :param positions: it may ask where rows sit.
    """
    known = {name.strip('"'): table for name, table in inputs.items()}

    def resolve(parts: tuple[str, ...], namespace: str | None) -> Relation:
        if len(parts) == 1 and parts[0] in known:
            return ArrowRelation("", parts[0], known[parts[0]])
        return relation(e, parts, namespace)

    guard = e.parts.guard
    return planner.bind(guard.check(text), guard, resolve, parameters=parameters, time_zone=e.time_zone, positions=positions)


def relation(e: Execution, parts: tuple[str, ...], namespace: str | None = None) -> Relation:
    """What a name in a query means for the caller, who may read it."""
    system = system_relation(e, parts, namespace)
    if system is not None:
        e.aim(system.qualified)
        context = replace(e.context, view_columns=lambda view: view_columns(e, view))
        return ComputedRelation(
            system.namespace, system.name, system.schema, lambda p: system.read(replace(context, predicate=p))
        )
    found = e.state.resolve(parts, namespace or e.namespace)
    if isinstance(found, View):
        return ViewRelation(found)
    e.require(Action.READ, found, ".".join(parts))
    return TableRelation(found, e.owner(found))


def system_relation(e: Execution, parts: tuple[str, ...], namespace: str | None = None) -> SystemRelation | None:
    """The system table that a name means.  Rights come first: a refusal does not tell which of them exist."""
    where, name = split_name(parts, namespace or e.namespace)
    if fold(where) == SYSTEM:
        authorise.require(e.identity, Action.READ_SYSTEM)
    return e.parts.providers.find(where, name)


def view_columns(e: Execution, view: View) -> list[tuple[str, ColumnType]]:
    """The columns of a view; none where it is broken, or not for the caller's eyes."""
    try:
        found = describe(e, f"SELECT * FROM {qualified(view)}")
        return [(c.name, from_engine(c.type)) for c in found]
    except KalamError:
        return []


def names_tables(e: Execution, expression: str) -> bool:
    """Whether an expression reads a table."""
    return bool(e.parts.guard.check(f"SELECT ({expression}\n)").tables)


# -- describing -------------------------------------------------------------------------------------------------------


def describe(e: Execution, text: str, inputs: Inputs = _NO_INPUTS) -> list[ResultColumn]:
    """Names and engine types of a query's columns; nothing is read."""
    return e.parts.executor.columns(bind(e, text, inputs), e.setting)


def schema(e: Execution, text: str) -> pa.Schema:
    """What a query announces: the one source for prepare, FlightInfo, GetSchema and the stream."""
    return e.parts.executor.schema(bind(e, text, parameters=e.parameters), e.setting)


def shown_type(engine_type: str) -> str:
    """A type as DESCRIBE shows it: ours where a column could have it, else the engine's name."""
    try:
        return from_engine(engine_type).name
    except KalamError:
        return engine_type


def arrow_type_name(type_: pa.DataType) -> str:
    return from_arrow(type_, "?").name


# -- running ----------------------------------------------------------------------------------------------------------


def plan(e: Execution, bound: Bound, scans: Mapping[int, Scan] | None = None) -> Planned:
    """:param scans: scan plans by table id that stand for the table's own rows."""

    def scan_table(request: ScanRequest) -> Scan:
        if scans is not None and request.table.id in scans:
            return scans[request.table.id]
        if e.part is not None:
            return e.part.scan_of(request.table)
        snapshot = e.snapshot(request.table)
        overlay = None if e.transaction is None else e.transaction.overlay(request.table, e.owner(request.table))
        # What a transaction has written can take rows away from a batch that was found to hold enough.
        demand = request.demand if overlay is None else EVERYTHING
        plan_ = scan(snapshot, request.predicate, tombstones=request.tombstones, demand=demand)
        return plan_ if overlay is None else overlay.over(plan_, snapshot, tombstones=request.tombstones)

    return planner.plan(bound, scan_table) if scans is not None else joins.plan(bound, scan_table, _Look(e))


@dataclass(frozen=True, slots=True)
class _Look:
    """What the planner of joins may ask: all of it at the statement's own snapshot."""

    e: Execution

    def size(self, request: ScanRequest) -> joins.Size:
        e, table_ = self.e, request.table
        batches_, rows = at_most(e.snapshot(table_), request.predicate)
        overlay = None if e.transaction is None else e.transaction.overlay(table_, e.owner(table_))
        return joins.Size(batches_, rows if overlay is None else rows + overlay.rows.num_rows)

    def read(self, sql: str, inputs: Mapping[str, Input]) -> pa.Table:
        return self.e.parts.executor.engine.table(sql, inputs, Setting(), cancel=self.e.cancel)


def batches(
    e: Execution, text: str, inputs: Inputs = _NO_INPUTS, scans: Mapping[int, Scan] | None = None
) -> Iterator[pa.RecordBatch]:
    """Run a query and stream what the engine gives, for writes."""
    return streamed(e, plan(e, bind(e, text, inputs), scans))


def streamed(e: Execution, planned: Planned) -> Iterator[pa.RecordBatch]:
    stream = e.parts.executor.stream(planned, e.setting, e.cancel)
    try:
        yield from stream
    finally:
        stream.close()


def table(e: Execution, text: str, inputs: Inputs = _NO_INPUTS, scans: Mapping[int, Scan] | None = None) -> pa.Table:
    """Run a query with a small result."""
    return e.parts.executor.table(plan(e, bind(e, text, inputs), scans), e.setting, e.cancel)


def count_where(e: Execution, table_: Table, plan_: ScanPlan, condition: str) -> int:
    """How many rows of a scan plan satisfy a condition over the table's columns."""
    query = f"SELECT count(*) AS n FROM {qualified(table_)} AS t WHERE {condition}\n"
    return int(table(e, query, scans={table_.id: plan_}).column("n")[0].as_py())


def count_nulls(e: Execution, table_: Table, plan_: ScanPlan, column: Column) -> int:
    return count_where(e, table_, plan_, f"{quote_ident(column.name)} IS NULL")


def open_rows(e: Execution, text: str) -> Rows:
    """Start a query and stream its rows in batches of bounded size and exactly the announced schema."""
    bound = bind(e, text, parameters=e.parameters)
    executor = e.parts.executor
    with e.phase("plan"):
        announced = executor.schema(bound, e.setting)
        planned = plan(e, bound)
    with e.phase("execute"):
        running = executor.rows(planned, announced, e.setting, e.cancel)
    e.on_close(running.close)
    return Rows(announced, running, soon=not planned.inputs and not planned.requests and "from" not in text.lower())


# -- EXPLAIN ----------------------------------------------------------------------------------------------------------

EXPLAIN_SCHEMA = explain_.PLAN_SCHEMA


def explain(e: Execution, statement: s.Explain) -> Rows:
    """What a query would read, table by table, and the engine's plan."""
    inner = statement.inner
    if not isinstance(inner, s.Query):
        raise Unsupported("EXPLAIN takes a query")
    started = e.parts.clock.monotonic()
    planned = plan(e, bind(e, inner.text))
    planning_ms = (e.parts.clock.monotonic() - started) * 1000
    as_json = statement.format == "json"
    text = e.parts.executor.explain(planned, e.setting, analyze=statement.analyze, as_json=as_json)
    figures = explain_.table_figures(planned)
    shown = explain_.as_json if as_json else explain_.as_text
    lines = [shown(figures, planning_ms, text)] if as_json else shown(figures, planning_ms, text).splitlines()
    return rows_of(pa.table([lines], schema=EXPLAIN_SCHEMA))
