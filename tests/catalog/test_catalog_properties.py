"""Any sequence of edits: the catalog agrees with a naive model, and reads back equal after every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from catalog_support import NOW_US, MemoryStore, column, commit, empty_state, made, new_table, opened, recreated
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flightkalam.catalog import alter, edits
from flightkalam.catalog.edits import NewColumn, NewTable, NewView
from flightkalam.catalog.show import create_table_text
from flightkalam.catalog.state import Change
from flightkalam.catalog.text import quote_identifier, quote_list, quote_literal
from flightkalam.errors import KalamError
from flightkalam.model.schema import Table
from flightkalam.model.types import BIGINT, TEXT

NAMES = st.sampled_from(["a", "A", "b", "É", "é"])
NAMESPACES = st.sampled_from(["main", "MAIN", "s", "S", "system"])
PICKS = st.integers(0, 99)


@dataclass
class ModelTable:
    """A table as plain lists: columns are [name, id]."""

    name: str
    columns: list[list[Any]]
    key: int
    version: int = 1
    used_ids: set[int] = field(default_factory=set)


class CatalogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.catalog = opened(self.store)
        self.namespaces = {"main": "main"}
        self.tables: dict[tuple[str, str], ModelTable] = {}
        self.views: dict[tuple[str, str], str] = {}
        self.ids_seen: set[int] = set()

    # -- helpers ------------------------------------------------------------------------------------------------

    def agree(self, allowed: bool, edit: Any) -> Change | None:
        """Commit the edit; whether it is refused must be what the model says."""
        before = self.catalog.state
        try:
            change = edit()
        except KalamError as e:
            assert not allowed, e
            assert self.catalog.state is before
            return None
        assert allowed, "the edit should have been refused"
        return commit(self.catalog, change)

    def taken(self, namespace: str, name: str) -> bool:
        key = (namespace.lower(), name.lower())
        return key in self.tables or key in self.views

    def table_at(self, pick: int) -> tuple[tuple[str, str], ModelTable, Table]:
        """One of the tables there are, so that most edits hit something."""
        key = sorted(self.tables)[pick % len(self.tables)]
        found = self.catalog.state.find(key[0].upper(), key[1])
        assert isinstance(found, Table)
        return key, self.tables[key], found

    # -- namespaces ---------------------------------------------------------------------------------------------

    @rule(name=NAMESPACES)
    def create_namespace(self, name: str) -> None:
        allowed = name != "system" and name.lower() not in self.namespaces
        state = self.catalog.state
        if self.agree(allowed, lambda: edits.create_namespace(state, name, created_by="ann", now_us=NOW_US)):
            self.namespaces[name.lower()] = name

    @rule(name=NAMESPACES, cascade=st.booleans())
    def drop_namespace(self, name: str, cascade: bool) -> None:
        held = [k for k in (*self.tables, *self.views) if k[0] == name.lower()]
        allowed = name.lower() != "main" and name.lower() in self.namespaces and (cascade or not held)
        change = self.agree(allowed, lambda: edits.drop_namespace(self.catalog.state, name, cascade=cascade))
        if change is not None:
            assert {t.name.lower() for t in change.dropped} == {k[1] for k in held if k in self.tables}
            del self.namespaces[name.lower()]
            for key in held:
                self.tables.pop(key, None)
                self.views.pop(key, None)

    # -- tables and views ---------------------------------------------------------------------------------------

    @rule(namespace=NAMESPACES, name=NAMES, columns=st.lists(NAMES, min_size=1, max_size=3))
    def create_table(self, namespace: str, name: str, columns: list[str]) -> None:
        distinct = len({c.lower() for c in columns}) == len(columns)
        allowed = namespace.lower() in self.namespaces and not self.taken(namespace, name) and distinct
        new = new_table(f"{namespace}.{name}", *(f"{c} INT" for c in columns), created_by="ann")
        table_id = self.catalog.new_table_id()
        assert table_id not in self.ids_seen
        self.ids_seen.add(table_id)
        state = self.catalog.state
        if self.agree(allowed, lambda: edits.create_table(state, new, table_id=table_id, now_us=NOW_US)):
            numbered = [[c, i] for i, c in enumerate(columns, 1)]
            used = set(range(1, len(columns) + 1))
            self.tables[namespace.lower(), name.lower()] = ModelTable(name, numbered, 1, used_ids=used)

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS)
    def drop_table(self, pick: int) -> None:
        key, _, t = self.table_at(pick)
        change = self.agree(True, lambda: edits.drop_table(self.catalog.state, t.id))
        assert change is not None
        assert change.dropped == (t,)
        del self.tables[key]

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS)
    def replace_table(self, pick: int) -> None:
        key, _, t = self.table_at(pick)
        new = new_table(f"{key[0]}.{key[1]}", "z INT")
        table_id = self.catalog.new_table_id()
        self.ids_seen.add(table_id)
        state = self.catalog.state
        self.agree(True, lambda: edits.replace_table(state, t.id, new, table_id=table_id, now_us=NOW_US))
        self.tables[key] = ModelTable(key[1], [["z", 1]], 1, used_ids={1})

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS, new=NAMES)
    def rename_table(self, pick: int, new: str) -> None:
        key, model, t = self.table_at(pick)
        allowed = new.lower() == key[1] or not self.taken(key[0], new)
        if self.agree(allowed, lambda: edits.rename_table(self.catalog.state, t.id, new)):
            del self.tables[key]
            model.name, model.version = new, model.version + 1
            self.tables[key[0], new.lower()] = model

    @rule(namespace=NAMESPACES, name=NAMES, replace=st.booleans())
    def create_view(self, namespace: str, name: str, replace: bool) -> None:
        key = (namespace.lower(), name.lower())
        allowed = key[0] in self.namespaces and key not in self.tables and (replace or key not in self.views)
        new = NewView(namespace, name, "SELECT 1", "ann", "main")
        state = self.catalog.state
        if self.agree(allowed, lambda: edits.create_view(state, new, now_us=NOW_US, replace_existing=replace)):
            self.views[key] = name

    @precondition(lambda self: self.views)
    @rule(pick=PICKS)
    def drop_view(self, pick: int) -> None:
        key = sorted(self.views)[pick % len(self.views)]
        self.agree(True, lambda: edits.drop_view(self.catalog.state, key[0].upper(), key[1]))
        del self.views[key]

    # -- columns ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS, new=NAMES)
    def add_column(self, pick: int, new: str) -> None:
        _, model, t = self.table_at(pick)
        allowed = new.lower() not in {c[0].lower() for c in model.columns}
        change = self.agree(allowed, lambda: alter.add_column(self.catalog.state, t.id, column(f"{new} TEXT")))
        if change is not None:
            assert change.table is not None
            added = change.table.schema.columns[-1]
            assert added.id not in model.used_ids  # T-32
            model.used_ids.add(added.id)
            model.columns.append([new, added.id])
            model.version += 1

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS, dropped=NAMES)
    def drop_column(self, pick: int, dropped: str) -> None:
        _, model, t = self.table_at(pick)
        hit = [c for c in model.columns if c[0].lower() == dropped.lower()]
        allowed = bool(hit) and hit[0][1] != model.key
        if self.agree(allowed, lambda: alter.drop_column(self.catalog.state, t.id, dropped)):
            model.columns.remove(hit[0])
            model.version += 1

    @precondition(lambda self: self.tables)
    @rule(pick=PICKS, old=NAMES, new=NAMES)
    def rename_column(self, pick: int, old: str, new: str) -> None:
        _, model, t = self.table_at(pick)
        names = {c[0].lower() for c in model.columns}
        allowed = old.lower() in names and (new.lower() == old.lower() or new.lower() not in names)
        if self.agree(allowed, lambda: alter.rename_column(self.catalog.state, t.id, old, new)):
            next(c for c in model.columns if c[0].lower() == old.lower())[0] = new
            model.version += 1

    # -- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        state = self.catalog.state
        assert {k: n.name for k, n in state.namespaces.items()} == self.namespaces
        assert {k: v.name for k, v in state.views.items()} == self.views
        shape = {
            key: (t.name, [[c.name, c.id] for c in t.schema.columns], t.schema.key[0], t.schema.version)
            for key, t in ((k, state.tables[i]) for k, i in state.table_ids.items())
        }
        assert shape == {k: (m.name, m.columns, m.key, m.version) for k, m in self.tables.items()}

    @invariant()
    def it_reads_back_equal(self) -> None:
        assert opened(self.store).state == self.catalog.state

    @invariant()
    def every_index_agrees(self) -> None:
        state = self.catalog.state
        assert sorted(state.table_ids.values()) == sorted(state.tables)
        assert not set(state.table_ids) & set(state.views)
        assert all(n[0] in state.namespaces for n in (*state.table_ids, *state.views))
        assert len({t.folder for t in state.tables.values()}) == len(state.tables)


CatalogMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
TestCatalog = CatalogMachine.TestCase


# -- SHOW CREATE TABLE ------------------------------------------------------------------------------------------

IDENTIFIERS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
COLUMNS = st.tuples(IDENTIFIERS.filter(lambda name: not name.startswith("_")), TEXTS)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(IDENTIFIERS, st.lists(COLUMNS, min_size=1, max_size=3, unique_by=lambda c: c[0].lower()))
def test_show_create_table_makes_any_table_again(name: str, columns: list[tuple[str, str]]) -> None:
    new = NewTable(
        "main",
        name,
        tuple(NewColumn(c, TEXT, default=quote_literal(text)) for c, text in columns),
        "ann",
        key=(columns[0][0],),
        checks=((None, f"{quote_identifier(columns[-1][0])} <> ''"),),
        options=(("BLOOM_FILTER_COLUMNS", quote_list(c for c, _ in columns)),),
    )
    _, t = made(empty_state(), new)
    assert recreated(create_table_text(t)) == t


@settings(max_examples=200, deadline=None, derandomize=True)
@given(IDENTIFIERS, IDENTIFIERS)
def test_a_check_follows_its_column_through_any_rename(old: str, new: str) -> None:
    assume(not old.startswith("_") and not new.startswith("_") and new.lower() not in (old.lower(), "id", "t"))
    assume(old.lower() not in ("id", "t"))
    check = f"{quote_identifier(old)} > 0 AND 'x' <> {quote_literal(old)} AND t.{quote_identifier(old)} < id"
    columns = (NewColumn("id", BIGINT), NewColumn(old, BIGINT))
    state, _ = made(empty_state(), NewTable("main", "t", columns, "ann", key=("id",), checks=((None, check),)))
    state = alter.rename_column(state, 1, old, new).state
    assert state.tables[1].checks[0][1] == (
        f"{quote_identifier(new)} > 0 AND 'x' <> {quote_literal(old)} AND t.{quote_identifier(new)} < id"
    )
    assert alter.rename_column(state, 1, new, old).state.tables[1].checks[0][1] == check
