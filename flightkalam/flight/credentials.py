"""Headers -> Credentials, and the handshake.

Two handshakes exist.  Newer clients send `authorization: Basic …` and read a token from the answer's `authorization`
header; older ones send a BasicAuth message as payload, read the token from the answer's payload and show it in
`auth-token-bin`.  Flight answers a handshake only if an auth handler is set, so `Handshake` is one that accepts every
call: who the caller is, is asked in each handler by the headers.

A handler cannot see headers and a middleware cannot see the peer, so `CallHeaders` carries the ones to the other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
from google.protobuf.message import DecodeError

from flightkalam.errors import TryAgain, Unauthenticated
from flightkalam.flight import flight_sql_pb2 as pb
from flightkalam.flight import status
from flightkalam.flight.ports import Credentials, Service

MIDDLEWARE = "kalam"
SESSION_COOKIE = "arrow_flight_session_id"
_TOKEN_HEADER = "auth-token-bin"
_SECRET_HEADERS = frozenset({"authorization", _TOKEN_HEADER})
# A handshake knows neither context nor peer.
_NO_PEER = "handshake"

RawHeaders = Mapping[str, Sequence[str | bytes]]


def credentials_of(headers: RawHeaders) -> Credentials | None:
    """What the caller showed, or None if nothing.

    :raises Unauthenticated: it cannot be read, or two headers disagree.
    """
    shown = {_as_text(v) for v in headers.get("authorization", ())}
    if len(shown) > 1:
        raise Unauthenticated("more than one authorization header; send one")
    if shown:
        return parse_authorization(shown.pop())
    tokens = {_as_text(v) for v in headers.get(_TOKEN_HEADER, ()) if v}
    if len(tokens) > 1:
        raise Unauthenticated("more than one token; send one")
    return Credentials("bearer", secret=tokens.pop()) if tokens else None


def parse_authorization(value: str) -> Credentials:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return Credentials("bearer", secret=rest.strip())
    if scheme.lower() == "basic":
        return _parse_basic(rest.strip())
    raise Unauthenticated("the authorization header must be 'Basic <base64>' or 'Bearer <token>'")


def _parse_basic(encoded: str) -> Credentials:
    """Some clients leave the padding away, so it is put back."""
    try:
        decoded = base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise Unauthenticated("the Basic credentials are not base64 of 'name:password' in UTF-8") from None
    user, colon, password = decoded.partition(":")
    if not colon:
        raise Unauthenticated("the Basic credentials are not base64 of 'name:password' in UTF-8")
    return Credentials("basic", user, password)


def parse_basic_auth(payload: bytes) -> Credentials:
    """A handshake's BasicAuth message."""
    try:
        message = pb.BasicAuth.FromString(payload)
    except DecodeError:
        raise Unauthenticated("the handshake's payload is not a BasicAuth message") from None
    return Credentials("basic", message.username, message.password)


def public_headers(headers: RawHeaders) -> dict[str, str]:
    """The call's headers without secrets; the values of a repeated one are joined, so that none is silently left out."""
    return {
        name.lower(): ("; " if name.lower() == "cookie" else ", ").join(_as_text(v) for v in values)
        for name, values in headers.items()
        if values and name.lower() not in _SECRET_HEADERS and not name.endswith("-bin")
    }


def session_cookie(headers: Mapping[str, str]) -> str | None:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE:
            return value.strip('"')
    return None


def _as_text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class CallHeaders(flight.ServerMiddleware):
    """One call's headers, and for a handshake the token to send back."""

    def __init__(self, headers: RawHeaders, token: str | None = None) -> None:
        self.raw = headers
        self.user_agent = _as_text(next(iter(headers.get("user-agent", ())), ""))
        self._token = token

    def sending_headers(self) -> dict[str, str]:
        return {} if self._token is None else {"authorization": f"Bearer {self._token}"}


class HeaderReader(flight.ServerMiddlewareFactory):
    """Notes each call's headers, and answers a handshake that carries credentials in them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def start_call(self, info: flight.CallInfo, headers: RawHeaders) -> CallHeaders:
        if info.method != flight.FlightMethod.HANDSHAKE:
            return CallHeaders(headers)
        try:
            credentials = credentials_of(headers)
            token = None if credentials is None else login(self._service, credentials)
        except Exception as error:
            raise status.to_flight(error) from None
        return CallHeaders(headers, token)


class Handshake(flight.ServerAuthHandler):
    """Answers a handshake that carries its credentials as payload.

    One without payload has been answered by its headers; if it had none either, it gains nothing.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        try:
            payload = _payload(incoming)
            if payload:
                outgoing.write(login(self._service, parse_basic_auth(payload)).encode())
        except Exception as error:
            raise status.to_flight(error) from None

    def is_valid(self, token: bytes) -> bytes:
        # Every handler asks for the session, which checks; nothing to add here.
        return b""


def login(service: Service, credentials: Credentials) -> str:
    if service.draining:
        raise TryAgain("the server is shutting down; connect again in a moment")
    return service.login(credentials, _NO_PEER)


def _payload(incoming: Any) -> bytes:
    try:
        return bytes(incoming.read())
    except (OSError, pa.ArrowException):
        return b""  # the client has closed its side without a message
