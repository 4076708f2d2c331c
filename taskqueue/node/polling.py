"""When to try a claim: at once while there is plenty, seldom while nothing changes, in vain only where a look is dear.

Where the database can tell cheaply that nobody has written, that is asked first. Nothing here relies on the hint: a
claim is tried now and then whatever it says.
"""

from __future__ import annotations

from typing import Final

from taskqueue.clock import Clock
from taskqueue.drivers.base import Driver

SHORTEST_LOOK: Final = 0.002
"""Seconds between two looks right after something was found, where a look is free."""

SHORTEST_CLAIM: Final = 0.005
"""The same where every look is a claim of its own."""

SLOWING: Final = 8
"""The pause before the next look is this part of the time for which nothing was found."""

LONGEST_LOOK: Final = 0.05
"""The longest pause where a look costs nothing but a wake-up (0.16 ms on a small virtual machine)."""

LONGEST_CLAIM: Final = 0.09
"""The longest pause where every look is a claim of its own: a round trip, and 0.2 to 0.6 ms of both processors."""

LONGEST_HEARD: Final = 1.0
"""The longest pause while the database itself tells of new jobs."""

CLAIM_ANYWAY: Final = 5.0
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
        self.told = False
        """Whether the database tells of new jobs, so that it need not be asked often."""

    def patience(self, now: float) -> float:
        """Return the seconds until the next look."""
        return 0.0 if self.plenty else max(0.0, self._look_at - now)

    def due(self, now: float, driver: Driver) -> bool:
        """Say whether a claim is worth trying now; once it is, it is until one was tried."""
        if not self._stirred and now >= self._look_at:
            mark = driver.change_mark()
            self._look_at = now + self._interval(now, free=mark is not None)
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
        self._look_at = now + self._interval(now, free=self._mark is not None)

    def hurry(self) -> None:
        """Look at once, and often for a while: somebody says that there is work."""
        self._look_at = self._claim_at = 0.0
        self._active_at = self._clock.monotonic()

    def _interval(self, now: float, *, free: bool) -> float:
        pause = (now - self._active_at) / SLOWING
        if free:
            return min(LONGEST_LOOK, max(SHORTEST_LOOK, pause))
        return min(LONGEST_HEARD if self.told else LONGEST_CLAIM, max(SHORTEST_CLAIM, pause))
