"""The statements under way: who sent them, how far they are, what stops them, and what is said of them at their end.

    begin ── queued ── running ── [sending ── running …] ── end: figures, a log line, a slow-query line, spans

One record lives from the moment a call runs a statement to its count or its last row.  `system.queries` and SHOW QUERIES list
the records, KILL QUERY fires the token that everything the statement does looks at.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from flightkalam.auth.audit import statement_hash
from flightkalam.auth.identity import Identity
from flightkalam.clock import Clock
from flightkalam.errors import BadRequest, Cancelled, InternalError, KalamError, UndefinedObject
from flightkalam.query.compute import CancelToken
from flightkalam.session.admission import Admission, Place
from flightkalam.telemetry import Counters, enabled, logger

KILLED = "the statement was stopped by KILL QUERY"
log = logger("statements")


@dataclass(slots=True, eq=False)
class Query:
    """:param actor: who sent it.
    :param user: in whose name it runs.
    :param text: shown to its own sender alone; the hash stands for it everywhere else.
    :param request_id: what the client calls its request; else our own id.
    :param phases: name, begin and end of each step, by the monotonic clock.
    """

    query_id: str
    request_id: str
    session_id: str
    actor: str
    user: str
    text: str
    secret: bool
    started_at_us: int
    began: float
    cancel: CancelToken = field(default_factory=CancelToken)
    kind: str = "UNKNOWN"
    state: str = "running"
    rows: int = 0
    nbytes: int = 0
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    place: Place | None = None
    error: BaseException | None = None
    ended: bool = False

    @property
    def statement_hash(self) -> str | None:
        """None for a statement that holds a password: not even a hash of it is kept."""
        return None if self.secret else statement_hash(self.text)

    def sent(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self.nbytes += batch.nbytes

    def paused(self) -> None:
        """It waits for its client."""
        self.state = "sending"
        if self.place is not None:
            self.place.pause()

    def resumed(self) -> None:
        if self.place is not None:
            self.place.resume()
        self.state = "running"
        self.cancel.check()


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a statement at its end.

    :param outcome: ok, refused (its own fault), failed, cancelled.
    """

    query: Query
    outcome: str
    sqlstate: str | None
    seconds: float


Hook = Callable[[Ended], None]


class Queries:
    """:param slow_seconds: statements that take longer are logged; 0: none.
    :param result_bytes: the most that one result may have; 0: no limit.
    :param hooks: told of every end.
    """

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        admission: Admission,
        *,
        slow_seconds: float = 0.0,
        result_bytes: int = 0,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._clock = clock
        self._counters = counters
        self.admission = admission
        self._slow_seconds = slow_seconds
        self._result_bytes = result_bytes
        self._hooks = hooks
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._running: dict[str, Query] = {}

    # -- a statement's life ------------------------------------------------------------------------------------

    def begin(self, identity: Identity, session_id: str, text: str, *, secret: bool, request_id: str = "") -> Query:
        query_id = f"Q-{self._prefix}{next(self._numbers):x}"
        query = Query(
            query_id,
            request_id or query_id,
            session_id,
            identity.actor_id,
            identity.user_id,
            text,
            secret,
            self._clock.now_us(),
            self._clock.monotonic(),
        )
        with self._lock:
            self._running[query_id] = query
        return query

    def admit(self, query: Query) -> None:
        """Take a place among those that compute."""
        query.state = "queued"
        query.place = self.admission.enter(query.actor, query.cancel)
        query.state = "running"

    def end(self, query: Query, error: BaseException | None = None) -> None:
        """Safe to call twice; the first time counts."""
        with self._lock:
            if query.ended:
                return
            query.ended = True
            self._running.pop(query.query_id, None)
        if query.place is not None:
            query.place.leave()
        error = error if error is not None else query.error
        ended = Ended(query, *_outcome(error), self._clock.monotonic() - query.began)
        self._count(ended)
        self._say(ended)
        for hook in self._hooks:
            hook(ended)

    @contextmanager
    def running(self, query: Query) -> Iterator[Query]:
        """For a statement that ends with its call."""
        try:
            yield query
        except BaseException as error:
            self.end(query, error)
            raise
        self.end(query)

    @contextmanager
    def phase(self, query: Query | None, name: str) -> Iterator[None]:
        if query is None:
            yield
            return
        begun = self._clock.monotonic()
        try:
            yield
        finally:
            query.phases.append((name, begun, self._clock.monotonic()))

    def streamed(self, query: Query, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows on their way out.  While the client does not take them, the place is others'."""
        begun = self._clock.monotonic()
        try:
            for batch in batches:
                query.cancel.check()
                query.sent(batch)
                self._refuse_large(query)
                query.paused()
                yield batch
                query.resumed()
        except GeneratorExit:
            query.error = Cancelled("the client has left")
            raise
        except BaseException as error:
            query.error = error
            raise
        finally:
            query.phases.append(("stream", begun, self._clock.monotonic()))

    def arriving(self, query: Query, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows on their way in, likewise."""
        rows = iter(batches)
        while True:
            query.paused()
            batch = next(rows, None)
            query.resumed()
            if batch is None:
                return
            query.rows += batch.num_rows
            self._counters.add("rows_in", batch.num_rows)
            self._counters.add("bytes_in", batch.nbytes)
            yield batch

    def _refuse_large(self, query: Query) -> None:
        if self._result_bytes and query.nbytes > self._result_bytes:
            raise BadRequest(
                f"the result is larger than limits.result_bytes allows ({self._result_bytes:,} bytes); "
                "ask for fewer rows or columns",
                sqlstate="54000",
            )

    def _count(self, ended: Ended) -> None:
        query, counters = ended.query, self._counters
        counters.add("statements", 1, query.kind, ended.outcome)
        counters.observe("statement_seconds", ended.seconds, query.kind)
        if query.nbytes:
            counters.add("rows_out", query.rows)
            counters.add("bytes_out", query.nbytes)

    def _say(self, ended: Ended) -> None:
        slow = bool(self._slow_seconds) and ended.seconds >= self._slow_seconds
        if slow:
            self._counters.add("statements_slow")
            phases = {f"{name}_ms": round((end - begin) * 1000, 1) for name, begin, end in ended.query.phases}
            log.warning("slow_statement", **self._fields(ended), **phases)
        elif ended.outcome in ("failed", "cancelled") and enabled("info"):
            log.info("statement_ended", **self._fields(ended))
        elif enabled("debug"):
            log.debug("statement_ended", **self._fields(ended))

    def _fields(self, ended: Ended) -> dict[str, object]:
        query = ended.query
        return {
            "query_id": query.query_id,
            "request_id": query.request_id,
            "actor": query.actor,
            "subject": query.user,
            "kind": query.kind,
            "hash": query.statement_hash,
            "outcome": ended.outcome,
            "sqlstate": ended.sqlstate,
            "ms": round(ended.seconds * 1000, 1),
            "rows": query.rows,
            "bytes": query.nbytes,
        }

    # -- looking and stopping ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the hooks send what they have kept."""
        for hook in self._hooks:
            close = getattr(hook, "close", None)
            if close is not None:
                close()

    def list(self) -> list[Query]:
        """Every statement under way, the oldest first."""
        with self._lock:
            return list(self._running.values())

    def states(self) -> dict[str, int]:
        return {"queued": 0, "running": 0, "sending": 0} | Counter(q.state for q in self.list())

    def find(self, query_id: str) -> Query | None:
        return self._running.get(query_id)

    def kill(self, query: Query) -> None:
        """Stop what the statement does; it answers its client with 57014.

        :raises UndefinedObject: it has ended meanwhile.
        """
        if query.ended:
            raise unknown(query.query_id)
        query.cancel.cancel(KILLED)


def unknown(query_id: str) -> UndefinedObject:
    return UndefinedObject(
        f'query "{query_id[:60]}" is not running: it has ended, or is not yours; SHOW QUERIES lists those that are',
        sqlstate="42704",
    )


def _outcome(error: BaseException | None) -> tuple[str, str | None]:
    if error is None:
        return "ok", None
    if isinstance(error, Cancelled):
        return "cancelled", error.sqlstate
    if isinstance(error, KalamError) and not isinstance(error, InternalError):
        return "refused", error.sqlstate
    return "failed", getattr(error, "sqlstate", "XX000")
