"""The log's entries: what one commit did to one scope, as bytes.

    magic "KE" · format u8 · flags u8 · schema version u32 · first _seq u64 · rows u64
    · payload length u32 · hot marks u32 · cold marks u32 · xxh64 of all that follows and precedes u64
    · payload · hot marks · cold marks

The payload is one Arrow record batch without its schema (columns named by field id, and `_deleted` when a row is a
tombstone), or, for a large write, the name of the segment file that holds the rows.  A mark says which older version a row
of this commit supersedes: by `_seq` when it is hot, by batch and row number when it is cold; always with the superseder's
row number in this commit, so that a reader at any point of time can tell whether the mark holds for it yet.

What is left of an entry from which rows were removed (only STREAM tables do that) is an entry too: a column `_row` says which
row of the `_seq`s from the first on each of its rows is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
import zstandard

from flightkalam.errors import DataCorrupted
from flightkalam.model.schema import DELETED

I64 = npt.NDArray[np.int64]
FORMAT = 1
_HEADER = struct.Struct("<2sBBIQQIIIQ")
_FLAG_SEGMENT = 1  # the payload names a segment file
_FLAG_TOMBSTONES = 2  # the batch has a `_deleted` column
_FLAG_ZSTD = 4  # the marks are compressed
_FLAG_GAPS = 8  # the batch has a last column `_row`
_ROW = pa.field("_row", pa.uint32(), nullable=False)
_COMPRESS_ABOVE = 4096

HOT_MARK = np.dtype([("target", "<i8"), ("by", "<u4")])
COLD_MARK = np.dtype([("batch", "<u4"), ("row", "<u4"), ("by", "<u4")])


def no_hot_marks() -> npt.NDArray[np.void]:
    return np.empty(0, HOT_MARK)


def no_cold_marks() -> npt.NDArray[np.void]:
    return np.empty(0, COLD_MARK)


@dataclass(frozen=True)
class Entry:
    """One commit in one scope.

    :param first_seq: `_seq` of row 0; row i has the i-th id after it.
    :param rows: number of rows.
    :param batch: the rows in storage types, columns named by field id; None when they lie in `segment`.
    :param segment: name of the segment file.
    :param hot_marks: HOT_MARK[n], `target` being the `_seq` of a superseded hot version.
    :param cold_marks: COLD_MARK[n].
    :param places: int64[rows], ascending from 0: row i has the `_seq` that comes `places[i]` after `first_seq`; None when row i
        has the i-th.
    :param body: what `body_of` made of the rows, where that was done ahead.
    """

    schema_version: int
    first_seq: int
    rows: int
    batch: pa.RecordBatch | None = None
    segment: str | None = None
    hot_marks: npt.NDArray[np.void] = field(default_factory=no_hot_marks)
    cold_marks: npt.NDArray[np.void] = field(default_factory=no_cold_marks)
    places: I64 | None = None
    body: bytes | None = field(default=None, compare=False, repr=False)


def body_of(entry: Entry) -> bytes:
    """The payload of an entry: its rows, or the name of the file that holds them."""
    if entry.segment is not None:
        return entry.segment.encode()
    assert entry.batch is not None and entry.batch.num_rows == entry.rows
    batch = entry.batch
    if entry.places is not None:
        batch = batch.append_column(_ROW, pa.array(entry.places.astype(np.uint32)))
    return batch.serialize().to_pybytes()


def encode(entry: Entry) -> bytes:
    flags = 0
    if entry.segment is not None:
        flags |= _FLAG_SEGMENT
    else:
        assert entry.batch is not None
        if entry.places is not None:
            flags |= _FLAG_GAPS
        if DELETED in entry.batch.schema.names:
            flags |= _FLAG_TOMBSTONES
    payload = entry.body if entry.body is not None else body_of(entry)
    marks = entry.hot_marks.tobytes() + entry.cold_marks.tobytes()
    if len(marks) > _COMPRESS_ABOVE:
        flags |= _FLAG_ZSTD
        marks = zstandard.compress(marks, 1)
    fields = (b"KE", FORMAT, flags, entry.schema_version, entry.first_seq, entry.rows, len(payload))
    counts = (len(entry.hot_marks), len(entry.cold_marks))
    head = _HEADER.pack(*fields, *counts, 0)[:-8]
    digest = xxhash.xxh64(head)
    digest.update(payload)
    digest.update(marks)
    return b"".join((head, struct.pack("<Q", digest.intdigest()), payload, marks))


def decode(data: bytes, schema: pa.Schema) -> Entry:
    """The entry that `encode` wrote.

    :param schema: the batch schema of the entry's schema version (`schema_version_of`), without `_deleted`.
    :raises DataCorrupted: bytes that do not match their checksum.
    """
    magic, version, flags, schema_version, first_seq, rows, size, hot, cold, checksum = _header(data)
    start = _HEADER.size
    digest = xxhash.xxh64(data[: start - 8])
    digest.update(data[start:])
    if digest.intdigest() != checksum or magic != b"KE" or version != FORMAT:
        raise DataCorrupted("an entry of the hot log does not match its checksum; restore from a backup")
    payload = pa.py_buffer(data).slice(start, size)
    marks = data[start + size :]
    if flags & _FLAG_ZSTD:
        marks = zstandard.decompress(marks)
    hot_marks = np.frombuffer(marks, HOT_MARK, hot)
    cold_marks = np.frombuffer(marks, COLD_MARK, cold, offset=hot * HOT_MARK.itemsize)
    if flags & _FLAG_SEGMENT:
        name = payload.to_pybytes().decode()
        return Entry(schema_version, first_seq, rows, None, name, hot_marks, cold_marks)
    if flags & _FLAG_TOMBSTONES:
        schema = schema.append(pa.field(DELETED, pa.bool_(), nullable=False))
    if not flags & _FLAG_GAPS:
        batch = pa.ipc.read_record_batch(payload, schema)
        return Entry(schema_version, first_seq, rows, batch, None, hot_marks, cold_marks)
    batch = pa.ipc.read_record_batch(payload, schema.append(_ROW))
    places = batch.column(_ROW.name).to_numpy().astype(np.int64)
    batch = batch.select(schema.names)
    return Entry(schema_version, first_seq, rows, batch, None, hot_marks, cold_marks, places)


def schema_version_of(data: bytes) -> int:
    return _header(data)[3]


def rows_of(data: bytes) -> int:
    return int(_header(data)[5])


def _header(data: bytes) -> tuple:
    if len(data) < _HEADER.size:
        raise DataCorrupted("an entry of the hot log is cut short; restore from a backup")
    return _HEADER.unpack_from(data)
