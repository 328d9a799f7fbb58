"""Actions for clients without SQL: `kalam.flush`, `kalam.compact`, `kalam.job`.  Body and answer are JSON objects.

    kalam.flush     {"table": "ns.t"} | {"namespace": "n"} | {}; "wait"?: bool       FLUSH TABLE, FLUSH ALL TABLES
    kalam.compact   {"table": "ns.t", "wait"?: bool}                                 COMPACT TABLE
    kalam.job       {"create": {"kind": …, "parameters"?: {…}}, "wait"?: bool}       RUN JOB
                    {"watch": id, "timeout_seconds"?: s}                             SHOW JOB, when it is finished or time is up
                    {"kill": id}                                                     KILL JOB

Each is the statement beside it: with its rights, its record in the audit log, AS USER and all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flightkalam.errors import InvalidValue

# Runs a statement as the caller's and returns its only row.
Run = Callable[[str], dict[str, Any]]
_STEP_SECONDS = 0.05
_LONGEST_WATCH = 3_600.0
_UNFINISHED = frozenset({"new", "queued", "running", "retrying"})
_JSON_FIELDS = ("parameters", "result")


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class Flush(_Body):
    table: str | None = None
    namespace: str | None = None
    wait: bool = False


class Compact(_Body):
    table: str
    wait: bool = False


class Create(_Body):
    kind: str
    parameters: dict[str, Any] = {}


class Job(_Body):
    create: Create | None = None
    watch: str | None = None
    kill: str | None = None
    wait: bool = False
    timeout_seconds: float = 0.0


FLUSH_SHAPE = '{"table"?: "ns.t", "namespace"?: "n", "wait"?: true | false}'
COMPACT_SHAPE = '{"table": "ns.t", "wait"?: true | false}'
JOB_SHAPE = (
    'one of {"create": {"kind": "…", "parameters"?: {…}}, "wait"?: true | false}, '
    '{"watch": "job id", "timeout_seconds"?: number}, {"kill": "job id"}'
)
B = TypeVar("B", bound=_Body)


def reader(name: str, model: type[B], shape: str) -> Callable[[bytes], B]:
    """Reads an action's body; what does not fit is refused in one message that shows the expected shape."""

    def read(body: bytes) -> B:
        try:
            return model.model_validate_json(body or b"{}")
        except ValidationError as e:
            wrong = "; ".join(dict.fromkeys(_wrong(error) for error in e.errors(include_url=False, include_input=False)))
            raise InvalidValue(f"{name} takes {shape}: {wrong}") from None

    return read


def _wrong(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = f"{error['msg'][0].lower()}{error['msg'][1:]}"
    return f'"{where}": {message}' if where else message


def flush(body: Flush, run: Run) -> bytes:
    if body.table is not None and body.namespace is not None:
        raise InvalidValue(f"kalam.flush takes {FLUSH_SHAPE}: a table or a namespace, not both")
    if body.table is not None:
        what = f"TABLE {_name(body.table)}"
    else:
        what = "ALL TABLES" + ("" if body.namespace is None else f" IN NAMESPACE {_quoted(body.namespace)}")
    return _answer(run(f"FLUSH {what}{_wait(body.wait)}"))


def compact(body: Compact, run: Run) -> bytes:
    return _answer(run(f"COMPACT TABLE {_name(body.table)}{_wait(body.wait)}"))


def job(body: Job, run: Run, gone: Callable[[], bool]) -> bytes:
    """:param gone: whether the client has hung up."""
    if sum(part is not None for part in (body.create, body.watch, body.kill)) != 1:
        raise InvalidValue(f"kalam.job takes {JOB_SHAPE}")
    if body.create is not None:
        parameters = json.dumps(body.create.parameters)
        return _answer(run(f"RUN JOB {_text(body.create.kind)} WITH {_text(parameters)}{_wait(body.wait)}"))
    if body.kill is not None:
        return _answer(run(f"KILL JOB {_text(body.kill)}"))
    assert body.watch is not None
    show, pause = f"SHOW JOB {_text(body.watch)}", threading.Event()
    found = run(show)
    for _ in _steps(body.timeout_seconds):
        if found["status"] not in _UNFINISHED or gone():
            break
        pause.wait(_STEP_SECONDS)
        found = run(show)
    return _answer(found)


def _steps(seconds: float) -> Iterator[int]:
    if not 0 <= seconds <= _LONGEST_WATCH:
        raise InvalidValue(f"kalam.job: timeout_seconds is a number from 0 to {_LONGEST_WATCH:,.0f}")
    yield from range(round(seconds / _STEP_SECONDS))


def _answer(row: dict[str, Any]) -> bytes:
    """A row as a JSON object: what it holds as JSON text becomes part of it."""
    found = {name: json.loads(value) if name in _JSON_FIELDS and value is not None else value for name, value in row.items()}
    return json.dumps(found, default=lambda value: value.isoformat()).encode()


def _name(table: str) -> str:
    return ".".join(_quoted(part) for part in table.split(".", 1))


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _wait(wait: bool) -> str:
    return " WAIT" if wait else ""
