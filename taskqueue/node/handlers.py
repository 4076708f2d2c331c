"""The kinds of handlers: which run as they stand, which have to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from enum import Enum
from types import CoroutineType
from typing import Any

from taskqueue.job import Job

_HOOKS = ("before", "after", "on_failure")


class Kind(Enum):
    """How the handler of a job class runs."""

    PLAIN = "plain"
    HOOKED = "hooked"
    """``handle`` is plain, and one of its hooks is ``async def``."""
    ASYNC = "async"
    TRANSACTIONAL = "transactional"
    """``handle`` takes a session, and what it does there happens together with the job's acknowledgement."""


class Kinds(dict[type[Job], Kind]):
    """The kinds of the job classes that were asked for; 25 nanoseconds from the second time on."""

    def __missing__(self, cls: type[Job]) -> Kind:
        """Look at a class for the first time."""
        kind = self[cls] = _kind_of(cls)
        return kind


def _kind_of(cls: type[Job]) -> Kind:
    if cls.transactional:
        return Kind.TRANSACTIONAL
    if inspect.iscoroutinefunction(cls.handle):
        return Kind.ASYNC
    return Kind.HOOKED if any(inspect.iscoroutinefunction(getattr(cls, hook)) for hook in _HOOKS) else Kind.PLAIN


def is_coroutine(made: Any) -> bool:
    """Say whether what a handler or a hook returned has to be awaited."""
    return type(made) is CoroutineType


def refuse_coroutine(job: Job, result: Any) -> None:
    """Refuse the coroutine that a handler returned which is no ``async def``: nobody would ever run it."""
    result.close()
    raise TypeError(f"handle() of {type(job).job_class} returned a coroutine: define it with async def")


def await_nothing(_coroutine: Any) -> Any:
    """Stand in for a loop where there is none."""
    raise RuntimeError("this executor has no event loop")


Awaiter = Callable[[Any], Any]
"""Runs a coroutine to its end and returns its result, for a thread that is no loop's."""


LATE, MOMENT = 0.1, 0.1
"""Seconds by which a timer is late after which the loop has stood still, and what a task is then given to end."""


class TaskWatch:
    """Cancels the current task when its time is over. Make it in the task itself.

    Where the loop stood still as the time ended, by the fault of some other task, what this one waits for may have come
    long ago: it has a moment to notice.
    """

    def __init__(self, timeout_ms: int | None) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch over a task was made outside of one")
        self._task = task
        self._late = False
        self._timer = None
        self._loop = asyncio.get_running_loop()
        if timeout_ms is not None:
            self._timer = self._loop.call_later(timeout_ms / 1000, self._ring)

    def _ring(self) -> None:
        if self._timer is not None and self._loop.time() - self._timer.when() > LATE:
            self._timer = self._loop.call_later(MOMENT, self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        self._late = True
        self._task.cancel()

    async def ended_late(self) -> bool:
        """End the watch; say whether the time was over. What follows in the task is not cancelled any more."""
        if self._timer is None:
            return False
        self._timer.cancel()
        if self._late:
            with contextlib.suppress(asyncio.CancelledError):  # Where the handler had ended before it was told.
                await asyncio.sleep(0)
            self._task.uncancel()
        return self._late
