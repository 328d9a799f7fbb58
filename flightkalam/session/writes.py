"""INSERT and CREATE TABLE AS: the engine evaluates the new rows in Arrow, the write door takes them.

INSERT INTO t (b, a) VALUES (1, DEFAULT)
    ->  SELECT CAST(<default of a> AS T), CAST(1 AS U) …      the client's own expressions, each under its column's type
    ->  Mutation                                              one atomic commit
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from flightkalam.auth.authorise import Action
from flightkalam.catalog import edits
from flightkalam.catalog.edits import NewColumn, NewTable
from flightkalam.catalog.state import CatalogState, Change
from flightkalam.errors import (
    CheckViolation,
    ConstraintViolation,
    DuplicateObject,
    InternalError,
    InvalidValue,
    KalamError,
    SqlSyntaxError,
)
from flightkalam.model.keys import combined, first_duplicate, key_hashes, key_text
from flightkalam.model.schema import HIDDEN_KEY, SYSTEM_FIELDS, Column, Table, TableKind
from flightkalam.model.types import from_engine
from flightkalam.session import ddl, reads
from flightkalam.session.arriving import Arriving, cell
from flightkalam.session.execution import Execution
from flightkalam.session.intake import Intake, storage_batch
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident
from flightkalam.storage.kv import Batch
from flightkalam.table.mutate import Writer
from flightkalam.table.mutation import Committed, HeadMoved, Mutation, OnConflict, SchemaMoved, duplicate_key, last_or_first
from flightkalam.table.scan import Figures, ScanPlan
from flightkalam.table.staging import Staged

_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Written:
    """What a statement wrote.

    :param count: rows that the client is told of.
    :param rows: the new versions, storage columns; for RETURNING.
    :param first_seq: `_seq` of the first of them.
    """

    table: Table
    count: int
    rows: pa.Table
    first_seq: int


def again_if_moved(run: Callable[[], int]) -> int:
    """Plan and run once more when a table changed between plan and commit."""
    for _ in range(_RETRIES):
        try:
            return run()
        except SchemaMoved:
            continue
    return run()


def insert(e: Execution, statement: s.Insert, parameters: pa.Table | None = None) -> Written:
    """Run an INSERT."""
    table = e.table(statement.table, Action.WRITE)
    with Intake(table, e.parts.staging, lambda b: storage_batch(table, b.columns)) as intake:
        staged = new_rows(e, statement, table, intake, parameters)
        return commit_rows(e, table, staged, on_conflict_of(statement))


def new_rows(e: Execution, statement: s.Insert, table: Table, intake: Intake, parameters: pa.Table | None) -> Staged:
    """Evaluate the rows that an INSERT states."""
    if statement.on_conflict is not None:
        _check_conflict_target(table, statement.on_conflict)
    targets = _targets(table, statement)
    arriving = _direct(e, table, statement, targets, parameters)
    if arriving is not None and parameters is not None:
        return intake.take_storage(map(arriving, parameters.combine_chunks().to_batches()))
    query = source_query(e, table, statement, targets, parameters is not None)
    inputs = {} if parameters is None else {reads.PARAMETERS: parameters}
    return intake.take(reads.batches(e, query, inputs))


def one_per_key(table: Table, rows: pa.Table, on_conflict: OnConflict) -> pa.Table:
    """The rows of an insert with each key once: the first is kept, the last of an upsert.

    :raises DuplicateKey: an insert that may not meet its own keys.
    """
    columns = [combined(rows.column(c.name)) for c in table.schema.key_columns]
    twice = first_duplicate(key_hashes(columns), columns)
    if twice is None:
        return rows
    if on_conflict is OnConflict.ERROR:
        raise duplicate_key(table, columns, twice[0])
    return last_or_first(rows, columns, keep_last=on_conflict is OnConflict.UPDATE)


def _check_conflict_target(table: Table, conflict: s.OnConflict) -> None:
    if conflict.target is None:
        return
    named = {i.value.lower() for i in conflict.target}
    if named != {c.name.lower() for c in table.schema.key_columns}:
        raise InvalidValue(
            f'ON CONFLICT must name the primary key of table "{table.qualified}": '
            f"({', '.join(c.name for c in table.schema.key_columns)})",
            sqlstate="42P10",
        )


def refuse_duplicates(table: Table, rows: pa.Table) -> None:
    """:raises ConstraintViolation: one key twice among the rows of an upsert: which of them should win?"""
    columns = [combined(rows.column(c.name)) for c in table.schema.key_columns]
    if any(c.null_count for c in columns):
        return  # refused as a NULL key by the write door
    twice = first_duplicate(key_hashes(columns), columns)
    if twice is not None:
        raise ConstraintViolation(
            f'ON CONFLICT DO UPDATE meets the key {key_text(columns, twice[0])} of table "{table.qualified}" twice in one '
            "statement; give each key once",
            sqlstate="21000",
        )


def takes_rows(statement: s.Insert) -> bool:
    """Whether rows of parameters can be inserted as one set: an INSERT with one row of VALUES."""
    return isinstance(statement.source, s.ValuesSource) and len(statement.source.rows) == 1 and not statement.returning


# Arrow types whose values mean the same to the engine's cast and to Arrow's, by the family of the column.
_SAME: dict[str, Callable[[pa.DataType], bool]] = {
    "bool": pa.types.is_boolean,
    "int": pa.types.is_integer,
    "float": lambda t: pa.types.is_floating(t),
    "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    "uuid": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    "blob": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
    "date": pa.types.is_date,
    "time": pa.types.is_time,
    "timestamp": lambda t: pa.types.is_timestamp(t) and t.tz is None,
    "timestamptz": lambda t: pa.types.is_timestamp(t) and t.tz is not None,
}


def _direct(
    e: Execution, table: Table, statement: s.Insert, targets: list[Column] | None, parameters: pa.Table | None
) -> Arriving | None:
    """The short way of `INSERT … VALUES (?, ?)`: bare parameters of the columns' own types need no engine."""
    if parameters is None or targets is None or not isinstance(statement.source, s.ValuesSource):
        return None
    row = statement.source.rows[0]
    places = {name: i for i, name in enumerate(parameters.schema.names)}
    taken: list[int] = []
    for value, column in zip(row, targets, strict=False):
        place = None if isinstance(value, s.Default) else places.get(value.text.strip("() "))
        if place is None or not fits_directly(parameters.schema.field(place).type, column):
            return None
        taken.append(place)
    if len(row) != len(targets) or taken != list(range(parameters.num_columns)):
        return None
    fields = [pa.field(c.name, parameters.schema.field(i).type) for i, c in enumerate(targets)]
    return Arriving(e, table, pa.schema(fields))


def fits_directly(type_: pa.DataType, column: Column) -> bool:
    same = _SAME.get(column.type.kind)
    return pa.types.is_null(type_) or (same is not None and same(type_))


def refuse_update(table: Table) -> None:
    if table.kind is TableKind.STREAM:
        raise InvalidValue(
            f'the rows of STREAM table "{table.qualified}" cannot be updated; DELETE and INSERT, or '
            "INSERT OR REPLACE whole rows",
            sqlstate="42809",
        )


def on_conflict_of(statement: s.Insert) -> OnConflict:
    if statement.or_action == "replace":
        return OnConflict.UPDATE
    if statement.or_action == "ignore" or statement.on_conflict is not None:
        return OnConflict.IGNORE
    return OnConflict.ERROR


def _targets(table: Table, statement: s.Insert) -> list[Column] | None:
    """The columns that the statement names, in its order; None for BY NAME without a list."""
    if statement.columns is None:
        return None if statement.by_name else list(table.schema.visible)
    return target_columns(table, statement.columns)


def target_columns(table: Table, names: Sequence[s.Ident]) -> list[Column]:
    """The columns of an INSERT's list."""
    found: list[Column] = []
    for ident in names:
        column = table.schema.column(ident.value, table.qualified)
        if column.hidden:
            raise InvalidValue(f'column "{column.name}" is generated and cannot be written', sqlstate="428C9")
        if column in found:
            raise InvalidValue(f'column "{column.name}" is named twice', sqlstate="42701")
        found.append(column)
    return found


def generates_key(table: Table) -> bool:
    """Whether keys are drawn for each row, so that none can be taken already."""
    key = table.schema.key_columns
    return len(key) == 1 and key[0].name == HIDDEN_KEY


def source_query(e: Execution, table: Table, statement: s.Insert, targets: list[Column] | None, bound: bool) -> str:
    """The query that yields the new rows: every stored column, in schema order."""
    with_ = f"{statement.with_clause.text} " if statement.with_clause is not None else ""
    source = statement.source
    if isinstance(source, s.DefaultValues):
        return f"SELECT {new_row(table, {})}"
    if isinstance(source, s.ValuesSource):
        return with_ + _values_query(table, source, targets or list(table.schema.visible), bound)
    text = source.slice.text
    described = reads.describe(e, with_ + text)
    if targets is None:
        targets = [table.schema.column(c.name, table.qualified) for c in described]
    _check_arity(len(described), targets, table)
    names = [f"c{i}" for i in range(len(targets))]
    given = {c.id: f"q.{n}" for c, n in zip(targets, names, strict=True)}
    return f"{with_}SELECT {new_row(table, given)} FROM (\n{text}\n) AS q({', '.join(names)})"


def _values_query(table: Table, source: s.ValuesSource, targets: list[Column], bound: bool) -> str:
    """Each value is cast on its own, as it would be in a row of its own; defaults are evaluated once for all rows."""
    if bound:
        return f"SELECT {new_row(table, _cells(table, source.rows[0], targets))} FROM {reads.PARAMETERS}"
    rows = []
    for row in source.rows:
        cells = _cells(table, row, targets)
        rows.append("(" + ", ".join(cell(c, cells.get(c.id)) for c in targets) + ")")
    names = [f"c{i}" for i in range(len(targets))]
    given = {c.id: f"v.{n}" for c, n in zip(targets, names, strict=True)}
    return f"SELECT {new_row(table, given)} FROM (VALUES {', '.join(rows)}) AS v({', '.join(names)})"


def _cells(table: Table, row: Sequence[s.Value], targets: list[Column]) -> dict[int, str]:
    _check_arity(len(row), targets, table)
    return {c.id: v.text for c, v in zip(targets, row, strict=True) if not isinstance(v, s.Default)}


def _check_arity(count: int, targets: Sequence[Column], table: Table) -> None:
    if count != len(targets):
        raise SqlSyntaxError(
            f'INSERT into "{table.qualified}" has {count} values for {len(targets)} target columns; give one for each'
        )


def new_row(table: Table, given: dict[int, str]) -> str:
    """The select list of a new row: each column's value under its type, its default, or NULL.

    :param given: expressions by column id.
    """
    return ", ".join(f"{cell(c, given.get(c.id))} AS {quote_ident(c.name)}" for c in table.schema.columns)


def commit_rows(e: Execution, table: Table, staged: Staged, on_conflict: OnConflict) -> Written:
    """Hand staged rows to the write door."""
    check_constraints(e, table, staged.rows)
    e.cancel.check()
    mutation = Mutation(table, e.owner(table), staged.rows, staged.segment, on_conflict, generates_key(table))
    result = written(e.parts.writer, staged, lambda: e.parts.writer.write([mutation], e.extra()))
    return Written(table, result.rows[0], result.tables[0], result.first_seq)


def written(writer: Writer, staged: Staged, write: Callable[[], Committed]) -> Committed:
    """Commit and keep the staged files that the log names.

    Only a refusal by a store that still writes says that nothing was committed.  After anything else the log may name them:
    they stay for the next start, which knows (T-15).
    """
    try:
        result = write()
    except BaseException as e:
        if not isinstance(e, (KalamError, HeadMoved)) or isinstance(e, InternalError) or not writer.healthy:
            staged.keep()
        raise
    staged.committed(result)
    return result


def check_constraints(e: Execution, table: Table, rows: pa.Table) -> None:
    """:raises CheckViolation: a row for which a CHECK is false (NULL passes, as in SQL)."""
    if not table.checks or not rows.num_rows:
        return
    n = rows.num_rows
    hot = rows.append_column(SYSTEM_FIELDS[1], pa.repeat(pa.scalar(False), n))
    hot = hot.append_column(SYSTEM_FIELDS[0], pa.repeat(pa.scalar(0), n).cast(pa.int64()))
    plan = ScanPlan(table.schema, hot, (), (), Figures(table.qualified, "", 0, 0, 0, 0, n, 0))
    for name, text in table.checks:
        bad = reads.count_where(e, table, plan, f"NOT ({text}\n)")
        if bad:
            raise CheckViolation(f'{bad} new row(s) of table "{table.qualified}" break CHECK "{name}": {text}')


# -- CREATE TABLE AS --------------------------------------------------------------------------------------------------


def create_table_as(e: Execution, statement: s.CreateTable) -> int:
    """Create a table from a query's rows, in one commit; returns how many rows."""
    assert statement.as_query is not None
    namespace, name = e.new_name(statement.name)
    query = statement.as_query.text
    columns = tuple(NewColumn(c.name, from_engine(c.type)) for c in reads.describe(e, query))
    new = NewTable(
        namespace,
        name,
        columns,
        e.identity.user_id,
        TableKind(statement.kind) if statement.kind else None,
        tuple(i.value for i in statement.primary_key),
        (),
        statement.options,
        hidden_key=True,
    )
    ddl.require_create(e, new)
    if e.state.find(namespace, name) is not None:
        if statement.if_not_exists:
            return 0
        raise DuplicateObject(f'"{namespace}.{name}" already exists')
    with NewTableWrite(e, new) as write:
        names = [f"c{i}" for i in range(len(columns))]
        given = {c.id: f"q.{n}" for c, n in zip(write.table.schema.visible, names, strict=True)}
        wrapped = f"SELECT {new_row(write.table, given)} FROM (\n{query}\n) AS q({', '.join(names)})"
        return write.commit(reads.batches(e, wrapped), lambda b: storage_batch(write.table, b.columns))


class NewTableWrite:
    """A table that appears together with its first rows, in one commit; optionally in the place of another.

    :param replaces: the table that goes in the same commit.
    """

    def __init__(self, e: Execution, new: NewTable, replaces: Table | None = None) -> None:
        self._e = e
        self._new = new
        self._replaces = replaces
        self._table_id = e.parts.catalog.new_table_id()
        self._now = e.parts.clock.now_us()
        table = self._choose(e.state).table
        assert table is not None
        self.table = table
        self._intake: Intake | None = None

    def __enter__(self) -> NewTableWrite:
        return self

    def __exit__(self, *_: object) -> None:
        if self._intake is not None:
            self._intake.__exit__(None, None, None)

    def _choose(self, state: CatalogState) -> Change:
        if self._replaces is None:
            return edits.create_table(state, self._new, table_id=self._table_id, now_us=self._now)
        return edits.replace_table(state, self._replaces.id, self._new, table_id=self._table_id, now_us=self._now)

    def commit(
        self,
        batches: Iterator[pa.RecordBatch],
        cast: Callable[[pa.RecordBatch], pa.RecordBatch],
        on_conflict: OnConflict = OnConflict.ERROR,
    ) -> int:
        """Stage the rows, then create the table and write them, all or nothing."""
        e, table = self._e, self.table
        e.refuse_shared_target(table)
        self._intake = Intake(table, e.parts.staging, cast)
        staged = self._intake.take(batches)
        mutation = Mutation(table, e.owner(table), staged.rows, staged.segment, on_conflict, generates_key(table))
        chosen: list[Change] = []

        def create(batch: Batch) -> None:
            change = self._choose(e.parts.catalog.state)
            e.parts.catalog.install(change, batch)
            ddl.drop_rows(e, batch, change)
            e.record(batch)
            chosen.append(change)

        result = written(
            e.parts.writer,
            staged,
            lambda: e.parts.writer.write_new(mutation, create, lambda: e.parts.catalog.publish(chosen[0])),
        )
        ddl.clean_up(e, chosen[0])
        return result.rows[0]
