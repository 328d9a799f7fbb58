"""What a client can say: one frozen type for each kind of statement.

Values, conditions and queries stay `Slice`s of the client's text: nothing here has been interpreted.  Offsets count
characters of the text given to `parse`.  Types and defaults are slices too: the rooms that own their meaning read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Ident:
    """A name without its quotes, in the case it was written with.  `quoted` tells only how it was written."""

    value: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """`table`, `namespace.table` or `flightkalam.namespace.table`, and where it stands."""

    parts: tuple[Ident, ...]
    start: int
    end: int

    @property
    def table(self) -> str:
        return self.parts[-1].value

    @property
    def namespace(self) -> str | None:
        return self.parts[-2].value if len(self.parts) > 1 else None

    def __str__(self) -> str:
        return ".".join(part.value for part in self.parts)


@dataclass(frozen=True, slots=True)
class Slice:
    """The client's own text between two offsets, from the first to the last token of an expression or a query."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Default:
    """The word DEFAULT where a value is expected."""


DEFAULT = Default()
Value = Slice | Default
OptionValue = str | int | float | bool
Options = tuple[tuple[str, OptionValue], ...]


@dataclass(frozen=True, slots=True)
class AsUser:
    """Run the statement with the rights and rows of this user."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    as_user: AsUser | None = None


# ── Queries ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Query(Statement):
    """Anything that only reads, left to the engine.

    `text` is as long as the client's text and equal to it inside the query; all around it is blank, so a position in
    one is a position in the other and no comment at the end can swallow what a caller appends.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Explain(Statement):
    inner: Statement
    analyze: bool = False
    format: Literal["text", "json"] = "text"


# ── Writes ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class ValuesSource:
    rows: tuple[tuple[Value, ...], ...]
    slice: Slice


@dataclass(frozen=True, slots=True)
class QuerySource:
    slice: Slice


@dataclass(frozen=True, slots=True)
class DefaultValues:
    """DEFAULT VALUES: one row of defaults."""


Source = ValuesSource | QuerySource | DefaultValues


@dataclass(frozen=True, slots=True)
class Assignment:
    column: Ident
    value: Value


@dataclass(frozen=True, slots=True)
class OnConflict:
    target: tuple[Ident, ...] | None
    action: Literal["nothing", "update"]
    assignments: tuple[Assignment, ...] = ()
    where: Slice | None = None


@dataclass(frozen=True, slots=True)
class Insert(Statement):
    table: Name
    source: Source
    alias: Ident | None = None
    columns: tuple[Ident, ...] | None = None
    by_name: bool = False
    or_action: Literal["replace", "ignore"] | None = None
    on_conflict: OnConflict | None = None
    returning: Slice | None = None
    with_clause: Slice | None = None


@dataclass(frozen=True, slots=True)
class Update(Statement):
    table: Name
    assignments: tuple[Assignment, ...]
    alias: Ident | None = None
    from_: Slice | None = None
    where: Slice | None = None
    returning: Slice | None = None
    with_clause: Slice | None = None


@dataclass(frozen=True, slots=True)
class Delete(Statement):
    table: Name
    alias: Ident | None = None
    using: Slice | None = None
    where: Slice | None = None
    returning: Slice | None = None
    with_clause: Slice | None = None


@dataclass(frozen=True, slots=True)
class MergeClause:
    """One WHEN.  `whole_row` stands for `UPDATE`, `UPDATE SET *`, `INSERT`, `INSERT *` and their BY NAME forms, which
    take every column from the source; `values` is None then.  INSERT DEFAULT VALUES has `values == ()`."""

    matched: Literal["matched", "not_matched", "not_matched_by_source"]
    action: Literal["update", "insert", "delete", "nothing"]
    condition: Slice | None = None
    assignments: tuple[Assignment, ...] = ()
    columns: tuple[Ident, ...] | None = None
    values: tuple[Value, ...] | None = None
    whole_row: Literal["position", "name"] | None = None


@dataclass(frozen=True, slots=True)
class Merge(Statement):
    """`source` includes its alias.  The join is either `on` or the column names in `using`."""

    target: Name
    source: Slice
    clauses: tuple[MergeClause, ...]
    alias: Ident | None = None
    on: Slice | None = None
    using: tuple[Ident, ...] = ()
    returning: Slice | None = None
    with_clause: Slice | None = None


@dataclass(frozen=True, slots=True)
class Truncate(Statement):
    table: Name


@dataclass(frozen=True, slots=True)
class Erase(Statement):
    table: Name
    where: Slice


# ── Tables, views, namespaces ────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Check:
    name: Ident | None
    expr: Slice


@dataclass(frozen=True, slots=True)
class ColumnDef:
    """`identity` is set for SERIAL types, AUTO_INCREMENT, IDENTITY and GENERATED … AS IDENTITY alike."""

    name: Ident
    type_text: Slice
    not_null: bool = False
    default: Slice | None = None
    primary_key: bool = False
    checks: tuple[Check, ...] = ()
    identity: bool = False


@dataclass(frozen=True, slots=True)
class CreateTable(Statement):
    """`primary_key` holds the key however it was stated; `checks` those of the table, not of its columns."""

    name: Name
    kind: Literal["USER", "SHARED", "STREAM"] | None = None
    if_not_exists: bool = False
    columns: tuple[ColumnDef, ...] = ()
    primary_key: tuple[Ident, ...] = ()
    checks: tuple[Check, ...] = ()
    options: Options = ()
    as_query: Slice | None = None


@dataclass(frozen=True, slots=True)
class DropTable(Statement):
    name: Name
    if_exists: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class CreateView(Statement):
    name: Name
    query: Slice
    columns: tuple[Ident, ...] | None = None
    or_replace: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropView(Statement):
    name: Name
    if_exists: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class CreateNamespace(Statement):
    name: Ident
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropNamespace(Statement):
    name: Ident
    if_exists: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True)
class AddColumn:
    column: ColumnDef
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropColumn:
    column: Ident
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class RenameColumn:
    column: Ident
    to: Ident


@dataclass(frozen=True, slots=True)
class RenameTable:
    to: Ident


@dataclass(frozen=True, slots=True)
class SetDefault:
    column: Ident
    default: Slice


@dataclass(frozen=True, slots=True)
class DropDefault:
    column: Ident


@dataclass(frozen=True, slots=True)
class SetNotNull:
    column: Ident


@dataclass(frozen=True, slots=True)
class DropNotNull:
    column: Ident


@dataclass(frozen=True, slots=True)
class SetType:
    column: Ident
    type_text: Slice


@dataclass(frozen=True, slots=True)
class SetOptions:
    options: Options


AlterAction = (
    AddColumn
    | DropColumn
    | RenameColumn
    | RenameTable
    | SetDefault
    | DropDefault
    | SetNotNull
    | DropNotNull
    | SetType
    | SetOptions
)


@dataclass(frozen=True, slots=True)
class AlterTable(Statement):
    name: Name
    action: AlterAction
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class Comment(Statement):
    """`name` is the table or view, that of the column's table, or a namespace as its only part; `text` None removes."""

    on: Literal["table", "column", "view", "namespace"]
    name: Name
    text: str | None
    column: Ident | None = None


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Describe(Statement):
    """Of a table or view, or of a query: exactly one of the two is set."""

    name: Name | None = None
    query: Slice | None = None


@dataclass(frozen=True, slots=True)
class ShowTables(Statement):
    namespace: Ident | None = None


@dataclass(frozen=True, slots=True)
class ShowNamespaces(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowCreateTable(Statement):
    name: Name


@dataclass(frozen=True, slots=True)
class ShowColumns(Statement):
    name: Name


@dataclass(frozen=True, slots=True)
class RebuildManifest(Statement):
    table: Name
    wait: bool = False


@dataclass(frozen=True, slots=True)
class ShowManifestCache(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowJobs(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowQueries(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowStorages(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowUsers(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowTokens(Statement):
    """`user` None: all that the caller may see."""

    user: str | None = None


@dataclass(frozen=True, slots=True)
class ShowSetting(Statement):
    """`name` in small letters."""

    name: str


# ── The session ──────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Use(Statement):
    namespace: Ident


@dataclass(frozen=True, slots=True)
class Set(Statement):
    """`name` in small letters; `values` without quotes, more than one only for a list, none for DEFAULT."""

    name: str
    values: tuple[str, ...]
    scope: Literal["session", "local", "global"] | None = None

    @property
    def value(self) -> str | None:
        return ", ".join(self.values) if self.values else None


@dataclass(frozen=True, slots=True)
class Reset(Statement):
    """`name` in small letters; "all" for RESET ALL."""

    name: str


@dataclass(frozen=True, slots=True)
class Begin(Statement):
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Commit(Statement):
    pass


@dataclass(frozen=True, slots=True)
class Rollback(Statement):
    pass


@dataclass(frozen=True, slots=True)
class Savepoint(Statement):
    name: Ident


@dataclass(frozen=True, slots=True)
class ReleaseSavepoint(Statement):
    name: Ident


@dataclass(frozen=True, slots=True)
class RollbackTo(Statement):
    name: Ident


# ── Upkeep ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Flush(Statement):
    """Of one table, of all tables in a namespace, or of everything when both are None."""

    table: Name | None = None
    all_in: Ident | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Compact(Statement):
    table: Name
    wait: bool = False


@dataclass(frozen=True, slots=True)
class CheckTable(Statement):
    table: Name


@dataclass(frozen=True, slots=True)
class CheckAudit(Statement):
    pass


@dataclass(frozen=True, slots=True)
class ShowJob(Statement):
    id: str


@dataclass(frozen=True, slots=True)
class RunJob(Statement):
    """:param parameters: JSON, as the client wrote it."""

    name: str
    parameters: str | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True)
class KillJob(Statement):
    id: str


@dataclass(frozen=True, slots=True)
class KillQuery(Statement):
    id: str


@dataclass(frozen=True, slots=True)
class Backup(Statement):
    to: str


# ── Accounts and storages ────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class CreateUser(Statement):
    """Passwords are kept out of every repr, so that no log line can show one.  `role` in small letters."""

    name: str
    password: str | None = field(default=None, repr=False)
    role: str | None = None


@dataclass(frozen=True, slots=True)
class AlterUser(Statement):
    name: str
    password: str | None = field(default=None, repr=False)
    role: str | None = None


@dataclass(frozen=True, slots=True)
class DropUser(Statement):
    name: str
    purge: bool = False


@dataclass(frozen=True, slots=True)
class CreateToken(Statement):
    """`expires` is the text of a point in time or of a span (`30 days`); None lives until it is dropped."""

    name: str
    user: str
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class DropToken(Statement):
    name: str
    user: str | None = None


@dataclass(frozen=True, slots=True)
class CreateStorage(Statement):
    """Options may hold keys, so they are kept out of every repr."""

    name: str
    options: Options = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class AlterStorage(Statement):
    name: str
    options: Options = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DropStorage(Statement):
    name: str
