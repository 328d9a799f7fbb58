"""The interactive shell: what its inputs do, and once through a real terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from live_server import PASSWORD, LiveServer
from rich.console import Console

from flightkalam.cli.client import Connection
from flightkalam.cli.shell import Shell, _History, is_complete


@pytest.fixture
def shell(connection: Connection) -> Shell:
    made = Shell(connection, Console(file=io.StringIO(), width=120, color_system=None))
    made.settings.timing = False
    return made


def said(shell: Shell, text: str) -> str:
    file = shell._console.file
    assert isinstance(file, io.StringIO)
    file.seek(0)
    file.truncate()
    assert shell.handle(text)
    return file.getvalue()


class TestInputs:
    @pytest.mark.parametrize("text", ["SELECT 1;", "\\d", "", "quit", "exit;", "SELECT ';' ; -- end", "SELECT 1; SELECT 2;"])
    def test_what_enter_runs(self, text: str):
        assert is_complete(text)

    @pytest.mark.parametrize("text", ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "SELECT 1 /* ;", "-- only a comment;"])
    def test_what_goes_on_in_the_next_line(self, text: str):
        assert not is_complete(text)

    @pytest.mark.parametrize("text", ["\\q", "quit", "EXIT", "exit;"])
    def test_how_to_leave(self, shell: Shell, text: str):
        assert not shell.handle(text)


class TestStatements:
    def test_each_shows_its_result(self, shell: Shell):
        lines = said(shell, "SELECT 1 AS a; SELECT 'x' AS b;").splitlines()
        assert [line.strip() for line in lines] == ["a", "─", "1", "1 row", "b", "─", "x", "1 row"]

    def test_an_error_is_said_and_the_shell_goes_on(self, shell: Shell):
        assert said(shell, "SELECT * FROM missing;") == 'error: table "missing" does not exist [SQLSTATE 42P01]\n'
        assert "1 row" in said(shell, "SELECT 1;")

    def test_expanded_shows_a_line_per_value(self, shell: Shell):
        said(shell, "\\x")
        assert "row 1" in said(shell, "SELECT 1 AS a;")

    def test_timing(self, shell: Shell):
        assert said(shell, "\\timing") == "timing is on\n"
        assert said(shell, "SELECT 1;").rstrip().endswith(" ms")


class TestCommands:
    def test_tables_and_their_columns(self, shell: Shell):
        said(shell, "CREATE TABLE IF NOT EXISTS shown (k INT PRIMARY KEY, v TEXT);")
        assert "shown" in said(shell, "\\d") and "shown" in said(shell, "\\dt main;")
        assert "v" in said(shell, "\\d shown") and "main" in said(shell, "\\dn")

    def test_a_file(self, shell: Shell, tmp_path: Path):
        (tmp_path / "x.sql").write_text("SELECT 41 + 1 AS answer")
        assert "42" in said(shell, f"\\i {tmp_path / 'x.sql'}")
        assert "error: cannot read" in said(shell, f"\\i {tmp_path / 'y.sql'}")

    def test_help_lists_every_command(self, shell: Shell):
        text = said(shell, "\\?")
        assert all(name in text for name in ("\\d ", "\\dt", "\\dn", "\\x", "\\timing", "\\pager", "\\i", "\\q"))

    def test_an_unknown_one_says_where_help_is(self, shell: Shell):
        assert said(shell, "\\foo") == "error: \\foo is no command of the shell: \\? lists them\n"


def test_completion_follows_what_statements_change(shell: Shell):
    said(shell, "CREATE NAMESPACE IF NOT EXISTS follows; USE follows; CREATE TABLE IF NOT EXISTS fresh (k INT PRIMARY KEY);")
    assert shell.namespace == "follows"
    assert list(shell.names.columns("follows", "fresh")) == ["k"]


def test_the_history_keeps_no_passwords(tmp_path: Path):
    history = _History(str(tmp_path / "history"))
    history.store_string("SELECT 1;")
    history.store_string("CREATE USER 'a' WITH PASSWORD 'hunter22';")
    assert "hunter22" not in (tmp_path / "history").read_text() and "SELECT 1" in (tmp_path / "history").read_text()


def test_without_a_terminal_it_refers_to_the_command_for_scripts(run):
    refused = run("shell")
    assert refused.code == 1 and "flightkalam sql" in refused.err


def test_at_a_terminal(server: LiveServer, tmp_path: Path):
    """Two lines make one statement, Ctrl-C ends one and not the shell, and `\\q` leaves with 0."""
    environment = os.environ | {"FLIGHTKALAM_PASSWORD": PASSWORD, "FLIGHTKALAM_URI": server.uri, "TERM": "xterm"}
    command = [sys.executable, "-m", "flightkalam", "shell", "--history", str(tmp_path / "history")]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal
    )
    try:
        os.close(theirs)
        _until(ours, b"flightkalam>")
        os.write(ours, b"SELECT 6 *\r")
        _until(ours, b"...")
        os.write(ours, b"7 AS n;\r")
        _until(ours, b"42")
        os.write(ours, b"SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b;\r")
        _until(ours, b"1000000) b;")
        time.sleep(2)
        os.write(ours, b"\x03")
        _until(ours, b"cancelled")
        os.write(ours, b"\\q\r")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert oct((tmp_path / "history").stat().st_mode)[-3:] == "600"


def _own_terminal() -> None:
    """Ctrl-C reaches a process by its controlling terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _until(terminal: int, wanted: bytes, seconds: float = 30) -> None:
    seen = b""
    end = time.monotonic() + seconds
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"waited for {wanted!r}, saw {seen!r}"
        seen += os.read(terminal, 65_536)
        if b"\x1b[6n" in seen:  # asks where the cursor is
            os.write(terminal, b"\x1b[1;1R")
            seen = seen.replace(b"\x1b[6n", b"")
