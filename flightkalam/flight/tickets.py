"""What a ticket may say: which result to stream, and to whom.

    sealed handle = [ version : 1 ][ kind : 1 ][ mac : 16 ][ the session's handle ]
    mac           = BLAKE2b(key, version | kind | len(user) | user | handle)

The user's name is in the mac and not in the ticket, so a ticket works on another connection of the same user (a client
may read partitions in parallel), tells a thief nothing, and a foreign ticket cannot be told from junk: both are the one
error.  With a stored key tickets outlive a restart; whether their result does, the session decides.
"""

from __future__ import annotations

import hmac
from enum import Enum
from hashlib import blake2b

from flightkalam.errors import UndefinedObject

_VERSION = b"\x01"
_MAC_BYTES = 16
_HEAD = len(_VERSION) + 1
KEY_BYTES = 32


class Kind(Enum):
    STATEMENT = b"S"


class Tickets:
    """Seals and opens handles.

    :param key: 16 to 64 secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"a ticket key has 16 to 64 bytes, not {len(key)}")
        self._key = key

    def seal(self, kind: Kind, handle: bytes, user: str) -> bytes:
        return _VERSION + kind.value + self._mac(kind, handle, user) + handle

    def open(self, kind: Kind, sealed: bytes, user: str) -> bytes:
        """The handle.

        :raises UndefinedObject: not a ticket of ours, or not this user's.
        """
        mac, handle = sealed[_HEAD : _HEAD + _MAC_BYTES], sealed[_HEAD + _MAC_BYTES :]
        if sealed[:_HEAD] != _VERSION + kind.value or not hmac.compare_digest(mac, self._mac(kind, handle, user)):
            raise unknown_ticket()
        return handle

    def _mac(self, kind: Kind, handle: bytes, user: str) -> bytes:
        name = user.encode("utf-8", "surrogatepass")
        head = _VERSION + kind.value + len(name).to_bytes(4, "big")
        return blake2b(head + name + handle, key=self._key, digest_size=_MAC_BYTES).digest()


def unknown_ticket() -> UndefinedObject:
    return UndefinedObject("no such ticket; run the statement again to get a new one", sqlstate="26000")
