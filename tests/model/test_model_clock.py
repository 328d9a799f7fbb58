"""Snowflake ids under a clock that is turned by hand."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightkalam.clock import EPOCH_MS, Snowflakes, id_after, id_offsets, id_range, id_time_us, node_number

NOW_MS = 90_000_000


class HandClock:
    def __init__(self, ms: int = NOW_MS) -> None:
        self.ms = ms

    def now_us(self) -> int:
        return (EPOCH_MS + self.ms) * 1000

    def monotonic(self) -> float:
        return self.ms / 1000


def parts(id_: int) -> tuple[int, int, int]:
    """(milliseconds, node, sequence), as SEMANTICS states the layout."""
    return id_ >> 22, (id_ >> 12) & 1023, id_ & 4095


def test_an_id_is_41_bits_of_milliseconds_10_of_node_and_12_of_sequence() -> None:
    ids = Snowflakes(HandClock(), node=777)
    assert [parts(ids.take()) for _ in range(3)] == [(NOW_MS, 777, 0), (NOW_MS, 777, 1), (NOW_MS, 777, 2)]


def test_the_time_of_an_id_can_be_read_back() -> None:
    assert id_time_us(Snowflakes(HandClock(), node=5).take()) == (EPOCH_MS + NOW_MS) * 1000


def test_an_id_is_positive_until_the_41_bits_are_used_up() -> None:
    assert 0 < Snowflakes(HandClock(2**41 - 1), node=1023).take() < 2**63  # T-4


def test_a_new_millisecond_begins_a_new_sequence() -> None:
    clock = HandClock()
    ids = Snowflakes(clock, node=1)
    ids.take()
    clock.ms += 1
    assert parts(ids.take()) == (NOW_MS + 1, 1, 0)


def test_a_clock_that_goes_back_changes_nothing_of_the_order() -> None:
    """T-1: NTP, or a resumed machine."""
    clock = HandClock()
    ids = Snowflakes(clock, node=1)
    first = ids.take()
    clock.ms -= 3_600_000
    assert [parts(i) for i in (ids.take(), ids.take())] == [(NOW_MS, 1, 1), (NOW_MS, 1, 2)]
    assert ids.take() > first


def test_more_than_4096_ids_in_a_millisecond_borrow_from_the_next() -> None:
    """T-2: never wrap, never wait."""
    ids = Snowflakes(HandClock(), node=3)
    taken = [ids.take() for _ in range(9_000)]
    assert taken == sorted(set(taken))
    assert parts(taken[4095]) == (NOW_MS, 3, 4095)
    assert parts(taken[4096]) == (NOW_MS + 1, 3, 0)


def test_a_million_ids_run_244_milliseconds_ahead_of_the_clock() -> None:
    clock = HandClock()
    ids = Snowflakes(clock, node=3)
    block = ids.ids(1_000_000)
    assert len(np.unique(block)) == 1_000_000
    assert parts(int(block[-1]))[0] - NOW_MS == 244
    clock.ms += 245
    assert parts(ids.take()) == (NOW_MS + 245, 3, 0)


def test_ids_go_on_above_the_floor_after_a_restart() -> None:
    before = Snowflakes(HandClock(), node=9)
    last = int(before.ids(10_000)[-1])
    after = Snowflakes(HandClock(NOW_MS - 1_000_000), node=9, floor=last)
    assert after.take() > last


def test_a_floor_of_a_higher_node_is_left_behind_too() -> None:
    """Within one millisecond a lower node's id would sort below."""
    last = Snowflakes(HandClock(), node=1023).take()
    assert Snowflakes(HandClock(), node=0, floor=last).take() > last


def test_the_reserved_id_is_never_below_one_that_was_handed_out() -> None:
    """T-1: the reservation of the crashed process, as floor of the next, keeps its unlogged ids from coming twice."""
    kept: list[int] = []
    clock = HandClock()
    ids = Snowflakes(clock, node=4, reserve=kept.append)
    for step in (1, 4095, 1, 5_000 * 4096, 20_000_000, 3):
        last = id_after(ids.take(step), step - 1)
        assert kept[-1] >= last
    restarted = Snowflakes(HandClock(0), node=4, floor=kept[-1])
    assert restarted.take() > last


def test_a_reservation_is_made_once_in_a_while_and_not_per_id() -> None:
    kept: list[int] = []
    ids = Snowflakes(HandClock(), node=4, reserve=kept.append)
    for _ in range(5_000):
        ids.take()
    assert len(kept) == 1


def test_a_node_beyond_ten_bits_is_refused() -> None:
    for node in (-1, 1024):
        with pytest.raises(ValueError, match=r"0\.\.1023"):
            Snowflakes(HandClock(), node)


@pytest.mark.parametrize(("name", "node"), [("node-1", 586), ("", 20), ("ü", 804)])
def test_the_node_of_a_name_is_the_same_in_every_release(name: str, node: int) -> None:
    assert node_number(name) == node


def test_threads_share_no_id() -> None:
    ids = Snowflakes(HandClock(), node=2)
    taken: list[list[int]] = [[] for _ in range(8)]

    def take(out: list[int]) -> None:
        for _ in range(300):
            out.append(ids.take())

    threads = [threading.Thread(target=take, args=(out,)) for out in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({i for out in taken for i in out}) == 8 * 300
    assert all(out == sorted(out) for out in taken)


STEPS = st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(1, 20_000)), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(STEPS, st.integers(0, 1023))
def test_blocks_never_overlap_and_always_grow_whatever_the_clock_does(steps: list[tuple[int, int]], node: int) -> None:
    clock = HandClock()
    ids = Snowflakes(clock, node)
    last = 0
    for turn, n in steps:
        clock.ms += turn
        block = ids.ids(n)
        assert int(block[0]) > last
        assert bool((np.diff(block) > 0).all()) and len(block) == n
        assert {parts(int(i))[1] for i in (block[0], block[-1])} == {node}
        last = int(block[-1])


IDS = st.builds(
    lambda ms, node, seq: ms << 22 | node << 12 | seq, st.integers(0, 2**40), st.integers(0, 1023), st.integers(0, 4095)
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(IDS, st.integers(1, 9_000))
def test_range_after_and_offsets_agree(first: int, n: int) -> None:
    """T-5: the n-th id of a commit is the same wherever it is computed."""
    block = id_range(first, n)
    assert block[0] == first and len(block) == n
    assert block[-1] == id_after(first, n - 1)
    assert id_after(first, n) > block[-1]
    assert np.array_equal(id_offsets(first, block), np.arange(n))
