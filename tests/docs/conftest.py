from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of each document's own."""
    with LiveServer(tmp_path_factory.mktemp("docs") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run a reader's commands in: the repository's files, and a `.venv` that is this interpreter."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("Makefile", "pyproject.toml", "examples", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    _program(programs / "python", f'exec "{sys.executable}" "$@"')
    _program(programs / "flightkalam", f'exec "{sys.executable}" -m flightkalam "$@"')
    (folder / ".venv" / ".ready").touch()
    return folder


@pytest.fixture
def environment(workshop: Path, server: LiveServer) -> dict[str, str]:
    """What such a command finds; a server that it starts takes any free port."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLIGHTKALAM", "MAKE", "PYTEST"))}
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {
        "PATH": f"{workshop / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(paths),
        "FLIGHTKALAM_URI": server.uri,
        "FLIGHTKALAM__SERVER__PORT": "0",
    }


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
