"""The immutable snapshot of the catalog, and the change from one snapshot to the next.

A statement takes the current `CatalogState` once and resolves every name in it, without a lock: DDL that commits
meanwhile makes another state.  An edit is a pure function from a state to a `Change`, which holds the new state and the
records that make it durable.  `Draft` alters the two together, in the only place that does, so they cannot drift apart.

    key in family "catalog"                              value (JSON)
    n/ <folded namespace>                                namespace
    t/ <table id, 4 bytes>                               table
    v/ <folded namespace> 00 <folded name>               view
    s/ <folded name>                                     storage, with its keys: the store is readable by the process only
    id/table                                             the next table id, 5 bytes (it may be one past the last)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flightkalam.catalog.names import CATALOG, fold
from flightkalam.errors import (
    Conflict,
    DataCorrupted,
    KalamError,
    UndefinedObject,
    undefined_namespace,
    undefined_table,
)
from flightkalam.model.schema import Table, View, table_from_json, table_to_json
from flightkalam.model.storage import Storage
from flightkalam.storage.kv import Batch

FAMILY = "catalog"
NAMESPACES = b"n/"
TABLES = b"t/"
VIEWS = b"v/"
STORAGES = b"s/"
NEXT_TABLE_ID = b"id/table"

ObjectName = tuple[str, str]  # folded namespace, folded name
Visible = Callable[[Table | View], bool]


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    created_by: str
    created_at_us: int
    comment: str | None = None


def object_name(namespace: str, name: str) -> ObjectName:
    return fold(namespace), fold(name)


@dataclass(frozen=True)
class CatalogState:
    """What exists at one moment.  Never altered; safe to keep for as long as a statement runs.

    :param version: counts the changes since the process started; a change fits only the version it was made from.
    """

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)  # by folded name
    tables: Mapping[int, Table] = field(default_factory=dict)  # by id
    table_ids: Mapping[ObjectName, int] = field(default_factory=dict)
    views: Mapping[ObjectName, View] = field(default_factory=dict)
    version: int = field(default=0, compare=False)
    storages: Mapping[str, Storage] = field(default_factory=dict)  # by folded name

    def namespace(self, name: str) -> Namespace:
        found = self.namespaces.get(fold(name))
        if found is None:
            raise undefined_namespace(name)
        return found

    def find(self, namespace: str, name: str) -> Table | View | None:
        key = object_name(namespace, name)
        table_id = self.table_ids.get(key)
        return self.views.get(key) if table_id is None else self.tables[table_id]

    def table(self, table_id: int) -> Table:
        """The table a statement resolved earlier; gone, if it was dropped since."""
        found = self.tables.get(table_id)
        if found is None:
            raise Conflict("the table was dropped or replaced meanwhile; run the statement again")
        return found

    def resolve(self, parts: tuple[str, ...], default_namespace: str) -> Table | View:
        """What `t`, `ns.t` or `flightkalam.ns.t` means.

        A missing namespace reads as a missing table, so that the answer says nothing about namespaces either.
        """
        namespace, name = split_name(parts, default_namespace)
        found = self.find(namespace, name)
        if found is None:
            raise undefined_table(".".join(parts))
        return found

    def objects(self, namespace: str | None = None) -> list[Table | View]:
        """Tables and views, of one namespace or of all, in the order of their names."""
        wanted = None if namespace is None else fold(namespace)
        found: dict[ObjectName, Table | View] = {n: self.tables[i] for n, i in self.table_ids.items()}
        found |= self.views
        return [found[n] for n in sorted(found) if wanted is None or n[0] == wanted]

    def visible_namespaces(self, visible: Visible) -> list[Namespace]:
        """Those that hold nothing yet or something the caller may see, in the order of their names.

        A namespace whose every object is hidden from the caller stays hidden with them; `main` is everybody's.
        """
        shown = {"main"}
        used: set[str] = set()
        every: tuple[Table | View, ...] = (*self.tables.values(), *self.views.values())
        for found in every:
            folded = fold(found.namespace)
            used.add(folded)
            if folded not in shown and visible(found):
                shown.add(folded)
        return [n for folded, n in sorted(self.namespaces.items()) if folded in shown or folded not in used]


def split_name(parts: tuple[str, ...], default_namespace: str) -> tuple[str, str]:
    """(namespace, name) of a name as it was written."""
    if len(parts) == 3 and fold(parts[0]) != CATALOG:
        raise UndefinedObject(f'database "{parts[0]}" does not exist; the only one is {CATALOG}', sqlstate="3D000")
    if not 1 <= len(parts) <= 3:
        raise UndefinedObject(f'"{".".join(parts)}" is not a table name; write namespace.table', sqlstate="42P01")
    return (default_namespace, parts[0]) if len(parts) == 1 else (parts[-2], parts[-1])


# ---------------------------------------------------------------------------------------------------------------
# Changes


@dataclass(frozen=True, slots=True)
class Change:
    """One step from a state to the next, with the records that make it durable.

    :param base: version of the state it was made from.
    :param table: the table that was made or altered, as it is afterwards.
    :param dropped: tables that are gone; their rows and files are the caller's to clean up.
    """

    base: int
    state: CatalogState
    puts: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()
    table: Table | None = None
    dropped: tuple[Table, ...] = ()

    def write(self, batch: Batch) -> None:
        for key in self.deletes:
            batch.delete(FAMILY, key)
        for key, value in self.puts:
            batch.put(FAMILY, key, value)


class Draft:
    """A state being edited: every method alters the snapshot and its record together."""

    def __init__(self, state: CatalogState) -> None:
        self._base = state.version
        self._namespaces = dict(state.namespaces)
        self._tables = dict(state.tables)
        self._table_ids = dict(state.table_ids)
        self._views = dict(state.views)
        self._storages = dict(state.storages)
        self._records: dict[bytes, bytes | None] = {}
        self._dropped: list[Table] = []

    def put_namespace(self, namespace: Namespace) -> None:
        self._namespaces[fold(namespace.name)] = namespace
        self._records[namespace_key(namespace.name)] = _encode(asdict(namespace))

    def drop_namespace(self, namespace: Namespace) -> None:
        del self._namespaces[fold(namespace.name)]
        self._records[namespace_key(namespace.name)] = None

    def put_storage(self, storage: Storage) -> None:
        self._storages[fold(storage.name)] = storage
        self._records[storage_key(storage.name)] = _encode(asdict(storage))

    def drop_storage(self, storage: Storage) -> None:
        del self._storages[fold(storage.name)]
        self._records[storage_key(storage.name)] = None

    def put_table(self, table: Table) -> None:
        old = self._tables.get(table.id)
        if old is not None:
            del self._table_ids[object_name(old.namespace, old.name)]
        self._tables[table.id] = table
        self._table_ids[object_name(table.namespace, table.name)] = table.id
        self._records[table_key(table.id)] = _encode(table_to_json(table))

    def drop_table(self, table: Table) -> None:
        del self._tables[table.id]
        del self._table_ids[object_name(table.namespace, table.name)]
        self._records[table_key(table.id)] = None
        self._dropped.append(table)

    def put_view(self, view: View) -> None:
        self._views[object_name(view.namespace, view.name)] = view
        self._records[view_key(view.namespace, view.name)] = _encode(asdict(view))

    def drop_view(self, view: View) -> None:
        del self._views[object_name(view.namespace, view.name)]
        self._records[view_key(view.namespace, view.name)] = None

    def change(self, table: Table | None = None) -> Change:
        state = CatalogState(self._namespaces, self._tables, self._table_ids, self._views, self._base + 1, self._storages)
        puts = tuple((k, v) for k, v in self._records.items() if v is not None)
        deletes = tuple(k for k, v in self._records.items() if v is None)
        return Change(self._base, state, puts, deletes, table, tuple(self._dropped))


# ---------------------------------------------------------------------------------------------------------------
# Records


def namespace_key(name: str) -> bytes:
    return NAMESPACES + fold(name).encode()


def table_key(table_id: int) -> bytes:
    return TABLES + table_id.to_bytes(4, "big")


def view_key(namespace: str, name: str) -> bytes:
    """No name holds a NUL, so no two views share a key."""
    return VIEWS + fold(namespace).encode() + b"\0" + fold(name).encode()


def storage_key(name: str) -> bytes:
    return STORAGES + fold(name).encode()


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _view(record: dict[str, Any]) -> View:
    columns = record.pop("columns")
    return View(columns=None if columns is None else tuple(columns), **record)


def state_of(records: Iterator[tuple[bytes, bytes]]) -> CatalogState:
    """The state that the records of family "catalog" describe."""
    namespaces: dict[str, Namespace] = {}
    tables: dict[int, Table] = {}
    views: dict[ObjectName, View] = {}
    storages: dict[str, Storage] = {}
    for key, value in records:
        try:
            if key.startswith(NAMESPACES):
                namespace = Namespace(**json.loads(value))
                namespaces[fold(namespace.name)] = namespace
            elif key.startswith(TABLES):
                table = table_from_json(json.loads(value))
                tables[table.id] = table
            elif key.startswith(VIEWS):
                view = _view(json.loads(value))
                views[object_name(view.namespace, view.name)] = view
            elif key.startswith(STORAGES):
                storage = Storage(**json.loads(value))
                storages[fold(storage.name)] = storage
        except (ValueError, KeyError, TypeError, KalamError) as e:
            raise DataCorrupted(f"the catalog record {key!r} cannot be read ({e}); restore from a backup") from e
    ids = {object_name(t.namespace, t.name): t.id for t in tables.values()}
    return CatalogState(namespaces, tables, ids, views, storages=storages)
