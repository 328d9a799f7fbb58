"""The interactive shell: statements end with `;`, commands of the shell begin with `\\`.

The terminal is at the edge: `Shell.handle` takes a finished input and does it, so that tests need no terminal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console, RenderableType

from flightkalam import __version__
from flightkalam.cli import tables
from flightkalam.cli.client import Connection, Result
from flightkalam.cli.completion import Names, candidates
from flightkalam.cli.output import changed_text
from flightkalam.errors import Cancelled, KalamError, SqlSyntaxError
from flightkalam.sql import split
from flightkalam.sql.lexer import lex

HISTORY_FILE = Path("~/.flightkalam_history")
PROMPT, CONTINUATION = "flightkalam> ", "         ... "
_MAX_ROWS = 10_000
_PAGER_WIDTH = 10_000
_CHANGES_NAMES = frozenset({"CREATE", "DROP", "ALTER", "USE", "BEGIN", "COMMIT", "ROLLBACK"})
_LEAVE = frozenset({"exit", "quit", "exit;", "quit;", "\\q"})
HELP = r"""SELECT …;          run a statement; it ends with ;
\d [name]          the tables, or the columns of one
\dt [namespace]    the tables of a namespace
\dn                the namespaces
\x                 one line per value instead of one per row: on or off
\timing            say how long statements take: on or off
\pager             show long results page by page: on or off
\i FILE            run a file of statements
\?                 this help
\q                 leave (also Ctrl-D)
Tab completes, ↑ and Ctrl-R find earlier statements, Ctrl-C cancels what is running."""


@dataclass(slots=True)
class Settings:
    """What the person has switched."""

    expanded: bool = False
    timing: bool = True
    pager: bool = True


class Shell:
    """Does what was typed, one input after another."""

    def __init__(self, connection: Connection, console: Console) -> None:
        self.names = Names()
        self.namespace = "main"
        self.settings = Settings()
        self._connection = connection
        self._console = console
        self._refresh_names()

    def handle(self, text: str) -> bool:
        """Do one input; an error is said and the shell goes on.

        :return: False when it is time to leave.
        """
        text = text.strip()
        if text.lower() in _LEAVE:
            return False
        try:
            if text.startswith("\\"):
                self._command(text)
            else:
                self._statements(text)
        except Cancelled:
            self._console.print("cancelled", style="yellow")
        except KalamError as error:
            self._console.print(f"error: {error.message}", style="red", markup=False, highlight=False, soft_wrap=True)
        return True

    # ------------------------------------------------------------------------------------------------- statements

    def _statements(self, text: str) -> None:
        for statement in split(text):
            started = time.perf_counter()
            self._show(statement, self._connection.run(statement), started)
            self._follow(statement)

    def _follow(self, statement: str) -> None:
        """Keep what Tab offers in step with what the statement did."""
        words = statement.split(maxsplit=2)
        first = words[0].upper()
        if first == "USE" and len(words) > 1:
            self.namespace = words[1].strip('"')
        if first in _CHANGES_NAMES:
            self._refresh_names()

    def _show(self, statement: str, result: Result, started: float) -> None:
        if result.schema is None:
            self._say(changed_text(statement, result.changed), started)
            return
        page = tables.first_rows(result.schema, result.batches, _MAX_ROWS)
        render = self._records if self.settings.expanded else self._table
        self._say(render(page), started)

    def _say(self, line: str, started: float) -> None:
        took = f" · {_seconds(time.perf_counter() - started)}" if self.settings.timing else ""
        self._console.print(line + took, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _records(self, page: tables.Page) -> str:
        grid, summary = tables.records_of(page)
        self._print(grid, len(page.rows) * (len(page.schema) + 1))
        return summary

    def _table(self, page: tables.Page) -> str:
        """The pager scrolls sideways too, so it gets every column; the bare screen gets what fits."""
        lines = len(page.rows) + 4
        whole = not self._console.is_terminal or self._pager(lines) is not None
        grid, summary = tables.table_of(page, None if whole else self._console.width)
        self._print(grid, lines)
        return summary

    def _print(self, grid: RenderableType, lines: int) -> None:
        pager = self._pager(lines)
        if pager is None:
            self._console.print(grid)
            return
        wide = Console(width=_PAGER_WIDTH, force_terminal=True, color_system="standard")
        with wide.capture() as captured:
            wide.print(grid)
        environment = os.environ | {"LESS": os.environ.get("LESS", "-SFRX")}
        subprocess.run([pager], input=captured.get(), text=True, env=environment, check=False)

    def _pager(self, lines: int) -> str | None:
        """The pager's path where one is wanted: on a terminal, for more lines than it has."""
        wanted = self.settings.pager and self._console.is_terminal and lines > self._console.height
        return shutil.which("less") if wanted else None

    # --------------------------------------------------------------------------------------------------- commands

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        argument = argument.strip().rstrip(";")
        command = _COMMANDS.get(name.rstrip(";"))
        if command is None:
            raise KalamError(f"{name} is no command of the shell: \\? lists them")
        command(self, argument)

    def _describe(self, name: str) -> None:
        self._statements(f"DESCRIBE {name}" if name else "SHOW TABLES")

    def _list_tables(self, namespace: str) -> None:
        self._statements(f"SHOW TABLES IN {namespace}" if namespace else "SHOW TABLES")

    def _list_namespaces(self, _: str) -> None:
        self._statements("SHOW NAMESPACES")

    def _toggle_expanded(self, _: str) -> None:
        self.settings.expanded = not self.settings.expanded
        self._console.print(f"one line per value is {_on_off(self.settings.expanded)}")

    def _toggle_timing(self, _: str) -> None:
        self.settings.timing = not self.settings.timing
        self._console.print(f"timing is {_on_off(self.settings.timing)}")

    def _toggle_pager(self, _: str) -> None:
        self.settings.pager = not self.settings.pager
        self._console.print(f"the pager is {_on_off(self.settings.pager)}")

    def _run_file(self, path: str) -> None:
        try:
            text = Path(path).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise KalamError(f'cannot read "{path}": {error}') from None
        self._statements(text)

    def _help(self, _: str) -> None:
        self._console.print(HELP, markup=False, highlight=False)

    def _refresh_names(self) -> None:
        """Names are a convenience: without them the shell works as well."""
        try:
            self.names = Names.from_objects(self._connection.objects())
        except Cancelled:
            raise
        except KalamError:
            self.names = Names()


_COMMANDS: dict[str, Callable[[Shell, str], None]] = {
    "\\d": Shell._describe,
    "\\dt": Shell._list_tables,
    "\\dn": Shell._list_namespaces,
    "\\x": Shell._toggle_expanded,
    "\\timing": Shell._toggle_timing,
    "\\pager": Shell._toggle_pager,
    "\\i": Shell._run_file,
    "\\?": Shell._help,
    "\\h": Shell._help,
}


def is_complete(text: str) -> bool:
    """Whether Enter should run the input rather than begin another line of it."""
    stripped = text.strip()
    if not stripped or stripped.startswith("\\") or stripped.lower() in _LEAVE:
        return True
    try:
        tokens = lex(text)
    except SqlSyntaxError:
        return False  # a string or comment is still open
    return len(tokens) > 0 and tokens.symbol(len(tokens) - 1) == ";"


# ---------------------------------------------------------------------------------------------------------------
# The terminal


class _Completer(Completer):
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        if document.text.lstrip().startswith("\\"):
            return
        for found in candidates(document.text_before_cursor, self._shell.names, self._shell.namespace):
            yield Completion(found.text, start_position=-found.replaces, display_meta=found.kind)


class _History(FileHistory):
    """The file outlives the session and is easily copied, so statements with passwords stay out of it."""

    def store_string(self, string: str) -> None:
        if "password" not in string.lower():
            super().store_string(string)


def run(connection: Connection, console: Console, history: Path) -> None:
    """Read and do until the person leaves."""
    shell = Shell(connection, console)
    console.print(
        f"FlightKalam {__version__} at {connection.target.uri} as {connection.target.user}. \\? for help, \\q to leave.",
        markup=False,
        highlight=False,
    )
    session = _session(shell, history)
    going = True
    while going:
        try:
            text = session.prompt(PROMPT)
        except KeyboardInterrupt:
            continue  # drops the line
        except EOFError:
            return
        going = shell.handle(text)


def _session(shell: Shell, history: Path) -> PromptSession[str]:
    path = history.expanduser()
    path.touch(mode=0o600, exist_ok=True)
    return PromptSession(
        history=_History(str(path)),
        auto_suggest=AutoSuggestFromHistory(),
        completer=ThreadedCompleter(_Completer(shell)),
        complete_while_typing=False,
        multiline=True,
        prompt_continuation=lambda width, line, wrapped: CONTINUATION,
        key_bindings=_enter_runs_what_is_complete(),
        enable_history_search=False,
    )


def _enter_runs_what_is_complete() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _on_off(value: bool) -> str:
    return "on" if value else "off"
