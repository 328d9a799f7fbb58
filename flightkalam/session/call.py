"""One call of a session: the session with what the call's own headers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from flightkalam.session import ingest as ingest_
from flightkalam.session.receipts import HEADER, Receipt
from flightkalam.session.session import Session


class Call:
    """Meets the wire's `Session` protocol; writes are done once per idempotency key."""

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
        return self._unless_inside(transaction, lambda receipt: self.session.update(sql, transaction, receipt))

    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int:
        inside = self.session.in_transaction(handle)
        return self._unless_inside(inside, lambda receipt: self.session.update_prepared(handle, parameters, receipt))

    def _unless_inside(self, transaction: object, run: Callable[[Receipt | None], int]) -> int:
        """Inside a transaction the key belongs to COMMIT."""
        return run(None) if transaction is not None else self._once(run)

    def ingest(
        self,
        request: ingest_.IngestRequest,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        headers: Mapping[str, str],
    ) -> int:
        return self._once(lambda receipt: self.session.ingest(request, schema, batches, headers, receipt))

    def end(self, transaction: bytes, commit: bool) -> None:
        if commit:
            self._once(lambda receipt: self.session.end(transaction, True, receipt))
        else:
            self.session.end(transaction, False)
