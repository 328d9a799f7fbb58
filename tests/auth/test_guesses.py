"""Token buckets: how many guesses there are, per name and per peer, and that only failures spend them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from auth_world import PASSWORD, ManualClock, World
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.auth.accounts import Flood
from flightkalam.auth.guesses import Buckets, peer_key_of
from flightkalam.auth.passwords import Passwords
from flightkalam.errors import Unauthenticated


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The stored hashes that passwords were compared with; None for the dummy."""
    real, seen = Passwords.matches, []

    def matches(self: Passwords, stored: str | None, password: str) -> bool:
        seen.append(stored)
        return real(self, stored, password)

    monkeypatch.setattr(Passwords, "matches", matches)
    return seen


def guess(world: World, name: str, times: int = 1, peer: str = "ipv4:192.0.2.1:5000") -> str:
    message = ""
    for _ in range(times):
        with pytest.raises(Unauthenticated) as refusal:
            world.accounts.verify(name, "wrong password", peer)
        message = refusal.value.message
    return message


def test_ten_thousand_guesses_in_a_minute_reach_the_hash_ten_times_at_most(
    make_world: Callable[..., World], hashed: list[str | None]
) -> None:
    world = make_world(guesses_per_user=5, guesses_per_peer=1_000_000)
    own = world.user("alice").password_hash
    for _ in range(10_000):
        guess(world, "alice")
        world.clock.advance(0.006)
    assert 5 <= len(hashed) <= 10
    assert hashed.count(own) == 5  # then the account is locked, and what is hashed is a dummy


def test_ten_thousand_guesses_at_once_do_not_either(make_world: Callable[..., World], hashed: list[str | None]) -> None:
    world = make_world(guesses_per_user=5)
    world.user("alice")
    threads = [threading.Thread(target=guess, args=(world, "alice", 50)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashed) == 5


def test_a_name_without_account_has_the_same_buckets_and_the_same_answer(
    make_world: Callable[..., World], hashed: list[str | None]
) -> None:
    world = make_world(guesses_per_user=3, lockout_failures=100)
    world.user("alice")
    answers = {guess(world, name, times) for name in ("alice", "nobody", "no:body", "\0") for times in (3, 5)}
    assert len(answers) == 1
    assert len(hashed) == 12


def test_one_peer_that_tries_many_names_is_stopped_and_no_other(
    make_world: Callable[..., World], hashed: list[str | None]
) -> None:
    world = make_world(guesses_per_user=5, guesses_per_peer=20)
    world.user("alice")
    for i in range(100):
        guess(world, f"user{i}", peer=f"ipv4:192.0.2.1:{i + 1000}")
    assert len(hashed) == 20
    with pytest.raises(Unauthenticated):
        world.accounts.verify("alice", PASSWORD, "ipv4:192.0.2.1:7")
    assert world.accounts.verify("alice", PASSWORD, "ipv4:192.0.2.2:7").name == "alice"
    world.clock.advance(3)  # a twentieth of a minute: one guess is back
    world.accounts._recent._entries.clear()
    assert world.accounts.verify("alice", PASSWORD, "ipv4:192.0.2.1:7").name == "alice"


def test_right_passwords_spend_nothing(make_world: Callable[..., World]) -> None:
    world = make_world(guesses_per_user=1, guesses_per_peer=1)
    world.user("alice")
    for _ in range(50):
        world.accounts._recent._entries.clear()
        assert world.accounts.verify("alice", PASSWORD, "ipv4:192.0.2.1:7").name == "alice"


def test_many_right_logins_at_once_wait_for_each_other_and_all_come_in(make_world: Callable[..., World]) -> None:
    world = make_world(guesses_per_user=1)
    world.user("alice")
    came_in: list[str] = []

    def log_in() -> None:
        came_in.append(world.accounts.verify("alice", PASSWORD, "ipv4:192.0.2.1:7").name)

    threads = [threading.Thread(target=log_in) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(came_in) == 20


def test_of_a_flood_the_first_refusal_is_marked(make_world: Callable[..., World]) -> None:
    world = make_world(guesses_per_user=2, lockout_failures=100)
    marks = []
    for _ in range(6):
        with pytest.raises(Unauthenticated) as refusal:
            world.accounts.verify("nobody", "wrong password")
        marks.append(refusal.value.first if isinstance(refusal.value, Flood) else None)
    assert marks == [None, None, True, False, False, False]


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("ipv4:192.0.2.1:5000", "ipv4:192.0.2.1:5001", True),
        ("ipv4:192.0.2.1:5000", "ipv4:192.0.2.2:5000", False),
        ("ipv6:[2001:db8::1]:5000", "ipv6:%5B2001:db8::ffff%5D:1", True),
        ("ipv6:[2001:db8::1]:5000", "ipv6:[2001:db8:0:1::1]:5000", False),
        ("ipv6:[::ffff:192.0.2.1]:5000", "ipv4:192.0.2.1:1", True),
    ],
)
def test_a_peer_is_an_address_without_its_port(one: str, other: str, same: bool) -> None:
    assert peer_key_of(one) is not None and (peer_key_of(one) == peer_key_of(other)) is same


@pytest.mark.parametrize("peer", ["handshake", "", "unix:", "unix:/tmp/s", "ipv4:nonsense:1", "ipv4:"])
def test_where_the_peer_is_not_known_only_the_name_counts(peer: str) -> None:
    assert peer_key_of(peer) is None


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 10),
    steps=st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60),
)
def test_in_any_window_at_most_twice_the_size_fails(size: int, steps: list[tuple[float, bool]]) -> None:
    clock = ManualClock()
    buckets, failures = Buckets(clock, size, 60.0), []
    for pause, fails in steps:
        clock.advance(pause)
        if buckets.enter(b"k"):
            buckets.leave(b"k", failed=fails)
            failures += [clock.monotonic()] if fails else []
        else:
            assert len([t for t in failures if clock.monotonic() - t <= 60]) >= size - 1
    for start in failures:
        assert len([t for t in failures if start <= t < start + 60]) <= 2 * size
