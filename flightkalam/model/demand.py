"""How much of a table reference a statement needs: usually everything, sometimes less than its rows.

SELECT * FROM t LIMIT 10                    any ten rows                      First(10)
SELECT a FROM t ORDER BY b DESC LIMIT 10    the ten greatest b, with ties     First(10, Order(b, descending))
SELECT count(*) FROM t                      how many rows there are           RowCount
SELECT min(a), max(b) FROM t                the ends of columns               Extremes({a, b})
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Everything:
    """All rows."""


@dataclass(frozen=True, slots=True)
class Order:
    """:param column: column id; ties are broken by what is not known here."""

    column: int
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True, slots=True)
class First:
    """The first rows in an order, and all that tie with the last of them; any rows without one."""

    rows: int
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class RowCount:
    """No value of any column, only the number of rows."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """Only the least and greatest values of some columns, by id."""

    columns: frozenset[int]


Demand = Everything | First | RowCount | Extremes
EVERYTHING = Everything()
