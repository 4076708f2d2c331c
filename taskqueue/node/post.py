"""A worker's end of its connection: jobs come in, outcomes and requests go out, replies find who waits for them."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from taskqueue.node.readiness import readable, writable
from taskqueue.node.wire import Channel

READY = "ready"
"""What a worker says first: that it takes jobs."""
REPLY, STOP, LOST = "reply", "stop", "lost"
"""What the node sends beside jobs: the reply to a request by its number, the wish that a job end soon, and the news
that a job is held by another by now; a job is named by its id and lease."""
CHECKPOINT, PROGRESS, PUSH = "checkpoint", "progress", "push"
"""What a running job asks for, with its id and lease."""
DONE, NOT_HELD, REFUSED = "done", "lost", "refused"
"""What the body of a reply begins with: a value follows, nothing, or the name and text of an error."""

MOST_STOPS = 10_000
"""How many wishes are remembered: of jobs that have ended nobody takes them away."""

Run = tuple[bytes, int]
"""A job and the lease under which it is held."""
_AGAIN_AFTER = 0.1


class Post:
    """Sorts what arrives. Lists are jobs; tuples are named by their first item.

    Whoever waits reads the connection itself while nobody else does, so that a handler in the only thread of its worker
    gets its reply, and so does one in a thread beside others. ``undisturbed`` keeps signals from raising exceptions
    where one would tear a message apart.
    """

    def __init__(self, channel: Channel, undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._channel = channel
        self._undisturbed = undisturbed
        self._changed = threading.Condition()
        self._reader = 0
        self._others_wait = 0
        self._reading = threading.RLock()
        self._sending = threading.RLock()
        self._sender = 0
        self._meanwhile: deque[Any] = deque()
        self._numbers = itertools.count(1)
        self._expected: dict[int, Callable[[Any], None]] = {}
        self._gone = False
        self.is_read = False
        """Whether a thread reads whatever arrives, so that who asks need not."""
        self.jobs: deque[tuple[Any, ...]] = deque()
        """Jobs that have arrived, each with its token first."""
        self.stops: dict[Run, None] = {}
        """Running jobs that are wished to end soon, the oldest wish first."""
        self.lost: dict[Run, None] = {}
        """Running jobs that are held under another lease by now."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._channel.fileno()

    # --- out -------------------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        """Send a message whole, waiting while the connection takes no more."""
        if self._sender == threading.get_ident():  # A signal's handler, in the midst of a message of its own thread.
            self._meanwhile.append(message)
            return
        with self._sending:
            self._sender = threading.get_ident()
            try:
                self._write(message)
                while self._meanwhile:
                    self._write(self._meanwhile.popleft())
            finally:
                self._sender = 0
        if self._meanwhile:  # It came between the last look and the line above.
            self.send(self._meanwhile.popleft())

    def _write(self, message: Any) -> None:
        self._channel.send(message)
        while self._channel.flush():
            writable(self._channel)

    def ask(self, kind: str, *fields: Any) -> Any:
        """Send a request and wait for its reply; raise EOFError when the node is gone."""
        replies: list[Any] = []
        number = self.ask_for(replies.append, kind, *fields)
        try:
            self._wait(lambda: bool(replies))
        finally:
            self._expected.pop(number, None)  # The job's time may be over before the reply is here.
        return replies[0]

    def ask_for(self, receiver: Callable[[Any], None], kind: str, *fields: Any) -> int:
        """Send a request, and have ``receiver`` called with its reply, in whatever thread reads it."""
        number = next(self._numbers)
        self._expected[number] = receiver
        with self._undisturbed():
            self.send((kind, number, *fields))
        return number

    def tell(self, kind: str, *fields: Any) -> None:
        """Send word to which nobody replies."""
        with self._undisturbed():
            self.send((kind, 0, *fields))

    # --- in --------------------------------------------------------------------------------------------------

    def read_always(self) -> None:
        """Promise that the calling thread will call `receive` whenever something arrives: others need not read then."""
        self._reader = threading.get_ident()
        self.is_read = True

    @property
    def expects_replies(self) -> bool:
        """Say whether anybody waits for a reply."""
        return bool(self._expected)

    def receive(self) -> None:
        """Take in what has arrived; raises EOFError when the node is gone."""
        try:
            with self._reading:
                for message in self._channel.receive():
                    self._sort(message)
        except EOFError:
            self._gone = True
            raise
        finally:
            if self._others_wait:
                with self._changed:
                    self._changed.notify_all()

    def lose(self, run: Run) -> None:
        """Note that a running job turned out to be held by another."""
        _remember(self.lost, run)

    def look(self) -> None:
        """Take in what has arrived, without waiting, unless another thread is about to."""
        if self._reader in (0, threading.get_ident()) and readable([self._channel], 0):
            with self._undisturbed():
                self.receive()

    def wait(self) -> None:
        """Wait until jobs have arrived; raises EOFError when the node is gone."""
        self._wait(lambda: bool(self.jobs))

    def _wait(self, is_over: Callable[[], bool]) -> None:
        """Read, or wait for who reads, until ``is_over``, which is asked before each time."""
        me = threading.get_ident()
        while True:
            reads = False
            try:
                with self._undisturbed(), self._changed:
                    if is_over():
                        return
                    if self._gone:
                        raise EOFError
                    if self._reader == 0:
                        self._reader, reads = me, True
                    elif self._reader != me:
                        self._others_wait += 1
                        self._changed.wait(_AGAIN_AFTER)
                        self._others_wait -= 1
                        continue
                readable([self._channel], _AGAIN_AFTER)  # Somebody else may have read what is waited for.
                with self._undisturbed():
                    self.receive()
            finally:
                if reads:
                    with self._undisturbed(), self._changed:
                        self._reader = 0
                        self._changed.notify_all()

    def _sort(self, message: Any) -> None:
        if isinstance(message, list):
            self.jobs.extend(message)
        elif message[0] == REPLY:
            receiver = self._expected.pop(message[1], None)
            if receiver is not None:
                receiver(message[2])
        elif message[0] == STOP:
            _remember(self.stops, message[1:])
        elif message[0] == LOST:
            self.lose(message[1:])


def _remember(runs: dict[Run, None], run: Run) -> None:
    runs[run] = None
    while len(runs) > MOST_STOPS:
        del runs[next(iter(runs))]
