"""Server processes that print a line when they are ready."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql

USER, PASSWORD = "root", "measured-secret"
_ROOT = Path(__file__).parent.parent  # where both packages lie, wherever the command is run
_READY = re.compile(r"ready (grpc://\S+)")
_READY_SECONDS = 120.0
_STOP_SECONDS = 60.0


@dataclass
class ServerProcess:
    """:param seconds: from the start of the process to its ready line.
    :param processor_seconds: how much of it was spent working, which a busy machine does not lengthen.
    """

    uri: str
    seconds: float
    processor_seconds: float
    process: subprocess.Popen[str]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def start(arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> ServerProcess:
    """Run `python -m …` and wait for its ready line.

    :raises RuntimeError: it ended or stayed silent; what it wrote is in the message.
    """
    started = time.perf_counter()
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**_environment(log.parent / "bytecode"), **(environment or {})},
        )
    assert process.stdout is not None
    for line in process.stdout:
        found = _READY.search(line)
        if found is not None:
            return ServerProcess(found[1], time.perf_counter() - started, _processor_seconds(process.pid), process)
        if time.perf_counter() - started > _READY_SECONDS:
            break
    process.kill()
    process.wait()
    raise RuntimeError(f"{' '.join(arguments)} did not become ready:\n{log.read_text()[-2_000:]}")


def _processor_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment(bytecode: Path) -> dict[str, str]:
    """Ours, with compiled modules kept: an installed package has them, whatever the shell of a developer says."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(p for p in (str(_ROOT), kept.get("PYTHONPATH", "")) if p)
    return {**kept, "PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONPATH": path}


def start_kalam(data_dir: Path, log: Path) -> ServerProcess:
    """The service with its default settings."""
    arguments = ["flightkalam", "serve", "--data-dir", str(data_dir), "--port", "0"]
    return start(arguments, log, {"FLIGHTKALAM__AUTH__ROOT_PASSWORD": PASSWORD})


def connect(uri: str, headers: dict[str, str] | None = None) -> flightsql.Connection:
    """A connection with autocommit, logged in."""
    options = {"username": USER, "password": PASSWORD}
    options |= {f"adbc.flight.sql.rpc.call_header.{name}": value for name, value in (headers or {}).items()}
    return flightsql.connect(uri, db_kwargs=options, autocommit=True)


def run_sql(connection: flightsql.Connection, sql: str) -> None:
    """Run a statement and read its answer to the end."""
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        if cursor.description is not None:
            cursor.fetchall()
