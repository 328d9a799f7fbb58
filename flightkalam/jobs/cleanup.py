"""Cleanup: remove what a dropped table left on disk, once no reader can need it.

A drop deletes the table's log and manifests in the commit that drops it and leaves a note; the files go later, when the last
snapshot that began before the drop has ended.  The note survives a crash, so nothing is forgotten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flightkalam import failpoints
from flightkalam.cold import paths
from flightkalam.cold.manifests import Manifests
from flightkalam.errors import Cancelled, Fenced
from flightkalam.hot.store import HotLog
from flightkalam.jobs import kinds
from flightkalam.jobs.control import Control
from flightkalam.jobs.job import NotYet
from flightkalam.jobs.runner import Jobs
from flightkalam.model.schema import Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.door import CommitDoor

_NOTE = b"dropped/"
_LOOKS, _LOOK_SECONDS, _AGAIN_SECONDS = 10, 0.05, 1.0


class Cleanup:
    def __init__(self, store: Store, log: HotLog, manifests: Manifests, door: CommitDoor) -> None:
        self._store = store
        self._log = log
        self._manifests = manifests
        self._door = door
        self._readers: dict[int, int] = {}  # by table: the last reader that may use its files

    def dropped(self, batch: Batch, table: Table) -> None:
        """Add to the commit that drops a table: its rows go with it, and a note says which files are to follow."""
        note = {
            "folder": table.folder,
            "storage": table.options.storage_id,
            "segments": self._log.files_of(table.id),
            "table": table.qualified,
        }
        batch.put("meta", _NOTE + b"%d" % table.id, json.dumps(note).encode())
        self._log.drop_table(batch, table.id)
        self._manifests.drop_table(batch, table.id)

    def resume(self, jobs: Jobs) -> None:
        """At start: finish what a stop has interrupted."""
        for key, _ in self._store.scan("meta", _NOTE):
            jobs.submit("cleanup", {"table_id": int(key[len(_NOTE) :])})

    def run(self, wanted: kinds.Cleanup, control: Control) -> dict[str, Any]:
        """The job: once older readers have ended, remove files and note."""
        key = _NOTE + b"%d" % wanted.table_id
        data = self._store.get("meta", key)
        if data is None:
            return {"removed": False}
        note = json.loads(data)
        self._wait_for_readers(wanted.table_id, control)
        left = self._remove(self._manifests.root_of(note.get("storage")) / note["folder"], note["table"])
        failpoints.hit("cleanup.removed")
        self._log.remove_files(note["segments"])
        batch = Batch()
        batch.delete("meta", key)
        self._store.append(batch)
        return {"removed": True, "table": note["table"], **({"files_of_others": left} if left else {})}

    def _wait_for_readers(self, table_id: int, control: Control) -> None:
        """:raises NotYet: a reader takes its time; another job may have the worker meanwhile."""
        limit = self._readers.setdefault(table_id, self._door.readers_before())
        for _ in range(_LOOKS):
            if self._door.readers_gone(limit):
                self._readers.pop(table_id, None)
                return
            if control.wait(_LOOK_SECONDS):
                raise Cancelled("the cleanup was stopped; it goes on at the next start")
        raise NotYet("a reader from before the drop still uses the files", _AGAIN_SECONDS)

    def _remove(self, folder: Path, table: str) -> int:
        """Remove a table's files; returns how many were left, because another server has taken their scope over."""
        left = 0
        for scope, files in objects.tree(folder):
            try:
                self._manifests.publisher.read(scope / paths.MANIFEST, table)
            except Fenced:
                left += len(files)
                continue
            manifest = scope / paths.MANIFEST
            objects.remove_all([f for f in files if f != manifest])
            objects.remove_all([f for f in files if f == manifest])  # last: it says whose the others are
        self._manifests.publisher.forget(folder)
        objects.remove_tree(folder)
        return left

    def waiting_for(self, storage: str) -> list[int]:
        """Ids of the dropped tables of a storage whose files are still there."""
        notes = ((key, json.loads(data)) for key, data in self._store.scan("meta", _NOTE))
        return [int(key[len(_NOTE) :]) for key, note in notes if (note.get("storage") or "").lower() == storage.lower()]
