"""What the catalog's tests share: a store in memory, a clock that stands still, and short ways to make tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flightkalam.catalog import edits
from flightkalam.catalog.catalog import Catalog
from flightkalam.catalog.edits import NewColumn, NewTable
from flightkalam.catalog.state import CatalogState, Change, Draft, Namespace
from flightkalam.model.schema import Table, TableKind
from flightkalam.model.storage import Storage
from flightkalam.model.types import parse_type
from flightkalam.sql.parser import parse
from flightkalam.sql.statements import CreateTable
from flightkalam.storage.kv import Batch

NOW_US = 1_750_000_000_000_000


class StillClock:
    def now_us(self) -> int:
        return NOW_US

    def monotonic(self) -> float:
        return 0.0


class MemoryStore:
    """The store's interface over a dict: what was appended is there for the next catalog that opens it."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[str, bytes], bytes] = {}
        self.appended = 0

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.pairs.get((family, key))

    def scan(self, family: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        yield from ((k, v) for (f, k), v in sorted(self.pairs.items()) if f == family and k.startswith(prefix))

    def append(self, batch: Batch) -> int:
        for operation, family, key, value in batch.operations:
            if operation == "put":
                self.pairs[family, key] = value
            else:
                self.pairs.pop((family, key), None)
        self.appended += 1
        return self.appended

    def commit(self, batch: Batch) -> None:
        self.append(batch)


def opened(store: Any | None = None) -> Catalog:
    return Catalog(store or MemoryStore(), StillClock())


def commit(catalog: Catalog, change: Change) -> Change:
    """What the session does under its mutex."""
    batch = Batch()
    catalog.install(change, batch)
    catalog._store.append(batch)
    catalog.publish(change)
    return change


def empty_state() -> CatalogState:
    draft = Draft(CatalogState())
    draft.put_namespace(Namespace("main", "", NOW_US))
    draft.put_storage(Storage("it's cold", "s3", "s3://bucket/prefix"))  # no name that CREATE STORAGE takes: it wants quoting
    return draft.change().state


def column(text: str, **more: Any) -> NewColumn:
    """`column("a INT")`."""
    name, type_ = text.split(" ", 1)
    return NewColumn(name, parse_type(type_), **more)


def new_table(name: str = "t", *columns: NewColumn | str, **more: Any) -> NewTable:
    """A table `main.t (id BIGINT PRIMARY KEY)` but for what is said otherwise."""
    built = tuple(column(c) if isinstance(c, str) else c for c in columns or ("id BIGINT",))
    namespace, _, short = name.rpartition(".")
    more.setdefault("key", (built[0].name,))
    return NewTable(namespace or "main", short, built, more.pop("created_by", "ann"), **more)


def made(state: CatalogState, new: NewTable, table_id: int = 1) -> tuple[CatalogState, Table]:
    change = edits.create_table(state, new, table_id=table_id, now_us=NOW_US)
    assert change.table is not None
    return change.state, change.table


def table(*columns: NewColumn | str, **more: Any) -> Table:
    return made(empty_state(), new_table("t", *columns, **more))[1]


def recreated(text: str) -> Table:
    """The table that the statement makes, read by the service's own parser."""
    statement = parse(text)
    assert isinstance(statement, CreateTable)
    assert statement.name.namespace is not None
    new = NewTable(
        namespace=statement.name.namespace,
        name=statement.name.table,
        columns=tuple(
            NewColumn(c.name.value, parse_type(c.type_text.text), c.not_null, c.default.text if c.default else None, c.identity)
            for c in statement.columns
        ),
        created_by="ann",
        kind=TableKind(statement.kind) if statement.kind else None,
        key=tuple(i.value for i in statement.primary_key),
        checks=tuple((c.name.value if c.name else None, c.expr.text) for c in statement.checks),
        options=statement.options,
    )
    return made(empty_state(), new)[1]
