"""AS USER: acting for somebody else.  The only maker of an identity whose actor and subject differ.

    actor      may act for
    system     anyone
    dba        dba, service, user
    service    service, user
    user       only themselves, which changes nothing

From then on rights and rows are the subject's alone: acting for another never adds to what either may do.  Who does not
exist, was dropped or is out of reach gives one and the same error, so that AS USER finds no names.  SHARED tables as
write targets are refused by the session, which knows the target.
"""

from __future__ import annotations

from dataclasses import replace

from flightkalam.auth.accounts import Account, Accounts
from flightkalam.auth.identity import Identity, Role, check_user_name
from flightkalam.errors import AccessDenied, InvalidValue

REFUSED = "Invalid user_id for AS USER operation"

MAY_ACT_FOR: dict[Role, frozenset[Role]] = {
    Role.SYSTEM: frozenset(Role),
    Role.DBA: frozenset({Role.DBA, Role.SERVICE, Role.USER}),
    Role.SERVICE: frozenset({Role.SERVICE, Role.USER}),
    Role.USER: frozenset(),
}


def impersonate(actor: Identity, user: str, accounts: Accounts) -> Identity:
    """The identity of `user`, with `actor` remembered behind it.

    :param actor: who really sent the statement.  An identity that is itself impersonated is refused: with a chain, the
        subject would lend out what only the actor was given.
    :raises AccessDenied: whatever the reason; the text is always the same.
    """
    subject = _subject(user, accounts)
    if subject is None or actor.impersonated or not _may(actor, subject):
        raise AccessDenied(REFUSED)
    return replace(actor, user_id=subject.name, role=subject.role)


def reconfirm(identity: Identity, accounts: Accounts) -> Identity:
    """The identity as of now: for the moment of commit, when the subject may have been dropped since the check (T-48).

    :raises AccessDenied: actor or subject is gone, or the actor may no longer act for the subject.
    """
    if not identity.impersonated:
        return identity
    actor = _subject(identity.actor_id, accounts)
    if actor is None:
        raise AccessDenied(REFUSED)
    now = Identity.of(actor.name, actor.role, session_id=identity.session_id, via=identity.via)
    return impersonate(now, identity.user_id, accounts)


def _subject(user: str, accounts: Accounts) -> Account | None:
    try:
        return accounts.get(check_user_name(user))
    except InvalidValue:
        return None


def _may(actor: Identity, subject: Account) -> bool:
    return subject.name == actor.user_id or subject.role in MAY_ACT_FOR[actor.role]
