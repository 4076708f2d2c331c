"""Waiting for open files, whatever their numbers: ``select.select`` fails from descriptor 1024 on.

A process that pushes with many connections, or a job module that opens many files, easily has that many.
"""

from __future__ import annotations

import math
import select
from collections.abc import Iterable
from typing import Protocol


class Opened(Protocol):
    """What has a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def readable(files: Iterable[int | Opened], seconds: float | None = None) -> list[int]:
    """Wait until one of ``files`` can be read or has ended, at most so many seconds; return their descriptors.

    None waits for as long as it takes. What is returned is empty where the time was over first.
    """
    return _wait(files, select.POLLIN, seconds)


def writable(file: int | Opened, seconds: float | None = None) -> bool:
    """Wait until ``file`` takes more or its other end is gone, at most so many seconds; say whether it does."""
    return bool(_wait([file], select.POLLOUT, seconds))


def _wait(files: Iterable[int | Opened], events: int, seconds: float | None) -> list[int]:
    poll = select.poll()
    for file in files:
        poll.register(file, events)
    # Rounded up: to wake a part of a millisecond too early would make a loop of what waits for a time.
    found = poll.poll(None if seconds is None else max(0, math.ceil(seconds * 1000)))
    return [descriptor for descriptor, _ in found]
