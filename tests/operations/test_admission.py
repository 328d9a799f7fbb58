"""How many statements compute at a time, who waits, and who is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from kalam_world import Refused, World

from flightkalam.auth.identity import Role
from flightkalam.clock import SystemClock
from flightkalam.errors import Cancelled, TryAgain
from flightkalam.query.compute import CancelToken
from flightkalam.session.admission import Admission, Place, Places
from flightkalam.telemetry import Counters


def admission(total: int = 2, per_user: int = 2, queue: int = 10, seconds: float = 20.0) -> Admission:
    return Admission(Places(total, per_user, queue, seconds), SystemClock(), Counters())


def waiting(admission: Admission, user: str, order: list[str] | None = None) -> tuple[threading.Thread, list[Place]]:
    """Somebody who has queued up."""
    got: list[Place] = []
    before = admission.waiting

    def enter() -> None:
        got.append(admission.enter(user, CancelToken()))
        if order is not None:
            order.append(user)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while admission.waiting == before and time.monotonic() < deadline:
        time.sleep(0.001)
    return thread, got


def test_so_many_compute_and_the_next_waits_for_one_to_end() -> None:
    doors = admission(total=2)
    first, _ = doors.enter("a", CancelToken()), doors.enter("b", CancelToken())
    thread, got = waiting(doors, "c")
    assert (doors.running, doors.waiting, got) == (2, 1, [])
    first.leave()
    first.leave()  # twice is once
    thread.join(10)
    assert (doors.running, doors.waiting, len(got)) == (2, 0, 1)


def test_who_waits_too_long_is_refused_and_takes_no_place() -> None:
    doors = admission(total=1, seconds=0.02)
    doors.enter("a", CancelToken())
    with pytest.raises(TryAgain, match="try again in a moment") as refused:
        doors.enter("b", CancelToken())
    assert refused.value.sqlstate == "53300"
    assert (doors.running, doors.waiting) == (1, 0)


def test_one_user_does_not_keep_the_others_out() -> None:
    doors = admission(total=3, per_user=2, seconds=20)
    mine = [doors.enter("greedy", CancelToken()) for _ in range(2)]
    thread, got = waiting(doors, "greedy")
    other = doors.enter("modest", CancelToken())  # passes the one who is held up by their own share
    assert (doors.running, doors.waiting, got) == (3, 1, [])
    other.leave()
    assert doors.waiting == 1
    mine[0].leave()
    thread.join(10)
    assert len(got) == 1


def test_places_are_given_in_the_order_of_arrival() -> None:
    doors, order = admission(total=1), []  # type: ignore[var-annotated]
    place = doors.enter("z", CancelToken())
    threads = [waiting(doors, user, order) for user in "abc"]
    for thread, got in threads:
        place.leave()
        thread.join(10)
        (place,) = got
    assert order == ["a", "b", "c"]


def test_a_full_queue_refuses_at_once() -> None:
    doors = admission(total=1, queue=0, seconds=60)
    doors.enter("a", CancelToken())
    with pytest.raises(TryAgain):
        doors.enter("b", CancelToken())


def test_who_waits_can_be_cancelled() -> None:
    doors, cancel = admission(total=1), CancelToken()
    doors.enter("a", CancelToken())
    threading.Timer(0.02, cancel.cancel).start()
    with pytest.raises(Cancelled):
        doors.enter("b", cancel)
    assert doors.waiting == 0


def test_who_waits_for_the_client_holds_no_place() -> None:
    doors = admission(total=1)
    slow = doors.enter("slow", CancelToken())
    slow.pause()
    other = doors.enter("other", CancelToken())
    slow.resume()  # never refused, and never for long: it goes on beside the other
    assert doors.running == 2
    slow.leave()
    other.leave()
    assert doors.running == 0


def test_who_leaves_while_waiting_for_the_client_gives_nothing_back_twice() -> None:
    doors = admission(total=1)
    place = doors.enter("a", CancelToken())
    place.pause()
    place.leave()
    place.resume()
    assert doors.running == 0


def test_a_slow_reader_does_not_hold_others_up(make: Callable[..., World]) -> None:
    world = make(limits={"statements": 1, "user_share": 100, "queue_seconds": 5})
    rows = world.session("slow", Role.USER).query("SELECT range AS n, repeat('x', 1000) AS s FROM range(200000)")
    batches = iter(rows)
    total = next(batches).num_rows  # and now the reader thinks
    assert world.in_process("quick", Role.USER).run("SELECT 1 AS one").rows.num_rows == 1
    assert sum(b.num_rows for b in batches) + total == 200_000


def test_a_service_without_places_refuses_new_work_and_still_obeys(make: Callable[..., World]) -> None:
    world = make(limits={"statements": 1, "user_share": 100, "queue_seconds": 0.05})
    queries, client = world.kalam.parts.queries, world.adbc()
    busy = queries.admission.enter("somebody", CancelToken())
    with pytest.raises(Refused) as refused:
        client.run("SELECT 1 AS one")
    assert refused.value.sqlstate == "53300" and "try again" in refused.value.message
    assert client.run("SHOW QUERIES").rows is not None, "what looks after the service needs no place"
    busy.leave()
    assert client.run("SELECT 1 AS one").rows.num_rows == 1


def test_a_result_beyond_the_limit_ends_with_an_error(make: Callable[..., World]) -> None:
    client = make(limits={"result_bytes": 1_000_000}).adbc()
    assert client.run("SELECT range FROM range(10000)").rows.num_rows == 10_000
    with pytest.raises(Refused) as refused:
        client.run("SELECT range, repeat('x', 100) AS s FROM range(1000000)")
    assert refused.value.sqlstate == "54000" and "limits.result_bytes" in refused.value.message


def test_a_query_may_not_spill_beyond_its_limit(make: Callable[..., World]) -> None:
    client = make(engine={"memory_limit": "64 MiB", "temp_limit_bytes": 1_000_000, "threads": 1}).in_process()
    with pytest.raises(Refused) as refused:
        client.run("SELECT * FROM (SELECT hash(range) AS h, repeat('x', 50) || range AS s FROM range(4000000)) ORDER BY h, s")
    assert refused.value.sqlstate in ("53100", "53200")
    assert client.run("SELECT 1 AS one").rows.num_rows == 1
