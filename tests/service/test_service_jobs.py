"""Jobs as a client meets them: statements, the actions for clients without SQL, and KILL at every step of real work."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from kalam_world import InProcess, Refused, World

from flightkalam import failpoints
from flightkalam.auth.identity import Role


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data", {"storage": {"durability": "async"}, "compaction": {"enabled": False}})
    yield made
    failpoints.disarm()
    made.close()


@pytest.fixture
def root(world: World) -> InProcess:
    return world.in_process()


def only(client: InProcess, sql: str) -> dict[str, Any]:
    (row,) = client.run(sql).rows.to_pylist()
    return row


FLUSH = ["flush.batch_written", "flush.vectors_written", "flush.before_commit", "flush.committed", "flush.before_trim"]
COMPACT = ["compact.chunk_merged", "compact.batch_written", "compact.before_install", "compact.committed"]


class Held:
    """Holds a job at a failpoint until it has been killed."""

    def __init__(self, world: World, place: str) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._kalam = world.kalam
        failpoints.arm(place, self._hold)

    def _hold(self) -> None:
        self.reached.set()
        assert self.go_on.wait(20)

    def killed(self, killer: InProcess, job_id: str) -> dict[str, Any]:
        answer: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answer.append(only(killer, f"KILL JOB '{job_id}'")))
        thread.start()
        while not self._kalam.parts.jobs.get(job_id).killed:
            thread.join(0.002)
        failpoints.disarm()
        self.go_on.set()
        thread.join(20)
        return answer[0]


def prepare(root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY, v INT)")
    for at in (0, 10):
        root.run(f"INSERT INTO t SELECT i, i FROM range({at}, {at + 10}) r(i)")
        root.run("FLUSH TABLE t WAIT")
    root.run("UPDATE t SET v = -1 WHERE k IN (3, 13)")
    root.run("DELETE FROM t WHERE k = 5")


def state(world: World, root: InProcess) -> tuple[Any, set[str]]:
    (check,) = root.run("CHECK TABLE t").rows.to_pylist()
    assert check["problem"] is None
    folder = next((world.data_dir / "cold").rglob("manifest.json")).parent
    files = {p.name for p in folder.iterdir() if not p.name.startswith("manifest")}
    return root.run("SELECT * FROM t ORDER BY k").rows.to_pylist(), files


@pytest.mark.parametrize(("sql", "place"), [("FLUSH TABLE t", p) for p in FLUSH] + [("COMPACT TABLE t", p) for p in COMPACT])
def test_kill_at_any_step_leaves_the_table_right(world: World, root: InProcess, sql: str, place: str) -> None:
    """Before the install nothing has changed and no file is left; after it the job is over, and says so."""
    prepare(root)
    if sql.startswith("COMPACT"):
        root.run("FLUSH TABLE t WAIT")
    rows, files = state(world, root)
    held = Held(world, place)
    job_id = only(root, sql)["job_id"]
    assert held.reached.wait(20)
    ended = held.killed(world.in_process(), job_id)
    after, left = state(world, root)
    assert after == rows
    if ended["status"] == "cancelled":
        assert left == files
    else:
        assert ended["status"] == "completed" and place.split(".")[1] in (
            "before_commit",
            "before_install",
            "committed",
            "before_trim",
        )
        assert left != files
    assert only(root, f"SHOW JOB '{job_id}'")["status"] == ended["status"]
    recorded = root.run("SELECT action, target FROM system.audit_log WHERE target IS NOT NULL").rows.to_pylist()
    assert {"action": "KILL JOB", "target": job_id} in recorded
    assert only(root, f"{sql} WAIT")["status"] == "completed", "the next one is not kept from its work"
    assert state(world, root)[0] == rows


def test_jobs_that_cannot_be_killed(world: World, root: InProcess) -> None:
    prepare(root)
    done = only(root, "FLUSH TABLE t WAIT")["job_id"]
    with pytest.raises(Refused, match=r"cannot be killed: it is completed.*") as refused:
        root.run(f"KILL JOB '{done}'")
    assert refused.value.sqlstate == "55000"
    with pytest.raises(Refused, match="there is no job") as refused:
        root.run("KILL JOB 'FL-nothing'")
    assert refused.value.sqlstate == "42704"


def test_who_asked_for_a_job_sees_it_and_nobody_else_learns_of_it(world: World, root: InProcess) -> None:
    root.run("CREATE TABLE t (k INT PRIMARY KEY)")
    ann, bob = world.in_process("ann", Role.SERVICE), world.in_process("bob", Role.SERVICE)
    job_id = only(ann, "FLUSH TABLE t WAIT")["job_id"]
    shown = only(ann, f"SHOW JOB '{job_id}'")
    assert (shown["kind"], shown["status"], shown["parameters"]) == ("flush", "completed", '{"tables": ["main.t"]}')
    assert only(root, f"SHOW JOB '{job_id}'") == shown
    told = []
    for hidden in (job_id, "FL-nothing"):
        with pytest.raises(Refused) as refused:
            bob.run(f"SHOW JOB '{hidden}'")
        told.append(str(refused.value))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("RUN JOB 'explode'", "there is no kind of job named"),
        ("RUN JOB 'flush'", 'a job of kind flush takes {"tables": ["ns.t", …]'),
        ("RUN JOB 'flush' WITH '[1'", "JSON object"),
        ("RUN JOB 'flush' WITH '{\"tables\": [\"main.nothing\"]}'", '"main.nothing" does not exist'),
        ("RUN JOB 'flush' WITH '{\"tables\": [\"main.s\"]}'", "is a STREAM table"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_and_not_queued(world: World, root: InProcess, sql: str, said: str) -> None:
    root.run("CREATE STREAM TABLE s (k INT PRIMARY KEY) WITH (TTL_SECONDS=60)")
    with pytest.raises(Refused) as refused:
        root.run(sql)
    assert said in str(refused.value)
    assert world.kalam.parts.jobs.list() == []


def test_every_kind_runs_by_hand(world: World, root: InProcess) -> None:
    prepare(root)
    for kind, parameters in {
        "flush": {"tables": ["MAIN.T"]},
        "compact": {"table": "main.t"},
        "retention": {"tables": ["main.t"]},
        "stream_eviction": {},
        "manifest_eviction": {},
        "manifest_rebuild": {"table": "main.t"},
        "orphan_sweep": {"tables": ["main.t"]},
        "cleanup": {"table_id": 99},
        "backup": {"name": "b"},
        "job_cleanup": {"keep_days": 0},
        "audit_retention": {},
        "receipt_sweep": {},
        "store_rewrite": {},
    }.items():
        assert only(root, f"RUN JOB '{kind}' WITH '{json.dumps(parameters)}' WAIT")["status"] == "completed", kind
    left = root.run("SELECT kind FROM system.jobs ORDER BY created_at").rows.column(0).to_pylist()
    assert left[0] == "job_cleanup", "older records went"


@pytest.fixture
def act(world: World, root: InProcess) -> Callable[..., dict[str, Any]]:
    """Raw Flight actions by somebody."""
    prepare(root)
    for name, role in (("svc", "service"), ("usr", "user"), ("adm", "dba")):
        root.run(f"CREATE USER '{name}' WITH PASSWORD 'long enough' ROLE {role}")
    clients: dict[str, tuple[flight.FlightClient, flight.FlightCallOptions]] = {}

    def run(user: str, action: str, body: Any) -> dict[str, Any]:
        if user not in clients:
            client = flight.FlightClient(world.uri)
            clients[user] = client, flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, "long enough")])
        client, options = clients[user]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        (result,) = list(client.do_action(flight.Action(action, data), options))
        return json.loads(result.body.to_pybytes())

    return run


def test_clients_without_sql_run_watch_and_kill_jobs(act: Callable[..., dict[str, Any]], world: World) -> None:
    done = act("svc", "kalam.flush", {"table": "main.t", "wait": True, "of_tomorrow": 1})
    assert (done["status"], done["table"]) == ("completed", "main.t") and done["result"]["rows"] == 3
    assert act("svc", "kalam.flush", b"")["job_id"].startswith("FL-")
    assert act("svc", "kalam.flush", {"namespace": "main", "wait": True})["status"] == "completed"
    assert act("svc", "kalam.compact", {"table": "t", "wait": True})["result"]["batches_out"] == 1
    watched = act("svc", "kalam.job", {"watch": done["job_id"], "timeout_seconds": 5})
    assert (watched["status"], watched["parameters"]) == ("completed", {"tables": ["main.t"]})
    made = act("adm", "kalam.job", {"create": {"kind": "orphan_sweep", "parameters": {"tables": ["main.t"]}}, "wait": True})
    assert (made["status"], made["result"]) == ("completed", {"scopes": 1})
    held = Held(world, "jobs.running")
    queued = act("adm", "kalam.job", {"create": {"kind": "retention", "parameters": {"tables": ["main.t"]}}})
    assert held.reached.wait(10)
    assert act("adm", "kalam.job", {"watch": queued["job_id"], "timeout_seconds": 0.1})["status"] == "running"
    threading.Timer(0.2, held.go_on.set).start()
    assert act("adm", "kalam.job", {"kill": queued["job_id"]})["status"] == "cancelled"


@pytest.mark.parametrize(
    ("user", "action", "body", "said"),
    [
        ("usr", "kalam.flush", {"table": "main.t"}, "does not exist"),
        ("svc", "kalam.job", {"kill": "FL-1"}, "42501"),
        ("svc", "kalam.job", {"create": {"kind": "backup", "parameters": {"name": "x"}}}, "42501"),
        ("svc", "kalam.job", {"watch": "FL-1"}, "42501"),
        ("adm", "kalam.job", {"watch": "FL-1"}, "there is no job"),
        ("svc", "kalam.flush", {"table": 7}, 'kalam.flush takes {"table"?: "ns.t"'),
        ("svc", "kalam.flush", {"table": "t", "namespace": "n"}, "not both"),
        ("svc", "kalam.compact", {}, 'kalam.compact takes {"table": "ns.t"'),
        ("svc", "kalam.compact", b"\xff{", "kalam.compact takes"),
        ("svc", "kalam.compact", {"table": 't" WAIT; DROP TABLE "t'}, "does not exist"),
        ("adm", "kalam.job", {}, "kalam.job takes one of"),
        ("adm", "kalam.job", {"kill": "a", "watch": "b"}, "kalam.job takes one of"),
        ("adm", "kalam.job", {"create": {"kind": "flush"}}, '"tables" is missing'),
    ],
)
def test_what_an_action_may_not_or_cannot_is_one_clear_error(
    act: Callable[..., dict[str, Any]], user: str, action: str, body: Any, said: str
) -> None:
    with pytest.raises((pa.ArrowException, KeyError)) as refused:
        act(user, action, body)
    assert said in str(refused.value) and "Traceback" not in str(refused.value)
