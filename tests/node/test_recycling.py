"""When a worker is replaced."""

from __future__ import annotations

import pytest

from taskqueue.node.recycling import LOOK_AHEAD, Limits
from tests.node.making import enlisted

MB = 1024**2


def overstepped(limits: Limits, *, sent: int = 0, age: float = 0.0, memory: int | None = None) -> str | None:
    with enlisted(max_jobs=limits.max_jobs or 10**9) as worker:
        worker.member.jobs_sent = sent
        return limits.overstepped(worker.member, age, memory)


def test_a_worker_within_all_limits_stays() -> None:
    limits = Limits(max_jobs=1000, life=3600, memory=50 * MB)
    assert overstepped(limits, sent=900, age=3599.9, memory=50 * MB) is None


def test_a_replacement_is_wanted_while_a_few_jobs_are_left() -> None:
    limits = Limits(max_jobs=1000, life=None, memory=50 * MB)
    assert overstepped(limits, sent=1000 - LOOK_AHEAD - 1) is None
    assert overstepped(limits, sent=1000 - LOOK_AHEAD) == f"{1000 - LOOK_AHEAD} jobs"


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_under_a_small_limit_a_worker_is_used_to_the_last_job(most: int) -> None:
    limits = Limits(max_jobs=most, life=None, memory=50 * MB)
    assert overstepped(limits, sent=most - 1) is None
    assert overstepped(limits, sent=most) is not None


def test_a_worker_is_replaced_at_the_end_of_its_life() -> None:
    limits = Limits(max_jobs=None, life=60, memory=50 * MB)
    assert overstepped(limits, age=59.9) is None
    assert overstepped(limits, age=60) == "60 s of life"


def test_a_worker_is_replaced_above_its_memory() -> None:
    limits = Limits(max_jobs=None, life=None, memory=50 * MB)
    assert overstepped(limits, memory=50 * MB) is None
    assert overstepped(limits, memory=60 * MB) == "60 MB of memory"


def test_memory_that_was_not_measured_replaces_nobody() -> None:
    assert overstepped(Limits(max_jobs=None, life=None, memory=MB), memory=None) is None


def test_without_limits_a_worker_lives_for_ever() -> None:
    assert overstepped(Limits(None, None, 50 * MB), sent=10**6, age=10**6) is None
