"""Whether the store answers: one watch for a whole node, so that a store that is away costs a line, not one a loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from taskqueue.clock import Clock
from taskqueue.errors import StoreError

RETRY_AFTER: Final = 0.25
"""Seconds until the next try, and up to twice that: nodes that lost the store together do not return together."""

SAY_EVERY: Final = 60.0
"""Seconds between two lines while the store stays away."""

_logger = logging.getLogger("taskqueue.node")


class StoreWatch:
    """What the threads of a node together know of the store. ``waiting`` counts the outcomes that wait to be written.

    The store is away from the first call that fails until one of those who failed has an answer. What fails later and
    began before that was under way when the store came back, and is no news; what works all the while for somebody
    else, as a beat does while the jobs are locked, says nothing of a return.
    """

    def __init__(self, clock: Clock, waiting: Callable[[], int] = lambda: 0) -> None:
        self._clock = clock
        self._waiting = waiting
        self._lock = threading.Lock()
        self._unanswered: set[str] = set()
        self._returned_at = self._lost_at = self._said_at = clock.monotonic()
        self._returning: list[Callable[[], None]] = []
        self.back_at = 0.0
        """When the dispatcher is to try again, on the monotonic clock."""

    @property
    def answers(self) -> bool:
        """Say whether nobody is without an answer."""
        return not self._unanswered

    def on_return(self, *calls: Callable[[], None]) -> None:
        """Have these called, in the thread that notices it, each time that the store is back."""
        self._returning = list(calls)

    def pause(self) -> float:
        """Return the seconds to wait before the store is tried again."""
        return RETRY_AFTER * (1 + self._clock.jitter())

    def hold_off(self) -> None:
        """Have the dispatcher wait before it tries again."""
        self.back_at = self._clock.monotonic() + self.pause()

    def lost(self, who: str, error: StoreError, began: float) -> None:
        """Note that the store failed a call of ``who`` which ``began`` then."""
        now = self._clock.monotonic()
        with self._lock:
            if began < self._returned_at:
                return
            away, since = bool(self._unanswered), self._lost_at
            self._unanswered.add(who)
            if away and now - self._said_at < SAY_EVERY:
                return
            self._said_at = now
            if not away:
                self._lost_at = now
        if away:
            waits = self._waiting()
            _logger.error("the store has not answered for %.0f s; %d outcome(s) wait: %s", now - since, waits, error)
        else:
            _logger.error("the store does not answer (%s); what has ended waits to be written: %s", who, error)

    def forget(self, who: str) -> None:
        """Note that ``who`` has nothing more to ask: it can never say that the store is back."""
        if who in self._unanswered:
            with self._lock:
                self._unanswered.discard(who)

    def found(self, who: str) -> None:
        """Note that the store answered ``who``."""
        if who not in self._unanswered:
            return
        now = self._clock.monotonic()
        with self._lock:
            if who not in self._unanswered:
                return
            self._unanswered.clear()
            self._returned_at, self.back_at = now, 0.0
            away = now - self._lost_at
        _logger.warning("the store answers again, after %.1f s; %d outcome(s) wait", away, self._waiting())
        for call in self._returning:
            call()
