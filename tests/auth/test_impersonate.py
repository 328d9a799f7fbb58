"""AS USER: who may act for whom (SEMANTICS §5, T-48)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from auth_world import World

import flightkalam
from flightkalam.auth.identity import Identity, Role
from flightkalam.auth.impersonate import REFUSED, impersonate, reconfirm
from flightkalam.errors import AccessDenied

U, S, D, Y = Role.USER, Role.SERVICE, Role.DBA, Role.SYSTEM


def refused(actor: Identity, user: str, world: World) -> None:
    with pytest.raises(AccessDenied) as caught:
        impersonate(actor, user, world.accounts)
    assert caught.value.message == REFUSED == "Invalid user_id for AS USER operation"


@pytest.mark.parametrize(
    ("actor_role", "allowed"), [(Y, {U, S, D, Y}), (D, {U, S, D}), (S, {U, S}), (U, set())], ids=lambda v: str(v)
)
@pytest.mark.parametrize("subject_role", list(Role))
def test_every_pair_of_roles(world: World, actor_role: Role, allowed: set[Role], subject_role: Role) -> None:
    actor = world.identity("actor", actor_role)
    world.user("subject", subject_role)
    if subject_role not in allowed:
        refused(actor, "subject", world)
        return
    identity = impersonate(actor, "subject", world.accounts)
    assert (identity.user_id, identity.role) == ("subject", subject_role)
    assert (identity.actor_id, identity.actor_role) == ("actor", actor_role)
    assert (identity.session_id, identity.impersonated) == (actor.session_id, True)


@pytest.mark.parametrize("role", list(Role))
def test_acting_for_oneself_changes_nothing(world: World, role: Role) -> None:
    actor = world.identity("actor", role)
    assert impersonate(actor, "actor", world.accounts) == actor


@pytest.mark.parametrize("user", ["nobody", "dropped", "Subject", "", "a:b", "\x00", "\ud800", "x" * 200, "subject "])
@pytest.mark.parametrize("role", list(Role))
def test_a_subject_who_is_not_there_is_the_same_error_for_everybody(world: World, role: Role, user: str) -> None:
    world.user("subject")
    world.user("dropped")
    world.accounts.drop("dropped")
    refused(world.identity("actor", role), user, world)


def test_a_name_is_found_in_either_spelling(world: World) -> None:
    world.user("Zo\u00eb")
    assert impersonate(world.identity("actor", S), "Zoe\u0308", world.accounts).user_id == "Zo\u00eb"


def test_nobody_acts_through_a_third(world: World) -> None:
    world.user("service", S)
    world.user("user")
    middle = impersonate(world.identity("actor", Y), "service", world.accounts)
    refused(middle, "user", world)
    refused(middle, "service", world)
    refused(middle, "actor", world)


def test_a_subject_dropped_between_check_and_commit_is_refused(world: World) -> None:
    world.user("subject")
    identity = impersonate(world.identity("actor", S), "subject", world.accounts)
    assert reconfirm(identity, world.accounts) == identity
    world.accounts.drop("subject")
    with pytest.raises(AccessDenied, match=REFUSED):
        reconfirm(identity, world.accounts)


def test_a_subject_promoted_out_of_reach_between_check_and_commit_is_refused(world: World) -> None:
    world.user("subject")
    identity = impersonate(world.identity("actor", S), "subject", world.accounts)
    world.accounts.set_role("subject", D)
    with pytest.raises(AccessDenied, match=REFUSED):
        reconfirm(identity, world.accounts)


@pytest.mark.parametrize("change", ["demoted", "dropped"])
def test_an_actor_who_lost_the_right_between_check_and_commit_is_refused(world: World, change: str) -> None:
    world.user("subject", S)
    identity = impersonate(world.identity("actor", D), "subject", world.accounts)
    if change == "demoted":
        world.accounts.set_role("actor", U)
    else:
        world.accounts.drop("actor")
    with pytest.raises(AccessDenied, match=REFUSED):
        reconfirm(identity, world.accounts)


def test_who_acts_for_themselves_has_nothing_to_reconfirm(world: World) -> None:
    actor = world.identity("actor", U)
    assert reconfirm(actor, world.accounts) is actor


def test_nothing_else_in_the_project_makes_an_identity_with_two_people_in_it() -> None:
    """`Identity(...)` by its fields, or `replace(…, user_id=…)`: only here and in identity.py."""
    package = Path(flightkalam.__file__).parent
    makers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            names = {keyword.arg for keyword in node.keywords}
            if called == "Identity" or (called == "replace" and names & {"user_id", "actor_id", "actor_role"}):
                makers.add(path.relative_to(package).as_posix())
    assert makers <= {"auth/identity.py", "auth/impersonate.py"}
    assert "auth/impersonate.py" in makers
