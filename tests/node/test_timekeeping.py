"""For whose sake a worker is killed whose jobs take too long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskqueue.node.crew import CrewMember
from taskqueue.node.settlement import Death, Obituary
from taskqueue.node.slots import DEADLINE, DONE, TOKEN, TURNED, Slots, lanes_of
from taskqueue.node.timekeeping import KILL_AFTER, Timekeeper
from tests.node.making import MovableClock, enlisted

SECOND = 1_000_000_000
PLACES = 3


class Watch:
    """One worker, its slot, and who keeps its time."""

    def __init__(self, member: CrewMember, places: int) -> None:
        self.member = member
        self.clock = MovableClock()
        self.slots = Slots.create(1, places)
        self.killed = 0
        self._keeper = Timekeeper(self.slots, self.clock, self._kill, lambda _member, _number: None)

    @property
    def words(self) -> memoryview:
        return self.slots.of(0)

    def _kill(self, _member: CrewMember) -> None:
        self.killed += 1

    def begin(self, token: int, seconds: float | None = None) -> None:
        """Note a job that begins now and has so many seconds."""
        now = int(self.clock.seconds * SECOND)
        until = now + int(seconds * SECOND) if seconds is not None else 0
        if self.slots.places == 1:
            self.words[DEADLINE], self.words[TOKEN] = until, token
            return
        tokens, starts, deadlines = lanes_of(self.words, PLACES)
        lane = tokens.tolist().index(0)
        starts[lane], deadlines[lane], tokens[lane] = now, until, token
        self.words[DONE], self.words[TURNED] = token, now

    def turn(self) -> None:
        """Note that the loop turns."""
        self.words[TURNED] = int(self.clock.seconds * SECOND)

    def enforce(self, after: float) -> None:
        self.clock.move(after)
        self._keeper.enforce([self.member])

    def deaths(self, *tokens: int) -> list[Death]:
        """Return what the death of the worker is to these jobs."""
        cause = Death.IN_COMPANY if self.member.stands_still else Death.TIMED_OUT
        obituary = Obituary(cause, killed_tokens=self.member.killed_tokens)
        return [obituary.death_of(token, len(tokens)) for token in tokens]


@pytest.fixture
def watch() -> Iterator[Watch]:
    with enlisted(places=PLACES) as worker:
        made = Watch(worker.member, PLACES)
        yield made
        made.slots.close()


def test_a_loop_that_stands_still_charges_nobody_for_time(watch: Watch) -> None:
    watch.begin(1)
    watch.begin(2, seconds=1)
    watch.enforce(1 + KILL_AFTER)
    assert watch.killed == 1
    assert watch.deaths(1, 2) == [Death.IN_COMPANY, Death.IN_COMPANY]
    watch.enforce(0.1)
    assert watch.killed == 1


def test_a_job_that_was_told_and_stays_is_charged_and_its_neighbours_are_not_at_fault(watch: Watch) -> None:
    watch.begin(1)
    watch.begin(2, seconds=1)
    watch.enforce(0.9 + KILL_AFTER)
    watch.turn()
    watch.enforce(0.1)
    assert watch.deaths(1, 2) == [Death.FOR_ANOTHER, Death.TIMED_OUT]


def test_a_loop_that_stops_turning_after_a_job_was_told_may_be_stopped_by_any_other(watch: Watch) -> None:
    watch.begin(1)
    watch.begin(2, seconds=1)
    watch.enforce(1.1)
    watch.turn()
    watch.enforce(KILL_AFTER)
    assert watch.deaths(1, 2) == [Death.IN_COMPANY, Death.TIMED_OUT]


def test_the_only_job_of_a_loop_that_stands_still_is_the_one(watch: Watch) -> None:
    watch.begin(1, seconds=1)
    watch.enforce(1 + KILL_AFTER)
    assert (watch.killed, watch.deaths(1)) == (1, [Death.TIMED_OUT])


def test_jobs_without_a_timeout_may_stand_still(watch: Watch) -> None:
    watch.begin(1)
    watch.begin(2)
    watch.enforce(3600)
    assert watch.killed == 0


def test_a_worker_with_one_place_has_no_loop_to_stand_still() -> None:
    with enlisted() as worker:
        watch = Watch(worker.member, 1)
        watch.begin(1, seconds=1)
        watch.enforce(0.5 + KILL_AFTER)
        assert watch.killed == 0
        watch.enforce(0.5)
        assert (watch.killed, watch.deaths(1)) == (1, [Death.TIMED_OUT])
        watch.slots.close()
