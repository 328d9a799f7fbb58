"""In whose name a statement runs, and what is recorded of it (SEMANTICS §5).

    clause, header, option ──> one subject ──> identity of the subject ──> the statement ──┬─ its own commit: one record in it
                                 (auth.impersonate)                                        ├─ in a transaction: attempt … end
                                                                                           └─ no commit: a record by itself

Recorded are: everything that runs AS USER, whatever comes of it; every change of catalog and accounts; every refusal for
want of rights.  The record of a write is part of the write's atomic batch, and there the subject is looked up once more:
whoever was dropped, or is out of reach by then, is not written for (T-48).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from flightkalam.auth.audit import Entry, Outcome, statement_hash
from flightkalam.auth.audit_log import AuditLog
from flightkalam.auth.identity import Identity, check_user_name
from flightkalam.auth.impersonate import REFUSED, impersonate, reconfirm
from flightkalam.errors import AccessDenied, HiddenObject, InvalidValue, KalamError
from flightkalam.session.parts import Parts
from flightkalam.session.receipts import Receipt
from flightkalam.sql import statements as s
from flightkalam.storage.kv import Batch
from flightkalam.table.mutation import Extra, Versions

HEADER = "x-kalam-as-user"
OPTION = "as_user"
REQUEST_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)  # it goes into log lines
# What percent-encoding leaves as it is; a raw space or comma would make two repeated headers look like one name.
_ENCODED = re.compile(r"(?:[!-$&-+\--~]|%[0-9A-Fa-f]{2})+")
_MOST_TARGETS = 20

# Recorded whoever runs them.
AUDITED = (
    s.CreateTable, s.DropTable, s.AlterTable, s.CreateView, s.DropView, s.CreateNamespace, s.DropNamespace, s.Comment,
    s.CreateUser, s.AlterUser, s.DropUser, s.CreateToken, s.DropToken, s.CreateStorage, s.AlterStorage, s.DropStorage,
    s.RunJob, s.KillJob, s.KillQuery, s.Backup,
)  # fmt: skip


PARTITIONS_HEADER = "x-kalam-partitions"
MOST_PARTS = 256  # of one result


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call says beside its statement.

    :param peer: the address it comes from.
    :param as_user: on whose behalf, by the call's header.
    :param partitions: in how many parts it wants a result at most, by its header.
    :param on_start: told how to stop each statement of the call, before it starts.
    :param request_id: what the client calls its request.
    """

    peer: str = ""
    as_user: str | None = None
    request_id: str = ""
    partitions: int | None = None
    on_start: Callable[[Callable[[], None]], None] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, headers: Mapping[str, str], peer: str) -> Origin:
        """:raises InvalidValue: the header is there and says no name: such a call is never run as the actor."""
        asked = headers.get(REQUEST_HEADER, "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else ""
        value, parts = headers.get(HEADER), headers.get(PARTITIONS_HEADER)
        wanted = None if parts is None else number_of_parts(PARTITIONS_HEADER, parts)
        if value is None:
            return cls(peer, request_id=request_id, partitions=wanted)
        try:
            if not _ENCODED.fullmatch(value):
                raise ValueError
            return cls(peer, unquote_to_bytes(value).decode(), request_id=request_id, partitions=wanted)
        except ValueError:
            raise InvalidValue(f"{HEADER} must be one user id as percent-encoded UTF-8") from None


HERE = Origin()


def number_of_parts(where: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= MOST_PARTS:
        raise InvalidValue(f"{where} is a number from 1 to {MOST_PARTS}, not {value[:40]!r}")
    return int(value)


@dataclass(frozen=True, slots=True)
class For:
    """For whom something was prepared or planned; None: for the caller themselves.  It runs for nobody else."""

    subject: str | None = None


def subject_of(statement: s.Statement | None, origin: Origin, option: str | None, planned: For | None) -> tuple[str, ...]:
    """The names that a call gives, each once; more than one cannot be meant."""
    clause = statement.as_user.user if statement is not None and statement.as_user is not None else None
    stated = [unicodedata.normalize("NFC", n) for n in (clause, origin.as_user, option) if n is not None]
    if planned is None:
        return tuple(dict.fromkeys(stated))
    if planned.subject is None and stated:
        raise AccessDenied("the statement was prepared to run as yourself; prepare it again with AS USER")
    return tuple(dict.fromkeys([*([planned.subject] if planned.subject is not None else []), *stated]))


@dataclass
class Act:
    """One statement, from the question who acts to its record.

    :param actor: who sent it.
    :param subjects: the names that were given by clause, header and option.
    :param text: of the statement; None where it holds a secret or there is none.
    :param always: to be recorded even if nobody acts for another.
    :param only_looked: it is described, not run: only a refusal is recorded.
    """

    log: AuditLog
    parts: Parts
    actor: Identity
    action: str
    target: str | None = None
    subjects: tuple[str, ...] = ()
    origin: Origin = HERE
    text: str | None = None
    always: bool = False
    only_looked: bool = False
    _identity: Identity | None = None
    _aims: dict[str, None] = field(default_factory=dict)
    _recorded: bool = False

    @property
    def identity(self) -> Identity:
        assert self._identity is not None, "whoever acts has assumed an identity"
        return self._identity

    @property
    def for_another(self) -> bool:
        """AS USER was asked for, be it for the actor themselves."""
        return bool(self.subjects)

    @property
    def audited(self) -> bool:
        return self.for_another or self.always

    def aim(self, name: str) -> None:
        """Note a table that the statement names."""
        if len(self._aims) < _MOST_TARGETS:
            self._aims[name] = None

    @contextmanager
    def performed(self, attempts: Attempts | None = None) -> Iterator[None]:
        """Run the statement inside: its end is recorded if nothing in it was.

        :param attempts: of the transaction that its writes wait in.
        """
        try:
            self._assume()
            yield
        except Exception as error:
            self._refused(error)
            raise
        if self.audited and not self._recorded and not self.only_looked:
            if attempts is not None:
                attempts.add(self)
            else:
                self.log.write([self.entry(Outcome.SUCCESS)])

    def _assume(self) -> None:
        if len(self.subjects) > 1:
            raise InvalidValue(f"AS USER, the header {HEADER} and the session option {OPTION} name different users; name one")
        self._identity = impersonate(self.actor, self.subjects[0], self.parts.accounts) if self.subjects else self.actor

    def record(self, batch: Batch, rows: int | None = None, versions: Versions | None = None) -> None:
        """Join a commit, under its mutex.

        :param rows: what the client is told.

        :raises AccessDenied: the subject is not what they were when the statement began; nothing is written.
        """
        self._recorded = False  # a commit may be tried with others first, and then alone
        self.reconfirm()
        if self.audited:
            self.log.extend(
                batch, [self.entry(Outcome.SUCCESS, **({} if rows is None else {"rows": rows}), **_written(versions))]
            )
            self._recorded = True

    def reconfirm(self) -> None:
        if reconfirm(self.identity, self.parts.accounts).role < self.identity.role:
            raise AccessDenied(REFUSED)

    def _refused(self, error: Exception) -> None:
        denied = isinstance(error, (AccessDenied, HiddenObject))
        if self._recorded or not (denied or self.for_another):
            return
        sqlstate = error.sqlstate if isinstance(error, KalamError) else "XX000"
        entry = self.entry(Outcome.DENIED if denied else Outcome.FAILED, sqlstate=sqlstate)
        with suppress(KalamError):
            # Who is told that something is missing must not learn from the time it takes that it is not.
            self.log.write([entry], wait=not isinstance(error, HiddenObject))

    def refuse_malformed(self) -> None:
        """A statement that AS USER stands in and that cannot be read."""
        with suppress(KalamError):
            self.log.write([self.entry(Outcome.DENIED, sqlstate="42601")])

    def entry(self, outcome: Outcome, **details: Any) -> Entry:
        return Entry(
            actor_id=self.actor.user_id,
            actor_role=self.actor.role.label,
            subject_id=self._subject_id(),
            action=self.action,
            target=", ".join(self._aims) or self.target,
            outcome=outcome,
            peer=self.origin.peer or None,
            statement_hash=statement_hash(self.text) if self.text is not None else None,
            details=details,
        )

    def _subject_id(self) -> str | None:
        if self._identity is not None:
            return self._identity.user_id
        try:
            return check_user_name(self.subjects[0]) if len(self.subjects) == 1 else None
        except InvalidValue:
            return None


def _written(versions: Versions | None) -> dict[str, str]:
    """Which versions a record is about, as text: many readers of JSON have no numbers of that size (T-4, T-48)."""
    if versions is None or not versions.count:
        return {}
    return {"first_seq": str(versions.first), "last_seq": str(versions.last)}


def joined(act: Act | None, receipt: Receipt | None, count: int | None = None) -> Extra | None:
    """What joins a statement's own commit: its record and its receipt; None when there is neither.

    :param count: what the client will be told, when the commit itself cannot know it.
    """
    parts: list[Extra] = []
    if receipt is not None:
        receipt.count = count if count is not None else receipt.count
        parts.append(lambda batch, versions: receipt.record(batch, versions.count))
    if act is not None and act.audited:
        parts.append(lambda batch, versions: act.record(batch, versions.count if count is None else count, versions))
    if len(parts) == 1:
        return parts[0]

    def extra(batch: Batch, versions: Versions) -> None:
        for part in reversed(parts):
            part(batch, versions)

    return extra if parts else None


class Attempts:
    """What was done AS USER in one transaction and waits for its end.

    :param transaction: its id.
    """

    def __init__(self, transaction: bytes) -> None:
        self._transaction = transaction
        self._made: list[tuple[int, Entry]] = []
        self._acts: list[Act] = []

    def add(self, act: Act) -> None:
        """Recorded at once, as attempted."""
        self._made.append(act.log.attempt(self._transaction, act.entry(Outcome.ATTEMPTED)))
        self._acts.append(act)

    def __len__(self) -> int:
        return len(self._acts)

    def undo_after(self, first: int) -> None:
        """Record that what came after the first so many was rolled back."""
        undone = self._made[first:]
        if not undone:
            return
        log = self._acts[0].log
        log.commit(Batch(), lambda batch: log.end(batch, self._transaction, undone, Outcome.ROLLED_BACK, by="savepoint"))
        del self._made[first:], self._acts[first:]

    def joined(self, extra: Extra | None) -> Extra | None:
        """What joins the transaction's commit: every subject is looked up once more, every attempt gets its end."""
        if not self._acts:
            return extra

        def commit(batch: Batch, versions: Versions) -> None:
            for act in self._acts:
                act.reconfirm()
            if extra is not None:
                extra(batch, versions)
            self._acts[0].log.end(batch, self._transaction, self._made, Outcome.COMMITTED, **_written(versions))
            self._acts.clear()

        return commit

    def settle(self, outcome: Outcome) -> None:
        """Record the end of what has none yet.  Safe to call twice."""
        acts, self._acts = self._acts, []
        if not acts:
            return
        log = acts[0].log
        with suppress(KalamError):  # the next start finds them open, and does it
            log.commit(Batch(), lambda batch: log.end(batch, self._transaction, self._made, outcome), wait=False)
