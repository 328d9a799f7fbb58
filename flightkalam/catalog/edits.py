"""Edits of what exists: namespaces, tables and views made, renamed, replaced and dropped.

Each is a pure function from a state to a `Change`: it decides everything and touches nothing.  The caller has settled
rights and everything that needs SQL (defaults evaluated, checks understood), writes the change into its batch, appends
that and publishes.  Changes of a table's columns and options are in `alter`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flightkalam.catalog.names import (
    DEFAULT_NAMESPACE,
    RESERVED_NAMESPACES,
    check_column_name,
    check_name,
    check_namespace_name,
    fold,
    folder,
)
from flightkalam.catalog.options import OptionValue, hidden_key_of, kind_of, options_for_new
from flightkalam.catalog.state import CatalogState, Change, Draft, Namespace
from flightkalam.catalog.storages import storage_of
from flightkalam.catalog.text import rewritten
from flightkalam.errors import (
    DependentObjects,
    DuplicateObject,
    InvalidValue,
    UndefinedObject,
    undefined_column,
    undefined_table,
)
from flightkalam.model.schema import HIDDEN_KEY, Column, Table, TableKind, TableSchema, View
from flightkalam.model.types import BIGINT, ColumnType

GENERATED_ID = "SNOWFLAKE_ID()"
MAX_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column as CREATE TABLE or ADD COLUMN states it.

    :param identity: SERIAL, AUTO_INCREMENT or IDENTITY: the column numbers itself.
    """

    name: str
    type: ColumnType
    not_null: bool = False
    default: str | None = None
    identity: bool = False


@dataclass(frozen=True, slots=True)
class NewTable:
    """A table as a client asks for it.

    :param kind: the word before TABLE; None where the statement has none.
    :param key: names of the primary key's columns, in order.
    :param checks: (name or None, SQL text).
    :param options: the WITH clause, as it was written.
    :param hidden_key: give the table the hidden key `_id` where `key` is empty: made by ingest or CREATE TABLE AS.
    """

    namespace: str
    name: str
    columns: tuple[NewColumn, ...]
    created_by: str
    kind: TableKind | None = None
    key: tuple[str, ...] = ()
    checks: tuple[tuple[str | None, str], ...] = ()
    options: tuple[tuple[str, OptionValue], ...] = ()
    hidden_key: bool = False


@dataclass(frozen=True, slots=True)
class NewView:
    """A view as a client asks for it; `text` is the query in the client's own words."""

    namespace: str
    name: str
    text: str
    created_by: str
    default_namespace: str
    columns: tuple[str, ...] | None = None


# ---------------------------------------------------------------------------------------------------------------
# Namespaces


def create_namespace(state: CatalogState, name: str, *, created_by: str, now_us: int) -> Change:
    check_namespace_name(name)
    existing = state.namespaces.get(fold(name))
    if existing is not None:
        raise DuplicateObject(_taken("namespace", existing.name, name), sqlstate="42P06")
    draft = Draft(state)
    draft.put_namespace(Namespace(name, created_by, now_us))
    return draft.change()


def drop_namespace(state: CatalogState, name: str, *, cascade: bool = False) -> Change:
    """:return: a change whose `dropped` are the tables that went with it."""
    if fold(name) in RESERVED_NAMESPACES:
        raise InvalidValue(f'namespace "{name}" is reserved and cannot be dropped', sqlstate="42939")
    namespace = state.namespace(name)
    if fold(name) == DEFAULT_NAMESPACE:
        raise InvalidValue(
            f'namespace "{DEFAULT_NAMESPACE}" is the default and cannot be dropped',
            sqlstate="2BP01",
        )
    held = state.objects(name)
    if held and not cascade:
        raise DependentObjects(
            f'namespace "{namespace.name}" is not empty: it holds {_counted(held)}; drop them first or add CASCADE'
        )
    draft = Draft(state)
    for found in held:
        draft.drop_table(found) if isinstance(found, Table) else draft.drop_view(found)
    draft.drop_namespace(namespace)
    return draft.change()


def comment_on_namespace(state: CatalogState, name: str, comment: str | None) -> Change:
    draft = Draft(state)
    draft.put_namespace(replace(state.namespace(name), comment=comment))
    return draft.change()


def _counted(held: list[Table | View]) -> str:
    tables = sum(isinstance(found, Table) for found in held)
    counts = (("table", tables), ("view", len(held) - tables))
    return " and ".join(f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts if n)


# ---------------------------------------------------------------------------------------------------------------
# Tables


def create_table(state: CatalogState, new: NewTable, *, table_id: int, now_us: int) -> Change:
    """:param table_id: from `Catalog.new_table_id`, so that rows and files can be staged under it beforehand."""
    _check_new_object(state, new.namespace, new.name, "table")
    table = _built(state, new, table_id, now_us)
    draft = Draft(state)
    draft.put_table(table)
    return draft.change(table)


def replace_table(state: CatalogState, old_id: int, new: NewTable, *, table_id: int, now_us: int) -> Change:
    """One table put in another's place: whoever looks sees the old one or the new one, never neither."""
    old = state.table(old_id)
    if (fold(new.namespace), fold(new.name)) != (fold(old.namespace), fold(old.name)):
        raise InvalidValue(f'table "{old.qualified}" cannot be replaced by one of another name')
    table = _built(state, new, table_id, now_us)
    draft = Draft(state)
    draft.drop_table(old)
    draft.put_table(table)
    return draft.change(table)


def drop_table(state: CatalogState, table_id: int) -> Change:
    draft = Draft(state)
    draft.drop_table(state.table(table_id))
    return draft.change()


def rename_table(state: CatalogState, table_id: int, name: str) -> Change:
    """Another name; id, folder and files stay.  Checks that qualify columns with the table's name follow."""
    table = state.table(table_id)
    check_name(name, "table")
    found = state.find(table.namespace, name)
    if found is not None and found is not table:
        raise DuplicateObject(_taken(_sort(found), found.qualified, f"{table.namespace}.{name}"))
    checks = tuple((n, rewritten(text, table, lambda c: name if c is None else None)) for n, text in table.checks)
    renamed = table.with_schema(table.schema.columns, name=name, checks=checks)
    draft = Draft(state)
    draft.put_table(renamed)
    return draft.change(renamed)


def comment_on_table(state: CatalogState, table_id: int, comment: str | None) -> Change:
    table = replace(state.table(table_id), comment=comment)
    draft = Draft(state)
    draft.put_table(table)
    return draft.change(table)


def table_named(state: CatalogState, parts: tuple[str, ...], default_namespace: str) -> Table:
    """The table of that name, for statements that mean tables only."""
    found = state.resolve(parts, default_namespace)
    if isinstance(found, View):
        raise UndefinedObject(f'"{found.qualified}" is a view, not a table', sqlstate="42809")
    return found


def _built(state: CatalogState, new: NewTable, table_id: int, now_us: int) -> Table:
    if not 0 < table_id < 1 << 32:
        raise InvalidValue(f"table id {table_id} is out of range")
    namespace = state.namespace(new.namespace).name
    kind = kind_of(new.kind, new.options)
    schema = _schema(new, kind)
    options = options_for_new(kind, schema, new.options)
    return Table(
        id=table_id,
        namespace=namespace,
        name=new.name,
        kind=kind,
        schema=schema,
        next_column_id=len(schema.columns) + 1,
        created_by=new.created_by,
        created_at_us=now_us,
        folder=folder(namespace, new.name, table_id),
        options=replace(options, storage_id=storage_of(state, options.storage_id)),
        checks=_named_checks(new),
    )


def _schema(new: NewTable, kind: TableKind) -> TableSchema:
    if not new.columns:
        raise InvalidValue(f'table "{new.namespace}.{new.name}" has no column; give it at least one', sqlstate="42P16")
    if len(new.columns) > MAX_COLUMNS:
        raise InvalidValue(
            f'table "{new.namespace}.{new.name}" has {len(new.columns)} columns; at most {MAX_COLUMNS} are allowed',
            sqlstate="54011",
        )
    columns = [built_column(c, i) for i, c in enumerate(new.columns, 1)]
    _refuse_twice((c.name for c in columns), "column")
    if new.key:
        return _keyed(new, columns)
    # A STREAM table may do without a stated key; every room relies on there being one.
    if not (new.hidden_key or hidden_key_of(new.options) or kind is TableKind.STREAM):
        raise InvalidValue(
            f'table "{new.namespace}.{new.name}" needs a PRIMARY KEY; mark a column or add PRIMARY KEY (a, b)',
            sqlstate="42P16",
        )
    hidden = Column(len(columns) + 1, HIDDEN_KEY, BIGINT, not_null=True, default=GENERATED_ID, hidden=True)
    return TableSchema(1, (*columns, hidden), (hidden.id,))


def built_column(new: NewColumn, column_id: int) -> Column:
    check_column_name(new.name)
    if not new.identity:
        return Column(column_id, new.name, new.type, new.not_null, new.default)
    if new.default is not None:
        raise InvalidValue(f'column "{new.name}" numbers itself and has a DEFAULT; leave one of them out', sqlstate="42601")
    if new.type != BIGINT:
        raise InvalidValue(f'column "{new.name}" numbers itself and is {new.type}; generated ids need BIGINT', sqlstate="42P16")
    return Column(column_id, new.name, new.type, not_null=True, default=GENERATED_ID)


def _keyed(new: NewTable, columns: list[Column]) -> TableSchema:
    """The schema with the stated key, whose columns take no NULL (T-21)."""
    if hidden_key_of(new.options):
        raise InvalidValue("option HIDDEN_KEY disagrees with the stated PRIMARY KEY; leave one of them out")
    by_name = {fold(c.name): c for c in columns}
    key: list[int] = []
    for name in new.key:
        column = by_name.get(fold(name))
        if column is None:
            raise undefined_column(name, f"{new.namespace}.{new.name}")
        if column.id in key:
            raise DuplicateObject(f'PRIMARY KEY names the column "{column.name}" twice', sqlstate="42701")
        if not column.type.can_be_key:
            raise InvalidValue(
                f'column "{column.name}" is {column.type} and cannot be in a PRIMARY KEY: '
                "a key needs one form per value and an order",
                sqlstate="42P16",
            )
        key.append(column.id)
    return TableSchema(1, tuple(replace(c, not_null=True) if c.id in key else c for c in columns), tuple(key))


def _named_checks(new: NewTable) -> tuple[tuple[str, str], ...]:
    """Each check with a name: the stated one, or one made from the table's, so that an error can say which."""
    for name, _ in new.checks:
        if name is not None:
            check_name(name, "constraint")
    stated = [n for n, _ in new.checks if n is not None]
    _refuse_twice(stated, "constraint", sqlstate="42710")
    taken = {fold(n) for n in stated}
    named: list[tuple[str, str]] = []
    for name, text in new.checks:
        if name is None:
            endings = ("_check", *(f"_check{i}" for i in range(1, len(new.checks) + 1)))
            name = next(n for e in endings if fold(n := new.name[:100] + e) not in taken)
            taken.add(fold(name))
        named.append((name, text))
    return tuple(named)


# ---------------------------------------------------------------------------------------------------------------
# Views


def create_view(state: CatalogState, new: NewView, *, now_us: int, replace_existing: bool = False) -> Change:
    existing = state.find(new.namespace, new.name)
    if isinstance(existing, Table) and replace_existing:
        raise UndefinedObject(f'"{existing.qualified}" is a table, not a view', sqlstate="42809")
    if not (replace_existing and existing is not None):
        _check_new_object(state, new.namespace, new.name, "view")
    _refuse_twice((check_name(c, "column") for c in new.columns or ()), "column")
    namespace = state.namespace(new.namespace).name
    comment = existing.comment if existing is not None else None
    draft = Draft(state)
    draft.put_view(View(namespace, new.name, new.text, new.columns, new.created_by, now_us, new.default_namespace, comment))
    return draft.change()


def drop_view(state: CatalogState, namespace: str, name: str) -> Change:
    draft = Draft(state)
    draft.drop_view(_view(state, namespace, name))
    return draft.change()


def comment_on_view(state: CatalogState, namespace: str, name: str, comment: str | None) -> Change:
    draft = Draft(state)
    draft.put_view(replace(_view(state, namespace, name), comment=comment))
    return draft.change()


def _view(state: CatalogState, namespace: str, name: str) -> View:
    found = state.find(namespace, name)
    if found is None:
        raise undefined_table(f"{namespace}.{name}")
    if isinstance(found, Table):
        raise UndefinedObject(f'"{found.qualified}" is a table, not a view', sqlstate="42809")
    return found


# ---------------------------------------------------------------------------------------------------------------
# Names that are taken


def _check_new_object(state: CatalogState, namespace: str, name: str, what: str) -> None:
    if fold(namespace) in RESERVED_NAMESPACES:
        raise InvalidValue(f'namespace "{namespace}" is reserved; no {what} can be created in it', sqlstate="42939")
    kept = state.namespace(namespace).name
    check_name(name, what)
    found = state.find(namespace, name)
    if found is not None:
        raise DuplicateObject(_taken(_sort(found), found.qualified, f"{kept}.{name}"))


def _sort(found: Table | View) -> str:
    return "table" if isinstance(found, Table) else "view"


def _taken(what: str, existing: str, wanted: str) -> str:
    if existing == wanted:
        return f'{what} "{existing}" already exists'
    return f'"{wanted}" cannot be created: {what} "{existing}" exists, and names may not differ only in case'


def _refuse_twice(names: Iterable[str], what: str, sqlstate: str = "42701") -> None:
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            raise DuplicateObject(f'{what} "{name}" is named twice; name it once', sqlstate=sqlstate)
        seen.add(fold(name))
