"""Bearer tokens: what a login hands out, and what every later call shows.

A token is a JWT signed with HS256 under a key of our own, so it survives a restart and needs no lookup table.  It
proves only who logged in and when: existence, role and password version are looked up again on every call, so a dropped
user or a changed password ends it at once, and a changed role counts at once.

Keys are rotated: the newest signs, older ones verify until all they signed has expired.  Whatever is wrong with a token,
the answer is one and the same.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import jwt

from flightkalam.auth.accounts import FAMILY, Account, Accounts
from flightkalam.auth.identity import Identity
from flightkalam.clock import Clock
from flightkalam.config import Config
from flightkalam.errors import Unauthenticated
from flightkalam.storage.kv import Batch, Store

if TYPE_CHECKING:
    from jwt.types import Options

_T = TypeVar("_T")
_PREFIX = b"signing-key/"
_ALGORITHM = "HS256"
_KEY_BYTES = 32
_MAX_TOKEN_CHARS = 4096
_REMEMBERED = 4096
_REFUSED = "the token is not valid or has expired; log in again"
# The library would compare times with its own clock; ours is handed in.
_OPTIONS: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    user_id: str
    session_id: str
    password_version: int
    issued_at: int  # seconds since the Unix epoch
    expires_at: int
    token_id: str


def refused() -> Unauthenticated:
    """The one answer to a token that does not do, of whatever kind it is."""
    return Unauthenticated(_REFUSED)


class Tokens:
    """Makes and checks bearer tokens.  Thread-safe."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        config: Config,
        accounts: Accounts,
        *,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ttl = config.auth.token_ttl_seconds
        self._key_age = config.auth.signing_key_seconds
        self._accounts = accounts
        self._entropy = entropy
        self._lock = threading.Lock()
        # A signature once found good stays good; what can change is looked up on every call.  47 µs become 7.
        self._claims = lru_cache(maxsize=_REMEMBERED)(self._checked)
        self._keys = {key[len(_PREFIX) :].decode(): value for key, value in store.scan(FAMILY, _PREFIX)}
        if not self._keys:
            self.rotate()

    def issue(self, account: Account, *, session_id: str | None = None) -> str:
        """A token for an account that has just proved its password; a new session unless one is given."""
        now = self._now()
        kid = max(self._keys)  # key ids begin with their time
        if now - _made_at(kid) // 1_000_000 >= self._key_age:
            kid = self.rotate()
        claims = {
            "sub": account.name,
            "sid": session_id or self._entropy(12).hex(),
            "pv": account.password_version,
            "iat": now,
            "exp": now + self._ttl,
            "jti": self._entropy(12).hex(),
        }
        return jwt.encode(claims, self._keys[kid], algorithm=_ALGORITHM, headers={"kid": kid})

    def verify(self, token: str) -> Identity:
        """
        :raises Unauthenticated: for whatever reason; the text is always the same.
        """
        claims = self._claims(token)
        account = self._accounts.get(claims.user_id)
        if account is None or account.password_version != claims.password_version or self._now() >= claims.expires_at:
            raise refused()
        return Identity.of(account.name, account.role, session_id=claims.session_id, via="token")

    def rotate(self) -> str:
        """Sign with a new key from now on, and forget keys whose tokens have all expired."""
        now_us = self._clock.now_us()
        with self._lock:
            # Later than the newest even if the clock was set back: the greatest id signs.
            made_at = max([now_us, *(_made_at(kid) + 1 for kid in self._keys)])
            kid = f"{made_at:016x}-{self._entropy(4).hex()}"
            keys = {**self._keys, kid: self._entropy(_KEY_BYTES)}
            batch = Batch()
            batch.put(FAMILY, _PREFIX + kid.encode(), keys[kid])
            for old in _retired(sorted(keys), now_us - self._ttl * 1_000_000):
                batch.delete(FAMILY, _PREFIX + old.encode())
                del keys[old]
            self._store.commit(batch)
            self._keys = keys  # replaced, never changed: readers take no lock
        return kid

    def _checked(self, token: str) -> Claims:
        try:
            if len(token) > _MAX_TOKEN_CHARS:
                raise ValueError("longer than any token of ours")
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options=_OPTIONS)
            return Claims(
                user_id=_of(str, claims["sub"]),
                session_id=_of(str, claims["sid"]),
                password_version=_of(int, claims["pv"]),
                issued_at=_of(int, claims["iat"]),
                expires_at=_of(int, claims["exp"]),
                token_id=_of(str, claims["jti"]),
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError):
            raise refused() from None

    def _now(self) -> int:
        return self._clock.now_us() // 1_000_000


def _retired(kids: list[str], oldest_us: int) -> list[str]:
    """The keys that signed nothing since `oldest_us`: those whose successor is older than that."""
    return [kid for kid, successor in pairwise(kids) if _made_at(successor) < oldest_us]


def _made_at(kid: str) -> int:
    """Microseconds since the Unix epoch, from the front of a key id."""
    return int(kid[:16], 16)


def _of(kind: type[_T], value: object) -> _T:
    if type(value) is not kind:  # not isinstance: True is an int
        raise TypeError(f"a claim of another type than {kind.__name__}")
    return value
