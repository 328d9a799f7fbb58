"""Accounts and logging in (SEMANTICS §5)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from auth_world import PASSWORD, World

from flightkalam.auth.accounts import Accounts
from flightkalam.auth.identity import Role
from flightkalam.auth.passwords import Passwords
from flightkalam.clock import SystemClock
from flightkalam.config import Config
from flightkalam.errors import DependentObjects, DuplicateObject, InvalidValue, Unauthenticated, UndefinedObject
from flightkalam.storage.kv import Store

WRONG = "wrong horse"


def refusal(world: World, name: str, password: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        world.accounts.verify(name, password, "peer")
    return caught.value.message


def fail(world: World, name: str, times: int) -> None:
    for _ in range(times):
        refusal(world, name, WRONG)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What passwords were checked against: a stored hash, or None for the dummy."""
    seen: list[str | None] = []
    real = Passwords.matches

    def matches(self: Passwords, stored: str | None, password: str) -> bool:
        seen.append(stored)
        return real(self, stored, password)

    monkeypatch.setattr(Passwords, "matches", matches)
    return seen


# -- the life of an account -------------------------------------------------------------------------------------


def test_a_new_account_can_log_in_also_after_a_restart(world: World) -> None:
    world.user("alice", Role.SERVICE)
    world.restart()
    account = world.accounts.verify("alice", PASSWORD)
    assert (account.name, account.role, account.created_at) == ("alice", Role.SERVICE, world.clock.us)


def test_a_password_is_kept_as_argon2id_and_never_shown(world: World) -> None:
    account = world.user("alice")
    assert account.password_hash.startswith("$argon2id$v=19$m=512,t=1,p=1$")
    assert all(PASSWORD.encode() not in value for value in world.store.data.values())
    assert account.password_hash not in repr(account) and PASSWORD not in repr(account)


def test_equal_passwords_have_different_hashes(world: World) -> None:
    assert world.user("alice").password_hash != world.user("bob").password_hash


def test_names_are_exact(world: World) -> None:
    world.user("alice")
    assert world.accounts.get("Alice") is None
    world.user("Alice")
    assert [a.name for a in world.accounts.list()] == ["Alice", "alice"]


def test_both_spellings_of_a_name_log_in(world: World) -> None:
    world.user("Zoe\u0308")
    assert world.accounts.verify("Zo\u00eb", PASSWORD).name == world.accounts.verify("Zoe\u0308", PASSWORD).name


def test_a_taken_name_is_refused_and_nothing_is_written(world: World) -> None:
    world.user("alice")
    commits = world.store.commits
    with pytest.raises(DuplicateObject, match="already exists"):
        world.accounts.create("alice", "another one", Role.DBA)
    assert world.store.commits == commits
    assert world.accounts.verify("alice", PASSWORD).role is Role.USER


def test_bad_names_and_passwords_are_refused(world: World) -> None:
    with pytest.raises(InvalidValue):
        world.accounts.create("a:b", PASSWORD, Role.USER)
    with pytest.raises(InvalidValue):
        world.accounts.create("alice", "short", Role.USER)
    assert world.accounts.find("alice") is None


def test_a_dropped_account_is_gone_and_its_name_stays_taken(world: World) -> None:
    world.user("alice")
    dropped = world.accounts.drop("alice")
    assert dropped.dropped_at == world.clock.us and dropped.password_hash == ""
    assert world.accounts.get("alice") is None
    assert [a.name for a in world.accounts.list()] == []
    assert [a.name for a in world.accounts.list(dropped=True)] == ["alice"]
    with pytest.raises(DuplicateObject, match="dropped name cannot be created again"):
        world.user("alice")
    with pytest.raises(UndefinedObject):
        world.accounts.drop("alice")


@pytest.mark.parametrize("change", ["set_password", "set_role", "drop"])
def test_changing_an_unknown_account_says_so(world: World, change: str) -> None:
    arguments = {"set_password": (PASSWORD,), "set_role": (Role.DBA,), "drop": ()}[change]
    with pytest.raises(UndefinedObject, match='"nobody" does not exist'):
        getattr(world.accounts, change)("nobody", *arguments)


def test_a_changed_password_replaces_the_old_one(world: World) -> None:
    world.user("alice")
    world.accounts.verify("alice", PASSWORD)
    assert world.accounts.set_password("alice", "another one").password_version == 2
    refusal(world, "alice", PASSWORD)
    world.accounts.verify("alice", "another one")


def test_a_change_and_what_belongs_to_it_are_one_write(world: World) -> None:
    world.accounts.create("alice", PASSWORD, Role.USER, extra=lambda batch: batch.put("audit", b"1", b"created"))
    assert world.store.commits - 1 == 1  # the first was the signing key
    assert world.store.get("audit", b"1") == b"created"


def test_somebody_of_role_system_always_remains(world: World) -> None:
    world.user("root", Role.SYSTEM)
    with pytest.raises(DependentObjects, match="last one of role system"):
        world.accounts.drop("root")
    with pytest.raises(DependentObjects, match="last one of role system"):
        world.accounts.set_role("root", Role.DBA)
    world.user("heir", Role.SYSTEM)
    world.accounts.set_role("root", Role.DBA)
    with pytest.raises(DependentObjects):
        world.accounts.drop("heir")


# -- root -------------------------------------------------------------------------------------------------------


def test_the_first_start_creates_root_with_a_generated_password_told_once(world: World) -> None:
    password = world.accounts.ensure_root()
    assert password is not None and len(password) >= 24
    assert world.accounts.verify("root", password).role is Role.SYSTEM
    world.restart()
    assert world.accounts.ensure_root() is None


def test_the_first_start_takes_the_configured_password(make_world: Callable[..., World]) -> None:
    world = make_world(root_password="from the config")
    assert world.accounts.ensure_root() is None
    assert world.accounts.verify("root", "from the config").role is Role.SYSTEM


def test_later_starts_ignore_the_configured_password(world: World, make_world: Callable[..., World]) -> None:
    world.user("root", Role.SYSTEM)
    later = make_world(root_password="from the config")
    world.config = later.config
    world.restart()
    assert world.accounts.ensure_root() is None
    world.accounts.verify("root", PASSWORD)
    refusal(world, "root", "from the config")


# -- refusals are alike -----------------------------------------------------------------------------------------


def test_every_refusal_has_one_text_and_costs_one_hash_and_one_durable_write(world: World, hashes: list[str | None]) -> None:
    world.user("alice")
    world.user("dropped")
    world.accounts.drop("dropped")
    locked = world.user("locked")
    fail(world, "locked", 5)
    hashes.clear()
    texts, writes = set(), []
    for name, password in [
        ("alice", WRONG),
        ("nobody", WRONG),
        ("dropped", PASSWORD),
        ("locked", PASSWORD),
        ("locked", WRONG),
        ("not:a\x00name", WRONG),
        ("", ""),
        ("\ud800", "\ud800"),
        ("alice", "x" * 5_000),
    ]:
        before = world.store.commits
        texts.add(refusal(world, name, password))
        writes.append(world.store.commits - before)
    assert len(texts) == 1
    assert writes == [1] * 9
    assert len(hashes) == 9
    assert locked.password_hash not in hashes, "a locked account's hash is out of reach"


def test_the_dummy_hash_costs_what_a_real_one_costs(world: World) -> None:
    real = world.user("alice").password_hash
    dummy = world.accounts._passwords._dummy
    assert real.split("$")[:4] == dummy.split("$")[:4]


def test_a_name_that_no_account_has_is_not_logged(world: World) -> None:
    world.user("alice")
    with structlog.testing.capture_logs() as logged:
        refusal(world, "my-secret-typed-into-the-wrong-box", WRONG)
        refusal(world, "alice", WRONG)
    assert [line["user"] for line in logged] == [None, "alice"]
    assert all(WRONG not in str(line) for line in logged)


# -- lock-out ---------------------------------------------------------------------------------------------------


def test_five_failures_lock_for_fifteen_minutes(world: World) -> None:
    world.user("alice")
    fail(world, "alice", 4)
    world.accounts.verify("alice", PASSWORD)
    fail(world, "alice", 5)
    refusal(world, "alice", PASSWORD)
    world.clock.advance(899)
    refusal(world, "alice", PASSWORD)
    world.clock.advance(1)
    world.accounts.verify("alice", PASSWORD)


def test_a_lock_survives_a_restart(world: World) -> None:
    world.user("alice")
    fail(world, "alice", 3)
    world.restart()
    fail(world, "alice", 2)
    world.restart()
    refusal(world, "alice", PASSWORD)


def test_failures_while_locked_do_not_prolong_the_lock(world: World) -> None:
    world.user("alice")
    fail(world, "alice", 5)
    world.clock.advance(800)
    fail(world, "alice", 20)
    world.clock.advance(100)
    world.accounts.verify("alice", PASSWORD)


def test_after_a_lock_the_count_starts_anew(world: World) -> None:
    world.user("alice")
    fail(world, "alice", 5)
    world.clock.advance(900)
    fail(world, "alice", 4)
    world.accounts.verify("alice", PASSWORD)


def test_a_lock_also_stops_credentials_that_were_right_a_moment_ago(world: World) -> None:
    world.user("alice")
    world.accounts.verify("alice", PASSWORD)
    fail(world, "alice", 5)
    refusal(world, "alice", PASSWORD)


def test_a_new_password_lifts_the_lock(world: World) -> None:
    world.user("alice")
    fail(world, "alice", 5)
    world.accounts.set_password("alice", "another one")
    world.accounts.verify("alice", "another one")


def test_the_lock_is_configurable(make_world: Callable[..., World]) -> None:
    world = make_world(lockout_failures=2, lockout_seconds=10)
    world.user("alice")
    fail(world, "alice", 2)
    refusal(world, "alice", PASSWORD)
    world.clock.advance(10)
    world.accounts.verify("alice", PASSWORD)


def test_a_right_guess_among_many_at_once_is_refused_once_the_others_locked_the_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.user("alice")
    real = Passwords.matches

    def others_fail_meanwhile(self: Passwords, stored: str | None, password: str) -> bool:
        monkeypatch.setattr(Passwords, "matches", real)
        fail(world, "alice", 5)
        return real(self, stored, password)

    monkeypatch.setattr(Passwords, "matches", others_fail_meanwhile)
    refusal(world, "alice", PASSWORD)


def test_no_failure_is_lost_between_threads(make_world: Callable[..., World]) -> None:
    world = make_world(lockout_failures=100)
    world.user("alice")
    threads = [threading.Thread(target=fail, args=(world, "alice", 4)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account = world.accounts.get("alice")
    assert account is not None and account.failed == 32


# -- Basic on every call ----------------------------------------------------------------------------------------


def test_credentials_that_were_right_are_not_hashed_again_for_a_minute(world: World, hashes: list[str | None]) -> None:
    world.user("alice")
    for _ in range(10):
        world.accounts.verify("alice", PASSWORD)
    assert len(hashes) == 1
    world.clock.advance(60)
    world.accounts.verify("alice", PASSWORD)
    assert len(hashes) == 2


def test_a_remembered_login_shows_the_role_of_now(world: World) -> None:
    world.user("alice")
    world.accounts.verify("alice", PASSWORD)
    world.accounts.set_role("alice", Role.DBA)
    assert world.accounts.verify("alice", PASSWORD).role is Role.DBA


def test_a_remembered_login_ends_with_the_account(world: World) -> None:
    world.user("alice")
    world.accounts.verify("alice", PASSWORD)
    world.accounts.drop("alice")
    refusal(world, "alice", PASSWORD)


def test_a_remembered_login_is_no_ones_elses(world: World) -> None:
    world.accounts.create("ab", "c" + PASSWORD, Role.USER)
    world.accounts.create("abc", "other " + PASSWORD, Role.USER)
    world.accounts.verify("ab", "c" + PASSWORD)
    refusal(world, "abc", PASSWORD)
    refusal(world, "ab", PASSWORD)


def test_new_costs_are_taken_over_at_the_next_login(world: World, make_world: Callable[..., World]) -> None:
    before = world.user("alice")
    world.config = make_world(argon2_time_cost=2).config
    world.restart()
    after = world.accounts.verify("alice", PASSWORD)
    assert ",t=1," in before.password_hash and ",t=2," in after.password_hash
    assert after.password_version == before.password_version, "tokens stay good"
    world.restart()
    world.accounts.verify("alice", PASSWORD)


# -- the real store ---------------------------------------------------------------------------------------------


def test_accounts_live_in_the_real_store(tmp_path: Path) -> None:
    config = Config(auth={"argon2_time_cost": 1, "argon2_memory_kib": 512})
    store = Store(tmp_path / "kv")
    password = Accounts(store, SystemClock(), config).ensure_root()
    store.close()
    store = Store(tmp_path / "kv")
    try:
        accounts = Accounts(store, SystemClock(), config)
        assert password is not None
        assert accounts.verify("root", password).name == "root"
        assert [a.name for a in accounts.list()] == ["root"]
    finally:
        store.close()
