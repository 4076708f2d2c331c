"""How much work is sent ahead follows from how long jobs have taken."""

from __future__ import annotations

import pytest

from taskqueue.node.pacing import (
    HORIZON_US,
    LONG_JOB_US,
    MOST_CLAIMED,
    SLOW_JOB_US,
    UNKNOWN_US,
    Pacing,
)


def taught(job_class: str, run_us: float, times: int = 1) -> Pacing:
    pacing = Pacing()
    for _ in range(times):
        pacing.learn(job_class, run_us)
    return pacing


def test_a_class_not_seen_yet_counts_as_long() -> None:
    assert Pacing().estimate("New") == UNKNOWN_US >= LONG_JOB_US


def test_the_first_run_sets_the_estimate_of_its_class() -> None:
    assert 100 <= taught("Short", 100).estimate("Short") <= 150


def test_an_estimate_moves_towards_new_run_times_and_not_beyond() -> None:
    pacing = taught("Job", 100)
    before = pacing.estimate("Job")
    seen = []
    for _ in range(50):
        pacing.learn("Job", 10_000)
        seen.append(pacing.estimate("Job"))
    assert seen == sorted(seen)
    assert before < seen[0]
    assert 9_500 < seen[-1] <= 10_100


def test_one_class_does_not_change_the_estimate_of_another() -> None:
    pacing = taught("Short", 100)
    pacing.learn("Long", 1_000_000)
    assert pacing.estimate("Short") < 200


def test_slow_jobs_are_claimed_for_free_workers_only() -> None:
    pacing = taught("Slow", 60_000_000, times=3)
    assert pacing.wanted(8, 3) == 3
    assert pacing.wanted(8, 0) == 0


def test_short_jobs_are_claimed_for_the_next_fifty_milliseconds() -> None:
    pacing = taught("Job", 1_000, times=500)
    wanted = pacing.wanted(2, 0)
    assert 0.8 * 2 * HORIZON_US / 1_000 <= wanted <= 2 * HORIZON_US / 1_000


def test_no_more_than_the_limit_is_ever_claimed() -> None:
    assert taught("Job", 0, times=500).wanted(256, 256) == MOST_CLAIMED


@pytest.mark.parametrize("run_us", [0, 1, 1_000, SLOW_JOB_US, 1e9])
def test_a_free_worker_always_gets_a_job(run_us: float) -> None:
    assert taught("Job", run_us, times=100).wanted(1, 1) >= 1


def test_without_workers_nothing_is_claimed() -> None:
    assert Pacing().wanted(0, 0) == 0
