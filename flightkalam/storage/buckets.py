"""Object stores behind one small interface: S3 by obstore, and a folder that behaves like one.

Objects are made once and never changed, save one per scope, its manifest, which is replaced only on the condition that it is
still the one that was read (`If-Match`).  Foreign exceptions are translated here and nowhere else:

    Unreached    no answer, or one that may be another next time: the caller repeats, and reads back what a put did
    Taken        the condition does not hold (412), or another request was in between (409): the caller reads what is there
    StorageUnavailable   the store refuses us; repeating does not help
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, Protocol

import xxhash
from obstore import exceptions as obs
from obstore.store import S3Store

from flightkalam.config import STORAGE_PREFIX
from flightkalam.errors import InvalidValue, StorageUnavailable
from flightkalam.model.storage import ENV, Storage
from flightkalam.storage.patience import Unreached

CHECKSUM = "xxh3"
_STATUS = re.compile(r"status code: (\d{3})")
_CHUNK = 4 << 20
_DELETES = 500


class Taken(Exception):
    """The object is not in the state that the request was made for."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes and what names this version of it."""

    data: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store knows of an object.

    :param checksum: of the bytes as they were sent; None where it was not stored.
    """

    size: int
    checksum: str | None


class Bucket(Protocol):
    """Objects by key.  A key is a relative path with `/`, its parts any text of a file name."""

    def get(self, key: str) -> Blob | None: ...

    def fetch(self, key: str, into: Path) -> Facts | None:
        """Write an object's bytes to a file; None when there is none."""
        ...

    def part(self, key: str, offset: int, length: int) -> bytes:
        """Bytes of an object, none when there is none."""
        ...

    def put(self, key: str, data: bytes, tag: str | None) -> str:
        """Make an object (`tag` None) or replace the version `tag` of it, and return the new version's tag."""
        ...

    def facts(self, key: str) -> Facts | None: ...

    def names(self, folder: str) -> list[str]:
        """The objects directly in a folder, without the folder."""
        ...

    def keys(self, folder: str) -> list[str]:
        """Every key below a folder."""
        ...

    def delete(self, keys: list[str]) -> None:
        """Missing ones are gone already."""
        ...


def checksum(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def open_bucket(storage: Storage, environ: Mapping[str, str], timeout_seconds: float) -> Bucket:
    """:raises InvalidValue: a secret is given by the name of a variable that is not set, or may not be read."""
    if storage.type == "folder":
        return FolderBucket(Path(storage.url.removeprefix("file://")))
    return S3Bucket(storage, environ, timeout_seconds)


# ── S3 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


class S3Bucket:
    def __init__(self, storage: Storage, environ: Mapping[str, str], timeout_seconds: float) -> None:
        self._name = storage.name
        bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
        timeout, pause = timedelta(seconds=timeout_seconds), timedelta(milliseconds=1)
        region, given = storage.region or "us-east-1", _credentials(storage, environ)
        # The library takes what is not said from variables of the environment: another address, or the token of whoever
        # started the process, which would be sent to this one.  So everything is said.
        options: dict[str, Any] = {
            "region": region,
            "endpoint": storage.endpoint or _amazon(bucket, region, storage.path_style),
            "virtual_hosted_style_request": not storage.path_style,
            "skip_signature": given is None,
            "unsigned_payload": False,
            "conditional_put": "etag",
            "s3_express": False,
            "credential_provider": None if given is None else lambda: given,
        }
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix.strip("/") or None,
                client_options={
                    "allow_http": True,
                    "timeout": timeout,
                    "connect_timeout": min(timeout, timedelta(seconds=5)),
                    "user_agent": "flightkalam",
                },
                # Repeating is ours: only the caller knows what a put whose answer was lost must be compared with.
                retry_config={
                    "max_retries": 0,
                    "retry_timeout": timeout,
                    "backoff": {"init_backoff": pause, "max_backoff": pause, "base": 2},
                },
                **options,
            )
        except (obs.BaseError, ValueError) as e:
            raise InvalidValue(f'storage "{storage.name}" cannot be opened: {str(e).splitlines()[0]}') from None

    def get(self, key: str) -> Blob | None:
        with self._translated():
            try:
                found = self._store.get(key)
                return Blob(bytes(found.bytes()), found.meta["e_tag"] or "")
            except FileNotFoundError:
                return None

    def fetch(self, key: str, into: Path) -> Facts | None:
        with self._translated():
            try:
                found = self._store.get(key)
            except FileNotFoundError:
                return None
            with into.open("wb") as file:
                for chunk in found.stream(min_chunk_size=_CHUNK):
                    file.write(chunk)
            return Facts(found.meta["size"], found.attributes.get(CHECKSUM))

    def part(self, key: str, offset: int, length: int) -> bytes:
        with self._translated():
            try:
                return bytes(self._store.get_range(key, start=offset, length=length))
            except FileNotFoundError:
                return b""

    def put(self, key: str, data: bytes, tag: str | None) -> str:
        with self._translated():
            made = self._store.put(
                key,
                data,
                mode="create" if tag is None else {"e_tag": tag},
                attributes={CHECKSUM: checksum(data)},
                use_multipart=False,  # an upload in parts cannot be conditional, and its tag is no checksum (T-41)
            )
            return made["e_tag"] or ""

    def facts(self, key: str) -> Facts | None:
        with self._translated():
            try:
                found = self._store.get(key, options={"head": True})
            except FileNotFoundError:
                return None
            return Facts(found.meta["size"], found.attributes.get(CHECKSUM))

    def names(self, folder: str) -> list[str]:
        with self._translated():
            found = self._store.list_with_delimiter(folder)["objects"]
            return sorted(o["path"].rpartition("/")[2] for o in found)

    def keys(self, folder: str) -> list[str]:
        with self._translated():
            return sorted(o["path"] for chunk in self._store.list(folder) for o in chunk)

    def delete(self, keys: list[str]) -> None:
        with self._translated():
            for at in range(0, len(keys), _DELETES):
                with contextlib.suppress(FileNotFoundError):
                    self._store.delete(keys[at : at + _DELETES])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (obs.AlreadyExistsError, obs.PreconditionError, obs.NotModifiedError) as e:
            raise Taken from e
        except (obs.PermissionDeniedError, obs.UnauthenticatedError):
            raise StorageUnavailable(
                f'storage "{self._name}" refuses us; check its keys, their rights and its region with ALTER STORAGE'
            ) from None
        except FileNotFoundError:
            raise StorageUnavailable(f'storage "{self._name}": there is no such bucket; make it, then try again') from None
        except (obs.BaseError, OSError) as e:
            raise self._failed(str(e)) from None

    def _failed(self, text: str) -> Exception:
        """By the answer's status; the text itself shows addresses and whole answers, and goes no further."""
        status = _STATUS.search(text)
        if status is None:
            return Unreached("no answer")
        if status[1] == "409":
            return Taken()
        if status[1][0] == "5" or status[1] in ("408", "429"):
            return Unreached(f"it answers {status[1]}")
        return StorageUnavailable(f'storage "{self._name}" refuses the request with {status[1]}; check its options')


def _amazon(bucket: str, region: str, path_style: bool) -> str:
    return f"https://s3.{region}.amazonaws.com" if path_style else f"https://{bucket}.s3.{region}.amazonaws.com"


def _credentials(storage: Storage, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What requests are signed with; None where they are not."""
    if storage.secret_access_key is None:
        return None
    return {
        "access_key_id": _secret(storage, "access_key_id", environ),
        "secret_access_key": _secret(storage, "secret_access_key", environ),
        "token": _secret(storage, "session_token", environ),
        "expires_at": None,
    }


def _secret(storage: Storage, option: str, environ: Mapping[str, str]) -> str | None:
    value: str | None = getattr(storage, option)
    if value is None or not value.startswith(ENV):
        return value
    name = value.removeprefix(ENV)
    if not environ.get(name):
        raise InvalidValue(
            f'{option.upper()} of storage "{storage.name}" names the environment variable {name}, which is not set in the '
            f"server's environment; names begin with {STORAGE_PREFIX}"
        )
    return environ[name]


# ── none ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class BrokenBucket:
    """In the place of a storage that could not be opened: every request says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def _refuse(self, *_: object) -> NoReturn:
        raise StorageUnavailable(self._reason)

    get = fetch = part = put = facts = names = keys = delete = _refuse


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class FolderBucket:
    """A folder, for instance of a network share, with an object store's promises: objects appear whole, and are made or
    replaced on a condition.  The condition is checked under a lock file, which every server on the folder takes.

    Where the lock file is missing the share is not there: then nothing is known of its objects.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = root / ".lock"

    def get(self, key: str) -> Blob | None:
        with _folder_errors():
            try:
                data = (self._root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                self._require_there()
                return None
        return Blob(data, checksum(data))

    def fetch(self, key: str, into: Path) -> Facts | None:
        found = self.get(key)
        if found is None:
            return None
        into.write_bytes(found.data)
        return Facts(len(found.data), found.tag)

    def part(self, key: str, offset: int, length: int) -> bytes:
        found = self.get(key)
        return b"" if found is None else found.data[offset : offset + length]

    def put(self, key: str, data: bytes, tag: str | None) -> str:
        path = self._root / key
        with _folder_errors():
            if "/" in key:  # only the mark that the storage is ours, which comes first, may find an untouched folder
                self._require_there()
            with self._locked():
                found = self._root / key
                present = checksum(found.read_bytes()) if found.is_file() else None
                if present != tag:
                    raise Taken
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, data)
        return checksum(data)

    def facts(self, key: str) -> Facts | None:
        found = self.get(key)
        return None if found is None else Facts(len(found.data), found.tag)

    def names(self, folder: str) -> list[str]:
        with _folder_errors():
            self._require_there()
            path = self._root / folder
            found = path.iterdir() if path.is_dir() else iter(())
            return sorted(p.name for p in found if p.is_file() and not p.name.startswith("."))

    def keys(self, folder: str) -> list[str]:
        with _folder_errors():
            self._require_there()
            found = (p for p in (self._root / folder).rglob("*") if p.is_file() and not p.name.startswith("."))
            return sorted(p.relative_to(self._root).as_posix() for p in found)

    def delete(self, keys: list[str]) -> None:
        with _folder_errors():
            self._require_there()
            with self._locked():
                for key in keys:
                    path = self._root / key
                    path.unlink(missing_ok=True)
                    for folder in path.parents:  # an object store has no empty folders
                        if folder == self._root or not _removed_empty(folder):
                            break

    def _require_there(self) -> None:
        if not self._lock.exists():
            raise Unreached("the folder is not there")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _removed_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _folder_errors() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise Unreached(e.strerror or "error") from None
