"""Storages as SQL: CREATE STORAGE, ALTER STORAGE, DROP STORAGE, SHOW STORAGES."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.catalog import storages
from flightkalam.errors import DependentObjects
from flightkalam.model.storage import LOCAL, Storage
from flightkalam.session import ddl
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s

STORAGES_SCHEMA = pa.schema(
    [
        pa.field("storage_id", pa.utf8(), nullable=False),
        pa.field("type", pa.utf8(), nullable=False),
        pa.field("url", pa.utf8()),
        pa.field("region", pa.utf8()),
        pa.field("endpoint", pa.utf8()),
        pa.field("credentials", pa.utf8(), nullable=False),
        pa.field("tables", pa.int64(), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC")),
    ]
)


def create_storage(e: Execution, statement: s.CreateStorage) -> int:
    """Nothing is created that does not work: the storage is written to and read from first."""
    authorise.require(e.identity, Action.MANAGE_STORAGES)
    made = storages.new_storage(statement.name, statement.options, e.parts.clock.now_us())
    storages.create_storage(e.state, made)  # refused before anything is written there
    e.parts.storages.probe(made)
    ddl.commit(e, lambda state: storages.create_storage(state, made))
    e.parts.storages.mount(made)
    return 0


def alter_storage(e: Execution, statement: s.AlterStorage) -> int:
    """New keys or another address of the same place, tried before they are kept."""
    authorise.require(e.identity, Action.MANAGE_STORAGES)
    old = storages.storage_named(e.state, statement.name)
    new = storages.altered(old, statement.options)
    e.parts.storages.probe(new)
    ddl.commit(e, lambda state: storages.alter_storage(state, old, new))
    e.parts.storages.mount(new)
    return 0


def drop_storage(e: Execution, statement: s.DropStorage) -> int:
    authorise.require(e.identity, Action.MANAGE_STORAGES)
    found = storages.storage_named(e.state, statement.name)
    storages.drop_storage(e.state, found.name)
    waiting = e.parts.cleanup.waiting_for(found.name)
    for table_id in waiting:
        e.parts.jobs.submit("cleanup", {"table_id": table_id})
    if waiting:
        raise DependentObjects(
            f'the files of {len(waiting)} dropped table(s) are still being removed from storage "{found.name}"; '
            "SHOW JOBS tells how far that is: try again when it is done"
        )
    ddl.commit(e, lambda state: storages.drop_storage(state, found.name))
    e.parts.storages.unmount(found)
    return 0


def show_storages(e: Execution, _: s.ShowStorages) -> pa.Table:
    """What there is, with how it logs in and never with what."""
    authorise.require(e.identity, Action.MANAGE_STORAGES)
    local = Storage(LOCAL, "folder", "")
    found = [local, *(storage for _, storage in sorted(e.state.storages.items()))]
    return pa.table(
        [
            [x.name for x in found],
            [x.type for x in found],
            [x.url or None for x in found],
            [x.region for x in found],
            [x.endpoint for x in found],
            [x.credentials for x in found],
            [len(storages.tables_in(e.state, x)) for x in found],
            [dt.datetime.fromtimestamp(x.created_at_us / 1e6, dt.UTC) if x.created_at_us else None for x in found],
        ],
        schema=STORAGES_SCHEMA,
    )
