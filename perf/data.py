"""Rows for the measurements: vectorised, from a fixed seed, so that every run has the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

SEED = 20_240_101
# One message must stay below the 16 MiB that the ADBC client sends at most.
BATCH_ROWS = 65_536

SCHEMA = pa.schema(
    [
        ("k", pa.int64()),
        ("amount", pa.float64()),
        ("price", pa.float64()),
        ("label", pa.utf8()),
        ("number", pa.int64()),
        ("bucket", pa.int32()),
        ("noted", pa.timestamp("us")),
        ("day", pa.date32()),
    ]
)
COLUMNS_SQL = (
    "k BIGINT PRIMARY KEY, amount DOUBLE PRECISION, price DOUBLE PRECISION, label TEXT, "
    "number BIGINT, bucket INTEGER, noted TIMESTAMP, day DATE"
)
_LABELS = 1_000
_BUCKETS = 100
_START_US = 1_700_000_000_000_000


def table(rows: int, first: int = 0) -> pa.Table:
    """`rows` rows with the keys first, first + 1, …"""
    return pa.Table.from_batches(list(batches(rows, first)), SCHEMA)


def reader(rows: int, first: int = 0) -> pa.RecordBatchReader:
    """The same as a stream, made while it is read: memory holds one batch."""
    return pa.RecordBatchReader.from_batches(SCHEMA, batches(rows, first))


def batches(rows: int, first: int = 0) -> Iterator[pa.RecordBatch]:
    for at in range(first, first + rows, BATCH_ROWS):
        yield _batch(at, min(BATCH_ROWS, first + rows - at))


def permuted(rows: int) -> np.ndarray:
    """The keys 0 … rows-1 in random order."""
    return np.random.default_rng(SEED).permutation(rows)


def with_keys(keys: np.ndarray) -> pa.Table:
    """Rows with the given keys."""
    made = table(len(keys))
    return made.set_column(0, SCHEMA.field("k"), pa.array(keys, pa.int64()))


def _batch(first: int, n: int) -> pa.RecordBatch:
    rng = np.random.default_rng((SEED, first))
    labels = pa.array([f"label {i:04d}" for i in range(_LABELS)])
    columns = [
        pa.array(np.arange(first, first + n)),
        pa.array(rng.random(n)),
        pa.array(rng.random(n) * 1_000),
        labels.take(pa.array(rng.integers(0, _LABELS, n))),
        pa.array(rng.integers(0, 1_000_000_000, n)),
        pa.array(rng.integers(0, _BUCKETS, n).astype(np.int32)),
        pa.array(_START_US + np.arange(first, first + n) * 1_000_000, pa.timestamp("us")),
        pa.array(rng.integers(18_000, 20_000, n).astype(np.int32)).cast(pa.date32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
