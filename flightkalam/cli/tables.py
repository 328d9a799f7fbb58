"""Arrow as text that fits a terminal.

Nothing is left out in silence: rows and columns that do not fit are counted in the line under the table, and a value
that was shortened ends with `…`.  Only the rows that are shown become Python values; the others are only counted.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

NULL = "NULL"
_MAX_CELL = 48
_GAP = 3
# All but the line feed, which a cell may hold.
_CONTROL = {i: f"\\x{i:02x}" for i in (*range(10), *range(11, 32), 127)} | {9: "\\t", 13: "\\r"}


@dataclass(frozen=True, slots=True)
class Page:
    """The first rows of a result, and how many rows there were in all."""

    schema: pa.Schema
    rows: list[tuple[Any, ...]]
    total: int

    @property
    def hidden_rows(self) -> int:
        return self.total - len(self.rows)


def first_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch], limit: int | None) -> Page:
    """The first `limit` rows (None: all); the rest is read to its end and counted."""
    rows: list[tuple[Any, ...]] = []
    total = 0
    for batch in batches:
        total += batch.num_rows
        wanted = batch.num_rows if limit is None else max(0, limit - len(rows))
        if wanted:
            rows += rows_of(batch.slice(0, wanted))
    return Page(schema, rows, total)


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Rows as tuples; by position, because a result may have two columns of one name."""
    columns = [column.to_pylist() for column in batch.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * batch.num_rows


# ---------------------------------------------------------------------------------------------------------------
# One value


def text_of(value: Any) -> str:
    """A value as a person writes it; the words are those of SQL, not of Python."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, dt.datetime):
        return value.isoformat(" ").replace("+00:00", "+00")
    if isinstance(value, pa.MonthDayNano):
        return _interval_text(value)
    if isinstance(value, (list, dict, tuple)):
        return json.dumps(value, ensure_ascii=False, default=_inside)
    return str(value)


def _float_text(value: float) -> str:
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value) or repr(value)


def _interval_text(value: Any) -> str:
    """As PostgreSQL writes it: `1 year 2 mons 3 days 04:05:06.000007`."""
    years, months = divmod(abs(value.months), 12)
    sign = -1 if value.months < 0 else 1
    named = ((sign * years, "year"), (sign * months, "mon"), (value.days, "day"))
    parts = [count(number, noun) for number, noun in named if number]
    if value.nanoseconds or not parts:
        parts.append(("-" if value.nanoseconds < 0 else "") + _clock_text(abs(value.nanoseconds)))
    return " ".join(parts)


def _clock_text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:09}".rstrip("0") if fraction else text


def _inside(value: Any) -> Any:
    return text_of(value)


def _harmless(text: str) -> str:
    """Without control characters that would move the cursor or change colours."""
    return text.translate(_CONTROL)


def _width(text: str) -> int:
    return max(cell_len(line) for line in text.split("\n"))


def _shortened(text: str, room: int) -> str:
    return text if _width(text) <= room else "\n".join(_short_line(line, room) for line in text.split("\n"))


def _short_line(line: str, room: int) -> str:
    if cell_len(line) <= room:
        return line
    short = line[:room]
    while cell_len(short) > room - 1:
        short = short[:-1]
    return short + "…"


# ---------------------------------------------------------------------------------------------------------------
# Tables


def table_of(page: Page, width: int | None) -> tuple[RenderableType, str]:
    """A table of at most `width` terminal columns (None: as wide as it is), and the line that says what it leaves out."""
    names = [_harmless(name) for name in page.schema.names]
    texts = [[_harmless(text_of(value)) for value in row] for row in page.rows]
    widths = [max([_width(name), *(_width(row[i]) for row in texts)]) for i, name in enumerate(names)]
    if width is not None and sum(widths) + _GAP * (len(widths) - 1) > width:
        widths = [min(w, width if len(widths) == 1 else _MAX_CELL) for w in widths]
    shown = _columns_that_fit(widths, width)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i in range(shown):
        justify: JustifyMethod = "right" if _is_number(page.schema.types[i]) else "left"
        grid.add_column(Text(_shortened(names[i], widths[i])), justify=justify, no_wrap=True)
    for values, row in zip(page.rows, texts, strict=True):
        grid.add_row(*(_styled(values[i], _shortened(row[i], widths[i])) for i in range(shown)))
    return grid, summary(page, len(names) - shown)


def records_of(page: Page) -> tuple[RenderableType, str]:
    """Each row as a small table of name and value: for rows too wide to read side by side."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for number, row in enumerate(page.rows, 1):
        grid.add_row(Text(f"─ row {number:,}", style="dim"), "")
        for name, value in zip(page.schema.names, row, strict=True):
            grid.add_row(Text(_harmless(name)), _styled(value, _harmless(text_of(value))))
    return grid, summary(page, 0)


def summary(page: Page, hidden_columns: int) -> str:
    """`3 rows`, and what is not on the screen."""
    line = count(page.total, "row")
    if page.hidden_rows:
        line += f" · … {count(page.hidden_rows, 'more row')}; use --format csv or --max-rows 0 for all"
    if hidden_columns:
        line += f" · … {count(hidden_columns, 'more column')}; widen the terminal, or use --format csv (\\x in the shell)"
    return line


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _columns_that_fit(widths: Sequence[int], room: int | None) -> int:
    """As many columns from the left as fit beside each other; one at least."""
    if room is None:
        return len(widths)
    used = 0
    for shown, width in enumerate(widths):
        used += width + (_GAP if shown else 0)
        if used > room:
            return max(shown, 1)
    return len(widths)


def _styled(value: Any, text: str) -> Text:
    return Text(text, style="dim italic" if value is None else "")


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
