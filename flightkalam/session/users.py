"""Accounts as SQL: CREATE USER, ALTER USER, DROP USER, SHOW USERS."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.accounts import Account
from flightkalam.auth.authorise import Action
from flightkalam.auth.identity import Role
from flightkalam.errors import SqlSyntaxError
from flightkalam.session import purge
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s

USERS_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.utf8(), nullable=False),
        pa.field("role", pa.utf8(), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("dropped_at", pa.timestamp("us", "UTC")),
    ]
)


def create_user(e: Execution, statement: s.CreateUser) -> int:
    role = Role.parse(statement.role) if statement.role is not None else Role.USER
    authorise.require_user_change(e.identity, statement.name, None, role)
    if statement.password is None:
        raise SqlSyntaxError("CREATE USER needs WITH PASSWORD '…'")
    e.parts.accounts.create(statement.name, statement.password, role, extra=e.record)
    return 0


def alter_user(e: Execution, statement: s.AlterUser) -> int:
    """A new password, a new role, or both; everybody may change their own password."""
    accounts = e.parts.accounts
    account = accounts.get(statement.name)
    held = account.role if account is not None else None
    role = Role.parse(statement.role) if statement.role is not None else None
    if role is not None:
        authorise.require_user_change(e.identity, statement.name, held, role)
    if statement.password is not None:
        authorise.require_password_change(e.identity, statement.name, held)
    accounts.change(statement.name, password=statement.password, role=role, extra=e.record)
    return 0


def drop_user(e: Execution, statement: s.DropUser) -> int:
    """The account goes; with PURGE its rows too, of which there were so many."""
    accounts = e.parts.accounts
    account = accounts.find(statement.name) if statement.purge else accounts.get(statement.name)
    authorise.require_user_change(e.identity, statement.name, account.role if account is not None else None)
    if account is None or account.live:
        accounts.drop(statement.name, extra=e.record)
        e.parts.api_tokens.drop_all(statement.name)
    return purge.erase_user(e, statement.name) if statement.purge else 0


def show_users(e: Execution, _: s.ShowUsers) -> pa.Table:
    authorise.require(e.identity, Action.READ_SYSTEM)
    return users_table(e.parts.accounts.list(dropped=True))


def users_table(accounts: Iterable[Account]) -> pa.Table:
    rows = list(accounts)
    return pa.table(
        [
            [a.name for a in rows],
            [a.role.label for a in rows],
            [_stamp(a.created_at) for a in rows],
            [_stamp(a.dropped_at) for a in rows],
        ],
        schema=USERS_SCHEMA,
    )


def _stamp(us: int | None) -> dt.datetime | None:
    return None if us is None else dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC)
