"""Looking around, the session's settings and transactions, and upkeep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from flightkalam.sql.cursor import Cursor, unsupported, words
from flightkalam.sql.lexer import Kind
from flightkalam.sql.statements import (
    Backup,
    Begin,
    CheckAudit,
    CheckTable,
    Commit,
    Compact,
    Describe,
    Flush,
    Ident,
    KillJob,
    KillQuery,
    RebuildManifest,
    ReleaseSavepoint,
    Reset,
    Rollback,
    RollbackTo,
    RunJob,
    Savepoint,
    Set,
    ShowColumns,
    ShowCreateTable,
    ShowJob,
    ShowJobs,
    ShowManifestCache,
    ShowNamespaces,
    ShowQueries,
    ShowSetting,
    ShowStorages,
    ShowTables,
    ShowTokens,
    ShowUsers,
    Statement,
    Use,
)


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def describe(cursor: Cursor) -> Describe:
    cursor.i += 1
    if cursor.at("TABLE") and cursor.kind(1) in (Kind.WORD, Kind.QUOTED):
        cursor.i += 1
        return Describe(name=cursor.name())
    if cursor.at_query():
        return Describe(query=cursor.rest("a query"))
    return Describe(name=cursor.name("a table name or a query"))


def show(cursor: Cursor) -> Statement:
    cursor.expect("SHOW")
    if cursor.accept("TABLES"):
        return ShowTables(cursor.namespace() if cursor.accept_any("IN", "FROM") else None)
    if cursor.accept("TOKENS"):
        return ShowTokens(cursor.string("a user id") if cursor.accept("FOR", "USER") else None)
    if cursor.accept("CREATE", "TABLE"):
        return ShowCreateTable(cursor.name())
    if cursor.at("COLUMNS") and cursor.word(1) in ("IN", "FROM"):
        cursor.i += 2
        return ShowColumns(cursor.name())
    if cursor.accept("MANIFEST", "CACHE"):
        return ShowManifestCache()
    if cursor.accept("JOB"):
        return ShowJob(cursor.string("a job's id"))
    if cursor.accept("TIME", "ZONE"):
        return ShowSetting("timezone")
    if cursor.accept("TRANSACTION", "ISOLATION", "LEVEL"):
        return ShowSetting("transaction_isolation")
    if word := cursor.accept_any(*_LISTS):
        return _LISTS[word]()
    return ShowSetting(cursor.ident("what to show").value.lower())


_LISTS: dict[str, Callable[[], Statement]] = {
    "NAMESPACES": ShowNamespaces,
    "SCHEMAS": ShowNamespaces,
    "JOBS": ShowJobs,
    "QUERIES": ShowQueries,
    "USERS": ShowUsers,
    "STORAGES": ShowStorages,
}


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────
_Scope = Literal["session", "local", "global"]
_SCOPES: dict[str, _Scope] = {"SESSION": "session", "LOCAL": "local", "GLOBAL": "global"}
# SET of these would change who acts or what a transaction promises; never to be taken for a mere setting.
_NO_SETTINGS = words("AUTHORIZATION ROLE TRANSACTION CHARACTERISTICS CONSTRAINTS VARIABLE")


def use(cursor: Cursor) -> Use:
    cursor.expect("USE")
    return Use(cursor.namespace())


def set_(cursor: Cursor) -> Set:
    cursor.expect("SET")
    scope = _SCOPES[word] if (word := cursor.accept_any(*_SCOPES)) else None
    if cursor.word() in _NO_SETTINGS and not cursor.at_symbol("=", 1):
        raise unsupported(f"SET {cursor.word()}")
    if cursor.accept("TIME", "ZONE"):
        local = cursor.accept("LOCAL")
        return Set("timezone", () if local else _setting_values(cursor), scope)
    name = cursor.ident("a setting").value.lower()
    if not cursor.accept("TO"):
        cursor.expect_symbol("=")
    return Set(name, _setting_values(cursor), scope)


def _setting_values(cursor: Cursor) -> tuple[str, ...]:
    if cursor.accept("DEFAULT"):
        return ()
    values = [_setting_value(cursor)]
    while cursor.accept_symbol(","):
        values.append(_setting_value(cursor))
    return tuple(values)


def _setting_value(cursor: Cursor) -> str:
    if cursor.kind() == Kind.STRING:
        return cursor.string("a value")
    if word := cursor.accept_any("TRUE", "FALSE", "ON"):
        return word.lower()
    first = cursor.i
    cursor.accept_symbol("-")
    if cursor.kind() == Kind.NUMBER:
        cursor.i += 1
        return cursor.slice(first, cursor.i).text
    cursor.i = first
    return cursor.ident("a value").value


def reset(cursor: Cursor) -> Reset:
    cursor.expect("RESET")
    cursor.accept_any(*_SCOPES)
    if cursor.accept("TIME", "ZONE"):
        return Reset("timezone")
    if cursor.accept("ALL"):
        return Reset("all")
    if cursor.word() in _NO_SETTINGS:
        raise unsupported(f"RESET {cursor.word()}")
    return Reset(cursor.ident("a setting").value.lower())


# ── Transactions ─────────────────────────────────────────────────────────────────────────────────────────────────────
def begin(cursor: Cursor) -> Begin:
    started = cursor.accept_any("BEGIN", "START") == "START"
    if started:
        cursor.expect("TRANSACTION")
    else:
        cursor.accept_any("TRANSACTION", "WORK")
    read_only = False
    while not cursor.done:
        if cursor.accept("READ", "ONLY"):
            read_only = True
        elif cursor.accept("ISOLATION", "LEVEL"):
            _isolation(cursor)
        elif not cursor.accept("READ", "WRITE"):
            raise cursor.error("expected READ ONLY, READ WRITE or ISOLATION LEVEL")
        if cursor.accept_symbol(",") and cursor.done:
            raise cursor.error("expected another mode after the comma")
    return Begin(read_only)


def _isolation(cursor: Cursor) -> None:
    """Snapshot isolation gives all that the weaker levels promise; it does not give serializability."""
    if cursor.accept("SERIALIZABLE"):
        raise unsupported("ISOLATION LEVEL SERIALIZABLE", "transactions have snapshot isolation (REPEATABLE READ)")
    for level in (("SNAPSHOT",), ("REPEATABLE", "READ"), ("READ", "COMMITTED"), ("READ", "UNCOMMITTED")):
        if cursor.accept(*level):
            return
    raise cursor.error("expected REPEATABLE READ or SNAPSHOT")


def commit(cursor: Cursor) -> Commit:
    cursor.i += 1
    cursor.accept_any("TRANSACTION", "WORK")
    _no_chain(cursor)
    return Commit()


def rollback(cursor: Cursor) -> Rollback | RollbackTo:
    cursor.i += 1
    cursor.accept_any("TRANSACTION", "WORK")
    _no_chain(cursor)
    if not cursor.accept("TO"):
        return Rollback()
    return RollbackTo(_savepoint_name(cursor))


def _no_chain(cursor: Cursor) -> None:
    if cursor.at("AND"):
        raise unsupported("AND CHAIN", "begin the next transaction with BEGIN")


def _savepoint_name(cursor: Cursor) -> Ident:
    if cursor.at("SAVEPOINT") and cursor.kind(1) in (Kind.WORD, Kind.QUOTED):
        cursor.i += 1
    return cursor.ident("the savepoint's name")


def savepoint(cursor: Cursor) -> Savepoint:
    cursor.expect("SAVEPOINT")
    return Savepoint(cursor.ident("the savepoint's name"))


def release(cursor: Cursor) -> ReleaseSavepoint:
    cursor.expect("RELEASE")
    return ReleaseSavepoint(_savepoint_name(cursor))


# ── Upkeep ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def flush(cursor: Cursor) -> Flush:
    """`FLUSH TABLE t`, `FLUSH ALL TABLES [IN [NAMESPACE] n]`, either with WAIT; STORAGE before FLUSH is an alias."""
    cursor.expect("FLUSH")
    if cursor.accept("ALL"):
        cursor.accept("TABLES")
        return Flush(all_in=_in_namespace(cursor), wait=cursor.accept("WAIT"))
    if not cursor.accept("TABLE"):
        raise cursor.error("expected TABLE or ALL TABLES")
    return Flush(cursor.name(), wait=cursor.accept("WAIT"))


def _in_namespace(cursor: Cursor) -> Ident | None:
    if not cursor.accept("IN"):
        return None
    # NAMESPACE and SCHEMA are also fine names for a namespace.
    if cursor.at_any("NAMESPACE", "SCHEMA") and cursor.kind(1) in (Kind.WORD, Kind.QUOTED) and cursor.word(1) != "WAIT":
        cursor.i += 1
    return cursor.namespace()


def storage(cursor: Cursor) -> Flush:
    cursor.expect("STORAGE")
    return flush(cursor)


def compact(cursor: Cursor) -> Compact:
    cursor.expect("COMPACT")
    cursor.expect("TABLE")
    return Compact(cursor.name(), cursor.accept("WAIT"))


def rebuild(cursor: Cursor) -> RebuildManifest:
    cursor.expect("REBUILD")
    cursor.expect("MANIFEST")
    return RebuildManifest(cursor.name(), cursor.accept("WAIT"))


def check(cursor: Cursor) -> CheckTable | CheckAudit:
    cursor.expect("CHECK")
    if cursor.accept("AUDIT"):
        return CheckAudit()
    if not cursor.accept("TABLE"):
        raise cursor.error("expected TABLE or AUDIT")
    return CheckTable(cursor.name())


def kill(cursor: Cursor) -> KillJob | KillQuery:
    cursor.expect("KILL")
    if cursor.accept("JOB"):
        return KillJob(cursor.string("a job's id"))
    if cursor.accept("QUERY"):
        return KillQuery(cursor.string("a query's id"))
    raise cursor.error("expected JOB or QUERY")


def run(cursor: Cursor) -> RunJob:
    """`RUN JOB 'kind' [WITH 'parameters as JSON'] [WAIT]`."""
    cursor.expect("RUN")
    cursor.expect("JOB")
    kind = cursor.string("a kind of job")
    parameters = cursor.string("the parameters as JSON") if cursor.accept("WITH") else None
    return RunJob(kind, parameters, cursor.accept("WAIT"))


def backup(cursor: Cursor) -> Backup:
    cursor.expect("BACKUP")
    cursor.expect("TO")
    return Backup(cursor.string("a backup's name"))


READERS: dict[str, Callable[[Cursor], Statement]] = {
    "DESCRIBE": describe,
    "DESC": describe,
    "SHOW": show,
    "USE": use,
    "SET": set_,
    "RESET": reset,
    "BEGIN": begin,
    "START": begin,
    "COMMIT": commit,
    "END": commit,
    "ROLLBACK": rollback,
    "ABORT": rollback,
    "SAVEPOINT": savepoint,
    "RELEASE": release,
    "FLUSH": flush,
    "STORAGE": storage,
    "COMPACT": compact,
    "CHECK": check,
    "REBUILD": rebuild,
    "KILL": kill,
    "RUN": run,
    "BACKUP": backup,
}
