"""STREAM tables: rows that live for TTL_SECONDS, in the hot tier alone.

    written at w (the millisecond in its `_seq`)      visible while    now < w + TTL
                                                      expired when     now >= w + TTL, to every reader and writer at once

`_seq` ascends, so the expired rows of a scope are always the first ones; nothing has to be marked when they expire.  The
eviction job takes their log entries away later.

A DELETE is physical: with its commit the row leaves the log, without a tombstone; the same happens to a row that a new one
takes the place of, so the log never has two rows of one key.  What is left of an entry is written again in pieces, so that the
next row of it costs no more than a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flightkalam import failpoints
from flightkalam.clock import id_floor, id_offsets
from flightkalam.hot import log
from flightkalam.hot.rows import HotCut
from flightkalam.hot.segments import file_of
from flightkalam.hot.store import HotLog, ids_of
from flightkalam.model.keys import I64
from flightkalam.model.schema import SEQ, Table, TableKind
from flightkalam.storage.kv import Batch
from flightkalam.table.locate import Located
from flightkalam.table.scopes import OpenScope, Scopes, ScopeState

_PIECE = 4_096  # rows of an entry that was made of what is left of another


def alive_from(table: Table, now_us: int) -> int:
    """The lowest `_seq` that has not expired; 0 for tables whose rows do not."""
    if table.kind is not TableKind.STREAM or table.options.ttl_seconds is None:
        return 0
    # The last expired millisecond is the one that began TTL ago or before.
    return id_floor(now_us - table.options.ttl_seconds * 1_000_000 + 1_000)


def unexpired(cut: HotCut, alive_from: int) -> HotCut:
    """The cut without its expired rows."""
    seqs = cut.table.column(SEQ)
    expired = int(np.searchsorted(seqs.to_numpy(), alive_from)) if len(seqs) else 0
    return cut if not expired else HotCut(cut.table.slice(expired), 0, cut.total)


def visible(table: Table, scope: OpenScope, found: Located, now_us: int) -> npt.NDArray[np.bool_]:
    """Which of the located rows are there for a statement of this moment."""
    out = found.hot >= 0
    out[out] = scope.state.hot.ids.values()[found.hot[out]] >= alive_from(table, now_us)
    return out


# -- rows that leave --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removal:
    """Rows that leave a scope's log.

    :param rows: their row numbers, ascending.
    :param entries: first `_seq` of the log entries that they stand in.
    :param left: what is left of those.
    :param files: segment files that those named.
    :param kept_entries: first `_seq` of every entry that the log then has.
    """

    rows: I64
    entries: tuple[int, ...]
    left: tuple[log.Entry, ...]
    files: tuple[str, ...]
    kept_entries: I64


def removal(hot_log: HotLog, scope: OpenScope, rows: I64) -> Removal | None:
    """How `rows` leave the log; None when there are none.  Call with the scope's lock held."""
    if not len(rows):
        return None
    hot, rows = scope.state.hot, np.sort(rows)
    seqs, every = hot.ids.values()[rows], hot.entries.values()
    touched = every[np.unique(np.searchsorted(every, seqs, "right") - 1)]
    left: list[log.Entry] = []
    files: list[str] = []
    for first_seq in touched.tolist():
        entry = hot_log.entry(scope.scope, first_seq)
        if entry.segment is not None:
            files.append(file_of(entry.segment))
        left += _left(hot_log, entry, seqs)
    kept = np.union1d(np.setdiff1d(every, touched), np.array([e.first_seq for e in left], np.int64))
    return Removal(rows, tuple(touched.tolist()), tuple(left), tuple(files), kept)


def _left(hot_log: HotLog, entry: log.Entry, seqs: I64) -> Iterator[log.Entry]:
    """An entry without the rows that have these `_seq`s, in pieces."""
    ids = ids_of(entry)
    kept = np.flatnonzero(~np.isin(ids, seqs))
    if not len(kept):
        return
    table = hot_log.table_of(entry, verify=False)
    for start in range(0, len(kept), _PIECE):
        rows = kept[start : start + _PIECE]
        batch = table.take(pa.array(rows)).combine_chunks().to_batches()[0]
        first = int(ids[rows[0]])
        yield log.Entry(entry.schema_version, first, len(rows), batch, places=id_offsets(first, ids[rows]))


def removed(scopes: Scopes, scope: OpenScope, done: Removal) -> None:
    """The removal is durable: its files go, and its memory when that is a large part of the scope's."""
    scopes.log.remove_files(done.files)
    with scope.lock:
        hot = scope.state.hot
        dead = int(np.count_nonzero(hot.superseded_by.values()))
        if 2 * dead >= hot.n:
            _keep(scopes, scope, hot.superseded_by.values() == 0)


def _keep(scopes: Scopes, scope: OpenScope, alive: npt.NDArray[np.bool_]) -> None:
    """A layout with some of the rows alone; readers from before keep the one that they use."""
    state = scope.state
    since = max(scope.head, state.since)
    scope.swap(ScopeState(state.layout + 1, state.manifest, state.hot.kept(alive), since), scopes.door.oldest_pin())


# -- eviction: choose, do, install ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expired:
    """What an eviction takes.

    :param rows: so many rows from the first on.
    :param before: log entries below this `_seq`.
    """

    rows: int
    before: int


def choose(ids: I64, entries: I64, alive_from: int) -> Expired | None:
    """The log entries whose rows have all expired; None when there are none.  Pure.

    :param ids: `_seq` of the hot rows; `entries`: first `_seq` of the log entries; both ascending.
    """
    expired = int(np.searchsorted(ids, alive_from))
    starts = np.append(np.searchsorted(ids, entries), len(ids))
    whole = int(np.searchsorted(starts, expired, "right")) - 1  # entries that end at or before the first unexpired row
    if whole <= 0 or not len(entries):
        return None
    before = int(entries[whole]) if whole < len(entries) else int(ids[-1]) + 1
    return Expired(int(starts[whole]), before)


def evict(scopes: Scopes, table: Table, owner: str | None) -> int:
    """Take the expired rows of a scope out of log and memory; returns how many."""
    scope = scopes.open(table, owner)
    with scope.lock:
        hot = scope.state.hot
        chosen = choose(hot.ids.values(), hot.entries.values(), alive_from(table, scopes.clock.now_us()))
        if chosen is None:
            scope.prune(scopes.door.oldest_pin())
            return 0
        files = [s.source for s in hot.segments if s.source is not None and s.end <= chosen.rows]
        position = _install(scopes, scope, chosen, files)
    scopes.door.wait(position)
    scopes.log.remove_files(files)
    with scope.lock:
        scope.prune(scopes.door.oldest_pin())
    return int(np.count_nonzero(hot.superseded_by.values()[: chosen.rows] == 0))


def _install(scopes: Scopes, scope: OpenScope, chosen: Expired, files: list[str]) -> int:
    """Commit an eviction and swap the layout; returns the position to wait for."""
    batch = Batch()
    scopes.log.trim(batch, scope.scope, chosen.before - 1, files)
    failpoints.hit("evict.before_append")
    with scopes.door.mutex:
        position = scopes.door.append(batch, None)
    alive = scope.state.hot.superseded_by.values() == 0
    alive[: chosen.rows] = False
    _keep(scopes, scope, alive)
    return position
