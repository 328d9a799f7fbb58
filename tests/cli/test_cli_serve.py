"""`flightkalam serve`, and what surrounds a server: settings, health, checking its files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import PASSWORD, LiveServer

from flightkalam import __version__
from flightkalam.cli import main
from flightkalam.cli.client import Connection, Target


class TestServe:
    def test_the_first_start_shows_a_password_once_that_works(self, tmp_path: Path):
        with LiveServer(tmp_path / "data", password=None) as server:
            said = " ".join(server.lines)
            assert "root" in said and "password" in said
            words = [w for w in said.split() if len(w) >= 12 and w.isascii()]
            assert any(self._logs_in(server.uri, word) for word in words), said
            assert server.stop() == 0
        with LiveServer(tmp_path / "data", password=None) as server:
            assert server.lines == []
            assert server.stop() == 0

    @staticmethod
    def _logs_in(uri: str, password: str) -> bool:
        try:
            with Connection(Target(uri, "root", password)) as connection:
                return connection.table("SELECT 1 AS a").to_pylist() == [{"a": 1}]
        except Exception:
            return False

    def test_a_configured_password_is_not_shown(self, tmp_path: Path):
        with LiveServer(tmp_path / "data") as server:
            assert server.lines == []
            assert PASSWORD not in server.log.read_text()
            assert server.stop() == 0

    def test_rows_outlive_the_process(self, tmp_path: Path):
        with LiveServer(tmp_path / "data") as server:
            with Connection(Target(server.uri, "root", PASSWORD)) as connection:
                connection.run("CREATE TABLE t (k INT PRIMARY KEY)")
                connection.run("INSERT INTO t VALUES (1), (2)")
            assert server.stop() == 0
        with LiveServer(tmp_path / "data") as server, Connection(Target(server.uri, "root", PASSWORD)) as connection:
            assert connection.table("SELECT k FROM t ORDER BY k").to_pydict() == {"k": [1, 2]}

    def test_a_data_directory_has_one_server(self, server: LiveServer, capfd):
        data_dir = server.log.with_suffix("")
        code, err = _fails("serve", "--data-dir", data_dir, "--port", "0", capfd=capfd)
        assert code == 2 and "Traceback" not in err and err.startswith("error: ")


class TestSettings:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("server.prot=1", "server.prot"),
            ("server.port=high", "server.port"),
            ("server.port", "has no value"),
            ("server.host=0.0.0.0", "plain_text_beyond_loopback"),
        ],
    )
    def test_what_does_not_fit_stops_the_start_with_its_name(self, option: str, message: str, tmp_path: Path, capfd):
        code, err = _fails("serve", "--data-dir", tmp_path / "data", "--set", option, capfd=capfd)
        assert code == 2 and message in err and "Traceback" not in err
        assert not (tmp_path / "data").exists()

    def test_a_setting_given_twice_is_refused(self, tmp_path: Path, capfd):
        code, err = _fails("serve", "--set", "server.port=1", "--set", "server.port=2", capfd=capfd)
        assert code == 2 and "twice" in err

    def test_a_missing_settings_file_is_named(self, tmp_path: Path, capfd):
        code, err = _fails("serve", "--config", tmp_path / "none.toml", capfd=capfd)
        assert code == 2 and "none.toml" in err


class TestPing:
    def test_a_server_that_runs_answers_without_a_password(self, server: LiveServer, capfd):
        assert _returns("ping", "--port", server.port) == 0
        assert f"answers at {server.uri}" in capfd.readouterr().out

    def test_one_that_does_not_run_does_not(self, capfd):
        code, err = _fails("ping", "--port", 1, "--timeout", 1, capfd=capfd)
        assert code == 1 and "no server answers at grpc://127.0.0.1:1" in err


class TestCheck:
    def test_a_sound_directory_is_said_to_be_well(self, tmp_path: Path, capfd):
        with LiveServer(tmp_path / "data") as server:
            with Connection(Target(server.uri, "root", PASSWORD)) as connection:
                connection.run("CREATE TABLE t (k INT PRIMARY KEY)")
                connection.run("INSERT INTO t VALUES (1), (2)")
                connection.table("FLUSH TABLE t WAIT")
            server.stop()
        assert _returns("check", tmp_path / "data") == 0
        assert "main.t" in capfd.readouterr().out

        batch = next((tmp_path / "data" / "cold").rglob("batch-*.parquet"))
        batch.write_bytes(batch.read_bytes()[:-100])
        assert _returns("check", tmp_path / "data") == 1
        assert "batch-0.parquet" in capfd.readouterr().out

    def test_what_is_no_data_directory_is_refused(self, tmp_path: Path, capfd):
        code, err = _fails("check", tmp_path, capfd=capfd)
        assert code == 2 and str(tmp_path) in err


class TestRecover:
    def test_a_server_starts_again_on_what_its_files_still_know(self, tmp_path: Path, capfd):
        data = tmp_path / "data"
        with LiveServer(data) as server:
            with Connection(Target(server.uri, "root", PASSWORD)) as connection:
                connection.run("CREATE TABLE t (k INT PRIMARY KEY)")
                connection.run("INSERT INTO t VALUES (1), (2)")
                connection.table("FLUSH TABLE t WAIT")
            server.stop()
        shutil.rmtree(data / "store")
        for command in (("serve", "--port", "0", "--data-dir"), ("check",)):
            code, err = _fails(*command, data, capfd=capfd)
            assert code == 2 and f"flightkalam recover --data-dir {data}" in err and "Traceback" not in err
        batch = next((data / "cold").rglob("batch-*.parquet"))
        whole = batch.read_bytes()
        batch.write_bytes(whole[:-100])
        assert _returns("recover", "--data-dir", data) == 1
        assert "LOST" in capfd.readouterr().out
        batch.write_bytes(whole)
        assert _returns("recover", "--data-dir", data) == 0
        assert "main.t" in capfd.readouterr().out
        with LiveServer(data) as server, Connection(Target(server.uri, "root", PASSWORD)) as connection:
            assert connection.table("SELECT k FROM t ORDER BY k").to_pydict() == {"k": [1, 2]}


class TestCommandLine:
    def test_the_version(self, capfd):
        assert _returns("version") == 0
        assert capfd.readouterr().out == f"flightkalam {__version__}\n"

    def test_help_names_every_command(self, capfd):
        assert _returns("--help") == 0
        out = capfd.readouterr().out
        assert all(name in out for name in ("serve", "check", "ping", "sql", "shell", "load", "version"))

    @pytest.mark.parametrize("command", ["serve", "check", "ping", "sql", "shell", "load", "version"])
    def test_each_command_explains_itself(self, command: str, capfd):
        assert _returns(command, "--help") == 0
        assert "Usage: flightkalam " + command in capfd.readouterr().out

    def test_it_also_runs_as_a_module(self):
        done = subprocess.run([sys.executable, "-m", "flightkalam", "version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"flightkalam {__version__}\n"

    def test_an_unknown_command_is_a_usage_error(self, capfd):
        assert _returns("sevre") == 2


def _returns(*arguments: object) -> int:
    try:
        return main([str(a) for a in arguments])
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1


def _fails(*arguments: object, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = _returns(*arguments)
    assert code != 0
    return code, capfd.readouterr().err
