"""Loops on the monotonic clock, each in a thread of its own: none waits for another, and none for a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from taskqueue.clock import Clock
from taskqueue.errors import StoreError
from taskqueue.node.store_watch import StoreWatch

AWAY_PAUSE: Final = 2.0
"""Seconds between two tries while the store is away, where the usual interval is shorter: others look for it too."""

_logger = logging.getLogger("taskqueue.node")


class Loop:
    """Calls ``body`` again and again. ``body`` returns the seconds to its next call, or None for the usual interval.

    A store that does not answer is told to the node's ``watch``, which says so once for all; the loop goes on. With
    ``probing`` it tries again within half a second, otherwise seldom until the store is back. Any other exception ends
    the loop and is kept in ``failure`` for the supervisor.
    """

    def __init__(
        self,
        name: str,
        interval: float,
        body: Callable[[], float | None],
        clock: Clock,
        watch: StoreWatch | None = None,
        *,
        probing: bool = False,
    ) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._interval = interval
        self._body = body
        self._clock = clock
        self._watch = watch if watch is not None else StoreWatch(clock)
        self._probing = probing
        self._called = threading.Event()
        self._stopped = False
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
        began = self._clock.monotonic()
        try:
            pause = self._body()
        except StoreError as error:
            return self._failed(error, began)
        except BaseException as error:
            self.failure = error
            self._stopped = True
            _logger.exception("%s failed", self.name)
            return 0.0
        self._watch.found(self.name)
        return pause

    def _failed(self, error: StoreError, began: float) -> float:
        self._watch.lost(self.name, error, began)
        again = self._watch.pause()
        return again if self._probing else max(self._interval, AWAY_PAUSE + again)
