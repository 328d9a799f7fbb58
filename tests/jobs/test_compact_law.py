"""The law of the tables holds under compaction too: whatever is merged in between, a reader at W sees MAX(_seq ≤ W) of every
key, and one that has begun sees it to its end, tombstones and all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compact_support import compactor, later
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from table_world import seen
from test_table_law import SCOPES, SIZES, WHICH, Law

from flightkalam.clock import id_floor
from flightkalam.jobs.compact_policy import Want
from flightkalam.model.schema import DELETED, SEQ

HOURS_US = 168 * 3_600_000_000


class CompactLaw(Law):
    @rule(hours=st.sampled_from([1, 100, 168]))
    def time_passes(self, hours: int) -> None:
        later(self.world, hours * 3_600_000_000)

    @rule(
        scope=WHICH,
        want=st.sampled_from(list(Want)),
        rows_per_batch=st.sampled_from([3, 8, 1_000]),
        limit=st.sampled_from([0, 1, 10]),
    )
    def compact(self, scope: tuple[int, str | None], want: Want, rows_per_batch: int, limit: int) -> None:
        table, owner = self.tables[scope[0]], scope[1]
        before = {r[SEQ]: r for r in seen(self.world.snapshot(table, owner), tombstones=True)}
        horizon = self.horizon(want)
        run = compactor(self.world, rows_per_batch, chunk_rows=3)
        policy = replace(run.policy, small=limit, overlapping=limit)
        run._settings = replace(run._settings, policy=policy)
        done = run.compact(table, owner, want)
        after = {r[SEQ]: r for r in seen(self.world.snapshot(table, owner), tombstones=True)}
        gone = [before[seq] for seq in before.keys() - after.keys()]
        assert all(r[DELETED] and r[SEQ] < horizon for r in gone)
        # One that a hot version has superseded meanwhile was not to be seen before either.
        assert len(gone) <= done.dropped_tombstones and done.unproven_rows == 0
        self.forget(scope, [r[SEQ] for r in gone])
        for other in SCOPES:
            self.compare(other)

    @rule(
        scope=WHICH,
        written=st.lists(SIZES, min_size=2, max_size=4),
        hot=SIZES,
        gone=st.lists(st.booleans(), min_size=6, max_size=6),
        want=st.sampled_from([Want.ALL, Want.ERASE]),
        rows_per_batch=st.sampled_from([3, 8, 1_000]),
    )
    def compact_below_hot_rows(
        self,
        scope: tuple[int, str | None],
        written: list[list[int]],
        hot: list[int],
        gone: list[bool],
        want: Want,
        rows_per_batch: int,
    ) -> None:
        """Batches whose rows hot versions supersede: their marks move (T-10)."""
        for keys in written:
            self.delete_and_update(scope, keys, gone)
            self.flush(scope, 1_000_000)
        self.delete_and_update(scope, hot, gone[::-1])
        self.compact(scope, want, rows_per_batch, 10)

    def horizon(self, want: Want) -> int:
        pinned = self.world.door.oldest_pin() + 1
        kept: int = self.world.clock.us - HOURS_US + 10_000  # type: ignore[attr-defined]
        return pinned if want is Want.ERASE else min(pinned, id_floor(kept))

    def forget(self, scope: tuple[int, str | None], seqs: list[Any]) -> None:
        """Keys whose tombstones are gone have never been, for whoever begins from now on."""
        versions = self.model.versions[scope]
        until = {v.key: v.seq for v in versions if v.seq in seqs}
        self.model.versions[scope] = [v for v in versions if v.seq > until.get(v.key, -1)]


TestCompactLaw = CompactLaw.TestCase
TestCompactLaw.settings = settings(max_examples=15, stateful_step_count=12, deadline=None, derandomize=True)
