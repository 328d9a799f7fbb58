"""API tokens: named, long-lived, revocable, shown once (SEMANTICS §5)."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from auth_world import World, cheap
from hypothesis import given
from hypothesis import strategies as st

from flightkalam.auth.api_tokens import MOST_PER_USER, ApiTokens, expiry
from flightkalam.auth.identity import Role
from flightkalam.errors import DuplicateObject, InvalidValue, Unauthenticated, UndefinedObject

EMPTY = World(cheap())
NOW = 1_750_000_000_000_000


@pytest.fixture
def tokens(world: World) -> ApiTokens:
    return opened(world)


def opened(world: World) -> ApiTokens:
    numbers = itertools.count(1)
    return ApiTokens(
        world.store,  # type: ignore[arg-type]
        world.clock,
        world.accounts,
        entropy=lambda n: (next(numbers) + len(world.store.data)).to_bytes(n, "little"),
    )


def refusal(tokens: ApiTokens, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.verify(text)
    return caught.value.message


def test_a_token_is_its_user_with_the_role_of_now(world: World, tokens: ApiTokens) -> None:
    world.user("svc", Role.SERVICE)
    _, text = tokens.create("svc", "nightly", None, by="root")
    identity = tokens.verify(text)
    assert (identity.user_id, identity.role, identity.via) == ("svc", Role.SERVICE, "api token")
    world.accounts.set_role("svc", Role.USER)
    assert tokens.verify(text).role is Role.USER


def test_its_secret_is_kept_nowhere(world: World, tokens: ApiTokens) -> None:
    world.user("svc")
    record, text = tokens.create("svc", "nightly", "30 days", by="root")
    secret = text.split("_", 2)[2]
    assert all(secret.encode() not in value for value in world.store.data.values())
    assert secret not in repr(record) and record.digest not in repr(record)


def test_it_survives_a_restart_and_a_changed_password_but_not_its_drop(world: World, tokens: ApiTokens) -> None:
    world.user("svc")
    _, text = tokens.create("svc", "a", None, by="root")
    _, other = tokens.create("svc", "b", None, by="root")
    again = opened(world)
    world.accounts.set_password("svc", "another password")
    assert again.verify(text).user_id == "svc"
    again.drop("svc", "a")
    refusal(again, text)
    assert again.verify(other).user_id == "svc" and opened(world).verify(other).user_id == "svc"
    with pytest.raises(UndefinedObject, match='has no token "a"'):
        again.drop("svc", "a")


def test_it_ends_with_its_time_and_with_its_user(world: World, tokens: ApiTokens) -> None:
    world.user("svc")
    _, short = tokens.create("svc", "short", "60 seconds", by="root")
    _, long = tokens.create("svc", "long", None, by="root")
    world.clock.advance(59)
    tokens.verify(short)
    world.clock.advance(1)
    refusal(tokens, short)
    world.accounts.drop("svc")
    refusal(tokens, long)


def test_names_are_unique_per_user(world: World, tokens: ApiTokens) -> None:
    world.user("a"), world.user("b")
    tokens.create("a", "x", None, by="root")
    tokens.create("b", "x", None, by="root")
    with pytest.raises(DuplicateObject):
        tokens.create("a", "x", None, by="root")
    assert [(t.user, t.name) for t in tokens.of()] == [("a", "x"), ("b", "x")]
    tokens.drop_all("a")
    assert [t.user for t in tokens.of()] == ["b"]


def test_bad_names_users_and_too_many_are_refused(world: World, tokens: ApiTokens) -> None:
    world.user("a")
    for name in ("", "x" * 129, "a\nb"):
        with pytest.raises(InvalidValue, match="token name"):
            tokens.create("a", name, None, by="root")
    with pytest.raises(UndefinedObject):
        tokens.create("nobody", "x", None, by="root")
    for i in range(MOST_PER_USER):
        tokens.create("a", f"t{i}", None, by="root")
    with pytest.raises(InvalidValue, match="drop some"):
        tokens.create("a", "one more", None, by="root")


def test_whatever_is_wrong_the_answer_is_one(world: World, tokens: ApiTokens) -> None:
    world.user("svc")
    _, text = tokens.create("svc", "t", None, by="root")
    prefix, id_, secret = text.split("_", 2)
    other = "A" if secret[0] != "A" else "B"
    wrong = [
        "fkt_",
        text[:-1],
        text + "A",
        f"{prefix}_{id_}_{other}{secret[1:]}",
        f"{prefix}_{'0' * 24}_{secret}",
        f"{prefix}_{id_}_" + "é" * 43,
        text.upper(),
    ]
    assert {refusal(tokens, t) for t in wrong} == {"the token is not valid or has expired; log in again"}


@given(st.text(max_size=120))
def test_no_text_is_let_in_or_breaks_anything(text: str) -> None:
    refusal(opened(EMPTY), "fkt_" + text)


@pytest.mark.parametrize(
    "text, seconds",
    [("1 second", 1), ("30 days", 2_592_000), (" 2 WEEKS ", 1_209_600), ("1 year", 31_536_000)],
)
def test_spans(text: str, seconds: int) -> None:
    assert expiry(text, NOW) == NOW + seconds * 1_000_000


@pytest.mark.parametrize("text", ["2031-01-31", "2031-01-31T00:00:00Z", "2031-01-31 02:00:00+02:00"])
def test_points_in_time(text: str) -> None:
    assert expiry(text, NOW) == int(dt.datetime(2031, 1, 31, tzinfo=dt.UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("text", ["", "soon", "0 days", "-1 day", "2001-01-01", "30", "9999999 days", "1 day 2 hours"])
def test_what_is_no_end_or_is_over_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="EXPIRES"):
        expiry(text, NOW)
