"""executemany of an UPDATE or DELETE by key: as one statement it does what it does row by row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kalam_world import InProcess, World

from flightkalam.errors import KalamError
from flightkalam.session import many

KEYS = st.integers(0, 12)
WORDS = st.sampled_from(["a", "b", "", "ü", None])
UPDATES = st.lists(st.tuples(st.one_of(st.none(), st.integers(-5, 5)), WORDS, KEYS, WORDS), min_size=1, max_size=12)
DELETES = st.lists(st.tuples(KEYS, WORDS), min_size=1, max_size=12)


@pytest.fixture
def prepared(world: World, root: InProcess) -> Iterator[InProcess]:
    root.run("CREATE TABLE t (a INT, b TEXT, n SMALLINT, w TEXT, CHECK (n < 5), PRIMARY KEY (a, b))")
    yield root


def fill(world: World, root: InProcess) -> None:
    """Cold, superseded, deleted and hot rows."""
    root.run("TRUNCATE t")
    root.run("INSERT INTO t SELECT range % 8, chr((97 + range % 2)::INT), range, 'w' FROM range(4)")
    root.run("INSERT INTO t VALUES (9, 'ü', 1, 'w'), (10, '', 1, 'w')")
    world.flush()
    root.run("DELETE FROM t WHERE a = 1")
    root.run("UPDATE t SET n = n + 1 WHERE a IN (2, 9)")
    root.run("INSERT INTO t VALUES (11, 'a', 1, 'w'), (12, 'b', 1, 'w')")


def execute(root: InProcess, sql: str, rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The count or what was refused, and the rows then."""
    types = [pa.int64() if any(isinstance(v, int) for v in c) else pa.utf8() for c in zip(*rows, strict=True)]
    bound = pa.table(
        [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), types, strict=True)], names=[str(i) for i in range(len(types))]
    )
    handle = root.session.prepare(sql, None).handle
    try:
        done: Any = root.session.update_prepared(handle, iter(bound.to_batches()))
    except KalamError as e:
        done = e.sqlstate
    finally:
        root.session.close_prepared(handle)
    seen = root.run("SELECT *, _seq > 0 FROM t ORDER BY ALL").rows
    assert seen is not None
    return done, seen.to_pylist()


def both(world: World, root: InProcess, sql: str, rows: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for fewest in (1, 1_000_000):
        monkeypatch.setattr(many, "FEWEST", fewest)
        fill(world, root)
        found.append(execute(root, sql, rows))
    assert found[0] == found[1]


def test_update_as_one_statement(prepared: InProcess, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(max_examples=30)
    @given(UPDATES)
    def compare(rows: list[tuple[Any, ...]]) -> None:
        both(world, prepared, "UPDATE t SET n = ?, w = ? WHERE a = ? AND b = ?", rows, monkeypatch)

    compare()


def test_delete_as_one_statement(prepared: InProcess, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(max_examples=30)
    @given(DELETES)
    def compare(rows: list[tuple[Any, ...]]) -> None:
        both(world, prepared, "DELETE FROM t WHERE b = ? AND a = ?", [(b, a) for a, b in rows], monkeypatch)

    compare()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("UPDATE t SET n = n + ? WHERE a = ? AND b = ?", [(1, 2, "a"), (1, 2, "a"), (1, 9, "ü"), (1, 0, "a")]),  # one row twice
        ("UPDATE t SET n = ? WHERE a = ? AND b = ?", [(1, 2, "a"), (9, 9, "ü"), (1, 0, "a"), (1, 11, "a")]),  # breaks the CHECK
        (
            "UPDATE t SET n = ? WHERE a = ? AND b = ?",
            [(1, 2, "a"), (70_000, 9, "ü"), (1, 0, "a"), (1, 11, "a")],
        ),  # does not fit
        ("UPDATE t SET w = ? WHERE a = ? AND b = 'a'", [("x", 2), ("y", 0), ("z", 11), ("q", 99)]),
        ("DELETE FROM t WHERE a = ? AND b = 'a'", [(2,), (0,), (2,), (11,)]),
        # Each row of parameters sees what the one before has done: conditions that are not the key, and keys that move.
        ("UPDATE t SET w = ? WHERE w = ?", [("x", "w"), ("y", "x"), ("z", "y"), ("q", "nothing")]),
        ("UPDATE t SET w = ? WHERE a = ?", [("x", 2), ("y", 9), ("z", 11), ("q", 99)]),
        ("DELETE FROM t WHERE a = ?", [(2,), (9,), (11,), (99,)]),
        ("UPDATE t SET a = ? WHERE a = ? AND b = ?", [(20, 2, "a"), (21, 20, "a"), (22, 21, "a"), (23, 99, "a")]),
        ("UPDATE t SET w = ? WHERE a = ? AND b = ?", [("x", "2", "a"), ("y", "0", "a"), ("z", "11", "a"), ("q", "9", "ü")]),
    ],
)
def test_what_cannot_be_joined_or_is_refused(
    prepared: InProcess, world: World, monkeypatch: pytest.MonkeyPatch, sql: str, rows: list[tuple[Any, ...]]
) -> None:
    both(world, prepared, sql, rows, monkeypatch)


def test_one_commit_for_many_rows(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE big (id BIGINT PRIMARY KEY, day DATE)")
    root.run("INSERT INTO big SELECT range, DATE '2024-01-01' FROM range(20000)")
    world.flush()
    n = 10_000
    handle = root.session.prepare("UPDATE big SET day = ? WHERE id = ?", None).handle
    before = world.kalam.store.appended
    bound = pa.table([pa.array([dt.date(2024, 2, 1)] * n), pa.array(range(0, 2 * n, 2))], names=["0", "1"])
    assert root.session.update_prepared(handle, iter(bound.to_batches())) == n
    assert world.kalam.store.appended <= before + 2
    root.run("BEGIN")
    assert (
        root.session.update_prepared(handle, iter(bound.set_column(0, "0", pa.array([None] * n, pa.date32())).to_batches()))
        == n
    )
    root.run("ROLLBACK")
    seen = root.run("SELECT count(*) AS n FROM big WHERE day = DATE '2024-02-01'").rows
    assert seen is not None and seen.to_pydict() == {"n": [n]}
