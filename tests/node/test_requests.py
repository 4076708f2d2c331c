"""The node's end of requests: each gets a reply, and none leaves the store in doubt; last words of dead workers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.errors import DatabaseBusy, DatabaseUnreachable, TaskQueueError
from taskqueue.events import Events
from taskqueue.node import intake
from taskqueue.node.crew import CrewMember
from taskqueue.node.feeding import Feeder
from taskqueue.node.hook_watch import CLOSE_WITHIN, LEAVE_WITHIN, LeaveWatch
from taskqueue.node.intake import Intake
from taskqueue.node.ledger import Ledger
from taskqueue.node.requests import Clerk, Request
from taskqueue.node.settlement import Death, Obituary
from taskqueue.node.slots import Slots
from taskqueue.node.store_watch import StoreWatch
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec
from tests.node.making import Enlisted, MovableClock, claimed_job, enlisted
from tests.node.running import until


@pytest.fixture
def worker() -> Iterator[Enlisted]:
    with enlisted() as made:
        yield made


def request_of(member: CrewMember) -> Request:
    """Return a request of a job that the worker holds."""
    claimed = claimed_job()
    member.held[1] = claimed
    return Request(member, 7, (claimed.id, claimed.lease), ())


class Office:
    """A clerk, what it has answered, and the watch that it tells."""

    def __init__(self, work: Callable[[Sequence[Request]], None]) -> None:
        self.answers: list[tuple[int, TaskQueueError | None]] = []
        self.store = StoreWatch(SYSTEM_CLOCK)
        self.clerk = Clerk("pushes", work, self._answer, SYSTEM_CLOCK, self.store, 1)

    def _answer(self, request: Request, error: TaskQueueError | None) -> None:
        self.answers.append((request.number, error))


def test_a_request_of_a_job_that_does_not_run_any_more_is_answered(worker: Enlisted) -> None:
    office = Office(lambda _: None)
    request = request_of(worker.member)
    worker.member.held.clear()
    office.clerk.add(request)
    until(lambda: office.answers == [(7, None)], "it is answered")
    office.clerk.stop(10)


def test_a_clerk_whose_job_ends_while_the_store_is_away_leaves_no_doubt_behind(worker: Enlisted) -> None:
    tried, ends = threading.Event(), threading.Event()

    def work(_: Sequence[Request]) -> None:
        tried.set()
        if ends.is_set():
            worker.member.held.clear()
        raise DatabaseUnreachable("nobody answers")

    office = Office(work)
    office.clerk.add(request_of(worker.member))
    assert tried.wait(30)
    until(lambda: not office.store.answers, "the store is found to be away")
    ends.set()
    until(lambda: office.store.answers and office.answers == [(7, None)], "nobody waits for it any more")
    office.clerk.stop(10)


def test_a_lock_that_is_waited_for_does_not_mean_that_the_store_is_away(worker: Enlisted) -> None:
    tries: list[bool] = []

    def work(_: Sequence[Request]) -> None:
        tries.append(office.store.answers)
        if len(tries) < 3:
            raise DatabaseBusy("locked")

    office = Office(work)
    office.clerk.add(request_of(worker.member))
    until(lambda: len(tries) == 3, "it was tried again")
    office.clerk.stop(10)
    assert tries == [True] * 3


# --- workers that go -------------------------------------------------------------------------------------------------


def an_intake(slots: Slots) -> tuple[Intake, Feeder]:
    clock = SYSTEM_CLOCK
    feeder = Feeder(slots, clock, lambda: None)
    requests: Any = None  # Nothing is asked for here.
    return Intake(feeder, Ledger(clock), Codec(None), clock, Tally(Events()), requests, lambda: None), feeder


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots.create(1)
    yield made
    made.close()


def test_a_dead_worker_is_heard_out_without_waiting_for_who_keeps_its_connection_open(
    worker: Enlisted, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LAST_WORDS_WITHIN", 60.0)
    heard, feeder = an_intake(slots)
    worker.member.ready = False
    feeder.join(worker.member)
    for _ in range(3):
        worker.channel.send(("ready",))  # And the connection stays open, as in a subprocess that was left behind.
    worker.member.obituary = Obituary(Death.BY_ITSELF, -9)
    began = time.monotonic()
    heard.hear_last_words(worker.member)
    assert worker.member.ready
    assert time.monotonic() - began < 30


def test_what_a_worker_says_at_last_is_waited_for_where_nobody_has_seen_its_end(worker: Enlisted, slots: Slots) -> None:
    heard, feeder = an_intake(slots)
    worker.member.ready = False
    feeder.join(worker.member)
    worker.member.obituary = Obituary(Death.WITH_TEMPLATE)
    connection = socket.socket(fileno=socket.dup(worker.channel.fileno()))

    def speak_and_end() -> None:
        worker.channel.send(("ready",))
        connection.shutdown(socket.SHUT_RDWR)

    late = threading.Timer(0.2, speak_and_end)
    late.start()
    heard.hear_last_words(worker.member)
    late.join()
    connection.close()
    assert worker.member.ready


class Leaving:
    """A watch over one worker, and who was killed."""

    def __init__(self, member: CrewMember) -> None:
        self.clock = MovableClock()
        self.killed: list[CrewMember] = []
        self.member = member
        self.watch = LeaveWatch(self.clock, self.killed.append)

    def after(self, seconds: float) -> list[CrewMember]:
        self.watch.enforce([self.member])
        self.clock.move(seconds)
        self.watch.enforce([self.member])
        return self.killed


def test_who_was_told_to_leave_and_does_not_is_killed_as_stopped(worker: Enlisted) -> None:
    leaving = Leaving(worker.member)
    assert leaving.after(LEAVE_WITHIN * 2) == []
    worker.member.tickets.close()
    worker.member.leaving = True
    assert leaving.after(LEAVE_WITHIN / 2) == []
    assert leaving.after(LEAVE_WITHIN / 2) == [worker.member]
    assert worker.member.stopped


def test_who_has_closed_its_connection_and_lives_on_is_killed_and_charged(worker: Enlisted) -> None:
    leaving = Leaving(worker.member)
    worker.member.silent_since = leaving.clock.monotonic()
    assert leaving.after(CLOSE_WITHIN / 2) == []
    assert leaving.after(CLOSE_WITHIN) == [worker.member]
    assert not worker.member.stopped
