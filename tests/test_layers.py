"""The house rules that a machine can keep: who may import whom, how long a file is, and that what is public says what it is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flightkalam"
GENERATED = {"flight_sql_pb2.py"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in GENERATED)
MAX_LINES = 650
DOCUMENTED = 0.6
# The commands of a client start at once because the server is not loaded for them.
LATE = {"flightkalam/cli/commands.py": {"from flightkalam import app"}}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_rooms_import_downwards_only() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_import_hides_in_a_function(path: Path) -> None:
    functions = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    late = {ast.unparse(n) for f in functions for n in ast.walk(f) if isinstance(n, (ast.Import, ast.ImportFrom))}
    assert late <= LATE.get(_name(path), set())


@pytest.mark.parametrize("path", [p for p in FILES if p.stat().st_size], ids=_name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_most_of_what_is_public_is_documented() -> None:
    """Not all: a name, its types and its place often say enough."""
    found = [d for path in FILES for d in _public(ast.parse(path.read_text()))]
    documented = sum(ast.get_docstring(d) is not None for d in found)
    assert documented / len(found) >= DOCUMENTED, f"{documented} of {len(found)}"


def _public(module: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Classes and functions of a module that others use; short ones need no words."""
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno >= 5:
                yield node


def test_standard_streams_and_the_environment_are_not_touched_in_passing() -> None:
    """One place reads the environment, and a service prints nothing: it logs."""
    for path in FILES:
        if path.parent.name == "cli" or path.name in ("config.py", "authorise.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv")}, f"{_name(path)}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{_name(path)}:{node.lineno}"
