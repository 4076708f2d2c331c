"""A worker's end of its connection: jobs come in, outcomes and requests go out, replies find who waits for them."""

from __future__ import annotations

import itertools
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from taskqueue.node.wire import Channel

REPLY, STOP = "reply", "stop"
"""What the node sends beside jobs: the reply to a request by its number, and the wish that a job end soon."""


class Post:
    """Sorts what arrives. Lists are jobs; tuples are named by their first item.

    Whoever waits reads the connection itself while nobody else does, so that a handler in the only thread of its worker
    gets its reply, and so does one in a thread beside others.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reading = threading.RLock()
        self._sending = threading.RLock()
        self._numbers = itertools.count(1)
        self._replies: dict[int, Any] = {}
        self.jobs: deque[tuple[Any, ...]] = deque()
        """Jobs that have arrived, each with its token first."""
        self.stops: set[int] = set()
        """Tokens of running jobs that are wished to end soon."""
        self.before_request: Callable[[], None] = lambda: None
        """Called before each request: outcomes that wait are sent first, so that the node learns of them in order."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._channel.fileno()

    def send(self, message: Any) -> None:
        """Send a message whole, waiting while the connection takes no more."""
        with self._sending:
            self._channel.send(message)
            while self._channel.flush():
                select.select([], [self._channel], [])

    def receive(self) -> None:
        """Take in what has arrived; raises EOFError when the node is gone."""
        with self._reading:
            for message in self._channel.receive():
                if isinstance(message, list):
                    self.jobs.extend(message)
                elif message[0] == REPLY:
                    self._replies[message[1]] = message[2]
                elif message[0] == STOP:
                    self.stops.add(message[1])

    def wait(self) -> None:
        """Wait until something arrives, and take it in."""
        select.select([self._channel], [], [])
        self.receive()

    def ask(self, kind: str, token: int, *fields: Any) -> Any:
        """Send a request about a running job and wait for its reply."""
        number = next(self._numbers)
        self.before_request()
        self.send((kind, number, token, *fields))
        while number not in self._replies:
            self.wait()
        return self._replies.pop(number)

    def tell(self, kind: str, token: int, *fields: Any) -> None:
        """Send word of a running job, to which nobody replies."""
        self.send((kind, 0, token, *fields))
