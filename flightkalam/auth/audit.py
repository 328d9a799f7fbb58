"""The audit log's records, and the chain that they form.  Pure: `audit_log` keeps them.

    record n     body n = canonical JSON with its number        hash n = BLAKE2b(hash n-1 | body n)
    head         number and hash of the last one                a record that is missing at the end shows
    anchor       number and hash of the last one let go         what retention leaves is still a chain

So a record cannot be changed, taken out, put in or moved without every later hash being wrong.  Who can write to the data
directory could write the whole chain anew: for a proof against them keep the hash that CHECK AUDIT shows somewhere else.

A record holds names and outcomes; never a value, a statement's text, a password or an error's message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.json

HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
_MAX_TARGET_CHARS = 1_000


class Outcome(Enum):
    SUCCESS = "success"
    DENIED = "denied"
    FAILED = "failed"
    ATTEMPTED = "attempted"  # inside a transaction; one of the next two ends it
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded; its number, time and hash are given when it joins the chain.

    :param subject_id: on whose behalf; None where nobody is known.
    :param details: short facts: counts, states, SQLSTATEs.
    """

    actor_id: str | None
    actor_role: str | None
    subject_id: str | None
    action: str
    target: str | None
    outcome: Outcome
    peer: str | None = None
    statement_hash: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the chain: the record's number, its time and its hash."""

    number: int = 0
    at_us: int = 0
    hash: bytes = GENESIS

    def encode(self) -> bytes:
        return self.number.to_bytes(8, "big") + self.at_us.to_bytes(8, "big") + self.hash

    @classmethod
    def decode(cls, data: bytes | None) -> Mark:
        if data is None:
            return cls()
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big"), data[16:])


@dataclass(frozen=True, slots=True)
class Link:
    """A record as it is stored."""

    mark: Mark
    body: bytes

    @property
    def key(self) -> bytes:
        return record_key(self.mark.at_us, self.mark.number)

    @property
    def value(self) -> bytes:
        return self.mark.hash + self.body


def record_key(at_us: int, number: int = 0) -> bytes:
    """Keys sort by time, and those of one microsecond by number."""
    return b"r" + at_us.to_bytes(8, "big") + number.to_bytes(8, "big")


def statement_hash(text: str) -> str:
    """By which a statement that somebody still has can be found again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def link(previous: Mark, entry: Entry, now_us: int) -> Link:
    """The record that follows `previous`.  Its time is never before that one's, whatever the clock says."""
    at_us, number = max(now_us, previous.at_us), previous.number + 1
    body = _body(number, at_us, entry)
    return Link(Mark(number, at_us, chained(previous.hash, body)), body)


def chained(previous: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(previous + body, digest_size=HASH_BYTES).digest()


def _body(number: int, at_us: int, entry: Entry) -> bytes:
    record = {
        "audit_id": number,
        "timestamp": at_us,
        "actor_user_id": entry.actor_id,
        "actor_role": entry.actor_role,
        "subject_user_id": entry.subject_id,
        "action": entry.action,
        "target": entry.target[:_MAX_TARGET_CHARS] if entry.target is not None else None,
        "outcome": entry.outcome.value,
        "details": _compact(dict(entry.details)) if entry.details else None,
        "peer": entry.peer,
        "statement_hash": entry.statement_hash,
    }
    return _compact(record).encode("utf-8", "backslashreplace")


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- reading ----------------------------------------------------------------------------------------------------------

SCHEMA = pa.schema(
    [
        pa.field("audit_id", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("actor_user_id", pa.utf8()),
        pa.field("actor_role", pa.utf8()),
        pa.field("subject_user_id", pa.utf8()),
        pa.field("action", pa.utf8(), nullable=False),
        pa.field("target", pa.utf8()),
        pa.field("outcome", pa.utf8(), nullable=False),
        pa.field("details", pa.utf8()),
        pa.field("peer", pa.utf8()),
        pa.field("statement_hash", pa.utf8()),
    ]
)
TIMESTAMP = SCHEMA.get_field_index("timestamp")
_STORED = pa.schema([pa.field(f.name, pa.int64() if f.name == "timestamp" else f.type) for f in SCHEMA])


def table_of(bodies: Iterable[bytes]) -> pa.Table:
    """Records as rows, read in bulk."""
    lines = b"\n".join(bodies)
    if not lines:
        return SCHEMA.empty_table()
    read = pa.json.ReadOptions(block_size=min(len(lines) + 1, 2**31 - 1), use_threads=False)
    parse = pa.json.ParseOptions(explicit_schema=_STORED, unexpected_field_behavior="ignore", newlines_in_values=False)
    found = pa.json.read_json(pa.BufferReader(lines), read, parse).select(SCHEMA.names)
    return pa.Table.from_arrays([found.column(f.name).cast(f.type) for f in SCHEMA], schema=SCHEMA)


# -- checking ---------------------------------------------------------------------------------------------------------


@dataclass
class Checked:
    """What CHECK AUDIT found.

    :param head: the last record there is; its hash stands for the whole log.
    :param problems: where the chain breaks, the first ones.
    """

    records: int = 0
    first: int | None = None
    head: Mark = field(default_factory=Mark)
    problems: list[str] = field(default_factory=list)


def check(records: Iterator[tuple[bytes, bytes]], anchor: Mark, head: Mark, *, most: int = 100) -> Checked:
    """Verify every record against the one before it.

    :param records: keys and values in order.
    :param most: problems that are listed.
    """
    found, last = Checked(), anchor
    for key, value in records:
        last = _check_one(found, last, key, value, most)
    found.head = last
    if last != head and len(found.problems) < most:
        found.problems.append(
            f"the log ends with record {last.number} and should end with record {head.number}: "
            "records were taken from its end, or added to it"
        )
    return found


def _check_one(found: Checked, last: Mark, key: bytes, value: bytes, most: int) -> Mark:
    stored, body = value[:HASH_BYTES], value[HASH_BYTES:]
    at_us, number = int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:], "big")
    found.records += 1
    found.first = number if found.first is None else found.first
    if number != last.number + 1:
        problem = f"record {number} follows record {last.number}: records between them are missing or out of order"
    elif chained(last.hash, body) != stored:
        problem = f"record {number} does not match its hash: it, or the one before it, was changed"
    elif not body.startswith(b'{"audit_id":%d,"timestamp":%d,' % (number, at_us)):
        problem = f"record {number} lies under another key than its own: it was moved"
    else:
        problem = ""
    if problem and len(found.problems) < most:
        found.problems.append(problem)
    return Mark(number, at_us, stored)
