"""Which statement is it, on whose behalf, and is it only one.

AS USER (SEMANTICS §5) stands in at most one of three places, and is recognised by tokens only:

    INSERT INTO t AS USER 'u' …            right after the target of a write; there a string must follow
    <any statement> AS USER 'u'            at the very end
    EXECUTE AS USER 'u' (<statement>)      around it

`AS USER` followed by a string anywhere else, twice, or followed by another kind of literal or a parameter, is an error:
a clause that was meant must never be run as the actor.  `SELECT x AS user FROM t` has no string behind it: an alias.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from flightkalam.errors import InvalidValue, MalformedAsUser, SqlSyntaxError
from flightkalam.sql import admin, ddl, dml
from flightkalam.sql.cursor import QUERY_WORDS, Cursor, unsupported, words
from flightkalam.sql.lexer import STRING_KINDS, Kind, Tokens, lex
from flightkalam.sql.statements import AsUser, Delete, Explain, Insert, Merge, Query, Slice, Statement, Update

# Room for about 100,000 rows of an INSERT; the service's own limit comes from its configuration.
MAX_SQL_CHARS = 4 * 1024 * 1024

# Commands that reach files, settings, other databases or the engine itself, or that we have no equivalent for.
_REFUSED = words(
    """ANALYZE ANALYSE ATTACH CALL CHECKPOINT CLOSE CLUSTER COPY DEALLOCATE DECLARE DETACH DISCARD DO EXPORT FETCH
    FORCE GRANT IMPORT INSTALL LISTEN LOAD LOCK MOVE NOTIFY PRAGMA PREPARE REASSIGN REFRESH REINDEX REPLACE
    REVOKE SECURITY UNLISTEN UNLOAD UPSERT VACUUM"""
)
_EXPLAINABLE = (Query, Insert, Update, Delete, Merge)
_MAIN_WORDS = QUERY_WORDS | dml.READERS.keys()
_NOT_A_NEWLINE = re.compile(r"[^\n]")


def parse(text: str, *, limit: int = MAX_SQL_CHARS) -> Statement:
    """Read exactly one statement; a `;` behind it is fine.

    :raises SqlSyntaxError: it is not SQL that we know, or not exactly one statement.
    :raises Unsupported: it is known, and refused by name.
    :raises InvalidValue: it is longer than `limit` characters.
    """
    check_length(text, limit)
    return parse_tokens(lex(text))


def parse_tokens(tokens: Tokens) -> Statement:
    """`parse` of a text that has been cut into tokens."""
    try:
        return _parsed(tokens)
    except SqlSyntaxError as error:
        if _mentions_as_user(tokens):
            raise MalformedAsUser(error.message) from None
        raise


def _mentions_as_user(tokens: Tokens) -> bool:
    kinds = tokens.kinds
    return any(
        kinds[i] == kinds[i + 1] == Kind.WORD and tokens.word(i) == "AS" and tokens.word(i + 1) == "USER"
        for i in range(len(tokens) - 1)
    )


def _parsed(tokens: Tokens) -> Statement:
    first, end = _without_semicolons(tokens)
    if first >= end:
        raise SqlSyntaxError("there is no statement in this text: send one")
    cursor = Cursor(tokens, first, end)
    for i in range(first, end):
        if tokens.kinds[i] == Kind.SYMBOL and tokens.symbol(i) == ";":
            raise cursor.error("one statement at a time: send each in a request of its own", i)
    clauses = _as_user_clauses(cursor)
    statement = _impersonated(cursor)
    if clauses and statement.as_user is None:
        raise cursor.error("AS USER may stand right after the target table or at the end of the statement", clauses[0])
    return statement


def split(text: str) -> list[str]:
    """The statements of a script, without their semicolons; pieces that hold only comments are dropped."""
    tokens = lex(text)
    pieces: list[str] = []
    start, empty = 0, True
    for i in range(len(tokens)):
        if tokens.symbol(i) == ";":
            if not empty:
                pieces.append(text[start : tokens.starts[i]].strip())
            start, empty = tokens.ends[i], True
        else:
            empty = False
    if not empty:
        pieces.append(text[start:].strip())
    return pieces


def check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        raise InvalidValue(
            f"the statement has {len(text):,} characters, the limit is {limit:,}: split it, or ingest rows in bulk"
        )


def _without_semicolons(tokens: Tokens) -> tuple[int, int]:
    first, end = 0, len(tokens)
    while end > first and tokens.symbol(end - 1) == ";":
        end -= 1
    while first < end and tokens.symbol(first) == ";":
        first += 1
    return first, end


# ── AS USER ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _as_user_clauses(cursor: Cursor) -> list[int]:
    """Where AS USER with something like a name behind it stands; at most one place, or it is an error."""
    tokens, kinds = cursor.tokens, cursor.tokens.kinds
    clauses = [
        i
        for i in range(cursor.i, cursor.end - 2)
        if kinds[i] == kinds[i + 1] == Kind.WORD
        and (kinds[i + 2] in STRING_KINDS or kinds[i + 2] == Kind.PARAM)
        and tokens.word(i + 1) == "USER"
        and tokens.word(i) == "AS"
    ]
    for i in clauses:
        if kinds[i + 2] != Kind.STRING:
            raise cursor.error("AS USER takes a user id as a string in single quotes", i + 2)
    if len(clauses) > 1:
        raise cursor.error("at most one AS USER may stand in a statement", clauses[1])
    return clauses


def _impersonated(cursor: Cursor) -> Statement:
    if cursor.at("EXECUTE"):
        return _execute_as_user(cursor)
    as_user = _trailing_as_user(cursor)
    statement = _statement(cursor)
    return statement if as_user is None else _on_behalf(statement, as_user)


def _on_behalf(statement: Statement, as_user: AsUser) -> Statement:
    if isinstance(statement, Explain):
        statement = replace(statement, inner=replace(statement.inner, as_user=as_user))
    return replace(statement, as_user=as_user)


def _trailing_as_user(cursor: Cursor) -> AsUser | None:
    """Take the clause off the end, so that no slice of the statement can contain it."""
    tail = Cursor(cursor.tokens, cursor.end - 3, cursor.end)
    if cursor.end - 3 <= cursor.i or not tail.accept("AS", "USER") or tail.kind() != Kind.STRING:
        return None
    cursor.end -= 3
    return AsUser(tail.string("a user id"))


def _execute_as_user(cursor: Cursor) -> Statement:
    cursor.expect("EXECUTE")
    if not cursor.at("AS", "USER"):
        raise unsupported("EXECUTE of a prepared statement", "use the prepared statements of the driver")
    cursor.expect("AS", "USER")
    as_user = AsUser(cursor.string("a user id"))
    inner = cursor.expect_group("a statement")
    cursor.finish()
    if inner.done:
        raise inner.error("expected a statement")
    if inner.at("EXECUTE"):
        raise inner.error("EXECUTE AS USER cannot be nested")
    return _on_behalf(_statement(inner), as_user)


# ── Statements ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _statement(cursor: Cursor) -> Statement:
    if cursor.at_symbol("("):
        return _query(cursor)
    word = cursor.word()
    reader = _READERS.get(word)
    if reader is not None:
        statement = reader(cursor)
        cursor.finish()
        return statement
    if word in _REFUSED:
        raise unsupported(word)
    raise cursor.error("no statement begins like this")


def _query(cursor: Cursor) -> Query:
    """The client's text with all but the query blanked out; new lines stay, so that line numbers do too."""
    query = cursor.rest("a query")
    text = cursor.tokens.text
    before = _NOT_A_NEWLINE.sub(" ", text[: query.start])
    return Query(before + query.text + _NOT_A_NEWLINE.sub(" ", text[query.end :]))


def _with(cursor: Cursor) -> Statement:
    """A query, unless the word after the last common table expression says otherwise."""
    main = _main_of_with(cursor)
    reader = dml.READERS.get(cursor.tokens.word(main)) if main < cursor.end else None
    if reader is None:
        return _query(cursor)
    with_clause = cursor.slice(cursor.i, main)
    cursor.i = main
    return reader(cursor, with_clause)


def _main_of_with(cursor: Cursor) -> int:
    """The first token of the statement proper: it follows the parenthesis that closes a common table expression."""
    tokens, i = cursor.tokens, cursor.i
    while i < cursor.end:
        close = tokens.closes.get(i)
        if close is None:
            i += 1
            continue
        i = close + 1
        if i < cursor.end and (tokens.symbol(i) == "(" or tokens.word(i) in _MAIN_WORDS):
            break
    return i


def _explain(cursor: Cursor) -> Explain:
    cursor.expect("EXPLAIN")
    analyze, form = False, "text"
    if cursor.at_symbol("(") and cursor.word(1) in _EXPLAIN_OPTIONS:
        analyze, form = _explain_options(cursor)
    elif cursor.accept_any("ANALYZE", "ANALYSE"):
        analyze = True
    first = cursor.i
    if cursor.at("EXPLAIN") or (cursor.word() not in _READERS and not cursor.at_symbol("(")):
        raise cursor.error("expected a statement to explain")
    inner = _statement(cursor)
    if not isinstance(inner, _EXPLAINABLE):
        raise unsupported(f"EXPLAIN {cursor.tokens.word(first)}", "only queries and writes have a plan")
    return Explain(inner, analyze, "json" if form == "json" else "text", as_user=inner.as_user)


_EXPLAIN_OPTIONS = words("ANALYZE ANALYSE FORMAT VERBOSE COSTS BUFFERS TIMING SUMMARY SETTINGS WAL")


def _explain_options(cursor: Cursor) -> tuple[bool, str]:
    analyze, form = False, "text"
    options = cursor.inside()
    while True:
        if options.accept_any("ANALYZE", "ANALYSE"):
            analyze = options.accept_any("FALSE", "OFF") is None
            options.accept_any("TRUE", "ON")
        elif options.accept("FORMAT"):
            form = (options.accept_any("TEXT", "JSON") or "").lower()
            if not form:
                raise options.error("FORMAT is TEXT or JSON")
        else:
            raise unsupported(f"EXPLAIN option {options.word() or '?'}", "use ANALYZE and FORMAT TEXT or JSON")
        if not options.accept_symbol(","):
            break
    options.finish()
    return analyze, form


def _plain(reader: Callable[[Cursor, Slice | None], Statement]) -> Callable[[Cursor], Statement]:
    return lambda cursor: reader(cursor, None)


_READERS: dict[str, Callable[[Cursor], Statement]] = {
    **dict.fromkeys(QUERY_WORDS, _query),
    "WITH": _with,
    "EXPLAIN": _explain,
    **{word: _plain(reader) for word, reader in dml.READERS.items()},
    "TRUNCATE": dml.truncate,
    "ERASE": dml.erase,
    "CREATE": ddl.create,
    "ALTER": ddl.alter,
    "DROP": ddl.drop,
    "COMMENT": ddl.comment,
    **admin.READERS,
}
