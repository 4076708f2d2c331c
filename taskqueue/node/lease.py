"""A node's own lease: it lasts while the node can beat, and the node stops itself before others may take its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver

SELF_STOP = 2 / 3
"""The share of the lease after which a node that could not beat kills its workers."""
TEMPLATE_LATER = 0.25
"""Seconds after which the template does it, in case that the supervisor itself stands still."""


class NodeLease:
    """Beats for a node, and knows how long the last good beat holds.

    The lease counts from before the beat was sent, on the monotonic clock: whatever the answer took is on our account.
    """

    def __init__(
        self, driver: Driver, node_id: int, length: float, clock: Clock, held_until: Callable[[float], None]
    ) -> None:
        self._driver = driver
        self._node_id = node_id
        self._length = length
        self._clock = clock
        self._held_until = held_until
        self._extend(clock.monotonic())
        self.lost = threading.Event()
        """Set when another node has declared this one dead."""
        self.shaky = threading.Event()
        """Set while the last beat failed: no new jobs are claimed then."""
        self.state = "alive"

    def beat(self) -> None:
        """Beat once; raises `StoreError` where the store does not answer."""
        sent_at = self._clock.monotonic()
        try:
            accepted = self._driver.beat(self._node_id, state=self.state)
        except BaseException:
            self.shaky.set()
            raise
        if not accepted:
            self.lost.set()
            return
        self._extend(sent_at)
        self.shaky.clear()

    def _extend(self, good_since: float) -> None:
        self._good_since = good_since
        self._held_until(good_since + self._length * SELF_STOP + TEMPLATE_LATER)

    @property
    def must_stop(self) -> bool:
        """Say whether the workers have to be killed now. Touches no database: this is what the watchdog asks."""
        return self.lost.is_set() or self._clock.monotonic() - self._good_since >= self._length * SELF_STOP
