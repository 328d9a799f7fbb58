"""One text, cut into tokens once and read for all that is asked of it: which statement, its parameters, the short way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flightkalam.sql.keyed import Keyed, keyed_of
from flightkalam.sql.lexer import lex
from flightkalam.sql.parser import MAX_SQL_CHARS, check_length, parse_tokens
from flightkalam.sql.statements import Delete, Query, Statement, Update
from flightkalam.sql.text import Param, fill_params, params_of, wanted_params

_KEYED = (Query, Update, Delete)
_SECRETS = re.compile("password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says.

    :param keyed: the statement as one about a single row by its key, if it is.
    :param parameters: how many values have to be bound.
    :param secret: it may hold a password: neither it nor a hash of it is kept anywhere.
    """

    text: str
    statement: Statement
    params: tuple[Param, ...]
    parameters: int
    keyed: Keyed | None
    secret: bool

    def filled(self, literals: Sequence[str]) -> str:
        """The text with an SQL literal in the place of each parameter."""
        return fill_params(self.text, self.params, literals)


def read(text: str, *, limit: int = MAX_SQL_CHARS) -> Reading:
    """Read exactly one statement, as `parse` does.

    :raises SqlSyntaxError: it cannot be read, or its parameters are not all written alike.
    """
    check_length(text, limit)
    tokens = lex(text)
    statement = parse_tokens(tokens)
    params = params_of(tokens)
    secret = may_hold_secret(text)
    keyed = keyed_of(tokens, params) if isinstance(statement, _KEYED) and not secret else None
    return Reading(text, statement, params, wanted_params(params), keyed, secret)


def may_hold_secret(text: str) -> bool:
    return _SECRETS.search(text) is not None
