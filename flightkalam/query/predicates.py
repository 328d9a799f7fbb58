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
    EqualsSome,
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
_LONG_LIST = 64
CATALOG = "flightkalam"
_PREFIX_FUNCTIONS = frozenset({"starts_with", "prefix", "^@"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A table reference as its SELECT sees it.

    :param columns: its columns by the lower-case name under which they are seen there.
    :param namespace: what may stand before its name, None when an alias has replaced it.
    :param repeatable: read twice in a statement, it has the same rows.
    """

    index: int
    name: str
    columns: Mapping[str, Column]
    namespace: str | None = None
    repeatable: bool = True


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
    every = tuple(selects)
    scopes = {id(s.node): scope_of(s, references) for s in every}
    for select in every:
        _Clauses(select, references, parameters, utc, found, scopes).read()
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
        scopes: Scopes,
    ) -> None:
        self.select = select
        self.references = references
        self.parameters = parameters
        self.utc = utc
        self.found = found
        self.scopes = scopes
        self.columns = scopes[id(select.node)]

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
        elif node.get("using_columns"):
            self.using(node, bound)
        nullable = {id(t): left_nullable for t in left} | {id(t): right_nullable for t in right}
        return [_Term(t.reference, t.nullable or nullable[id(t)]) for t in seen]

    def using(self, node: Node, bound: Sequence[_Term]) -> None:
        """USING of two sides; where one is itself a join a name may mean any of its columns."""
        sides = (node["left"], node["right"])
        for term in bound:
            own = [self.references.get(side.get("$use", -1)) is term.reference for side in sides]
            if not any(own):
                continue
            elsewhere = Elsewhere(term.reference, self.columns, self.scopes)
            for name in (str(n).lower() for n in node["using_columns"]):
                column = term.reference.columns.get(name)
                if column is not None:
                    found = elsewhere.of_side(sides[own.index(False)] if False in own else {}, name)
                    self.found[term.reference.index].append(_equals_some(column, found))

    def bind(self, condition: Node, terms: Sequence[_Term]) -> None:
        for term in terms:
            elsewhere = Elsewhere(term.reference, self.columns, self.scopes)
            resolver = self.columns.resolver(term.reference)
            reader = _Reader(resolver, self.parameters, self.utc, term.nullable, elsewhere)
            self.found[term.reference.index].append(reader.read(condition, False, 0))


def scope_of(select: Select, references: Mapping[int, Reference]) -> Scope:
    here = [references[t.index] for t in select.tables if t.index in references]
    derived: dict[str, Node] = {}
    _derived(select.node.get("from_table") or {}, derived)
    return Scope(here, list(select.others), len(here) == len(select.tables), derived)


def _derived(node: Node, found: dict[str, Node]) -> None:
    """The subqueries of a FROM clause by alias."""
    if node.get("type") == "JOIN":
        _derived(node.get("left") or {}, found)
        _derived(node.get("right") or {}, found)
    elif node.get("type") == "SUBQUERY" and node.get("alias") and not node.get("column_name_alias"):
        found[str(node["alias"]).lower()] = (node.get("subquery") or {}).get("node") or {}


class Scope:
    """Which reference a column name means in one SELECT.

    :param others: the aliases of what is no table in FROM.
    :param complete: `here` has all its tables.
    :param derived: its subqueries in FROM.
    """

    def __init__(
        self, here: Sequence[Reference], others: Sequence[str | None], complete: bool, derived: Mapping[str, Node]
    ) -> None:
        self.here = here
        self.others = others
        self.complete = complete
        self.derived = derived

    def resolver(self, reference: Reference) -> Callable[[Sequence[str]], Column | None]:
        return lambda names: self._find(reference, names)

    def any_of(self, names: Sequence[str]) -> tuple[Reference, Column] | None:
        """The stored column that a name means, whichever table has it."""
        for reference in self.here:
            column = self._find(reference, names)
            if column is not None:
                return reference, column
        return None

    def knows(self, names: Sequence[str]) -> bool:
        """Whether a name could mean something here, rather than in a SELECT around it."""
        if len(names) == 1:
            return not self.complete or bool(self.others) or any(names[0].lower() in r.columns for r in self.here)
        around = {n.lower() for n in names[:-1]}
        aliases = {r.name.lower() for r in self.here} | {(o or "").lower() for o in self.others}
        fields = any(names[0].lower() in r.columns for r in self.here)
        return not self.complete or None in self.others or bool(around & aliases) or fields

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


Scopes = Mapping[int, Scope]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a condition on one reference finds the values of other columns.

    A value may only come from a stored column: every value that the statement can meet there is one of the column's.
    """

    own: Reference
    scope: Scope
    scopes: Scopes

    def column(self, names: Sequence[str]) -> tuple[Reference, Column] | None:
        found = self.scope.any_of(names)
        if found is None and len(names) == 2:
            found = self._derived(names[0].lower(), names[1].lower())
        return self._other(found)

    def of_side(self, node: Node, name: str) -> tuple[Reference, Column] | None:
        """The stored column behind a column of one side of a join."""
        if node.get("type") == "SUBQUERY" and not node.get("column_name_alias"):
            return self.output(_query_of(node), name)
        same = [r for r in self.scope.here if r.index == node.get("$use", -1)]
        column = same[0].columns.get(name) if same else None
        return None if column is None else self._other((same[0], column))

    def _derived(self, alias: str, name: str) -> tuple[Reference, Column] | None:
        node = self.scope.derived.get(alias)
        if node is None or [str(o).lower() for o in self.scope.others].count(alias) != 1:
            return None
        if any(r.name.lower() == alias for r in self.scope.here):
            return None
        return self.output(node, name)

    def output(self, node: Node, name: str | None) -> tuple[Reference, Column] | None:
        """The stored column behind a column of a subquery.

        :param name: None for its only one.
        """
        scope, items = self.scopes.get(id(node)), node.get("select_list") or []
        if scope is None or node.get("type") != "SELECT_NODE":
            return None
        if name is None:
            named = items if len(items) == 1 else []
        elif len(items) == 1 and items[0].get("class") == "STAR":
            plain = not any(items[0].get(k) for k in ("expr", "rename_list", "replace_list", "exclude_list", "columns"))
            alone = scope.complete and len(scope.here) == 1 and not scope.others
            return self._other(scope.any_of([name])) if plain and alone else None
        else:
            named = [i for i in items if _output_name(i) == name]
            if any(i.get("class") == "STAR" for i in items):
                return None
        if len(named) != 1 or named[0].get("class") != "COLUMN_REF":
            return None
        return self._other(scope.any_of([str(n) for n in named[0]["column_names"]]))

    def _other(self, found: tuple[Reference, Column] | None) -> tuple[Reference, Column] | None:
        return found if found is not None and found[0] is not self.own and found[0].repeatable else None


def _output_name(item: Node) -> str:
    return str(item.get("alias") or (item.get("column_names") or [""])[-1]).lower()


class _Reader:
    """One condition, read for one reference.

    :param elsewhere: where values of other columns are found.
    """

    def __init__(
        self,
        column: Callable[[Sequence[str]], Column | None],
        parameters: Mapping[str, Node],
        utc: bool,
        nullable: bool,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.column = column
        self.parameters = parameters
        self.utc = utc
        self.nullable = nullable
        self.elsewhere = elsewhere

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
        if kind == "SUBQUERY":
            return TRUE if negated else self.subquery(node, depth)
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
            if type_ == "COMPARE_EQUAL" and not negated:
                return all_of([self.equality(left, right), self.equality(right, left)])
            return self.constants(left, right, operator, negated)
        if constant.kind == "null":
            return TRUE if type_ == "COMPARE_NOT_DISTINCT_FROM" else FALSE
        return self.compare(column, _NEGATED[operator] if negated else operator, constant)

    def equality(self, here: Node, there: Node) -> Predicate:
        """`here = there` of two columns, or of a column and the one value of a subquery."""
        column = self.column_of(here)
        if column is None or self.elsewhere is None:
            return self.constants(here, there, "=", False)
        if there.get("class") == "COLUMN_REF":
            return _equals_some(column, self.elsewhere.column([str(n) for n in there["column_names"]]))
        if there.get("class") == "SUBQUERY" and there.get("subquery_type") == "SCALAR":
            return _equals_some(column, self.elsewhere.output(_query_of(there), None))
        return TRUE

    def subquery(self, node: Node, depth: int) -> Predicate:
        """`column IN (SELECT …)` and `EXISTS (SELECT … WHERE …)`."""
        if self.elsewhere is None:
            return TRUE
        if node.get("subquery_type") == "EXISTS":
            return self.exists(_query_of(node), depth)
        column = self.column_of(node.get("child") or {})
        if node.get("subquery_type") != "ANY" or node.get("comparison_type") != "COMPARE_EQUAL" or column is None:
            return TRUE
        return _equals_some(column, self.elsewhere.output(_query_of(node), None))

    def exists(self, node: Node, depth: int) -> Predicate:
        """The WHERE of the subquery is true for one row of it: what it says of this reference holds."""
        assert self.elsewhere is not None
        scope = self.elsewhere.scopes.get(id(node))
        where = node.get("where_clause")
        if scope is None or not where or any(node.get(k) for k in _CHANGES_ROWS):
            return TRUE
        # An aggregate makes a row where there is none.
        if any(i.get("class") not in ("CONSTANT", "STAR", "COLUMN_REF") for i in node.get("select_list") or ()):
            return TRUE

        def outer(names: Sequence[str]) -> Column | None:
            return None if scope.knows(names) else self.column(names)

        inner = Elsewhere(self.elsewhere.own, scope, self.elsewhere.scopes)
        return _Reader(outer, self.parameters, self.utc, self.nullable, inner).read(where, False, depth + 1)

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
        many = None if negated or column.type.kind != "int" else _whole_numbers(children[1:])
        if many is not None:
            return OneOf(column.id, many)
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


# With these a subquery may have a row although its WHERE is true for none, or is true of rows that it does not have.
_CHANGES_ROWS = ("group_expressions", "group_sets", "having", "qualify", "sample", "modifiers")


def _query_of(subquery: Node) -> Node:
    return (subquery.get("subquery") or {}).get("node") or {}


def _equals_some(column: Column, found: tuple[Reference, Column] | None) -> Predicate:
    return TRUE if found is None else EqualsSome(column.id, found[0].index, found[1].id)


def _whole_numbers(nodes: Sequence[Node]) -> tuple[int, ...] | None:
    """The values of a long list of plain whole numbers, the short way; None where it is anything else."""
    if len(nodes) < _LONG_LIST:
        return None
    found: dict[int, None] = {}
    for node in nodes:
        literal = node.get("literal") or {}
        text = literal.get("text", "")
        if literal.get("kind") != "INTEGER" or len(text) > 18 or not (text.isascii() and text.isdigit()):
            return None
        found[int(text)] = None
    return tuple(found)


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
