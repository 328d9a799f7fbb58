"""`flightkalam sql`: statements in, results out, in the form that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


class TestStatements:
    def test_they_come_from_the_argument_a_file_or_standard_input(self, run, tmp_path: Path):
        script = tmp_path / "script.sql"
        script.write_text("SELECT 2 AS n;")
        assert run("sql", "SELECT 1 AS n").out == '"n"\n1\n'
        assert run("sql", "--file", script).out == '"n"\n2\n'
        assert run("sql", stdin="-- a comment; not the end\nSELECT 3 AS n").out == '"n"\n3\n'
        assert run("sql", "-f", "-", stdin="SELECT 4 AS n").out == '"n"\n4\n'

    def test_they_run_one_after_another_in_one_session(self, run, table):
        said = run(
            "sql", f"CREATE NAMESPACE n_{table}; USE n_{table}; CREATE TABLE x (k INT PRIMARY KEY); SHOW TABLES IN n_{table}"
        )
        assert said.code == 0 and f'"n_{table}","x","SHARED"' in said.out

    def test_the_first_that_fails_ends_the_run(self, run, table):
        said = run("sql", f"CREATE TABLE {table} (k INT PRIMARY KEY); SELECT * FROM missing; DROP TABLE {table}")
        assert said.code == 1
        assert run("sql", f"SELECT * FROM {table}").code == 0

    def test_a_statement_and_a_file_are_one_too_many(self, run, tmp_path: Path):
        assert run("sql", "SELECT 1", "--file", tmp_path / "x.sql").code == 2

    def test_a_file_that_cannot_be_read_is_named(self, run, tmp_path: Path):
        said = run("sql", "--file", tmp_path / "none.sql")
        assert said.code == 1 and "none.sql" in said.err


class TestErrors:
    def test_an_error_is_one_line_on_standard_error(self, run):
        said = run("sql", "SELECT * FROM missing")
        assert (said.code, said.out) == (1, "")
        assert said.err == 'error: table "missing" does not exist [SQLSTATE 42P01]\n'

    def test_a_wrong_password_says_so_without_the_drivers_words(self, run):
        said = run("sql", "SELECT 1", "--password", "wrong-password")
        assert said.code == 1 and "28000" in said.err and "FlightSQL" not in said.err

    def test_no_server_is_answered_with_what_to_do(self, run):
        said = run("sql", "SELECT 1", "--uri", "grpc://127.0.0.1:1")
        assert said.code == 1 and said.err.startswith("error: no server answers at grpc://127.0.0.1:1: start one with")

    def test_a_missing_password_is_asked_for_only_on_a_terminal(self, run, monkeypatch):
        monkeypatch.delenv("FLIGHTKALAM_PASSWORD")
        said = run("sql", "SELECT 1")
        assert said.code == 1 and "set FLIGHTKALAM_PASSWORD" in said.err


class TestCsv:
    def test_it_is_what_a_pipe_gets_and_tells_null_from_empty_text(self, run):
        assert run("sql", "SELECT NULL::TEXT AS a, '' AS b, 'x,\"y' AS c").out == '"a","b","c"\n,"","x,""y"\n'

    def test_it_is_never_cut(self, run):
        assert len(run("sql", "SELECT * FROM range(5000)", "--max-rows", 1).out.splitlines()) == 5001

    def test_types_without_a_csv_form_go_as_text(self, run):
        said = run("sql", "SELECT [1, 2] AS l, {'a': 1.5::DECIMAL(3,1)} AS s, '\\xAB'::BLOB AS b, 1.50::DECIMAL(5,2) AS d")
        assert said.out.splitlines()[1] == '"[1, 2]","{""a"": ""1.5""}","\\xab","1.50"'

    def test_results_are_set_apart_by_an_empty_line(self, run):
        assert run("sql", "SELECT 1 AS a; SELECT 2 AS b").out == '"a"\n1\n\n"b"\n2\n'


class TestJson:
    def test_rows_are_objects_in_one_array(self, run):
        said = run("sql", "SELECT 1 AS a, 'é' AS b, NULL AS c, [DATE '2024-02-29'] AS d", "--format", "json")
        assert json.loads(said.out) == [{"a": 1, "b": "é", "c": None, "d": ["2024-02-29"]}]

    def test_no_rows_are_an_empty_array(self, run):
        assert json.loads(run("sql", "SELECT 1 AS a WHERE false", "--format", "json").out) == []

    def test_numbers_that_javascript_would_round_are_text(self, run):
        """T-4."""
        said = run(
            "sql", f"SELECT {2**53 + 1}::BIGINT AS big, {2**53}::BIGINT AS fits, 'nan'::DOUBLE AS nan", "--format", "json"
        )
        assert json.loads(said.out) == [{"big": str(2**53 + 1), "fits": 2**53, "nan": "NaN"}]

    def test_columns_of_one_name_are_refused(self, run):
        said = run("sql", "SELECT 1 AS a, 2 AS a", "--format", "json")
        assert said.code == 1 and "same name" in said.err


class TestFiles:
    @pytest.mark.parametrize("how", ["arrow", "parquet"])
    def test_binary_results_keep_values_and_types(self, run, tmp_path: Path, how: str):
        path = tmp_path / f"out.{how}"
        assert (
            run("sql", "SELECT 1::SMALLINT AS a, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS t", "--format", how, "-o", path).code
            == 0
        )
        found = pq.read_table(path) if how == "parquet" else pa.ipc.open_stream(path).read_all()
        assert found.schema.types == [pa.int16(), pa.timestamp("us", "UTC")] and found.num_rows == 1

    def test_the_format_follows_the_files_name(self, run, tmp_path: Path):
        run("sql", "SELECT 1 AS a", "-o", tmp_path / "x.parquet")
        assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"a": 1}]

    def test_a_file_of_one_result_refuses_a_second(self, run, tmp_path: Path):
        said = run("sql", "SELECT 1; SELECT 2", "--format", "arrow", "-o", tmp_path / "x.arrow")
        assert said.code == 1 and "holds one" in said.err

    def test_a_query_that_fails_leaves_an_earlier_file_as_it_was(self, run, tmp_path: Path):
        path = tmp_path / "x.csv"
        run("sql", "SELECT 1 AS a", "-o", path)
        said = run("sql", "SELECT 2 AS a; SELECT * FROM missing", "-o", path)
        assert said.code == 1 and path.read_text() == '"a"\n1\n'
        assert list(tmp_path.iterdir()) == [path]

    def test_a_place_that_cannot_be_written_is_named(self, run, tmp_path: Path):
        said = run("sql", "SELECT 1", "-o", tmp_path / "none" / "x.csv")
        assert said.code == 1 and "x.csv" in said.err


class TestTables:
    def test_rows_that_are_not_shown_are_counted(self, run):
        said = run("sql", "SELECT * FROM range(150)", "--format", "table")
        assert "150 rows · … 50 more rows; use --format csv" in said.out

    def test_all_rows_on_request(self, run):
        said = run("sql", "SELECT * FROM range(150)", "--format", "table", "--max-rows", 0)
        assert "more row" not in said.out and "149" in said.out

    def test_in_a_pipe_nothing_limits_the_width(self, run):
        said = run("sql", f"SELECT '{'x' * 300}' AS a, {', '.join(f'{i} AS c{i}' for i in range(60))}", "--format", "table")
        assert "x" * 300 in said.out and "c59" in said.out and "more column" not in said.out

    def test_only_statements_that_write_rows_say_how_many(self, run, table):
        said = run("sql", f"CREATE TABLE {table} (k INT PRIMARY KEY); INSERT INTO {table} VALUES (1), (2)", "--format", "table")
        assert said.out.splitlines() == ["done", "2 rows changed"]

    def test_a_pipe_has_no_colours(self, run):
        assert "\x1b" not in run("sql", "SELECT NULL AS a", "--format", "table").out
