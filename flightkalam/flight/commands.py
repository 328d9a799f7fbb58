"""Protobuf bytes <-> typed commands.

A command arrives as bytes from anybody: whatever they are, decoding returns a frozen dataclass or raises BadRequest.
Commands, tickets and most actions travel in an Any whose type names the message; the base Flight actions travel bare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from google.protobuf.message import DecodeError, Message

from flightkalam.errors import BadRequest, InvalidValue
from flightkalam.flight import flight_sql_pb2 as pb
from flightkalam.flight.ports import IngestRequest, OptionValue

PACKAGE = "arrow.flight.protocol.sql."
TYPE_URL = "type.googleapis.com/" + PACKAGE

_PATH_PARTS = 3

M = TypeVar("M", bound=Message)

# ------------------------------------------------------------------------------------------------------------- nouns


@dataclass(frozen=True, slots=True)
class Statement:
    sql: str
    transaction: bytes | None


@dataclass(frozen=True, slots=True)
class Handle:
    """A prepared statement's handle, a statement ticket's sealed handle."""

    handle: bytes


@dataclass(frozen=True, slots=True)
class Nothing:
    """A command without fields."""


@dataclass(frozen=True, slots=True)
class GetSqlInfo:
    """:param codes: empty asks for all."""

    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GetXdbcTypeInfo:
    data_type: int | None


@dataclass(frozen=True, slots=True)
class GetDbSchemas:
    """In these filters None means everything, and the empty string an object without that part."""

    catalog: str | None
    pattern: str | None


@dataclass(frozen=True, slots=True)
class GetTables:
    catalog: str | None
    schema_pattern: str | None
    table_pattern: str | None
    types: tuple[str, ...]
    include_schema: bool


@dataclass(frozen=True, slots=True)
class TableRef:
    catalog: str | None
    schema: str | None
    table: str


@dataclass(frozen=True, slots=True)
class CrossReference:
    primary: TableRef
    foreign: TableRef


@dataclass(frozen=True, slots=True)
class EndTransaction:
    transaction: bytes
    commit: bool


@dataclass(frozen=True, slots=True)
class BeginSavepoint:
    transaction: bytes
    name: str


@dataclass(frozen=True, slots=True)
class EndSavepoint:
    savepoint: bytes
    release: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A table, as base Flight names one."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetOptions:
    """:param options: None unsets."""

    options: dict[str, OptionValue]


@dataclass(frozen=True, slots=True)
class CancelInfo:
    tickets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RenewEndpoint:
    """:param endpoint: the whole endpoint as it came, to be sent back."""

    ticket: bytes
    endpoint: bytes


# ------------------------------------------------------------------------------------------------------------ decode


def parse(message: type[M], data: bytes) -> M:
    try:
        return message.FromString(data)
    except (DecodeError, ValueError):  # the pure Python runtime lets UnicodeDecodeError through
        raise BadRequest(f"the bytes are not a {message.DESCRIPTOR.name} message") from None


def unpack(data: bytes) -> tuple[str, bytes]:
    """The short message name and the body of an Any."""
    envelope = parse(pb.Any, data)
    if not envelope.type_url.startswith(TYPE_URL):
        raise BadRequest("the command is not a Flight SQL message: its Any has no type of " + PACKAGE.rstrip("."))
    return envelope.type_url[len(TYPE_URL) :], envelope.value


def statement_query(body: bytes) -> Statement:
    m = parse(pb.CommandStatementQuery, body)
    return Statement(m.query, m.transaction_id or None)


def statement_update(body: bytes) -> Statement:
    m = parse(pb.CommandStatementUpdate, body)
    return Statement(m.query, m.transaction_id or None)


def create_prepared(body: bytes) -> Statement:
    m = parse(pb.ActionCreatePreparedStatementRequest, body)
    return Statement(m.query, m.transaction_id or None)


def prepared_query(body: bytes) -> Handle:
    return Handle(parse(pb.CommandPreparedStatementQuery, body).prepared_statement_handle)


def prepared_update(body: bytes) -> Handle:
    return Handle(parse(pb.CommandPreparedStatementUpdate, body).prepared_statement_handle)


def close_prepared(body: bytes) -> Handle:
    return Handle(parse(pb.ActionClosePreparedStatementRequest, body).prepared_statement_handle)


def statement_ticket(body: bytes) -> Handle:
    return Handle(parse(pb.TicketStatementQuery, body).statement_handle)


_Ingest = pb.CommandStatementIngest.TableDefinitionOptions
_IF_NOT_EXIST = {
    _Ingest.TABLE_NOT_EXIST_OPTION_CREATE: "create",
    _Ingest.TABLE_NOT_EXIST_OPTION_FAIL: "fail",
    # Nothing said is the careful reading: no table appears or grows by accident.
    _Ingest.TABLE_NOT_EXIST_OPTION_UNSPECIFIED: "fail",
}
_IF_EXISTS = {
    _Ingest.TABLE_EXISTS_OPTION_FAIL: "fail",
    _Ingest.TABLE_EXISTS_OPTION_APPEND: "append",
    _Ingest.TABLE_EXISTS_OPTION_REPLACE: "replace",
    _Ingest.TABLE_EXISTS_OPTION_UNSPECIFIED: "fail",
}


def ingest(body: bytes) -> IngestRequest:
    m = parse(pb.CommandStatementIngest, body)
    definition = m.table_definition_options
    if not m.table:
        raise BadRequest("the ingest names no table; set its `table`")
    if definition.if_not_exist not in _IF_NOT_EXIST or definition.if_exists not in _IF_EXISTS:
        raise BadRequest(f'ingest into "{m.table}": unknown table definition option; use create, append or replace')
    return IngestRequest(
        table=m.table,
        namespace=_given(m, "schema"),
        catalog=_given(m, "catalog"),
        if_not_exist=_IF_NOT_EXIST[definition.if_not_exist],  # type: ignore[arg-type]
        if_exists=_IF_EXISTS[definition.if_exists],  # type: ignore[arg-type]
        temporary=m.temporary,
        transaction=m.transaction_id or None,
        options=dict(m.options),
    )


def get_sql_info(body: bytes) -> GetSqlInfo:
    return GetSqlInfo(tuple(parse(pb.CommandGetSqlInfo, body).info))


def get_xdbc_type_info(body: bytes) -> GetXdbcTypeInfo:
    return GetXdbcTypeInfo(_given(parse(pb.CommandGetXdbcTypeInfo, body), "data_type"))


def get_catalogs(body: bytes) -> Nothing:
    parse(pb.CommandGetCatalogs, body)
    return Nothing()


def get_table_types(body: bytes) -> Nothing:
    parse(pb.CommandGetTableTypes, body)
    return Nothing()


def get_db_schemas(body: bytes) -> GetDbSchemas:
    m = parse(pb.CommandGetDbSchemas, body)
    return GetDbSchemas(_given(m, "catalog"), _given(m, "db_schema_filter_pattern"))


def get_tables(body: bytes) -> GetTables:
    m = parse(pb.CommandGetTables, body)
    return GetTables(
        _given(m, "catalog"),
        _given(m, "db_schema_filter_pattern"),
        _given(m, "table_name_filter_pattern"),
        tuple(m.table_types),
        m.include_schema,
    )


def get_primary_keys(body: bytes) -> TableRef:
    return _table_ref(parse(pb.CommandGetPrimaryKeys, body))


def get_exported_keys(body: bytes) -> TableRef:
    return _table_ref(parse(pb.CommandGetExportedKeys, body))


def get_imported_keys(body: bytes) -> TableRef:
    return _table_ref(parse(pb.CommandGetImportedKeys, body))


def get_cross_reference(body: bytes) -> CrossReference:
    m = parse(pb.CommandGetCrossReference, body)
    return CrossReference(
        TableRef(_given(m, "pk_catalog"), _given(m, "pk_db_schema"), m.pk_table),
        TableRef(_given(m, "fk_catalog"), _given(m, "fk_db_schema"), m.fk_table),
    )


def begin_transaction(body: bytes) -> Nothing:
    parse(pb.ActionBeginTransactionRequest, body)
    return Nothing()


def end_transaction(body: bytes) -> EndTransaction:
    m = parse(pb.ActionEndTransactionRequest, body)
    request = pb.ActionEndTransactionRequest
    if m.action not in (request.END_TRANSACTION_COMMIT, request.END_TRANSACTION_ROLLBACK):
        raise BadRequest("EndTransaction must say COMMIT or ROLLBACK")
    if not m.transaction_id:
        raise BadRequest("EndTransaction names no transaction")
    return EndTransaction(m.transaction_id, m.action == request.END_TRANSACTION_COMMIT)


def begin_savepoint(body: bytes) -> BeginSavepoint:
    m = parse(pb.ActionBeginSavepointRequest, body)
    if not m.transaction_id:
        raise BadRequest("BeginSavepoint names no transaction")
    if not m.name:
        raise BadRequest("a savepoint needs a name")
    return BeginSavepoint(m.transaction_id, m.name)


def end_savepoint(body: bytes) -> EndSavepoint:
    m = parse(pb.ActionEndSavepointRequest, body)
    request = pb.ActionEndSavepointRequest
    if m.action not in (request.END_SAVEPOINT_RELEASE, request.END_SAVEPOINT_ROLLBACK):
        raise BadRequest("EndSavepoint must say RELEASE or ROLLBACK")
    if not m.savepoint_id:
        raise BadRequest("EndSavepoint names no savepoint")
    return EndSavepoint(m.savepoint_id, m.action == request.END_SAVEPOINT_RELEASE)


def substrait(body: bytes) -> Nothing:
    parse(pb.CommandStatementSubstraitPlan, body)
    return Nothing()


def prepared_substrait(body: bytes) -> Nothing:
    parse(pb.ActionCreatePreparedSubstraitPlanRequest, body)
    return Nothing()


def path(parts: Sequence[bytes]) -> Path:
    named = tuple(part.decode("utf-8", "replace") for part in parts)
    if not 1 <= len(named) <= _PATH_PARTS or not all(named):
        raise BadRequest("a path is a table, namespace/table or catalog/namespace/table")
    return Path(named)


def append_to(path: Path) -> IngestRequest:
    """A stream to a path is what base Flight clients have for rows that go into a table which exists."""
    *before, table = path.parts
    catalog, namespace = [None, None, *before][-2:]
    return IngestRequest(table, namespace, catalog, if_exists="append")


def set_session_options(body: bytes) -> SetOptions:
    m = parse(pb.SetSessionOptionsRequest, body)
    return SetOptions({name: _option(value) for name, value in m.session_options.items()})


def get_session_options(body: bytes) -> Nothing:
    parse(pb.GetSessionOptionsRequest, body)
    return Nothing()


def close_session(body: bytes) -> Nothing:
    parse(pb.CloseSessionRequest, body)
    return Nothing()


def cancel_flight_info(body: bytes) -> CancelInfo:
    return _cancel(parse(pb.CancelFlightInfoRequest, body).info)


def cancel_query(body: bytes) -> CancelInfo:
    return _cancel(parse(pb.FlightInfo, parse(pb.ActionCancelQueryRequest, body).info))


def renew_flight_endpoint(body: bytes) -> RenewEndpoint:
    endpoint = parse(pb.RenewFlightEndpointRequest, body).endpoint
    return RenewEndpoint(endpoint.ticket.ticket, endpoint.SerializeToString())


def _cancel(info: Any) -> CancelInfo:
    return CancelInfo(tuple(e.ticket.ticket for e in info.endpoint))


def _table_ref(m: Any) -> TableRef:
    return TableRef(_given(m, "catalog"), _given(m, "db_schema"), m.table)


def _given(m: Any, name: str) -> Any:
    """An optional field: None when it was not sent, which differs from sent and empty."""
    return getattr(m, name) if m.HasField(name) else None


def _option(value: Any) -> OptionValue:
    kind = value.WhichOneof("option_value")
    if kind is None:
        return None
    if kind == "string_list_value":
        return list(value.string_list_value.values)
    return getattr(value, kind)


# ------------------------------------------------------------------------------------------------------------ encode


def pack(message: Message) -> bytes:
    """The message in an Any."""
    return pb.Any(type_url=TYPE_URL + message.DESCRIPTOR.name, value=message.SerializeToString()).SerializeToString()


def encode_statement_ticket(sealed: bytes) -> bytes:
    return pack(pb.TicketStatementQuery(statement_handle=sealed))


def encode_prepared(handle: bytes, schema: pa.Schema, parameters: pa.Schema, is_update: bool) -> bytes:
    """A statement that only counts rows has no dataset schema: clients without `is_update` tell it by that."""
    return pack(
        pb.ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle,
            dataset_schema=b"" if is_update else schema.serialize().to_pybytes(),
            parameter_schema=parameters.serialize().to_pybytes(),
            is_update=is_update,
        )
    )


def encode_update_result(count: int) -> bytes:
    return pb.DoPutUpdateResult(record_count=count).SerializeToString()


def encode_bind_result(handle: bytes) -> bytes:
    return pb.DoPutPreparedStatementResult(prepared_statement_handle=handle).SerializeToString()


def encode_transaction(transaction: bytes) -> bytes:
    return pack(pb.ActionBeginTransactionResult(transaction_id=transaction))


def encode_savepoint(savepoint: bytes) -> bytes:
    return pack(pb.ActionBeginSavepointResult(savepoint_id=savepoint))


def encode_endpoint(endpoint: bytes, expires_us: int | None) -> bytes:
    """The endpoint as it came, with its new time."""
    if expires_us is None:
        return endpoint
    message = parse(pb.FlightEndpoint, endpoint)
    message.expiration_time.seconds, rest = divmod(expires_us, 1_000_000)
    message.expiration_time.nanos = rest * 1_000
    return message.SerializeToString()


def encode_statement(sql: str) -> bytes:
    """A query as a ticket: it is planned when it is fetched."""
    return pack(pb.CommandStatementQuery(query=sql))


_OPTION_ERRORS = {
    "name": pb.SetSessionOptionsResult.INVALID_NAME,
    "value": pb.SetSessionOptionsResult.INVALID_VALUE,
    "other": pb.SetSessionOptionsResult.ERROR,
}


def encode_option_errors(errors: Mapping[str, str]) -> bytes:
    """:param errors: option -> `name`, `value` or `other`: what was wrong with it."""
    result = pb.SetSessionOptionsResult()
    for name, kind in errors.items():
        result.errors[name].value = _OPTION_ERRORS[kind]
    return result.SerializeToString()


def encode_options(options: Mapping[str, OptionValue]) -> bytes:
    result = pb.GetSessionOptionsResult()
    for name, value in options.items():
        _set_option(result.session_options[name], name, value)
    return result.SerializeToString()


def _set_option(target: Any, name: str, value: OptionValue) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int64_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, list):
        target.string_list_value.values.extend(value)
    else:
        raise InvalidValue(f'session option "{name}" has a value of type {type(value).__name__}, which cannot be sent')


def encode_session_closed() -> bytes:
    return pb.CloseSessionResult(status=pb.CloseSessionResult.CLOSED).SerializeToString()


def encode_cancel_result(cancelled: bool) -> bytes:
    status = pb.CANCEL_STATUS_CANCELLED if cancelled else pb.CANCEL_STATUS_NOT_CANCELLABLE
    return pb.CancelFlightInfoResult(status=status).SerializeToString()


def encode_cancel_query_result(cancelled: bool) -> bytes:
    result = pb.ActionCancelQueryResult
    return pack(result(result=result.CANCEL_RESULT_CANCELLED if cancelled else result.CANCEL_RESULT_NOT_CANCELLABLE))
