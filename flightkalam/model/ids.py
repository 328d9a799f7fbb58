"""Scopes: the only way to a row."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_U32 = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Scope:
    """One table's rows for one owner.

    `owner` is None for a SHARED table and the user's id for USER and STREAM tables.  Log keys and paths begin with the
    scope, so a store that is handed a scope cannot reach a neighbour's rows.
    """

    table_id: int
    owner: str | None = None

    @property
    def label(self) -> str:
        return "shared" if self.owner is None else self.owner


def scope_bytes(scope: Scope) -> bytes:
    """An injective, prefix-free form of a scope, for keys of the key-value store.

    table id (u32, big-endian)  0x00                      a SHARED table
    table id (u32, big-endian)  0x01  owner  0x00 0x00    a user's rows; 0x00 in the owner becomes 0x00 0xFF (T-22)
    """
    table = table_bytes(scope.table_id)
    if scope.owner is None:
        return table + b"\x00"
    return table + b"\x01" + scope.owner.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def table_bytes(table_id: int) -> bytes:
    """What the bytes of every scope of a table begin with."""
    return _U32.pack(table_id)


def scope_of(data: bytes) -> tuple[Scope, int]:
    """The scope at the start of `data` and where it ends."""
    table_id = _U32.unpack_from(data)[0]
    if data[4] == 0:
        return Scope(table_id), 5
    at = 5
    while not (data[at] == 0 and data[at + 1] == 0):
        at += 2 if data[at] == 0 else 1
    return Scope(table_id, data[5:at].replace(b"\x00\xff", b"\x00").decode()), at + 2
