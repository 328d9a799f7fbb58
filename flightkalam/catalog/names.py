"""Names: how they are matched, which are allowed, and the folder a table's files lie in.

Names match without regard to case and keep the case they were created with (SEMANTICS §1).  A file system knows other
rules: it may be blind to case, and it gives `/` and `..` a meaning.  So a folder name holds only `[A-Za-z0-9_-]`, with
everything else as percent escapes, and ends in the table's id, which is never used again: two tables cannot meet in
one folder whatever they are called (T-25, T-47).
"""

from __future__ import annotations

import re
import unicodedata

from flightkalam.errors import InvalidValue

DEFAULT_NAMESPACE = "main"
CATALOG = "flightkalam"
RESERVED_NAMESPACES = frozenset({"system", "information_schema", "pg_catalog", CATALOG, "default"})
MAX_NAME_LENGTH = 128
# 255 bytes is what file systems allow; the rest is for "~<id>".  Cutting is harmless, as the id alone is unique.
_MAX_FOLDER_PART = 160
_HARMLESS = re.compile(rb"[A-Za-z0-9_-]")


def fold(name: str) -> str:
    """The form in which two names are the same name; the one used for columns too."""
    return name.lower()


def check_name(name: str, what: str) -> str:
    """The name, if an object may be called so.

    :param what: the sort of object, for the error: "table", "column", …
    """
    if not name:
        raise InvalidValue(f"a {what} needs a name; the empty name is not allowed", sqlstate="42602")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidValue(
            f'{what} name "{name[:32]}…" has {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed',
            sqlstate="42622",
        )
    for character in name:
        # Control characters hide in logs and terminals; a lone surrogate has no UTF-8 form.
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise InvalidValue(f"{what} name {name!a} holds the character U+{ord(character):04X}; remove it", sqlstate="42602")
    return name


def check_column_name(name: str) -> str:
    """The name, if a client may give it to a column; a leading `_` is kept for the system's own (T-53)."""
    check_name(name, "column")
    if name.startswith("_"):
        raise InvalidValue(
            f'column name "{name}" begins with "_", which is kept for system columns; choose another', sqlstate="42939"
        )
    return name


def check_namespace_name(name: str) -> str:
    check_name(name, "namespace")
    if fold(name) in RESERVED_NAMESPACES:
        raise InvalidValue(f'namespace name "{name}" is reserved; choose another', sqlstate="42939")
    return name


def escape(name: str) -> str:
    """`name` as one harmless part of a path; cut, never in the middle of an escape, where it would be too long."""
    out: list[str] = []
    length = 0
    for byte in name.encode():
        part = chr(byte) if _HARMLESS.match(bytes([byte])) else f"%{byte:02X}"
        length += len(part)
        if length > _MAX_FOLDER_PART:
            break
        out.append(part)
    return "".join(out)


def folder(namespace: str, table: str, table_id: int) -> str:
    """Where a table's files lie under the root, fixed when it is created; RENAME moves nothing."""
    return f"{escape(namespace)}/{escape(table)}~{table_id}"
