"""Cleanup: remove what a dropped table left on disk, once no reader can need it.

A drop deletes the table's log and manifests in the commit that drops it and leaves a note; the files go later, when the last
snapshot that began before the drop has ended.  The note survives a crash, so nothing is forgotten.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from flightkalam import failpoints
from flightkalam.cold.manifests import Manifests
from flightkalam.errors import Cancelled
from flightkalam.hot.store import HotLog
from flightkalam.jobs.runner import Job, Jobs
from flightkalam.model.schema import Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.door import CommitDoor

_NOTE = b"dropped/"


class Cleanup:
    def __init__(self, store: Store, log: HotLog, manifests: Manifests, door: CommitDoor) -> None:
        self._store = store
        self._log = log
        self._manifests = manifests
        self._door = door

    def dropped(self, batch: Batch, table: Table) -> None:
        """Add to the commit that drops a table: its rows go with it, and a note says which files are to follow."""
        note = {"folder": table.folder, "segments": self._log.files_of(table.id), "table": table.qualified}
        batch.put("meta", _NOTE + b"%d" % table.id, json.dumps(note).encode())
        self._log.drop_table(batch, table.id)
        self._manifests.drop_table(batch, table.id)

    def resume(self, jobs: Jobs) -> None:
        """At start: finish what a stop has interrupted."""
        for key, _ in self._store.scan("meta", _NOTE):
            jobs.submit("cleanup", {"table_id": int(key[len(_NOTE) :])})

    def run(self, job: Job, cancelled: threading.Event) -> dict[str, Any]:
        """The job: wait for older readers, then remove files and note."""
        key = _NOTE + b"%d" % job.parameters["table_id"]
        data = self._store.get("meta", key)
        if data is None:
            return {"removed": False}
        note = json.loads(data)
        limit = self._door.readers_before()
        while not self._door.readers_gone(limit):
            if cancelled.wait(0.05):
                raise Cancelled("the cleanup was stopped; it goes on at the next start")
        objects.remove_tree(self._manifests.root / note["folder"])
        failpoints.hit("cleanup.removed")
        self._log.remove_files(note["segments"])
        batch = Batch()
        batch.delete("meta", key)
        self._store.append(batch)
        return {"removed": True, "table": note["table"]}
