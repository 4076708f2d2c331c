"""The threads of a worker with several places: each runs one plain handler at a time.

The loop in the main thread gives the orders and takes the results. Nobody interrupts a thread: a handler whose time is
over may see that by itself, and is ended with the process where it does not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue

from taskqueue.node.outcome import Outcome


class Order:
    """One job for a thread: what to run, and what came of it, or the error that it raised although it never should."""

    __slots__ = ("context", "error", "outcome", "run", "token")

    def __init__(self, token: int, run: Callable[[], Outcome], context: Context) -> None:
        self.token = token
        self.run = run
        self.context = context
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None


class Hand:
    """A thread that runs orders. ``done`` is called on the loop when one is finished."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop, done: Callable[[Hand, Order], None]) -> None:
        self._loop = loop
        self._done = done
        self._orders: SimpleQueue[Order] = SimpleQueue()
        threading.Thread(target=self._live, name=f"taskqueue-job-{number}", daemon=True).start()

    def give(self, order: Order) -> None:
        """Have an order run. On the loop, after the last one was taken."""
        self._orders.put(order)

    def _live(self) -> None:
        while True:
            self._obey(self._orders.get())

    def _obey(self, order: Order) -> None:
        try:
            order.outcome = order.context.run(order.run)
        except BaseException as error:
            order.error = error
        try:
            self._loop.call_soon_threadsafe(self._done, self, order)
        except RuntimeError:  # The loop is closed: the worker ends.
            threading.Event().wait()
