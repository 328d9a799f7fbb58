"""How a large manifest is stored: as a chain of parts, so that a flush writes what it changed and not what is old.

A part is the edits of versions first..last made into one; the first part, the *base*, counts from the empty manifest.  Each
install appends one part of its own, and takes the parts before it in as long as they are no larger, like the digits of a
binary counter:

    batches  4096 · 512 · 64 · 2 · 1     one more:     4096 · 512 · 64 · 4

So n batches lie in at most about log2(n) parts, and each batch is written again about log2(n) times in all.  A manifest of
up to `WHOLE` batches has no parts: all of it stands in its head.  Parts never change; the head names them with checksums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from flightkalam.cold.manifest import Manifest, ManifestEdit
from flightkalam.cold.manifest_json import batch_to_json, checked, encode, head_to_json, vector_to_json
from flightkalam.errors import DataCorrupted

WHOLE = 128
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """:param first: lowest version whose edit is in it.
    :param last: highest; no two parts of a scope have the same two versions.
    :param weight: records in it.
    :param xxh3: checksum of its text.
    """

    first: int
    last: int
    weight: int
    size: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class Grown:
    """A chain after an install: its parts, the texts of the new ones, and those that are no longer of it."""

    parts: tuple[Part, ...] = ()
    written: Mapping[Part, bytes] = field(default_factory=dict)
    gone: tuple[Part, ...] = ()


def grown(parts: Sequence[Part], new: Manifest, edit: ManifestEdit, load: Callable[[Part], bytes]) -> Grown:
    """The chain of `new`, which `edit` has made of a manifest stored as `parts`.

    :param load: the text of a part.
    """
    if not parts:
        return whole(parts, new)
    record, first, kept = _edit_record(edit), new.version, list(parts)
    while kept and kept[-1].weight <= _weight(record):
        older = kept.pop()
        record, first = _composed(read_part(load(older), older), record), older.first
    if not kept:
        return whole(parts, new)
    text = encode(record)
    part = Part(first, new.version, _weight(record), len(text), digest(text))
    return Grown((*kept, part), {part: text}, tuple(parts[len(kept) :]))


def whole(parts: Sequence[Part], new: Manifest) -> Grown:
    """A chain of one part, or of none where the head can hold all of it."""
    if len(new.batches) <= WHOLE:
        return Grown(gone=tuple(parts))
    text = encode({"add": [batch_to_json(b) for b in new.batches], "remove": [], "vectors": {}})
    part = Part(0, new.version, len(new.batches), len(text), digest(text))
    return Grown((part,), {part: text}, tuple(parts))


def _edit_record(edit: ManifestEdit) -> Record:
    return {
        "add": [batch_to_json(b) for b in edit.add],
        "remove": sorted(edit.remove),
        "vectors": {str(n): vector_to_json(v) for n, v in edit.vectors.items()},
    }


def _weight(record: Record) -> int:
    return max(len(record["add"]) + len(record["remove"]) + len(record["vectors"]), 1)


def _composed(older: Record, newer: Record) -> Record:
    """One edit that does what two do, one after the other."""
    gone, vectors = set(newer["remove"]), newer["vectors"]
    added = [_with_vector(b, vectors) for b in older["add"] if b["batch_number"] not in gone]
    own = {b["batch_number"] for b in older["add"]}
    kept = {n: v for n, v in {**older["vectors"], **vectors}.items() if int(n) not in gone and int(n) not in own}
    return {"add": [*added, *newer["add"]], "remove": sorted({*older["remove"], *(gone - own)}), "vectors": kept}


def _with_vector(batch: Record, vectors: Mapping[str, Any]) -> Record:
    vector = vectors.get(str(batch["batch_number"]))
    return batch if vector is None else {**batch, "deletion_vector": vector}


# ---------------------------------------------------------------------------------------------------------------
# Heads and reading


def digest(text: bytes) -> str:
    return f"{xxhash.xxh3_64_intdigest(text):016x}"


def read_part(text: bytes | None, part: Part) -> Record:
    """:raises DataCorrupted: the text is missing or not the one that was written."""
    if text is None or len(text) != part.size or digest(text) != part.xxh3:
        raise DataCorrupted(f"versions {part.first} to {part.last} of a manifest are missing or damaged")
    return dict(json.loads(text))


def head(m: Manifest, table: str, parts: Sequence[Part], name: Callable[[Part], str]) -> Record:
    """What stands in the head: everything, or where the rest stands.

    :param name: the file of a part.
    """
    record = head_to_json(m, table)
    if not parts:
        return {**record, "batches": [batch_to_json(b) for b in m.batches]}
    shown = [[p.first, p.last, p.weight, p.size, p.xxh3, name(p)] for p in parts]
    return {**record, "batch_count": len(m.batches), "base": shown[0], "deltas": shown[1:]}


def parts_of(record: Record) -> tuple[Part, ...]:
    """The parts that a head names.

    :raises DataCorrupted: the head cannot be read.
    """
    if "batches" in record:
        return ()
    try:
        return tuple(Part(*fields[:5]) for fields in (record["base"], *record["deltas"]))
    except (KeyError, TypeError) as e:
        raise DataCorrupted(f"a manifest's head cannot be read ({type(e).__name__}: {e})") from e


def manifest_of(record: Record, load: Callable[[Part], bytes | None]) -> Manifest:
    """The manifest of a head and of the parts that it names.

    :raises DataCorrupted: something is missing, damaged or contradicts itself.
    """
    parts = parts_of(record)
    if not parts:
        return checked(record, record.get("batches"))
    made: Record = {"add": [], "remove": [], "vectors": {}}
    for part in parts:
        made = _composed(made, read_part(load(part), part))
    m = checked(record, made["add"])
    if len(m.batches) != record.get("batch_count"):
        raise DataCorrupted(f"a manifest has {len(m.batches)} batches and says {record.get('batch_count')}")
    return m
