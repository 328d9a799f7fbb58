"""ALTER TABLE: columns keep their ids, nothing breaks silently, every change bumps the schema version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from catalog_support import column, empty_state, made, new_table

from flightkalam.catalog import alter, edits
from flightkalam.catalog.state import CatalogState, Change
from flightkalam.errors import (
    DependentObjects,
    DuplicateObject,
    InvalidValue,
    KalamError,
    NotNullViolation,
    UndefinedObject,
    Unsupported,
)
from flightkalam.model.schema import Column, Table, fill_bytes
from flightkalam.model.types import parse_type

Edit = Callable[[CatalogState], Change]


def start(*columns: Any, **more: Any) -> CatalogState:
    return made(empty_state(), new_table("t", *columns, **more))[0]


def after(change: Change) -> Table:
    assert change.table is not None
    return change.table


def column_of(change: Change, name: str) -> Column:
    return after(change).schema.column(name, "t")


# -- ids --------------------------------------------------------------------------------------------------------


def test_a_dropped_column_never_gives_its_id_to_another() -> None:
    """T-32: DROP and ADD of one name do not bring old values back."""
    state = start("id BIGINT", "a INT")
    state = alter.drop_column(state, 1, "A").state
    change = alter.add_column(state, 1, column("a INT"))
    assert [(c.id, c.name) for c in after(change).schema.columns] == [(1, "id"), (3, "a")]
    assert after(change).next_column_id == 4


def test_a_renamed_column_keeps_its_id() -> None:
    """T-33: statistics and files go by id."""
    change = alter.rename_column(start("id BIGINT", "a INT"), 1, "a", "b")
    assert [(c.id, c.name) for c in after(change).schema.columns] == [(1, "id"), (2, "b")]


def test_a_key_column_may_be_renamed() -> None:
    change = alter.rename_column(start("id BIGINT"), 1, "id", "key")
    assert [c.name for c in after(change).schema.key_columns] == ["key"]


def test_a_name_may_change_its_case() -> None:
    assert column_of(alter.rename_column(start("id BIGINT", "a INT"), 1, "a", "A"), "a").name == "A"


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: alter.add_column(s, 1, column("b INT")),
        lambda s: alter.drop_column(s, 1, "a"),
        lambda s: alter.rename_column(s, 1, "a", "b"),
        lambda s: alter.set_default(s, 1, "a", "1"),
        lambda s: alter.drop_default(s, 1, "a"),
        lambda s: alter.set_not_null(s, 1, "a"),
        lambda s: alter.drop_not_null(s, 1, "a"),
        lambda s: alter.set_type(s, 1, "a", parse_type("BIGINT")),
        lambda s: alter.set_options(s, 1, [("COMPACTION", "manual")]),
        lambda s: edits.rename_table(s, 1, "u"),
    ],
)
def test_every_alter_bumps_the_schema_version(edit: Edit) -> None:
    """T-49: what was planned against the table as it was is planned again."""
    state = start("id BIGINT", "a INT")
    change = edit(state)
    assert after(change).schema.version == 2
    assert state.tables[1].schema.version == 1


def test_a_comment_changes_no_plan() -> None:
    change = alter.comment_on_column(start("id BIGINT", "a INT"), 1, "A", "an a")
    assert column_of(change, "a").comment == "an a"
    assert after(change).schema.version == 1


# -- ADD COLUMN -------------------------------------------------------------------------------------------------


def test_an_added_column_shows_its_default_on_old_rows() -> None:
    """T-32: rows written before show what the default was then, also after it changes."""
    fill = fill_bytes(pa.array([7], pa.int32()))
    state = alter.add_column(start(), 1, column("a INT", default="7"), fill_text="7", fill_ipc=fill).state
    changed = column_of(alter.set_default(state, 1, "a", "8"), "a")
    assert (changed.default, changed.fill_text, changed.fill_array(2).to_pylist()) == ("8", "7", [7, 7])


def test_a_not_null_column_needs_a_default_unless_the_table_is_empty() -> None:
    with pytest.raises(NotNullViolation) as caught:
        alter.add_column(start(), 1, column("a INT", not_null=True))
    assert caught.value.message == 'column "a" is NOT NULL and table "main.t" has rows; give the column a DEFAULT'
    assert column_of(alter.add_column(start(), 1, column("a INT", not_null=True), empty=True), "a").not_null


def test_a_column_that_numbers_itself_is_added_only_to_an_empty_table() -> None:
    with pytest.raises(Unsupported, match=r'column "a" numbers itself: table "main.t" has rows'):
        alter.add_column(start(), 1, column("a BIGINT", identity=True))
    change = alter.add_column(start(), 1, column("a BIGINT", identity=True), empty=True)
    assert column_of(change, "a").default == "SNOWFLAKE_ID()"


def test_an_added_column_stands_after_the_hidden_key_and_is_visible() -> None:
    state = start("a INT", key=(), hidden_key=True)
    change = alter.add_column(state, 1, column("b INT"))
    assert [c.name for c in after(change).schema.visible] == ["a", "b"]


# -- SET DATA TYPE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SMALLINT", "BIGINT"),
        ("INT", "DOUBLE"),
        ("REAL", "DOUBLE"),
        ("DECIMAL(9,2)", "DECIMAL(12,4)"),
        ("DATE", "TIMESTAMP"),
        ("UUID", "TEXT"),
        ("INT", "INT"),
    ],
)
def test_a_column_may_become_wider(old: str, new: str) -> None:
    """T-31."""
    change = alter.set_type(start("id BIGINT", f"a {old}"), 1, "a", parse_type(new))
    assert column_of(change, "a").type == parse_type(new)


@pytest.mark.parametrize(
    ("old", "new"),
    [("BIGINT", "INT"), ("BIGINT", "DOUBLE"), ("DOUBLE", "REAL"), ("TEXT", "INT"), ("DECIMAL(9,2)", "DECIMAL(9,4)")],
)
def test_a_column_never_becomes_narrower(old: str, new: str) -> None:
    with pytest.raises(Unsupported) as caught:
        alter.set_type(start("id BIGINT", f"a {old}"), 1, "a", parse_type(new))
    assert caught.value.message == (
        f'column "a" of table "main.t" is {old} and cannot become {new}: '
        "only a wider type keeps every value; add a column and fill it with UPDATE"
    )


def test_a_whole_number_in_the_key_may_become_a_wider_one_and_nothing_else() -> None:
    change = alter.set_type(start("id INT"), 1, "id", parse_type("BIGINT"))
    assert column_of(change, "id").type == parse_type("BIGINT")
    for old, new in (("INT", "DECIMAL(18,0)"), ("UUID", "TEXT"), ("DATE", "TIMESTAMP"), ("DECIMAL(4,1)", "DECIMAL(5,1)")):
        with pytest.raises(Unsupported, match=r"is in the primary key: .* cannot become"):
            alter.set_type(start(f"id {old}"), 1, "id", parse_type(new))


def test_a_fill_goes_on_showing_the_value_it_had() -> None:
    """T-31: a double widened from a float is not equal to its decimal text."""
    fill = fill_bytes(pa.array([0.1], pa.float32()))
    state = alter.add_column(start(), 1, column("a REAL", default="0.1"), fill_text="0.1", fill_ipc=fill).state
    widened = column_of(alter.set_type(state, 1, "a", parse_type("DOUBLE")), "a")
    assert widened.fill_text == "0.10000000149011612"
    assert widened.fill_array(1).to_pylist() == [0.10000000149011612]


# -- what else needs the column ---------------------------------------------------------------------------------

BUSY = {
    "checks": ((None, "a > 0 AND t.a < 9"),),
    "options": (("ROW_RETENTION", "30d BY ts"), ("BLOOM_FILTER_COLUMNS", "id,b")),
}


def busy() -> CatalogState:
    return start("id BIGINT", "a INT", "b INT", "ts TIMESTAMP", **BUSY)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("id", 'column "id" is in the primary key of table "main.t": it must stay'),
        ("a", 'column "a" is used by the constraint "t_check" of table "main.t"; it must stay'),
        ("b", 'column "b" is named by option BLOOM_FILTER_COLUMNS; change the option first'),
        ("ts", 'column "ts" is named by option ROW_RETENTION; change the option first'),
    ],
)
def test_a_column_that_something_needs_cannot_be_dropped(name: str, message: str) -> None:
    with pytest.raises(DependentObjects) as caught:
        alter.drop_column(busy(), 1, name.upper())
    assert (caught.value.message, caught.value.sqlstate) == (message, "2BP01")


def test_the_last_visible_column_cannot_be_dropped() -> None:
    with pytest.raises(DependentObjects, match=r'column "a" is the last of table "main.t"; drop the table'):
        alter.drop_column(start("a INT", key=(), hidden_key=True), 1, "a")


def test_options_and_checks_follow_a_renamed_column() -> None:
    state = busy()
    for old, new in (("a", "x"), ("b", "y,z"), ("ts", "When")):
        state = alter.rename_column(state, 1, old, new).state
    t = state.tables[1]
    assert t.checks == (("t_check", 'x > 0 AND t.x < 9'),)  # fmt: skip
    assert t.options.bloom_filter_columns == ("id", "y,z")
    assert t.options.row_retention == '30d BY "When"'
    assert alter.retention_column(t) == (t.schema.column("when", "t"), 30 * 86_400)


def test_a_rename_that_another_meaning_would_capture_is_refused() -> None:
    state = start("id BIGINT", "a INT", checks=((None, "list_any([1], x -> x > a)"),))
    with pytest.raises(DependentObjects) as caught:
        alter.rename_column(state, 1, "a", "x")
    assert caught.value.message == 'column "a" cannot be renamed to "x": the constraint "t_check" uses that word'


def test_a_type_that_an_option_cannot_use_is_refused() -> None:
    with pytest.raises(DependentObjects, match="is named by option BLOOM_FILTER_COLUMNS, and DOUBLE has no filter"):
        alter.set_type(busy(), 1, "b", parse_type("DOUBLE"))


def test_a_retention_column_may_become_a_timestamp() -> None:
    state = start("id BIGINT", "d DATE", options=(("ROW_RETENTION", "1d BY d"),))
    assert column_of(alter.set_type(state, 1, "d", parse_type("TIMESTAMP")), "d").type == parse_type("TIMESTAMP")


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "error", "message", "sqlstate"),
    [
        (
            lambda s: alter.add_column(s, 1, column("A INT")), DuplicateObject,
            'column "a" of table "main.t" already exists', "42701",
        ),
        (
            lambda s: alter.add_column(s, 1, column("_a INT")), InvalidValue,
            'column name "_a" begins with "_", which is kept for system columns; choose another', "42939",
        ),
        (
            lambda s: alter.rename_column(s, 1, "a", "ID"), DuplicateObject,
            'column "id" of table "main.t" already exists', "42701",
        ),
        (
            lambda s: alter.rename_column(s, 1, "a", "_deleted"), InvalidValue,
            'column name "_deleted" begins with "_", which is kept for system columns; choose another', "42939",
        ),
        (
            lambda s: alter.drop_column(s, 1, "nope"), UndefinedObject,
            'column "nope" of table "main.t" does not exist', "42703",
        ),
        (
            lambda s: alter.drop_column(s, 1, "_seq"), UndefinedObject,
            'column "_seq" of table "main.t" does not exist', "42703",
        ),
        (
            lambda s: alter.drop_not_null(s, 1, "id"), InvalidValue,
            'column "id" of table "main.t" is in the primary key and stays NOT NULL', "42P16",
        ),
    ],
)  # fmt: skip
def test_an_alter_that_breaks_a_rule_is_refused_in_these_words(
    edit: Edit, error: type[KalamError], message: str, sqlstate: str
) -> None:
    with pytest.raises(error) as caught:
        edit(start("id BIGINT", "a INT"))
    assert (caught.value.message, caught.value.sqlstate) == (message, sqlstate)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: alter.drop_column(s, 1, "_id"),
        lambda s: alter.rename_column(s, 1, "_id", "k"),
        lambda s: alter.set_default(s, 1, "_id", "1"),
        lambda s: alter.comment_on_column(s, 1, "_id", "x"),
    ],
)
def test_the_hidden_key_cannot_change(edit: Edit) -> None:
    with pytest.raises(InvalidValue, match=r'column "_id" is the hidden key of table "main.t" and cannot change'):
        edit(start("a INT", "b INT", key=(), hidden_key=True))


def test_not_null_and_defaults_come_and_go() -> None:
    state = start("id BIGINT", "a INT")
    state = alter.set_not_null(state, 1, "a").state
    state = alter.set_default(state, 1, "a", "now()").state
    assert (c := state.tables[1].schema.column("a", "t")).not_null and c.default == "now()"
    state = alter.drop_not_null(state, 1, "a").state
    state = alter.drop_default(state, 1, "a").state
    assert not (c := state.tables[1].schema.column("a", "t")).not_null and c.default is None
