"""How the engine skips dead rows: by position, two ways.

    few dead rows     position NOT IN (an Arrow input)                     a hash probe a row, dearer the more are dead
    more              get_bit(a constant, position) = 0                    the same at any density

    position          file_index × stride + file_row_number               both are virtual columns of the reader; the first
                                                                           counts the files of its list

The bits are a constant of the statement (`compute.Bits`), not a relation of one row: the engine knows nothing of the size
of a list of files and would take the files for the smaller side of the join, and hold all of them in memory (measured: 3.1 ×
the raw scan, against 1.6 ×).  But it copies a constant a few times for each statement and each file, so a scan of much
takes several constants.  Figures: docs/decisions/0004.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from flightkalam.errors import Unsupported
from flightkalam.query.compute import Bits, Input

_FEW = 2_000  # one dead row in so many: below it NOT IN is faster than bits
_MAX_BITS = (1 << 31) - 1  # get_bit counts in INT
_COPIED = 5 << 20  # bytes of bits × files: above it another scan costs less than the copies
_SPARE = 1 << 20  # bits that a group may waste on files shorter than its longest


class Dirty(Protocol):
    """What this room needs of a batch with dead rows (`flightkalam.table.scan.DirtyBatch`)."""

    @property
    def path(self) -> str: ...

    @property
    def dead(self) -> BitMap: ...

    @property
    def rows(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Files to read together.

    :param condition: true for the rows that count.
    :param name: of the input that the condition reads.
    """

    paths: tuple[str, ...]
    condition: str
    name: str
    input: Input


def parts(dirty: Sequence[Dirty], name: str) -> list[Part]:
    """Every batch once, in few reads.

    :param name: prefix for the inputs, unique in the statement.
    """
    few, many = _split(dirty)
    found = [_by_bits(group, f"{name}_{i}") for i, group in enumerate(_groups(many))]
    return [_by_list(few, f"{name}_few"), *found] if few else found


def in_order(dirty: Sequence[Dirty]) -> list[Dirty]:
    """The batches in the order in which the parts read them."""
    few, many = _split(dirty)
    return few + many


def _split(dirty: Sequence[Dirty]) -> tuple[list[Dirty], list[Dirty]]:
    few = [len(d.dead) * _FEW < d.rows for d in dirty]
    return [d for d, f in zip(dirty, few, strict=True) if f], [d for d, f in zip(dirty, few, strict=True) if not f]


def _by_list(group: Sequence[Dirty], name: str) -> Part:
    stride = max(d.rows for d in group)
    condition = f"(CAST(file_index AS BIGINT) * {stride} + file_row_number) NOT IN (SELECT dead FROM {name})"
    return Part(tuple(d.path for d in group), condition, name, pa.table({"dead": _positions(group, stride)}))


def _by_bits(group: Sequence[Dirty], name: str) -> Part:
    stride = max(d.rows for d in group)
    bits = np.zeros(stride * len(group), np.uint8)
    bits[_positions(group, stride)] = 1
    position = f"CAST(file_index AS INTEGER) * {stride} + CAST(file_row_number AS INTEGER)"
    condition = f"get_bit(getvariable('{name}'), {position}) = 0"
    return Part(tuple(d.path for d in group), condition, name, Bits(np.packbits(bits).tobytes()))


def _positions(group: Sequence[Dirty], stride: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rows = [np.frombuffer(d.dead.to_array(), np.uint32).astype(np.int64) + i * stride for i, d in enumerate(group)]
    return np.concatenate(rows)


def _groups(dirty: Sequence[Dirty]) -> Iterator[list[Dirty]]:
    """Neighbours whose bits fit one constant."""
    group: list[Dirty] = []
    longest = rows = 0
    for d in dirty:
        if d.rows > _MAX_BITS:
            raise Unsupported("a batch has more than 2^31 rows; compact the table into smaller ones")
        bits = max(longest, d.rows) * (len(group) + 1)
        if group and (bits > min(_MAX_BITS, 2 * (rows + d.rows) + _SPARE) or bits // 8 * (len(group) + 1) > _COPIED):
            yield group
            group, longest, rows = [], 0, 0
        group.append(d)
        longest, rows = max(longest, d.rows), rows + d.rows
    if group:
        yield group
