"""The audit log: a chain in which every change shows, kept in time order (SEMANTICS §5, T-48)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightkalam.auth import audit
from flightkalam.auth.audit import GENESIS, Entry, Mark, Outcome, link, table_of
from flightkalam.auth.audit_log import FAMILY, AuditLog
from flightkalam.clock import Snowflakes
from flightkalam.model.predicate import FALSE, TRUE, All, Any_, Compare, Never, OneOf, Predicate, interval
from flightkalam.storage.kv import Batch, Store
from flightkalam.table.door import CommitDoor

ENTRY = Entry("svc", "service", "ann", "INSERT", "main.notes", Outcome.SUCCESS, "ipv4:1", "ab", {"rows": 1})
DAY = 86_400_000_000


class At:
    """A clock that stands where it is put."""

    def __init__(self, us: int = 1_000 * DAY) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


class Kept:
    """An audit log in a store of its own."""

    def __init__(self, folder: Path, retention_days: int = 0) -> None:
        self.clock = At()
        self.store = Store(folder / "store", durable=False)
        self.door = CommitDoor(self.store, Snowflakes(self.clock, 1), 0)
        self.log = AuditLog(self.door, self.clock, retention_days)

    def write(self, n: int, step_us: int = 1) -> None:
        for i in range(n):
            self.clock.us += step_us
            self.log.write([replace(ENTRY, target=f"t{i}")], wait=False)

    def records(self) -> list[tuple[bytes, bytes]]:
        return list(self.store.scan(FAMILY, b"r"))

    def problems(self) -> list[str]:
        return self.log.check().problems

    def put(self, key: bytes, value: bytes | None) -> None:
        """What somebody with a hand in the data directory does."""
        batch = Batch()
        batch.delete(FAMILY, key) if value is None else batch.put(FAMILY, key, value)
        self.store.commit(batch)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.store.close()


# -- the chain ----------------------------------------------------------------------------------------------------------


def test_a_log_that_nobody_touched_is_whole(kept: Kept) -> None:
    assert kept.log.check().records == 0 and kept.problems() == []
    kept.write(20)
    found = kept.log.check()
    assert (found.records, found.first, found.head.number, found.problems) == (20, 1, 20, [])


@pytest.mark.parametrize("at", [0, 7, 19])
@pytest.mark.parametrize("what", ["changed", "changed with its hash", "taken out", "moved", "put in"])
def test_whatever_is_done_to_a_record_shows_and_says_where(kept: Kept, what: str, at: int) -> None:
    kept.write(20)
    key, value = kept.records()[at]
    body = value[audit.HASH_BYTES :].replace(b"ann", b"bob")
    if what == "changed":
        kept.put(key, value.replace(b"ann", b"bob"))
    elif what == "changed with its hash":
        before = kept.records()[at - 1][1][: audit.HASH_BYTES] if at else GENESIS
        kept.put(key, audit.chained(before, body) + body)
    elif what == "taken out":
        kept.put(key, None)
    elif what == "moved":
        kept.put(key, None)
        kept.put(audit.record_key(int.from_bytes(key[1:9], "big") - 1, at + 1) if at else audit.record_key(5, 1), value)
    else:
        kept.put(key[:9] + (100).to_bytes(8, "big"), value)
    problems = kept.problems()
    assert problems
    says = {"taken out": ("missing", "ends with"), "put in": ("missing or out of order",), "moved": ("moved", "out of order")}
    assert any(word in problems[0] for word in says.get(what, ("does not match", "should end with", "ends with")))
    assert str(at + 1) in problems[0] or str(at + 2) in problems[0] or "100" in problems[0] or str(at) in problems[0]


def test_a_log_cut_at_its_end_is_found_out(kept: Kept) -> None:
    kept.write(5)
    kept.put(kept.records()[-1][0], None)
    assert kept.problems() == [
        "the log ends with record 4 and should end with record 5: records were taken from its end, or added to it"
    ]


@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(Outcome)), min_size=1, max_size=20), st.data())
def test_law_of_the_chain(entries: list[tuple[str, Outcome]], data: st.DataObject) -> None:
    """One flipped bit anywhere, in any record, is a problem; none is none."""
    marks, records = [Mark()], []
    for target, outcome in entries:
        made = link(marks[-1], replace(ENTRY, target=target, outcome=outcome), 5)
        marks.append(made.mark)
        records.append((made.key, made.value))
    assert audit.check(iter(records), Mark(), marks[-1]).problems == []
    at = data.draw(st.integers(0, len(records) - 1))
    key, value = records[at]
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    flipped = bytearray(value)
    flipped[bit // 8] ^= 1 << bit % 8
    records[at] = (key, bytes(flipped))
    assert audit.check(iter(records), Mark(), marks[-1]).problems


def test_time_never_steps_back_in_the_log(kept: Kept) -> None:
    kept.write(3)
    kept.clock.us -= 10 * DAY
    kept.write(3)
    stamps = kept.log.read().column("timestamp").cast("int64").to_pylist()
    assert stamps == sorted(stamps) and kept.problems() == []


def test_records_of_one_commit_are_linked_to_each_other(kept: Kept) -> None:
    def extra(batch: Batch) -> None:
        kept.log.extend(batch, [ENTRY, ENTRY])
        kept.log.extend(batch, [ENTRY])

    kept.log.commit(Batch(), extra)
    assert kept.log.check().records == 3 and kept.problems() == []


def test_a_commit_that_fails_leaves_no_gap(kept: Kept) -> None:
    def fails(batch: Batch) -> None:
        kept.log.extend(batch, [ENTRY])
        raise ValueError

    kept.write(1)
    with pytest.raises(ValueError):
        kept.log.commit(Batch(), fails)
    kept.write(1)
    assert kept.log.check().records == 2 and kept.problems() == []


# -- retention ------------------------------------------------------------------------------------------------------


def test_what_retention_leaves_can_still_be_verified(tmp_path: Path) -> None:
    kept = Kept(tmp_path, retention_days=30)
    kept.write(40, DAY)
    assert kept.log.let_go() == 9
    found = kept.log.check()
    assert (found.first, found.problems) == (10, [])
    assert kept.log.read().column("action").to_pylist()[-1] == "AUDIT RETENTION"
    kept.put(kept.records()[0][0], None)
    assert "record 11 follows record 9" in kept.problems()[0]
    kept.store.close()


def test_the_first_record_of_a_day_asks_for_old_ones_to_go(tmp_path: Path) -> None:
    kept, asked = Kept(tmp_path), []
    log = AuditLog(kept.door, kept.clock, 30, lambda: asked.append(kept.clock.us // DAY))
    for _ in range(10):
        kept.clock.us += DAY // 3
        log.write([ENTRY])
    assert asked == [1_000, 1_001, 1_002, 1_003]
    kept.store.close()


def test_without_retention_nothing_goes(kept: Kept) -> None:
    kept.write(3)
    kept.clock.us += 10_000 * DAY
    assert kept.log.let_go() == 0 and len(kept.records()) == 3


# -- reading --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written() -> None:
    odd = Entry("é🦆\"'\\\n", None, None, "SELECT", "x" * 5_000, Outcome.DENIED, details={"sqlstate": "42501"})
    bodies, mark = [], Mark()
    for entry in (ENTRY, odd):
        made = link(mark, entry, 1_000_000)
        mark = made.mark
        bodies.append(made.body)
    first, second = table_of(bodies).to_pylist()
    assert first["actor_user_id"] == "svc" and first["details"] == '{"rows":1}' and first["statement_hash"] == "ab"
    assert second["actor_user_id"] == "é🦆\"'\\\n" and second["actor_role"] is None and len(second["target"]) == 1_000
    assert [first["audit_id"], second["audit_id"]] == [1, 2] and str(first["timestamp"]) == "1970-01-01 00:00:01+00:00"


def test_a_question_about_a_time_looks_at_no_other_record(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write(100)
    start = kept.clock.us - 10
    seen: list[int] = []
    scan = kept.store.scan

    def counting(*args: object, **kwargs: object) -> Iterator[tuple[bytes, bytes]]:
        for pair in scan(*args, **kwargs):  # type: ignore[arg-type]
            seen.append(1)
            yield pair

    monkeypatch.setattr(kept.store, "scan", counting)
    assert kept.log.matching(Compare(audit.TIMESTAMP, ">", start)).num_rows == 10
    assert len(seen) == 10
    assert kept.log.matching(FALSE).num_rows == 0 and kept.log.matching(TRUE).num_rows == 100


SMALL = st.integers(-5, 5)
LEAF = (
    st.builds(Compare, st.sampled_from([1, 2]), st.sampled_from(["=", "<", "<=", ">", ">=", "!="]), SMALL)
    | st.builds(OneOf, st.just(1), st.lists(SMALL, max_size=3).map(tuple))
    | st.sampled_from([TRUE, Never()])
)
PREDICATES = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda p: All(tuple(p)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda p: Any_(tuple(p)))
    ),
    max_leaves=8,
)


def holds(p: Predicate, values: dict[int, int]) -> bool:
    match p:
        case Compare(column=c, op=op, value=v):
            a = values[c]
            return {"=": a == v, "<": a < v, "<=": a <= v, ">": a > v, ">=": a >= v, "!=": a != v}[op]
        case OneOf(column=c, values=vs):
            return values[c] in vs
        case All(parts=parts):
            return all(holds(q, values) for q in parts)
        case Any_(parts=parts):
            return any(holds(q, values) for q in parts)
    return not isinstance(p, Never)


@given(PREDICATES, SMALL, SMALL)
def test_law_of_the_interval(p: Predicate, one: int, two: int) -> None:
    """No row for which a predicate is true lies outside of its interval."""
    low, high = interval(p, 1)
    if holds(p, {1: one, 2: two}):
        assert (low is None or low <= one) and (high is None or one <= high)
