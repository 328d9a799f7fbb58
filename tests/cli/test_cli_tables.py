"""Results for people: nothing is left out in silence, nothing moves the cursor."""

from __future__ import annotations

import datetime as dt
import decimal
import io

import pyarrow as pa
import pytest
from rich.console import Console

from flightkalam.cli.output import changed_text, json_value
from flightkalam.cli.tables import Page, first_rows, records_of, rows_of, summary, table_of, text_of


def page(**columns: list[object]) -> Page:
    table = pa.table(columns)
    return first_rows(table.schema, table.to_batches(), None)


def drawn(of: Page, width: int) -> tuple[list[str], str]:
    grid, line = table_of(of, width)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines(), line


class TestRows:
    def test_rows_beyond_the_limit_are_counted_without_being_made(self):
        batches = [pa.record_batch({"a": list(range(n))}) for n in (3, 0, 4)]
        found = first_rows(batches[0].schema, batches, 4)
        assert (found.rows, found.total, found.hidden_rows) == ([(0,), (1,), (2,), (0,)], 7, 3)

    def test_columns_of_one_name_stay_apart(self):
        batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
        assert rows_of(batch) == [(1, 2)]


class TestValues:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "NULL"),
            (True, "true"),
            (1.0, "1.0"),
            (float("nan"), "NaN"),
            (float("-inf"), "-Infinity"),
            (decimal.Decimal("1.50"), "1.50"),
            (b"\x00\xff", "\\x00ff"),
            (dt.date(2024, 2, 29), "2024-02-29"),
            (dt.datetime(2024, 2, 29, 1, 2, 3, 4), "2024-02-29 01:02:03.000004"),
            (dt.datetime(2024, 2, 29, tzinfo=dt.UTC), "2024-02-29 00:00:00+00"),
            ([1, None, "é"], '[1, null, "é"]'),
            ({"a": dt.date(2024, 1, 1)}, '{"a": "2024-01-01"}'),
            (pa.MonthDayNano([14, -3, 4_000_005_000]), "1 year 2 mons -3 days 00:00:04.000005"),
            (pa.MonthDayNano([0, 0, 0]), "00:00:00"),
            (pa.MonthDayNano([-1, 0, -90 * 10**9]), "-1 mons -00:01:30"),
        ],
    )
    def test_they_read_as_sql_writes_them(self, value: object, text: str):
        assert text_of(value) == text

    def test_control_characters_are_shown_not_sent(self):
        lines, _ = drawn(page(a=["x\x1b[2Jy\r\tz"]), 80)
        assert lines[2].strip() == r"x\x1b[2Jy\r\tz"

    def test_text_of_several_lines_keeps_them(self):
        lines, _ = drawn(page(a=["CREATE TABLE t (\n    k INT\n)"], b=[1]), 80)
        assert [line.strip() for line in lines[2:]] == ["CREATE TABLE t (   1", "k INT", ")"]

    def test_markup_in_values_is_text(self):
        lines, _ = drawn(page(a=["[red]x[/red]"]), 80)
        assert lines[2].strip() == "[red]x[/red]"


class TestWidth:
    def test_what_fits_is_shown_whole(self):
        lines, line = drawn(page(a=["x" * 60], b=[1]), 80)
        assert "x" * 60 in lines[2] and line == "1 row"

    def test_columns_that_do_not_fit_are_counted(self):
        lines, line = drawn(page(**{f"column_{i:02}": [1] for i in range(20)}), 80)
        assert "column_05" in lines[0] and "column_06" not in lines[0]
        assert "… 14 more columns" in line

    def test_a_value_that_is_shortened_ends_with_dots(self):
        lines, _ = drawn(page(a=["x" * 100], b=[1]), 80)
        assert "xxx…" in lines[2] and lines[2].rstrip().endswith("1")

    def test_wide_characters_count_twice(self):
        lines, line = drawn(page(a=["漢" * 30], b=["y"]), 70)
        assert line == "1 row" and lines[2].count("漢") == 30
        lines, _ = drawn(page(a=["漢" * 50], b=["y"]), 70)
        assert 20 <= lines[2].count("漢") < 24 and "…" in lines[2]

    def test_one_column_at_least_is_shown(self):
        lines, line = drawn(page(a=["x" * 100], b=["y" * 100]), 20)
        assert lines[0].strip() == "a" and "1 more column;" in line


def test_a_record_is_one_line_per_value():
    grid, line = records_of(page(a=[1, 2], name=["x", None]))
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    assert [text.split() for text in console.file.getvalue().splitlines()] == [
        ["─", "row", "1"],
        ["a", "1"],
        ["name", "x"],
        ["─", "row", "2"],
        ["a", "2"],
        ["name", "NULL"],
    ]
    assert line == "2 rows"


def test_the_summary_says_what_is_hidden():
    assert summary(Page(pa.schema([]), [()] * 2, 1002), 0).startswith("1,002 rows · … 1,000 more rows; use --format csv")


@pytest.mark.parametrize(
    ("statement", "changed", "said"),
    [
        ("INSERT INTO t …", 1, "1 row changed"),
        ("delete from t", 0, "0 rows changed"),
        ("CREATE TABLE …", 0, "done"),
        ("update t", -1, "done"),
    ],
)
def test_only_writes_say_a_number(statement: str, changed: int, said: str):
    assert changed_text(statement, changed) == said


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (2**53, 2**53),
        (-(2**53) - 1, str(-(2**53) - 1)),
        (decimal.Decimal("0.10"), "0.10"),
        (b"\x01\x02", "AQI="),
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "2024-01-01T00:00:00+00:00"),
        ({"a": [float("inf")]}, {"a": ["Infinity"]}),
        (pa.MonthDayNano([1, 2, 3]), {"months": 1, "days": 2, "nanoseconds": 3}),
    ],
)
def test_json_holds_every_value_exactly(value: object, given: object):
    """T-4."""
    assert json_value(value) == given
