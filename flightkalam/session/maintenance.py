"""FLUSH, COMPACT and the jobs behind them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.errors import InvalidValue
from flightkalam.jobs.backup import KIND as BACKUP
from flightkalam.jobs.compact_policy import Want
from flightkalam.jobs.runner import Job
from flightkalam.model.schema import Table, TableKind
from flightkalam.session.execution import Execution
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.sql import statements as s

JOB_SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.utf8(), nullable=False),
        pa.field("table", pa.utf8()),
        pa.field("status", pa.utf8(), nullable=False),
        pa.field("result", pa.utf8()),
    ]
)
_STAMP = pa.timestamp("us", "UTC")
JOBS_SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.utf8(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("status", pa.utf8(), nullable=False),
        pa.field("parameters", pa.utf8(), nullable=False),
        pa.field("created_at", _STAMP, nullable=False),
        pa.field("started_at", _STAMP),
        pa.field("finished_at", _STAMP),
        pa.field("result", pa.utf8()),
        pa.field("error", pa.utf8()),
    ]
)


def flush(e: Execution, statement: s.Flush) -> Rows:
    """One job for a table, or one for all tables that the caller may flush; `WAIT` returns when it is done."""
    if statement.table is not None:
        table = e.table(statement.table, Action.FLUSH)
        if table.kind is TableKind.STREAM:
            raise InvalidValue(f'table "{table.qualified}" is a STREAM table, which is never flushed', sqlstate="42809")
        names = [table.qualified]
    else:
        names = [t.qualified for t in _flushable(e, statement.all_in)]
    shown = names[0] if statement.table is not None else None
    return _job(e, "flush", {"tables": names}, shown, wait=statement.wait)


def compact(e: Execution, statement: s.Compact) -> Rows:
    """One job for all scopes of a table: merges what is small and lets go of what no query can see."""
    table = e.table(statement.table, Action.COMPACT)
    if table.kind is TableKind.STREAM:
        raise InvalidValue(f'table "{table.qualified}" is a STREAM table, which has no files to compact', sqlstate="42809")
    parameters = {"table": table.qualified, "want": Want.ALL.value}
    return _job(e, "compact", parameters, table.qualified, wait=statement.wait)


def backup(e: Execution, statement: s.Backup) -> Rows:
    """One job that copies everything, as it is now; the answer comes when the backup is on disk."""
    authorise.require(e.identity, Action.BACKUP)
    e.parts.backups.require_free(statement.to)
    return _job(e, BACKUP, {"name": statement.to}, None, wait=True)


def rebuild(e: Execution, statement: s.RebuildManifest) -> Rows:
    """One job for all scopes of a table: compares its manifests with what the files say, and puts right what differs."""
    table = e.table(statement.table, Action.CHECK)
    if table.kind is TableKind.STREAM:
        raise InvalidValue(f'table "{table.qualified}" is a STREAM table, which has no manifest', sqlstate="42809")
    return _job(e, "manifest_rebuild", {"table": table.qualified}, table.qualified, wait=statement.wait)


def _job(e: Execution, kind: str, parameters: dict[str, Any], table: str | None, *, wait: bool) -> Rows:
    job_id = e.parts.jobs.submit(kind, parameters)
    e.close()  # the snapshot is not needed, and must not hold back what the job replaces
    job = e.parts.jobs.wait(job_id, lambda: e.cancel.cancelled) if wait else e.parts.jobs.get(job_id)
    result = json.dumps(job.result) if job.result is not None else None
    return rows_of(pa.table([[job.job_id], [table], [job.status], [result]], schema=JOB_SCHEMA))


def _flushable(e: Execution, namespace: s.Ident | None) -> list[Table]:
    wanted = None if namespace is None else e.state.namespace(namespace.value).name
    found = [t for t in e.state.objects(wanted) if isinstance(t, Table) and t.kind is not TableKind.STREAM]
    role = e.identity.role
    allowed = [t for t in found if authorise.allowed(role, Action.FLUSH, t.kind, t.options.access_level)]
    if not allowed:  # nothing to do, or not theirs to do
        authorise.require(e.identity, Action.FLUSH, "", TableKind.USER)
    return allowed


def show_jobs(e: Execution, _: s.ShowJobs) -> pa.Table:
    authorise.require(e.identity, Action.READ_SYSTEM)
    return jobs_table(e.parts.jobs.list())


def jobs_table(jobs: list[Job]) -> pa.Table:
    return pa.table(
        [
            [j.job_id for j in jobs],
            [j.kind for j in jobs],
            [j.status for j in jobs],
            [json.dumps(j.parameters) for j in jobs],
            [_stamp(j.created_at_us) for j in jobs],
            [_stamp(j.started_at_us) for j in jobs],
            [_stamp(j.finished_at_us) for j in jobs],
            [json.dumps(j.result) if j.result is not None else None for j in jobs],
            [j.error for j in jobs],
        ],
        schema=JOBS_SCHEMA,
    )


def _stamp(us: int | None) -> dt.datetime | None:
    return None if us is None else dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC)
