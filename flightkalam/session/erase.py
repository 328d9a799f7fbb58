"""ERASE: delete rows, and return when their values are in no file of ours.

    delete        as DELETE does: from here on no query sees the rows
    flush         the scope's hot rows become batches; log entries and segment files go
    wait          for the readers that may still need what is to go
    compact       every batch with superseded rows or tombstones, retention or not: rows and tombstones go
    wait          for the readers that hold the batches from before; then those files are gone
    rewrite       the store's own files, in which the log's entries and old manifests (their bounds are values) lay
    forget        the rows that RETURNING gave, which are kept for idempotency keys: of any table, for they do not say of which

Versions of the rows from before, superseded long ago, go in the same way.  What is not ours to erase: backups, and what
clients have read.  Stopped on its way, by a cancellation or a crash, the rows stay deleted; run it again to finish.
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pyarrow as pa

from flightkalam.errors import Cancelled
from flightkalam.jobs.compact_policy import Want
from flightkalam.jobs.kinds import ASKED
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table
from flightkalam.session import dml
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.session.writes import Written
from flightkalam.sql import statements as s
from flightkalam.storage import objects

ERASE_SCHEMA = pa.schema(
    [
        pa.field("table", pa.utf8(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("erased_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)
_STEP_SECONDS = 0.05


def erase(e: Execution, statement: s.Erase) -> Rows:
    """One row: how many visible rows were deleted, and since when nothing of them is on disk."""
    written = erase_rows(e, s.Delete(statement.table, where=statement.where))
    table = written.table
    done = dt.datetime.fromtimestamp(e.parts.clock.now_us() / 1_000_000, dt.UTC)
    return rows_of(pa.table([[table.qualified], [written.count], [done]], schema=ERASE_SCHEMA))


def erase_rows(e: Execution, statement: s.Delete) -> Written:
    """Delete rows, and return when they are gone from every file."""
    written = dml.delete(e, statement)
    table, owner = written.table, e.owner(written.table)
    e.close()  # our own snapshot must not hold back what is to go
    _remove_from_files(e, table, owner)
    return written


def _remove_from_files(e: Execution, table: Table, owner: str | None) -> None:
    scopes = e.parts.scopes
    _run(e, "flush", {"tables": [table.qualified], "owners": [owner]})
    _wait_for_readers(e)
    _run(e, "compact", {"table": table.qualified, "want": Want.ERASE.value, "owners": [owner]})
    _wait_for_readers(e)
    scope = Scope(table.id, owner)
    objects.settle(scopes.manifests.folder(table, scope))
    scopes.log.rewrite(scope)
    scopes.manifests.rewrite(scope)
    e.parts.receipts.forget_rows()


def _run(e: Execution, kind: str, parameters: dict[str, Any]) -> None:
    jobs = e.parts.jobs
    job_id = jobs.submit(kind, parameters, priority=ASKED, attempts=1, asked_by=e.identity.actor_id)
    jobs.wait(job_id, lambda: e.cancel.cancelled)


def _wait_for_readers(e: Execution) -> None:
    """Return when every reader that there is now has ended, and what waited for them has been done.

    A snapshot that the session itself holds in a transaction would never end: ERASE runs outside of transactions.
    """
    gone = threading.Event()
    e.parts.scopes.door.after_readers(gone.set)
    while not gone.wait(_STEP_SECONDS):
        if e.cancel.cancelled:
            raise Cancelled("the erasure was cancelled: the rows are deleted, but still in files; run it again to finish")
