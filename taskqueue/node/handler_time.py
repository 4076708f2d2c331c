"""What time a transactional handler has, and whose turn it is where a database has one writer at a time.

There a handler keeps the node's own heartbeats waiting too, so it may hold the write lock no longer than the node's
lease can bear; and the handlers of a node take turns, so that they do not spend their time on one another's lock.
"""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from taskqueue.clock import Clock
from taskqueue.errors import DatabaseBusy
from taskqueue.node.lease import SELF_STOP, watchdog_tick

WAIT: Final = 30.0
"""Seconds that a handler waits for its turn, and then for the write lock. Its own time stands still meanwhile."""
KILLED_AFTER: Final = 1.0
"""Seconds from the end of a handler's time to that of its worker: what `timekeeping.KILL_AFTER` says."""
SPARE: Final = 1 / 30
"""The share of the lease for what the others do until the beat is through, and for the handler's own COMMIT."""

_LOOK_EVERY: Final = 0.02
_LEAVE_A_GAP: Final = 0.01
"""Seconds between two handlers' turns, in which whoever waits for the write lock looks at it three times and more."""


def longest_hold(lease: float, heartbeat: float) -> float:
    """Return the seconds for which a handler may hold the one write lock: 12.5 with a lease of 30 and a beat each 5.

    The last good beat may be a whole heartbeat old when the lock is taken, and the next one has to be through when two
    thirds of the lease are over. Above 0 with each pair of times that `check_lease` accepts.
    """
    return lease * (SELF_STOP - SPARE) - heartbeat - KILLED_AFTER - watchdog_tick(lease)


class RunTime:
    """A run's time, which stands still while it waits for the write lock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, negative once there are none."""
        return self._ends_at - self._clock.monotonic()

    def add(self, seconds: float) -> None:
        """Give back what was spent on waiting."""
        self._ends_at += seconds


class Turns:
    """The turns of a node's transactional handlers, one at a time.

    Whoever has the turn holds a lock on the node's shared memory, which the kernel takes from a process that dies.
    Without a descriptor the threads of this process alone take turns.
    """

    def __init__(self, clock: Clock, descriptor: int | None = None) -> None:
        self._clock = clock
        self._descriptor = descriptor
        self._here = threading.Lock()

    def take(self, patience: float) -> None:
        """Wait until it is this thread's turn; raises `DatabaseBusy` after ``patience`` seconds."""
        give_up = self._clock.monotonic() + patience
        if self._try():
            return
        while not self._try():
            if self._clock.monotonic() >= give_up:
                raise DatabaseBusy(
                    f"the other transactional handlers of this node held the database for {patience:g} s: let fewer"
                    " workers run them, or make them shorter"
                )
            self._clock.wait(threading.Event(), _LOOK_EVERY * (0.5 + self._clock.jitter() / 2))
        self._clock.wait(threading.Event(), _LEAVE_A_GAP)

    def give_back(self) -> None:
        """Let the next one have its turn."""
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)
        self._here.release()

    def _try(self) -> bool:
        if not self._here.acquire(blocking=False):
            return False
        try:
            if self._descriptor is not None:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except (BlockingIOError, PermissionError):
            self._here.release()
            return False
        except BaseException:
            self._here.release()
            raise
        return True


class Hold:
    """One transaction's hold on the write lock: its time stops while it waits, and is bounded while it holds."""

    def __init__(
        self, turns: Turns, clock: Clock, time: RunTime, longest: float, tell: Callable[[float | None], None]
    ) -> None:
        self._turns = turns
        self._clock = clock
        self._time = time
        self._longest = longest
        self._tell = tell
        self._has_turn = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Wait for the turn; the body waits for the lock. From its end on the handler's time runs again."""
        asked_at = self._clock.monotonic()
        rings_in = _stop_alarm()
        self._tell(None)
        try:
            self._turns.take(WAIT)
            self._has_turn = True
            yield
        finally:
            self._time.add(self._clock.monotonic() - asked_at)
            left = min(self._time.left(), self._longest)
            self._tell(left)
            if rings_in > 0:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, min(rings_in, left)))

    def end(self) -> None:
        """Give the turn back; call it when the transaction is over."""
        if self._has_turn:
            self._has_turn = False
            self._turns.give_back()


def _stop_alarm() -> float:
    """Stop the alarm of a handler in the main thread, and return in how many seconds it would have rung; 0 for none."""
    if threading.current_thread() is not threading.main_thread():
        return 0.0
    return signal.setitimer(signal.ITIMER_REAL, 0)[0]
