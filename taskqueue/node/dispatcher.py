"""The dispatcher: a thread that claims and acknowledges in one transaction per cycle and keeps the workers fed.

It hands still-sealed jobs to the workers and never opens a payload. It owns the connections to the workers and what
each of them holds; the supervisor, which owns their processes, tells it of arrivals and deaths through `post`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob, Completion, Ending
from taskqueue.errors import StoreError
from taskqueue.node import settlement
from taskqueue.node.crew import CrewMember
from taskqueue.node.outcome import AT_MOST_ONCE, Outcome, ending
from taskqueue.node.pacing import AHEAD_US, LONG_JOB_US, Pacing
from taskqueue.node.polling import Polling
from taskqueue.node.slots import Slots
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec, Purpose
from taskqueue.states import Reason, Verb

FLUSH_AT = 100
FLUSH_AFTER = 0.005
"""Outcomes wait for others until there are 100 of them or 5 ms have passed, and not at all while nothing else runs."""
TAKE_BACK_AFTER_NS = 20_000_000
_RETRY_AFTER = 0.25

_logger = logging.getLogger("taskqueue.dispatcher")


class Dispatcher:
    """Claims, feeds, acknowledges. Everything but `post`, `wake` and the flags runs in its own thread."""

    def __init__(
        self,
        driver: Driver,
        durable: Driver,
        codec: Codec,
        slots: Slots,
        clock: Clock,
        tally: Tally,
        *,
        queues: Sequence[str] | None,
        job_timeout: float | None,
    ) -> None:
        self._driver = driver
        self._durable = durable
        self._codec = codec
        self._slots = slots
        self._clock = clock
        self._tally = tally
        self._job_timeout_ms = round(job_timeout * 1000) if job_timeout else None
        self._lanes = driver.lanes(queues)
        self._pacing = Pacing()
        self._polling = Polling(clock)
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._inbox: deque[Callable[[], None]] = deque()
        self._crew: list[CrewMember] = []
        self._queue: deque[ClaimedJob] = deque()
        self._completions: list[Completion] = []
        self._endings: list[Ending] = []
        self._first_outcome_at = 0.0
        self._token = 0
        self._hostages_at = 0.0
        self._unreachable_until = 0.0
        self._reachable = True
        self.node_id = 0
        self.claiming = threading.Event()
        """Set while new jobs may be claimed."""
        self.ending = threading.Event()
        """Set when the thread is to write what is left and end."""
        self.at_rest = threading.Event()
        """Set while nothing is held, nothing waits to be written, and the last claim found nothing."""
        self.fresh_wanted = threading.Event()
        """Set while a job waits for a worker that has run nothing yet."""
        self.failure: BaseException | None = None

    # --- called by others ---------------------------------------------------------------------------------------------

    def post(self, what: Callable[..., None], *arguments: Any) -> None:
        """Have the dispatcher's thread call ``what``."""
        self._inbox.append(lambda: what(*arguments))
        self.wake()

    def wake(self) -> None:
        """Have the dispatcher look around now."""
        with contextlib.suppress(BlockingIOError):  # The pipe may be full of calls that have not been answered yet.
            os.write(self._waker, b"!")

    def run(self) -> None:
        """Work until `ending` is set and nothing is left to be written."""
        try:
            while not (self.ending.is_set() and self._nothing_to_write()):
                self._turn()
        except BaseException as error:
            self.failure = error
            _logger.exception("the dispatcher failed")

    # --- told by the supervisor ---------------------------------------------------------------------------------------

    def join(self, member: CrewMember) -> None:
        """Take on a worker that was asked for; it is fed once it has said that it is ready."""
        self._crew.append(member)
        self._selector.register(member.channel, selectors.EVENT_READ, member)

    def retire(self, member: CrewMember) -> None:
        """Send a worker no more jobs, and let it go when it has reported those that it holds."""
        member.retiring = True
        self._let_go(member)

    def bury(self, member: CrewMember) -> None:
        """Take in what a dead worker still had to say, and see to the jobs that it held."""
        if member not in self._crew:
            return
        self._hear(member)
        self._crew.remove(member)
        self._mute(member)
        self._settle(member)
        if not member.leaving:
            member.tickets.close()
        member.channel.close()

    def hand_back(self) -> None:
        """Give back what has not begun: its attempt is not spent."""
        for member in self._crew:
            self._take_back(member)
        now_us = self._clock.now_us()
        for claimed in self._queue:
            self._end(ending(claimed, Outcome(Verb.RELEASE), now_us))
        self._queue.clear()

    @property
    def in_hand(self) -> int:
        """Return how many claimed jobs are with workers or on their way there."""
        return len(self._queue) + sum(len(member.held) for member in self._crew)

    # --- one turn -------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.data is None:
                self._drain_inbox()
            else:
                key.data.channel.flush()
                self._hear(key.data)
        self._free_hostages()
        try:
            if self._cycle_due():
                self._cycle()
        except StoreError as error:
            self._lose_store(error)
        self._feed()

    def _drain_inbox(self) -> None:
        os.read(self._woken, 65_536)
        while self._inbox:
            self._inbox.popleft()()

    def _patience(self) -> float:
        """Return how long to wait for the next message: until something is due by itself."""
        now = self._clock.monotonic()
        if not self._nothing_to_write():
            due = self._first_outcome_at + FLUSH_AFTER if self._holding() else now
            return max(0.0, max(due, self._unreachable_until) - now)
        if self._wants_jobs():
            return self._polling.patience(now)
        return 0.05

    def _hear(self, member: CrewMember) -> None:
        """Take in what a worker has sent."""
        try:
            messages = member.channel.receive()
        except EOFError:
            self._mute(member)  # Its process is ending; the supervisor will say how.
            return
        for message in messages:
            if isinstance(message, tuple):
                member.ready = True
            else:
                self._take_in(member, message)

    def _mute(self, member: CrewMember) -> None:
        member.retiring = True
        if member.channel.fileno() in self._selector.get_map():
            self._selector.unregister(member.channel)

    def _take_in(self, member: CrewMember, outcomes: list[tuple[Any, ...]]) -> None:
        if self._nothing_to_write():
            self._first_outcome_at = self._clock.monotonic()
        held, learn, completions = member.held, self._pacing.learn, self._completions
        for token, finished_at, run_us, result, wire in outcomes:
            claimed = held.pop(token, None)
            if claimed is None:
                continue
            member.ahead_us -= self._pacing.estimate(claimed.job_class)
            learn(claimed.job_class, run_us)
            wait_us = max(0, finished_at - run_us - claimed.ready_at)
            if wire is None:
                completions.append(
                    Completion(claimed.id, claimed.lease, claimed.queue, finished_at, run_us, wait_us, result)
                )
            else:
                self._take_in_ending(claimed, Outcome.from_wire(wire), finished_at, run_us, wait_us)
            self._tally.ended(claimed, wire)
        if not held:
            member.ahead_us = 0.0
            member.exclusive = False
            self._let_go(member)

    def _take_in_ending(
        self, claimed: ClaimedJob, outcome: Outcome, finished_at: int, run_us: int, wait_us: int
    ) -> None:
        key_id = self._codec.active_key_id
        self._end(ending(claimed, outcome, finished_at, run_us=run_us, wait_us=wait_us, key_id=key_id))

    def _end(self, what: Ending) -> None:
        if self._nothing_to_write():
            self._first_outcome_at = self._clock.monotonic()
        self._endings.append(what)

    def _let_go(self, member: CrewMember) -> None:
        if member.retiring and not member.held and not member.leaving:
            member.leaving = True
            member.tickets.close()

    def _settle(self, member: CrewMember) -> None:
        """Decide about each job that a dead worker held."""
        obituary = member.obituary or settlement.Obituary(settlement.Death.WITH_TEMPLATE)
        unread = () if member.leaving else member.tickets.take_back()
        fates = settlement.sort_out(member.held, unread, self._slots.glance(member.index))
        member.held = {}
        now_us = self._clock.now_us()
        self._queue.extendleft(reversed(list(fates.unstarted.values())))
        for claimed in fates.finished:
            self._end(settlement.of_finished(claimed, now_us))
        if fates.running is not None:
            self._settle_running(fates.running, obituary, now_us)

    def _settle_running(self, claimed: ClaimedJob, obituary: settlement.Obituary, now_us: int) -> None:
        end = settlement.of_running(claimed, obituary, now_us, self._clock.jitter())
        if end.error_type is not None:
            details = {"type": end.error_type, "message": obituary.describe(), "traceback": ""}
            sealed = self._codec.seal(details, Purpose.ERROR, claimed.id, claimed.job_class)
            end = end._replace(error=sealed, key_id=self._codec.active_key_id)
            self._tally.died(claimed, end, obituary)
        self._end(end)

    # --- claim and acknowledge --------------------------------------------------------------------------------------

    def _nothing_to_write(self) -> bool:
        return not self._completions and not self._endings

    def _holding(self) -> bool:
        return any(member.held for member in self._crew)

    def _wants_jobs(self) -> bool:
        return self.claiming.is_set() and self._room() > 0

    def _room(self) -> int:
        working = [member for member in self._crew if member.ready and not member.retiring]
        free = sum(1 for member in working if not member.held)
        return self._pacing.wanted(len(working), free) - len(self._queue)

    def _cycle_due(self) -> bool:
        now = self._clock.monotonic()
        if now < self._unreachable_until:
            return False
        waiting = len(self._completions) + len(self._endings)
        if waiting and (waiting >= FLUSH_AT or now - self._first_outcome_at >= FLUSH_AFTER or not self._holding()):
            return True
        if not self._wants_jobs():
            return False
        if self._polling.plenty:
            return not self._queue and any(member.hungry for member in self._crew)
        return self._polling.due(now, self._driver)

    def _cycle(self) -> None:
        """Write what ended and claim more, in one transaction."""
        completions, endings = self._completions, self._endings
        room = self._room() if self.claiming.is_set() else 0
        limit = max(0, room)
        if limit:
            self._polling.before_claim(self._driver)
        cycle = self._driver.cycle(self.node_id, completions, endings, self._lanes, limit)
        self._find_store()
        self._completions, self._endings = [], []
        if cycle.stale:
            self._tally.fenced(cycle.stale)
        if limit:
            self._polling.after_claim(len(cycle.claimed), limit)
            self._admit(cycle.claimed)
        self._tell_rest(limit)

    def _tell_rest(self, limit: int) -> None:
        resting = not self._holding() and not self._queue and self._nothing_to_write()
        if resting and limit and not self._polling.plenty:
            self.at_rest.set()
        else:
            self.at_rest.clear()

    def _admit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Queue claimed jobs for the workers; those that have expired end here."""
        if jobs:
            self.at_rest.clear()
        now_us = self._clock.now_us()
        for claimed in jobs:
            if claimed.expires_at is not None and claimed.expires_at <= now_us:
                self._end(ending(claimed, Outcome(Verb.FAIL, reason=Reason.EXPIRED), now_us))
            elif claimed.timeout_ms is None and self._job_timeout_ms is not None:
                self._queue.append(claimed._replace(timeout_ms=self._job_timeout_ms))
            else:
                self._queue.append(claimed)

    def _lose_store(self, error: StoreError) -> None:
        self._unreachable_until = self._clock.monotonic() + _RETRY_AFTER * (1 + self._clock.jitter())
        if self._reachable:
            self._reachable = False
            _logger.error("the store does not answer; what has ended waits to be written: %s", error)

    def _find_store(self) -> None:
        if not self._reachable:
            self._reachable = True
            _logger.warning("the store answers again")

    # --- feed ---------------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Send queued jobs to the workers that have room, the least laden first."""
        queue = self._queue
        passed: list[ClaimedJob] = []
        while queue:
            claimed = queue[0]
            alone = _runs_alone(claimed)
            member = self._choose(claimed, alone)
            if member is None:
                if not alone:
                    break
                passed.append(queue.popleft())  # It waits for a worker of its own; others need not wait with it.
                continue
            if alone:
                self._send_alone(member, queue.popleft())
            else:
                self._send_chunk(member)
        queue.extendleft(reversed(passed))

    def _choose(self, claimed: ClaimedJob, alone: bool) -> CrewMember | None:
        if alone:
            idle = [member for member in self._crew if member.idle and not member.retiring]
            if claimed.crashes > 1:
                fresh = [member for member in idle if member.fresh]
                if not fresh:
                    self.fresh_wanted.set()
                idle = fresh
            return idle[0] if idle else None
        estimate = self._pacing.estimate(claimed.job_class)
        willing = [member for member in self._crew if member.hungry and member.room_for(estimate)]
        return min(willing, key=lambda member: member.ahead_us, default=None)

    def _send_alone(self, member: CrewMember, claimed: ClaimedJob) -> None:
        """Send a job whose start must be on record before it begins, to a worker that runs nothing else."""
        try:
            recorded = self._durable.record_start(self.node_id, claimed.id, claimed.lease)
        except StoreError as error:
            self._lose_store(error)
            self._end(ending(claimed, Outcome(Verb.RELEASE), self._clock.now_us()))
            return
        if not recorded:
            self._tally.fenced([claimed])
            return
        member.exclusive = True
        self.fresh_wanted.clear()
        self._send(member, [claimed])

    def _send_chunk(self, member: CrewMember) -> None:
        """Send as many queued jobs as make up a chunk."""
        chunk: list[ClaimedJob] = []
        queue = self._queue
        ahead = member.ahead_us
        most = min(16, member.jobs_left)
        while queue and len(chunk) < most:
            claimed = queue[0]
            estimate = self._pacing.estimate(claimed.job_class)
            too_long = estimate >= LONG_JOB_US or ahead + estimate > AHEAD_US
            if _runs_alone(claimed) or (too_long and (chunk or member.held)):
                break
            chunk.append(queue.popleft())
            ahead += estimate
            if too_long:
                break
        self._send(member, chunk)

    def _send(self, member: CrewMember, chunk: list[ClaimedJob]) -> None:
        first = self._token + 1
        self._token += len(chunk)
        tokens = list(range(first, self._token + 1))
        member.channel.send([(token, *claimed) for token, claimed in zip(tokens, chunk, strict=True)])
        member.tickets.issue(tokens)
        member.held.update(zip(tokens, chunk, strict=True))
        member.ahead_us += sum(self._pacing.estimate(claimed.job_class) for claimed in chunk)
        member.jobs_sent += len(chunk)
        self._tally.started(chunk, member.pid)
        self._watch(member)

    def _watch(self, member: CrewMember) -> None:
        """Wait for a worker's connection to take more, if it has not taken all of a large payload."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.channel.backed_up else 0)
        if self._selector.get_key(member.channel).events != wanted:
            self._selector.modify(member.channel, wanted, member)

    # --- hostages ---------------------------------------------------------------------------------------------------

    def _free_hostages(self) -> None:
        """Take jobs back from behind one that runs longer than expected, so that other workers can have them."""
        now = self._clock.monotonic()
        if now < self._hostages_at:
            return
        self._hostages_at = now + 0.01
        for member in self._crew:
            if len(member.held) > 1 and not member.leaving:
                glance = self._slots.glance(member.index)
                if glance.token and now * 1e9 - glance.started > TAKE_BACK_AFTER_NS:
                    self._take_back(member)

    def _take_back(self, member: CrewMember) -> None:
        if member.leaving:
            return
        back = [member.held.pop(token) for token in member.tickets.take_back() if token in member.held]
        self._queue.extendleft(reversed(back))
        member.jobs_sent -= len(back)
        member.ahead_us = sum(self._pacing.estimate(claimed.job_class) for claimed in member.held.values())


def _runs_alone(claimed: ClaimedJob) -> bool:
    return claimed.delivery == AT_MOST_ONCE or settlement.is_suspect(claimed)
