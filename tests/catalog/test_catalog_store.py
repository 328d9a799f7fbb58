"""The catalog over the store: what was committed is there after a restart, and a stale change is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_support import NOW_US, MemoryStore, commit, new_table, opened

from flightkalam.catalog import alter, edits
from flightkalam.catalog.catalog import FORMAT_KEY, FORMAT_VERSION, Catalog, open_format
from flightkalam.catalog.edits import NewView
from flightkalam.catalog.state import Change
from flightkalam.errors import ConfigError, Conflict, DataCorrupted, TryAgain
from flightkalam.storage.kv import Batch, Store


def create(catalog: Catalog, name: str = "t", *columns: str, **more: object) -> Change:
    new = new_table(name, *columns, **more)
    return edits.create_table(catalog.state, new, table_id=catalog.new_table_id(), now_us=NOW_US)


def test_a_new_catalog_has_main_and_nothing_else() -> None:
    state = opened().state
    assert [n.name for n in state.namespaces.values()] == ["main"]
    assert state.objects() == []


def test_everything_is_there_after_a_restart_of_a_real_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "kv", durable=False)
    catalog = opened(store)
    every_type = [
        "id BIGINT", "a BOOLEAN", "b SMALLINT", "c INT", "d REAL", "e DOUBLE", "f DECIMAL(38,10)", "g TEXT", "h BLOB",
        "i JSON", "j DATE", "k TIME", "l TIMESTAMP", "m TIMESTAMPTZ", "n UUID", "o INTERVAL", "p INT[][]",
        'q STRUCT("x y" INT, z TEXT[])', "r EMBEDDING(384)",
    ]  # fmt: skip
    commit(catalog, edits.create_namespace(catalog.state, "Größe", created_by="root", now_us=NOW_US))
    options = (("FLUSH_POLICY", "interval:9"), ("BLOOM_FILTER_COLUMNS", "g,id"), ("ROW_RETENTION", "3d BY l"))
    change = create(catalog, "größe.T", *every_type, options=options, checks=((None, "c > 0"),))
    commit(catalog, change)
    commit(catalog, alter.comment_on_column(catalog.state, 1, "a", "sí"))
    view = NewView("main", "v", "SELECT 'x'", "ann", "Größe", ("c",))
    commit(catalog, edits.create_view(catalog.state, view, now_us=NOW_US))
    before = catalog.state
    store.close()

    store = Store(tmp_path / "kv", durable=False)
    again = opened(store)
    assert again.state == before
    assert again.new_table_id() == 2
    store.close()


def test_a_published_change_is_seen_by_later_statements_only() -> None:
    catalog = opened()
    running = catalog.state
    commit(catalog, create(catalog))
    assert running.find("main", "t") is None
    assert catalog.resolve(("t",)).qualified == "main.t"


def test_a_change_is_not_seen_before_it_is_published() -> None:
    catalog = opened()
    change = create(catalog)
    change.write(Batch())
    assert catalog.state.find("main", "t") is None


def test_a_change_made_from_an_older_state_is_refused_before_and_after_the_append() -> None:
    catalog = opened()
    first, second = create(catalog, "a"), create(catalog, "b")
    commit(catalog, first)
    batch = Batch()
    for step in (lambda: catalog.install(second, batch), lambda: catalog.publish(second)):
        with pytest.raises(Conflict, match="the catalog was changed by another statement meanwhile; run this one again"):
            step()
    assert len(batch) == 0
    assert [f.name for f in catalog.state.objects()] == ["a"]


def test_the_records_of_a_rename_are_one_put_and_no_leftover() -> None:
    store = MemoryStore()
    catalog = opened(store)
    commit(catalog, create(catalog))
    commit(catalog, edits.rename_table(catalog.state, 1, "u"))
    assert sum(k.startswith(b"t/") for f, k in store.pairs if f == "catalog") == 1


# -- table ids --------------------------------------------------------------------------------------------------


def test_a_table_id_is_never_used_again_not_even_after_drop_and_restart() -> None:
    """T-25: log keys and folders begin with it."""
    store = MemoryStore()
    catalog = opened(store)
    commit(catalog, create(catalog))
    commit(catalog, edits.drop_table(catalog.state, 1))
    commit(catalog, create(catalog))
    assert list(catalog.state.tables) == [2]
    assert opened(store).new_table_id() == 3


def test_an_id_whose_table_was_never_made_is_not_used_again() -> None:
    """An ingest that failed may have staged rows under it."""
    store = MemoryStore()
    assert opened(store).new_table_id() == 1
    assert opened(store).new_table_id() == 2


def test_when_ids_run_out_the_next_table_is_refused() -> None:
    store = MemoryStore()
    opened(store)
    store.pairs["catalog", b"id/table"] = ((1 << 32) - 1).to_bytes(5, "big")
    catalog = opened(store)
    assert catalog.new_table_id() == (1 << 32) - 1
    with pytest.raises(TryAgain, match="no table id is left"):
        catalog.new_table_id()


# -- the format of the data directory ---------------------------------------------------------------------------


def test_a_new_directory_is_stamped_with_the_format_version() -> None:
    store = MemoryStore()
    opened(store)
    assert store.get("meta", FORMAT_KEY) == b"%d" % FORMAT_VERSION


def test_a_newer_format_is_refused() -> None:
    store = MemoryStore()
    store.pairs["meta", FORMAT_KEY] = b"2"
    with pytest.raises(ConfigError, match="has format 2 and this release reads up to 1; start a newer release"):
        opened(store)


def test_an_older_format_is_migrated_step_by_step() -> None:
    store = MemoryStore()
    store.pairs["meta", FORMAT_KEY] = b"1"
    steps = {
        1: lambda _, batch: batch.put("catalog", b"x", b"one"),
        2: lambda s, batch: batch.put("catalog", b"y", s.get("catalog", b"x") + b", two"),
    }
    open_format(store, steps, 3)
    assert store.get("catalog", b"y") == b"one, two"
    assert store.get("meta", FORMAT_KEY) == b"3"


def test_a_migration_that_stops_half_way_goes_on_from_there() -> None:
    store = MemoryStore()
    store.pairs["meta", FORMAT_KEY] = b"1"

    def fails(_: object, batch: Batch) -> None:
        batch.put("catalog", b"x", b"half")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        open_format(store, {1: lambda s, b: None, 2: fails}, 3)
    assert store.get("meta", FORMAT_KEY) == b"2"
    assert store.get("catalog", b"x") is None


def test_a_format_that_cannot_be_migrated_or_read_is_refused() -> None:
    store = MemoryStore()
    store.pairs["meta", FORMAT_KEY] = b"0"
    with pytest.raises(ConfigError, match="has format 0, which this release cannot migrate"):
        opened(store)
    store.pairs["meta", FORMAT_KEY] = b"one"
    with pytest.raises(DataCorrupted, match="format version is b'one', not a number"):
        opened(store)


def test_tables_without_a_format_version_are_damage() -> None:
    store = MemoryStore()
    store.pairs["catalog", b"t/\0\0\0\1"] = b"{}"
    with pytest.raises(DataCorrupted, match="holds tables but no format version"):
        opened(store)


@pytest.mark.parametrize("record", [b"{", b"{}", b"[]", b'{"columns": [{"type": "NOPE"}]}', b"\xff"])
def test_a_record_that_cannot_be_read_stops_the_start(record: bytes) -> None:
    for key in (b"t/\0\0\0\1", b"n/x", b"v/x\0y"):
        store = MemoryStore()
        opened(store)
        store.pairs["catalog", key] = record
        with pytest.raises(DataCorrupted, match="cannot be read"):
            opened(store)
