"""API tokens: long-lived, named, revocable bearer tokens (CREATE TOKEN), for programs that cannot log in.

    fkt_<id: 24 hex>_<secret: 43 base64url>        shown once; kept is SHA-256 of the secret, under the id

The secret has 256 random bits, so a plain hash suffices where a password needs a slow one.  Existence and role of the user are
looked up at every use, as with every token; a changed password leaves API tokens alone, which have names to be dropped by.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flightkalam.auth.accounts import FAMILY, Accounts, Commit, Extra
from flightkalam.auth.identity import Identity, check_name
from flightkalam.auth.tokens import refused
from flightkalam.clock import Clock
from flightkalam.errors import DataCorrupted, DuplicateObject, InvalidValue, UndefinedObject
from flightkalam.storage.kv import Batch, Store

PREFIX = "fkt_"
MOST_PER_USER = 100
_RECORDS = b"api-token/"
_SHAPE = re.compile(r"fkt_([0-9a-f]{24})_([A-Za-z0-9_-]{43})")
_SPAN = re.compile(r"\s*(\d{1,6})\s*(second|minute|hour|day|week|month|year)s?\s*", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_536_000}


class ApiToken(BaseModel):
    """One token as it is stored.  Times are microseconds since the Unix epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    id: str
    user: str
    name: str
    digest: str = Field(repr=False)
    created_at: int
    created_by: str
    expires_at: int | None = None


class ApiTokens:
    """Makes, lists, drops and checks API tokens.  Thread-safe.

    :param commit: makes a batch durable, together with what the second argument adds to it under the commit mutex.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        accounts: Accounts,
        *,
        commit: Commit | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._commit = commit or self._commit_alone
        self._clock = clock
        self._accounts = accounts
        self._entropy = entropy
        self._lock = threading.Lock()
        self._tokens = {token.id: token for token in map(_decode, (v for _, v in store.scan(FAMILY, _RECORDS)))}

    def create(self, user: str, name: str, expires: str | None, *, by: str, extra: Extra | None = None) -> tuple[ApiToken, str]:
        """A new token and its text, which is kept nowhere.

        :param expires: a point in time or a span such as `30 days`; None: it is good until it is dropped.
        :raises UndefinedObject: there is no such user.
        :raises DuplicateObject: the user has a token of that name.
        """
        name = check_name(name, "token name")
        now_us = self._clock.now_us()
        until = None if expires is None else expiry(expires, now_us)
        id_, secret = self._entropy(12).hex(), base64.urlsafe_b64encode(self._entropy(32)).decode().rstrip("=")
        with self._lock:
            account = self._accounts.get(user)
            if account is None:
                raise UndefinedObject(f'user "{user}" does not exist', sqlstate="42704")
            mine = list(self.of(account.name))
            if any(t.name == name for t in mine):
                raise DuplicateObject(f'user "{account.name}" has a token "{name}" already; drop it first', sqlstate="42710")
            if len(mine) >= MOST_PER_USER:
                raise InvalidValue(f'user "{account.name}" has {MOST_PER_USER} tokens; drop some', sqlstate="54000")
            token = ApiToken(
                id=id_, user=account.name, name=name, digest=_digest(secret), created_at=now_us, created_by=by, expires_at=until
            )
            batch = Batch()
            batch.put(FAMILY, _key(id_), token.model_dump_json().encode())
            self._commit(batch, extra)
            self._tokens = {**self._tokens, id_: token}  # replaced, never changed: readers take no lock
        return token, f"{PREFIX}{id_}_{secret}"

    def drop(self, user: str, name: str, *, extra: Extra | None = None) -> None:
        """:raises UndefinedObject: the user has no such token."""
        with self._lock:
            found = [t.id for t in self.of(user) if t.name == name]
            if not found:
                raise UndefinedObject(f'user "{user}" has no token "{name}"', sqlstate="42704")
            self._remove(found, extra)

    def drop_all(self, user: str) -> None:
        """Every token of a user who goes."""
        with self._lock:
            self._remove([t.id for t in self.of(user)])

    def _remove(self, ids: list[str], extra: Extra | None = None) -> None:
        batch = Batch()
        for id_ in ids:
            batch.delete(FAMILY, _key(id_))
        if ids:
            self._commit(batch, extra)
            self._tokens = {id_: token for id_, token in self._tokens.items() if id_ not in ids}

    def _commit_alone(self, batch: Batch, extra: Extra | None) -> None:
        if extra is not None:
            extra(batch)
        self._store.commit(batch)

    def of(self, user: str | None = None) -> Iterator[ApiToken]:
        """The tokens of a user, or of everybody, by user and name."""
        found = [t for t in self._tokens.values() if user is None or t.user == user]
        return iter(sorted(found, key=lambda t: (t.user, t.name)))

    def verify(self, text: str) -> Identity:
        """
        :raises Unauthenticated: for whatever reason; the text is always the same.
        """
        shape = _SHAPE.fullmatch(text)
        token = self._tokens.get(shape[1]) if shape is not None else None
        if shape is None or token is None or not hmac.compare_digest(_digest(shape[2]), token.digest):
            raise refused()
        account = self._accounts.get(token.user)
        if account is None or (token.expires_at is not None and self._clock.now_us() >= token.expires_at):
            raise refused()
        return Identity.of(account.name, account.role, session_id=f"token:{token.id}", via="api token")


def expiry(text: str, now_us: int) -> int:
    """When a token ends, in microseconds since the Unix epoch.

    :raises InvalidValue: neither a span nor a point in time, or one that is over.
    """
    span = _SPAN.fullmatch(text)
    if span is not None:
        until = now_us + int(span[1]) * _SECONDS[span[2].lower()] * 1_000_000
    else:
        try:
            moment = dt.datetime.fromisoformat(text.strip())
        except ValueError:
            raise InvalidValue(
                f"EXPIRES takes a span such as '90 days' or a point in time such as '2031-01-31T12:00:00Z', not '{text[:80]}'"
            ) from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
        until = int(moment.timestamp() * 1_000_000)
    if until <= now_us:
        raise InvalidValue(f"EXPIRES '{text[:80]}' is not in the future")
    return until


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(id_: str) -> bytes:
    return _RECORDS + id_.encode()


def _decode(record: bytes) -> ApiToken:
    try:
        return ApiToken.model_validate_json(record)
    except ValidationError:
        raise DataCorrupted("a token's record cannot be read; restore the data directory from a backup") from None
