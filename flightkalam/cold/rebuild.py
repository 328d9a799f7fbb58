"""A lost manifest, made again from the Parquet files alone.

    footers   who each file is, what its manifest entry says, and which files it replaces      checksum of our own
    files     size, checksum, filters                                                          every page verified
    rows      deletion vectors: in each batch the rows whose key has a newer version in another   MAX(_seq)

A file counts unless another one replaces it (T-44, T-45), or it was never committed.  What was committed the store says, in
a second record beside the manifest; when that is lost, too, the log tells: it holds the rows of a flush until the flush has
been published, and every mark in it names a batch that counts.  Rows that lie in two files, as a crash may leave them, count
once.  Where this cannot be proved there is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from flightkalam.cold import bloom, deletion_vectors, paths
from flightkalam.cold.batch_file import BatchReader, Footer, read_metadata
from flightkalam.cold.manifest import BatchEntry, FilterRef, Manifest, VectorRef, broken_invariant
from flightkalam.cold.manifest_json import batch_from_json
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope
from flightkalam.model.schema import DELETED, SEQ, TableSchema
from flightkalam.storage import objects


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known beside the files of what was committed.

    :param max_batch: no file above it was; None when the store's second record is lost.
    :param log_starts: `_seq` of the log's oldest entry; None: the log is empty.
    :param marked: batches that the log's marks name.
    :param version: the highest version that was ever seen; the rebuilt manifest has the next.
    """

    max_batch: int | None = None
    log_starts: int | None = None
    marked: frozenset[int] = frozenset()
    version: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    footer: Footer
    metadata: pq.FileMetaData


def rebuilt(
    folder: Path, scope: Scope, schema: TableSchema, reader: BatchReader, known: Evidence, now_us: int
) -> Manifest | None:
    """The manifest of a scope; None when no file of it counts.  New vectors, where they are needed, are written.

    :raises DataCorrupted: a file that counts is damaged, or it cannot be told which count.
    """
    names = objects.names(folder)
    files = _live(_footers(folder, names, scope, known), known)
    if not files:
        return None
    columns = [_rows(folder, file, schema, reader) for file in files]
    if known.max_batch is None:
        files, columns = _without_copies(files, columns)
    entries = [_entry(folder, file, rows, schema) for file, rows in zip(files, columns, strict=True)]
    version = max(known.version, *map(_version_in, names)) + 1
    dead = superseded(columns, schema)
    refs = _refs(folder, names, version, {entries[i].number: rows for i, rows in dead.items()})
    manifest = Manifest(
        scope=scope,
        version=version,
        generated_at_us=now_us,
        max_batch=max(f.footer.number for f in files),
        flushed_seq=max(f.footer.flushed_seq for f in files),
        batches=tuple(replace(e, dead=refs.get(e.number)) for e in entries),
    )
    problem = broken_invariant(manifest)
    if problem:
        raise DataCorrupted(f"the files contradict each other: {problem}; restore them from a backup")
    return manifest


def unusable(folder: Path, scope: Scope, schema: TableSchema, reader: BatchReader) -> list[str]:
    """The files of a scope that stand in the way of `rebuilt`, by reading every one that nothing replaces."""
    bad, good = [], []
    for number in sorted(n for name in objects.names(folder) if (n := paths.batch_number(name)) is not None):
        name = paths.batch_name(number)
        try:
            metadata = read_metadata(folder / name)
            footer = Footer.from_metadata(metadata, name)
        except DataCorrupted:
            bad.append(name)
            continue
        ours = (footer.table_id, footer.owner, footer.number) == (scope.table_id, scope.owner, number)
        good.append(_File(name, footer, metadata)) if ours else bad.append(name)
    replaced = {n for f in good for n in f.footer.replaces}
    for file in (f for f in good if f.footer.number not in replaced):
        try:
            _rows(folder, file, schema, reader)
        except DataCorrupted:
            bad.append(file.name)
    return [name for name in bad if paths.batch_number(name) not in replaced]


# ---------------------------------------------------------------------------------------------------------------
# Which files count


def _footers(folder: Path, names: Sequence[str], scope: Scope, known: Evidence) -> list[_File]:
    """Every batch file with its footer, in the order of their numbers; a damaged one only passes if it is replaced."""
    numbers = sorted(n for name in names if (n := paths.batch_number(name)) is not None)
    found, damaged = [], {}
    for number in numbers:
        if known.max_batch is not None and number > known.max_batch:
            continue
        name = paths.batch_name(number)
        try:
            metadata = read_metadata(folder / name)
            footer = Footer.from_metadata(metadata, name)
        except DataCorrupted as e:
            damaged[number] = e
            continue
        if (footer.table_id, footer.owner, footer.number) != (scope.table_id, scope.owner, number):
            raise DataCorrupted(f"{name} is a file of another table or user, or was renamed; restore it from a backup")
        found.append(_File(name, footer, metadata))
    replaced = {n for f in found for n in f.footer.replaces}
    for number, error in damaged.items():
        if number not in replaced:
            raise error
    return found


def _live(files: list[_File], known: Evidence) -> list[_File]:
    if known.max_batch is None:
        files = [f for f in files if _was_committed(f.footer, known)]
    replaced = {n for f in files for n in f.footer.replaces}
    files = [f for f in files if f.footer.number not in replaced]
    lost = known.marked - {f.footer.number for f in files}
    if lost:
        raise DataCorrupted(f"the log names {paths.batch_name(min(lost))}, which is missing; restore it from a backup")
    return files


def _was_committed(footer: Footer, known: Evidence) -> bool:
    """What the log tells of a file when nothing else does."""
    if footer.number in known.marked:
        return True
    if footer.replaces:  # an install translates every mark on its inputs
        return known.marked.isdisjoint(footer.replaces)
    return known.log_starts is None or footer.flushed_seq < known.log_starts  # or all its rows are in the log still


def _without_copies(files: list[_File], columns: list[pa.Table]) -> tuple[list[_File], list[pa.Table]]:
    """Leave out what a compaction wrote before it was cut short: files whose every row lies in earlier ones."""
    seen, kept = np.empty(0, np.int64), []
    for place, rows in enumerate(columns):
        seqs = rows.column(SEQ).to_numpy()
        if not len(seqs) or files[place].footer.replaces or not np.isin(seqs, seen).all():
            kept.append(place)
            seen = np.concatenate([seen, seqs])
    return [files[i] for i in kept], [columns[i] for i in kept]


# ---------------------------------------------------------------------------------------------------------------
# What they hold


def _rows(folder: Path, file: _File, schema: TableSchema, reader: BatchReader) -> pa.Table:
    """Key, `_seq` and `_deleted` of a file whose every page has been verified."""
    names = [*(c.name for c in schema.columns), SEQ, DELETED]
    entry = batch_from_json(file.footer.facts)
    table = reader.columns(folder / file.name, replace(entry, xxh3=""), schema, names, verify=True)
    if table.num_rows != entry.rows:
        raise DataCorrupted(f"{file.name} has {table.num_rows} rows and says {entry.rows}; restore it from a backup")
    return table.select([*(c.name for c in schema.key_columns), SEQ, DELETED])


def _entry(folder: Path, file: _File, rows: pa.Table, schema: TableSchema) -> BatchEntry:
    path = folder / file.name
    facts, filters = batch_from_json(file.footer.facts), []
    of_columns = bloom.column_filters(path, file.metadata)
    if of_columns is not None:
        filters.append(of_columns)
    rate = file.footer.facts.get("key_filter_rate")
    if rate is not None and rows.num_rows:
        filters.append(_key_filter(folder, facts.number, rows, schema, rate))
    return replace(facts, size_bytes=objects.size(path), xxh3=objects.digest(path), filters=tuple(filters))


def _key_filter(folder: Path, number: int, rows: pa.Table, schema: TableSchema, rate: float) -> FilterRef:
    """The batch's key filter, as it lies there when it is the right one, else written again."""
    return bloom.kept_key_filter(folder, number, rows, schema, rate) or bloom.write_key_filter(
        folder, number, rows, schema, rate
    )


def superseded(batches: Sequence[pa.Table], schema: TableSchema) -> dict[int, BitMap]:
    """Per batch, by its place, the rows that a newer version supersedes, or that an earlier batch holds, too.

    :param batches: key columns and `_seq` of each.
    """
    keys = [c.name for c in schema.key_columns]
    every = pa.concat_tables([b.select([*keys, SEQ]) for b in batches])
    if not every.num_rows:
        return {}
    newest = every.group_by(keys).aggregate([(SEQ, "max")]).column(f"{SEQ}_max")
    seqs = every.column(SEQ).to_numpy()
    alive = pc.is_in(every.column(SEQ), newest).to_numpy()
    _, first = np.unique(seqs, return_index=True)
    once = np.zeros(len(seqs), bool)
    once[first] = True
    dead, at, out = ~(alive & once), 0, {}
    for place, batch in enumerate(batches):
        rows = np.flatnonzero(dead[at : at + batch.num_rows])
        at += batch.num_rows
        if len(rows):
            out[place] = BitMap(rows.astype(np.uint32))
    return out


def vectors_of(folder: Path, manifest: Manifest, schema: TableSchema, reader: BatchReader) -> Mapping[int, BitMap]:
    """The vectors of a manifest by batch number, from the rows that its batches hold."""
    names = [*(c.name for c in schema.key_columns), SEQ]
    tables = [reader.columns(folder / b.file, b, schema, names) for b in manifest.batches]
    return {manifest.batches[i].number: rows for i, rows in superseded(tables, schema).items()}


def _refs(folder: Path, names: Collection[str], version: int, vectors: Mapping[int, BitMap]) -> dict[int, VectorRef]:
    """Where each vector lies: in a file that is there already, or in a new one."""
    refs: dict[int, VectorRef] = {}
    for name in sorted(filter(paths.is_vectors, names), key=_version_in, reverse=True):
        for number, ref in deletion_vectors.index(folder, name).items():
            if number in vectors and number not in refs and _holds(folder, ref, vectors[number]):
                refs[number] = ref
    missing = {n: v for n, v in vectors.items() if n not in refs}
    return {**refs, **(deletion_vectors.write(folder, version, missing) if missing else {})}


def _holds(folder: Path, ref: VectorRef, vector: BitMap) -> bool:
    try:
        return deletion_vectors.read(folder, ref) == vector
    except DataCorrupted:
        return False


def _version_in(name: str) -> int:
    """The version that a file's name speaks of; 0: none."""
    if paths.is_vectors(name):
        return int(name[3:-4]) if name[3:-4].isdigit() else 0
    return int(name[:-5].rsplit("-", 1)[1]) if paths.is_part(name) else 0
