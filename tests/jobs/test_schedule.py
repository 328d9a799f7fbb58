"""When a scope is to be flushed, and when a batch has kept what must go for too long: decided without a clock or a disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_compact_policy import POLICY, SCHEMA, batch, manifest

from flightkalam.jobs.compact_policy import Kept, Want, choose
from flightkalam.jobs.schedule import Waiting, due
from flightkalam.model.ids import Scope
from flightkalam.model.schema import TableOptions

HOUR = 3_600_000_000
NEVER = TableOptions(flush_rows=None, flush_interval_s=None, deleted_retention_hours=2)


def is_due(options: TableOptions, *, rows: int = 1, age_us: int = 0, erases: bool = False) -> bool:
    now = 1_000 * HOUR
    return due(Waiting(Scope(1), rows, now - age_us), options, now, erases=erases)


def test_rows_and_interval_each_suffice() -> None:
    both = TableOptions(flush_rows=10, flush_interval_s=5)
    assert not is_due(both, rows=9, age_us=4_999_999)
    assert is_due(both, rows=10)
    assert is_due(both, rows=1, age_us=5_000_000)


def test_an_interval_alone_flushes_one_row_and_rows_alone_never_wait_for_time() -> None:
    assert is_due(replace(NEVER, flush_interval_s=1), rows=1, age_us=1_000_000)
    assert not is_due(replace(NEVER, flush_rows=2), rows=1, age_us=999 * HOUR)


def test_nothing_hot_is_never_due() -> None:
    assert not is_due(TableOptions(flush_rows=1, flush_interval_s=1), rows=0, age_us=999 * HOUR, erases=True)


def test_the_bound_of_erasure_flushes_whatever_the_policy_says() -> None:
    assert not is_due(NEVER, age_us=14 * HOUR - 1, erases=True)
    assert is_due(NEVER, age_us=14 * HOUR, erases=True)
    assert not is_due(NEVER, age_us=999 * HOUR, erases=False)


@pytest.mark.parametrize(
    ("dead", "tombstones", "kept", "expected"),
    [
        (1, 0, Kept(written=99, tombstone=None), True),
        (1, 0, Kept(written=100, tombstone=None), False),  # superseded after it was written, so not long ago
        (0, 0, Kept(written=1, tombstone=None), False),
        (0, 3, Kept(written=1, tombstone=100), False),  # old rows, young tombstones
        (0, 3, Kept(written=100, tombstone=99), True),
        (1, 3, Kept(written=100, tombstone=100), False),
    ],
)
def test_a_batch_is_overdue_by_what_it_keeps_and_not_by_its_rows(
    dead: int, tombstones: int, kept: Kept, expected: bool
) -> None:
    m = manifest(batch(0, 0, 9, dead=dead, tombstones=tombstones), batch(1, 0, 9))
    chosen = choose(m, SCHEMA, POLICY, Want.OVERDUE, 100, {0: kept})
    assert [b.number for b in chosen] == ([0] if expected else [])


def test_what_is_not_known_is_taken_for_overdue() -> None:
    assert [b.number for b in choose(manifest(batch(0, 0, 9, dead=1)), SCHEMA, POLICY, Want.OVERDUE, 100)] == [0]
