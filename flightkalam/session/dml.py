"""UPDATE, DELETE, INSERT … ON CONFLICT DO UPDATE and TRUNCATE: read, then append versions.

    compute   one SELECT over a snapshot yields the new versions in Arrow, the client's own expressions in it
    write     the door takes them if the scope has nothing newer than the snapshot …
    again     … else the statement runs once more with the scope's lock held, on a snapshot of everything

So ten `n = n + 1` at once give +10, and a statement that meets no other writer never waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.auth.authorise import Action
from flightkalam.errors import ConstraintViolation, InvalidValue, SqlSyntaxError, Unsupported
from flightkalam.model.keys import I64, combined, first_duplicate, key_hashes, matches
from flightkalam.model.schema import DELETED, POSITION, SEQ, SYSTEM_COLUMNS, Column, Table
from flightkalam.model.types import to_storage
from flightkalam.query.relation import arrow_columns
from flightkalam.session import reads, writes
from flightkalam.session.arriving import cell
from flightkalam.session.execution import Execution
from flightkalam.session.found import POSITION_OUT, Found, find, may_ask, positions
from flightkalam.session.intake import Intake, storage_batch
from flightkalam.session.writes import Written
from flightkalam.sql import statements as s
from flightkalam.sql.text import quote_ident
from flightkalam.table.mutation import HeadMoved, Mutation, OnConflict, check_rows, duplicate_key, last_or_first
from flightkalam.table.positions import Positions
from flightkalam.table.staging import Staged, stage

# Output names that no column of a client can have.
SEQ_OUT = '"$seq"'
CHANGED_OUT = '"$changed"'
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """New versions that a statement has computed.

    :param rows: rows of `schema.storage`, and `_deleted` when some are tombstones.
    :param supersedes: bool[rows]: the statement saw a visible row with this key.
    :param base: int64[rows]: `_seq` of that row; 0 where there was none, or one of the same transaction.
    :param count: rows that the client is told of.
    :param returned: rows that RETURNING shows, with their `_seq` where that is known already.
    :param at: where the superseded rows sit, when that is known of each.
    """

    rows: pa.Table
    supersedes: Mask
    base: I64
    count: int
    returned: pa.Table
    at: Positions | None = None


Compute = Callable[[Execution], Change]


def settle(e: Execution, table: Table, compute: Compute) -> Written:
    """Compute a change and commit it, alone if others write the same scope."""
    if e.transaction is not None:
        change = compute(e)
        _refuse_taken(e, table, change)
        return add_to_transaction(e, table, change)
    owner = e.owner(table)
    if not e.parts.writer.crowded(table, owner):
        with suppress(HeadMoved):
            return _attempt(e, table, compute)
    with e.parts.writer.alone(table, owner), e.renewed() as again:
        return _attempt(again, table, compute)


def _attempt(e: Execution, table: Table, compute: Compute) -> Written:
    seen = e.watermark
    change = compute(e)
    if not change.rows.num_rows:
        return Written(table, change.count, change.returned, 0)
    _check(e, table, change)
    e.cancel.check()
    with stage(table, e.parts.staging, change.rows) as staged:
        mutation = Mutation(table, e.owner(table), staged.rows, staged.segment, supersedes=change.supersedes, at=change.at)
        extra = e.extra(change.count)
        result = writes.written(e.parts.writer, staged, lambda: e.parts.writer.write([mutation], extra, seen))
    return Written(table, change.count, change.returned, result.first_seq)


def _living(change: Change) -> pa.Table:
    rows = change.rows
    if DELETED not in rows.schema.names:
        return rows
    return rows.filter(pc.invert(rows.column(DELETED))).drop_columns([DELETED])


def _check(e: Execution, table: Table, change: Change) -> None:
    live = _living(change)
    check_rows(table, live)
    writes.check_constraints(e, table, live)


def add_to_transaction(e: Execution, table: Table, change: Change) -> Written:
    """Inside a transaction a change waits in the overlay for COMMIT."""
    assert e.transaction is not None
    if change.rows.num_rows:
        _check(e, table, change)
        e.transaction.add(e.parts.writer, table, e.owner(table), change.rows, change.base)
    return Written(table, change.count, change.returned, 0)


def _refuse_taken(e: Execution, table: Table, change: Change) -> None:
    """What the write door would refuse: inside a transaction the statement itself must say that a key is taken.

    :raises DuplicateKey: a new key is visible to the transaction, or stands twice in the statement.
    """
    check_rows(table, _living(change))
    writes.one_per_key(table, change.rows, OnConflict.ERROR)
    new = change.rows.filter(pa.array(~change.supersedes)).select(table.schema.storage.names)
    if new.num_rows:
        at, _ = _visible(e, table, new)
        if len(at):
            raise duplicate_key(table, [combined(new.column(c.name)) for c in table.schema.key_columns], int(at[0]))


def insert(e: Execution, statement: s.Insert, parameters: pa.Table | None = None) -> Written:
    """An INSERT of every form."""
    conflict = statement.on_conflict
    if conflict is not None and conflict.action == "update":
        return upsert(e, statement, parameters)
    if e.transaction is not None:
        return _insert_in_transaction(e, statement, parameters)
    return writes.insert(e, statement, parameters)


def _insert_in_transaction(e: Execution, statement: s.Insert, parameters: pa.Table | None) -> Written:
    table = e.table(statement.table, Action.WRITE)
    with Intake(table, e.parts.staging, lambda b: storage_batch(table, b.columns)) as intake:
        staged = writes.new_rows(e, statement, table, intake, parameters)
        change = inserted(e, table, staged.rows, writes.on_conflict_of(statement))
        staged.keep()  # the overlay reads from what was staged; the next start sweeps it
    return add_to_transaction(e, table, change)


def inserted(e: Execution, table: Table, rows: pa.Table, on_conflict: OnConflict) -> Change:
    """What an insert means for a transaction: its keys are compared with the snapshot and the transaction's own rows."""
    check_rows(table, rows)
    rows = writes.one_per_key(table, rows, on_conflict)
    at, seqs = _visible(e, table, rows)
    if len(at) and on_conflict is OnConflict.ERROR:
        raise duplicate_key(table, [combined(rows.column(c.name)) for c in table.schema.key_columns], int(at[0]))
    supersedes, base = np.zeros(rows.num_rows, bool), np.zeros(rows.num_rows, np.int64)
    supersedes[at], base[at] = True, seqs
    if on_conflict is OnConflict.IGNORE:
        rows, base, supersedes = rows.filter(pa.array(~supersedes)), base[~supersedes], supersedes[~supersedes]
    return Change(rows, supersedes, base, rows.num_rows, rows)


def _visible(e: Execution, table: Table, rows: pa.Table) -> tuple[I64, I64]:
    """Which of the rows have keys that are visible, and the `_seq` of the rows that hold them."""
    keys = " AND ".join(f"o.{quote_ident(c.name)} = n.{quote_ident(c.name)}" for c in table.schema.key_columns)
    place = '"$row"'
    numbered = rows.append_column(plain(place), pa.array(np.arange(rows.num_rows)))
    query = (
        f"SELECT n.{place} AS {place}, o.{quote_ident(SEQ)} AS {SEQ_OUT} FROM "
        f"(SELECT {arrow_columns(table.schema.columns)}, {place} FROM {NEW_ROWS}) AS n "
        f"JOIN {reads.qualified(table)} AS o ON {keys}"
    )
    found = read(e, query, {NEW_ROWS: numbered})
    return found.column(plain(place)).to_numpy().astype(np.int64), seqs_of(found)


# -- UPDATE -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """The table that a statement writes to, as its text calls it."""

    table: Table
    alias: str | None

    @property
    def reference(self) -> str:
        """For FROM: without an alias of ours, so that `ns.t.column` keeps its meaning."""
        name = reads.qualified(self.table)
        return name if self.alias is None else f"{name} AS {quote_ident(self.alias)}"

    def column(self, name: str) -> str:
        return f"{quote_ident(self.alias or self.table.name)}.{quote_ident(name)}"


def target_of(e: Execution, name: s.Name, alias: s.Ident | None) -> Target:
    table = e.table(name, Action.WRITE)
    return Target(table, alias.value if alias is not None else None)


def assigned_columns(table: Table, assignments: Sequence[s.Assignment]) -> dict[int, str | None]:
    """Expression per column id; None for DEFAULT."""
    out: dict[int, str | None] = {}
    for a in assignments:
        name = a.column.value
        if name.lower() in SYSTEM_COLUMNS:
            raise InvalidValue(f'column "{name}" is set by the service and cannot be written', sqlstate="428C9")
        column = table.schema.column(name, table.qualified)
        if column.hidden:
            raise InvalidValue(f'column "{column.name}" is generated and cannot be written', sqlstate="428C9")
        if column.id in out:
            raise SqlSyntaxError(f'column "{column.name}" is assigned twice')
        out[column.id] = None if isinstance(a.value, s.Default) else a.value.text
    return out


def update(e: Execution, statement: s.Update, inputs: reads.Inputs | None = None) -> Written:
    """:param inputs: tables that the statement's text names beside those of the catalog."""
    target = target_of(e, statement.table, statement.alias)
    writes.refuse_update(target.table)
    assigned = assigned_columns(target.table, statement.assignments)
    source = target.reference + (f", {statement.from_.text}\n" if statement.from_ is not None else "")
    joined = statement.from_ is not None

    def query(asks: bool) -> str:
        return with_text(statement.with_clause) + _update_query(
            target, assigned, source, statement.where, joined=joined, asks=asks
        )

    return settle(e, target.table, lambda e: _updated(e, target.table, query, assigned, inputs))


def _update_query(
    target: Target,
    assigned: dict[int, str | None],
    source: str,
    where: s.Slice | None,
    *,
    joined: bool = False,
    asks: bool = False,
) -> str:
    """New rows: every column, `_seq`, the old values of what is assigned to, and whether anything changes.

    :param joined: a row may be found several times, so that those that change nothing must be seen too.
    :param asks: where the rows sit.
    """
    schema = target.table.schema
    cells = new_cells(target, assigned)
    cells += _place_cells(target, asks)
    cells += [f"{target.column(c.name)} AS {old_cell(c)}" for c in schema.columns if c.id in assigned]
    changed = " OR ".join(f"{new_cell(c)} IS DISTINCT FROM {old_cell(c)}" for c in schema.columns if c.id in assigned)
    inner = f"SELECT {', '.join(cells)} FROM {source}{_condition(target, where, source)}"
    return changed_rows(inner, changed or "false", joined=joined)


def _place_cells(target: Target, asks: bool) -> list[str]:
    """`_seq` of the row, and where it sits."""
    return [f"{target.column(SEQ)} AS {SEQ_OUT}", *([f"{target.column(POSITION)} AS {POSITION_OUT}"] if asks else [])]


def changed_rows(inner: str, changed: str, *, joined: bool) -> str:
    filtered = "" if joined else f" WHERE {changed}"
    return f"SELECT *, ({changed}) AS {CHANGED_OUT} FROM ({inner}) AS u{filtered}"


def _condition(target: Target, where: s.Slice | None, source: str) -> str:
    conditions = [f"({where.text}\n)"] if where is not None else []
    conditions += not_deleted(target, source, *conditions)
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def not_deleted(target: Target, *texts: str) -> list[str]:
    """A statement that asks for `_deleted` is shown tombstones (SEMANTICS §2); it must never write to one."""
    return [f"NOT {target.column(DELETED)}"] if any(DELETED in text.lower() for text in texts) else []


def new_cells(target: Target, assigned: dict[int, str | None]) -> list[str]:
    """Every column of the changed row: what is assigned to it, else what it held."""
    columns = target.table.schema.columns
    return [f"{cell(c, assigned[c.id]) if c.id in assigned else target.column(c.name)} AS {new_cell(c)}" for c in columns]


def new_cell(column: Column) -> str:
    """What a column's new value is called in a query of ours; `new_name` is the same without quotes."""
    return f'"$n{column.id}"'


def new_name(column: Column) -> str:
    return plain(new_cell(column))


def old_cell(column: Column) -> str:
    return f'"$o{column.id}"'


def with_text(clause: s.Slice | None) -> str:
    return f"{clause.text} " if clause is not None else ""


Query = Callable[[bool], str]  # given whether it shall ask for positions


def _find(e: Execution, table: Table, query: Query, inputs: reads.Inputs | None) -> Found:
    asks = may_ask(e, table, query(False))
    return find(e, query(asks), inputs, positions=asks)


def _updated(e: Execution, table: Table, query: Query, assigned: dict[int, str | None], inputs: reads.Inputs | None) -> Change:
    """Run an update's query and make versions of its rows."""
    answer = _find(e, table, query, inputs)
    found = answer.rows
    old_names = [plain(old_cell(c) if c.id in assigned else new_cell(c)) for c in table.schema.key_columns]
    old = key_table(table, [found.column(name) for name in old_names])
    refuse_twice(table, old)
    changed = found.column(plain(CHANGED_OUT))
    found, old = found.filter(changed), old.filter(changed)
    rows = storage_rows(table, found, [new_name(c) for c in table.schema.columns])
    n = rows.num_rows
    check_rows(table, rows)
    if not any(c.id in assigned for c in table.schema.key_columns):
        seqs = seqs_of(found)
        return Change(rows, np.ones(n, bool), seqs, n, rows, positions(e, table, replace(answer, rows=found), seqs))
    return _moved(table, rows, old, seqs_of(found))


def _moved(table: Table, rows: pa.Table, old_keys: pa.Table, seqs: I64) -> Change:
    """An update of keys: the old ones are deleted, unless a row of the same statement takes their place."""
    schema = table.schema
    vacated = [combined(old_keys.column(c.name)) for c in schema.key_columns]
    taken = [combined(rows.column(c.name)) for c in schema.key_columns]
    new, old = matches(taken, vacated)
    left = np.ones(len(seqs), bool)
    left[old] = False
    supersedes, base = np.zeros(len(seqs), bool), np.zeros(len(seqs), np.int64)
    supersedes[new], base[new] = True, seqs[old]
    versions = pa.concat_tables([marked(rows, False), tombstones(table, old_keys.filter(pa.array(left)))])
    supersedes = np.concatenate([supersedes, np.ones(int(left.sum()), bool)])
    return Change(versions, supersedes, np.concatenate([base, seqs[left]]), rows.num_rows, rows)


def seqs_of(found: pa.Table) -> I64:
    """`_seq` of the rows found; 0 for rows of the same transaction, which have none yet."""
    return pc.fill_null(found.column(plain(SEQ_OUT)), 0).to_numpy()


def key_table(table: Table, columns: Sequence[pa.ChunkedArray]) -> pa.Table:
    arrays = [to_storage(a, c.type, c.name) for a, c in zip(columns, table.schema.key_columns, strict=True)]
    return pa.table(arrays, names=[c.name for c in table.schema.key_columns])


def tombstones(table: Table, keys: pa.Table) -> pa.Table:
    """Tombstones of the given keys: the key, NULL in every other column, `_deleted`."""
    names = set(keys.schema.names)
    arrays = [keys.column(c.name) if c.name in names else pa.nulls(keys.num_rows, c.type.storage) for c in table.schema.columns]
    return marked(pa.table(arrays, names=table.schema.storage.names).cast(table.schema.storage), True)


def marked(rows: pa.Table, deleted: bool) -> pa.Table:
    flags = pa.repeat(pa.scalar(deleted), rows.num_rows)
    return rows.append_column(pa.field(DELETED, pa.bool_(), nullable=False), flags)


def refuse_twice(table: Table, keys: pa.Table) -> None:
    columns = [combined(c) for c in keys.columns]
    if first_duplicate(key_hashes(columns), columns) is not None:
        raise ConstraintViolation(
            f'a row of table "{table.qualified}" is matched by more than one source row; make the join unique',
            sqlstate="21000",
        )


def plain(quoted: str) -> str:
    return quoted.strip('"')


def read(e: Execution, query: str, inputs: reads.Inputs | None = None) -> pa.Table:
    return find(e, query, inputs).rows


def storage_rows(table: Table, found: pa.Table, names: Sequence[str]) -> pa.Table:
    """Columns `names` of a result as rows of the table's storage columns."""
    selected = found.select(list(names)).combine_chunks()
    batches = [storage_batch(table, b.columns) for b in selected.to_batches()]
    return pa.Table.from_batches(batches, table.schema.storage)


# -- DELETE, TRUNCATE -------------------------------------------------------------------------------------------------


def delete(e: Execution, statement: s.Delete, inputs: reads.Inputs | None = None) -> Written:
    """:param inputs: as for `update`."""
    target = target_of(e, statement.table, statement.alias)
    source = target.reference + (f", {statement.using.text}\n" if statement.using is not None else "")
    whole = statement.returning is not None

    def query(asks: bool) -> str:
        return with_text(statement.with_clause) + _delete_query(target, source, statement.where, whole, asks)

    return settle(e, target.table, lambda e: _deleted(e, target.table, query, whole, inputs))


def truncate(e: Execution, statement: s.Truncate) -> Written:
    """An atomic delete of everything that the statement may see."""
    target = target_of(e, statement.table, None)

    def query(asks: bool) -> str:
        return _delete_query(target, target.reference, None, False, asks)

    return settle(e, target.table, lambda e: _deleted(e, target.table, query, False))


def _delete_query(target: Target, source: str, where: s.Slice | None, whole: bool, asks: bool) -> str:
    columns = target.table.schema.columns if whole else target.table.schema.key_columns
    cells = [f"{target.column(c.name)} AS {new_cell(c)}" for c in columns]
    cells += _place_cells(target, asks)
    return f"SELECT {', '.join(cells)} FROM {source}{_condition(target, where, source)}"


def _deleted(e: Execution, table: Table, query: Query, whole: bool, inputs: reads.Inputs | None = None) -> Change:
    answer = _find(e, table, query, inputs)
    found = _each_once(table, answer.rows)
    keys = key_table(table, [found.column(new_name(c)) for c in table.schema.key_columns])
    returned = table.schema.storage.empty_table()
    if whole:
        returned = storage_rows(table, found, [new_name(c) for c in table.schema.columns])
        returned = returned.append_column(SEQ, found.column(plain(SEQ_OUT)))
    n, seqs = keys.num_rows, seqs_of(found)
    at = positions(e, table, replace(answer, rows=found), seqs)
    return Change(tombstones(table, keys), np.ones(n, bool), seqs, n, returned, at)


def _each_once(table: Table, found: pa.Table) -> pa.Table:
    """A join may find a row several times; it is deleted once."""
    keys = key_table(table, [found.column(new_name(c)) for c in table.schema.key_columns])
    columns = [combined(c) for c in keys.columns]
    if first_duplicate(key_hashes(columns), columns) is None:
        return found
    return last_or_first(found, columns, keep_last=False)


# -- INSERT … ON CONFLICT DO UPDATE -----------------------------------------------------------------------------------


def upsert(e: Execution, statement: s.Insert, parameters: pa.Table | None = None) -> Written:
    """New keys are inserted, taken ones updated by the assignments; `excluded` is the row that was to be inserted."""
    conflict = statement.on_conflict
    assert conflict is not None and conflict.action == "update"
    target = target_of(e, statement.table, statement.alias)
    table = target.table
    writes.refuse_update(table)
    assigned = assigned_columns(table, conflict.assignments)
    if any(c.id in assigned for c in table.schema.key_columns):
        raise Unsupported("ON CONFLICT DO UPDATE cannot change the primary key")
    with Intake(table, e.parts.staging, lambda b: storage_batch(table, b.columns)) as intake:
        staged = writes.new_rows(e, statement, table, intake, parameters)
        writes.refuse_duplicates(table, staged.rows)
        query = _conflict_query(target, assigned, conflict.where)
        return settle(e, table, lambda e: _upserted(e, table, query, assigned, staged))


def _new_rows_sql(table: Table) -> str:
    """The rows to insert, typed as the table's own columns."""
    return f"(SELECT {arrow_columns(table.schema.columns)} FROM {NEW_ROWS})"


NEW_ROWS = '"$rows"'


def _conflict_query(target: Target, assigned: dict[int, str | None], where: s.Slice | None) -> str:
    """The update of taken keys.  `excluded` is one column, a struct, so that a bare name means the target's column."""
    table = target.table
    name = quote_ident(target.alias or table.name)
    packed = ", ".join(f"{quote_ident(c.name)} := n.{quote_ident(c.name)}" for c in table.schema.columns)
    old = ", ".join(f"o.{quote_ident(c.name)} AS {quote_ident(c.name)}" for c in table.schema.columns)
    keys = " AND ".join(f"o.{quote_ident(c.name)} = n.{quote_ident(c.name)}" for c in table.schema.key_columns)
    joined = (
        f"(SELECT {old}, o.{quote_ident(SEQ)} AS {quote_ident(SEQ)}, struct_pack({packed}) AS excluded "
        f"FROM {reads.qualified(table)} AS o JOIN {_new_rows_sql(table)} AS n ON {keys}) AS {name}"
    )
    return _update_query(target, assigned, joined, where)


def _upserted(e: Execution, table: Table, query: str, assigned: dict[int, str | None], staged: Staged) -> Change:
    inputs = {NEW_ROWS: staged.rows}
    found = read(e, query, inputs)
    updated = storage_rows(table, found, [new_name(c) for c in table.schema.columns])
    keys = ", ".join(quote_ident(c.name) for c in table.schema.key_columns)
    fresh_query = f"SELECT n.* FROM {_new_rows_sql(table)} AS n ANTI JOIN {reads.qualified(table)} AS o USING ({keys})"
    fresh = storage_rows(table, read(e, fresh_query, inputs), table.schema.storage.names)
    rows = pa.concat_tables([fresh, updated])
    supersedes = np.concatenate([np.zeros(fresh.num_rows, bool), np.ones(updated.num_rows, bool)])
    base = np.concatenate([np.zeros(fresh.num_rows, np.int64), seqs_of(found)])
    return Change(rows, supersedes, base, rows.num_rows, rows)
