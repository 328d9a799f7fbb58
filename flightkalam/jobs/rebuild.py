"""The jobs that look after what is derived from the files, and after files that are nobody's.

manifest_rebuild     compares each manifest with what the files say of themselves; puts right what differs, also where the
                     scope could not be opened at all
manifest_eviction    lets unused manifests go from memory
orphan_sweep         removes files that no manifest in use names: of every scope of the tables that the job names, else of the
                     scopes in use; the others are swept before their next install
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from flightkalam.clock import Clock
from flightkalam.cold import deletion_vectors, survey
from flightkalam.cold.manifest import Manifest
from flightkalam.errors import Cancelled, DataCorrupted, Fenced
from flightkalam.jobs import installs, kinds
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import Skipped
from flightkalam.jobs.runner import Jobs
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind
from flightkalam.storage.kv import Batch
from flightkalam.table import recovery
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState

_LEFT = "what it has done so far stays"


@dataclass(frozen=True)
class Recovery:
    """:param find: the table that `ns.t` names, None when there is none.
    :param tables: every table that there is.
    """

    scopes: Scopes
    clock: Clock
    find: Callable[[str], Table | None]
    tables: Callable[[], list[Table]]

    def register(self, jobs: Jobs) -> None:
        jobs.register("manifest_rebuild", self.rebuild)
        jobs.register("manifest_eviction", self.evict)
        jobs.register("orphan_sweep", self.sweep)

    def rebuild(self, wanted: kinds.ManifestRebuild, control: Control) -> dict[str, Any]:
        table, owners = self.find(wanted.table), wanted.owners
        done = {"scopes": 0, "rebuilt": 0, "batches": 0}
        if table is None:
            raise Skipped(f'table "{wanted.table}" does not exist any more')
        for scope in self._every(table):
            control.step(_LEFT)
            if owners is None or scope.owner in owners:
                changed, batches = self._rebuild(table, scope.owner)
                done = {
                    "scopes": done["scopes"] + 1,
                    "rebuilt": done["rebuilt"] + changed,
                    "batches": done["batches"] + batches,
                }
        return done

    def _every(self, table: Table) -> list[Scope]:
        """The scopes of a table, those included of which there are only files: every record of them is lost."""
        if table.kind is not TableKind.USER:
            return self.scopes.of_table(table) or [Scope(table.id)]
        found, manifests = self.scopes.of_table(table), self.scopes.manifests
        known = {manifests.folder(table, scope) for scope in found}
        owners = survey.owners(manifests.folder(table, Scope(table.id)), known)
        return [*found, *(Scope(table.id, owner) for owner in sorted(owners))]

    def _rebuild(self, table: Table, owner: str | None) -> tuple[bool, int]:
        """Whether the manifest of a scope was another than its files say, and how many batches it has."""
        try:
            scope = self.scopes.open(table, owner)
        except Fenced:
            raise
        except DataCorrupted:  # the copy is newer than what is committed: the files are taken as they are
            found = self.scopes.adopt(table, owner).state.manifest
            return True, len(found.batches)
        with scope.installs:
            installs.sweep(self.scopes, scope, table.qualified)
            old, s = scope.state.manifest, self.scopes
            if not old.batches:
                return False, 0
            new = recovery.derived(s.manifests, s.log, s.reader, table, scope.scope, scope.folder, self.clock.now_us())
            if _same(old, new) and _readable(scope, old):
                return False, len(old.batches)
            if [b.uuid for b in old.batches] != [b.uuid for b in new.batches]:
                raise DataCorrupted(
                    f'the files of table "{table.qualified}" are not those that its manifest names; restore them from a backup'
                )
            self._install(scope, table, new)
            installs.publish(s, scope, table.qualified)
            installs.leave(s, scope, old)
        return True, len(new.batches)

    def _install(self, scope: OpenScope, table: Table, new: Manifest) -> None:
        door, manifests = self.scopes.door, self.scopes.manifests
        with scope.lock, door.mutex:
            if self.scopes.current(table.id) is None:
                raise Cancelled(f'table "{table.qualified}" was dropped during the rebuild')
            batch = Batch()
            entry = manifests.stage(batch, new, scope.folder)
            position = door.append(batch, None)
            manifests.committed(entry)
            scope.swap(ScopeState(scope.state.layout + 1, new, scope.state.hot, scope.state.since), door.oldest_pin())
        door.wait(position)
        self.scopes.counters.add("manifest_rebuilds")

    def evict(self, wanted: kinds.ManifestEviction, control: Control) -> dict[str, Any]:
        return {"evicted": self.scopes.manifests.evict(wanted.idle_seconds)}

    def sweep(self, wanted: kinds.OfTables, control: Control) -> dict[str, Any]:
        swept = 0
        for table, owner in self._chosen(wanted):
            control.step(_LEFT)
            scope = self.scopes.open(table, owner)
            with scope.installs:  # no install is under way: none of its files is taken for nobody's (T-42)
                scope.swept = False
                installs.sweep(self.scopes, scope, table.qualified)
            swept += 1
        return {"scopes": swept}

    def _chosen(self, wanted: kinds.OfTables) -> Iterator[tuple[Table, str | None]]:
        names = wanted.tables
        if names is None:
            by_id = {t.id: t for t in self.tables()}
            found = [(by_id[s.scope.table_id], s.scope) for s in self.scopes.opened() if s.scope.table_id in by_id]
        else:
            tables = [t for name in names if (t := self.find(name)) is not None]
            found = [(t, scope) for t in tables for scope in self.scopes.of_table(t)]
        return ((t, scope.owner) for t, scope in found if t.kind is not TableKind.STREAM)


def _same(old: Manifest, new: Manifest) -> bool:
    """But for version and time, which are the rebuild's own."""
    return replace(new, version=old.version, generated_at_us=old.generated_at_us) == old


def _readable(scope: OpenScope, manifest: Manifest) -> bool:
    """Whether every vector is there, on the disk and not only in a cache."""
    try:
        for batch in manifest.batches:
            if batch.dead is not None:
                deletion_vectors.read(scope.folder, batch.dead)
    except DataCorrupted:
        return False
    return True
