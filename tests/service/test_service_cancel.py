"""A statement that its client cancels stops, also while it computes before its first row (T-52)."""

from __future__ import annotations

import threading
import time

import pytest
from kalam_world import World


def test_a_cancelled_aggregate_stops_computing(world: World) -> None:
    client = world.adbc()
    cursor = client.connection.cursor()
    threading.Timer(1.0, cursor.adbc_cancel).start()
    with pytest.raises(Exception, match="(?i)cancel"):
        cursor.execute("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")
        cursor.fetchall()
    cursor.close()
    time.sleep(1.0)
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.7, "the engine is still at it"
