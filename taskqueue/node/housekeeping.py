"""What every node does beside running jobs, each in a loop of its own: beat, rescue, promote, unpark, see emptiness."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.node.dispatcher import Dispatcher
from taskqueue.node.lease import NodeLease
from taskqueue.node.loops import Loop
from taskqueue.node.rescue import Rescuer
from taskqueue.settings import Settings

PROMOTE_EVERY = 1.0
RESCUE_EVERY = 5.0
UNPARK_EVERY = 5.0
LOOK_FOR_EMPTY_EVERY = 0.05
_BATCH = 1000


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
        self._loops = [
            Loop("heartbeat", worker.heartbeat, lease.beat, clock),
            Loop("rescue", min(RESCUE_EVERY, worker.lease / 4), self._rescuer.look, clock),
            Loop("promotion", PROMOTE_EVERY, self._promote, clock),
            Loop("unparking", UNPARK_EVERY, self._unpark, clock),
        ]
        if worker.stop_when_empty:
            self._loops.append(Loop("emptiness", LOOK_FOR_EMPTY_EVERY, self._look_for_empty, clock))

    def start(self) -> None:
        """Begin every loop."""
        for loop in self._loops:
            loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End every loop, waiting at most ``timeout`` seconds for all of them together."""
        deadline = self._clock.monotonic() + timeout
        for loop in self._loops:
            loop.ask_to_stop()
        for loop in self._loops:
            loop.join(max(0.0, deadline - self._clock.monotonic()))

    @property
    def failure(self) -> BaseException | None:
        """Return the first failure that ended a loop."""
        return next((loop.failure for loop in self._loops if loop.failure is not None), None)

    def _promote(self) -> float | None:
        """Promote what is due, and return the seconds to the next due job if that is soon."""
        promotion = self._driver.promote(_BATCH)
        if promotion.promoted >= _BATCH:
            return 0.0
        if promotion.next_run_at is None:
            return None
        wait = (promotion.next_run_at - self._clock.now_us()) / 1e6
        return min(PROMOTE_EVERY, max(0.001, wait))

    def _unpark(self) -> None:
        self._driver.unpark(tuple(self._classes()), self._key_ids)

    def _look_for_empty(self) -> None:
        if self._dispatcher.at_rest.is_set() and not self._driver.unfinished(self._queues):
            self.empty.set()
            self._dispatcher.call_supervisor()
