"""Looking around, settings, transactions, upkeep, and accounts."""

from __future__ import annotations

from typing import Any

import pytest
from sql_plain import plain

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.sql import parse


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("DESCRIBE t", "Describe", {"name": "t"}),
        ("DESC TABLE n.t", "Describe", {"name": "n.t"}),
        ("DESCRIBE SELECT 1 AS a", "Describe", {"query": "SELECT 1 AS a"}),
        ("SHOW TABLES", "ShowTables", {}),
        ("SHOW TABLES IN n", "ShowTables", {"namespace": "n"}),
        ("SHOW TABLES FROM flightkalam.n", "ShowTables", {"namespace": "n"}),
        ("SHOW NAMESPACES", "ShowNamespaces", {}),
        ("SHOW SCHEMAS", "ShowNamespaces", {}),
        ("SHOW CREATE TABLE n.t", "ShowCreateTable", {"name": "n.t"}),
        ("SHOW COLUMNS FROM t", "ShowColumns", {"name": "t"}),
        ("SHOW MANIFEST CACHE", "ShowManifestCache", {}),
        ("SHOW JOBS", "ShowJobs", {}),
        ("SHOW USERS", "ShowUsers", {}),
        ("SHOW TimeZone", "ShowSetting", {"name": "timezone"}),
        ("SHOW TIME ZONE", "ShowSetting", {"name": "timezone"}),
        ("SHOW TRANSACTION ISOLATION LEVEL", "ShowSetting", {"name": "transaction_isolation"}),
        ("SHOW search_path", "ShowSetting", {"name": "search_path"}),
        ("USE n", "Use", {"namespace": "n"}),
        ('USE flightkalam."N"', "Use", {"namespace": "N"}),
        ("SET TimeZone = 'Europe/Paris'", "Set", {"name": "timezone", "values": ["Europe/Paris"]}),
        ("SET TIME ZONE 'UTC'", "Set", {"name": "timezone", "values": ["UTC"]}),
        ("SET TIME ZONE LOCAL", "Set", {"name": "timezone", "values": []}),
        ("SET schema = 'x'", "Set", {"name": "schema", "values": ["x"]}),
        ("SET search_path TO a, \"B\", 'c'", "Set", {"name": "search_path", "values": ["a", "B", "c"]}),
        ("SET SESSION statement_timeout = -1", "Set", {"name": "statement_timeout", "values": ["-1"], "scope": "session"}),
        ("SET LOCAL x TO DEFAULT", "Set", {"name": "x", "values": [], "scope": "local"}),
        ("SET x = on", "Set", {"name": "x", "values": ["on"]}),
        ("RESET TimeZone", "Reset", {"name": "timezone"}),
        ("RESET ALL", "Reset", {"name": "all"}),
        ("BEGIN", "Begin", {}),
        ("BEGIN TRANSACTION", "Begin", {}),
        ("BEGIN WORK", "Begin", {}),
        ("START TRANSACTION READ ONLY", "Begin", {"read_only": True}),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE", "Begin", {}),
        ("COMMIT", "Commit", {}),
        ("COMMIT WORK", "Commit", {}),
        ("END TRANSACTION", "Commit", {}),
        ("ROLLBACK", "Rollback", {}),
        ("ABORT", "Rollback", {}),
        ("ROLLBACK TO SAVEPOINT s", "RollbackTo", {"name": "s"}),
        ("ROLLBACK WORK TO s", "RollbackTo", {"name": "s"}),
        ("SAVEPOINT s", "Savepoint", {"name": "s"}),
        ("RELEASE SAVEPOINT s", "ReleaseSavepoint", {"name": "s"}),
        ("RELEASE savepoint", "ReleaseSavepoint", {"name": "savepoint"}),
        ("FLUSH TABLE n.t", "Flush", {"table": "n.t"}),
        ("FLUSH TABLE t WAIT", "Flush", {"table": "t", "wait": True}),
        ("FLUSH ALL TABLES", "Flush", {}),
        ("FLUSH ALL TABLES IN NAMESPACE n WAIT", "Flush", {"all_in": "n", "wait": True}),
        ("FLUSH ALL TABLES IN namespace WAIT", "Flush", {"all_in": "namespace", "wait": True}),
        ("STORAGE FLUSH TABLE t", "Flush", {"table": "t"}),
        ("STORAGE FLUSH ALL", "Flush", {}),
        ("STORAGE FLUSH ALL IN n", "Flush", {"all_in": "n"}),
        ("COMPACT TABLE n.t WAIT", "Compact", {"table": "n.t", "wait": True}),
        ("REBUILD MANIFEST n.t WAIT", "RebuildManifest", {"table": "n.t", "wait": True}),
        ("CHECK TABLE t", "CheckTable", {"table": "t"}),
        ("CHECK AUDIT", "CheckAudit", {}),
        ("KILL JOB 'FL-1'", "KillJob", {"id": "FL-1"}),
        ("SHOW JOB 'FL-1'", "ShowJob", {"id": "FL-1"}),
        ("RUN JOB 'flush'", "RunJob", {"name": "flush"}),
        ("run job 'flush' with '{\"tables\": []}' wait", "RunJob", {"name": "flush", "parameters": '{"tables": []}', "wait": True}),
        ("KILL QUERY 'q'", "KillQuery", {"id": "q"}),
        ("BACKUP TO 'b'", "Backup", {"to": "b"}),
        ("CREATE USER 'n' WITH PASSWORD 'p''w' ROLE dba", "CreateUser", {"name": "n", "password": "p'w", "role": "dba"}),
        ("CREATE USER 'n' ROLE 'Service'", "CreateUser", {"name": "n", "role": "service"}),
        ("CREATE USER 'A b;é'", "CreateUser", {"name": "A b;é"}),
        ("ALTER USER 'n' SET PASSWORD 'p'", "AlterUser", {"name": "n", "password": "p"}),
        ("ALTER USER 'n' SET ROLE user", "AlterUser", {"name": "n", "role": "user"}),
        ("ALTER USER 'n' SET PASSWORD 'p' SET ROLE dba", "AlterUser", {"name": "n", "password": "p", "role": "dba"}),
        ("DROP USER 'n'", "DropUser", {"name": "n"}),
        ("DROP USER 'n' PURGE", "DropUser", {"name": "n", "purge": True}),
        ("CREATE TOKEN 'k' FOR USER 'n'", "CreateToken", {"name": "k", "user": "n"}),
        ("CREATE TOKEN 'k' FOR USER 'n' EXPIRES '2030-01-01'", "CreateToken",
         {"name": "k", "user": "n", "expires": "2030-01-01"}),
        ("CREATE TOKEN 'k' FOR USER 'n' EXPIRES IN '30 days'", "CreateToken",
         {"name": "k", "user": "n", "expires": "30 days"}),
        ("CREATE TOKEN 'k' FOR USER 'n' EXPIRES NEVER", "CreateToken", {"name": "k", "user": "n"}),
        ("DROP TOKEN 'k'", "DropToken", {"name": "k"}),
        ("DROP TOKEN 'k' FOR USER 'n'", "DropToken", {"name": "k", "user": "n"}),
        ("CREATE STORAGE s WITH (TYPE='local', PATH='/x')", "CreateStorage",
         {"name": "s", "options": [["TYPE", "local"], ["PATH", "/x"]]}),
        ("ALTER STORAGE 's' SET (PATH='/y')", "AlterStorage", {"name": "s", "options": [["PATH", "/y"]]}),
        ("ALTER STORAGE s SET OPTIONS (PATH='/y')", "AlterStorage", {"name": "s", "options": [["PATH", "/y"]]}),
        ("DROP STORAGE s", "DropStorage", {"name": "s"}),
    ],
)  # fmt: skip
def test_administration(text: str, kind: str, fields: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": kind} | fields
    assert plain(parse(text.lower() + " ;"))["is"] == kind


@pytest.mark.parametrize(
    "text",
    ["SET ROLE dba", "SET SESSION AUTHORIZATION x", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET VARIABLE x = 1",
     "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "RESET ROLE", "RESET SESSION AUTHORIZATION",
     "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"],
)  # fmt: skip
def test_what_would_change_the_actor_or_the_promise_is_refused(text: str) -> None:
    with pytest.raises(Unsupported):
        parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FLUSH t", "expected TABLE or ALL TABLES"),
        ("FLUSH TABLE t NOW", "should end here"),
        ("STORAGE t", "expected FLUSH"),
        ("KILL 'FL-1'", "expected JOB or QUERY"),
        ("KILL JOB FL", "a job's id as a string"),
        ("CHECK t", "expected TABLE or AUDIT"),
        ("SET x", 'expected "="'),
        ("SET x = 1 2", "should end here"),
        ("BEGIN READ", "expected READ ONLY"),
        ("BEGIN READ ONLY,", "another mode"),
        ("CREATE USER n", "a user id as a string"),
        ("CREATE USER 'n' ROLE dba ROLE dba", "each once"),
        ("ALTER USER 'n'", "expected SET PASSWORD"),
        ("ALTER USER 'n' SET", "expected PASSWORD or ROLE"),
        ("CREATE TOKEN 'k'", "expected FOR USER"),
        ("DROP USER", "a user id as a string"),
    ],
)
def test_malformed_administration(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        parse(text)
    assert says in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "CREATE USER 'n' WITH PASSWORD hunter2",
        "CREATE USER 'n' WITH PASSWORD 'hunter2' 'hunter2'",
        "CREATE USER 'n' WITH PASSWORD 'hunter2",
        "CREATE USER 'n' 'hunter2'",
        "ALTER USER 'n' SET PASSWORD $$hunter2$$",
        "ALTER USER 'n' SET PASSWORD \"hunter2\"",
        "ALTER USER 'n' PASSWORD 'hunter2'",
        "CREATE USER 'n' WITH PASSWORD 'hunter2'; SELECT 1",
    ],
)
def test_no_error_repeats_a_password(text: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        parse(text)
    assert "hunter2" not in caught.value.message


def test_no_repr_shows_a_password() -> None:
    for text in ("CREATE USER 'n' WITH PASSWORD 'hunter2'", "ALTER USER 'n' SET PASSWORD 'hunter2'"):
        assert "hunter2" not in repr(parse(text))
