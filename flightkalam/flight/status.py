"""Our errors -> Flight's: the only such mapping.

Flight's Python server reaches some gRPC codes only through plain exceptions (NOT_FOUND by KeyError, INVALID_ARGUMENT by
ValueError, UNIMPLEMENTED by NotImplementedError) and some not at all (ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED,
RESOURCE_EXHAUSTED).  So every message ends with its SQLSTATE, and a google.rpc.Status travels beside it:

    `table "main.t" does not exist [SQLSTATE 42P01]`
    grpc-status-details-bin: Status{code, message, details: [ErrorInfo{reason: "42P01", domain: "flightkalam"}]}

For a FlightError the details are its `extra_info`; for a plain exception they are a trailer that we add.  Arrow's C++
client reads such a trailer as "internal error" and would lose the class of the exception, so it gets the text alone.

What is not a KalamError is a bug: it is logged here with its traceback and leaves as "internal error <id>".
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam import errors, telemetry
from flightkalam.flight import flight_sql_pb2 as pb

DOMAIN = "flightkalam"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_DETAILS_TRAILER = "grpc-status-details-bin"
# gRPC allows about 8 KB of trailers; a message travels in up to four of them, percent-encoded or in base64.
_MESSAGE_BYTES = 1_200

_log = telemetry.logger("flight")
_incidents = itertools.count(1)

Method = TypeVar("Method", bound=Callable[..., Any])


class _Stop(BaseException):
    """Raised by `_Plain.__notes__` and swallowed by Arrow."""


class _Plain(Exception):
    """An exception that Arrow cannot format.

    Arrow appends `traceback.format_exception()` of every plain exception to the message that it sends to the client;
    when formatting fails it appends the class name alone.  The formatter reads `__notes__` and lets pass what is not an
    `Exception`, so this property keeps our tracebacks at home.
    """

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def __notes__(self) -> NoReturn:  # type: ignore[override]
        raise _Stop


class NotFound(_Plain, KeyError):
    pass


class InvalidArgument(_Plain, ValueError):
    pass


class Unimplemented(_Plain, NotImplementedError):
    pass


class Refused(_Plain):
    """GetSchema's way out for everything else: the RPC knows no FlightError, so this becomes UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the mapping: our class, gRPC's code, and the exception that produces it."""

    error: type[errors.KalamError]
    code: int
    wire: Any


# The first row that matches decides, so a class stands above its base.
TABLE = (
    Row(errors.Unsupported, 12, Unimplemented),
    Row(errors.UndefinedObject, 5, NotFound),
    Row(errors.BadRequest, 3, InvalidArgument),
    Row(errors.AccessDenied, 7, flight.FlightUnauthorizedError),
    Row(errors.Unauthenticated, 16, flight.FlightUnauthenticatedError),
    # ABORTED cannot be reached; UNAVAILABLE would invite a blind retry of one call out of a transaction.
    Row(errors.Conflict, 2, flight.FlightServerError),
    Row(errors.Cancelled, 1, flight.FlightCancelledError),
    Row(errors.TryAgain, 14, flight.FlightUnavailableError),
    Row(errors.KalamError, 13, flight.FlightInternalError),
)
_UNKNOWN = 2


def known(error: BaseException) -> errors.KalamError:
    """The KalamError that a client may see for any error; what it may not see is logged and gets a number."""
    if isinstance(error, errors.KalamError):
        if isinstance(error, errors.InternalError):
            _log.error("internal error", exc_info=error)
        return error
    if isinstance(error, (MemoryError, pa.ArrowMemoryError)):
        return errors.OutOfMemory("out of memory; ask for less at a time or retry later")
    incident = next(_incidents)
    _log.error("unexpected error", incident=incident, exc_info=error)
    return errors.InternalError(f"internal error {incident}; the server's log has the details under this number")


def text(error: errors.KalamError) -> str:
    """The message with its SQLSTATE, short enough for gRPC's trailers."""
    raw = error.message.encode("utf-8", "replace")
    shown = error.message if len(raw) <= _MESSAGE_BYTES else raw[:_MESSAGE_BYTES].decode("utf-8", "ignore") + "…"
    return f"{shown} [SQLSTATE {error.sqlstate}]"


def details(code: int, message: str, sqlstate: str) -> bytes:
    """A google.rpc.Status.  Its code must be the call's own: some clients refuse an answer in which they differ."""
    info = pb.ErrorInfo(reason=sqlstate, domain=DOMAIN)
    detail = pb.Any(type_url=_ERROR_INFO, value=info.SerializeToString())
    return pb.Status(code=code, message=message, details=[detail]).SerializeToString()


def to_flight(
    error: BaseException,
    context: flight.ServerCallContext | None = None,
    *,
    user_agent: str = "",
    plain: bool = False,
    told: Callable[[str], None] = lambda sqlstate: None,
) -> BaseException:
    """The exception to raise out of a Flight handler.

    :param context: the call, to add the details' trailer to; None where there is none (handshake).
    :param user_agent: the name of the caller's software.
    :param plain: for GetSchema, which knows no FlightError.
    :param told: hears the SQLSTATE of every error that leaves.
    """
    if isinstance(error, (flight.FlightError, _Plain)):
        return error
    ours = known(error)
    told(ours.sqlstate)
    row = next(r for r in TABLE if isinstance(ours, r.error))
    message = text(ours)
    if issubclass(row.wire, flight.FlightError) and not plain:
        return row.wire(message, extra_info=details(row.code, message, ours.sqlstate))
    code, wire = (_UNKNOWN, Refused) if issubclass(row.wire, flight.FlightError) else (row.code, row.wire)
    if context is not None and "grpc-c++" not in user_agent:
        context.add_trailer(_DETAILS_TRAILER, details(code, message, ours.sqlstate))
    return wire(message)


def answered(method: Method) -> Method:
    """Wrap a Flight handler `(self, context, …)`: nothing leaves it but what `to_flight` made.

    `self.user_agent_of(context)` names the caller's software, `self.count_error(sqlstate)` counts.
    """
    plain = method.__name__ == "get_schema"

    @functools.wraps(method)
    def guarded(self: Any, context: flight.ServerCallContext, *args: Any) -> Any:
        try:
            return method(self, context, *args)
        except Exception as error:
            agent = self.user_agent_of(context)
            raise to_flight(error, context, user_agent=agent, plain=plain, told=self.count_error) from None

    return guarded  # type: ignore[return-value]
