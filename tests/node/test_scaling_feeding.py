"""How a feeder counts on workers that are not there yet, and feeds those that are for one job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from taskqueue.node.feeding import SURPLUS_AFTER
from taskqueue.node.pacing import SLOW_JOB_US
from tests.node.making import Enlisted, claimed_job
from tests.node.test_feeding import Kitchen, delivered


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with ExitStack() as stack:
        made = Kitchen(stack)
        for _ in range(50):
            made.learn("Slow", SLOW_JOB_US * 2)
        yield made


def single(kitchen: Kitchen, *, own: bool) -> Enlisted:
    worker = kitchen.hire(max_jobs=1)
    worker.member.single, worker.member.own = True, own
    return worker


def test_without_workers_and_openings_nothing_is_claimed(kitchen: Kitchen) -> None:
    assert kitchen.feeder.room() == 0
    assert not kitchen.feeder.hungry


def test_jobs_are_claimed_for_workers_that_would_be_started(kitchen: Kitchen) -> None:
    kitchen.feeder.openings = 3
    assert kitchen.feeder.hungry
    assert kitchen.feeder.room() == 3
    kitchen.serve(claimed_job(), claimed_job())
    assert kitchen.feeder.room() == 1


def test_jobs_that_wait_for_such_workers_are_no_surplus(kitchen: Kitchen) -> None:
    kitchen.feeder.openings = 2
    assert kitchen.feeder.surplus() == []
    kitchen.serve(*(claimed_job() for _ in range(3)))
    assert kitchen.feeder.surplus() == []
    kitchen.clock.move(SURPLUS_AFTER * 1.1)
    assert len(kitchen.feeder.surplus()) == 1
    kitchen.feeder.openings = 0
    kitchen.clock.move(SURPLUS_AFTER * 1.1)
    assert len(kitchen.feeder.surplus()) == 2


def test_where_each_job_has_a_worker_no_more_are_claimed_than_there_may_be_workers(kitchen: Kitchen) -> None:
    for _ in range(50):
        kitchen.learn("Short", 10)
    kitchen.feeder.one_each, kitchen.feeder.openings = True, 2
    single(kitchen, own=False)
    assert kitchen.feeder.room() == 3


def test_a_worker_for_one_job_is_sent_one_and_let_go_when_that_is_done(kitchen: Kitchen) -> None:
    worker = single(kitchen, own=False)
    jobs = [claimed_job() for _ in range(3)]
    kitchen.serve(*jobs)
    assert delivered(worker) == [jobs[0].id]
    worker.member.held.clear()
    kitchen.feeder.reported(worker.member, {})
    assert worker.member.leaving


def test_a_worker_whose_one_job_was_taken_back_is_let_go_as_well(kitchen: Kitchen) -> None:
    worker = single(kitchen, own=False)
    job = claimed_job()
    kitchen.serve(job)
    kitchen.feeder.take_back(worker.member)
    assert worker.member.leaving
    assert list(kitchen.feeder.queue) == [job]


def test_a_job_that_asked_for_a_worker_of_its_own_gets_no_other(kitchen: Kitchen) -> None:
    ordinary = kitchen.hire()
    asked = claimed_job(force_spawn=1)
    kitchen.feeder.own.append(asked)
    kitchen.serve()
    assert delivered(ordinary) == []
    own = single(kitchen, own=True)
    kitchen.serve()
    assert delivered(own) == [asked.id]
    assert kitchen.recorded == []


def test_a_worker_of_ones_own_gets_no_other_job(kitchen: Kitchen) -> None:
    own = single(kitchen, own=True)
    kitchen.serve(claimed_job())
    assert delivered(own) == []
    assert len(kitchen.feeder.queue) == 1


def test_a_suspect_that_has_a_worker_of_its_own_has_its_start_on_record_too(kitchen: Kitchen) -> None:
    own = single(kitchen, own=True)
    suspect = claimed_job(force_spawn=1, crashes=1)
    kitchen.feeder.own.append(suspect)
    kitchen.serve()
    assert kitchen.recorded == [suspect.id]
    assert delivered(own) == [suspect.id]


def test_jobs_of_ones_own_take_no_room_of_others_and_go_back_where_no_worker_may_be_started(kitchen: Kitchen) -> None:
    kitchen.hire()
    room = kitchen.feeder.room()
    kitchen.feeder.own.extend(claimed_job(force_spawn=1) for _ in range(5))
    assert kitchen.feeder.room() == room
    assert kitchen.feeder.in_hand == 5
    assert len(kitchen.feeder.known()) == 5
    kitchen.feeder.own_openings = 2
    assert len(kitchen.feeder.own_surplus()) == 3
    assert len(kitchen.feeder.own) == 2


def test_a_job_of_ones_own_whose_worker_died_before_it_began_waits_for_another(kitchen: Kitchen) -> None:
    job = claimed_job(force_spawn=1)
    kitchen.feeder.put_back([job])
    assert list(kitchen.feeder.own) == [job]
    assert not kitchen.feeder.queue
