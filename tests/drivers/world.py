"""What a test needs to say about a database: jobs, a node that claims and ends them, and a clock to move."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from taskqueue.clock import from_us
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import (
    ClaimedJob,
    Completion,
    Cycle,
    Ending,
    JobFilter,
    JobRow,
    NewJob,
    NodeIdentity,
    Stale,
)
from taskqueue.ids import new_id
from taskqueue.states import FINAL, State, Verb

SECOND = 1_000_000
MINUTE = 60 * SECOND


class MovableClock:
    """A clock that stands still until a test moves it; whoever waits on it moves it on."""

    def __init__(self) -> None:
        self.us = time.time_ns() // 1000
        self.seconds = 1000.0

    def now(self) -> datetime:
        return from_us(self.us)

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, timeout: float) -> bool:
        self.advance(timeout)
        return event.is_set()

    def jitter(self) -> float:
        return 0.5

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * SECOND)
        self.seconds += seconds


class World:
    """A driver on an empty database, and shorter words for its verbs."""

    def __init__(self, driver: Driver, clock: MovableClock) -> None:
        self.driver = driver
        self.clock = clock

    # --- making ---------------------------------------------------------------------------------------------------

    def job(self, **values: Any) -> NewJob:
        """Return a job that is due now, in queue ``q``; ``values`` replace what it is made of."""
        now = self.clock.now_us()
        made: dict[str, Any] = {
            "id": new_id().bytes,
            "queue": "q",
            "rank": 0,
            "job_class": "app.Work",
            "state": State.PENDING.code,
            "created_at": now,
            "ready_at": now,
            "run_at": None,
            "expires_at": None,
            "max_attempts": 3,
            "delivery": 0,
            "timeout_ms": None,
            "memory_limit": None,
            "force_spawn": 0,
            "backoff": None,
            "on_parent_failure": 0,
            "tags": None,
            "category": None,
            "key_id": "k1",
            "unique_key": None,
            "payload": b"sealed",
        }
        return NewJob(**(made | values))

    def push(self, labels: Sequence[str] = (), **values: Any) -> bytes:
        job = self.job(**values)
        self.driver.push(job, labels)
        return job.id

    def delayed(self, seconds: float, **values: Any) -> bytes:
        run_at = self.clock.now_us() + round(seconds * SECOND)
        return self.push(state=State.DELAYED.code, run_at=run_at, ready_at=run_at, **values)

    def identity(self, name: str = "node") -> NodeIdentity:
        return NodeIdentity(new_id().bytes, name, "host", "boot", "pid:[1]", 42, 7, 30_000, "{}")

    def node(self) -> int:
        return self.driver.register_node(self.identity())

    def dead_node(self) -> int:
        node = self.node()
        self.kill(node)
        return node

    def kill(self, node: int) -> None:
        (row,) = [row for row in self.driver.nodes() if row.id == node]
        assert self.driver.declare_dead(node, row.sequence)

    # --- the way of a job -----------------------------------------------------------------------------------------

    def claim(self, node: int, limit: int = 100, queues: Sequence[str] | None = None) -> list[ClaimedJob]:
        return list(self.driver.cycle(node, (), (), self.driver.lanes(queues), limit).claimed)

    def claim_one(self, node: int) -> ClaimedJob:
        (claimed,) = self.claim(node, 1)
        return claimed

    def completion(self, job: ClaimedJob, **values: Any) -> Completion:
        made = Completion(job.id, job.lease, job.queue, self.clock.now_us(), 500, 20, b"result")
        return made._replace(**values)

    def complete(self, node: int, *jobs: ClaimedJob) -> Cycle:
        return self.driver.cycle(node, [self.completion(job) for job in jobs], (), self.driver.lanes(None), 0)

    def end(self, node: int, job: ClaimedJob, verb: Verb, **values: Any) -> Sequence[Stale]:
        ending = Ending(job.id, job.lease, job.queue, verb, self.clock.now_us())._replace(**values)
        return self.driver.cycle(node, (), [ending], self.driver.lanes(None), 0).stale

    # --- looking --------------------------------------------------------------------------------------------------

    def row(self, job_id: bytes) -> JobRow:
        row = self.driver.get(job_id)
        assert row is not None
        return row

    def state(self, job_id: bytes) -> State | None:
        return self.driver.states([job_id]).get(job_id)

    def everything(self) -> list[JobRow]:
        return self.driver.find(JobFilter(), 100_000)

    def counted(self) -> dict[tuple[str, State], int]:
        """Return what `Driver.queues` counts, without the zeros."""
        return {
            (queue.queue, state): jobs for queue in self.driver.queues() for state, jobs in queue.counts.items() if jobs
        }

    def counts_are_exact(self) -> bool:
        """Say whether the counts by queue and state are those of the rows."""
        return self.counted() == dict(Counter((row.queue, row.state) for row in self.everything()))

    def in_state(self, state: State, node: int) -> bytes:
        """Bring a new job into ``state`` and return its id; ``node`` claims where that is the way."""
        if state is State.DELAYED:
            return self.delayed(3600)
        if state is State.BLOCKED:
            return self.push(state=State.BLOCKED.code)
        job_id = self.push()
        if state is State.PENDING:
            return job_id
        if state is State.CANCELLED:
            self.driver.cancel(JobFilter(ids=[job_id]))
            return job_id
        (claimed,) = [job for job in self.claim(node) if job.id == job_id]
        if state is State.COMPLETED:
            self.complete(node, claimed)
        if state is State.FAILED:
            self.end(node, claimed, Verb.FAIL)
        assert self.state(job_id) is state, state in FINAL
        return job_id
