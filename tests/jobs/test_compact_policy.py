"""Which batches are merged, from the manifest alone."""

from __future__ import annotations

import pytest
from table_world import shared_table

from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import BatchEntry, Manifest, VectorRef
from flightkalam.jobs.compact_policy import Policy, Want, choose, overlapping, wants_compaction
from flightkalam.model.ids import Scope

SCHEMA = shared_table().schema
POLICY = Policy(rows_per_batch=100, small=3, overlapping=4, dead_share=0.2)


def batch(number: int, low: int | None, high: int | None, rows: int = 100, dead: int = 0, tombstones: int = 0) -> BatchEntry:
    vector = VectorRef("dv-1.bin", 0, 1, "", dead) if dead else None
    seq = 10 * number + 1
    bounds = {1: Bounds(low, high, 0)}
    return BatchEntry(number, f"batch-{number}.parquet", "", seq, seq + 5, rows, 1, 1, bounds, tombstones, "active", vector)


def manifest(*batches: BatchEntry) -> Manifest:
    return Manifest(Scope(1), 1, 0, 1_000, 10**6, batches)


def numbers(m: Manifest, want: Want, horizon: int = 0) -> list[int]:
    return [b.number for b in choose(m, SCHEMA, POLICY, want, horizon)]


def test_few_small_batches_are_left_alone_and_many_are_merged() -> None:
    small = [batch(i, 100 * i, 100 * i + 9, rows=10) for i in range(4)]
    assert not wants_compaction(manifest(*small[:3]), SCHEMA, POLICY)
    assert wants_compaction(manifest(*small), SCHEMA, POLICY)
    big = batch(9, 500, 900)
    assert numbers(manifest(big, *small), Want.AUTO) == [0, 1, 2, 3]


def test_half_full_is_not_small() -> None:
    assert not POLICY.is_small(batch(0, 0, 1, rows=50))
    assert POLICY.is_small(batch(0, 0, 1, rows=49))


def test_many_batches_over_one_key_are_merged_and_those_beside_it_are_not() -> None:
    over = [batch(i, 0, 10 + i) for i in range(5)]
    beside = [batch(7, 15, 20), batch(8, 30, 40)]
    assert not wants_compaction(manifest(*over[:4], *beside), SCHEMA, POLICY)
    assert numbers(manifest(beside[0], *over, beside[1]), Want.AUTO) == [0, 1, 2, 3, 4]


def test_a_run_does_not_overlap_itself() -> None:
    run = [batch(i, 10 * i, 10 * i + 9) for i in range(50)]
    assert len(overlapping(manifest(*run), SCHEMA)) == 1
    assert not wants_compaction(manifest(*run), SCHEMA, POLICY)


def test_bounds_that_meet_overlap() -> None:
    assert [b.number for b in overlapping(manifest(batch(0, 0, 5), batch(1, 5, 9), batch(2, 6, 9)), SCHEMA)] == [0, 1]


def test_a_batch_without_bounds_may_cover_everything_and_an_empty_one_nothing() -> None:
    m = manifest(batch(0, None, None), batch(1, 5, 9), batch(2, None, None, rows=0), batch(3, 20, 30))
    assert [b.number for b in overlapping(m, SCHEMA)] == [0, 1]
    assert overlapping(manifest(), SCHEMA) == []
    assert [b.number for b in overlapping(manifest(batch(0, None, None)), SCHEMA)] == [0]


def test_a_big_batch_with_much_dead_is_written_anew() -> None:
    m = manifest(batch(0, 0, 9, dead=20), batch(1, 10, 19, dead=21), batch(2, 20, 29, rows=10, dead=10))
    assert numbers(m, Want.AUTO) == [1]


def test_on_demand_everything_with_something_to_gain_is_merged() -> None:
    m = manifest(batch(0, 0, 9), batch(1, 10, 19, dead=1), batch(2, 20, 29, tombstones=1), batch(3, 30, 39, rows=10))
    assert numbers(m, Want.ALL) == [1, 3]
    assert numbers(m, Want.ALL, horizon=22) == [1, 2, 3]


@pytest.mark.parametrize("want", list(Want))
def test_one_batch_with_nothing_to_gain_is_left_alone(want: Want) -> None:
    assert numbers(manifest(batch(0, 0, 9, rows=10, tombstones=3)), want) == []
    assert numbers(manifest(), want) == []


def test_overdue_is_what_is_old_and_holds_something_that_is_gone() -> None:
    m = manifest(batch(0, 0, 9), batch(1, 10, 19, dead=1), batch(2, 20, 29, tombstones=1), batch(3, 30, 39, dead=1))
    assert numbers(m, Want.OVERDUE, horizon=22) == [1, 2]
    assert numbers(m, Want.OVERDUE, horizon=0) == []


def test_erasing_takes_everything_that_holds_something_that_is_gone() -> None:
    m = manifest(batch(0, 0, 9), batch(1, 10, 19, dead=1), batch(2, 20, 29, tombstones=1), batch(3, 30, 39, rows=10))
    assert numbers(m, Want.ERASE) == [1, 2]
