"""Every byte of the hot log's keys is made here.

    log entry       L  scope  first _seq (u64)             one commit in one scope
    log schema      S  table id (u32)  version (u32)       the Arrow schema that a version's entries are encoded with
    segment file    G  table id (u32)  file name           a file that an entry names
    scope           as `model.ids.scope_bytes` makes it

Numbers are big-endian, so that keys sort as their meaning does, and a scope's entries lie together in commit order.
"""

from __future__ import annotations

import struct

from flightkalam.model.ids import Scope, scope_bytes, scope_of, table_bytes

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


def entry_key(scope: Scope, first_seq: int) -> bytes:
    return b"L" + scope_bytes(scope) + _U64.pack(first_seq)


def entry_prefix(scope: Scope) -> bytes:
    return b"L" + scope_bytes(scope)


def table_prefix(table_id: int) -> bytes:
    """Begins the entries of every scope of a table."""
    return b"L" + table_bytes(table_id)


def scope_and_seq(key: bytes) -> tuple[Scope, int]:
    """What an entry's key says."""
    scope, end = scope_of(key[1:])
    return scope, _U64.unpack_from(key, end + 1)[0]


ALL_ENTRIES = b"L"


def schema_key(table_id: int, version: int) -> bytes:
    return b"S" + _U32.pack(table_id) + _U32.pack(version)


def schema_prefix(table_id: int) -> bytes:
    return b"S" + _U32.pack(table_id)


def segment_key(table_id: int, file: str) -> bytes:
    return b"G" + table_bytes(table_id) + file.encode()


def segment_prefix(table_id: int) -> bytes:
    return b"G" + table_bytes(table_id)


def segment_file(key: bytes) -> str:
    return key[5:].decode()


ALL_SEGMENTS = b"G"
