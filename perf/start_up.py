"""From the start of the process to the line that says it takes calls, over a table of cold rows.

Beside it the do-nothing server: Python, its imports and a Flight listener take their time in any case.
"""

from __future__ import annotations

import shutil

from perf import data, servers
from perf.result import Result, Target, interleaved, median, spread, timed
from perf.world import World, load_cold

NAME = "start_up"


def measure(world: World) -> Result:
    data_dir = world.folder / NAME
    rows = world.sizes.start_rows
    first = servers.start_kalam(data_dir, world.log(NAME))
    with servers.connect(first.uri) as connection:
        load_cold(connection, "cold", [data.reader(rows)])
    first.stop()
    answers: list[float] = []
    processor: list[float] = []

    def ours() -> float:
        server = servers.start_kalam(data_dir, world.log(NAME))
        processor.append(server.processor_seconds)
        answers.append(server.seconds + timed(lambda: _count(server.uri, rows)))
        server.stop()
        return server.seconds

    def stub() -> float:
        server = servers.start(["perf.stub"], world.log("stub"))
        server.stop()
        return server.seconds

    a, b = interleaved(ours, stub, world.sizes.repeats)
    shutil.rmtree(data_dir)
    return Result(
        name=NAME,
        ours=median(a),
        peer=median(b),
        ratio=median(a) / median(b),
        target=Target("ours", "at most", 1.5),
        unit="s",
        peer_name="do-nothing server",
        runs=len(a),
        note=f"{rows:,} cold rows; ours {spread(a, 1, 's')}, of it {median(processor[1:]):.2f} s of processor time; "
        f"first counted answer after {median(answers[1:]):.2f} s",
    )


def _count(uri: str, expected: int) -> None:
    with servers.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM cold")
        found = cursor.fetchall()[0][0]
        if found != expected:
            raise AssertionError(f"{found} rows after the start where {expected} were stored")
