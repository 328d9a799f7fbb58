"""System columns in a statement: who names them, which star must not show them, who sees tombstones.

`_seq`, `_deleted` and the hidden key `_id` belong to a table reference when a column name says so: qualified, to the
nearest reference of that name; unqualified, to every table of the nearest SELECT that has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flightkalam.errors import Unsupported
from flightkalam.model.schema import DELETED, HIDDEN_KEY, POSITION, SEQ
from flightkalam.query.guard import Guarded, TableRef
from flightkalam.query.relation import Shown
from flightkalam.query.tree import ColumnUse, Node, Select, StarUse, TableUse
from flightkalam.sql.lexer import Kind, Tokens
from flightkalam.sql.text import quote_ident

_HIDDEN = (SEQ, DELETED, HIDDEN_KEY, POSITION)
_LOWER_BOUNDS = frozenset({"COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_EQUAL"})
_UPPER_BOUNDS = frozenset({"COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_EQUAL"})


def hidden_names(guarded: Guarded, index: int) -> frozenset[str]:
    """The hidden columns that the statement names of table reference `index`."""
    if not _mentions_any(guarded):
        return frozenset()
    return frozenset(name for name, _ in _uses(guarded, index))


def shows_tombstones(guarded: Guarded, index: int) -> bool:
    """Whether a reference shows deleted keys: filtered by `_deleted`, or a change feed (SEMANTICS §2)."""
    if not _mentions_any(guarded):
        return False
    uses = [(name, use.clause) for name, use in _uses(guarded, index)]
    if (DELETED, "filter") in uses:
        return True
    return (DELETED, "select") in uses and _bounded_below(guarded, guarded.tables[index])


def hide_in_stars(guarded: Guarded, exposed: Mapping[int, Shown]) -> list[tuple[int, int, str]]:
    """Replacements that keep exposed hidden columns out of every `*`.

    :param exposed: what references with hidden columns show, by index.
    :raises Unsupported: a form in which they would show, or change the answer.
    """
    changes: list[tuple[int, int, str]] = []
    for select in guarded.selects:
        tables = [(guarded.tables[t.index], exposed[t.index]) for t in select.tables if t.index in exposed]
        if not tables:
            continue
        _refuse_unclear(select, tables)
        for star in select.stars:
            changes += _hide(guarded, star, tables)
    return changes


# ---------------------------------------------------------------------------------------------------------------
# Names


def _mentions_any(guarded: Guarded) -> bool:
    """The common case first: most statements name no system column."""
    text = guarded.text.lower()
    return any(name in text for name in _HIDDEN)


def _uses(guarded: Guarded, index: int) -> Iterator[tuple[str, ColumnUse]]:
    """Every use of a hidden column that may mean table reference `index`."""
    for select in guarded.selects:
        for use in _named(select):
            for name, qualifier in _readings(use.names):
                if any(t.index == index for t in _meant(select, qualifier)):
                    yield name, use
        for name in select.using & set(_HIDDEN):
            if any(t.index == index for t in select.tables):
                yield name, ColumnUse((name,), None, "other")


def _named(select: Select) -> Iterator[ColumnUse]:
    return (use for use in select.columns if any(n.lower() in _HIDDEN for n in use.names))


def _readings(names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(hidden column, table name before it) for each part of a dotted name that is one."""
    for i, name in enumerate(names):
        if name.lower() in _HIDDEN:
            yield name.lower(), names[i - 1].lower() if i else None


def _meant(select: Select, qualifier: str | None) -> Sequence[TableUse]:
    scope: Select | None = select
    while scope is not None:
        if qualifier is None:
            found = scope.tables
        else:
            found = [t for t in scope.tables if (t.alias or t.parts[-1]).lower() == qualifier]
        if found:
            return found
        scope = scope.parent
    return ()


def _bounded_below(guarded: Guarded, table: TableRef) -> bool:
    """Whether a condition that holds for every row says `_seq > something` of this reference."""
    return any(_lower_bound(c, table) for c in _conjuncts(table.use.select.node.get("where_clause") or {}))


def _conjuncts(node: Node) -> Iterator[Node]:
    if node.get("class") == "CONJUNCTION" and node.get("type") == "CONJUNCTION_AND":
        for child in node.get("children") or ():
            yield from _conjuncts(child)
    else:
        yield node


def _lower_bound(node: Node, table: TableRef) -> bool:
    if node.get("class") == "BETWEEN":
        return _is_seq(node.get("input") or {}, table)
    if node.get("class") != "COMPARISON":
        return False
    left, right, type_ = node.get("left") or {}, node.get("right") or {}, node.get("type")
    return (type_ in _LOWER_BOUNDS and _is_seq(left, table)) or (type_ in _UPPER_BOUNDS and _is_seq(right, table))


def _is_seq(node: Node, table: TableRef) -> bool:
    names = node.get("column_names") or []
    if node.get("class") != "COLUMN_REF" or not names or str(names[-1]).lower() != SEQ:
        return False
    return len(names) == 1 or str(names[-2]).lower() == table.shown_as.lower()


# ---------------------------------------------------------------------------------------------------------------
# Stars


def _refuse_unclear(select: Select, tables: Sequence[tuple[TableRef, Shown]]) -> None:
    if select.natural:
        raise Unsupported("system columns cannot be named beside a NATURAL JOIN; join with USING (…)")
    for table, shows in tables:
        if table.use.pivoted:
            raise Unsupported("system columns cannot be named beside PIVOT; select them in a subquery before")
        alias = table.shown_as.lower()
        columns = {c.name.lower() for c in shows.all} | {c.lower() for c in table.use.column_aliases}
        if alias not in columns and any(len(c.names) == 1 and c.names[0].lower() == alias for c in select.columns):
            raise Unsupported(f'"{table.shown_as}" as one value cannot stand beside system columns; name its columns')
    if select.stars and select.using & {c.name.lower() for _, s in tables for c in s.hidden}:
        raise Unsupported("USING a system column cannot stand beside *; name the columns, or join with ON")


def _hide(guarded: Guarded, star: StarUse, tables: Sequence[tuple[TableRef, Shown]]) -> list[tuple[int, int, str]]:
    if star.clause == "other" and star.at is None:
        return []  # ORDER BY ALL and its like: over what the SELECT list already shows
    covered = [(t, s) for t, s in tables if star.relation is None or t.shown_as.lower() == star.relation.lower()]
    if not covered:
        return []
    if star.at is None or star.node.get("expr"):
        raise Unsupported("system columns can stand beside SELECT * or t.* only; write one of these, or name the columns")
    names = [
        f"{quote_ident(t.shown_as)}.{quote_ident(c.name)}"
        for t, s in covered
        for c in s.hidden
        if not _already_excluded(star, c.name)
    ]
    return [_exclude(guarded.tokens, guarded.places.char(star.at), ", ".join(names))] if names else []


def _already_excluded(star: StarUse, name: str) -> bool:
    return any(isinstance(n, str) and n.lower() == name for n in star.node.get("exclude_list") or ())


def _exclude(tokens: Tokens, start: int, names: str) -> tuple[int, int, str]:
    """The splice behind the star at `start`, into its EXCLUDE list if it has one."""
    i = next((i for i, at in enumerate(tokens.starts) if at >= start and tokens.symbol(i) == "*"), None)
    if i is None or (i + 1 < len(tokens) and tokens.kinds[i + 1] == Kind.PARAM):
        raise Unsupported("the place of * in the statement cannot be found; name the columns")
    if i + 1 < len(tokens) and tokens.word(i + 1) in ("EXCLUDE", "EXCEPT"):
        if i + 2 < len(tokens) and tokens.symbol(i + 2) == "(":
            return tokens.ends[i + 2], tokens.ends[i + 2], f"{names}, "
        if tokens.word(i + 1) == "EXCLUDE":
            raise Unsupported("write EXCLUDE (…) with brackets beside system columns")
    return tokens.ends[i], tokens.ends[i], f" EXCLUDE ({names})"
