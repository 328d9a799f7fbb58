from __future__ import annotations

from collections.abc import Callable

import pytest
from auth_world import World, cheap


@pytest.fixture
def world() -> World:
    return World(cheap())


@pytest.fixture
def make_world() -> Callable[..., World]:
    return lambda **auth: World(cheap(**auth))
