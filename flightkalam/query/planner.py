"""From a guarded text to what the engine runs.

    bind     each table name -> the relation behind it, what the statement needs of it, and where its text goes
    plan     each table -> a scan plan, asked of the table room with the predicate
    render   the client's own text, with relations in the places of names

The text is never written anew; it is only spliced: relations for names, nothing for the namespace before a column,
`EXCLUDE (…)` behind a star that would show hidden columns, literals for parameters.

System columns are selectable by name and never in `SELECT *`.  A relation shows them only if the statement names
them, and then each star over it excludes them.  Where that cannot be made right (NATURAL JOIN, PIVOT, COLUMNS('…'), a
whole row as one value) the statement is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from flightkalam.errors import InvalidValue, KalamError, SqlSyntaxError, Unsupported, undefined_table
from flightkalam.model.demand import EVERYTHING, Demand
from flightkalam.model.predicate import TRUE, EqualsSome, Predicate, from_elsewhere, replaced
from flightkalam.model.schema import POSITION, Column, Table, View
from flightkalam.model.types import from_arrow
from flightkalam.query.compute import Input
from flightkalam.query.demands import demands
from flightkalam.query.guard import Guard, Guarded, TableRef, name_tokens, named
from flightkalam.query.hidden import hidden_names, hide_in_stars, shows_tombstones
from flightkalam.query.params import NULL, Literal
from flightkalam.query.predicates import CATALOG, Reference, predicates
from flightkalam.query.relation import Scan, Shown, arrow_sql, relation_sql, shown
from flightkalam.query.tree import Node, Select
from flightkalam.sql.text import quote_ident, splice

MAX_VIEW_DEPTH = 16


@dataclass(frozen=True, slots=True)
class TableRelation:
    """A stored table, and whose rows of it (None for a SHARED table)."""

    table: Table
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class ViewRelation:
    view: View


@dataclass(frozen=True, slots=True)
class ArrowRelation:
    """Rows that already are in memory: a system table."""

    namespace: str
    name: str
    data: pa.Table = field(compare=False)


@dataclass(frozen=True, slots=True)
class ComputedRelation:
    """A system table: its rows are computed when the statement runs, as far as it asks for them.

    :param rows: rows of `schema`, at least those for which the predicate may be true; columns count from 0.
    """

    namespace: str
    name: str
    schema: pa.Schema
    rows: Callable[[Predicate], pa.Table] = field(compare=False)


Relation = TableRelation | ViewRelation | ArrowRelation | ComputedRelation
# parts, default namespace (None: the session's) -> what the name means for the caller, rights checked
Resolve = Callable[[tuple[str, ...], "str | None"], Relation]


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What a statement needs of one table reference.

    :param predicate: what every row that counts satisfies.
    :param tombstones: it shows deleted keys (SEMANTICS §2).
    :param demand: how much of the rows it needs.
    """

    relation: TableRelation
    predicate: Predicate
    tombstones: bool
    shows: Shown
    demand: Demand = EVERYTHING

    @property
    def table(self) -> Table:
        return self.relation.table


ScanTable = Callable[[ScanRequest], Scan]


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement whose names have been resolved.

    :param pieces: text, and in between the numbers of the requests whose relation stands there.
    :param inputs: Arrow relations by their generated name; of those that are computed only the columns.
    :param computed: what makes the rows of these.
    :param shape: the text with the kinds of its parameters in the places of their values.
    """

    pieces: tuple[str | int, ...]
    requests: tuple[ScanRequest, ...]
    inputs: Mapping[str, pa.Table]
    asks_caller: bool
    shape: str
    computed: Mapping[str, Callable[[], pa.Table]] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[object, ...]:
        """What the result's schema depends on."""
        tables = tuple((r.table.id, r.table.schema.version, r.shows.hidden) for r in self.requests)
        return (self.shape, tables, tuple((n, t.schema) for n, t in self.inputs.items()))


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement ready for the engine, with the scan plan of each table reference."""

    sql: str
    inputs: Mapping[str, Input]
    requests: tuple[ScanRequest, ...]
    scans: tuple[Scan, ...]
    asks_caller: bool


def plan_query(
    text: str,
    guard: Guard,
    resolve: Resolve,
    scan: ScanTable,
    *,
    parameters: Sequence[Literal] = (),
    time_zone: str = "UTC",
) -> Planned:
    """All steps at once."""
    return plan(bind(guard.check(text), guard, resolve, parameters=parameters, time_zone=time_zone), scan)


def bind(
    guarded: Guarded,
    guard: Guard,
    resolve: Resolve,
    *,
    parameters: Sequence[Literal] | None = (),
    time_zone: str = "UTC",
    positions: bool = False,
) -> Bound:
    """Resolve the names of a statement.

    :param resolve: also refuses what the caller may not read.
    :param parameters: one value for each; None binds NULL everywhere, to describe a statement before it is bound.
    :param positions: the statement is our own and may ask where rows sit, by `$at`; a client's must never.
    :raises InvalidValue: too few or too many parameters.
    """
    values = _values(guarded, parameters)
    return _Binder(guard, resolve, time_zone, positions).statement(guarded, values)


def plan(bound: Bound, scan: ScanTable) -> Planned:
    return assembled(bound, tuple(scan(request) for request in bound.requests))


def assembled(bound: Bound, scans: tuple[Scan, ...]) -> Planned:
    sql, inputs = render(bound, scans)
    inputs.update({name: rows() for name, rows in bound.computed.items()})
    return Planned(sql, inputs, bound.requests, scans, bound.asks_caller)


def render(bound: Bound, scans: Sequence[Scan | None]) -> tuple[str, dict[str, Input]]:
    """The text for the engine and its inputs; a scan of None gives a relation without rows, to describe the result."""
    inputs: dict[str, Input] = dict(bound.inputs)
    relations: dict[int, str] = {}
    parts: list[str] = []
    for piece in bound.pieces:
        if isinstance(piece, str):
            parts.append(piece)
            continue
        if piece not in relations:
            rendered = relation_sql(scans[piece], bound.requests[piece].shows, f"__kalam_t{piece}")
            relations[piece] = rendered.sql
            inputs.update(rendered.inputs)
        parts.append(relations[piece])
    return "".join(parts), inputs


def _values(guarded: Guarded, parameters: Sequence[Literal] | None) -> Sequence[Literal]:
    wanted = guarded.parameter_count
    if parameters is None:
        return [NULL] * wanted
    if len(parameters) != wanted:
        raise InvalidValue(f"the statement has {wanted} parameters, {len(parameters)} values were given: bind each once")
    return parameters


_SLOT = "\x00"  # cannot stand in a client's text: the engine refuses it


class _Binder:
    """One statement with the views in it."""

    def __init__(self, guard: Guard, resolve: Resolve, time_zone: str, positions: bool) -> None:
        self.positions = positions
        self.guard = guard
        self.resolve = resolve
        self.utc = time_zone.upper() in ("UTC", "ETC/UTC")
        self.requests: list[ScanRequest] = []
        self.inputs: dict[str, pa.Table] = {}
        self.computed: dict[str, Callable[[], pa.Table]] = {}
        self.asks_caller = False
        self.shape = ""

    def statement(self, guarded: Guarded, values: Sequence[Literal]) -> Bound:
        text = self.text(guarded, values, None, ())
        pieces: list[str | int] = []
        for i, part in enumerate(text.split(_SLOT)):
            pieces.append(int(part) if i % 2 else part)
        return Bound(tuple(pieces), tuple(self.requests), self.inputs, self.asks_caller, self.shape or text, self.computed)

    def text(
        self, guarded: Guarded, values: Sequence[Literal], namespace: str | None, views: tuple[tuple[str, str], ...]
    ) -> str:
        """The statement's text with a numbered slot for each table.

        :param namespace: where unqualified names are looked up; None for the session's.
        :param views: the views around it, outermost first.
        """
        self.asks_caller |= guarded.asks_caller
        relations = [self.resolve(_parts(t), namespace) for t in guarded.tables]
        shows = self._shows(guarded, relations, positions=self.positions and not views)
        bounds, needs = self._predicates(guarded, relations, shows, values)
        changes: list[tuple[int, int, str]] = []
        places: dict[int, int | str] = {}  # where a reference of this text stands among all that is read
        for i, (table, relation) in enumerate(zip(guarded.tables, relations, strict=True)):
            body = self._body(guarded, i, relation, shows.get(i), bounds.get(i, TRUE), needs.get(i, EVERYTHING), views)
            if isinstance(relation, TableRelation):
                places[i] = len(self.requests) - 1
            elif isinstance(relation, ArrowRelation):
                places[i] = f"__kalam_a{len(self.inputs) - 1}"
            changes.append((table.start, table.end, named(body, table)))
        self._place_links(places)
        changes += _unqualified(guarded, relations)
        changes += hide_in_stars(guarded, {i: s for i, s in shows.items() if s.hidden})
        if not guarded.parameters:
            return splice(guarded.text, changes)
        given = [(p, values[p.index - 1]) for p in guarded.parameters]
        self.shape = splice(guarded.text, changes + [(p.start, p.end, f" {_SLOT}{v.kind}{_SLOT} ") for p, v in given])
        return splice(guarded.text, changes + [(p.start, p.end, f" {v.sql} ") for p, v in given])

    def _place_links(self, places: Mapping[int, int | str]) -> None:
        """Values from elsewhere: what was the number of a reference in one text becomes its place in the statement."""

        def placed(link: EqualsSome) -> Predicate:
            found = places.get(int(link.source))
            return TRUE if found is None else replace(link, source=found)

        for place in places.values():
            if isinstance(place, int):
                request = self.requests[place]
                if any(from_elsewhere(request.predicate)):
                    self.requests[place] = replace(request, predicate=replaced(request.predicate, placed))

    def _shows(self, guarded: Guarded, relations: Sequence[Relation], *, positions: bool) -> dict[int, Shown]:
        kept_back = frozenset() if positions else frozenset((POSITION,))
        return {
            i: shown(r.table.schema, hidden_names(guarded, i) - kept_back)
            for i, r in enumerate(relations)
            if isinstance(r, TableRelation)
        }

    def _predicates(
        self, guarded: Guarded, relations: Sequence[Relation], shows: Mapping[int, Shown], values: Sequence[Literal]
    ) -> tuple[dict[int, Predicate], dict[int, Demand]]:
        computed = {i: r for i, r in enumerate(relations) if isinstance(r, ComputedRelation)}
        if not shows and not computed:
            return {}, {}
        nodes: dict[str, Node] = {}
        for p in guarded.parameters:
            node = values[p.index - 1].node
            if node is not None:
                nodes[p.identifier] = node
        references = {i: _reference(guarded.tables[i], s, _namespace_and_name(relations[i])[0]) for i, s in shows.items()}
        needs = demands(guarded, references, nodes)
        references |= {i: _computed_reference(guarded.tables[i], r) for i, r in computed.items()}
        arrow = {i: _arrow_reference(guarded.tables[i], r) for i, r in enumerate(relations) if isinstance(r, ArrowRelation)}
        references |= {i: r for i, r in arrow.items() if r is not None}
        return predicates(guarded.selects, references, parameters=nodes, utc=self.utc), needs

    def _body(
        self,
        guarded: Guarded,
        i: int,
        relation: Relation,
        shows: Shown | None,
        predicate: Predicate,
        demand: Demand,
        views: tuple[tuple[str, str], ...],
    ) -> str:
        if isinstance(relation, ViewRelation):
            return self._view(relation.view, views)
        if isinstance(relation, ArrowRelation):
            name = f"__kalam_a{len(self.inputs)}"
            self.inputs[name] = relation.data
            return arrow_sql(name)
        if isinstance(relation, ComputedRelation):
            name = f"__kalam_a{len(self.inputs)}"
            self.inputs[name] = relation.schema.empty_table()
            self.computed[name] = partial(relation.rows, replaced(predicate, lambda _: TRUE))
            return arrow_sql(name)
        assert shows is not None
        self.requests.append(ScanRequest(relation, predicate, shows_tombstones(guarded, i), shows, demand))
        return f"{_SLOT}{len(self.requests) - 1}{_SLOT}"

    def _view(self, view: View, views: tuple[tuple[str, str], ...]) -> str:
        key = (view.namespace, view.name)
        if key in views:
            raise Unsupported(f'view "{view.qualified}" reads itself; create it anew without that')
        if len(views) >= MAX_VIEW_DEPTH:
            raise Unsupported(f"views are nested more than {MAX_VIEW_DEPTH} deep; read the tables below them")
        guarded = self.guard.check(view.text)
        if guarded.parameters:
            raise SqlSyntaxError(f'view "{view.qualified}" has parameters; create it anew with literals')
        body = self.text(guarded, (), view.default_namespace, (*views, key))
        if view.columns is None:
            return f"({body})"
        names = ", ".join(quote_ident(c) for c in view.columns)
        return f"(SELECT * FROM ({body}) AS __kalam_view({names}))"


def _parts(table: TableRef) -> tuple[str, ...]:
    """The name without the catalog: there is only one."""
    parts = table.parts
    if len(parts) == 3 and parts[0].lower() == CATALOG:
        return parts[1:]
    if len(parts) > 2:
        raise undefined_table(".".join(parts))
    return parts


def _reference(table: TableRef, shows: Shown, namespace: str) -> Reference:
    """The reference as its SELECT sees it: `t AS x(a, b)` gives the first columns other names."""
    columns: dict[str, Column] = {}
    renamed = table.use.column_aliases
    for i, column in enumerate(shows.all):
        columns[(renamed[i] if i < len(renamed) else column.name).lower()] = column
    if table.use.pivoted or len(columns) != len(shows.all):
        columns = {}
    return Reference(table.use.index, table.shown_as, columns, namespace if table.alias is None else None)


def _computed_reference(table: TableRef, relation: ComputedRelation) -> Reference:
    """As `_reference`; a column's id is its position."""
    columns = {f.name.lower(): Column(i, f.name, from_arrow(f.type, f.name)) for i, f in enumerate(relation.schema)}
    if table.use.pivoted or table.use.column_aliases:
        columns = {}
    namespace = relation.namespace.lower() if table.alias is None else None
    return Reference(table.use.index, table.shown_as, columns, namespace, repeatable=False)


def _arrow_reference(table: TableRef, relation: ArrowRelation) -> Reference | None:
    """As `_computed_reference`; None where its columns cannot be told."""
    try:
        columns = {f.name.lower(): Column(i, f.name, from_arrow(f.type, f.name)) for i, f in enumerate(relation.data.schema)}
    except KalamError:
        return None
    if table.use.pivoted or table.use.column_aliases or len(columns) != relation.data.num_columns:
        return None
    return Reference(table.use.index, table.shown_as, columns, relation.namespace.lower() if table.alias is None else None)


def _namespace_and_name(relation: Relation) -> tuple[str, str]:
    if isinstance(relation, TableRelation):
        return relation.table.namespace.lower(), relation.table.name.lower()
    if isinstance(relation, ViewRelation):
        return relation.view.namespace.lower(), relation.view.name.lower()
    return relation.namespace.lower(), relation.name.lower()


def _unqualified(guarded: Guarded, relations: Sequence[Relation]) -> list[tuple[int, int, str]]:
    """Cuts the namespace from `ns.t.column`: the relation in the table's place has none."""
    changes: list[tuple[int, int, str]] = []
    by_index = {t.use.index: r for t, r in zip(guarded.tables, relations, strict=True)}
    for select in guarded.selects:
        for use in select.columns:
            if len(use.names) < 3 or use.at is None:
                continue
            skip = _namespace_parts(select, use.names, by_index)
            if skip:
                start = guarded.places.char(use.at)
                tokens = name_tokens(guarded.tokens, start, skip + 1)
                changes.append((start, guarded.tokens.starts[tokens[-1]], ""))
    return changes


def _namespace_parts(select: Select, names: Sequence[str], relations: Mapping[int, Relation]) -> int:
    """How many leading parts of a column's name are a catalog or namespace of a table around it."""
    lower = [n.lower() for n in names]
    skip = 1
    if lower[0] == CATALOG and len(names) > 3:
        skip = 2
    scope: Select | None = select
    while scope is not None:
        for table in scope.tables:
            if table.alias is None and _namespace_and_name(relations[table.index]) == (lower[skip - 1], lower[skip]):
                return skip
        scope = scope.parent
    return 0


__all__ = [
    "ArrowRelation",
    "Bound",
    "ComputedRelation",
    "Planned",
    "Relation",
    "Resolve",
    "ScanRequest",
    "ScanTable",
    "TableRelation",
    "ViewRelation",
    "bind",
    "plan",
    "plan_query",
    "render",
]
