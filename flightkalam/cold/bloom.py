"""Bloom filters: which batches can hold a value, told without opening them.

    column filter   Parquet's own, one per row group: 256-bit blocks, XXH64 of the plain encoded value; other readers use it
    key filter      for keys of several columns: one per batch over the whole key, in a file of its own beside the batch

A column filter is a property of the file's *physical* type, so a value is encoded as the file has it, or not tested (T-30).

    Parquet:   header (thrift) | bitset of 32 · 2^k bytes           the file keeps, one behind the other,
               row group 0, column a │ row group 0, column b │ row group 1, column a │ …
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
import zstandard
from pybloom_live import BloomFilter

from flightkalam.cold import paths
from flightkalam.cold.manifest import FilterRef
from flightkalam.model.keys import U64, combined, key_hashes
from flightkalam.model.predicate import Comparable
from flightkalam.model.schema import FIELD_ID, TableSchema
from flightkalam.storage import objects

KEY_FILTER = 0  # stands for the whole key where a column id is expected; columns count from 1
KEY = "key"
_SALT = np.array([0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint32)
_WORDS = np.arange(8)
_TAIL = bytes.fromhex("1c1c00001c1c00001c1c000000")  # block algorithm, XXH64, uncompressed
_MIX = np.uint64(0xC2B2AE3D27D4EB4F)
_STEP = np.uint64(0x9E3779B185EBCA87)
_LOWEST_RATE = 1e-6


@dataclass(frozen=True, slots=True)
class FilterStyle:
    """Which filters a batch gets.

    :param columns: names of the columns with a filter.
    :param key: a filter over the whole key.
    :param rate: share of the batches that pass although they do not hold a value.
    :param single: the key column, where it is one; its filter has the rate `strict`.
    """

    columns: tuple[str, ...] = ()
    key: bool = False
    rate: float = 0.01
    single: str | None = None
    strict: float | None = None

    def rate_of(self, column: str) -> float:
        return self.strict if self.strict is not None and column == self.single else self.rate


@dataclass(frozen=True, slots=True)
class Bits:
    """One filter as bytes.

    :param size: blocks of a column filter, bits per slice of a key filter.
    :param slices: of a key filter.
    """

    words: npt.NDArray[np.uint32]
    size: int
    slices: int = 0


# ---------------------------------------------------------------------------------------------------------------
# Which and how large


def parquet_options(table: pa.Table, schema: TableSchema, style: FilterStyle, group_rows: int) -> dict[str, Any]:
    """What the Parquet writer is told.

    A batch passes when one of its row groups does, so each of them gets its part of the rate.
    """
    groups = max(1, -(-table.num_rows // group_rows))
    out = {}
    for name in style.columns:
        column = schema.find(name)
        unique = column is not None and schema.key == (column.id,)
        values = useful_values(combined(table.column(name)), unique=unique)
        if values:
            rate = max(_LOWEST_RATE, style.rate_of(name) / groups)
            out[name] = {"ndv": min(values, group_rows, table.num_rows), "fpp": rate}
    return out


def useful_values(column: pa.Array, *, unique: bool = False) -> int:
    """How many values a filter would hold; 0 where the bounds say as much: one value, or every number between the two ends.

    :param unique: no two rows are known to share a value, which spares counting.
    """
    values = len(column) - column.null_count if unique else int(pc.count_distinct(column).as_py())
    if values <= 1:
        return 0
    if pa.types.is_integer(column.type):
        ends = pc.min_max(column).as_py()
        if ends["max"] - ends["min"] + 1 == values:
            return 0
    return values


# ---------------------------------------------------------------------------------------------------------------
# Parquet's filters


def column_filters(path: Path, metadata: pq.FileMetaData) -> FilterRef | None:
    """Where a file's filters lie; None where it has none, or not all in one piece."""
    ids = {f.name: int(f.metadata[FIELD_ID]) for f in metadata.schema.to_arrow_schema() if f.metadata}
    pieces: list[tuple[int, int]] = []
    columns: list[tuple[int, str]] = []
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            if chunk.bloom_filter_offset is None or chunk.bloom_filter_length is None:
                continue
            pieces.append((chunk.bloom_filter_offset, chunk.bloom_filter_length))
            if group == 0:
                columns.append((ids.get(chunk.path_in_schema, -1), _physical(metadata.schema.column(place))))
    regular = len(pieces) == len(columns) * metadata.num_row_groups
    if not pieces or not regular or any(a + n != b for (a, n), (b, _) in itertools.pairwise(pieces)):
        return None
    start, length = pieces[0][0], pieces[-1][0] + pieces[-1][1] - pieces[0][0]
    region = objects.read_part(path, start, length)
    return FilterRef(path.name, start, length, _checksum(region), tuple(columns))


def _physical(column: pq.ColumnSchema) -> str:
    """int32 and int64 as i4 and i8, bytes as b, a decimal of n bytes as d<n>; anything else is not tested."""
    known = {"INT32": "i4", "INT64": "i8", "BYTE_ARRAY": "b"}
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return f"d{column.length}"
    return known.get(column.physical_type, "?")


def parse_region(region: bytes, columns: Sequence[tuple[int, str]]) -> dict[int, list[Bits]]:
    """The bitsets of each column, a row group each.

    :raises ValueError: bytes that are no filters.
    """
    out: dict[int, list[Bits]] = {column: [] for column, _ in columns}
    at = turn = 0
    while at < len(region):
        at, size = _header(region, at)
        if size % 32 or at + size > len(region):
            raise ValueError("a filter is cut short")
        out[columns[turn % len(columns)][0]].append(Bits(np.frombuffer(region, np.uint32, size // 4, at), size // 32))
        at += size
        turn += 1
    return out


def _header(region: bytes, at: int) -> tuple[int, int]:
    """(where the bitset begins, its bytes)"""
    if region[at] != 0x15:
        raise ValueError("no filter begins here")
    at += 1
    number = shift = 0
    while True:
        number |= (region[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not region[at - 1] & 0x80:
            break
    if region[at : at + len(_TAIL)] != _TAIL:
        raise ValueError("a filter of an unknown kind")
    return at + len(_TAIL), number >> 1


def encoded(value: Comparable, physical: str) -> bytes | None:
    """A value's plain encoding in a file; None where the file's type cannot have it, or has it in two forms."""
    if isinstance(value, bytes):
        return value if physical == "b" else None
    if not isinstance(value, int):
        return None
    if physical[0] == "d":
        width, order = int(physical[1:]), "big"
    elif physical in ("i4", "i8"):
        width, order = int(physical[1:]), "little"
    else:
        return None
    limit = 1 << (8 * width - 1)
    if not -limit <= value < limit:
        return None
    return value.to_bytes(width, "big" if order == "big" else "little", signed=True)


def value_hash(value: Comparable, physical: str) -> int | None:
    plain = encoded(value, physical)
    return None if plain is None else xxhash.xxh64_intdigest(plain)


def test_blocks(words: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], blocks: U64, hash_: int) -> npt.NDArray[np.bool_]:
    """Which of n column filters, each at a place in `words`, may hold the value of a hash."""
    high, low = np.uint64(hash_ >> 32), np.uint32(hash_ & 0xFFFFFFFF)
    with np.errstate(over="ignore"):
        mask = np.uint32(1) << ((low * _SALT) >> np.uint32(27))
    block = ((high * blocks) >> np.uint64(32)).astype(np.int64)
    found = words[(starts + block * 8)[:, None] + _WORDS]
    return ((found & mask) == mask).all(axis=1)


# ---------------------------------------------------------------------------------------------------------------
# Key filters


def key_filter(table: pa.Table, schema: TableSchema, rate: float) -> bytes:
    """The filter over the whole keys of a batch, as its file has it before compression."""
    hashes = np.unique(key_hashes([combined(table.column(c.name)) for c in schema.key_columns]))
    made = BloomFilter(capacity=max(1, len(hashes)), error_rate=rate)
    bits = np.zeros(-(-made.num_bits // 64) * 64, np.uint8)
    for i in range(made.num_slices):
        bits[i * made.bits_per_slice + _place(hashes, i, made.bits_per_slice)] = 1
    made.bitarray.clear()
    made.bitarray.frombytes(np.packbits(bits, bitorder="little").tobytes())
    del made.bitarray[made.num_bits :]
    made.count = len(hashes)
    sink = io.BytesIO()
    made.tofile(sink)
    return sink.getvalue()


def _place(hashes: U64, slice_: int, size: int | U64) -> npt.NDArray[np.int64]:
    """A key's bit in a slice.  Each slice mixes anew: in a small filter two numbers per key would share too many bits."""
    with np.errstate(over="ignore"):
        mixed = (hashes + np.uint64(slice_ + 1) * _STEP) * _MIX
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _STEP
    return ((mixed ^ (mixed >> np.uint64(32))) % np.asarray(size, np.uint64)).astype(np.int64)


def write_key_filter(path: Path, number: int, table: pa.Table, schema: TableSchema, rate: float) -> FilterRef:
    """Write the key filter of a batch into a file of its own."""
    plain = key_filter(table, schema, rate)
    data = zstandard.ZstdCompressor(level=1).compress(plain)
    name = paths.filter_name(number)
    objects.write(path / name, data)
    # The checksum is of what the filter says, so that a rebuilt one is known to be the same.
    return FilterRef(name, 0, len(data), _checksum(plain), ((KEY_FILTER, f"{KEY}{rate!r}"),))


def kept_key_filter(folder: Path, number: int, table: pa.Table, schema: TableSchema, rate: float) -> FilterRef | None:
    """The key filter that lies beside a batch; None unless it is the one that the batch's keys make."""
    name = paths.filter_name(number)
    data = objects.read(folder / name)
    plain = key_filter(table, schema, rate)
    try:
        if data is None or unpacked_key_filter(data) != plain:
            return None
    except (ValueError, zstandard.ZstdError):
        return None
    return FilterRef(name, 0, len(data), _checksum(plain), ((KEY_FILTER, f"{KEY}{rate!r}"),))


def rewrite_key_filter(folder: Path, ref: FilterRef, table: pa.Table, schema: TableSchema) -> bytes:
    """Write a lost key filter again, from the batch's keys.  In an object store, where nothing is overwritten, it is only made:
    the next compaction of the batch writes another.

    :raises ValueError: the result is not what the manifest names.
    """
    plain = key_filter(table, schema, rate_of(ref))
    if _checksum(plain) != ref.xxh64:
        raise ValueError("the filter made anew is another one")
    if not objects.is_remote(folder):
        objects.write(folder / ref.file, zstandard.ZstdCompressor(level=1).compress(plain))
    return plain


def rate_of(ref: FilterRef) -> float:
    """The rate a key filter was made with."""
    return float(ref.columns[0][1].removeprefix(KEY))


def unpacked_key_filter(data: bytes) -> bytes:
    """:raises ValueError: bytes that are no key filter."""
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as e:
        raise ValueError(str(e)) from e


def parse_key_filter(plain: bytes) -> dict[int, list[Bits]]:
    made = BloomFilter.fromfile(io.BytesIO(plain))
    raw = made.bitarray.tobytes()
    padded = raw + b"\0" * (-len(raw) % 4)
    return {KEY_FILTER: [Bits(np.frombuffer(padded, np.uint32), made.bits_per_slice, made.num_slices)]}


def test_slices(
    words: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], sizes: U64, slices: npt.NDArray[np.int64], hash_: int
) -> npt.NDArray[np.bool_]:
    """Which of n key filters, each at a place in `words`, may hold the key of a hash."""
    octets = words.view(np.uint8)
    hashes = np.array([hash_], np.uint64)
    out = np.ones(len(starts), bool)
    for i in range(int(slices.max(initial=0))):
        bit = i * sizes.astype(np.int64) + _place(hashes, i, sizes)
        # Filters with fewer slices than the longest have been decided: their bit stays inside by reading the first one.
        bit = np.where(i < slices, bit, 0)
        there = (octets[starts * 4 + (bit >> 3)] >> (bit & 7).astype(np.uint8)) & 1
        out &= (there == 1) | (i >= slices)
    return out


# ---------------------------------------------------------------------------------------------------------------
# Reading


def read_filters(folder: Path, ref: FilterRef) -> dict[int, list[Bits]]:
    """The filters that a manifest names.

    :raises ValueError: they are missing or are not the ones that were written.
    """
    data = objects.read_part(folder / ref.file, ref.offset, ref.length)
    of_key = ref.columns[0][0] == KEY_FILTER
    plain = unpacked_key_filter(data) if of_key else data
    if _checksum(plain) != ref.xxh64:
        raise ValueError("the checksum differs")
    return parse_key_filter(plain) if of_key else parse_region(plain, ref.columns)


def _checksum(data: bytes) -> str:
    return f"{xxhash.xxh64_intdigest(data):016x}"
