"""Large results in parts, which several connections may read at once.

A part is some of the batches of one scan.  The scan is planned once, at one snapshot, and that is held until the parts expire
or are cancelled: so the parts together are exactly the rows of one moment, whatever is written, flushed or compacted meanwhile.

Only queries that make one row of one row of one stored table come in parts: nobody else can put the parts together again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from flightkalam.clock import Clock
from flightkalam.errors import Conflict, UndefinedObject
from flightkalam.model.schema import Table
from flightkalam.query.compute import CancelToken
from flightkalam.query.demands import row_by_row
from flightkalam.query.planner import TableRelation
from flightkalam.session import reads
from flightkalam.session.deadlines import Deadlines
from flightkalam.session.execution import Execution
from flightkalam.table.scan import ScanPlan


class Lease:
    """Holds a snapshot until it has expired and the last part that is being read has ended (T-43, T-52).

    :param close: lets go of the snapshot.
    """

    def __init__(self, close: Callable[[], None], deadlines: Deadlines, clock: Clock, seconds: float) -> None:
        self._close = close
        self._deadlines = deadlines
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._holders = 1
        self._over = False
        self._forget: Callable[[], None] = lambda: None
        self.expires_us = 0
        self.renew()

    def renew(self) -> None:
        """Begin the time anew.

        :raises UndefinedObject: it is over.
        """
        token = CancelToken()
        token.on_cancel(self.end)
        with self._lock:
            if self._over:
                raise gone()
            self._forget()
            self._forget = self._deadlines.watch(token, self._seconds)
            self.expires_us = self._clock.now_us() + int(self._seconds * 1_000_000)

    def end(self) -> None:
        """No part can be begun any more.  Safe to call twice."""
        with self._lock:
            if self._over:
                return
            self._over = True
            self._forget()
        self._release()

    def hold(self) -> Callable[[], None]:
        """Read a part; call what this returns at its end.

        :raises UndefinedObject: it is over.
        """
        with self._lock:
            if self._over:
                raise gone()
            self._holders += 1
        return self._release

    def _release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._close()


@dataclass(frozen=True)
class Part:
    """What one part reads.

    :param table: as it was when the parts were planned.
    """

    table: Table
    scan: ScanPlan
    lease: Lease

    def scan_of(self, table: Table) -> ScanPlan:
        """:raises Conflict: the table is not the same any more."""
        if (table.id, table.schema.version) != (self.table.id, self.table.schema.version):
            raise Conflict(f'table "{table.qualified}" changed since the parts were planned; run the statement again')
        return self.scan


@dataclass(frozen=True)
class Parts:
    """:param rows: of all parts together, -1 when unknown."""

    parts: tuple[Part, ...]
    rows: int


def planned(e: Execution, text: str, most: int, seconds: float) -> Parts | None:
    """The parts of a query, which then own the execution; None when it cannot come in parts, or in one only."""
    guarded = e.parts.guard.check(text)
    if not row_by_row(guarded):
        return None
    relation = reads.relation(e, guarded.tables[0].parts)
    bound = reads.bind(e, text, parameters=e.parameters)
    if not isinstance(relation, TableRelation) or len(bound.requests) != 1 or bound.requests[0].tombstones:
        return None
    scan = reads.plan(e, bound).scans[0]
    assert isinstance(scan, ScanPlan), "outside a transaction a table's rows are its own"
    snapshot = e.snapshot(relation.table)
    sizes = {str(snapshot.scope.folder / b.file): b.rows for b in snapshot.state.manifest.batches}
    scans = split(scan, sizes, most)
    if len(scans) < 2:
        return None
    lease = Lease(e.close, e.parts.deadlines, e.parts.clock, seconds)
    rows = -1 if guarded.selects[0].node.get("where_clause") else _rows_of(scan, sizes)
    return Parts(tuple(Part(relation.table, s, lease) for s in scans), rows)


def _rows_of(scan: ScanPlan, sizes: Mapping[str, int]) -> int:
    hot = 0 if scan.hot is None else scan.hot.num_rows
    return hot + scan.blank + sum(sizes[p] for p in scan.clean) + sum(d.rows - len(d.dead) for d in scan.dirty)


def split(scan: ScanPlan, sizes: Mapping[str, int], most: int) -> list[ScanPlan]:
    """The scan in at most so many scans of about the same number of rows; together they read what it reads, each row once.

    :param sizes: rows by path.
    """
    pieces = [(sizes[path], path) for path in scan.clean] + [(d.rows, d.path) for d in scan.dirty]
    if scan.hot is not None or scan.blank:
        pieces.append(((0 if scan.hot is None else scan.hot.num_rows) + scan.blank, ""))
    bins: list[tuple[int, set[str]]] = [(0, set()) for _ in range(min(most, len(pieces)))]
    for size, path in sorted(pieces, reverse=True):
        lightest = min(range(len(bins)), key=lambda i: bins[i][0])
        before, paths = bins[lightest]
        bins[lightest] = (before + size, paths | {path})
    return [_only(scan, paths) for _, paths in bins]


def _only(scan: ScanPlan, paths: set[str]) -> ScanPlan:
    return replace(
        scan,
        hot=scan.hot if "" in paths else None,
        blank=scan.blank if "" in paths else 0,
        clean=tuple(p for p in scan.clean if p in paths),
        dirty=tuple(d for d in scan.dirty if d.path in paths),
    )


def gone() -> UndefinedObject:
    return UndefinedObject("the snapshot of this part is not held any more; run the statement again", sqlstate="26000")
