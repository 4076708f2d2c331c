"""Signals of a node: noted in the handler, acted upon in the supervisor's loop."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Self

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_HANG_UP, _QUIET, _RESUME = (getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"))
"""None where the system has no such signal."""
_TERMINAL = "/dev/tty"


class Signals:
    """What a node was asked for. Entering installs the handlers, leaving puts the former ones back.

    SIGTERM and SIGINT ask to stop: once to drain, twice to leave now, three times to be gone. SIGUSR1 asks to go
    quiet, SIGUSR2 to claim again. SIGHUP asks to go quiet too, as daemons are told; but where the terminal of the node
    is gone with it, the node is asked to stop, since nobody could wake it any more. Whoever started the node with
    SIGHUP ignored, as ``nohup`` does, has it ignored.

    Installed before anything is imported or opened: as PID 1 a process without handlers would ignore them.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.last: int | None = None
        self.quiet = False
        self.reader, self._writer = os.pipe()
        for descriptor in (self.reader, self._writer):
            os.set_blocking(descriptor, False)
        self._former: dict[int, object] = {}
        self._had_terminal = False

    def __enter__(self) -> Self:
        """Install the handlers."""
        self._had_terminal = _has_terminal()
        for number in _STOPPING:
            self._install(number)
        for other in (_HANG_UP, _QUIET, _RESUME):
            if other is not None and not (other == _HANG_UP and signal.getsignal(other) is signal.SIG_IGN):
                self._install(other)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the former handlers back."""
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]
        os.close(self.reader)
        os.close(self._writer)

    def _install(self, number: int) -> None:
        self._former[number] = signal.signal(number, self._noted)

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOPPING or (number == _HANG_UP and self._had_terminal and not _has_terminal()):
            self.stops += 1
            self.last = number
            if self.stops >= 3:
                os._exit(128 + number)  # Asked three times: leave at once; the rescuer does the rest.
        else:
            self.quiet = number != _RESUME
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def drain(self) -> None:
        """Take in the wake-ups that were written."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)


def _has_terminal() -> bool:
    """Say whether this process has a terminal that controls it and is still there."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
