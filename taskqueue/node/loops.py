"""Loops on the monotonic clock, each in a thread of its own: none waits for another, and none for a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from taskqueue.clock import Clock
from taskqueue.errors import StoreError

_logger = logging.getLogger("taskqueue.node")


class Loop:
    """Calls ``body`` again and again. ``body`` returns the seconds to its next call, or None for the usual interval.

    A store that does not answer is logged once when it goes and once when it comes back; the loop goes on. Any other
    exception ends the loop and is kept in ``failure`` for the supervisor.
    """

    def __init__(self, name: str, interval: float, body: Callable[[], float | None], clock: Clock) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._interval = interval
        self._body = body
        self._clock = clock
        self._called = threading.Event()
        self._stopped = False
        self._answered = True
        self._thread = threading.Thread(target=self._run, name=f"taskqueue-{name}", daemon=True)

    def start(self) -> None:
        """Begin, with the first call at once."""
        self._thread.start()

    def call_now(self) -> None:
        """Have the body called without waiting for its time."""
        self._called.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End the loop after the call that runs now, waiting for it at most ``timeout`` seconds."""
        self.ask_to_stop()
        self.join(timeout)

    def ask_to_stop(self) -> None:
        """Have the loop end after the call that runs now."""
        self._stopped = True
        self._called.set()

    def join(self, timeout: float) -> None:
        """Wait for the loop's end at most ``timeout`` seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped:
            pause = self._call()
            if self._clock.wait(self._called, self._interval if pause is None else pause):
                self._called.clear()

    def _call(self) -> float | None:
        try:
            pause = self._body()
        except StoreError as error:
            if self._answered:
                self._answered = False
                _logger.error("%s: the store does not answer: %s", self.name, error)  # noqa: TRY400 - no traceback
            return self._interval
        except BaseException as error:
            self.failure = error
            self._stopped = True
            _logger.exception("%s failed", self.name)
            return 0.0
        if not self._answered:
            self._answered = True
            _logger.warning("%s: the store answers again", self.name)
        return pause
