"""Names: what may be called how, and where its files lie (SEMANTICS §1, §3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightkalam.catalog.names import check_column_name, check_name, check_namespace_name, escape, folder
from flightkalam.errors import InvalidValue


@pytest.mark.parametrize(
    ("name", "message", "sqlstate"),
    [
        ("", "a table needs a name; the empty name is not allowed", "42602"),
        ("a\0b", r"table name 'a\x00b' holds the character U+0000; remove it", "42602"),
        ("a\nb", r"table name 'a\nb' holds the character U+000A; remove it", "42602"),
        ("a\x85", r"table name 'a\x85' holds the character U+0085; remove it", "42602"),
        ("\ud800", r"table name '\ud800' holds the character U+D800; remove it", "42602"),
        ("n" * 129, 'table name "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…" has 129 characters; at most 128 are allowed', "42622"),
    ],
)
def test_a_bad_name_is_refused_and_the_error_says_why(name: str, message: str, sqlstate: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_name(name, "table")
    assert (caught.value.message, caught.value.sqlstate) == (message, sqlstate)


@pytest.mark.parametrize("name", ["t", "Größe", "..", "a/b", "two words", "表", "n" * 128, 'quo"te', "😀"])
def test_any_other_name_is_allowed(name: str) -> None:
    assert check_name(name, "table") == name


@pytest.mark.parametrize("name", ["_x", "_seq", "_deleted", "_id"])
def test_a_column_may_not_begin_with_an_underscore(name: str) -> None:
    """T-53: a client cannot supply a system column."""
    with pytest.raises(InvalidValue, match=f'column name "{name}" begins with "_"'):
        check_column_name(name)


@pytest.mark.parametrize("name", ["system", "SYSTEM", "information_schema", "pg_catalog", "FlightKalam", "default"])
def test_reserved_namespaces_are_refused_in_any_case(name: str) -> None:
    with pytest.raises(InvalidValue, match=f'namespace name "{name}" is reserved'):
        check_namespace_name(name)


@pytest.mark.parametrize(
    ("namespace", "name", "expected"),
    [
        ("main", "orders", "main/orders~7"),
        ("main", "Orders", "main/Orders~7"),
        ("..", "../../etc/passwd", "%2E%2E/%2E%2E%2F%2E%2E%2Fetc%2Fpasswd~7"),
        ("a/b", "c~1", "a%2Fb/c%7E1~7"),
        ("main", "é", "main/%C3%A9~7"),
        ("main", "50%", "main/50%25~7"),
    ],
)
def test_a_folder_holds_only_harmless_characters(namespace: str, name: str, expected: str) -> None:
    assert folder(namespace, name, 7) == expected


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128))
def test_no_folder_part_is_too_long_or_ends_within_an_escape(name: str) -> None:
    """T-47: one form per path; 255 bytes is what a file system takes."""
    part = escape(name)
    assert 0 < len(part) <= 160
    assert set(part) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%")
    pieces = part.split("%")
    assert all(len(p) >= 2 for p in pieces[1:])


def test_two_names_that_are_cut_alike_still_lie_apart() -> None:
    """T-25: the id decides, whatever the names."""
    assert folder("main", "表" * 127 + "a", 1) != folder("main", "表" * 127 + "b", 2)
