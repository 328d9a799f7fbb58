"""What Tab offers where."""

from __future__ import annotations

import pytest

from flightkalam.cli.completion import Names, candidates

NAMES = Names(
    {
        "main": {"flights": ["carrier", "dep_delay"], "planes": ["tailnum", "Year Built"]},
        "audit": {"Log": ["at", "who"]},
    }
)


def offered(before: str, namespace: str = "main") -> list[str]:
    return [c.text for c in candidates(before, NAMES, namespace)]


@pytest.mark.parametrize(
    ("before", "first"),
    [
        ("SEL", ["SELECT"]),
        ("sel", ["select"]),
        ("SELECT * FROM ", ["flights", "planes", "main", "audit"]),
        ("SELECT * FROM fl", ["flights"]),
        ("SELECT * FROM flights f JOIN pl", ["planes"]),
        ("SELECT * FROM flights, pl", ["planes"]),
        ("FLUSH TABLE fl", ["flights"]),
        ("INSERT INTO audit.", ["Log"]),
        ("SELECT * FROM audit.lo", ["Log"]),
        ("USE au", ["audit"]),
        ("SELECT * FROM flights f WHERE f.", ["carrier", "dep_delay"]),
        ("SELECT * FROM audit.Log AS l WHERE l.w", ["who"]),
        ("SELECT * FROM flights WHERE fl", ["flights"]),
        ("SELECT * FROM flights WHERE dep", ["dep_delay"]),
        ("SELECT * FROM planes WHERE Yea", ['"Year Built"']),
        ('SELECT * FROM planes WHERE planes."Y', ['"Year Built"']),
    ],
)
def test_the_likeliest_come_first(before: str, first: list[str]):
    assert offered(before)[: len(first)] == first


def test_columns_of_the_tables_in_the_text_come_before_keywords_and_others():
    found = offered("SELECT * FROM planes WHERE t")
    assert found[0] == "tailnum" and "true" in found


def test_nothing_is_offered_for_nothing():
    assert offered("") == [] and offered("SELECT 1 ") == []


def test_the_part_that_is_replaced_is_the_word_and_not_its_qualifier():
    assert [(c.text, c.replaces) for c in candidates("SELECT f.carr FROM flights f WHERE f.carr", NAMES)] == [("carrier", 4)]


def test_another_namespace_offers_its_own_tables_first():
    assert offered("SELECT * FROM ", "audit")[0] == "Log"


def test_names_come_out_of_the_drivers_metadata():
    catalogs = [
        {
            "catalog_name": "flightkalam",
            "catalog_db_schemas": [
                {
                    "db_schema_name": "main",
                    "db_schema_tables": [{"table_name": "t", "table_columns": [{"column_name": "k"}]}],
                },
                {"db_schema_name": "empty", "db_schema_tables": None},
            ],
        },
        {"catalog_name": "none", "catalog_db_schemas": None},
    ]
    assert Names.from_objects(catalogs).tables == {"main": {"t": ["k"]}, "empty": {}}
