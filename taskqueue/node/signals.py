"""Signals of a node: noted in the handler, acted upon in the supervisor's loop."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Self

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Counts requests to stop. Entering installs the handlers, leaving puts the former ones back.

    Installed before anything is imported or opened: as PID 1 a process without handlers would ignore them.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.last: int | None = None
        self.reader, self._writer = os.pipe()
        for descriptor in (self.reader, self._writer):
            os.set_blocking(descriptor, False)
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in _STOPPING:
            self._former[number] = signal.signal(number, self._noted)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the former handlers back."""
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]
        os.close(self.reader)
        os.close(self._writer)

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        self.stops += 1
        self.last = number
        if self.stops >= 3:
            os._exit(128 + number)  # Asked three times: leave at once; the rescuer does the rest.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def drain(self) -> None:
        """Take in the wake-ups that were written."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)
