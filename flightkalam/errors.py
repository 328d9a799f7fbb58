"""The one exception tree.

    KalamError                       every error that a client may see
    ├── BadRequest                   the request itself is wrong: change it
    │   ├── SqlSyntaxError           42601   the text is not SQL that we know
    │   │   └── MalformedAsUser      42601   the same, with AS USER in it
    │   ├── Unsupported              0A000   known, and refused by name
    │   ├── InvalidValue             22023   a value, option or parameter is out of its range or type
    │   ├── ValueOutOfRange          22003   a value does not fit its column
    │   ├── UndefinedObject          42P01 … a table, column, namespace or function that does not exist (for the caller)
    │   │   └── HiddenObject         42P01   the same, to be recorded as a refusal: the caller sees no difference
    │   ├── DuplicateObject          42P07   the name is taken
    │   ├── DependentObjects         2BP01   something else needs it
    │   └── ConstraintViolation      23000   the rows break a rule of the table
    │       ├── DuplicateKey         23505
    │       ├── NotNullViolation     23502
    │       └── CheckViolation       23514
    ├── AccessDenied                 42501   the caller may not do this
    ├── Unauthenticated              28000   the caller is not known: log in
    ├── Conflict                     40001   somebody else was first: run it again
    ├── Cancelled                    57014   stopped by the client, a deadline or KILL
    ├── TryAgain                     53300   the service is busy, full or draining: retry later
    │   ├── DiskFull                 53100
    │   ├── OutOfMemory              53200
    │   └── StorageUnavailable       58030   an object store does not answer, or refuses us
    ├── DataCorrupted                XX001   a file or record does not match its checksum: restore or rebuild
    │   └── Fenced                   55000   another server writes to this table's files: only one of the two may go on
    ├── ConfigError                  F0000   the service cannot start with these settings
    └── InternalError                XX000   a bug of ours

Each message says what happened, to what, and what to do next.  `sqlstate` travels to the client beside the text
(SEMANTICS §6); only `flight.status` turns these classes into Flight's own.
"""

from __future__ import annotations


class KalamError(Exception):
    """Base of every error a client may see.

    :param message: what happened and to what, without secrets and without names the caller may not see.
    :param sqlstate: overrides the class's five-character SQLSTATE.
    """

    sqlstate = "XX000"

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if sqlstate is not None:
            self.sqlstate = sqlstate


class BadRequest(KalamError):
    sqlstate = "22000"


class SqlSyntaxError(BadRequest):
    sqlstate = "42601"


class MalformedAsUser(SqlSyntaxError):
    """AS USER stands in a text that is not SQL that we know: it may have been meant, so it is recorded."""


class Unsupported(BadRequest):
    sqlstate = "0A000"


class InvalidValue(BadRequest):
    sqlstate = "22023"


class ValueOutOfRange(BadRequest):
    sqlstate = "22003"


class UndefinedObject(BadRequest):
    sqlstate = "42P01"


class HiddenObject(UndefinedObject):
    """It is there, and not for this caller, to whom it looks exactly like a missing one.  The audit log knows better."""


class DuplicateObject(BadRequest):
    sqlstate = "42P07"


class DependentObjects(BadRequest):
    sqlstate = "2BP01"


class ConstraintViolation(BadRequest):
    sqlstate = "23000"


class DuplicateKey(ConstraintViolation):
    sqlstate = "23505"


class NotNullViolation(ConstraintViolation):
    sqlstate = "23502"


class CheckViolation(ConstraintViolation):
    sqlstate = "23514"


class AccessDenied(KalamError):
    sqlstate = "42501"


class Unauthenticated(KalamError):
    sqlstate = "28000"


class Conflict(KalamError):
    sqlstate = "40001"


class Cancelled(KalamError):
    sqlstate = "57014"


class TryAgain(KalamError):
    sqlstate = "53300"


class DiskFull(TryAgain):
    sqlstate = "53100"


class OutOfMemory(TryAgain):
    sqlstate = "53200"


class StorageUnavailable(TryAgain):
    sqlstate = "58030"


class DataCorrupted(KalamError):
    sqlstate = "XX001"


class Fenced(DataCorrupted):
    sqlstate = "55000"


class ConfigError(KalamError):
    sqlstate = "F0000"


class InternalError(KalamError):
    sqlstate = "XX000"


def undefined_table(name: str) -> UndefinedObject:
    return UndefinedObject(f'table "{name}" does not exist', sqlstate="42P01")


def undefined_column(column: str, table: str) -> UndefinedObject:
    return UndefinedObject(f'column "{column}" of table "{table}" does not exist', sqlstate="42703")


def undefined_namespace(name: str) -> UndefinedObject:
    return UndefinedObject(f'namespace "{name}" does not exist', sqlstate="3F000")
