"""What the jobs flush, compact, retention and store_rewrite do: for all scopes of their tables, or for some owners' only.

A table that was dropped since is passed over; a job of which none is left is skipped.  One scope that cannot be worked on
does not keep the others from their turn: its error is the job's, when all have had it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flightkalam.errors import Cancelled, KalamError, TryAgain
from flightkalam.jobs import kinds
from flightkalam.jobs.compact import Compacted, Compactor
from flightkalam.jobs.compact_policy import Want, wants_compaction
from flightkalam.jobs.control import Control
from flightkalam.jobs.flush import Flusher
from flightkalam.jobs.job import Skipped
from flightkalam.jobs.retention import RowExpiry
from flightkalam.jobs.runner import Jobs
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.table.scopes import Scopes


@dataclass
class _Each:
    """Goes on after a scope that failed, and says so at the end."""

    failure: KalamError | None = None

    def __enter__(self) -> _Each:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, KalamError) or isinstance(error, (Cancelled, TryAgain)):
            return False  # stopped, or nothing would fare better now
        self.failure = self.failure or error
        return True

    def over(self) -> None:
        if self.failure is not None:
            raise self.failure


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

    def flush(self, wanted: kinds.Flush, control: Control) -> dict[str, Any]:
        total, each = {"batches": 0, "rows": 0, "bytes": 0}, _Each()
        for table in self._tables(wanted.tables):
            flushed = []
            for scope in self._scopes_of(table, wanted.owners):
                control.step("scopes flushed so far stay flushed")
                with each:
                    done = self.flusher.flush(table, scope.owner, control)
                    flushed += [scope] if done.batches else []
                    total["batches"] += len(done.batches)
                    total["rows"] += done.rows
                    total["bytes"] += done.bytes
            self._compact_where_it_pays(table, flushed)
        self.count("flush_rows", total["rows"])
        each.over()
        return total

    def compact(self, wanted: kinds.Compact, control: Control) -> dict[str, Any]:
        done, each = [], _Each()
        for table in self._tables([wanted.table]):
            for scope in self._scopes_of(table, wanted.owners):
                control.step("scopes compacted so far stay compacted")
                with each:
                    done.append(self.compactor.compact(table, scope.owner, wanted.wanted, control))
        figures = self._summed(done)
        each.over()
        return figures

    def retain(self, wanted: kinds.Retention, control: Control) -> dict[str, Any]:
        expired, done, each = 0, [], _Each()
        for table in self._tables(wanted.tables):
            for scope in self._scopes_of(table, None):
                control.step("what was let go so far stays gone")
                with each:
                    expired += self.expiry.expire(table, scope.owner, control)
                    if self._compacts(table):
                        done.append(self.compactor.compact(table, scope.owner, Want.OVERDUE, control))
        figures = {"expired_rows": expired, **self._summed(done)}
        each.over()
        return figures

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

    def rewrite(self, wanted: kinds.Nothing, control: Control) -> dict[str, Any]:
        """Write the store's own files anew, without what was deleted: log entries, manifests, rows kept for RETURNING."""
        self.scopes.log.rewrite_all()
        control.step("the rest of the store is written anew next time")
        self.scopes.manifests.rewrite_all()
        control.step("the rest of the store is written anew next time")
        self.scopes.door.store.rewrite("meta", b"", b"\xff" * 8)
        return {}

    def _tables(self, names: Sequence[str]) -> Iterator[Table]:
        found = [table for name in names if (table := self.find(name)) is not None]
        if names and not found:
            raise Skipped(f"no table is left to work on: {', '.join(names[:5])} does not exist any more")
        return (table for table in found if table.kind is not TableKind.STREAM)

    def _scopes_of(self, table: Table, owners: Sequence[str | None] | None) -> list[Scope]:
        wanted = None if owners is None else frozenset(owners)
        return [s for s in self.scopes.of_table(table) if wanted is None or s.owner in wanted]

    def _compacts(self, table: Table) -> bool:
        return self.automatic and table.options.compaction == "auto"

    def _compact_where_it_pays(self, table: Table, flushed: Sequence[Scope]) -> None:
        if not self._compacts(table):
            return
        policy, manifests = self.compactor.policy, self.scopes.manifests
        owners = [s.owner for s in flushed if wants_compaction(manifests.get(s), table.schema, policy)]
        if owners:
            try:
                self.jobs.submit("compact", {"table": table.qualified, "want": Want.AUTO.value, "owners": owners})
            except TryAgain:
                return  # the service is shutting down; the next flush asks again

    def _summed(self, done: Sequence[Compacted]) -> dict[str, int]:
        each = [asdict(d) for d in done]
        total = {name: sum(d[name] for d in each) for name in asdict(Compacted())}
        self.count("compact_rows", total["rows_in"])
        return total
