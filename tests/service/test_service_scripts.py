"""Every script, in the service's process and through a client, with rows hot, cold, and after restarts: one answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from kalam_world import World
from service_scripts import FOLDER, Play

SCRIPTS = sorted(FOLDER.glob("*.sql"))


def nothing() -> None:
    pass


def _play(world: World, channel: str, mode: str) -> Play:
    def restart() -> None:
        world.restart()

    def flush_and_restart() -> None:
        world.flush()
        world.restart()

    connect = world.in_process if channel == "in-process" else world.adbc
    after_change, at_pause = {
        "hot": (nothing, nothing),
        "cold": (world.flush, nothing),
        "restarted": (nothing, restart),
        "cold and restarted": (nothing, flush_and_restart),
    }[mode]
    return Play(world, connect, after_change, at_pause)


@pytest.mark.parametrize("mode", ["hot", "cold", "restarted", "cold and restarted"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_in_process(world: World, script: Path, mode: str) -> None:
    _play(world, "in-process", mode).run(script)
    world.check()


@pytest.mark.parametrize("mode", ["hot", "cold"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_through_a_client(world: World, script: Path, mode: str) -> None:
    _play(world, "client", mode).run(script)
