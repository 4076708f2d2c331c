"""Waiting for jobs to finish: what is still missing, when to look again, and when to give up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from taskqueue.clock import Clock
from taskqueue.errors import JobNotFound, UsageError, WaitTimeout
from taskqueue.states import State

FIRST_LOOK, LAST_LOOK = 0.002, 0.05
"""Seconds between two looks: at first, and later."""


class Watch:
    """What one caller waits for. It does not sleep itself: who waits, in a thread or in a task, does.

    ::

        while watch.waiting:
            pause = watch.look(driver.states(watch.waiting))
    """

    def __init__(self, jobs: Iterable[bytes], timeout: float | None, clock: Clock) -> None:
        self.waiting = set(jobs)
        self._timeout = timeout
        self._clock = clock
        if timeout is not None and not timeout >= 0:
            raise UsageError(f"timeout must be 0 or more seconds, or None to wait without end, got {timeout}")
        self._deadline = None if timeout is None else clock.monotonic() + timeout
        self._pause = FIRST_LOOK

    def look(self, states: Mapping[bytes, State]) -> float:
        """Take in the states of what is waited for; return the seconds to the next look.

        Raises `JobNotFound` for a job that does not exist and `WaitTimeout` when the time is over.
        """
        missing = self.waiting - states.keys()
        if missing:
            raise JobNotFound(f"there is no job {UUID(bytes=missing.pop())}: it was never pushed here, or purged")
        self.waiting = {each for each in self.waiting if not states[each].final}
        if not self.waiting:
            return 0.0
        left = LAST_LOOK if self._deadline is None else self._deadline - self._clock.monotonic()
        if left <= 0:
            first = min(self.waiting)
            raise WaitTimeout(
                f"{len(self.waiting)} job(s) have not finished within {self._timeout:g} s, the first is "
                f"{UUID(bytes=first)} ({states[first]}); is a worker running for their queue?"
            )
        pause, self._pause = min(self._pause, left), min(self._pause * 1.5, LAST_LOOK)
        return pause
