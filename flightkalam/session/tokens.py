"""API tokens as SQL: CREATE TOKEN, DROP TOKEN, SHOW TOKENS.

Everybody looks after their own tokens; whoever may change a user may look after that user's.
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.sql import statements as s

_STAMP = pa.timestamp("us", "UTC")
CREATED_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.utf8(), nullable=False),
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("token", pa.utf8(), nullable=False),
        pa.field("expires_at", _STAMP),
    ]
)
TOKENS_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.utf8(), nullable=False),
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("created_at", _STAMP, nullable=False),
        pa.field("created_by", pa.utf8(), nullable=False),
        pa.field("expires_at", _STAMP),
    ]
)


def create_token(e: Execution, statement: s.CreateToken) -> Rows:
    """One row with the token, which is shown this once."""
    _require(e, statement.user)
    token, text = e.parts.api_tokens.create(
        statement.user, statement.name, statement.expires, by=e.identity.actor_id, extra=e.record
    )
    return rows_of(pa.table([[token.user], [token.name], [text], [_stamp(token.expires_at)]], schema=CREATED_SCHEMA))


def drop_token(e: Execution, statement: s.DropToken) -> int:
    user = e.identity.user_id if statement.user is None else statement.user
    _require(e, user)
    e.parts.api_tokens.drop(user, statement.name, extra=e.record)
    return 0


def show_tokens(e: Execution, statement: s.ShowTokens) -> pa.Table:
    """The caller's own tokens, or everybody's for those who may see the accounts; never a secret."""
    user = statement.user
    if user is None and not authorise.allowed(e.identity.role, Action.READ_SYSTEM):
        user = e.identity.user_id
    if user is not None and user != e.identity.user_id:
        authorise.require(e.identity, Action.READ_SYSTEM)
    found = list(e.parts.api_tokens.of(user))
    columns = [
        [t.user for t in found],
        [t.name for t in found],
        [_stamp(t.created_at) for t in found],
        [t.created_by for t in found],
        [_stamp(t.expires_at) for t in found],
    ]
    return pa.table(columns, schema=TOKENS_SCHEMA)


def _require(e: Execution, user: str) -> None:
    """A token is as good as a password: the same rule."""
    account = e.parts.accounts.get(user)
    authorise.require_password_change(e.identity, user, account.role if account is not None else None)


def _stamp(us: int | None) -> dt.datetime | None:
    return None if us is None else dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC)
