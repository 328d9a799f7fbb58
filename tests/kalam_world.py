"""A service to test: a data directory, the server on it, and the people who talk to it.

A `World` can be restarted, flushed and listened to.  A `Client` is somebody's session in it: `InProcess` calls the session
as the wire does, `Adbc` is a real client on a real socket.  Both answer alike, so one specification holds for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa

from flightkalam.app import Kalam, Listener, open_kalam
from flightkalam.auth.identity import Identity, Role
from flightkalam.clock import Clock
from flightkalam.config import Config
from flightkalam.errors import KalamError
from flightkalam.hot import log_keys
from flightkalam.session import Session
from flightkalam.session.results import Results

ROOT_PASSWORD = "root-secret"
# Argon2 at its cheapest: these tests are about what a login leads to, not about what guessing costs.
CHEAP = {"argon2_time_cost": 1, "argon2_memory_kib": 512}
HEADER = "adbc.flight.sql.rpc.call_header."
_SQLSTATE = re.compile(r"\[SQLSTATE (\w{5})\]")


def config(data_dir: Path, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    sections: dict[str, dict[str, Any]] = {
        "server": {"data_dir": data_dir, "port": 0},
        "auth": {"root_password": ROOT_PASSWORD, **CHEAP},
        "log": {"level": "error"},
        # Every batch of a test is small; what reads large ones is to be tested with them.
        "manifest": {"small_batch_rows": 0},
    }
    for name, values in (settings or {}).items():
        sections.setdefault(name, {}).update(values)
    return Config(**sections)


class Refused(Exception):
    """An error as a client sees it."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate
        self.message = message


@dataclass(frozen=True)
class Answer:
    """What a statement gave: rows, or how many it changed."""

    rows: pa.Table | None = None
    count: int | None = None


class Client(Protocol):
    def run(self, sql: str) -> Answer: ...

    def close(self) -> None: ...


class InProcess:
    """Calls a session as the wire does: prepare, plan, fetch."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, sql: str) -> Answer:
        try:
            prepared = self.session.prepare(sql, None)
            try:
                if prepared.is_update:
                    return Answer(count=self.session.update_prepared(prepared.handle, None))
                planned = self.session.plan_prepared(prepared.handle)
                rows = self.session.fetch(planned.handle)
                assert rows.schema == prepared.schema == planned.schema
                return Answer(rows=pa.Table.from_batches(list(rows), rows.schema))
            finally:
                self.session.close_prepared(prepared.handle)
        except KalamError as e:
            raise Refused(e.sqlstate, e.message) from None

    def close(self) -> None:
        self.session.close()


class Adbc:
    """A connection over the network."""

    def __init__(self, connection: adbc.Connection) -> None:
        self.connection = connection

    def run(self, sql: str) -> Answer:
        with self.connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                if cursor.description:
                    return Answer(rows=cursor.fetch_arrow_table())
                return Answer(count=cursor.rowcount)
            except (adbc_driver_manager.Error, pa.ArrowException, OSError) as e:
                raise refused(e) from None

    def close(self) -> None:
        self.connection.close()


def refused(error: BaseException) -> Refused:
    """A client library's error in our words; everything the service refuses has its SQLSTATE and no traceback."""
    text = str(error)
    found = _SQLSTATE.search(text)
    assert found is not None, f"an error without SQLSTATE: {text}"
    assert "Traceback" not in text and ".py" not in text, text
    return Refused(found.group(1), text)


class World:
    """:param settings: of the configuration, by section.
    :param clock: of the service; the system's if none is given.
    """

    def __init__(
        self, data_dir: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock
        self.config = config(data_dir, settings)
        self.data_dir = data_dir
        self._clients: list[Client] = []
        self._listener: Listener | None = None
        self._kalam: Kalam | None = None
        self._results = Results()

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def kalam(self) -> Kalam:
        if self._kalam is None:
            self._kalam = open_kalam(self.config, self.clock)
        return self._kalam

    @property
    def uri(self) -> str:
        """Where the service listens; it begins to when first asked."""
        if self._listener is None:
            self._listener = Listener(self.kalam)
        return self._listener.location

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
        elif self._kalam is not None:
            self._kalam.close()
        self._listener = self._kalam = None

    def restart(self) -> None:
        """Close everything and open the directory again; clients have to be made anew."""
        self.close()
        assert self.kalam is not None

    # -- people -----------------------------------------------------------------------------------------------

    def user(self, name: str, role: Role) -> None:
        """Make sure that the account exists."""
        if self.kalam.parts.accounts.get(name) is None:
            self.kalam.parts.accounts.create(name, password_of(name), role)

    def session(self, user: str = "root", role: Role = Role.SYSTEM) -> Session:
        self.user(user, role)
        session_id = f"{user}-{len(self._clients)}"
        identity = Identity.of(user, role, session_id=session_id, via="password")
        return Session(self.kalam.parts, identity, session_id, self._results)

    def in_process(self, user: str = "root", role: Role = Role.SYSTEM) -> InProcess:
        return self._kept(InProcess(self.session(user, role)))

    def adbc(self, user: str = "root", role: Role = Role.SYSTEM, **headers: str) -> Adbc:
        """:param headers: sent with every call; `_` stands for `-`."""
        self.user(user, role)
        options = {HEADER + name.replace("_", "-"): value for name, value in headers.items()}
        login = {"username": user, "password": password_of(user)}
        return self._kept(Adbc(adbc.connect(self.uri, db_kwargs={**login, **options}, autocommit=True)))

    def _kept(self, client: Any) -> Any:
        self._clients.append(client)
        return client

    # -- upkeep -----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Have every row of every table in Parquet."""
        rows = InProcess(self.session()).run("FLUSH ALL TABLES WAIT").rows
        assert rows is not None and rows.column("status").to_pylist() == ["completed"]

    def check(self) -> None:
        """What queries see must be MAX(_seq) over files and log, in every scope of every table."""
        client = InProcess(self.session())
        for table in self.kalam.parts.catalog.state.tables.values():
            rows = client.run(f'CHECK TABLE "{table.namespace}"."{table.name}"').rows
            assert rows is not None and set(rows.column("problem").to_pylist()) <= {None}, rows.to_pylist()

    def stray_files(self) -> list[str]:
        """Files of writes that nothing names: what a failed write must not leave."""
        found = [p for p in self.data_dir.rglob("*") if p.name.endswith(".tmp")]
        named = _segments(self.kalam)
        found += [p for p in (self.data_dir / "hot").rglob("seg-*") if p.name not in named]
        return [str(p.relative_to(self.data_dir)) for p in found]


def _segments(kalam: Kalam) -> set[str]:
    return {log_keys.segment_file(key) for key, _ in kalam.store.scan("log", log_keys.ALL_SEGMENTS)}


def password_of(user: str) -> str:
    return ROOT_PASSWORD if user == "root" else f"secret-of-{user}"
