"""Making, renaming, replacing and dropping: every rule of SEMANTICS §1 and the words it is refused in."""

from __future__ import annotations

from typing import Any

import pytest
from catalog_support import NOW_US, column, empty_state, made, new_table

from flightkalam.catalog import edits
from flightkalam.catalog.edits import NewColumn, NewTable, NewView
from flightkalam.catalog.state import CatalogState, Change
from flightkalam.errors import (
    Conflict,
    DependentObjects,
    DuplicateObject,
    InvalidValue,
    KalamError,
    UndefinedObject,
)
from flightkalam.model.schema import Table, TableKind, View
from flightkalam.model.types import BIGINT, INT


def namespaced(*names: str) -> CatalogState:
    state = empty_state()
    for name in names:
        state = edits.create_namespace(state, name, created_by="root", now_us=NOW_US).state
    return state


def view(state: CatalogState, name: str = "v", **more: Any) -> Change:
    replace = more.pop("replace_existing", False)
    new = NewView("main", name, "SELECT 1 AS x", "ann", "main", **more)
    return edits.create_view(state, new, now_us=NOW_US, replace_existing=replace)


def refused(error: type[KalamError], message: str, sqlstate: str) -> Any:
    class Refused:
        def __enter__(self) -> None:
            self.raised = pytest.raises(error)
            self.caught = self.raised.__enter__()

        def __exit__(self, *args: Any) -> Any:
            swallowed = self.raised.__exit__(*args)
            assert self.caught.value.message == message
            assert self.caught.value.sqlstate == sqlstate
            return swallowed

    return Refused()


# -- namespaces -------------------------------------------------------------------------------------------------


def test_a_namespace_keeps_its_case_and_is_found_in_any() -> None:
    state = namespaced("Sales")
    assert state.namespace("SALES").name == "Sales"


def test_a_namespace_that_exists_is_refused_in_any_case() -> None:
    state = namespaced("Sales")
    with refused(DuplicateObject, 'namespace "Sales" already exists', "42P06"):
        edits.create_namespace(state, "Sales", created_by="root", now_us=NOW_US)
    message = '"sales" cannot be created: namespace "Sales" exists, and names may not differ only in case'
    with refused(DuplicateObject, message, "42P06"):
        edits.create_namespace(state, "sales", created_by="root", now_us=NOW_US)


def test_a_missing_namespace_cannot_be_dropped() -> None:
    with refused(UndefinedObject, 'namespace "nope" does not exist', "3F000"):
        edits.drop_namespace(empty_state(), "nope")


def test_main_and_reserved_namespaces_cannot_be_dropped() -> None:
    with refused(InvalidValue, 'namespace "main" is the default and cannot be dropped', "2BP01"):
        edits.drop_namespace(empty_state(), "MAIN", cascade=True)
    with refused(InvalidValue, 'namespace "system" is reserved and cannot be dropped', "42939"):
        edits.drop_namespace(empty_state(), "system", cascade=True)


def test_a_namespace_with_something_in_it_is_dropped_only_by_cascade() -> None:
    state, one = made(namespaced("s"), new_table("s.one"), 1)
    state, two = made(state, new_table("s.two"), 2)
    state = edits.create_view(state, NewView("s", "v", "SELECT 1", "ann", "main"), now_us=NOW_US).state
    message = 'namespace "s" is not empty: it holds 2 tables and 1 view; drop them first or add CASCADE'
    with refused(DependentObjects, message, "2BP01"):
        edits.drop_namespace(state, "S")
    change = edits.drop_namespace(state, "S", cascade=True)
    assert set(change.dropped) == {one, two}
    assert change.state == empty_state()


# -- tables -----------------------------------------------------------------------------------------------------


def test_a_table_without_a_stated_kind_is_shared() -> None:
    _, t = made(empty_state(), new_table("T", "id BIGINT", "a TEXT"), 7)
    assert (t.kind, t.qualified, t.id, t.folder) == (TableKind.SHARED, "main.T", 7, "main/T~7")
    assert [(c.id, c.name, c.not_null) for c in t.schema.columns] == [(1, "id", True), (2, "a", False)]
    assert (t.schema.version, t.schema.key, t.next_column_id) == (1, (1,), 3)
    assert (t.created_by, t.created_at_us) == ("ann", NOW_US)


def test_a_table_takes_the_case_of_its_namespace() -> None:
    _, t = made(namespaced("Sales"), new_table("SALES.t"))
    assert (t.namespace, t.folder) == ("Sales", "Sales/t~1")


def test_composite_keys_keep_their_stated_order_and_are_not_null() -> None:
    """T-21: no NULL in a key."""
    _, t = made(empty_state(), new_table("t", "a INT", "b TEXT", "c INT", key=("C", "a")))
    assert [c.name for c in t.schema.key_columns] == ["c", "a"]
    assert [c.not_null for c in t.schema.columns] == [True, False, True]


@pytest.mark.parametrize("kind", [TableKind.USER, TableKind.SHARED])
def test_a_user_or_shared_table_needs_a_key(kind: TableKind) -> None:
    message = 'table "main.t" needs a PRIMARY KEY; mark a column or add PRIMARY KEY (a, b)'
    with refused(InvalidValue, message, "42P16"):
        made(empty_state(), new_table("t", "a INT", key=(), kind=kind))


@pytest.mark.parametrize(
    "more",
    [
        {"hidden_key": True},
        {"options": (("HIDDEN_KEY", True),)},
        {"kind": TableKind.STREAM, "options": (("TTL_SECONDS", 5),)},
    ],
)
def test_ingest_ctas_and_streams_without_a_key_get_a_hidden_one(more: dict[str, Any]) -> None:
    _, t = made(empty_state(), new_table("t", "a INT", key=(), **more))
    (hidden,) = t.schema.key_columns
    assert (hidden.name, hidden.type, hidden.not_null, hidden.default, hidden.hidden) == (
        "_id", BIGINT, True, "SNOWFLAKE_ID()", True,
    )  # fmt: skip
    assert [c.name for c in t.schema.visible] == ["a"]
    assert t.next_column_id == 3


def test_a_stated_key_wins_over_the_hidden_one() -> None:
    _, t = made(empty_state(), new_table("t", "a INT", key=("a",), hidden_key=True))
    assert [c.name for c in t.schema.columns] == ["a"]


def test_a_stated_key_and_the_option_hidden_key_disagree() -> None:
    message = "option HIDDEN_KEY disagrees with the stated PRIMARY KEY; leave one of them out"
    with refused(InvalidValue, message, "22023"):
        made(empty_state(), new_table("t", "a INT", options=(("HIDDEN_KEY", True),)))


@pytest.mark.parametrize("type_", ["DOUBLE", "REAL", "JSON", "INTERVAL", "INT[]", "STRUCT(a INT)", "EMBEDDING(3)"])
def test_a_type_without_one_form_and_an_order_cannot_be_a_key(type_: str) -> None:
    """T-21: floats have NaN and two zeros."""
    with pytest.raises(InvalidValue, match=r'column "k" is .* and cannot be in a PRIMARY KEY'):
        made(empty_state(), new_table("t", f"k {type_}"))


@pytest.mark.parametrize(
    ("new", "error", "message", "sqlstate"),
    [
        (new_table("nope.t"), UndefinedObject, 'namespace "nope" does not exist', "3F000"),
        (
            new_table("system.t"), InvalidValue,
            'namespace "system" is reserved; no table can be created in it', "42939",
        ),
        (
            NewTable("main", "t", (), "ann"), InvalidValue,
            'table "main.t" has no column; give it at least one', "42P16",
        ),
        (new_table("t", "a INT", "A TEXT"), DuplicateObject, 'column "A" is named twice; name it once', "42701"),
        (
            new_table("t", "a INT", "_seq BIGINT"), InvalidValue,
            'column name "_seq" begins with "_", which is kept for system columns; choose another', "42939",
        ),
        (
            new_table("t", "a INT", key=("b",)), UndefinedObject,
            'column "b" of table "main.t" does not exist', "42703",
        ),
        (
            new_table("t", "a INT", key=("a", "A")), DuplicateObject,
            'PRIMARY KEY names the column "a" twice', "42701",
        ),
        (
            new_table("t", column("a INT", identity=True)), InvalidValue,
            'column "a" numbers itself and is INT; generated ids need BIGINT', "42P16",
        ),
        (
            new_table("t", column("a BIGINT", identity=True, default="1")), InvalidValue,
            'column "a" numbers itself and has a DEFAULT; leave one of them out', "42601",
        ),
        (
            new_table("t", "a INT", checks=(("c", "a > 0"), ("C", "a > 1"))), DuplicateObject,
            'constraint "C" is named twice; name it once', "42710",
        ),
        (
            new_table("t", "a INT", kind=TableKind.USER, options=(("TYPE", "SHARED"),)), InvalidValue,
            "CREATE USER TABLE disagrees with option TYPE='SHARED'; leave one of them out", "22023",
        ),
        (
            new_table("t", "a INT", kind=TableKind.STREAM), InvalidValue,
            "a STREAM table needs option TTL_SECONDS, the seconds that a row lives", "22023",
        ),
        (
            NewTable("main", "t", tuple(NewColumn(f"c{i}", INT) for i in range(4097)), "ann"), InvalidValue,
            'table "main.t" has 4097 columns; at most 4096 are allowed', "54011",
        ),
    ],
)  # fmt: skip
def test_a_table_that_breaks_a_rule_is_refused_in_these_words(
    new: NewTable, error: type[KalamError], message: str, sqlstate: str
) -> None:
    with refused(error, message, sqlstate):
        made(empty_state(), new)


def test_a_taken_name_is_refused_in_any_case_and_by_views_too() -> None:
    state, _ = made(empty_state(), new_table("Orders"))
    state = view(state, "V").state
    with refused(DuplicateObject, 'table "main.Orders" already exists', "42P07"):
        made(state, new_table("Orders"), 2)
    message = '"main.orders" cannot be created: table "main.Orders" exists, and names may not differ only in case'
    with refused(DuplicateObject, message, "42P07"):
        made(state, new_table("orders"), 2)
    with refused(DuplicateObject, 'view "main.V" already exists', "42P07"):
        made(state, new_table("V"), 2)
    with refused(DuplicateObject, 'table "main.Orders" already exists', "42P07"):
        view(state, "Orders")


def test_an_identity_column_numbers_itself() -> None:
    _, t = made(empty_state(), new_table("t", column("id BIGINT", identity=True)))
    (c,) = t.schema.columns
    assert (c.default, c.not_null, c.hidden) == ("SNOWFLAKE_ID()", True, False)


def test_checks_without_a_name_get_one() -> None:
    checks = ((None, "a > 0"), ("t_check", "a > 1"), (None, "a > 2"))
    _, t = made(empty_state(), new_table("t", "a INT", checks=checks))
    assert t.checks == (("t_check1", "a > 0"), ("t_check", "a > 1"), ("t_check2", "a > 2"))


def test_dropping_a_table_returns_it_for_the_cleanup() -> None:
    state, t = made(empty_state(), new_table())
    change = edits.drop_table(state, t.id)
    assert change.dropped == (t,)
    assert change.state == empty_state()


def test_a_table_that_is_gone_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="the table was dropped or replaced meanwhile; run the statement again"):
        edits.drop_table(empty_state(), 1)


def test_replace_is_one_swap_under_another_id() -> None:
    """T-25: the new table shares neither id nor folder with the old."""
    state, old = made(empty_state(), new_table("t", "a INT"), 1)
    change = edits.replace_table(state, old.id, new_table("T", "b TEXT"), table_id=2, now_us=NOW_US)
    assert change.table is not None
    assert change.dropped == (old,)
    assert change.state.find("main", "t") is change.table
    assert (change.table.id, change.table.folder, list(change.state.tables)) == (2, "main/T~2", [2])


def test_replace_keeps_to_the_name() -> None:
    state, old = made(empty_state(), new_table("t"))
    with pytest.raises(InvalidValue, match="cannot be replaced by one of another name"):
        edits.replace_table(state, old.id, new_table("u"), table_id=2, now_us=NOW_US)


def test_rename_moves_nothing_but_the_name() -> None:
    state, t = made(empty_state(), new_table("t", "a INT", checks=((None, "t.a > 0"),)), 3)
    renamed = edits.rename_table(state, t.id, "u").table
    assert renamed is not None
    assert (renamed.id, renamed.folder, renamed.name) == (3, "main/t~3", "u")
    assert renamed.checks == (("t_check", "u.a > 0"),)
    assert renamed.schema.version == 2


def test_rename_may_change_the_case_but_takes_no_other_name() -> None:
    state, t = made(empty_state(), new_table("t"), 1)
    state, _ = made(state, new_table("u"), 2)
    change = edits.rename_table(state, t.id, "T")
    assert change.state.find("main", "t") is change.table
    with refused(DuplicateObject, 'table "main.u" already exists', "42P07"):
        edits.rename_table(state, t.id, "u")


# -- views ------------------------------------------------------------------------------------------------------


def test_a_view_keeps_the_clients_own_words() -> None:
    state = view(empty_state(), "V", columns=("a",)).state
    found = state.find("main", "v")
    assert found == View("main", "V", "SELECT 1 AS x", ("a",), "ann", NOW_US, "main")


def test_a_view_is_replaced_only_when_asked_and_never_a_table() -> None:
    state = view(empty_state()).state
    with refused(DuplicateObject, 'view "main.v" already exists', "42P07"):
        view(state)
    assert view(state, columns=("z",), replace_existing=True).state.find("main", "v").columns == ("z",)  # type: ignore[union-attr]
    state, _ = made(state, new_table("t"))
    with refused(UndefinedObject, '"main.t" is a table, not a view', "42809"):
        view(state, "t", replace_existing=True)


def test_a_replaced_view_in_another_case_leaves_one_view() -> None:
    state = view(view(empty_state(), "v").state, "V", replace_existing=True).state
    assert [v.name for v in state.views.values()] == ["V"]


def test_a_view_names_each_column_once() -> None:
    with refused(DuplicateObject, 'column "X" is named twice; name it once', "42701"):
        view(empty_state(), columns=("x", "X"))


def test_drop_view_and_drop_table_keep_to_their_sort() -> None:
    state, _ = made(view(empty_state()).state, new_table("t"))
    assert edits.drop_view(state, "MAIN", "V").state.views == {}
    with refused(UndefinedObject, '"main.t" is a table, not a view', "42809"):
        edits.drop_view(state, "main", "t")
    with refused(UndefinedObject, 'table "main.nope" does not exist', "42P01"):
        edits.drop_view(state, "main", "nope")
    with refused(UndefinedObject, '"main.v" is a view, not a table', "42809"):
        edits.table_named(state, ("v",), "main")


# -- resolving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts", [("t",), ("T",), ("S", "t"), ("s", "T"), ("flightkalam", "s", "t"), ("FlightKalam", "S", "T")]
)
def test_a_name_resolves_with_one_two_or_three_parts(parts: tuple[str, ...]) -> None:
    state, t = made(namespaced("s"), new_table("s.t"))
    assert state.resolve(parts, "S") is t


@pytest.mark.parametrize("parts", [("u",), ("s", "u"), ("nope", "t"), ("flightkalam", "nope", "t"), ("t", "t")])
def test_what_does_not_exist_is_a_missing_table_whatever_is_missing(parts: tuple[str, ...]) -> None:
    state, _ = made(namespaced("s"), new_table("s.t"))
    with refused(UndefinedObject, f'table "{".".join(parts)}" does not exist', "42P01"):
        state.resolve(parts, "s")


def test_there_is_one_database() -> None:
    with refused(UndefinedObject, 'database "other" does not exist; the only one is flightkalam', "3D000"):
        empty_state().resolve(("other", "main", "t"), "main")
    with pytest.raises(UndefinedObject, match="is not a table name"):
        empty_state().resolve(("a", "b", "c", "d"), "main")


# -- comments ---------------------------------------------------------------------------------------------------


def test_comments_are_set_and_removed() -> None:
    state, t = made(view(namespaced("s")).state, new_table("t"))
    state = edits.comment_on_table(state, t.id, "rows").state
    state = edits.comment_on_view(state, "main", "v", "one").state
    state = edits.comment_on_namespace(state, "s", "ours").state
    found = (state.find("main", "t"), state.find("main", "v"), state.namespace("s"))
    assert [f.comment for f in found if f is not None] == ["rows", "one", "ours"]
    state = edits.comment_on_table(state, t.id, None).state
    assert isinstance(again := state.find("main", "t"), Table)
    assert (again.comment, again.schema.version) == (None, 1)


def test_an_edit_leaves_the_state_it_was_made_from_alone() -> None:
    before, t = made(empty_state(), new_table())
    edits.drop_table(before, t.id)
    edits.rename_table(before, t.id, "u")
    edits.create_namespace(before, "s", created_by="root", now_us=NOW_US)
    assert before == made(empty_state(), new_table())[0]
