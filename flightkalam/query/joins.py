"""Joins with something small: its join values are read first and choose the batches of what is large.

    FROM events JOIN devices ON events.device = devices.id WHERE devices.room = 'kitchen'

    events      device = some id of devices     ──┐   `EqualsSome`, found with the other predicates (`predicates`)
    devices     room = 'kitchen'                  │
    1  plan devices, read the ids of its kitchen  │
    2  events      device IN (7, 12, 40)        ◄─┘   plan events: bounds and Bloom filters as for any list of values

The small side is read at the statement's own snapshot and through the same scan plan, so that no row that the join will meet is
missing.  The values are only ever too many: what its WHERE says beyond `Predicate` leaves rows in.  Smaller references come
first, so a chain of small tables narrows link by link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from flightkalam.model import comparing
from flightkalam.model import predicate as p
from flightkalam.model.predicate import TRUE, EqualsSome, Predicate
from flightkalam.model.schema import Column
from flightkalam.model.types import ColumnType, from_arrow
from flightkalam.query.compute import Input
from flightkalam.query.planner import Bound, Planned, ScanRequest, ScanTable, assembled
from flightkalam.query.relation import Scan, relation_sql
from flightkalam.sql.text import quote_ident

MOST_ROWS = 10_000  # of the small side
# Reading the small side costs a statement of the engine (about a millisecond); what it may spare must be worth more.
LEAST_GAIN = 8
LEAST_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Size:
    """What a scan would read at most, from metadata."""

    batches: int
    rows: int


class Look(Protocol):
    """What may be asked while a statement is planned."""

    def size(self, request: ScanRequest) -> Size: ...

    def read(self, sql: str, inputs: Mapping[str, Input]) -> pa.Table:
        """A small result of a query of ours."""
        ...


def plan(bound: Bound, scan: ScanTable, look: Look) -> Planned:
    """As `planner.plan`, with predicates from the small sides of joins."""
    linked = [i for i, r in enumerate(bound.requests) if any(p.from_elsewhere(r.predicate))]
    if not linked:
        return assembled(bound, tuple(scan(r) for r in bound.requests))
    return assembled(bound, _Planning(bound, scan, look, frozenset(linked)).run())


class _Planning:
    def __init__(self, bound: Bound, scan: ScanTable, look: Look, linked: frozenset[int]) -> None:
        self.bound = bound
        self.scan = scan
        self.look = look
        self.linked = linked
        self.scans: dict[int, Scan] = {}
        self.requests: dict[int, ScanRequest] = {}
        self.columns: dict[int | str, dict[int, pa.Array]] = {}

    def run(self) -> tuple[Scan, ...]:
        sizes = [self.look.size(r) for r in self.bound.requests]
        for i in sorted(range(len(sizes)), key=lambda i: sizes[i].rows):
            request = self.bound.requests[i]
            if i in self.linked:
                known = partial(self.known, request, sizes, sizes[i])
                request = replace(request, predicate=p.replaced(request.predicate, known))
            self.requests[i] = request
            self.scans[i] = self.scan(request)
        return tuple(self.scans[i] for i in range(len(sizes)))

    def known(self, request: ScanRequest, sizes: Sequence[Size], size: Size, link: EqualsSome) -> Predicate:
        """The values that a column of the request may have, when it pays to read them."""
        column = request.table.schema.by_id.get(link.column)
        rows = self.rows_of(link.source, sizes)
        if column is None or rows is None or rows > MOST_ROWS:
            return TRUE
        if size.batches < LEAST_BATCHES or size.rows < LEAST_GAIN * rows:
            return TRUE
        other = self.type_of(link)
        if other is None or not comparing.alike(column.type, other):
            return TRUE
        found = self.of_source(link.source).get(link.other)
        if found is None:
            return TRUE
        values = comparing.values(found)
        if len(values) == 1:
            return p.Compare(column.id, "=", values[0])
        return p.OneOf(column.id, values) if values else p.FALSE

    def rows_of(self, source: int | str, sizes: Sequence[Size]) -> int | None:
        """How many rows a source has at most; None when it is not planned yet."""
        if isinstance(source, str):
            return self.bound.inputs[source].num_rows
        return sizes[source].rows if source in self.scans else None

    def type_of(self, link: EqualsSome) -> ColumnType | None:
        if isinstance(link.source, str):
            field = self.bound.inputs[link.source].schema.field(link.other)
            return from_arrow(field.type, field.name)
        column = self.requests[link.source].table.schema.by_id.get(link.other)
        return None if column is None else column.type

    def of_source(self, source: int | str) -> dict[int, pa.Array]:
        if source not in self.columns:
            self.columns[source] = self.of_input(source) if isinstance(source, str) else self.of_reference(source)
        return self.columns[source]

    def of_input(self, name: str) -> dict[int, pa.Array]:
        table = self.bound.inputs[name]
        wanted = {link.other for r in self.bound.requests for link in p.from_elsewhere(r.predicate) if link.source == name}
        types = {i: from_arrow(table.schema.field(i).type, table.schema.field(i).name) for i in wanted}
        found = {i: comparing.comparables(table.column(i), t) for i, t in types.items()}
        return {i: a for i, a in found.items() if a is not None}

    def of_reference(self, source: int) -> dict[int, pa.Array]:
        """The columns that links or the source's own predicate speak of, of the rows that satisfy it."""
        request = self.requests[source]
        links = [link for r in self.bound.requests for link in p.from_elsewhere(r.predicate) if link.source == source]
        wanted = {link.other for link in links} | p.columns_of(request.predicate)
        columns = [c for c in request.table.schema.columns if c.id in wanted]
        rendered = relation_sql(self.scans[source], request.shows, "__kalam_j")
        shown = {c.id for c in request.shows.all}
        columns = [c for c in columns if c.id in shown]
        rows = self.look.read(f"SELECT {', '.join(map(_cell, columns))} FROM {rendered.sql} AS j", rendered.inputs)
        found = {c.id: comparing.comparables(rows.column(i), c.type) for i, c in enumerate(columns)}
        known = {i: a for i, a in found.items() if a is not None}
        held = np.flatnonzero(comparing.may_hold(request.predicate, known, rows.num_rows))
        return {i: a.take(pa.array(held)) for i, a in known.items()}


def _cell(column: Column) -> str:
    name = quote_ident(column.name)
    return f"CAST({name} AS VARCHAR)" if column.type.kind == "uuid" else name
