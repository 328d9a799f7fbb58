"""Stored SQL text: quoting a name, and finding the columns that a CHECK mentions.

A CHECK is kept in the client's own words.  Dropping a column it mentions would break it and renaming one must follow,
so the text is read here as tokens, far enough to tell a column from a string, a comment, a function, a type or a
struct's field.  Where tokens cannot tell, the word counts as the column: a DROP is then refused, never a CHECK broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from flightkalam.catalog.names import fold
from flightkalam.model.schema import Table


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RESERVED = _words(
    """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default
    deferrable desc describe distinct do else end except false fetch for foreign from group having in initially
    intersect into lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider
    placing primary qualify references returning select show some summarize symmetric table then to trailing true
    union unique unpivot using variadic when where window with
    """
)
# Words that a grammar reads as part of a type, a join or an operator where a name may stand.
_QUOTED_TOO = _words(
    """
    anti asof at authorization between bigint binary bit boolean by char character coalesce collation columns
    concurrently cross current_actor current_date current_role current_time current_timestamp current_user dec decimal
    exists extract float freeze full generated glob grouping grouping_id if ilike inner inout int integer interval is
    isnull join left like localtime localtimestamp map national natural nchar none notnull nullif numeric out outer
    overlaps overlay position positional precision real right row semi session_user setof shared similar smallint
    stream struct substring tablesample time timestamp treat trim try_cast tuple unpack user values varchar verbose
    view
    """
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quote_identifier(name: str) -> str:
    """The name as SQL text, in quotes only where it needs them."""
    if _PLAIN.fullmatch(name) and name.lower() not in _RESERVED and name.lower() not in _QUOTED_TOO:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def quote_list(names: Iterable[str]) -> str:
    return ", ".join(quote_identifier(n) for n in names)


# ---------------------------------------------------------------------------------------------------------------
# Tokens

_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* )
    | (?P<literal> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ )
    | (?P<name>    "(?:[^"]|"")*" | [^\W\d][\w$]* )
    | (?P<number>  \d[\w.]* | \.\d\w* )
    | (?P<mark>    :: | := | . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    start: int
    end: int
    text: str

    @property
    def name(self) -> str:
        return self.text[1:-1].replace('""', '"') if self.text.startswith('"') else self.text


def _skip_comment(text: str, at: int) -> int:
    """The end of the `/* … */` that begins at `at`; they nest."""
    depth = 0
    while at < len(text):
        if text.startswith("/*", at):
            depth, at = depth + 1, at + 2
        elif text.startswith("*/", at):
            depth, at = depth - 1, at + 2
            if depth == 0:
                return at
        else:
            at += 1
    return at


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text.startswith("/*", at):
            at = _skip_comment(text, at)
            continue
        match = _TOKEN.match(text, at)
        assert match is not None  # `mark` takes any one character
        at = match.end()
        kind = next(k for k in ("space", "literal", "name", "number", "mark") if match.group(k) is not None)
        if kind != "space":
            tokens.append(_Token(kind, match.start(), at, match.group()))
    return tokens


# ---------------------------------------------------------------------------------------------------------------
# References


@dataclass(frozen=True, slots=True)
class Reference:
    """One mention of the table's column `column`, or of the table itself (as a qualifier) where that is None."""

    start: int
    end: int
    column: str | None


_NOTHING = _Token("mark", 0, 0, "")


def _chains(tokens: list[_Token]) -> Iterator[list[_Token]]:
    """Each `a`, `a.b` or `a.b.c` that may be a column."""
    i = 0
    while i < len(tokens):
        first = i
        i += 1
        if tokens[first].kind != "name" or _is_reserved(tokens[first]):
            continue
        chain = [tokens[first]]
        while i + 1 < len(tokens) and tokens[i].text == "." and tokens[i + 1].kind == "name":
            chain.append(tokens[i + 1])
            i += 2
        after = tokens[i] if i < len(tokens) else _NOTHING
        if after.text == "(" and len(chain) > 1:
            chain.pop()  # a method called on what stands before the dot
            after = _NOTHING
        if not _means_something_else(tokens[:first][-2:], after):
            yield chain


def _is_reserved(token: _Token) -> bool:
    return token.text.lower() in _RESERVED


def _means_something_else(before: list[_Token], after: _Token) -> bool:
    """Whether a name between these is a function, a type, an argument's name, a unit or a field of an expression."""
    last = before[-1] if before else _NOTHING
    if after.text in ("(", ":=") or after.kind == "literal":
        return True
    if last.text in (".", "::") or last.text.lower() == "as" or last.kind in ("number", "literal"):
        return True
    return after.text.lower() == "from" and [t.text.lower() for t in before] == ["extract", "("]


def references(text: str, table: Table) -> list[Reference]:
    """The places where `text` names the table's columns, or the table as their qualifier, in order."""
    columns = {fold(c.name): c.name for c in table.schema.columns}
    found: list[Reference] = []
    for chain in _chains(_tokens(text)):
        names = [fold(t.name) for t in chain]
        if names[0] in columns:
            found.append(Reference(chain[0].start, chain[0].end, columns[names[0]]))
            continue
        at = 1 if names[:2] == [fold(table.namespace), fold(table.name)] else 0
        if names[at] == fold(table.name) and len(names) > at + 1:
            found.append(Reference(chain[at].start, chain[at].end, None))
            if names[at + 1] in columns:
                found.append(Reference(chain[at + 1].start, chain[at + 1].end, columns[names[at + 1]]))
    return found


def mentions(text: str, table: Table, column: str) -> bool:
    return any(r.column is not None and fold(r.column) == fold(column) for r in references(text, table))


def uses_word(text: str, word: str) -> bool:
    """Whether any name in the text is `word`, whatever it means there."""
    return any(t.kind == "name" and fold(t.name) == fold(word) for t in _tokens(text))


def rewritten(text: str, table: Table, new_name: Callable[[str | None], str | None]) -> str:
    """`text` with each reference for which `new_name` gives a name replaced by it; all else stays as it was written."""
    out: list[str] = []
    at = 0
    for reference in references(text, table):
        name = new_name(reference.column)
        if name is not None:
            out += (text[at : reference.start], quote_identifier(name))
            at = reference.end
    return "".join([*out, text[at:]])


def is_one_operand(text: str) -> bool:
    """Whether an expression can follow DEFAULT as it is: a literal, a name, a call, or something in parentheses."""
    tokens = _tokens(text)
    if tokens and tokens[0].text in ("-", "+"):
        tokens = tokens[1:]
    if len(tokens) == 1:
        return tokens[0].kind != "mark" and tokens[0].text.lower() not in ("not", "case")
    if tokens and tokens[0].kind == "name" and not _is_reserved(tokens[0]):
        tokens = tokens[1:]
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            return i == len(tokens) - 1 and token.text == ")"
    return False
