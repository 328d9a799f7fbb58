"""Names, passwords, roles (SEMANTICS §5)."""

from __future__ import annotations

import pytest

from flightkalam.auth.identity import Identity, Role, check_password, check_user_name
from flightkalam.errors import InvalidValue


@pytest.mark.parametrize("name", ["a", "A", "Zoë", "张伟", "x" * 128, "o'brien", "a/../b", " a b ", "👩‍🔬"])
def test_any_text_without_control_characters_is_a_name(name: str) -> None:
    assert check_user_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x00", "a\nb", "\x7f", "a\x85b", "a:b", "\ud800"])
def test_other_texts_are_not(name: str) -> None:
    with pytest.raises(InvalidValue, match="user name"):
        check_user_name(name)


def test_two_spellings_of_one_look_are_one_name() -> None:
    assert check_user_name("Zoe\u0308") == check_user_name("Zo\u00eb") == "Zo\u00eb"


def test_a_name_is_measured_in_its_stored_form() -> None:
    assert len(check_user_name("e\u0308" * 128)) == 128


def test_names_that_differ_in_case_are_different_names() -> None:
    assert check_user_name("Alice") != check_user_name("alice")


@pytest.mark.parametrize("password", ["x" * 8, "x" * 1_024, "ääää", "\x00" * 8, " " * 8])
def test_a_password_has_8_to_1024_bytes_and_no_other_rule(password: str) -> None:
    assert check_password(password) == password


@pytest.mark.parametrize("password", ["", "sevenchr"[:7], "x" * 1_025, "ä" * 513, "\ud800longenough"])
def test_other_passwords_are_refused_without_being_shown(password: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_password(password)
    assert not password or password not in caught.value.message


def test_roles_are_ordered_by_power() -> None:
    assert Role.USER < Role.SERVICE < Role.DBA < Role.SYSTEM


def test_the_numbers_of_roles_are_stored_and_never_change() -> None:
    assert {role.label: int(role) for role in Role} == {"user": 1, "service": 2, "dba": 3, "system": 4}


def test_a_role_is_read_in_any_case() -> None:
    assert Role.parse(" DBA ") is Role.DBA
    with pytest.raises(InvalidValue, match="user, service, dba, system"):
        Role.parse("admin")


def test_who_acts_for_themselves_is_not_impersonated() -> None:
    identity = Identity.of("a", Role.DBA, session_id="s", via="token")
    assert (identity.actor_id, identity.actor_role, identity.impersonated) == ("a", Role.DBA, False)
