"""When to look for work: at once while there is plenty, rarely while there is none, and never by asking in vain.

Before a claim the store's change mark is noted; while the mark stays the same nobody has written and a claim would find
nothing. Reading it costs far less than a claim; most of a look is the wake-up itself.
"""

from __future__ import annotations

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver

BUSY_INTERVAL = 0.002
QUIET_INTERVAL = 0.022
"""A wake-up costs 0.16 ms on a small virtual machine; so 45 a second take 0.7 % of a core."""
ASLEEP_INTERVAL = 0.05
QUIET_AFTER = 1.0
ASLEEP_AFTER = 60.0
CLAIM_ANYWAY = 5.0
"""A claim is tried this often even if nothing seems to have changed: no hint is ever relied upon alone."""


class Polling:
    """The state between two claims."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mark: object = object()
        self._stirred = False
        self._look_at = 0.0
        self._claim_at = 0.0
        self._active_at = clock.monotonic()
        self.plenty = False
        """Whether the last claim brought all that it asked for, so that more is likely to wait."""

    def patience(self, now: float) -> float:
        """Return the seconds until the next look."""
        return 0.0 if self.plenty else max(0.0, self._look_at - now)

    def due(self, now: float, driver: Driver) -> bool:
        """Say whether a claim is worth trying now; once it is, it is until one was tried."""
        if not self._stirred and now >= self._look_at:
            self._look_at = now + self._interval(now)
            mark = driver.change_mark()
            self._stirred = mark is None or mark != self._mark or now >= self._claim_at
        return self._stirred

    def before_claim(self, driver: Driver) -> None:
        """Note the change mark: what is written from here on will be seen as a change."""
        self._stirred = False
        self._mark = driver.change_mark()

    def after_claim(self, found: int, limit: int) -> None:
        """Learn from what a claim brought."""
        now = self._clock.monotonic()
        self.plenty = found >= limit
        self._claim_at = now + CLAIM_ANYWAY
        if found:
            self._active_at = now
        self._look_at = now + self._interval(now)

    def hurry(self) -> None:
        """Look at once: somebody says that there is work."""
        self._look_at = self._claim_at = 0.0

    def _interval(self, now: float) -> float:
        quiet = now - self._active_at
        if quiet < QUIET_AFTER:
            return BUSY_INTERVAL
        return QUIET_INTERVAL if quiet < ASLEEP_AFTER else ASLEEP_INTERVAL
