"""Of the jobs that lost their worker or node twice one runs at a time on a node, so that a third death is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from taskqueue.node.feeding import Feeder
from taskqueue.node.settlement import is_strict
from taskqueue.node.slots import Slots
from tests.node.making import AT_MOST_ONCE, MovableClock, claimed_job, enlisted


@pytest.fixture
def feeder() -> Iterator[Feeder]:
    """Give a feeder with three idle workers."""
    with ExitStack() as stack:
        slots = Slots.create(8)
        stack.callback(slots.close)
        made = Feeder(slots, MovableClock(), lambda: None)
        stack.callback(made.selector.close)
        for index in range(3):
            made.join(stack.enter_context(enlisted(index)).member)
        yield made


@pytest.mark.parametrize(
    ("crashes", "losses", "strict"), [(0, 0, False), (1, 0, False), (0, 1, False), (1, 1, True), (0, 2, True)]
)
def test_a_job_is_strict_from_its_second_crash_or_loss_on(crashes: int, losses: int, *, strict: bool) -> None:
    assert is_strict(claimed_job(crashes=crashes, losses=losses)) is strict


def test_a_job_that_never_runs_again_after_a_death_is_not_strict() -> None:
    assert not is_strict(claimed_job(losses=2, delivery=AT_MOST_ONCE))


def test_one_strict_job_runs_and_the_others_are_turned_away(feeder: Feeder) -> None:
    jobs = [claimed_job(losses=2) for _ in range(3)]
    feeder.queue.extend(jobs)
    sent = feeder.feed(lambda _: True)
    assert [job.id for _, chunk in sent for job in chunk] == [jobs[0].id]
    assert [job.id for job in feeder.turned_away] == [job.id for job in jobs[1:]]
    assert not feeder.queue


def test_other_jobs_run_beside_a_strict_one(feeder: Feeder) -> None:
    strict, suspect, plain = claimed_job(losses=2), claimed_job(losses=1), claimed_job()
    feeder.queue.extend([strict, suspect, plain])
    sent = feeder.feed(lambda _: True)
    assert {job.id for _, chunk in sent for job in chunk} == {strict.id, suspect.id, plain.id}
    assert feeder.turned_away == []


def test_the_next_strict_job_runs_when_the_one_before_is_over(feeder: Feeder) -> None:
    first, second = claimed_job(losses=2), claimed_job(losses=3)
    feeder.queue.append(first)
    ((member, _),) = feeder.feed(lambda _: True)
    member.held.clear()
    feeder.queue.append(second)
    ((_, chunk),) = feeder.feed(lambda _: True)
    assert chunk[0].id == second.id
