"""Password hashes, and the short memory that spares clients a hash on every call."""

from __future__ import annotations

import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError

from flightkalam.clock import Clock
from flightkalam.config import AuthConfig

CACHE_SECONDS = 60.0
_CACHE_ENTRIES = 4096


class Passwords:
    """argon2id with the configured costs.

    :param entropy: where salts and keys come from.
    """

    def __init__(self, config: AuthConfig, entropy: Callable[[int], bytes]) -> None:
        self._hasher = PasswordHasher(
            time_cost=config.argon2_time_cost,
            memory_cost=config.argon2_memory_kib,
            parallelism=config.argon2_parallelism,
            type=Type.ID,
        )
        self._entropy = entropy
        # Each check takes megabytes: without a bound a flood of logins takes all memory.
        self._slots = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._dummy = self.hash(entropy(16).hex())

    def hash(self, password: str) -> str:
        with self._slots:
            return self._hasher.hash(_encoded(password), salt=self._entropy(16))

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password belongs to the hash.  None takes as long as any hash, and never matches."""
        with self._slots:
            try:
                self._hasher.verify(stored if stored is not None else self._dummy, _encoded(password))
            except (Argon2Error, InvalidHashError):
                return False
        return stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether the hash was made with other costs than today's."""
        return self._hasher.check_needs_rehash(stored)


def _encoded(password: str) -> bytes:
    # What a client sends need not be Unicode; it just will not match.
    return password.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class _Entry:
    password_version: int
    expires: float


class RecentLogins:
    """Credentials that were right a moment ago.

    Many clients send Basic credentials with every call, and argon2 is slow on purpose.  Kept is only an HMAC, under a
    key that lives and dies with this process, and never the password; and the password's version, so a change of the
    password ends it at once.
    """

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._key = entropy(32)
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def remember(self, name: str, password: str, password_version: int) -> None:
        entry = _Entry(password_version, self._clock.monotonic() + CACHE_SECONDS)
        with self._lock:
            self._entries[self._digest(name, password)] = entry
            while len(self._entries) > _CACHE_ENTRIES:
                self._entries.popitem(last=False)

    def knows(self, name: str, password: str, password_version: int) -> bool:
        digest = self._digest(name, password)
        with self._lock:
            entry = self._entries.get(digest)
            if entry is None:
                return False
            fresh = entry.password_version == password_version and self._clock.monotonic() < entry.expires
            if not fresh:
                del self._entries[digest]
            return fresh

    def _digest(self, name: str, password: str) -> bytes:
        user, secret = name.encode("utf-8", "surrogatepass"), _encoded(password)
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        return hmac.digest(self._key, len(user).to_bytes(4, "big") + user + secret, "sha256")
