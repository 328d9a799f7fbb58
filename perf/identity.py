"""What identity costs: AS USER, rights, the audit log, and many users in one table.

as_user_check    the look-up of a subject and whether the actor may act for them, in-process
rights           the name of a table to the table, and whether the caller may read it, in-process
insert_as_user   one row by a prepared INSERT for another user, which the audit log records, beside the same of one's own
own_rows_hot     a user's own rows, all of them, out of a table that many users share
own_rows_cold    the same when every user's rows have been flushed
flush_scopes     FLUSH of the rows of a thousand users, each into files of their own
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa

from flightkalam.app import Kalam, open_kalam
from flightkalam.auth.identity import Identity, Role
from flightkalam.auth.impersonate import impersonate
from flightkalam.config import Config
from flightkalam.model.schema import Table
from flightkalam.session import Session
from flightkalam.session.execution import Execution
from flightkalam.session.reads import relation
from flightkalam.session.results import Results
from flightkalam.table.mutation import Mutation
from perf import data, servers
from perf.result import Result, Step, Target, in_blocks, spread
from perf.world import World

AS_USER_CHECK, RIGHTS, INSERT_AS_USER = "as_user_check", "rights", "insert_as_user"
OWN_ROWS_HOT, OWN_ROWS_COLD, FLUSH_SCOPES = "own_rows_hot", "own_rows_cold", "flush_scopes"
ROWS_EACH = 20
_CONNECTIONS = 16
_COMMIT = 1_000  # users whose rows are written at once
_CALLS = 5_000


def measure_each() -> dict[str, Callable[[World], Result]]:
    return {
        AS_USER_CHECK: measure_as_user_check,
        RIGHTS: measure_rights,
        INSERT_AS_USER: measure_insert_as_user,
        OWN_ROWS_HOT: measure_own_rows_hot,
        OWN_ROWS_COLD: measure_own_rows_cold,
        FLUSH_SCOPES: measure_flush_scopes,
    }


# -- in-process -------------------------------------------------------------------------------------------------------


def measure_as_user_check(world: World) -> Result:
    with _opened(world.folder / "identity-check") as kalam:
        accounts = kalam.parts.accounts
        for i in range(100):
            accounts.create(_name(i), "not guessed", Role.USER)
        actor = Identity.of("root", Role.SYSTEM, session_id="s", via="password")
        names = itertools.cycle([_name(i) for i in range(100)])
        return _alone(AS_USER_CHECK, lambda: impersonate(actor, next(names), accounts))


def measure_rights(world: World) -> Result:
    with _opened(world.folder / "identity-rights") as kalam:
        session = _session(kalam)
        for i in range(100):
            session.update(f"CREATE USER TABLE t{i} (id BIGINT PRIMARY KEY)", None)
        names = itertools.cycle([(f"t{i}",) for i in range(100)])
        with Execution(kalam.parts, session.identity) as e:
            return _alone(RIGHTS, lambda: relation(e, next(names)))


def _alone(name: str, step: Step) -> Result:
    taken = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    taken = taken[_CALLS // 10 :]
    target = Target("ours", "at most", 0.1)
    return Result(name, median(taken) * 1e3, None, None, target, "ms", "", len(taken), f"ours {spread(taken, 1e3, 'ms')}")


# -- through a client -------------------------------------------------------------------------------------------------


def measure_insert_as_user(world: World) -> Result:
    servers.run_sql(world.connection, "CREATE USER TABLE acted (k BIGINT PRIMARY KEY, label TEXT)")
    servers.run_sql(world.connection, "CREATE USER 'subject' WITH PASSWORD 'measured too' ROLE user")

    def step(connection: flightsql.Connection) -> Step:
        keys, cursor = itertools.count(), connection.cursor()
        return lambda: cursor.execute("INSERT INTO acted VALUES (?, ?)", (next(keys), "a label"))

    for_another = world.connect({"x-kalam-as-user": "subject"})
    a, b = in_blocks(step(for_another), step(world.connection), world.sizes.calls)
    return Result(
        name=INSERT_AS_USER,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", 1.1),
        unit="ms",
        peer_name="the same, not recorded",
        runs=len(a),
        note=f"synced to disk before each answer; ours {spread(a, 1e3, 'ms')}",
    )


def measure_own_rows_hot(world: World) -> Result:
    return _own_rows(world, OWN_ROWS_HOT, lambda folder: _fill(folder, world.sizes.users, flushed=False))


def measure_own_rows_cold(world: World) -> Result:
    return _own_rows(world, OWN_ROWS_COLD, lambda folder: _fill(folder, world.sizes.users, flushed=True))


def _own_rows(world: World, name: str, fill: Callable[[Path], None]) -> Result:
    folder = world.folder / name
    fill(folder)
    server = servers.start_kalam(folder, world.log(name))
    try:
        chosen = np.random.default_rng(data.SEED).choice(world.sizes.users, _CONNECTIONS, replace=False)
        connections = [_login(server.uri, _name(int(i))) for i in chosen]
        try:
            asks = itertools.cycle([_asks(c, "SELECT * FROM owned WHERE v >= 0", ROWS_EACH) for c in connections])
            stub = _asks(world.stub_connection, "SELECT * FROM owned WHERE v >= 0", 1)
            a, b = in_blocks(lambda: next(asks)(), stub, world.sizes.calls)
        finally:
            for connection in connections:
                connection.close()
    finally:
        server.stop()
    return Result(
        name=name,
        ours=median(a) * 1e3,
        peer=median(b) * 1e3,
        ratio=median(a) / median(b),
        target=Target("ratio", "at most", 2.0),
        unit="ms",
        peer_name="do-nothing Flight SQL",
        runs=len(a),
        note=f"{ROWS_EACH} rows of each of {world.sizes.users:,} users in one table; ours {spread(a, 1e3, 'ms')}",
    )


def _login(uri: str, user: str) -> flightsql.Connection:
    return flightsql.connect(uri, db_kwargs={"username": user, "password": "not guessed"}, autocommit=True)


def _asks(connection: flightsql.Connection, sql: str, expected: int) -> Step:
    def once() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            found = len(cursor.fetchall())
        if found != expected:
            raise AssertionError(f"{expected} rows were expected, not {found}")

    return once


# -- flush ------------------------------------------------------------------------------------------------------------


def measure_flush_scopes(world: World) -> Result:
    with _opened(world.folder / "identity-flush", durability="sync") as kalam:
        users = min(1_000, world.sizes.users)
        _write_rows(kalam, users)
        session = _session(kalam)
        started = time.perf_counter()
        list(session.query("FLUSH TABLE owned WAIT"))
        taken = time.perf_counter() - started
        folders = sum(1 for _ in (kalam.config.server.data_dir / "cold").rglob("manifest.json"))
    if folders != users:
        raise AssertionError(f"{users} users' rows were to be flushed, not {folders}")
    note = f"{users:,} users, {ROWS_EACH} rows each, {taken / users * 1e3:.1f} ms for one"
    return Result(FLUSH_SCOPES, taken, None, None, Target("ours", "at most", 10.0), "s", "", 1, note)


# -- data -------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(folder: Path, durability: str = "async") -> Iterator[Kalam]:
    """The service in this process.  Accounts are made with the cheapest hashes: it is not they that are measured."""
    kalam = open_kalam(
        Config(
            server={"data_dir": folder},
            auth={"root_password": servers.PASSWORD, "argon2_time_cost": 1, "argon2_memory_kib": 512},
            storage={"durability": durability},
            compaction={"enabled": False},
        )
    )
    try:
        yield kalam
    finally:
        kalam.close()


def _session(kalam: Kalam) -> Session:
    return Session(kalam.parts, Identity.of("root", Role.SYSTEM, session_id="s", via="password"), "s", Results())


def _name(i: int) -> str:
    return f"user-{i:05}"


def _fill(folder: Path, users: int, *, flushed: bool) -> None:
    with _opened(folder) as kalam:
        for i in range(users):
            kalam.parts.accounts.create(_name(i), "not guessed", Role.USER)
        _write_rows(kalam, users)
        if flushed:
            list(_session(kalam).query("FLUSH TABLE owned WAIT"))


def _write_rows(kalam: Kalam, users: int) -> None:
    """Through the write door: what is measured is how they are read and flushed, not how they came."""
    options = "FLUSH_POLICY = 'rows:1000000000', COMPACTION = 'manual'"
    columns = "id BIGINT PRIMARY KEY, v INT, label TEXT, at TIMESTAMP"
    _session(kalam).update(f"CREATE USER TABLE owned ({columns}) WITH ({options})", None)
    table = kalam.parts.catalog.state.find("main", "owned")
    assert isinstance(table, Table)
    for first in range(0, users, _COMMIT):
        owners = range(first, min(first + _COMMIT, users))
        kalam.parts.writer.write([Mutation(table, _name(i), _rows(table, i)) for i in owners])


def _rows(table: Table, user: int) -> pa.Table:
    ids = np.arange(ROWS_EACH, dtype=np.int64)
    columns = [ids, (ids + user) % 100, [f"label {i} of {user}" for i in ids], ids * 1_000_000]
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, table.schema.storage, strict=True)]
    return pa.Table.from_arrays(arrays, schema=table.schema.storage)
