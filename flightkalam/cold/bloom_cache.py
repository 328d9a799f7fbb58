"""Bloom filters in memory, so that one test covers all batches of a table and opens none of them.

    slabs        large arrays, filled from the front and never changed behind a reader's back; the oldest goes when the budget
                 is spent
    pieces       (file, column) -> the places of its filters in the slabs
    directory    for one column of one manifest: the same places as arrays, one entry per filter, so that a test is a gather

A filter that is missing or damaged excludes nothing: it is logged, counted, and not looked for again until a restart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flightkalam.cold import bloom
from flightkalam.cold.bloom import KEY_FILTER, Bits
from flightkalam.cold.manifest import BatchEntry, FilterRef, Manifest
from flightkalam.errors import KalamError, StorageUnavailable
from flightkalam.model.predicate import Comparable
from flightkalam.telemetry import Counters, logger

log = logger("bloom")

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# (folder, batch) -> the batch's key filter made anew from its rows and written again
Remake = Callable[[Path, BatchEntry, FilterRef], bytes]
_UNKNOWN, _THERE, _NONE = 0, 1, 2
_DIRECTORIES = 256
_SLABS = 8


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where one filter lies: slab, first word, and its size as in `Bits`."""

    slab: int
    start: int
    size: int
    slices: int


@dataclass
class _Directory:
    """The filters of one column over the batches of one manifest.

    :param state: per batch: not looked for yet, there, or none to be had.
    :param physical: per batch, the place in `kinds` of the column's type in the file.
    :param first, count: per batch, its filters among `slab`, `start`, `size`, `slices`.
    :param full: the budget has no room for the filters that are still unknown.
    """

    generation: int
    state: npt.NDArray[np.int8]
    physical: npt.NDArray[np.int8]
    first: I64
    count: I64
    kinds: list[str] = field(default_factory=list)
    slab: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    start: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    size: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    slices: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    full: bool = False

    @staticmethod
    def of(n: int, generation: int) -> _Directory:
        zeros = np.zeros(n, np.int8)
        return _Directory(generation, zeros, zeros.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64))

    def add(self, found: Sequence[tuple[int, str, Sequence[_Piece]]]) -> None:
        """Note the filters of batches: place in the manifest, physical type, pieces; none where there are none."""
        pieces: list[_Piece] = []
        at = len(self.slab)
        for batch, physical, mine in found:
            self.first[batch], self.count[batch] = at + len(pieces), len(mine)
            if mine:
                if physical not in self.kinds:
                    self.kinds.append(physical)
                self.physical[batch] = self.kinds.index(physical)
            pieces += mine
        self.slab = np.concatenate([self.slab, np.array([p.slab for p in pieces], np.int64)])
        self.start = np.concatenate([self.start, np.array([p.start for p in pieces], np.int64)])
        self.size = np.concatenate([self.size, np.array([p.size for p in pieces], np.uint64)])
        self.slices = np.concatenate([self.slices, np.array([p.slices for p in pieces], np.int64)])
        for batch, _, mine in found:  # last: a reader without the lock must find what a state promises
            self.state[batch] = _THERE if mine else _NONE


class Blooms:
    """Tests values against the filters of many batches.

    :param budget_bytes: filters kept in memory; 0 tests nothing.
    :param remake: rebuilds a lost key filter.
    """

    def __init__(self, budget_bytes: int, counters: Counters, remake: Remake | None = None) -> None:
        self._budget = budget_bytes
        self._counters = counters
        self._remake = remake
        self._lock = threading.Lock()
        self._slabs: OrderedDict[int, npt.NDArray[np.uint32]] = OrderedDict()
        self._inside: dict[int, list[tuple[str, int]]] = {}
        self._used = 0  # words of the newest slab
        self._next = 0
        self._pieces: dict[tuple[str, int], tuple[_Piece, ...]] = {}
        self._bad: set[tuple[str, str]] = set()
        self._directories: OrderedDict[tuple[object, ...], _Directory] = OrderedDict()
        self._generation = 0

    @property
    def nbytes(self) -> int:
        """What is reserved; pages that were never written cost nothing."""
        with self._lock:
            return sum(s.nbytes for s in self._slabs.values())

    def may_hold(
        self, folder: Path, manifest: Manifest, at: I64, column: int, values: Sequence[Comparable], since: int = 0
    ) -> Mask:
        """Which of some batches may hold one of some values in a column, bool[len(at)].

        :param at: places of batches in the manifest.
        :param column: column id, or `KEY_FILTER` with key hashes as values.
        :param since: files of older schema versions hold values of another meaning: they are not tested.
        """
        if not self._budget or not len(at) or not values:
            return np.ones(len(at), bool)
        with self._lock:
            directory = self._directory(manifest, column)
            missing = at[:0] if directory.full else at[directory.state[at] == _UNKNOWN]
        if len(missing):
            self._load(folder, manifest, column, missing, since)
        with self._lock:
            slabs = dict(self._slabs)
            directory = self._directory(manifest, column)  # another one when a slab went meanwhile
            state = directory.state[at]
        out = np.ones(len(at), bool)
        tested = np.flatnonzero(state == _THERE)
        if len(tested):
            self._counters.add("bloom_filters_tested", len(tested))
            out[tested] = _any_value(directory, slabs, at[tested], values)
        return out

    def _directory(self, manifest: Manifest, column: int) -> _Directory:
        """Call with the lock held."""
        last = manifest.batches[-1].uuid if manifest.batches else ""
        key = (manifest.scope, manifest.version, len(manifest.batches), last, column)
        found = self._directories.get(key)
        if found is None or found.generation != self._generation:
            found = self._directories[key] = _Directory.of(len(manifest.batches), self._generation)
        self._directories.move_to_end(key)
        while len(self._directories) > _DIRECTORIES:
            self._directories.popitem(last=False)
        return found

    def _load(self, folder: Path, manifest: Manifest, column: int, missing: I64, since: int) -> None:
        """Bring the filters of batches into memory; what has no room there is not tested."""
        found: list[tuple[int, str, Sequence[_Piece]]] = []
        fresh: list[tuple[int, str, BatchEntry, dict[int, list[Bits]]]] = []
        room = self._budget
        for i in missing.tolist():
            entry = manifest.batches[i]
            ref = next((r for r in entry.filters if any(c == column for c, _ in r.columns)), None)
            if ref is None or entry.schema_version < since or (entry.uuid, ref.file) in self._bad:
                found.append((i, "", ()))
                continue
            physical = next(p for c, p in ref.columns if c == column)
            known = self._pieces.get((entry.uuid, column))
            if known is not None:
                found.append((i, physical, known))
            elif room > 0:
                filters = self._read(folder, entry, ref)
                room -= sum(b.words.nbytes for bits in filters.values() for b in bits)
                fresh.append((i, physical, entry, filters))
        with self._lock:
            needed = {p.slab for _, _, pieces in found for p in pieces}
            full = room <= 0
            for i, physical, entry, filters in fresh:
                for owner, bits in filters.items():
                    if (entry.uuid, owner) not in self._pieces:
                        full |= not self._keep(entry.uuid, owner, bits, needed)
                if not filters or (entry.uuid, column) in self._pieces:
                    found.append((i, physical, self._pieces.get((entry.uuid, column), ())))
            directory = self._directory(manifest, column)
            directory.add([(i, t, p) for i, t, p in found if directory.state[i] == _UNKNOWN and self._inside_still(p)])
            directory.full = full

    def _inside_still(self, pieces: Sequence[_Piece]) -> bool:
        return all(p.slab in self._slabs for p in pieces)

    def _read(self, folder: Path, entry: BatchEntry, ref: FilterRef) -> dict[int, list[Bits]]:
        try:
            self._counters.add("bloom_filters_read")
            return bloom.read_filters(folder, ref)
        except StorageUnavailable as e:  # not damaged: the batch itself may be here
            log.warning("bloom filter not reached", file=ref.file, reason=e.message)
            return {}
        except (ValueError, IndexError, KalamError) as e:
            self._counters.add("bloom_filters_damaged")
            log.warning("bloom filter lost", file=ref.file, reason=str(e))
        if ref.columns[0][0] == KEY_FILTER and self._remake is not None:
            try:
                made = bloom.parse_key_filter(self._remake(folder, entry, ref))
                self._counters.add("bloom_filters_rebuilt")
                return made
            except (ValueError, KalamError) as e:
                log.warning("bloom filter not rebuilt", file=ref.file, reason=str(e))
        self._bad.add((entry.uuid, ref.file))
        return {}

    def _keep(self, uuid: str, column: int, bits: Sequence[Bits], needed: set[int]) -> bool:
        """Copy filters into the newest slab, and say whether there was room.  Call with the lock held.

        :param needed: slabs that must stay; grows by what is used.
        """
        need = sum(len(b.words) for b in bits)
        newest = next(reversed(self._slabs.values()), None)
        if newest is None or self._used + need > len(newest):
            newest = self._open_slab(max(need, self._budget // 4 // _SLABS), needed)
            if newest is None:
                return False
        number = next(reversed(self._slabs))
        needed.add(number)
        pieces = []
        for b in bits:
            newest[self._used : self._used + len(b.words)] = b.words
            pieces.append(_Piece(number, self._used, b.size, b.slices))
            self._used += len(b.words)
        self._pieces[uuid, column] = tuple(pieces)
        self._inside[number].append((uuid, column))
        return True

    def _open_slab(self, words: int, needed: set[int]) -> npt.NDArray[np.uint32] | None:
        while sum(s.nbytes for s in self._slabs.values()) + words * 4 > self._budget:
            oldest = next((n for n in self._slabs if n not in needed), None)
            if oldest is None:
                return None
            del self._slabs[oldest]
            for key in self._inside.pop(oldest):
                self._pieces.pop(key, None)
            self._generation += 1
        self._slabs[self._next] = slab = np.empty(words, np.uint32)
        self._inside[self._next] = []
        self._used = 0
        self._next += 1
        return slab


def _any_value(directory: _Directory, slabs: dict[int, npt.NDArray[np.uint32]], at: I64, values: Sequence[Comparable]) -> Mask:
    """Which batches, all of them with filters, pass for one of the values."""
    out = np.zeros(len(at), bool)
    for kind, physical in enumerate(directory.kinds):
        mine = np.flatnonzero(directory.physical[at] == kind)
        for value in values:
            mine = mine[~out[mine]]
            if not len(mine):
                break
            hash_ = value if physical.startswith(bloom.KEY) else bloom.value_hash(value, physical)
            if hash_ is None:
                out[mine] = True  # not a value that this file could tell apart (T-30)
            else:
                out[mine] = _any_group(directory, slabs, at[mine], int(hash_))
    return out


def _any_group(directory: _Directory, slabs: dict[int, npt.NDArray[np.uint32]], at: I64, hash_: int) -> Mask:
    counts = directory.count[at]
    if (counts == 1).all():
        return _test(directory, slabs, directory.first[at], hash_)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    rows = np.arange(offsets[-1]) + np.repeat(directory.first[at] - offsets[:-1], counts)
    return np.logical_or.reduceat(_test(directory, slabs, rows, hash_), offsets[:-1])


def _test(directory: _Directory, slabs: dict[int, npt.NDArray[np.uint32]], rows: I64, hash_: int) -> Mask:
    out = np.ones(len(rows), bool)
    slab = directory.slab[rows]
    for number in np.unique(slab).tolist():
        words = slabs.get(number)
        if words is None:
            continue  # went meanwhile: nothing is known
        here = slab == number
        mine = rows[here]
        starts, sizes, slices = directory.start[mine], directory.size[mine], directory.slices[mine]
        if slices.any():
            out[here] = bloom.test_slices(words, starts, sizes, slices, hash_)
        else:
            out[here] = bloom.test_blocks(words, starts, sizes, hash_)
    return out
