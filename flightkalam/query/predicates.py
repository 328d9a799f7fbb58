"""What a statement asks of each table reference at least.

A predicate may only weaken what the statement says (T-39): the rows it keeps include every row that can count.  So a
part that is not understood is TRUE wherever it stands, and NOT is pushed down to the comparisons, where it can be
answered, instead of being put before something that was weakened.

    INNER, CROSS      WHERE and ON bind both sides
    LEFT              WHERE binds both, ON the right; the right is *nullable*: only what NULL cannot pass may bind it
    RIGHT, FULL       likewise, mirrored
    SEMI              WHERE binds the left, ON both                ANTI     WHERE binds the left, ON the right
    ASOF, POSITIONAL  nothing: which rows meet depends on rows that do not count
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flightkalam.model.predicate import (
    FALSE,
    TRUE,
    Compare,
    IsNotNull,
    IsNull,
    OneOf,
    Predicate,
    StartsWith,
    all_of,
    any_of,
)
from flightkalam.model.schema import Column
from flightkalam.query import constants
from flightkalam.query.constants import Beyond, Constant, Exact
from flightkalam.query.tree import Node, Select

_OPERATORS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "!=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_NOT_DISTINCT_FROM": "=",
}
_MIRRORED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_MAX_DEPTH = 60
CATALOG = "flightkalam"
_PREFIX_FUNCTIONS = frozenset({"starts_with", "prefix", "^@"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A table reference as its SELECT sees it.

    :param columns: its columns by the lower-case name under which they are seen there.
    :param namespace: what may stand before its name, None when an alias has replaced it.
    """

    index: int
    name: str
    columns: Mapping[str, Column]
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class _Term:
    """A reference inside a FROM clause, and whether an outer join may put NULL in its place."""

    reference: Reference
    nullable: bool


def predicates(
    selects: Iterable[Select],
    references: Mapping[int, Reference],
    *,
    parameters: Mapping[str, Node],
    utc: bool,
) -> dict[int, Predicate]:
    """The predicate of every table reference, by its index.

    :param parameters: nodes of the bound parameters by identifier.
    :param utc: the session's time zone is UTC.
    """
    found: dict[int, list[Predicate]] = {i: [] for i in references}
    for select in selects:
        _Clauses(select, references, parameters, utc, found).read()
    return {i: all_of(parts) for i, parts in found.items()}


class _Clauses:
    """The WHERE and ON clauses of one SELECT."""

    def __init__(
        self,
        select: Select,
        references: Mapping[int, Reference],
        parameters: Mapping[str, Node],
        utc: bool,
        found: dict[int, list[Predicate]],
    ) -> None:
        self.select = select
        self.references = references
        self.parameters = parameters
        self.utc = utc
        self.found = found
        here = [references[t.index] for t in select.tables if t.index in references]
        self.columns = _Scope(here, list(select.others), len(here) == len(select.tables))

    def read(self) -> None:
        node = self.select.node
        # USING SAMPLE draws from what FROM gives, before WHERE.
        if node.get("sample") or not self.select.tables:
            return
        terms = self.source(node.get("from_table") or {})
        where = node.get("where_clause")
        if where:
            self.bind(where, terms)

    def source(self, node: Node) -> list[_Term]:
        """The references of a FROM clause to which a condition above it may be applied."""
        type_ = node.get("type")
        if type_ == "BASE_TABLE":
            reference = self.references.get(node.get("$use", -1))
            return [] if reference is None or node.get("sample") else [_Term(reference, False)]
        if type_ == "JOIN":
            return self.join(node)
        return []

    def join(self, node: Node) -> list[_Term]:
        left, right = self.source(node.get("left") or {}), self.source(node.get("right") or {})
        kind = node.get("join_type")
        if node.get("ref_type") not in ("REGULAR", "CROSS", "NATURAL") or node.get("sample"):
            return []
        bound, left_nullable, right_nullable, seen = {
            "INNER": (left + right, False, False, left + right),
            "LEFT": (right, False, True, left + right),
            "RIGHT": (left, True, False, left + right),
            "OUTER": ([], True, True, left + right),
            "FULL": ([], True, True, left + right),
            "SEMI": (left + right, False, False, left),
            "ANTI": (right, False, False, left),
        }.get(str(kind), ([], False, False, []))
        if node.get("condition"):
            self.bind(node["condition"], bound)
        nullable = {id(t): left_nullable for t in left} | {id(t): right_nullable for t in right}
        return [_Term(t.reference, t.nullable or nullable[id(t)]) for t in seen]

    def bind(self, condition: Node, terms: Sequence[_Term]) -> None:
        for term in terms:
            reader = _Reader(self.columns.resolver(term.reference), self.parameters, self.utc, term.nullable)
            self.found[term.reference.index].append(reader.read(condition, False, 0))


class _Scope:
    """Which reference a column name means."""

    def __init__(self, here: Sequence[Reference], others: Sequence[str | None], complete: bool) -> None:
        self.here = here
        self.others = others
        self.complete = complete

    def resolver(self, reference: Reference) -> Callable[[Sequence[str]], Column | None]:
        return lambda names: self._find(reference, names)

    def _find(self, reference: Reference, names: Sequence[str]) -> Column | None:
        column = reference.columns.get(names[-1].lower())
        if column is None:
            return None
        if len(names) == 1:
            return column if self._alone(names[0].lower()) else None
        table = names[-2].lower()
        same = [r for r in self.here if r.name.lower() == table]
        others = [o for o in self.others if o is not None and o.lower() == table]
        if same != [reference] or others:
            return None
        # Before the table's name only its namespace may stand; any other longer name ends in a field of a struct.
        before = [n.lower() for n in names[:-2]]
        if before and before not in ([reference.namespace], [CATALOG, reference.namespace]):
            return None
        return column

    def _alone(self, name: str) -> bool:
        """Whether an unqualified name can come from one reference only."""
        return self.complete and not self.others and sum(1 for r in self.here if name in r.columns) == 1


class _Reader:
    """One condition, read for one reference."""

    def __init__(
        self,
        column: Callable[[Sequence[str]], Column | None],
        parameters: Mapping[str, Node],
        utc: bool,
        nullable: bool,
    ) -> None:
        self.column = column
        self.parameters = parameters
        self.utc = utc
        self.nullable = nullable

    def read(self, node: Node, negated: bool, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            return TRUE
        kind = node.get("class")
        if kind == "CONJUNCTION":
            parts = [self.read(c, negated, depth + 1) for c in node.get("children") or ()]
            conjunction = (node.get("type") == "CONJUNCTION_AND") != negated
            return all_of(parts) if conjunction else any_of(parts)
        if kind == "COMPARISON":
            return self.comparison(node, negated)
        if kind == "BETWEEN":
            return self.between(node, negated)
        if kind == "OPERATOR":
            return self.operator(node, negated, depth)
        if kind == "FUNCTION":
            return TRUE if negated else self.function(node)
        return self.truth(node, negated)

    def truth(self, node: Node, negated: bool) -> Predicate:
        """A boolean column or constant that stands for itself."""
        column = self.column_of(node)
        if column is not None:
            return Compare(column.id, "=", int(not negated)) if column.type.kind == "bool" else TRUE
        constant = self.constant(node)
        if constant is None or constant.kind not in ("bool", "null"):
            return TRUE
        return FALSE if constant.kind == "null" or bool(constant.value) == negated else TRUE

    def comparison(self, node: Node, negated: bool) -> Predicate:
        type_ = str(node.get("type"))
        operator = _OPERATORS.get(type_)
        if operator is None or (type_ == "COMPARE_NOT_DISTINCT_FROM" and negated):
            return TRUE
        left, right = node.get("left") or {}, node.get("right") or {}
        column, constant = self.column_of(left), self.constant(right)
        if column is None or constant is None:
            column, constant, operator = self.column_of(right), self.constant(left), _MIRRORED[operator]
        if column is None or constant is None:
            return self.constants(left, right, operator, negated)
        if constant.kind == "null":
            return TRUE if type_ == "COMPARE_NOT_DISTINCT_FROM" else FALSE
        return self.compare(column, _NEGATED[operator] if negated else operator, constant)

    def constants(self, left: Node, right: Node, operator: str, negated: bool) -> Predicate:
        """`1 = 0`, as tools write it to ask for no rows."""
        a, b = self.constant(left), self.constant(right)
        if a is None or b is None or a.kind != "int" or b.kind != "int" or operator not in ("=", "!="):
            return TRUE
        return TRUE if ((a.value == b.value) == (operator == "=")) != negated else FALSE

    def between(self, node: Node, negated: bool) -> Predicate:
        column = self.column_of(node.get("input") or {})
        low, high = self.constant(node.get("lower") or {}), self.constant(node.get("upper") or {})
        if column is None:
            return TRUE
        if low is None or high is None or not _alike([low, high]):
            return TRUE
        pair = [(low, "<" if negated else ">="), (high, ">" if negated else "<=")]
        parts = [FALSE if c.kind == "null" else self.compare(column, op, c) for c, op in pair]
        return any_of(parts) if negated else all_of(parts)

    def operator(self, node: Node, negated: bool, depth: int) -> Predicate:
        type_, children = node.get("type"), node.get("children") or []
        if type_ == "OPERATOR_NOT" and len(children) == 1:
            return self.read(children[0], not negated, depth + 1)
        if type_ in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL") and len(children) == 1:
            return self.null_test(children[0], (type_ == "OPERATOR_IS_NULL") != negated)
        if type_ in ("COMPARE_IN", "COMPARE_NOT_IN") and len(children) > 1:
            return self.membership(children, (type_ == "COMPARE_NOT_IN") != negated)
        return TRUE

    def null_test(self, node: Node, is_null: bool) -> Predicate:
        column = self.column_of(node)
        if column is None:
            return TRUE
        if is_null:
            return TRUE if self.nullable else IsNull(column.id)
        return IsNotNull(column.id)

    def membership(self, children: Sequence[Node], negated: bool) -> Predicate:
        column = self.column_of(children[0])
        if column is None:
            return TRUE
        values: list[Constant] = []
        for child in children[1:]:
            constant = self.constant(child)
            if constant is None:
                return TRUE
            values.append(constant)
        known = [v for v in values if v.kind != "null"]
        if not _alike(known):
            return TRUE
        if negated:
            # NOT IN with a NULL in the list is never true.
            return FALSE if len(known) < len(values) else all_of(self.compare(column, "!=", v) for v in known)
        places = [constants.against(v, column.type, utc=self.utc) for v in known]
        if any(p is None for p in places):
            return TRUE
        exact = tuple(dict.fromkeys(p.value for p in places if isinstance(p, Exact) and not p.between))
        if not exact:
            return FALSE
        return Compare(column.id, "=", exact[0]) if len(exact) == 1 else OneOf(column.id, exact)

    def function(self, node: Node) -> Predicate:
        arguments = [a["expression"] for a in node.get("arguments") or ()]
        if len(arguments) != 2:
            return TRUE
        column, constant = self.column_of(arguments[0]), self.constant(arguments[1])
        if column is None or constant is None or column.type.kind != "text":
            return TRUE
        if constant.kind not in ("string", "varchar"):
            return TRUE
        name = node.get("function_name")
        if name == "~~":
            return _like(column, constant.value)
        return _prefix(column, constant.value) if name in _PREFIX_FUNCTIONS else TRUE

    def compare(self, column: Column, operator: str, constant: Constant) -> Predicate:
        place = constants.against(constant, column.type, utc=self.utc)
        if place is None:
            return TRUE
        if isinstance(place, Beyond):
            everything = operator == "!=" or operator in (("<", "<=") if place.above else (">", ">="))
            return IsNotNull(column.id) if everything else FALSE
        if not place.between:
            return Compare(column.id, operator, place.value)
        if operator == "=":
            return FALSE
        if operator == "!=":
            return IsNotNull(column.id)
        if operator in ("<", "<="):
            return Compare(column.id, "<=", place.value)
        return Compare(column.id, ">", place.value)

    def column_of(self, node: Node) -> Column | None:
        if node.get("class") != "COLUMN_REF":
            return None
        return self.column([str(n) for n in node["column_names"]])

    def constant(self, node: Node) -> Constant | None:
        return constants.of_node(node, self.parameters)


def _alike(values: Sequence[Constant]) -> bool:
    """Whether a list keeps the meaning of each value: the engine takes one type for all of them."""
    kinds = {v.kind for v in values if v.kind != "null"}
    return len(kinds) <= 1 or kinds <= {"int", "decimal"}


def _like(column: Column, pattern: str) -> Predicate:
    """`LIKE 'abc%'`: at most what stands before the first wildcard is certain."""
    for i, c in enumerate(pattern):
        if c in "%_\\":
            return _prefix(column, pattern[:i])
    return Compare(column.id, "=", pattern.encode())


def _prefix(column: Column, prefix: str) -> Predicate:
    return StartsWith(column.id, prefix.encode()) if prefix else IsNotNull(column.id)
