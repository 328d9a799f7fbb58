"""One call of a session: the session with what the call's own headers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from flightkalam.session import ingest as ingest_
from flightkalam.session.acts import Origin
from flightkalam.session.metadata import TableInfo
from flightkalam.session.outcome import Rows, count_rows, rows_of
from flightkalam.session.receipts import HEADER, Receipt
from flightkalam.session.results import Planned
from flightkalam.session.session import Prepared, Session


class Call:
    """Meets the wire's `Session` protocol; writes are done once per idempotency key, which inside a transaction is COMMIT's."""

    def __init__(self, session: Session, headers: Mapping[str, str], peer: str = "") -> None:
        self.session = session
        self._key = headers.get(HEADER)
        self._origin = Origin.of(headers, peer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def watched(self, on_start: Callable[[Callable[[], None]], None]) -> None:
        """From now on tell how to stop each statement of this call, before it starts."""
        self._origin = replace(self._origin, on_start=on_start)

    # -- what only looks: the session's own, with where the call comes from ------------------------------------

    def prepare(self, sql: str, transaction: bytes | None) -> Prepared:
        return self.session.prepare(sql, transaction, self._origin)

    def plan(self, sql: str, transaction: bytes | None) -> Planned:
        return self.session.plan(sql, transaction, self._origin)

    def plan_prepared(self, handle: bytes) -> Planned:
        return self.session.plan_prepared(handle, self._origin)

    def describe(self, sql: str, transaction: bytes | None) -> pa.Schema:
        return self.session.describe(sql, transaction, self._origin)

    def schemas(self, catalog: str | None, pattern: str | None) -> list[tuple[str, str]]:
        return self.session.schemas(catalog, pattern, self._origin)

    def tables(
        self,
        catalog: str | None,
        schema_pattern: str | None,
        table_pattern: str | None,
        types: Sequence[str],
        include_schema: bool,
    ) -> list[TableInfo]:
        return self.session.tables(catalog, schema_pattern, table_pattern, types, include_schema, self._origin)

    def primary_key(self, catalog: str | None, schema: str | None, table: str) -> list[str]:
        return self.session.primary_key(catalog, schema, table, self._origin)

    def set_option(self, name: str, value: object) -> None:
        self.session.set_option(name, value, self._origin)

    # -- what writes -------------------------------------------------------------------------------------------

    def _once(self, run: Callable[[Receipt | None], int]) -> int:
        if self._key is None:
            return run(None)
        return self.session.parts.receipts.once(self._principal, self._key, run)

    @property
    def _principal(self) -> str:
        """Whose idempotency key it is.  No user id holds the control character between the two names."""
        subject = self._origin.as_user or self.session.settings.as_user
        actor = self.session.identity.user_id
        return actor if subject is None else f"{actor}\1{subject}"

    def update(self, sql: str, transaction: bytes | None) -> int:
        if self._key is None or not self.session.takes_key(sql, transaction):
            return self.session.update(sql, transaction, None, self._origin)
        return self._ended_once(None, lambda receipt: self.session.update(sql, transaction, receipt, self._origin))

    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int:
        if self._key is None or not self.session.takes_key_prepared(handle):
            return self.session.update_prepared(handle, parameters, None, self._origin)
        return self._ended_once(None, lambda receipt: self.session.update_prepared(handle, parameters, receipt, self._origin))

    def fetch(self, handle: bytes, on_start: Callable[[Callable[[], None]], None] | None = None) -> Rows:
        planned = None if self._key is None else self.session.announced_write(handle)
        if planned is None or self._key is None:
            return self.session.fetch(handle, None, on_start, self._origin)

        def run(receipt: Receipt) -> pa.Table:
            rows = self.session.fetch(handle, receipt, origin=self._origin)
            return pa.Table.from_batches(list(rows), rows.schema)

        receipts, user = self.session.parts.receipts, self._principal
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
            return self.session.ingest(request, schema, batches, headers, None, self._origin)
        return self._once(lambda receipt: self.session.ingest(request, schema, batches, headers, receipt, self._origin))

    def end(self, transaction: bytes, commit: bool) -> None:
        """A COMMIT of nothing is no write and leaves the key for one that is."""
        if commit and self.session.may_have_written(transaction):
            self._ended_once(transaction, lambda receipt: self.session.end(transaction, True, receipt))
        else:
            self.session.end(transaction, commit)
