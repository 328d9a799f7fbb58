"""The front door: who are you, and which session is yours."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from flightkalam.auth.accounts import Flood
from flightkalam.auth.audit import Entry, Outcome
from flightkalam.auth.identity import Identity
from flightkalam.errors import InvalidValue, Unauthenticated
from flightkalam.session.call import Call
from flightkalam.session.parts import Parts
from flightkalam.session.results import Results
from flightkalam.session.session import Session

_LOOK_SECONDS = 1.0  # between looks for idle sessions


class Credentials(Protocol):
    """What a caller showed, as the wire decodes it."""

    @property
    def kind(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def secret(self) -> str: ...


class Service:
    """Meets the wire's `Service` protocol."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.draining = False
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._look_at = 0.0
        self._results = Results()

    def login(self, credentials: Credentials, peer: str) -> str:
        """Exchange a name and password for a bearer token, or confirm a token."""
        try:
            return self._login(credentials, peer)
        except Unauthenticated as error:
            self._note_failure(credentials, peer, error)
            raise

    def _login(self, credentials: Credentials, peer: str) -> str:
        if credentials.kind == "bearer":
            self.parts.bearers.verify(credentials.secret)
            return credentials.secret
        account = self.parts.accounts.verify(credentials.user, credentials.secret, peer)
        return self.parts.tokens.issue(account)

    def session(self, credentials: Credentials | None, peer: str, headers: Mapping[str, str]) -> Call:
        """The session of a call; made when it is the first."""
        if credentials is None:
            raise Unauthenticated("log in first: send a name and password, or a token")
        try:
            identity = self._identity(credentials, peer)
        except Unauthenticated as error:
            self._note_failure(credentials, peer, error)
            raise
        session = self._session_of(identity)
        try:
            return Call(session, headers, peer)
        except InvalidValue as error:
            actor, role = identity.actor_id, identity.actor_role.label
            refused = Entry(actor, role, None, "AS USER", None, Outcome.DENIED, peer, details={"sqlstate": error.sqlstate})
            self.parts.audit.write([refused])
            raise

    def _note_failure(self, credentials: Credentials, peer: str, error: Unauthenticated) -> None:
        """A login that failed is recorded, under its name if there is such an account: people type passwords there.

        Of a flood that is refused unseen the first: nobody who has no account may fill the log.
        """
        if isinstance(error, Flood) and not error.first:
            return
        known = self.parts.accounts.find(credentials.user) is not None
        name = credentials.user if known else None
        details = {"by": credentials.kind, "sqlstate": error.sqlstate}
        if isinstance(error, Flood):
            details["reason"] = "too many failures"
        self.parts.audit.write([Entry(name, None, name, "LOGIN", None, Outcome.DENIED, peer or None, details=details)])

    def _identity(self, credentials: Credentials, peer: str) -> Identity:
        """Who calls.  Whoever shows the same with every call has one session for each connection."""
        if credentials.kind == "bearer":
            identity = self.parts.bearers.verify(credentials.secret)
            return identity if identity.via == "token" else replace(identity, session_id=f"{identity.session_id}@{peer}")
        if credentials.kind == "certificate":
            return self._certified(credentials.user, peer)
        account = self.parts.accounts.verify(credentials.user, credentials.secret, peer)
        return Identity.of(account.name, account.role, session_id=f"basic:{account.name}@{peer}", via="basic")

    def _certified(self, name: str, peer: str) -> Identity:
        """The user of a client certificate, which TLS has verified.

        :raises Unauthenticated: the name is not of the configured shape, or there is no such user.
        """
        named = re.fullmatch(self.parts.config.auth.certificate_user, name)
        account = self.parts.accounts.get(named[1]) if named is not None and named[1] else None
        if account is None:
            raise Unauthenticated("the client certificate names no user of this service; use another, or ask for an account")
        return Identity.of(account.name, account.role, session_id=f"certificate:{account.name}@{peer}", via="certificate")

    def _session_of(self, identity: Identity) -> Session:
        now = self.parts.clock.monotonic()
        with self._lock:
            found = self._sessions.get(identity.session_id)
            if found is None:
                found = self._sessions[identity.session_id] = Session(self.parts, identity, identity.session_id, self._results)
            found.identity = identity  # the role as it is now
            found.last_used = now
            gone = self._idle(now) if now >= self._look_at else []
        for session in gone:
            session.close()
        return found

    def _idle(self, now: float) -> list[Session]:
        """Take out the sessions that nobody has used for long.  There may be many, so not every call looks at all of them."""
        idle = self.parts.config.auth.session_idle_seconds
        self._look_at = now + min(_LOOK_SECONDS, idle)
        expired = [k for k, s in self._sessions.items() if now - s.last_used > idle and not s.busy]
        return [self._sessions.pop(k) for k in expired]

    def close_session(self, session: Session | Call) -> None:
        session = session.session if isinstance(session, Call) else session
        with self._lock:
            self._sessions.pop(session.session_id, None)
        session.close()

    def sessions(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def sql_info(self) -> Mapping[int, str | bool | int | list[str] | dict[int, list[int]]]:
        return {8: 2, 9: True, 10: True, 11: True}

    def count_error(self, sqlstate: str) -> None:
        """An error has left for a client."""
        self.parts.counters.add("errors", 1, sqlstate)

    def close(self) -> None:
        for session in self.sessions():
            self.close_session(session)
        self._results.close()
