"""Draws a query by key over more and more batches: `python -m perf.point_plot` writes docs/point_query.svg."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot

from perf.pruning import COUNTS, Point, growth, sweep
from perf.result import median

PLOT = Path(__file__).resolve().parent.parent / "docs" / "point_query.svg"


def plot(points: Sequence[Point], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4))
    x = [p.batches for p in points]
    first = median(points[0].query) * 1000
    axes.loglog(x, [median(p.query) * 1000 for p in points], "o-", label="overlapping batches (COMPACTION = 'manual')")
    merged = [p for p in points if p.compacted]
    axes.loglog([p.batches for p in merged], [median(p.compacted) * 1000 for p in merged], "s-", label="after COMPACT TABLE")
    axes.loglog(x, [first * (n / x[0]) ** 0.5 for n in x], "k:", label="square root")
    axes.set(xlabel="batches before compaction", ylabel="median of a query by key, ms", title="One row by its key, random keys")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="perf-") as folder:
        points = sweep(Path(folder), COUNTS, 200)
    for p in points.values():
        after = f", compacted {median(p.compacted) * 1000:.2f} ms" if p.compacted else ""
        print(
            f"{p.batches:>6} batches: decision {median(p.decision) * 1000:.3f} ms, "
            f"query {median(p.query) * 1000:.2f} ms{after}, "
            f"{p.skipped:.2%} of the batches skipped, {p.bytes:.3%} of the bytes read"
        )
    print(f"grows like batches^{growth(list(points.values())):.2f}")
    plot(list(points.values()), PLOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
