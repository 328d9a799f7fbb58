"""Publishing `manifest.json` where another server might do so too.

On the local disk the data directory's lock keeps others away.  An object store has no such lock, so the manifest there says
who wrote it, and it is only ever replaced on the condition that it is the version that was read:

    first install of a process     claim: read, see that it is ours, replace it with our name in it
    each later one                 replace the version that we put there (If-Match); refused: read who was there

*Ours* is what a process of this data directory wrote.  Each start draws a name and adds it to the directory's lineage before
anything else, so a successor knows its predecessors and no other.  A copy of a data directory shares the lineage up to the
copy: it may take over, and from then on the original finds a name that it does not know, and is fenced, whatever either
does later (T-3).  Two servers never both believe that a scope is theirs, because one of their conditional puts fails.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flightkalam.errors import Fenced, StorageUnavailable
from flightkalam.storage import objects
from flightkalam.storage.buckets import Blob
from flightkalam.storage.kv import Batch, Store
from flightkalam.storage.mounts import Moved

_LINEAGE = b"lineage"
_ATTEMPTS = 4


@dataclass(frozen=True)
class Lineage:
    """The processes that have served this data directory, the running one last."""

    writers: tuple[str, ...]

    @staticmethod
    def begin(store: Store) -> Lineage:
        """Add this process, durably: what it writes elsewhere must be known as ours after a crash."""
        known = json.loads(store.get("meta", _LINEAGE) or b"[]")
        found = Lineage((*known, secrets.token_hex(8)))
        batch = Batch()
        batch.put("meta", _LINEAGE, json.dumps(found.writers).encode())
        store.commit(batch)
        return found

    @property
    def epoch(self) -> int:
        return len(self.writers)

    @property
    def origin(self) -> str:
        """Names the data directory."""
        return self.writers[0]

    @property
    def writer(self) -> str:
        return self.writers[-1]


NOBODY = Lineage(("",))


class Publisher:
    """Puts manifests where they are published."""

    def __init__(self, lineage: Lineage = NOBODY) -> None:
        self.lineage = lineage
        self._known = frozenset(lineage.writers)
        self._lock = threading.Lock()
        self._tags: dict[Path, str] = {}  # of what this process has put

    def stamped(self, path: Path, text: bytes) -> bytes:
        """The text of a manifest, in an object store with who writes it."""
        if not objects.is_remote(path):
            return text
        stamp = json.dumps({"epoch": self.lineage.epoch, "writer": self.lineage.writer}, separators=(",", ":"))
        return stamp[:-1].encode() + b"," + text[1:]

    def claimed(self, path: Path) -> bool:
        """Whether what is published there can only be ours."""
        return path in self._tags or not objects.is_remote(path)

    def forget(self, folder: Path) -> None:
        """The table is gone."""
        with self._lock:
            for path in [p for p in self._tags if p.is_relative_to(folder)]:
                del self._tags[path]

    def read(self, path: Path, table: str) -> bytes | None:
        """What is published.

        :raises Fenced: somebody else wrote it.
        """
        found = objects.current(path)
        self._admit(path, found, table)
        return None if found is None else found.data

    def publish(self, path: Path, text: bytes, version: int, table: str) -> None:
        """Replace what is published.

        :param text: as `stamped`.
        :raises Fenced: somebody else has written there since.
        """
        tag = self._tags.get(path)
        if tag is None and objects.is_remote(path):
            tag = self._admitted(path, objects.current(path), version, table)
        for _ in range(_ATTEMPTS):
            try:
                put = objects.swap(path, text, tag)
            except Moved as e:
                tag = self._admitted(path, e.current, version, table)
            else:
                if objects.is_remote(path):
                    with self._lock:
                        self._tags[path] = put
                return
        raise StorageUnavailable(f'the manifest of table "{table}" is being changed by others all the time; try again')

    def _admitted(self, path: Path, found: Blob | None, version: int, table: str) -> str | None:
        """The tag of what may be replaced by `version`."""
        self._admit(path, found, table)
        if found is None:
            return None
        there = published_version(found.data)
        if there > version:
            raise Fenced(newer(table, there, version))
        return found.tag

    def _admit(self, path: Path, found: Blob | None, table: str) -> None:
        if found is None or not objects.is_remote(path):
            return
        try:
            stamp: Any = json.loads(found.data)
            writer, epoch = stamp["writer"], stamp["epoch"]
        except (ValueError, KeyError, TypeError):
            return  # damaged, so nobody's claim: what is committed is published over it, on the condition that it stays so
        if writer not in self._known:
            raise Fenced(
                f'table "{table}" is served by another server (epoch {epoch}, ours is {self.lineage.epoch}): this one neither '
                "reads nor writes it any more; stop one of the two, and never run two servers on copies of one data directory"
            )


def published_version(text: bytes | None) -> int:
    if text is None:
        return 0
    try:
        return int(json.loads(text)["version"])
    except (ValueError, KeyError, TypeError):
        return 0  # damaged: the committed manifest is published over it


def newer(table: str, found: int, committed: int) -> str:
    both = f"Restore both together, or take the files as they are: REBUILD MANIFEST {table}"
    if not committed:
        return (
            f'the manifest.json of table "{table}" has version {found}, newer than what is committed, since the store knows of '
            f"no manifest: it was lost there, or the data directory is younger than its files. {both}"
        )
    return (
        f'the manifest.json of table "{table}" has version {found}, newer than the committed {committed}: another server wrote '
        f"to these files, or the data directory was restored without them. {both}"
    )
