"""What a ticket keeps of its statement, so that it can be planned again when the server has forgotten it.

    handle = [ random : 16 ][ what is kept ]        sealed by the wire, so nobody can change it
    kept   = [ length : 4 ][ JSON: text, namespace, time zone, … ][ parameters as an Arrow stream ]

A query is planned anew, and refused if its schema is another one by now.  A statement that changes data runs once whatever
happens: the random part is its idempotency key.  Of a statement in a transaction nothing is kept, since the transaction does
not outlive the server either, nor of one that is large or may hold a password.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b

import pyarrow as pa

TOKEN_BYTES = 16
_MOST_BYTES = 16 << 10
_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Kept:
    """:param user: whose ticket it is.
    :param subject: on whose behalf it was announced.
    :param schema: a hash of what was announced."""

    user: str
    text: str
    namespace: str
    time_zone: str
    is_update: bool
    writes: bool
    subject: str | None
    schema: str


def fingerprint(schema: pa.Schema) -> str:
    return blake2b(schema.serialize(), digest_size=8).hexdigest()


def encode(kept: Kept, bound: pa.Table | None) -> bytes:
    """Empty if it is too large to travel with a ticket."""
    if len(kept.text) > _MOST_BYTES or (bound is not None and bound.nbytes > _MOST_BYTES):
        return b""
    said = json.dumps(asdict(kept), separators=(",", ":")).encode()
    data = len(said).to_bytes(_LENGTH, "big") + said + _stream(bound)
    return data if len(data) <= _MOST_BYTES else b""


def decode(data: bytes) -> tuple[Kept, pa.Table | None]:
    size = int.from_bytes(data[:_LENGTH], "big")
    parameters = data[_LENGTH + size :]
    bound = pa.ipc.open_stream(parameters).read_all() if parameters else None
    return Kept(**json.loads(data[_LENGTH : _LENGTH + size])), bound


def _stream(bound: pa.Table | None) -> bytes:
    if bound is None:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, bound.schema) as writer:
        writer.write_table(bound)
    return sink.getvalue().to_pybytes()
