"""The WITH options: what each takes, for which tables, and what is said otherwise (SEMANTICS §1)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from catalog_support import table

from flightkalam.catalog.options import (
    OPTIONS,
    OptionValue,
    RowRetention,
    access_level_of,
    hidden_key_of,
    kind_of,
    options_changed,
    options_for_new,
    row_retention,
    shown,
)
from flightkalam.errors import InvalidValue, KalamError, UndefinedObject, Unsupported
from flightkalam.model.schema import AccessLevel, TableKind, TableOptions

SCHEMA = table("id BIGINT", "ts TIMESTAMP", "day DATE", "a TEXT", "b,c INT", "f DOUBLE", "ok BOOLEAN").schema
SHARED, USER, STREAM = TableKind.SHARED, TableKind.USER, TableKind.STREAM


def read(name: str, value: OptionValue, kind: TableKind = SHARED) -> TableOptions:
    return options_for_new(kind, SCHEMA, [(name, value)])


def test_without_options_a_table_has_the_documented_defaults() -> None:
    o = options_for_new(SHARED, SCHEMA, [])
    assert o == TableOptions(
        flush_rows=100_000,
        flush_interval_s=300,
        access_level=AccessLevel.PRIVATE,
        deleted_retention_hours=168,
        bloom_filter_columns=None,
        bloom_filter_fpp=0.01,
        compaction="auto",
    )
    assert shown(o) == []


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("FLUSH_POLICY", "rows:5,interval:7", "flush_rows", 5),
        ("FLUSH_POLICY", "rows:5,interval:7", "flush_interval_s", 7),
        ("FLUSH_POLICY", " Interval : 7 ", "flush_interval_s", 7),
        ("FLUSH_POLICY", "interval:7", "flush_rows", None),
        ("FLUSH_POLICY", "rows:5", "flush_interval_s", None),
        ("access_level", "public", "access_level", AccessLevel.PUBLIC),
        ("DELETED_RETENTION_HOURS", 0, "deleted_retention_hours", 0),
        ("DELETED_RETENTION_HOURS", "24", "deleted_retention_hours", 24),
        ("DELETED_RETENTION_HOURS", Decimal("24"), "deleted_retention_hours", 24),
        ("ROW_RETENTION", "30d BY ts", "row_retention", "30d BY ts"),
        ("ROW_RETENTION", "30 Days by TS", "row_retention", "30d BY ts"),
        ("ROW_RETENTION", '2w BY "day"', "row_retention", "2w BY day"),
        ("ROW_RETENTION", "", "row_retention", None),
        ("BLOOM_FILTER_COLUMNS", "ID, a", "bloom_filter_columns", ("id", "a")),
        ("BLOOM_FILTER_COLUMNS", 'a,"b,c"', "bloom_filter_columns", ("a", "b,c")),
        ("BLOOM_FILTER_COLUMNS", "", "bloom_filter_columns", ()),
        ("BLOOM_FILTER_FPP", 0.05, "bloom_filter_fpp", 0.05),
        ("BLOOM_FILTER_FPP", "0.05", "bloom_filter_fpp", 0.05),
        ("BLOOM_FILTER_FPP", Decimal("0.05"), "bloom_filter_fpp", 0.05),
        ("COMPACTION", "MANUAL", "compaction", "manual"),
        ("STORAGE_ID", "s3-eu", "storage_id", "s3-eu"),
        ("STORAGE_ID", None, "storage_id", None),
    ],
)
def test_each_option_is_read(name: str, value: OptionValue, field: str, expected: Any) -> None:
    assert getattr(read(name, value), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FLUSH_POLICY", "rows:0", "FLUSH_POLICY rows: 0 is not allowed; give a whole number from 1 to"),
        ("FLUSH_POLICY", "rows:5,rows:6", "'rows:N', 'interval:SECONDS' or both"),
        ("FLUSH_POLICY", "", "'rows:N', 'interval:SECONDS' or both"),
        ("FLUSH_POLICY", 5, "option FLUSH_POLICY: 5 is not allowed"),
        ("FLUSH_POLICY", "size:5", "option FLUSH_POLICY: 'size:5' is not allowed"),
        ("ACCESS_LEVEL", "SECRET", "one of 'PUBLIC', 'PRIVATE', 'RESTRICTED', 'DBA'"),
        ("DELETED_RETENTION_HOURS", -1, "option DELETED_RETENTION_HOURS: -1 is not allowed; give a whole number from 0 to"),
        ("DELETED_RETENTION_HOURS", 1.5, "1.5 is not allowed"),
        ("DELETED_RETENTION_HOURS", True, "True is not allowed"),
        ("DELETED_RETENTION_HOURS", "NaN", "'NaN' is not allowed"),
        ("DELETED_RETENTION_HOURS", "a day", "'a day' is not allowed"),
        ("ROW_RETENTION", "30 BY ts", "as in '30d BY ts'"),
        ("ROW_RETENTION", "0d BY ts", "0 is not allowed"),
        ("ROW_RETENTION", "30d BY a", 'column "a" is TEXT; name one of type DATE, TIMESTAMP or TIMESTAMPTZ'),
        ("BLOOM_FILTER_COLUMNS", "a,A", 'names the column "a" twice'),
        ("BLOOM_FILTER_COLUMNS", "a,,id", "column names as in 'a,b', or '' for no filter at all"),
        ("BLOOM_FILTER_COLUMNS", "f", 'column "f" is DOUBLE, for which there is no filter'),
        ("BLOOM_FILTER_COLUMNS", "ok", 'column "ok" is BOOLEAN, for which there is no filter'),
        ("BLOOM_FILTER_FPP", 0, "0 is not allowed; give a number from 0.0001 to 0.5"),
        ("BLOOM_FILTER_FPP", "nan", "a number from 0.0001 to 0.5"),
        ("BLOOM_FILTER_FPP", "small", "a number from 0.0001 to 0.5"),
        ("COMPACTION", "never", "one of 'auto', 'manual'"),
        ("STORAGE_ID", 5, "give the name of a storage"),
    ],
)
def test_a_bad_value_is_refused_and_the_error_says_what_is_allowed(name: str, value: OptionValue, said: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(name, value)
    assert name in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize("name", ["ROW_RETENTION", "BLOOM_FILTER_COLUMNS"])
def test_an_option_that_names_a_missing_column_says_so(name: str) -> None:
    value = "30d BY nope" if name == "ROW_RETENTION" else "a,nope"
    with pytest.raises(UndefinedObject) as caught:
        read(name, value)
    assert caught.value.message == f'option {name}: column "nope" does not exist'
    assert caught.value.sqlstate == "42703"


@pytest.mark.parametrize(
    ("kind", "name", "value", "reason"),
    [
        (SHARED, "TTL_SECONDS", 5, "only rows of STREAM tables expire"),
        (USER, "TTL_SECONDS", 5, "only rows of STREAM tables expire"),
        (USER, "ACCESS_LEVEL", "PUBLIC", "every user of a USER or STREAM table has their own rows"),
        (STREAM, "ACCESS_LEVEL", "PUBLIC", "every user of a USER or STREAM table has their own rows"),
        (STREAM, "FLUSH_POLICY", "rows:5", "never written to files"),
        (STREAM, "ROW_RETENTION", "1d BY ts", "expire by TTL_SECONDS"),
        (STREAM, "COMPACTION", "auto", "never written to files"),
        (STREAM, "DELETED_RETENTION_HOURS", 5, "a DELETE from a STREAM table is physical"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(kind: TableKind, name: str, value: OptionValue, reason: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(name, value, kind)
    assert caught.value.message.startswith(f"option {name} is not for {kind.value} tables: ")
    assert reason in caught.value.message


def test_a_stream_needs_its_ttl() -> None:
    with pytest.raises(InvalidValue, match="a STREAM table needs option TTL_SECONDS"):
        options_for_new(STREAM, SCHEMA, [])
    assert read("TTL_SECONDS", 60, STREAM).ttl_seconds == 60


def test_an_unknown_option_is_named_and_the_nearest_known_one_offered() -> None:
    with pytest.raises(InvalidValue) as caught:
        read("flush_policie", "rows:5")
    assert caught.value.message == 'unknown table option "flush_policie"; did you mean FLUSH_POLICY?'
    with pytest.raises(InvalidValue, match='unknown table option "zzz"; known options: TYPE, HIDDEN_KEY, FLUSH_POLICY'):
        read("zzz", 1)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(InvalidValue, match="option COMPACTION is given twice"):
        options_for_new(SHARED, SCHEMA, [("COMPACTION", "auto"), ("compaction", "manual")])


@pytest.mark.parametrize(
    ("prefix", "type_", "kind"),
    [
        (None, None, SHARED),
        (USER, None, USER),
        (None, "user", USER),
        (STREAM, "STREAM", STREAM),
        (SHARED, "shared", SHARED),
    ],
)
def test_the_kind_comes_from_the_prefix_or_type(prefix: TableKind | None, type_: str | None, kind: TableKind) -> None:
    assert kind_of(prefix, [] if type_ is None else [("TYPE", type_)]) is kind


def test_a_prefix_that_disagrees_with_type_is_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        kind_of(USER, [("TYPE", "SHARED")])
    assert caught.value.message == "CREATE USER TABLE disagrees with option TYPE='SHARED'; leave one of them out"


def test_rights_can_be_settled_from_the_clause_alone() -> None:
    assert access_level_of([]) is AccessLevel.PRIVATE
    assert access_level_of([("ACCESS_LEVEL", "dba")]) is AccessLevel.DBA
    assert hidden_key_of([("HIDDEN_KEY", True)]) is hidden_key_of([("HIDDEN_KEY", "TRUE")]) is True
    with pytest.raises(InvalidValue, match="option HIDDEN_KEY: 1 is not allowed; give true or false"):
        hidden_key_of([("HIDDEN_KEY", 1)])


def test_row_retention_reads_back_as_seconds_and_a_column() -> None:
    assert row_retention("30d BY ts") == RowRetention(30 * 86_400, "ts")
    assert row_retention('2w BY "my day"') == RowRetention(14 * 86_400, "my day")
    assert row_retention("90m BY ts") == RowRetention(5_400, "ts")


# -- SET OPTIONS ------------------------------------------------------------------------------------------------


def test_set_options_changes_what_it_names_and_null_sets_back() -> None:
    old = options_for_new(SHARED, SCHEMA, [("FLUSH_POLICY", "rows:5"), ("COMPACTION", "manual")])
    new = options_changed(old, SHARED, SCHEMA, [("FLUSH_POLICY", None), ("ACCESS_LEVEL", "PUBLIC")])
    assert new == TableOptions(compaction="manual", access_level=AccessLevel.PUBLIC)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("TYPE", "USER", "option TYPE cannot be changed: it belongs to CREATE TABLE"),
        ("HIDDEN_KEY", True, "option HIDDEN_KEY cannot be changed: it belongs to CREATE TABLE"),
        (
            "STORAGE_ID",
            "x",
            "option STORAGE_ID cannot be changed: the files of a table stay in the storage it was created in",
        ),
    ],
)
def test_what_a_table_is_cannot_be_changed(name: str, value: OptionValue, error: str) -> None:
    with pytest.raises(Unsupported) as caught:
        options_changed(TableOptions(), SHARED, SCHEMA, [(name, value)])
    assert caught.value.message == error


def test_the_ttl_of_a_stream_cannot_be_unset() -> None:
    with pytest.raises(InvalidValue, match="it cannot be unset"):
        options_changed(TableOptions(ttl_seconds=5), STREAM, SCHEMA, [("TTL_SECONDS", None)])


# -- showing ----------------------------------------------------------------------------------------------------

EXAMPLES: dict[str, tuple[TableKind, OptionValue]] = {
    "FLUSH_POLICY": (SHARED, "interval:7"),
    "TTL_SECONDS": (STREAM, 60),
    "ACCESS_LEVEL": (SHARED, "RESTRICTED"),
    "DELETED_RETENTION_HOURS": (USER, 1),
    "ROW_RETENTION": (USER, "12h BY ts"),
    "BLOOM_FILTER_COLUMNS": (SHARED, 'a,"b,c"'),
    "BLOOM_FILTER_FPP": (SHARED, 0.002),
    "COMPACTION": (SHARED, "manual"),
    "STORAGE_ID": (SHARED, "it's"),
}


@pytest.mark.parametrize("name", [o.name for o in OPTIONS])
def test_what_is_shown_reads_back_as_the_same_options(name: str) -> None:
    kind, value = EXAMPLES[name]
    options = read(name, value, kind)
    ((shown_name, text),) = shown(options)
    assert shown_name == name
    back = text[1:-1].replace("''", "'") if text.startswith("'") else text
    assert read(name, back, kind) == options


def test_every_refusal_carries_a_sqlstate() -> None:
    for name, value in (("zzz", 1), ("COMPACTION", 1), ("TTL_SECONDS", 1)):
        with pytest.raises(KalamError) as caught:
            read(name, value)
        assert caught.value.sqlstate == "22023"
