"""What the jobs flush, compact and retention do: each for all scopes of its tables, or for some owners' only.

    flush       {"tables": ["ns.t", …], "owners"?: [name, …]}      then asks for a compaction where one pays
    compact     {"table": "ns.t", "want": "auto" | "all" | "overdue" | "erase", "owners"?: [name, …]}
    retention   {"tables": ["ns.t", …]}                             rows past ROW_RETENTION, then what compaction may let go
    store_rewrite  {}                                               what was deleted leaves the store's own files too

Unknown parameters are ignored; a table that was dropped since is passed over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any

from flightkalam.errors import TryAgain
from flightkalam.jobs.compact import Compacted, Compactor
from flightkalam.jobs.compact_policy import Want, wants_compaction
from flightkalam.jobs.flush import Flusher
from flightkalam.jobs.retention import RowExpiry
from flightkalam.jobs.runner import Job, Jobs
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.storage.patience import stopped_by
from flightkalam.table.scopes import Scopes

Task = Callable[["Upkeep", Job, threading.Event], dict[str, Any]]


def _stoppable(run: Task) -> Task:
    """Its requests to object stores end when the job is cancelled."""

    @wraps(run)
    def stoppable(self: Upkeep, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        with stopped_by(cancelled.is_set):
            return run(self, job, cancelled)

    return stoppable


@dataclass(frozen=True)
class Upkeep:
    """:param find: the table that `ns.t` names, None when there is none.
    :param automatic: whether tables with COMPACTION 'auto' are compacted by themselves.
    :param count: adds to a counter.
    """

    scopes: Scopes
    jobs: Jobs
    flusher: Flusher
    compactor: Compactor
    expiry: RowExpiry
    find: Callable[[str], Table | None]
    automatic: bool
    count: Callable[[str, int], None]

    def register(self) -> None:
        self.jobs.register("flush", self.flush)
        self.jobs.register("compact", self.compact)
        self.jobs.register("retention", self.retain)
        self.jobs.register("store_rewrite", self.rewrite)

    @_stoppable
    def flush(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        total = {"batches": 0, "rows": 0, "bytes": 0}
        for table in self._tables(job.parameters["tables"]):
            flushed = []
            for scope in self._scopes_of(table, job):
                done = self.flusher.flush(table, scope.owner, cancelled)
                flushed += [scope] if done.batches else []
                total["batches"] += len(done.batches)
                total["rows"] += done.rows
                total["bytes"] += done.bytes
            self._compact_where_it_pays(table, flushed)
        self.count("flush_rows", total["rows"])
        return total

    @_stoppable
    def compact(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        done = []
        for table in self._tables([job.parameters["table"]]):
            for scope in self._scopes_of(table, job):
                done.append(self.compactor.compact(table, scope.owner, Want(job.parameters["want"]), cancelled))
        return self._summed(done)

    @_stoppable
    def retain(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        expired, done = 0, []
        for table in self._tables(job.parameters["tables"]):
            for scope in self._scopes_of(table, job):
                expired += self.expiry.expire(table, scope.owner, cancelled)
                if self._compacts(table):
                    done.append(self.compactor.compact(table, scope.owner, Want.OVERDUE, cancelled))
        return {"expired_rows": expired, **self._summed(done)}

    def retention_due(self, tables: Iterable[Table]) -> dict[str, Any] | None:
        """The parameters of a retention job for the tables that need one; None when none does."""
        names = [t.qualified for t in tables if t.kind is not TableKind.STREAM and self._needs_retention(t)]
        return {"tables": names} if names else None

    def _needs_retention(self, table: Table) -> bool:
        if table.options.row_retention is not None:
            return True
        if not self._compacts(table):
            return False
        return any(self.compactor.overdue(table, scope.owner) for scope in self.scopes.manifests.scopes(table.id))

    def rewrite(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        """Write the store's own files anew, without what was deleted: log entries, manifests, rows kept for RETURNING."""
        self.scopes.log.rewrite_all()
        self.scopes.manifests.rewrite_all()
        self.scopes.door.store.rewrite("meta", b"", b"\xff" * 8)
        return {}

    def _tables(self, names: Sequence[str]) -> Iterator[Table]:
        for name in names:
            table = self.find(name)
            if table is not None and table.kind is not TableKind.STREAM:
                yield table

    def _scopes_of(self, table: Table, job: Job) -> list[Scope]:
        owners = job.parameters.get("owners")
        return [s for s in self.scopes.of_table(table) if owners is None or s.owner in owners]

    def _compacts(self, table: Table) -> bool:
        return self.automatic and table.options.compaction == "auto"

    def _compact_where_it_pays(self, table: Table, flushed: Sequence[Scope]) -> None:
        if not self._compacts(table):
            return
        policy, manifests = self.compactor.policy, self.scopes.manifests
        if any(wants_compaction(manifests.get(scope), table.schema, policy) for scope in flushed):
            try:
                self.jobs.submit("compact", {"table": table.qualified, "want": Want.AUTO.value})
            except TryAgain:
                return  # the service is shutting down; the next flush asks again

    def _summed(self, done: Sequence[Compacted]) -> dict[str, int]:
        each = [asdict(d) for d in done]
        total = {name: sum(d[name] for d in each) for name in asdict(Compacted())}
        self.count("compact_rows", total["rows_in"])
        return total
