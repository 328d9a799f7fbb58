"""Idempotency keys: a write that is sent again with the same key answers the first result and writes nothing (T-51).

The receipt commits in the same atomic batch as the write.  While the first is under way, the repeat waits for it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.clock import Clock
from flightkalam.errors import InvalidValue
from flightkalam.storage.kv import Batch, Store, prefix_end

HEADER = "x-kalam-idempotency-key"
_PREFIX = b"receipt/"
_ROWS_PREFIX = b"receipt-rows/"
_MOST_ROW_BYTES = 1 << 20
_KEPT_US = 24 * 3600 * 1_000_000
_LONGEST = 256


@dataclass
class Receipt:
    """The receipt of one write: `record` adds it to the commit.

    :param count: what the client will be told, when the commit itself cannot know it.
    """

    key: bytes
    now_us: int
    count: int | None = None
    recorded: bool = False

    def record(self, batch: Batch, rows: int) -> None:
        record = {"count": rows if self.count is None else self.count, "at": self.now_us}
        batch.put("meta", self.key, json.dumps(record).encode())
        self.recorded = True


class Receipts:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: dict[bytes, tuple[threading.Lock, int]] = {}

    def once(self, user: str, key: str, run: Callable[[Receipt], int]) -> int:
        """Run a write unless the user's key has been seen in the last 24 hours; returns its count, or the first one's."""
        if not 0 < len(key) <= _LONGEST:
            raise InvalidValue(f"{HEADER} must have 1 to {_LONGEST} characters")
        name = _name(user, key)
        gate = self._enter(name)
        try:
            with gate:
                known = self._known(name)
                return self._run(name, run) if known is None else known
        finally:
            self._leave(name)

    def rows_once(self, user: str, key: str, schema: pa.Schema, run: Callable[[Receipt], pa.Table]) -> pa.Table:
        """`once` for a write that answers with rows (RETURNING).

        The rows are kept beside the receipt, up to 1 MiB, right after the commit and not in it: RETURNING is evaluated over
        what was committed.  So a repeat may find the receipt alone, and then says so rather than writing twice.

        :param schema: of the rows, as they were announced.
        """
        ran: list[pa.Table] = []

        def run_and_keep(receipt: Receipt) -> int:
            table = run(receipt)
            ran.append(table)
            self._keep(receipt.key, table)
            return table.num_rows

        count = self.once(user, key, run_and_keep)
        return ran[0] if ran else self._kept(_name(user, key), schema, count)

    def _keep(self, name: bytes, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue()
        if data.size <= _MOST_ROW_BYTES:
            batch = Batch()
            batch.put("meta", _ROWS_PREFIX + name.removeprefix(_PREFIX), data.to_pybytes())
            self._store.commit(batch)

    def _kept(self, name: bytes, schema: pa.Schema, count: int) -> pa.Table:
        data = self._store.get("meta", _ROWS_PREFIX + name.removeprefix(_PREFIX))
        if data is None:
            raise InvalidValue(
                f"the write of this {HEADER} was done before and changed {count} row(s), whose RETURNING is not kept; "
                "nothing was written again, read the rows with a query"
            )
        table = pa.ipc.open_stream(data).read_all()
        if not table.schema.equals(schema):
            raise InvalidValue(f"this {HEADER} belongs to another statement; use a new key for each write")
        return table

    def _run(self, name: bytes, run: Callable[[Receipt], int]) -> int:
        receipt = Receipt(name, self._clock.now_us())
        count = run(receipt)
        if not receipt.recorded:  # nothing had to be committed
            batch = Batch()
            receipt.record(batch, count)
            self._store.commit(batch)
        return count

    def _known(self, name: bytes) -> int | None:
        data = self._store.get("meta", name)
        if data is None:
            return None
        record = json.loads(data)
        return int(record["count"]) if record["at"] > self._clock.now_us() - _KEPT_US else None

    def _enter(self, name: bytes) -> threading.Lock:
        with self._lock:
            gate, users = self._under_way.get(name, (threading.Lock(), 0))
            self._under_way[name] = (gate, users + 1)
            return gate

    def _leave(self, name: bytes) -> None:
        with self._lock:
            gate, users = self._under_way[name]
            if users == 1:
                del self._under_way[name]
            else:
                self._under_way[name] = (gate, users - 1)

    def forget_rows(self) -> None:
        """Keep no RETURNING any more, and leave no trace of it on disk: an ERASE may concern values in any of them.

        A repeat of such a write is told that it was done, and how many rows it changed.
        """
        end = prefix_end(_ROWS_PREFIX)
        batch = Batch()
        batch.delete_range("meta", _ROWS_PREFIX, end)
        self._store.commit(batch)
        self._store.rewrite("meta", _ROWS_PREFIX, end)

    def sweep(self) -> int:
        """Forget receipts older than 24 hours; how many there were."""
        batch, oldest, found = Batch(), self._clock.now_us() - _KEPT_US, 0
        for name, data in self._store.scan("meta", _PREFIX):
            if json.loads(data)["at"] <= oldest:
                batch.delete("meta", name)
                batch.delete("meta", _ROWS_PREFIX + name.removeprefix(_PREFIX))
                found += 1
        if found:
            self._store.append(batch)
        return found


def _name(user: str, key: str) -> bytes:
    return _PREFIX + hashlib.sha256(f"{user}\0{key}".encode()).digest()
