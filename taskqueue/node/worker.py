"""A worker: the forked process that runs jobs. It has no database connection and holds nothing but its current job."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from types import FrameType
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node import tickets
from taskqueue.node.executor import Executor, alarm_held, install_alarm
from taskqueue.node.outcome import COMPLETED, Outcome
from taskqueue.node.post import Post
from taskqueue.node.slots import DEADLINE, DONE, JOBS, REPORTED, STARTED, TOKEN
from taskqueue.node.wire import Channel
from taskqueue.payload import Codec
from taskqueue.registry import REGISTRY
from taskqueue.states import Verb

FLUSH_AFTER_NS = 2_000_000
"""A finished job's outcome waits at most 2 ms for others before it is sent."""

REPORT_NOW = signal.SIGURG
"""What a worker in a long job is sent while outcomes of earlier ones wait; a process without a handler ignores it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_logger = logging.getLogger("taskqueue.worker")


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What the template hands to a new worker."""

    codec: Codec
    slot: memoryview
    connection: socket.socket
    ticket_reader: int
    parent: int


class Worker:
    """Takes tickets, runs jobs, sends outcomes."""

    def __init__(self, parts: WorkerParts) -> None:
        self._post = Post(Channel(parts.connection))
        self._post.before_request = self._flush
        self._tickets = parts.ticket_reader
        self._slot = parts.slot
        self._executor = Executor(REGISTRY, parts.codec, SYSTEM_CLOCK)
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

    def work(self) -> None:
        """Run jobs until the node says to leave or is gone."""
        self._post.send(("ready",))
        try:
            while not self._leaving:
                token = tickets.take(self._tickets)
                if token is None:
                    self._flush()
                    select.select([self._tickets], [], [])
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
        outcome = self._executor.run(claimed)
        # In this order: a worker that dies in between has finished the job, and its slot says so.
        slot[DONE] = token
        slot[TOKEN] = 0
        slot[JOBS] += 1
        ended = time.monotonic_ns()
        self._report(token, wall() // 1000, (ended - started) // 1000, outcome, ended)

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


def run_worker(parts: WorkerParts) -> int:
    """Be a worker until it is over, and return the exit code. Called in a fresh fork, in its main thread."""
    die_with_parent(parts.parent)
    worker = Worker(parts)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, worker.leave)
    signal.signal(REPORT_NOW, worker.report)
    install_alarm()
    try:
        worker.work()
    except Exception as error:
        # Its type and place alone: its message, and those of errors before it, may hold what a payload holds.
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = type(error).__name__
        _logger.error("a worker failed outside of its jobs: %s in %s:%s", name, place.name, place.lineno)  # noqa: TRY400
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux); elsewhere the end of the ticket pipe serves."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before we asked.


def adopt_orphans() -> None:
    """Become the parent of what the jobs' subprocesses leave behind (Linux), so that no zombie outlives its turn."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
