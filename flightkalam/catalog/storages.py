"""Storages: their options as text and as values, and the edits that make, change and drop them.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from flightkalam.catalog.names import fold
from flightkalam.catalog.options import OptionValue
from flightkalam.catalog.state import CatalogState, Change, Draft
from flightkalam.errors import DependentObjects, DuplicateObject, InvalidValue, UndefinedObject
from flightkalam.model.schema import Table
from flightkalam.model.storage import LOCAL, Storage

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FIXED = ("TYPE", "URL")
_S3_ONLY = ("REGION", "ENDPOINT", "PATH_STYLE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
_TYPES = {"S3": "s3", "FOLDER": "folder"}
Options = Iterable[tuple[str, OptionValue]]


def new_storage(name: str, options: Options, now_us: int) -> Storage:
    """The storage that CREATE STORAGE states.

    :raises InvalidValue: naming the option and what it takes; never a secret's value.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValue(f'"{name}" cannot name a storage: use 1 to 64 letters, digits, "_" and "-"')
    given = _given(options)
    url = _text(given, "URL")
    if url is None:
        raise InvalidValue(f'storage "{name}" needs a URL: s3://bucket/prefix or file:///path')
    type_ = _type(given, url)
    made = Storage(name, type_, _s3_url(url) if type_ == "s3" else _folder_url(url), now_us)
    return _with(made, given)


def altered(old: Storage, options: Options) -> Storage:
    """The storage with other options.  Where it lies is fixed: the files of its tables stay."""
    given = _given(options)
    for name in _FIXED:
        if name in given:
            raise InvalidValue(f"{name} of a storage cannot be changed: its tables' files stay where they are; create another")
    return _with(old, given)


def _given(options: Options) -> dict[str, OptionValue]:
    given: dict[str, OptionValue] = {}
    for written, value in options:
        name = written.upper()
        if name not in (*_FIXED, *_S3_ONLY):
            raise InvalidValue(f"unknown option {written}; a storage has {', '.join((*_FIXED, *_S3_ONLY))}")
        if name in given:
            raise InvalidValue(f"option {name} is given twice")
        given[name] = value
    return given


def _type(given: dict[str, OptionValue], url: str) -> str:
    scheme = "s3" if url.startswith("s3://") else "folder"
    stated = _text(given, "TYPE")
    if stated is not None and _TYPES.get(stated.upper()) != scheme:
        raise InvalidValue(
            f"TYPE '{stated}' does not fit the URL; give 's3' with s3://bucket/prefix, 'folder' with file:///path"
        )
    return scheme


def _s3_url(url: str) -> str:
    parts = urlsplit(url)
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment or "//" in parts.path:
        raise InvalidValue("URL of a storage is s3://bucket or s3://bucket/prefix, without keys, port or query")
    return f"s3://{parts.netloc}{parts.path}".rstrip("/")


def _folder_url(url: str) -> str:
    path = PurePosixPath(url.removeprefix("file://"))
    if not url.startswith("file:///") or ".." in path.parts or path == PurePosixPath("/"):
        raise InvalidValue("URL of a storage is s3://bucket/prefix or file:///path, an absolute path")
    return f"file://{path}"


def _with(storage: Storage, given: dict[str, OptionValue]) -> Storage:
    wrong = [name for name in _S3_ONLY if name in given]
    if wrong and storage.type != "s3":
        raise InvalidValue(f"{wrong[0]} is an option of S3 storages only")
    texts = {n: _text(given, n) for n in _S3_ONLY if n in given and n != "PATH_STYLE"}
    changes: dict[str, Any] = {name.lower(): value for name, value in texts.items()}
    if "PATH_STYLE" in given:
        if not isinstance(given["PATH_STYLE"], bool):
            raise InvalidValue("PATH_STYLE is TRUE or FALSE")
        changes["path_style"] = given["PATH_STYLE"]
    elif "endpoint" in changes:
        changes["path_style"] = True  # few services but Amazon's have a host per bucket
    made = replace(storage, **changes)
    if (made.access_key_id is None) != (made.secret_access_key is None):
        raise InvalidValue("ACCESS_KEY_ID and SECRET_ACCESS_KEY go together")
    if made.endpoint is not None and urlsplit(made.endpoint).scheme not in ("http", "https"):
        raise InvalidValue("ENDPOINT is a URL of the form https://host:port")
    return made


def _text(given: dict[str, OptionValue], name: str) -> str | None:
    """An option's text; NULL and the empty text take it away."""
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidValue(f"{name} is a text in quotes")
    return value.strip() or None if value is not None else None


# ---------------------------------------------------------------------------------------------------------------
# Edits


def storage_named(state: CatalogState, name: str) -> Storage:
    found = state.storages.get(fold(name))
    if found is None:
        raise UndefinedObject(f'storage "{name}" does not exist; SHOW STORAGES lists those there are', sqlstate="42704")
    return found


def create_storage(state: CatalogState, storage: Storage) -> Change:
    if fold(storage.name) == LOCAL or fold(storage.name) in state.storages:
        raise DuplicateObject(f'storage "{storage.name}" already exists', sqlstate="42710")
    for other in state.storages.values():
        if f"{storage.url}/".startswith(f"{other.url}/") or f"{other.url}/".startswith(f"{storage.url}/"):
            raise InvalidValue(f'{storage.url} overlaps with storage "{other.name}"; use that one, or another prefix')
    draft = Draft(state)
    draft.put_storage(storage)
    return draft.change()


def alter_storage(state: CatalogState, old: Storage, new: Storage) -> Change:
    if storage_named(state, old.name) != old:
        raise DuplicateObject(f'storage "{old.name}" was changed meanwhile; run the statement again', sqlstate="40001")
    draft = Draft(state)
    draft.put_storage(new)
    return draft.change()


def drop_storage(state: CatalogState, name: str) -> Change:
    found = storage_named(state, name)
    users = [t.qualified for t in tables_in(state, found)]
    if users:
        more = f" and {len(users) - 3} more" if len(users) > 3 else ""
        raise DependentObjects(f'storage "{found.name}" is in use by {", ".join(users[:3])}{more}; drop these tables first')
    draft = Draft(state)
    draft.drop_storage(found)
    return draft.change()


def without_storages(state: CatalogState) -> Change | None:
    """No storages, and every table in the data directory; None where it is so already."""
    if not state.storages:
        return None
    draft = Draft(state)
    for table in state.tables.values():
        draft.put_table(replace(table, options=replace(table.options, storage_id=None)))
    for storage in state.storages.values():
        draft.drop_storage(storage)
    return draft.change()


def tables_in(state: CatalogState, storage: Storage) -> Sequence[Table]:
    return [t for t in state.tables.values() if fold(t.options.storage_id or LOCAL) == fold(storage.name)]


def storage_of(state: CatalogState, wanted: str | None) -> str | None:
    """The STORAGE_ID of a new table: None for the data directory, else the storage's own spelling."""
    if wanted is None or fold(wanted) == LOCAL:
        return None
    return storage_named(state, wanted).name
