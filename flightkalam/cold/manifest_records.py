"""How manifests lie in the key-value store, family `manifest_cache`.  Every byte of its keys is made here.

    scope                        head: the manifest, or its parts' names (manifest_chain)
    scope 01                     what is known of the published copy, and once more how far the scope has come
    scope 02 first last          one part (two u64, big-endian)

Every value is zstd with a checksum.  The second record repeats version, max_batch and flushed_seq, so that a manifest whose
head is damaged can be rebuilt without taking files for committed that never were.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import zstandard

from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifest_chain import Grown, Part, head, manifest_of, parts_of
from flightkalam.cold.manifest_json import pack, unpack
from flightkalam.cold.paths import part_name
from flightkalam.errors import DataCorrupted
from flightkalam.model.ids import Scope, scope_bytes, scope_of, table_bytes
from flightkalam.storage.kv import Batch, Store, prefix_end

FAMILY = "manifest_cache"
_SYNC, _PART = b"\x01", b"\x02"
_VERSIONS = struct.Struct(">QQ")


class ManifestDamaged(DataCorrupted):
    """What the store holds of a manifest is damaged or incomplete: it can be rebuilt from the files."""


@dataclass(frozen=True, slots=True)
class Sync:
    """What is known of a scope's published copy.

    :param published: the version last published; 0: none.
    :param version: the committed version; with `max_batch` and `flushed_seq` a second copy of what the head says.
    """

    etag: str
    last_refreshed_us: int
    source_path: str
    sync_state: str
    published: int
    version: int
    max_batch: int
    flushed_seq: int


def put(batch: Batch, manifest: Manifest, grown: Grown, sync: Sync) -> None:
    """Add a manifest to an atomic batch."""
    key = scope_bytes(manifest.scope)
    batch.put(FAMILY, key, pack(head(manifest, "", grown.parts, file_of)))
    for part, text in grown.written.items():
        batch.put(FAMILY, _part_key(manifest.scope, part), _compress(text))
    for part in grown.gone:
        batch.delete(FAMILY, _part_key(manifest.scope, part))
    put_sync(batch, manifest.scope, sync)


def put_sync(batch: Batch, scope: Scope, sync: Sync) -> None:
    batch.put(FAMILY, scope_bytes(scope) + _SYNC, pack(asdict(sync)))


def file_of(part: Part) -> str:
    return part_name(part.first, part.last)


def _part_key(scope: Scope, part: Part) -> bytes:
    return scope_bytes(scope) + _PART + _VERSIONS.pack(part.first, part.last)


def _compress(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(text)


def read(store: Store, scope: Scope) -> tuple[Manifest, tuple[Part, ...]] | None:
    """The committed manifest and how it is stored; None when the scope has none.

    :raises ManifestDamaged: it is damaged.
    """
    try:
        return _read(store, scope)
    except DataCorrupted as e:
        raise ManifestDamaged(e.message) from e


def _read(store: Store, scope: Scope) -> tuple[Manifest, tuple[Part, ...]] | None:
    data = store.get(FAMILY, scope_bytes(scope))
    if data is None:
        if any(True for _ in store.scan(FAMILY, scope_bytes(scope))):
            raise DataCorrupted("a manifest is missing from the store")
        return None
    record = unpack(data)
    manifest = manifest_of(record, lambda part: read_part(store, scope, part))
    if manifest.scope != scope:
        raise DataCorrupted("a manifest in the store is another scope's")
    return manifest, parts_of(record)


def read_part(store: Store, scope: Scope, part: Part) -> bytes | None:
    data = store.get(FAMILY, _part_key(scope, part))
    try:
        return None if data is None else zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError:
        return None


def read_sync(store: Store, scope: Scope) -> Sync | None:
    """None when there is none, or a damaged one: it can be made again."""
    data = store.get(FAMILY, scope_bytes(scope) + _SYNC)
    try:
        return None if data is None else Sync(**unpack(data))
    except (DataCorrupted, TypeError):
        return None


def scopes(store: Store, table_id: int | None = None) -> Iterator[Scope]:
    """Every scope that has records, or those of one table, in the order of their keys."""
    last = None
    for key, _ in store.scan(FAMILY, b"" if table_id is None else table_bytes(table_id)):
        scope, _end = scope_of(key)
        if scope != last:
            yield scope
        last = scope


def remove(batch: Batch, scope: Scope) -> None:
    key = scope_bytes(scope)
    batch.delete_range(FAMILY, key, prefix_end(key))
