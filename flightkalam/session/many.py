"""Many rows of parameters for one UPDATE or DELETE by key, as one statement that joins them.

    executemany("UPDATE t SET v = ? WHERE id = ?", rows)    UPDATE t SET v = p.v FROM rows AS p WHERE id = p.id
    executemany("DELETE FROM t WHERE id = ?", rows)         DELETE FROM t USING rows AS p WHERE id = p.id

One look at the table and one commit in the place of as many as there are rows.  Only where that means the same: the condition
is the whole key, each row of parameters is about another one and moves none, so that no row can see what another has done; and
a comparison with a column of parameters casts as one with a literal does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from flightkalam.model.keys import combined, first_duplicate, key_hashes
from flightkalam.model.schema import Table
from flightkalam.session import reads, writes
from flightkalam.sql import statements as s
from flightkalam.sql.keyed import Keyed
from flightkalam.sql.text import quote_ident

# Fewer run one by one, each by the short way.
FEWEST = 4
# Kinds of key columns that compare with a column of their Arrow type as with a literal of it.
_KINDS = frozenset({"bool", "int", "text", "date", "timestamp", "timestamptz"})


def names(columns: int) -> list[str]:
    """What the columns of parameters are called: as no column of a table is."""
    return [f"$p{i + 1}" for i in range(columns)]


def quoted(columns: int) -> list[str]:
    return [quote_ident(name) for name in names(columns)]


def joins(keyed: Keyed, table: Table, bound: pa.Table) -> bool:
    """Whether the rows may be joined."""
    if bound.num_rows < FEWEST or keyed.parameters != bound.num_columns:
        return False
    key = set(table.schema.key)
    if _ids(table, (ident for ident, _ in keyed.key)) != key or _ids(table, (ident for ident, _ in keyed.assignments)) & key:
        return False
    places = []
    for ident, constant in keyed.key:
        column = table.schema.find(ident.value)
        if column is None or column.type.kind not in _KINDS:
            return False
        if constant.kind != "param":
            continue
        assert isinstance(constant.value, int)
        type_ = bound.schema.field(constant.value).type
        if pa.types.is_null(type_) or not writes.fits_directly(type_, column):
            return False
        places.append(constant.value)
    keys = [combined(bound.column(i)) for i in places]
    return bool(keys) and first_duplicate(key_hashes(keys), keys) is None


def _ids(table: Table, idents: Iterable[s.Ident]) -> set[int | None]:
    """Ids of columns; None stands for a name that is none."""
    found = (table.schema.find(ident.value) for ident in idents)
    return {None if column is None else column.id for column in found}


def joined(statement: s.Statement) -> s.Update | s.Delete:
    """The statement, its parameters named by `quoted`, over all rows of parameters."""
    rows = s.Slice(0, len(reads.PARAMETERS), reads.PARAMETERS)
    if isinstance(statement, s.Update):
        return replace(statement, from_=rows)
    assert isinstance(statement, s.Delete), "what is recognised as keyed and counts is one of the two"
    return replace(statement, using=rows)
