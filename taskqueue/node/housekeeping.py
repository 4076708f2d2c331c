"""What every node does beside running jobs, each in a loop of its own: beat, rescue, promote, unpark, purge, tend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import Promotion
from taskqueue.node.dispatcher import Dispatcher
from taskqueue.node.lease import BEATS_MISSED, NodeLease
from taskqueue.node.loops import Loop
from taskqueue.node.rescue import LOOK_FOR_DEATHS_EVERY, Rescuer
from taskqueue.node.upkeep import PURGE_EVERY, TEND_EVERY, Upkeep
from taskqueue.settings import Settings

PROMOTE_EVERY = 1.0
UNPARK_EVERY = 5.0
LISTEN_EVERY = 2.0
LISTEN_AGAIN_AFTER = 60.0
"""Seconds after which a database that says nothing, as behind a pooler, is asked to again."""
LOOK_FOR_EMPTY_EVERY = 0.05
_BATCH = 1000


def until_next(promotion: Promotion, began: int, now: int) -> float:
    """Return the seconds to the next promotion, after one that ``began`` then; ``now`` is the time after it."""
    if promotion.promoted >= _BATCH:
        return 0.0
    if promotion.next_run_at is None:
        return PROMOTE_EVERY
    if not promotion.promoted and promotion.next_run_at <= began:
        return PROMOTE_EVERY  # Somebody has locked what is due: to ask again at once took a third of a core.
    return min(PROMOTE_EVERY, max(0.001, (promotion.next_run_at - now) / 1e6))


class Housekeeping:
    """The loops of one node."""

    def __init__(
        self,
        driver: Driver,
        dispatcher: Dispatcher,
        lease: NodeLease,
        node_id: int,
        settings: Settings,
        clock: Clock,
        classes: Callable[[], Iterable[str]],
    ) -> None:
        self._driver = driver
        self._dispatcher = dispatcher
        self._clock = clock
        self._classes = classes
        self._queues = dispatcher.queues
        self._key_ids = dispatcher.key_ids
        self._rescuer = Rescuer(driver, clock, node_id, dispatcher.wake)
        self.empty = threading.Event()
        """Set when nothing is pending, processing or coming back from a crash in the queues served."""
        worker = settings.worker
        self._upkeep = Upkeep(driver, node_id, worker, clock)
        self._heartbeat = self._loop("heartbeat", worker.heartbeat, lease.beat, probing=True)
        spare = partial(lease.beat_if_late, BEATS_MISSED * worker.heartbeat)
        self._loops = [
            self._heartbeat,
            self._loop("spare heartbeat", worker.heartbeat, spare),
            self._loop("rescue", LOOK_FOR_DEATHS_EVERY, self._rescuer.tick),
            self._loop("promotion", PROMOTE_EVERY, self._promote),
            self._loop("unparking", UNPARK_EVERY, self._unpark),
            self._loop("purge", PURGE_EVERY, self._upkeep.purge),
            self._loop("tending", TEND_EVERY, self._upkeep.tend),
        ]
        if driver.capabilities.notify:
            self._loops.append(self._loop("listening", LISTEN_EVERY, self._listen))
        if worker.stop_when_empty:
            self._loops.append(self._loop("emptiness", LOOK_FOR_EMPTY_EVERY, self._look_for_empty))
        dispatcher.store.on_return(dispatcher.wake, *(loop.call_now for loop in self._loops))

    def _loop(self, name: str, interval: float, body: Callable[[], float | None], *, probing: bool = False) -> Loop:
        return Loop(name, interval, body, self._clock, self._dispatcher.store, probing=probing)

    def beat_now(self) -> None:
        """Beat at once, so that everybody sees in which state this node is."""
        self._heartbeat.call_now()

    def start(self) -> None:
        """Begin every loop."""
        for loop in self._loops:
            loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End every loop, waiting at most ``timeout`` seconds for all of them together."""
        deadline = self._clock.monotonic() + timeout
        self._upkeep.stop()
        for loop in self._loops:
            loop.ask_to_stop()
        for loop in self._loops:
            loop.join(max(0.0, deadline - self._clock.monotonic()))

    @property
    def failure(self) -> BaseException | None:
        """Return the first failure that ended a loop."""
        return next((loop.failure for loop in self._loops if loop.failure is not None), None)

    def _promote(self) -> float:
        """Promote what is due, and return the seconds to the next due job if that is soon."""
        began = self._clock.now_us()
        promotion = self._driver.promote(_BATCH)
        if promotion.promoted:
            self._come_back()
        return until_next(promotion, began, self._clock.now_us())

    def _unpark(self) -> None:
        if self._driver.unpark(tuple(self._classes()), self._key_ids):
            self._come_back()

    def _come_back(self) -> None:
        """Have this node look for jobs that have become pending here, and tell the others."""
        self._dispatcher.post(partial(self._dispatcher.lanes.look_back, at_any_price=True))
        self._driver.announce()

    def _listen(self) -> float | None:
        """Begin to listen where nobody does; a listener that proved not to work is tried again much later."""
        hints = self._dispatcher.hints
        if hints.listening:
            return None
        listener = self._driver.listen()
        if listener is None:
            return LISTEN_AGAIN_AFTER
        self._dispatcher.post(hints.attach, listener)
        return None

    def _look_for_empty(self) -> None:
        if self._dispatcher.at_rest.is_set() and not self._driver.unfinished(self._queues):
            self.empty.set()
            self._dispatcher.call_supervisor()
