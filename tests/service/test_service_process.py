"""The server as a process: how it starts, drains and stops, and what it still knows after it was killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from kalam_world import CHEAP, HEADER, ROOT_PASSWORD

READY = re.compile(r"FlightKalam ready (grpc://\S+)")


class Server:
    """`flightkalam serve` on a data directory; what it says goes to a file beside it."""

    def __init__(self, data_dir: Path, *options: str, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "flightkalam", "serve", "--data-dir", str(data_dir), "--port", "0", *options]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLIGHTKALAM")}
        self._output = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.out")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env={**inherited, **environment})

    @property
    def said(self) -> str:
        return self._output.read_text()

    def ready(self, seconds: float = 60) -> str:
        """The location in the ready line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := READY.search(self.said):
                return found.group(1)
            assert self.process.poll() is None, f"the server ended: {self.said}"
            time.sleep(0.02)
        raise AssertionError(f"no ready line in {seconds} s: {self.said}")

    def ended(self, seconds: float = 60) -> int:
        return self.process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        self.process.send_signal(number)
        return self.ended(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start_one(folder: str = "data", *options: str, password: str = ROOT_PASSWORD, **settings: object) -> Server:
        given = {"FLIGHTKALAM__AUTH__ROOT_PASSWORD": password} if password else {}
        given |= {f"FLIGHTKALAM__AUTH__{k.upper()}": str(v) for k, v in CHEAP.items()}
        given |= {f"FLIGHTKALAM__{k.upper()}": str(v) for k, v in settings.items()}
        started.append(Server(tmp_path / folder, *options, environment=given))
        return started[-1]

    yield start_one
    for server in started:
        server.kill()


@contextlib.contextmanager
def connect(uri: str, user: str = "root", password: str = ROOT_PASSWORD, **headers: str) -> Iterator[adbc.Connection]:
    """A connection whose end is quiet, also when its server is gone."""
    options = {HEADER + k.replace("_", "-"): v for k, v in headers.items()}
    connection = adbc.connect(uri, db_kwargs={"username": user, "password": password, **options}, autocommit=True)
    try:
        yield connection
    finally:
        with contextlib.suppress(Exception):
            connection.close()


@contextlib.contextmanager
def cursor_of(connection: adbc.Connection) -> Iterator[adbc.Cursor]:
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        for _ in range(2):  # the second time there is nothing left that could fail
            with contextlib.suppress(Exception):
                cursor.close()
        cursor._closed = True


def run(connection: adbc.Connection, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with cursor_of(connection) as cursor:
        cursor.execute(sql, *parameters)
        return cursor.fetchall() if cursor.description else []


def test_it_says_when_it_is_ready_and_a_stop_ends_with_0(start):
    server = start()
    with connect(server.ready()) as connection:
        assert run(connection, "SELECT 1") == [(1,)]
    assert server.stop() == 0
    again = start()
    again.ready()
    assert again.stop(signal.SIGINT) == 0


def test_the_first_start_prints_a_password_once(start):
    server = start(password="")
    uri = server.ready()
    found = re.search(r"account root with the password (\S+)", server.said)
    assert found is not None and len(found.group(1)) >= 16
    with connect(uri, password=found.group(1)) as connection:
        assert run(connection, "SELECT current_user") == [("root",)]
    with pytest.raises(Exception, match="28000"), connect(uri, password=""):
        pass
    assert server.stop() == 0
    again = start(password="")
    again.ready()
    assert "password" not in again.said


def test_a_second_server_on_the_same_directory_is_refused(start):
    first = start()
    uri = first.ready()
    second = start()
    assert second.ended() == 2
    assert "in use by another server" in second.said and "Traceback" not in second.said and "ready" not in second.said
    with connect(uri) as connection:
        assert run(connection, "SELECT 1") == [(1,)]


def test_a_taken_port_and_bad_settings_end_with_2(start):
    port = start().ready().rsplit(":", 1)[1]
    others = {
        port: start("a", "--port", port),
        "no_such_key": start("b", server__no_such_key=1),
        "auth.nope": start("d", "--set", "auth.nope=1"),
    }
    for said, server in others.items():
        assert server.ended() == 2
        assert said in server.said.lower() and "Traceback" not in server.said


def test_sigterm_lets_a_running_result_end(start):
    server = start()
    uri = server.ready()
    with connect(uri) as connection, cursor_of(connection) as cursor:
        cursor.execute("SELECT i, repeat('x', 100) AS s FROM range(100000) a(i), range(10) b(j)")
        reader = cursor.fetch_record_batch()
        seen = reader.read_next_batch().num_rows
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with contextlib.suppress(Exception), connect(uri) as late:
            with pytest.raises(Exception, match="shutting down|refused|unavailable|UNAVAILABLE|EOF"):
                run(late, "SELECT 1")
        for batch in reader:
            seen += batch.num_rows
        assert seen == 1_000_000
    assert server.ended() == 0


def test_a_result_that_nobody_reads_does_not_hold_the_stop_for_ever(start):
    server = start(server__drain_seconds=1)
    with connect(server.ready()) as connection, cursor_of(connection) as cursor:
        cursor.execute("SELECT i, repeat('x', 100) AS s FROM range(100000) a(i), range(100) b(j)")
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        assert server.stop() == 0


VANISHING = """
import os, sys
import adbc_driver_flightsql.dbapi as adbc
connection = adbc.connect(sys.argv[1], db_kwargs={"username": "root", "password": sys.argv[2]}, autocommit=True)
cursor = connection.cursor()
cursor.execute("SELECT i, repeat('x', 100) AS s FROM range(100000) a(i), range(100) b(j)")
cursor.fetch_record_batch().read_next_batch()
os._exit(0)
"""


def test_a_client_that_vanished_does_not_hold_the_stop(start):
    server = start(server__drain_seconds=1)
    uri = server.ready()
    subprocess.run([sys.executable, "-c", VANISHING, uri, ROOT_PASSWORD], check=True, timeout=60)
    assert server.stop() == 0


def test_a_running_job_does_not_hold_the_stop_and_loses_nothing(start):
    server = start(server__drain_seconds=1)
    with connect(server.ready()) as connection:
        run(connection, "CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT)")
        for first in (0, 100_000):
            run(connection, f"INSERT INTO t SELECT i, 'row ' || i FROM range({first}, {first + 100_000}) AS r(i)")
            run(connection, "FLUSH TABLE t")
        run(connection, "COMPACT TABLE t")
        assert server.stop() == 0
    with connect(start().ready()) as connection:
        assert run(connection, "SELECT count(*), min(s), max(id) FROM t") == [(200_000, "row 0", 199_999)]
        assert [r[5] for r in run(connection, "CHECK TABLE t")] == [None]


STUCK = """
import os, signal, sys, threading, time
from pathlib import Path
from flightkalam import app
from flightkalam.config import Config
app._CLOSING_SECONDS = 0.5
app.Listener.close = lambda self: time.sleep(600)
config = Config(server={"data_dir": Path(sys.argv[1]), "port": 0, "drain_seconds": 0}, auth={"root_password": "long enough"})
app.serve(config, lambda line: os.kill(os.getpid(), signal.SIGTERM) if "ready" in line else None)
"""


def test_what_does_not_close_is_left_to_the_next_start(tmp_path):
    done = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path / "data")], timeout=60, capture_output=True, text=True)
    assert done.returncode == 1 and "closing_abandoned" in done.stderr + done.stdout


@pytest.mark.parametrize("flushing", [False, True])
def test_after_kill_9_every_acknowledged_row_is_there(start, flushing):
    """T-14: acknowledged means durable."""
    server = start()
    uri = server.ready()
    with connect(uri) as connection:
        run(connection, "CREATE TABLE t (id BIGINT PRIMARY KEY, writer INT, s TEXT)")
    acknowledged: list[int] = []
    attempted: list[int] = []

    def write(writer: int) -> None:
        with contextlib.suppress(Exception), connect(uri) as connection, cursor_of(connection) as cursor:
            for i in range(10_000):
                key = writer * 10_000 + i
                attempted.append(key)
                cursor.execute("INSERT INTO t VALUES (?, ?, ?)", (key, writer, f"row {key}"))
                acknowledged.append(key)

    def flush() -> None:
        with contextlib.suppress(Exception), connect(uri) as connection:
            while True:
                run(connection, "FLUSH TABLE t WAIT")

    threads = [threading.Thread(target=write, args=(w,)) for w in range(3)]
    threads += [threading.Thread(target=flush)] if flushing else []
    for thread in threads:
        thread.start()
    while len(acknowledged) < 300:
        time.sleep(0.01)
    server.process.kill()
    for thread in threads:
        thread.join(30)
    server.kill()
    with connect(start().ready()) as connection:
        rows = run(connection, "SELECT id, writer, s FROM t")
        ids = [r[0] for r in rows]
        assert len(ids) == len(set(ids))
        assert set(acknowledged) <= set(ids) <= set(attempted)
        assert all(r == (r[0], r[0] // 10_000, f"row {r[0]}") for r in rows)
        assert [r[5] for r in run(connection, "CHECK TABLE t")] == [None]
        run(connection, "INSERT INTO t VALUES (-1, -1, 'goes on')")


def test_after_kill_9_in_the_middle_of_an_ingest_nothing_of_it_is_there(start, tmp_path):
    server = start()
    uri = server.ready()
    with connect(uri, x_kalam_primary_key="a") as connection, cursor_of(connection) as cursor:
        cursor.adbc_ingest("t", pa.table({"a": [1], "b": ["there"]}), mode="create")
        batch = pa.record_batch({"a": list(range(10, 50_010)), "b": ["x" * 20] * 50_000})

        def batches() -> Iterator[pa.RecordBatch]:
            for i in range(1_000):
                if i == 5:
                    server.process.kill()
                yield batch

        with pytest.raises(Exception):
            cursor.adbc_ingest("t", pa.RecordBatchReader.from_batches(batch.schema, batches()), mode="append")
    server.kill()
    with connect(start().ready()) as connection:
        assert run(connection, "SELECT * FROM t") == [(1, "there")]
    assert not list((tmp_path / "data" / "hot").glob("*"))


def test_a_large_ingest_needs_little_memory(start):
    """A million rows of about 100 bytes stream through: what stays is far less than they weigh."""
    server = start(engine__memory_limit="512 MiB")
    uri = server.ready()
    n, batch_rows = 1_000_000, 25_000
    filler = pa.array([f"{i:076}" for i in range(batch_rows)])

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, n, batch_rows):
            keys = pa.array(range(first, first + batch_rows))
            yield pa.record_batch({"a": keys, "b": keys, "s": filler})

    with connect(uri, x_kalam_primary_key="a") as connection:
        run(connection, "SELECT count(*) FROM range(1000000)")
        before = _own_memory(server.process.pid)
        most = before
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.01):
                most = max(most, _own_memory(server.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with cursor_of(connection) as cursor:
            schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("s", pa.utf8())])
            assert cursor.adbc_ingest("t", pa.RecordBatchReader.from_batches(schema, batches()), mode="create") == n
        done.set()
        watcher.join()
        assert run(connection, "SELECT count(*), min(a), max(b) FROM t") == [(n, 0, n - 1)]
    weight = n * (8 + 8 + 76 + 4)
    assert most - before < weight, f"{(most - before) >> 20} MiB for {weight >> 20} MiB of rows"


def _own_memory(pid: int) -> int:
    """Memory that the process would need to have for itself; mapped files can be dropped at any time."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) << 10  # type: ignore[union-attr]
