"""Merging in key order: every row once, the rows of a key together, whatever the keys and however little is read at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from table_world import scratch_folder, table_of

from flightkalam.cold.batch_file import BatchReader, BatchStyle, sort_by_key, write_batch
from flightkalam.jobs.merge import Merge, Source
from flightkalam.model.ids import Scope
from flightkalam.model.schema import DELETED, SEQ, Column, Table, TableKind
from flightkalam.model.types import BIGINT, TEXT

_COLUMNS = (Column(1, "a", TEXT, True), Column(2, "b", BIGINT, True), Column(3, "source", TEXT))
TABLE = table_of(1, "t", TableKind.SHARED, _COLUMNS, (1, 2))
KEYS = st.tuples(st.sampled_from(["", "a", "a\x00", "ab", "b", "é", "z" * 40]), st.integers(-3, 3))


def write(folder: Path, table: Table, number: int, keys: list[tuple[str, int]], first_seq: int, rows_per_group: int) -> Source:
    rows = {
        "a": [a for a, _ in keys],
        "b": [b for _, b in keys],
        "source": ["z" if i % 2 else "source" for i in range(len(keys))],  # a user's column may have any name
        SEQ: list(range(first_seq, first_seq + len(keys))),
        DELETED: [False] * len(keys),
    }
    arrays = pa.table(rows).cast(table.schema.file)
    ordered, _ = sort_by_key(arrays, table.schema)
    style = BatchStyle(rows_per_group, "none")
    entry = write_batch(folder, number, ordered, table.schema, Scope(table.id), style=style, flushed_seq=10**6)
    return Source(entry, BitMap(range(0, len(keys), 3)))


@given(
    batches=st.lists(st.lists(KEYS, max_size=25, unique=True), min_size=1, max_size=5),
    rows_per_group=st.integers(1, 5),
    chunk_rows=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chunks_are_the_sorted_rows(batches: list[list[tuple[str, int]]], rows_per_group: int, chunk_rows: int) -> None:
    with scratch_folder() as folder:
        sources = [write(folder, TABLE, i, keys, 1 + 100 * i, rows_per_group) for i, keys in enumerate(batches)]
        merged: list[tuple[tuple[bytes, int], int]] = []
        places: list[tuple[int, int]] = []
        for chunk in Merge(BatchReader(), folder, TABLE.schema, sources, chunk_rows).chunks():
            assert chunk.rows.schema.names == ["a", "b", "source", SEQ, DELETED]
            keys = list(zip(chunk.rows["a"].to_pylist(), chunk.rows["b"].to_pylist(), strict=True))
            if merged:
                assert _order(keys[0]) > merged[-1][0], "the rows of one key lie in two chunks"
            merged += [(_order(k), s) for k, s in zip(keys, chunk.rows[SEQ].to_pylist(), strict=True)]
            places += zip(chunk.source.tolist(), chunk.row.tolist(), strict=True)
            assert chunk.newer.tolist() == [k == n for k, n in zip(keys, [*keys[1:], None], strict=True)]
            assert chunk.dead.tolist() == [r in sources[s].dead for s, r in zip(chunk.source, chunk.row, strict=True)]
        every = [(_order(k), s) for i, keys in enumerate(batches) for s, k in enumerate(keys, 1 + 100 * i)]
        assert merged == sorted(every)
        assert sorted(places) == [(i, r) for i, keys in enumerate(batches) for r in range(len(keys))]


def _order(key: tuple[Any, int]) -> tuple[bytes, int]:
    return key[0].encode(), key[1]


def test_little_is_loaded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that do not overlap are read one after another, row group by row group."""
    with scratch_folder() as folder:
        keys = [[("k", 1_000 * i + j) for j in range(200)] for i in range(5)]
        sources = [write(folder, TABLE, i, k, 1 + 1_000 * i, 10) for i, k in enumerate(keys)]
        largest = max(c.rows.num_rows for c in Merge(BatchReader(), folder, TABLE.schema, sources, 20).chunks())
        assert largest <= 30
