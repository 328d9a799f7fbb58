"""OIDC bearer tokens: JWTs that an identity provider has signed, for users of ours.

    text ─ header: algorithm on the list, key known ─ signature ─ iss, aud, exp, nbf ─ claim → user name → live account

The provider says who it is; what they may do is decided by the account here, which is looked up at every call.  Whatever is
wrong, the answer is the one that every bad token gets; the log says more.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from flightkalam.auth.accounts import Accounts
from flightkalam.auth.identity import Identity, Role
from flightkalam.auth.tokens import refused
from flightkalam.clock import Clock
from flightkalam.config import OidcConfig
from flightkalam.errors import KalamError, Unauthenticated
from flightkalam.telemetry import logger

if TYPE_CHECKING:
    from jwt.types import Options

_MAX_TOKEN_CHARS = 16_384
_MAX_JWKS_BYTES = 1 << 20
_FETCH_SECONDS = 5.0
_RETRY_SECONDS = 15.0  # a key that is not known makes us look again, but not for every forged token
_REMEMBERED = 4_096
# Times are compared with the clock that is handed in, not with the library's.
_OPTIONS: Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iss", "aud"]}
_UNREAD: Options = {"verify_signature": False, "verify_exp": False, "verify_aud": False, "verify_iss": False}

Fetch = Callable[[], bytes]
log = logger("oidc")


def fetch_from(location: str) -> Fetch:
    """Reads a JWKS document from a file or a URL."""
    if urllib.parse.urlsplit(location).scheme not in ("http", "https"):
        return Path(location).read_bytes

    def fetch() -> bytes:
        with urllib.request.urlopen(location, timeout=_FETCH_SECONDS) as answer:  # the configuration allows http(s) only
            return bytes(answer.read(_MAX_JWKS_BYTES))

    return fetch


class Keys:
    """The provider's keys: read when first needed, again when they are old or lack a key; old ones do while it is away."""

    def __init__(self, fetch: Fetch, clock: Clock, ttl_s: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None

    def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The key of an id; without an id the only one there is."""
        if self._read_at is None or self._since(self._read_at) >= self._ttl_s:
            self._refresh()
        found = self._pick(kid)
        if found is None:
            self._refresh()
            found = self._pick(kid)
        return found

    def _pick(self, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys
        return keys.get(kid) if kid is not None or len(keys) != 1 else next(iter(keys.values()))

    def _refresh(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if self._tried_at is not None and now - self._tried_at < min(_RETRY_SECONDS, self._ttl_s):
                return
            self._tried_at = now
            try:
                self._keys, self._read_at = _parsed(self._fetch()), now
            except (OSError, HTTPException, ValueError, TypeError, AttributeError, jwt.PyJWTError) as e:
                log.warning("jwks_not_read", error=str(e)[:200])

    def _since(self, moment: float) -> float:
        return self._clock.monotonic() - moment


def _parsed(document: bytes) -> dict[str | None, jwt.PyJWK]:
    """Signing keys by id; those of kinds that we do not know are passed over."""
    found: dict[str | None, jwt.PyJWK] = {}
    for entry in json.loads(document)["keys"] if document else ():
        if not isinstance(entry, Mapping) or entry.get("kty") == "oct" or entry.get("use", "sig") != "sig":
            continue  # a shared secret has no place in a public document
        try:
            found[entry.get("kid")] = jwt.PyJWK(dict(entry))
        except jwt.PyJWTError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class _Claims:
    user: str
    not_before: int
    expires_at: int


class Oidc:
    """Checks the tokens of one issuer.  Thread-safe."""

    def __init__(self, config: OidcConfig, clock: Clock, accounts: Accounts, fetch: Fetch | None = None) -> None:
        self._config = config
        self._clock = clock
        self._accounts = accounts
        self._algorithms = config.algorithm_list
        self._keys = Keys(fetch or fetch_from(config.jwks), clock, config.jwks_ttl_seconds)
        # By key too: a key that the provider has withdrawn ends the tokens that it signed.
        self._claims = lru_cache(maxsize=_REMEMBERED)(self._checked)

    def meant(self, text: str) -> bool:
        """Whether the token says that it comes from the issuer; nothing is believed yet."""
        if text.count(".") != 2 or len(text) > _MAX_TOKEN_CHARS:
            return False
        try:
            return jwt.decode(text, options=_UNREAD).get("iss") == self._config.issuer
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return False

    def verify(self, text: str) -> Identity:
        """
        :raises Unauthenticated: for whatever reason; the text is always the same.
        """
        try:
            header = jwt.get_unverified_header(text)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in self._algorithms:
                raise ValueError("an algorithm that is not on the list")
            key = self._keys.find(kid)
            if key is None:
                raise ValueError("signed with a key that the provider does not publish")
            claims = self._claims(text, algorithm, key)
            self._check_time(claims)
            return self._identity(claims.user, text)
        except Unauthenticated:
            raise
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError, KalamError) as e:
            log.warning("token refused", reason=str(e)[:200])
            raise refused() from None

    def _checked(self, text: str, algorithm: str, key: jwt.PyJWK) -> _Claims:
        config = self._config
        found: dict[str, Any] = jwt.decode(
            text, key, algorithms=[algorithm], audience=config.audience, issuer=config.issuer, options=_OPTIONS
        )
        user = found[config.user_claim]
        if not isinstance(user, str):
            raise TypeError("the claim that names the user is not text")
        return _Claims(user, _seconds(found.get("nbf", 0)), _seconds(found["exp"]))

    def _check_time(self, claims: _Claims) -> None:
        now, leeway = self._clock.now_us() // 1_000_000, self._config.leeway_seconds
        if now >= claims.expires_at + leeway or now < claims.not_before - leeway:
            raise ValueError("expired, or not good yet")

    def _identity(self, user: str, text: str) -> Identity:
        account = self._accounts.get(user)
        if account is None and self._config.create_users:
            account = self._accounts.create_without_password(user, Role.USER)
        if account is None:
            raise ValueError("it names no user")
        session = "oidc:" + hashlib.sha256(text.encode()).hexdigest()[:24]
        return Identity.of(account.name, account.role, session_id=session, via="oidc")


def _seconds(value: object) -> int:
    if type(value) not in (int, float):  # not isinstance: True is an int
        raise TypeError("a time that is no number")
    return int(value)  # type: ignore[call-overload]  # the checker does not narrow by `type(…) in`
