"""Jobs that are to have a worker of their own are claimed past others, while every worker is busy."""

from __future__ import annotations

from collections.abc import Sequence

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.feeding import Feeder

LOOK_EVERY = 1.0
"""Seconds between two looks, made only while no worker has room. Five lanes cost 0.3 ms on a database in a file."""

SHARE = 100
"""A look that found nothing is made again after as many times as long as it took: with thousands of lanes 1 % too."""
LONGEST = 10.0
"""Seconds between two looks at most, however long one took."""

ASK_EVERY = 0.05
"""Seconds between two questions whether that is so, which a busy dispatcher need not ask in each of its turns."""


class Overtaker:
    """Looks for such jobs now and then."""

    def __init__(self, driver: Driver, feeder: Feeder, clock: Clock) -> None:
        self._driver = driver
        self._feeder = feeder
        self._clock = clock
        self._look_at = 0.0

    @property
    def due(self) -> bool:
        """Say whether to look now; with room for any job they come with the others."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return False
        wanted = len(self._feeder.own) < self._feeder.own_openings and self._feeder.room() <= 0
        if not wanted:
            self._look_at = now + ASK_EVERY
        return wanted

    def claim(self, node_id: int, queues: Sequence[str] | None) -> list[ClaimedJob]:
        """Claim those that were found, as many as workers may be started for."""
        began = self._clock.monotonic()
        self._look_at = began + LOOK_EVERY
        found = self._driver.claim_own(node_id, queues, self._feeder.own_openings - len(self._feeder.own))
        if not found:
            took = self._clock.monotonic() - began
            self._look_at = began + min(LONGEST, max(LOOK_EVERY, took * SHARE))
        return found
