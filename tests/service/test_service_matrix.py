"""The table of rights, asked through SQL: every role, every action, every kind of table and access level, in every form.

The expected answers come from `authorise.RULES` itself, which tests/auth compares with SEMANTICS §5 cell by cell; here it is
shown that no form of a statement finds a way around it, in person or AS USER.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kalam_world import World

from flightkalam.auth.authorise import Action, allowed, visible
from flightkalam.auth.identity import Role
from flightkalam.errors import KalamError
from flightkalam.flight.ports import IngestRequest
from flightkalam.model.schema import AccessLevel, TableKind
from flightkalam.session.acts import HEADER
from flightkalam.session.call import Call

ROLES = list(Role)
WAYS = ("in person", "AS USER")
TABLES = [(TableKind.USER, None), (TableKind.STREAM, None), *((TableKind.SHARED, level) for level in AccessLevel)]
IDS = [f"{kind.value} {level.value if level else ''}".strip() for kind, level in TABLES]

# {t} is the table, {n} a name that nothing has.
FORMS: dict[Action, tuple[str, ...]] = {
    Action.READ: (
        "SELECT * FROM {t}",
        "SELECT (SELECT count(*) FROM {t}) AS n",
        "SELECT 1 AS one WHERE EXISTS (FROM {t})",
        "WITH c AS (SELECT id FROM {t}) SELECT * FROM c",
        "SELECT id FROM own UNION ALL SELECT id FROM {t}",
        "SELECT * FROM own JOIN {t} USING (id)",
        "SELECT * FROM {t}_view",
        "SELECT * FROM (SELECT * FROM {t}_view_of_view) AS v",
        "EXPLAIN SELECT * FROM {t}",
        "EXPLAIN (FORMAT JSON) SELECT * FROM {t}_view",
        "DESCRIBE SELECT * FROM {t}",
        "DESCRIBE {t}",
        "SHOW CREATE TABLE {t}",
        "INSERT INTO own SELECT id + 1000, v FROM {t} WHERE false",
        "UPDATE own SET v = s.v FROM {t} AS s WHERE own.id = s.id AND false",
        "UPDATE own SET v = (SELECT max(v) FROM {t}) WHERE false",
        "DELETE FROM own USING {t} AS s WHERE own.id = s.id AND false",
        "MERGE INTO own USING {t} AS s ON own.id = s.id AND false WHEN MATCHED THEN DELETE",
        "INSERT INTO own VALUES (7777, 1) ON CONFLICT (id) DO UPDATE SET v = (SELECT max(v) FROM {t})",
        "CREATE USER TABLE {n} AS SELECT * FROM {t} WHERE false",
    ),
    Action.WRITE: (
        "INSERT INTO {t} VALUES (5, 5) ON CONFLICT DO NOTHING",
        "INSERT OR REPLACE INTO {t} VALUES (5, 6)",
        "UPDATE {t} SET v = v + 1 WHERE id = 5",
        "DELETE FROM {t} WHERE id = 5",
        "MERGE INTO {t} USING (SELECT 6 AS id) AS s ON {t}.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1)",
        "TRUNCATE TABLE {t}",
        "INSERT INTO {t} VALUES (8, 8) RETURNING id",
    ),
    Action.CREATE: (
        "CREATE {kind} TABLE {n} (id BIGINT PRIMARY KEY) WITH ({with})",
        "CREATE {kind} TABLE {n} WITH ({with}) AS SELECT 1 AS id",
    ),
    Action.ALTER: (
        "ALTER TABLE {t} ALTER COLUMN v SET DEFAULT 3",
        "ALTER TABLE {t} SET OPTIONS (DELETED_RETENTION_HOURS = 100)",
        "COMMENT ON TABLE {t} IS 'c'",
        "COMMENT ON COLUMN {t}.v IS 'c'",
    ),
    Action.DROP: ("DROP TABLE {dropped}",),
    Action.FLUSH: ("FLUSH TABLE {t} WAIT",),
    Action.COMPACT: ("COMPACT TABLE {t} WAIT",),
    Action.CHECK: ("CHECK TABLE {t}",),
    Action.CREATE_VIEW: ("CREATE VIEW {n} AS SELECT 1 AS one", "CREATE OR REPLACE VIEW replaced AS SELECT 1 AS one"),
    Action.DROP_VIEW: ("DROP VIEW IF EXISTS {n}", "DROP VIEW {viewed}"),
    Action.CREATE_NAMESPACE: ("CREATE NAMESPACE {n}",),
    Action.DROP_NAMESPACE: ("DROP NAMESPACE IF EXISTS {n}",),
    Action.MANAGE_USERS: ("CREATE USER '{n}' WITH PASSWORD 'long enough'", "ALTER USER 'other' SET ROLE user"),
    Action.MANAGE_STORAGES: (
        "SHOW STORAGES",
        "DROP STORAGE nothing_of_that_name",
        "ALTER STORAGE nothing_of_that_name SET (REGION = 'r')",
        "CREATE STORAGE nothing_of_that_name WITH (TYPE = 'ftp')",
    ),
    Action.BACKUP: ("BACKUP TO '{n}'",),
    Action.RUN_JOB: ("RUN JOB 'audit_retention' WAIT",),
    Action.KILL_JOB: ("KILL JOB 'nothing_of_that_name'",),
    Action.READ_SYSTEM: (
        "SELECT * FROM system.users",
        "SELECT * FROM system.audit_log LIMIT 1",
        "SELECT * FROM system.nothing_of_that_name",
        "SELECT * FROM system_view",
        "SHOW USERS",
        "SHOW JOBS",
        "CHECK AUDIT",
    ),
}
ON_TABLES = (
    Action.READ, Action.WRITE, Action.CREATE, Action.ALTER, Action.DROP, Action.FLUSH, Action.COMPACT, Action.CHECK
)  # fmt: skip
# What it does depends on whose it is that is killed: it has tests of its own.
ELSEWHERE = {Action.KILL_QUERY}
# What a STREAM table has not, whoever asks (SEMANTICS §1, §3).
NOT_OF_STREAMS = ("42809", "0A000", "22023")
_numbers = itertools.count()


class House:
    """A world with one table of every kind and level, views over each, and somebody of every role."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.root = self.world.session()
        for role in ROLES:
            self.world.user(f"a {role.label}", role)
        self.world.user("other", Role.USER)
        self.make("own", TableKind.USER, None)
        for kind, level in TABLES:
            name = table_name(kind, level)
            self.make(name, kind, level)
            self.run(f"CREATE VIEW {name}_view AS SELECT * FROM {name}")
            self.run(f"CREATE VIEW {name}_view_of_view AS SELECT id FROM {name}_view")
        self.run("CREATE VIEW system_view AS SELECT * FROM system.users")
        self.run("CREATE VIEW replaced AS SELECT 1 AS one")

    def run(self, sql: str) -> None:
        self.root.update(sql, None)

    def make(self, name: str, kind: TableKind, level: AccessLevel | None) -> None:
        self.run(f"CREATE {kind.value} TABLE {name} (id BIGINT PRIMARY KEY, v INT) WITH ({options(kind, level)})")

    def caller(self, role: Role, way: str) -> Call:
        """Somebody of that role in person, or whoever acts for them."""
        user, actor = f"a {role.label}", actor_of(role, way)
        if way == "in person":
            return Call(self.world.session(user, role), {})
        session = self.world.session("an actor" if actor is Role.SERVICE else "root", actor)
        return Call(session, {HEADER: user.replace(" ", "%20")})


def actor_of(role: Role, way: str) -> Role:
    """Services act for users, root for everybody above."""
    if way == "in person":
        return role
    return Role.SERVICE if role is Role.USER else Role.SYSTEM


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("matrix") / "data")
    yield house
    house.world.close()


def table_name(kind: TableKind, level: AccessLevel | None) -> str:
    return f"{kind.value}_{level.value}".lower() if level else f"{kind.value}_table".lower()


def options(kind: TableKind, level: AccessLevel | None) -> str:
    if kind is TableKind.STREAM:
        return "TTL_SECONDS = 3600"
    return "FLUSH_POLICY = 'rows:1000'" if level is None else f"ACCESS_LEVEL = '{level.value}'"


def ask(caller: Call, sql: str) -> tuple[str, str]:
    """SQLSTATE and message; empty when the statement was carried out."""
    try:
        prepared = caller.prepare(sql, None)
        if prepared.is_update:
            caller.update_prepared(prepared.handle, None)
        else:
            list(caller.fetch(caller.plan_prepared(prepared.handle).handle))
        return "", ""
    except KalamError as e:
        return e.sqlstate, e.message


def filled(house: House, form: str, kind: TableKind, level: AccessLevel | None) -> str:
    fresh = f"n{next(_numbers)}"
    if "{dropped}" in form:
        house.make(f"dropped_{fresh}", kind, level)
    if "{viewed}" in form:
        house.run(f"CREATE VIEW viewed_{fresh} AS SELECT 1 AS one")
    values = {
        "t": table_name(kind, level), "n": fresh, "kind": kind.value, "with": options(kind, level),
        "dropped": f"dropped_{fresh}", "viewed": f"viewed_{fresh}",
    }  # fmt: skip
    return form.format(**values)


def test_every_action_has_its_forms() -> None:
    assert set(FORMS) == set(Action) - ELSEWHERE
    assert all(action in ON_TABLES for action, forms in FORMS.items() if any("{t}" in form for form in forms))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.label)
@pytest.mark.parametrize(("kind", "level"), TABLES, ids=IDS)
def test_tables(house: House, kind: TableKind, level: AccessLevel | None, role: Role, way: str) -> None:
    caller = house.caller(role, way)
    wrong = []
    for action in ON_TABLES:
        for form in FORMS[action]:
            sql = filled(house, form, kind, level)
            state, says = _expected(role, way, action, kind, level, sql)
            found, message = ask(caller, sql)
            not_of_streams = kind is TableKind.STREAM and not state and found in NOT_OF_STREAMS
            if not not_of_streams and (found != state or says not in message):
                wrong.append(f"{sql}\n  expected {state} {says}\n  found    {found} {message}")
    assert not wrong, "\n".join(wrong)


def _expected(role: Role, way: str, action: Action, kind: TableKind, level: AccessLevel | None, sql: str) -> tuple[str, str]:
    """SQLSTATE and words of the message that the rules foretell; empty for a statement that is carried out."""
    actor = actor_of(role, way)
    own_rows = kind.per_user and action in (Action.READ, Action.WRITE)
    writes_rows = action is Action.WRITE or (action is Action.CREATE and "AS SELECT" in sql)
    if action is Action.CREATE and not allowed(role, action, kind, level):
        return "42501", "may not create"
    if way == "AS USER" and kind is TableKind.SHARED and writes_rows:
        seen = visible(actor, kind, level)
        return ("42501", "AS USER not supported for Shared tables") if seen else ("42P01", "does not exist")
    if allowed(role, action, kind, level, owner=own_rows):
        return "", ""
    return ("42501", "may not") if visible(role, kind, level) else ("42P01", "does not exist")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.label)
def test_the_service(house: House, role: Role, way: str) -> None:
    caller = house.caller(role, way)
    for action, forms in FORMS.items():
        if action in ON_TABLES:
            continue
        for form in forms:
            sql = filled(house, form, TableKind.USER, None)
            state, message = ask(caller, sql)
            if not allowed(role, action):
                assert state == "42501", (sql, message)
            else:
                assert not state or "nothing_of_that_name" in sql, (sql, message)


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.label)
@pytest.mark.parametrize("way", WAYS)
def test_metadata_lists_exactly_what_may_be_read(house: House, role: Role, way: str) -> None:
    caller = house.caller(role, way)
    names = {table_name(kind, level) for kind, level in TABLES if visible(role, kind, level)}
    everything = {table_name(kind, level) for kind, level in TABLES}
    listed = {t.name for t in caller.tables(None, None, None, ("TABLE",), True)}
    assert listed & everything == names
    told = caller.plan("SELECT table_name FROM information_schema.tables", None)
    found = pa.Table.from_batches(list(caller.fetch(told.handle)), told.schema)
    assert set(found.column(0).to_pylist()) & everything == names
    for name in everything:
        assert caller.primary_key(None, "main", name) == (["id"] if name in names else [])
    assert bool({t.name for t in caller.tables(None, "system", None, (), False)}) == allowed(role, Action.READ_SYSTEM)


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.label)
@pytest.mark.parametrize(("kind", "level"), TABLES, ids=IDS)
def test_ingest(house: House, kind: TableKind, level: AccessLevel | None, role: Role) -> None:
    caller = house.caller(role, "in person")
    rows = pa.table({"id": pa.array([next(_numbers)], pa.int64())})

    def ingest(table: str, mode: str) -> str:
        how: Any = {"if_exists": mode, "if_not_exist": "create" if mode != "append" else "fail"}
        try:
            caller.ingest(IngestRequest(table, **how), rows.schema, iter(rows.to_batches()), {"x-kalam-table-type": kind.value})
            return ""
        except KalamError as e:
            return e.sqlstate

    may_write = allowed(role, Action.WRITE, kind, level, owner=True)
    refused = "42501" if visible(role, kind, level) else "42P01"
    assert ingest(table_name(kind, level), "append") == ("" if may_write else refused)
    if kind is TableKind.SHARED and level is AccessLevel.PRIVATE:
        assert ingest(f"n{next(_numbers)}", "fail") == ("" if allowed(role, Action.CREATE, kind, level) else "42501")


@pytest.mark.parametrize("action", [a for a in ON_TABLES if a is not Action.CREATE], ids=lambda a: a.name)
@pytest.mark.parametrize(("role", "level"), [(Role.USER, AccessLevel.PRIVATE), (Role.SERVICE, AccessLevel.DBA)])
def test_a_hidden_table_is_told_from_a_missing_one_by_nothing(
    house: House, action: Action, role: Role, level: AccessLevel
) -> None:
    caller = house.caller(role, "in person")
    hidden, missing = table_name(TableKind.SHARED, level), "x" * len(table_name(TableKind.SHARED, level))
    for form in FORMS[action]:
        if "{dropped}" in form:
            form = "DROP TABLE {t}"
        if "_view" in form:
            continue  # a view is there for everybody
        sql = filled(house, form, TableKind.SHARED, level)
        assert ask(caller, sql) == tuple(part.replace(missing, hidden) for part in ask(caller, sql.replace(hidden, missing))), (
            sql
        )


NAMING = (
    "CREATE USER TABLE {n} (id BIGINT PRIMARY KEY)",
    "CREATE USER TABLE IF NOT EXISTS {n} (id BIGINT PRIMARY KEY)",
    "CREATE USER TABLE {n} AS SELECT 1 AS id",
    "CREATE USER TABLE IF NOT EXISTS {n} AS SELECT 1 AS id",
    "CREATE SHARED TABLE {n} (id BIGINT PRIMARY KEY)",
    "CREATE OR REPLACE VIEW {n} AS SELECT 1 AS one",
    "ALTER TABLE named RENAME TO {n}",
)


@pytest.mark.parametrize(("role", "level"), [(Role.USER, AccessLevel.PRIVATE), (Role.SERVICE, AccessLevel.DBA)])
def test_a_name_that_a_hidden_table_has_is_not_available_and_no_more_is_said(
    house: House, role: Role, level: AccessLevel
) -> None:
    caller, name = house.caller(role, "in person"), table_name(TableKind.SHARED, level)
    ask(caller, "CREATE USER TABLE named (id BIGINT PRIMARY KEY)")
    for form in NAMING:
        state, message = ask(caller, form.format(n=name))
        may_not = role is Role.USER and ("SHARED" in form or "VIEW" in form)
        assert (state, "not available" in message) == (("42501", False) if may_not else ("42P07", True)), (form, message)
        assert "exist" not in message and "SHARED tables" not in message.replace("create SHARED tables", "")
    house.run("DROP TABLE IF EXISTS named")


def test_a_user_alters_what_they_created_and_nothing_else(house: House) -> None:
    ann: Callable[[str], tuple[str, str]] = lambda sql: ask(house.caller(Role.USER, "in person"), sql)  # noqa: E731
    assert ann("CREATE USER TABLE of_ann (id BIGINT PRIMARY KEY)")[0] == ""
    assert ann("ALTER TABLE of_ann ADD COLUMN v INT")[0] == ""
    assert ann("ALTER TABLE own ADD COLUMN w INT")[0] == "42501"
    assert ask(house.caller(Role.USER, "AS USER"), "ALTER TABLE of_ann ADD COLUMN w INT")[0] == ""
