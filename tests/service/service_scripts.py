"""Scripts of SQL with what is expected of them: a specification that runs.

    -- session alice user            from here on alice, whose role is user, is speaking (root of role system at first)
    SELECT a, b FROM t ORDER BY a;   a statement ends with ; at the end of a line
    ---- a, b                        it answers with these columns,
    1 | x                            and these rows, in this order
    2 | NULL

    INSERT INTO t VALUES (1, 'x');
    ---- error 23505 duplicate key   it is refused: SQLSTATE, and words of the message

    INSERT INTO t VALUES (3, 'x');
    ---- count 1                     it changes so many rows

    -- pause                         here the service may be flushed or restarted, and nothing changes

Without ---- a statement must succeed and nothing more is said.  `----` alone leaves the names of the columns open.  A line
that begins with # is a comment.  Values are written as `shown` writes them; ? stands for any value.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from kalam_world import Answer, Client, Refused, World

from flightkalam.auth.identity import Role

FOLDER = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Step:
    """A statement, who sends it and what must come of it; or a pause, without a statement."""

    line: int
    user: str = "root"
    role: Role = Role.SYSTEM
    sql: str = ""
    columns: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    count: int | None = None
    sqlstate: str | None = None
    message: str = ""

    @property
    def is_pause(self) -> bool:
        return not self.sql


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Step]:
    return list(_steps(path.read_text().splitlines()))


def _steps(lines: list[str]) -> Iterator[Step]:
    who = {"user": "root", "role": Role.SYSTEM}
    at = 0
    while at < len(lines):
        line = lines[at].rstrip()
        if not line or line.startswith("#"):
            at += 1
        elif line.startswith("-- session "):
            name, _, role = line.removeprefix("-- session ").partition(" ")
            who = {"user": name, "role": Role.parse(role or name)}
            at += 1
        elif line == "-- pause":
            at += 1
            yield Step(at)
        else:
            first, text = at, []
            while not text or not text[-1].endswith(";"):
                text.append(lines[at].rstrip())
                at += 1
            expected, at = _expected(lines, at)
            yield Step(first + 1, **who, sql="\n".join(text)[:-1], **expected)


def _expected(lines: list[str], at: int) -> tuple[dict[str, Any], int]:
    if at >= len(lines) or not lines[at].startswith("----"):
        return {}, at
    said = lines[at].removeprefix("----").strip()
    at += 1
    word, _, rest = said.partition(" ")
    if word == "error":
        sqlstate, _, message = rest.partition(" ")
        return {"sqlstate": sqlstate, "message": message}, at
    if word == "count":
        return {"count": int(rest)}, at
    rows: list[str] = []
    while at < len(lines) and lines[at].rstrip() and not lines[at].startswith(("#", "-- ")):
        assert not lines[at].startswith("----"), f"line {at + 1}: rows end with an empty line"
        rows.append(lines[at].strip())
        at += 1
    columns = tuple(c.strip() for c in said.split(",")) if said else None
    return {"rows": tuple(rows), "columns": columns}, at


# -- showing ----------------------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value as scripts write it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    if isinstance(value, bytes):
        return "x" + value.hex()
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds // 1000} us"
    return str(value).replace("\n", "\\n").replace("\0", "\\0") if value != "" else "''"


def shown_rows(table: pa.Table) -> tuple[str, ...]:
    columns = [table.column(i).to_pylist() for i in range(table.num_columns)]
    return tuple(" | ".join(map(shown, row)) for row in zip(*columns, strict=True))


# -- running ----------------------------------------------------------------------------------------------------------


Connect = Callable[[str, Role], Client]


class Play:
    """A script on its way through a world.

    :param connect: opens a session for somebody.
    :param after_change: what happens after each statement that changed something.
    :param at_pause: what happens at each pause.
    """

    def __init__(self, world: World, connect: Connect, after_change: Callable[[], None], at_pause: Callable[[], None]) -> None:
        self._world = world
        self._connect = connect
        self._after_change = after_change
        self._at_pause = at_pause
        self._clients: dict[str, Client] = {}

    def run(self, path: Path) -> None:
        """Run it to its end and report everything that differs."""
        __tracebackhide__ = True
        differing: list[str] = []
        for step in read(path):
            if step.is_pause:
                self._at_pause()
                self._clients.clear()
                continue
            try:
                self._step(step)
            except AssertionError as e:
                differing.append(f"{path.name}:{step.line}: {step.sql}\n{e}")
        if differing:
            raise AssertionError("\n\n".join(differing))

    def _client(self, step: Step) -> Client:
        if step.user not in self._clients:
            self._clients[step.user] = self._connect(step.user, step.role)
        return self._clients[step.user]

    def _step(self, step: Step) -> None:
        try:
            answer = self._client(step).run(step.sql)
        except Refused as e:
            assert step.sqlstate is not None, f"refused: {e}"
            assert e.sqlstate == step.sqlstate and step.message.lower() in e.message.lower(), (
                f"expected: {step.sqlstate} {step.message}\nrefused:  {e}"
            )
            return
        assert step.sqlstate is None, f"expected: {step.sqlstate} {step.message}\nanswered: {answer}"
        _compare(step, answer)
        if answer.count is not None:
            self._after_change()


def _alike(expected: str, found: str) -> bool:
    left, right = expected.split(" | "), found.split(" | ")
    return len(left) == len(right) and all(a in ("?", b) for a, b in zip(left, right, strict=True))


def _compare(step: Step, answer: Answer) -> None:
    if step.count is not None:
        assert answer.count == step.count, f"expected count {step.count}, found {answer.count}"
    if step.rows is not None:
        assert answer.rows is not None, f"expected rows, found a count of {answer.count}"
        found = shown_rows(answer.rows)
        alike = len(found) == len(step.rows) and all(map(_alike, step.rows, found))
        assert alike, "expected:\n" + "\n".join(step.rows) + "\nfound:\n" + "\n".join(found)
    if step.columns is not None:
        assert answer.rows is not None
        assert tuple(answer.rows.column_names) == step.columns
