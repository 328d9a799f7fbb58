"""Makefile, Dockerfile and the rest of the packaging fit the project they package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from flightkalam.cli.commands import cli
from flightkalam.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
COMMANDS = {c.name or getattr(c.callback, "__name__", "") for c in cli.registered_commands}


def planned(target: str, folder: Path) -> str:
    """What make would do, in a place where nothing is set up yet."""
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={folder / 'venv'}", target]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=environment).stdout


class TestMakefile:
    @pytest.mark.parametrize("target", ["demo", "serve", "test", "perf"])
    def test_a_target_sets_up_what_it_needs_first(self, target: str, tmp_path: Path):
        assert "pip install" in planned(target, tmp_path)

    def test_setting_up_twice_does_nothing(self, tmp_path: Path):
        (tmp_path / "venv").mkdir()
        (tmp_path / "venv" / ".ready").touch()
        assert "pip" not in planned("setup", tmp_path)

    def test_the_tests_come_last_so_that_their_line_closes_the_run(self, tmp_path: Path):
        commands = re.findall(r"/bin/(ruff check|ruff format|mypy|lint-imports|python -m pytest)", planned("test", tmp_path))
        assert commands == ["ruff check", "ruff format", "mypy", "lint-imports", "python -m pytest"]

    def test_the_extras_it_installs_exist(self):
        named = set(re.findall(r"\.\[([\w,]+)\]", (REPOSITORY / "Makefile").read_text()))
        assert {e for group in named for e in group.split(",")} <= PROJECT["optional-dependencies"].keys()

    def test_ci_runs_the_tests(self):
        script = REPOSITORY / ".ci" / "run"
        assert os.access(script, os.X_OK) and "make --no-print-directory test" in script.read_text()
        subprocess.run(["bash", "-n", str(script)], check=True)


class TestDockerfile:
    def test_what_it_copies_exists_and_is_not_kept_from_the_builder(self):
        allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = [s for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for s in line.split()[:-1]]
        assert copied and all((REPOSITORY / source).exists() for source in copied)
        assert set(copied) == allowed

    def test_what_the_build_needs_is_copied(self):
        assert {PROJECT["readme"], *PROJECT["license-files"]} <= set(re.findall(r"[\w.]+", DOCKERFILE))

    def test_the_commands_it_names_exist(self):
        (program,) = json.loads(re.search(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
        assert program in PROJECT["scripts"]
        health = json.loads(re.search(r"CMD (\[.*ping.*\])$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
        default = json.loads(re.search(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
        assert health[0] == program and {health[1], default[0]} <= COMMANDS

    def test_its_settings_are_settings_and_ask_for_tls(self):
        given = dict(re.findall(r"(FLIGHTKALAM__\w+)=([^\s\\]+)", DOCKERFILE.partition("ENV PATH")[2].partition("\n\n")[0]))
        with pytest.raises(Exception, match="plain_text_beyond_loopback"):
            Config.load(environ=given)
        loaded = Config.load(environ=given | {"FLIGHTKALAM__SERVER__PLAIN_TEXT_BEYOND_LOOPBACK": "true"})
        assert f"EXPOSE {loaded.server.port}\n" in DOCKERFILE and f"VOLUME {loaded.server.data_dir}\n" in DOCKERFILE

    def test_it_does_not_run_as_root(self):
        assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE)[-1] != "root"


def test_the_licence_is_the_one_that_is_declared():
    text = (REPOSITORY / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0" and "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_a_place_for_this_version():
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert "## Unreleased" in text or f"## {PROJECT['version']}" in text
