"""The engine's parse tree, read once into what the rest of the room needs.

    query node ── SELECT_NODE ─┬─ from_table: BASE_TABLE | SUBQUERY | JOIN | TABLE_FUNCTION | …
                               ├─ select_list, where_clause, …: expressions
                               └─ modifiers: ORDER BY, LIMIT, DISTINCT
    every node may have a cte_map whose names hide tables

Every kind of node is on a list; one that is not is refused, so a new grammar of the engine opens nothing by itself.
The walk is a loop with a stack, because a client chooses how deep a tree is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flightkalam.errors import InvalidValue, SqlSyntaxError, Unsupported

Node = dict[str, Any]
NO_LOCATION = (1 << 64) - 1
MAX_TREE_DEPTH = 900  # JSON levels; an expression level takes two to four

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_FROM_NODES = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF"})
_PARTS = frozenset(
    {"ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}
    | {"ORDER_DEFAULT", "ASCENDING", "DESCENDING", "ORDER_ASCENDING", "ORDER_DESCENDING"}
)
_EXPRESSIONS = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "DEFAULT"}
    | {"FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY"}
    | {"TYPE", "WINDOW"}
)
# Values of these keys hold no expression: names, literals and settings of a node.
_LEAVES = frozenset({"literal", "qualified_name", "sample", "exclude_list", "rename_list", "cte_map"})
_CLAUSES = {
    "select_list": "select",
    "where_clause": "filter",
    "having": "filter",
    "qualify": "filter",
    "condition": "filter",
}


@dataclass(slots=True, eq=False)
class TableUse:
    """A name in FROM that is no common table expression.

    :param at: byte offset of the name in the text, None when the engine gives none.
    :param sampled: TABLESAMPLE stands on it.
    :param pivoted: it is the source of a PIVOT or UNPIVOT.
    """

    index: int
    node: Node
    parts: tuple[str, ...]
    alias: str | None
    column_aliases: tuple[str, ...]
    at: int | None
    select: Select
    sampled: bool
    pivoted: bool


@dataclass(frozen=True, slots=True)
class ColumnUse:
    """A column name in an expression; `clause` is select, filter or other."""

    names: tuple[str, ...]
    at: int | None
    clause: str


@dataclass(frozen=True, slots=True)
class StarUse:
    """`*`, `t.*` or COLUMNS(…)."""

    relation: str | None
    at: int | None
    clause: str
    node: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; `kind` is scalar or table."""

    name: str
    kind: str
    arguments: tuple[Node, ...]
    bounded_above: str | None


@dataclass(slots=True, eq=False)
class Select:
    """One SELECT: its own FROM, and the SELECT around it."""

    node: Node
    parent: Select | None
    tables: list[TableUse] = field(default_factory=list)
    others: list[str | None] = field(default_factory=list)  # aliases of everything else in FROM
    columns: list[ColumnUse] = field(default_factory=list)
    stars: list[StarUse] = field(default_factory=list)
    natural: bool = False
    using: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Reading:
    """Everything found in one statement."""

    selects: list[Select]
    tables: list[TableUse]
    cte_uses: list[tuple[str, str | None, int | None]]  # name, alias, place
    calls: list[Call]
    parameters: list[tuple[str, int | None]]
    literals: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk stands."""

    ctes: Mapping[str, None]
    select: Select
    clause: str = "other"
    pivoted: bool = False
    bounded: str | None = None
    depth: int = 0


def read(statement: Node, bounded: frozenset[str], *, max_depth: int = MAX_TREE_DEPTH) -> Reading:
    """Walk one statement of the engine's tree.

    :param bounded: functions of which a call inside a call's arguments must be noted.
    :raises Unsupported: a kind of node that is not on the lists, or a tree that is too deep.
    """
    return _Walk(bounded, max_depth).run(statement["node"])


class _Walk:
    def __init__(self, bounded: frozenset[str], max_depth: int) -> None:
        self.bounded = bounded
        self.max_depth = max_depth
        self.reading = Reading([], [], [], [], [])
        self.stack: list[tuple[Any, _Place]] = []

    def run(self, root: Node) -> Reading:
        outermost = Select({}, None)
        self.push(root, _Place({}, outermost))
        while self.stack:
            thing, place = self.stack.pop()
            if place.depth > self.max_depth:
                raise Unsupported("the statement is nested too deeply; split it with WITH")
            if isinstance(thing, list):
                for item in thing:
                    self.push(item, place)
            else:
                self.visit(thing, place)
        return self.reading

    def push(self, thing: Any, place: _Place, **changes: Any) -> None:
        if not isinstance(thing, dict | list) or not thing:
            return
        if isinstance(thing, dict) and thing.get("class") == "CONSTANT":  # nothing is below it, and lists have many
            self.reading.literals += 1
        else:
            self.stack.append((thing, _moved(place, changes)))

    def visit(self, node: Node, place: _Place) -> None:
        kind = node.get("class")
        if kind is not None:
            if kind not in _EXPRESSIONS:
                raise Unsupported(f"{_spoken(kind)} is not supported")
            self.expression(node, kind, place)
            return
        type_ = node.get("type")
        if not isinstance(type_, str):
            self.children(node, place)
        elif type_ in _QUERY_NODES:
            self.query(node, type_, place)
        elif type_ in _FROM_NODES:
            self.source(node, type_, place)
        elif type_ in _PARTS:
            self.children(node, place)
        else:
            raise Unsupported(f"{_spoken(type_)} is not supported in a query")

    def children(self, node: Node, place: _Place) -> None:
        for key, value in node.items():
            if key in _LEAVES:
                continue
            clause = _CLAUSES.get(key)
            if clause is None:
                self.push(value, place)
            else:
                self.push(value, place, clause=clause)

    # -- queries ----------------------------------------------------------------------------------------------

    def query(self, node: Node, type_: str, place: _Place) -> None:
        ctes = self.common_tables(node, place)
        inner = _moved(place, {"ctes": ctes, "clause": "other", "pivoted": False, "bounded": None})
        if type_ == "SELECT_NODE":
            select = Select(node, place.select)
            self.reading.selects.append(select)
            self.children(node, _moved(inner, {"select": select}))
        elif type_ == "RECURSIVE_CTE_NODE":
            name = str(node.get("cte_name", "")).lower()
            for key, value in node.items():
                if key != "cte_map":
                    # Only the recursive half sees the name; in the other it still means what it meant outside.
                    self.push(value, inner, **({"ctes": {**ctes, name: None}} if key == "right" else {}))
        else:
            self.children(node, inner)

    def common_tables(self, node: Node, place: _Place) -> Mapping[str, None]:
        """The names visible inside `node`: an entry of WITH sees those before it, not itself, not those after it."""
        names: dict[str, None] = dict(place.ctes)
        for entry in (node.get("cte_map") or {}).get("map") or ():
            around = place.select.parent if place.select.parent is not None else place.select
            value = {k: v for k, v in entry["value"].items() if k != "aliases"}
            changes = {"ctes": dict(names), "select": around, "clause": "other", "pivoted": False, "bounded": None}
            self.push(value, place, **changes)
            names[_plain(entry["key"]).lower()] = None
        return names

    # -- FROM -------------------------------------------------------------------------------------------------

    def source(self, node: Node, type_: str, place: _Place) -> None:
        alias = node.get("alias") or None
        if type_ == "BASE_TABLE":
            self.table(node, alias, place)
        elif type_ == "SHOW_REF":
            self.show(node, place)
        elif type_ == "TABLE_FUNCTION":
            self.table_function(node, alias, place)
        elif type_ == "JOIN":
            place.select.natural |= node.get("ref_type") == "NATURAL"
            place.select.using.update(str(c).lower() for c in node.get("using_columns") or ())
            self.children(node, place)
        elif type_ == "PIVOT":
            place.select.others.append(alias)
            self.children(node, _moved(place, {"pivoted": True}))
        else:
            if type_ != "EMPTY":
                place.select.others.append(alias)
            self.children(node, place)

    def table(self, node: Node, alias: str | None, place: _Place) -> None:
        path = tuple(str(p) for p in (node.get("qualified_name") or {}).get("path") or ())
        if not path or path[-1] != node.get("table_name"):
            raise Unsupported("a table name of this form is not supported")
        if node.get("at_clause"):
            raise Unsupported(f'AT (…) on "{path[-1]}" is not supported: only the newest version can be read')
        at = _location(node)
        if len(path) == 1 and path[0].lower() in place.ctes:
            self.reading.cte_uses.append((path[0], alias, at))
            place.select.others.append(alias or path[0])
            return
        use = TableUse(
            index=len(self.reading.tables),
            node=node,
            parts=path,
            alias=alias,
            column_aliases=tuple(str(c) for c in node.get("column_name_alias") or ()),
            at=at,
            select=place.select,
            sampled=bool(node.get("sample")),
            pivoted=place.pivoted,
        )
        node["$use"] = use.index
        self.reading.tables.append(use)
        place.select.tables.append(use)

    def show(self, node: Node, place: _Place) -> None:
        if node.get("show_type") != "SUMMARY" or not node.get("query"):
            raise Unsupported("DESCRIBE and SHOW are statements of their own; they cannot stand inside a query")
        place.select.others.append(node.get("alias") or None)
        self.push(node["query"], place)

    def table_function(self, node: Node, alias: str | None, place: _Place) -> None:
        function = node["function"]
        if function.get("class") != "FUNCTION":
            raise Unsupported("this kind of table function is not supported")
        arguments = _arguments(function)
        self.reading.calls.append(Call(str(function["function_name"]).lower(), "table", arguments, None))
        place.select.others.append(alias or str(function["function_name"]))
        self.children(function, place)
        for key, value in node.items():
            if key not in ("function", "sample"):
                self.push(value, place)

    # -- expressions ------------------------------------------------------------------------------------------

    def expression(self, node: Node, kind: str, place: _Place) -> None:
        if kind == "COLUMN_REF":
            names = tuple(str(n) for n in node["column_names"])
            place.select.columns.append(ColumnUse(names, _location(node), place.clause))
        elif kind == "PARAMETER":
            self.reading.parameters.append((str(node.get("identifier", "")), _location(node)))
        elif kind in ("FUNCTION", "WINDOW"):
            self.call(node, place)
        else:
            if kind == "STAR":
                place.select.stars.append(StarUse(node.get("relation_name") or None, _location(node), place.clause, node))
                self.star_names(node, place)
            self.children(node, place)

    def call(self, node: Node, place: _Place) -> None:
        name = str(node["function_name"]).lower()
        path = tuple(str(p) for p in (node.get("qualified_name") or {}).get("path") or ())
        if len(path) > 1:  # `t.column.upper()`: what stands before the last dot may be a column
            place.select.columns.append(ColumnUse(path[:-1], None, place.clause))
        self.reading.calls.append(Call(name, "scalar", _arguments(node), place.bounded))
        self.children(node, _moved(place, {"bounded": name}) if name in self.bounded else place)

    def star_names(self, node: Node, place: _Place) -> None:
        """Names in EXCLUDE and RENAME are column names too."""
        names: list[tuple[str, ...]] = [(str(n),) for n in node.get("exclude_list") or () if isinstance(n, str)]
        for qualified in node.get("qualified_exclude_list") or ():
            names.append((str(qualified.get("table", "")), str(qualified.get("column", ""))))
        for entry in node.get("rename_list") or ():
            names.append((str((entry.get("key") or {}).get("column", "")),))
        place.select.columns.extend(ColumnUse(n, None, "other") for n in names)


def _moved(place: _Place, changes: Mapping[str, Any]) -> _Place:
    return _Place(
        changes.get("ctes", place.ctes),
        changes.get("select", place.select),
        changes.get("clause", place.clause),
        changes.get("pivoted", place.pivoted),
        changes.get("bounded", place.bounded),
        place.depth + 1,
    )


def _arguments(node: Node) -> tuple[Node, ...]:
    return tuple(a["expression"] for a in node.get("arguments") or () if isinstance(a, dict) and "expression" in a)


def _location(node: Node) -> int | None:
    at = node.get("query_location", NO_LOCATION)
    return None if at == NO_LOCATION else int(at)


def _spoken(kind: str) -> str:
    return kind.removesuffix("_NODE").removesuffix("_QUERY").replace("_", " ")


# A name that a scoping mistake could turn into a file, a view of the engine or an input of ours is no name for WITH.
_ENGINE_VIEWS = ("duckdb_", "pragma_", "sqlite_", "pg_", "__kalam")


def _plain(name: object) -> str:
    text = str(name)
    if any(c in text for c in "./\\*?:[]") or text.lower().startswith(_ENGINE_VIEWS):
        raise Unsupported(f'"{text}" is not supported as a name in WITH; use letters, digits and _')
    return text


class Places:
    """Byte offsets of the engine -> character offsets of Python's text."""

    def __init__(self, text: str) -> None:
        self._map: list[int] | None = None
        if not text.isascii():
            self._map = []
            for i, c in enumerate(text):
                self._map += [i] * len(c.encode())
            self._map.append(len(text))

    def char(self, byte: int) -> int:
        if self._map is None:
            return byte
        if byte >= len(self._map):
            raise SqlSyntaxError("the statement could not be read: it has an incomplete character")
        return self._map[byte]


def statements(tree: Node) -> list[Node]:
    """The statements of the tree; exactly one is allowed."""
    found: list[Node] = tree.get("statements") or []
    if len(found) != 1:
        raise InvalidValue("one statement at a time" if found else "the statement is empty", sqlstate="42601")
    return found
