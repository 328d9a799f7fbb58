"""A data directory whose store is lost, made again from the Parquet files in `cold`.

    choose    survey the folders; per table its definition, per scope the manifest that its files make; what is lost
    do        set aside what cannot be used, in `lost`; commit and publish the manifests
    install   one write: catalog, next table id, highest `_seq`, format version.  Until then the store counts as empty,
              a server refuses to start on it, and this can simply be run again

What comes back is what was flushed last: rows, tables with their ids, columns and options, namespaces that have tables.
What only the store held does not: rows that were not flushed yet, STREAM tables, tables that were never flushed, views,
accounts, tokens, storages, the audit log.

A batch that is proven missing or damaged is a *loss*.  It is not only rows that go with it: a row that it had changed or
deleted shows its state from before.  So nothing is made while there is a loss, unless it is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flightkalam import failpoints
from flightkalam.catalog.catalog import FORMAT_KEY, FORMAT_VERSION
from flightkalam.catalog.names import DEFAULT_NAMESPACE, fold
from flightkalam.catalog.state import FAMILY, NEXT_TABLE_ID, CatalogState, Draft, Namespace, object_name
from flightkalam.clock import Clock
from flightkalam.cold import rebuild, survey
from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifests import Manifests
from flightkalam.cold.storages import CACHE
from flightkalam.cold.survey import ScopeFiles
from flightkalam.errors import ConfigError, DataCorrupted
from flightkalam.hot.store import HotLog
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store
from flightkalam.table import recovery
from flightkalam.table.mutate import LAST_SEQ

COLD, HOT, LOST = "cold", "hot", "lost"
# Ids of tables that left no folder behind are not known; in an object store, files under such an id may be left.
_SPARE_IDS = 1_000
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Loss:
    """:param path: what is set aside when the loss is accepted; None: nothing is there."""

    what: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A scope as its files make it."""

    scope: Scope
    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    tables: tuple[tuple[Table, tuple[Kept, ...]], ...]
    losses: tuple[Loss, ...]
    notes: tuple[str, ...]
    next_table_id: int
    last_seq: int


def is_lost(root: Path, store: Store | None) -> bool:
    """Whether the store holds nothing while files are there that only it could give a meaning to."""
    if store is not None and store.get("meta", FORMAT_KEY) is not None:
        return False
    return any(any(survey.folders(root / name)) for name in (COLD, CACHE)) or any((root / HOT).glob("seg-*"))


def refuse_lost(root: Path, store: Store | None) -> None:
    """:raises ConfigError: a start would take a directory for new whose store is lost, and its files for nobody's."""
    if is_lost(root, store):
        raise ConfigError(
            f"the data directory {root} has table files, but its store is empty or missing: what they belong to is lost. "
            f"Restore a backup, or make the store again from the Parquet files with `flightkalam recover --data-dir {root}`; "
            "to begin with nothing, choose another --data-dir"
        )


@dataclass(frozen=True)
class Recoverer:
    """:param root: the data directory; no server may run on it.
    :param manifests: over the empty store.
    """

    root: Path
    store: Store
    manifests: Manifests
    log: HotLog
    clock: Clock
    report: Report

    def run(self, *, accept_loss: bool) -> int:
        """:return: 0; or 1, with nothing changed, when something is lost and that is not accepted."""
        plan = self._choose()
        for loss in plan.losses:
            self.report(f"LOST  {loss.what}")
        if plan.losses and not accept_loss:
            self.report(
                "nothing was changed: put the files back from a backup and run this again; or run it with --accept-loss, and "
                "rows in lost batches are gone, while rows that they had changed or deleted show what they were before"
            )
            return 1
        self._install(self._without_losses(plan))
        return 0

    # -- choose -----------------------------------------------------------------------------------------------

    def _choose(self) -> Plan:
        cold = self.root / COLD
        found = list(survey.scopes(cold))
        losses = [
            Loss(f"{s.folder.relative_to(cold)}: not the folder of a table, and has batches in it", s.folder)
            for s in found
            if s.table_id is None
        ]
        tables: list[tuple[Table, tuple[Kept, ...]]] = []
        notes: list[str] = []
        taken: set[tuple[str, str]] = set()
        for table_id, group in reversed(list(survey.by_table(found))):  # a name is that of the youngest table that has it
            table = self._definition(table_id, group, losses)
            if table is not None:
                table = _named(table, taken, notes)
                tables.append((table, tuple(self._kept(table, group, losses))))
        ids = [i for name in (COLD, CACHE) for i in survey.table_ids(self.root / name)]
        return Plan(
            tuple(reversed(tables)),
            tuple(losses),
            (*notes, *self._elsewhere()),
            max([*ids, *(t.id for t, _ in tables)], default=0) + _SPARE_IDS + 1,
            max((s.last_seq for s in found), default=0),
        )

    def _definition(self, table_id: int, group: list[ScopeFiles], losses: list[Loss]) -> Table | None:
        cold, table = self.root / COLD, survey.definition(group)
        folder = _table_folder(cold, group[0].folder)
        if table is None:
            names = [n for s in group for n in (*s.damaged, *s.missing)]
            if names:
                what = f"{folder.relative_to(cold)}: no file says what the table was ({_listed(names)} missing or damaged)"
                losses.append(Loss(what, folder))
            return None
        if (table.id, cold / table.folder) != (table_id, folder):
            what = f"{folder.relative_to(cold)}: holds the files of table {table.id}, whose folder is {table.folder}"
            losses.append(Loss(what, folder))
            return None
        return replace(table, options=replace(table.options, storage_id=None))

    def _kept(self, table: Table, group: list[ScopeFiles], losses: list[Loss]) -> Iterator[Kept]:
        for files in group:
            where = f'table "{table.qualified}"' + ("" if files.owner is None else f', rows of "{files.owner}"')
            losses += [Loss(f"{where}: {name} is missing") for name in files.missing]
            scope = Scope(table.id, files.owner)
            if files.folder != self.manifests.folder(table, scope):
                bad = f"{files.folder.relative_to(self.root / COLD)}: no file in it says whose rows it holds"
                losses.append(Loss(f'table "{table.qualified}": {bad}', files.folder))
                continue
            try:
                kept = Kept(scope, files.folder, self._derived(table, scope, files))
            except DataCorrupted as e:
                losses += self._why(table, scope, files.folder, where, e)
            else:
                yield kept

    def _derived(self, table: Table, scope: Scope, files: ScopeFiles) -> Manifest:
        now = self.clock.now_us()
        made = recovery.derived(self.manifests, self.log, BatchReader(), table, scope, files.folder, now)
        used = -1 if files.published is None else files.published.max_batch  # a lost batch's number is not given out again
        return replace(made, max_batch=max(made.max_batch, used))

    def _why(self, table: Table, scope: Scope, folder: Path, where: str, error: DataCorrupted) -> list[Loss]:
        """Every file that stands in the way; the folder, when it is none of them alone."""
        bad = rebuild.unusable(folder, scope, table.schema, BatchReader())
        if not bad:
            return [Loss(f"{where}: {error.message}", folder)]
        return [Loss(f"{where}: {name} is damaged", folder / name) for name in bad]

    def _elsewhere(self) -> Iterator[str]:
        """What is not in `cold`."""
        for folder in sorted((self.root / CACHE).iterdir()) if (self.root / CACHE).is_dir() else ():
            if any(survey.folders(folder)):
                yield (
                    f'tables of storage "{folder.name}" are in its object store: copied from there into {self.root / COLD} '
                    "before this is run, they come back as local tables"
                )
        segments = list((self.root / HOT).glob("seg-*"))
        if segments:
            yield f"{len(segments)} files of rows not flushed yet cannot be placed without the log; they are in {LOST}/{HOT}"

    # -- do ---------------------------------------------------------------------------------------------------

    def _without_losses(self, plan: Plan) -> Plan:
        """The plan for what can be used, with the rest set aside."""
        while any(loss.path is not None for loss in plan.losses):
            for path in sorted({loss.path for loss in plan.losses if loss.path is not None}):
                if path.exists():  # it went with its folder, else
                    self._set_aside(path)
            plan = self._choose()  # each round takes something away
        return plan

    def _set_aside(self, path: Path) -> None:
        target, n = self.root / LOST / path.relative_to(self.root), 0
        while (free := target.with_name(f"{target.name}.{n}" if n else target.name)).exists():
            n += 1
        objects.set_aside(path, free)
        self.report(f"moved {path.relative_to(self.root)} to {free.relative_to(self.root)}")

    # -- install ----------------------------------------------------------------------------------------------

    def _install(self, plan: Plan) -> None:
        for table, scopes in plan.tables:
            for kept in scopes:
                self.manifests.restore(kept.manifest, kept.folder, table.qualified)
            self.report(_line(table, scopes))
        if any((self.root / HOT).glob("seg-*")):
            self._set_aside(self.root / HOT)
        failpoints.hit("recover.before_install")
        self.store.commit(self._records(plan))
        for note in plan.notes:
            self.report(f"note: {note}")
        self.report(
            f"recovered {len(plan.tables)} tables as they were last flushed. Rows not flushed by then, STREAM tables, views, "
            "accounts, tokens and storages were in the store only; the next start makes a new root"
        )

    def _records(self, plan: Plan) -> Batch:
        draft, now = Draft(CatalogState()), self.clock.now_us()
        namespaces = {fold(t.namespace): Namespace(t.namespace, "", now) for t, _ in plan.tables}
        for namespace in ({fold(DEFAULT_NAMESPACE): Namespace(DEFAULT_NAMESPACE, "", now)} | namespaces).values():
            draft.put_namespace(namespace)
        for table, _ in plan.tables:
            draft.put_table(table)
        batch = Batch()
        draft.change().write(batch)
        batch.put(FAMILY, NEXT_TABLE_ID, plan.next_table_id.to_bytes(5, "big"))
        batch.put("meta", LAST_SEQ, plan.last_seq.to_bytes(8, "big"))
        batch.put("meta", FORMAT_KEY, b"%d" % FORMAT_VERSION)
        return batch


def _table_folder(cold: Path, folder: Path) -> Path:
    return cold.joinpath(*folder.relative_to(cold).parts[:2])


def _named(table: Table, taken: set[tuple[str, str]], notes: list[str]) -> Table:
    """The table under its name, or beside one that has the name since: the last flush may be older than a RENAME or DROP."""
    name, n = table.name, 0
    while object_name(table.namespace, name) in taken:
        name, n = f"{table.name}_{table.id}" + (f"_{n}" if n else ""), n + 1
    taken.add(object_name(table.namespace, name))
    if name != table.name:
        notes.append(f'"{table.qualified}" is the name of a younger table, too: the older one is "{table.namespace}.{name}"')
    return replace(table, name=name)


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _line(table: Table, scopes: tuple[Kept, ...]) -> str:
    batches = [b for kept in scopes for b in kept.manifest.batches]
    dead = sum(b.dead.cardinality for b in batches if b.dead is not None)
    rows = sum(b.rows for b in batches)
    return (
        f"{table.qualified} (id {table.id}, {table.kind.value}): {len(scopes)} scopes, {len(batches)} batches, "
        f"{rows} versions, {rows - dead} of them not superseded"
    )
