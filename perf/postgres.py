"""PostgreSQL as a peer: a private cluster with its default durability, thrown away at the end."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from perf.result import NotPossible

VERSION = 15
INSTALL = f"PostgreSQL {VERSION} is not installed: apt-get install postgresql-{VERSION}"
_OWNER = "postgres"
_READY_SECONDS = 60.0


class Postgres:
    """:raises NotPossible: it is not installed."""

    def __init__(self, near: Path) -> None:
        self._bin = _binaries()
        # A folder of its own, since the server refuses to run as root and must reach its data as another user.
        self._home = Path(tempfile.mkdtemp(prefix="perf-postgres-", dir=near))
        self._as = _OWNER if os.geteuid() == 0 else None
        if self._as is not None:
            shutil.chown(self._home, _OWNER, _OWNER)
        self._data = self._home / "data"
        self._run("initdb", "-D", str(self._data), "-U", _OWNER, "--auth=trust", "--encoding=UTF8", "--no-locale")
        self._port = _free_port()
        self._server = self._start()
        self.uri = f"postgresql://{_OWNER}@127.0.0.1:{self._port}/postgres"
        found = re.search(r"\d+\.\d+", self._run("postgres", "--version"))
        self.version = found[0] if found else str(VERSION)

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(_READY_SECONDS)
        shutil.rmtree(self._home, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        log = (self._home / "log").open("wb")
        listen = ["-p", str(self._port), "-k", str(self._home), "-c", "listen_addresses=127.0.0.1"]
        with log:
            server = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *listen],
                stdout=log,
                stderr=log,
                user=self._as,
                cwd="/",
            )
        deadline = time.monotonic() + _READY_SECONDS
        while subprocess.call([self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]) != 0:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise RuntimeError("PostgreSQL did not start:\n" + (self._home / "log").read_text()[-2_000:])
            time.sleep(0.05)
        return server

    def _run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._bin / name, *arguments], user=self._as, cwd="/", capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {done.stderr.strip()}")
        return done.stdout


def _binaries() -> Path:
    folder = Path(f"/usr/lib/postgresql/{VERSION}/bin")
    if not (folder / "postgres").is_file():
        raise NotPossible(INSTALL)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
