"""What a node holds according to the database, compared with what it knows of.

The two may differ after a doubt: a claim whose COMMIT was answered by nobody may have happened, or happen a little
later. Jobs that only the database knows of would wait for this node's death; so they are given back.
"""

from __future__ import annotations

from collections.abc import Collection

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob

RECONCILE_EVERY = 30.0
AFTER_DOUBT = 1.0
"""Seconds between a doubt and the comparison."""


class Reconciler:
    """Knows when to compare, and compares: in the dispatcher's thread, where no claim is under way meanwhile."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self._look_at = clock.monotonic() + RECONCILE_EVERY

    def doubt(self) -> None:
        """Compare soon: the store failed to answer."""
        self._look_at = min(self._look_at, self._clock.monotonic() + AFTER_DOUBT)

    @property
    def due(self) -> bool:
        """Say whether the time of a comparison has come."""
        return self._clock.monotonic() >= self._look_at

    def strays(self, node_id: int, known: Collection[tuple[bytes, int]]) -> list[ClaimedJob]:
        """Return the jobs that this node holds and does not know of."""
        held = self._driver.held(node_id)
        self._look_at = self._clock.monotonic() + RECONCILE_EVERY
        return [claimed for claimed in held if (claimed.id, claimed.lease) not in known]
