"""Stored SQL text: quoting, and which columns a CHECK mentions."""

from __future__ import annotations

import pytest
from catalog_support import table

from flightkalam.catalog.edits import NewColumn
from flightkalam.catalog.text import is_one_operand, mentions, quote_identifier, quote_literal, rewritten
from flightkalam.model.types import INT, TEXT

TABLE = table("id BIGINT", "a INT", "s STRUCT(a INT)", NewColumn("two words", INT), NewColumn("day", TEXT))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "a"),
        ("MixedCase", "MixedCase"),
        ("_x1", "_x1"),
        ("two words", '"two words"'),
        ('q"t', '"q""t"'),
        ("1a", '"1a"'),
        ("select", '"select"'),
        ("Order", '"Order"'),
        ("user", '"user"'),
        ("left", '"left"'),
        ("größe", '"größe"'),
        ("", '""'),
    ],
)
def test_a_name_is_quoted_only_where_it_must_be(name: str, text: str) -> None:
    assert quote_identifier(name) == text


def test_a_literal_doubles_its_quotes() -> None:
    assert quote_literal("it's") == "'it''s'"


@pytest.mark.parametrize(
    ("text", "mentioned"),
    [
        ("a > 0", True),
        ("A > 0", True),
        ('"a" > 0', True),
        ("t.a > 0", True),
        ("main.t.a > 0", True),
        ('"T"."A" > 0', True),
        ("x.a > 0", False),  # not this table; the engine will say so
        ("s.a > 0", False),  # a field of the struct s
        ("(s).a > 0", False),
        ("s['a'] > 0", False),
        ("id > 0 -- a", False),
        ("id > 0 /* a /* a */ a */", False),
        ("id <> 'a'", False),
        ("id <> 'it''s a'", False),
        (r"id <> E'it\'s a'", False),
        ("id <> $$ a $$", False),
        ("id <> $x$ a $$ a $x$", False),
        ("a(id) > 0", False),  # a function called a
        ("a.abs() > 0", True),  # a method called on the column
        ("id::a IS NULL", False),
        ("cast(id AS a) IS NULL", False),
        ("f(a := id)", False),
        ("f(b := a)", True),
        ("id IN (1, a)", True),
        ("id BETWEEN 1 AND a", True),
        ("aa > 0 AND a1 > 0", False),
        ("id - a > 1e5", True),
    ],
)
def test_a_mention_of_a_column_is_told_from_everything_else(text: str, mentioned: bool) -> None:
    assert mentions(text, TABLE, "a") is mentioned


@pytest.mark.parametrize("text", ["extract(day FROM id) > 1", "INTERVAL 1 day > INTERVAL '1' day", "date '2024-01-01' + 1 day"])
def test_units_and_type_literals_are_no_columns(text: str) -> None:
    assert not mentions(text, TABLE, "day")


def test_a_rewrite_touches_the_references_and_nothing_else() -> None:
    text = "a > 0 AND  t.A < 9 /* a */ AND s.a <> 'a' AND \"a\" = a(a)"
    renamed = rewritten(text, TABLE, lambda c: "new name" if c == "a" else None)
    assert renamed == ('"new name" > 0 AND  t."new name" < 9 /* a */ AND s.a <> \'a\' AND "new name" = a("new name")')


def test_the_table_as_a_qualifier_can_be_rewritten() -> None:
    text = 'main.t.a > t.id AND "t"."two words" > 0'
    assert rewritten(text, TABLE, lambda c: "u" if c is None else None) == 'main.u.a > u.id AND u."two words" > 0'


@pytest.mark.parametrize("text", ["1", "-1", "'x'", "NULL", "true", "now()", "coalesce(1, (2))", "(NOT true)", "current_date"])
def test_one_operand_may_follow_default_as_it_is(text: str) -> None:
    assert is_one_operand(text)


@pytest.mark.parametrize(
    "text", ["1 + 1", "NOT true", "x IS NOT NULL", "(1) + (2)", "f(1) + f(2)", "CASE WHEN true THEN 1 END"]
)
def test_anything_else_needs_parentheses(text: str) -> None:
    assert not is_one_operand(text)
