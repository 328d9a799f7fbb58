"""May this text run?  Decided over the engine's own parse tree, once per text.

The engine is no sandbox: what it may read for us it may read past our scopes and deletion vectors (T-50).  So a text
runs only if it is one query, every function in it is on the list, and every table name in it is one that we shall
replace.  Four readings of the text must agree on where its tables are:

    the engine's tree        names, scopes, byte positions
    our lexer                the very tokens at those positions
    the engine, once more    over the text with every table replaced: nothing but WITH names and placeholders is left
    sqlglot, if it can       the same names at the same positions
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from flightkalam.errors import InvalidValue, SqlSyntaxError, UndefinedObject, Unsupported
from flightkalam.query import functions
from flightkalam.query.compute import Engine
from flightkalam.query.tree import Call, Node, Places, Reading, Select, TableUse, read, statements
from flightkalam.sql.lexer import Kind, Tokens, lex
from flightkalam.sql.text import quote_ident, splice

INTERNAL = "__kalam"  # no client name begins with this; every generated one does
_PLACEHOLDER = "__kalam_placeholder"
_BOUNDED = frozenset(functions.BOUNDED) | functions.FORMATS
# Beyond this a second parser costs more than the engine's answer to a fair question.
_CROSS_CHECK_TOKENS = 5_000


@dataclass(frozen=True, slots=True)
class Limits:
    max_chars: int = 1 << 20
    max_literals: int = 50_000
    max_tables: int = 256
    cached_texts: int = 1_024
    cached_chars: int = 16 << 20


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table name in the text: `text[start:end]`, without its alias."""

    use: TableUse
    start: int
    end: int

    @property
    def parts(self) -> tuple[str, ...]:
        return self.use.parts

    @property
    def alias(self) -> str | None:
        return self.use.alias

    @property
    def shown_as(self) -> str:
        """The name that qualifies its columns."""
        return self.use.alias or self.use.parts[-1]


@dataclass(frozen=True, slots=True)
class ParamRef:
    """A parameter at `text[start:end]`; `index` counts values from 1."""

    start: int
    end: int
    index: int
    identifier: str


@dataclass(frozen=True, slots=True)
class Guarded:
    """A query that may run, and where its tables and parameters stand.

    :param text: the client's own text, without what follows the query; sometimes a spelling of it with positions.
    :param asks_caller: it calls CURRENT_USER or one of its kin.
    """

    text: str
    statement: Node
    tables: tuple[TableRef, ...]
    selects: tuple[Select, ...]
    parameters: tuple[ParamRef, ...]
    asks_caller: bool
    tokens: Tokens
    places: Places

    @property
    def parameter_count(self) -> int:
        return max((p.index for p in self.parameters), default=0)


class Guard:
    """Reads texts and remembers what it found; safe to share between threads."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine = engine
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Guarded] = OrderedDict()
        self._chars = 0

    def check(self, text: str) -> Guarded:
        """What stands in `text`, if it may run.

        :raises SqlSyntaxError: not SQL, or more than one statement.
        :raises Unsupported: something that the service refuses, by name.
        :raises UndefinedObject: a function that does not exist.
        """
        with self._lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
                return found
        guarded = self._read(text)
        with self._lock:
            if text not in self._known:
                self._known[text] = guarded
                self._chars += len(text)
            while len(self._known) > self._limits.cached_texts or self._chars > self._limits.cached_chars:
                self._chars -= len(self._known.popitem(last=False)[0])
        return guarded

    def _read(self, text: str) -> Guarded:
        limits = self._limits
        if len(text) > limits.max_chars:
            raise InvalidValue(f"the statement has {len(text)} characters; the limit is {limits.max_chars}")
        tokens = lex(text)
        text, tokens, statement = self._parse(_without_end(text, tokens))
        try:
            reading = read(statement, _BOUNDED)
        except RecursionError:
            raise Unsupported("the statement is nested too deeply; split it with WITH") from None
        if reading.literals > limits.max_literals:
            raise Unsupported(
                f"the statement has {reading.literals} literals, the limit is {limits.max_literals}; ingest them as a table"
            )
        if len(reading.tables) > limits.max_tables:
            raise Unsupported(f"the statement names {len(reading.tables)} tables; the limit is {limits.max_tables}")
        for call in reading.calls:
            _check_call(call)
        places = Places(text)
        tables = _table_refs(text, tokens, places, reading)
        self._check_replaced(text, tables)
        _cross_check(text, tokens, tables, _cte_places(tokens, places, reading))
        return Guarded(
            text=text,
            statement=statement,
            tables=tables,
            selects=tuple(reading.selects),
            parameters=_param_refs(text, tokens, places, reading, statement),
            asks_caller=_asks_caller(reading),
            tokens=tokens,
            places=places,
        )

    def _parse(self, text: str) -> tuple[str, Tokens, Node]:
        """The statement's tree, in a spelling in which the engine gives every table a position."""
        tokens = lex(text)
        if not len(tokens):
            raise SqlSyntaxError("the statement is empty")
        if tokens.word(0) in ("PIVOT", "UNPIVOT", "PIVOT_WIDER", "PIVOT_LONGER"):
            text = f"FROM ({text})"
            tokens = lex(text)
        statement = statements(self._engine.tree(text))[0]
        spelt = _with_from(text, tokens)
        if spelt == text:
            return text, tokens, statement
        other = statements(self._engine.tree(spelt))[0]
        if _bare(other) != _bare(statement):
            return text, tokens, statement
        return spelt, lex(spelt), other

    def _check_replaced(self, text: str, tables: Sequence[TableRef]) -> None:
        """With every table replaced, the engine must find no table but WITH names and the replacements."""
        if not tables:
            return
        body = f"(SELECT * FROM {_PLACEHOLDER})"
        replaced = splice(text, ((t.start, t.end, named(body, t)) for t in tables))
        reading = read(statements(self._engine.tree(replaced))[0], _BOUNDED)
        if [t.parts for t in reading.tables] != [(_PLACEHOLDER,)] * len(tables):
            raise Unsupported("the tables of this statement cannot be told apart; give each one an alias")


def named(body: str, table: TableRef) -> str:
    """`body` in the place of a table name: without an alias of its own it answers to the table's name."""
    return body if table.alias is not None else f"{body} AS {quote_ident(table.parts[-1])}"


def _without_end(text: str, tokens: Tokens) -> str:
    """The text up to its last token that is no semicolon: a comment there would swallow what we append."""
    last = len(tokens) - 1
    while last >= 0 and tokens.symbol(last) == ";":
        last -= 1
    return text[: tokens.ends[last]] if last >= 0 else ""


def _with_from(text: str, tokens: Tokens) -> str:
    """`TABLE t` and `SUMMARIZE t` spelt `FROM t` and `SUMMARIZE FROM t`, which the engine gives positions."""
    changes: list[tuple[int, int, str]] = []
    for i in range(len(tokens) - 1):
        if tokens.kinds[i + 1] not in (Kind.WORD, Kind.QUOTED):
            continue
        word = tokens.word(i)
        if word == "TABLE":
            changes.append((tokens.starts[i], tokens.ends[i], "FROM"))
        elif word == "SUMMARIZE" and tokens.word(i + 1) not in ("SELECT", "FROM", "WITH", "VALUES", "TABLE"):
            changes.append((tokens.starts[i], tokens.ends[i], "SUMMARIZE FROM"))
    return splice(text, changes) if changes else text


def _bare(node: object) -> object:
    """A tree without positions."""
    if isinstance(node, dict):
        return {k: _bare(v) for k, v in node.items() if not k.startswith("query_location")}
    return [_bare(v) for v in node] if isinstance(node, list) else node


# ---------------------------------------------------------------------------------------------------------------
# Functions


def _check_call(call: Call) -> None:
    name = call.name
    allowed = functions.SCALARS if call.kind == "scalar" else functions.TABLE_FUNCTIONS
    if name not in allowed:
        raise _refusal(call)
    if call.kind == "table":
        return
    if name in functions.FORMATS:
        _check_format(call)
    elif name in functions.BOUNDED:
        _check_bounded(call)
    if name in _BOUNDED and call.bounded_above is not None:
        raise Unsupported(f"{name}() inside {call.bounded_above}() is not supported; compute one of them before, in WITH")


def _refusal(call: Call) -> Unsupported | UndefinedObject:
    name = call.name
    if call.kind == "table":
        if name in functions.SCALARS or functions.forbidden(name):
            return Unsupported(f"{name}() is not supported in FROM; table functions are range, generate_series and unnest")
    elif name in functions.TABLE_FUNCTIONS or functions.forbidden(name):
        return Unsupported(f"the function {name}() is not supported")
    hint = functions.nearest(name)
    return UndefinedObject(
        f"function {name}() does not exist" + (f'; did you mean "{hint}"?' if hint else ""), sqlstate="42883"
    )


def _check_bounded(call: Call) -> None:
    bound = functions.BOUNDED[call.name]
    numbers = [_number(call.arguments[i]) for i in bound.arguments if i < len(call.arguments)]
    if any(n is None for n in numbers):
        where = "; in FROM it takes any" if call.name in functions.TABLE_FUNCTIONS else ""
        raise Unsupported(f"{call.name}() needs a literal number for its size{where}")
    values = [n for n in numbers if n is not None]
    if bound.span:
        first, last = (0, values[0]) if len(values) == 1 else (values[0], values[1]) if len(values) > 1 else (0, 0)
        step = values[2] if len(values) > 2 else 1
        size = abs(last - first) // max(abs(step), 1)
    else:
        size = max(values, default=0)
    if size > bound.limit:
        raise Unsupported(f"{call.name}() makes at most {bound.limit} of anything; {size} were asked for")


def _check_format(call: Call) -> None:
    template = call.arguments[0] if call.arguments else {}
    literal = template.get("literal") or {}
    if template.get("class") != "CONSTANT" or literal.get("kind") != "STRING":
        raise Unsupported(f"{call.name}() needs a literal format; use || or concat() for a computed one")
    if functions.too_wide(call.name, str(literal.get("text", ""))):
        raise Unsupported(f"{call.name}() with a width over 999 or from an argument is not supported")


def _number(node: Node) -> int | None:
    literal = node.get("literal") or {}
    if node.get("class") != "CONSTANT" or literal.get("kind") != "INTEGER":
        return None
    return int(str(literal["text"]).replace("_", ""))


def _asks_caller(reading: Reading) -> bool:
    if any(c.name in functions.CALLER_FUNCTIONS for c in reading.calls):
        return True
    return any(len(c.names) == 1 and c.names[0].lower() in functions.CALLER_WORDS for s in reading.selects for c in s.columns)


# ---------------------------------------------------------------------------------------------------------------
# Positions


def _table_refs(text: str, tokens: Tokens, places: Places, reading: Reading) -> tuple[TableRef, ...]:
    refs: list[TableRef] = []
    for use in reading.tables:
        if use.at is None:
            raise Unsupported(f'the place of "{use.parts[-1]}" in the statement cannot be found; write SELECT * FROM it')
        if any(p.lower().startswith(INTERNAL) for p in (*use.parts, use.alias or "")):
            raise Unsupported(f'names that begin with "{INTERNAL}" are reserved')
        start = _start_of_name(tokens, places.char(use.at), use.alias)
        refs.append(TableRef(use, start, _end_of_name(tokens, start, use.parts)))
    refs.sort(key=lambda r: r.start)
    for i, ref in enumerate(refs):
        ref.use.index = i
        ref.use.node["$use"] = i
    return tuple(refs)


def name_tokens(tokens: Tokens, start: int, count: int) -> list[int]:
    """Token numbers of the parts of a dotted name that begins at `start`."""
    first = bisect_left(tokens.starts, start)
    if first >= len(tokens) or tokens.starts[first] != start:
        raise Unsupported("the names of this statement cannot be located; quote them")
    found = [first]
    while len(found) < count:
        dot, part = found[-1] + 1, found[-1] + 2
        if part >= len(tokens) or tokens.symbol(dot) != ".":
            raise Unsupported("the names of this statement cannot be located; quote them")
        found.append(part)
    return found


def token_name(tokens: Tokens, i: int) -> str | None:
    """The name that token i is, None if it is no name."""
    raw = tokens.text[tokens.starts[i] : tokens.ends[i]]
    if tokens.kinds[i] == Kind.WORD:
        return raw
    if tokens.kinds[i] == Kind.QUOTED:
        return raw[1:-1].replace(raw[0] * 2, raw[0])
    return None


def _start_of_name(tokens: Tokens, start: int, alias: str | None) -> int:
    """In `FROM alias: table` the engine points at the alias."""
    first = bisect_left(tokens.starts, start)
    if alias is None or first + 2 >= len(tokens) or tokens.symbol(first + 1) != ":":
        return start
    return tokens.starts[first + 2] if tokens.symbol(first + 2) != ":" else start


def _end_of_name(tokens: Tokens, start: int, parts: Sequence[str]) -> int:
    found = name_tokens(tokens, start, len(parts))
    for i, part in zip(found, parts, strict=True):
        name = token_name(tokens, i)
        if name is None:
            raise Unsupported(f"{part!r} is a string, not a table; files cannot be read by name")
        if name.lower() != part.lower():
            raise Unsupported(f'the name "{part}" cannot be located in the statement; quote it')
    return tokens.ends[found[-1]]


def _cte_places(tokens: Tokens, places: Places, reading: Reading) -> list[tuple[str, int]]:
    return [(name, _start_of_name(tokens, places.char(at), alias)) for name, alias, at in reading.cte_uses if at is not None]


def _param_refs(text: str, tokens: Tokens, places: Places, reading: Reading, statement: Node) -> tuple[ParamRef, ...]:
    order = {str(e["key"]): int(e["value"]) for e in statement.get("named_param_map") or ()}
    refs: list[ParamRef] = []
    for identifier, at in reading.parameters:
        if at is None or identifier not in order:
            raise Unsupported("a parameter cannot stand here; use a literal")
        start = places.char(at)
        i = bisect_left(tokens.starts, start)
        if i >= len(tokens) or tokens.starts[i] != start or tokens.kinds[i] != Kind.PARAM:
            raise Unsupported("a parameter of this form is not supported; write ? or $1")
        index = int(identifier) if identifier.isdigit() else order[identifier]
        refs.append(ParamRef(start, tokens.ends[i], index, identifier))
    seen = {r.start for r in refs}
    written = sum(1 for k in tokens.kinds if k == Kind.PARAM)
    if len(seen) != written:
        raise Unsupported("a parameter cannot stand here; use a literal")
    return tuple(sorted(refs, key=lambda r: r.start))


# ---------------------------------------------------------------------------------------------------------------
# The second parser


def _cross_check(text: str, tokens: Tokens, tables: Sequence[TableRef], ctes: Sequence[tuple[str, int]]) -> None:
    """Compare the table names with sqlglot's reading of the text; what it cannot read proves nothing."""
    if len(tokens) > _CROSS_CHECK_TOKENS:
        return
    try:
        parsed = sqlglot.parse(text, read="duckdb")
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError):
        return
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Query):
        return
    ours = {(t.start, t.parts[-1].lower()) for t in tables} | {(at, name.lower()) for name, at in ctes}
    theirs = {place for t in parsed[0].find_all(exp.Table) if (place := _glot_place(t)) is not None}
    if ours != theirs:
        raise Unsupported("the tables of this statement can be read in two ways; qualify and alias them")


def _glot_place(table: exp.Table) -> tuple[int, str] | None:
    if not isinstance(table.this, exp.Identifier):
        return None
    first = table.args.get("catalog") or table.args.get("db") or table.this
    start = first.meta.get("start")
    return (int(start), table.this.name.lower()) if start is not None else None
