"""Whether the store answers, said once each time that this changes."""

from __future__ import annotations

import logging

from taskqueue.clock import Clock
from taskqueue.errors import StoreError

RETRY_AFTER = 0.25
"""Seconds until the next try, and up to twice that: nodes that lost the store together do not return together."""

_logger = logging.getLogger("taskqueue.dispatcher")


class StoreWatch:
    """What the dispatcher knows of the store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answers = True
        self.back_at = 0.0
        """When to try again, on the monotonic clock."""

    def lost(self, error: StoreError) -> None:
        """Note that the store failed to answer."""
        self.back_at = self._clock.monotonic() + RETRY_AFTER * (1 + self._clock.jitter())
        if self.answers:
            self.answers = False
            _logger.error("the store does not answer; what has ended waits to be written: %s", error)

    def found(self) -> None:
        """Note that the store answered."""
        if not self.answers:
            self.answers = True
            _logger.warning("the store answers again")
