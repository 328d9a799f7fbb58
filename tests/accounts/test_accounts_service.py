"""Accounts as clients and operators meet them: tokens on the wire, PURGE, and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pytest
from kalam_world import CHEAP, ROOT_PASSWORD, Refused, World, config

from flightkalam.app import open_kalam
from flightkalam.auth.identity import Role
from flightkalam.cli.commands import main
from flightkalam.errors import Unauthenticated

BEARER = "adbc.flight.sql.authorization_header"


def connect(world: World, token: str) -> adbc.Connection:
    return adbc.connect(world.uri, db_kwargs={BEARER: f"Bearer {token}"}, autocommit=True)


def ask(connection: adbc.Connection, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_a_program_works_with_its_token_until_it_is_dropped(world: World) -> None:
    world.user("svc", Role.SERVICE)
    root = world.adbc()
    made = root.run("CREATE TOKEN 'nightly' FOR USER 'svc'").rows
    assert made is not None
    with connect(world, made.column("token")[0].as_py()) as connection:
        assert ask(connection, "SELECT CURRENT_USER, CURRENT_ROLE") == [("svc", "service")]
        root.run("DROP TOKEN 'nightly' FOR USER 'svc'")
        with pytest.raises(adbc_driver_manager.Error, match="the token is not valid or has expired"):
            ask(connection, "SELECT 1")


def test_a_token_is_not_kept_for_a_repeated_call(world: World) -> None:
    client = world.adbc("root", Role.SYSTEM, x_kalam_idempotency_key="once")
    made = client.run("CREATE TOKEN 't' FOR USER 'root'").rows
    assert made is not None
    token = made.column("token")[0].as_py()
    with pytest.raises(Refused, match="42710"):
        client.run("CREATE TOKEN 't' FOR USER 'root'")
    store = world.kalam.store
    for family in ("meta", "accounts", "log", "jobs"):
        assert all(token.encode() not in value for _, value in store.scan(family))


@pytest.mark.parametrize("token", ["fkt_nonsense", "a.b.c", "x", "eyJhbGciOiJub25lIn0.e30."])
def test_a_bad_token_is_one_error_on_the_wire(world: World, token: str) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="the token is not valid or has expired; log in again"):
        with connect(world, token) as connection:
            ask(connection, "SELECT 1")


def test_a_flood_of_wrong_passwords_locks_nobody_else_out(world: World) -> None:
    world.user("ann", Role.USER)
    for i in range(12):
        with pytest.raises(adbc_driver_manager.Error, match="not right, or the account is locked"):
            adbc.connect(world.uri, db_kwargs={"username": "ann", "password": f"guess {i}"}).close()
    assert world.adbc("bob", Role.USER).run("SELECT 1").rows is not None


# -- DROP USER … PURGE ----------------------------------------------------------------------------------------------------


def test_purge_erases_everything_of_a_user_and_nothing_of_others(world: World) -> None:
    root = world.in_process()
    root.run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY, text TEXT)")
    root.run('CREATE NAMESPACE "Odd"')
    root.run('CREATE STREAM TABLE "Odd"."a.b" (id BIGINT PRIMARY KEY, text TEXT) WITH (TTL_SECONDS=1000)')
    root.run("CREATE SHARED TABLE all_of_us (id BIGINT PRIMARY KEY, text TEXT)")
    root.run("INSERT INTO all_of_us VALUES (1, 'ours')")
    for name in ("ann/x", "bob"):
        who = world.in_process(name, Role.USER)
        who.run(f"INSERT INTO notes VALUES (1, 'canary-{name}'), (2, 'x')")
        world.flush()
        who.run(f"INSERT INTO notes VALUES (3, 'canary-{name}')")
        who.run(f"""INSERT INTO "Odd"."a.b" VALUES (1, 'canary-{name}')""")
    root.run("CREATE TOKEN 't' FOR USER 'ann/x'")
    assert root.run("DROP USER 'ann/x' PURGE").count == 4
    assert root.run("SHOW TOKENS FOR USER 'ann/x'").rows.num_rows == 0
    assert world.in_process("bob", Role.USER).run("SELECT * FROM notes").rows.num_rows == 3
    world.check()
    world.kalam.store.rewrite("log", b"", b"\xff")
    world.close()
    held = b"".join(p.read_bytes() for p in world.data_dir.rglob("*") if p.is_file() and p.suffix != ".log")
    assert b"canary-ann/x" not in held and b"canary-bob" in held


def test_purge_can_follow_a_drop_and_be_repeated(world: World) -> None:
    root = world.in_process()
    root.run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY)")
    world.in_process("ann", Role.USER).run("INSERT INTO notes VALUES (1)")
    root.run("DROP USER 'ann'")
    assert root.run("DROP USER 'ann' PURGE").count == 1
    assert root.run("DROP USER 'ann' PURGE").count == 0
    with pytest.raises(Refused, match="42704"):
        root.run("DROP USER 'nobody' PURGE")
    with pytest.raises(Refused, match="42501"):
        world.in_process("bob", Role.SERVICE).run("DROP USER 'ann' PURGE")
    root.run("BEGIN")
    with pytest.raises(Refused, match="cannot run in a transaction"):
        root.run("DROP USER 'ann' PURGE")


# -- flightkalam user -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    open_kalam(config(tmp_path)).close()
    return tmp_path


def user(monkeypatch: pytest.MonkeyPatch, *arguments: object, password: str | None = None) -> int:
    if password is not None:
        monkeypatch.setenv("FLIGHTKALAM_NEW_PASSWORD", password)
    costs = [f"auth.{name}={value}" for name, value in CHEAP.items()]
    try:
        return main(["user", *map(str, arguments), *(part for cost in costs for part in ("--set", cost))])
    except SystemExit as e:
        return int(e.code or 0)


def test_an_operator_adds_and_lists_users_and_replaces_a_lost_password(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert user(monkeypatch, "add", stopped, "ann", "--role", "dba", password="a long password") == 0
    assert user(monkeypatch, "passwd", stopped, "root", password="another password") == 0
    assert user(monkeypatch, "list", stopped) == 0
    assert capsys.readouterr().out.splitlines() == [
        "created user ann of role dba",
        "changed the password of root",
        "ann\tdba",
        "root\tsystem",
    ]
    kalam = open_kalam(config(stopped))
    try:
        assert kalam.parts.accounts.verify("root", "another password").name == "root"
        assert kalam.parts.accounts.verify("ann", "a long password").role is Role.DBA
        with pytest.raises(Unauthenticated):
            kalam.parts.accounts.verify("root", ROOT_PASSWORD)
        assert user(monkeypatch, "list", stopped) == 2  # a server runs on it
    finally:
        kalam.close()


def test_what_the_operator_gets_wrong_is_one_line(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert user(monkeypatch, "add", stopped, "root", password="a long password") == 1
    assert user(monkeypatch, "add", stopped, "x", "--role", "king", password="a long password") == 1
    assert user(monkeypatch, "passwd", stopped, "nobody", password="a long password") == 1
    assert user(monkeypatch, "passwd", stopped, "root", password="short") == 1
    assert user(monkeypatch, "list", tmp_path / "none") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") for line in lines)
    assert "short" not in " ".join(lines)
