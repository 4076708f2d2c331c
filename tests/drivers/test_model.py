"""Random interleavings of the verbs against a small model: states, leases and counters must agree after every step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import (
    CRASH_LIMIT,
    PARENT_FAILURE_CODES,
    BlockedBy,
    Completion,
    Ending,
    JobFilter,
    Standing,
)
from taskqueue.errors import DuplicateJob
from taskqueue.states import OnConflict, ParentFailure, State, Verb
from tests.databases import Database
from tests.drivers.world import MovableClock, World

QUEUES = ("a", "b")
KEYS = (b"1" * 32, b"2" * 32)


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
    key: bytes | None = None
    parents: set[bytes] = field(default_factory=set)
    policy: ParentFailure = ParentFailure.FAIL

    def end(self, state: State) -> None:
        """Finish; who has finished waits for nobody, also after a revival."""
        self.state = state
        self.parents.clear()


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
        self.paused: set[str] = set()

    def any_of(self, *states: State) -> bytes | None:
        found = sorted(job_id for job_id, job in self.jobs.items() if job.state in states)
        return self.random.choice(found) if found else None

    def push(self) -> None:
        queue = self.random.choice(QUEUES)
        if self.random.random() < 0.3:
            self.jobs[self.world.delayed(60, queue=queue)] = Model(queue, State.DELAYED)
        else:
            self.jobs[self.world.push(queue=queue)] = Model(queue, State.PENDING)

    def push_child(self) -> None:
        """Push a job that depends on one or two others, whatever their state."""
        known = sorted(self.jobs)
        if not known:
            return
        parents = self.random.sample(known, min(self.random.randint(1, 2), len(known)))
        queue, policy = self.random.choice(QUEUES), self.random.choice(list(ParentFailure))
        job = self.world.job(queue=queue, on_parent_failure=PARENT_FAILURE_CODES[policy])
        self.driver.push(job, (), parents)
        self.jobs[job.id] = Model(queue, State.BLOCKED, parents=set(parents), policy=policy)
        self.tell_children(*(each for each in parents if self.jobs[each].state.final))

    def tell_children(self, *ended: bytes) -> None:
        """Let the children of jobs that have ended, or are gone, start, end too, or wait on."""
        todo = list(ended)
        for parent in todo:
            model = self.jobs.get(parent)
            for child_id, child in self.jobs.items():
                if parent not in child.parents:
                    continue
                if child.policy is ParentFailure.RUN or (model and model.state is State.COMPLETED):
                    child.parents.discard(parent)
                    child.state = child.state if child.parents else State.PENDING
                elif child.policy is not ParentFailure.WAIT or model is None:
                    child.end(State.FAILED if child.policy is ParentFailure.FAIL else State.CANCELLED)
                    todo.append(child_id)

    def push_unique(self) -> None:
        """Push with a key and each rule: one live job for a key, and what is replaced is cancelled."""
        queue, key = self.random.choice(QUEUES), self.random.choice(KEYS)
        rule = self.random.choice(list(OnConflict))
        job, holder = self.world.job(queue=queue, unique_key=key), self.holder(key)
        if holder is not None and self.refuses(self.jobs[holder], rule):
            with pytest.raises(DuplicateJob):
                self.driver.push_each([job], rules=[rule])
            return
        kept = holder is not None and rule is OnConflict.KEEP
        expected = Standing(holder, created=False) if kept and holder else Standing(job.id, created=True)
        assert self.driver.push_each([job], rules=[rule]) == [expected]
        if not kept:
            if holder is not None:
                self.jobs[holder].end(State.CANCELLED)
                self.tell_children(holder)
            self.jobs[job.id] = Model(queue, State.PENDING, key=key)

    def holder(self, key: bytes | None) -> bytes | None:
        """Return the live job that has a key."""
        live = [job_id for job_id, job in self.jobs.items() if job.key == key and not job.state.final]
        assert key is None or len(live) <= 1
        return live[0] if key is not None and live else None

    def refuses(self, holder: Model, rule: OnConflict) -> bool:
        return rule is OnConflict.ERROR or (rule is OnConflict.REPLACE and holder.state is State.PROCESSING)

    def pause(self) -> None:
        queue = self.random.choice(QUEUES)
        self.driver.pause(queue)
        self.paused.add(queue)

    def resume(self) -> None:
        for queue in self.paused:
            self.driver.resume(queue)
        self.paused.clear()

    def claim(self) -> None:
        node = self.random.choice(self.nodes)
        limit = self.random.randint(1, 4)
        claimed = self.world.claim(node, limit)
        due = [job for job in self.jobs.values() if job.state is State.PENDING and job.queue not in self.paused]
        assert len(claimed) == min(limit, len(due))
        for job in claimed:
            model = self.jobs[job.id]
            assert model.state is State.PENDING
            assert job.queue not in self.paused
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
        self.tell_children(*(job_id for job_id, _ in held))

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
            if self.jobs[job_id].state.final:
                self.tell_children(job_id)

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
        self.tell_children(*(job_id for job_id, job in self.jobs.items() if job in mine and job.state is State.FAILED))

    def promote(self) -> None:
        self.clock.advance(61)
        self.driver.promote()
        for model in self.jobs.values():
            if model.state is State.DELAYED:
                model.state = State.PENDING

    def unpark(self) -> None:
        self.driver.unpark(["app.Work"], [])
        for model in self.jobs.values():
            if model.state is State.BLOCKED and not model.parents:
                model.state = State.PENDING

    def cancel(self) -> None:
        queue = self.random.choice(QUEUES)
        self.driver.cancel(JobFilter(queues=[queue]))
        waiting = (State.PENDING, State.DELAYED, State.BLOCKED)
        chosen = [job_id for job_id, job in self.jobs.items() if job.queue == queue and job.state in waiting]
        for job_id in chosen:
            self.jobs[job_id].end(State.CANCELLED)
        self.tell_children(*chosen)

    def revive(self) -> None:
        job_id = self.any_of(State.FAILED, State.CANCELLED)
        if job_id is not None:
            model = self.jobs[job_id]
            taken = self.holder(model.key) is not None
            assert self.driver.revive(JobFilter(ids=[job_id])) == ([] if taken else [job_id])
            if taken:
                return
            model.state, model.lease, model.attempt, model.crashes = State.PENDING, model.lease + 1, 0, 0

    def delete(self) -> None:
        job_id = self.any_of(*set(State) - {State.PROCESSING})
        if job_id is not None:
            assert self.driver.delete(JobFilter(ids=[job_id])) == 1
            del self.jobs[job_id]
            self.tell_children(job_id)

    def check(self) -> None:
        rows = {row.id: row for row in self.world.everything()}
        assert rows.keys() == self.jobs.keys()
        for job_id, model in self.jobs.items():
            row = rows[job_id]
            seen = (row.queue, row.state, row.lease, row.attempt, row.crashes)
            assert seen == (model.queue, model.state, model.lease, model.attempt, model.crashes)
        assert self.world.counted() == dict(Counter((model.queue, model.state) for model in self.jobs.values()))


STEPS = (
    "push push push push_child push_child push_child push_unique push_unique push_unique pause resume resume "
    "claim claim complete complete end end record die promote unpark cancel revive revive delete"
)


@pytest.mark.slow
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(STEPS.split()), min_size=20, max_size=50))
def test_any_interleaving_leaves_what_the_model_says(database: Database, seed: int, steps: list[str]) -> None:
    clock = MovableClock()
    database.empty()
    driver = open_driver(database.url, clock=clock)
    try:
        game = Game(driver, clock, seed)
        for step in steps:
            getattr(game, step)()
            game.check()
    finally:
        driver.close()
