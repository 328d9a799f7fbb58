from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "table"))

from table_world import World, shared_table

from flightkalam import failpoints


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One SHARED table `t` with id 1, without the cost of syncing."""
    table = shared_table()
    made = World(tmp_path, {table.id: table}, durable=False)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()
