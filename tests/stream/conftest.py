from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "table"))

from kalam_world import World
from stream_support import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def world(tmp_path: Path, clock: StillClock) -> Iterator[World]:
    """A service whose time stands still until a test moves it."""
    made = World(tmp_path, {"storage": {"durability": "async", "hot_stage_bytes": 65_536}}, clock)
    yield made
    made.close()
