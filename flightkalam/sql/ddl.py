"""CREATE, ALTER, DROP and COMMENT ON.  What we do not enforce is refused by name: nothing is silently ignored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flightkalam.sql import accounts
from flightkalam.sql.cursor import Cursor, unsupported, words
from flightkalam.sql.statements import (
    AddColumn,
    AlterAction,
    AlterTable,
    Check,
    ColumnDef,
    Comment,
    CreateNamespace,
    CreateTable,
    CreateView,
    DropColumn,
    DropDefault,
    DropNamespace,
    DropNotNull,
    DropTable,
    DropView,
    Ident,
    Name,
    RenameColumn,
    RenameTable,
    SetDefault,
    SetNotNull,
    SetOptions,
    SetType,
    Slice,
    Statement,
)

_Kind = Literal["USER", "SHARED", "STREAM"]
_KINDS: dict[str, _Kind] = {"USER": "USER", "SHARED": "SHARED", "STREAM": "STREAM"}
# What may follow a column's type or default.
_CONSTRAINTS = words(
    """NULL DEFAULT PRIMARY CHECK UNIQUE REFERENCES COLLATE GENERATED AS CONSTRAINT AUTO_INCREMENT AUTOINCREMENT
    IDENTITY USING"""
) | {"NOT NULL"}
_SERIAL = frozenset({"SERIAL", "BIGSERIAL"})
_TABLE_CONSTRAINTS = words("PRIMARY CHECK CONSTRAINT UNIQUE FOREIGN EXCLUDE LIKE")
_ADJECTIVES = words("UNIQUE MATERIALIZED TEMP TEMPORARY LOCAL GLOBAL PERSISTENT UNLOGGED RECURSIVE EXTERNAL")
_REFUSED_OBJECTS = words(
    """AGGREGATE COLLATION CONNECTION DATABASE DOMAIN EXTENSION FUNCTION GROUP INDEX LANGUAGE MACRO
    OPERATOR POLICY PROCEDURE PUBLICATION ROLE RULE SECRET SEQUENCE SERVER SUBSCRIPTION TRIGGER TYPE"""
)


# ── CREATE ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def create(cursor: Cursor) -> Statement:
    cursor.expect("CREATE")
    or_replace = cursor.accept("OR", "REPLACE")
    _refuse(cursor, "CREATE")
    if or_replace and not cursor.at("VIEW"):
        what = "TABLE" if cursor.word(1) == "TABLE" else cursor.word()
        raise unsupported(f"CREATE OR REPLACE {what}", "drop it first, or ingest with mode replace")
    kind = None
    if cursor.word(1) == "TABLE" and (kind := _KINDS.get(cursor.word())):
        cursor.i += 1
    if cursor.accept("TABLE"):
        return _create_table(cursor, kind)
    if cursor.accept("VIEW"):
        return _create_view(cursor, or_replace)
    if cursor.accept_any("NAMESPACE", "SCHEMA"):
        if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
        return CreateNamespace(cursor.namespace(), if_not_exists)
    return accounts.create(cursor)


def _refuse(cursor: Cursor, verb: str) -> None:
    """Kinds of object that we do not have, and the adjectives that would make one of ours into another."""
    word = cursor.word()
    if word in _ADJECTIVES:
        raise unsupported(f"{verb} {word} {cursor.word(1)}".rstrip())
    if word in _REFUSED_OBJECTS:
        raise unsupported(f"{verb} {word}")


def _create_view(cursor: Cursor, or_replace: bool) -> CreateView:
    if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
    name = cursor.name("a view name")
    columns = cursor.idents("a column") if cursor.at_symbol("(") else None
    cursor.expect("AS")
    if not cursor.at_query():
        raise cursor.error("expected a query")
    return CreateView(name, cursor.rest("a query"), columns, or_replace, if_not_exists)


@dataclass(slots=True)
class _Elements:
    """What has been read of a table's parentheses so far."""

    columns: list[ColumnDef] = field(default_factory=list)
    primary_key: tuple[Ident, ...] = ()
    checks: list[Check] = field(default_factory=list)

    def state_key(self, cursor: Cursor, columns: tuple[Ident, ...], first: int) -> None:
        if self.primary_key:
            raise cursor.error("a table has only one primary key: write PRIMARY KEY (a, b) for one of several columns", first)
        self.primary_key = columns


def _create_table(cursor: Cursor, kind: _Kind | None) -> CreateTable:
    if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
    name = cursor.name()
    elements = _Elements()
    listed = cursor.i
    if cursor.at_symbol("("):
        _read_elements(cursor.inside(), elements)
    options = cursor.options() if cursor.accept("WITH") else ()
    as_query = _as_query(cursor) if cursor.accept("AS") else None
    if as_query is None and not elements.columns:
        raise cursor.error("expected ( and columns, or AS and a query")
    if as_query is not None and (elements.columns or elements.checks):
        raise cursor.error("the columns come from the query: only PRIMARY KEY (…) may be stated before AS", listed)
    columns, checks = tuple(elements.columns), tuple(elements.checks)
    return CreateTable(name, kind, if_not_exists, columns, elements.primary_key, checks, options, as_query)


def _as_query(cursor: Cursor) -> Slice:
    if not cursor.at_query():
        raise cursor.error("expected a query")
    query = cursor.rest("a query")
    if query.text.upper().split()[-2:] in (["WITH", "DATA"], ["NO", "DATA"]):
        raise unsupported("CREATE TABLE … AS … WITH [NO] DATA", "leave it out; add LIMIT 0 for an empty table")
    return query


def _read_elements(cursor: Cursor, elements: _Elements) -> None:
    while True:
        if cursor.word() in _TABLE_CONSTRAINTS:
            _table_constraint(cursor, elements)
        else:
            first = cursor.i
            column = column_def(cursor)
            elements.columns.append(column)
            if column.primary_key:
                elements.state_key(cursor, (column.name,), first)
        if not cursor.accept_symbol(",") or cursor.done:
            break
    if not cursor.done:
        raise cursor.error('expected "," or ")"')


def _table_constraint(cursor: Cursor, elements: _Elements) -> None:
    name = cursor.ident("the constraint's name") if cursor.accept("CONSTRAINT") else None
    first = cursor.i
    if cursor.accept("PRIMARY"):
        cursor.expect("KEY")
        elements.state_key(cursor, cursor.idents("a column of the key"), first)
    elif cursor.accept("CHECK"):
        elements.checks.append(_check(cursor, name))
    elif cursor.word() in ("UNIQUE", "FOREIGN", "EXCLUDE", "LIKE"):
        raise unsupported({"FOREIGN": "FOREIGN KEY"}.get(cursor.word(), cursor.word()) + " in CREATE TABLE")
    else:
        raise cursor.error("expected PRIMARY KEY or CHECK")


def _check(cursor: Cursor, name: Ident | None) -> Check:
    return Check(name, cursor.expect_group("a condition").rest("a condition"))


# ── Columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(slots=True)
class _Constraints:
    """What has been read behind a column's type so far."""

    not_null: bool = False
    default: Slice | None = None
    primary_key: bool = False
    identity: bool = False
    checks: list[Check] = field(default_factory=list)


def column_def(cursor: Cursor) -> ColumnDef:
    first = cursor.i
    name = cursor.ident("a column name")
    type_text = _type_text(cursor, f'the type of column "{name.value}"')
    read = _Constraints(identity=type_text.text.upper() in _SERIAL)
    while not (cursor.done or cursor.at_symbol(",")):
        _column_constraint(cursor, read)
    if read.identity and read.default is not None:
        raise cursor.error(f'column "{name.value}" has both a DEFAULT and generated ids: choose one', first)
    checks = tuple(read.checks)
    return ColumnDef(name, type_text, read.not_null, read.default, read.primary_key, checks, read.identity)


def _type_text(cursor: Cursor, what: str) -> Slice:
    if not cursor.word() and not cursor.at_ident():
        raise cursor.error(f"expected {what}")
    return cursor.until(_CONSTRAINTS, what, comma=True)


def _column_constraint(cursor: Cursor, read: _Constraints) -> None:
    name = cursor.ident("the constraint's name") if cursor.accept("CONSTRAINT") else None
    if cursor.accept("NOT", "NULL"):
        read.not_null = True
    elif cursor.accept("NULL"):
        pass
    elif cursor.accept("DEFAULT"):
        if read.default is not None:
            raise cursor.error("the column has a DEFAULT already")
        read.default = cursor.until(_CONSTRAINTS, "a default", comma=True)
    elif cursor.accept("PRIMARY"):
        cursor.expect("KEY")
        read.primary_key = True
    elif cursor.accept("CHECK"):
        read.checks.append(_check(cursor, name))
    else:
        _generated(cursor, read)


def _generated(cursor: Cursor, read: _Constraints) -> None:
    if cursor.accept("GENERATED"):
        if not cursor.accept("ALWAYS"):
            cursor.expect("BY", "DEFAULT")
        cursor.expect("AS")
        if cursor.at_symbol("("):
            raise unsupported("a generated column", "compute it in a view")
        cursor.expect("IDENTITY")
        read.identity = True
    elif cursor.accept_any("AUTO_INCREMENT", "AUTOINCREMENT", "IDENTITY"):
        read.identity = True
    elif cursor.at("AS"):
        raise unsupported("a generated column", "compute it in a view")
    elif cursor.word() in ("UNIQUE", "REFERENCES", "COLLATE", "USING"):
        raise unsupported(f"{cursor.word()} on a column")
    else:
        raise cursor.error('expected a constraint, "," or the end of the column')
    if read.identity and cursor.at_symbol("("):
        raise unsupported("IDENTITY with its own start or step", "ids are Snowflake ids")


# ── ALTER ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def alter(cursor: Cursor) -> Statement:
    cursor.expect("ALTER")
    if not cursor.accept("TABLE"):
        if cursor.at_any("USER", "STORAGE"):
            return accounts.alter(cursor)
        _refuse(cursor, "ALTER")
        if cursor.at_any("VIEW", "NAMESPACE", "SCHEMA", "TOKEN"):
            raise unsupported(f"ALTER {cursor.word()}", "drop it and create it anew")
        raise cursor.error("expected TABLE, USER or STORAGE")
    if_exists = cursor.accept("IF", "EXISTS")
    name = cursor.name()
    action = _alter_action(cursor)
    if cursor.at_symbol(","):
        raise unsupported("more than one change in an ALTER TABLE", "send one statement for each")
    return AlterTable(name, action, if_exists)


def _alter_action(cursor: Cursor) -> AlterAction:
    if cursor.accept("ADD"):
        return _add_column(cursor)
    if cursor.accept("DROP"):
        return _drop_column(cursor)
    if cursor.accept("RENAME"):
        return _rename(cursor)
    if cursor.accept("ALTER"):
        cursor.accept("COLUMN")
        return _alter_column(cursor, cursor.ident("a column"))
    if cursor.accept("SET"):
        if cursor.at("SCHEMA"):
            raise unsupported("ALTER TABLE … SET SCHEMA")
        cursor.accept("OPTIONS")
        return SetOptions(cursor.options())
    raise cursor.error("expected ADD, DROP, RENAME, ALTER or SET")


def _add_column(cursor: Cursor) -> AddColumn:
    if not cursor.accept("COLUMN") and cursor.word() in _TABLE_CONSTRAINTS:
        raise unsupported(f"ALTER TABLE … ADD {cursor.word()}", "state it when the table is created")
    if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
    first = cursor.i
    column = column_def(cursor)
    if column.primary_key:
        raise cursor.error("a column that is added cannot be the primary key", first)
    return AddColumn(column, if_not_exists)


def _drop_column(cursor: Cursor) -> DropColumn:
    if not cursor.accept("COLUMN") and cursor.at_any("CONSTRAINT", "PRIMARY"):
        raise unsupported(f"ALTER TABLE … DROP {cursor.word()}")
    if_exists = cursor.accept("IF", "EXISTS")
    column = cursor.ident("a column")
    if cursor.at("CASCADE"):
        raise unsupported("DROP COLUMN … CASCADE", "drop what needs the column first")
    cursor.accept("RESTRICT")
    return DropColumn(column, if_exists)


def _rename(cursor: Cursor) -> RenameColumn | RenameTable:
    if cursor.accept("TO"):
        return RenameTable(cursor.ident("the new name, without a namespace"))
    cursor.accept("COLUMN")
    column = cursor.ident("a column")
    cursor.expect("TO")
    return RenameColumn(column, cursor.ident("the new name"))


def _alter_column(cursor: Cursor, column: Ident) -> AlterAction:
    if cursor.accept("SET", "DEFAULT"):
        return SetDefault(column, cursor.until(frozenset(), "a default", comma=True))
    if cursor.accept("DROP", "DEFAULT"):
        return DropDefault(column)
    if cursor.accept("SET", "NOT", "NULL"):
        return SetNotNull(column)
    if cursor.accept("DROP", "NOT", "NULL"):
        return DropNotNull(column)
    if cursor.accept("SET", "DATA", "TYPE") or cursor.accept("SET", "TYPE") or cursor.accept("TYPE"):
        type_text = _type_text(cursor, "a type")
        if cursor.at("USING"):
            raise unsupported("ALTER COLUMN … TYPE … USING", "types can only be widened")
        return SetType(column, type_text)
    raise cursor.error("expected SET DEFAULT, DROP DEFAULT, SET NOT NULL, DROP NOT NULL or SET DATA TYPE")


# ── DROP, COMMENT ────────────────────────────────────────────────────────────────────────────────────────────────────
def drop(cursor: Cursor) -> Statement:
    cursor.expect("DROP")
    if cursor.accept_any("NAMESPACE", "SCHEMA"):
        if_exists = cursor.accept("IF", "EXISTS")
        return DropNamespace(cursor.namespace(), if_exists, _cascade(cursor))
    if cursor.accept("VIEW"):
        if_exists = cursor.accept("IF", "EXISTS")
        return DropView(_only_name(cursor), if_exists, _cascade(cursor))
    if cursor.word(1) == "TABLE" and cursor.word() in _KINDS:
        cursor.i += 1
    if cursor.accept("TABLE"):
        if_exists = cursor.accept("IF", "EXISTS")
        return DropTable(_only_name(cursor), if_exists, _cascade(cursor))
    _refuse(cursor, "DROP")
    return accounts.drop(cursor)


def _only_name(cursor: Cursor) -> Name:
    name = cursor.name()
    if cursor.at_symbol(","):
        raise unsupported("DROP of several objects at once", "send one statement for each")
    return name


def _cascade(cursor: Cursor) -> bool:
    return cursor.accept_any("CASCADE", "RESTRICT") == "CASCADE"


def comment(cursor: Cursor) -> Comment:
    cursor.expect("COMMENT")
    cursor.expect("ON")
    what = cursor.accept_any("TABLE", "VIEW", "COLUMN", "NAMESPACE", "SCHEMA")
    first, column = cursor.i, None
    if what == "COLUMN":
        name, column = cursor.column_path()
    elif what in ("NAMESPACE", "SCHEMA"):
        name = cursor.checked_name((cursor.namespace(),), cursor.i - 1)
    elif what in ("TABLE", "VIEW"):
        name = cursor.name()
    else:
        raise cursor.error("expected TABLE, VIEW, COLUMN or NAMESPACE", first)
    cursor.expect("IS")
    text = None if cursor.accept("NULL") else cursor.string("a comment")
    return Comment(_COMMENT_ON[what], name, text, column)


_CommentOn = Literal["table", "column", "view", "namespace"]
_COMMENT_ON: dict[str, _CommentOn] = {
    "TABLE": "table",
    "VIEW": "view",
    "COLUMN": "column",
    "NAMESPACE": "namespace",
    "SCHEMA": "namespace",
}
