"""DROP USER … PURGE: the account goes, then the user's rows in every USER and STREAM table, out of every file of ours.

Stopped on its way, the account is gone and some rows are still there; the same statement again finishes it.
"""

from __future__ import annotations

from flightkalam.auth.identity import Identity, Role
from flightkalam.errors import UndefinedObject
from flightkalam.model.schema import Table
from flightkalam.session import erase
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s


def erase_user(e: Execution, name: str) -> int:
    """Erase what a dropped user owns; returns how many rows a query of theirs would have seen."""
    if e.parts.accounts.find(name) is None:
        raise UndefinedObject(f'user "{name}" does not exist', sqlstate="42704")
    owner = Identity.of(name, Role.USER, session_id=e.identity.session_id, via="internal")
    e.close()  # our own snapshot must not hold back what is to go
    return sum(_erase_table(e, owner, table) for table in _tables_of(e, name))


def _tables_of(e: Execution, name: str) -> list[Table]:
    scopes = e.parts.scopes
    tables = [t for t in e.parts.catalog.state.tables.values() if t.kind.per_user]
    return [t for t in tables if any(scope.owner == name for scope in scopes.of_table(t))]


def _erase_table(e: Execution, owner: Identity, table: Table) -> int:
    name = s.Name((s.Ident(table.namespace, True), s.Ident(table.name, True)), 0, 0)
    with Execution(e.parts, owner, cancel=e.cancel) as as_owner:
        return erase.erase_rows(as_owner, s.Delete(name)).count
