"""The key-value store: atomic batches in order, group commit, and what happens when the disk says no."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flightkalam
from flightkalam.errors import ConfigError, DataCorrupted, DiskFull, InternalError, TryAgain
from flightkalam.storage.kv import FAMILIES, Batch, Store, prefix_end


def put(key: bytes, value: bytes = b"v", family: str = "meta") -> Batch:
    batch = Batch()
    batch.put(family, key, value)
    return batch


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "kv")
    yield made
    made.close()


class Disk:
    """Stands in for the database: passes everything on, but for what a test makes fail or wait."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self.sync_error: Exception | None = None
        self.write_error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0

    def flush_wal(self, sync: bool) -> None:
        self.gate.wait(10)
        self.syncs += 1
        if self.sync_error is not None:
            raise self.sync_error
        self._db.flush_wal(sync)

    def write(self, batch: Any) -> None:
        if self.write_error is not None:
            raise self.write_error
        self._db.write(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.fixture
def disk(store: Store) -> Disk:
    made = Disk(store._db)
    store._db = made
    return made


# -- reading and writing ------------------------------------------------------------------------------------------------


def test_a_batch_is_applied_in_its_order(store: Store) -> None:
    batch = Batch()
    batch.put("meta", b"a", b"1")
    batch.delete("meta", b"a")
    batch.put("meta", b"b", b"1")
    batch.put("meta", b"b", b"2")
    batch.put("meta", b"c", b"1")
    batch.delete_range("meta", b"b", b"d")
    batch.put("meta", b"d", b"4")
    store.commit(batch)
    assert len(batch) == 7
    assert list(store.scan("meta")) == [(b"d", b"4")]


def test_families_are_apart(store: Store) -> None:
    for family in FAMILIES:
        store.commit(put(b"k", family.encode(), family))
    assert [store.get(f, b"k") for f in FAMILIES] == [f.encode() for f in FAMILIES]
    store.commit(put(b"only", b"here", "log"))
    assert store.get("meta", b"only") is None


def test_what_was_committed_is_there_after_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "kv")
    store.commit(put(b"a", b"\x00" * 100_000))
    store.append(put(b"b", b""))
    store.close()
    again = Store(tmp_path / "kv")
    assert again.get("meta", b"a") == b"\x00" * 100_000 and again.get("meta", b"b") == b""
    again.close()


def test_a_checkpoint_is_a_store_of_its_own(store: Store, tmp_path: Path) -> None:
    store.commit(put(b"a", b"1"))
    store.checkpoint(tmp_path / "copy" / "kv") if (tmp_path / "copy").mkdir() is None else None
    store.commit(put(b"a", b"2"))
    copy = Store(tmp_path / "copy" / "kv")
    assert copy.get("meta", b"a") == b"1" and store.get("meta", b"a") == b"2"
    copy.close()


KEYS = st.binary(max_size=3) | st.sampled_from([b"\xff", b"\xff\xff", b"a\xff", b"a\x00", b"", b"b"])


@pytest.fixture(scope="module")
def scanned() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        made = Store(Path(folder) / "kv", durable=False)
        yield made
        made.close()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), keys=st.sets(KEYS, max_size=12), prefix=KEYS, start=st.none() | KEYS, end=st.none() | KEYS)
def test_a_scan_gives_what_a_sorted_dictionary_gives(
    scanned: Store, data: st.DataObject, keys: set[bytes], prefix: bytes, start: bytes | None, end: bytes | None
) -> None:
    batch = Batch()
    batch.delete_range("jobs", b"", b"\xff" * 10)
    for key in keys:
        batch.put("jobs", key, b"v" + key)
    scanned.append(batch)
    expected = sorted(
        (k, b"v" + k) for k in keys if k.startswith(prefix) and (start is None or k >= start) and (end is None or k < end)
    )
    assert list(scanned.scan("jobs", prefix, start=start, end=end)) == expected
    assert list(scanned.scan("jobs", prefix, start=start, end=end, reverse=True)) == expected[::-1]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(KEYS.filter(bool), KEYS)
def test_the_end_of_a_prefix_is_after_its_keys_and_before_all_others(prefix: bytes, other: bytes) -> None:
    assert prefix < prefix_end(prefix) and prefix + other < prefix_end(prefix)
    if other > prefix and not other.startswith(prefix):
        assert other >= prefix_end(prefix) or prefix.rstrip(b"\xff") == b""


# -- group commit -------------------------------------------------------------------------------------------------------


def test_positions_count_appends_and_a_wait_covers_all_before(store: Store) -> None:
    positions = [store.append(put(b"%d" % i)) for i in range(5)]
    assert positions == [positions[0] + i for i in range(5)] and store.appended == positions[-1]
    store.wait(positions[-1])
    store.wait(positions[0])


def test_nothing_is_acknowledged_before_it_is_synced(store: Store, disk: Disk) -> None:
    """T-14."""
    disk.gate.clear()
    done = threading.Event()
    writer = threading.Thread(target=lambda: (store.commit(put(b"a")), done.set()))
    writer.start()
    assert not done.wait(0.1)
    assert store.get("meta", b"a") == b"v", "appended already, only not acknowledged"
    disk.gate.set()
    assert done.wait(5)
    writer.join()


def test_writers_that_wait_together_share_a_sync(store: Store, disk: Disk) -> None:
    disk.gate.clear()
    store.append(put(b"first"))
    while not store._thread.is_alive() or store.appended == store._synced:
        time.sleep(0.001)
    writers = [threading.Thread(target=store.commit, args=(put(b"%d" % i),)) for i in range(20)]
    for writer in writers:
        writer.start()
    while store.appended < 21:
        time.sleep(0.001)
    disk.gate.set()
    for writer in writers:
        writer.join()
    assert disk.syncs <= 3
    assert all(store.get("meta", b"%d" % i) for i in range(20))


def test_listeners_hear_positions_in_order_and_before_the_waiters_wake(store: Store) -> None:
    heard: list[int] = []
    store.on_synced(heard.append)
    for i in range(20):
        position = store.append(put(b"%d" % i))
        store.wait(position)
        assert heard[-1] >= position
    assert heard == sorted(set(heard))


# -- the disk says no ---------------------------------------------------------------------------------------------------


def test_after_a_failed_sync_nothing_is_written_any_more(store: Store, disk: Disk) -> None:
    """T-15: the outcome is unknown, so the write is neither confirmed nor repeated."""
    store.commit(put(b"before"))
    disk.sync_error = Exception("IO error: fdatasync: Input/output error")
    with pytest.raises(InternalError, match="restarted") as refused:
        store.commit(put(b"doubtful"))
    assert refused.value.sqlstate == "58030"
    disk.sync_error = None
    assert not store.healthy
    for write in (store.commit, store.append):
        with pytest.raises(InternalError, match="restarted"):
            write(put(b"after"))
    assert store.get("meta", b"before") == b"v" and store.get("meta", b"after") is None


def test_every_writer_that_waits_hears_of_the_failed_sync(store: Store, disk: Disk) -> None:
    disk.gate.clear()
    disk.sync_error = Exception("IO error: fdatasync: Input/output error")
    heard: list[BaseException] = []

    def write(i: int) -> None:
        try:
            store.commit(put(b"%d" % i))
        except InternalError as e:
            heard.append(e)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(5)]
    for writer in writers:
        writer.start()
    while store.appended < 5:
        time.sleep(0.001)
    disk.gate.set()
    for writer in writers:
        writer.join(5)
    assert len(heard) == 5


def test_what_was_durable_before_a_failure_stays_acknowledged(store: Store, disk: Disk) -> None:
    position = store.append(put(b"a"))
    store.wait(position)
    disk.sync_error = Exception("IO error")
    with pytest.raises(InternalError):
        store.commit(put(b"b"))
    store.wait(position)


@pytest.mark.parametrize(
    ("text", "error"),
    [("IO error: No space left on device", DiskFull), ("Corruption: bad block", DataCorrupted), ("IO error: x", InternalError)],
)
def test_a_failed_append_stops_the_store_too(store: Store, disk: Disk, text: str, error: type[Exception]) -> None:
    """It may or may not be in the log: the same doubt."""
    disk.write_error = Exception(text)
    with pytest.raises(error):
        store.append(put(b"a"))
    disk.write_error = None
    with pytest.raises(InternalError, match="restarted"):
        store.append(put(b"b"))


def test_a_listener_that_fails_fails_the_commit(store: Store) -> None:
    """A watermark that cannot be moved must not be taken for one that has moved."""

    def listen(position: int) -> None:
        raise ValueError("bug")

    store.on_synced(listen)
    with pytest.raises(InternalError):
        store.commit(put(b"a"))


def test_a_write_is_refused_while_the_disk_has_no_room_for_it(tmp_path: Path) -> None:
    """T-16: before anything has changed."""
    store = Store(tmp_path / "kv", reserve_bytes=1 << 62)
    with pytest.raises(DiskFull, match="free space"):
        store.require_space()
    store.close()
    roomy = Store(tmp_path / "kv", reserve_bytes=0)
    roomy.require_space(1)
    with pytest.raises(DiskFull):
        roomy.require_space(1 << 62)
    roomy.close()


# -- opening and closing ------------------------------------------------------------------------------------------------


def test_a_directory_in_use_is_refused(store: Store, tmp_path: Path) -> None:
    """T-3."""
    with pytest.raises(ConfigError, match="in use by another server"):
        Store(tmp_path / "kv")


def test_a_directory_in_use_by_another_process_is_refused(store: Store, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from flightkalam.storage.kv import Store; Store(Path({str(tmp_path / 'kv')!r}))"
    project = str(Path(flightkalam.__file__).parents[1])
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project, check=False)
    assert other.returncode != 0 and "ConfigError" in other.stderr


def test_closing_syncs_what_was_appended_and_may_be_done_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "kv")
    position = store.append(put(b"a"))
    store.close()
    store.close()
    store.wait(position)
    with pytest.raises(TryAgain, match="shutting down"):
        store.append(put(b"b"))


def test_a_torn_last_record_is_dropped_and_the_rest_is_there(tmp_path: Path) -> None:
    """It was never acknowledged."""
    store = Store(tmp_path / "kv")
    store.commit(put(b"a"))
    store.commit(put(b"b", b"x" * 1000))
    crashed = tmp_path / "crashed"
    _copy_as_after_a_crash(tmp_path / "kv", crashed)
    store.close()
    wal = max(crashed.glob("*.log"), key=lambda p: p.stat().st_size)
    wal.write_bytes(wal.read_bytes()[:-500])
    again = Store(crashed)
    assert again.get("meta", b"a") == b"v" and again.get("meta", b"b") is None
    again.close()


def test_damage_before_the_end_of_the_log_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "kv")
    for i in range(50):
        store.commit(put(b"%d" % i, b"x" * 1000))
    crashed = tmp_path / "crashed"
    _copy_as_after_a_crash(tmp_path / "kv", crashed)
    store.close()
    wal = max(crashed.glob("*.log"), key=lambda p: p.stat().st_size)
    data = bytearray(wal.read_bytes())
    data[2_000] ^= 0xFF
    wal.write_bytes(bytes(data))
    with pytest.raises((DataCorrupted, ConfigError), match=r"damaged|cannot be opened"):
        Store(crashed)


def _copy_as_after_a_crash(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != "LOCK":
            (target / path.name).write_bytes(path.read_bytes())
