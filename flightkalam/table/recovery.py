"""When what is derived is lost: a scope's manifest, or a deletion vector of it.

The table stays readable: whoever opens the scope first makes the manifest again, commits and publishes it, and goes on; who
needs a lost vector computes it.  Both answer from MAX(_seq) over the files that count (`cold.rebuild`).
"""

from __future__ import annotations

from pathlib import Path

from flightkalam.cold import paths, rebuild
from flightkalam.cold.batch_file import BatchReader
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifests import Manifests
from flightkalam.cold.publication import published_version
from flightkalam.cold.rebuild import Evidence
from flightkalam.hot.store import HotLog
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table
from flightkalam.telemetry import logger

log = logger("recovery")


def derived(
    manifests: Manifests, hot: HotLog, reader: BatchReader, table: Table, scope: Scope, folder: Path, now_us: int
) -> Manifest:
    """The manifest of a scope as its files say; an empty one when there are none.

    :raises DataCorrupted: it cannot be told.
    """
    known = _evidence(manifests, hot, scope, folder, table.qualified)
    found = rebuild.rebuilt(folder, scope, table.schema, reader, known, now_us)
    return Manifest(scope, known.version + 1, now_us) if found is None else found


def restore(
    manifests: Manifests, hot: HotLog, reader: BatchReader, table: Table, scope: Scope, folder: Path, now_us: int
) -> Manifest:
    """Make a lost manifest again and commit it.  Nobody else may have the scope open."""
    found = derived(manifests, hot, reader, table, scope, folder, now_us)
    manifests.restore(found, folder, table.qualified)
    log.warning("manifest_rebuilt", table=table.qualified, scope=scope.label, batches=len(found.batches), version=found.version)
    return found


def _evidence(manifests: Manifests, hot: HotLog, scope: Scope, folder: Path, table: str) -> Evidence:
    sync = manifests.sync(scope)
    published = published_version(manifests.publisher.read(folder / paths.MANIFEST, table))
    starts, marked = None, set()
    for loaded in hot.entries(scope, 0 if sync is None else sync.flushed_seq):
        starts = loaded.entry.first_seq if starts is None else starts
        marked.update(loaded.entry.cold_marks["batch"].tolist())
    version = max(published, 0 if sync is None else sync.version)
    return Evidence(None if sync is None else sync.max_batch, starts, frozenset(marked), version)
