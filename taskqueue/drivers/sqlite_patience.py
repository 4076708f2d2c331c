"""How a verb waits for the one write lock of SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from taskqueue.clock import Clock
from taskqueue.drivers.sqlite_errors import is_busy
from taskqueue.errors import DatabaseBusy

T = TypeVar("T")

BUSY_PATIENCE: Final = 30.0
"""Seconds that a verb waits for the lock that another process holds."""

_LONGEST_PAUSE: Final = 0.003


def patiently(attempt: Callable[[], T], clock: Clock, address: str, patience: float) -> T:
    """Return what ``attempt`` returns, once no other writer is in the way."""
    give_up = None
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_busy(error):
                raise
            now = clock.monotonic()
            give_up = now + patience if give_up is None else give_up
            if now >= give_up:
                raise DatabaseBusy(
                    f"{address} was locked by another process for {patience:.0f} s: look for a program that"
                    " holds it open in a transaction, such as a database browser"
                ) from error
        # Jitter is what keeps two writers from meeting again: each waits a different time, on average 1.5 ms.
        clock.wait(threading.Event(), clock.jitter() * _LONGEST_PAUSE)
