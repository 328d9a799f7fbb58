"""Results as a table: for a terminal, and for docs/performance.md between its markers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from perf.result import LeftOut, Result

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_PACKAGES = ("duckdb", "pyarrow", "rocksdict", "adbc-driver-flightsql", "adbc-driver-postgresql", "pylance", "deltalake")
_HEAD = ("measurement", "ours", "peer", "ratio", "target", "met", "what was measured")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and where the figures are from: without that they mean nothing."""

    date: str
    machine: str
    versions: str
    load: str

    def lines(self) -> list[str]:
        return [self.date, self.machine, self.versions, self.load]


def circumstances(folder: Path, load_before: float) -> Circumstances:
    versions = [f"Python {platform.python_version()}", *(_version(name) for name in _PACKAGES)]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Circumstances(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{os.cpu_count()} × {_processor()}, {gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"data on {_file_system(folder)}",
        versions=", ".join(versions),
        load=f"load average of one minute: {load_before:.1f} before, {os.getloadavg()[0]:.1f} at the end "
        "(the measurements themselves keep it at about 2)",
    )


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """The kind of file system: on one in memory a sync costs nothing, and durable figures say nothing."""
    best, kind = "", "an unknown file system"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        inside = folder.resolve().is_relative_to(mount)
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _cells(result: Result | LeftOut) -> tuple[str, ...]:
    if isinstance(result, LeftOut):
        return (result.name, "–", "–", "–", "–", "left out", result.reason)
    peer = "–" if result.peer is None else f"{_figure(result.peer)} {result.unit} ({result.peer_name})"
    ratio = "–" if result.ratio is None else f"{result.ratio:.2f} ×"
    note = f"{result.note}; median of {result.runs}"
    target = "–" if result.target is None else result.target.text(result.unit)
    met = "–" if result.target is None else "yes" if result.met else "no"
    return (result.name, f"{_figure(result.ours)} {result.unit}", peer, ratio, target, met, note)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def terminal(results: Sequence[Result | LeftOut]) -> Table:
    table = Table(*_HEAD, show_lines=True)
    for result in results:
        good = isinstance(result, Result) and result.met
        table.add_row(*_cells(result), style="green" if good else "yellow")
    return table


def markdown(results: Sequence[Result | LeftOut], where: Circumstances) -> str:
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_cells(r) for r in results)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    facts = "\n".join(f"- {line}" for line in where.lines())
    return f"Measured:\n\n{facts}\n\n{table}\n"


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers.

    :raises ValueError: the page has no markers.
    """
    whole = page.read_text()
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the markers {BEGIN} and {END}; put them where the table belongs")
    page.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}")
