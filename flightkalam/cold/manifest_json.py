"""Manifests as JSON, and packed as they lie in the key-value store."""

from __future__ import annotations

import json
from typing import Any

import zstandard

from flightkalam.cold import bounds as bounds_
from flightkalam.cold.manifest import BatchEntry, FilterRef, Manifest, VectorRef, broken_invariant
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope

FORMAT_VERSION = 1


def to_json(m: Manifest, table: str) -> dict[str, Any]:
    """The whole manifest in one record."""
    return {**head_to_json(m, table), "batches": [batch_to_json(b) for b in m.batches]}


def head_to_json(m: Manifest, table: str) -> dict[str, Any]:
    """Everything but the batches."""
    return {
        "format_version": FORMAT_VERSION,
        "table": table,
        "table_id": m.scope.table_id,
        "scope": m.scope.owner,
        "version": m.version,
        "generated_at": m.generated_at_us,
        "max_batch": m.max_batch,
        "flushed_seq": m.flushed_seq,
    }


def batch_to_json(b: BatchEntry) -> dict[str, Any]:
    record: dict[str, Any] = {
        "batch_number": b.number,
        "file_path": b.file,
        "uuid": b.uuid,
        "min_seq": b.min_seq,
        "max_seq": b.max_seq,
        "row_count": b.rows,
        "tombstones": b.tombstones,
        "size_bytes": b.size_bytes,
        "schema_version": b.schema_version,
        "status": b.status,
        "xxh3": b.xxh3,
        "columns": {str(i): bounds_.to_json(v) for i, v in b.bounds.items()},
    }
    if b.dead is not None:
        record["deletion_vector"] = vector_to_json(b.dead)
    if b.filters:
        record["filters"] = [[f.file, f.offset, f.length, f.xxh64, [list(c) for c in f.columns]] for f in b.filters]
    return record


def vector_to_json(v: VectorRef) -> list[Any]:
    return [v.file, v.offset, v.length, v.xxh64, v.cardinality]


def from_json(record: dict[str, Any]) -> Manifest:
    """:raises DataCorrupted: a record that breaks an invariant or has another format."""
    return checked(record, record.get("batches"))


def checked(record: dict[str, Any], batches: Any) -> Manifest:
    """The manifest that a record's head and its batches make.

    :raises DataCorrupted: they break an invariant, or have another format.
    """
    try:
        if record["format_version"] != FORMAT_VERSION:
            raise DataCorrupted(f"manifest format {record['format_version']} is not known to this release; upgrade")
        m = Manifest(
            scope=Scope(record["table_id"], record["scope"]),
            version=record["version"],
            generated_at_us=record["generated_at"],
            max_batch=record["max_batch"],
            flushed_seq=record["flushed_seq"],
            batches=tuple(batch_from_json(b) for b in batches),
        )
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise DataCorrupted(f"a manifest cannot be read ({type(e).__name__}: {e})") from e
    problem = broken_invariant(m)
    if problem:
        raise DataCorrupted(f"a manifest contradicts itself: {problem}")
    return m


def batch_from_json(r: dict[str, Any]) -> BatchEntry:
    vector = r.get("deletion_vector")
    return BatchEntry(
        number=r["batch_number"],
        file=r["file_path"],
        uuid=r["uuid"],
        min_seq=r["min_seq"],
        max_seq=r["max_seq"],
        rows=r["row_count"],
        size_bytes=r["size_bytes"],
        schema_version=r["schema_version"],
        bounds={int(i): bounds_.from_json(v) for i, v in r["columns"].items()},
        tombstones=r["tombstones"],
        status=r["status"],
        dead=VectorRef(*vector) if vector else None,
        filters=tuple(_filter_from_json(*f) for f in r.get("filters", ())),
        xxh3=r["xxh3"],
    )


def _filter_from_json(file: str, offset: int, length: int, xxh64: str, columns: list[list[Any]]) -> FilterRef:
    return FilterRef(file, offset, length, xxh64, tuple((int(i), str(physical)) for i, physical in columns))


def encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def pack(record: dict[str, Any]) -> bytes:
    """JSON, compressed with a checksum: how manifests lie in the key-value store."""
    text = encode(record)
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(text)


def unpack(data: bytes) -> dict[str, Any]:
    """:raises DataCorrupted: bytes that do not match their checksum."""
    try:
        return json.loads(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, ValueError) as e:
        raise DataCorrupted(f"a cached manifest does not match its checksum ({e})") from e
