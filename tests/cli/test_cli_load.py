"""`flightkalam load`: files into tables, each whole or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flightkalam.cli.loading import CsvOptions, Mode, TableName, headers, mode_of, opened, pieces
from flightkalam.cli.loading import OnConflict as On
from flightkalam.errors import InvalidValue

ROWS = pa.table({"k": pa.array([1, 2, 3], pa.int64()), "v": ["a", None, "c"]})


def parquet(path: Path, rows: pa.Table = ROWS) -> Path:
    pq.write_table(rows, path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


class TestKindsOfFiles:
    @pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.arrows", "x.csv", "x.csv.gz", "x.tsv", "odd-name"])
    def test_each_kind_arrives_with_its_rows(self, run, table, tmp_path: Path, name: str):
        path = tmp_path / name
        if name.endswith((".parquet", "odd-name")):  # told by its content, whatever its name
            parquet(path)
        elif name.endswith(".csv.gz"):
            path.write_bytes(gzip.compress(b"k,v\n1,a\n2,\n3,c\n"))
        elif name.endswith((".csv", ".tsv")):
            text(path, "k,v\n1,a\n2,\n3,c\n".replace(",", "\t" if name.endswith("tsv") else ","))
        else:
            open_ = pa.ipc.new_file if name.endswith(".arrow") else pa.ipc.new_stream
            with open_(path, ROWS.schema) as writer:
                writer.write_table(ROWS)
        said = run("load", path, "--table", table, "--key", "k")
        assert said.code == 0 and f"{name}: 3 rows" in said.err
        assert run("sql", f"SELECT * FROM {table} ORDER BY k").out == '"k","v"\n1,"a"\n2,\n3,"c"\n'

    def test_batches_beyond_a_messages_limit_travel_in_parts(self, run, table, tmp_path: Path):
        rows = pa.table({"k": range(40_000), "v": ["x" * 1000] * 40_000})
        with pa.ipc.new_file(tmp_path / "x.arrow", rows.schema) as writer:
            writer.write_table(rows)  # one batch of 40 MB
        said = run("load", tmp_path / "x.arrow", "-t", table)
        assert said.code == 0, said.err
        assert run("sql", f"SELECT count(*) AS n, sum(k) AS s FROM {table}").out == '"n","s"\n40000,"799980000"\n'

    def test_a_file_without_rows_makes_an_empty_table(self, run, table, tmp_path: Path):
        assert run("load", parquet(tmp_path / "x.parquet", ROWS.slice(0, 0)), "-t", table).code == 0
        assert run("sql", f"SELECT count(*) AS n FROM {table}").out == '"n"\n0\n'

    def test_what_cannot_be_told_is_refused_by_name(self, run, table, tmp_path: Path):
        said = run("load", text(tmp_path / "x.doc", "hello"), "-t", table)
        assert said.code == 1 and 'cannot tell what "' in said.err

    def test_a_missing_file_is_named(self, run, table, tmp_path: Path):
        said = run("load", tmp_path / "none.csv", "-t", table)
        assert said.code == 1 and "none.csv" in said.err and "No such file" in said.err


class TestCsv:
    def test_null_is_an_empty_field_and_quoted_text_is_text(self, run, table, tmp_path: Path):
        run("load", text(tmp_path / "x.csv", 'k,v\n1,\n2,""\n3,NA\n'), "-t", table, "--key", "k")
        assert run("sql", f"SELECT v FROM {table} ORDER BY k").out == '"v"\n\n""\n"NA"\n'

    def test_other_text_means_null_on_request(self, run, table, tmp_path: Path):
        run("load", text(tmp_path / "x.csv", "k,v\n1,NA\n2,5\n"), "-t", table, "--null", "NA")
        assert run("sql", f"SELECT v FROM {table} ORDER BY k").out == '"v"\n\n5\n'

    def test_appending_reads_text_as_the_tables_types(self, run, table, tmp_path: Path):
        run("sql", f"CREATE TABLE {table} (k TEXT PRIMARY KEY, d DATE, n DECIMAL(9, 2))")
        said = run("load", text(tmp_path / "x.csv", "k,d,n\n007,2024-02-29,1.50\n"), "-t", table, "--mode", "append")
        assert said.code == 0, said.err
        assert run("sql", f"SELECT * FROM {table}").out == '"k","d","n"\n"007",2024-02-29,"1.50"\n'

    def test_a_line_that_does_not_fit_is_told_and_nothing_is_kept(self, run, table, tmp_path: Path):
        run("sql", f"CREATE TABLE {table} (k INT PRIMARY KEY)")
        said = run("load", text(tmp_path / "x.csv", "k\n1\nseven\n"), "-t", table, "--mode", "append")
        assert said.code == 1 and "seven" in said.err and "nothing of it was loaded" in said.err
        assert "Traceback" not in said.err
        assert run("sql", f"SELECT count(*) AS n FROM {table}").out == '"n"\n0\n'


class TestTables:
    def test_a_key_makes_a_second_load_a_conflict_that_writes_nothing(self, run, table, tmp_path: Path):
        path = parquet(tmp_path / "x.parquet")
        more = parquet(tmp_path / "y.parquet", pa.table({"k": [9, 1], "v": ["i", "z"]}))
        assert run("load", path, "-t", table, "--key", "k").code == 0
        said = run("load", more, "-t", table)
        assert said.code == 1 and "duplicate key" in said.err and "23505" in said.err
        assert run("sql", f"SELECT count(*) AS n FROM {table}").out == '"n"\n3\n'

    def test_a_conflict_can_be_an_update(self, run, table, tmp_path: Path):
        run("load", parquet(tmp_path / "x.parquet"), "-t", table, "--key", "k")
        more = parquet(tmp_path / "y.parquet", pa.table({"k": [9, 1], "v": ["i", "z"]}))
        assert run("load", more, "-t", table, "--on-conflict", "update").code == 0
        assert run("sql", f"SELECT v FROM {table} WHERE k IN (1, 9) ORDER BY k").out == '"v"\n"z"\n"i"\n'

    def test_several_files_go_into_one_table(self, run, table, tmp_path: Path):
        first, second = parquet(tmp_path / "a.parquet"), parquet(tmp_path / "b.parquet", pa.table({"k": [4], "v": ["d"]}))
        assert run("load", first, second, "-t", table, "--key", "k", "--mode", "create").code == 0
        assert run("sql", f"SELECT count(*) AS n FROM {table}").out == '"n"\n4\n'

    def test_create_refuses_a_table_that_exists(self, run, table, tmp_path: Path):
        path = parquet(tmp_path / "x.parquet")
        run("load", path, "-t", table)
        said = run("load", path, "-t", table, "--mode", "create")
        assert said.code == 1 and "42P07" in said.err

    def test_a_namespace_and_quoted_names(self, run, table, tmp_path: Path):
        run("sql", f"CREATE NAMESPACE n_{table}")
        assert run("load", parquet(tmp_path / "x.parquet"), "-t", f'n_{table}."a b"').code == 0
        assert run("sql", f'SELECT count(*) AS n FROM n_{table}."a b"').out == '"n"\n3\n'


class TestRules:
    def test_pieces_are_bounded_in_rows_and_bytes_and_lose_nothing(self):
        wide = pa.record_batch({"v": ["x" * 1_000_000] * 9 + ["y"]})
        assert [p.num_rows for p in pieces(wide)] == [4, 4, 2]
        long = pa.record_batch({"k": range(200_000)})
        assert [p.num_rows for p in pieces(long)] == [65_536, 65_536, 65_536, 3_392]
        assert pa.Table.from_batches(pieces(long)).equals(pa.Table.from_batches([long]))

    @pytest.mark.parametrize(
        ("given", "namespace", "name"),
        [("t", None, "t"), ("n.t", "n", "t"), ('"a.b"."c ""d"""', "a.b", 'c "d"'), ('n."t"', "n", "t")],
    )
    def test_table_names(self, given: str, namespace: str | None, name: str):
        assert TableName.parse(given) == TableName(namespace, name)

    @pytest.mark.parametrize("given", ["", ".", "a.", "a.b.c", '"a'])
    def test_what_is_no_table_name(self, given: str):
        with pytest.raises(InvalidValue, match="is not a table name"):
            TableName.parse(given)

    def test_the_first_file_decides_about_the_table(self):
        assert [mode_of(Mode.REPLACE, i) for i in range(3)] == [Mode.REPLACE, Mode.APPEND, Mode.APPEND]

    def test_what_travels_as_headers(self):
        assert headers([], On.ERROR, False) == {}
        assert headers(["a", "b"], On.UPDATE, True) == {
            "x-kalam-primary-key": "a,b",
            "x-kalam-on-conflict": "update",
            "x-kalam-table-type": "USER",
        }

    def test_a_broken_parquet_file_is_named(self, tmp_path: Path):
        path = tmp_path / "x.parquet"
        path.write_bytes(b"PAR1 and nothing else")
        with pytest.raises(InvalidValue, match=r'cannot read ".*x\.parquet"'), opened(path, CsvOptions()):
            pass
