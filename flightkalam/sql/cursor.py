"""A place in the tokens and the few moves that every reader of statements needs.

Clause keywords count only at depth 0, outside brackets and CASE … END, and only where they are not names: after a dot
or after AS any word is a name (`t.from`, `1 AS where`).  Three keywords need a second look:

    FROM         not in IS [NOT] DISTINCT FROM
    ON CONFLICT  not a join on a column or function called `conflict`
    NOT NULL     a constraint, but not in IS NOT NULL
"""

from __future__ import annotations

from collections.abc import Callable

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.sql.lexer import STRING_KINDS, Kind, Tokens, syntax_error
from flightkalam.sql.statements import Ident, Name, Options, OptionValue, Slice

CATALOG = "flightkalam"


def words(text: str) -> frozenset[str]:
    """A set of keywords, written as one would say them."""
    return frozenset(text.split())


# DuckDB's reserved words, none of which names a table or a column without quotes.
RESERVED = words(
    """ALL ANALYSE ANALYZE AND ANY ARRAY AS ASC ASYMMETRIC BOTH CASE CAST CHECK COLLATE COLUMN CONSTRAINT CREATE
    DEFAULT DEFERRABLE DESC DESCRIBE DISTINCT DO ELSE END EXCEPT FALSE FETCH FOR FOREIGN FROM GROUP HAVING IN
    INITIALLY INTERSECT INTO LAMBDA LATERAL LEADING LIMIT NOT NULL OFFSET ON ONLY OR ORDER PIVOT PIVOT_LONGER
    PIVOT_WIDER PLACING PRIMARY QUALIFY REFERENCES RETURNING SELECT SHOW SOME SUMMARIZE SYMMETRIC TABLE THEN TO
    TRAILING TRUE UNION UNIQUE UNPIVOT USING VARIADIC WHEN WHERE WINDOW WITH"""
)

QUERY_WORDS = words("SELECT WITH FROM VALUES TABLE PIVOT PIVOT_WIDER PIVOT_LONGER UNPIVOT SUMMARIZE")


class Cursor:
    """Reads the tokens from `i` up to, and not including, `end`."""

    __slots__ = ("end", "i", "tokens")

    def __init__(self, tokens: Tokens, i: int, end: int) -> None:
        self.tokens = tokens
        self.i = i
        self.end = end

    def inside(self) -> Cursor:
        """A cursor over what stands in the bracket that opens here; this one moves behind it."""
        close = self.tokens.closes[self.i]
        inner = Cursor(self.tokens, self.i + 1, close)
        self.i = close + 1
        return inner

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def word(self, ahead: int = 0) -> str:
        i = self.i + ahead
        return self.tokens.word(i) if i < self.end else ""

    def kind(self, ahead: int = 0) -> int:
        i = self.i + ahead
        return self.tokens.kinds[i] if i < self.end else Kind.END

    def at(self, *words: str) -> bool:
        return all(self.word(ahead) == word for ahead, word in enumerate(words))

    def at_any(self, *words: str) -> bool:
        return self.word() in words

    def at_symbol(self, symbol: str, ahead: int = 0) -> bool:
        i = self.i + ahead
        return i < self.end and self.tokens.symbol(i) == symbol

    def at_query(self) -> bool:
        """Whether a query begins here, possibly in parentheses."""
        i = self.i
        while i < self.end and self.tokens.symbol(i) == "(":
            i += 1
        if i >= self.end or (word := self.tokens.word(i)) not in QUERY_WORDS:
            return False
        # `values` is also a fine name for a column.
        return word != "VALUES" or (i + 1 < self.end and self.tokens.symbol(i + 1) == "(")

    @property
    def done(self) -> bool:
        return self.i >= self.end

    # ── Taking ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def accept(self, *words: str) -> bool:
        """Take these words if they all come next."""
        if not self.at(*words):
            return False
        self.i += len(words)
        return True

    def accept_any(self, *words: str) -> str | None:
        """Take the next word if it is one of these."""
        word = self.word()
        if not word or word not in words:
            return None
        self.i += 1
        return word

    def accept_symbol(self, symbol: str) -> bool:
        if not self.at_symbol(symbol):
            return False
        self.i += 1
        return True

    def expect(self, *words: str) -> None:
        for word in words:
            if not self.accept(word):
                raise self.error(f"expected {' '.join(words)}")

    def expect_symbol(self, symbol: str) -> None:
        if not self.accept_symbol(symbol):
            raise self.error(f'expected "{symbol}"')

    def expect_group(self, what: str) -> Cursor:
        """Take a pair of parentheses and return a cursor over what they hold."""
        if not self.at_symbol("("):
            raise self.error(f"expected ( and {what}")
        return self.inside()

    def finish(self) -> None:
        if not self.done:
            raise self.error("the statement should end here")

    # ── Names and literals ───────────────────────────────────────────────────────────────────────────────────────────
    def at_ident(self) -> bool:
        return self.kind() == Kind.QUOTED or (self.kind() == Kind.WORD and self.word() not in RESERVED)

    def ident(self, what: str) -> Ident:
        if not self.at_ident():
            hint = ", which is a reserved word: put it in double quotes" if self.word() in RESERVED else ""
            raise self.error(f"expected {what}{hint}")
        return self._take_ident()

    def _take_ident(self) -> Ident:
        raw = self._raw(self.i)
        quoted = self.kind() == Kind.QUOTED
        self.i += 1
        return Ident(raw[1:-1].replace(raw[0] * 2, raw[0]), True) if quoted else Ident(raw)

    def _path(self, what: str) -> tuple[Ident, ...]:
        parts = [self.ident(what)]
        while self.accept_symbol("."):
            # After a dot every word is a name, as in the engine.
            if self.kind() not in (Kind.WORD, Kind.QUOTED):
                raise self.error(f"expected {what} after the dot")
            parts.append(self._take_ident())
        return tuple(parts)

    def name(self, what: str = "a table name") -> Name:
        first = self.i
        return self.checked_name(self._path(what), first)

    def column_path(self) -> tuple[Name, Ident]:
        """`[namespace.]table.column`."""
        first = self.i
        parts = self._path("table.column")
        if len(parts) < 2:
            raise self.error("expected table.column", first)
        return self.checked_name(parts[:-1], first), parts[-1]

    def checked_name(self, parts: tuple[Ident, ...], first: int) -> Name:
        if len(parts) > 3 or (len(parts) == 3 and parts[0].value.lower() != CATALOG):
            raise self.error(f"a name is [namespace.]table; the only catalog is {CATALOG}", first)
        last = first + 2 * (len(parts) - 1)
        return Name(parts, self.tokens.starts[first], self.tokens.ends[last])

    def namespace(self) -> Ident:
        """`namespace`, or `flightkalam.namespace` as clients with catalogs write it."""
        first = self.i
        parts = self._path("a namespace")
        if len(parts) > 2 or (len(parts) == 2 and parts[0].value.lower() != CATALOG):
            raise self.error(f"a namespace has one name; the only catalog is {CATALOG}", first)
        return parts[-1]

    def idents(self, what: str) -> tuple[Ident, ...]:
        """`(a, b, …)`; a comma before the closing parenthesis is allowed, as in the engine."""
        group = self.expect_group(what)
        names = [group.ident(what)]
        while group.accept_symbol(",") and not group.done:
            names.append(group.ident(what))
        if not group.done:
            raise group.error('expected "," or ")"')
        return tuple(names)

    def string(self, what: str) -> str:
        """A plain '…' string.  Other literals are refused, and what stands there instead is not repeated: these strings
        name users and hold passwords."""
        if self.kind() != Kind.STRING:
            starts, text = self.tokens.starts, self.tokens.text
            position = starts[self.i] if self.i < len(starts) else len(text)
            raise syntax_error(text, position, f"expected {what} as a string in single quotes")
        raw = self._raw(self.i)
        if self.kind(1) in STRING_KINDS:
            self.i += 1
            raise self.error("a second string is not expected here")
        self.i += 1
        return raw[1:-1].replace("''", "'")

    def options(self) -> Options:
        """`(KEY = value, …)`: keys in capitals, each once."""
        group = self.expect_group("options")
        options: dict[str, OptionValue] = {}
        while True:
            first = group.i
            key = group.ident("the name of an option").value.upper()
            if key in options:
                raise group.error(f"option {key} is given twice", first)
            group.expect_symbol("=")
            options[key] = group._option_value(key)
            if not group.accept_symbol(","):
                break
        if not group.done:
            raise group.error('expected "," or ")"')
        return tuple(options.items())

    def _option_value(self, key: str) -> OptionValue:
        if self.kind() == Kind.STRING:
            return self.string("a value")
        if word := self.accept_any("TRUE", "FALSE"):
            return word == "TRUE"
        sign = -1 if self.accept_symbol("-") else 1
        if self.kind() != Kind.NUMBER or len(self._raw(self.i)) > 40:
            raise self.error(f"option {key} takes a string in single quotes, a number, TRUE or FALSE")
        raw = self._raw(self.i)
        self.i += 1
        return sign * _number(raw)

    # ── Slices ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def slice(self, first: int, last: int) -> Slice:
        """The text from token `first` to before token `last`."""
        start, end = self.tokens.starts[first], self.tokens.ends[last - 1]
        return Slice(start, end, self.tokens.text[start:end])

    def rest(self, what: str) -> Slice:
        if self.done:
            raise self.error(f"expected {what}")
        first, self.i = self.i, self.end
        return self.slice(first, self.end)

    def until(self, stops: frozenset[str], what: str, *, comma: bool = False, aliases: bool = False) -> Slice:
        """The text up to the first stop at depth 0, which is not taken.

        `comma` stops at commas too.  Without `aliases` the text is an expression, in which a bare AS is refused: a
        misplaced AS USER must never turn into a column's name.
        """
        first = self.i
        self.i = self.find(stops, comma=comma, aliases=aliases)
        if self.i == first:
            raise self.error(f"expected {what}")
        return self.slice(first, self.i)

    def clause(self, word: str, stops: frozenset[str], *, aliases: bool = False) -> Slice | None:
        """`WORD text`, if the word comes next."""
        return self.until(stops, f"something after {word}", aliases=aliases) if self.accept(word) else None

    def find(self, stops: frozenset[str], *, comma: bool = False, aliases: bool = True) -> int:
        """The first token at depth 0 that is one of the stops, or `end`."""
        tokens, i, cases = self.tokens, self.i, 0
        first = i
        while i < self.end:
            if (kind := tokens.kinds[i]) == Kind.SYMBOL:
                if comma and cases == 0 and tokens.symbol(i) == ",":
                    return i
                i = tokens.closes.get(i, i)
            elif kind == Kind.WORD and not self._is_label(i, first):
                word = tokens.word(i)
                if cases == 0 and self._stops(word, i, first, stops):
                    return i
                if word == "AS" and not aliases:
                    raise self.error("AS is not expected in an expression", i)
                cases += (word == "CASE") - (word == "END" and cases > 0)
            i += 1
        return i

    def _is_label(self, i: int, first: int) -> bool:
        """Whether the word is a name by its place alone, whatever it is."""
        return i > first and (self.tokens.symbol(i - 1) == "." or self.tokens.word(i - 1) == "AS")

    def _stops(self, word: str, i: int, first: int, stops: frozenset[str]) -> bool:
        if word in stops:
            rule = _SECOND_LOOK.get(word)
            return rule is None or rule(self, i, first)
        pair = _PAIRS.get(word)
        return pair is not None and pair[0] in stops and pair[1](self, i, first)

    # ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def error(self, what: str, i: int | None = None) -> SqlSyntaxError:
        """Blame what stands at token `i`, by default the next.  Literals are not repeated: they may be secrets."""
        i = self.i if i is None else i
        tokens = self.tokens
        if i >= len(tokens):
            return syntax_error(tokens.text, len(tokens.text), f"{what}, found the end of the text")
        kind = tokens.kinds[i]
        found = "a string" if kind in STRING_KINDS else f'"{self._raw(i)[:64]}"'
        return syntax_error(tokens.text, tokens.starts[i], f"{what}, found {found}")

    def _raw(self, i: int) -> str:
        return self.tokens.text[self.tokens.starts[i] : self.tokens.ends[i]]


def _number(raw: str) -> int | float:
    return int(raw) if raw.replace("_", "").isdigit() else float(raw)


# ── Keywords that need a second look (see the top) ───────────────────────────────────────────────────────────────────
def _from_is_clause(cursor: Cursor, i: int, first: int) -> bool:
    word = cursor.tokens.word
    return not (i - 2 >= first and word(i - 1) == "DISTINCT" and word(i - 2) in ("IS", "NOT"))


def _null_is_constraint(cursor: Cursor, i: int, first: int) -> bool:
    return i > first and cursor.tokens.word(i - 1) not in ("IS", "NOT")


def _is_not_null(cursor: Cursor, i: int, first: int) -> bool:
    tokens = cursor.tokens
    after = tokens.word(i + 1) if i + 1 < cursor.end else ""
    return after == "NULL" and not (i > first and tokens.word(i - 1) == "IS")


def _is_on_conflict(cursor: Cursor, i: int, first: int) -> bool:
    tokens, end = cursor.tokens, cursor.end
    if i + 2 >= end or tokens.word(i + 1) != "CONFLICT":
        return False
    if tokens.word(i + 2) in ("DO", "ON"):
        return True
    if tokens.symbol(i + 2) != "(":
        return False
    after = tokens.closes[i + 2] + 1
    return after < end and tokens.word(after) == "DO"


_Rule = Callable[[Cursor, int, int], bool]
_SECOND_LOOK: dict[str, _Rule] = {"FROM": _from_is_clause, "NULL": _null_is_constraint}
_PAIRS: dict[str, tuple[str, _Rule]] = {"NOT": ("NOT NULL", _is_not_null), "ON": ("ON CONFLICT", _is_on_conflict)}


def unsupported(what: str, instead: str = "") -> Unsupported:
    return Unsupported(f"{what} is not supported{': ' + instead if instead else ''}")
