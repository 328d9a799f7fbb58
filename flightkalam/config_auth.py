"""The settings of who may come in: accounts, tokens, an identity provider, and what is written down of them."""

from __future__ import annotations

import re
import urllib.parse

from pydantic import SecretStr, ValidationInfo, field_validator

from flightkalam.config_section import Section, is_loopback, setting


class AuthConfig(Section):
    """Accounts, tokens and lock-out."""

    root_password: SecretStr | None = setting(None, allowed="a text of 8 to 1,024 bytes")
    """The password of `root` at the first start; later starts ignore it. Without it one is generated and printed once.
    Better given by the environment than by a file."""

    token_ttl_seconds: int = setting(86_400, unit="seconds", ge=60, le=31_536_000)
    """How long a bearer token from a login is good. A day: a tool left open over night logs in again."""

    signing_key_seconds: int = setting(2_592_000, unit="seconds", ge=3_600, le=315_360_000)
    """After this long a new key signs the tokens of logins; the one before verifies until all it signed has expired. Thirty
    days: a key that leaked unnoticed is of no use for ever."""

    session_idle_seconds: int = setting(3_600, unit="seconds", ge=1, le=604_800)
    """After this long without a call a session is closed and its open transaction rolled back: many clients just
    vanish, and what they hold keeps old files and versions alive."""

    argon2_time_cost: int = setting(2, unit="passes", ge=1, le=100)
    """Passes of argon2id over its memory."""

    argon2_memory_kib: int = setting(19_456, unit="KiB", ge=512, le=4_194_304)
    """Memory of one password check. With 2 passes and 1 lane this is OWASP's recommended minimum; more makes a stolen
    hash dearer to guess and a login slower."""

    argon2_parallelism: int = setting(1, unit="lanes", ge=1, le=64)
    """Lanes of argon2id. One: several logins use several cores anyway."""

    lockout_failures: int = setting(5, unit="failures", ge=1, le=1_000)
    """Wrong passwords in a row that lock an account."""

    lockout_seconds: int = setting(900, unit="seconds", ge=1, le=604_800)
    """How long a locked account refuses every password. Short enough to wait for, long enough to make guessing
    hopeless."""

    guesses_per_user: int = setting(5, unit="failures", ge=1, le=1_000_000)
    """Failed logins under one name, account or not, after which no password is even looked at; only failures count. Hashing
    costs megabytes and milliseconds: with 5 a minute a flood of guesses costs ten hashes in its first minute, not thousands."""

    guesses_per_peer: int = setting(100, unit="failures", ge=1, le=1_000_000)
    """The same for one address (a /64 of IPv6), whatever names it tries; many people can share one. Logins by handshake do
    not count: Flight does not say where they come from."""

    guess_window_seconds: int = setting(60, unit="seconds", ge=1, le=86_400)
    """How long it takes until all guesses are there again; they come back one by one."""

    certificate_user: str = setting("(.+)", allowed="a regular expression with one group")
    """How a client certificate names its user: matched against its first subject alternative name or, if it has none, its
    common name; the group is the user name. Such as `([^.]+)\\.clients\\.example\\.org`."""

    @field_validator("certificate_user")
    @classmethod
    def _pattern_has_one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as e:
            raise ValueError(f"not a regular expression: {e}") from None
        if groups != 1:
            raise ValueError("the group says which part is the user name: one pair of parentheses")
        return value

    @field_validator("root_password")
    @classmethod
    def _root_password_is_a_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 8 <= len(value.get_secret_value().encode("utf-8", "surrogatepass")) <= 1024:
            raise ValueError("a password has 8 to 1,024 bytes")
        return value


_SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class OidcConfig(Section):
    """Bearer tokens of an identity provider (OpenID Connect). Without an issuer none is accepted."""

    issuer: str = setting("")
    """The `iss` of the tokens, compared exactly."""

    audience: str = setting("", allowed="text, required with `issuer`", validate_default=True)
    """What the tokens' `aud` must contain, so that a token for another service does not open this one."""

    jwks: str = setting(
        "", allowed="a path or an https:// URL (http:// on loopback), required with `issuer`", validate_default=True
    )
    """Where the provider's public keys are, as a JWKS document."""

    jwks_ttl_seconds: int = setting(300, unit="seconds", ge=1, le=86_400)
    """The keys are read again after this long, and when a token names an unknown one; while that fails the old ones hold."""

    algorithms: str = setting("RS256, ES256", allowed="some of " + ", ".join(_SIGNATURES))
    """Signatures that are accepted. Never `none` and never a shared secret: the list is ours, not the token's."""

    user_claim: str = setting("sub", min_length=1)
    """The claim that holds the user name."""

    create_users: bool = setting(False)
    """Whether a user whom the provider knows and we do not gets an account of role `user`, without a password. A dropped name
    stays dropped."""

    leeway_seconds: int = setting(30, unit="seconds", ge=0, le=600)
    """By how much the provider's clock may differ from ours."""

    @field_validator("audience", "jwks")
    @classmethod
    def _goes_with_an_issuer(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("issuer") and not value:
            raise ValueError("oidc.issuer needs oidc.audience and oidc.jwks too")
        return value

    @field_validator("jwks")
    @classmethod
    def _keys_come_over_a_safe_way(cls, value: str) -> str:
        url = urllib.parse.urlsplit(value)
        if (
            url.scheme
            and len(url.scheme) > 1
            and url.scheme != "https"
            and not (url.scheme == "http" and is_loopback(url.hostname or ""))
        ):
            raise ValueError("keys that travel in plain text can be exchanged on the way")
        return value

    @field_validator("algorithms")
    @classmethod
    def _signatures_are_public_key_ones(cls, value: str) -> str:
        if not set(_listed(value)) or set(_listed(value)) - set(_SIGNATURES):
            raise ValueError("not a list of public-key signatures")
        return value

    @property
    def algorithm_list(self) -> tuple[str, ...]:
        return _listed(self.algorithms)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class AuditConfig(Section):
    """The audit log."""

    retention_days: int = setting(0, unit="days", ge=0, le=36_500)
    """How long records of the audit log are kept; 0 keeps them for ever, because nobody misses a record before the day
    it is needed. What is left after older ones went can still be verified."""
