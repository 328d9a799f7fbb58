"""AS USER without SQL, across calls and across time: headers, options, handles, tickets, transactions (T-48, T-49)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_manager
import pyarrow as pa
import pytest
from kalam_world import Adbc, Refused, World

from flightkalam.auth.identity import Identity, Role
from flightkalam.auth.impersonate import REFUSED
from flightkalam.errors import AccessDenied, InvalidValue, KalamError, Unauthenticated, UndefinedObject
from flightkalam.flight.ports import Credentials, IngestRequest
from flightkalam.session.acts import AUDITED, HEADER, Origin
from flightkalam.session.call import Call
from flightkalam.session.session import Session
from flightkalam.sql import statements as s

ROWS = pa.table({"id": [1, 2], "text": ["x", "y"]})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "data")
    for name, role in (
        ("svc", Role.SERVICE),
        ("boss", Role.DBA),
        ("ann", Role.USER),
        ("bob", Role.USER),
        ("é 🦆/..", Role.USER),
    ):
        world.user(name, role)
    world.in_process().run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY, text TEXT)")
    world.in_process().run("CREATE SHARED TABLE board (id BIGINT PRIMARY KEY, text TEXT) WITH (ACCESS_LEVEL = 'PUBLIC')")
    yield world
    world.close()


def call(session: Session, as_user: str | None = None, **headers: str) -> Call:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(session, given | ({} if as_user is None else {HEADER: quote(as_user, safe="")}), "ipv4:test")


def rows(caller: Call, sql: str) -> list[dict[str, Any]]:
    return _fetched(caller, caller.plan(sql, None).handle)


def _fetched(caller: Call, handle: bytes) -> list[dict[str, Any]]:
    found = caller.fetch(handle)
    return pa.Table.from_batches(list(found), found.schema).to_pylist()


def notes(world: World, user: str) -> list[int]:
    table = world.in_process(user, Role.USER).run("SELECT id FROM notes ORDER BY id").rows
    assert table is not None
    return table.column("id").to_pylist()


def audit(world: World, where: str = "true") -> list[tuple[Any, ...]]:
    found = world.in_process().run(
        f"SELECT action, subject_user_id, outcome FROM system.audit_log WHERE {where} ORDER BY audit_id"
    )
    assert found.rows is not None
    return [tuple(row.values()) for row in found.rows.to_pylist()]


def refused(run: Callable[[], object], says: str = REFUSED) -> None:
    with pytest.raises(KalamError) as caught:
        run()
    assert says in caught.value.message


def append(caller: Call, table: str = "notes", mode: str = "append") -> int:
    request = IngestRequest(table, if_exists=mode, if_not_exist="fail" if mode == "append" else "create")  # type: ignore[arg-type]
    return caller.ingest(request, ROWS.schema, iter(ROWS.to_batches()), {})


# -- the header -----------------------------------------------------------------------------------------------------


def test_the_header_holds_for_every_kind_of_call(world: World) -> None:
    svc = world.session("svc", Role.SERVICE)
    as_ann = call(svc, "ann")
    assert append(as_ann) == 2
    assert as_ann.update("UPDATE notes SET text = 'z' WHERE id = 1", None) == 1
    assert rows(as_ann, "SELECT id, text, CURRENT_USER AS u FROM notes ORDER BY id")[0] == {"id": 1, "text": "z", "u": "ann"}
    prepared = as_ann.prepare("DELETE FROM notes WHERE id = 2", None)
    assert as_ann.update_prepared(prepared.handle, None) == 1
    assert notes(world, "ann") == [1] and notes(world, "bob") == []
    assert rows(call(svc), "SELECT * FROM notes") == []


def test_a_name_of_any_characters_passes_through_the_header(world: World) -> None:
    append(call(world.session("svc", Role.SERVICE), "é 🦆/.."))
    assert notes(world, "é 🦆/..") == [1, 2]


@pytest.mark.parametrize("value", ["", " ", "ann bob", "ann,bob", "ann, ann", "%", "%zz", "%ff", "ä", "ann%2", "ann\t", "%C3"])
def test_a_header_that_says_no_name_is_an_error(value: str) -> None:
    with pytest.raises(InvalidValue, match="percent-encoded"):
        Origin.of({HEADER: value}, "")


@pytest.mark.parametrize("name", ["nobody", "root", "boss", "x" * 300, "a\0b", "ann'--", "ANN", "a:b"])
def test_subjects_out_of_reach_are_one_error_and_recorded(world: World, name: str) -> None:
    refused(lambda: append(call(world.session("svc", Role.SERVICE), name)))
    [(action, _, outcome)] = audit(world, "outcome = 'denied'")
    assert (action, outcome) == ("INGEST", "denied")


def test_every_subject_out_of_reach_costs_the_same_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not there and who is out of reach: the same look-ups, the same durable write, hence the same time."""
    world.kalam.parts.accounts.drop("bob")
    svc, store = world.session("svc", Role.SERVICE), world.kalam.store
    did: list[str] = []
    for name in ("get", "append", "wait"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *a, real=real, name=name: (did.append(f"{name} {a[0]}"[:12]), real(*a))[1])
    work = []
    for subject in ("nobody", "root", "boss", "bob"):
        did.clear()
        refused(lambda subject=subject: call(svc).update(f"DELETE FROM notes AS USER '{subject}'", None))  # type: ignore[misc]
        work.append([d.split()[0] if d.startswith("wait") else d for d in did])
    assert all(w == work[0] for w in work), work


@pytest.mark.parametrize("change", ["drop", "demote"])
def test_through_a_client_a_change_counts_under_an_open_connection(world: World, change: str) -> None:
    client = world.adbc("svc", Role.SERVICE)
    client.run("INSERT INTO notes AS USER 'ann' VALUES (1, 'x')")
    accounts = world.kalam.parts.accounts
    accounts.drop("ann") if change == "drop" else accounts.set_role("svc", Role.USER)
    for sql in ("INSERT INTO notes AS USER 'ann' VALUES (2, 'x')", "SELECT * FROM notes AS USER 'ann'"):
        with pytest.raises(Refused, match=REFUSED):
            client.run(sql)
    assert [o for _, _, o in audit(world, "subject_user_id = 'ann' AND actor_user_id = 'svc'")] == [
        "success",
        "denied",
        "denied",
    ]


def test_clause_header_and_option_must_agree(world: World) -> None:
    svc = world.session("svc", Role.SERVICE)
    as_ann = call(svc, "ann")
    assert rows(as_ann, "SELECT CURRENT_USER AS u AS USER 'ann'") == [{"u": "ann"}]
    refused(lambda: as_ann.update("INSERT INTO notes AS USER 'bob' VALUES (1, '')", None), "name different users")
    call(svc).set_option("as_user", "bob")
    refused(lambda: append(as_ann), "name different users")
    assert notes(world, "ann") == notes(world, "bob") == []


def test_a_shared_table_is_no_target_for_ingest(world: World) -> None:
    svc = world.session("svc", Role.SERVICE)
    for mode in ("append", "replace"):
        refused(lambda mode=mode: append(call(svc, "ann"), "board", mode), "AS USER not supported for Shared tables")  # type: ignore[misc]
    refused(lambda: append(call(svc, "svc"), "fresh", "replace"), "AS USER not supported for Shared tables")
    assert append(call(svc, "ann"), "anns", "replace") == 2  # a table of role user is a USER table
    assert rows(call(svc, "ann"), "SELECT count(*) AS n FROM anns") == [{"n": 2}]
    assert rows(call(svc), "SELECT count(*) AS n FROM anns") == [{"n": 0}]


def test_metadata_is_what_the_subject_may_see(world: World) -> None:
    world.in_process().run("CREATE SHARED TABLE staff (id BIGINT PRIMARY KEY)")
    svc = world.session("svc", Role.SERVICE)

    def listed(caller: Call) -> set[str]:
        return {t.name for t in caller.tables(None, "main", None, (), False)}

    assert "staff" in listed(call(svc)) and "staff" not in listed(call(svc, "ann"))
    assert call(svc).primary_key(None, "main", "staff") == ["id"]
    assert call(svc, "ann").primary_key(None, "main", "staff") == []
    refused(lambda: listed(call(svc, "nobody")))
    refused(lambda: call(svc, "nobody").schemas(None, None))
    assert ("LIST TABLES", "ann", "success") in audit(world)


# -- the session option ---------------------------------------------------------------------------------------------


def test_the_option_holds_until_it_is_unset(world: World) -> None:
    svc = world.session("svc", Role.SERVICE)
    caller = call(svc)
    caller.set_option("as_user", "ann")
    assert caller.options()["as_user"] == "ann"
    append(caller)
    assert rows(caller, "SELECT count(*) AS n FROM notes") == [{"n": 2}]
    caller.set_option("as_user", "bob")
    assert rows(caller, "SELECT count(*) AS n FROM notes") == [{"n": 0}]
    caller.set_option("as_user", None)
    assert rows(caller, "SELECT CURRENT_USER AS u") == [{"u": "svc"}] and "as_user" not in caller.options()
    assert notes(world, "ann") == [1, 2]


@pytest.mark.parametrize("value", ["nobody", "root", "a\nb", "x" * 300])
def test_an_option_out_of_reach_is_refused_when_it_is_set(world: World, value: str) -> None:
    caller = call(world.session("svc", Role.SERVICE))
    refused(lambda: caller.set_option("as_user", value))
    assert "as_user" not in caller.options() and audit(world, "outcome = 'denied'")[0][0] == "SET AS_USER"


def test_a_session_that_several_connections_share_takes_no_option(world: World) -> None:
    identity = Identity.of("svc", Role.SERVICE, session_id="basic:svc", via="basic")
    session = Session(world.kalam.parts, identity, "basic:svc", world.session()._results)
    refused(lambda: session.set_option("as_user", "ann"), "other connections")


# -- handles and tickets (T-49) -------------------------------------------------------------------------------------


def test_a_ticket_belongs_to_actor_and_subject(world: World) -> None:
    append(call(world.session("svc", Role.SERVICE), "ann"))
    svc = world.session("svc", Role.SERVICE)
    planned = call(svc, "ann").plan("SELECT id FROM notes ORDER BY id", None)
    assert [r["id"] for r in _fetched(call(svc), planned.handle)] == [1, 2], "also on a connection without the header"
    refused(lambda: _fetched(call(svc, "bob"), planned.handle), "name different users")
    own = call(svc).plan("SELECT id FROM notes", None)
    refused(lambda: _fetched(call(svc, "ann"), own.handle), "prepared to run as yourself")
    with pytest.raises(UndefinedObject):
        _fetched(call(world.session("boss", Role.DBA)), planned.handle)
    with pytest.raises(UndefinedObject):
        _fetched(call(world.session("ann", Role.USER)), planned.handle)


@pytest.mark.parametrize("change", ["subject dropped", "subject promoted", "actor demoted"])
def test_what_was_prepared_is_checked_again_when_it_runs(world: World, change: str) -> None:
    svc = world.session("svc", Role.SERVICE)
    as_ann = call(svc, "ann")
    insert = as_ann.prepare("INSERT INTO notes VALUES (1, 'x')", None)
    query = as_ann.plan("SELECT * FROM notes", None)
    accounts = world.kalam.parts.accounts
    if change == "subject dropped":
        accounts.drop("ann")
    elif change == "subject promoted":
        accounts.set_role("ann", Role.DBA)
    else:
        accounts.set_role("svc", Role.USER)
        svc.identity = Identity.of("svc", Role.USER, session_id=svc.session_id, via="password")  # as the next call finds it
    refused(lambda: as_ann.update_prepared(insert.handle, None))
    refused(lambda: _fetched(as_ann, query.handle))
    assert len(audit(world, "outcome = 'denied'")) == 2


def test_rights_are_checked_again_when_a_ticket_is_fetched(world: World) -> None:
    world.in_process().run("CREATE SHARED TABLE staff (id BIGINT PRIMARY KEY)")
    session = world.session("svc", Role.SERVICE)
    planned = call(session).plan("SELECT * FROM staff", None)
    prepared = call(session).prepare("SELECT * FROM staff", None)
    world.kalam.parts.accounts.set_role("svc", Role.USER)
    session.identity = Identity.of("svc", Role.USER, session_id=session.session_id, via="password")
    for run in (lambda: _fetched(call(session), planned.handle), lambda: call(session).plan_prepared(prepared.handle)):
        refused(run, 'table "staff" does not exist')


# -- inside the commit (T-48) ---------------------------------------------------------------------------------------


def _dropped_at_commit(world: World, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Run a write whose subject is dropped after every check and before its commit."""
    parts = world.kalam.parts
    prepared = parts.writer._prepared

    def drop_then_prepare(*args: Any) -> Any:
        if parts.accounts.get("ann") is not None:
            parts.accounts.drop("ann")
        return prepared(*args)

    monkeypatch.setattr(parts.writer, "_prepared", drop_then_prepare)
    refused(run)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "write", ["INSERT INTO notes VALUES (9, 'x')", "UPDATE notes SET text = 'x'", "DELETE FROM notes", "ingest"]
)
def test_a_subject_dropped_between_check_and_commit_is_not_written_for(
    world: World, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    caller = call(world.session("svc", Role.SERVICE), "ann")
    append(caller)
    before = len(audit(world, "outcome = 'success'"))
    head = world.kalam.parts.scopes.door.watermark
    rows_of_9 = pa.table({"id": [9], "text": ["x"]})

    def run() -> object:
        if write != "ingest":
            return caller.update(write, None)
        return caller.ingest(IngestRequest("notes", if_exists="append"), rows_of_9.schema, iter(rows_of_9.to_batches()), {})

    _dropped_at_commit(world, monkeypatch, run)
    assert world.kalam.parts.scopes.door.watermark == head, "nothing was written"
    found = audit(world, "outcome = 'denied'")
    assert len(found) == 1 and found[0][1:] == ("ann", "denied")
    assert len(audit(world, "outcome = 'success'")) == before
    assert world.kalam.parts.audit.check().problems == []


def test_the_record_and_the_write_are_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = world.kalam.store
    batches: list[set[str]] = []
    append_ = store.append

    def noting(batch: Any) -> int:
        batches.append({family for _, family, _, _ in batch.operations})
        return append_(batch)

    monkeypatch.setattr(store, "append", noting)
    caller = call(world.session("svc", Role.SERVICE), "ann")
    caller.update("INSERT INTO notes VALUES (1, 'x')", None)
    caller.update("UPDATE notes SET text = 'y'", None)
    caller.update("DELETE FROM notes", None)
    append(caller)
    assert [b for b in batches if "log" in b or "audit" in b] == [{"log", "meta", "audit"}] * 4


def test_ordinary_writes_leave_no_record(world: World) -> None:
    before = len(audit(world))
    append(call(world.session("ann", Role.USER)))
    call(world.session("ann", Role.USER)).update("DELETE FROM notes", None)
    assert len(audit(world)) == before


def test_a_write_that_changes_nothing_is_recorded_too(world: World) -> None:
    call(world.session("svc", Role.SERVICE), "ann").update("DELETE FROM notes", None)
    assert audit(world, "action = 'DELETE'") == [("DELETE", "ann", "success")]


def test_many_rows_of_parameters_are_one_record(world: World) -> None:
    caller = call(world.session("svc", Role.SERVICE), "ann")
    append(caller)
    prepared = caller.prepare("UPDATE notes SET text = ? WHERE id = ?", None)
    bound = pa.table({"0": ["p", "q"], "1": [1, 2]})
    assert caller.update_prepared(prepared.handle, iter(bound.to_batches())) == 2
    assert audit(world, "action = 'UPDATE'") == [("UPDATE", "ann", "success")]


def test_a_read_is_recorded_before_its_first_row_leaves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = call(world.session("svc", Role.SERVICE), "ann")
    append(caller)
    planned = caller.plan("SELECT * FROM notes", None)
    assert audit(world, "action = 'SELECT' AND subject_user_id = 'ann'") == []
    running = caller.fetch(planned.handle)
    assert audit(world, "action = 'SELECT' AND subject_user_id = 'ann'") == [("SELECT", "ann", "success")]
    running.close()
    waited: list[int] = []
    wait = world.kalam.store.wait
    monkeypatch.setattr(world.kalam.store, "wait", lambda position: (waited.append(position), wait(position))[1])
    caller.fetch(planned.handle).close()
    assert waited, "and durably"


def test_an_idempotency_key_belongs_to_actor_and_subject(world: World) -> None:
    svc, key = world.session("svc", Role.SERVICE), {"x_kalam_idempotency_key": "k"}
    for _ in range(2):
        assert append(call(svc, "ann", **key)) == 2
        assert append(call(svc, "bob", **key)) == 2
        assert append(call(svc, **key)) == 2
    assert notes(world, "ann") == notes(world, "bob") == [1, 2]
    assert audit(world, "action = 'INGEST'") == [("INGEST", "ann", "success"), ("INGEST", "bob", "success")]


def test_rows_and_receipt_and_record_hold_together_in_a_key_of_returning(world: World) -> None:
    caller = call(world.session("svc", Role.SERVICE), "ann", x_kalam_idempotency_key="r")
    sql = "INSERT INTO notes VALUES (1, 'x') RETURNING id, CURRENT_USER AS u"
    assert rows(caller, sql) == rows(caller, sql) == [{"id": 1, "u": "ann"}]
    assert audit(world, "action = 'INSERT'") == [("INSERT", "ann", "success")]


# -- transactions ---------------------------------------------------------------------------------------------------


def test_an_attempt_is_recorded_at_once_and_its_end_with_the_commit(world: World) -> None:
    session = world.session("svc", Role.SERVICE)
    caller = call(session, "ann")
    transaction = caller.begin()
    caller.update("INSERT INTO notes VALUES (1, 'x')", transaction)
    assert audit(world, "subject_user_id = 'ann'") == [("INSERT", "ann", "attempted")]
    caller.end(transaction, True)
    assert audit(world, "subject_user_id = 'ann'") == [("INSERT", "ann", "attempted"), ("INSERT", "ann", "committed")]
    assert notes(world, "ann") == [1]


@pytest.mark.parametrize("end", ["rollback", "close", "expiry", "crash", "conflict", "empty commit"])
def test_whatever_ends_a_transaction_is_recorded(world: World, end: str) -> None:
    session = world.session("svc", Role.SERVICE)
    caller = call(session, "ann")
    transaction = caller.begin()
    caller.update("DELETE FROM notes" if end == "empty commit" else "INSERT INTO notes VALUES (1, 'x')", transaction)
    if end == "rollback":
        caller.end(transaction, False)
    elif end == "close":
        session.close()
    elif end == "expiry":
        world.kalam.parts.accounts.create("late", "password of late", Role.USER)
        service = world.kalam.service
        service._sessions[session.session_id] = session
        session.last_used -= 10 * world.config.auth.session_idle_seconds
        late = world.kalam.parts.accounts.get("late")
        assert late is not None
        service.session(Credentials("bearer", secret=world.kalam.parts.tokens.issue(late)), "", {})
    elif end == "crash":
        session._transactions.clear()  # nobody ends it: what a killed process leaves
        world.restart()
    elif end == "conflict":
        call(world.session("ann", Role.USER)).update("INSERT INTO notes VALUES (1, 'first')", None)
        with pytest.raises(KalamError):
            caller.end(transaction, True)
    else:
        caller.end(transaction, True)
    outcome = "committed" if end == "empty commit" else "rolled back"
    found = audit(world, "subject_user_id = 'ann' AND outcome <> 'attempted'")
    assert [o for _, _, o in found] == [outcome]
    assert world.kalam.parts.audit.check().problems == [] and world.kalam.parts.audit.recover() == 0


def test_commit_looks_every_subject_up_once_more(world: World) -> None:
    caller = call(world.session("svc", Role.SERVICE))
    transaction = caller.begin()
    caller.update("INSERT INTO notes AS USER 'ann' VALUES (1, 'x')", transaction)
    caller.update("INSERT INTO notes AS USER 'bob' VALUES (1, 'x')", transaction)
    world.kalam.parts.accounts.drop("ann")
    with pytest.raises(AccessDenied, match=REFUSED):
        caller.end(transaction, True)
    assert notes(world, "bob") == []
    assert [o for _, _, o in audit(world, "outcome IN ('committed', 'rolled back')")] == ["rolled back"] * 2


WRITES = (
    ("INSERT INTO notes VALUES (1, 'x'), (2, 'y'), (3, 'z')", [1, 2, 3]),
    ("UPDATE notes SET text = 'by key' WHERE id = 2", [2]),
    ("UPDATE notes SET text = text || '!' WHERE id <> 2", [1, 3]),
    ("INSERT INTO notes VALUES (3, 'over'), (4, 'new') ON CONFLICT (id) DO UPDATE SET text = excluded.text", [3, 4]),
    ("DELETE FROM notes WHERE text = 'new'", [4]),
)


def spans(world: World) -> list[tuple[int, int, int]]:
    """Rows, first and last `_seq` that the log has of each write that was carried out."""
    found = world.in_process().run(
        "SELECT details FROM system.audit_log WHERE subject_user_id = 'ann' AND outcome IN ('success', 'committed') ORDER BY audit_id"
    )
    assert found.rows is not None
    told = [json.loads(text) for text in found.rows.column("details").to_pylist()]
    return [(d.get("rows", 0), int(d["first_seq"]), int(d["last_seq"])) for d in told]


@pytest.mark.parametrize("flushed", [False, True], ids=["hot", "cold"])
def test_the_record_of_a_write_says_which_versions_it_is_about(world: World, flushed: bool) -> None:
    """T-48: from a row to who wrote it, and back."""
    caller, ann = call(world.session("svc", Role.SERVICE), "ann"), world.session("ann", Role.USER)
    for sql, keys in WRITES:
        caller.update(sql, None)
        rows_, first, last = spans(world)[-1]
        assert rows_ == len(keys)
        within = f"SELECT id, _deleted FROM notes WHERE _seq >= {first} AND _seq <= {last} ORDER BY id"
        assert [r["id"] for r in rows(call(ann), within)] == keys, sql
        if flushed:
            world.flush()
    assert len(spans(world)) == len(WRITES)


def test_the_records_of_an_ingest_and_of_a_transaction_say_it_too(world: World) -> None:
    caller, ann = call(world.session("svc", Role.SERVICE), "ann"), world.session("ann", Role.USER)
    append(caller)
    transaction = caller.begin()
    caller.update("INSERT INTO notes VALUES (7, 'x')", transaction)
    caller.update("DELETE FROM notes WHERE id = 1", transaction)
    caller.end(transaction, True)
    ingest, *ends = spans(world)
    seqs = {r["id"]: r["_seq"] for r in rows(call(ann), "SELECT id, _seq, _deleted FROM notes WHERE _seq > 0")}
    assert ingest[0] == 2 and ingest[2] == seqs[2] and seqs[1] > ingest[2]
    assert [end[1:] for end in ends] == [(min(seqs[7], seqs[1]), max(seqs[7], seqs[1]))] * 2


# -- what else is recorded ------------------------------------------------------------------------------------------


def test_changes_of_catalog_and_accounts_are_recorded_without_secrets(world: World) -> None:
    root = world.in_process()
    for sql in (
        "CREATE NAMESPACE n",
        "CREATE USER 'eve' WITH PASSWORD 'a long secret' ROLE user",
        "ALTER USER 'eve' SET PASSWORD 'another secret'",
        "ALTER USER 'eve' SET ROLE service",
        "DROP USER 'eve'",
        "ALTER TABLE notes ADD COLUMN more INT",
        "DROP TABLE board",
    ):
        root.run(sql)
    found = root.run("SELECT * FROM system.audit_log ORDER BY audit_id").rows
    assert found is not None
    assert found.column("action").to_pylist()[-7:] == [
        "CREATE NAMESPACE", "CREATE USER", "ALTER USER", "ALTER USER", "DROP USER", "ALTER TABLE", "DROP TABLE",
    ]  # fmt: skip
    assert found.column("target").to_pylist()[-7:] == ["n", "eve", "eve", "eve", "eve", "main.notes", "main.board"]
    assert "secret" not in str(found.to_pylist())
    hashes = found.column("statement_hash").to_pylist()[-7:]
    assert hashes[1] is None and hashes[2] is None and hashes[0] is not None, "a hash of a password can be guessed at"


# One of each kind that is recorded whoever runs it, in an order that works.
RECORDED: tuple[tuple[type[s.Statement], str], ...] = (
    (s.CreateNamespace, "CREATE NAMESPACE n"),
    (s.CreateTable, "CREATE SHARED TABLE n.t (id BIGINT PRIMARY KEY)"),
    (s.AlterTable, "ALTER TABLE n.t ADD COLUMN more INT"),
    (s.Comment, "COMMENT ON TABLE n.t IS 'c'"),
    (s.CreateView, "CREATE VIEW n.v AS SELECT 1 AS one"),
    (s.DropView, "DROP VIEW n.v"),
    (s.DropTable, "DROP TABLE n.t"),
    (s.DropNamespace, "DROP NAMESPACE n"),
    (s.CreateUser, "CREATE USER 'eve' WITH PASSWORD 'a long secret' ROLE user"),
    (s.AlterUser, "ALTER USER 'eve' SET ROLE service"),
    (s.CreateToken, "CREATE TOKEN 'nightly' FOR USER 'eve'"),
    (s.DropToken, "DROP TOKEN 'nightly' FOR USER 'eve'"),
    (s.DropUser, "DROP USER 'eve'"),
    (s.CreateStorage, "CREATE STORAGE far WITH (TYPE = 's3', URL = 's3://bucket/kalam')"),
    (s.AlterStorage, "ALTER STORAGE far SET (REGION = 'eu-central-1')"),
    (s.DropStorage, "DROP STORAGE far"),
    (s.RunJob, "RUN JOB 'job_cleanup' WAIT"),
    (s.Backup, "BACKUP TO 'monday'"),
)


def test_every_statement_that_is_recorded_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whom it is carried out, and by whom it is refused; and nobody else's call leaves a record."""
    assert {kind for kind, _ in RECORDED} == set(AUDITED) - {s.KillJob, s.KillQuery}  # which have tests of their own
    monkeypatch.setattr(world.kalam.parts.storages, "probe", lambda storage: None)  # there is no bucket
    root, ann = world.in_process(), world.in_process("ann", Role.USER)
    for kind, sql in RECORDED:
        before = len(audit(world))
        with pytest.raises(Refused):
            ann.run(sql)
        root.run(sql)
        recorded = audit(world)[before:]
        assert len(recorded) == 2, (sql, recorded)
        denied, done = recorded
        action = sql.split(" ")[0]
        assert denied[0].startswith(action) and denied[1:] == ("ann", "denied"), sql
        assert done[0].startswith(action) and done[1:] == ("root", "success"), (kind, sql)
    before = len(audit(world))
    ann.run("INSERT INTO notes VALUES (1, 'x')")
    ann.run("SELECT * FROM notes")
    assert len(audit(world)) == before
    assert world.kalam.parts.audit.check().problems == []


def test_failed_logins_are_recorded_by_the_names_of_accounts_only(world: World) -> None:
    service = world.kalam.service
    for credentials in (
        Credentials("basic", "ann", "wrong password"),
        Credentials("basic", "my password typed as a name", "x"),
        Credentials("bearer", secret="forged"),
    ):
        with pytest.raises(Unauthenticated):
            service.login(credentials, "ipv4:1.2.3.4")
        with pytest.raises(Unauthenticated):
            service.session(credentials, "ipv4:1.2.3.4", {})
    found = audit(world, "action = 'LOGIN' AND peer = 'ipv4:1.2.3.4'")
    assert found == [("LOGIN", who, "denied") for who in ("ann", "ann", None, None, None, None)]


def test_a_refusal_is_recorded_also_one_that_looks_like_a_missing_table(world: World) -> None:
    world.in_process().run("CREATE SHARED TABLE staff (id BIGINT PRIMARY KEY)")
    ann = world.in_process("ann", Role.USER)
    for sql in ("SELECT * FROM staff", "SELECT * FROM nowhere", "DROP TABLE notes", "SELECT * FROM system.users"):
        with pytest.raises(Refused):
            ann.run(sql)
    found = (
        world.in_process().run("SELECT action, target FROM system.audit_log WHERE actor_user_id = 'ann' ORDER BY audit_id").rows
    )
    assert found is not None
    assert [tuple(r.values()) for r in found.to_pylist()] == [
        ("SELECT", "main.staff"), ("DROP TABLE", "main.notes"), ("SELECT", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sql", ["DELETE FROM notes AS USER", "SELECT 1 AS USER 'a' AS USER 'b'", "UPDATE notes AS USER ? SET text = ''"]
)
def test_a_malformed_clause_is_recorded(world: World, sql: str) -> None:
    with pytest.raises(Refused, match="42601"):
        world.in_process("svc", Role.SERVICE).run(sql)
    assert audit(world, "outcome = 'denied'") == [("AS USER", None, "denied")]


def test_old_records_go_once_a_day_while_the_service_runs(tmp_path: Path) -> None:
    world = World(tmp_path / "data", {"audit": {"retention_days": 30}})
    parts = world.kalam.parts
    world.in_process().run("CREATE NAMESPACE n")
    job = next(j for j in parts.jobs.list() if j.kind == "audit_retention")
    assert parts.jobs.wait(job.job_id).result == {"removed": 0}
    world.close()


def test_users_cannot_change_the_log(world: World) -> None:
    for sql in (
        "DELETE FROM system.audit_log",
        "UPDATE system.audit_log SET actor_user_id = 'x'",
        "INSERT INTO system.audit_log (audit_id) VALUES (1)",
        "TRUNCATE TABLE system.audit_log",
        "DROP TABLE system.audit_log",
        "ALTER TABLE system.audit_log ADD COLUMN x INT",
        "ERASE FROM system.audit_log WHERE true",
    ):
        with pytest.raises(Refused):
            world.in_process().run(sql)


def test_a_query_about_a_time_reads_only_that_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    log = world.kalam.parts.audit
    read = log.read
    monkeypatch.setattr(type(log), "read", lambda self, low, high: (asked.append((low, high)), read(low, high))[1])
    world.in_process().run("SELECT count(*) FROM system.audit_log WHERE timestamp < TIMESTAMPTZ '2020-01-01 00:00:00+00'")
    assert asked == [(0, 1_577_836_799_999_999)], "once, when it ran, and not to describe it"


# -- through a client -----------------------------------------------------------------------------------------------


def test_through_a_client_by_header_and_ingest(world: World) -> None:
    client: Adbc = world.adbc("svc", Role.SERVICE, x_kalam_as_user=quote("é 🦆/..", safe=""))
    with client.connection.cursor() as cursor:
        assert cursor.adbc_ingest("notes", ROWS, mode="append") == 2
        cursor.execute("SELECT CURRENT_USER AS u, count(*) AS n FROM notes")
        assert cursor.fetchall() == [("é 🦆/..", 2)]
    assert notes(world, "é 🦆/..") == [1, 2]
    assert ("INGEST", "é 🦆/..", "success") in audit(world)


def test_through_a_client_a_bad_header_is_refused_and_recorded(world: World) -> None:
    client: Adbc = world.adbc("svc", Role.SERVICE, x_kalam_as_user="%zz")
    with client.connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="percent-encoded"):
        cursor.adbc_ingest("notes", ROWS, mode="append")
    assert ("AS USER", None, "denied") in audit(world) and notes(world, "svc") == []


def test_through_a_client_by_session_option(world: World) -> None:
    client: Adbc = world.adbc("svc", Role.SERVICE)
    connection = client.connection
    connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.as_user": "ann"})
    with connection.cursor() as cursor:
        cursor.adbc_ingest("notes", ROWS, mode="append")
    assert notes(world, "ann") == [1, 2]
