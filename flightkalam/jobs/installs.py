"""What flush and compaction share: the files around an install.

A file in a scope's folder is of one of three kinds: named by the committed manifest; named by an older one that a pinned
reader may still use; nobody's, because a crash or an error came before the commit, or after it and before the removal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from flightkalam import failpoints
from flightkalam.cold import paths
from flightkalam.cold.bloom import FilterStyle
from flightkalam.cold.manifest import Manifest
from flightkalam.errors import Fenced, KalamError
from flightkalam.hot.segments import file_of
from flightkalam.model.predicate import Compare, all_of, comparable
from flightkalam.model.schema import Table, TableSchema
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch
from flightkalam.table.scopes import OpenScope, Scopes
from flightkalam.telemetry import logger

log = logger("installs")
_FILTERED = frozenset({"int", "decimal", "text", "blob", "uuid", "date", "time", "timestamp", "timestamptz"})


def sweep(scopes: Scopes, scope: OpenScope, table: str) -> None:
    """Before an install: finish the trim that a crash cut short, and remove files that no manifest in use names.

    Once per process, and again after a publication that failed.  Call with `installs` held, so that no file of an install
    under way is taken for nobody's (T-42).
    """
    if scope.swept:
        return
    with fencing(scope):
        scopes.manifests.claim(scope.scope, scope.folder, table)
        scopes.manifests.publish(scope.scope, scope.folder, table)
    with scope.lock:
        scope.prune(scopes.door.oldest_pin())
    manifest, log_ = scope.state.manifest, scopes.log
    flushed = [loaded.entry for loaded in log_.entries(scope.scope) if loaded.entry.first_seq <= manifest.flushed_seq]
    if flushed:
        files = [file_of(entry.segment) for entry in flushed if entry.segment is not None]
        batch = Batch()
        log_.trim(batch, scope.scope, manifest.flushed_seq, files)
        scopes.door.store.commit(batch)
        log_.remove_files(files)
    keep = names(manifest).union(*(names(older.manifest) for older in scope.past), scopes.manifests.part_names(scope.scope))
    gone = []
    for name in objects.names(scope.folder):
        numbered = paths.batch_number(name) is not None or paths.filter_number(name) is not None
        ours = numbered or paths.is_vectors(name) or paths.is_part(name)
        if name.endswith(objects.TEMPORARY) or (ours and name not in keep):
            gone.append(name)
    if gone:
        with fencing(scope):  # looked at after the listing: what was listed is not a successor's
            scopes.manifests.confirm(scope.folder, table)
    for name in gone:
        objects.remove(scope.folder / name)
    scope.swept = True


@contextlib.contextmanager
def fencing(scope: OpenScope) -> Iterator[None]:
    """Let nobody use the scope any more once it has turned out that another server has taken its files over."""
    try:
        yield
    except Fenced as e:
        scope.fenced = e.message
        log.error("scope_fenced", scope=scope.scope.label, reason=e.message)
        raise


def names(manifest: Manifest) -> frozenset[str]:
    """The files that a manifest names."""
    return frozenset(_names(manifest))


def _names(manifest: Manifest) -> Iterator[str]:
    for batch in manifest.batches:
        yield batch.file
        if batch.dead is not None:
            yield batch.dead.file
        yield from (f.file for f in batch.filters)


def publish(scopes: Scopes, scope: OpenScope, table: str) -> None:
    """Publish the manifest.  When that fails the files of the one before stay, for the next install to remove: until then the
    published manifest names them."""
    try:
        with fencing(scope):
            scopes.manifests.publish(scope.scope, scope.folder, table)
    except BaseException:
        scope.swept = False
        raise


def leave(scopes: Scopes, scope: OpenScope, old: Manifest) -> None:
    """Remove what `old` named and the current manifest does not, once the readers that began before are gone.

    Call after the publication, with the install durable: every reader that begins from now on uses the new layout.
    """
    new = scope.state.manifest
    stays = {id(b) for b in new.batches}
    if all(id(b) in stays for b in old.batches):
        return  # the usual flush: it only adds
    gone = sorted(names(old) - names(new))
    if gone:
        scopes.door.after_readers(lambda: _remove(scope, gone))


def leave_segments(scopes: Scopes, files: list[str]) -> None:
    """Remove segment files whose rows have become cold, once the readers that began before are gone: one of them may be a
    backup, which names files instead of mapping them."""
    if files:
        scopes.door.after_readers(lambda: _remove_segments(scopes, files))


def _remove_segments(scopes: Scopes, files: list[str]) -> None:
    try:
        scopes.log.remove_files(files)
    except (KalamError, OSError) as e:  # nobody's now: swept at the next start
        log.warning("old_segments_left", error=str(e))


def _remove(scope: OpenScope, files: Iterable[str]) -> None:
    try:
        if objects.is_remote(scope.folder):
            objects.remove_later([scope.folder / file for file in files], lambda: _unswept(scope))
            return
        for file in files:
            failpoints.hit("installs.before_remove")
            objects.remove(scope.folder / file)
    except (KalamError, OSError) as e:  # whoever ended the last reader cannot help it
        scope.swept = False
        log.warning("old_files_left", scope=scope.scope.label, error=str(e))


def _unswept(scope: OpenScope) -> None:
    scope.swept = False


def discard(scopes: Scopes, scope: OpenScope) -> None:
    """Remove what an install that did not happen has written: files above every number that was ever committed.

    When the store has failed it may have happened after all (T-15): then the next start, which knows, removes them or not.
    In an object store another server may have put its own there: the next install looks first.
    """
    if not scopes.door.store.healthy:
        return
    if objects.is_remote(scope.folder):
        scope.swept = False
        return
    manifest = scope.state.manifest
    with contextlib.suppress(KalamError, OSError):  # swept at the next start
        for name in objects.names(scope.folder):
            number = paths.batch_number(name)
            if number is None:
                number = paths.filter_number(name)
            if (number is not None and number > manifest.max_batch) or name == paths.vectors_name(manifest.version + 1):
                objects.remove(scope.folder / name)


def filter_style(table: Table, manifest: Manifest, rows: pa.Table, without: Collection[int] = ()) -> FilterStyle:
    """The Bloom filters of a new batch: on the key, as a whole where it has several columns, unless the table names columns.
    Naming none means no filter at all.

    The filter on the key is stricter than the table's rate where many batches span the same keys, so that a search by key meets
    about one false batch, however many there are.

    :param rows: of the batch.
    :param without: numbers of batches that go when this one comes.
    """
    schema, chosen = table.schema, table.options.bloom_filter_columns
    names = [c.name for c in schema.key_columns] if chosen is None else list(chosen)
    columns = [c for name in names if (c := schema.find(name)) is not None]
    whole = len(schema.key) > 1 and set(schema.key) <= {c.id for c in columns}
    if chosen is None and whole:
        columns = []
    rate = table.options.bloom_filter_fpp
    strict = min(rate, 1 / (10 * (1 + _overlapping(schema, manifest, rows, without))))
    single = schema.key_columns[0].name if len(schema.key) == 1 else None
    names = [c.name for c in columns if c.type.kind in _FILTERED]
    return FilterStyle(tuple(names), whole, strict if whole else rate, single, strict)


def _overlapping(schema: TableSchema, manifest: Manifest, rows: pa.Table, without: Collection[int]) -> int:
    """How many batches span keys among those of some rows."""
    if not manifest.batches or not rows.num_rows:
        return 0
    column = schema.key_columns[0]
    ends = pc.min_max(rows.column(column.name))
    low, high = (comparable(ends[name], column.type) for name in ("min", "max"))
    if low is None or high is None:
        return len(manifest.batches)
    mask = manifest.may_match(all_of([Compare(column.id, ">=", low), Compare(column.id, "<=", high)]), schema)
    return sum(1 for b, inside in zip(manifest.batches, mask.tolist(), strict=True) if inside and b.number not in without)
