from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from live_server import PASSWORD, LiveServer

from flightkalam.cli import main
from flightkalam.cli.client import Connection, Target


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("live") / "data") as running:
        yield running


@pytest.fixture
def target(server: LiveServer) -> Target:
    return Target(server.uri, "root", PASSWORD)


@pytest.fixture
def connection(target: Target) -> Iterator[Connection]:
    with Connection(target) as connected:
        yield connected


@pytest.fixture
def run(server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, against the live server."""
    monkeypatch.setenv("FLIGHTKALAM_URI", server.uri)
    monkeypatch.setenv("FLIGHTKALAM_PASSWORD", PASSWORD)

    def call(*arguments: object, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 1
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def table(run: Run, request: pytest.FixtureRequest) -> str:
    """A name of its own for each test's table, for the server is shared."""
    return f"t_{abs(hash(request.node.nodeid)):x}"
