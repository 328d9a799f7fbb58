from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kalam_world import World


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """A world with settings by section."""
    made: list[World] = []

    def world(**settings: dict[str, Any]) -> World:
        made.append(World(tmp_path / f"data{len(made)}", settings))
        return made[-1]

    yield world
    for each in made:
        each.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()
