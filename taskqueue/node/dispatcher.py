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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob
from taskqueue.errors import StoreError
from taskqueue.node.burial import Undertaker
from taskqueue.node.crew import CrewMember
from taskqueue.node.feeding import Feeder
from taskqueue.node.hints import Hints
from taskqueue.node.intake import Intake
from taskqueue.node.ledger import Ledger
from taskqueue.node.outcome import Outcome, ending
from taskqueue.node.overtaking import Overtaker
from taskqueue.node.polling import Polling
from taskqueue.node.reconciling import Reconciler
from taskqueue.node.requests import Requests
from taskqueue.node.slots import Slots
from taskqueue.node.store_watch import StoreWatch
from taskqueue.node.tally import Tally
from taskqueue.payload import Codec
from taskqueue.states import Reason, Verb

TURN_AFTER = 0.5
"""Seconds, and up to twice that, after which a job that may not run beside another one is tried again, on any node."""
OWN_AGAIN_AFTER = 1.0
"""Seconds after which a job is tried again, on any node, for which this one may start no worker of its own now."""
_NOTHING_DUE = 0.05

_logger = logging.getLogger("taskqueue.dispatcher")


class Dispatcher:
    """Claims, feeds, acknowledges. Everything but `post`, `wake` and the events runs in its own thread.

    ``driver`` serves the cycles; ``durable`` commits what must outlast a power loss: starts, checkpoints, pushes.
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
        self._clock = clock
        self._tally = tally
        self.queues = tuple(queues) if queues is not None else None
        self.key_ids = codec.key_ids
        self._job_timeout_ms = round(job_timeout * 1000) if job_timeout else None
        self.lanes = driver.lanes(queues)
        self._polling = Polling(clock)
        self._feeder = Feeder(slots, clock, self.call_supervisor)
        self._ledger = Ledger(clock)
        self.store = StoreWatch(clock, self._ledger.__len__)
        self.requests = Requests(driver, durable, clock, tally, self.store, self.post, self._feeder.watch)
        self._intake = Intake(self._feeder, self._ledger, codec, clock, tally, self.requests, self.call_supervisor)
        self._undertaker = Undertaker(self._feeder, self._ledger, slots, codec, clock, tally)
        self._reconciler = Reconciler(driver, clock)
        self._overtaker = Overtaker(driver, self._feeder, clock)
        self._woken, self._waker = os.pipe()
        self.attention, self._caller = os.pipe()
        """Readable when the supervisor should look around: a worker is ready, or had its last job."""
        for descriptor in (self._woken, self._waker, self.attention, self._caller):
            os.set_blocking(descriptor, False)
        self._feeder.selector.register(self._woken, selectors.EVENT_READ, None)
        self.hints = Hints(self._feeder.selector)
        self._inbox: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._asleep = False
        self._tried_at = 0.0
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
        self.requests.close()
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

    @property
    def waiting(self) -> int:
        """Return how many claimed jobs wait for a worker that has room."""
        return len(self._feeder.queue)

    @property
    def own_waiting(self) -> int:
        """Return how many claimed jobs wait for a worker of their own."""
        return len(self._feeder.own)

    def serve_one_each(self, *, one_each: bool) -> None:
        """Note whether each worker is for one job."""
        self._feeder.one_each = one_each

    def expect(self, openings: int, own_openings: int) -> None:
        """Note for how many places in workers that are not there yet jobs may be claimed."""
        if openings > self._feeder.openings:
            self.wake()
        self._feeder.openings, self._feeder.own_openings = openings, own_openings

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
            self._intake.hear_last_words(member)
            self._undertaker.settle(member)
            if not self.claiming.is_set():
                self.hand_back()
            self._feeder.leave(member)
        member.buried = True

    def wind_down(self) -> None:
        """Claim and begin nothing more, and give back what has not begun."""
        self._stopping = True
        self.hand_back()
        self.handed_back.set()
        self.tell_to_stop()

    def tell_to_stop(self) -> None:
        """Wish every running job to come to an end soon."""
        self.requests.tell_to_stop(self._feeder.crew)

    def hand_back(self) -> None:
        """Give back what has not begun: its attempt is not spent."""
        for member in self._feeder.crew:
            self._feeder.take_back(member)
        self._release(self._feeder.queue)
        self._release(self._feeder.own)
        self._feeder.queue.clear()
        self._feeder.own.clear()

    def drop_everything(self, done: threading.Event) -> None:
        """Forget what was claimed, and say so: another node declared this one dead and has the jobs."""
        self._feeder.queue.clear()
        self._feeder.own.clear()
        for member in self._feeder.crew:
            member.held.clear()
            member.exclusive = False
        self._ledger.clear()
        self.requests.progress.clear()
        done.set()

    # --- one turn --------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        patience = self._patience()
        if self.requests.has_progress:
            patience = min(patience, self.requests.wait_for_progress())
        news = self._feeder.selector.select(patience)
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
                self._intake.hear(key.data)
        self._feeder.free_hostages()
        self._release_surplus()
        self._feed()  # First, so that workers run jobs while the cycle waits for the store.
        try:
            due = self._cycle_due()
            if self.requests.has_progress and self.requests.wait_for_progress(writing=due) == 0:
                self.requests.write_progress()  # Ahead of the outcomes that came after it.
            if due:
                self._cycle()
                self._feed()
            if self._overtaker.due and self.claiming.is_set() and self._clock.monotonic() >= self.store.back_at:
                self._admit(self._overtaker.claim(self.node_id, self.queues))
                self._feed()
            if self._reconciler.due and self._clock.monotonic() >= self.store.back_at:
                self._give_back_strays()
        except StoreError as error:
            self._lose_store(error)
        resting = not self._feeder.in_hand and not self._ledger and not self._polling.plenty
        self._asleep = resting and self.store.answers and self._wants_jobs()

    def _stirs(self) -> bool:
        """Say whether there is anything to do: all that an idle node asks, 45 times a second."""
        if not self.claiming.is_set():
            return True
        try:
            self._tried_at = now = self._clock.monotonic()
            return self._polling.due(now, self._driver)
        except StoreError as error:
            self._lose_store(error)
            return True

    def _release_surplus(self) -> None:
        """Give back claimed jobs that no worker here can begin for a while, so that another node may have them."""
        self._release(self._feeder.surplus())
        if self._feeder.own:
            self._release(self._feeder.own_surplus(), OWN_AGAIN_AFTER)

    def _release(self, jobs: Iterable[ClaimedJob], after: float = 0.0) -> None:
        now_us = self._clock.now_us()
        for claimed in jobs:
            self._ledger.end(ending(claimed, Outcome(Verb.RELEASE, retry_after=after), now_us))

    def _feed(self) -> None:
        if self._stopping:
            return
        for member, jobs in self._feeder.feed(self._record_start):
            self._tally.started(jobs, member.pid)
        if self._feeder.turned_away:
            self._release(self._feeder.turned_away, TURN_AFTER * (1 + self._clock.jitter()))
            self._feeder.turned_away.clear()

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
            return max(0.0, max(due, self.store.back_at) - now)
        if self._wants_jobs():
            patience = self._polling.patience(now) if not self._polling.plenty or self._feeder.hungry else _NOTHING_DUE
            return max(patience, self.store.back_at - now)
        return _NOTHING_DUE

    # --- claim and acknowledge -------------------------------------------------------------------------------

    def _wants_jobs(self) -> bool:
        return self.claiming.is_set() and self._feeder.room() > 0

    def _cycle_due(self) -> bool:
        self._tried_at = now = self._clock.monotonic()
        if now < self.store.back_at:
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
        self.store.found("dispatcher")
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
        self.store.found("dispatcher")
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
                continue
            if claimed.timeout_ms is None and self._job_timeout_ms is not None:
                claimed = claimed._replace(timeout_ms=self._job_timeout_ms)  # noqa: PLW2901
            (self._feeder.own if claimed.force_spawn else self._feeder.queue).append(claimed)

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
        self.store.hold_off()
        self.store.lost("dispatcher", error, self._tried_at)
