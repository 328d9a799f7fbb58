"""The table of rights (SEMANTICS §5), asked cell by cell."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flightkalam.auth import authorise
from flightkalam.auth.authorise import (
    RULES,
    Action,
    Grant,
    allowed,
    require,
    require_password_change,
    require_user_change,
    visible,
)
from flightkalam.auth.identity import Identity, Role
from flightkalam.errors import AccessDenied, UndefinedObject, undefined_table
from flightkalam.model.schema import AccessLevel, TableKind

U, S, D, Y = Role.USER, Role.SERVICE, Role.DBA, Role.SYSTEM
USER, SHARED, STREAM = TableKind.USER, TableKind.SHARED, TableKind.STREAM
PUBLIC, PRIVATE, RESTRICTED, DBA = AccessLevel.PUBLIC, AccessLevel.PRIVATE, AccessLevel.RESTRICTED, AccessLevel.DBA
ON_TABLES = (
    Action.READ,
    Action.WRITE,
    Action.CREATE,
    Action.ALTER,
    Action.DROP,
    Action.FLUSH,
    Action.COMPACT,
    Action.CHECK,
)
UPKEEP = (Action.FLUSH, Action.COMPACT, Action.CHECK)


def who(role: Role, name: str = "me") -> Identity:
    return Identity.of(name, role, session_id="s", via="token")


def roles(action: Action, kind: TableKind | None = None, access: AccessLevel | None = None, owner: bool = False) -> str:
    """The roles that may, by their initials (y for system)."""
    return "".join(
        letter for role, letter in zip(Role, "usdy", strict=True) if allowed(role, action, kind, access, owner=owner)
    )


# -- the matrix, line by line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [USER, STREAM])
@pytest.mark.parametrize("action", [Action.READ, Action.WRITE])
def test_own_rows_are_everybodys_and_others_rows_are_nobodys(kind: TableKind, action: Action) -> None:
    assert roles(action, kind, owner=True) == "usdy"
    assert roles(action, kind, owner=False) == ""


@pytest.mark.parametrize(
    ("access", "read", "write"),
    [(PUBLIC, "usdy", "sdy"), (PRIVATE, "sdy", "sdy"), (RESTRICTED, "sdy", "sdy"), (DBA, "dy", "dy")],
)
@pytest.mark.parametrize("owner", [True, False])
def test_shared_tables_go_by_their_level_and_not_by_their_creator(
    access: AccessLevel, read: str, write: str, owner: bool
) -> None:
    assert roles(Action.READ, SHARED, access, owner) == read
    assert roles(Action.WRITE, SHARED, access, owner) == write


@pytest.mark.parametrize("kind", [USER, STREAM])
def test_everybody_creates_user_tables_and_a_user_alters_only_their_own(kind: TableKind) -> None:
    assert roles(Action.CREATE, kind) == "usdy"
    assert roles(Action.ALTER, kind, owner=True) == "usdy"
    assert roles(Action.ALTER, kind, owner=False) == "sdy"


@pytest.mark.parametrize("access", list(AccessLevel))
def test_shared_tables_are_made_and_altered_by_service_and_above(access: AccessLevel) -> None:
    assert roles(Action.CREATE, SHARED, access) == "sdy"
    assert roles(Action.ALTER, SHARED, access, owner=True) == ("dy" if access is DBA else "sdy")


@pytest.mark.parametrize("action", UPKEEP)
@pytest.mark.parametrize("kind", list(TableKind))
@pytest.mark.parametrize("owner", [True, False])
def test_upkeep_is_for_service_and_above(action: Action, kind: TableKind, owner: bool) -> None:
    assert roles(action, kind, PRIVATE, owner) == "sdy"


@pytest.mark.parametrize("kind", list(TableKind))
def test_only_a_dba_drops_tables_also_those_a_user_created(kind: TableKind) -> None:
    assert roles(Action.DROP, kind, PRIVATE, owner=True) == "dy"


@pytest.mark.parametrize(
    "action",
    [
        Action.CREATE_NAMESPACE,
        Action.DROP_NAMESPACE,
        Action.MANAGE_USERS,
        Action.MANAGE_STORAGES,
        Action.BACKUP,
        Action.KILL_JOB,
        Action.READ_SYSTEM,
    ],
)
def test_the_service_itself_is_the_dbas(action: Action) -> None:
    assert roles(action) == roles(action, owner=True) == "dy"


def test_everybody_kills_their_own_queries() -> None:
    assert roles(Action.KILL_QUERY, owner=True) == "usdy"
    assert roles(Action.KILL_QUERY, owner=False) == "dy"


@pytest.mark.parametrize("action", [Action.CREATE_VIEW, Action.DROP_VIEW])
def test_views_are_made_by_whoever_may_create_shared_tables(action: Action) -> None:
    assert roles(action) == roles(Action.CREATE, SHARED, PRIVATE) == "sdy"


# -- laws of the table ------------------------------------------------------------------------------------------


def test_no_question_has_two_answers() -> None:
    questions = list(itertools.chain.from_iterable(rule.questions() for rule in RULES))
    assert len(questions) == len(set(questions))


def test_every_question_has_an_answer() -> None:
    for action in Action:
        if action not in ON_TABLES:
            assert roles(action, owner=True), action
            continue
        for kind, access in itertools.product(TableKind, AccessLevel):
            assert allowed(Y, action, kind, access, owner=True), (action, kind, access)


def test_what_is_not_asked_properly_is_refused() -> None:
    assert roles(Action.READ) == roles(Action.READ, SHARED) == roles(Action.BACKUP, SHARED) == ""


def test_more_power_never_means_fewer_rights() -> None:
    order = [Grant.NONE, Grant.OWN, Grant.ALL]
    for rule in RULES:
        ranks = [order.index(rule.grant(role)) for role in Role]
        assert ranks == sorted(ranks), rule


def test_who_may_do_anything_with_an_existing_table_may_see_it() -> None:
    for role, action, kind, access in itertools.product(Role, ON_TABLES, TableKind, AccessLevel):
        if action is not Action.CREATE and allowed(role, action, kind, access, owner=True):
            assert visible(role, kind, access), (role, action, kind, access)


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [a for a in ON_TABLES if a is not Action.CREATE])
@pytest.mark.parametrize(("role", "access"), [(U, PRIVATE), (U, RESTRICTED), (U, DBA), (S, DBA)])
def test_a_refusal_on_a_hidden_table_is_that_of_a_missing_table(action: Action, role: Role, access: AccessLevel) -> None:
    with pytest.raises(UndefinedObject) as caught:
        require(who(role), action, "main.t", SHARED, access, owner=True)
    missing = undefined_table("main.t")
    assert (caught.value.message, caught.value.sqlstate) == (missing.message, missing.sqlstate)


@pytest.mark.parametrize(
    ("action", "kind", "access"),
    [
        (Action.WRITE, SHARED, PUBLIC),
        (Action.DROP, SHARED, PUBLIC),
        (Action.ALTER, USER, None),
        (Action.FLUSH, USER, None),
    ],
)
def test_a_refusal_on_a_visible_table_says_who_may_not_do_what(
    action: Action, kind: TableKind, access: AccessLevel | None
) -> None:
    with pytest.raises(AccessDenied) as caught:
        require(who(U), action, "main.t", kind, access)
    text = caught.value.message
    assert all(part in text for part in ('"me"', "role user", action.value, '"main.t"')) and "None" not in text


def test_refusing_to_create_tells_nothing_but_that() -> None:
    with pytest.raises(AccessDenied, match="create SHARED tables"):
        require(who(U), Action.CREATE, "main.t", SHARED, PRIVATE)


def test_what_is_allowed_passes_in_silence() -> None:
    require(who(S), Action.WRITE, "main.t", SHARED, PRIVATE)
    require(who(U), Action.READ, "main.t", USER, owner=True)
    require(who(D), Action.BACKUP)


def test_rights_are_the_subjects() -> None:
    subject = Identity("u", U, "boss", Y, "s", "token")
    with pytest.raises(AccessDenied):
        require(subject, Action.READ_SYSTEM)


# -- accounts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor", "has", "gets", "ok"),
    [
        (Y, None, Y, True),
        (Y, Y, U, True),
        (D, None, D, True),
        (D, U, D, True),
        (D, None, Y, False),
        (D, U, Y, False),
        (D, Y, U, False),
        (D, Y, None, False),
        (S, None, U, False),
        (U, U, None, False),
    ],
)
def test_nobody_reaches_above_their_own_role(actor: Role, has: Role | None, gets: Role | None, ok: bool) -> None:
    if ok:
        require_user_change(who(actor), "target", has, gets)
        return
    with pytest.raises(AccessDenied):
        require_user_change(who(actor), "target", has, gets)


@pytest.mark.parametrize("role", list(Role))
def test_everybody_may_change_their_own_password(role: Role) -> None:
    require_password_change(who(role), "me", role)


def test_a_dba_may_not_take_over_a_system_account_by_setting_its_password() -> None:
    require_password_change(who(D), "user", U)
    with pytest.raises(AccessDenied):
        require_password_change(who(D), "root", Y)


def test_a_password_is_not_changed_as_somebody_else() -> None:
    with pytest.raises(AccessDenied):
        require_password_change(Identity("u", U, "service", S, "s", "token"), "u", U)


# -- documentation ----------------------------------------------------------------------------------------------


def test_the_documentation_shows_the_table_that_decides() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    assert authorise.with_matrix(page) == page, "run `python -m flightkalam.auth.authorise`"
    assert authorise.matrix_markdown().count("\n") == len(RULES) + 2
