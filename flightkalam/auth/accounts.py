"""Accounts: names, roles and password hashes, in the key-value store.

A login has four possible ends, and three of them must look alike to the caller, in text and in time (SEMANTICS §5):

    account   password        hashed against     written         answer
    live      right           its own hash       (reset, rehash) the account
    live      wrong           its own hash       its failures    Unauthenticated ┐
    locked    any             a dummy hash       a decoy         Unauthenticated ├ one text
    none      any             a dummy hash       a decoy         Unauthenticated ┘

Before any hash a guess must find room in the buckets of its name and its peer (`guesses`); beyond them the same answer comes
at once, for names with and without account alike.

A locked account's own hash is never reached, so a lock ends guessing.  The decoy is there because a durable write takes
longer than the network's noise.  Guesses that run at the same time are settled one after the other once hashed: after
the one that locks the account, even a right one is refused.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flightkalam.auth.guesses import Guesses
from flightkalam.auth.identity import Role, check_password, check_user_name
from flightkalam.auth.passwords import Passwords, RecentLogins
from flightkalam.clock import Clock
from flightkalam.config import Config
from flightkalam.errors import (
    DataCorrupted,
    DependentObjects,
    DuplicateObject,
    InvalidValue,
    Unauthenticated,
    UndefinedObject,
)
from flightkalam.storage.kv import Batch, Store
from flightkalam.telemetry import logger

ROOT = "root"
FAMILY = "accounts"
_PREFIX = b"user/"
_DECOY = b"decoy/failure"
_REFUSED = "the user name or password is not right, or the account is locked; check them, or try again later"

# Adds to the atomic batch of a change, under the commit mutex.
Extra = Callable[[Batch], object]
Commit = Callable[[Batch, "Extra | None"], None]

log = logger("auth")


class Account(BaseModel):
    """One account as it is stored.  Times are microseconds since the Unix epoch.

    :param password_version: grows with every change that must end the tokens handed out before it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    name: str
    role: Role
    password_hash: str = Field(repr=False)
    created_at: int
    dropped_at: int | None = None
    password_version: int = 1
    failed: int = 0
    locked_until: int = 0

    @property
    def live(self) -> bool:
        return self.dropped_at is None

    def locked(self, now_us: int) -> bool:
        return now_us < self.locked_until

    def changed(self, **changes: object) -> Account:
        return self.model_copy(update=changes)


def refused() -> Unauthenticated:
    """The one answer to credentials that do not do."""
    return Unauthenticated(_REFUSED)


class Flood(Unauthenticated):
    """The same refusal without a look at the password, after too many failures.

    :ivar first: the first since a guess was let in: worth a record, which the thousandth is not.
    """

    def __init__(self, message: str, *, first: bool = True) -> None:
        super().__init__(message)
        self.first = first


class Accounts:
    """All accounts.  Thread-safe.

    Methods that change an account take `extra`: it adds to the change's atomic batch, such as its audit record.

    :param commit: makes a batch durable, together with what the second argument adds to it under the commit mutex.
    :param entropy: n unpredictable bytes; handed in so that tests can choose them.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        config: Config,
        *,
        commit: Commit | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._commit = commit or self._commit_alone
        self._clock = clock
        self._config = config.auth
        self._entropy = entropy
        self._passwords = Passwords(config.auth, entropy)
        self._recent = RecentLogins(clock, entropy)
        self._guesses = Guesses(
            clock, config.auth.guesses_per_user, config.auth.guesses_per_peer, config.auth.guess_window_seconds
        )
        self._lock = threading.Lock()  # read-change-write of a record

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, name: str) -> Account | None:
        """The live account of that exact name."""
        account = self.find(name)
        return account if account is not None and account.live else None

    def find(self, name: str) -> Account | None:
        """The account of that exact name, dropped or not."""
        try:
            key = _key(name)
        except UnicodeEncodeError:
            return None
        record = self._store.get(FAMILY, key)
        return _decode(record) if record is not None else None

    def list(self, *, dropped: bool = False) -> Iterator[Account]:
        """The accounts by name; the dropped ones too, if asked for."""
        for _, record in self._store.scan(FAMILY, _PREFIX):
            account = _decode(record)
            if account.live or dropped:
                yield account

    # -- changing ---------------------------------------------------------------------------------------------

    def create(self, name: str, password: str, role: Role, *, extra: Extra | None = None) -> Account:
        """
        :raises DuplicateObject: the name is taken, or was by an account since dropped.
        """
        return self._create(check_user_name(name), self._passwords.hash(check_password(password)), role, extra)

    def create_without_password(self, name: str, role: Role) -> Account:
        """An account for somebody whom an identity provider or a certificate vouches for; no password opens it.

        :raises DuplicateObject: the name is taken, or was by an account since dropped.
        """
        return self._create(check_user_name(name), "", role, None)

    def _create(self, name: str, hashed: str, role: Role, extra: Extra | None) -> Account:
        with self._lock:
            earlier = self.find(name)
            if earlier is not None:
                why = "already exists" if earlier.live else "was dropped, and a dropped name cannot be created again"
                raise DuplicateObject(f'user "{name}" {why}; choose another name', sqlstate="42710")
            return self._put(Account(name=name, role=role, password_hash=hashed, created_at=self._clock.now_us()), extra)

    def set_password(self, name: str, password: str, *, extra: Extra | None = None) -> Account:
        """Change the password; every token is void, and a lock is lifted."""
        return self.change(name, password=password, extra=extra)

    def set_role(self, name: str, role: Role, *, extra: Extra | None = None) -> Account:
        """Change the role; it counts from the user's next call on, whatever token they hold."""
        return self.change(name, role=role, extra=extra)

    def change(
        self, name: str, *, password: str | None = None, role: Role | None = None, extra: Extra | None = None
    ) -> Account:
        """Change the password, the role or both, in one write."""
        hashed = self._passwords.hash(check_password(password)) if password is not None else None
        with self._lock:
            account = self._existing(name)
            if role is not None:
                if role is not Role.SYSTEM:
                    self._keep_one_system_account(account)
                account = account.changed(role=role)
            if hashed is not None:
                version = account.password_version + 1
                account = account.changed(password_hash=hashed, password_version=version, failed=0, locked_until=0)
            return self._put(account, extra)

    def drop(self, name: str, *, extra: Extra | None = None) -> Account:
        """Take the account out of use.  Its name stays taken: it is the id under which rows and audit records lie."""
        with self._lock:
            account = self._existing(name)
            self._keep_one_system_account(account)
            return self._put(
                account.changed(
                    dropped_at=self._clock.now_us(),
                    password_hash="",
                    password_version=account.password_version + 1,
                ),
                extra,
            )

    def ensure_root(self) -> str | None:
        """At the first start create `root`.

        :returns: the password if one had to be generated: print it once, it is kept nowhere.
        """
        if self.find(ROOT) is not None:
            return None
        given = self._config.root_password
        if given is not None:
            self.create(ROOT, given.get_secret_value(), Role.SYSTEM)
            return None
        generated = base64.urlsafe_b64encode(self._entropy(18)).decode()
        self.create(ROOT, generated, Role.SYSTEM)
        return generated

    def _existing(self, name: str) -> Account:
        account = self.get(check_user_name(name))
        if account is None:
            raise UndefinedObject(f'user "{name}" does not exist', sqlstate="42704")
        return account

    def _keep_one_system_account(self, account: Account) -> None:
        if account.role is Role.SYSTEM and not any(a.role is Role.SYSTEM and a.name != account.name for a in self.list()):
            raise DependentObjects(
                f'user "{account.name}" is the last one of role system, and only that role can grant it; '
                "grant it to another user first"
            )

    def _put(self, account: Account, extra: Extra | None = None) -> Account:
        batch = Batch()
        batch.put(FAMILY, _key(account.name), account.model_dump_json().encode())
        self._commit(batch, extra)
        return account

    def _commit_alone(self, batch: Batch, extra: Extra | None) -> None:
        if extra is not None:
            extra(batch)
        self._store.commit(batch)

    # -- logging in -------------------------------------------------------------------------------------------

    def verify(self, name: str, password: str, peer: str = "") -> Account:
        """The account that these credentials belong to.

        :raises Unauthenticated: they do not do, whatever the reason.
        """
        account = self._candidate(name)
        if account is not None and self._recent.knows(account.name, password, account.password_version):
            return account
        if not self._guesses.enter(name, peer):
            first = self._guesses.first_refusal(name)
            if first:
                self._note_flood(name, peer)
            raise Flood(_REFUSED, first=first)
        failed = True
        try:
            account = self._try(name, password, peer)
            failed = False
            return account
        finally:
            self._guesses.leave(name, peer, failed=failed)

    def _try(self, name: str, password: str, peer: str) -> Account:
        account = self._candidate(name)  # as it is by now: the others may have locked it while this one waited
        if self._passwords.matches(account.password_hash if account else None, password):
            assert account is not None, "the dummy hash matches nothing"
            return self._admit(account, password, peer)
        self._fail(account, peer)
        raise refused()

    def _candidate(self, name: str) -> Account | None:
        """The account whose hash may be tried: live and not locked."""
        try:
            account = self.get(check_user_name(name))
        except InvalidValue:
            return None
        out_of_reach = account is None or not account.password_hash or account.locked(self._clock.now_us())
        return None if out_of_reach else account

    def _note_flood(self, name: str, peer: str) -> None:
        """Too many failures: said once, not for every guess of a flood."""
        try:
            account = self.get(check_user_name(name))
        except InvalidValue:
            account = None
        log.warning("logins refused", user=account.name if account else None, peer=peer, reason="too many failures")

    def _admit(self, tried: Account, password: str, peer: str) -> Account:
        """The password was right; whether the account was changed or locked meanwhile is settled here."""
        rehashed = self._passwords.hash(password) if self._passwords.outdated(tried.password_hash) else None
        with self._lock:
            account = self.get(tried.name)
            if account is None or account.password_version != tried.password_version or self._is_locked(account):
                log.warning("login refused", user=tried.name, peer=peer, reason="changed or locked meanwhile")
                raise refused()
            if account.failed or rehashed is not None:
                account = self._put(account.changed(failed=0, password_hash=rehashed or account.password_hash))
        self._recent.remember(account.name, password, account.password_version)
        return account

    def _fail(self, tried: Account | None, peer: str) -> None:
        # A name that is no account's is not logged: people type their password there.
        log.warning("login refused", user=tried.name if tried else None, peer=peer, reason="credentials")
        with self._lock:
            account = self.get(tried.name) if tried else None
            if account is None or self._is_locked(account):
                decoy = Batch()
                decoy.put(FAMILY, _DECOY, b"")
                self._store.commit(decoy)
            else:
                self._put(self._after_failure(account))

    def _after_failure(self, account: Account) -> Account:
        failed = account.failed + 1
        if failed < self._config.lockout_failures:
            return account.changed(failed=failed)
        log.warning("account locked", user=account.name, seconds=self._config.lockout_seconds)
        # The count starts anew, or one failure after the lock would lock again.
        return account.changed(failed=0, locked_until=self._clock.now_us() + self._config.lockout_seconds * 1_000_000)

    def _is_locked(self, account: Account) -> bool:
        return account.locked(self._clock.now_us())


def _key(name: str) -> bytes:
    return _PREFIX + name.encode()


@lru_cache(maxsize=4096)
def _decode(record: bytes) -> Account:
    """An account never changes, its record does: what was read once is the same object again on every call."""
    try:
        return Account.model_validate_json(record)
    except ValidationError:
        raise DataCorrupted("an account record cannot be read; restore the data directory from a backup") from None
