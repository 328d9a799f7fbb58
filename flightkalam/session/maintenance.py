"""FLUSH, COMPACT and the jobs behind them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.errors import InvalidValue
from flightkalam.jobs import kinds
from flightkalam.jobs.backup import KIND as BACKUP
from flightkalam.jobs.compact_policy import Want
from flightkalam.jobs.job import Job
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


def run_job(e: Execution, statement: s.RunJob) -> Rows:
    """One job of any kind.  What has a statement of its own needs the rights of that, the rest those of RUN JOB."""
    kind = kinds.kind_of(statement.name)
    wanted = kinds.read(kind, _object(statement.parameters))
    action = _ACTIONS.get(kind.name)
    if action is None or (isinstance(wanted, kinds.Compact) and wanted.want != "all"):
        authorise.require(e.identity, Action.BACKUP if isinstance(wanted, kinds.Backup) else Action.RUN_JOB)
        action = action or Action.CHECK
    parameters = wanted.model_dump(exclude_none=True)
    for field in ("table", "tables"):
        names = getattr(wanted, field, None)
        if isinstance(names, str):
            parameters[field] = _stored(e, names, action, kind.name)
        elif names is not None:
            parameters[field] = [_stored(e, name, action, kind.name) for name in names]
    if isinstance(wanted, kinds.Backup):
        e.parts.backups.require_free(wanted.name)
    return _job(e, kind.name, parameters, parameters.get("table"), wait=statement.wait)


_ACTIONS = {"flush": Action.FLUSH, "compact": Action.COMPACT, "manifest_rebuild": Action.CHECK}


def _object(text: str | None) -> object:
    try:
        return {} if text is None else json.loads(text)
    except ValueError as error:
        raise InvalidValue(f"the parameters of a job are a JSON object: {error}") from None


def _stored(e: Execution, name: str, action: Action, kind: str) -> str:
    """The table's name as it is kept; a cleanup names one that is gone."""
    if kind == "cleanup":
        return name
    table = e.table(tuple(name.split(".", 1)), action)
    if table.kind is TableKind.STREAM and kind != "stream_eviction":
        raise InvalidValue(f'table "{table.qualified}" is a STREAM table, which has no files', sqlstate="42809")
    return table.qualified


def kill_job(e: Execution, statement: s.KillJob) -> Rows:
    """Returns when the job has stopped, with the state that it ended in."""
    authorise.require(e.identity, Action.KILL_JOB)
    e.close()
    job = e.parts.jobs.kill(statement.id, lambda: e.cancel.cancelled)
    return rows_of(_answer(job, None))


def rebuild(e: Execution, statement: s.RebuildManifest) -> Rows:
    """One job for all scopes of a table: compares its manifests with what the files say, and puts right what differs."""
    table = e.table(statement.table, Action.CHECK)
    if table.kind is TableKind.STREAM:
        raise InvalidValue(f'table "{table.qualified}" is a STREAM table, which has no manifest', sqlstate="42809")
    return _job(e, "manifest_rebuild", {"table": table.qualified}, table.qualified, wait=statement.wait)


def _job(e: Execution, kind: str, parameters: dict[str, Any], table: str | None, *, wait: bool) -> Rows:
    """Who waits is told at once what went wrong and may ask again; a job that nobody waits for tries again by itself."""
    jobs, asked_by = e.parts.jobs, e.identity.actor_id
    job_id = jobs.submit(kind, parameters, priority=kinds.ASKED, attempts=1 if wait else None, asked_by=asked_by)
    e.close()  # the snapshot is not needed, and must not hold back what the job replaces
    return rows_of(_answer(jobs.wait(job_id, lambda: e.cancel.cancelled) if wait else jobs.get(job_id), table))


def _answer(job: Job, table: str | None) -> pa.Table:
    result = json.dumps(job.result) if job.result is not None else None
    return pa.table([[job.job_id], [table], [job.status], [result]], schema=JOB_SCHEMA)


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


def show_job(e: Execution, statement: s.ShowJob) -> pa.Table:
    """One job, for those who may see all of them and for those who asked for it."""
    job = e.parts.jobs.find(statement.id)
    if job is None or e.identity.actor_id not in job.asked_by:
        authorise.require(e.identity, Action.READ_SYSTEM)
        job = e.parts.jobs.get(statement.id)
    return jobs_table([job])


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
