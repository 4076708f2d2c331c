"""Whether a worker is to be sent another job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskqueue.node.crew import ConcurrentMember, CrewMember
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, MOST_AHEAD
from tests.node.making import claimed_job, enlisted

SHORT, LONG = 100.0, LONG_JOB_US


@pytest.fixture
def member() -> Iterator[CrewMember]:
    with enlisted(max_jobs=100) as worker:
        yield worker.member


def hold(member: CrewMember, jobs: int, cost: float = SHORT) -> None:
    member.held.update({number: claimed_job() for number in range(1, jobs + 1)})
    member.ahead_us = jobs * cost


@pytest.mark.parametrize("cost", [SHORT, LONG, 1e9])
def test_an_idle_worker_has_room_for_any_job(member: CrewMember, cost: float) -> None:
    assert member.room_for(cost)


def test_a_working_one_has_room_for_short_jobs_only(member: CrewMember) -> None:
    hold(member, 1)
    assert member.room_for(SHORT)
    assert not member.room_for(LONG)


def test_no_more_is_sent_ahead_than_a_few_milliseconds_of_work(member: CrewMember) -> None:
    hold(member, 10, cost=AHEAD_US / 10)
    assert not member.room_for(SHORT)


def test_no_more_jobs_are_sent_ahead_than_the_limit_however_short(member: CrewMember) -> None:
    hold(member, MOST_AHEAD, cost=0.0)
    assert not member.room_for(0.0)


@pytest.mark.parametrize("flag", ["retiring", "exclusive"])
def test_a_worker_that_is_spoken_for_has_no_room(member: CrewMember, flag: str) -> None:
    setattr(member, flag, True)
    assert not member.room_for(SHORT)
    assert not member.hungry


def test_a_worker_that_is_not_ready_yet_has_no_room(member: CrewMember) -> None:
    member.ready = False
    assert not member.room_for(SHORT)
    assert not member.hungry
    assert not member.idle


def test_a_worker_at_its_job_limit_has_no_room(member: CrewMember) -> None:
    member.jobs_sent = 100
    assert member.jobs_left == 0
    assert not member.room_for(SHORT)


def test_a_worker_is_hungry_until_a_chunk_of_work_lies_before_it(member: CrewMember) -> None:
    assert member.hungry
    hold(member, 1, cost=AHEAD_US / 2)
    assert not member.hungry


def test_a_worker_is_fresh_until_it_is_sent_its_first_job(member: CrewMember) -> None:
    assert member.fresh
    member.jobs_sent = 1
    assert not member.fresh


def test_a_replacement_keeps_no_predecessor_that_has_nothing_left() -> None:
    with enlisted(places=4) as first, enlisted(places=4) as second, enlisted(places=4) as third:
        for heir, old in ((second.member, first.member), (third.member, second.member)):
            assert isinstance(heir, ConcurrentMember)
            heir.take_over(old)
        assert isinstance(second.member, ConcurrentMember)
        assert isinstance(third.member, ConcurrentMember)
        assert third.member.predecessors == (second.member,)
        assert second.member.predecessors == ()


def test_a_worker_on_its_way_out_is_not_idle(member: CrewMember) -> None:
    assert member.idle
    member.leaving = True
    member.tickets.close()
    assert not member.idle
