"""Which job goes to which worker where workers have several places: real crew members on real sockets and pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.crew import ConcurrentMember, CrewMember
from taskqueue.node.feeding import HOSTAGE_AFTER_NS, LOOK_FOR_HOSTAGES_EVERY, STUCK_FOR
from taskqueue.node.slots import DONE
from taskqueue.node.tickets import MOST, take
from tests.node.making import AT_MOST_ONCE, Enlisted, claimed_job
from tests.node.test_feeding import Kitchen, delivered, short_jobs, tickets

PLACES = 4


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with ExitStack() as stack:
        yield Kitchen(stack, PLACES)


@pytest.fixture
def hall() -> Iterator[Kitchen]:
    """Give a kitchen whose workers have more places than a ticket pipe holds tickets."""
    with ExitStack() as stack:
        yield Kitchen(stack, 1000)


def long_jobs(kitchen: Kitchen, number: int) -> list[ClaimedJob]:
    kitchen.learn("Long", 1_000_000)
    return [claimed_job(job_class="Long") for _ in range(number)]


def begin(kitchen: Kitchen, worker: Enlisted, number: int = 1000) -> list[int]:
    """Have a worker take its tickets, and begin the jobs."""
    found = tickets(worker)[:number]
    if found:
        kitchen.slots.of(worker.member.index)[DONE] = found[-1]
    return found


def report(kitchen: Kitchen, worker: Enlisted, *tokens: int) -> None:
    for token in tokens:
        del worker.member.held[token]
    kitchen.feeder.reported(worker.member, {})


def later(kitchen: Kitchen, seconds: float) -> None:
    """Let time pass, with the looks at the workers that the dispatcher takes meanwhile."""
    for _ in range(round(seconds / LOOK_FOR_HOSTAGES_EVERY)):
        kitchen.clock.move(LOOK_FOR_HOSTAGES_EVERY)
        kitchen.feeder.free_hostages()


# --- how many ----------------------------------------------------------------------------------------------------


def test_long_jobs_fill_the_places_and_no_more(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    jobs = long_jobs(kitchen, 6)
    kitchen.serve(*jobs)
    assert delivered(worker) == [job.id for job in jobs[:4]]
    assert list(kitchen.feeder.queue) == jobs[4:]


def test_a_place_that_falls_free_is_filled(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    jobs = long_jobs(kitchen, 6)
    kitchen.serve(*jobs)
    first, *_ = begin(kitchen, worker)
    delivered(worker)
    report(kitchen, worker, first)
    kitchen.serve()
    assert delivered(worker) == [jobs[4].id]


def test_long_jobs_are_shared_out_evenly(kitchen: Kitchen) -> None:
    workers = [kitchen.hire(), kitchen.hire()]
    kitchen.serve(*long_jobs(kitchen, 4))
    assert [len(delivered(worker)) for worker in workers] == [2, 2]


def test_short_jobs_go_ahead_of_the_places_for_a_few_milliseconds_of_each(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 985)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(100))
    assert PLACES < len(delivered(worker)) <= 8 * PLACES


def test_nothing_goes_ahead_of_places_that_long_jobs_have_taken(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 4))
    delivered(worker)
    kitchen.serve(*short_jobs(3))
    assert delivered(worker) == []
    assert len(kitchen.feeder.queue) == 3


def test_one_long_job_takes_one_place_from_the_short_ones(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 1))
    delivered(worker)
    kitchen.serve(*short_jobs(40))
    assert len(delivered(worker)) == 40


def test_the_job_limit_holds_for_all_places_together(kitchen: Kitchen) -> None:
    worker = kitchen.hire(max_jobs=3)
    kitchen.serve(*long_jobs(kitchen, 6))
    assert len(delivered(worker)) == 3
    assert not worker.member.serves


def test_a_worker_holds_no_more_unread_tickets_than_its_pipe_takes(hall: Kitchen) -> None:
    worker = hall.hire(max_jobs=100_000)
    jobs = long_jobs(hall, 1200)
    hall.serve(*jobs)
    assert len(worker.member.held) <= MOST
    while len(worker.member.held) < 1000:
        before = len(worker.member.held)
        assert begin(hall, worker)
        later(hall, LOOK_FOR_HOSTAGES_EVERY)
        hall.serve()
        assert len(worker.member.held) > before
    hall.serve()
    assert len(worker.member.held) == 1000


def test_room_is_for_every_free_place(kitchen: Kitchen) -> None:
    kitchen.hire()
    kitchen.hire()
    for _ in range(20):
        kitchen.learn("Long", 60_000_000)
    assert kitchen.feeder.room() == 2 * PLACES
    kitchen.serve(*long_jobs(kitchen, 3))
    assert kitchen.feeder.room() == 2 * PLACES - 3


def test_a_worker_with_a_free_place_is_hungry_and_one_without_is_not(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    jobs = long_jobs(kitchen, 4)
    kitchen.serve(*jobs[:3])
    hungry_with_three = worker.member.hungry
    kitchen.serve(jobs[3])
    assert (hungry_with_three, worker.member.hungry) == (True, False)


# --- alone -------------------------------------------------------------------------------------------------------


def test_an_at_most_once_job_takes_a_place_beside_others_once_its_start_is_on_record(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 2))
    delivered(worker)
    once = claimed_job(delivery=AT_MOST_ONCE, max_attempts=1)
    kitchen.serve(once)
    assert delivered(worker) == [once.id]
    assert kitchen.recorded == [once.id]
    assert worker.member.hungry


def test_an_at_most_once_job_waits_for_a_free_place_and_is_not_recorded_before(kitchen: Kitchen) -> None:
    kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 4))
    once = claimed_job(delivery=AT_MOST_ONCE, max_attempts=1)
    kitchen.serve(once)
    assert kitchen.recorded == []
    assert list(kitchen.feeder.queue) == [once]


@pytest.mark.parametrize("past", [{"losses": 1}, {"crashes": 1}])
def test_a_suspect_runs_with_nothing_beside_it(kitchen: Kitchen, past: dict[str, int]) -> None:
    worker = kitchen.hire()
    suspect, others = claimed_job(**past), long_jobs(kitchen, 2)
    kitchen.serve(suspect, *others)
    assert delivered(worker) == [suspect.id]
    assert list(kitchen.feeder.queue) == others
    report(kitchen, worker, *begin(kitchen, worker))
    kitchen.serve()
    assert delivered(worker) == [job.id for job in others]


def test_a_suspect_asks_for_a_fresh_worker_where_none_is_idle(kitchen: Kitchen) -> None:
    """A worker with many places may not be idle for days."""
    busy = kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 1))
    delivered(busy)
    suspect, other = claimed_job(losses=1), long_jobs(kitchen, 1)
    kitchen.serve(suspect, *other)
    assert kitchen.feeder.wants_fresh
    assert delivered(busy) == [other[0].id]
    fresh = kitchen.hire()
    kitchen.serve()
    assert delivered(fresh) == [suspect.id]
    assert not kitchen.feeder.wants_fresh


def test_while_one_suspect_runs_the_next_asks_for_no_further_worker(kitchen: Kitchen) -> None:
    kitchen.hire()
    kitchen.serve(claimed_job(losses=1), claimed_job(losses=1))
    assert not kitchen.feeder.wants_fresh


# --- hostages ----------------------------------------------------------------------------------------------------


def test_jobs_behind_places_that_stay_taken_are_taken_back(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    sent = short_jobs(10)
    kitchen.serve(*sent)
    kitchen.slots.of(0)[DONE] = next(iter(worker.member.held)) + PLACES - 1
    later(kitchen, 3 * HOSTAGE_AFTER_NS / 1e9)
    assert list(kitchen.feeder.queue) == sent
    assert worker.member.stuck


def test_jobs_that_a_worker_is_beginning_stay_with_it(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(10))
    for token in list(worker.member.held):
        kitchen.slots.of(0)[DONE] = token
        later(kitchen, HOSTAGE_AFTER_NS / 1e9 / 2)
    assert not kitchen.feeder.queue
    assert not worker.member.stuck


def test_a_worker_whose_loop_stood_still_is_offered_jobs_again(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    jobs = long_jobs(kitchen, 2)
    kitchen.serve(*jobs)
    delivered(worker)
    later(kitchen, 3 * HOSTAGE_AFTER_NS / 1e9)
    taken_back = list(kitchen.feeder.queue)
    later(kitchen, STUCK_FOR)
    kitchen.serve()
    assert taken_back == jobs
    assert delivered(worker) == [job.id for job in jobs]


def test_taking_back_leaves_what_has_begun(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    jobs = long_jobs(kitchen, 4)
    kitchen.serve(*jobs)
    kept = [take(worker.tickets), take(worker.tickets)]
    kitchen.feeder.take_back(worker.member)
    assert list(worker.member.held) == kept
    assert list(kitchen.feeder.queue) == jobs[2:]


# --- succession --------------------------------------------------------------------------------------------------


def concurrent(worker: Enlisted) -> ConcurrentMember:
    member: CrewMember = worker.member
    assert isinstance(member, ConcurrentMember)
    return member


def test_an_heir_has_the_places_that_the_jobs_of_the_old_one_leave(kitchen: Kitchen) -> None:
    old = kitchen.hire()
    kitchen.serve(*long_jobs(kitchen, 3))
    tokens = begin(kitchen, old)
    heir = kitchen.hire()
    old.member.retiring = True
    concurrent(heir).take_over(old.member)
    kitchen.serve(*long_jobs(kitchen, 4))
    with_three_there = len(delivered(heir))
    report(kitchen, old, *tokens[:2])
    kitchen.serve()
    assert (with_three_there, len(delivered(heir))) == (1, 2)


def test_an_heir_of_an_heir_counts_the_jobs_of_both(kitchen: Kitchen) -> None:
    first, second, third = kitchen.hire(), kitchen.hire(), kitchen.hire()
    first.member.held[1] = second.member.held[2] = claimed_job()
    concurrent(second).take_over(first.member)
    concurrent(third).take_over(second.member)
    assert third.member.free == PLACES - 2
    first.member.held.clear()
    assert third.member.free == PLACES - 1
