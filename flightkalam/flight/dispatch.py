"""Which command does what: one table, one row per command, ticket or action.

A row says how its bytes are decoded and what answers each RPC that may carry it; an RPC without an entry is refused.
To add a command: its message to the .proto, its dataclass and decoder to commands.py, and one row here.

| where from                  | row                | entry                        |
|-----------------------------|--------------------|------------------------------|
| GetFlightInfo, descriptor   | the Any's message  | info                         |
| GetSchema, descriptor       | the Any's message  | schema                       |
| DoGet, ticket               | the Any's message  | get                          |
| DoPut, first message        | the Any's message  | put                          |
| DoExchange, first message   | the Any's message  | exchange                     |
| DoAction, type              | the action's type  | action (list of result bodies) |

A descriptor that is a path has the row PATH.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.errors import BadRequest, InternalError, InvalidValue, KalamError, UndefinedObject, Unsupported
from flightkalam.flight import commands as c
from flightkalam.flight import job_actions, metadata, sql_info
from flightkalam.flight.credentials import SESSION_COOKIE, session_cookie
from flightkalam.flight.ports import IngestRequest, Planned, Service, Session
from flightkalam.flight.streams import Key, Streams
from flightkalam.flight.tickets import Kind, Tickets, unknown_ticket
from flightkalam.flight.uploads import Upload

# Headers of one call.
COMPRESSION_HEADER = "x-kalam-compression"
COMPRESSIONS = ("none", "lz4", "zstd")
COMMIT_HEADER = "x-kalam-ingest-commit"
IDEMPOTENCY_HEADER = "x-kalam-idempotency-key"


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC: whose it is and what it can reach."""

    service: Service
    session: Session
    headers: dict[str, str]
    user_agent: str
    context: flight.ServerCallContext
    tickets: Tickets
    streams: Streams
    raw: bytes  # the command or ticket as it came

    @property
    def user(self) -> str:
        return self.session.identity.user_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What GetFlightInfo says: the result's schema, its size, and the tickets that together fetch it.

    :param expires_us: when they cannot be used any more; None for never.
    """

    schema: pa.Schema
    tickets: tuple[bytes, ...]
    total: int = -1
    expires_us: int | None = None


# Sends the client a piece of metadata.
Acknowledge = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One command.

    :param message: the message type that an action's Any must hold; None if the body travels bare.
    :param finishing: also answered while the server drains, since it ends what was begun before.
    """

    decode: Callable[[bytes], Any]
    info: Callable[[Call, Any], Answer] | None = None
    schema: Callable[[Call, Any], pa.Schema] | None = None
    get: Callable[[Call, Any], flight.FlightDataStream] | None = None
    put: Callable[[Call, Any, Upload], bytes] | None = None
    exchange: Callable[[Call, Any, Upload, Acknowledge], None] | None = None
    action: Callable[[Call, Any], list[bytes]] | None = None
    message: str | None = None
    description: str = ""
    finishing: bool = False


# -------------------------------------------------------------------------------------------------------- statements


def _answer(call: Call, planned: Planned) -> Answer:
    if not len(planned.schema):
        raise InternalError("a result without columns was planned; clients take it for a broken stream")
    sealed = [call.tickets.seal(Kind.STATEMENT, handle, call.user) for handle in planned.endpoints]
    tickets = tuple(c.encode_statement_ticket(s) for s in sealed)
    return Answer(planned.schema, tickets, planned.total, planned.expires_us)


def _plan(call: Call, command: c.Statement) -> Answer:
    return _answer(call, call.session.plan(command.sql, command.transaction))


def _plan_prepared(call: Call, command: c.Handle) -> Answer:
    return _answer(call, call.session.plan_prepared(command.handle))


def _describe(call: Call, command: c.Statement) -> pa.Schema:
    return call.session.describe(command.sql, command.transaction)


def _describe_prepared(call: Call, command: c.Handle) -> pa.Schema:
    return call.session.describe_prepared(command.handle)


def _fetch(call: Call, command: c.Handle) -> flight.FlightDataStream:
    return _stream(call, call.tickets.open(Kind.STATEMENT, command.handle, call.user))


def _fetch_prepared(call: Call, command: c.Handle) -> flight.FlightDataStream:
    """For clients that send the prepared command itself as ticket."""
    return _stream(call, _only(call.session.plan_prepared(command.handle)))


def _only(planned: Planned) -> bytes:
    if len(planned.endpoints) > 1:
        raise Unsupported("a result in parts has a ticket for each; ask for them by GetFlightInfo, or for one part")
    return planned.endpoints[0]


def _stream(call: Call, handle: bytes) -> flight.FlightDataStream:
    key = (call.user, handle)
    call.streams.check(key)
    with call.streams.opening(key, call.context) as opening:
        rows = call.session.fetch(handle, opening.can_stop)
        return call.streams.serve(rows, opening, call.user_agent, _compression(call))


def _compression(call: Call) -> str | None:
    stated = call.headers.get(COMPRESSION_HEADER)
    if stated is None:
        return call.session.compression
    if stated not in COMPRESSIONS:
        raise InvalidValue(f"{COMPRESSION_HEADER} is {', '.join(COMPRESSIONS)}, not {stated[:40]!r}")
    return None if stated == "none" else stated


def _fetch_query(call: Call, command: c.Statement) -> flight.FlightDataStream:
    """A query itself as ticket: planned when it is fetched, so it may be fetched again and outlives everything."""
    planned = call.session.plan(command.sql, command.transaction)
    if planned.changes_data:
        raise BadRequest("only a query can be a ticket; run a statement that changes data by GetFlightInfo or DoPut")
    return _stream(call, _only(planned))


def _plan_path(call: Call, path: c.Path) -> Answer:
    return _answer(call, call.session.plan(call.session.text_of(path.parts), None))


def _describe_path(call: Call, path: c.Path) -> pa.Schema:
    return call.session.describe(call.session.text_of(path.parts), None)


def _no_substrait(call: Call, *_: Any) -> NoReturn:
    raise Unsupported("Substrait plans are not supported; send the statement as SQL")


def flights(call: Call, criteria: bytes) -> Iterator[flight.FlightInfo]:
    """The tables and views that the caller may see, each with a ticket for all its rows.

    :param criteria: a pattern of `table` or `namespace.table`, as in GetTables; empty for all.
    """
    try:
        namespace, _, table = criteria.decode().rpartition(".")
    except UnicodeDecodeError:
        raise BadRequest("the criteria are not UTF-8; send a pattern such as main.t%") from None
    found = call.session.tables(None, namespace or None, table or None, (), True)
    for at in found:
        schema = metadata.schema_of(at)
        path = (at.schema, at.name)
        ticket = c.encode_statement(call.session.text_of(path))
        endpoints = [flight.FlightEndpoint(ticket, [])] if len(schema) else []
        yield flight.FlightInfo(schema, flight.FlightDescriptor.for_path(*path), endpoints, -1, -1)


def _update(call: Call, command: c.Statement, upload: Upload) -> bytes:
    # Clients send the command alone: to ask for the stream's schema here would wait for one that never comes.
    return c.encode_update_result(call.session.update(command.sql, command.transaction))


def _bind(call: Call, command: c.Handle, upload: Upload) -> bytes:
    call.session.bind(command.handle, upload.table())
    return c.encode_bind_result(command.handle)


def _update_prepared(call: Call, command: c.Handle, upload: Upload) -> bytes:
    schema = upload.schema()
    rows = upload.batches() if schema is not None and len(schema) else None
    return c.encode_update_result(call.session.update_prepared(command.handle, rows))


def _ingest(call: Call, request: IngestRequest, upload: Upload) -> bytes:
    schema = upload.schema()
    if schema is None or not len(schema):
        raise BadRequest(f'ingest into "{request.table}": the stream has no columns; send at least a schema')
    return c.encode_update_result(call.session.ingest(request, schema, upload.batches(), call.headers))


def _append(call: Call, path: c.Path, upload: Upload) -> bytes:
    return _ingest(call, c.append_to(path), upload)


def _exchange_path(call: Call, path: c.Path, upload: Upload, acknowledge: Acknowledge) -> None:
    _exchange(call, c.append_to(path), upload, acknowledge)


def _exchange(call: Call, request: IngestRequest, upload: Upload, acknowledge: Acknowledge) -> None:
    """An ingest that answers each batch.

    Either all batches are one commit, and the answers before the last say what has arrived; or each batch commits by itself,
    and every answer says what is durable.
    """
    each = _commits_each(call)
    schema = upload.schema()
    if schema is None or not len(schema):
        raise BadRequest(f'ingest into "{request.table}": the stream has no columns; send at least a schema')
    done = Progress()
    if each:
        for batch in upload.batches():
            call.session.ingest(request, schema, iter([batch]), call.headers)
            request = replace(request, if_exists="append", if_not_exist="fail")
            acknowledge(done.plus(batch.num_rows, committed=True))
        if done.batches:
            return
    rows = call.session.ingest(request, schema, _acknowledged(upload.batches(), done, acknowledge), call.headers)
    acknowledge(done.end(rows))


def _commits_each(call: Call) -> bool:
    stated = call.headers.get(COMMIT_HEADER, "end")
    if stated not in ("end", "batch"):
        raise InvalidValue(f"{COMMIT_HEADER} is end or batch, not {stated[:40]!r}")
    if stated == "batch" and IDEMPOTENCY_HEADER in call.headers:
        raise Unsupported(f"{IDEMPOTENCY_HEADER} is of one commit; it does not go with {COMMIT_HEADER}: batch")
    return stated == "batch"


def _acknowledged(batches: Iterator[pa.RecordBatch], done: Progress, acknowledge: Acknowledge) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        acknowledge(done.plus(batch.num_rows, committed=False))  # whoever asks for the next has taken this one


@dataclass(slots=True)
class Progress:
    """What an ingest has taken so far, and how it says so."""

    batches: int = 0
    rows: int = 0

    def plus(self, rows: int, *, committed: bool) -> bytes:
        self.batches += 1
        self.rows += rows
        return self._said(committed)

    def end(self, rows: int) -> bytes:
        self.rows = rows
        return self._said(True)

    def _said(self, committed: bool) -> bytes:
        return json.dumps({"batches": self.batches, "rows": self.rows, "committed": committed}).encode()


def _prepare(call: Call, command: c.Statement) -> list[bytes]:
    p = call.session.prepare(command.sql, command.transaction)
    return [c.encode_prepared(p.handle, p.schema, p.parameters, p.is_update)]


def _close_prepared(call: Call, command: c.Handle) -> list[bytes]:
    call.session.close_prepared(command.handle)
    return []


# ---------------------------------------------------------------------------------------------------- fixed results


def _listing(
    decode: Callable[[bytes], Any], schema: Callable[[Any], pa.Schema], rows: Callable[[Call, Any], pa.RecordBatch]
) -> Row:
    """A row whose ticket is the command itself: it is evaluated, with the caller's rights, when it is fetched."""

    def get(call: Call, command: Any) -> flight.FlightDataStream:
        pieces = metadata.in_pieces(rows(call, command))
        return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(schema(command), pieces))

    return Row(
        decode,
        info=lambda call, command: Answer(schema(command), (call.raw,)),
        schema=lambda call, command: schema(command),
        get=get,
    )


def _tables(call: Call, q: c.GetTables) -> pa.RecordBatch:
    found = call.session.tables(q.catalog, q.schema_pattern, q.table_pattern, q.types, q.include_schema)
    return metadata.tables(found, q.include_schema)


def _primary_keys(call: Call, q: c.TableRef) -> pa.RecordBatch:
    """A table that does not exist has no key: to these listings that is an empty answer, not an error."""
    try:
        columns = call.session.primary_key(q.catalog, q.schema, q.table)
    except UndefinedObject:
        columns = []
    return metadata.primary_keys(q.catalog, q.schema, q.table, columns)


# ------------------------------------------------------------------------------------------- transactions, sessions


def _begin(call: Call, _: c.Nothing) -> list[bytes]:
    return [c.encode_transaction(call.session.begin())]


def _end(call: Call, command: c.EndTransaction) -> list[bytes]:
    call.session.end(command.transaction, command.commit)
    return []


def _begin_savepoint(call: Call, command: c.BeginSavepoint) -> list[bytes]:
    return [c.encode_savepoint(call.session.begin_savepoint(command.transaction, command.name))]


def _end_savepoint(call: Call, command: c.EndSavepoint) -> list[bytes]:
    call.session.end_savepoint(command.savepoint, command.release)
    return []


def _set_options(call: Call, command: c.SetOptions) -> list[bytes]:
    """What is wrong with one option is said beside it, so that the others are still set."""
    refused: dict[str, str] = {}
    for name, value in command.options.items():
        try:
            call.session.set_option(name, value)
        except (UndefinedObject, Unsupported):
            refused[name] = "name"
        except InvalidValue:
            refused[name] = "value"
        except KalamError:
            refused[name] = "other"
    if session_cookie(call.headers) != call.session.session_id:
        # For clients that send a password with every call, the cookie is all that holds the session together.
        call.context.add_header("set-cookie", f"{SESSION_COOKIE}={call.session.session_id}; HttpOnly")
    return [c.encode_option_errors(refused)]


def _get_options(call: Call, _: c.Nothing) -> list[bytes]:
    return [c.encode_options(call.session.options())]


def _close_session(call: Call, _: c.Nothing) -> list[bytes]:
    call.service.close_session(call.session)
    return [c.encode_session_closed()]


def _key_of(call: Call, ticket: bytes) -> Key | None:
    """What a ticket streams; None for one that is answered by itself.

    :raises UndefinedObject: the ticket is not the caller's.
    """
    try:
        name, body = c.unpack(ticket)
    except BadRequest:
        raise unknown_ticket() from None
    if name != "TicketStatementQuery":
        return None
    return call.user, call.tickets.open(Kind.STATEMENT, c.statement_ticket(body).handle, call.user)


def _cancel(call: Call, command: c.CancelInfo) -> bool:
    keys = [_key_of(call, ticket) for ticket in command.tickets]
    cancelled = [call.streams.cancel(key) for key in keys if key is not None]
    for key in keys:
        if key is not None:
            with suppress(UndefinedObject):  # forgotten already
                call.session.release(key[1])
    return any(cancelled)


def _cancel_info(call: Call, command: c.CancelInfo) -> list[bytes]:
    return [c.encode_cancel_result(_cancel(call, command))]


def _cancel_query(call: Call, command: c.CancelInfo) -> list[bytes]:
    return [c.encode_cancel_query_result(_cancel(call, command))]


def _renew(call: Call, command: c.RenewEndpoint) -> list[bytes]:
    """Tickets of one endpoint do not expire, so one that is the caller's is as good as a new one; those of parts do."""
    key = _key_of(call, command.ticket)
    expires = None if key is None else call.session.renew(key[1])
    return [c.encode_endpoint(command.endpoint, expires)]


# ---------------------------------------------------------------------------------------------------------- jobs


def _run_one(call: Call, sql: str) -> dict[str, Any]:
    """Run a statement whose answer is one small row; it stops when the client hangs up."""
    handle = call.session.plan(sql, None).handle
    with call.streams.opening((call.user, handle), call.context) as opening:
        rows = call.session.fetch(handle, opening.can_stop)
        try:
            found: dict[str, Any] = next(iter(rows)).to_pylist()[0]
        finally:
            rows.close()
    return found


def _flush(call: Call, body: job_actions.Flush) -> list[bytes]:
    return [job_actions.flush(body, lambda sql: _run_one(call, sql))]


def _compact(call: Call, body: job_actions.Compact) -> list[bytes]:
    return [job_actions.compact(body, lambda sql: _run_one(call, sql))]


def _job(call: Call, body: job_actions.Job) -> list[bytes]:
    return [job_actions.job(body, lambda sql: _run_one(call, sql), call.context.is_cancelled)]


# ---------------------------------------------------------------------------------------------------------- the table

ROWS: dict[str, Row] = {
    "CommandStatementQuery": Row(c.statement_query, info=_plan, schema=_describe, get=_fetch_query),
    "CommandStatementSubstraitPlan": Row(
        c.substrait, info=_no_substrait, schema=_no_substrait, get=_no_substrait, put=_no_substrait
    ),
    "CommandPreparedStatementQuery": Row(
        c.prepared_query, info=_plan_prepared, schema=_describe_prepared, get=_fetch_prepared, put=_bind
    ),
    "TicketStatementQuery": Row(c.statement_ticket, get=_fetch, finishing=True),
    "CommandStatementUpdate": Row(c.statement_update, put=_update),
    "CommandPreparedStatementUpdate": Row(c.prepared_update, put=_update_prepared),
    "CommandStatementIngest": Row(c.ingest, put=_ingest, exchange=_exchange),
    "CommandGetSqlInfo": _listing(
        c.get_sql_info, lambda q: sql_info.SCHEMA, lambda call, q: sql_info.batch(q.codes, call.service.sql_info())
    ),
    "CommandGetXdbcTypeInfo": _listing(
        c.get_xdbc_type_info, lambda q: metadata.XDBC_TYPE_INFO, lambda call, q: metadata.xdbc_type_info(q.data_type)
    ),
    "CommandGetCatalogs": _listing(
        c.get_catalogs, lambda q: metadata.CATALOGS, lambda call, q: metadata.catalogs(call.session.catalogs())
    ),
    "CommandGetDbSchemas": _listing(
        c.get_db_schemas,
        lambda q: metadata.DB_SCHEMAS,
        lambda call, q: metadata.db_schemas(call.session.schemas(q.catalog, q.pattern)),
    ),
    "CommandGetTables": _listing(
        c.get_tables, lambda q: metadata.TABLES_WITH_SCHEMA if q.include_schema else metadata.TABLES, _tables
    ),
    "CommandGetTableTypes": _listing(
        c.get_table_types,
        lambda q: metadata.TABLE_TYPES,
        lambda call, q: metadata.table_types(call.session.table_types()),
    ),
    "CommandGetPrimaryKeys": _listing(c.get_primary_keys, lambda q: metadata.PRIMARY_KEYS, _primary_keys),
    # There are no foreign keys, so these are empty for every table.
    "CommandGetExportedKeys": _listing(
        c.get_exported_keys, lambda q: metadata.FOREIGN_KEYS, lambda call, q: metadata.no_foreign_keys()
    ),
    "CommandGetImportedKeys": _listing(
        c.get_imported_keys, lambda q: metadata.FOREIGN_KEYS, lambda call, q: metadata.no_foreign_keys()
    ),
    "CommandGetCrossReference": _listing(
        c.get_cross_reference, lambda q: metadata.FOREIGN_KEYS, lambda call, q: metadata.no_foreign_keys()
    ),
    "CreatePreparedStatement": Row(
        c.create_prepared,
        action=_prepare,
        message="ActionCreatePreparedStatementRequest",
        description="Prepare a statement: ActionCreatePreparedStatementRequest -> ActionCreatePreparedStatementResult.",
    ),
    "CreatePreparedSubstraitPlan": Row(
        c.prepared_substrait,
        action=_no_substrait,
        message="ActionCreatePreparedSubstraitPlanRequest",
        description="Not supported: Substrait plans are refused.",
    ),
    "ClosePreparedStatement": Row(
        c.close_prepared,
        action=_close_prepared,
        message="ActionClosePreparedStatementRequest",
        description="Free a prepared statement: ActionClosePreparedStatementRequest -> nothing.",
        finishing=True,
    ),
    "BeginTransaction": Row(
        c.begin_transaction,
        action=_begin,
        message="ActionBeginTransactionRequest",
        description="Begin a transaction: ActionBeginTransactionRequest -> ActionBeginTransactionResult.",
    ),
    "EndTransaction": Row(
        c.end_transaction,
        action=_end,
        message="ActionEndTransactionRequest",
        description="Commit or roll back a transaction: ActionEndTransactionRequest -> nothing.",
        finishing=True,
    ),
    "BeginSavepoint": Row(
        c.begin_savepoint,
        action=_begin_savepoint,
        message="ActionBeginSavepointRequest",
        description="Begin a savepoint: ActionBeginSavepointRequest -> ActionBeginSavepointResult.",
    ),
    "EndSavepoint": Row(
        c.end_savepoint,
        action=_end_savepoint,
        message="ActionEndSavepointRequest",
        description="Release a savepoint or roll back to it: ActionEndSavepointRequest -> nothing.",
        finishing=True,
    ),
    "CancelQuery": Row(
        c.cancel_query,
        action=_cancel_query,
        message="ActionCancelQueryRequest",
        description="Cancel a query (older form): ActionCancelQueryRequest -> ActionCancelQueryResult.",
        finishing=True,
    ),
    "CancelFlightInfo": Row(
        c.cancel_flight_info,
        action=_cancel_info,
        description="Cancel a query: CancelFlightInfoRequest -> CancelFlightInfoResult.",
        finishing=True,
    ),
    "RenewFlightEndpoint": Row(
        c.renew_flight_endpoint,
        action=_renew,
        description="Extend an endpoint's life: RenewFlightEndpointRequest -> FlightEndpoint.",
        finishing=True,
    ),
    "kalam.flush": Row(
        job_actions.reader("kalam.flush", job_actions.Flush, job_actions.FLUSH_SHAPE),
        action=_flush,
        description=f"Flush tables, as FLUSH does: JSON {job_actions.FLUSH_SHAPE} -> JSON of the job.",
    ),
    "kalam.compact": Row(
        job_actions.reader("kalam.compact", job_actions.Compact, job_actions.COMPACT_SHAPE),
        action=_compact,
        description=f"Compact a table, as COMPACT TABLE does: JSON {job_actions.COMPACT_SHAPE} -> JSON of the job.",
    ),
    "kalam.job": Row(
        job_actions.reader("kalam.job", job_actions.Job, job_actions.JOB_SHAPE),
        action=_job,
        description=f"Run, watch and kill jobs: JSON, {job_actions.JOB_SHAPE} -> JSON of the job.",
    ),
    "SetSessionOptions": Row(
        c.set_session_options,
        action=_set_options,
        description="Set session options: SetSessionOptionsRequest -> SetSessionOptionsResult.",
    ),
    "GetSessionOptions": Row(
        c.get_session_options,
        action=_get_options,
        description="Read session options: GetSessionOptionsRequest -> GetSessionOptionsResult.",
    ),
    "CloseSession": Row(
        c.close_session,
        action=_close_session,
        description="Close the session, rolling back what it left open: CloseSessionRequest -> CloseSessionResult.",
        finishing=True,
    ),
}


PATH = Row(lambda path: path, info=_plan_path, schema=_describe_path, put=_append, exchange=_exchange_path)


def command_row(name: str, entry: str, rpc: str) -> Row:
    """The row of a command that arrived by an RPC.

    An unknown command is a wrong argument to GetFlightInfo and DoGet, and something unimplemented to the other RPCs:
    clients probe for features by just that difference.
    """
    row = ROWS.get(name)
    if row is not None and row.action is None and getattr(row, entry) is not None:
        return row
    message = f"{rpc} does not take {name[:100] or 'an empty command'}"
    raise BadRequest(message) if entry in ("info", "get") and row is None else Unsupported(message)


def action_row(type_: str, body: bytes) -> tuple[Row, bytes]:
    """The row of an action, and its message's bytes out of their Any."""
    row = ROWS.get(type_)
    if row is None or row.action is None:
        raise Unsupported(f'unknown action "{type_[:100]}"; ListActions names those that exist')
    if row.message is None:
        return row, body
    name, inner = c.unpack(body)
    if name != row.message:
        raise BadRequest(f'action "{type_}" takes an {row.message}, not a {name[:100]}')
    return row, inner


def listed_actions() -> list[tuple[str, str]]:
    return [(name, row.description) for name, row in ROWS.items() if row.action is not None]
