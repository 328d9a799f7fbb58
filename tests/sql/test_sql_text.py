"""Quoting, splicing and parameters: a value stays a value and a name stays a name."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.errors import InternalError, InvalidValue, SqlSyntaxError
from flightkalam.sql.lexer import Kind, lex
from flightkalam.sql.text import quote_ident, quote_literal, referenced_params, splice, substitute_params

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_quoted_literal_is_one_string_to_us_and_to_the_engine(value: str) -> None:
    assert lex(quote_literal(value)).kinds == [Kind.STRING]
    row = duckdb.execute(f"SELECT {quote_literal(value)}").fetchone()
    assert row == (value,)


@settings(max_examples=200, deadline=None)
@given(TEXTS.filter(bool))
def test_a_quoted_name_is_one_name_to_us_and_to_the_engine(name: str) -> None:
    assert lex(quote_ident(name)).kinds == [Kind.QUOTED]
    assert duckdb.execute(f"SELECT 1 AS {quote_ident(name)}").description[0][0] == name


def test_an_empty_name_cannot_be_quoted() -> None:
    with pytest.raises(InvalidValue):
        quote_ident("")


@pytest.mark.parametrize(
    ("replacements", "expected"),
    [
        ([], "abcdef"),
        ([(0, 1, "X")], "Xbcdef"),
        ([(4, 6, "Y"), (0, 2, "X")], "XcdY"),
        ([(2, 2, "+"), (6, 6, "!")], "ab+cdef!"),
        ([(0, 3, ""), (3, 6, "Z")], "Z"),
    ],
)
def test_splice(replacements: list[tuple[int, int, str]], expected: str) -> None:
    assert splice("abcdef", replacements) == expected


@pytest.mark.parametrize("replacements", [[(0, 2, ""), (1, 3, "")], [(5, 7, "")], [(3, 2, "")], [(-1, 0, "")]])
def test_a_splice_that_overlaps_or_leaves_the_text_is_a_bug(replacements: list[tuple[int, int, str]]) -> None:
    with pytest.raises(InternalError):
        splice("abcdef", replacements)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", []),
        ("SELECT '?', \"$1\", $$ $2 $$ /* ? */ -- $x", []),
        ("SELECT ?, ? + ?", [("?", 1, "?"), ("?", 2, "?"), ("?", 3, "?")]),
        ("SELECT $2, $1, $2", [("$n", 2, "$2"), ("$n", 1, "$1"), ("$n", 2, "$2")]),
        ("SELECT ?2, $1", [("$n", 2, "?2"), ("$n", 1, "$1")]),
        ("VALUES ($b,$a,$B)", [("$name", 1, "$b"), ("$name", 2, "$a"), ("$name", 1, "$B")]),
    ],
)
def test_parameters_are_found_by_tokens(text: str, expected: list[tuple[str, int, str]]) -> None:
    assert [(p.kind, p.index, text[p.start : p.end]) for p in referenced_params(text)] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT ?, $1", "all parameters alike"),
        ("SELECT $a, $1", "all parameters alike"),
        ("SELECT $0", "numbered from 1"),
        ("SELECT $65536", "numbered from 1"),
        ("SELECT $" + "9" * 5000, "numbered from 1"),
        ("SELECT 1 AS USER ?", "AS USER takes a string"),
        ("SELECT 'a'\n?", "beside a string"),
        ("SELECT ?\n'a'", "beside a string"),
    ],
)
def test_parameters_that_could_mean_something_else_are_refused(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        referenced_params(text)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("text", "literals", "expected"),
    [
        ("SELECT ?,?", ["1", "'a''b'"], "SELECT  1 , 'a''b' "),
        ("SELECT $2 || $1 || $2", ["'a'", "'b'"], "SELECT  'b'  ||  'a'  ||  'b' "),
        ("SELECT $x, $X", ["NULL"], "SELECT  NULL ,  NULL "),
        ("SELECT -?", ["-1"], "SELECT - (-1) "),
        ("SELECT ?::INT", ["-1"], "SELECT  (-1) ::INT"),
        ("SELECT e?", ["'\\'"], "SELECT e '\\' "),
        ("SELECT ?", ["DATE '2024-01-01'"], "SELECT  (DATE '2024-01-01') "),
        ("SELECT '?', ?", ["1"], "SELECT '?',  1 "),
    ],
)
def test_substitution_sets_every_value_off(text: str, literals: list[str], expected: str) -> None:
    assert substitute_params(text, literals) == expected


def test_a_negative_number_behind_a_minus_makes_no_comment() -> None:
    text = substitute_params("SELECT 5 -? + 2", ["-1"])
    assert duckdb.execute(text).fetchone() == (8,)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_no_bound_string_escapes_its_place(values: list[str]) -> None:
    text = substitute_params("SELECT ?, [?] -- ?", [quote_literal(v) for v in values])
    assert duckdb.execute(text).fetchone() == (values[0], [values[1]])


@pytest.mark.parametrize(("text", "literals"), [("SELECT ?", []), ("SELECT ?", ["1", "2"]), ("SELECT $3", ["1", "2"])])
def test_too_few_or_too_many_values_are_refused(text: str, literals: list[str]) -> None:
    with pytest.raises(InvalidValue, match="parameters"):
        substitute_params(text, literals)
