"""INSERT, UPDATE, DELETE, MERGE, TRUNCATE and ERASE, cut into slices at their own clause keywords."""

from __future__ import annotations

from typing import Literal, Protocol

from flightkalam.sql.cursor import Cursor, unsupported
from flightkalam.sql.lexer import Kind
from flightkalam.sql.statements import (
    DEFAULT,
    Assignment,
    AsUser,
    DefaultValues,
    Delete,
    Erase,
    Ident,
    Insert,
    Merge,
    MergeClause,
    Name,
    OnConflict,
    QuerySource,
    Slice,
    Source,
    Statement,
    Truncate,
    Update,
    Value,
    ValuesSource,
)

_NOTHING: frozenset[str] = frozenset()
_RETURNING = frozenset({"RETURNING"})
_WHERE = frozenset({"WHERE", "RETURNING"})
_FROM = frozenset({"FROM", "WHERE", "RETURNING"})
_INSERT_SOURCE = frozenset({"ON CONFLICT", "RETURNING"})
_MERGE_SOURCE = frozenset({"ON", "USING", "WHEN", "JOIN"})
_MERGE_CLAUSE = frozenset({"WHEN", "RETURNING"})


class Reader(Protocol):
    def __call__(self, cursor: Cursor, with_clause: Slice | None) -> Statement: ...


# ── Targets and values ───────────────────────────────────────────────────────────────────────────────────────────────
def _as_user(cursor: Cursor) -> AsUser | None:
    """After a target AS USER is always the clause: without a string it is malformed, never an alias."""
    return AsUser(cursor.string("a user id after AS USER")) if cursor.accept("AS", "USER") else None


def _target(cursor: Cursor, *, bare_alias: bool) -> tuple[Name, AsUser | None, Ident | None]:
    name = cursor.name()
    as_user = _as_user(cursor)
    alias = None
    if cursor.accept("AS") or (bare_alias and cursor.at_ident() and not cursor.at("SET")):
        alias = cursor.ident("an alias")
    return name, as_user or _as_user(cursor), alias


def _returning(cursor: Cursor) -> Slice | None:
    return cursor.clause("RETURNING", _NOTHING, aliases=True)


def _row(cursor: Cursor) -> tuple[Value, ...]:
    """The values between two parentheses, cut at commas of depth 0 in one pass: the hot loop of a bulk INSERT."""
    tokens = cursor.tokens
    text, kinds, starts, ends, closes = tokens.text, tokens.kinds, tokens.starts, tokens.ends, tokens.closes
    word, symbol = int(Kind.WORD), int(Kind.SYMBOL)
    values: list[Value] = []
    i = first = cursor.i
    end = cursor.end
    while i <= end:
        if i == end or (kinds[i] == symbol and text[starts[i]] == ","):
            if i == first:
                if i == end and values:
                    break  # a comma before the closing parenthesis is allowed, as in the engine
                raise cursor.error("expected a value", i)
            start, stop = starts[first], ends[i - 1]
            if i == first + 1 and kinds[first] == word and text[start:stop].upper() == "DEFAULT":
                values.append(DEFAULT)
            else:
                values.append(Slice(start, stop, text[start:stop]))
            first = i + 1
        elif kinds[i] == symbol:
            i = closes.get(i, i)
        i += 1
    cursor.i = end
    return tuple(values)


def _value(cursor: Cursor, stops: frozenset[str]) -> Value:
    value = cursor.until(stops, "a value", comma=True)
    return DEFAULT if value.text.upper() == "DEFAULT" else value


def _assignments(cursor: Cursor, stops: frozenset[str]) -> tuple[Assignment, ...]:
    assignments: list[Assignment] = []
    while True:
        if cursor.at_symbol("("):
            assignments.extend(_row_assignment(cursor))
        else:
            column = _assigned_column(cursor)
            assignments.append(Assignment(column, _value(cursor, stops)))
        if not cursor.accept_symbol(","):
            return tuple(assignments)


def _assigned_column(cursor: Cursor) -> Ident:
    column = cursor.ident("a column to set")
    if cursor.at_symbol(".") or cursor.at_symbol("["):
        raise unsupported("SET of a qualified column or of a part of one", "name the column alone and set all of it")
    cursor.expect_symbol("=")
    return column


def _row_assignment(cursor: Cursor) -> list[Assignment]:
    """`(a, b) = (x, y)`, also with ROW."""
    first = cursor.i
    columns = cursor.idents("a column to set")
    cursor.expect_symbol("=")
    cursor.accept("ROW")
    if cursor.at_symbol("(") and cursor.at_query():
        raise unsupported("SET (…) = (query)", "set each column on its own, or use UPDATE … FROM")
    values = _row(cursor.expect_group("as many values as columns"))
    if len(values) != len(columns):
        raise cursor.error(f"{len(columns)} columns are set to {len(values)} values", first)
    return [Assignment(column, value) for column, value in zip(columns, values, strict=True)]


# ── INSERT ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def insert(cursor: Cursor, with_clause: Slice | None) -> Insert:
    cursor.expect("INSERT")
    or_action = _or_action(cursor)
    cursor.expect("INTO")
    table, as_user, alias = _target(cursor, bare_alias=False)
    by_name = cursor.accept("BY", "NAME")
    if not by_name:
        cursor.accept("BY", "POSITION")
    columns = None
    if cursor.at_symbol("(") and not cursor.at_query():
        if by_name:
            raise cursor.error("BY NAME takes the columns from the query: leave the list out")
        columns = cursor.idents("a column")
    source = _source(cursor)
    if by_name and not isinstance(source, QuerySource):
        raise cursor.error("BY NAME needs a query that names its columns")
    on_conflict = _on_conflict(cursor)
    if on_conflict and or_action:
        raise cursor.error(f"OR {or_action.upper()} and ON CONFLICT exclude each other")
    returning = _returning(cursor)
    return Insert(table, source, alias, columns, by_name, or_action, on_conflict, returning, with_clause, as_user=as_user)


def _or_action(cursor: Cursor) -> Literal["replace", "ignore"] | None:
    if not cursor.accept("OR"):
        return None
    action = cursor.accept_any("REPLACE", "IGNORE")
    if action is None:
        raise cursor.error("expected REPLACE or IGNORE")
    return "replace" if action == "REPLACE" else "ignore"


def _source(cursor: Cursor) -> Source:
    if cursor.accept("DEFAULT", "VALUES"):
        return DefaultValues()
    if cursor.at("VALUES") and (values := _values(cursor)):
        return values
    if not cursor.at_query():
        raise cursor.error("expected VALUES, a query or DEFAULT VALUES")
    return QuerySource(cursor.until(_INSERT_SOURCE, "a query", aliases=True))


def _values(cursor: Cursor) -> ValuesSource | None:
    """Rows of values, or None when more follows (`VALUES (1) UNION …`) and it is a query after all."""
    first = cursor.i
    cursor.expect("VALUES")
    rows: list[tuple[Value, ...]] = []
    last = cursor.i
    while cursor.at_symbol("("):
        rows.append(_row(cursor.inside()))
        last = cursor.i
        if not cursor.accept_symbol(","):
            break
    if not rows:
        raise cursor.error("expected ( and a row of values")
    if cursor.at("AS"):
        raise cursor.error("expected the end, ON CONFLICT or RETURNING after the rows")
    if not (cursor.done or cursor.at_any("ON", "RETURNING")):
        cursor.i = first
        return None
    _same_length(cursor, rows, first)
    return ValuesSource(tuple(rows), cursor.slice(first, last))


def _same_length(cursor: Cursor, rows: list[tuple[Value, ...]], first: int) -> None:
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise cursor.error(f"row 1 has {width} values and row {number} has {len(row)}: give all rows as many", first)


def _on_conflict(cursor: Cursor) -> OnConflict | None:
    if not cursor.accept("ON"):
        return None
    cursor.expect("CONFLICT")
    if cursor.at("ON", "CONSTRAINT"):
        raise unsupported("ON CONFLICT ON CONSTRAINT", "name the key's columns: ON CONFLICT (a, b)")
    target = cursor.idents("a column of the key") if cursor.at_symbol("(") else None
    if cursor.at("WHERE"):
        raise unsupported("ON CONFLICT (…) WHERE", "the primary key is the only unique key of a table")
    cursor.expect("DO")
    if cursor.accept("NOTHING"):
        return OnConflict(target, "nothing")
    cursor.expect("UPDATE")
    cursor.expect("SET")
    assignments = _assignments(cursor, _WHERE)
    return OnConflict(target, "update", assignments, cursor.clause("WHERE", _RETURNING))


# ── UPDATE, DELETE, TRUNCATE, ERASE ──────────────────────────────────────────────────────────────────────────────────
def update(cursor: Cursor, with_clause: Slice | None) -> Update:
    cursor.expect("UPDATE")
    table, as_user, alias = _target(cursor, bare_alias=True)
    cursor.expect("SET")
    assignments = _assignments(cursor, _FROM)
    from_ = cursor.clause("FROM", _WHERE, aliases=True)
    where = cursor.clause("WHERE", _RETURNING)
    return Update(table, assignments, alias, from_, where, _returning(cursor), with_clause, as_user=as_user)


def delete(cursor: Cursor, with_clause: Slice | None) -> Delete:
    cursor.expect("DELETE")
    cursor.expect("FROM")
    table, as_user, alias = _target(cursor, bare_alias=True)
    using = cursor.clause("USING", _WHERE, aliases=True)
    where = cursor.clause("WHERE", _RETURNING)
    return Delete(table, alias, using, where, _returning(cursor), with_clause, as_user=as_user)


def truncate(cursor: Cursor) -> Truncate:
    cursor.expect("TRUNCATE")
    cursor.accept("TABLE")
    table, as_user, _ = _target(cursor, bare_alias=False)
    return Truncate(table, as_user=as_user)


def erase(cursor: Cursor) -> Erase:
    cursor.expect("ERASE")
    cursor.expect("FROM")
    table, as_user, _ = _target(cursor, bare_alias=False)
    if not cursor.at("WHERE"):
        raise cursor.error("expected WHERE: ERASE is final and says which rows it takes")
    where = cursor.clause("WHERE", _NOTHING)
    assert where is not None
    return Erase(table, where, as_user=as_user)


# ── MERGE ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def merge(cursor: Cursor, with_clause: Slice | None) -> Merge:
    cursor.expect("MERGE")
    cursor.expect("INTO")
    target, as_user, alias = _target(cursor, bare_alias=True)
    cursor.expect("USING")
    source = cursor.until(_MERGE_SOURCE, "a table or a query in parentheses", aliases=True)
    if cursor.at("JOIN"):
        raise unsupported("a join in MERGE … USING", "put it into parentheses: USING (SELECT … JOIN …) AS s")
    on: Slice | None = None
    using: tuple[Ident, ...] = ()
    if cursor.accept("USING"):
        using = cursor.idents("a column of both sides")
    else:
        cursor.expect("ON")
        on = cursor.until(_MERGE_CLAUSE, "a condition")
    clauses = _merge_clauses(cursor)
    return Merge(target, source, clauses, alias, on, using, _returning(cursor), with_clause, as_user=as_user)


def _merge_clauses(cursor: Cursor) -> tuple[MergeClause, ...]:
    clauses: list[MergeClause] = []
    while cursor.accept("WHEN"):
        matched = _matched(cursor)
        condition = cursor.until(frozenset({"THEN"}), "a condition") if cursor.accept("AND") else None
        cursor.expect("THEN")
        clauses.append(_merge_action(cursor, matched, condition))
    if not clauses:
        raise cursor.error("expected WHEN MATCHED or WHEN NOT MATCHED")
    return tuple(clauses)


_Matched = Literal["matched", "not_matched", "not_matched_by_source"]


def _matched(cursor: Cursor) -> _Matched:
    negated = cursor.accept("NOT")
    cursor.expect("MATCHED")
    if not negated:
        return "matched"
    if cursor.accept("BY", "SOURCE"):
        return "not_matched_by_source"
    cursor.accept("BY", "TARGET")
    return "not_matched"


def _merge_action(cursor: Cursor, matched: _Matched, condition: Slice | None) -> MergeClause:
    inserts = matched == "not_matched"
    if cursor.accept("DO", "NOTHING"):
        return MergeClause(matched, "nothing", condition)
    if not inserts and cursor.accept("DELETE"):
        return MergeClause(matched, "delete", condition)
    if not inserts and cursor.accept("UPDATE"):
        return _merge_update(cursor, matched, condition)
    if inserts and cursor.accept("INSERT"):
        return _merge_insert(cursor, condition)
    if cursor.at("ERROR"):
        raise unsupported("MERGE … THEN ERROR")
    raise cursor.error(f"expected {'INSERT' if inserts else 'UPDATE, DELETE'} or DO NOTHING")


def _whole_row(cursor: Cursor) -> Literal["position", "name"]:
    by: Literal["position", "name"] = "name" if cursor.accept("BY", "NAME") else "position"
    cursor.accept("BY", "POSITION")
    return by


def _merge_update(cursor: Cursor, matched: _Matched, condition: Slice | None) -> MergeClause:
    by = _whole_row(cursor)
    if not cursor.accept("SET"):
        return MergeClause(matched, "update", condition, whole_row=by)
    if cursor.accept_symbol("*"):
        return MergeClause(matched, "update", condition, whole_row=by)
    return MergeClause(matched, "update", condition, _assignments(cursor, _MERGE_CLAUSE))


def _merge_insert(cursor: Cursor, condition: Slice | None) -> MergeClause:
    by = _whole_row(cursor)
    if cursor.accept("DEFAULT", "VALUES"):
        return MergeClause("not_matched", "insert", condition, values=())
    columns = cursor.idents("a column") if cursor.at_symbol("(") else None
    if not cursor.accept("VALUES"):
        cursor.accept_symbol("*")
        return MergeClause("not_matched", "insert", condition, columns=columns, whole_row=by)
    first = cursor.i
    values = _row(cursor.expect_group("values"))
    if columns is not None and len(values) != len(columns):
        raise cursor.error(f"{len(columns)} columns and {len(values)} values", first)
    return MergeClause("not_matched", "insert", condition, columns=columns, values=values)


READERS: dict[str, Reader] = {"INSERT": insert, "UPDATE": update, "DELETE": delete, "MERGE": merge}
