"""Tokens of an identity provider: a provider made on the fly, its keys in a file and behind a loopback HTTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from auth_world import World, cheap
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from flightkalam.auth.api_tokens import ApiTokens
from flightkalam.auth.bearer import Bearers
from flightkalam.auth.identity import Role
from flightkalam.auth.oidc import Oidc
from flightkalam.config import Config, OidcConfig
from flightkalam.errors import ConfigError, Unauthenticated

ISSUER, AUDIENCE = "https://id.example.org/realm", "flightkalam"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
GENERIC = "the token is not valid or has expired; log in again"


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def document(**keys: Any) -> bytes:
    return json.dumps({"keys": [jwk(key, kid) for kid, key in keys.items()]}).encode()


class Provider:
    """An issuer with its published keys, and a service that trusts it."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(cheap())
        self.published = document(r=RSA, e=EC)
        self.asked = 0
        config = OidcConfig(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": "unused", **settings})
        self.oidc = Oidc(config, self.world.clock, self.world.accounts, self.fetch)
        api = ApiTokens(self.world.store, self.world.clock, self.world.accounts)  # type: ignore[arg-type]
        self.bearers = Bearers(self.world.tokens, api, self.oidc)

    def fetch(self) -> bytes:
        self.asked += 1
        return self.published

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = self.world.clock.us // 1_000_000
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r", **changes: Any) -> str:
        return jwt.encode(self.claims(**changes), key, algorithm=algorithm, headers={"kid": kid} if kid else None)

    def refused(self, token: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            self.bearers.verify(token)
        assert caught.value.message == GENERIC


@pytest.fixture
def provider() -> Provider:
    made = Provider()
    made.world.user("alice", Role.SERVICE)
    return made


def test_the_provider_says_who_and_the_account_what(provider: Provider) -> None:
    identity = provider.bearers.verify(provider.token())
    assert (identity.user_id, identity.role, identity.via) == ("alice", Role.SERVICE, "oidc")
    provider.world.accounts.set_role("alice", Role.USER)
    assert provider.bearers.verify(provider.token()).role is Role.USER
    assert provider.bearers.verify(provider.token(EC, "ES256", "e")).user_id == "alice"
    assert provider.bearers.verify(provider.token(aud=["other", AUDIENCE])).user_id == "alice"
    assert provider.asked == 1


def test_tokens_of_our_own_go_on_working_beside_it(provider: Provider) -> None:
    account = provider.world.accounts.get("alice")
    assert account is not None
    assert provider.bearers.verify(provider.world.tokens.issue(account)).via == "token"


def test_whatever_is_wrong_it_is_refused(provider: Provider) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = provider.token()
    head, body, _ = good.split(".")
    wrong = {
        "expired": provider.token(exp=provider.world.clock.us // 1_000_000 - 31),
        "not good yet": provider.token(nbf=provider.world.clock.us // 1_000_000 + 31),
        "another audience": provider.token(aud="other"),
        "no audience": provider.token(aud=None),
        "no end": provider.token(exp=None),
        "end is no number": provider.token(exp=True),
        "another issuer": provider.token(iss="https://evil.example.org"),
        "no user": provider.token(sub=None),
        "user is no text": provider.token(sub=5),
        "unknown user": provider.token(sub="mallory"),
        "name of no account": provider.token(sub="al:ice"),
        "signed by another": provider.token(OTHER_RSA),
        "unknown key": provider.token(OTHER_RSA, kid="x"),
        "key id of no kind": jwt.encode(provider.claims(), RSA, algorithm="RS256", headers={"kid": "e"}),
        "no signature": f"{head}.{body}.",
        "none": jwt.encode(provider.claims(), None, algorithm="none", headers={"kid": "r"}),
        "algorithm not on the list": provider.token(RSA, "RS512"),
        "the public key as a secret": _confused(provider, public),
        "cut": good[:-3],
        "empty": "..",
    }
    for token in wrong.values():
        provider.refused(token)


def _confused(provider: Provider, public: bytes) -> str:
    """HS256 over the public key, which a careless verifier takes for the secret; made by hand, as the library will not."""

    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "typ": "JWT", "kid": "r"}) + b"." + part(provider.claims())
    digest = hmac.digest(public, signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def test_times_are_those_of_our_clock_with_a_leeway(provider: Provider) -> None:
    token = provider.token()
    provider.world.clock.advance(329)
    assert provider.bearers.verify(token).user_id == "alice"
    provider.world.clock.advance(1)
    provider.refused(token)


def test_a_dropped_user_is_out_at_once(provider: Provider) -> None:
    token = provider.token()
    provider.bearers.verify(token)
    provider.world.accounts.drop("alice")
    provider.refused(token)


def test_a_new_key_is_found_and_a_withdrawn_one_ends_its_tokens(provider: Provider) -> None:
    old = provider.token()
    provider.bearers.verify(old)
    provider.published = document(new=OTHER_RSA)
    provider.world.clock.advance(20)
    assert provider.bearers.verify(provider.token(OTHER_RSA, kid="new")).user_id == "alice"
    provider.refused(old)


def test_a_flood_of_unknown_keys_asks_the_provider_rarely(provider: Provider) -> None:
    provider.bearers.verify(provider.token())
    for i in range(50):
        provider.refused(provider.token(OTHER_RSA, kid=f"k{i}"))
        provider.world.clock.advance(0.1)
    assert provider.asked == 1


def test_while_the_provider_is_away_the_keys_of_before_hold(provider: Provider) -> None:
    provider.bearers.verify(provider.token())
    provider.published = b"<html>service unavailable</html>"
    provider.world.clock.advance(301)
    assert provider.bearers.verify(provider.token()).user_id == "alice"
    assert provider.asked == 2


def test_another_claim_can_name_the_user_and_missing_ones_can_be_made() -> None:
    provider = Provider(user_claim="preferred_username", create_users=True)
    identity = provider.bearers.verify(provider.token(preferred_username="bob", sub="0815"))
    assert (identity.user_id, identity.role) == ("bob", Role.USER)
    with pytest.raises(Unauthenticated):
        provider.world.accounts.verify("bob", "")
    provider.world.accounts.drop("bob")
    provider.refused(provider.token(preferred_username="bob"))  # a dropped name stays dropped
    provider.refused(provider.token(sub="0815"))
    provider.refused(provider.token(preferred_username="a:b"))
    provider.refused(provider.token(preferred_username="x" * 200))


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(document(r=RSA))
    world = World(cheap())
    world.user("alice")
    oidc = Oidc(OidcConfig(issuer=ISSUER, audience=AUDIENCE, jwks=str(path)), world.clock, world.accounts)
    assert oidc.verify(Provider().token()).user_id == "alice"


@pytest.fixture
def url() -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = document(r=RSA)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_come_from_a_url(url: str) -> None:
    world = World(cheap())
    world.user("alice")
    oidc = Oidc(OidcConfig(issuer=ISSUER, audience=AUDIENCE, jwks=url), world.clock, world.accounts)
    assert oidc.verify(Provider().token()).user_id == "alice"
    away = Oidc(OidcConfig(issuer=ISSUER, audience=AUDIENCE, jwks="http://127.0.0.1:9/none"), world.clock, world.accounts)
    with pytest.raises(Unauthenticated):
        away.verify(Provider().token())


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": ISSUER},
        {"issuer": ISSUER, "audience": "a"},
        {"issuer": ISSUER, "audience": "a", "jwks": "http://id.example.org/jwks"},
        {"issuer": ISSUER, "audience": "a", "jwks": "ftp://id.example.org/jwks"},
        {"algorithms": "HS256"},
        {"algorithms": "RS256, none"},
        {"algorithms": " "},
    ],
)
def test_settings_that_would_be_unsafe_stop_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="oidc"):
        Config.load(overrides={f"oidc.{name}": value for name, value in settings.items()}, environ={})
