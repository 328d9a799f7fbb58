"""One S3 server for all; each test has its own prefix and its own proxy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kalam_world import World
from object_store import S3, Proxy

from flightkalam import failpoints

_prefixes = itertools.count()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    made = Proxy(s3)
    yield made
    made.close()


@pytest.fixture
def prefix() -> str:
    return f"p{next(_prefixes)}"


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """A server on a data directory of the given name, with few and short retries."""
    made: list[World] = []

    def make(name: str = "data", **storage: Any) -> World:
        world = World(tmp_path / name, {"storage": {"object_retries": 2, "object_timeout_seconds": 5, **storage}})
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()
