"""The commands, their options and their help; the only place that knows exit codes.

0    done              2    the command line or the settings do not fit
1    it failed: one line on standard error says what, to what, and what to do next
130  Ctrl-C
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flightkalam import __version__
from flightkalam.auth.identity import Role
from flightkalam.cli import loading, output, shell
from flightkalam.cli import ping as ping_
from flightkalam.cli.client import DEFAULT_URI, Connection, Target
from flightkalam.config import Config
from flightkalam.errors import Cancelled, ConfigError, InvalidValue, KalamError
from flightkalam.sql import split

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_DEFAULT_ROWS = 100

cli = typer.Typer(
    name="flightkalam",
    help="FlightKalam: a multi-tenant Arrow Flight SQL data service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# ---------------------------------------------------------------------------------------------------------------
# Options that several commands share

Uri = Annotated[str, typer.Option("--uri", envvar="FLIGHTKALAM_URI", help="Where the server is; grpc+tls:// for TLS.")]
User = Annotated[str, typer.Option("--user", "-u", envvar="FLIGHTKALAM_USER", help="Whom to log in as.")]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        envvar="FLIGHTKALAM_PASSWORD",
        show_default=False,
        help="The password. Better given by the environment: other users of this machine can read command lines.",
    ),
]
CaCert = Annotated[
    Path | None,
    typer.Option("--ca-cert", metavar="FILE", help="PEM file of the authority that signed the server's certificate."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A TOML file of settings.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting, such as flush.check_interval_seconds=5; repeatable."),
]


# ---------------------------------------------------------------------------------------------------------------
# The server's side


@cli.command()
def serve(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Where everything is kept. Default: flightkalam-data.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port; 0 takes a free one. Default: 31337.")] = None,
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    The line `FlightKalam ready grpc://HOST:PORT` says when it takes calls. The first start creates the user `root`; if
    no password was configured (`FLIGHTKALAM__AUTH__ROOT_PASSWORD`), one is generated and printed once.
    """
    from flightkalam import app  # at the top it would load the whole server before each client command

    named = {"server.data_dir": data_dir, "server.host": host, "server.port": port}
    loaded = Config.load(config, overrides_of(set_ or []) | {k: v for k, v in named.items() if v is not None})
    app.serve(loaded, announce=functools.partial(print, flush=True))


@cli.command()
def check(
    data_dir: Annotated[Path, typer.Argument(help="The data directory of a server that is not running.")],
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Check a data directory: every file against what the log and the manifests say of it.

    Changes nothing. Exits with 1 when something is wrong, and says what.
    """
    from flightkalam import app

    loaded = Config.load(config, overrides_of(set_ or []) | {"server.data_dir": data_dir})
    raise typer.Exit(app.check(loaded, report=functools.partial(print, flush=True)))


@cli.command()
def recover(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="The data directory of a server that is not running.")
    ],
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Go on without batches that are missing or damaged; those are moved to DIR/lost."),
    ] = False,
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Make a data directory whose store is lost again from its Parquet files: tables and rows as they were last flushed.

    Accounts are new: the next start makes `root`. Exits with 1 and changes nothing when a batch is missing or damaged.
    """
    from flightkalam import app

    loaded = Config.load(config, overrides_of(set_ or []) | {"server.data_dir": data_dir})
    raise typer.Exit(app.recover(loaded, report=functools.partial(print, flush=True), accept_loss=accept_loss))


@cli.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="The folder of a backup that BACKUP TO has made.")],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="A directory that is empty or does not exist yet.")
    ] = None,
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Only compare every file with the inventory.")] = False,
) -> None:
    """Make a data directory out of a backup, comparing every file with the backup's inventory.

    Start the server on it with `flightkalam serve --data-dir DIR`.
    """
    from flightkalam import app

    if (data_dir is None) != verify_only:
        raise ConfigError("say where to restore to with --data-dir DIR, or ask for --verify-only")
    raise typer.Exit(app.restore(backup, data_dir, report=functools.partial(print, flush=True)))


@cli.command()
def ping(
    port: Annotated[int | None, typer.Option("--port", help="The port. Default: that of the settings.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")] = 3.0,
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Ask whether the server of these settings answers: for health checks.

    Takes the settings that `serve` takes, and needs no password.
    """
    loaded = Config.load(config, overrides_of(set_ or []) | ({} if port is None else {"server.port": port}))
    print(f"FlightKalam answers at {ping_.ping(loaded.server, timeout)}")


def overrides_of(settings: list[str]) -> dict[str, object]:
    """`section.key=value` texts by key.

    :raises ConfigError: one has no `=`, or is there twice.
    """
    found: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f'--set "{text}" has no value: write --set section.key=value')
        if key.strip() in found:
            raise ConfigError(f"--set {key.strip()} is given twice: give it once")
        found[key.strip()] = value
    return found


# ---------------------------------------------------------------------------------------------------------------
# The accounts of a data directory whose server is stopped

user_cli = typer.Typer(
    help="Accounts of a data directory whose server is stopped: for the first users, and for a lost password of `root`. "
    "While the server runs, use SQL: CREATE USER, ALTER USER, SHOW USERS.",
    no_args_is_help=True,
)
cli.add_typer(user_cli, name="user")
DataDir = Annotated[Path, typer.Argument(metavar="DIR", help="The data directory of a server that is not running.")]
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user name, compared exactly.")]
NewPassword = Annotated[
    str | None,
    typer.Option(
        "--new-password",
        envvar="FLIGHTKALAM_NEW_PASSWORD",
        show_default=False,
        help="The password. Better given by the environment or typed at the prompt.",
    ),
]


@user_cli.command("add")
def user_add(
    data_dir: DataDir,
    name: UserName,
    role: Annotated[str, typer.Option("--role", help="user, service, dba or system.")] = "user",
    new_password: NewPassword = None,
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Create a user."""
    from flightkalam import app

    wanted = Role.parse(role)
    with app.stopped_accounts(_settings_of(data_dir, config, set_)) as accounts:
        account = accounts.create(name, _new_password(name, new_password), wanted)
    print(f"created user {account.name} of role {account.role.label}")


@user_cli.command("passwd")
def user_passwd(
    data_dir: DataDir,
    name: UserName,
    new_password: NewPassword = None,
    config: ConfigFile = None,
    set_: Settings = None,
) -> None:
    """Set a user's password; it lifts a lock and voids the tokens of earlier logins."""
    from flightkalam import app

    with app.stopped_accounts(_settings_of(data_dir, config, set_)) as accounts:
        accounts.set_password(name, _new_password(name, new_password))
    print(f"changed the password of {name}")


@user_cli.command("list")
def user_list(data_dir: DataDir, config: ConfigFile = None, set_: Settings = None) -> None:
    """List the users and their roles, dropped ones too."""
    from flightkalam import app

    with app.stopped_accounts(_settings_of(data_dir, config, set_)) as accounts:
        for account in accounts.list(dropped=True):
            print(f"{account.name}\t{account.role.label}\t{'' if account.live else 'dropped'}".rstrip())


def _settings_of(data_dir: Path, config: Path | None, set_: list[str] | None) -> Config:
    return Config.load(config, overrides_of(set_ or []) | {"server.data_dir": data_dir})


def _new_password(name: str, given: str | None) -> str:
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise InvalidValue(f"no password for {name}: set FLIGHTKALAM_NEW_PASSWORD")
    return str(typer.prompt(f"New password of {name}", hide_input=True, confirmation_prompt=True, err=True))


# ---------------------------------------------------------------------------------------------------------------
# The client's side


@cli.command()
def sql(
    statement: Annotated[str | None, typer.Argument(help="One statement, or several with ; between them.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A file of statements; - is standard input.")
    ] = None,
    uri: Uri = DEFAULT_URI,
    user: User = "root",
    password: Password = None,
    ca_cert: CaCert = None,
    format_: Annotated[
        output.Format | None,
        typer.Option(
            "--format", help="How results are written. Default: a table on a terminal, csv in a pipe.", show_default=False
        ),
    ] = None,
    output_: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results to a file.")] = None,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=0, help="Rows that a table shows; 0: all. Other formats always have all.")
    ] = _DEFAULT_ROWS,
) -> None:
    """Run SQL and print what it gives.

    Statements come from the argument, from `--file` or from standard input; they run one after another in one session,
    and the first that fails ends the run.
    """
    statements = split(_script(statement, file))
    with (
        Connection(_target(uri, user, password, ca_cert)) as connection,
        output.writer(format_, output_, max_rows or None) as writer,
    ):
        for text in statements:
            writer.write(text, connection.run(text))


@cli.command("shell")
def shell_(
    uri: Uri = DEFAULT_URI,
    user: User = "root",
    password: Password = None,
    ca_cert: CaCert = None,
    history: Annotated[
        Path, typer.Option("--history", metavar="FILE", help="Where earlier statements are kept.")
    ] = shell.HISTORY_FILE,
) -> None:
    """Work with the server by hand: history, completion, paging, timing. `\\?` lists its commands."""
    if not sys.stdin.isatty():
        raise InvalidValue("the shell needs a terminal: pipe scripts into `flightkalam sql`")
    with Connection(_target(uri, user, password, ca_cert)) as connection:
        shell.run(connection, Console(), history)


@cli.command()
def load(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Parquet, CSV (also .gz, .zst, …) or Arrow files.")],
    table: Annotated[str, typer.Option("--table", "-t", metavar="[NS.]TABLE", help="The table to load into.")],
    mode: Annotated[loading.Mode, typer.Option("--mode", help="What becomes of the table.")] = loading.Mode.CREATE_APPEND,
    key: Annotated[
        str,
        typer.Option("--key", metavar="A,B", help="Primary key of a table that is made; without one it gets a hidden key."),
    ] = "",
    on_conflict: Annotated[
        loading.OnConflict, typer.Option("--on-conflict", help="What becomes of a row whose key exists.")
    ] = loading.OnConflict.ERROR,
    user_table: Annotated[
        bool, typer.Option("--user-table", help="Make a USER table, whose rows belong to one user each.")
    ] = False,
    delimiter: Annotated[str, typer.Option("--delimiter", help="Of CSV files.")] = ",",
    null: Annotated[
        list[str] | None,
        typer.Option("--null", metavar="TEXT", help="Unquoted CSV text that means NULL; repeatable. Default: nothing at all."),
    ] = None,
    uri: Uri = DEFAULT_URI,
    user: User = "root",
    password: Password = None,
    ca_cert: CaCert = None,
) -> None:
    """Load files into a table, each by one statement: a file is loaded whole or not at all.

    Columns are matched by name. Of several files the first one creates or replaces the table where the mode says so,
    and the others are appended.
    """
    name = loading.TableName.parse(table)
    headers = loading.headers([k.strip() for k in key.split(",") if k.strip()], on_conflict, user_table)
    options = loading.CsvOptions(delimiter, tuple(null) if null else ("",))
    with Connection(_target(uri, user, password, ca_cert), headers) as connection, _progress() as progress:
        for position, path in enumerate(files):
            _load_one(connection, progress, path, name, loading.mode_of(mode, position), options)


@cli.command()
def version() -> None:
    """Print the version."""
    print(f"flightkalam {__version__}")


# ---------------------------------------------------------------------------------------------------------------


def _script(statement: str | None, file: Path | None) -> str:
    if statement is not None and file is not None:
        raise typer.BadParameter("give a statement or --file, not both")
    if statement is not None and statement != "-":
        return statement
    if file is not None and str(file) != "-":
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidValue(f'cannot read "{file}": {error}') from None
    if sys.stdin.isatty():
        raise typer.BadParameter("give a statement, --file or standard input; `flightkalam shell` is the interactive one")
    return sys.stdin.read()


def _target(uri: str, user: str, password: str | None, ca_cert: Path | None) -> Target:
    if password is None:
        if not sys.stdin.isatty():
            raise InvalidValue(f"no password for {user}: set FLIGHTKALAM_PASSWORD")
        password = typer.prompt(f"Password of {user}", hide_input=True, err=True)
    return Target(uri, user, password, ca_cert)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:>12,} rows"),
        TextColumn("{task.fields[rate]:>11,.0f} rows/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _load_one(
    connection: Connection,
    progress: Progress,
    path: Path,
    table: loading.TableName,
    mode: loading.Mode,
    options: loading.CsvOptions,
) -> None:
    task = progress.add_task(path.name, total=None, rows=0, rate=0.0)
    started = time.perf_counter()

    def seen(done: int, total: int | None, rows: int) -> None:
        rate = rows / (time.perf_counter() - started)
        progress.update(task, completed=done, total=total, rows=rows, rate=rate)

    rows = loading.load_file(connection, path, table, mode, options, seen)
    seconds = time.perf_counter() - started
    progress.remove_task(task)
    line = f"{path.name}: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
    progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line as a process: a failure is one line and an exit code; a traceback means a bug of ours."""
    try:
        cli(arguments, prog_name="flightkalam")
    except ConfigError as error:
        return _fail(error.message, _USAGE)
    except Cancelled:
        return _fail("cancelled", _INTERRUPTED)
    except KalamError as error:
        return _fail(error.message, _FAILED)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
