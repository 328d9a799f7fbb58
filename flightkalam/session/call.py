"""One call of a session: the session with what the call's own headers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from flightkalam.session import ingest as ingest_
from flightkalam.session.outcome import Rows, count_rows, rows_of
from flightkalam.session.receipts import HEADER, Receipt
from flightkalam.session.session import Session


class Call:
    """Meets the wire's `Session` protocol; writes are done once per idempotency key, which inside a transaction is COMMIT's."""

    def __init__(self, session: Session, headers: Mapping[str, str]) -> None:
        self.session = session
        self._key = headers.get(HEADER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def _once(self, run: Callable[[Receipt | None], int]) -> int:
        if self._key is None:
            return run(None)
        return self.session.parts.receipts.once(self.session.identity.user_id, self._key, run)

    def update(self, sql: str, transaction: bytes | None) -> int:
        if self._key is None or not self.session.takes_key(sql, transaction):
            return self.session.update(sql, transaction)
        return self._ended_once(None, lambda receipt: self.session.update(sql, transaction, receipt))

    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int:
        if self._key is None or not self.session.takes_key_prepared(handle):
            return self.session.update_prepared(handle, parameters)
        return self._ended_once(None, lambda receipt: self.session.update_prepared(handle, parameters, receipt))

    def fetch(self, handle: bytes, on_start: Callable[[Callable[[], None]], None] | None = None) -> Rows:
        planned = None if self._key is None else self.session.announced_write(handle)
        if planned is None or self._key is None:
            return self.session.fetch(handle, None, on_start)

        def run(receipt: Receipt) -> pa.Table:
            rows = self.session.fetch(handle, receipt)
            return pa.Table.from_batches(list(rows), rows.schema)

        receipts, user = self.session.parts.receipts, self.session.identity.user_id
        with self.session.rolled_back_at_end(None):
            if planned.is_update:
                return count_rows(receipts.once(user, self._key, lambda receipt: int(run(receipt).column(0)[0].as_py())))
            return rows_of(receipts.rows_once(user, self._key, planned.schema, run))

    def _ended_once(self, transaction: bytes | None, run: Callable[[Receipt | None], int]) -> int:
        """Write once; a COMMIT that has been done before leaves the repeated transaction rolled back."""
        with self.session.rolled_back_at_end(transaction):
            return self._once(run)

    def ingest(
        self,
        request: ingest_.IngestRequest,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        headers: Mapping[str, str],
    ) -> int:
        if self.session.ingests_in_transaction:
            return self.session.ingest(request, schema, batches, headers)
        return self._once(lambda receipt: self.session.ingest(request, schema, batches, headers, receipt))

    def end(self, transaction: bytes, commit: bool) -> None:
        """A COMMIT of nothing is no write and leaves the key for one that is."""
        if commit and self.session.may_have_written(transaction):
            self._ended_once(transaction, lambda receipt: self.session.end(transaction, True, receipt))
        else:
            self.session.end(transaction, commit)
