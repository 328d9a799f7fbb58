"""What a SELECT needs of its one table when that is less than all rows (`model.demand`).

Only forms that are certain count: one stored table in FROM, no WHERE, no grouping, and in the select list only what makes one
row from one row.  Everything else needs everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flightkalam.model.demand import EVERYTHING, Demand, Extremes, First, Order, RowCount
from flightkalam.model.schema import Column
from flightkalam.query import constants, functions
from flightkalam.query.guard import Guarded
from flightkalam.query.predicates import CATALOG, Reference
from flightkalam.query.tree import Node, Select

_SCALAR = (functions.OPERATORS | functions.MATH | functions.TEXT | functions.TIME) - functions.AGGREGATES - functions.WINDOWS
_ROW_BY_ROW = frozenset({"COLUMN_REF", "CONSTANT", "PARAMETER", "CAST", "COMPARISON", "BETWEEN", "CASE", "CONJUNCTION", "TYPE"})
_DESCENDING = frozenset({"DESCENDING", "ORDER_DESCENDING"})
_MOST_ROWS = 1 << 40


def demands(guarded: Guarded, references: Mapping[int, Reference], parameters: Mapping[str, Node]) -> dict[int, Demand]:
    """The demand on each table reference, by its index; those that are not named need everything."""
    if _only_counts(guarded) and 0 in references:
        return {0: RowCount()}
    found: dict[int, Demand] = {}
    for select in guarded.selects:
        reference = _only_table(select, references)
        if reference is None:
            continue
        needs = _Reader(select.node, reference, parameters).demand()
        if needs is not EVERYTHING:
            found[reference.index] = needs
    return found


def row_by_row(guarded: Guarded) -> bool:
    """Whether a statement makes each of its rows of one row of one table, whichever rows there are beside it."""
    if len(guarded.selects) != 1 or len(guarded.tables) != 1 or guarded.asks_caller or "#" in guarded.text:
        return False
    select, node = guarded.selects[0], guarded.selects[0].node
    source = node.get("from_table") or {}
    use = guarded.tables[0].use
    if source.get("type") != "BASE_TABLE" or use.select is not select or use.pivoted or use.sampled or select.others:
        return False
    if any(node.get(k) for k in ("group_expressions", "group_sets", "having", "qualify", "sample", "modifiers")):
        return False
    if node.get("aggregate_handling") != "STANDARD_HANDLING" or guarded.statement.get("node") is not node:
        return False
    items = [*(node.get("select_list") or []), *([node["where_clause"]] if node.get("where_clause") else [])]
    return all(_row_by_row(i, top=True) for i in node.get("select_list") or []) and not any(_asks_outside(i) for i in items)


def _asks_outside(node: object) -> bool:
    """Whether a function without arguments is called, such as now(): each part would have its own answer."""
    if isinstance(node, list):
        return any(_asks_outside(n) for n in node)
    if not isinstance(node, dict):
        return False
    return (node.get("class") == "FUNCTION" and not node.get("arguments")) or any(_asks_outside(v) for v in node.values())


def _only_table(select: Select, references: Mapping[int, Reference]) -> Reference | None:
    """The table of `SELECT … FROM table` without conditions."""
    node = select.node
    source = node.get("from_table") or {}
    if source.get("type") != "BASE_TABLE" or source.get("sample") or len(select.tables) != 1 or select.others:
        return None
    if any(node.get(k) for k in ("where_clause", "group_expressions", "group_sets", "having", "qualify", "sample")):
        return None
    use = select.tables[0]
    if node.get("aggregate_handling") != "STANDARD_HANDLING" or use.pivoted or use.sampled:
        return None
    return references.get(use.index)


def _only_counts(guarded: Guarded) -> bool:
    """Whether a statement over one table mentions none of its columns, by name, star or position."""
    if len(guarded.tables) != 1 or "#" in guarded.text:
        return False
    if any(s.columns or s.stars or s.natural or s.using for s in guarded.selects):
        return False
    use = guarded.tables[0].use
    node = use.select.node
    source = node.get("from_table") or {}
    return source.get("type") == "BASE_TABLE" and not (source.get("sample") or node.get("sample") or use.pivoted or use.sampled)


class _Reader:
    def __init__(self, node: Node, reference: Reference, parameters: Mapping[str, Node]) -> None:
        self.node = node
        self.reference = reference
        self.parameters = parameters
        self.items: Sequence[Node] = node.get("select_list") or []

    def demand(self) -> Demand:
        modifiers = {m.get("type"): m for m in self.node.get("modifiers") or ()}
        if not modifiers:
            return self.extremes()
        limit, order = modifiers.pop("LIMIT_MODIFIER", None), modifiers.pop("ORDER_MODIFIER", None)
        if limit is None or modifiers or len(self.node["modifiers"]) != 1 + (order is not None):
            return EVERYTHING
        rows = self.rows(limit)
        if rows is None or not all(_row_by_row(i, top=True) for i in self.items):
            return EVERYTHING
        if order is None:
            return First(rows)
        by = self.order(order.get("orders") or [])
        return EVERYTHING if by is None else First(rows, by)

    def rows(self, limit: Node) -> int | None:
        """LIMIT and OFFSET together."""
        if limit.get("limit_type", "ROW_COUNT") != "ROW_COUNT" or not limit.get("limit"):
            return None
        total = 0
        for node in (limit["limit"], limit.get("offset")):
            if not node:
                continue
            value = constants.of_node(node, self.parameters)
            if value is None or value.kind != "int" or not 0 <= value.value < _MOST_ROWS:
                return None
            total += value.value
        return total

    def order(self, terms: Sequence[Node]) -> Order | None:
        """The first term decides which batches can hold the winners; the others only break its ties."""
        if not terms or not all(_row_by_row(t.get("expression") or {}) for t in terms):
            return None
        first = terms[0]
        if first.get("null_order") not in ("ORDER_DEFAULT", "NULLS FIRST", "NULLS LAST"):
            return None
        column = self.ordered_by(first.get("expression") or {})
        if column is None or not column.type.has_bounds:
            return None
        return Order(column.id, first.get("type") in _DESCENDING, first["null_order"] == "NULLS FIRST")

    def ordered_by(self, node: Node) -> Column | None:
        """A column, by name or by its place in the select list.  A name means an alias of the list before a column."""
        if node.get("class") == "CONSTANT":
            place = constants.of_node(node, {})
            if place is None or place.kind != "int" or any(i.get("class") == "STAR" for i in self.items):
                return None
            return self.column(self.items[place.value - 1]) if 1 <= place.value <= len(self.items) else None
        names = node.get("column_names") or []
        if node.get("class") == "COLUMN_REF" and len(names) == 1:
            named = [i for i in self.items if str(i.get("alias", "")).lower() == str(names[0]).lower()]
            if named:
                return self.column(named[0]) if len(named) == 1 else None
            if any(i.get("class") == "STAR" and _renames(i) for i in self.items):
                return None
        return self.column(node)

    def column(self, node: Node) -> Column | None:
        if node.get("class") != "COLUMN_REF":
            return None
        names = [str(n).lower() for n in node["column_names"]]
        known = self.reference
        before = names[:-1]
        allowed: list[list[str | None]] = [[], [known.name.lower()]]
        if known.namespace is not None:
            allowed += [[known.namespace, known.name.lower()], [CATALOG, known.namespace, known.name.lower()]]
        return known.columns.get(names[-1]) if before in allowed else None

    def extremes(self) -> Demand:
        """`SELECT min(a), max(b)` and nothing else."""
        columns: set[int] = set()
        for item in self.items:
            arguments = [a["expression"] for a in item.get("arguments") or ()]
            plain = item.get("class") == "FUNCTION" and item.get("function_name") in ("min", "max") and len(arguments) == 1
            column = self.column(arguments[0]) if plain else None
            if (
                column is None
                or not column.type.has_bounds
                or item.get("filter")
                or (item.get("order_bys") or {}).get("orders")
            ):
                return EVERYTHING
            columns.add(column.id)
        return Extremes(frozenset(columns)) if columns else EVERYTHING


def _renames(star: Node) -> bool:
    return any(star.get(k) for k in ("rename_list", "replace_list", "expr"))


def _row_by_row(node: Node, *, top: bool = False) -> bool:
    """Whether an expression makes one value of each row: no aggregate, window, subquery or unnest."""
    kind = node.get("class")
    if kind == "STAR":
        return top and not node.get("expr") and not node.get("columns")
    if kind == "FUNCTION":
        if node.get("function_name") not in _SCALAR or node.get("filter"):
            return False
        return all(_row_by_row(a.get("expression") or {}) for a in node.get("arguments") or ())
    if kind not in _ROW_BY_ROW:
        return False
    return all(_row_by_row(child) for child in _children(node))


def _children(node: Node) -> list[Node]:
    """The expressions right below one."""
    out: list[Node] = []
    for key, value in node.items():
        if key == "case_checks":
            out += [check[k] for check in value or () for k in ("when_expr", "then_expr")]
        elif isinstance(value, dict) and value.get("class"):
            out.append(value)
        elif isinstance(value, list):
            out += [v for v in value if isinstance(v, dict) and v.get("class")]
    return out
