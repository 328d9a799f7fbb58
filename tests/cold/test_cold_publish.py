"""Publication: RocksDB commits, manifest.json follows, and what a crash or a stranger did is met at the next opening.

edit ─ stage ─ [durable: committed] ─ publish ─ manifest.json ─ in_sync
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flightkalam import failpoints
from flightkalam.cold import paths
from flightkalam.cold.bounds import Bounds
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit
from flightkalam.cold.manifest_json import from_json
from flightkalam.cold.manifests import IN_SYNC, PENDING, Manifests
from flightkalam.errors import DataCorrupted, InternalError
from flightkalam.model.ids import Scope, scope_bytes
from flightkalam.storage.kv import Batch, Store

SCOPE = Scope(1, "ann")


class StoppedClock:
    def now_us(self) -> int:
        return 1_700_000_000_000_000

    def monotonic(self) -> float:
        return 0.0


class Shelf:
    """One scope's manifest in a store that can be closed and opened again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = paths.scope_folder(root / "cold", "main/t~1", SCOPE)
        self.open()

    def open(self) -> None:
        self.store = Store(self.root / "kv")
        self.manifests = Manifests(self.store, StoppedClock(), self.root / "cold")

    def reopen(self) -> None:
        self.store.close()
        self.open()

    def commit(self) -> Manifest:
        """One more batch, committed and not published."""
        old = self.manifests.get(SCOPE)
        number = old.max_batch + 1
        entry = BatchEntry(number, paths.batch_name(number), f"u{number}", 1, 2, 3, 4, 1, {1: Bounds(1, 2, 0)})
        edit = ManifestEdit(add=(entry,), flushed_seq=2)
        new = edit.apply(old, 7)
        batch = Batch()
        staged = self.manifests.stage(batch, new, self.folder, edit)
        self.store.commit(batch)
        self.manifests.committed(staged)
        return new

    def publish(self) -> None:
        self.manifests.publish(SCOPE, self.folder, "main.t")

    def check(self) -> None:
        self.manifests.check_published(SCOPE, self.folder, "main.t")

    @property
    def path(self) -> Path:
        return self.folder / paths.MANIFEST

    def published(self) -> Manifest:
        return from_json(json.loads(self.path.read_text()))

    @property
    def state(self) -> str:
        entry = self.manifests.entry(SCOPE)
        assert entry is not None
        return entry.sync_state


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    failpoints.disarm()
    made.store.close()


def test_a_scope_that_was_never_flushed_has_an_empty_manifest(shelf: Shelf) -> None:
    assert shelf.manifests.get(SCOPE) == Manifest(SCOPE)
    shelf.check()
    shelf.publish()
    assert not shelf.folder.exists()


def test_a_commit_counts_before_it_is_published(shelf: Shelf) -> None:
    new = shelf.commit()
    assert shelf.manifests.get(SCOPE) == new and shelf.state == PENDING
    assert not shelf.path.exists()
    shelf.publish()
    assert shelf.state == IN_SYNC and shelf.published() == new
    shelf.reopen()
    assert shelf.manifests.get(SCOPE) == new and shelf.state == IN_SYNC


def test_what_a_crash_left_pending_is_published_at_the_next_opening(shelf: Shelf) -> None:
    first = shelf.commit()
    shelf.publish()
    new = shelf.commit()
    shelf.reopen()
    assert shelf.state == PENDING and shelf.published() == first
    shelf.check()
    assert shelf.state == IN_SYNC and shelf.published() == new


def test_a_failed_publication_leaves_the_commit_and_is_repeated(shelf: Shelf) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    failpoints.arm("file.before_rename", fail)
    new = shelf.commit()
    with pytest.raises(InternalError, match=r"manifest\.json"):
        shelf.publish()
    assert shelf.manifests.get(SCOPE) == new and shelf.state == PENDING
    assert list(shelf.folder.iterdir()) == []
    failpoints.disarm()
    shelf.publish()
    assert shelf.state == IN_SYNC and shelf.published() == new


@pytest.mark.parametrize("text", [None, "", "{", '{"version": "x"}', "[]", '{"version": 0}', "\x00" * 100])
def test_a_missing_or_damaged_copy_is_published_again(shelf: Shelf, text: str | None) -> None:
    new = shelf.commit()
    shelf.publish()
    if text is None:
        shelf.path.unlink()
    else:
        shelf.path.write_text(text)
    shelf.reopen()
    shelf.check()
    assert shelf.published() == new and shelf.state == IN_SYNC


def test_an_older_copy_is_published_again(shelf: Shelf) -> None:
    shelf.commit()
    shelf.publish()
    older = shelf.path.read_text()
    new = shelf.commit()
    shelf.publish()
    shelf.path.write_text(older)
    shelf.check()
    assert shelf.published() == new


def test_a_newer_copy_means_another_writer_or_an_old_backup(shelf: Shelf) -> None:
    """T-46: refused, by version and not by time of change."""
    new = shelf.commit()
    shelf.publish()
    record = json.loads(shelf.path.read_text())
    shelf.path.write_text(json.dumps({**record, "version": new.version + 1}))
    os.utime(shelf.path, (0, 0))
    shelf.reopen()
    with pytest.raises(DataCorrupted, match=r'"main\.t".*restore'):
        shelf.check()


def test_a_copy_where_nothing_was_ever_committed_is_refused(shelf: Shelf) -> None:
    """The data directory is younger than the files."""
    shelf.folder.mkdir(parents=True)
    shelf.path.write_text(json.dumps({"version": 1}))
    with pytest.raises(DataCorrupted, match="newer"):
        shelf.check()


def test_the_manifest_of_a_damaged_record_is_not_read(shelf: Shelf) -> None:
    shelf.commit()
    data = shelf.store.get("manifest_cache", scope_bytes(SCOPE))
    assert data is not None
    batch = Batch()
    batch.put("manifest_cache", scope_bytes(SCOPE), data[:-1] + bytes([data[-1] ^ 1]))
    shelf.store.commit(batch)
    shelf.reopen()
    with pytest.raises(DataCorrupted, match="manifest"):
        shelf.manifests.get(SCOPE)


def test_only_published_manifests_are_evicted_from_memory(tmp_path: Path) -> None:
    store = Store(tmp_path / "kv")
    manifests = Manifests(store, StoppedClock(), tmp_path / "cold", max_entries=2)
    scopes = [Scope(1, f"u{i}") for i in range(6)]
    for i, scope in enumerate(scopes):
        new = ManifestEdit(flushed_seq=i).apply(Manifest(scope), 7)
        batch = Batch()
        staged = manifests.stage(batch, new, tmp_path / scope.label)
        store.commit(batch)
        manifests.committed(staged)
        if i >= 3:
            manifests.publish(scope, tmp_path / scope.label, "t")
    assert set(scopes[:3]) <= set(manifests._memory)
    assert [manifests.get(s).flushed_seq for s in scopes] == list(range(6))
    assert {e.manifest.scope for e in manifests.entries()} == set(scopes)
    store.close()


def test_a_dropped_tables_manifests_go_with_one_commit(shelf: Shelf) -> None:
    shelf.commit()
    neighbour = replace(shelf.manifests.get(SCOPE), scope=Scope(2))
    batch = Batch()
    shelf.manifests.committed(shelf.manifests.stage(batch, neighbour, shelf.folder))
    shelf.manifests.drop_table(batch, 1)
    shelf.store.commit(batch)
    shelf.manifests.forget_table(1)
    assert shelf.manifests.get(SCOPE) == Manifest(SCOPE)
    assert shelf.manifests.scopes(1) == [] and shelf.manifests.scopes(2) == [Scope(2)]
