"""BACKUP TO and restore: one moment of everything, taken while the service goes on (SEMANTICS §6)."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from kalam_world import InProcess, Refused, World
from typer.testing import CliRunner

from flightkalam import failpoints
from flightkalam.app import _upkeep
from flightkalam.auth.identity import Role
from flightkalam.cli.commands import cli
from flightkalam.errors import ConfigError, DataCorrupted
from flightkalam.jobs import backup
from flightkalam.model.ids import Scope

PLACES = ("backup.checkpoint", "backup.collected", "file.before_sync", "backup.before_rename")
LARGE = 200_000  # rows of an ingest that goes to a segment file


@pytest.fixture(autouse=True)
def nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm()


def rows(client: InProcess, sql: str) -> list[tuple[object, ...]]:
    found = client.run(sql).rows
    assert found is not None
    return [tuple(row.values()) for row in found.to_pylist()]


def restored(world: World, name: str, target: Path) -> World:
    backup.restore(world.data_dir / "backups" / name, target)
    return World(target)


def leftovers(world: World) -> list[str]:
    folder = world.data_dir / "backups"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def filled(world: World) -> World:
    """Rows in every state: cold, superseded, deleted, hot in the log, hot in a segment file; of everybody and of two users."""
    root, ada, bob = world.in_process(), world.in_process("ada", Role.USER), world.in_process("bob", Role.USER)
    root.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")
    root.run("CREATE USER TABLE own (id BIGINT PRIMARY KEY, v TEXT)")
    root.run("INSERT INTO t SELECT range, 'cold' FROM range(1000)")
    for name, client in (("ada", ada), ("bob", bob)):
        client.run(f"INSERT INTO own VALUES (1, '{name}')")
    world.flush()
    root.run("UPDATE t SET v = 'changed' WHERE id < 10")
    root.run("DELETE FROM t WHERE id BETWEEN 10 AND 19")
    world.flush()
    root.run("INSERT INTO t VALUES (5000, 'hot')")
    root.run(f"CREATE TABLE big (PRIMARY KEY (id)) AS SELECT range AS id, 'x' || range AS v FROM range({LARGE})")
    ada.run("UPDATE own SET v = 'ada again' WHERE id = 1")
    return world


QUESTIONS = (
    "SELECT count(*), count(*) FILTER (v = 'changed'), max(id) FROM t",
    "SELECT id, _deleted FROM t WHERE _seq > 0 AND id < 25 ORDER BY id",
    "SELECT count(*), sum(length(v)) FROM big",
)


def test_a_restored_service_answers_as_the_one_before(filled: World, tmp_path: Path) -> None:
    root = filled.in_process()
    before = [rows(root, q) for q in QUESTIONS]
    ((job, _, status, result),) = rows(root, "BACKUP TO 'monday'")
    assert str(job).startswith("BA-") and status == "completed" and '"name": "monday"' in str(result)
    root.run("DELETE FROM t")
    root.run("DROP TABLE big")
    filled.flush()
    other = restored(filled, "monday", tmp_path / "other")
    try:
        other.check()
        assert [rows(other.in_process(), q) for q in QUESTIONS] == before
        assert rows(other.in_process("ada", Role.USER), "SELECT v FROM own") == [("ada again",)]
        assert rows(other.in_process("bob", Role.USER), "SELECT v FROM own") == [("bob",)]
        # It goes on from there: ids above all there are, flush, compaction, a restart, a backup of its own.
        newest = rows(other.in_process(), "SELECT max(_seq) FROM t")[0][0]
        assert rows(other.in_process(), "INSERT INTO t VALUES (6000, 'new') RETURNING _seq")[0][0] > newest  # type: ignore[operator]
        other.flush()
        other.in_process().run("COMPACT TABLE t WAIT")
        other.restart()
        assert rows(other.in_process(), "SELECT count(*) FROM t") == [(992,)]
        other.in_process().run("BACKUP TO 'monday'")
        other.check()
    finally:
        other.close()
    assert rows(filled.in_process(), "SELECT count(*) FROM t") == [(0,)]
    filled.check()


def test_over_the_network(filled: World, tmp_path: Path) -> None:
    client = filled.adbc()
    answer = client.run("BACKUP TO 'wire'").rows
    assert answer is not None and answer.column("status").to_pylist() == ["completed"]
    other = restored(filled, "wire", tmp_path / "other")
    try:
        found = other.adbc().run("SELECT count(*) AS n FROM t").rows
        assert found is not None and found.to_pydict() == {"n": [991]}
    finally:
        other.close()


def test_a_backup_under_load_is_one_moment(world: World, tmp_path: Path) -> None:
    """Two tables written in one transaction agree, what was acknowledged before the statement is there, and nothing has a gap."""
    root = world.in_process()
    for table in ("a", "b"):
        root.run(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, n BIGINT)")
        root.run(f"INSERT INTO {table} VALUES (-1, 0)")
    stop, failed = threading.Event(), list[BaseException]()
    acknowledged = 0

    def write() -> None:
        nonlocal acknowledged
        client = world.in_process()
        try:
            while not stop.is_set():
                i = acknowledged
                client.run("BEGIN")
                for table in ("a", "b"):
                    client.run(f"INSERT INTO {table} VALUES ({i}, {i})")
                    client.run(f"UPDATE {table} SET n = n + 1 WHERE id = -1")
                client.run("COMMIT")
                acknowledged += 1
        except BaseException as e:
            failed.append(e)

    def settle() -> None:
        client = world.in_process()
        try:
            while not stop.is_set():
                client.run("FLUSH ALL TABLES WAIT")
                client.run("COMPACT TABLE a WAIT")
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for work in (write, settle)]
    for thread in threads:
        thread.start()
    known: list[int] = []
    try:
        for i in range(3):
            while acknowledged < 10 * (i + 1) and not failed:
                stop.wait(0.01)
            known.append(acknowledged)
            root.run(f"BACKUP TO 'b{i}'")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failed, failed
    for i, at_least in enumerate(known):
        other = restored(world, f"b{i}", tmp_path / f"other{i}")
        try:
            client = other.in_process()
            (a,), (b,) = (rows(client, f"SELECT count(*), max(id), max(n) FILTER (id = -1) FROM {t}") for t in ("a", "b"))
            assert a == b
            assert a[0] == a[1] + 2 and a[2] == a[1] + 1, a  # type: ignore[operator]
            assert a[1] >= at_least - 1  # type: ignore[operator]
            other.check()
        finally:
            other.close()


@pytest.mark.parametrize("place", PLACES)
def test_a_failure_on_the_way_leaves_nothing(filled: World, place: str) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    failpoints.arm(place, fail)
    root = filled.in_process()
    with pytest.raises(Refused):
        root.run("BACKUP TO 'broken'")
    failpoints.disarm()
    assert leftovers(filled) == []
    root.run("BACKUP TO 'broken'")
    assert leftovers(filled) == ["broken"]


def test_what_a_crash_left_is_removed_by_the_next(filled: World) -> None:
    left = filled.data_dir / "backups" / ".half.making"
    (left / "store").mkdir(parents=True)
    filled.in_process().run("BACKUP TO 'whole'")
    assert leftovers(filled) == ["whole"]


def test_readers_and_flushes_do_not_take_files_from_under_it(filled: World, tmp_path: Path) -> None:
    """Between checkpoint and collection everything is flushed and compacted away: the pinned files are still there."""
    writer = filled.in_process()
    table = filled.kalam.parts.catalog.state.find("main", "big")
    assert table is not None
    segments = sorted((filled.data_dir / "hot").glob("seg-*"))
    assert segments

    def settle() -> None:
        # A job would wait for the one that runs: call what it calls.
        upkeep = _upkeep(filled.kalam.parts)
        for t in filled.kalam.parts.catalog.state.tables.values():
            for scope in filled.kalam.parts.scopes.of_table(t):
                upkeep.flusher.flush(t, scope.owner)
        upkeep.compactor.compact(filled.kalam.parts.catalog.state.find("main", "t"), None)

    failpoints.arm("backup.checkpoint", settle)
    writer.run("BACKUP TO 'pinned'")
    failpoints.disarm()
    assert not [p for p in segments if p.exists()]  # gone as soon as the backup let go
    other = restored(filled, "pinned", tmp_path / "other")
    try:
        other.check()
        assert rows(other.in_process(), "SELECT count(*) FROM big") == [(LARGE,)]
        assert Scope(table.id, None) in other.kalam.parts.scopes.log.scopes(table.id)  # it was hot at that moment
    finally:
        other.close()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "ü", "x" * 129, "a\nb"])
def test_a_name_cannot_lead_elsewhere(world: World, name: str) -> None:
    with pytest.raises(Refused) as refused:
        world.in_process().run(f"BACKUP TO '{name}'")
    assert refused.value.sqlstate == "42602"
    assert leftovers(world) == []


def test_names_are_used_once_and_rights_are_checked(world: World) -> None:
    root = world.in_process()
    root.run("BACKUP TO 'one'")
    with pytest.raises(Refused, match="already exists") as refused:
        root.run("BACKUP TO 'one'")
    assert refused.value.sqlstate == "42710"
    for role in (Role.USER, Role.SERVICE):
        with pytest.raises(Refused) as denied:
            world.in_process(f"a-{role.label}", role).run("BACKUP TO 'two'")
        assert denied.value.sqlstate == "42501"
    assert leftovers(world) == ["one"]


@pytest.mark.parametrize("which", ["cold/main/", "store/", "hot/"])
@pytest.mark.parametrize("how", ["missing", "flipped", "cut"])
def test_a_damaged_backup_is_refused_and_says_which_file(filled: World, tmp_path: Path, which: str, how: str) -> None:
    filled.in_process().run("BACKUP TO 'bad'")
    folder = filled.data_dir / "backups" / "bad"
    path = max((p for p in folder.rglob("*") if p.is_file() and which in p.as_posix()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    path.unlink()  # it is a link to the live file, which must stay as it is
    if how == "flipped":
        data[len(data) // 2] ^= 1
    if how != "missing":
        path.write_bytes(data[:-1] if how == "cut" else data)
    for attempt in (lambda: backup.verify(folder), lambda: backup.restore(folder, tmp_path / "other")):
        with pytest.raises(DataCorrupted, match=path.name):
            attempt()
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob("*restoring"))


def test_an_inventory_is_checked_too(world: World, tmp_path: Path) -> None:
    world.in_process().run("BACKUP TO 'listed'")
    path = world.data_dir / "backups" / "listed" / backup.INVENTORY
    text = path.read_text()
    path.write_text(text.replace("store/", "store/../../", 1))
    with pytest.raises(DataCorrupted, match="inventory"):
        backup.restore(path.parent, tmp_path / "other")
    path.unlink()
    with pytest.raises(ConfigError, match="not a backup"):
        backup.restore(path.parent, tmp_path / "other")


def test_restore_makes_a_new_directory_only(world: World, tmp_path: Path) -> None:
    world.in_process().run("BACKUP TO 'one'")
    folder = world.data_dir / "backups" / "one"
    with pytest.raises(ConfigError, match="not empty"):
        backup.restore(folder, world.data_dir)
    (tmp_path / "empty").mkdir()
    backup.restore(folder, tmp_path / "empty")
    with pytest.raises(ConfigError, match="not empty"):
        backup.restore(folder, tmp_path / "empty")


def test_another_folder_by_configuration(tmp_path: Path) -> None:
    world = World(tmp_path / "data", {"backup": {"folder": tmp_path / "elsewhere"}})
    try:
        world.in_process().run("BACKUP TO 'one'")
        assert backup.verify(tmp_path / "elsewhere" / "one").name == "one"
    finally:
        world.close()


def test_the_command_line(world: World, tmp_path: Path) -> None:
    world.in_process().run("BACKUP TO 'one'")
    folder = str(world.data_dir / "backups" / "one")
    run = CliRunner().invoke
    assert "is whole" in run(cli, ["restore", folder, "--verify-only"]).output
    done = run(cli, ["restore", folder, "--data-dir", str(tmp_path / "new")])
    assert done.exit_code == 0 and "is restored into" in done.output
    assert (tmp_path / "new" / "store").is_dir()


def test_copies_where_links_are_not_possible(filled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_link)
    filled.in_process().run("BACKUP TO 'copied'")
    other = restored(filled, "copied", tmp_path / "other")
    try:
        other.check()
        assert pa.table({"n": [991]}) == other.in_process().run("SELECT count(*) AS n FROM t").rows
    finally:
        other.close()
