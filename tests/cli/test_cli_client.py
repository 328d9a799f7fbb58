"""The connection: sessions, messages, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_server import PASSWORD, LiveServer

from flightkalam.cli.client import Connection, Target, message_of
from flightkalam.errors import InvalidValue, KalamError

FOREVER = "SELECT sum(a.range * b.range) AS s FROM range(1000000) a, range(1000000) b"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            'NOT_FOUND: [FlightSQL] table "t" does not exist [SQLSTATE 42P01] (NotFound; Prepare)',
            'table "t" does not exist [SQLSTATE 42P01]',
        ),
        (
            "INTERNAL: [FlightSQL] internal error 2 [SQLSTATE XX000] (Internal; DoGet: endpoint 0: [])",
            "internal error 2 [SQLSTATE XX000]",
        ),
        ("IO: [FlightSQL] connection refused (Unavailable; AuthenticateBasicToken). Vendor code: 14", "connection refused"),
        ("UNKNOWN: bad. Detail: Python exception: Traceback (most recent call last):\n  File …", "bad"),
        ("two\nlines (in brackets)", "two lines (in brackets)"),
        ("", "ValueError"),
    ],
)
def test_a_message_is_the_servers_own_in_one_line(raw: str, message: str):
    assert message_of(ValueError(raw)) == message


class TestConnection:
    def test_a_session_holds_from_one_statement_to_the_next(self, connection: Connection):
        connection.run("CREATE NAMESPACE IF NOT EXISTS holds")
        connection.run("USE holds")
        connection.run("CREATE TABLE IF NOT EXISTS here (k INT PRIMARY KEY)")
        assert "here" in connection.table("SHOW TABLES IN holds")["table_name"].to_pylist()

    def test_an_error_leaves_it_usable(self, connection: Connection):
        with pytest.raises(KalamError, match="42P01"):
            connection.run("SELECT * FROM missing")
        assert connection.table("SELECT 1 AS a").to_pydict() == {"a": [1]}

    def test_rows_that_nobody_reads_are_no_hindrance(self, connection: Connection):
        next(connection.run("SELECT * FROM range(5000000)").batches)
        assert connection.table("SELECT 1 AS a").to_pydict() == {"a": [1]}

    def test_a_missing_table_has_no_columns(self, connection: Connection):
        assert connection.table_schema("missing", None).names == []

    def test_a_password_is_not_shown(self):
        assert PASSWORD not in repr(Target("grpc://x", "root", PASSWORD))

    def test_an_authority_that_cannot_be_read_is_named(self, tmp_path: Path):
        target = Target("grpc+tls://127.0.0.1:1", "root", PASSWORD, tmp_path / "ca.pem")
        with pytest.raises(InvalidValue, match=r"ca\.pem"):
            Connection(target)


class TestInterrupt:
    def test_ctrl_c_ends_the_statement_on_the_server_and_the_command(self, server: LiveServer, connection: Connection):
        """T-52."""
        environment = os.environ | {"FLIGHTKALAM_PASSWORD": PASSWORD, "FLIGHTKALAM_URI": server.uri}
        command = [sys.executable, "-m", "flightkalam", "sql", f"SELECT 1 AS a; {FOREVER}"]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_as_at_a_terminal
        ) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ['"a"\n', "1\n"]
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, "error: cancelled\n")
        assert connection.table("SELECT 1 AS a").to_pydict() == {"a": [1]}


def _as_at_a_terminal() -> None:
    """Children of a background job begin with Ctrl-C switched off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
