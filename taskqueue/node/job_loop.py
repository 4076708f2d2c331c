"""The event loop of a worker with one place: it runs one handler after the other and lives as long as its worker."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable
from typing import Any, TypeVar

from taskqueue.node.post import Post

T = TypeVar("T")

CLOSE_WITHIN = 1.0
"""Seconds that tasks which jobs have left behind get to end when their worker leaves."""

_logger = logging.getLogger("taskqueue.worker")


class JobLoop:
    """Made at the first coroutine, so that workers without any do without it. In the main thread only."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaited: Awaitable[T]) -> T:
        """Run a coroutine in a task of its own to its end, and return its result.

        What jobs before it have left on the loop goes on meanwhile; an exception that breaks out of that is logged.
        """
        loop = self._loop or self._open()
        task = asyncio.ensure_future(awaited, loop=loop)
        loop.add_reader(self._post.fileno(), self._receive)  # The replies that the handler awaits.
        try:
            while True:
                try:
                    return loop.run_until_complete(task)
                except BaseException as error:
                    if task.done():
                        raise
                    log_stray(error)
        finally:
            loop.remove_reader(self._post.fileno())

    def close(self) -> None:
        """End what jobs have left on the loop, and the loop."""
        loop, self._loop = self._loop, None
        if loop is not None:
            close_loop(loop)

    def _open(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(log_callback)
        return loop

    def _receive(self) -> None:
        try:
            self._post.receive()
        except EOFError:  # The node is gone: the worker ends after this job.
            if self._loop is not None:
                self._loop.remove_reader(self._post.fileno())


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop, give it a moment to end, and close the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    try:
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CLOSE_WITHIN))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except BaseException as error:
        log_stray(error)
    if not any(not task.done() for task in left):  # Otherwise it would complain of each; the process ends anyway.
        loop.close()


def log_callback(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong on a loop outside of all handlers: by its type and place, for its text may hold a payload."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        log_stray(error)
    else:
        _logger.error("the event loop of a worker: %s", context.get("message"))


def log_stray(error: BaseException) -> None:
    """Log an exception that belongs to no job's handler; the loop goes on."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "an unknown place"
    _logger.error(
        "an exception left a task or callback that a job had started beside its handler: %s in %s",
        type(error).__name__,
        where,
    )
