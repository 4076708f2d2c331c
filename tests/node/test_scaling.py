"""How many workers a node keeps, decided from numbers alone."""

from __future__ import annotations

import pytest

from taskqueue.node.scaling import GROW_AFTER, GROW_EVERY, LEAVE_AFTER, NEEDLESS_AFTER, Bounds, Scaling, Staff


def scaling(mode: str, fewest: int = 1, most: int = 10) -> Scaling:
    return Scaling(Bounds.of(mode, 4, fewest, most))


def growth(made: Scaling, seconds: float, *, waiting: int) -> list[int]:
    """Return how many workers there are after each 20 ms in which ``waiting`` jobs want one."""
    workers, seen = made.births(Staff(0), 0.0), []
    for tick in range(1, round(seconds / 0.02)):
        workers += made.births(Staff(workers, waiting=max(0, waiting - workers)), tick * 0.02)
        seen.append(workers)
    return seen


def test_a_static_node_has_as_many_workers_as_it_was_told_whatever_waits() -> None:
    made = scaling("static")
    assert made.births(Staff(0), 0.0) == 4
    assert made.births(Staff(3, waiting=100), 1.0) == 1
    assert made.births(Staff(4, waiting=100), 2.0) == 0
    assert made.openings(Staff(4, waiting=100)) == 0
    assert not made.may_leave(4, 1e9, single=False)


def test_a_dynamic_node_starts_with_its_fewest() -> None:
    assert scaling("dynamic", fewest=3).births(Staff(0), 0.0) == 3


def test_it_grows_by_doubling_until_it_has_its_most() -> None:
    seen = growth(scaling("dynamic", fewest=1, most=10), 2.0, waiting=1000)
    assert sorted(set(seen)) == [1, 2, 4, 8, 10]


def test_it_grows_no_further_than_jobs_wait() -> None:
    assert growth(scaling("dynamic", most=10), 2.0, waiting=3)[-1] == 3


def test_steps_are_apart_by_the_time_that_a_new_worker_takes_to_begin() -> None:
    made = scaling("dynamic")
    assert made.births(Staff(1, waiting=9), 0.0) == 0
    assert made.births(Staff(1, waiting=9), GROW_AFTER) == 1
    assert made.births(Staff(2, waiting=9), GROW_AFTER + GROW_EVERY * 0.9) == 0
    assert made.births(Staff(2, waiting=9), GROW_AFTER + GROW_EVERY * 1.1) == 2


def test_a_burst_that_is_over_in_a_moment_makes_it_grow_by_nobody() -> None:
    made = scaling("dynamic")
    for moment in (0.0, 0.1, 0.2):
        assert made.births(Staff(1, waiting=20), moment) == 0
        assert made.births(Staff(1, free=1), moment + GROW_AFTER * 0.9) == 0


@pytest.mark.parametrize("staff", [Staff(2, free=1, waiting=5), Staff(2, unborn=1, waiting=5), Staff(2)])
def test_it_does_not_grow_while_a_worker_is_free_or_comes_or_nothing_waits(staff: Staff) -> None:
    made = scaling("dynamic")
    assert [made.births(staff, moment) for moment in (0.0, 1.0, 2.0)] == [0, 0, 0]


def test_a_dynamic_node_claims_for_its_next_step_and_no_further() -> None:
    made = scaling("dynamic", most=10)
    assert [made.openings(Staff(workers)) for workers in (1, 2, 4, 8, 10)] == [1, 2, 4, 2, 0]
    assert made.openings(Staff(4, unborn=2)) == 6


def test_the_workers_beyond_the_fewest_leave_when_they_were_idle_for_long() -> None:
    made = scaling("dynamic", fewest=2)
    assert not made.may_leave(3, LEAVE_AFTER * 0.99, single=False)
    assert made.may_leave(3, LEAVE_AFTER, single=False)
    assert not made.may_leave(2, 1e9, single=False)


def test_an_ondemand_node_starts_with_nobody_and_takes_one_worker_for_each_job() -> None:
    made = scaling("ondemand", fewest=3, most=4)
    assert made.births(Staff(0), 0.0) == 0
    assert made.births(Staff(0, waiting=1), 0.0) == 1
    assert made.births(Staff(1, unborn=1, waiting=1), 0.0) == 0
    assert made.births(Staff(1, waiting=2), 0.0) == 2
    assert made.births(Staff(1, waiting=9), 0.0) == 3
    assert made.births(Staff(4, waiting=9), 0.0) == 0


def test_an_ondemand_node_claims_for_all_the_workers_that_it_may_start() -> None:
    made = scaling("ondemand", most=4)
    assert [made.openings(Staff(workers)) for workers in (0, 3, 4)] == [4, 1, 0]
    assert made.openings(Staff(2, unborn=1)) == 3


@pytest.mark.parametrize("mode", ["static", "dynamic", "ondemand"])
def test_a_worker_whose_one_job_went_elsewhere_leaves_soon(mode: str) -> None:
    made = scaling(mode)
    assert made.may_leave(1, NEEDLESS_AFTER, single=True)
    assert not made.may_leave(1, NEEDLESS_AFTER * 0.9, single=True)


@pytest.mark.parametrize(
    ("mode", "text"),
    [("static", "4 worker(s)"), ("dynamic", "1 to 10 worker(s), dynamic"), ("ondemand", "0 to 10 worker(s), ondemand")],
)
def test_the_log_says_how_many_workers_there_may_be(mode: str, text: str) -> None:
    assert scaling(mode).bounds.describe() == text
