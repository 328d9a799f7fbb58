"""MERGE: each WHEN clause is a query over the join of source and target, settled as one change (`dml`)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.model.keys import I64
from flightkalam.model.schema import SEQ, Table
from flightkalam.session import dml, reads, writes
from flightkalam.session.arriving import cell
from flightkalam.session.execution import Execution
from flightkalam.session.writes import Written
from flightkalam.sql import statements as s
from flightkalam.sql.lexer import Kind, lex
from flightkalam.sql.text import quote_ident


def merge(e: Execution, statement: s.Merge) -> Written:
    """Each WHEN clause is a query over the join of source and target, without the rows that an earlier clause took."""
    target = dml.target_of(e, statement.target, statement.alias)
    if any(clause.action == "update" for clause in statement.clauses):
        writes.refuse_update(target.table)
    _refuse_key_assignment(target.table, statement)
    return dml.settle(e, target.table, lambda e: _merged(e, target, statement))


def _refuse_key_assignment(table: Table, statement: s.Merge) -> None:
    for clause in statement.clauses:
        if clause.action == "update" and clause.whole_row is None:
            assigned = dml.assigned_columns(table, clause.assignments)
            if any(c.id in assigned for c in table.schema.key_columns):
                raise Unsupported("MERGE cannot change the primary key of a row; delete it and insert another")


def _merged(e: Execution, target: dml.Target, statement: s.Merge) -> dml.Change:
    table = target.table
    updated: list[pa.Table] = []
    deleted: list[pa.Table] = []
    gone: list[pa.Table] = []  # the rows behind `deleted`, for RETURNING
    inserted: list[pa.Table] = []
    bases: dict[str, list[I64]] = {"update": [], "delete": []}
    touched: list[pa.Table] = []
    for i, clause in enumerate(statement.clauses):
        if clause.action == "nothing":
            continue
        found = dml.read(e, _clause_query(e, target, statement, i))
        if clause.action == "insert":
            inserted.append(dml.storage_rows(table, found, [dml.new_name(c) for c in table.schema.columns]))
            continue
        keys = dml.key_table(table, [found.column(dml.new_name(c)) for c in table.schema.key_columns])
        touched.append(keys)
        if clause.action == "update":
            found = found.filter(found.column(dml.plain(dml.CHANGED_OUT)))
        bases[clause.action].append(dml.seqs_of(found))
        if clause.action == "delete":
            deleted.append(dml.tombstones(table, keys))
            if statement.returning is not None:
                gone.append(dml.storage_rows(table, found, [dml.new_name(c) for c in table.schema.columns]))
        else:
            updated.append(dml.storage_rows(table, found, [dml.new_name(c) for c in table.schema.columns]))
    if touched:
        dml.refuse_twice(table, pa.concat_tables(touched))
    empty = table.schema.storage.empty_table()
    fresh = pa.concat_tables([empty, *inserted])
    changed = pa.concat_tables([empty, *updated])
    rows = pa.concat_tables([dml.marked(fresh, False), dml.marked(changed, False), *deleted])
    supersedes = np.ones(rows.num_rows, bool)
    supersedes[: fresh.num_rows] = False
    base = np.concatenate([np.zeros(fresh.num_rows, np.int64), *bases["update"], *bases["delete"]])
    return dml.Change(rows, supersedes, base, rows.num_rows, pa.concat_tables([fresh, changed, *gone]))


def _clause_query(e: Execution, target: dml.Target, statement: s.Merge, i: int) -> str:
    clause, table = statement.clauses[i], target.table
    with_ = dml.with_text(statement.with_clause)
    earlier = [c for c in statement.clauses[:i] if c.matched == clause.matched]
    conditions = [f"NOT coalesce(({c.condition.text if c.condition is not None else 'true'}\n), false)" for c in earlier]
    if clause.condition is not None:
        conditions.append(f"({clause.condition.text}\n)")
    on = _merge_condition(target, statement)
    using = ", ".join(quote_ident(c.value) for c in statement.using)
    join = f"ON {on}" if on is not None else f"USING ({using})"
    source = statement.source.text + "\n"
    if clause.matched == "not_matched_by_source":
        conditions += dml.not_deleted(target, *conditions, on or "")
    if clause.matched == "matched":
        body = f"FROM {target.reference} JOIN {source} {join}"
    elif clause.matched == "not_matched":
        body = f"FROM {source} ANTI JOIN {target.reference} {join}"
    else:
        body = f"FROM {target.reference} ANTI JOIN {source} {join}"
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT {_clause_cells(e, target, statement, clause)} {body}{where}"
    if clause.action != "update":
        return with_ + query
    # A row that would stay as it is gets no version.
    changed = " OR ".join(f"{dml.new_cell(c)} IS DISTINCT FROM {dml.old_cell(c)}" for c in table.schema.columns)
    return with_ + dml.changed_rows(query, changed, joined=True)


def _merge_condition(target: dml.Target, statement: s.Merge) -> str | None:
    if statement.on is None:
        return None
    asked = [c.condition.text for c in statement.clauses if c.condition is not None]
    on = f"({statement.on.text}\n)"
    return " AND ".join([on, *dml.not_deleted(target, on, *asked)])


def _clause_cells(e: Execution, target: dml.Target, statement: s.Merge, clause: s.MergeClause) -> str:
    """What a clause selects: the new row of an insert, the changed row of an update, the key of a delete."""
    schema = target.table.schema
    if clause.action == "insert":
        given = _insert_values(e, target.table, statement, clause)
        return ", ".join(f"{cell(c, given.get(c.id))} AS {dml.new_cell(c)}" for c in schema.columns)
    if clause.action == "delete":
        wanted = schema.key_columns if statement.returning is None else schema.columns
        cells = [f"{target.column(c.name)} AS {dml.new_cell(c)}" for c in wanted]
    else:
        assigned = _whole_row(e, target.table, statement, clause) or dml.assigned_columns(target.table, clause.assignments)
        cells = dml.new_cells(target, assigned)
        cells += [f"{target.column(c.name)} AS {dml.old_cell(c)}" for c in schema.columns]
    return ", ".join([*cells, f"{target.column(SEQ)} AS {dml.SEQ_OUT}"])


def _insert_values(e: Execution, table: Table, statement: s.Merge, clause: s.MergeClause) -> dict[int, str | None]:
    whole = _whole_row(e, table, statement, clause)
    if whole is not None:
        return whole
    columns = writes.target_columns(table, clause.columns) if clause.columns is not None else list(table.schema.visible)
    values = clause.values or ()
    if values and len(values) != len(columns):
        raise SqlSyntaxError(f"INSERT of MERGE has {len(values)} values for {len(columns)} columns; give one for each")
    return {c.id: v.text for c, v in zip(columns, values, strict=False) if not isinstance(v, s.Default)}


def _whole_row(e: Execution, table: Table, statement: s.Merge, clause: s.MergeClause) -> dict[int, str | None] | None:
    """`UPDATE SET *` and `INSERT *`: the source's columns, by position or by name; the key stays out of an update."""
    if clause.whole_row is None:
        return None
    described = reads.describe(e, dml.with_text(statement.with_clause) + f"SELECT * FROM {statement.source.text}\n")
    names = [c.name for c in described]
    if clause.whole_row == "name":
        pairs = [(table.schema.column(n, table.qualified), n) for n in names]
    else:
        if len(names) != len(table.schema.visible):
            raise SqlSyntaxError(
                f'the source of MERGE has {len(names)} columns and table "{table.qualified}" {len(table.schema.visible)}'
            )
        pairs = list(zip(table.schema.visible, names, strict=True))
    source = _source_name(statement)
    key = {c.id for c in table.schema.key_columns} if clause.action == "update" else set()
    return {c.id: f"{source}.{quote_ident(n)}" for c, n in pairs if c.id not in key}


def _source_name(statement: s.Merge) -> str:
    """What the source is called: the name at the end of its text, before a list of column names if it has one."""
    tokens = lex(statement.source.text)
    last = len(tokens) - 1
    if tokens.symbol(last) == ")":
        last = next(opening for opening, closing in tokens.closes.items() if closing == last) - 1
    if last < 0 or tokens.kinds[last] not in (Kind.WORD, Kind.QUOTED):
        raise Unsupported("MERGE that takes whole rows needs a name for its source: USING (SELECT …) AS s")
    return tokens.text[tokens.starts[last] : tokens.ends[last]]
