"""Bearer tokens: signed, expiring, and checked against the account as it is now (SEMANTICS §5)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from auth_world import World, cheap
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.auth.identity import Role
from flightkalam.errors import Unauthenticated


def refusal(world: World, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        world.tokens.verify(token)
    assert caught.value.__cause__ is None
    return caught.value.message


def key_of(world: World) -> tuple[str, bytes]:
    return max(world.tokens._keys.items())


def forged(world: World, *, algorithm: str = "HS256", key: bytes | None = None, **changes: Any) -> str:
    """A token signed with the real key (or another) whose claims were changed; None removes one."""
    kid, real = key_of(world)
    now = world.clock.us // 1_000_000
    claims = {"sub": "alice", "sid": "s", "pv": 1, "iat": now, "exp": now + 60, "jti": "j"} | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, real if key is None else key, algorithm=algorithm, headers={"kid": kid})


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_is_who_logged_in(world: World) -> None:
    identity = world.tokens.verify(world.tokens.issue(world.user("Zoë", Role.SERVICE), session_id="s1"))
    assert (identity.user_id, identity.role, identity.session_id, identity.via) == ("Zoë", Role.SERVICE, "s1", "token")
    assert not identity.impersonated


def test_each_login_is_a_session_of_its_own(world: World) -> None:
    account = world.user("alice")
    first, second = (world.tokens.verify(world.tokens.issue(account)) for _ in range(2))
    assert first.session_id != second.session_id


def test_a_token_survives_a_restart(world: World) -> None:
    token = world.tokens.issue(world.user("alice"))
    world.restart()
    assert world.tokens.verify(token).user_id == "alice"


def test_a_token_expires(make_world: Callable[..., World]) -> None:
    world = make_world(token_ttl_seconds=60)
    token = world.tokens.issue(world.user("alice"))
    world.clock.advance(59)
    world.tokens.verify(token)
    world.clock.advance(1)
    refusal(world, token)


def test_a_changed_role_counts_at_once(world: World) -> None:
    token = world.tokens.issue(world.user("alice", Role.DBA))
    world.tokens.verify(token)
    world.accounts.set_role("alice", Role.USER)
    assert world.tokens.verify(token).role is Role.USER


def test_a_changed_password_voids_the_tokens_before_it(world: World) -> None:
    token = world.tokens.issue(world.user("alice"))
    world.tokens.verify(token)
    account = world.accounts.set_password("alice", "another one")
    refusal(world, token)
    world.tokens.verify(world.tokens.issue(account))


def test_a_dropped_user_has_no_tokens(world: World) -> None:
    token = world.tokens.issue(world.user("alice"))
    world.tokens.verify(token)
    world.accounts.drop("alice")
    refusal(world, token)


@pytest.mark.filterwarnings("ignore:The HMAC key")
def test_every_flaw_has_the_same_answer(world: World) -> None:
    world.user("alice")
    kid, key = key_of(world)
    good = forged(world)
    assert world.tokens.verify(good).user_id == "alice"
    head, body, signature = good.split(".")
    claims = {"sub": "alice", "sid": "s", "pv": 1, "iat": 0, "exp": 1 << 40, "jti": "j"}
    flawed = [
        "",
        "x",
        "..",
        "a.b.c",
        "\ud800",
        good + "x",
        good[:-2],
        f"{head}.{body}.",
        f"{head}.{encoded(claims)}.{signature}",
        f"{encoded({'alg': 'none', 'kid': kid})}.{encoded(claims)}.",
        f"{encoded({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        f"{encoded({'alg': 'HS256'})}.{body}.{signature}",
        f"{encoded({'alg': 'HS256', 'kid': 'unknown'})}.{body}.{signature}",
        f"{encoded({'alg': 'HS256', 'kid': [kid]})}.{body}.{signature}",
        f"{encoded([])}.{body}.{signature}",
        base64.urlsafe_b64encode(b"[" * 2_900).decode() + f".{body}.{signature}",
        forged(world, key=b"k" * 32),
        forged(world, algorithm="HS384"),
        forged(world, algorithm="HS512"),
        forged(world, sub="nobody"),
        forged(world, sub="a:b\x00"),
        forged(world, pv=2),
        forged(world, pv=True),
        forged(world, pv="1"),
        forged(world, exp="9999999999"),
        forged(world, exp=world.clock.us // 1_000_000),
        *[forged(world, **{name: None}) for name in ("sub", "sid", "pv", "iat", "exp", "jti")],
        forged(world, sid="x" * 5_000),
    ]
    assert len({refusal(world, token) for token in flawed}) == 1
    assert len(key) == 32


@settings(derandomize=True, deadline=None)
@given(position=st.integers(0, 10_000), replacement=st.characters())
def test_no_changed_character_goes_unnoticed(position: int, replacement: str) -> None:
    world = _fuzzed
    token = _token
    at = position % len(token)
    changed = token[:at] + replacement + token[at + 1 :]
    if changed.rstrip("=") == token or _same_bits(changed, token):
        return
    refusal(world, changed)


_fuzzed = World(cheap())
_token = _fuzzed.tokens.issue(_fuzzed.user("alice"))


def _same_bits(a: str, b: str) -> bool:
    """Base64 leaves the last character's low bits unused: two texts may be one signature."""
    try:
        return [base64.urlsafe_b64decode(p + "==") for p in a.split(".")] == [
            base64.urlsafe_b64decode(p + "==") for p in b.split(".")
        ]
    except ValueError:
        return False


# -- rotation ---------------------------------------------------------------------------------------------------


def test_a_new_key_signs_and_the_old_one_still_verifies(world: World) -> None:
    account = world.user("alice")
    old = world.tokens.issue(account)
    kid = world.tokens.rotate()
    new = world.tokens.issue(account)
    assert jwt.get_unverified_header(new)["kid"] == kid != jwt.get_unverified_header(old)["kid"]
    world.restart()
    assert world.tokens.verify(old).user_id == world.tokens.verify(new).user_id == "alice"
    assert jwt.get_unverified_header(world.tokens.issue(account))["kid"] == kid


def test_a_key_goes_once_all_it_signed_has_expired(make_world: Callable[..., World]) -> None:
    world = make_world(token_ttl_seconds=60)
    first, _ = key_of(world)
    second = world.tokens.rotate()
    world.clock.advance(30)
    third = world.tokens.rotate()
    assert set(world.tokens._keys) == {first, second, third}
    world.clock.advance(59)
    fourth = world.tokens.rotate()
    assert set(world.tokens._keys) == {second, third, fourth}
    world.restart()
    assert set(world.tokens._keys) == {second, third, fourth}


def test_a_rotated_key_signs_even_if_the_clock_was_set_back(world: World) -> None:
    account = world.user("alice")
    world.clock.advance(-3_600)
    kid = world.tokens.rotate()
    assert jwt.get_unverified_header(world.tokens.issue(account))["kid"] == kid
