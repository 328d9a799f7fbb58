"""Our tokens stand exactly where the engine's do (T-50: what we do not see as a name, the engine must not either)."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.errors import SqlSyntaxError
from flightkalam.sql.cursor import RESERVED
from flightkalam.sql.lexer import UNICODE_SPACES, Kind, lex


def tokens(text: str) -> list[tuple[str, str]]:
    found = lex(text)
    return [(Kind(k).name, text[a:b]) for k, a, b in zip(found.kinds, found.starts, found.ends, strict=True)]


def engine_starts(text: str) -> list[int]:
    """Where the engine's tokens begin, in bytes, save operators and comments."""
    return [offset for offset, kind in duckdb.tokenize(text) if kind.name not in ("operator", "comment")]


def our_starts(text: str) -> list[int]:
    found = lex(text)
    starts = []
    for kind, start, end in zip(found.kinds, found.starts, found.ends, strict=True):
        if kind == Kind.PARAM:
            start += 1  # the engine counts the mark of a parameter as an operator of its own
        if kind != Kind.SYMBOL and start < end:
            starts.append(len(text[:start].encode()))
    return starts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'it''s'", [("STRING", "'it''s'")]),
        (r"'a\' 'b'", [("STRING", r"'a\'"), ("STRING", "'b'")]),
        (r"E'a\'b' + e'\\'", [("ESCAPE_STRING", r"E'a\'b'"), ("SYMBOL", "+"), ("ESCAPE_STRING", r"e'\\'")]),
        ("x'ab' N'z'", [("PREFIXED_STRING", "x'ab'"), ("PREFIXED_STRING", "N'z'")]),
        ("typee'a'", [("WORD", "typee"), ("STRING", "'a'")]),
        ("$$a;'b$$", [("DOLLAR_STRING", "$$a;'b$$")]),
        ("$t$ $x$ $$ $t$", [("DOLLAR_STRING", "$t$ $x$ $$ $t$")]),
        ("$é1$;$é1$", [("DOLLAR_STRING", "$é1$;$é1$")]),
        ("a$b$c", [("WORD", "a$b$c")]),
        ('"q""q;" `b``;`', [("QUOTED", '"q""q;"'), ("QUOTED", "`b``;`")]),
        ("a /* b /* c */ ; */ d", [("WORD", "a"), ("WORD", "d")]),
        ("a /***/ b /*/ */ c", [("WORD", "a"), ("WORD", "b"), ("WORD", "c")]),
        ("a -- ' ;\nb --c\rd", [("WORD", "a"), ("WORD", "b"), ("WORD", "d")]),
        ("a +-- b", [("WORD", "a"), ("SYMBOL", "+")]),
        ("?,$1,?2,$name", [("PARAM", "?"), *[("SYMBOL", ",")], ("PARAM", "$1"), ("SYMBOL", ","), ("PARAM", "?2"),
                           ("SYMBOL", ","), ("PARAM", "$name")]),
        ("$a,$b,$a", [("PARAM", "$a"), ("SYMBOL", ","), ("PARAM", "$b"), ("SYMBOL", ","), ("PARAM", "$a")]),
        ("{# x #}", [("SYMBOL", "{"), ("SYMBOL", "#"), ("WORD", "x"), ("SYMBOL", "#"), ("SYMBOL", "}")]),
        ("1_000 1.5e-3 .5 5.", [("NUMBER", "1_000"), ("NUMBER", "1.5e-3"), ("NUMBER", ".5"), ("NUMBER", "5.")]),
        ("a::b->>c", [("WORD", "a"), ("SYMBOL", ":"), ("SYMBOL", ":"), ("WORD", "b"), ("SYMBOL", "-"), ("SYMBOL", ">"),
                      ("SYMBOL", ">"), ("WORD", "c")]),
        ("naïve 表 😀", [("WORD", "naïve"), ("WORD", "表"), ("WORD", "😀")]),
        ("", []),
        ("  -- nothing", []),
    ],
)  # fmt: skip
def test_tokens(text: str, expected: list[tuple[str, str]]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 'a", "never closed"),
        ("SELECT e'a''b\\'", "never closed"),  # the pieces `e'a'` and `'b\\'` would be complete
        ('SELECT "a', "never closed"),
        ('SELECT ""', "empty"),
        ("SELECT $$a", "never closed"),
        ("SELECT $t$a$T$", "never closed"),
        ("SELECT /* /* */", "never closed"),
        ("SELECT 1a", "space between"),
        ("SELECT 0xFF", "space between"),  # the engine reads 0 AS xFF
        ("SELECT 1e", "space between"),
        ("SELECT $1a", "parameter"),
        ("SELECT $ 1", "parameter"),
        ("SELECT a\x00b", "U+0000"),
        ("SELECT a\x1fb", "U+001F"),  # a letter to the engine, white space to Python
        ("SELECT \ud800", "U+D800"),
        ("SELECT e'a'\n'b'", "E'…'"),
        ("SELECT (1", '"(" is never closed'),
        ("SELECT (1]", '"]" closes nothing'),
        ("SELECT 1)", '")" closes nothing'),
    ],
)
def test_what_could_be_cut_in_two_ways_is_refused(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        lex(text)
    assert says in caught.value.message


def test_an_error_says_where() -> None:
    with pytest.raises(SqlSyntaxError, match="line 2, column 5"):
        lex("SELECT 1,\n  2 'open")


def test_white_space_is_what_the_engine_takes_for_it() -> None:
    engine = duckdb.connect()
    candidates = [*range(0x80, 0x3100), 0xD7FF, 0xE000, 0xFEFF, 0xFFFD, 0x1F600, 0xE0020]
    for char in map(chr, candidates):
        # With a space in between, `a` has the alias `b`; without one, the alias is a single name.
        row = f'(SELECT 1 AS a, 2 AS "a{char}b")'
        name = engine.execute(f"SELECT a{char}b FROM {row}").description[0][0]
        assert [text for _, text in tokens(f"a{char}b")] == (["a", "b"] if name == "b" else [f"a{char}b"]), hex(ord(char))


def test_as_user_parted_by_a_zero_width_space_is_two_words() -> None:
    assert tokens("AS\u200bUSER") == [("WORD", "AS"), ("WORD", "USER")]


def test_reserved_words_are_the_engines() -> None:
    rows = duckdb.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert {name.upper() for (name,) in rows} == RESERVED


PIECES = st.sampled_from(
    [
        "a", "SELECT", "é", "😀", "a$b", "1", "1_0", "1.5", "1e5", ".5", "'x'", "'it''s'", "''", r"e'\''", r"E'a\\'",
        "x'ab'",
        "$$ ' $$", "$t$ $$ $t$", '"a""b"', "`c``d`", "?", "$1", "$name", "/* ' */", "/* /* */ \" */", "-- ' \n", "--\r",
        "(", ")", "[", "]", "{", "}", ",", ";", "::", "->>", "=", "<>", "||", "+", "-", "*", "/", "@", "#", " ", "\n", "\t",
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_text_is_refused_or_cut_where_the_engine_cuts_it(text: str) -> None:
    try:
        ours = our_starts(text)
    except SqlSyntaxError:
        return
    assert ours == engine_starts(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_any_text_at_all_ends_in_tokens_or_one_error(text: str) -> None:
    try:
        found = lex(text)
    except SqlSyntaxError:
        return
    assert all(a < b for a, b in zip(found.starts, found.ends, strict=True))
    assert all(b <= a for b, a in zip(found.ends, found.starts[1:], strict=False))


def test_the_list_of_spaces_is_not_confused_with_letters() -> None:
    assert [text for _, text in tokens("\u2003a\u3000b\ufeff")] == ["a", "b"]
    assert "\u2028" not in UNICODE_SPACES and tokens("a\u2028b") == [("WORD", "a\u2028b")]
