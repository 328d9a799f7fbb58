"""docs/flight.md lists the commands that are answered, and the table is the dispatch's own."""

from __future__ import annotations

from pathlib import Path

from flightkalam.flight import dispatch
from flightkalam.flight import flight_sql_pb2 as pb

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flight.md"
ENTRIES = {"info": "GetFlightInfo", "schema": "GetSchema", "get": "DoGet", "put": "DoPut", "exchange": "DoExchange"}


def coverage() -> str:
    lines = [f"| command | {' | '.join(ENTRIES.values())} |", "|-|" + "-|" * len(ENTRIES)]
    for name, row in {"*a path*": dispatch.PATH, **dispatch.ROWS}.items():
        if row.action is None:
            refused = "Substrait" in name
            cells = ["" if getattr(row, e) is None else "refused" if refused else "yes" for e in ENTRIES]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| action | |", "|-|-|"]
    lines += [f"| {name} | {row.description} |" for name, row in dispatch.ROWS.items() if row.action is not None]
    return "\n".join(lines)


def test_the_table_of_the_page_is_what_is_answered():
    between = PAGE.read_text(encoding="utf-8").split("<!-- coverage -->")[1].strip()
    assert between == coverage(), f"stale; the table should be:\n\n{coverage()}"


def test_every_command_of_the_protocol_has_a_row():
    messages = set(pb.DESCRIPTOR.message_types_by_name)
    commands = {m for m in messages if m.startswith("Command")}
    actions = {m.removeprefix("Action").removesuffix("Request") for m in messages if m.startswith("Action")}
    actions = {a for a in actions if not a.endswith("Result")}
    answered = set(dispatch.ROWS)
    assert commands <= answered and actions <= answered, (commands | actions) - answered
