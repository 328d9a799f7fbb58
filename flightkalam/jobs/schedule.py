"""When work begins by itself: flushes by FLUSH_POLICY, and jobs that come round after a time.

    every check      each scope with hot rows: due (pure)? -> one flush job for each table, naming the owners
    every period     retention where a table asks for it or has something overdue, and what else was registered

A check looks at scopes with hot rows and at nothing else.  Those are in memory, save what a stop left behind: that is
looked for once, in the keys of the log.  So idle tables cost next to nothing, ten thousand of them too.

*The bound of erasure.*  With automatic compaction a deleted or superseded value has left every file of ours
`DELETED_RETENTION_HOURS` + 24 h later.  The version that supersedes must be flushed before a compaction can see it,
whatever the policy says:

    0 ─────────── retention ──── + 12 h ──────────── + 13 h ────────────── + 24 h
    superseded    may go         flushed at last     compacted at last     the store's own files rewritten at last
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flightkalam.clock import Clock, id_time_us
from flightkalam.errors import KalamError, TryAgain
from flightkalam.hot.rows import HotRows
from flightkalam.jobs.job import UNFINISHED
from flightkalam.jobs.runner import Jobs
from flightkalam.model.ids import Scope
from flightkalam.model.schema import Table, TableKind, TableOptions
from flightkalam.table.scopes import Scopes
from flightkalam.telemetry import logger

_HOUR_US = 3_600_000_000
_ERASURE_SLACK_US = 12 * _HOUR_US
_AGAIN_US = 60_000_000  # a flush that failed is asked for again after a minute
_FEW_ROWS = 256
FIRST_SECONDS = 600.0  # no periodic job waits longer than this after a start
log = logger("schedule")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The hot rows of one scope.

    :param rows: versions in its log.
    :param since_us: when the first of them was committed.
    :param nbytes: memory that they take.
    """

    scope: Scope
    rows: int
    since_us: int
    nbytes: int = 0


def due(waiting: Waiting, options: TableOptions, now_us: int, *, erases: bool) -> bool:
    """Whether a scope is to be flushed now.

    :param erases: the table is compacted by itself, so that the bound of erasure holds for it.
    """
    if not waiting.rows:
        return False
    age = now_us - waiting.since_us
    return (
        (options.flush_rows is not None and waiting.rows >= options.flush_rows)
        or (options.flush_interval_s is not None and age >= options.flush_interval_s * 1_000_000)
        or (erases and age >= options.deleted_retention_hours * _HOUR_US + _ERASURE_SLACK_US)
    )


def too_large(waiting: Iterable[Waiting], limit: int) -> frozenset[Scope]:
    """The scopes to flush so that hot rows take three quarters of `limit` again: the largest first; none below it.

    :param limit: bytes; 0: no limit.
    """
    by_size = sorted(waiting, key=lambda w: w.nbytes, reverse=True)
    total, found = sum(w.nbytes for w in by_size), set()
    if limit and total > limit:
        for each in by_size:
            if 4 * total <= 3 * limit:
                break
            found.add(each.scope)
            total -= each.nbytes
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that comes round.

    :param parameters: of the next one; None when there is nothing to do.
    """

    kind: str
    seconds: float
    parameters: Callable[[], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    job_id: str
    at_us: int


class Scheduler:
    """Asks for jobs; does none of the work itself.

    :param tables: every table by its id.
    :param automatic: whether tables with COMPACTION 'auto' are compacted by themselves.
    :param seconds: between two checks.
    :param hot_bytes: memory of hot rows above which the largest scopes are flushed; 0: no limit.
    """

    def __init__(
        self,
        scopes: Scopes,
        jobs: Jobs,
        clock: Clock,
        tables: Callable[[], Mapping[int, Table]],
        *,
        automatic: bool,
        seconds: float,
        hot_bytes: int = 0,
        periodic: Iterable[Periodic] = (),
    ) -> None:
        self._scopes = scopes
        self._jobs = jobs
        self._clock = clock
        self._tables = tables
        self._automatic = automatic
        self._seconds = seconds
        self._hot_bytes = hot_bytes
        started = clock.monotonic()
        self._next = [(p, started + min(p.seconds, FIRST_SECONDS)) for p in periodic]
        self._left: dict[Scope, Waiting] | None = None  # what a stop left in the log of scopes that nobody has opened since
        self._asked: dict[int, _Asked] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kalam-schedule", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.check()
            except Exception as e:  # the next check tries again; without checks nothing would ever be flushed
                log.error("schedule_check_failed", error=f"{type(e).__name__}: {e}")

    def check(self) -> None:
        """Ask for what is due now."""
        try:
            for table, owners in self.due_flushes():
                job_id = self._jobs.submit("flush", {"tables": [table.qualified], "owners": owners})
                self._asked[table.id] = _Asked(job_id, self._clock.now_us())
            self._periodic()
        except TryAgain:
            return  # the service is shutting down

    def _periodic(self) -> None:
        now = self._clock.monotonic()
        for i, (periodic, at) in enumerate(self._next):
            if now >= at:
                self._next[i] = (periodic, now + periodic.seconds)
                parameters = periodic.parameters()
                if parameters is not None:
                    self._jobs.submit(periodic.kind, parameters)

    # -- flushes ------------------------------------------------------------------------------------------------

    def due_flushes(self) -> list[tuple[Table, list[str | None]]]:
        """Tables with the owners whose rows are to be flushed; those whose last flush is still under way are left out."""
        tables, now = self._tables(), self._clock.now_us()
        found: dict[int, list[str | None]] = {}
        everything = [w for w in self._waiting(tables) if _is_flushed(tables.get(w.scope.table_id))]
        large = too_large(everything, self._hot_bytes)
        for waiting in everything:
            table = tables[waiting.scope.table_id]
            if waiting.scope in large or due(
                waiting, table.options, now, erases=self._automatic and table.options.compaction == "auto"
            ):
                found.setdefault(table.id, []).append(waiting.scope.owner)
        return [(tables[i], owners) for i, owners in found.items() if self._free(i, now)]

    def _waiting(self, tables: Mapping[int, Table]) -> list[Waiting]:
        opened = self._scopes.opened()
        found = []
        for scope in opened:
            ids = scope.state.hot.ids.values()
            if len(ids):
                found.append(Waiting(scope.scope, len(ids), id_time_us(int(ids[0])), _nbytes(scope.state.hot)))
        if self._left is None:
            self._left = {w.scope: w for w in self._left_behind(tables, {s.scope for s in opened})}
        open_ = {s.scope for s in opened}
        found += [Waiting(s, rows, id_time_us(first)) for s, rows, first in self._scopes.resting() if s not in open_]
        for seen in open_ | {w.scope for w in found}:
            self._left.pop(seen, None)
        return found + list(self._left.values())

    def _left_behind(self, tables: Mapping[int, Table], opened: set[Scope]) -> list[Waiting]:
        """Scopes with rows in the log that nobody has opened; their rows are counted where a policy asks for it."""
        log_, found = self._scopes.log, []
        for scope, first_seq in log_.begun():
            table = tables.get(scope.table_id)
            if table is None or scope in opened or table.kind is TableKind.STREAM:
                continue
            limit = table.options.flush_rows
            rows = 1 if limit is None else log_.count(scope, limit)
            found.append(Waiting(scope, rows, id_time_us(first_seq)))
        return found

    def _free(self, table_id: int, now_us: int) -> bool:
        """Whether a flush of the table may be asked for: none of ours is under way, and none has just failed."""
        asked = self._asked.get(table_id)
        if asked is None:
            return True
        try:
            status = self._jobs.get(asked.job_id).status
        except KalamError:  # its record is gone
            return True
        return status not in UNFINISHED and (status == "completed" or now_us - asked.at_us >= _AGAIN_US)


def _nbytes(hot: HotRows) -> int:
    """Of a few rows nothing is counted: a flush of them would free nothing, and there may be very many such scopes."""
    return hot.nbytes if hot.n >= _FEW_ROWS else 0


def _is_flushed(table: Table | None) -> bool:
    return table is not None and table.kind is not TableKind.STREAM
