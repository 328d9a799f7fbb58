"""What the wire needs from the rest of the service, and the nouns that both sides hold.

The session lies below the wire and cannot import it, so these protocols are met by shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

OptionValue = str | bool | int | float | list[str] | None
SqlInfoValue = str | bool | int | list[str] | dict[int, list[int]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller showed.

    :param kind: `basic` (name and password), `bearer` (a token), or `certificate` (a verified TLS client certificate).
    :param user: the name of `basic`, the certificate's name of `certificate`; empty for `bearer`.
    :param secret: the password or token; never shown in a repr.
    """

    kind: Literal["basic", "bearer", "certificate"]
    user: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """A bulk load, as the client asked for it; None where the client said nothing."""

    table: str
    namespace: str | None = None
    catalog: str | None = None
    if_not_exist: Literal["create", "fail"] = "fail"
    if_exists: Literal["fail", "append", "replace"] = "fail"
    temporary: bool = False
    transaction: bytes | None = None
    options: dict[str, str] = field(default_factory=dict)


class TableInfo(Protocol):
    @property
    def catalog(self) -> str: ...
    @property
    def schema(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def arrow_schema(self) -> pa.Schema | None: ...


class Prepared(Protocol):
    """:ivar schema: of the result; empty for a statement that only counts rows."""

    @property
    def handle(self) -> bytes: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def parameters(self) -> pa.Schema: ...
    @property
    def is_update(self) -> bool: ...


class Planned(Protocol):
    """:ivar total: rows of the result, -1 when unknown.
    :ivar endpoints: the handles that together fetch it.
    :ivar expires_us: when they cannot be fetched any more, in microseconds since 1970; None for never.
    :ivar changes_data: fetching it is what changes something, which happens once.
    """

    @property
    def handle(self) -> bytes: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def total(self) -> int: ...
    @property
    def endpoints(self) -> Sequence[bytes]: ...
    @property
    def expires_us(self) -> int | None: ...
    @property
    def changes_data(self) -> bool: ...


class Rows(Protocol):
    """One running result.  `cancel` may come from another thread, also after `close`; both may come more than once.

    :ivar soon: its first rows are there, or will be at once.
    """

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def total(self) -> int: ...
    @property
    def soon(self) -> bool: ...
    def __iter__(self) -> Iterator[pa.RecordBatch]: ...
    def close(self) -> None: ...
    def cancel(self) -> None: ...


class Identity(Protocol):
    @property
    def user_id(self) -> str: ...


class Session(Protocol):
    @property
    def identity(self) -> Identity: ...
    @property
    def session_id(self) -> str: ...

    def watched(self, on_start: Callable[[Callable[[], None]], None]) -> None:
        """:param on_start: told how to stop each statement of the call, before it starts; may be called from any thread."""
        ...

    def text_of(self, path: Sequence[str]) -> str:
        """The query of all rows of the table that a path names: `table`, `namespace/table` or `catalog/namespace/table`."""
        ...

    def prepare(self, sql: str, transaction: bytes | None) -> Prepared: ...
    def bind(self, handle: bytes, parameters: pa.Table) -> None: ...
    def close_prepared(self, handle: bytes) -> None: ...
    def plan(self, sql: str, transaction: bytes | None) -> Planned: ...
    def plan_prepared(self, handle: bytes) -> Planned: ...
    def describe(self, sql: str, transaction: bytes | None) -> pa.Schema: ...
    def describe_prepared(self, handle: bytes) -> pa.Schema: ...
    def fetch(self, handle: bytes, on_start: Callable[[Callable[[], None]], None]) -> Rows:
        """:param on_start: to be told how to stop the result, before it starts; may be called from any thread."""
        ...

    def renew(self, handle: bytes) -> int | None:
        """Keep a result fetchable for longer; until when (`Planned.expires_us`)."""
        ...

    def release(self, handle: bytes) -> None:
        """The result will not be fetched any more."""
        ...

    def update(self, sql: str, transaction: bytes | None) -> int: ...
    def update_prepared(self, handle: bytes, parameters: Iterator[pa.RecordBatch] | None) -> int: ...
    def ingest(
        self, request: IngestRequest, schema: pa.Schema, batches: Iterator[pa.RecordBatch], headers: Mapping[str, str]
    ) -> int: ...

    def catalogs(self) -> list[str]: ...
    def schemas(self, catalog: str | None, pattern: str | None) -> list[tuple[str, str]]: ...
    def tables(
        self,
        catalog: str | None,
        schema_pattern: str | None,
        table_pattern: str | None,
        types: Sequence[str],
        include_schema: bool,
    ) -> Sequence[TableInfo]: ...
    def table_types(self) -> list[str]: ...
    def primary_key(self, catalog: str | None, schema: str | None, table: str) -> list[str]: ...

    def begin(self) -> bytes: ...
    def end(self, transaction: bytes, commit: bool) -> None: ...
    def begin_savepoint(self, transaction: bytes, name: str) -> bytes: ...
    def end_savepoint(self, savepoint: bytes, release: bool) -> None: ...
    def options(self) -> Mapping[str, OptionValue]: ...
    def set_option(self, name: str, value: OptionValue) -> None: ...
    @property
    def compression(self) -> str | None:
        """How the session wants its results compressed: lz4, zstd or not at all."""
        ...


class Service(Protocol):
    """The front door.

    `login` takes `basic` credentials, or a `bearer` token that is to be confirmed (some clients shake hands with one),
    and returns the token for the calls to come.  `headers` are the call's own, by lower-case name, without secrets.
    """

    draining: bool

    def login(self, credentials: Credentials, peer: str) -> str: ...
    def session(self, credentials: Credentials | None, peer: str, headers: Mapping[str, str]) -> Session: ...
    def close_session(self, session: Any) -> None: ...
    def sql_info(self) -> Mapping[int, SqlInfoValue]: ...
    def count_error(self, sqlstate: str) -> None: ...
