"""Statements about one row by its key, without the engine: names, rights and values here, the row in `table/keyed.py`.

What they answer, count and refuse is what the ordinary way does; whatever might differ (a view, a transaction, a CHECK, a
value that needs a cast) is left to it: `None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.auth.authorise import Action
from flightkalam.catalog.names import fold
from flightkalam.catalog.providers import SYSTEM
from flightkalam.catalog.state import split_name
from flightkalam.model.schema import Column, Table, TableKind
from flightkalam.query.compute import ResultColumn
from flightkalam.query.result import to_schema, wire_schema
from flightkalam.session.dml import tombstones
from flightkalam.session.execution import Execution
from flightkalam.session.keyed_values import Bound, Doubtful, added, adds, parameter, same, typed
from flightkalam.session.outcome import Rows, rows_of
from flightkalam.session.writes import Written
from flightkalam.sql.keyed import Constant, Keyed, Sum, same_name
from flightkalam.sql.statements import Ident
from flightkalam.table import keyed as rows_by_key
from flightkalam.table.mutation import check_rows


@dataclass(frozen=True, slots=True)
class Call:
    """A recognised statement and the values of its parameters; without them it can only be described."""

    statement: Keyed
    values: tuple[Bound, ...] | None


def call(statement: Keyed, bound: pa.Table | None) -> Call | None:
    """None where the parameters are not one row of as many values as it has."""
    given = 0 if bound is None else bound.num_columns
    if given != statement.parameters or (bound is not None and given and bound.num_rows != 1):
        return None
    return Call(statement, () if bound is None else tuple(parameter(c[0]) for c in bound.columns))


# -- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Resolved:
    """What a statement means.

    :param key: the value of each key column, in the key's order; empty while the parameters are not known.
    :param output: columns that are answered.
    :param assigned: column id -> its new value, or from which column it is computed.
    """

    table: Table
    key: tuple[pa.Scalar, ...]
    output: tuple[Column, ...]
    assigned: tuple[tuple[Column, _New], ...]


@dataclass(frozen=True, slots=True)
class _New:
    """:param source: the column that `value` is added to, `sign` times; None when `value` stands alone."""

    value: pa.Scalar
    source: Column | None = None
    sign: int = 1


def _resolve(e: Execution, call: Call) -> _Resolved | None:
    statement = call.statement
    table = _table(e, statement)
    if table is None:
        return None
    try:
        output = _output(table, statement.output)
        key = _key(table, statement, call.values)
        assigned = () if call.values is None else _assigned(table, statement, call.values)
    except Doubtful:
        return None
    return _Resolved(table, key, output, assigned)


def _table(e: Execution, statement: Keyed) -> Table | None:
    """The table, which the caller may read or write as the statement does."""
    if e.transaction is not None:
        return None
    namespace, name = split_name(statement.parts, e.namespace)
    if fold(namespace) == SYSTEM or e.parts.providers.find(namespace, name) is not None:
        return None
    found = e.state.find(namespace, name)
    if not isinstance(found, Table) or found.kind is TableKind.STREAM:
        return None
    writes = statement.action != "select"
    if writes and found.checks:
        return None
    e.require(Action.WRITE if writes else Action.READ, found, ".".join(statement.parts))
    return found


def _column(table: Table, ident: Ident) -> Column:
    found = table.schema.find(ident.value)
    if found is None or found.hidden or not same_name(found.name, ident.value):
        raise Doubtful
    return found


def _output(table: Table, output: Sequence[Ident] | None) -> tuple[Column, ...]:
    columns = table.schema.visible if output is None else tuple(_column(table, i) for i in output)
    if any(c.type.kind == "interval" for c in columns):
        raise Doubtful
    return columns


def _value(constant: Constant, column: Column, values: tuple[Bound, ...]) -> pa.Scalar:
    if constant.kind == "default":
        if column.default is not None:
            raise Doubtful
        return typed(Constant("null"), column)
    if constant.kind != "param":
        return typed(constant, column)
    assert isinstance(constant.value, int)
    return typed(values[constant.value], column)


def _key(table: Table, statement: Keyed, values: tuple[Bound, ...] | None) -> tuple[pa.Scalar, ...]:
    """The whole key and nothing else, or the statement is not one of ours."""
    given = {_column(table, ident).id: constant for ident, constant in statement.key}
    if given.keys() != set(table.schema.key):
        raise Doubtful
    if values is None:
        return ()
    found = tuple(_value(given[c.id], c, values) for c in table.schema.key_columns)
    if not all(v.is_valid for v in found):
        raise Doubtful
    return found


def _assigned(table: Table, statement: Keyed, values: tuple[Bound, ...]) -> tuple[tuple[Column, _New], ...]:
    return tuple((_target(table, ident), _new(table, _column(table, ident), v, values)) for ident, v in statement.assignments)


def _target(table: Table, ident: Ident) -> Column:
    column = _column(table, ident)
    if column.id in table.schema.key:
        raise Doubtful
    return column


def _new(table: Table, column: Column, value: Constant | Sum, values: tuple[Bound, ...]) -> _New:
    if isinstance(value, Constant):
        return _New(_value(value, column, values))
    source = _column(table, value.column)
    summand = _value(value.constant, column, values)
    if source.type.name != column.type.name or not adds(column) or not summand.is_valid:
        raise Doubtful
    return _New(summand, source, value.sign)


# -- reading ----------------------------------------------------------------------------------------------------------


def schema(e: Execution, call: Call) -> pa.Schema | None:
    """What is announced for its rows."""
    resolved = _resolve(e, call)
    return None if resolved is None or not resolved.output else _wire(resolved.output)


def _wire(columns: Sequence[Column]) -> pa.Schema:
    return wire_schema([ResultColumn(c.name, c.type.engine) for c in columns])


def rows(e: Execution, call: Call) -> Rows | None:
    """Its answer in rows: of SELECT, or of RETURNING once the change is made."""
    if call.statement.action == "select":
        resolved = _resolve(e, call)
        if resolved is None:
            return None
        found = rows_by_key.read(e.snapshot(resolved.table), resolved.key)
        return _answer(resolved, found)
    done = _changed(e, call)
    return None if done is None else _answer(done[0], done[1].rows)


def _answer(resolved: _Resolved, found: pa.Table | None) -> Rows:
    announced = _wire(resolved.output)
    if found is None or not found.num_rows:
        return rows_of(announced.empty_table())
    batch = found.select([c.name for c in resolved.output]).combine_chunks().to_batches()[0]
    return rows_of(pa.Table.from_batches([to_schema(batch, announced)]))


# -- writing ----------------------------------------------------------------------------------------------------------


def write(e: Execution, call: Call) -> Written | None:
    """Run an UPDATE or DELETE."""
    done = _changed(e, call)
    return None if done is None else done[1]


def _changed(e: Execution, call: Call) -> tuple[_Resolved, Written] | None:
    """The change that is made, with the rows that RETURNING shows."""
    resolved = _resolve(e, call)
    if resolved is None:
        return None
    table, deletes = resolved.table, call.statement.action == "delete"
    shown: list[pa.Table] = []

    def compute(row: pa.Table) -> pa.Table | None:
        new = _deleted(table, row) if deletes else _updated(resolved, row)
        if new is not None:
            shown.append(row if deletes else new)
        return new

    _ = e.watermark  # pinned: the files of what is read stay
    try:
        done = rows_by_key.change(e.parts.writer, table, e.owner(table), resolved.key, compute, lambda: e.extra(1))
    except Doubtful:
        return None
    if done is None:
        return resolved, Written(table, 0, table.schema.storage.empty_table(), 0)
    return resolved, Written(table, 1, shown[0], done.first_seq)


def _deleted(table: Table, row: pa.Table) -> pa.Table:
    return tombstones(table, row.select([c.name for c in table.schema.key_columns]))


def _as(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == type_ else column.cast(type_)


def _updated(resolved: _Resolved, row: pa.Table) -> pa.Table | None:
    """The next version of a row; None when nothing changes."""
    table, storage = resolved.table, resolved.table.schema.storage
    new: dict[str, pa.Array] = {}
    for column, assigned in resolved.assigned:
        old, value = row.column(column.name)[0], assigned.value
        if assigned.source is not None:
            value = added(row.column(assigned.source.name)[0], assigned.sign, value, column)
        if not same(old, value):
            new[column.name] = pa.array([value], column.type.storage)
    if not new:
        return None
    columns = [new[f.name] if f.name in new else _as(row.column(f.name), f.type) for f in storage]
    changed = pa.Table.from_arrays(columns, schema=storage)
    check_rows(table, changed)
    return changed
