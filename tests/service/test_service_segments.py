"""The segment file of a large write, when something fails behind the commit."""

from __future__ import annotations

import pytest
from kalam_world import InProcess, World

from flightkalam import failpoints


@pytest.mark.parametrize("place", ["write.appended", "write.durable"])
def test_whatever_fails_after_a_large_write_is_in_the_log_leaves_its_file(world: World, root: InProcess, place: str) -> None:
    """T-15: the log names the segment file already; a restart reads it."""
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")

    def fail() -> None:
        raise OSError("something nobody expects")

    failpoints.arm(place, fail)
    try:
        with pytest.raises(BaseException):
            root.run("INSERT INTO t SELECT range, repeat('x', 100) FROM range(50000)")
    finally:
        failpoints.disarm()
    world.restart()
    seen = world.in_process().run("SELECT count(*) AS n FROM t").rows
    assert seen is not None and seen.to_pydict() == {"n": [50000]}
    world.check()
