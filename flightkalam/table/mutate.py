"""The write door: new versions for one or more scopes -> one atomic commit.

    check rows ─ hash keys ─┐ scope lock: locate at the head, decide, mark ─┐ commit mutex: _seq, log, memory ─┐ wait
                            └───────────────────────────────────────────────┴──────────────────────────────────┘
Everything that can be done before a lock is done before it.  A refusal depends on the head just as a result does, so it too
waits until that head is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam import failpoints
from flightkalam.clock import id_after
from flightkalam.errors import Conflict, DuplicateKey, KalamError, NotNullViolation
from flightkalam.hot import log
from flightkalam.hot.rows import cold_marks, hot_marks
from flightkalam.hot.segments import SegmentWriter, file_of
from flightkalam.hot.store import apply, batch_schema
from flightkalam.model.ids import Scope
from flightkalam.model.keys import Probe, combined, first_duplicate, key_hashes, key_text
from flightkalam.model.schema import DELETED, Table, TableKind, TableSchema
from flightkalam.storage.kv import Batch
from flightkalam.table import stream
from flightkalam.table.locate import Located, Placed, locate, placed_ahead
from flightkalam.table.positions import Positions, located
from flightkalam.table.scopes import OpenScope, Scopes
from flightkalam.table.stream import Removal

LAST_SEQ = b"last_seq"


# Adds to the atomic batch, given how many versions it holds.
Extra = Callable[[Batch, int], None]


# A context for one step by its name.
Spent = Callable[[str], AbstractContextManager[None]]


class OnConflict(Enum):
    """What happens to a new row whose key is visible."""

    ERROR = "error"
    IGNORE = "ignore"
    UPDATE = "update"


@dataclass(frozen=True)
class Mutation:
    """New versions for one scope.

    :param table: the table as planned; the commit refuses if its schema has changed since.
    :param rows: every stored column in storage types, in schema order; `_deleted` last when some are tombstones.
    :param segment: name of the segment file that holds exactly these rows, for a large write.
    :param fresh_keys: the keys were drawn for these rows, so that nothing can hold them already.
    :param supersedes: bool[rows]; rows that may take the place of a visible one whatever `on_conflict` says, because the
        statement found it there.
    :param snapshot: the watermark of the transaction that wrote the rows; a key with a newer version is a conflict.
    :param base: int64[rows]: `_seq` of the row that the transaction found there, 0 where it found none.
    :param at: where the rows sit that these supersede, each of them, as the statement found it.
    """

    table: Table
    owner: str | None
    rows: pa.Table
    segment: str | None = None
    on_conflict: OnConflict = OnConflict.ERROR
    fresh_keys: bool = False
    supersedes: npt.NDArray[np.bool_] | None = None
    snapshot: int | None = None
    base: npt.NDArray[np.int64] | None = None
    at: Positions | None = None


@dataclass(frozen=True)
class Committed:
    """What a commit did: versions written per mutation, and the position to wait for (already waited for)."""

    rows: tuple[int, ...]
    first_seq: int
    tables: tuple[pa.Table, ...]  # what was written, per mutation
    segments: frozenset[str]  # segment files that the log now names


class HeadMoved(Exception):
    """The scope has newer versions than the statement has seen: run it again, alone."""


class SchemaMoved(Conflict):
    """The table changed between plan and commit: plan again."""


@dataclass(frozen=True)
class _Payload:
    """A mutation's rows as the log keeps them, made before any lock."""

    rows: pa.Table  # columns named by field id
    batch: pa.RecordBatch | None
    body: bytes


@dataclass(frozen=True)
class _Ready:
    """A mutation for which everything is done that needs no lock.

    :param probe: its keys; None when nobody has to look for them.
    :param placed: the cold rows that hold them.
    """

    mutation: Mutation
    scope: OpenScope
    probe: Probe | None
    placed: Placed | None
    payload: _Payload


@dataclass(frozen=True)
class _Decided:
    """A mutation whose marks have been decided, under its scope's lock."""

    mutation: Mutation
    scope: OpenScope
    payload: _Payload
    probe: Probe | None  # of exactly these rows
    hot: npt.NDArray[np.void]
    cold: npt.NDArray[np.void]
    removal: Removal | None = None


def check_rows(table: Table, rows: pa.Table) -> None:
    """:raises NotNullViolation: a NULL where the table allows none (T-21)."""
    if DELETED in rows.schema.names:  # a tombstone holds the key alone
        rows = rows.filter(pc.invert(rows.column(DELETED)))
    for column in table.schema.columns:
        if column.not_null and rows.column(column.name).null_count:
            raise NotNullViolation(f'null value in column "{column.name}" of table "{table.qualified}", which is NOT NULL')


def duplicate_key(table: Table, columns: Sequence[pa.Array], row: int) -> DuplicateKey:
    names = ", ".join(c.name for c in table.schema.key_columns)
    return DuplicateKey(f'duplicate key in table "{table.qualified}": ({names}) = {key_text(columns, row)} already exists')


class Writer:
    """Commits mutations."""

    def __init__(self, scopes: Scopes, spent: Spent = lambda _: nullcontext()) -> None:
        """:param spent: told around each step that a measurement asks about."""
        self._spent = spent
        self._scopes = scopes
        self._door = scopes.door

    def write(
        self,
        mutations: Sequence[Mutation],
        extra: Extra | None = None,
        seen: int | None = None,
    ) -> Committed:
        """Check and commit mutations of distinct scopes, all or none; returns when they are durable.

        :param extra: adds to the atomic batch, under the commit mutex: catalog changes, audit records.
        :param seen: the watermark that the mutations were computed from; None when they do not depend on what is there.
        :raises DuplicateKey, NotNullViolation: nothing was written.
        :raises SchemaMoved: a table changed or went since it was planned; nothing was written.
        :raises HeadMoved: a scope has versions newer than `seen`; nothing was written.
        """
        with self._scrapped() as made:
            return self._write(mutations, extra, seen, made)

    def _write(self, mutations: Sequence[Mutation], extra: Extra | None, seen: int | None, made: list[str]) -> Committed:
        ready = [self._ready(m, made) for m in mutations]
        self._door.store.require_space(sum(len(r.payload.body) for r in ready))
        failpoints.hit("write.ready")
        with ExitStack() as locks:
            for scope in sorted((r.scope for r in ready), key=lambda s: (s.scope.table_id, s.scope.owner or "")):
                locks.enter_context(scope.lock)
            if seen is not None and any(r.scope.head > seen for r in ready):
                raise HeadMoved
            head = self._door.store.appended
            try:
                decided = [self._decide(r, made) for r in ready]
            except (DuplicateKey, Conflict):
                locks.close()
                self._door.wait(head)
                raise
            failpoints.hit("write.decided")
            position, first = self._commit(decided, extra)
            used = frozenset(file_of(d.mutation.segment) for d in decided if d.mutation.segment is not None)
            made[:] = [file for file in made if file not in used]
        failpoints.hit("write.appended")
        self._door.wait(position)
        failpoints.hit("write.durable")
        for d in decided:
            if d.removal is not None:
                stream.removed(self._scopes, d.scope, d.removal)
        tables = tuple(d.mutation.rows for d in decided)
        return Committed(tuple(t.num_rows for t in tables), first, tables, used)

    @contextmanager
    def _scrapped(self) -> Iterator[list[str]]:
        """A list of the segment files that are made on the way; those still on it at the end are removed.

        Not when the store has failed: then the next start knows whether the log names them (T-15).
        """
        made: list[str] = []
        try:
            yield made
        finally:
            if self._door.store.healthy:
                with suppress(KalamError):  # swept at the next start
                    self._scopes.log.remove_files(made)

    def refuse_conflict(self, mutation: Mutation) -> None:
        """Say at the statement what COMMIT would say: somebody else has committed a newer version of one of the keys."""
        probe = Probe.of(_key(mutation.table.schema, mutation.rows))
        scope = self._scopes.open(mutation.table, mutation.owner)
        with scope.lock:
            head = self._door.store.appended
            if mutation.snapshot is None or scope.head <= mutation.snapshot:
                return
            try:
                found = locate(self._scopes, scope, mutation.table.schema, probe)
                self._refuse_newer(mutation, scope, found, probe)
                return
            except Conflict as e:
                refused = e
        self._door.wait(head)
        raise refused

    @contextmanager
    def alone(self, table: Table, owner: str | None) -> Iterator[None]:
        """Keep other writers out of a scope, everything that was written to it being visible to a new snapshot."""
        scope = self._scopes.open(table, owner)
        turn = object()
        scope.turns.add(turn)
        try:
            with scope.lock:
                self._door.wait(self._door.store.appended)
                yield
        finally:
            scope.turns.discard(turn)

    def crowded(self, table: Table, owner: str | None) -> bool:
        """Whether writers wait to be alone with a scope: what is computed without them is in vain."""
        return bool(self._scopes.open(table, owner).turns)

    def write_new(self, mutation: Mutation, create: Callable[[Batch], None], publish: Callable[[], None]) -> Committed:
        """Commit the first rows of a table together with the table itself.

        :param create: adds the catalog's records to the atomic batch, under the commit mutex.
        :param publish: makes the table known, once the commit is durable.
        """
        with self._scrapped() as made:
            return self._write_new(mutation, create, publish, made)

    def _write_new(
        self, mutation: Mutation, create: Callable[[Batch], None], publish: Callable[[], None], made: list[str]
    ) -> Committed:
        mutation, _ = self._prepared(mutation, made)
        payload, door, rows = _payload(mutation), self._door, mutation.rows.num_rows
        door.store.require_space(len(payload.body))
        scope = Scope(mutation.table.id, mutation.owner if mutation.table.kind.per_user else None)
        with door.mutex:
            batch = Batch()
            create(batch)
            first = door.ids.take(max(rows, 1))
            entry = _entry(mutation, first, payload, log.no_hot_marks(), log.no_cold_marks())
            if rows:
                self._scopes.log.put(batch, scope, entry, mutation.table.schema)
            last = id_after(first, max(rows, 1) - 1)
            batch.put("meta", LAST_SEQ, last.to_bytes(8, "big"))
            failpoints.hit("write_new.before_append")
            position = door.append(batch, last)
            made.clear()
            # Under the mutex, because nobody may build on a table that a crash could still take away.
            door.wait(position)
            publish()
        used = frozenset((file_of(mutation.segment),)) if mutation.segment is not None else frozenset()
        return Committed((rows,), first, (mutation.rows,), used)

    def _ready(self, mutation: Mutation, made: list[str]) -> _Ready:
        mutation, probe = self._prepared(mutation, made)
        scope = self._scopes.open(mutation.table, mutation.owner)
        with self._spent("locate"):
            placed = placed_ahead(self._scopes, scope, mutation.table.schema, probe) if probe is not None else None
        return _Ready(mutation, scope, probe, placed, _payload(mutation))

    def _prepared(self, mutation: Mutation, made: list[str]) -> tuple[Mutation, Probe | None]:
        """What needs no lock: NOT NULL, and one key twice in the statement."""
        check_rows(mutation.table, mutation.rows)
        if mutation.fresh_keys or mutation.at is not None:
            return mutation, None
        columns = _key(mutation.table.schema, mutation.rows)
        probe = Probe.of(columns)
        twice = first_duplicate(key_hashes(columns), columns) if probe.meets_itself else None
        if twice is None:
            return mutation, probe
        if mutation.on_conflict is OnConflict.ERROR:
            names = ", ".join(c.name for c in mutation.table.schema.key_columns)
            raise DuplicateKey(
                f'duplicate key in table "{mutation.table.qualified}": ({names}) = {key_text(columns, twice[0])} '
                "is twice in the statement"
            )
        kept = last_or_first(mutation.rows, columns, keep_last=mutation.on_conflict is OnConflict.UPDATE)
        mutation = self._restaged(mutation, kept, made)
        return mutation, Probe.of(_key(mutation.table.schema, kept))

    def _restaged(self, mutation: Mutation, rows: pa.Table, made: list[str]) -> Mutation:
        """The mutation with some of its rows left out; what lay in a segment file gets another, noted in `made`."""
        if mutation.segment is None or not rows.num_rows:
            return replace(mutation, rows=rows, segment=None)
        by_id = _by_id(replace(mutation, rows=rows))
        writer = SegmentWriter(self._scopes.log.folder, by_id.schema)
        try:
            for batch in by_id.to_batches(max_chunksize=65_536):
                writer.add(batch)
            segment = writer.finish()
        except BaseException:
            writer.discard()
            raise
        made.append(file_of(segment))
        return replace(mutation, rows=rows, segment=segment)

    def _decide(self, ready: _Ready, made: list[str]) -> _Decided:
        mutation, scope, payload = ready.mutation, ready.scope, ready.payload
        if mutation.at is not None:
            return _marked(mutation, scope, payload, None, self._superseded(mutation, mutation.at, scope))
        if ready.probe is None:
            return _Decided(mutation, scope, payload, None, log.no_hot_marks(), log.no_cold_marks())
        schema, probe = mutation.table.schema, ready.probe
        with self._spent("locate"):
            found = locate(self._scopes, scope, schema, probe, ready.placed)
        if mutation.snapshot is not None:
            self._refuse_newer(mutation, scope, found, probe)
        if mutation.table.kind is TableKind.STREAM:
            return self._decide_stream(mutation, scope, found, probe, made)
        visible = found.visible
        if mutation.supersedes is not None:
            visible = visible & ~mutation.supersedes
        if visible.any():
            if mutation.on_conflict is OnConflict.ERROR:
                raise duplicate_key(mutation.table, probe.columns, int(np.flatnonzero(visible)[0]))
            if mutation.on_conflict is OnConflict.IGNORE:
                keep = ~visible
                mutation = self._restaged(mutation, mutation.rows.filter(pa.array(keep)), made)
                found = Located(found.hot[keep], found.batch[keep], found.row[keep], found.deleted[keep])
                return _marked(mutation, scope, _payload(mutation), None, found)
        return _marked(mutation, scope, payload, probe, found)

    def _superseded(self, mutation: Mutation, at: Positions, scope: OpenScope) -> Located:
        """The rows that a statement found, nothing having been written since; where they are now, if they were moved."""
        if at.layout == scope.state.layout:
            return located(self._scopes, scope, at)
        schema = mutation.table.schema
        found = locate(self._scopes, scope, schema, Probe.of(_key(schema, mutation.rows)))
        assert found.visible.all(), "what no writer has touched since the statement found it is still there"
        return found

    def _decide_stream(self, mutation: Mutation, scope: OpenScope, found: Located, probe: Probe, made: list[str]) -> _Decided:
        """In a STREAM table what a row takes the place of leaves the log, and a tombstone is only the wish for that."""
        now_us = self._scopes.clock.now_us()
        visible = stream.visible(mutation.table, scope, found, now_us)
        taken = visible if mutation.supersedes is None else visible & ~mutation.supersedes
        if taken.any() and mutation.on_conflict is OnConflict.ERROR:
            raise duplicate_key(mutation.table, probe.columns, int(np.flatnonzero(taken)[0]))
        written = ~taken if mutation.on_conflict is OnConflict.IGNORE else np.ones(len(taken), bool)
        leaving = found.hot[written & (found.hot >= 0)]
        if DELETED in mutation.rows.schema.names:
            written &= ~mutation.rows.column(DELETED).to_numpy()
        if not written.all() or DELETED in mutation.rows.schema.names:
            rows = mutation.rows.filter(pa.array(written)).select(mutation.table.schema.storage.names)
            mutation = self._restaged(mutation, rows, made)
        removal = stream.removal(self._scopes.log, scope, leaving)
        return _Decided(mutation, scope, _payload(mutation), None, log.no_hot_marks(), log.no_cold_marks(), removal)

    def _refuse_newer(self, mutation: Mutation, scope: OpenScope, found: Located, probe: Probe) -> None:
        """First committer wins: any version of a written key from after the snapshot, tombstones included, is a conflict."""
        assert mutation.snapshot is not None
        seqs = np.zeros(len(probe), np.int64)
        in_hot = found.hot >= 0
        seqs[in_hot] = scope.state.hot.ids.values()[found.hot[in_hot]]
        for entry in scope.state.manifest.batches:
            rows = np.flatnonzero(found.batch == entry.number)
            if len(rows) and entry.max_seq > mutation.snapshot:
                every = self._scopes.keys.seqs(scope.folder, entry, mutation.table.schema)
                seqs[rows] = every[found.row[rows]]
        newer = np.flatnonzero(seqs > mutation.snapshot)
        if mutation.base is not None and mutation.table.kind is TableKind.STREAM:
            alive = stream.alive_from(mutation.table, self._scopes.clock.now_us())
            gone = (mutation.base >= max(alive, 1)) & (seqs != mutation.base)  # deleted by another, not expired
            newer = np.flatnonzero((seqs > mutation.snapshot) | gone)
        if len(newer):
            raise Conflict(
                f'key {key_text(probe.columns, int(newer[0]))} of table "{mutation.table.qualified}" was changed by another '
                "transaction; nothing was written, run the transaction again"
            )

    @property
    def scopes(self) -> Scopes:
        return self._scopes

    def commit_located(
        self, mutation: Mutation, scope: OpenScope, probe: Probe, found: Located, extra: Extra | None
    ) -> tuple[int, int]:
        """Commit rows whose live versions the caller has located under the scope's lock, which it holds.

        :return: the position to wait for once the lock is let go, and the `_seq` of the first row.
        """
        payload = _payload(mutation)
        self._door.store.require_space(len(payload.body))
        return self._commit([_marked(mutation, scope, payload, probe, found)], extra)

    def _commit(self, decided: list[_Decided], extra: Extra | None) -> tuple[int, int]:
        door, hot_log = self._door, self._scopes.log
        total = sum(d.mutation.rows.num_rows for d in decided)
        with door.mutex:
            for d in decided:
                current = self._scopes.current(d.mutation.table.id)
                if current is None or current.schema.version != d.mutation.table.schema.version:
                    raise SchemaMoved(f'table "{d.mutation.table.qualified}" changed while the statement ran; run it again')
            batch = Batch()
            first = at = door.ids.take(max(total, 1))
            entries = []
            removals = [(d.scope, d.removal) for d in decided if d.removal is not None]
            for scope, removal in removals:
                hot_log.replace(batch, scope.scope, removal.entries, removal.left, removal.files)
            for d in decided:
                entry = _entry(d.mutation, at, d.payload, d.hot, d.cold)
                if entry.rows:
                    hot_log.put(batch, d.scope.scope, entry, d.mutation.table.schema)
                    entries.append((d, entry))
                at = id_after(at, entry.rows)
            last = id_after(first, max(total, 1) - 1)
            if extra is not None:
                extra(batch, total)
            if not len(batch):
                return door.store.appended, first
            batch.put("meta", LAST_SEQ, last.to_bytes(8, "big"))
            # Into memory first: above the watermark no reader sees it, and once appended it may be published at once.
            for scope, removal in removals:
                scope.state.hot.remove(removal.rows, first, removal.kept_entries)
            for d, entry in entries:
                apply(d.scope.state.hot, entry, d.payload.rows)
            position = door.append(batch, last)
            for d, _ in entries:
                hot_log.schema_written(d.mutation.table.id, d.mutation.table.schema)
        for d, _ in entries:
            if d.probe is not None:
                d.scope.state.hot.index_newest(d.probe)
        return position, first


def _key(schema: TableSchema, rows: pa.Table) -> list[pa.Array]:
    return [combined(rows.column(c.name)) for c in schema.key_columns]


def last_or_first(rows: pa.Table, columns: Sequence[pa.Array], *, keep_last: bool) -> pa.Table:
    """Drop all but the first or last row of each key, keeping the order."""
    names = [f"k{i}" for i in range(len(columns))]
    keys = pa.table([*columns, pa.array(np.arange(rows.num_rows))], names=[*names, "row"])
    how = "max" if keep_last else "min"
    kept = keys.group_by(names).aggregate([("row", how)]).column(f"row_{how}")
    return rows.take(pa.array(np.sort(kept.to_numpy())))


def _marked(mutation: Mutation, scope: OpenScope, payload: _Payload, probe: Probe | None, found: Located) -> _Decided:
    """The marks by which the new versions supersede the live ones."""
    if not found.found.any():
        return _Decided(mutation, scope, payload, probe, log.no_hot_marks(), log.no_cold_marks())
    in_hot, in_cold = np.flatnonzero(found.hot >= 0), np.flatnonzero(found.batch >= 0)
    ids = scope.state.hot.ids.values()
    return _Decided(
        mutation,
        scope,
        payload,
        probe,
        hot_marks(ids[found.hot[in_hot]], in_hot),
        cold_marks(found.batch[in_cold], found.row[in_cold], in_cold),
    )


def _by_id(mutation: Mutation) -> pa.Table:
    """The rows as the hot tier keeps them: columns named by field id."""
    names = [str(c.id) for c in mutation.table.schema.columns]
    rows = mutation.rows
    if DELETED in rows.schema.names:
        names.append(DELETED)
    return rows.rename_columns(names)


def _payload(mutation: Mutation) -> _Payload:
    if mutation.segment is not None:
        return _Payload(_by_id(mutation), None, mutation.segment.encode())
    schema, rows = batch_schema(mutation.table.schema), mutation.rows
    if DELETED in rows.schema.names:
        schema = schema.append(pa.field(DELETED, pa.bool_(), nullable=False))
    columns = [combined(c) if c.type == f.type else combined(c.cast(f.type)) for c, f in zip(rows.columns, schema, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    return _Payload(pa.Table.from_batches([batch]), batch, batch.serialize().to_pybytes())


def _entry(
    mutation: Mutation, first: int, payload: _Payload, hot: npt.NDArray[np.void], cold: npt.NDArray[np.void]
) -> log.Entry:
    version, rows = mutation.table.schema.version, mutation.rows.num_rows
    return log.Entry(version, first, rows, payload.batch, mutation.segment, hot, cold, body=payload.body)
