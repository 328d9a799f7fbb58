"""What the service says about itself in SQL: running statements, sessions, settings, figures; and KILL QUERY."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.auth.identity import Identity
from flightkalam.catalog.providers import SYSTEM, Context, Providers
from flightkalam.config import KEYS, Config
from flightkalam.errors import HiddenObject
from flightkalam.figures import figure as figure_of
from flightkalam.session.execution import Execution
from flightkalam.session.queries import Queries, Query, unknown
from flightkalam.sql import statements as s
from flightkalam.telemetry import BUCKETS, Counters, Sample, Spread

_STAMP = pa.timestamp("us", "UTC")
QUERIES_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.utf8(), nullable=False),
        pa.field("user_id", pa.utf8(), nullable=False),
        pa.field("actor_id", pa.utf8(), nullable=False),
        pa.field("session_id", pa.utf8(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("state", pa.utf8(), nullable=False),
        pa.field("started_at", _STAMP, nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("statement_hash", pa.utf8()),
        pa.field("statement", pa.utf8()),
    ]
)
SESSIONS_SCHEMA = pa.schema(
    [
        pa.field("session_id", pa.utf8(), nullable=False),
        pa.field("user_id", pa.utf8(), nullable=False),
        pa.field("role", pa.utf8(), nullable=False),
        pa.field("login", pa.utf8(), nullable=False),
        pa.field("namespace", pa.utf8(), nullable=False),
        pa.field("idle_seconds", pa.float64(), nullable=False),
        pa.field("running", pa.int64(), nullable=False),
        pa.field("transactions", pa.int64(), nullable=False),
        pa.field("prepared", pa.int64(), nullable=False),
    ]
)
SETTINGS_SCHEMA = pa.schema(
    [
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("value", pa.utf8(), nullable=False),
        pa.field("unit", pa.utf8(), nullable=False),
        pa.field("default", pa.utf8(), nullable=False),
        pa.field("allowed", pa.utf8(), nullable=False),
        pa.field("description", pa.utf8(), nullable=False),
    ]
)
METRICS_SCHEMA = pa.schema(
    [
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("labels", pa.utf8(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("description", pa.utf8(), nullable=False),
    ]
)


class Shown(Protocol):
    """A session, as far as it is shown."""

    identity: Identity
    session_id: str

    def figures(self) -> dict[str, object]: ...


class Door(Protocol):
    def sessions(self) -> Sequence[Shown]: ...


# -- statements -------------------------------------------------------------------------------------------------------


def queries_table(queries: Sequence[Query], caller: Identity) -> pa.Table:
    """A statement's text holds values, so that only who sent it sees it; for all others there is its hash."""
    rows = [
        {
            "query_id": q.query_id,
            "user_id": q.user,
            "actor_id": q.actor,
            "session_id": q.session_id,
            "kind": q.kind,
            "state": q.state,
            "started_at": dt.datetime.fromtimestamp(q.started_at_us / 1e6, dt.UTC),
            "rows": q.rows,
            "bytes": q.nbytes,
            "statement_hash": q.statement_hash,
            "statement": q.text if q.actor == caller.actor_id and not q.secret else None,
        }
        for q in queries
    ]
    return pa.Table.from_pylist(rows, schema=QUERIES_SCHEMA)


def show_queries(e: Execution, _: s.ShowQueries) -> pa.Table:
    """Everybody's for whom that is allowed, one's own for all others."""
    found = e.parts.queries.list()
    if not authorise.allowed(e.identity.role, Action.READ_SYSTEM):
        found = [q for q in found if q.actor == e.identity.actor_id]
    return queries_table(found, e.identity)


def kill_query(e: Execution, statement: s.KillQuery) -> int:
    """Stop one's own statement, or, as a dba, anybody's.

    :raises UndefinedObject: it is not running, or not for the caller to know of.
    """
    query = e.parts.queries.find(statement.id)
    if query is None:
        raise unknown(statement.id)
    own = query.actor == e.identity.actor_id and not e.identity.impersonated
    if not own and not authorise.allowed(e.identity.role, Action.KILL_QUERY):
        raise HiddenObject(unknown(statement.id).message, sqlstate="42704")
    e.parts.queries.kill(query)
    return 1


# -- system tables ----------------------------------------------------------------------------------------------------


def sessions_table(sessions: Sequence[Shown]) -> pa.Table:
    rows = [
        {
            "session_id": each.session_id,
            "user_id": each.identity.user_id,
            "role": each.identity.role.label,
            "login": each.identity.via,
            **each.figures(),
        }
        for each in sessions
    ]
    return pa.Table.from_pylist(rows, schema=SESSIONS_SCHEMA)


def settings_table(config: Config) -> pa.Table:
    shown = config.shown()
    rows = [
        {
            "name": key.name,
            "value": shown[key.name],
            "unit": key.unit,
            "default": key.default,
            "allowed": key.allowed,
            "description": key.reason,
        }
        for key in KEYS.values()
    ]
    return pa.Table.from_pylist(rows, schema=SETTINGS_SCHEMA)


def metrics_table(samples: Sequence[Sample]) -> pa.Table:
    rows = [row for sample in samples for row in _metric_rows(sample)]
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)


def _metric_rows(sample: Sample) -> list[dict[str, object]]:
    """A spread of durations becomes what monitoring systems make of it: buckets, sum and count."""
    figure = figure_of(sample.name)
    labels = dict(zip(figure.labels, sample.labels, strict=True))

    def row(name: str, value: float, **more: str) -> dict[str, object]:
        said = {"kind": figure.kind, "labels": json.dumps(labels | more), "description": figure.help}
        return {"name": name, "value": float(value), **said}

    if not isinstance(sample.value, Spread):
        return [row(figure.exported, sample.value)]
    rows, so_far = [], 0
    for bound, n in zip([f"{b:g}" for b in BUCKETS] + ["+Inf"], sample.value.counts, strict=True):
        so_far += n
        rows.append(row(f"{figure.exported}_bucket", so_far, le=bound))
    return [*rows, row(f"{figure.exported}_sum", sample.value.total), row(f"{figure.exported}_count", sample.value.n)]


def register(providers: Providers, queries: Queries, door: Door, config: Config, counters: Counters) -> None:
    def running(context: Context) -> pa.Table:
        return queries_table(queries.list(), context.caller)

    providers.register(SYSTEM, "queries", QUERIES_SCHEMA, running)
    providers.register(SYSTEM, "sessions", SESSIONS_SCHEMA, lambda _: sessions_table(door.sessions()))
    providers.register(SYSTEM, "settings", SETTINGS_SCHEMA, lambda _: settings_table(config))
    providers.register(SYSTEM, "metrics", METRICS_SCHEMA, lambda _: metrics_table(counters.samples()))
