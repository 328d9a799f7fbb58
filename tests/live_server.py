"""A server as its users have it: a process of its own, started by the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

PASSWORD = "secret-password"
READY = "FlightKalam ready "


class LiveServer:
    """`lines` are what it said before it was ready."""

    def __init__(self, data_dir: Path, *options: str, password: str | None = PASSWORD) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLIGHTKALAM")}
        if password is not None:
            environment["FLIGHTKALAM__AUTH__ROOT_PASSWORD"] = password
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.lines: list[str] = []
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flightkalam", "serve", "--data-dir", str(data_dir), "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.uri = self._ready()

    def _ready(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
            self.lines.append(line.rstrip("\n"))
        raise AssertionError(f"the server did not start: {self.log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.uri.rpartition(":")[2])

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
