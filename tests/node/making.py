"""Values that tests of the node are made of: a clock to move, claimed jobs, crew members on real sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from taskqueue.clock import from_us
from taskqueue.drivers.values import DELIVERY_CODES, ClaimedJob
from taskqueue.ids import new_id
from taskqueue.node.crew import CrewMember, enlist
from taskqueue.node.slots import Glance, Running
from taskqueue.node.wire import Channel
from taskqueue.states import Delivery

NOW_US = 1_800_000_000_000_000
AT_MOST_ONCE = DELIVERY_CODES[Delivery.AT_MOST_ONCE]


@dataclass
class MovableClock:
    """A clock that stands still until it is moved."""

    seconds: float = 1000.0
    us: int = NOW_US
    randomness: float = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return from_us(self.us)

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, timeout: float) -> bool:
        self.waits.append(timeout)
        self.move(timeout)
        return event.is_set()

    def jitter(self) -> float:
        return self.randomness

    def move(self, seconds: float) -> None:
        self.seconds += seconds
        self.us += round(seconds * 1e6)


def claimed_job(**changes: Any) -> ClaimedJob:
    """Return a claimed job at its first attempt of three; ``changes`` replace fields."""
    job = ClaimedJob(
        id=new_id().bytes,
        lease=1,
        queue="default",
        rank=-5,
        job_class="tests.Job",
        attempt=1,
        max_attempts=3,
        crashes=0,
        losses=0,
        delivery=DELIVERY_CODES[Delivery.AT_LEAST_ONCE],
        timeout_ms=None,
        memory_limit=None,
        force_spawn=0,
        backoff=None,
        created_at=NOW_US,
        ready_at=NOW_US,
        expires_at=None,
        key_id="k1",
        payload=b"sealed",
        checkpoint=None,
    )
    return job._replace(**changes)


def glance(*running: int, done: int = 0) -> Glance:
    """Return what a slot says: the tokens that run, and the last one that is done with or, of several, has begun."""
    return Glance(tuple(Running(token, 0, 0) for token in running), done)


@dataclass
class Enlisted:
    """A crew member together with the ends that its process would hold."""

    member: CrewMember
    channel: Channel
    tickets: int


@contextmanager
def enlisted(
    index: int = 0, *, now: float = 0.0, max_jobs: int = 1000, ready: bool = True, places: int = 1
) -> Iterator[Enlisted]:
    """Enlist a crew member; the test plays its process."""
    member, (connection, tickets) = enlist(index, now, max_jobs, places)
    member.ready = ready
    channel = Channel(socket.socket(fileno=connection))
    try:
        yield Enlisted(member, channel, tickets)
    finally:
        channel.close()
        os.close(tickets)
        if not member.leaving:
            member.tickets.close()
        member.channel.close()
