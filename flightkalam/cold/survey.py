"""What lies in the folders of the cold tier, when nothing else is left to say what should.

    every folder with batches or a manifest.json      a scope: `<namespace>/<table>~<id>[/<user>]`
    footers of its batches                            whose they are, the table's definition, what they replace
    manifest.json, when it can be read                which batches counted when it was published

*Missing* is a batch that counted and is not there: the published manifest names it, or its number lies below that of a batch
that is there, and no file replaces it or has absorbed it.  Numbers have no other gaps: an install that failed gives its numbers
to the next one.  A batch that was lost from the end is missed only where a manifest.json names it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from flightkalam.cold import manifest_chain as chain
from flightkalam.cold import paths
from flightkalam.cold.batch_file import Footer, read_metadata
from flightkalam.cold.manifest import Manifest
from flightkalam.cold.manifest_records import file_of
from flightkalam.errors import DataCorrupted, KalamError
from flightkalam.model.schema import Table, table_from_json
from flightkalam.storage import objects

_TABLE = re.compile(r".+~(\d{1,10})")


@dataclass(frozen=True, slots=True)
class ScopeFiles:
    """One folder with batches.

    :param table_id: as the folder's name says; None: it is no folder of a table.
    :param owner: as the files say; None also when none of them can be read.
    :param footers: of the batches whose footer can be read, in the order of their numbers.
    :param damaged: batches whose footer cannot be read and that nothing replaces.
    :param missing: batches that counted and are not there.
    :param published: the manifest.json, when it can be read.
    """

    folder: Path
    table_id: int | None
    owner: str | None
    footers: tuple[Footer, ...] = ()
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    published: Manifest | None = None

    @property
    def last_seq(self) -> int:
        """The highest `_seq` that the files speak of."""
        told = [f.flushed_seq for f in self.footers]
        return max([*told, 0 if self.published is None else self.published.flushed_seq], default=0)


def scopes(root: Path) -> Iterator[ScopeFiles]:
    """Every folder below `root` that has batches or a manifest, in the order of their names."""
    for folder in sorted(folders(root)):
        inside = folder.relative_to(root).parts
        named = _TABLE.fullmatch(inside[1]) if len(inside) in (2, 3) else None
        yield _scope(folder, None if named is None else int(named.group(1)))


def folders(root: Path) -> Iterator[Path]:
    """Every folder below `root` that has batches or a manifest."""
    for folder, _, names in os.walk(root):
        if any(name == paths.MANIFEST or paths.batch_number(name) is not None for name in names):
            yield Path(folder)


def owners(table_folder: Path, known: Container[Path]) -> Iterator[str]:
    """Whose rows lie in the folders of a table that are not known, also in an object store."""
    if objects.is_remote(table_folder):
        inside: Iterable[Path] = (folder for folder, _ in objects.tree(table_folder))
    else:
        inside = folders(table_folder)
    for folder in inside:
        if folder not in known and folder != table_folder and (owner := _scope(folder, None).owner) is not None:
            yield owner


def table_ids(root: Path) -> Iterator[int]:
    """The ids in the names of all folders below `root`, those without files too."""
    for folder, _, _ in os.walk(root):
        named = _TABLE.fullmatch(Path(folder).name)
        if named is not None:
            yield int(named.group(1))


def definition(found: Iterable[ScopeFiles]) -> Table | None:
    """A table as its newest file knows it; None when no file says."""
    told = [f for s in found for f in s.footers if f.table is not None]
    for footer in sorted(told, key=lambda f: (f.schema_version, f.flushed_seq, f.number), reverse=True):
        try:
            return table_from_json(footer.table or {})
        except (KalamError, KeyError, TypeError, ValueError):
            continue
    return None


def by_table(found: Sequence[ScopeFiles]) -> Iterator[tuple[int, list[ScopeFiles]]]:
    ours = sorted((s for s in found if s.table_id is not None), key=lambda s: (s.table_id or 0, str(s.folder)))
    for table_id, group in groupby(ours, key=lambda s: s.table_id or 0):
        yield table_id, list(group)


# ---------------------------------------------------------------------------------------------------------------


def _scope(folder: Path, table_id: int | None) -> ScopeFiles:
    numbers = sorted(n for name in objects.names(folder) if (n := paths.batch_number(name)) is not None)
    footers, unreadable = [], []
    for number in numbers:
        try:
            name = paths.batch_name(number)
            footers.append(Footer.from_metadata(read_metadata(folder / name), name))
        except DataCorrupted:
            unreadable.append(number)
    published = _published(folder)
    absorbed = {n for f in footers for n in f.absorbed}
    owners = {f.owner for f in footers} | ({published.scope.owner} if published is not None and not footers else set())
    return ScopeFiles(
        folder,
        table_id,
        min((o for o in owners if o is not None), default=None),
        tuple(footers),
        tuple(paths.batch_name(n) for n in unreadable if n not in absorbed),
        tuple(paths.batch_name(n) for n in sorted(_expected(numbers, published) - absorbed - set(numbers))),
        published,
    )


def _expected(numbers: Sequence[int], published: Manifest | None) -> set[int]:
    """Numbers that must be there, or be replaced by one that is."""
    named = set() if published is None else {b.number for b in published.batches}
    told = -1 if published is None else published.max_batch
    return named | set(range(told + 1, max(numbers, default=-1)))


def _published(folder: Path) -> Manifest | None:
    try:
        record = json.loads(objects.read(folder / paths.MANIFEST) or b"null")
        return chain.manifest_of(record, lambda part: objects.read(folder / file_of(part)))
    except (DataCorrupted, ValueError, KeyError, TypeError):
        return None
