"""Which job goes to which worker, and what is taken back: real crew members on real sockets and pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.crew import MOST_IN_CHUNK
from taskqueue.node.feeding import HOSTAGE_AFTER_NS, LOOK_FOR_HOSTAGES_EVERY, Feeder
from taskqueue.node.slots import STARTED, TOKEN, Slots
from taskqueue.node.tickets import take
from tests.node.making import AT_MOST_ONCE, Enlisted, MovableClock, claimed_job, enlisted


class Kitchen:
    """A feeder with workers that the test plays."""

    def __init__(self, stack: ExitStack, places: int = 1) -> None:
        self._stack = stack
        self._places = places
        self.clock = MovableClock()
        self.slots = Slots.create(8, places)
        stack.callback(self.slots.close)
        self.feeder = Feeder(self.slots, self.clock, lambda: None)
        stack.callback(self.feeder.selector.close)
        self.recorded: list[bytes] = []
        self.may_start = True

    def hire(self, **options: Any) -> Enlisted:
        worker = self._stack.enter_context(enlisted(len(self.feeder.crew), places=self._places, **options))
        self.feeder.join(worker.member)
        return worker

    def learn(self, job_class: str, run_us: float) -> None:
        self.feeder.pacing.learn(job_class, run_us)

    def serve(self, *jobs: ClaimedJob) -> None:
        self.feeder.queue.extend(jobs)
        self.feeder.feed(self.record_start)

    def record_start(self, claimed: ClaimedJob) -> bool:
        self.recorded.append(claimed.id)
        return self.may_start


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with ExitStack() as stack:
        yield Kitchen(stack)


def delivered(worker: Enlisted) -> list[bytes]:
    return [fields[1] for chunk in worker.channel.receive() for fields in chunk]


def tickets(worker: Enlisted) -> list[int]:
    found = []
    while (token := take(worker.tickets)) is not None:
        found.append(token)
    return found


def short_jobs(number: int, **changes: Any) -> list[ClaimedJob]:
    return [claimed_job(job_class="Short", **changes) for _ in range(number)]


def test_a_job_reaches_the_worker_as_it_was_claimed(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    claimed = claimed_job(payload=b"\0sealed", timeout_ms=5, backoff="1.0 2.0 3.0 0.0")
    kitchen.serve(claimed)
    ((message,),) = worker.channel.receive()
    assert ClaimedJob._make(message[1:]) == claimed
    assert tickets(worker) == [message[0]]
    assert worker.member.held == {message[0]: claimed}


def test_jobs_of_unknown_length_go_out_one_to_each_worker(kitchen: Kitchen) -> None:
    workers = [kitchen.hire(), kitchen.hire()]
    kitchen.serve(*[claimed_job() for _ in range(5)])
    assert [len(delivered(worker)) for worker in workers] == [1, 1]
    assert len(kitchen.feeder.queue) == 3
    assert kitchen.feeder.in_hand == 5


def test_short_jobs_go_out_in_chunks_in_their_order(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    jobs = short_jobs(10)
    kitchen.serve(*jobs)
    assert delivered(worker) == [job.id for job in jobs]


def test_a_chunk_never_exceeds_its_size(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 0)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(100))
    assert all(len(chunk) <= MOST_IN_CHUNK for chunk in worker.channel.receive())


def test_a_long_job_is_never_sent_behind_another(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    kitchen.learn("Long", 1_000_000)
    worker = kitchen.hire()
    first, long = short_jobs(1)[0], claimed_job(job_class="Long")
    kitchen.serve(first, long)
    assert delivered(worker) == [first.id]
    assert list(kitchen.feeder.queue) == [long]


def test_the_least_laden_worker_is_fed_first(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 400)
    busy, idle = kitchen.hire(), kitchen.hire()
    kitchen.feeder.crew.remove(idle.member)
    kitchen.serve(*short_jobs(3))
    kitchen.feeder.crew.append(idle.member)
    delivered(busy)
    kitchen.serve(*short_jobs(1))
    assert delivered(busy) == []
    assert len(delivered(idle)) == 1


def test_a_worker_is_never_sent_more_than_its_job_limit(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 1)
    worker = kitchen.hire(max_jobs=5)
    kitchen.serve(*short_jobs(20))
    assert len(delivered(worker)) == 5
    worker.member.held.clear()
    worker.member.ahead_us = 0
    kitchen.serve()
    assert delivered(worker) == []


@pytest.mark.parametrize("spoil", ["ready", "retiring"])
def test_a_worker_that_is_not_there_for_jobs_gets_none(kitchen: Kitchen, spoil: str) -> None:
    worker = kitchen.hire()
    setattr(worker.member, spoil, spoil == "retiring")
    kitchen.serve(claimed_job())
    assert delivered(worker) == []
    assert kitchen.feeder.in_hand == 1


# --- jobs that run alone -----------------------------------------------------------------------------------------

LONERS = [{"crashes": 1}, {"losses": 1}, {"delivery": AT_MOST_ONCE, "max_attempts": 1}]


@pytest.mark.parametrize("kind", LONERS)
def test_a_job_that_runs_alone_is_sent_after_its_start_is_on_record(kitchen: Kitchen, kind: dict[str, Any]) -> None:
    worker = kitchen.hire()
    claimed = claimed_job(**kind)
    kitchen.serve(claimed)
    assert kitchen.recorded == [claimed.id]
    assert delivered(worker) == [claimed.id]


@pytest.mark.parametrize("kind", LONERS)
def test_a_job_whose_start_cannot_be_recorded_is_not_sent(kitchen: Kitchen, kind: dict[str, Any]) -> None:
    worker = kitchen.hire()
    kitchen.may_start = False
    kitchen.serve(claimed_job(**kind))
    assert delivered(worker) == []
    assert kitchen.feeder.in_hand == 0


@pytest.mark.parametrize("kind", LONERS)
def test_a_job_that_runs_alone_waits_for_an_idle_worker_and_gets_no_company(
    kitchen: Kitchen, kind: dict[str, Any]
) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(1))
    loner = claimed_job(job_class="Short", **kind)
    kitchen.serve(loner)
    assert kitchen.recorded == []
    worker.member.held.clear()
    worker.member.ahead_us = 0
    delivered(worker)
    kitchen.serve(*short_jobs(3))
    assert delivered(worker) == [loner.id]


def test_others_need_not_wait_with_a_job_that_waits_for_a_worker_of_its_own(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(1))
    loner, *others = claimed_job(crashes=1), *short_jobs(2)
    kitchen.serve(loner, *others)
    assert delivered(worker)[1:] == [job.id for job in others]
    assert list(kitchen.feeder.queue) == [loner]


def test_a_job_that_crashed_twice_waits_for_a_worker_that_has_run_nothing(kitchen: Kitchen) -> None:
    used = kitchen.hire()
    used.member.jobs_sent = 1
    claimed = claimed_job(crashes=2)
    kitchen.serve(claimed)
    assert delivered(used) == []
    assert kitchen.feeder.wants_fresh
    fresh = kitchen.hire()
    kitchen.serve()
    assert delivered(fresh) == [claimed.id]
    assert not kitchen.feeder.wants_fresh


# --- taking back -------------------------------------------------------------------------------------------------


def test_jobs_taken_back_go_before_all_others_in_their_order(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    sent = short_jobs(4)
    kitchen.serve(*sent)
    started = take(worker.tickets)
    later = claimed_job(job_class="Short")
    kitchen.feeder.queue.append(later)
    kitchen.feeder.take_back(worker.member)
    assert list(kitchen.feeder.queue) == [*sent[1:], later]
    assert list(worker.member.held) == [started]
    assert worker.member.jobs_sent == 1


def test_no_job_is_a_hostage_of_a_slow_one_before_it(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    sent = short_jobs(4)
    kitchen.serve(*sent)
    _run_first(kitchen, worker)
    kitchen.clock.move(HOSTAGE_AFTER_NS / 1e9 + LOOK_FOR_HOSTAGES_EVERY)
    kitchen.feeder.free_hostages()
    assert list(kitchen.feeder.queue) == sent[1:]
    assert tickets(worker) == []


def test_jobs_behind_one_that_has_just_begun_stay(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    worker = kitchen.hire()
    kitchen.serve(*short_jobs(4))
    _run_first(kitchen, worker)
    kitchen.clock.move(HOSTAGE_AFTER_NS / 2e9)
    kitchen.feeder.free_hostages()
    assert not kitchen.feeder.queue
    assert len(tickets(worker)) == 3


def _run_first(kitchen: Kitchen, worker: Enlisted) -> None:
    token = take(worker.tickets)
    assert token is not None
    words = kitchen.slots.of(worker.member.index)
    words[STARTED] = round(kitchen.clock.monotonic() * 1e9)
    words[TOKEN] = token


# --- workers come and go -----------------------------------------------------------------------------------------


def test_a_retiring_worker_is_let_go_once_it_holds_no_job(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    kitchen.serve(claimed_job())
    worker.member.retiring = True
    kitchen.feeder.let_go(worker.member)
    early = worker.member.leaving
    worker.member.held.clear()
    kitchen.feeder.let_go(worker.member)
    assert (early, worker.member.leaving) == (False, True)
    assert take(worker.tickets) is not None
    with pytest.raises(EOFError):
        take(worker.tickets)


def test_a_dead_worker_is_forgotten(kitchen: Kitchen) -> None:
    first, second = kitchen.hire(), kitchen.hire()
    kitchen.feeder.leave(first.member)
    first.member.leaving = True
    kitchen.serve(claimed_job())
    assert kitchen.feeder.crew == [second.member]
    assert len(delivered(second)) == 1


def test_room_is_for_what_free_workers_take_less_what_waits_already(kitchen: Kitchen) -> None:
    for _ in range(3):
        kitchen.hire()
    kitchen.learn("Slow", 60_000_000)
    for _ in range(20):
        kitchen.learn("Slow", 60_000_000)
    assert kitchen.feeder.room() == 3
    kitchen.serve(claimed_job(job_class="Slow"))
    assert kitchen.feeder.room() == 2


def test_a_large_payload_reaches_a_worker_that_reads_slowly(kitchen: Kitchen) -> None:
    worker = kitchen.hire()
    claimed = claimed_job(payload=b"x" * 2_000_000)
    kitchen.serve(claimed)
    assert worker.member.channel.backed_up
    received: list[Any] = []
    while not received:
        received += worker.channel.receive()
        for key, _ in kitchen.feeder.selector.select(0):
            key.data.channel.flush()
            kitchen.feeder.watch(key.data)
    assert ClaimedJob._make(received[0][0][1:]).payload == claimed.payload


def test_tickets_are_never_given_twice(kitchen: Kitchen) -> None:
    kitchen.learn("Short", 50)
    workers = [kitchen.hire() for _ in range(3)]
    seen: list[int] = []
    for _ in range(10):
        kitchen.serve(*short_jobs(7))
        for worker in workers:
            seen += tickets(worker)
            worker.member.held.clear()
            worker.member.ahead_us = 0
    assert len(seen) == len(set(seen)) > 30
    assert _rises(lambda: seen)


def _rises(numbers: Callable[[], list[int]]) -> bool:
    return max(numbers()) == len(numbers())
