from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from table_world import World, shared_table

from flightkalam import failpoints


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One SHARED table `t` with id 1."""
    table = shared_table()
    made = World(tmp_path, {table.id: table})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms run only when they are asked for: `pytest -m slow tests/table`."""
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
