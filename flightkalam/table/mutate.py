"""The write door: new versions for one or more scopes -> one atomic commit.

    check rows ─ hash keys ─┐ scope lock: locate at the head, decide, mark ─┐ commit mutex: _seq, log, memory ─┐ wait
                            └───────────────────────────────────────────────┴──────────────────────────────────┘
Everything that can be done before a lock is done before it.  A refusal depends on the head just as a result does, so it too
waits until that head is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flightkalam import failpoints
from flightkalam.clock import id_after
from flightkalam.errors import Conflict, DuplicateKey, InternalError, KalamError
from flightkalam.hot import log
from flightkalam.hot.rows import ROW_BYTES, cold_marks, hot_marks
from flightkalam.hot.segments import SegmentWriter, file_of
from flightkalam.hot.store import apply, batch_schema
from flightkalam.model.ids import Scope
from flightkalam.model.keys import Probe, combined, first_duplicate, key_hashes, key_text
from flightkalam.model.schema import DELETED, Table, TableKind
from flightkalam.storage.kv import Batch
from flightkalam.table import stream
from flightkalam.table.line import Member
from flightkalam.table.locate import Located, Placed, few, locate, placed_ahead
from flightkalam.table.mutation import (
    Committed,
    Extra,
    HeadMoved,
    Mutation,
    OnConflict,
    SchemaMoved,
    Versions,
    check_rows,
    duplicate_key,
    key_of,
    last_or_first,
)
from flightkalam.table.positions import Positions, located
from flightkalam.table.scopes import OpenScope, Scopes
from flightkalam.table.stream import Removal

LAST_SEQ = b"last_seq"
_FEW_KEYS = 32  # rows of a shared commit where there are cold rows: so many keys are asked of filters, and no batch is read
_MANY = 4_096  # rows of a shared commit elsewhere


# A context for one step by its name.
Spent = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A write that stands in line."""

    mutation: Mutation
    extra: Extra | None


_Member = Member[_Asked, Committed]


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


class Writer:
    """Commits mutations."""

    def __init__(self, scopes: Scopes, spent: Spent = lambda _: nullcontext()) -> None:
        """:param spent: told around each step that a measurement asks about."""
        self._spent = spent
        self._scopes = scopes
        self._door = scopes.door

    @property
    def healthy(self) -> bool:
        """Whether the store still writes; else nobody knows whether the write that failed is in the log (T-15)."""
        return self._door.store.healthy

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
        counters, monotonic = self._scopes.counters, self._scopes.clock.monotonic
        begun = monotonic()
        done = self._write_any(mutations, extra, seen)
        counters.observe("commit_seconds", monotonic() - begun)
        counters.add("commits")
        counters.add("versions_written", sum(done.rows))
        return done

    def _write_any(self, mutations: Sequence[Mutation], extra: Extra | None, seen: int | None) -> Committed:
        if seen is None and len(mutations) == 1 and _shares(mutations[0]):
            scope = self._scopes.open(mutations[0].table, mutations[0].owner)
            if scope.alone != threading.get_ident():
                return self._write_in_line(scope, _Asked(mutations[0], extra))
        with self._scrapped() as made:
            return self._write(mutations, extra, seen, made)

    # -- small writes, in line ---------------------------------------------------------------------------------

    def _write_in_line(self, scope: OpenScope, asked: _Asked) -> Committed:
        check_rows(asked.mutation.table, asked.mutation.rows)
        failpoints.hit("write.ready")
        member: _Member = Member(asked)
        scope.line.join(member)
        if member.leads:
            self._lead(scope, member)
        self._door.wait(member.position)
        done = member.outcome()
        failpoints.hit("write.durable")
        return done

    def _lead(self, scope: OpenScope, leader: _Member) -> None:
        """Settle those in line and have them woken, each once, when that is durable."""
        group = [leader]
        try:
            with scope.lock:
                group = scope.line.take()
                for members in _alike(group, _FEW_KEYS if scope.state.manifest.batches else _MANY):
                    if len(members) == 1 or not self._settle_as_one(scope, members):
                        for member in members:
                            self._settle(member)
        finally:
            scope.line.leave(leader)
            for member in group:
                if not member.settled:
                    member.error = InternalError("the write was interrupted")
            self._door.store.wake_at(max(m.position for m in group), [m.woken for m in group if m is not leader])
        failpoints.hit("write.appended")

    def _settle_as_one(self, scope: OpenScope, members: list[_Member]) -> bool:
        """Commit the rows of all as those of one write, if no key is in the way of another, or taken.

        :return: False when nothing was done: each has to learn for itself what is wrong.
        """
        head = scope.head
        try:
            mutation = replace(members[0].asked.mutation, rows=pa.concat_tables([m.asked.mutation.rows for m in members]))
            decided = self._decide_as_one(mutation, scope)
            if decided is None:
                return False
            self._door.store.require_space(len(decided.payload.body))
            failpoints.hit("write.together")
            position, first = self._commit([decided], _every_extra(members))
        except Exception as e:
            if scope.head == head:
                return False
            for m in members:  # the outcome is unknown: nobody may try again
                m.error = e
            return True
        for m in members:
            rows = m.asked.mutation.rows
            m.position, m.done = position, Committed((rows.num_rows,), first, (rows,), frozenset())
            first = id_after(first, rows.num_rows)
        return True

    def _decide_as_one(self, mutation: Mutation, scope: OpenScope) -> _Decided | None:
        """None when the keys meet each other, or one of them may have to be refused or left out."""
        if mutation.fresh_keys:
            return _Decided(mutation, scope, _payload(mutation), None, log.no_hot_marks(), log.no_cold_marks())
        schema = mutation.table.schema
        probe = Probe.of(key_of(schema, mutation.rows))
        if probe.meets_itself:
            return None
        with self._spent("locate"):
            found = locate(self._scopes, scope, schema, probe)
        if mutation.on_conflict is not OnConflict.UPDATE and found.visible.any():
            return None
        return _marked(mutation, scope, _payload(mutation), probe, found)

    def _settle(self, member: _Member) -> None:
        """Commit or refuse one write.  Call with the scope's lock held."""
        try:
            ready = self._ready(member.asked.mutation, [])
            self._door.store.require_space(len(ready.payload.body))
            member.position = self._door.store.appended  # a refusal depends on the head too
            decided = self._decide(ready, [])
            failpoints.hit("write.decided")
            member.position, first = self._commit([decided], member.asked.extra)
            rows = decided.mutation.rows
            member.done = Committed((rows.num_rows,), first, (rows,), frozenset())
        except Exception as e:
            member.error = e

    # -- any write ---------------------------------------------------------------------------------------------

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
        probe = Probe.of(key_of(mutation.table.schema, mutation.rows))
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
                before, scope.alone = scope.alone, threading.get_ident()
                try:
                    self._door.wait(self._door.store.appended)
                    yield
                finally:
                    scope.alone = before
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
        columns = key_of(mutation.table.schema, mutation.rows)
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
        return mutation, Probe.of(key_of(mutation.table.schema, kept))

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
        found = locate(self._scopes, scope, schema, Probe.of(key_of(schema, mutation.rows)))
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
                extra(batch, Versions(total, first))
            if not len(batch):
                return door.store.appended, first
            batch.put("meta", LAST_SEQ, last.to_bytes(8, "big"))
            # Into memory first: above the watermark no reader sees it, and once appended it may be published at once.
            for scope, removal in removals:
                scope.state.hot.remove(removal.rows, first, removal.kept_entries)
            for d, entry in entries:
                apply(d.scope.state.hot, entry, d.payload.rows)
            position = door.append(batch, last)
            for d, entry in entries:
                self._scopes.keep(d.scope)
                self._scopes.budget.grew(len(d.payload.body) + ROW_BYTES * entry.rows)
                hot_log.schema_written(d.mutation.table.id, d.mutation.table.schema)
        for d, _ in entries:
            if d.probe is not None:
                d.scope.state.hot.index_newest(d.probe)
        return position, first


def _shares(mutation: Mutation) -> bool:
    """Whether a write may become part of a commit with others: a few plain rows that depend on nothing but their keys."""
    return (
        few(mutation.rows.num_rows)
        and mutation.segment is None
        and mutation.supersedes is None
        and mutation.snapshot is None
        and mutation.at is None
        and mutation.table.kind is not TableKind.STREAM
    )


def _alike(group: list[_Member], most: int) -> list[list[_Member]]:
    """The members whose rows can be one table, those who came first in front.

    :param most: rows of such a table.
    """
    if len(group) == 1:
        return [group]
    parts: list[list[_Member]] = []
    open_: dict[object, tuple[list[_Member], int]] = {}
    for member in group:
        m = member.asked.mutation
        kind = (m.table.schema.version, m.on_conflict, m.fresh_keys, m.rows.num_columns)
        part, rows = open_.get(kind, ([], most))
        if rows + m.rows.num_rows > most:
            part, rows = [], 0
            parts.append(part)
        part.append(member)
        open_[kind] = part, rows + m.rows.num_rows
    return parts


def _every_extra(members: list[_Member]) -> Extra:
    def extra(batch: Batch, versions: Versions) -> None:
        first = versions.first
        for m in members:
            own = Versions(m.asked.mutation.rows.num_rows, first)
            if m.asked.extra is not None:
                m.asked.extra(batch, own)
            first = id_after(first, own.count)

    return extra


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
