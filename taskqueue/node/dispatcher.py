"""The dispatcher: a thread that claims and acknowledges in one transaction per cycle and keeps the workers fed.

It hands still-sealed jobs to the workers and never opens a payload. It owns the connections to the workers and what
each of them holds; the supervisor, which owns their processes, tells it of arrivals and deaths through `post`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob, Completion
from taskqueue.errors import StoreError
from taskqueue.node import settlement
from taskqueue.node.crew import CrewMember
from taskqueue.node.feeding import Feeder
from taskqueue.node.hints import Hints
from taskqueue.node.ledger import Ledger
from taskqueue.node.outcome import Outcome, ending
from taskqueue.node.polling import Polling
from taskqueue.node.reconciling import Reconciler
from taskqueue.node.slots import Slots
from taskqueue.node.store_watch import StoreWatch
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec, Purpose
from taskqueue.states import Reason, Verb

LAST_WORDS_WITHIN = 2.0
"""Seconds to wait for the end of a dead worker's connection; a subprocess that it left behind may keep it open."""
_NOTHING_DUE = 0.05
_completion: Callable[[type[Completion], tuple[Any, ...]], Completion] = tuple.__new__
"""`Completion` without its constructor in Python, which costs 0.4 microseconds for each job."""

_logger = logging.getLogger("taskqueue.dispatcher")


class Dispatcher:
    """Claims, feeds, acknowledges. Everything but `post`, `wake` and the events runs in its own thread.

    ``driver`` serves the cycles; ``durable`` commits the starts that must be on record through a power loss.
    """

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
        self.queues = tuple(queues) if queues is not None else None
        self.key_ids = codec.key_ids
        self._job_timeout_ms = round(job_timeout * 1000) if job_timeout else None
        self.lanes = driver.lanes(queues)
        self._polling = Polling(clock)
        self._feeder = Feeder(slots, clock, self.call_supervisor)
        self._ledger = Ledger(clock)
        self._reconciler = Reconciler(driver, clock)
        self._woken, self._waker = os.pipe()
        self.attention, self._caller = os.pipe()
        """Readable when the supervisor should look around: a worker is ready, or had its last job."""
        for descriptor in (self._woken, self._waker, self.attention, self._caller):
            os.set_blocking(descriptor, False)
        self._feeder.selector.register(self._woken, selectors.EVENT_READ, None)
        self.hints = Hints(self._feeder.selector)
        self._inbox: deque[Callable[[], None]] = deque()
        self._store = StoreWatch(clock)
        self._stopping = False
        self._asleep = False
        self.node_id = 0
        self.claiming = threading.Event()
        """Set while new jobs may be claimed."""
        self.ending = threading.Event()
        """Set when the thread is to write what is left and end."""
        self.at_rest = threading.Event()
        """Set while nothing is held, nothing waits to be written, and the last claim found nothing."""
        self.handed_back = threading.Event()
        """Set once everything that had not begun was given back: from then on nothing is claimed or begun."""
        self.failure: BaseException | None = None

    # --- called by others ------------------------------------------------------------------------------------

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
            while not (self.ending.is_set() and not self._ledger and not self._inbox):
                self._turn()
        except BaseException as error:
            self.failure = error
            _logger.exception("the dispatcher failed")

    def close(self) -> None:
        """Close what the thread used, after it has ended."""
        self.hints.close()
        self._feeder.selector.close()
        for descriptor in (self._woken, self._waker, self.attention, self._caller):
            os.close(descriptor)
        self._driver.close()
        self._durable.close()

    @property
    def in_hand(self) -> int:
        """Return how many claimed jobs are with workers or on their way there."""
        return self._feeder.in_hand

    @property
    def unwritten(self) -> int:
        """Return how many outcomes wait to be written."""
        return len(self._ledger)

    @property
    def fresh_wanted(self) -> bool:
        """Say whether a job waits for a worker that has run nothing yet."""
        return self._feeder.wants_fresh

    def call_supervisor(self) -> None:
        """Have the supervisor look around now."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._caller, b"!")

    # --- told by the supervisor ------------------------------------------------------------------------------

    def join(self, member: CrewMember) -> None:
        """Take on a worker that was asked for."""
        self._feeder.join(member)

    def retire(self, member: CrewMember) -> None:
        """Send a worker no more jobs, and let it go when it has reported those that it holds."""
        member.retiring = True
        self._feeder.take_back(member)
        self._feeder.let_go(member)

    def bury(self, member: CrewMember) -> None:
        """Take in what a dead worker still had to say, and see to the jobs that it held."""
        if member in self._feeder.crew:
            self._hear_last_words(member)
            self._settle(member)
            self._feeder.leave(member)
        member.buried = True

    def wind_down(self) -> None:
        """Claim and begin nothing more, and give back what has not begun."""
        self._stopping = True
        self.hand_back()
        self.handed_back.set()

    def hand_back(self) -> None:
        """Give back what has not begun: its attempt is not spent."""
        for member in self._feeder.crew:
            self._feeder.take_back(member)
        self._release(self._feeder.queue)
        self._feeder.queue.clear()

    def drop_everything(self, done: threading.Event) -> None:
        """Forget what was claimed, and say so: another node declared this one dead and has the jobs."""
        self._feeder.queue.clear()
        for member in self._feeder.crew:
            member.held.clear()
            member.exclusive = False
        self._ledger.clear()
        done.set()

    # --- one turn --------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        news = self._feeder.selector.select(self._patience())
        if not news and self._asleep and not self._stirs():
            return
        for key, _ in news:
            if key.data is None:
                self._answer_inbox()
            elif key.data is self.hints:
                if self.hints.heard():
                    self._polling.hurry()
                    self.lanes.look_back()
            elif key.data in self._feeder.crew:  # Not buried a moment ago by a message from the supervisor.
                self._hear(key.data)
        self._feeder.free_hostages()
        self._release_surplus()
        self._feed()  # First, so that workers run jobs while the cycle waits for the store.
        try:
            if self._cycle_due():
                self._cycle()
                self._feed()
            if self._reconciler.due and self._clock.monotonic() >= self._store.back_at:
                self._give_back_strays()
        except StoreError as error:
            self._lose_store(error)
        resting = not self._feeder.in_hand and not self._ledger and not self._polling.plenty
        self._asleep = resting and self._store.answers and self._wants_jobs()

    def _stirs(self) -> bool:
        """Say whether there is anything to do: all that an idle node asks, 45 times a second."""
        if not self.claiming.is_set():
            return True
        try:
            return self._polling.due(self._clock.monotonic(), self._driver)
        except StoreError as error:
            self._lose_store(error)
            return True

    def _release_surplus(self) -> None:
        """Give back claimed jobs that no worker here can begin for a while, so that another node may have them."""
        self._release(self._feeder.surplus())

    def _release(self, jobs: Iterable[ClaimedJob]) -> None:
        now_us = self._clock.now_us()
        for claimed in jobs:
            self._ledger.end(ending(claimed, Outcome(Verb.RELEASE), now_us))

    def _feed(self) -> None:
        if self._stopping:
            return
        for member, jobs in self._feeder.feed(self._record_start):
            self._tally.started(jobs, member.pid)

    def _answer_inbox(self) -> None:
        os.read(self._woken, 65_536)
        while self._inbox:
            self._inbox.popleft()()
        self._polling.hurry()

    def _patience(self) -> float:
        """Return how long to wait for the next message: until something is due by itself."""
        now = self._clock.monotonic()
        if self._asleep:
            return self._polling.patience(now)
        if self._ledger:
            due = self._ledger.due_at(working=self._feeder.in_hand > 0)
            return max(0.0, max(due, self._store.back_at) - now)
        if self._wants_jobs():
            patience = self._polling.patience(now) if not self._polling.plenty or self._feeder.hungry else _NOTHING_DUE
            return max(patience, self._store.back_at - now)
        return _NOTHING_DUE

    def _hear(self, member: CrewMember) -> None:
        """Take in what a worker has sent, and send on what its connection had not taken."""
        if member.channel.backed_up:
            member.channel.flush()
            self._feeder.watch(member)
        try:
            messages = member.channel.receive()
        except EOFError:
            self._feeder.mute(member)  # Its process is ending; the supervisor will say how.
            member.kill_asked_at = member.kill_asked_at or self._clock.monotonic()
            return
        for message in messages:
            self._understand(member, message)

    def _understand(self, member: CrewMember, message: Any) -> None:
        if isinstance(message, tuple):
            member.ready = True
            self.call_supervisor()
        else:
            self._take_in(member, message)

    def _hear_last_words(self, member: CrewMember) -> None:
        """Take in everything that a dying worker has sent, up to the end that its death puts to its connection."""
        self._feeder.mute(member)
        deadline = self._clock.monotonic() + LAST_WORDS_WITHIN
        while (left := deadline - self._clock.monotonic()) > 0:
            select.select([member.channel], [], [], left)
            try:
                messages = member.channel.receive()
            except EOFError:
                return
            for message in messages:
                self._understand(member, message)

    def _take_in(self, member: CrewMember, outcomes: list[tuple[Any, ...]]) -> None:
        self._ledger.open()
        held, completions = member.held, self._ledger.completions
        ran: dict[str, list[int]] = {}
        for token, finished_at, run_us, result, wire in outcomes:
            claimed = held.pop(token, None)
            if claimed is None:
                continue
            id_, lease, queue, _, job_class, *_ = claimed
            ran.setdefault(job_class, []).append(run_us)
            wait_us = max(0, finished_at - run_us - claimed.ready_at)
            if wire is None:
                completions.append(_completion(Completion, (id_, lease, queue, finished_at, run_us, wait_us, result)))
            else:
                self._take_in_ending(claimed, Outcome.from_wire(wire), finished_at, run_us, wait_us)
            self._tally.ended(claimed, wire)
        self._feeder.reported(member, ran)

    def _take_in_ending(
        self, claimed: ClaimedJob, outcome: Outcome, finished_at: int, run_us: int, wait_us: int
    ) -> None:
        key_id = self._codec.active_key_id
        self._ledger.end(ending(claimed, outcome, finished_at, run_us=run_us, wait_us=wait_us, key_id=key_id))

    # --- a worker has died -----------------------------------------------------------------------------------

    def _settle(self, member: CrewMember) -> None:
        """Decide about each job that a dead worker held."""
        obituary = member.obituary or settlement.Obituary(settlement.Death.WITH_TEMPLATE)
        unread = () if member.leaving else member.tickets.take_back()
        fates = settlement.sort_out(member.held, unread, self._slots.glance(member.index))
        member.held = {}
        now_us = self._clock.now_us()
        self._feeder.put_back(fates.unstarted.values())
        for claimed in fates.finished:
            self._ledger.end(settlement.of_finished(claimed, now_us))
        if fates.running is not None:
            self._settle_running(fates.running, fates.token, obituary, now_us)
        if not self.claiming.is_set():
            self.hand_back()

    def _settle_running(self, claimed: ClaimedJob, token: int, obituary: settlement.Obituary, now_us: int) -> None:
        end = settlement.of_running(claimed, obituary.death_of(token), now_us, self._clock.jitter())
        if end.error_type is not None:
            details = {"type": end.error_type, "message": obituary.describe(), "traceback": ""}
            sealed = self._codec.seal(details, Purpose.ERROR, claimed.id, claimed.job_class)
            end = end._replace(error=sealed, key_id=self._codec.active_key_id)
            self._tally.died(claimed, end, obituary)
        self._ledger.end(end)

    # --- claim and acknowledge -------------------------------------------------------------------------------

    def _wants_jobs(self) -> bool:
        return self.claiming.is_set() and self._feeder.room() > 0

    def _cycle_due(self) -> bool:
        now = self._clock.monotonic()
        if now < self._store.back_at:
            return False
        if self._ledger and now >= self._ledger.due_at(working=self._feeder.in_hand > 0):
            return True
        if not self._wants_jobs():
            return False
        return self._feeder.hungry if self._polling.plenty else self._polling.due(now, self._driver)

    def _cycle(self) -> None:
        """Write what ended and claim more, in one transaction."""
        ledger = self._ledger
        limit = max(0, self._feeder.room()) if self.claiming.is_set() else 0
        self._polling.told = self.hints.listening
        if limit:
            self._polling.before_claim(self._driver)
        cycle = self._driver.cycle(self.node_id, ledger.completions, ledger.endings, self.lanes, limit)
        self._store.found()
        ledger.clear()
        if cycle.doubtful:
            self._reconciler.doubt()
        if cycle.stale:
            self._tally.fenced(cycle.stale)
        if limit:
            self._polling.after_claim(len(cycle.claimed), limit)
            self._admit(cycle.claimed)
            if self._stopping:
                self.hand_back()  # The stop came while the claim was under way.
        at_rest = limit and not self._polling.plenty and not self._feeder.in_hand and not ledger
        (self.at_rest.set if at_rest else self.at_rest.clear)()

    def _give_back_strays(self) -> None:
        """Give back what the database says that this node holds and of which the node knows nothing."""
        strays = self._reconciler.strays(self.node_id, self._feeder.known() | self._ledger.known())
        self._release(strays)
        if strays:
            _logger.warning("gave back %d job(s) claimed here without an answer", len(strays))

    def _admit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Queue claimed jobs for the workers; those that have expired end here."""
        now_us = self._clock.now_us()
        for claimed in jobs:
            if claimed.expires_at is not None and claimed.expires_at <= now_us:
                expired = Outcome(Verb.FAIL, reason=Reason.EXPIRED)
                self._ledger.end(ending(claimed, expired, now_us)._replace(spent=False))
                self._tally.ended(claimed, expired.to_wire())
            elif claimed.timeout_ms is None and self._job_timeout_ms is not None:
                self._feeder.queue.append(claimed._replace(timeout_ms=self._job_timeout_ms))
            else:
                self._feeder.queue.append(claimed)

    def _record_start(self, claimed: ClaimedJob) -> bool:
        """Put a job's start on record; False where it is not ours any more, or the store does not answer."""
        try:
            recorded = self._durable.record_start(self.node_id, claimed.id, claimed.lease)
        except StoreError as error:
            self._lose_store(error)
            self._ledger.end(ending(claimed, Outcome(Verb.RELEASE), self._clock.now_us()))
            return False
        if not recorded:
            self._tally.fenced([claimed])
        return recorded

    def _lose_store(self, error: StoreError) -> None:
        self._reconciler.doubt()
        self._store.lost(error)
