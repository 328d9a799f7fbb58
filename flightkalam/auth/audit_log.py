"""The audit log in the key-value store: append-only, chained, in time order.

    r <time> <number>      hash and body of a record          the family `audit`
    head, anchor           marks of the last record, and of the last one let go
    o <transaction> <n>    an attempt of an open transaction, until its end is recorded

The chain's order is the order of the commits: `extend` is called with the commit mutex held, reads the head from the store
(no copy in memory can be out of step with it) and puts the new head into the same batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from flightkalam.auth import audit
from flightkalam.auth.audit import HASH_BYTES, Checked, Entry, Mark, Outcome, link, record_key
from flightkalam.clock import Clock
from flightkalam.errors import TryAgain
from flightkalam.model.predicate import Predicate, interval
from flightkalam.storage.kv import Batch
from flightkalam.table.door import CommitDoor

FAMILY = "audit"
_HEAD, _ANCHOR = b"head", b"anchor"
_RECORDS, _OPEN = b"r", b"o"
_DAY_US = 86_400 * 1_000_000
_LET_GO_AT_ONCE = 100_000
_LAST_US = (1 << 63) - 1


class AuditLog:
    """Thread-safe.

    :param door: whose mutex orders the chain with every other commit.
    :param retention_days: how long records are kept; 0: for ever.
    :param new_day: called with the first record of a day, under the commit mutex, when old ones may have to go: to have
        `let_go` called by another thread.
    """

    def __init__(
        self,
        door: CommitDoor,
        clock: Clock,
        retention_days: int = 0,
        new_day: Callable[[], object] = lambda: None,
    ) -> None:
        self._door = door
        self._store = door.store
        self._clock = clock
        self._retention_days = retention_days
        self._new_day = new_day

    # -- writing ----------------------------------------------------------------------------------------------

    def extend(self, batch: Batch, entries: Iterable[Entry]) -> list[int]:
        """Add records to the batch of a commit, whose mutex the caller holds until the batch is appended; their ids."""
        head, numbers = self._head_in(batch), []
        day = head.at_us // _DAY_US
        for entry in entries:
            made = link(head, entry, self._clock.now_us())
            batch.put(FAMILY, made.key, made.value)
            head = made.mark
            numbers.append(head.number)
        if numbers:
            batch.put(FAMILY, _HEAD, head.encode())
        if self._retention_days and head.at_us // _DAY_US != day:
            with suppress(TryAgain):  # shutting down: the next start does it
                self._new_day()
        return numbers

    def _head_in(self, batch: Batch) -> Mark:
        """The head that the batch is going to set, or else that of the store."""
        for operation, family, key, value in reversed(batch.operations):
            if operation == "put" and family == FAMILY and key == _HEAD:
                return Mark.decode(value)
        return Mark.decode(self._store.get(FAMILY, _HEAD))

    def write(self, entries: Iterable[Entry], *, wait: bool = True) -> None:
        """Records of their own, beside no other write.

        :param wait: return when they are durable; else they will be with the next sync.
        """
        self.commit(Batch(), lambda batch: self.extend(batch, entries), wait=wait)

    def commit(self, batch: Batch, extra: Callable[[Batch], object] | None, *, wait: bool = True) -> None:
        """Append a batch together with what `extra` adds to it under the commit mutex."""
        with self._door.mutex:
            if extra is not None:
                extra(batch)
            if not len(batch):
                return
            position = self._door.append(batch, None)
        if wait:
            self._door.wait(position)

    # -- transactions -----------------------------------------------------------------------------------------

    def attempt(self, transaction: bytes, entry: Entry) -> tuple[int, Entry]:
        """Record an attempt durably, so that its end will be recorded whatever happens; its id."""
        numbers: list[int] = []

        def extra(batch: Batch) -> None:
            numbers.extend(self.extend(batch, [replace(entry, outcome=Outcome.ATTEMPTED)]))
            batch.put(FAMILY, _open_key(transaction, numbers[0]), _encoded(entry))

        self.commit(Batch(), extra)
        return numbers[0], entry

    def end(
        self, batch: Batch, transaction: bytes, attempts: Sequence[tuple[int, Entry]], outcome: Outcome, **details: Any
    ) -> None:
        """Add the ends of a transaction's attempts to a batch, as `extend` does."""
        known = ((entry, {**entry.details, "attempt": number, **details}) for number, entry in attempts)
        self.extend(batch, [replace(entry, outcome=outcome, details=facts) for entry, facts in known])
        for number, _ in attempts:
            batch.delete(FAMILY, _open_key(transaction, number))

    def recover(self) -> int:
        """At the start: transactions that a crash ended were rolled back by it, and that is recorded now; how many attempts."""
        open_ = [(key, value) for key, value in self._store.scan(FAMILY, _OPEN)]
        batch = Batch()
        with self._door.mutex:
            for key, value in open_:
                transaction, number = key[1:-8], int.from_bytes(key[-8:], "big")
                self.end(batch, transaction, [(number, _decoded(value))], Outcome.ROLLED_BACK, by="recovery")
            if len(batch):
                self._door.wait(self._door.append(batch, None))
        return len(open_)

    # -- reading ----------------------------------------------------------------------------------------------

    def read(self, start_us: int = 0, end_us: int = _LAST_US) -> pa.Table:
        """The records of start ≤ time ≤ end, in order; no other is looked at."""
        low, high = record_key(max(start_us, 0)), record_key(min(end_us, _LAST_US - 1) + 1)
        if low >= high:
            return audit.SCHEMA.empty_table()
        found = self._store.scan(FAMILY, _RECORDS, start=low, end=high)
        return audit.table_of(value[HASH_BYTES:] for _, value in found)

    def matching(self, predicate: Predicate) -> pa.Table:
        """The records that a predicate over the columns (by their position) may keep: as far as their time tells."""
        low, high = interval(predicate, audit.TIMESTAMP)
        return self.read(low if low is not None else 0, high if high is not None else _LAST_US)

    def check(self) -> Checked:
        """Verify the whole chain, as of now."""
        with self._door.mutex:
            head = Mark.decode(self._store.get(FAMILY, _HEAD))
            anchor = Mark.decode(self._store.get(FAMILY, _ANCHOR))
            records = self._records_to(head)
        return audit.check(records, anchor, head)

    def _records_to(self, head: Mark) -> Iterator[tuple[bytes, bytes]]:
        # What is younger than the head came after the check began; what lies above it in between is a problem.
        newest = self._store.scan(FAMILY, _RECORDS, reverse=True)
        last = next(newest, None)
        end = record_key(head.at_us, head.number) if last is None else max(last[0], record_key(head.at_us, head.number))
        return self._store.scan(FAMILY, _RECORDS, end=end + b"\0")

    # -- retention --------------------------------------------------------------------------------------------

    def let_go(self) -> int:
        """Remove the records that are older than the retention; the anchor keeps the rest verifiable.  How many."""
        if not self._retention_days:
            return 0
        before = self._clock.now_us() - self._retention_days * _DAY_US
        total = 0
        while (removed := self._let_go_some(before)) > 0:
            total += removed
        return total

    def _let_go_some(self, before_us: int) -> int:
        removed, last = 0, None
        if before_us <= 0:
            return 0
        for key, value in self._store.scan(FAMILY, _RECORDS, end=record_key(before_us)):
            removed, last = removed + 1, (key, value)
            if removed == _LET_GO_AT_ONCE:
                break
        if last is None:
            return 0
        key, value = last
        mark = Mark(int.from_bytes(key[9:], "big"), int.from_bytes(key[1:9], "big"), value[:HASH_BYTES])
        batch = Batch()
        batch.delete_range(FAMILY, _RECORDS, key + b"\0")
        batch.put(FAMILY, _ANCHOR, mark.encode())
        note = Entry(None, None, None, "AUDIT RETENTION", None, Outcome.SUCCESS, details={"removed": removed})
        self.commit(batch, lambda b: self.extend(b, [note]))
        return removed


def _open_key(transaction: bytes, number: int) -> bytes:
    return _OPEN + transaction + number.to_bytes(8, "big")


def _encoded(entry: Entry) -> bytes:
    return json.dumps(asdict(entry) | {"outcome": entry.outcome.value}).encode()


def _decoded(data: bytes) -> Entry:
    fields = json.loads(data)
    return Entry(**fields | {"outcome": Outcome(fields["outcome"])})
