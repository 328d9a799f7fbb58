"""Compaction: merge batches of a scope, and let go of what no query can see.

    1 choose    which batches, from the manifest alone (compact_policy)
    2 do        read them merged by key (merge), write one run of batches that do not overlap, sorted; no lock a writer wants
    3 install   under the scope's write lock one atomic batch: the manifest (inputs out, outputs in), the log's entries whose
                marks name input rows, re-pointed.  THIS IS THE COMMIT.
    4 publish   manifest.json; the inputs' files go when the last reader that may use them has ended

Every input row has exactly one fate:

    vector     newer version of its key                    fate
    dead       in the inputs, or in another batch          dropped
    dead       in no batch                                 carried over, dead, and counted: the proof is missing
    alive      in the inputs                               the job fails: MAX(_seq) and the vectors contradict each other (T-7)
    alive      none; a tombstone that hides nothing        dropped once its retention has passed
    alive      none                                        carried over

Only cold versions count as proof, all of them at or below flushed_seq.  So what is dropped as superseded is seen by no reader
that this layout serves, and whoever recomputes MAX(_seq) from the files alone finds what is visible now.

*Tombstones.*  A tombstone hides nothing when no batch outside the inputs holds its key in any version (dead ones count: a
rebuild would bring them back, T-18, T-44) and the log holds none that is older (it cannot: every hot row is newer than
flushed_seq).  A transaction that began before the tombstone must find it, or would miss the conflict: so its `_seq` must be
at or below every pinned watermark.  A reader of the change feed that began later but before the install would see it vanish;
so a layout made by a compaction takes a `_seq` of its own and serves only watermarks from there on, and a reader that has
begun stays with the layout that it began with.

*Marks.*  Writers go on while rows are merged and mark input rows as superseded (T-10).  Every mark in memory and in the log
that names an input row is translated at the install.  A mark names the live version of a key, which is never dropped as
superseded; if it was a tombstone that went, the mark goes with it.

*Files.*  The last output's footer says which batches the run replaces: the inputs, and what those replaced as long as its file
exists.  Only the last, which is written when all others are durable: a run cut short by a crash replaces nothing, and of
its rows and the inputs' equal ones a rebuild keeps one each.  When no row is left an empty batch carries the list (T-44).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from flightkalam import failpoints
from flightkalam.clock import Clock, id_floor
from flightkalam.cold import deletion_vectors, paths
from flightkalam.cold.batch_file import BatchStyle, Footer, write_batch
from flightkalam.cold.manifest import BatchEntry, Manifest, ManifestEdit
from flightkalam.errors import Cancelled, DataCorrupted, InternalError
from flightkalam.hot import log
from flightkalam.jobs import installs
from flightkalam.jobs.compact_policy import NOTHING_KNOWN, Kept, Policy, Want, choose, may_be_overdue
from flightkalam.jobs.control import Control
from flightkalam.jobs.merge import CHUNK_ROWS, Chunk, Merge, Source
from flightkalam.model.ids import Scope
from flightkalam.model.keys import I64, Probe, combined
from flightkalam.model.schema import DELETED, SEQ, Table
from flightkalam.storage import objects
from flightkalam.storage.kv import Batch
from flightkalam.table.locate import candidates
from flightkalam.table.mutate import LAST_SEQ
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class CompactSettings:
    """:param policy: when merging pays, and how large a batch becomes.
    :param chunk_rows: about so many rows are merged at a time.
    """

    policy: Policy = field(default_factory=Policy)
    style: BatchStyle = field(default_factory=BatchStyle)
    chunk_rows: int = CHUNK_ROWS


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction of one scope did.

    :param dropped_rows: superseded versions that went.
    :param dropped_tombstones: tombstones that hid nothing any more.
    :param unproven_rows: superseded by their vectors, without a newer version in any batch: carried over.
    """

    batches_in: int = 0
    batches_out: int = 0
    rows_in: int = 0
    rows_out: int = 0
    dropped_rows: int = 0
    dropped_tombstones: int = 0
    unproven_rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


NOTHING = Compacted()


class Compactor:
    """Compacts scopes."""

    def __init__(self, scopes: Scopes, clock: Clock, settings: CompactSettings) -> None:
        self._scopes = scopes
        self._clock = clock
        self._settings = settings

    @property
    def policy(self) -> Policy:
        return self._settings.policy

    def compact(self, table: Table, owner: str | None, want: Want = Want.ALL, control: Control | None = None) -> Compacted:
        """Compact one scope.

        :raises Cancelled: `control` was set, or the table was dropped; nothing has changed.
        :raises DataCorrupted: the versions and the deletion vectors contradict each other; nothing has changed.
        """
        scope = self._scopes.open(table, owner)
        with scope.installs:
            installs.sweep(self._scopes, scope, table.qualified)
            with self._scopes.door.pinned():  # so that a drop waits for us with the files
                table = self._scopes.current(table.id) or table
                old = scope.state.manifest
                done = self._compact(scope, table, want, control)
            if done is not NOTHING:
                installs.leave(self._scopes, scope, old)
        return done

    def _compact(self, scope: OpenScope, table: Table, want: Want, control: Control | None) -> Compacted:
        state, horizon = scope.state, self._horizon(table, want)
        kept = self._kept(scope.folder, state.manifest, table, horizon) if want is Want.OVERDUE else NOTHING_KNOWN
        chosen = choose(state.manifest, table.schema, self.policy, want, horizon, kept)
        if not chosen:
            return NOTHING
        run = _Run(self._scopes, scope, table, self._settings, chosen, horizon)
        try:
            run.write(control or Control())
            self._install(run)
        except BaseException:
            if scope.state is state:  # not installed: the files are nobody's
                installs.discard(self._scopes, scope)
            raise
        installs.publish(self._scopes, scope, table.qualified)
        failpoints.hit("compact.published")
        with scope.lock:
            scope.prune(self._scopes.door.oldest_pin())
        return run.figures()

    def overdue(self, table: Table, owner: str | None) -> bool:
        """Whether a scope holds in its files what should have left them; the scope is not opened for that."""
        scopes = self._scopes
        with scopes.door.pinned():  # the files stay
            scope = Scope(table.id, owner)
            manifest, horizon = scopes.manifests.get(scope), self._horizon(table, Want.OVERDUE)
            kept = self._kept(scopes.manifests.folder(table, scope), manifest, table, horizon)
            return bool(choose(manifest, table.schema, self.policy, Want.OVERDUE, horizon, kept))

    def _kept(self, folder: Path, manifest: Manifest, table: Table, horizon: int) -> dict[int, Kept]:
        """What is to be known of the batches that may be overdue."""
        reader, keys = self._scopes.reader, self._scopes.keys
        kept = {}
        for batch in may_be_overdue(manifest, horizon):
            written = Footer.from_metadata(reader.metadata(folder / batch.file, batch.uuid), batch.file).flushed_seq
            tombstone = None
            if batch.tombstones:
                rows = keys.tombstones(folder, batch, table.schema)
                tombstone = int(keys.seqs(folder, batch, table.schema)[rows].min())
            kept[batch.number] = Kept(written, tombstone)
        return kept

    def _horizon(self, table: Table, want: Want) -> int:
        """Tombstones with a `_seq` below have been kept for long enough, and every open transaction began after them."""
        pinned = self._scopes.door.oldest_pin() + 1
        if want is Want.ERASE:
            return pinned
        return min(pinned, id_floor(self._clock.now_us() - table.options.deleted_retention_hours * _HOUR_US))

    def _install(self, run: _Run) -> None:
        """Step 3: the commit."""
        scope, state, door, manifests = run.scope, run.scope.state, self._scopes.door, self._scopes.manifests
        early = list(_repointed(self._scopes, run, state.manifest.flushed_seq))
        seen = early[-1].first_seq if early else state.manifest.flushed_seq
        failpoints.hit("compact.before_install")
        with scope.lock, door.mutex:
            if self._scopes.current(run.table.id) is None:
                raise Cancelled(f'table "{run.table.qualified}" was dropped during the compaction')
            batch = Batch()
            edit = ManifestEdit(add=tuple(run.written), remove=frozenset(run.numbers))
            manifest = edit.apply(state.manifest, self._clock.now_us())
            entry = manifests.stage(batch, manifest, scope.folder, edit)
            for loaded in (*early, *_repointed(self._scopes, run, seen)):
                if loaded.changed is not None:
                    batch.put("log", loaded.key, loaded.changed)
            since = door.ids.take(1)
            batch.put("meta", LAST_SEQ, since.to_bytes(8, "big"))
            hot = state.hot.with_cold_marks(run.translated(state.hot.cold_marks.values()))
            failpoints.hit("compact.before_commit")
            position = door.append(batch, since)  # what could fail has been done: the swap follows
            manifests.committed(entry)
            scope.swap(ScopeState(state.layout + 1, manifest, hot, since), door.oldest_pin())
        failpoints.hit("compact.appended")
        door.wait(position)
        failpoints.hit("compact.committed")


@dataclass(frozen=True, slots=True)
class _Repointed:
    """A log entry that has been looked at; `changed` when some of its marks name input rows."""

    key: bytes
    first_seq: int
    changed: bytes | None


def _repointed(scopes: Scopes, run: _Run, after: int) -> Iterator[_Repointed]:
    """The log's entries after `after`, with their marks on input rows translated.

    Only installs rewrite entries, so what has been read before the lock is still right under it.
    """
    for loaded in scopes.log.entries(run.scope.scope, after):
        marks = loaded.entry.cold_marks
        changed = None
        if len(marks) and np.isin(marks["batch"], run.numbers).any():
            changed = log.encode(replace(loaded.entry, cold_marks=run.translated(marks)))
        yield _Repointed(loaded.key, loaded.entry.first_seq, changed)


class _Run:
    """The outputs of one compaction, and where each input row went.

    The places take 8 bytes per input row: they are what marks are translated by.
    """

    def __init__(
        self,
        scopes: Scopes,
        scope: OpenScope,
        table: Table,
        settings: CompactSettings,
        chosen: Sequence[BatchEntry],
        horizon: int,
    ) -> None:
        self.scope = scope
        self.table = table
        self.numbers = np.array([b.number for b in chosen], np.int64)
        self.written: list[BatchEntry] = []
        self._scopes = scopes
        self._settings = settings
        self._manifest: Manifest = scope.state.manifest
        self._chosen = chosen
        self._horizon = horizon
        self._first = self._manifest.max_batch + 1
        # Per input batch and row the place in the run, counted over all outputs; -1: dropped.
        self._places = {b.number: np.full(b.rows, -1, np.int64) for b in chosen}
        self._waiting: list[pa.Table] = []
        self._taken = 0  # rows of the run so far
        self._dead: list[I64] = []  # places of rows that are carried over dead
        self._superseded = self._tombstones = 0

    # -- step 2 -----------------------------------------------------------------------------------------------

    def write(self, control: Control) -> None:
        """Write every output, and the vectors of those that carry dead rows."""
        scopes, folder = self._scopes, self.scope.folder
        sources = [Source(b, BitMap() if b.dead is None else scopes.vectors.get(folder, b.dead)) for b in self._chosen]
        for chunk in Merge(scopes.reader, folder, self.table.schema, sources, self._settings.chunk_rows).chunks():
            failpoints.hit("compact.chunk_merged")
            control.step()
            self._take(chunk)
            self._write_full()
        self._write_batch(self._next(self._settings.policy.rows_per_batch), *self._replaces())
        self._write_vectors()
        control.step()

    def _take(self, chunk: Chunk) -> None:
        """Decide the fate of each row of a chunk."""
        if (chunk.newer & ~chunk.dead).any():
            self._contradicted(chunk)
        seqs = chunk.rows.column(SEQ).to_numpy()
        tombstone = chunk.rows.column(DELETED).to_numpy() & ~chunk.dead & (seqs < self._horizon)
        unproven = chunk.dead & ~chunk.newer
        elsewhere = self._elsewhere(chunk, np.flatnonzero(tombstone | unproven))
        unproven &= elsewhere <= seqs
        superseded, let_go = chunk.dead & ~unproven, tombstone & (elsewhere < 0)
        kept = ~superseded & ~let_go
        self._superseded += int(superseded.sum())
        self._tombstones += int(let_go.sum())
        places = self._taken + np.arange(int(kept.sum()), dtype=np.int64)
        self._dead.append(places[unproven[kept]])
        source, row = chunk.source[kept], chunk.row[kept]
        for i, batch in enumerate(self._chosen):
            mine = source == i
            self._places[batch.number][row[mine]] = places[mine]
        self._waiting.append(chunk.rows.filter(pa.array(kept)))
        self._taken += len(places)

    def _contradicted(self, chunk: Chunk) -> None:
        at = int(np.flatnonzero(chunk.newer & ~chunk.dead)[0])
        batch = self._chosen[int(chunk.source[at])]
        raise DataCorrupted(
            f'table "{self.table.qualified}" ({self.scope.scope.label}): row {int(chunk.row[at])} of {batch.file} has a newer '
            "version that its deletion vector does not know of; nothing was compacted, run CHECK TABLE"
        )

    def _elsewhere(self, chunk: Chunk, rows: I64) -> I64:
        """For the given rows of a chunk the highest `_seq` of their keys in batches that are no inputs, -1: none; int64[n]."""
        out = np.full(chunk.rows.num_rows, -1, np.int64)
        if not len(rows) or len(self._chosen) == len(self._manifest.batches):
            return out
        schema, folder = self.table.schema, self.scope.folder
        columns = [combined(chunk.rows.column(c.name)).cast(c.type.storage) for c in schema.key_columns]
        probe = Probe.of([c.take(pa.array(rows)) for c in columns])
        for entry in candidates(self.scope.state.manifest, schema, probe):
            if entry.number in self._places:
                continue
            probes, found = self._scopes.keys.matches(folder, entry, schema, probe)
            if len(found):
                seqs = self._scopes.keys.seqs(folder, entry, schema)
                np.maximum.at(out, rows[probes], seqs[found])
        return out

    def _write_full(self) -> None:
        """Write what is certain not to be the last output."""
        step = self._settings.policy.rows_per_batch
        while self._taken - len(self.written) * step > step:
            self._write_batch(self._next(step), ())

    def _next(self, n: int) -> pa.Table:
        """Take up to n of the rows that wait."""
        empty = self.table.schema.file.empty_table()
        table = pa.concat_tables(self._waiting) if self._waiting else empty
        self._waiting = [table.slice(n)]
        return table.slice(0, n)

    def _write_batch(self, rows: pa.Table, replaces: Sequence[int], absorbed: Collection[int] = ()) -> None:
        schema = self.table.schema
        entry = write_batch(
            self.scope.folder,
            self._first + len(self.written),
            rows,
            schema,
            self.scope.scope,
            style=self._settings.style,
            flushed_seq=self._manifest.flushed_seq,
            filters=installs.filter_style(self.table, self._manifest, rows, {b.number for b in self._chosen}),
            definition=self.table,
            replaces=replaces,
            absorbed=absorbed,
        )
        self.written.append(entry)
        if self.scope.sought:
            self._scopes.keys.seed(entry, schema, rows)
        failpoints.hit("compact.batch_written")

    def _replaces(self) -> tuple[list[int], frozenset[int]]:
        """The inputs, and what they replaced as far as its files exist: removed ones cannot come back.  And all of that
        whether or not its files exist."""
        numbers = {b.number for b in self._chosen}
        folder = self.scope.folder
        there = frozenset(objects.names(folder))
        absorbed = set(numbers)
        for batch in self._chosen:
            metadata = self._scopes.reader.metadata(folder / batch.file, batch.uuid)
            older = Footer.from_metadata(metadata, batch.file)
            numbers.update(n for n in older.replaces if paths.batch_name(n) in there)
            absorbed.update(older.absorbed)
        return sorted(numbers), frozenset(absorbed)

    def _write_vectors(self) -> None:
        places = np.concatenate(self._dead) if self._dead else np.empty(0, np.int64)
        if not len(places):
            return
        batches, rows = self._split(places)
        vectors = {int(n): BitMap(rows[batches == n].astype(np.uint32)) for n in np.unique(batches)}
        refs = deletion_vectors.write(self.scope.folder, self._manifest.version + 1, vectors)
        self.written = [replace(b, dead=refs.get(b.number)) for b in self.written]
        failpoints.hit("compact.vectors_written")

    # -- step 3 -----------------------------------------------------------------------------------------------

    def _split(self, places: I64) -> tuple[I64, I64]:
        """Batch number and row of places in the run."""
        step = self._settings.policy.rows_per_batch
        return self._first + places // step, places % step

    def translated(self, marks: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Marks on cold rows, in memory or of the log, as they are after the install."""
        out = marks.copy()
        keep = np.ones(len(marks), bool)
        for number, places in self._places.items():
            at = np.flatnonzero(marks["batch"] == number)
            if not len(at):
                continue
            new = places[marks["row"][at]]
            keep[at] = new >= 0
            out["batch"][at], out["row"][at] = self._split(np.maximum(new, 0))
        if int((~keep).sum()) > self._tombstones:
            raise InternalError(f'a compaction of table "{self.table.qualified}" has dropped a row that was alive')
        return out[keep]

    def figures(self) -> Compacted:
        return Compacted(
            batches_in=len(self._chosen),
            batches_out=len(self.written),
            rows_in=sum(b.rows for b in self._chosen),
            rows_out=sum(b.rows for b in self.written),
            dropped_rows=self._superseded,
            dropped_tombstones=self._tombstones,
            unproven_rows=sum(len(p) for p in self._dead),
            bytes_in=sum(b.size_bytes for b in self._chosen),
            bytes_out=sum(b.size_bytes for b in self.written),
        )
