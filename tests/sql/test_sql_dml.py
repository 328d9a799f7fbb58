"""Writes are cut exactly at their own clause keywords, and every piece is the client's own text."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_plain import plain, slices

from flightkalam.errors import SqlSyntaxError, Unsupported
from flightkalam.sql import parse
from flightkalam.sql.statements import Insert, Slice, Update, ValuesSource


def values(*rows: list[str], text: str) -> dict[str, Any]:
    return {"is": "ValuesSource", "rows": list(rows), "slice": text}


def query(text: str) -> dict[str, Any]:
    return {"is": "QuerySource", "slice": text}


def assign(column: str, value: str) -> dict[str, str]:
    return {"is": "Assignment", "column": column, "value": value}


INSERTS = [
    ("INSERT INTO t VALUES (1, 'a')", {"source": values(["1", "'a'"], text="VALUES (1, 'a')")}),
    ("insert into n.t (a, \"B\") values (1, default)", {
        "table": "n.t", "columns": ["a", "B"], "source": values(["1", "<default>"], text="values (1, default)")}),
    ("INSERT INTO flightkalam.n.t VALUES (1)", {"table": "flightkalam.n.t", "source": values(["1"], text="VALUES (1)")}),
    ("INSERT INTO t VALUES (f(1, 2), [3, 4]), ('),(', {'a': 1, 'b': 2})", {
        "source": values(["f(1, 2)", "[3, 4]"], ["'),('", "{'a': 1, 'b': 2}"],
                         text="VALUES (f(1, 2), [3, 4]), ('),(', {'a': 1, 'b': 2})")}),
    ("INSERT INTO t VALUES (1 /* , */, 2 -- )\n), (3, 4,),", {
        "source": values(["1", "2"], ["3", "4"], text="VALUES (1 /* , */, 2 -- )\n), (3, 4,)")}),
    ("INSERT INTO t VALUES (1) UNION ALL SELECT 2", {"source": query("VALUES (1) UNION ALL SELECT 2")}),
    ("INSERT INTO t (values) VALUES (1)", {"columns": ["values"], "source": values(["1"], text="VALUES (1)")}),
    ("INSERT INTO t (VALUES (1))", {"source": query("(VALUES (1))")}),
    ("INSERT INTO t ((SELECT 1))", {"source": query("((SELECT 1))")}),
    ("INSERT INTO t (a) (SELECT 1)", {"columns": ["a"], "source": query("(SELECT 1)")}),
    ("INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x", {"source": query("WITH x AS (SELECT 1) SELECT * FROM x")}),
    ("INSERT INTO t FROM x", {"source": query("FROM x")}),
    ("INSERT INTO t DEFAULT VALUES", {"source": {"is": "DefaultValues"}}),
    ("INSERT INTO t BY NAME SELECT 1 AS a", {"by_name": True, "source": query("SELECT 1 AS a")}),
    ("INSERT INTO t BY POSITION SELECT 1", {"source": query("SELECT 1")}),
    ("INSERT OR REPLACE INTO t VALUES (1)", {"or_action": "replace", "source": values(["1"], text="VALUES (1)")}),
    ("INSERT OR IGNORE INTO t FROM x", {"or_action": "ignore", "source": query("FROM x")}),
    ("INSERT INTO t AS x FROM y", {"alias": "x", "source": query("FROM y")}),
    ("INSERT INTO t SELECT a.x FROM a JOIN b ON a.x = b.x ON CONFLICT DO NOTHING", {
        "source": query("SELECT a.x FROM a JOIN b ON a.x = b.x"),
        "on_conflict": {"is": "OnConflict", "target": None, "action": "nothing"}}),
    ("INSERT INTO t SELECT 1 FROM a JOIN b ON conflict = 1", {
        "source": query("SELECT 1 FROM a JOIN b ON conflict = 1")}),
    ("INSERT INTO t SELECT 1 FROM a JOIN b ON conflict(x)", {"source": query("SELECT 1 FROM a JOIN b ON conflict(x)")}),
    ("INSERT INTO t VALUES (1) "
     "ON CONFLICT (a, b) DO UPDATE SET c = excluded.c + 1, d = DEFAULT WHERE t.c < 5 RETURNING *", {
        "source": values(["1"], text="VALUES (1)"), "returning": "*",
        "on_conflict": {"is": "OnConflict", "target": ["a", "b"], "action": "update", "where": "t.c < 5",
                        "assignments": [assign("c", "excluded.c + 1"), assign("d", "<default>")]}}),
    ("INSERT INTO t SELECT s.returning FROM s RETURNING a AS returning", {
        "source": query("SELECT s.returning FROM s"), "returning": "a AS returning"}),
    ("INSERT INTO t SELECT 1 AS returning, 2 AS case FROM s RETURNING a", {
        "source": query("SELECT 1 AS returning, 2 AS case FROM s"), "returning": "a"}),
    ("WITH x AS (SELECT 1), y(a) AS MATERIALIZED (SELECT 2) INSERT INTO t FROM x", {
        "source": query("FROM x"), "with_clause": "WITH x AS (SELECT 1), y(a) AS MATERIALIZED (SELECT 2)"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), INSERTS)
def test_insert(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": "Insert", "table": "t"} | expected


UPDATES = [
    ("UPDATE t SET a = 1", {"assignments": [assign("a", "1")]}),
    ("UPDATE n.t AS x SET a = x.b + 1, \"C d\" = DEFAULT WHERE x.k = 'WHERE'", {
        "table": "n.t", "alias": "x", "assignments": [assign("a", "x.b + 1"), assign("C d", "<default>")],
        "where": "x.k = 'WHERE'"}),
    ("UPDATE t x SET a = 1", {"alias": "x", "assignments": [assign("a", "1")]}),
    ("UPDATE t SET (a, b) = (f(1, 2), DEFAULT), c = 3", {
        "assignments": [assign("a", "f(1, 2)"), assign("b", "<default>"), assign("c", "3")]}),
    ("UPDATE t SET (a, b) = ROW(1, 2)", {"assignments": [assign("a", "1"), assign("b", "2")]}),
    ("UPDATE t SET a = b IS DISTINCT FROM c FROM s WHERE t.k = s.k", {
        "assignments": [assign("a", "b IS DISTINCT FROM c")], "from_": "s", "where": "t.k = s.k"}),
    ("UPDATE t SET a = b IS NOT DISTINCT FROM c", {"assignments": [assign("a", "b IS NOT DISTINCT FROM c")]}),
    ("UPDATE t SET a = EXTRACT(year FROM d), b = SUBSTRING(s FROM 2), c = TRIM(BOTH ' ' FROM s) FROM u", {
        "assignments": [assign("a", "EXTRACT(year FROM d)"), assign("b", "SUBSTRING(s FROM 2)"),
                        assign("c", "TRIM(BOTH ' ' FROM s)")], "from_": "u"}),
    ("UPDATE t SET a = CASE WHEN b IS DISTINCT FROM 1 THEN CASE b WHEN 2 THEN 3 END ELSE 4 END WHERE c", {
        "assignments": [assign("a", "CASE WHEN b IS DISTINCT FROM 1 THEN CASE b WHEN 2 THEN 3 END ELSE 4 END")],
        "where": "c"}),
    ("UPDATE t SET a = (SELECT sum(x) FILTER (WHERE y) FROM s WHERE z), b = [1, 2][1] WHERE s.where = 1", {
        "assignments": [assign("a", "(SELECT sum(x) FILTER (WHERE y) FROM s WHERE z)"), assign("b", "[1, 2][1]")],
        "where": "s.where = 1"}),
    ("UPDATE t SET a = s.x FROM s JOIN u ON s.k = u.k, LATERAL (SELECT 1 WHERE true) v WHERE true RETURNING t.a AS where", {
        "assignments": [assign("a", "s.x")], "from_": "s JOIN u ON s.k = u.k, LATERAL (SELECT 1 WHERE true) v",
        "where": "true", "returning": "t.a AS where"}),
    ("UPDATE t SET a = $from WHERE b = $where", {"assignments": [assign("a", "$from")], "where": "b = $where"}),
    ("WITH x AS (SELECT 1 AS a) UPDATE t SET a = x.a FROM x", {
        "assignments": [assign("a", "x.a")], "from_": "x", "with_clause": "WITH x AS (SELECT 1 AS a)"}),
    ("UPDATE t /* SET b = 2 */ SET a = -1 -- WHERE false", {"assignments": [assign("a", "-1")]}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), UPDATES)
def test_update(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": "Update", "table": "t"} | expected


DELETES = [
    ("DELETE FROM t", {}),
    ("DELETE FROM n.t WHERE a = 1 AND b IN (SELECT b FROM s WHERE c)", {
        "table": "n.t", "where": "a = 1 AND b IN (SELECT b FROM s WHERE c)"}),
    ("DELETE FROM t AS x USING a, b AS y WHERE x.k = y.k RETURNING *", {
        "alias": "x", "using": "a, b AS y", "where": "x.k = y.k", "returning": "*"}),
    ('DELETE FROM t "user"', {"alias": "user"}),
    ("WITH RECURSIVE x(n) AS (SELECT 1) DELETE FROM t USING x", {
        "using": "x", "with_clause": "WITH RECURSIVE x(n) AS (SELECT 1)"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), DELETES)
def test_delete(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": "Delete", "table": "t"} | expected


def clause(matched: str, action: str, **more: Any) -> dict[str, Any]:
    return {"is": "MergeClause", "matched": matched, "action": action} | more


MERGES = [
    ("MERGE INTO t USING s ON t.k = s.k WHEN MATCHED THEN DELETE", {
        "source": "s", "on": "t.k = s.k", "clauses": [clause("matched", "delete")]}),
    ("MERGE INTO n.t AS x USING (SELECT 1 AS k) AS s USING (k, l) WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT", {
        "target": "n.t", "alias": "x", "source": "(SELECT 1 AS k) AS s", "using": ["k", "l"],
        "clauses": [clause("matched", "update", whole_row="position"),
                    clause("not_matched", "insert", whole_row="position")]}),
    ("MERGE INTO t USING s ON CASE WHEN t.k = s.k THEN true END WHEN MATCHED AND CASE WHEN a THEN b END THEN UPDATE SET "
     "a = CASE WHEN s.a THEN 1 END, b = DEFAULT WHEN NOT MATCHED BY TARGET AND s.c THEN "
     "INSERT (k, a) VALUES (s.k, DEFAULT) "
     "WHEN NOT MATCHED BY SOURCE THEN DO NOTHING RETURNING merge_action", {
        "source": "s", "on": "CASE WHEN t.k = s.k THEN true END", "returning": "merge_action",
        "clauses": [
            clause("matched", "update", condition="CASE WHEN a THEN b END",
                   assignments=[assign("a", "CASE WHEN s.a THEN 1 END"), assign("b", "<default>")]),
            clause("not_matched", "insert", condition="s.c", columns=["k", "a"], values=["s.k", "<default>"]),
            clause("not_matched_by_source", "nothing")]}),
    ("MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *", {
        "source": "s", "on": "true", "clauses": [clause("matched", "update", whole_row="position"),
                                                 clause("not_matched", "insert", whole_row="position")]}),
    ("MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME *", {
        "source": "s", "on": "true", "clauses": [clause("matched", "update", whole_row="name"),
                                                 clause("not_matched", "insert", whole_row="name")]}),
    ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT DEFAULT VALUES", {
        "source": "s", "on": "true", "clauses": [clause("not_matched", "insert", values=[])]}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MERGES)
def test_merge(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == {"is": "Merge", "target": "t"} | expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TRUNCATE t", {"is": "Truncate", "table": "t"}),
        ("TRUNCATE TABLE n.t", {"is": "Truncate", "table": "n.t"}),
        ("ERASE FROM n.t WHERE a = 1 OR b", {"is": "Erase", "table": "n.t", "where": "a = 1 OR b"}),
    ],
)
def test_other_writes(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("INSERT t VALUES (1)", "expected INTO"),
        ("INSERT INTO t", "expected VALUES, a query"),
        ("INSERT INTO VALUES (1)", "expected a column"),
        ("INSERT INTO select VALUES (1)", "reserved word"),
        ("INSERT INTO other.n.t VALUES (1)", "only catalog is flightkalam"),
        ("INSERT INTO 'file.parquet' VALUES (1)", "expected a table name"),
        ("INSERT INTO t VALUES", "row of values"),
        ("INSERT INTO t VALUES ()", "expected a value"),
        ("INSERT INTO t VALUES (1,,2)", "expected a value"),
        ("INSERT INTO t VALUES (1, 2), (3)", "row 1 has 2 values and row 2 has 1"),
        ("INSERT INTO t BY NAME (a) SELECT 1", "leave the list out"),
        ("INSERT INTO t BY NAME VALUES (1)", "BY NAME needs a query"),
        ("INSERT OR REPLACE INTO t VALUES (1) ON CONFLICT DO NOTHING", "exclude each other"),
        ("INSERT OR FAIL INTO t VALUES (1)", "REPLACE or IGNORE"),
        ("UPDATE t", "expected SET"),
        ("UPDATE t SET", "a column to set"),
        ("UPDATE t SET a", 'expected "="'),
        ("UPDATE t SET a = WHERE b", "expected a value"),
        ("UPDATE t SET a = 1,", "a column to set"),
        ("UPDATE t SET a = 1 WHERE", "something after WHERE"),
        ("UPDATE t SET (a, b) = (1)", "2 columns are set to 1 values"),
        ("UPDATE t SET a = 1 AS b", "AS is not expected"),
        ("DELETE t", "expected FROM"),
        ("DELETE FROM t WHERE a RETURNING", "something after RETURNING"),
        ("DELETE FROM t WHERE a = 1 AS x", "AS is not expected"),
        ("DELETE FROM t, s", "should end here"),
        ("ERASE FROM t", "says which rows"),
        ("MERGE INTO t USING s ON true", "expected WHEN MATCHED"),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN DELETE", "expected INSERT"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN INSERT", "expected UPDATE, DELETE"),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1)", "2 columns and 1 values"),
    ],
)
def test_malformed_writes_name_the_place(text: str, says: str) -> None:
    with pytest.raises(SqlSyntaxError) as caught:
        parse(text)
    assert says in caught.value.message and "line 1, column" in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("UPDATE t SET t.a = 1", "qualified column"),
        ("UPDATE t SET a[1] = 1", "part of one"),
        ("UPDATE t SET (a, b) = (SELECT 1, 2)", "SET (…) = (query)"),
        ("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING", "ON CONSTRAINT"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE b DO NOTHING", "ON CONFLICT (…) WHERE"),
        ("MERGE INTO t USING a JOIN b ON a.k = b.k ON t.k = a.k WHEN MATCHED THEN DELETE", "a join in MERGE"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN ERROR", "THEN ERROR"),
    ],
)
def test_known_but_refused_writes_are_named(text: str, says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse(text)
    assert says in caught.value.message


@pytest.mark.parametrize("text", [text for text, _ in [*INSERTS, *UPDATES, *DELETES, *MERGES]])
def test_every_slice_is_the_clients_text_at_its_place(text: str) -> None:
    found = list(slices(parse(f"\n /* é */ {text} ;")))
    assert found
    for part in found:
        cut = f"\n /* é */ {text} ;"[part.start : part.end]
        assert cut == (part.text if isinstance(part, Slice) else str(part))


NOISE = st.sampled_from(
    ["'it''s ; WHERE'", "$$ FROM ( $$", "$q$ ' $q$", r"e'\' RETURNING'", '"from"', '"a "" WHERE"', "/* WHERE ( */ 1",
     "1 -- FROM '\n", "(SELECT 1 FROM s WHERE true)", "CASE WHEN a IS DISTINCT FROM 1 THEN 'END' ELSE 2 END", "[1, (2), 3]",
     "{'from': 1, 'b': [2]}", "x.where", "s.from", "f(a, 'RETURNING')", "EXTRACT(year FROM d)", "naïve", "?", "$1", "$from"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(NOISE, min_size=1, max_size=4), NOISE, NOISE)
def test_update_reassembles_from_its_slices(noise: list[str], where: str, returning: str) -> None:
    head = "UPDATE t SET "
    sets = ", ".join(f"c{i} = {value}" for i, value in enumerate(noise))
    text = f"{head}{sets} WHERE {where} RETURNING {returning}"
    found = parse(text)
    assert isinstance(found, Update) and found.where is not None and found.returning is not None
    assert [a.column.value for a in found.assignments] == [f"c{i}" for i in range(len(noise))]
    cut = [*(a.value for a in found.assignments), found.where, found.returning]
    for part, wrote in zip(cut, [*noise, where, returning], strict=True):
        # Comments and spaces at the ends belong to no slice; all else does.
        assert text[part.start : part.end] == part.text and part.text in wrote
    gaps = [text[a.end : b.start] for a, b in pairwise(cut)]
    assert text == text[: cut[0].start] + "".join(p.text + g for p, g in zip(cut, [*gaps, text[cut[-1].end :]], strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(NOISE, min_size=2, max_size=2), min_size=1, max_size=4))
def test_values_are_cut_at_their_own_commas(rows: list[list[str]]) -> None:
    text = "INSERT INTO t VALUES " + ",".join(f"({a},{b})" for a, b in rows)
    found = parse(text)
    assert isinstance(found, Insert) and isinstance(found.source, ValuesSource)
    assert len(found.source.rows) == len(rows)
    for row, wrote in zip(plain(found.source.rows), rows, strict=True):
        for value, original in zip(row, wrote, strict=True):
            assert value in original and value.strip()


def test_ten_thousand_rows_are_cut_in_well_under_half_a_second() -> None:
    rows = ",".join(f"({i}, 'name {i}', {i}.5, TRUE, NULL)" for i in range(10_000))
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        found = parse(f"INSERT INTO t VALUES {rows}")
        best = min(best, time.perf_counter() - began)
    assert isinstance(found, Insert) and isinstance(found.source, ValuesSource) and len(found.source.rows) == 10_000
    assert best < 0.45
