"""Older clients, each in a virtual environment of its own with the versions that Superset asks for: SQLAlchemy below 2 and
pyarrow below 19 without anything of the server, and flightsql-dbapi with its own dialect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kalam_world import ROOT_PASSWORD, World

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Venv:
    def __init__(self, folder: Path, *packages: str) -> None:
        self.python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        done = subprocess.run([*pip, *packages], capture_output=True, text=True, timeout=300)
        if done.returncode and ("Temporary failure" in done.stderr or "NewConnectionError" in done.stderr):
            pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str, path: Path | None = None) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment = kept | ({"PYTHONPATH": str(path)} if path is not None else {})
        done = subprocess.run([str(self.python), *arguments], capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def test_sqlalchemy_1_4_with_an_old_pyarrow(world: World, tmp_path: Path) -> None:
    venv = Venv(tmp_path / "v", "sqlalchemy==1.4.54", "pyarrow==17.0.0", "pandas==2.1.4", "numpy<2", "adbc-driver-flightsql")
    # The dialect alone, as `pip install --no-deps flightkalam` leaves it.
    alone = tmp_path / "site"
    alone.mkdir()
    (alone / "flightkalam").symlink_to(ROOT / "flightkalam")
    register = (
        "import runpy, sys; from sqlalchemy.dialects import registry; "
        "registry.register('flightkalam', 'flightkalam.client.dialect', 'FlightKalamDialect'); "
        f"sys.argv[1:] = ['{url(world)}']; runpy.run_path('{HERE / 'dialect_tour.py'}', run_name='__main__')"
    )
    assert venv.run("-c", register, path=alone) == "done 1.4.54"


def url(world: World) -> str:
    return f"flightkalam://root:{ROOT_PASSWORD}@{world.uri.removeprefix('grpc://')}/main"


def test_flightsql_dbapi(world: World, tmp_path: Path) -> None:
    venv = Venv(tmp_path / "v", "flightsql-dbapi==0.2.2", "pyarrow<19", "numpy<2", "pandas==2.1.4")
    world.in_process().run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")
    world.in_process().run("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    assert venv.run(str(HERE / "flightsql_dbapi_tour.py"), world.uri, ROOT_PASSWORD) == "done"
