"""Roles, identities, and what a user name and a password may be."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import IntEnum

from flightkalam.errors import InvalidValue

MAX_NAME_CHARS = 128
MIN_PASSWORD_BYTES = 8
MAX_PASSWORD_BYTES = 1024


class Role(IntEnum):
    """Ordered by power: what a role may do, every greater one may too.  The numbers are stored: they never change."""

    USER = 1
    SERVICE = 2
    DBA = 3
    SYSTEM = 4

    @property
    def label(self) -> str:
        """The name as SQL and system tables write it."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Role:
        """
        :raises InvalidValue: no such role.
        """
        for role in cls:
            if role.label == text.strip().lower():
                return role
        raise InvalidValue(f'there is no role "{text}"; the roles are {", ".join(r.label for r in cls)}')


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a statement runs (the subject) and who really sent it (the actor).

    Rights and rows are the subject's; the audit log names both.  They differ only in what `auth.impersonate` returns.

    :param via: how the actor proved who they are: password, token, api token, oidc, certificate, or internal for the
        service itself.
    """

    user_id: str
    role: Role
    actor_id: str
    actor_role: Role
    session_id: str
    via: str

    @classmethod
    def of(cls, user_id: str, role: Role, *, session_id: str, via: str) -> Identity:
        """Somebody who acts for themselves."""
        return cls(user_id, role, user_id, role, session_id, via)

    @property
    def impersonated(self) -> bool:
        return self.actor_id != self.user_id


def check_user_name(name: str) -> str:
    """The name in the form in which it is stored: NFC, so that one look is one name.

    A name is the user id for ever and part of log keys and paths.  ':' ends the name in Basic credentials.

    :raises InvalidValue: the name breaks a rule.
    """
    normal = check_name(name, "user name")
    if ":" in normal:
        raise InvalidValue('a user name holds no ":"; choose another')
    return normal


def check_name(name: str, what: str) -> str:
    """A name of 1 to 128 characters without control characters, in NFC.

    :raises InvalidValue: the name breaks a rule.
    """
    normal = normal_name(name)
    if not 1 <= len(normal) <= MAX_NAME_CHARS:
        raise InvalidValue(f"a {what} has 1 to {MAX_NAME_CHARS} characters, not {len(normal)}")
    # Cc: control characters. Cs: lone surrogates, which no encoding can store.
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in normal):
        raise InvalidValue(f"a {what} holds no control characters; choose another")
    return normal


def normal_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def check_password(password: str) -> str:
    """
    :raises InvalidValue: the password is too short, too long or not text.  The message never shows it.
    """
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise InvalidValue("the password is not valid Unicode text") from None
    if not MIN_PASSWORD_BYTES <= size <= MAX_PASSWORD_BYTES:
        raise InvalidValue(f"a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES:,} bytes, not {size:,}")
    return password
