"""Who may do what: one table, as data.

`RULES` is SEMANTICS §5 line by line.  `allowed` looks a question up, `require` asks it and refuses; docs/security.md
shows the same table, generated.  There is no other place that compares roles to rights.

    may(role, action, object) = Grant.ALL   always
                                Grant.OWN   only what is the caller's own: rows of their scope, tables they created
                                Grant.NONE  never

An object is *visible* to a role that may READ it at all.  A refusal on an invisible object is the very error of a
missing one, so that nobody learns from a refusal what exists.  A question that no rule answers is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from flightkalam.auth.identity import Identity, Role
from flightkalam.errors import AccessDenied, HiddenObject, undefined_table
from flightkalam.model.schema import AccessLevel, TableKind


class Action(Enum):
    """What a statement wants to do.  The value is how a refusal names it."""

    # with a table
    READ = "read"
    WRITE = "write to"
    CREATE = "create"
    ALTER = "alter"
    DROP = "drop"
    FLUSH = "flush"
    COMPACT = "compact"
    CHECK = "check"
    # with the service
    CREATE_VIEW = "create views"
    DROP_VIEW = "drop views"
    CREATE_NAMESPACE = "create namespaces"
    DROP_NAMESPACE = "drop namespaces"
    MANAGE_USERS = "create, change or drop other users"
    MANAGE_STORAGES = "create, change or drop storages"
    BACKUP = "make a backup"
    RUN_JOB = "run jobs"
    KILL_JOB = "kill jobs"
    KILL_QUERY = "kill the queries of others"
    READ_SYSTEM = "read system tables"


class Grant(Enum):
    NONE = auto()
    OWN = auto()
    ALL = auto()


NONE, OWN, ALL = Grant.NONE, Grant.OWN, Grant.ALL


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: `grants` are those of user, service and dba; system always equals dba.

    :param kinds: the tables meant; empty for actions on the service.
    :param levels: the access levels meant; empty: the level does not matter.
    :param own: what OWN means here.
    """

    title: str
    actions: tuple[Action, ...]
    grants: tuple[Grant, Grant, Grant]
    kinds: tuple[TableKind, ...] = ()
    levels: tuple[AccessLevel, ...] = ()
    own: str = ""

    def grant(self, role: Role) -> Grant:
        return self.grants[min(role, Role.DBA) - 1]

    def questions(self) -> Iterator[Question]:
        for action in self.actions:
            for kind in self.kinds or (None,):
                for level in self.levels or (None,):
                    yield (action, kind, level)


Question = tuple[Action, TableKind | None, AccessLevel | None]

_PER_USER = (TableKind.USER, TableKind.STREAM)
_SHARED = (TableKind.SHARED,)
_PUBLIC = (AccessLevel.PUBLIC,)
_PRIVATE = (AccessLevel.PRIVATE, AccessLevel.RESTRICTED)
_DBA = (AccessLevel.DBA,)
_UPKEEP = (Action.FLUSH, Action.COMPACT, Action.CHECK)

RULES: tuple[Rule, ...] = (
    # rows
    Rule("rows of USER and STREAM tables", (Action.READ, Action.WRITE), (OWN, OWN, OWN), _PER_USER, own="own rows"),
    Rule("rows of SHARED PUBLIC tables", (Action.READ,), (ALL, ALL, ALL), _SHARED, _PUBLIC),
    Rule("rows of SHARED PUBLIC tables", (Action.WRITE,), (NONE, ALL, ALL), _SHARED, _PUBLIC),
    Rule(
        "rows of SHARED PRIVATE and RESTRICTED tables",
        (Action.READ, Action.WRITE),
        (NONE, ALL, ALL),
        _SHARED,
        _PRIVATE,
    ),
    Rule("rows of SHARED DBA tables", (Action.READ, Action.WRITE), (NONE, NONE, ALL), _SHARED, _DBA),
    # tables
    Rule("USER and STREAM tables", (Action.CREATE,), (ALL, ALL, ALL), _PER_USER),
    Rule("USER and STREAM tables", (Action.ALTER,), (OWN, ALL, ALL), _PER_USER, own="tables they created"),
    Rule("SHARED tables", (Action.CREATE,), (NONE, ALL, ALL), _SHARED),
    Rule("SHARED tables, not DBA", (Action.ALTER,), (NONE, ALL, ALL), _SHARED, _PUBLIC + _PRIVATE),
    Rule("SHARED DBA tables", (Action.ALTER,), (NONE, NONE, ALL), _SHARED, _DBA),
    Rule("USER and STREAM tables", _UPKEEP, (NONE, ALL, ALL), _PER_USER),
    Rule("SHARED tables, not DBA", _UPKEEP, (NONE, ALL, ALL), _SHARED, _PUBLIC + _PRIVATE),
    Rule("SHARED DBA tables", _UPKEEP, (NONE, NONE, ALL), _SHARED, _DBA),
    Rule("tables of every kind", (Action.DROP,), (NONE, NONE, ALL), tuple(TableKind)),
    # the service
    Rule("views", (Action.CREATE_VIEW, Action.DROP_VIEW), (NONE, ALL, ALL)),
    Rule("namespaces", (Action.CREATE_NAMESPACE, Action.DROP_NAMESPACE), (NONE, NONE, ALL)),
    Rule("other users", (Action.MANAGE_USERS,), (NONE, NONE, ALL)),
    Rule("storages", (Action.MANAGE_STORAGES,), (NONE, NONE, ALL)),
    Rule("backups", (Action.BACKUP,), (NONE, NONE, ALL)),
    Rule("jobs", (Action.RUN_JOB, Action.KILL_JOB), (NONE, NONE, ALL)),
    Rule("queries", (Action.KILL_QUERY,), (OWN, OWN, ALL), own="own queries"),
    Rule("system tables", (Action.READ_SYSTEM,), (NONE, NONE, ALL)),
)

_TABLE: dict[Question, Rule] = {question: rule for rule in RULES for question in rule.questions()}


def _rule(action: Action, kind: TableKind | None, access: AccessLevel | None) -> Rule | None:
    # A rule that does not mention levels holds for all of them.
    return _TABLE.get((action, kind, access)) or _TABLE.get((action, kind, None))


def allowed(
    role: Role,
    action: Action,
    kind: TableKind | None = None,
    access: AccessLevel | None = None,
    *,
    owner: bool = False,
) -> bool:
    """Whether a role may do something.

    :param kind: the kind of the table acted upon; None for actions on the service.
    :param access: the access level of a SHARED table; of no meaning for the other kinds.
    :param owner: the thing is the caller's own: rows of their scope, a table they created, a query they run.
    """
    rule = _rule(action, kind, access)
    grant = rule.grant(role) if rule is not None else NONE
    return grant is ALL or (grant is OWN and owner)


def visible(role: Role, kind: TableKind, access: AccessLevel | None = None) -> bool:
    """Whether a role may know that such a table exists: who may read rows of it, be it only their own."""
    return allowed(role, Action.READ, kind, access, owner=True)


def require(
    identity: Identity,
    action: Action,
    name: str = "",
    kind: TableKind | None = None,
    access: AccessLevel | None = None,
    *,
    owner: bool = False,
) -> None:
    """Return if the identity's subject may do it.

    :param name: the table as the statement names it; for messages.
    :raises UndefinedObject: the subject may not even see the table: the same error as for one that is not there.
    :raises AccessDenied: they may see it, but not do that.
    """
    if allowed(identity.role, action, kind, access, owner=owner):
        return
    # What is about to be created is no secret of anybody's.
    if kind is not None and action is not Action.CREATE and not visible(identity.role, kind, access):
        raise HiddenObject(undefined_table(name).message, sqlstate="42P01")
    what = action.value if kind is None else f"{action.value} {kind.value} tables"
    target = f' ("{name}")' if name else ""
    raise AccessDenied(
        f'user "{identity.user_id}" of role {identity.role.label} may not {what}{target}; '
        "ask for a role that may, or for somebody who has it"
    )


def require_user_change(identity: Identity, target: str, target_role: Role | None, new_role: Role | None = None) -> None:
    """Return if the subject may create, change or drop the account `target`.

    Nobody reaches above their own role: neither to grant it, nor to take over an account that has it.

    :param target_role: the role that the account has; None if it does not exist (yet).
    :param new_role: the role that it is to get.
    """
    require(identity, Action.MANAGE_USERS)
    for role in (target_role, new_role):
        if role is not None and role > identity.role:
            raise AccessDenied(
                f'user "{identity.user_id}" of role {identity.role.label} may not change users of role {role.label} '
                f'or grant that role ("{target}"); ask a user of role {role.label}'
            )


def require_password_change(identity: Identity, target: str, target_role: Role | None) -> None:
    """Return if the subject may set the password of `target`: everybody their own, but not in somebody else's name."""
    if target == identity.user_id and not identity.impersonated:
        return
    require_user_change(identity, target, target_role)


# ---------------------------------------------------------------------------------------------------------------
# Documentation

BEGIN_MARK = "<!-- matrix: generated by `python -m flightkalam.auth.authorise` -->"
END_MARK = "<!-- end of matrix -->"


def matrix_markdown() -> str:
    """The table of docs/security.md, from the rules."""
    head = "| object | action | user | service | dba | system |\n|-|-|-|-|-|-|\n"
    return head + "".join(_matrix_row(rule) for rule in RULES)


def _matrix_row(rule: Rule) -> str:
    actions = ", ".join(action.name.replace("_", " ") for action in rule.actions)
    text = {ALL: "yes", NONE: "no", OWN: rule.own}
    return f"| {rule.title} | {actions} | " + " | ".join(text[rule.grant(role)] for role in Role) + " |\n"


def with_matrix(page: str) -> str:
    """The page with today's table between its marks."""
    before, rest = page.split(BEGIN_MARK)
    _, after = rest.split(END_MARK)
    return f"{before}{BEGIN_MARK}\n{matrix_markdown()}{END_MARK}{after}"


def _rewrite() -> None:
    page = Path(__file__).parents[2] / "docs" / "security.md"
    page.write_text(with_matrix(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _rewrite()
