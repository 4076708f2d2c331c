"""A worker: the forked process that runs jobs. It has no database connection and holds nothing but its current job."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node import hooking, tickets
from taskqueue.node.access import Access
from taskqueue.node.desk import WorkerReception
from taskqueue.node.desk_awaited import AwaitedReception
from taskqueue.node.executor import Executor, alarm_held
from taskqueue.node.job_loop import JobLoop
from taskqueue.node.memory_cap import CAP
from taskqueue.node.outcome import COMPLETED, Outcome
from taskqueue.node.post import READY, Post
from taskqueue.node.readiness import readable
from taskqueue.node.slots import CEILING, DEADLINE, DONE, JOBS, REPORTED, STARTED, TOKEN
from taskqueue.node.transacting import Transacting
from taskqueue.node.wire import Channel
from taskqueue.payload import Codec
from taskqueue.registry import REGISTRY
from taskqueue.states import Verb
from taskqueue.worker_hooks import WorkerContext

FLUSH_AFTER_NS = 2_000_000
"""A finished job's outcome waits at most 2 ms for others before it is sent."""

REPORT_NOW = signal.SIGURG
"""What a worker in a long job is sent while outcomes of earlier ones wait; a process without a handler ignores it."""


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What the template hands to a new worker."""

    codec: Codec
    salt: bytes
    index: int
    slot: memoryview
    connection: socket.socket
    ticket_reader: int
    parent: int
    access: Access | None = None
    """How to reach the database, where a job class is transactional."""
    places: int = 1
    """How many jobs the worker runs at a time."""
    turns: int | None = None
    """The open file on which the node's transactional jobs take turns, where the database has one writer at a time."""


class Worker:
    """Takes tickets, runs jobs, sends outcomes."""

    def __init__(self, parts: WorkerParts) -> None:
        self._post = Post(Channel(parts.connection), alarm_held)
        self._context = WorkerContext(parts.index, os.getpid())
        self._tickets = parts.ticket_reader
        self._slot = parts.slot
        self._loop = JobLoop(self._post)
        self._executor = Executor(REGISTRY, parts.codec, SYSTEM_CLOCK, self._loop.run)
        reception = WorkerReception(self._post, parts.codec, parts.salt, SYSTEM_CLOCK, self._context)
        self._executor.reception = reception
        self._executor.awaited = AwaitedReception.beside(reception)
        if parts.access is not None:
            transacting = Transacting(self._executor, parts.access, SYSTEM_CLOCK, self._set_deadline, parts.turns)
            self._executor.transact = transacting.run
        self._outcomes: list[tuple[Any, ...]] = []
        self._first_outcome_ns = 0
        self._leaving = False

    def leave(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Leave after the current job."""
        self._leaving = True

    def report(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Send the outcomes that wait, in the midst of a job that takes long."""
        if self._slot[TOKEN]:  # Otherwise no handler runs, and the loop itself is about to send them.
            with alarm_held():
                self._flush()

    def begin(self) -> bool:
        """Call the start-up hooks of the job modules; say whether this worker can take jobs."""
        return hooking.begin(self._context, self._loop.run)

    def end(self) -> None:
        """Call their shutdown hooks, and end what jobs have left on the loop."""
        hooking.leave(self._context, self._loop.run)
        self._loop.close()

    def work(self) -> None:
        """Run jobs until the node says to leave or is gone."""
        self._post.send((READY,))
        try:
            while not self._leaving:
                token = tickets.take(self._tickets)
                if token is None:
                    self._flush()
                    readable([self._tickets])
                    continue
                self._run(token)
        except EOFError:
            pass
        self._flush()

    def _run(self, token: int) -> None:
        claimed = self._fetch(token)
        slot = self._slot
        wall = time.time_ns
        started = time.monotonic_ns()
        timeout_ms = claimed.timeout_ms
        slot[STARTED] = started
        slot[DEADLINE] = started + timeout_ms * 1_000_000 if timeout_ms is not None else 0
        slot[TOKEN] = token
        outcome = self._executor.run(claimed) if claimed.memory_limit is None else self._run_capped(claimed)
        # In this order: a worker that dies in between has finished the job, and its slot says so.
        slot[DONE] = token
        slot[TOKEN] = 0
        slot[JOBS] += 1
        ended = time.monotonic_ns()
        self._report(token, wall() // 1000, (ended - started) // 1000, outcome, ended)

    def _set_deadline(self, _claimed: ClaimedJob, seconds: float | None) -> None:
        self._slot[DEADLINE] = time.monotonic_ns() + round(seconds * 1e9) if seconds is not None else 0

    def _run_capped(self, claimed: ClaimedJob) -> Outcome:
        """Run a job that has a memory limit of its own."""
        self._slot[CEILING] = CAP.put_on(claimed.memory_limit or 0)
        try:
            return self._executor.run(claimed)
        finally:
            CAP.take_off()
            self._slot[CEILING] = 0

    def _report(self, token: int, finished_at: int, run_us: int, outcome: Outcome, now: int) -> None:
        if outcome is COMPLETED or outcome.verb is Verb.COMPLETE:
            self._outcomes.append((token, finished_at, run_us, outcome.result, None))
        else:
            self._outcomes.append((token, finished_at, run_us, None, outcome.to_wire()))
        if len(self._outcomes) == 1:
            self._first_outcome_ns = now - run_us * 1000
        if now - self._first_outcome_ns >= FLUSH_AFTER_NS:
            self._flush()

    def _flush(self) -> None:
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self._post.send(outcomes)
        self._slot[REPORTED] = self._slot[DONE]

    def _fetch(self, token: int) -> ClaimedJob:
        """Return the job of a ticket. Jobs before it were taken back by the dispatcher and are passed over."""
        jobs = self._post.jobs
        while True:
            while jobs:
                number, *fields = jobs.popleft()
                if number == token:
                    return ClaimedJob._make(fields)
            self._post.receive()
            if not jobs:
                self._post.wait()
