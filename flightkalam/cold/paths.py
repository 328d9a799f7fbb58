"""Every file name of the cold tier is made here.

    <root>/<namespace>/<table>~<table id>/                     a SHARED table
    <root>/<namespace>/<table>~<table id>/<user>/              a user's rows of a USER table
        batch-<N>.parquet        rows, immutable
        dv-<version>.bin         deletion vectors of one install, immutable
        key-<N>.bloom            Bloom filter over the keys of batch N, where the key has several columns; immutable
        manifest.json            published copy of the committed manifest
        manifest-<a>-<b>.json    what its versions a to b changed, when it is too large for one file; immutable

The table's folder is fixed at creation and carries its id: RENAME moves nothing and a re-created table meets no old files.
A user id becomes one folder name and no two ids share one.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from flightkalam.model.ids import Scope

MANIFEST = "manifest.json"
_PART = re.compile(r"manifest-\d+-\d+\.json")
_BATCH = re.compile(r"batch-(\d+)\.parquet")
_FILTER = re.compile(r"key-(\d+)\.bloom")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST = 200  # most file systems allow 255 bytes


def escaped(user_id: str) -> str:
    """A user id as a folder name: injective, never empty, never '.' or '..', never with a separator.

    Everything but letters, digits, '_' and '-' is percent-encoded; what grows too long keeps its beginning and gets a
    digest after '~', which no encoded id contains.
    """
    encoded = "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in user_id.encode())
    if len(encoded) <= _LONGEST:
        return encoded
    return f"{encoded[:100]}~{hashlib.sha256(user_id.encode()).hexdigest()[:40]}"


def scope_folder(root: Path, table_folder: str, scope: Scope) -> Path:
    folder = root / table_folder
    return folder if scope.owner is None else folder / escaped(scope.owner)


def batch_name(number: int) -> str:
    return f"batch-{number}.parquet"


def batch_number(name: str) -> int | None:
    match = _BATCH.fullmatch(name)
    return int(match.group(1)) if match else None


def vectors_name(version: int) -> str:
    return f"dv-{version}.bin"


def filter_name(number: int) -> str:
    return f"key-{number}.bloom"


def filter_number(name: str) -> int | None:
    match = _FILTER.fullmatch(name)
    return int(match.group(1)) if match else None


def is_vectors(name: str) -> bool:
    return name.startswith("dv-") and name.endswith(".bin")


def part_name(first: int, last: int) -> str:
    return f"manifest-{first}-{last}.json"


def is_part(name: str) -> bool:
    return _PART.fullmatch(name) is not None
