"""`python -m perf.run`: every measurement beside its peer, as one table.

A complete run writes docs/performance.md; one with `--only` or `--quick` only prints, since its table would be partial
or its figures too small to believe.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from perf import (
    bulk_ingest,
    bulk_writes,
    change_feed,
    cold_aggregate,
    dead_rows,
    guesses,
    identity,
    jobs,
    manifests,
    one_row,
    pruning,
    report,
    start_up,
    statements,
    stream_rows,
    upserts,
    versions,
    writers,
)
from perf.result import LeftOut, NotPossible, Result
from perf.world import QUICK, Sizes, World

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
MEASUREMENTS: dict[str, Callable[[World], Result]] = {
    cold_aggregate.NAME: cold_aggregate.measure,
    stream_rows.NAME: stream_rows.measure,
    bulk_ingest.FREE: bulk_ingest.measure_free,
    bulk_ingest.KEYED_NAME: bulk_ingest.measure_keyed,
    bulk_writes.UPDATE: bulk_writes.measure_update,
    bulk_writes.DELETE: bulk_writes.measure_delete,
    bulk_writes.RANDOM: bulk_writes.measure_random,
    upserts.INSIDE: upserts.measure_inside,
    upserts.ADBC: upserts.measure_adbc,
    writers.RECORD: writers.measure_record,
    writers.ENGINE: writers.measure_engine,
    writers.ADBC: writers.measure_adbc,
    writers.DOOR: writers.measure_door,
    start_up.NAME: start_up.measure,
    guesses.NAME: guesses.measure,
    statements.SELECT_ONE: statements.measure_select_one,
    statements.POINT: statements.measure_point,
    statements.POINT_BOUND: statements.measure_point_bound,
    statements.POINT_RANDOM: statements.measure_point_random,
    statements.INSERT_ROW: statements.measure_insert_row,
    statements.INSERT_MANY: statements.measure_insert_many,
    one_row.UPDATE: one_row.measure_update,
    one_row.UPDATE_P99: one_row.measure_update_p99,
    one_row.UPDATE_BOUND: one_row.measure_update_bound,
    one_row.DELETE: one_row.measure_delete,
    one_row.DELETE_P99: one_row.measure_delete_p99,
    one_row.UPDATE_INSIDE: one_row.measure_update_inside,
    one_row.POINT_INSIDE: one_row.measure_point_inside,
    one_row.UPDATE_POSTGRES: one_row.measure_update_postgres,
    **dead_rows.measure_each(),
    **versions.measure_each(),
    **change_feed.measure_each(),
    **identity.measure_each(),
    **manifests.measure_each(),
    jobs.PARAMETERS: jobs.measure_parameters,
    jobs.IDLE: jobs.measure_idle,
    jobs.FLUSH: jobs.measure_flush,
    jobs.IN_FLUSH: jobs.measure_in_flush,
    jobs.IN_COMPACTION: jobs.measure_in_compaction,
    pruning.DECISION_100: pruning.measure_decision_100,
    pruning.DECISION_10000: pruning.measure_decision_10000,
    pruning.SKIPPED: pruning.measure_skipped,
    pruning.BYTES: pruning.measure_bytes,
    pruning.GROWTH: pruning.measure_growth,
}


def main() -> int:
    """:return: always 0: a figure short of its target, or one left out, is a finding and not a failure."""
    arguments = _arguments()
    console = Console()
    load = os.getloadavg()[0]
    names = arguments.only or list(MEASUREMENTS)
    results: list[Result | LeftOut] = []
    with World(QUICK if arguments.quick else Sizes(), arguments.folder) as world:
        for name in names:
            with console.status(f"measuring {name} …"):
                results.append(_measured(name, world))
        where = report.circumstances(world.folder, load)
    width = max(console.width, 160)
    Console(width=width).print(report.terminal(results), *where.lines(), sep="\n")
    if not arguments.only and not arguments.quick:
        report.write(PAGE, report.markdown(results, where))
        console.print(f"written to {PAGE.name}")
    return 0


def _measured(name: str, world: World) -> Result | LeftOut:
    try:
        return MEASUREMENTS[name](world)
    except NotPossible as e:
        return LeftOut(name, str(e))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.run", description="Measure the service beside its peers.")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, not how fast")
    parser.add_argument("--folder", type=Path, help="where temporary data is kept; it decides which disk is measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
