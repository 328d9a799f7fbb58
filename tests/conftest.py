from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from kalam_world import Adbc, InProcess, World

from flightkalam import telemetry
from flightkalam.auth.identity import Role
from flightkalam.config import LogConfig

# A busy machine is no finding: no deadline per example.  In CI the same examples every time, elsewhere new ones.
settings.register_profile(
    "kalam",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("kalam")


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    telemetry.configure(LogConfig(level="warning"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A service on an empty data directory."""
    made = World(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def root(world: World) -> InProcess:
    """A session of `root` in the service's own process."""
    return world.in_process()


@pytest.fixture
def wire(world: World) -> Adbc:
    """A connection of `root` over the network."""
    return world.adbc()


@pytest.fixture
def as_role(world: World) -> Callable[[Role], InProcess]:
    """Sessions of a user of each role, named like the role."""
    return lambda role: world.in_process(role.label, role)
