"""Statements about one row by its key, read from the tokens alone.

    SELECT a, b | *  FROM t [[AS] x]                  WHERE k = 1 [AND k2 = 'a']
    UPDATE t [[AS] x] SET a = 1, n = n + 1, b = ?     WHERE k = 1 [AND k2 = 'a']  [RETURNING a, b | *]
    DELETE FROM t [[AS] x]                            WHERE k = 1 [AND k2 = 'a']  [RETURNING a, b | *]

What is recognised runs without the engine, and so without the guard; hence every token is accounted for, and whatever is
not understood completely is None and goes the ordinary way.  Which columns are the key, and what a literal means for a
column, is for the session to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from flightkalam.errors import SqlSyntaxError
from flightkalam.sql.cursor import RESERVED, Cursor, words
from flightkalam.sql.lexer import STRING_KINDS, UNICODE_SPACES, Kind, Tokens, lex
from flightkalam.sql.statements import Ident
from flightkalam.sql.text import Param, params_of

# Words that the engine reads as something else than a name in some places: as a type, a function, a kind of join.
_NOT_NAMES = RESERVED | words(
    """BETWEEN BIGINT BIT BOOLEAN CHAR CHARACTER COALESCE COLUMNS DEC DECIMAL EXISTS EXTRACT FLOAT GENERATED GROUPING
    GROUPING_ID INOUT INT INTEGER INTERVAL MAP NATIONAL NCHAR NONE NULLIF NUMERIC OUT OVERLAY POSITION PRECISION REAL ROW
    SETOF SMALLINT STRUCT SUBSTRING TIME TIMESTAMP TREAT TRIM TRY_CAST TUPLE VALUES VARCHAR XMLATTRIBUTES XMLCONCAT
    XMLELEMENT XMLEXISTS XMLFOREST XMLNAMESPACES XMLPARSE XMLPI XMLROOT XMLSERIALIZE XMLTABLE
    ANTI ASOF AT AUTHORIZATION BINARY BY COLLATION CONCURRENTLY CROSS FREEZE FULL GLOB ILIKE INNER IS ISNULL JOIN LEFT
    LIKE NATURAL NOTNULL OUTER OVERLAPS POSITIONAL RIGHT SEMI SIMILAR TABLESAMPLE UNPACK VERBOSE
    USER SESSION_USER SYSTEM_USER CURRENT_USER CURRENT_ROLE CURRENT_CATALOG CURRENT_SCHEMA CURRENT_DATABASE CURRENT_DATE
    CURRENT_TIME CURRENT_TIMESTAMP CURRENT_ACTOR LOCALTIME LOCALTIMESTAMP ROWID SET EXCLUDE REPLACE RENAME ROW_NUMBER
    FILENAME FILE_ROW_NUMBER FILE_INDEX"""
)
_HIDDEN = ("_seq", "_deleted", "_id")  # what naming them means is decided elsewhere
_ODD = re.compile(f"[\0{UNICODE_SPACES}]")  # the guard has its own mind about these
_LONGEST = 8_192
_MOST_DIGITS = 38

Operand = Literal["int", "decimal", "text", "bool", "null", "default", "param"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal or the place of one.

    :param value: int, Decimal, str or bool by `kind`; the index of a parameter, from 0; None for NULL and DEFAULT.
    """

    kind: Operand
    value: int | Decimal | str | bool | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """The value of a column of the same row, plus or minus a constant."""

    column: Ident
    sign: Literal[-1, 1]
    constant: Constant


@dataclass(frozen=True, slots=True)
class Keyed:
    """A statement about one row.

    :param parts: of the table's name, without the catalog.
    :param output: columns that it answers with: of SELECT or RETURNING; None for all, () for a count.
    :param key: the condition, each column once.
    :param assignments: of UPDATE, each column once.
    """

    action: Literal["select", "update", "delete"]
    parts: tuple[str, ...]
    output: tuple[Ident, ...] | None
    key: tuple[tuple[Ident, Constant], ...]
    assignments: tuple[tuple[Ident, Constant | Sum], ...] = ()
    parameters: int = 0


class _Other(Exception):
    """The statement is of another kind."""


def read_keyed(text: str) -> Keyed | None:
    """The statement if it is one about a row by its key, as far as its words can tell."""
    try:
        tokens = lex(text)
        return keyed_of(tokens, params_of(tokens))
    except SqlSyntaxError:
        return None


def keyed_of(tokens: Tokens, params: Sequence[Param]) -> Keyed | None:
    """The same of a text that has been cut into tokens."""
    text = tokens.text
    lower = text.lower()
    if len(text) > _LONGEST or any(name in lower for name in _HIDDEN) or _ODD.search(text):
        return None
    try:
        places = {p.start: p.index - 1 for p in params}
        end = len(tokens)
        while end and tokens.symbol(end - 1) == ";":
            end -= 1
        return _Reader(Cursor(tokens, 0, end), places).statement()
    except (_Other, SqlSyntaxError):
        return None


class _Reader:
    """:param places: the index of each parameter by where it stands."""

    def __init__(self, cursor: Cursor, places: Mapping[int, int]) -> None:
        self.cursor = cursor
        self.places = places
        self.qualifier = ""

    def statement(self) -> Keyed:
        c = self.cursor
        parameters = max(self.places.values(), default=-1) + 1
        if c.accept("SELECT"):
            output = self.outputs()
            self.word("FROM")
            parts = self.table()
            return Keyed("select", parts, self.checked(output), self.where(), (), parameters)
        if c.accept("UPDATE"):
            parts = self.table()
            self.word("SET")
            assignments = self.assignments()
            key = self.where()
            return Keyed("update", parts, self.returning(), key, assignments, parameters)
        self.word("DELETE")
        self.word("FROM")
        parts = self.table()
        key = self.where()
        return Keyed("delete", parts, self.returning(), key, (), parameters)

    # -- clauses -----------------------------------------------------------------------------------------------

    def table(self) -> tuple[str, ...]:
        parts = [self.name().value]
        while self.cursor.accept_symbol("."):
            parts.append(self.name().value)
        if len(parts) > 2:
            raise _Other
        self.qualifier = parts[-1]
        if self.cursor.accept("AS") or self.at_name():
            self.qualifier = self.name().value
        return tuple(parts)

    def outputs(self) -> tuple[tuple[Ident, ...], ...] | None:
        """Names with their qualifiers, which are checked once the table is known."""
        if self.cursor.accept_symbol("*"):
            return None
        found = [self.path()]
        while self.cursor.accept_symbol(","):
            found.append(self.path())
        return tuple(found)

    def checked(self, output: tuple[tuple[Ident, ...], ...] | None) -> tuple[Ident, ...] | None:
        if output is None:
            return None
        columns = tuple(self.unqualified(path) for path in output)
        self.each_once(columns)
        return columns

    def returning(self) -> tuple[Ident, ...] | None:
        """() where there is none."""
        if self.cursor.done:
            return ()
        self.word("RETURNING")
        output = self.checked(self.outputs())
        self.finish()
        return output

    def where(self) -> tuple[tuple[Ident, Constant], ...]:
        self.word("WHERE")
        found = [self.condition()]
        while self.cursor.accept("AND"):
            found.append(self.condition())
        if not self.cursor.at("RETURNING"):
            self.finish()
        self.each_once(tuple(column for column, _ in found))
        return tuple(found)

    def condition(self) -> tuple[Ident, Constant]:
        column = self.unqualified(self.path())
        self.symbol("=")
        return column, self.constant()

    def assignments(self) -> tuple[tuple[Ident, Constant | Sum], ...]:
        found = [self.assignment()]
        while self.cursor.accept_symbol(","):
            found.append(self.assignment())
        self.each_once(tuple(column for column, _ in found))
        return tuple(found)

    def assignment(self) -> tuple[Ident, Constant | Sum]:
        column = self.name()
        self.symbol("=")
        if self.cursor.accept("DEFAULT"):
            return column, Constant("default")
        if not self.at_name():
            return column, self.constant()
        source = self.unqualified(self.path())
        if self.cursor.accept_symbol("+"):
            return column, Sum(source, 1, self.unsigned())
        self.symbol("-")
        return column, Sum(source, -1, self.unsigned())

    # -- words -------------------------------------------------------------------------------------------------

    def word(self, word: str) -> None:
        if not self.cursor.accept(word):
            raise _Other

    def symbol(self, symbol: str) -> None:
        if not self.cursor.accept_symbol(symbol):
            raise _Other

    def finish(self) -> None:
        if not self.cursor.done:
            raise _Other

    def at_name(self) -> bool:
        c = self.cursor
        return c.kind() == Kind.QUOTED or (c.kind() == Kind.WORD and c.word() not in _NOT_NAMES)

    def name(self) -> Ident:
        if not self.at_name():
            raise _Other
        return self.cursor.ident("a name")

    def path(self) -> tuple[Ident, ...]:
        first = self.name()
        return (first, self.name()) if self.cursor.accept_symbol(".") else (first,)

    def unqualified(self, path: tuple[Ident, ...]) -> Ident:
        if len(path) == 2 and not same_name(path[0].value, self.qualifier):
            raise _Other
        return path[-1]

    def each_once(self, columns: tuple[Ident, ...]) -> None:
        if len({c.value.lower() for c in columns}) != len(columns):
            raise _Other

    # -- literals ----------------------------------------------------------------------------------------------

    def constant(self) -> Constant:
        if not self.cursor.accept_symbol("-"):
            return self.unsigned()
        found = self.unsigned()
        if isinstance(found.value, bool) or not isinstance(found.value, int | Decimal) or found.kind == "param":
            raise _Other
        return Constant(found.kind, -found.value)

    def unsigned(self) -> Constant:
        c = self.cursor
        kind, start, end = c.kind(), c.tokens.starts[c.i] if not c.done else 0, c.tokens.ends[c.i] if not c.done else 0
        raw = c.tokens.text[start:end]
        if kind in STRING_KINDS:
            if kind != Kind.STRING or c.kind(1) in STRING_KINDS:
                raise _Other
            c.i += 1
            return Constant("text", raw[1:-1].replace("''", "'"))
        if kind == Kind.NUMBER:
            c.i += 1
            return _number(raw)
        if kind == Kind.PARAM and start in self.places:
            c.i += 1
            return Constant("param", self.places[start])
        word = c.accept_any("TRUE", "FALSE", "NULL")
        if word is None:
            raise _Other
        return Constant("null") if word == "NULL" else Constant("bool", word == "TRUE")


def _number(raw: str) -> Constant:
    """A whole number or one with decimals; other ways of writing one (1e3, 1_000) are the engine's."""
    whole, dot, fraction = raw.partition(".")
    digits = whole + fraction
    plain = digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS
    if not plain or not whole or (dot and not fraction) or (len(whole) > 1 and whole[0] == "0"):
        raise _Other
    return Constant("decimal", Decimal(raw)) if dot else Constant("int", int(raw))


def same_name(one: str, other: str) -> bool:
    """Whether two names are certainly the same to everybody: without regard to case only where letters are ASCII."""
    return one == other or (one.isascii() and other.isascii() and one.lower() == other.lower())
