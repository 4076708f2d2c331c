"""Time, sleep and randomness come through one object, so that a test can move them.

Two clocks, never mixed: ``now`` is wall time in UTC, for what people read and for due times; ``monotonic`` only moves
forward, for every interval, lease and timeout. Setting the machine's clock changes the first and never the second.
"""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What taskqueue needs to know about time."""

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        ...

    def now_us(self) -> int:
        """Return the current time in microseconds since 1970 (UTC), the form in which times are stored."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait until ``event`` is set or ``timeout`` seconds have passed; say whether it is set."""
        ...

    def jitter(self) -> float:
        """Return a random number from 0 up to 1."""
        ...


class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    def now(self) -> datetime:
        """Return the current time, aware and in UTC."""
        return datetime.now(UTC)

    def now_us(self) -> int:
        """Return the current time in microseconds since 1970 (UTC)."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait until ``event`` is set or ``timeout`` seconds have passed; say whether it is set."""
        return event.wait(timeout)

    def jitter(self) -> float:
        """Return a random number from 0 up to 1."""
        return random.random()


SYSTEM_CLOCK = SystemClock()


def to_us(at: datetime) -> int:
    """Return ``at`` in microseconds since 1970 (UTC), exactly; ``at`` must be aware."""
    return (at - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return the aware UTC time that ``us`` microseconds since 1970 stand for."""
    return EPOCH + timedelta(microseconds=us)
