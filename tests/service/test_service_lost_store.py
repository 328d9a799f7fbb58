"""The store is lost and the Parquet files are there: a start refuses, `recover` makes everything again as it was last flushed.

names, ids, schemas, options      from the newest footer of each table
which batches count               `replaces`; a batch that is proven lost is named, and nothing is made without consent
rows, `_seq`                      MAX(_seq) over the files; new ones continue above
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kalam_world import World, config

from flightkalam import app, failpoints
from flightkalam.auth.identity import Role
from flightkalam.cold import paths
from flightkalam.errors import ConfigError, InternalError

VISIBLE = "SELECT *, _seq FROM t ORDER BY id"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    failpoints.disarm()
    made.close()


def rows(world: World, sql: str, user: str = "root", role: Role = Role.SYSTEM) -> list[dict]:
    found = world.in_process(user, role).run(sql).rows
    assert found is not None
    return found.to_pylist()


def run(world: World, *statements: str) -> None:
    client = world.in_process()
    for sql in statements:
        client.run(sql)


def lose_store(world: World) -> None:
    world.close()
    shutil.rmtree(world.data_dir / "store")


def recover(world: World, *, accept_loss: bool = False) -> tuple[int, list[str]]:
    said: list[str] = []
    return app.recover(config(world.data_dir), said.append, accept_loss=accept_loss), said


def folder(world: World, table: str = "t") -> Path:
    (found,) = (world.data_dir / "cold").glob(f"*/{table}~*")
    return found


def leave_parquet_alone(world: World) -> None:
    """Take away every file of the cold tier that is derived."""
    for path in (world.data_dir / "cold").rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            path.unlink()


def three_batches(world: World) -> None:
    run(
        world,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT) WITH (COMPACTION='manual')",
        "INSERT INTO t SELECT i, 'a' FROM range(100) AS r(i)",
        "FLUSH TABLE t WAIT",
        "UPDATE t SET v = 'b' WHERE id < 10",
        "DELETE FROM t WHERE id >= 90",
        "FLUSH TABLE t WAIT",
        "INSERT INTO t SELECT i, 'c' FROM range(95, 105) AS r(i)",
        "FLUSH TABLE t WAIT",
    )


# -- a start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["missing", "emptied"])
def test_a_start_without_the_store_is_refused_and_says_what_to_do(world: World, how: str) -> None:
    """Else a new table would take the id, and the folder, of one that is there (T-25)."""
    three_batches(world)
    lose_store(world)
    if how == "emptied":
        (world.data_dir / "store").mkdir()
    before = sorted(p for p in (world.data_dir / "cold").rglob("*"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="flightkalam recover --data-dir"):
            app.open_kalam(world.config)
    assert sorted(p for p in (world.data_dir / "cold").rglob("*")) == before
    assert (world.data_dir / "store").exists() == (how == "emptied")


def test_rows_that_are_only_in_segment_files_are_not_swept_by_a_start(world: World) -> None:
    run(world, "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)", "INSERT INTO t SELECT i, 'x' FROM range(200000) AS r(i)")
    segments = sorted(p.name for p in (world.data_dir / "hot").iterdir())
    assert segments
    lose_store(world)
    with pytest.raises(ConfigError, match="flightkalam recover"):
        app.open_kalam(world.config)
    assert sorted(p.name for p in (world.data_dir / "hot").iterdir()) == segments
    code, said = recover(world)
    assert code == 0 and any("lost/hot" in line for line in said)
    assert sorted(p.name for p in (world.data_dir / "lost" / "hot").iterdir()) == segments


def test_recover_is_for_a_lost_store_only(world: World, tmp_path: Path) -> None:
    three_batches(world)
    world.close()
    with pytest.raises(ConfigError, match="is not lost"):
        recover(world)
    with pytest.raises(ConfigError, match="nothing to recover"):
        app.recover(config(tmp_path / "none"), print, accept_loss=False)
    assert not (tmp_path / "none").exists()


def test_recover_waits_for_no_running_server(world: World) -> None:
    three_batches(world)
    with pytest.raises(ConfigError, match="in use by another server"):
        recover(world)


# -- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True], ids=["with manifests", "parquet alone"])
def test_every_query_gives_the_rows_of_the_last_flush(world: World, alone: bool) -> None:
    three_batches(world)
    run(
        world,
        "CREATE NAMESPACE Shop",
        "CREATE USER TABLE shop.orders (a INT, b TEXT, note TEXT DEFAULT 'none', PRIMARY KEY (a, b)) "
        "WITH (DELETED_RETENTION_HOURS=7, BLOOM_FILTER_FPP=0.001)",
    )
    run(world, "INSERT INTO shop.orders VALUES (1, 'x', 'root''s')", "FLUSH TABLE shop.orders WAIT")
    for name in ("ann", "böse/../id"):
        client = world.in_process(name, Role.USER)
        client.run(f"INSERT INTO shop.orders VALUES (1, 'x', '{name}'), (2, 'y', 'second')")
    run(world, "FLUSH TABLE shop.orders WAIT", "ALTER TABLE shop.orders RENAME COLUMN note TO remark")
    run(world, "ALTER TABLE shop.orders ADD COLUMN n INT DEFAULT 7", "INSERT INTO shop.orders VALUES (3, 'z', 'r', 1)")
    run(world, "FLUSH TABLE shop.orders WAIT")
    asked = [
        (VISIBLE, "root", Role.SYSTEM),
        ("SELECT id, _seq, _deleted FROM t WHERE _seq > 0 ORDER BY id", "root", Role.SYSTEM),
        ("SELECT *, _seq FROM shop.orders ORDER BY a, b", "root", Role.SYSTEM),
        ("SELECT *, _seq FROM shop.orders ORDER BY a, b", "ann", Role.USER),
        ("SELECT *, _seq FROM shop.orders ORDER BY a, b", "böse/../id", Role.USER),
        ("SHOW CREATE TABLE shop.orders", "root", Role.SYSTEM),
        ("SHOW CREATE TABLE t", "root", Role.SYSTEM),
    ]
    expected = [rows(world, *each) for each in asked]
    run(world, "INSERT INTO t VALUES (5000, 'never flushed')")
    ids = set(world.kalam.parts.catalog.state.tables)
    lose_store(world)
    if alone:
        leave_parquet_alone(world)
    code, said = recover(world)
    assert code == 0, said
    assert any(line.startswith("main.t (id ") and "3 batches, 130 versions" in line for line in said), said
    assert [rows(world, *each) for each in asked] == expected
    assert set(world.kalam.parts.catalog.state.tables) == ids
    world.check()


def test_what_comes_after_continues_above(world: World) -> None:
    """`_seq` (T-1), table ids (T-25), batch numbers."""
    three_batches(world)
    highest = rows(world, "SELECT max(_seq) AS s FROM t WHERE _deleted OR NOT _deleted")[0]["s"]
    last_id = max(world.kalam.parts.catalog.state.tables)
    lose_store(world)
    assert recover(world)[0] == 0
    run(world, "UPDATE t SET v = 'later' WHERE id = 3", "INSERT INTO t VALUES (95000, 'later')", "FLUSH TABLE t WAIT")
    assert (folder(world) / "batch-3.parquet").exists()
    after = rows(world, "SELECT id, _seq FROM t WHERE v = 'later' ORDER BY id")
    assert [r["id"] for r in after] == [3, 95000] and min(r["_seq"] for r in after) > highest
    run(world, "CREATE TABLE u (id INT PRIMARY KEY)")
    assert max(world.kalam.parts.catalog.state.tables) > last_id
    world.check()
    world.restart()
    assert len(rows(world, VISIBLE)) == 101
    world.check()


def test_compacted_tables_lack_numbers_and_nothing_else(world: World) -> None:
    """T-44: what was replaced twice over has neither a file nor a place in `replaces`, and is not missed."""
    three_batches(world)
    for n in range(2):
        run(world, "COMPACT TABLE t WAIT", f"INSERT INTO t VALUES ({1000 + n}, 'd')", "FLUSH TABLE t WAIT")
    run(world, "COMPACT TABLE t WAIT")
    expected = rows(world, VISIBLE)
    lose_store(world)
    leave_parquet_alone(world)
    (left,) = folder(world).iterdir()
    assert paths.batch_number(left.name) == 7
    code, said = recover(world)
    assert code == 0, said
    assert rows(world, VISIBLE) == expected
    world.check()


def test_two_tables_of_one_name_both_come_back(world: World) -> None:
    """The last flush of one may be older than its RENAME."""
    three_batches(world)
    run(
        world,
        "ALTER TABLE t RENAME TO old_t",
        "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'new')",
    )
    run(world, "FLUSH TABLE t WAIT")
    older = min(world.kalam.parts.catalog.state.tables)
    lose_store(world)
    code, said = recover(world)
    assert code == 0 and any(f"main.t_{older}" in line for line in said), said
    assert [r["v"] for r in rows(world, VISIBLE)] == ["new"]
    assert rows(world, f"SELECT count(*) AS n FROM t_{older}") == [{"n": 100}]
    world.check()


def test_cut_short_it_is_run_again(world: World) -> None:
    three_batches(world)
    expected = rows(world, VISIBLE)
    lose_store(world)

    def killed() -> None:
        raise InternalError("killed")

    failpoints.arm("recover.before_install", killed)
    with pytest.raises(InternalError, match="killed"):
        recover(world)
    failpoints.disarm()
    with pytest.raises(ConfigError, match="flightkalam recover"):
        app.open_kalam(world.config)
    assert recover(world)[0] == 0
    assert rows(world, VISIBLE) == expected
    world.check()


# -- losses -----------------------------------------------------------------------------------------------------------


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x41
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(("batch", "alone"), [(0, False), (1, False), (2, False), (0, True), (1, True)], ids=lambda v: str(v))
def test_a_missing_batch_is_named_and_nothing_is_made_without_consent(world: World, batch: int, alone: bool) -> None:
    three_batches(world)
    lose_store(world)
    name = f"batch-{batch}.parquet"
    (folder(world) / name).unlink()
    if alone:
        leave_parquet_alone(world)
    code, said = recover(world)
    assert code == 1 and f'LOST  table "main.t": {name} is missing' in said, said
    with pytest.raises(ConfigError, match="flightkalam recover"):
        app.open_kalam(world.config)
    code, said = recover(world, accept_loss=True)
    assert code == 0 and f'LOST  table "main.t": {name} is missing' in said, said
    kept = {0: 10 + 10, 1: 100 + 5, 2: 90}[batch]  # without its tombstones batch 1 brings back 90 to 99, older than batch 2
    assert len(rows(world, VISIBLE)) == kept
    run(world, "INSERT INTO t VALUES (7000, 'x')", "FLUSH TABLE t WAIT")
    assert not (folder(world) / name).exists() and (folder(world) / "batch-3.parquet").exists()
    world.check()


@pytest.mark.parametrize("place", ["page", "footer", "magic"])
def test_a_damaged_batch_is_named_and_set_aside_with_consent(world: World, place: str) -> None:
    three_batches(world)
    lose_store(world)
    path = folder(world) / "batch-2.parquet"
    data = path.read_bytes()
    damage(path, {"page": 40, "footer": data.index(b'"flushed_seq"'), "magic": len(data) - 1}[place])
    damaged = path.read_bytes()
    code, said = recover(world)
    assert code == 1 and 'LOST  table "main.t": batch-2.parquet is damaged' in said, said
    assert path.read_bytes() == damaged
    code, said = recover(world, accept_loss=True)
    assert code == 0, said
    assert (world.data_dir / "lost" / path.relative_to(world.data_dir)).read_bytes() == damaged
    assert len(rows(world, VISIBLE)) == 90
    run(world, "INSERT INTO t VALUES (7000, 'x')", "FLUSH TABLE t WAIT")
    assert not path.exists()
    world.check()


def test_a_table_of_which_nothing_can_be_read_is_left_out_with_consent_only(world: World) -> None:
    three_batches(world)
    run(world, "CREATE TABLE fine (id INT PRIMARY KEY)", "INSERT INTO fine VALUES (1)", "FLUSH TABLE fine WAIT")
    lose_store(world)
    at = folder(world)
    for path in at.glob("batch-*"):
        damage(path, -1)
    code, said = recover(world)
    assert code == 1 and any(line.startswith(f"LOST  main/{at.name}: no file says what the table was") for line in said), said
    assert recover(world, accept_loss=True)[0] == 0
    assert not at.exists() and len(list((world.data_dir / "lost" / "cold" / "main" / at.name).glob("batch-*"))) == 3
    assert rows(world, "SELECT * FROM fine") == [{"id": 1}]
    assert [t.name for t in world.kalam.parts.catalog.state.tables.values()] == ["fine"]


def test_a_folder_of_another_table_is_a_loss_and_not_a_guess(world: World) -> None:
    """T-47: a folder that somebody has renamed."""
    three_batches(world)
    lose_store(world)
    at = folder(world)
    at.rename(at.with_name("t~99"))
    code, said = recover(world)
    assert code == 1 and any("t~99: holds the files of table" in line for line in said), said
    at.with_name("t~99").rename(at)
    assert recover(world)[0] == 0
    world.check()
