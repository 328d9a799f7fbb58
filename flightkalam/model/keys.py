"""Keys as numbers: a 64-bit hash per key, computed a column at a time, and an index over the hashes.

A hash only narrows the search; `same_keys` then compares the keys themselves.  For a single key column of an integer-like
type the "hash" is the value, so equal hashes are equal keys and no comparison is needed (`exact`).

    KeyIndex:   hashes, sorted    3  7  7  9
                rows              2  0  3  1      row numbers of whatever the hashes were computed from
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT = np.uint64(29)
_EDGE = 64  # bytes of a long text that are hashed at either end
_CHUNK = 65_536

_INT_VIEW = {
    pa.int16(): pa.int16(),
    pa.int32(): pa.int32(),
    pa.int64(): pa.int64(),
    pa.date32(): pa.int32(),
    pa.time64("us"): pa.int64(),
    pa.timestamp("us"): pa.int64(),
    pa.timestamp("us", "UTC"): pa.int64(),
}


def combined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def is_exact(columns: Sequence[pa.Array]) -> bool:
    """Whether equal hashes of these key columns are equal keys."""
    return len(columns) == 1 and columns[0].type in _INT_VIEW


def key_hashes(columns: Sequence[pa.Array]) -> U64:
    """One 64-bit hash per row over the key columns (storage arrays of one length, no NULLs), uint64[n]."""
    if is_exact(columns):
        return _integers(columns[0]).astype(np.int64).view(np.uint64)
    hashes = np.full(len(columns[0]), _P2, np.uint64)
    for column in columns:
        for word in _words(column):
            hashes = (hashes ^ word) * _P1
            hashes ^= hashes >> _SHIFT
    return hashes


def _integers(column: pa.Array) -> npt.NDArray[np.signedinteger]:
    return column.view(_INT_VIEW[column.type]).to_numpy(zero_copy_only=False)


def _words(column: pa.Array) -> list[U64]:
    type_ = column.type
    if type_ in _INT_VIEW:
        return [_integers(column).astype(np.int64).view(np.uint64)]
    if pa.types.is_boolean(type_):
        return [column.to_numpy(zero_copy_only=False).astype(np.uint64)]
    if pa.types.is_decimal(type_):
        n = len(column)
        raw = np.frombuffer(column.buffers()[1], np.uint64)[column.offset * 2 : (column.offset + n) * 2]
        return [raw[0::2], raw[1::2]]
    return [_bytes_hash(column)]


def _bytes_hash(column: pa.Array) -> U64:
    n = len(column)
    if n == 0:
        return np.empty(0, np.uint64)
    buffers = column.buffers()
    offsets = np.frombuffer(buffers[1], np.int32)[column.offset : column.offset + n + 1].astype(np.int64)
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    hashes = (lengths.astype(np.uint64) + np.uint64(1)) * _P2
    for at in range(0, n, _CHUNK):
        part = slice(at, min(at + _CHUNK, n))
        hashes[part] = _mix_bytes(hashes[part], data, offsets[:-1][part], lengths[part])
    return hashes


def _mix_bytes(hashes: U64, data: npt.NDArray[np.uint8], starts: I64, lengths: I64) -> U64:
    """Fold each text into its hash, eight bytes at a time: all of it, or _EDGE bytes of either end when it is long.

    A hash depends on its own text alone, never on its neighbours: a key is looked for in other company than it arrived in.
    """
    kept = np.minimum(lengths, _EDGE * 2)
    words = -(-kept // 8)
    shortest, longest = int(words.min()), int(words.max())
    if longest == 0:
        return hashes
    block = _matrix(data, starts, lengths, kept)
    for i in range(longest):
        mixed = (hashes ^ block[:, i]) * _P1
        mixed ^= mixed >> _SHIFT
        hashes = mixed if i < shortest else np.where(words > i, mixed, hashes)
    return hashes


def _matrix(data: npt.NDArray[np.uint8], starts: I64, lengths: I64, kept: I64) -> U64:
    """What is kept of the texts as rows of zero-padded 64-bit words, uint64[n, words]."""
    width = -(-int(kept.max()) // 8) * 8
    n, longest = len(starts), int(lengths.max())
    if int(lengths.min()) == longest <= _EDGE * 2 and n > 1 and (np.diff(starts) == longest).all():
        exact = data[starts[0] : starts[0] + n * longest].reshape(n, longest)
        out = np.zeros((n, width), np.uint8)
        out[:, :longest] = exact
        return out.view(np.uint64)
    columns = np.arange(width)
    index = starts[:, None] + columns[None, :]
    if longest > _EDGE * 2:  # the second half comes from the end
        index[:, _EDGE:] += np.maximum(lengths - _EDGE * 2, 0)[:, None]
    out = np.where(columns[None, :] < kept[:, None], data[np.minimum(index, len(data) - 1)], 0).astype(np.uint8)
    return np.ascontiguousarray(out).view(np.uint64)


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """Sorted hashes and the rows they belong to, uint64[n] and int64[n]."""

    hashes: U64
    rows: I64

    @staticmethod
    def build(hashes: U64, first_row: int = 0) -> KeyIndex:
        if is_ascending(hashes):
            return KeyIndex(hashes, np.arange(first_row, first_row + len(hashes), dtype=np.int64))
        order = np.argsort(hashes)
        return KeyIndex(hashes[order], order.astype(np.int64) + first_row)

    @staticmethod
    def merge(parts: Sequence[KeyIndex]) -> KeyIndex:
        hashes = np.concatenate([p.hashes for p in parts])
        rows = np.concatenate([p.rows for p in parts])
        order = np.argsort(hashes)
        return KeyIndex(hashes[order], rows[order])

    def __len__(self) -> int:
        return len(self.hashes)

    def probe(self, sorted_hashes: U64, order: I64) -> tuple[I64, I64]:
        """Candidate pairs (probe number, row) whose hashes are equal.

        :param sorted_hashes: the probes' hashes, ascending: neighbours in cache make this a merge.
        :param order: the probe number of each sorted hash.
        """
        probes, places = pairs(self.hashes, sorted_hashes, order)
        return probes, self.rows[places]


def is_ascending(hashes: U64) -> bool:
    return len(hashes) < 2 or bool((hashes[1:] >= hashes[:-1]).all())


def pairs(hashes: U64, probes: U64, numbers: I64) -> tuple[I64, I64]:
    """Where equal hashes meet: (number of the probe, place in `hashes`), int64[pairs] each.

    :param hashes: ascending.
    :param probes: ascending too: neighbours in cache make this a merge.
    :param numbers: the number of each probe.
    """
    if len(hashes) and len(probes):
        inside = slice(np.searchsorted(probes, hashes[0], "left"), np.searchsorted(probes, hashes[-1], "right"))
        probes, numbers = probes[inside], numbers[inside]
    left = np.searchsorted(hashes, probes, "left")
    hit = left < len(hashes)
    hit[hit] = hashes[left[hit]] == probes[hit]
    at = np.flatnonzero(hit)
    if not len(at):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = left[at]
    counts = np.searchsorted(hashes, probes[at], "right") - first
    if int(counts.max()) == 1:
        return numbers[at], first
    starts = np.repeat(first - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
    return np.repeat(numbers[at], counts), starts + np.arange(int(counts.sum()))


@dataclass(frozen=True)
class Probe:
    """Keys to look for.

    :param ordered: their hashes, ascending; `order` gives the number of the key of each.
    """

    columns: tuple[pa.Array, ...]
    ordered: U64
    order: I64
    _bits: dict[tuple[int, bool], tuple[I64, npt.NDArray[np.uint8]]] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(columns: Sequence[pa.Array]) -> Probe:
        hashes = key_hashes(columns)
        order = np.argsort(hashes).astype(np.int64)
        return Probe(tuple(columns), hashes[order], order)

    @property
    def meets_itself(self) -> bool:
        """Whether two of the hashes are equal, so that two of the keys may be."""
        return len(self) > 1 and bool((self.ordered[1:] == self.ordered[:-1]).any())

    def index(self, first_row: int) -> KeyIndex:
        """The keys as an index of the rows from `first_row` on."""
        return KeyIndex(self.ordered, self.order + first_row)

    def bits(self, log: int, spread: bool) -> tuple[I64, npt.NDArray[np.uint8]]:
        """Byte and bit of each hash in a filter of 2^log bits: the same for all filters of one size."""
        found = self._bits.get((log, spread))
        if found is None:
            at = _stretch(self.ordered, log, spread)
            found = at >> 3, np.uint8(1) << (at.astype(np.uint8) & np.uint8(7))
            self._bits[log, spread] = found
        return found

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which hashes are certainly not among n: a bit for each of 32 n stretches of the numbers.

    Three absent hashes in a hundred get through it.  A probe costs a third of a search, because probes in order meet the bits
    in order.

    :param spread: the hashes are keys themselves, which lie anywhere: a multiplication spreads them.
    """

    bits: npt.NDArray[np.uint8]
    log: int
    spread: bool

    @staticmethod
    def of(hashes: U64, *, spread: bool) -> KeyFilter:
        log = max(3, (32 * max(1, len(hashes)) - 1).bit_length())
        marked = np.zeros(1 << log, np.bool_)
        marked[_stretch(hashes, log, spread)] = True
        return KeyFilter(np.packbits(marked, bitorder="little"), log, spread)

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes

    def candidates(self, probe: Probe) -> I64:
        """The places in the probe's `ordered` of the hashes that may be there."""
        byte, bit = probe.bits(self.log, self.spread)
        return np.flatnonzero((self.bits[byte] & bit) != 0)  # of truth values: three times as fast as of numbers


def _stretch(hashes: U64, log: int, spread: bool) -> I64:
    return ((hashes * _P1 if spread else hashes) >> np.uint64(64 - log)).astype(np.int64)


def same_keys(left: Sequence[pa.Array], right: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    """Row by row, whether the keys are equal, bool[n]."""
    same: pa.Array | None = None
    for a, b in zip(left, right, strict=True):
        equal = pc.equal(a, b)
        same = equal if same is None else pc.and_(same, equal)
    assert same is not None, "a key has at least one column"
    return same.to_numpy(zero_copy_only=False)


def first_duplicate(hashes: U64, columns: Sequence[pa.Array]) -> tuple[int, int] | None:
    """Two rows that hold one key, or None (T-24)."""
    ordered = np.sort(hashes)
    at = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(at):
        return None
    order = np.argsort(hashes, kind="stable")
    if is_exact(columns):
        return int(order[at[0]]), int(order[at[0] + 1])
    # Equal hashes lie together; compare each with its neighbours to the right until the run ends.
    step = 1
    while len(at):
        left, right = order[at], order[at + step]
        same = same_keys([c.take(pa.array(left)) for c in columns], [c.take(pa.array(right)) for c in columns])
        found = np.flatnonzero(same)
        if len(found):
            return int(left[found[0]]), int(right[found[0]])
        step += 1
        at = at[at + step < len(ordered)]
        at = at[ordered[at + step] == ordered[at]]
    return None


def key_text(columns: Sequence[pa.Array], row: int) -> str:
    """One key for an error message, e.g. `(7, 'a', 2020-02-29)`; long texts are cut."""
    parts = []
    for column in columns:
        text = _value_text(column[row])
        parts.append(text if len(text) <= 60 else text[:57] + "…'")
    return f"({', '.join(parts)})"


def _value_text(scalar: pa.Scalar) -> str:
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):  # Python's own dates end in the year 9999
        return str(scalar.cast(pa.int32() if pa.types.is_date32(scalar.type) else pa.int64()).as_py())
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def matches(needles: Sequence[pa.Array], haystack: Sequence[pa.Array]) -> tuple[I64, I64]:
    """The pairs (needle, row of the haystack) that hold one key, int64[pairs] each."""
    probe = Probe.of(needles)
    probes, rows = KeyIndex.build(key_hashes(haystack)).probe(probe.ordered, probe.order)
    return same_pairs(probe.columns, probes, haystack, rows)


def same_pairs(left: Sequence[pa.Array], probes: I64, right: Sequence[pa.Array], rows: I64) -> tuple[I64, I64]:
    """Of pairs with equal hashes those that hold one key."""
    if not len(rows) or is_exact(left):
        return probes, rows
    same = same_keys([c.take(pa.array(probes)) for c in left], [c.take(pa.array(rows)) for c in right])
    return probes[same], rows[same]
