"""Before a statement runs: its record, its meaning, memory for what it writes, and a place among those that compute."""

from __future__ import annotations

import threading
from dataclasses import replace

from flightkalam.session.queries import Query
from flightkalam.session.running import CHANGES_ROWS, UNQUEUED, Runner, action_of, holds_secret
from flightkalam.sql import statements as s


def begun(runner: Runner, session_id: str, text: str) -> tuple[Runner, Query]:
    """The record of a statement that is about to run, and the runner that everything it does can be stopped by."""
    queries, origin = runner.parts.queries, runner.origin
    query = queries.begin(runner.identity, session_id, text, secret=True, request_id=origin.request_id)
    if origin.on_start is not None:  # a statement that waits for its place can be stopped too
        origin.on_start(query.cancel.cancel)
    return replace(runner, query=query), query


def known(runner: Runner, query: Query, text: str) -> s.Statement:
    """Understand it, and wait for its place."""
    queries = runner.parts.queries
    with queries.phase(query, "parse"):
        statement = runner.parse(text)
    query.kind, query.secret = action_of(statement), holds_secret(statement, text)
    if isinstance(statement, CHANGES_ROWS):
        wait_for_memory(runner, query)
    if not isinstance(statement, UNQUEUED):
        with queries.phase(query, "queue"):
            queries.admit(query)
    return statement


def wait_for_memory(runner: Runner, query: Query) -> None:
    """A write adds to the hot rows; when these take too much memory it waits, holding nothing that a flush needs."""
    stopped = threading.Event()
    forget = query.cancel.on_cancel(stopped.set)
    try:
        with runner.parts.queries.phase(query, "memory"):
            runner.parts.scopes.budget.admit(stopped)
    finally:
        forget()
    query.cancel.check()
