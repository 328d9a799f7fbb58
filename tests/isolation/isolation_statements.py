"""Statements that look for a neighbour's rows: generated, from plain questions to plain attacks.

Nothing in them may differ by itself from one run to the next (no clock, no chance, no `_seq`), so that two services which
differ only in what the neighbour has must answer alike.
"""

from __future__ import annotations

import random

NEIGHBOUR = "victim"
ME = "mallory"

_TABLES = (
    "notes", "main.notes", '"notes"', "flightkalam.main.notes", '"main"."NOTES"', "Notes", "events", "main.events",
    "my_notes", "my_union", "pairs",
)  # fmt: skip
_HIDDEN = ("vault", "main.vault", '"vault"', "vault_view", "flightkalam.main.vault")
_SYSTEM = (
    "system.users", "system.audit_log", "system.jobs", "system.tables", "system.batches", "system.manifests",
    "information_schema.tables", "information_schema.columns", "information_schema.schemata", "pg_catalog.pg_class",
    "duckdb_tables()", "sqlite_master", "duckdb_settings()", "pragma_database_list", "main.sqlite_schema",
)  # fmt: skip
_INNER = (
    '"__kalam_t0"', "__kalam_a0", '"__kalam_t0_hot"', '"$rows"', '"$parameters"', "read_parquet('{cold}')", "'{cold}'",
    "parquet_scan('{cold}')", "read_blob('{cold}')", "glob('**')", "read_text('store/CURRENT')", "arrow_scan(1, 2, 3)",
    "parquet_metadata('{cold}')", "query('SELECT * FROM notes')", "query_table('notes')", "seq_scan(notes)",
)  # fmt: skip
_COLUMNS = (
    "id",
    "text",
    "n",
    "*",
    "id, text",
    "count(*)",
    "max(text)",
    "min(id)",
    "sum(n)",
    "count(DISTINCT text)",
    "list(text ORDER BY id)",
)
_CONDITIONS = (
    "id = {i}", "id IN ({i}, {j})", "id > {i}", "text LIKE '%CANARY%'", "text = 'CANARY-1'", "text >= 'A'", "n IS NULL",
    "true", "1 = 1 OR id = {i}", "NOT (id < {i})", "id BETWEEN {i} AND {j}", "_deleted", "_deleted IS NOT NULL", "_seq > 0",
    "EXISTS (SELECT 1 FROM {t} AS q WHERE q.id = {i})", "text ~ 'CANARY.*'", "starts_with(text, 'CANARY')",
    "id = (SELECT max(id) FROM {t})", "text IN (SELECT text FROM {t})", "current_user = 'victim'", "id % 7 = {j} % 7",
)  # fmt: skip
_NOISE = ("", " /* AS USER 'victim' */", " -- victim\n", "\n\t", " /* ' */", "\u00a0")
_VALUES = ("'mine'", "'it''s'", "'🦆 é'", "NULL", "' AS USER ''victim'' '", "'x\\y'", "repeat('a', 300)", "'%_'")


class Statements:
    """:param as_user: what the sender puts at the end of everything, when they act for `ME`."""

    def __init__(self, seed: int, cold: str, as_user: str = "") -> None:
        self._r = random.Random(seed)
        self._cold = cold
        self._as_user = as_user

    def one(self) -> str:
        made = self._r.choices(
            [self.query, self.write, self.hostile, self.explain, self.key, self.view, self.hidden, self.system],
            [30, 16, 14, 8, 10, 4, 8, 10],
        )[0]()
        return made + self._noise() + ("" if "AS USER" in made else self._as_user)

    def _pick(self, of: tuple[str, ...]) -> str:
        return self._r.choice(of)

    def _noise(self) -> str:
        return self._pick(_NOISE) if self._r.random() < 0.2 else ""

    def _table(self) -> str:
        return self._pick(_TABLES)

    def _number(self) -> int:
        return self._r.choice([0, 1, 2, 3, 5, 7, 50, 99, 100, 101, 150, 199, 1_000, -1])

    def _condition(self, table: str) -> str:
        text = self._pick(_CONDITIONS).format(i=self._number(), j=self._number(), t=table)
        if self._r.random() < 0.2:
            text = f"({text}) {self._pick(('AND', 'OR'))} {self._pick(('id < 120', 'n > 0', 'text IS NOT NULL'))}"
        return text

    def query(self) -> str:
        table, other = self._table(), self._table()
        columns, where = self._pick(_COLUMNS), self._condition(table)
        return self._r.choice(
            [
                f"SELECT {columns} FROM {table} WHERE {where}",
                f"SELECT {columns} FROM {table}",
                f"FROM {table} WHERE {where}",
                f"WITH c AS (SELECT * FROM {table} WHERE {where}) SELECT {columns} FROM c",
                f"SELECT a.id FROM {table} a JOIN {other} b USING (id)",
                f"SELECT a.id, b.id FROM {table} a FULL JOIN {other} b ON a.text = b.text",
                f"SELECT id FROM {table} WHERE {where} UNION SELECT id FROM {other}",
                f"SELECT id FROM {table} EXCEPT SELECT id FROM {other}",
                f"SELECT id, row_number() OVER (ORDER BY id) FROM {table} WHERE {where}",
                f"SELECT n, count(*) FROM {table} GROUP BY ALL",
                f"SELECT id FROM {table} ORDER BY id DESC LIMIT {self._number() % 10}",
                f"SELECT (SELECT {self._pick(('max(text)', 'count(*)', 'min(id)'))} FROM {table}) AS x",
                f"SELECT x.id FROM (SELECT * FROM {table}) AS x, {other} AS y WHERE x.id = y.id",
                f"SELECT id FROM {table} TABLESAMPLE 100 PERCENT (system)",
                f"SELECT id, _deleted FROM {table} WHERE _seq > 0",
                f"DESCRIBE SELECT * FROM {table}",
                f"SELECT columns.* FROM {table} AS columns",
                f"SELECT DISTINCT ON (n) n, id FROM {table} ORDER BY n, id",
            ]
        )

    def write(self) -> str:
        table = self._r.choice(["notes", "main.notes", "events", "pairs"])
        i, value, where = self._number(), self._pick(_VALUES), self._condition(table)
        return self._r.choice(
            [
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, {value}, {i})",
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, {value}, 1) ON CONFLICT DO NOTHING",
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, {value}, 1) ON CONFLICT (id) DO UPDATE SET text = excluded.text",
                f"INSERT OR REPLACE INTO {table} (id, text, n) VALUES ({i}, {value}, {i})",
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, {value}, 0) RETURNING *",
                f"INSERT INTO {table} SELECT id + 1000, text, n FROM {self._table()} WHERE {where}",
                f"UPDATE {table} SET text = {value} WHERE {where}",
                f"UPDATE {table} SET n = n + 1 WHERE {where} RETURNING id, text",
                f"UPDATE {table} SET id = {i} WHERE id = {self._number()}",
                f"DELETE FROM {table} WHERE {where}",
                f"DELETE FROM {table} WHERE id = {i} RETURNING *",
                f"MERGE INTO {table} AS t USING (SELECT * FROM {self._table()}) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = 5",
                f"TRUNCATE TABLE {table}",
            ]
        )

    def key(self) -> str:
        """The neighbour's keys: taken by them, free for me."""
        table, i = self._r.choice(["notes", "events", "pairs"]), self._r.randrange(100, 200)
        return self._r.choice(
            [
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, 'mine', 1)",
                f"SELECT * FROM {table} WHERE id = {i}",
                f"UPDATE {table} SET text = 'taken over' WHERE id = {i}",
                f"DELETE FROM {table} WHERE id = {i}",
                f"INSERT INTO {table} (id, text, n) VALUES ({i}, 'a', 1), ({i}, 'b', 2)",
            ]
        )

    def explain(self) -> str:
        form = self._pick(("EXPLAIN", "EXPLAIN (FORMAT JSON)", "EXPLAIN ANALYZE"))
        table = self._table()
        return f"{form} SELECT {self._pick(_COLUMNS)} FROM {table} WHERE {self._condition(table)}"

    def view(self) -> str:
        table = self._table()
        return self._r.choice(
            [
                f"CREATE VIEW stolen AS SELECT * FROM {table}",
                "SELECT * FROM stolen",
                "SHOW CREATE TABLE my_notes",
                f"SHOW CREATE TABLE {table}",
                f"DESCRIBE {table}",
                "SHOW TABLES",
                "SHOW NAMESPACES",
                f"CREATE USER TABLE IF NOT EXISTS copy AS SELECT * FROM {table}",
                "SELECT count(*) FROM copy",
            ]
        )

    def hidden(self) -> str:
        table, where = self._pick(_HIDDEN), self._condition("notes")
        return self._r.choice(
            [
                f"SELECT * FROM {table}",
                f"SELECT id FROM notes WHERE id IN (SELECT id FROM {table})",
                f"WITH c AS (FROM {table}) SELECT * FROM c",
                f"INSERT INTO notes SELECT * FROM {table}",
                f"INSERT INTO {table} (id) VALUES (1)",
                f"UPDATE {table} SET text = 'x' WHERE {where}",
                f"UPDATE notes SET text = v.text FROM {table} v WHERE v.id = notes.id",
                f"DELETE FROM {table} WHERE {where}",
                f"MERGE INTO notes USING {table} v ON v.id = notes.id WHEN MATCHED THEN DELETE",
                f"EXPLAIN SELECT * FROM {table}",
                f"DESCRIBE {table}",
                f"SHOW CREATE TABLE {table}",
                f"DROP TABLE IF EXISTS {table}",
                f"DROP TABLE {table}",
                f"ALTER TABLE {table} ADD COLUMN x INT",
                f"COMMENT ON TABLE {table} IS 'x'",
                f"FLUSH TABLE {table}",
                f"CHECK TABLE {table}",
                f"TRUNCATE TABLE {table}",
                f"ERASE FROM {table} WHERE true",
            ]
        )

    def system(self) -> str:
        name = self._pick(_SYSTEM)
        return self._r.choice(
            [
                f"SELECT * FROM {name}",
                f"SELECT count(*) FROM {name}",
                f"FROM {name} WHERE {name[:1]!r} <> '' LIMIT 50",
                f"DESCRIBE {name}",
            ]
        )

    def hostile(self) -> str:
        table, i, inner = self._r.choice(["notes", "events"]), self._number(), self._pick(_INNER).format(cold=self._cold)
        return self._r.choice(
            [
                f"SELECT * FROM {inner}",
                f"SELECT * FROM {table}, {inner}",
                f"INSERT INTO notes SELECT * FROM {inner}",
                f"SELECT * FROM {table} AS USER '{NEIGHBOUR}'",
                f"INSERT INTO {table} AS USER '{NEIGHBOUR}' (id) VALUES ({i})",
                f"UPDATE {table} AS USER '{NEIGHBOUR}' SET text = 'x'",
                f"DELETE FROM {table} AS USER '{NEIGHBOUR}'",
                f"EXECUTE AS USER '{NEIGHBOUR}' (SELECT * FROM {table})",
                f"SELECT * FROM {table} AS USER '{NEIGHBOUR}' AS USER '{ME}'",
                f"SELECT * FROM {table} WHERE text = 'x' AS USER \"{NEIGHBOUR}\"",
                f"SELECT * FROM {table}; SELECT * FROM {table}",
                "SET current_user = 'victim'",
                "SET role = 'system'",
                "PRAGMA database_list",
                "ATTACH 'x.db'",
                f"COPY {table} TO 'out.csv'",
                f"CREATE USER '{NEIGHBOUR}' WITH PASSWORD 'a password'",
                f"ALTER USER '{NEIGHBOUR}' SET PASSWORD 'a password'",
                f"ALTER USER '{ME}' SET ROLE system",
                f"DROP USER '{NEIGHBOUR}'",
                f"FLUSH TABLE {table} WAIT",
                f"CHECK TABLE {table}",
                "CHECK AUDIT",
                "SHOW JOBS",
                "SHOW USERS",
                f"SELECT getenv('HOME'), current_setting('temp_directory') FROM {table}",
                f"SELECT * FROM {table} WHERE id = CAST('CANARY' AS BIGINT)",
                f"SELECT CAST(text AS BIGINT) FROM {table}",
                f"SELECT error(text) FROM {table}",
                f"SELECT 1 / (id - {i}) FROM {table}",
                f"SELECT {table}.victim FROM {table}",
                f"SELECT * FROM {table} WHERE (id, text) IN (SELECT id, text FROM {table})",
                f"INSERT INTO {table} (id, text, _seq) VALUES ({i}, 'x', 1)",
                f"UPDATE {table} SET _deleted = true",
                f"SELECT * FROM 'cold/main/notes~1/{NEIGHBOUR}/batch-0.parquet'",
                f"SELECT file_row_number, filename FROM {table}",
                f"SELECT rowid FROM {table}",
            ]
        )
