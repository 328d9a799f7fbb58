"""Users, tokens and storages.  Their names are strings: a user id is case-sensitive and may hold any character."""

from __future__ import annotations

from flightkalam.sql.cursor import Cursor
from flightkalam.sql.lexer import Kind
from flightkalam.sql.statements import (
    AlterStorage,
    AlterUser,
    CreateStorage,
    CreateToken,
    CreateUser,
    DropStorage,
    DropToken,
    DropUser,
    Statement,
)


def create(cursor: Cursor) -> Statement:
    if cursor.accept("USER"):
        name = cursor.string("a user id")
        cursor.accept("WITH")
        password, role = _credentials(cursor)
        return CreateUser(name, password, role)
    if cursor.accept("TOKEN"):
        return _create_token(cursor)
    if cursor.accept("STORAGE"):
        name = _storage(cursor)
        return CreateStorage(name, cursor.options() if cursor.accept("WITH") else ())
    raise cursor.error("expected TABLE, VIEW, NAMESPACE, USER, TOKEN or STORAGE")


def alter(cursor: Cursor) -> Statement:
    if cursor.accept("STORAGE"):
        name = _storage(cursor)
        if not (cursor.accept("SET", "OPTIONS") or cursor.accept_any("SET", "WITH")):
            raise cursor.error("expected SET and options in parentheses")
        return AlterStorage(name, cursor.options())
    cursor.expect("USER")
    name = cursor.string("a user id")
    if not cursor.accept_any("SET", "WITH"):
        raise cursor.error("expected SET PASSWORD or SET ROLE")
    if cursor.done:
        raise cursor.error("expected PASSWORD or ROLE")
    password, role = _credentials(cursor)
    return AlterUser(name, password, role)


def drop(cursor: Cursor) -> Statement:
    if cursor.accept("USER"):
        return DropUser(cursor.string("a user id"), cursor.accept("PURGE"))
    if cursor.accept("TOKEN"):
        name = cursor.string("a token's name")
        return DropToken(name, cursor.string("a user id") if cursor.accept("FOR", "USER") else None)
    if cursor.accept("STORAGE"):
        return DropStorage(_storage(cursor))
    raise cursor.error("expected TABLE, VIEW, NAMESPACE, USER, TOKEN or STORAGE")


def _credentials(cursor: Cursor) -> tuple[str | None, str | None]:
    """PASSWORD and ROLE in either order, each at most once."""
    password: str | None = None
    role: str | None = None
    while not cursor.done:
        if password is None and cursor.accept("PASSWORD"):
            password = cursor.string("a password")
        elif role is None and cursor.accept("ROLE"):
            role = _role(cursor)
        else:
            raise cursor.error("expected PASSWORD or ROLE, each once")
        if not cursor.done:
            cursor.accept("SET")
    return password, role


def _role(cursor: Cursor) -> str:
    if cursor.kind() == Kind.STRING:
        return cursor.string("a role").lower()
    return cursor.ident("a role").value.lower()


def _create_token(cursor: Cursor) -> CreateToken:
    name = cursor.string("a token's name")
    cursor.expect("FOR", "USER")
    user = cursor.string("a user id")
    if not cursor.accept("EXPIRES"):
        return CreateToken(name, user)
    if cursor.accept("NEVER"):
        return CreateToken(name, user)
    cursor.accept_any("IN", "AT")
    cursor.accept_any("INTERVAL", "TIMESTAMP", "DATE")
    return CreateToken(name, user, cursor.string("a point in time or a span"))


def _storage(cursor: Cursor) -> str:
    return cursor.string("a storage id") if cursor.kind() == Kind.STRING else cursor.ident("a storage id").value
