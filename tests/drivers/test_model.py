"""Random interleavings of the verbs against a small model: states, leases and counters must agree after every step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import CRASH_LIMIT, BlockedBy, Completion, Ending, JobFilter
from taskqueue.states import State, Verb
from tests.drivers.world import MovableClock, World

QUEUES = ("a", "b")


@dataclass
class Model:
    """What the model believes of one job."""

    queue: str
    state: State
    lease: int = 0
    attempt: int = 0
    crashes: int = 0
    node: int = 0
    recorded: bool = False


class Game:
    """The driver and the model, moved by the same steps."""

    def __init__(self, driver: Driver, clock: MovableClock, seed: int) -> None:
        self.world = World(driver, clock)
        self.driver = driver
        self.clock = clock
        self.random = random.Random(seed)
        self.jobs: dict[bytes, Model] = {}
        self.nodes = [self.world.node(), self.world.node()]
        self.leases: dict[tuple[bytes, int], int] = {}

    def any_of(self, *states: State) -> bytes | None:
        found = sorted(job_id for job_id, job in self.jobs.items() if job.state in states)
        return self.random.choice(found) if found else None

    def push(self) -> None:
        queue = self.random.choice(QUEUES)
        if self.random.random() < 0.3:
            self.jobs[self.world.delayed(60, queue=queue)] = Model(queue, State.DELAYED)
        else:
            self.jobs[self.world.push(queue=queue)] = Model(queue, State.PENDING)

    def claim(self) -> None:
        node = self.random.choice(self.nodes)
        limit = self.random.randint(1, 4)
        claimed = self.world.claim(node, limit)
        assert len(claimed) == min(limit, sum(job.state is State.PENDING for job in self.jobs.values()))
        for job in claimed:
            model = self.jobs[job.id]
            assert model.state is State.PENDING
            model.state, model.node, model.recorded = State.PROCESSING, node, False
            model.lease, model.attempt = model.lease + 1, model.attempt + 1
            assert (job.lease, job.attempt) == (model.lease, model.attempt)
            assert (job.id, job.lease) not in self.leases
            self.leases[job.id, job.lease] = node

    def complete(self) -> None:
        """Complete some claims, among them old ones that have been lost."""
        chosen = self.random.sample(sorted(self.leases), min(3, len(self.leases)))
        done = [Completion(job_id, lease, self.queue_of(job_id), self.clock.us, 5, 5, b"r") for job_id, lease in chosen]
        cycle = self.driver.cycle(self.nodes[0], done, (), self.driver.lanes(None), 0)
        held = [(job_id, lease) for job_id, lease in chosen if self.holds(job_id, lease)]
        assert {(stale.id, stale.lease) for stale in cycle.stale} == set(chosen) - set(held)
        for job_id, _ in held:
            self.jobs[job_id].state = State.COMPLETED

    def queue_of(self, job_id: bytes) -> str:
        return self.jobs[job_id].queue if job_id in self.jobs else "a"

    def holds(self, job_id: bytes, lease: int) -> bool:
        model = self.jobs.get(job_id)
        return model is not None and model.state is State.PROCESSING and model.lease == lease

    def end(self) -> None:
        if not self.leases:
            return
        job_id, lease = self.random.choice(sorted(self.leases))
        verb = self.random.choice([Verb.RETRY, Verb.FAIL, Verb.RELEASE, Verb.PARK, Verb.CANCEL])
        spent = self.random.random() < 0.5
        ending = Ending(
            job_id, lease, self.queue_of(job_id), verb, self.clock.us, spent=spent, blocked_by=BlockedBy.UNKNOWN_CLASS
        )
        held = self.holds(job_id, lease)
        cycle = self.driver.cycle(self.nodes[0], (), [ending], self.driver.lanes(None), 0)
        assert len(cycle.stale) == (not held)
        if held:
            self.note_end(self.jobs[job_id], verb, spent=spent)

    def note_end(self, model: Model, verb: Verb, *, spent: bool) -> None:
        ends = {Verb.FAIL: State.FAILED, Verb.CANCEL: State.CANCELLED, Verb.PARK: State.BLOCKED}
        model.state = ends.get(verb, State.PENDING)
        if verb is Verb.PARK or not spent:
            model.attempt -= 1
        if not model.state.final:
            model.lease += 1

    def record(self) -> None:
        job_id = self.any_of(State.PROCESSING)
        if job_id is not None:
            model = self.jobs[job_id]
            assert self.driver.record_start(model.node, job_id, model.lease)
            model.recorded = True

    def die(self) -> None:
        """Let a node die and be rescued, and start another in its place."""
        node = self.nodes.pop(0)
        self.world.kill(node)
        self.nodes.append(self.world.node())
        mine = [job for job in self.jobs.values() if job.state is State.PROCESSING and job.node == node]
        assert self.driver.rescue(node).total == len(mine)
        for model in mine:
            model.lease += 1
            model.crashes += model.recorded
            gone = model.recorded and model.crashes >= CRASH_LIMIT
            model.state = State.FAILED if gone else State.PENDING
            model.attempt -= not gone

    def promote(self) -> None:
        self.clock.advance(61)
        self.driver.promote()
        for model in self.jobs.values():
            if model.state is State.DELAYED:
                model.state = State.PENDING

    def unpark(self) -> None:
        self.driver.unpark(["app.Work"], [])
        for model in self.jobs.values():
            if model.state is State.BLOCKED:
                model.state = State.PENDING

    def cancel(self) -> None:
        queue = self.random.choice(QUEUES)
        self.driver.cancel(JobFilter(queues=[queue]))
        for model in self.jobs.values():
            if model.queue == queue and model.state in (State.PENDING, State.DELAYED, State.BLOCKED):
                model.state = State.CANCELLED

    def revive(self) -> None:
        job_id = self.any_of(State.FAILED, State.CANCELLED)
        if job_id is not None:
            assert self.driver.revive(JobFilter(ids=[job_id])) == [job_id]
            model = self.jobs[job_id]
            model.state, model.lease, model.attempt, model.crashes = State.PENDING, model.lease + 1, 0, 0

    def delete(self) -> None:
        job_id = self.any_of(*set(State) - {State.PROCESSING})
        if job_id is not None:
            assert self.driver.delete(JobFilter(ids=[job_id])) == 1
            del self.jobs[job_id]

    def check(self) -> None:
        rows = {row.id: row for row in self.world.everything()}
        assert rows.keys() == self.jobs.keys()
        for job_id, model in self.jobs.items():
            row = rows[job_id]
            seen = (row.queue, row.state, row.lease, row.attempt, row.crashes)
            assert seen == (model.queue, model.state, model.lease, model.attempt, model.crashes)
        assert self.world.counted() == dict(Counter((model.queue, model.state) for model in self.jobs.values()))


STEPS = "push push push claim claim complete complete end end record die promote unpark cancel revive revive delete"


@pytest.mark.slow
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(STEPS.split()), min_size=20, max_size=50))
def test_any_interleaving_leaves_what_the_model_says(url: str, seed: int, steps: list[str]) -> None:
    clock = MovableClock()
    migrate.reset(url)
    driver = open_driver(url, clock=clock)
    try:
        game = Game(driver, clock, seed)
        for step in steps:
            getattr(game, step)()
            game.check()
    finally:
        driver.close()
