"""One statement's world: who runs it, what it sees, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Protocol

from flightkalam.auth import authorise
from flightkalam.auth.authorise import Action
from flightkalam.auth.identity import Identity
from flightkalam.catalog.names import fold
from flightkalam.catalog.providers import SYSTEM, Context
from flightkalam.catalog.state import CatalogState, split_name
from flightkalam.errors import AccessDenied, DuplicateObject, HiddenObject, InvalidValue, undefined_table
from flightkalam.model.schema import Table, View
from flightkalam.query.compute import Caller, CancelToken, Setting
from flightkalam.query.params import Literal
from flightkalam.session.acts import Act, joined
from flightkalam.session.parts import Parts
from flightkalam.session.queries import Query
from flightkalam.session.receipts import Receipt
from flightkalam.session.transactions import Transaction
from flightkalam.sql.statements import Name
from flightkalam.storage.kv import Batch
from flightkalam.table.mutation import Extra
from flightkalam.table.scan import ScanPlan
from flightkalam.table.snapshot import Snapshot


class Part(Protocol):
    """Some of the rows of one table (`flightkalam.session.partitions`)."""

    def scan_of(self, table: Table) -> ScanPlan: ...


@dataclass
class Execution:
    """Lives from a statement's first look at the data to its last row.  Close it, or use it as a context manager.

    The catalog's state and the watermark are taken once, so everything in the statement sees one moment.
    """

    parts: Parts
    identity: Identity
    namespace: str = "main"
    time_zone: str = "UTC"
    cancel: CancelToken = field(default_factory=CancelToken)
    transaction: Transaction | None = None
    receipt: Receipt | None = None
    parameters: tuple[Literal, ...] = ()  # of the client's query
    act: Act | None = None
    query: Query | None = None
    part: Part | None = None  # the only rows that it reads
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the snapshot (T-52).  Safe to call twice."""
        self._stack.close()

    def renewed(self) -> Execution:
        """The same caller's next look at the data: a new snapshot of everything durable."""
        return Execution(
            self.parts,
            self.identity,
            self.namespace,
            self.time_zone,
            self.cancel,
            receipt=self.receipt,
            act=self.act,
            query=self.query,
        )

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Note what a step of the statement takes."""
        return self.parts.queries.phase(self.query, name)

    def extra(self, count: int | None = None) -> Extra | None:
        """What joins the statement's own commit: its receipt and its audit record.

        :param count: what the client will be told, when the commit itself cannot know it.
        """
        return joined(self.act, self.receipt, count)

    def record(self, batch: Batch) -> None:
        """The audit record, for commits that have no rows: call under the commit mutex."""
        if self.act is not None:
            self.act.record(batch)

    def on_close(self, callback: Callable[[], object]) -> None:
        self._stack.callback(callback)

    @cached_property
    def state(self) -> CatalogState:
        return self.parts.catalog.state if self.transaction is None else self.transaction.begun(self.parts).state

    @cached_property
    def watermark(self) -> int:
        if self.transaction is not None:
            with self.transaction.lock:  # it must not end in between
                begun = self.transaction.begun(self.parts)
                self._stack.callback(begun.hold())
            return begun.watermark
        door = self.parts.scopes.door
        pin = door.pin()
        self._stack.callback(door.unpin, pin)
        return pin.watermark

    @cached_property
    def _snapshots(self) -> dict[int, Snapshot]:
        return {}

    def snapshot(self, table: Table) -> Snapshot:
        """The table's rows that belong to the caller, at the statement's watermark."""
        found = self._snapshots.get(table.id)
        if found is None:
            found = Snapshot.take(self.parts.scopes, table, self.owner(table), self.watermark)
            self._snapshots[table.id] = found
        return found

    def snapshot_of(self, table: Table, owner: str | None, watermark: int | None = None) -> Snapshot:
        """The rows of any scope, for checks over all of a table that give no row away."""
        return Snapshot.take(self.parts.scopes, table, owner, self.watermark if watermark is None else watermark)

    def owner(self, table: Table) -> str | None:
        """Whose rows of the table the statement reaches: the subject's own, or everybody's of a SHARED table."""
        return self.identity.user_id if table.kind.per_user else None

    @cached_property
    def setting(self) -> Setting:
        caller = Caller(self.identity.user_id, self.identity.role.label, self.identity.actor_id, self.namespace)
        return Setting(self.time_zone, caller)

    @cached_property
    def context(self) -> Context:
        """For system relations and SHOW."""
        return Context(self.state, self.visible, caller=self.identity)

    # -- names and rights --------------------------------------------------------------------------------------

    def visible(self, found: Table | View) -> bool:
        if isinstance(found, View):
            return True
        return authorise.visible(self.identity.role, found.kind, found.options.access_level)

    def aim(self, name: str) -> None:
        """Note for the audit log what the statement is about."""
        if self.act is not None:
            self.act.aim(name)

    def require(self, action: Action, found: Table, name: str | None = None) -> None:
        self.aim(found.qualified)
        if action is Action.WRITE:
            self.refuse_shared_target(found, name)
        own = found.created_by == self.identity.user_id if action is Action.ALTER else True
        owner = own and (found.kind.per_user or action is Action.ALTER)
        authorise.require(self.identity, action, name or found.qualified, found.kind, found.options.access_level, owner=owner)

    def refuse_shared_target(self, found: Table, name: str | None = None) -> None:
        """AS USER writes to rows of users; whether a SHARED table is there is told to actors who may see it."""
        if self.act is None or not self.act.for_another or found.kind.per_user:
            return
        if not authorise.visible(self.identity.actor_role, found.kind, found.options.access_level):
            raise HiddenObject(undefined_table(name or found.qualified).message)
        raise AccessDenied("AS USER not supported for Shared tables")

    def table(self, name: Name | tuple[str, ...], action: Action) -> Table:
        """The table that a name means, if the caller may do `action` with it.

        :raises UndefinedObject: there is none that the caller may see.
        """
        parts = name if isinstance(name, tuple) else tuple(p.value for p in name.parts)
        written = ".".join(parts)
        self._refuse_system_table(parts, written)
        found = self.state.resolve(parts, self.namespace)
        if isinstance(found, View):
            raise InvalidValue(f'"{found.qualified}" is a view; only tables can be changed', sqlstate="42809")
        self.require(action, found, written)
        return found

    def _refuse_system_table(self, parts: tuple[str, ...], written: str) -> None:
        namespace, name = split_name(parts, self.namespace)
        if fold(namespace) == SYSTEM:
            authorise.require(self.identity, Action.READ_SYSTEM)
        if self.parts.providers.find(namespace, name) is not None:
            raise InvalidValue(f'"{written}" is a system table; it can only be read', sqlstate="42809")

    def new_name(self, name: Name) -> tuple[str, str]:
        """(namespace, name) of something that is about to be created."""
        namespace = name.namespace or self.namespace
        return self.state.namespace(namespace).name, name.table

    def find(self, name: Name) -> Table | View | None:
        found = self.state.find(name.namespace or self.namespace, name.table)
        return found if found is not None and self.visible(found) else None

    def existing(self, name: Name) -> Table | View:
        found = self.state.find(name.namespace or self.namespace, name.table)
        if found is None:
            raise undefined_table(str(name))
        if not self.visible(found):
            raise HiddenObject(undefined_table(str(name)).message, sqlstate="42P01")
        return found

    def refuse_hidden_name(self, namespace: str, name: str) -> None:
        """A name is taken for everybody; what it is taken by is told to those who may see it."""
        found = self.state.find(namespace, name)
        if found is not None and not self.visible(found):
            raise DuplicateObject(f'the name "{namespace}.{name}" is not available; choose another')
