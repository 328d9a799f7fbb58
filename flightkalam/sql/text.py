"""Putting text into text without changing what it means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from flightkalam.errors import InternalError, InvalidValue
from flightkalam.sql.lexer import STRING_KINDS, Kind, Tokens, lex, syntax_error

# A literal that stays one value whatever stands around it; anything else goes into parentheses.
_ATOM = re.compile(r"'[^']*+(?:''[^']*+)*+'|[0-9]+(?:\.[0-9]+)?|[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Param:
    """A place for a value.  `index` counts values from 1: for `?` by order, for `$n` it is n, for `$name` by the first
    place where the name (without regard to case, as in the engine) stands."""

    start: int
    end: int
    kind: Literal["?", "$n", "$name"]
    index: int
    name: str | None = None


def quote_ident(name: str) -> str:
    """Always quoted: so the case stays and no word is reserved."""
    if not name:
        raise InvalidValue("a name must not be empty: give it at least one character")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """A string in single quotes; backslashes mean nothing there, so doubling the quotes is all."""
    return "'" + value.replace("'", "''") + "'"


def splice(text: str, replacements: Iterable[tuple[int, int, str]]) -> str:
    """`text` with each [start, end) replaced by its new text; offsets are those of `text`, in any order."""
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(replacements, key=lambda r: (r[0], r[1])):
        if not done <= start <= end <= len(text):
            raise InternalError(f"replacement [{start}, {end}) overlaps another or leaves the text: report this bug")
        pieces += (text[done:start], new)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def referenced_params(text: str) -> tuple[Param, ...]:
    """All parameters in the order of the text.  The three ways to write them cannot be mixed, for `?` has no number of
    its own that could not collide."""
    return () if "?" not in text and "$" not in text else params_of(lex(text))


def params_of(tokens: Tokens) -> tuple[Param, ...]:
    """The same of a text that has been cut into tokens."""
    text, params = tokens.text, list[Param]()
    if Kind.PARAM not in tokens.kinds:
        return ()
    names: dict[str, int] = {}
    for i, kind in enumerate(tokens.kinds):
        if kind == Kind.PARAM:
            _check_neighbours(tokens, i)
            params.append(_param(text, tokens.starts[i], tokens.ends[i], len(params), names))
            if params[-1].kind != params[0].kind:
                raise syntax_error(text, params[-1].start, "write all parameters alike: ?, $1 or $name")
    return tuple(params)


def _check_neighbours(tokens: Tokens, i: int) -> None:
    """A value must stay a value: it may neither name the user to act as nor be joined to the string beside it."""
    if i >= 2 and tokens.word(i - 1) == "USER" and tokens.word(i - 2) == "AS":
        raise syntax_error(tokens.text, tokens.starts[i], "AS USER takes a string in single quotes, not a parameter")
    if STRING_KINDS.intersection(tokens.kinds[max(i - 1, 0) : i + 2]):
        raise syntax_error(tokens.text, tokens.starts[i], "a parameter may not stand beside a string")


def _param(text: str, start: int, end: int, before: int, names: dict[str, int]) -> Param:
    raw = text[start:end]
    if raw == "?":
        return Param(start, end, "?", before + 1)
    name = raw[1:]
    if not name.isascii() or not name.isdigit():
        return Param(start, end, "$name", names.setdefault(name.casefold(), len(names) + 1), name)
    if len(name) > 5 or not 1 <= int(name) <= 65_535:
        raise syntax_error(text, start, "parameters are numbered from 1 to 65535")
    return Param(start, end, "$n", int(name))


def substitute_params(text: str, literals: Sequence[str]) -> str:
    """`text` with each parameter replaced by the SQL literal of its index.

    A literal is set off by spaces, and in parentheses unless it is a single token: `-?` with `-1` must not become a
    comment, nor `e?` with `'x'` an escape string, nor `?::INT` bind its cast tighter than a sign.
    """
    return fill_params(text, referenced_params(text), literals)


def fill_params(text: str, params: Sequence[Param], literals: Sequence[str]) -> str:
    """`substitute_params` of a text whose parameters are known."""
    wanted = wanted_params(params)
    if wanted != len(literals):
        raise InvalidValue(f"the statement has {wanted} parameters, {len(literals)} values were given: bind each once")
    return splice(text, ((p.start, p.end, _set_off(literals[p.index - 1])) for p in params))


def wanted_params(params: Sequence[Param]) -> int:
    """How many values have to be bound."""
    return max((p.index for p in params), default=0)


def _set_off(literal: str) -> str:
    return f" {literal} " if _ATOM.fullmatch(literal) else f" ({literal}) "
