"""When a worker is replaced."""

from __future__ import annotations

from taskqueue.node.recycling import HEAD_START, Limits
from tests.node.making import enlisted

MB = 1024**2


def overstepped(limits: Limits, *, sent: int = 0, age: float = 0.0, memory: int | None = None) -> str | None:
    with enlisted(max_jobs=limits.max_jobs or 10**9) as worker:
        worker.member.jobs_sent = sent
        return limits.overstepped(worker.member, age, memory)


def test_a_worker_within_all_limits_stays() -> None:
    limits = Limits(max_jobs=1000, life=3600, memory=50 * MB)
    assert overstepped(limits, sent=900, age=3599.9, memory=50 * MB) is None


def nearly_used_up(most: int | None, *, sent: int, age: float) -> bool:
    with enlisted(max_jobs=most or 10**9) as worker:
        worker.member.spawned_at, worker.member.jobs_sent = 100.0, sent
        return Limits(max_jobs=most, life=None, memory=50 * MB).nearly_used_up(worker.member, 100.0 + age)


def test_a_replacement_is_started_a_head_start_before_the_last_job_at_the_pace_so_far() -> None:
    pace = 100  # jobs a second
    left = int(pace * HEAD_START)
    assert not nearly_used_up(1000, sent=1000 - left - 10, age=(1000 - left - 10) / pace)
    assert nearly_used_up(1000, sent=1000 - left + 10, age=(1000 - left + 10) / pace)


def test_a_worker_that_uses_its_jobs_up_in_no_time_is_replaced_from_the_first_on() -> None:
    assert nearly_used_up(1000, sent=500, age=0.02)


def test_a_worker_without_a_limit_or_without_a_job_is_not_used_up() -> None:
    assert not nearly_used_up(None, sent=10**6, age=1.0)
    assert not nearly_used_up(1, sent=0, age=0.0)


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
