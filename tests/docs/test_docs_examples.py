"""The programs in examples/ run as they stand, given a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from live_server import PASSWORD, LiveServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The demo starts a server of its own; README's `make demo` runs it.
PROGRAMS = sorted(p.name for p in EXAMPLES.glob("*.py") if p.name != "demo.py")


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_runs_and_cleans_up_behind_itself(program: str, server: LiveServer, environment: dict[str, str]):
    command = [sys.executable, str(EXAMPLES / program), server.uri, "root", PASSWORD]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_expected_ones_are_there():
    assert PROGRAMS == ["adbc_basic.py", "pandas_example.py", "polars_example.py", "raw_flight.py"]
