"""The catalog: one current snapshot over the key-value store.

    choose    change = edits.create_table(catalog.state, new, …)     pure
    do        catalog.install(change, batch); store.append(batch)    durable with whatever else the batch holds
    install   catalog.publish(change)                                one assignment: readers see it or not

The session does these three under the server-wide commit mutex, so that DDL is ordered with every other commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from flightkalam.catalog.names import DEFAULT_NAMESPACE
from flightkalam.catalog.state import FAMILY, NEXT_TABLE_ID, CatalogState, Change, Draft, Namespace, state_of
from flightkalam.clock import Clock
from flightkalam.errors import ConfigError, Conflict, DataCorrupted, TryAgain
from flightkalam.model.schema import Table, View
from flightkalam.storage.kv import Batch, Store

# The form of everything under the data directory.  A release that changes it adds a step to MIGRATIONS.
FORMAT_VERSION = 1
FORMAT_KEY = b"format_version"
Migration = Callable[[Store, Batch], None]
MIGRATIONS: Mapping[int, Migration] = {}  # from version n to n + 1
_MAX_TABLE_ID = (1 << 32) - 1


def open_format(store: Store, migrations: Mapping[int, Migration] = MIGRATIONS, version: int = FORMAT_VERSION) -> None:
    """Make sure that the data directory has the form this release reads: stamp a new one, migrate an older one.

    :raises ConfigError: the directory was written by a newer release, or by one too old to migrate.
    """
    found = store.get("meta", FORMAT_KEY)
    if found is None:
        if next(store.scan(FAMILY), None) is not None:
            raise DataCorrupted("the data directory holds tables but no format version; restore it from a backup")
        batch = Batch()
        batch.put("meta", FORMAT_KEY, b"%d" % version)
        store.commit(batch)
        return
    if not found.isdigit():
        raise DataCorrupted(f"the data directory's format version is {found!r}, not a number; restore it from a backup")
    if int(found) > version:
        raise ConfigError(
            f"the data directory has format {int(found)} and this release reads up to {version}; start a newer release"
        )
    for step in range(int(found), version):
        if step not in migrations:
            raise ConfigError(
                f"the data directory has format {step}, which this release cannot migrate; start an older release first"
            )
        batch = Batch()
        migrations[step](store, batch)
        batch.put("meta", FORMAT_KEY, b"%d" % (step + 1))
        store.commit(batch)  # each step with its version: a crash in between goes on from there


class Catalog:
    """The current state, loaded from the store.

    :raises ConfigError: the data directory's format is not one this release reads.
    :raises DataCorrupted: a record cannot be read.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        open_format(store)
        self._store = store
        self._lock = threading.Lock()
        self._state = state_of(store.scan(FAMILY))
        self._next_table_id = self._load_next_table_id()
        if DEFAULT_NAMESPACE not in self._state.namespaces:
            self._create_main(clock.now_us())

    def _load_next_table_id(self) -> int:
        found = self._store.get(FAMILY, NEXT_TABLE_ID)
        counter = 1 if found is None else int.from_bytes(found, "big")
        return max(counter, max(self._state.tables, default=0) + 1)

    def _create_main(self, now_us: int) -> None:
        draft = Draft(self._state)
        draft.put_namespace(Namespace(DEFAULT_NAMESPACE, "", now_us))
        change, batch = draft.change(), Batch()
        self.install(change, batch)
        self._store.commit(batch)
        self.publish(change)

    # -- reading ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> CatalogState:
        """The current snapshot.  A statement takes it once and resolves everything in it."""
        return self._state

    def resolve(self, parts: tuple[str, ...], default_namespace: str = DEFAULT_NAMESPACE) -> Table | View:
        return self._state.resolve(parts, default_namespace)

    # -- changing ---------------------------------------------------------------------------------------------

    def new_table_id(self) -> int:
        """An id that no table had and none will have, whether or not a table is made with it.

        It is taken before the table exists, so that an ingest can stage rows and files under it; so two statements
        under way never share one.  The counter is written here and not synced: the log keeps its order, so whatever is
        staged under the id is durable only after it.
        """
        with self._lock:
            table_id = self._next_table_id
            if table_id > _MAX_TABLE_ID:
                raise TryAgain("no table id is left; no more tables can be created in this data directory")
            batch = Batch()
            batch.put(FAMILY, NEXT_TABLE_ID, (table_id + 1).to_bytes(5, "big"))
            self._store.append(batch)
            self._next_table_id = table_id + 1
        return table_id

    def install(self, change: Change, batch: Batch) -> None:
        """Add the change's records to the batch that will carry it.

        :raises Conflict: another change was published since this one was made.
        """
        self._check(change)
        change.write(batch)

    def publish(self, change: Change) -> None:
        """Make the change what every later statement sees.

        :raises Conflict: another change was published since this one was made; nothing is altered.
        """
        with self._lock:
            self._check(change)
            self._state = change.state

    def _check(self, change: Change) -> None:
        if change.base != self._state.version:
            raise Conflict("the catalog was changed by another statement meanwhile; run this one again")
