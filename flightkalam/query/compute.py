"""What the service asks of a SQL engine; another one could stand behind it.

The engine sees one database without tables.  Whatever a statement reads is written into its text (`relation`) or
handed in as an Arrow *input* under a generated name, for that statement alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from flightkalam.errors import Cancelled


@dataclass(frozen=True, slots=True)
class Bits:
    """One value of bits, which the text reads as `getvariable('name')`: to the engine it is a constant of the statement.

    :param packed: eight bits a byte, the first one highest.
    """

    packed: bytes


Input: TypeAlias = "pa.Table | pa.RecordBatchReader | Bits"
Inputs = Mapping[str, Input]
Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of a result; `type` is the engine's own name for it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom `CURRENT_USER` and its kin answer."""

    user: str
    role: str
    actor: str
    namespace: str = "main"


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for one statement beside its text."""

    time_zone: str = "UTC"
    caller: Caller | None = None


@dataclass(slots=True)
class CancelToken:
    """Stops a statement from another thread: the client's cancel, a deadline or KILL QUERY."""

    reason: str = "the statement was cancelled"
    _fired: bool = False
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cancelled(self) -> bool:
        return self._fired

    def cancel(self, reason: str | None = None) -> None:
        with self._lock:
            if self._fired:
                return
            self._fired = True
            if reason is not None:
                self.reason = reason
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when cancelled, at once if that has happened; returns what takes it back."""
        with self._lock:
            if not self._fired:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def check(self) -> None:
        if self._fired:
            raise self.error()

    def error(self) -> Cancelled:
        return Cancelled(f"{self.reason}; run it again if it is still wanted")


class EngineStream(Protocol):
    """A running statement.  Iterate once, then `close`; `interrupt` may come from any thread."""

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...

    def close(self) -> None: ...

    def interrupt(self) -> None: ...


class Engine(Protocol):
    def tree(self, sql: str) -> Tree:
        """The engine's own parse tree, one entry per statement.

        :raises SqlSyntaxError: the text is not SQL.
        :raises Unsupported: SQL that is not a query.
        """
        ...

    def describe(self, sql: str, inputs: Inputs, setting: Setting) -> list[ResultColumn]:
        """The columns that the statement returns; nothing is read."""
        ...

    def stream(self, sql: str, inputs: Inputs, setting: Setting, *, batch_rows: int, cancel: CancelToken) -> EngineStream: ...

    def table(self, sql: str, inputs: Inputs, setting: Setting, *, cancel: CancelToken | None = None) -> pa.Table:
        """A small result at once."""
        ...

    def explain(self, sql: str, inputs: Inputs, setting: Setting, *, analyze: bool, as_json: bool) -> str:
        """The engine's plan of the statement; `analyze` runs it."""
        ...
