"""The life of a cached manifest: used, grown old, looked at again, found lost or foreign, evicted, loaded after a restart."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightkalam import failpoints
from flightkalam.cold import manifest_chain as chain
from flightkalam.cold import manifest_records as records
from flightkalam.cold import paths
from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit
from flightkalam.cold.manifests import ERROR, IN_SYNC, PENDING, Manifests
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope, scope_bytes
from flightkalam.storage.kv import Batch, Store

TTL = 60


class Turned:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6

    def turn(self, seconds: int) -> None:
        self.us += seconds * 1_000_000


class House:
    def __init__(self, root: Path, max_entries: int = 100) -> None:
        self.root, self.clock, self.max_entries = root, Turned(), max_entries
        self.open()

    def open(self) -> None:
        self.counted: Counter[str] = Counter()
        self.store = Store(self.root / "kv")
        count = self.counted.update
        self.manifests = Manifests(
            self.store, self.clock, self.root / "cold", self.max_entries, TTL, lambda name, n: count({name: n})
        )

    def reopen(self) -> None:
        self.store.close()
        self.open()

    def folder(self, scope: Scope) -> Path:
        return paths.scope_folder(self.root / "cold", "main/t~1", scope)

    def path(self, scope: Scope) -> Path:
        return self.folder(scope) / paths.MANIFEST

    def commit(self, scope: Scope, n: int = 1) -> Manifest:
        old = self.manifests.get(scope)
        first = old.max_batch + 1
        added = tuple(
            BatchEntry(i, paths.batch_name(i), f"u{i}", 1, 2, 3, 4, 1, {1: Bounds(1, 2, 0)}) for i in range(first, first + n)
        )
        edit = ManifestEdit(added, flushed_seq=2)
        new = edit.apply(old, 7)
        batch = Batch()
        staged = self.manifests.stage(batch, new, self.folder(scope), edit)
        self.store.append(batch)
        self.manifests.committed(staged)
        return new

    def publish(self, scope: Scope) -> None:
        self.manifests.publish(scope, self.folder(scope), "main.t")

    def flush(self, scope: Scope, n: int = 1) -> Manifest:
        new = self.commit(scope, n)
        self.publish(scope)
        return new

    def touch(self, scope: Scope) -> None:
        self.manifests.touch(scope, self.folder(scope), "main.t")

    def state(self, scope: Scope) -> str:
        entry = self.manifests.entry(scope)
        assert entry is not None
        return entry.sync_state

    def delta(self, name: str) -> int:
        return self.counted[f"manifest_{name}"]


ANN, BOB = Scope(1, "ann"), Scope(1, "bob")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    failpoints.disarm()
    made.store.close()


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_used_entry_is_not_looked_at_on_disk_before_its_time(house: House) -> None:
    house.flush(ANN)
    house.path(ANN).unlink()
    house.clock.turn(TTL - 1)
    house.touch(ANN)
    assert house.delta("refreshes") == 0 and not house.path(ANN).exists()


def test_an_old_entry_whose_copy_is_unchanged_is_refreshed_without_reading_it(house: House) -> None:
    house.flush(ANN)
    before = house.manifests.entry(ANN)
    house.clock.turn(TTL)
    house.touch(ANN)
    after = house.manifests.entry(ANN)
    assert before is not None and after is not None
    assert after.last_refreshed_us == before.last_refreshed_us + TTL * 1_000_000
    assert house.delta("refreshes") == 1
    house.touch(ANN)
    assert house.delta("refreshes") == 1


def test_a_copy_that_was_only_copied_about_is_still_ours(house: House) -> None:
    """T-46: by its bytes, not by its time of change."""
    house.flush(ANN)
    text = house.path(ANN).read_bytes()
    house.path(ANN).unlink()
    house.path(ANN).write_bytes(text)
    house.clock.turn(TTL)
    house.touch(ANN)
    assert house.delta("refreshes") == 1 and house.delta("damages") == 0


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"version": 1}'])
def test_a_lost_old_or_damaged_copy_is_noticed_and_published_again(house: House, damage: bytes | None) -> None:
    house.flush(ANN)
    house.flush(ANN)
    text = house.path(ANN).read_bytes()
    house.path(ANN).unlink()
    if damage is not None:
        house.path(ANN).write_bytes(damage)
    house.clock.turn(TTL)
    house.touch(ANN)
    assert house.path(ANN).read_bytes() == text
    assert house.delta("damages") == 1 and house.state(ANN) == IN_SYNC


def test_a_newer_copy_refuses_the_scope_until_it_is_gone(house: House) -> None:
    house.flush(ANN)
    house.flush(BOB)
    text = house.path(ANN).read_text()
    house.path(ANN).write_text(json.dumps({**json.loads(text), "version": 99}))
    house.clock.turn(TTL)
    for _ in range(2):
        with pytest.raises(DataCorrupted, match=r'"main\.t" has version 99, newer than the committed 1'):
            house.touch(ANN)
    assert house.state(ANN) == ERROR
    with pytest.raises(DataCorrupted, match="newer"):
        house.publish(ANN)
    assert json.loads(house.path(ANN).read_text())["version"] == 99
    house.touch(BOB)
    house.path(ANN).write_text(text)
    house.touch(ANN)
    assert house.state(ANN) == IN_SYNC


def test_a_copy_that_cannot_be_written_leaves_answers_right_and_is_tried_again(house: House) -> None:
    house.flush(ANN)
    new = house.commit(ANN)
    failpoints.arm("file.before_rename", fail)
    house.clock.turn(TTL)
    house.touch(ANN)
    assert house.manifests.get(ANN) == new and house.state(ANN) == PENDING
    assert house.delta("syncs_failed") == 1
    house.touch(ANN)
    assert house.delta("syncs_failed") == 1  # not again before its time
    failpoints.disarm()
    house.clock.turn(TTL)
    house.touch(ANN)
    assert house.state(ANN) == IN_SYNC and house.delta("syncs_ok") == 2


def test_an_install_that_overtakes_a_publication_is_not_forgotten(house: House) -> None:
    house.flush(ANN)
    house.commit(ANN)
    newest: list[Manifest] = []

    def overtake() -> None:
        failpoints.disarm()
        newest.append(house.commit(ANN))

    failpoints.arm("manifest.published", overtake)
    house.publish(ANN)
    assert house.manifests.get(ANN) == newest[0] and house.state(ANN) == PENDING
    house.reopen()
    assert house.manifests.get(ANN) == newest[0] and house.state(ANN) == PENDING
    house.touch(ANN)
    assert json.loads(house.path(ANN).read_text())["version"] == 3 and house.state(ANN) == IN_SYNC


def test_a_restart_loads_a_manifest_when_it_is_first_used(house: House) -> None:
    new = house.flush(ANN)
    house.flush(BOB)
    house.reopen()
    assert house.counted["manifest_cache_misses"] == 0
    house.touch(ANN)
    assert house.manifests.get(ANN) == new
    assert house.counted["manifest_cache_misses"] == 1
    shown = {s.scope: s for s in house.manifests.shown()}
    assert shown[ANN].last_accessed_us is not None and shown[BOB].last_accessed_us is None
    assert [shown[s].sync_state for s in (ANN, BOB)] == [IN_SYNC, IN_SYNC]
    assert shown[BOB].etag and shown[BOB].source.endswith("bob/manifest.json")


def test_eviction_lets_idle_entries_go_but_none_that_is_unpublished(house: House) -> None:
    house.flush(ANN)
    house.commit(BOB)
    house.clock.turn(100)
    assert house.manifests.evict(101) == 0
    assert house.manifests.evict(99) == 1
    assert set(house.manifests._memory) == {BOB}
    assert house.manifests.get(ANN).max_batch == 0
    assert house.counted["manifest_cache_evictions"] == 1


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    house = House(tmp_path, max_entries=3)
    scopes = [Scope(1, f"u{i}") for i in range(4)]
    for scope in scopes[:3]:
        house.flush(scope)
    house.touch(scopes[0])
    house.flush(scopes[3])
    assert set(house.manifests._memory) == {scopes[0], scopes[2], scopes[3]}
    house.store.close()


def test_a_large_manifest_is_published_in_parts_that_a_reader_can_put_together(house: House) -> None:
    new = house.flush(ANN, 3 * chain.WHOLE)
    for _ in range(5):
        new = house.flush(ANN)
    head = json.loads(house.path(ANN).read_text())
    assert "batches" not in head and head["batch_count"] == len(new.batches)
    named = {part[5] for part in (head["base"], *head["deltas"])}
    assert named | {paths.MANIFEST} == {p.name for p in house.folder(ANN).iterdir()}
    files = {p.name: p.read_bytes() for p in house.folder(ANN).iterdir()}
    assert chain.manifest_of(head, lambda part: files[records.file_of(part)]) == new
    house.reopen()
    assert house.manifests.get(ANN) == new
    keys = [k for k, _ in house.store.scan(records.FAMILY, scope_bytes(ANN))]
    assert len(keys) == 2 + len(named)


def test_a_lost_part_of_the_published_copy_is_put_back(house: House) -> None:
    house.flush(ANN, 2 * chain.WHOLE)
    house.flush(ANN)
    part = next(p for p in house.folder(ANN).iterdir() if paths.is_part(p.name))
    text = part.read_bytes()
    part.unlink()
    house.reopen()
    house.touch(ANN)
    assert part.read_bytes() == text and house.state(ANN) == IN_SYNC


def test_a_damaged_part_in_the_store_is_noticed_at_the_next_flush_and_written_anew(house: House) -> None:
    house.flush(ANN, 2 * chain.WHOLE)
    house.flush(ANN)
    for key, value in list(house.store.scan(records.FAMILY, scope_bytes(ANN) + b"\x02")):
        batch = Batch()
        batch.put(records.FAMILY, key, value[:-1])
        house.store.commit(batch)
    new = house.flush(ANN)
    assert house.delta("damages") == 1
    house.reopen()
    assert house.manifests.get(ANN) == new
