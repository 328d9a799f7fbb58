"""The engine's errors in our words.

A message of the engine may name files, inputs of ours, settings, or functions and views that do not exist for a
client; so a message is taken to its first paragraph and then cleaned, and a kind of error that is not listed is a bug
of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flightkalam.errors import (
    Cancelled,
    CheckViolation,
    ConstraintViolation,
    DataCorrupted,
    DiskFull,
    InternalError,
    InvalidValue,
    KalamError,
    OutOfMemory,
    SqlSyntaxError,
    UndefinedObject,
    Unsupported,
    ValueOutOfRange,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A foreign exception: the name of its class and its text."""

    kind: str
    message: str


_PREFIX = re.compile(r"^(?:[A-Z][A-Za-z-]*(?: [A-Za-z-]+){0,4} Error|[A-Za-z]+ Exception): ")
_TAIL = re.compile(r"\n|\s+Did you mean|\s+Candidate (?:bindings|functions|macros)|\s+Use \"?SET |\s+LINE \d+:")
_BATCH = re.compile(r"batch-\d+\.parquet")
_BATCH_PATH = re.compile(r"[/\\]batch-\d+\.parquet")
# What the Parquet reader says of a damaged file; without a name when the damage is in its metadata.
_DAMAGE = re.compile(
    r"^(?:\w+(?: \w+)* Error: )*(?:No magic bytes|Failed to read file|Mismatch in parquet read|Invalid string encoding found in"
    r" Parquet|Parquet file is likely corrupt|TProtocolException|TTransportException|don't know what type|invalid TType|"
    r"Out of buffer|Varint-decoding|.*metadata is corrupt)"
)
_READER_KINDS = frozenset(
    {"InvalidInput", "IO", "Serialization", "Internal", "Error", "OSError", "RuntimeError", "ArrowInvalid"}
)
_PATH = re.compile(r"(?:[A-Za-z]:)?/[^\s\"']*/[^\s\"']+|(?<=[\"'])/[^\"']+")
_INTERNAL = re.compile(r"\b__kalam\w*|\b__c\d+\b", re.IGNORECASE)
_UNKNOWN_FUNCTION = re.compile(r"(?:Function|Macro) with name \"?([^\s\"]+)\"? does not exist|function named \"?([^\s\"(]+)")
_UNKNOWN_TABLE = re.compile(r"Table with name (.+?) does not exist|[Tt]able \"(.+?)\" (?:not found|does not exist)")
_UNKNOWN_COLUMN = re.compile(
    r"(?:column|Column).*(?:not found|was not found|does not exist)|does not have a column|has no column|"
    r"not found in FROM clause|Referenced table"
)
_OUT_OF_RANGE = re.compile(r"out of range|[Oo]verflow|Could not cast value")


def translate(failure: Failure) -> KalamError:
    """The error a client gets."""
    kind = failure.kind.removesuffix("Exception")
    text = clean(failure.message)
    if kind in _READER_KINDS and (_DAMAGE.match(failure.message) or _BATCH_PATH.search(failure.message)):
        return _io(text)
    if kind in _BY_KIND:
        return _BY_KIND[kind](text)
    if "INTERRUPT" in failure.message or "Interrupted" in failure.message:
        return _interrupted(text)
    if kind in ("ArrowInvalid", "ArrowIOError", "OSError", "RuntimeError", "ArrowException", "Error"):
        return _by_message(failure, text)
    return _internal(text)


def clean(message: str) -> str:
    """The first paragraph of an engine's message, without paths, excerpts, hints and names of ours."""
    text = message.strip()
    while (stripped := _PREFIX.sub("", text, count=1)) != text:
        text = stripped
    cut = _TAIL.search(text)
    text = text[: cut.start()] if cut else text
    text = _PATH.sub(_file_name, text)
    return _INTERNAL.sub("(internal)", text).strip()[:500]


def _file_name(found: re.Match[str]) -> str:
    batch = _BATCH.search(found.group())
    return batch.group() if batch else "(file)"


def _by_message(failure: Failure, text: str) -> KalamError:
    """An error that came through Arrow's C stream has lost its class; its text still begins with it."""
    for words, kind in _PREFIXES:
        if failure.message.lstrip().startswith(words) or f"{words}:" in failure.message[:200]:
            return _BY_KIND[kind](text)
    return _internal(text)


def _parser(text: str) -> KalamError:
    return SqlSyntaxError(text)


def _binder(text: str) -> KalamError:
    function = _UNKNOWN_FUNCTION.search(text)
    if function:
        return _catalog(text)
    if _UNKNOWN_COLUMN.search(text):
        return UndefinedObject(text, sqlstate="42703")
    if text.startswith("Ambiguous"):
        return UndefinedObject(text, sqlstate="42702")
    if text.startswith(("No function matches", "Could not choose", "Cannot compare", "Cannot mix")):
        return InvalidValue(text, sqlstate="42804")
    return InvalidValue(text, sqlstate="42000")


def _catalog(text: str) -> KalamError:
    function = _UNKNOWN_FUNCTION.search(text)
    if function:
        name = (function.group(1) or function.group(2)).lower()
        return UndefinedObject(f"function {name}() does not exist", sqlstate="42883")
    table = _UNKNOWN_TABLE.search(text)
    if table:
        return UndefinedObject(f'table "{(table.group(1) or table.group(2)).strip(chr(34))}" does not exist')
    if text.startswith("Type with name"):
        return UndefinedObject(text, sqlstate="42704")
    return UndefinedObject(text, sqlstate="42704")


def _conversion(text: str) -> KalamError:
    if _OUT_OF_RANGE.search(text):
        return ValueOutOfRange(text)
    return InvalidValue(text, sqlstate="22P02")


def _out_of_range(text: str) -> KalamError:
    return ValueOutOfRange(text)


def _invalid_input(text: str) -> KalamError:
    if "More than one row returned by a subquery" in text:
        return InvalidValue("more than one row returned by a subquery used as an expression", sqlstate="21000")
    if "division by zero" in text.lower():
        return InvalidValue(text, sqlstate="22012")
    return InvalidValue(text)


def _type_mismatch(text: str) -> KalamError:
    return InvalidValue(text, sqlstate="42804")


def _constraint(text: str) -> KalamError:
    return CheckViolation(text) if "CHECK" in text else ConstraintViolation(text)


def _out_of_memory(text: str) -> KalamError:
    return OutOfMemory("the statement needs more memory than it may use; read less at once, or ask for a higher limit")


def _interrupted(text: str) -> KalamError:
    return Cancelled("the statement was cancelled; run it again if it is still wanted")


def _io(text: str) -> KalamError:
    if "No space left" in text:
        return DiskFull("the disk is full; free space and run the statement again")
    batch = _BATCH.search(text)
    which = batch.group() if batch else "a data file"
    return DataCorrupted(f"{which} is missing or damaged; restore it from a backup, then run CHECK TABLE")


def _permission(text: str) -> KalamError:
    return Unsupported("the statement reaches outside the tables; that is not supported")


def _unsupported(text: str) -> KalamError:
    return Unsupported(text)


def _internal(text: str) -> KalamError:
    return InternalError(f"the SQL engine failed: {text}")


_BY_KIND = {
    "Parser": _parser,
    "Syntax": _parser,
    "Binder": _binder,
    "Catalog": _catalog,
    "Conversion": _conversion,
    "OutOfRange": _out_of_range,
    "InvalidInput": _invalid_input,
    "InvalidType": _type_mismatch,
    "TypeMismatch": _type_mismatch,
    "Constraint": _constraint,
    "OutOfMemory": _out_of_memory,
    "Interrupt": _interrupted,
    "IO": _io,
    "Serialization": _io,
    "Permission": _permission,
    "NotImplemented": _unsupported,
    "NotSupported": _unsupported,
    "Internal": _internal,
    "Fatal": _internal,
    "Sequence": _unsupported,
    "Dependency": _unsupported,
    "HTTP": _permission,
}
_PREFIXES = (
    ("Conversion Error", "Conversion"),
    ("Out of Range Error", "OutOfRange"),
    ("Invalid Input Error", "InvalidInput"),
    ("Out of Memory Error", "OutOfMemory"),
    ("INTERRUPT Error", "Interrupt"),
    ("Interrupted", "Interrupt"),
    ("IO Error", "IO"),
    ("Invalid Error", "IO"),
    ("TProtocolException", "IO"),
    ("Not implemented Error", "NotImplemented"),
    ("Permission Error", "Permission"),
    ("Constraint Error", "Constraint"),
    ("Binder Error", "Binder"),
    ("Catalog Error", "Catalog"),
    ("Mismatch Type Error", "TypeMismatch"),
)
