"""Every Python, SQL and shell block of the documentation runs, in the order a reader meets it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_server import PASSWORD, READY, LiveServer

from flightkalam.cli.client import Connection, Target
from flightkalam.config import Config
from flightkalam.sql import split

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVES = re.compile(r"\b(?:make serve|flightkalam serve)\b")
# What the documentation calls the server of its reader.
HOST, PORT, BACKUPS = "127.0.0.1:31337", "31337", "flightkalam-data/backups"


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    return [Block(language, text) for language, text in _FENCE.findall(document.read_text())]


@pytest.fixture(scope="module", params=[d for d in DOCUMENTS if blocks(d)], ids=lambda d: str(d.relative_to(REPOSITORY)))
def document(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_a_reader_can_follow_the_document(
    document: Path, server: LiveServer, workshop: Path, environment: dict[str, str], tmp_path: Path
):
    names: dict[str, object] = {}
    with Connection(Target(server.uri, "root", PASSWORD)) as connection:
        for block in blocks(document):
            match block.language:
                case "python":
                    run_python(block.text, server, names)
                case "sql":
                    for statement in split(block.text):
                        list(connection.run(statement).batches)
                case "sh":
                    run_shell(block.text, server, workshop, environment)
                case "toml":
                    (tmp_path / "settings.toml").write_text(block.text)
                    assert Config.load(tmp_path / "settings.toml", environ={})
                case "console":
                    check_commands(block.text, workshop, environment)
                case other:
                    assert other == "", f"{document.name} has a block of {other}, which nothing tests"


def run_python(text: str, server: LiveServer, names: dict[str, object]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text.replace(HOST, server.uri.removeprefix("grpc://")), "<documentation>", "exec"), names)


def run_shell(text: str, server: LiveServer, folder: Path, environment: dict[str, str]) -> None:
    """Commands as they stand; one that serves is waited for and stopped, as its reader would."""
    for serves, command in _commands(text):
        if serves:
            _serve(command.replace(f"--port {PORT}", "--port 0"), folder, environment)
        else:
            script = command.replace(PORT, str(server.port)).replace(BACKUPS, f"{server.data_dir}/backups")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=170,
            )
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def check_commands(text: str, folder: Path, environment: dict[str, str]) -> None:
    """Commands too long to run here: their targets, modules and options exist."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            checked = ["make", "--dry-run", *words[1:]]
        else:
            assert words[:2] == ["python", "-m"], f"nothing tests {line!r}"
            checked = [*words[:3], "--help"]
        done = subprocess.run(checked, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert words[0] == "make" or all(w in done.stdout for w in words if w.startswith("--")), line


def _commands(text: str) -> Iterator[tuple[bool, str]]:
    """The lines that serve, each alone, and what stands between them as one script."""
    script: list[str] = []
    for line in text.splitlines():
        if _SERVES.search(line):
            if script:
                yield False, "\n".join(script)
            script = []
            yield True, line
        else:
            script.append(line)
    if script:
        yield False, "\n".join(script)


def _serve(command: str, folder: Path, environment: dict[str, str]) -> None:
    # A session of its own, for make and the shell stand between us and the server.
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith(READY) for line in process.stdout), f"{command} did not get ready"
        subprocess.run(["pkill", "-TERM", "--session", str(process.pid), "-f", "flightkalam serve"], check=True)
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()


def test_every_relative_link_leads_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_architecture_page_names_every_room():
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    package = REPOSITORY / "flightkalam"
    rooms = {p.stem for p in package.iterdir() if (p.is_dir() or p.suffix == ".py") and not p.name.startswith("__")}
    assert [room for room in sorted(rooms) if f"`{room}`" not in page] == []


def test_the_error_table_has_only_codes_that_exist():
    page = (REPOSITORY / "docs" / "sql.md").read_text()
    source = "".join(p.read_text() for p in (REPOSITORY / "flightkalam").rglob("*.py"))
    codes = re.findall(r"\b[0-9A-Z]{5}\b", page.partition("## Errors")[2])
    assert codes and [c for c in codes if f'"{c}"' not in source and c.isalnum() and c[0].isdigit()] == []
