"""What Bloom filters spare a scan and a search by key, and that they change no answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from table_world import World, plain, seen, table_of

from flightkalam.cold import deletion_vectors, paths
from flightkalam.model import predicate as p
from flightkalam.model import types as t
from flightkalam.model.keys import Probe
from flightkalam.model.schema import Column, Table, TableKind, TableOptions
from flightkalam.table.locate import by_filters, candidates
from flightkalam.table.mutation import OnConflict
from flightkalam.table.scan import Figures, scan

UPDATE = OnConflict.UPDATE
BATCHES = 12


def spread(world: World, table: Table, rows: list[dict[str, Any]]) -> Table:
    """The rows in batches of which each spans nearly all keys."""
    world.tables[table.id] = table
    for i in range(BATCHES):
        world.write(table, rows[i::BATCHES])
        world.flush(table)
    return table


def simple(world: World, **options: Any) -> Table:
    columns = (Column(1, "k", t.BIGINT, True), Column(2, "s", t.TEXT))
    table = replace(table_of(1, "t", TableKind.SHARED, columns, (1,)), options=TableOptions(bloom_filter_fpp=0.001, **options))
    rng = np.random.default_rng(4)
    keys = sorted(rng.choice(10**9, 600, replace=False).tolist())
    return spread(world, table, [{"k": k, "s": f"s{k}"} for k in keys])


def keys_in(world: World, table: Table) -> list[int]:
    return sorted(r["k"] for r in plain(world.see(table)))


def figures(world: World, table: Table, predicate: p.Predicate) -> Figures:
    return scan(world.snapshot(table), predicate).figures


def test_a_search_by_key_reads_the_one_batch_that_has_it(world: World) -> None:
    table = simple(world)
    for key in keys_in(world, table)[100:500:37]:
        found = figures(world, table, p.Compare(1, "=", key))
        assert found.batches_read == 1
        assert found.pruned_by_bloom >= BATCHES - 3
        assert found.pruned_by_range + found.pruned_by_bloom + found.batches_read == found.batches_total == BATCHES


def test_many_keys_and_both_sides_of_or_are_tested(world: World) -> None:
    table = simple(world)
    a, b = keys_in(world, table)[300:302]
    inner = p.OneOf(1, (a, b, a + 1))
    either = p.Any_((p.Compare(1, "=", a), p.Compare(1, "=", b)))
    for predicate in (inner, either, p.All((inner, p.IsNotNull(1)))):
        found = figures(world, table, predicate)
        assert found.batches_read == 2
    # One side that no filter decides lets its batches in, and no others.
    mixed = p.Any_((p.Compare(1, "=", a), p.Compare(1, ">", 10**10)))
    assert figures(world, table, mixed).batches_read == 1
    assert figures(world, table, p.Any_((p.Compare(1, "=", a), p.Compare(1, ">", 5)))).pruned_by_bloom == 0


def test_other_columns_are_filtered_when_the_table_says_so(world: World) -> None:
    table = simple(world, bloom_filter_columns=("s",))
    key = keys_in(world, table)[123]
    assert figures(world, table, p.Compare(2, "=", f"s{key}".encode())).batches_read <= 2
    assert figures(world, table, p.Compare(1, "=", key)).pruned_by_bloom == 0, "the key is not on its list"


def test_no_column_means_no_filter(world: World) -> None:
    table = simple(world, bloom_filter_columns=())
    assert all(not b.filters for b in world.manifests.get(world.scope(table)).batches)


def test_no_false_exclusion_of_hot_cold_dead_and_widened_rows(world: World) -> None:
    """T-31: files from before the key was widened are asked in their own type."""
    columns = (Column(1, "k", t.INT, True), Column(2, "s", t.TEXT))
    table = table_of(1, "t", TableKind.SHARED, columns, (1,))
    keys = sorted(np.random.default_rng(5).choice(10**9, 240, replace=False).tolist())
    spread(world, table, [{"k": k, "s": "a"} for k in keys])
    wide = table.with_schema((replace(columns[0], type=t.BIGINT), columns[1]))
    world.tables[1] = wide
    world.write(wide, [{"k": k, "s": "b"} for k in [*keys[::5], 2**40]], None, UPDATE)
    world.delete(wide, [{"k": k} for k in keys[1::5]])
    for _ in range(2):
        every = {r["k"]: r for r in plain(world.see(wide))}
        for key in [*keys, 2**40, 7]:
            found = [r for r in plain(world.see(wide, None, p.Compare(1, "=", key))) if r["k"] == key]
            assert found == ([every[key]] if key in every else [])
        world.flush(wide)


COMPOSITE = (Column(1, "a", t.TEXT, True), Column(2, "b", t.BIGINT, True), Column(3, "n", t.INT))


def composite(world: World) -> Table:
    table = table_of(1, "t", TableKind.SHARED, COMPOSITE, (1, 2))
    return spread(world, table, [{"a": f"a{i % 7}", "b": i * i, "n": i} for i in range(240)])


def asked(a: str, b: int) -> p.Predicate:
    return p.All((p.Compare(1, "=", a.encode()), p.Compare(2, "=", b)))


def test_a_key_of_two_columns_is_tested_as_a_whole(world: World) -> None:
    table = composite(world)
    read = pruned = 0
    for i in range(0, 240, 11):
        snapshot = world.snapshot(table)
        found = [r for r in seen(snapshot, asked(f"a{i % 7}", i * i)) if (r["a"], r["b"]) == (f"a{i % 7}", i * i)]
        assert [r["n"] for r in found] == [i]
        shown = figures(world, table, asked(f"a{i % 7}", i * i))
        read, pruned = read + shown.batches_read, pruned + shown.pruned_by_bloom
    assert read <= 28
    assert pruned > 100
    assert figures(world, table, p.Compare(1, "=", b"a3")).pruned_by_bloom == 0, "half a key is no key"


def test_a_lost_key_filter_is_rebuilt_by_the_scan_that_misses_it(world: World) -> None:
    table = composite(world)
    path = world.folder(table) / paths.filter_name(4)
    good = path.read_bytes()
    path.unlink()
    world.reopen()
    assert figures(world, table, asked("a1", 64)).batches_read == 1
    assert path.read_bytes() == good
    assert world.scopes.counters.snapshot()["bloom_filters_rebuilt"] == 1


def test_filters_leave_with_their_batches_and_orphans_are_swept(world: World) -> None:
    table = composite(world)
    orphan = world.folder(table) / paths.filter_name(99)
    orphan.write_bytes(b"x")
    world.reopen()
    world.write(table, [{"a": "z", "b": -1}])
    world.flush(table)
    assert not orphan.exists()
    named = {f.file for b in world.manifests.get(world.scope(table)).batches for f in b.filters}
    assert {f.name for f in world.folder(table).glob("*.bloom")} == named
    assert len(named) == BATCHES + 1


def test_a_failed_flush_leaves_no_filter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    table = composite(world)
    world.write(table, [{"a": "z", "b": -1}])

    def refuse(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(deletion_vectors, "write", refuse)
    monkeypatch.setattr(type(world.manifests), "stage", refuse)
    with pytest.raises(OSError):
        world.flush(table)
    assert len(list(world.folder(table).glob("*.bloom"))) == BATCHES


@pytest.mark.parametrize("make", [simple, composite])
def test_writers_look_only_into_batches_that_can_hold_the_key(world: World, make: Any) -> None:
    table = make(world)
    scope = world.scopes.open(table, None)
    rows = plain(world.see(table))
    left = before = 0
    for row in rows[::20]:
        columns = [pa.array([row[c.name]], c.type.storage) for c in table.schema.key_columns]
        probe = Probe.of(columns)
        first = candidates(scope.state.manifest, table.schema, probe)
        then = by_filters(world.scopes, scope, scope.state.manifest, table.schema, probe, first)
        left, before = left + len(then), before + len(first)
        world.write(
            table, [row | {table.schema.columns[-1].name: None}], None, UPDATE
        )  # finds the old version, or says duplicate
    assert left < before / 4
    assert len(world.see(table)) == len(rows)


def test_what_was_spared_is_counted(world: World) -> None:
    table = simple(world)
    before = world.scopes.counters.snapshot().get("scan_pruned_by_bloom", 0)
    spared = figures(world, table, p.Compare(1, "=", keys_in(world, table)[5])).pruned_by_bloom
    assert world.scopes.counters.snapshot()["scan_pruned_by_bloom"] == before + spared > 0


def test_the_more_batches_span_the_same_keys_the_stricter_their_filters(world: World) -> None:
    """So a search by key meets about one false batch, however many there are."""
    table = composite(world)
    rates = [
        float(ref.columns[0][1].removeprefix("key"))
        for b in world.manifests.get(world.scope(table)).batches
        for ref in b.filters
    ]
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1 / (10 * BATCHES - 10)
    # A batch of other keys overlaps none.
    world.write(table, [{"a": "zzz", "b": i} for i in range(9)])
    world.flush(table)
    (ref,) = world.manifests.get(world.scope(table)).batches[-1].filters
    assert ref.columns[0][1] == "key0.01"
