"""Arrow batches from a client, cast to a table's storage columns.

Columns are matched by name; missing ones take their default or NULL, extra ones are refused by name.
"""

from __future__ import annotations

import pyarrow as pa

from flightkalam.catalog.edits import GENERATED_ID
from flightkalam.errors import InvalidValue
from flightkalam.model.schema import SYSTEM_COLUMNS, Column, Table
from flightkalam.session import reads
from flightkalam.session.execution import Execution
from flightkalam.session.intake import storage_batch


def refuse_system_columns(schema: pa.Schema) -> None:
    """A client never supplies what only a commit may set (T-53)."""
    for field in schema:
        if field.name.lower() in SYSTEM_COLUMNS:
            raise InvalidValue(f'column "{field.name}" is set by the service and cannot be written', sqlstate="428C9")


class Arriving:
    """Casts batches of an upload to a table's storage columns."""

    def __init__(self, e: Execution, table: Table, schema: pa.Schema) -> None:
        refuse_system_columns(schema)
        self._e = e
        self._table = table
        self._places: dict[int, int] = {}
        for i, field in enumerate(schema):
            column = table.schema.find(field.name)
            if column is None or column.hidden:
                raise InvalidValue(f'column "{field.name}" is not in table "{table.qualified}"', sqlstate="42703")
            if column.id in self._places:
                raise InvalidValue(f'column "{field.name}" arrives twice', sqlstate="42701")
            self._places[column.id] = i
        self._missing = [c for c in table.schema.columns if c.id not in self._places]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self._check_json(batch)
        defaults = self._defaults(batch.num_rows)
        arrays = [
            batch.column(self._places[c.id]) if c.id in self._places else defaults[c.id] for c in self._table.schema.columns
        ]
        return storage_batch(self._table, arrays)

    def _check_json(self, batch: pa.RecordBatch) -> None:
        """A JSON column takes JSON only, however it arrives."""
        for column in self._table.schema.columns:
            place = self._places.get(column.id)
            if place is None or column.type.kind != "json":
                continue
            texts = pa.table({"v": batch.column(place)})
            query = f"SELECT count(*) AS n FROM {reads.PARAMETERS} WHERE NOT json_valid(v)"
            bad = reads.table(self._e, query, {reads.PARAMETERS: texts}).column("n")[0].as_py()
            if bad:
                raise InvalidValue(f'column "{column.name}" is JSON and {bad} value(s) are not', sqlstate="22P02")

    def _defaults(self, n: int) -> dict[int, pa.Array]:
        """Values of the columns that the upload lacks."""
        out: dict[int, pa.Array] = {}
        asked: list[Column] = []
        for column in self._missing:
            if column.default is None:
                out[column.id] = pa.nulls(n, column.type.storage)
            elif column.default == GENERATED_ID:
                out[column.id] = pa.array(self._e.parts.ids.ids(n))
            else:
                asked.append(column)
        if asked:
            cells = ", ".join(f"{cell(c, None)} AS c{c.id}" for c in asked)
            table = reads.table(self._e, f"SELECT {cells} FROM range({n})")
            out.update({c.id: table.column(f"c{c.id}").combine_chunks() for c in asked})
        return out


def cell(column: Column, text: str | None) -> str:
    """One value of a new row as SQL: an expression under the column's type, else its default, else NULL."""
    # The line break ends a comment that the client's text may end with.
    return f"CAST(({text or column.default or 'NULL'}\n) AS {column.type.engine})"
