"""Parameters of jobs: read once, when a job is made; and the manners of jobs that run."""

from __future__ import annotations

from typing import Any

import pytest

from flightkalam.errors import Cancelled, InvalidValue
from flightkalam.jobs.control import Control, Manners
from flightkalam.jobs.job import FINISHED, TRANSITIONS, Job, pause_us
from flightkalam.jobs.kinds import KINDS, kind_of, read, shape
from flightkalam.jobs.records import outdated


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("flush", {"tables": ["main.t"], "of_tomorrow": 1}, {"tables": ["main.t"]}),
        ("flush", {"tables": ["main.t"], "owners": ["ann", None]}, {"tables": ["main.t"], "owners": ["ann", None]}),
        ("compact", {"table": "main.t"}, {"table": "main.t", "want": "all"}),
        ("manifest_eviction", {}, {"idle_seconds": 3600}),
        ("orphan_sweep", {}, {}),
        ("cleanup", {"table_id": 7, "folder": "of yesterday"}, {"table_id": 7}),
    ],
)
def test_unknown_parameters_are_ignored_and_missing_optional_ones_defaulted(
    kind: str, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert read(kind_of(kind), given).model_dump(exclude_none=True) == kept


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("flush", {}, ['{"tables": ["ns.t", …], "owners"?: ["user" | null, …]}', '"tables" is missing']),
        ("flush", {"tables": "main.t", "owners": 3}, ['"tables": input should be a valid list', '"owners": input']),
        ("flush", {"tables": ["t"]}, ['"tables.0" must name a table with its namespace']),
        ("compact", {"table": 7, "want": "some"}, ['"table": input should be a valid string', "'all'"]),
        ("cleanup", {"table_id": "7"}, ['"table_id": input should be a valid integer']),
        ("manifest_eviction", {"idle_seconds": -1}, ["greater than or equal to 0"]),
        ("backup", {"name": ""}, ['"name": string should have at least 1 character']),
        ("retention", [], ["the parameters must be an object"]),
        ("retention", None, ["the parameters must be an object"]),
    ],
)
def test_what_is_missing_or_wrong_is_said_at_once_with_the_expected_shape(kind: str, given: Any, said: list[str]) -> None:
    with pytest.raises(InvalidValue) as refused:
        read(kind_of(kind), given)
    assert refused.value.message.startswith(f"a job of kind {kind} takes {shape(kind_of(kind).parameters)}: ")
    for words in said:
        assert words in refused.value.message


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(InvalidValue) as refused:
        kind_of("explode")
    assert all(name in refused.value.message for name in KINDS)


def test_ids_tell_the_kind() -> None:
    assert len({kind.prefix for kind in KINDS.values()}) == len(KINDS)


def test_every_parameter_shows_its_shape() -> None:
    assert not [name for name, kind in KINDS.items() if "…:" in shape(kind.parameters) or ": …" in shape(kind.parameters)]


def test_finished_is_finished() -> None:
    assert all(not TRANSITIONS[status] for status in FINISHED)
    reached = {"new"}
    for _ in TRANSITIONS:
        reached |= {to for status in reached for to in TRANSITIONS[status]}
    assert reached == set(TRANSITIONS)


def test_pauses_double_up_to_five_minutes() -> None:
    assert [pause_us(n) // 1_000_000 for n in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 300, 300]


def finished(number: int, at_us: int, status: str = "completed") -> Job:
    return Job(f"FL-{number}", "flush", {}, at_us, status=status, finished_at_us=at_us if status in FINISHED else None)


def test_records_go_by_age_and_by_number_and_unfinished_jobs_stay() -> None:
    jobs = [finished(1, 10), finished(2, 20, "failed"), finished(3, 30), finished(4, 5, "running"), finished(5, 1, "queued")]
    assert [j.job_id for j in outdated(jobs, 40, keep_us=15, keep_most=9)] == ["FL-1", "FL-2"]
    assert [j.job_id for j in outdated(jobs, 40, keep_us=99, keep_most=1)] == ["FL-1", "FL-2"]
    assert outdated(jobs, 40, keep_us=99, keep_most=3) == []
    assert len(outdated(jobs, 40, keep_us=0, keep_most=0)) == 3


class Scene:
    """Time and readers, handed in."""

    def __init__(self, share: float) -> None:
        self.now, self.readers, self.rests = 0.0, 0, []
        self.control = Control(Manners(share, lambda: self.readers, lambda: self.now))
        self.control.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, timeout: float | None = None) -> bool:
        self.rests.append(timeout)
        self.now += timeout or 0
        return self.control.is_set()

    def work(self, seconds: float, readers: int) -> None:
        self.now += seconds
        self.readers += readers
        self.control.step()


def test_alone_a_job_never_rests() -> None:
    scene = Scene(0.5)
    for _ in range(5):
        scene.work(1.0, readers=0)
    assert scene.rests == []


def test_while_readers_come_it_rests_in_proportion_and_never_long() -> None:
    scene = Scene(0.25)
    scene.work(0.1, readers=3)
    scene.work(0.2, readers=0)
    scene.work(9.0, readers=1)
    assert scene.rests == [pytest.approx(0.3), 1.0]


def test_with_all_of_the_time_it_never_rests() -> None:
    scene = Scene(1.0)
    scene.work(1.0, readers=1)
    assert scene.rests == []


def test_a_step_of_a_job_that_is_to_stop_says_what_is_left() -> None:
    control = Control()
    control.set()
    with pytest.raises(Cancelled, match="the job was cancelled; nothing has changed"):
        control.step()
    with pytest.raises(Cancelled, match="before it began"):
        control.begin()
