"""Tokens of DuckDB's SQL, exactly where DuckDB puts them.

Rights are decided on our tokens and the engine runs its own, so a text that the two cut differently is a hole.  Two
rules keep it shut: the pattern below follows DuckDB 2.0's lexer character class by character class, and whatever is
legal there but doubtful is refused (`0xFF`, which the engine reads as 0 under the name xFF; control characters in
names; an escape string that goes on in the next line).

A general-purpose tokenizer was tried and put aside (sqlglot's): it takes `$a,$` in `VALUES ($a,$b,$a)` for a quoting
tag, `{# … #}` for a comment, does not know the zero-width spaces that DuckDB skips, and needs 0.38 s for an INSERT of
10,000 rows that this one reads in 0.05 s.

Tokens live in parallel lists rather than in objects because a bulk INSERT has hundreds of thousands of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from flightkalam.errors import SqlSyntaxError

# What DuckDB takes for white space beyond ASCII; all other characters from U+0080 up are letters to it.
UNICODE_SPACES = "\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_SPACE = rf"[ \t\n\r\f\v{UNICODE_SPACES}]"
# Lone surrogates are no letters: they cannot be sent to the engine.
_NO_LETTER = rf"\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\ud800-\udfff{UNICODE_SPACES}"
_LETTER = rf"[^\x00-\x39{_NO_LETTER}]"
_LETTER_OR_DIGIT = rf"[^\x00-\x2f{_NO_LETTER}]"
_NAME_PART = rf"[^\x00-\x23\x25-\x2f{_NO_LETTER}]"
_DIGITS = r"[0-9]++(?:_[0-9]++)*+"
_EXPONENT = rf"(?:[eE][+-]?+{_DIGITS})?+"


class Kind(IntEnum):
    """Kinds of token.  The numbers are the group numbers of the pattern below."""

    ESCAPE_STRING = 1
    PREFIXED_STRING = 2
    WORD = 3
    NUMBER = 4
    LINE_COMMENT = 5
    BLOCK_COMMENT = 6
    SYMBOL = 7
    STRING = 8
    QUOTED = 9
    DOLLAR_STRING = 10
    PARAM = 11
    END = 12


STRING_KINDS = frozenset({Kind.STRING, Kind.ESCAPE_STRING, Kind.PREFIXED_STRING, Kind.DOLLAR_STRING})

# Possessive quantifiers throughout: giving characters back would let an unterminated literal be read as two shorter
# ones, and would make hostile text quadratic.  A block comment nests and a dollar-quoted string ends with its own tag,
# so for these only the opening is matched here.
_TOKEN = re.compile(
    rf"""{_SPACE}*+(?:
        ( [eE]'(?:[^'\\]++|''|\\.)*+' )
      | ( [xXbBnN]'[^']*+(?:''[^']*+)*+' )
      | ( (?![eExXbBnN]'){_LETTER}{_NAME_PART}*+ )
      | ( (?: {_DIGITS}(?:\.(?:{_DIGITS})?+)?+{_EXPONENT}
            | \.{_DIGITS}{_EXPONENT}
          )(?!{_NAME_PART}|\.) )
      | ( --[^\n\r]*+ )
      | ( /\* )
      | ( [()\[\]{{}},;:=<>+\-*/%^&|~!@\#] | \.(?![0-9]) )
      | ( '[^']*+(?:''[^']*+)*+' )
      | ( "(?:[^"]++|"")++" | `(?:[^`]++|``)++` )
      | ( \$(?:{_LETTER}{_LETTER_OR_DIGIT}*+)?+\$ )
      | ( (?: \?[0-9]*+ | \$[0-9]++ | \${_LETTER}{_LETTER_OR_DIGIT}*+ )(?!{_NAME_PART}|\.[0-9]) )
      | ( \Z )
    )""",
    re.VERBOSE | re.DOTALL,
)
_SPACES = re.compile(rf"{_SPACE}*+")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text: token i has kind `kinds[i]` and is `text[starts[i]:ends[i]]`."""

    text: str
    kinds: list[int]
    starts: list[int]
    ends: list[int]
    # Token number of each opening bracket -> that of its closing one, so that depth 0 is a jump and not a count.
    closes: dict[int, int]

    def __len__(self) -> int:
        return len(self.kinds)

    def word(self, i: int) -> str:
        """The unquoted word at token i in capitals, or an empty string for any other token."""
        return self.text[self.starts[i] : self.ends[i]].upper() if self.kinds[i] == Kind.WORD else ""

    def symbol(self, i: int) -> str:
        """The character at token i if it is a symbol, or an empty string."""
        return self.text[self.starts[i]] if self.kinds[i] == Kind.SYMBOL else ""


def lex(text: str) -> Tokens:
    """Cut `text` into tokens, without comments and white space; brackets are balanced afterwards."""
    kinds: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    closes: dict[int, int] = {}
    open_brackets: list[int] = []
    match = _TOKEN.match
    symbol, end, line_comment, block_comment, dollar = (
        int(k) for k in (Kind.SYMBOL, Kind.END, Kind.LINE_COMMENT, Kind.BLOCK_COMMENT, Kind.DOLLAR_STRING)
    )
    position = 0
    while True:
        found = match(text, position)
        if found is None:
            raise _illegal(text, _skip_spaces(text, position))
        kind = found.lastindex or end
        start, position = found.span(kind)
        if kind == line_comment:
            continue
        if kind == symbol:
            if text[start] in "([{":
                open_brackets.append(len(kinds))
            elif text[start] in ")]}":
                _close(text, starts, open_brackets, closes, len(kinds), start)
        elif kind == block_comment:
            position = _end_of_comment(text, start)
            continue
        elif kind == dollar:
            position = _end_of_dollar_string(text, start, position)
        elif kind == end:
            break
        kinds.append(kind)
        starts.append(start)
        ends.append(position)
    if open_brackets:
        start = starts[open_brackets[-1]]
        raise syntax_error(text, start, f'"{text[start]}" is never closed')
    tokens = Tokens(text, kinds, starts, ends, closes)
    _refuse_continued_strings(tokens)
    return tokens


def syntax_error(text: str, position: int, what: str) -> SqlSyntaxError:
    """An error at a place that a person can find: lines and columns count from 1."""
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return SqlSyntaxError(f"syntax error at line {line}, column {column}: {what}")


def _skip_spaces(text: str, position: int) -> int:
    found = _SPACES.match(text, position)
    return found.end() if found else position


def _close(text: str, starts: list[int], open_brackets: list[int], closes: dict[int, int], token: int, position: int) -> None:
    if not open_brackets or _CLOSING[text[starts[open_brackets[-1]]]] != text[position]:
        raise syntax_error(text, position, f'"{text[position]}" closes nothing')
    closes[open_brackets.pop()] = token


def _end_of_comment(text: str, start: int) -> int:
    depth, position = 1, start + 2
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            raise syntax_error(text, start, "this /* comment is never closed")
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def _end_of_dollar_string(text: str, start: int, position: int) -> int:
    tag = text[start:position]
    end = text.find(tag, position)
    if end < 0:
        raise syntax_error(text, start, f"the string that opens with {tag} is never closed")
    return end + len(tag)


def _refuse_continued_strings(tokens: Tokens) -> None:
    """SQL joins strings that only a new line parts.  After an escape string the rules of the second are contested."""
    kinds = tokens.kinds
    if Kind.ESCAPE_STRING not in kinds:
        return
    for i in range(1, len(kinds)):
        if kinds[i - 1] == Kind.ESCAPE_STRING and kinds[i] in STRING_KINDS:
            raise syntax_error(tokens.text, tokens.starts[i], "a string may not follow an E'…' string: use one literal")


def _illegal(text: str, position: int) -> SqlSyntaxError:
    """Say what is wrong with the character at which no token begins; never repeat what may be a secret."""
    char = text[position]
    if char == "'" or text[position + 1 : position + 2] == "'":
        return syntax_error(text, position, "this string is never closed")
    if char in '"`':
        empty = text[position + 1 : position + 2] == char
        return syntax_error(text, position, "a quoted name is " + ("empty" if empty else "never closed"))
    if char.isdigit() or char == ".":
        return syntax_error(text, position, "a number must not run into a name: put a space between them")
    if char in "$?":
        return syntax_error(text, position, "a parameter is written ?, $1 or $name")
    return syntax_error(text, position, f"character U+{ord(char):04X} is not allowed here")
