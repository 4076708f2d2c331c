"""A worker with several places: async handlers as tasks on one loop in its main thread, plain ones in threads beside.

The loop watches the ticket pipe while a place is free, and the connection always. It alone writes the worker's lanes in
shared memory, so that jobs begin there in the order of their tickets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from contextvars import copy_context
from typing import Any

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers.values import ClaimedJob
from taskqueue.job import Job
from taskqueue.node import hooking, tickets
from taskqueue.node.desk import WorkerReception
from taskqueue.node.desk_awaited import AwaitedReception
from taskqueue.node.executor import Executor
from taskqueue.node.handlers import Kind
from taskqueue.node.hands import Hand, Order
from taskqueue.node.job_loop import close_loop, log_callback, log_stray
from taskqueue.node.memory_cap import CAP
from taskqueue.node.outcome import Outcome
from taskqueue.node.post import READY, Post
from taskqueue.node.slots import CEILING, DONE, JOBS, TURNED, lanes_of
from taskqueue.node.transacting import Transacting
from taskqueue.node.wire import Channel
from taskqueue.node.worker import WorkerParts
from taskqueue.registry import REGISTRY
from taskqueue.states import Verb
from taskqueue.worker_hooks import WorkerContext

MOST_AT_ONCE = 32
"""How many jobs are begun in one turn of the loop, so that those that run already get theirs."""
TURN_NOTED_EACH = 0.1
"""Seconds between two notes that the loop turns, while jobs run. The supervisor waits for ten times that."""


class RunningJob:
    """A job that runs, and where: its lane, and the task if one has it."""

    __slots__ = ("claimed", "lane", "started", "task", "timer", "token")

    def __init__(self, lane: int, token: int, claimed: ClaimedJob, started: int) -> None:
        self.lane = lane
        self.token = token
        self.claimed = claimed
        self.started = started
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class LoopPost(Post):
    """A connection that the loop reads; also when a handler on the loop reads it, what has arrived is looked at."""

    def __init__(self, channel: Channel, worker: ConcurrentWorker) -> None:
        super().__init__(channel)
        self._worker = worker

    def receive(self) -> None:
        """Take in what has arrived; raises EOFError when the node is gone."""
        super().receive()
        if self.jobs:
            self._worker.see_to_arrivals()


class ConcurrentWorker:
    """Takes tickets while it has free places, runs their jobs at the same time, sends outcomes once a turn."""

    def __init__(self, parts: WorkerParts) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(log_callback)
        self._clean = copy_context()
        """What no job has set anything in: callbacks run in the context of the job that happened to call for them."""
        self._hands = 0
        self._notes_turns = False
        self._post = LoopPost(Channel(parts.connection), self)
        self._post.read_always()
        self._tickets = parts.ticket_reader
        self._slot = parts.slot
        self._tokens, self._starts, self._deadlines = lanes_of(parts.slot, parts.places)
        self._lanes = list(range(parts.places))[::-1]
        self._context = WorkerContext(parts.index, os.getpid(), parts.places)
        reception = WorkerReception(self._post, parts.codec, parts.salt, SYSTEM_CLOCK, self._context)
        self._executor = Executor(REGISTRY, parts.codec, SYSTEM_CLOCK, self._await_from_thread)
        self._executor.reception = reception
        self._executor.awaited = AwaitedReception.beside(reception)
        if parts.access is not None:
            transacting = Transacting(self._executor, parts.access, SYSTEM_CLOCK, self._tell_deadline, parts.turns)
            self._executor.transact = transacting.run
        self._idle_hands: list[Hand] = []
        self._due: deque[int] = deque()
        self._running: dict[int, RunningJob] = {}
        self._outcomes: list[tuple[Any, ...]] = []
        self._watching = False
        self._leaving = False
        self._over = False
        self._failure: BaseException | None = None

    def leave(self, _signal: int = 0, _frame: Any = None) -> None:
        """Leave after the jobs that run."""
        with contextlib.suppress(RuntimeError):  # The loop is closed: it leaves.
            self._loop.call_soon_threadsafe(self._leave)

    def begin(self) -> bool:
        """Call the start-up hooks of the job modules; say whether this worker can take jobs."""
        asyncio.set_event_loop(self._loop)
        return hooking.begin(self._context, self._loop.run_until_complete)

    def end(self) -> None:
        """Call their shutdown hooks, and end what jobs have left on the loop."""
        hooking.leave(self._context, self._loop.run_until_complete)
        close_loop(self._loop)

    def work(self) -> None:
        """Run jobs until the node says to leave or is gone."""
        self._post.send((READY,))
        self._loop.add_reader(self._post.fileno(), self._receive)
        self._loop.call_soon(self._take_tickets)
        while not self._over:
            try:
                self._loop.run_forever()
            except BaseException as error:
                log_stray(error)
        self._flush()
        if self._failure is not None:
            raise self._failure

    # --- tickets ---------------------------------------------------------------------------------------------

    def _take_tickets(self) -> None:
        """Take tickets for the free places, and watch for more while any is left."""
        try:
            for _ in range(min(MOST_AT_ONCE, len(self._lanes) - len(self._due))):
                token = tickets.take(self._tickets)
                if token is None:
                    break
                self._due.append(token)
        except EOFError:
            self._leave()
        self.begin_due()
        if not self._leaving and len(self._lanes) > len(self._due):
            self._watch_tickets()
        else:
            self._ignore_tickets()

    def _watch_tickets(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.add_reader(self._tickets, self._take_tickets)

    def _ignore_tickets(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._tickets)

    def _receive(self) -> None:
        try:
            self._post.receive()
        except EOFError:
            self._loop.remove_reader(self._post.fileno())
            self._leave()

    def see_to_arrivals(self) -> None:
        """Begin, in a moment, the jobs that have arrived."""
        self._loop.call_soon(self.begin_due)

    def begin_due(self) -> None:
        """Begin the jobs whose tickets were taken and that have arrived.

        Both come in the order of their tokens; jobs before the next ticket were taken back and are passed over.
        """
        due, jobs = self._due, self._post.jobs
        while due and jobs:
            token, *fields = jobs.popleft()
            if token == due[0]:
                due.popleft()
                self._begin(token, ClaimedJob._make(fields))

    def _leave(self) -> None:
        self._leaving = True
        self._ignore_tickets()
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._leaving and not self._running and not (self._due and self._post.jobs):
            self._over = True
            self._loop.stop()

    # --- jobs ------------------------------------------------------------------------------------------------

    def _begin(self, token: int, claimed: ClaimedJob) -> None:
        started = time.monotonic_ns()
        running = RunningJob(self._lanes.pop(), token, claimed, started)
        timeout_ms, lane = claimed.timeout_ms, running.lane
        self._starts[lane] = started
        self._deadlines[lane] = started + timeout_ms * 1_000_000 if timeout_ms is not None else 0
        # In this order: what is in a lane and not yet counted as begun has not begun.
        self._tokens[lane] = token
        self._slot[DONE] = token
        self._running[token] = running
        try:
            outcome = self._set_going(running)
        except BaseException as error:  # Nobody else would ever end it.
            outcome = self._executor.refuse(claimed, error)
        if outcome is not None:
            self._end(running, outcome)

    def _set_going(self, running: RunningJob) -> Outcome | None:
        """Start the task or the thread of a job; return what came of it where it cannot be run."""
        claimed = running.claimed
        if not self._notes_turns:
            self._note_turn()
        if claimed.memory_limit is not None:  # Nothing else runs here then.
            if not self._idle_hands:  # Under the cap there is no memory for the stack of a thread.
                self._idle_hands.append(self._new_hand())
            self._slot[CEILING] = CAP.put_on(claimed.memory_limit)
        job = self._executor.begin(claimed)
        if isinstance(job, Outcome):
            return job
        if claimed.timeout_ms is not None:
            running.timer = self._loop.call_later(claimed.timeout_ms / 1000, self._time_is_over, running)
        # Last: from here on the task or the thread ends the job.
        if self._executor.kinds[type(job)] is Kind.ASYNC:
            running.task = self._loop.create_task(self._await_handler(running, job), context=self._clean.copy())
        else:
            self._give(running, job)
        return None

    async def _await_handler(self, running: RunningJob, job: Job) -> None:
        try:
            outcome = await self._executor.attempt_awaited(job, running.claimed)
        except BaseException as error:  # Ours, not the handler's: as a worker with one place, this one ends by it.
            self._failure, self._over = error, True
            self._loop.stop()
            return
        self._end(running, outcome)

    def _new_hand(self) -> Hand:
        hand = Hand(self._hands + 1, self._loop, self._take)
        self._hands += 1
        return hand

    def _give(self, running: RunningJob, job: Job) -> None:
        hand = self._idle_hands.pop() if self._idle_hands else self._new_hand()
        claimed, executor = running.claimed, self._executor
        transacts = executor.kinds[type(job)] is Kind.TRANSACTIONAL
        attempt = executor.transact if transacts else executor.attempt
        hand.give(Order(running.token, lambda: attempt(job, claimed), self._clean.copy()))

    def _take(self, hand: Hand, order: Order) -> None:
        """Take what a thread has done."""
        self._idle_hands.append(hand)
        running = self._running[order.token]
        outcome = order.outcome
        if outcome is None:
            error = order.error or RuntimeError("the thread of a job ended without an outcome")
            outcome = self._executor.refuse(running.claimed, error)
        self._end(running, outcome)

    def _time_is_over(self, running: RunningJob) -> None:
        """Tell a handler. The supervisor ends the process where it does not listen; a task has a watch of its own.

        No exception is sent into a thread: one that arrives right after a contended lock was taken leaves it taken,
        and every other job of the worker that needs it would hang (proved with a logger's).
        """
        self._post.stops[running.claimed.id, running.claimed.lease] = None

    def _note_turn(self) -> None:
        """Note that the loop turns, now and for as long as jobs run."""
        self._slot[TURNED] = time.monotonic_ns()
        self._notes_turns = False  # As the call may raise, with so little memory as a job may have.
        if self._running:
            self._loop.call_later(TURN_NOTED_EACH, self._note_turn)
            self._notes_turns = True

    def _tell_deadline(self, claimed: ClaimedJob, seconds: float | None) -> None:
        self._loop.call_soon_threadsafe(self._set_deadline, claimed, seconds)

    def _set_deadline(self, claimed: ClaimedJob, seconds: float | None) -> None:
        """Note how long a transactional run has from now; None is no limit."""
        for running in self._running.values():
            if running.claimed is claimed:
                until = time.monotonic_ns() + round(seconds * 1e9) if seconds is not None else 0
                self._deadlines[running.lane] = until

    def _end(self, running: RunningJob, outcome: Outcome) -> None:
        del self._running[running.token]
        if running.claimed.memory_limit is not None:
            CAP.take_off()
            self._slot[CEILING] = 0
        if running.timer is not None:
            running.timer.cancel()
            self._post.stops.pop((running.claimed.id, running.claimed.lease), None)
        self._tokens[running.lane] = 0
        self._slot[JOBS] += 1
        self._lanes.append(running.lane)
        run_us = (time.monotonic_ns() - running.started) // 1000
        if not self._outcomes:
            self._loop.call_soon(self._flush)
        done = outcome.verb is Verb.COMPLETE
        result, wire = (outcome.result, None) if done else (None, outcome.to_wire())
        self._outcomes.append((running.token, time.time_ns() // 1000, run_us, result, wire))
        if self._leaving:
            self._end_if_empty()
        elif not self._watching:
            self._watch_tickets()

    def _flush(self) -> None:
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self._post.send(outcomes)

    def _await_from_thread(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
