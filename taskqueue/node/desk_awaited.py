"""A worker's desks for handlers that are coroutines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from typing import Any

from taskqueue.drivers.values import ClaimedJob
from taskqueue.node.desk import WorkerDesk, WorkerReception
from taskqueue.node.post import Post


class AwaitedReception(WorkerReception):
    """Opens desks for handlers that are coroutines: what has to be stored is awaited, and the loop goes on.

    Where nobody reads the connection all the time, the loop does while a reply is awaited.
    """

    @classmethod
    def beside(cls, other: WorkerReception) -> AwaitedReception:
        """Return the reception for the coroutines of a worker that has ``other`` for its threads."""
        return cls(other.post, other.codec, other.salt, other.clock, other.context)

    def open(self, claimed: ClaimedJob) -> WorkerDesk:
        """Return a desk whose `checkpoint` and `push` are awaited."""
        return AwaitedDesk(self, claimed)


class Answer(asyncio.Future[Any]):
    """A reply to come. It knows whether anybody has asked for it: an error that nobody saw must not be lost."""

    taken = False

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the reply."""
        self.taken = True
        return super().__await__()

    def result(self) -> Any:
        """Return what was replied, or raise the error."""
        self.taken = True
        return super().result()

    def exception(self) -> BaseException | None:
        """Return the error that was replied, or None."""
        self.taken = True
        return super().exception()


class AwaitedDesk(WorkerDesk):
    """Answers for one run of a coroutine. What it asks for is sent at once; the reply is awaited.

    Where the handler does not await it, it is awaited before the outcome is sent: what is asked for is not lost.
    """

    def __init__(self, reception: WorkerReception, claimed: ClaimedJob) -> None:
        super().__init__(reception, claimed)
        self._open: list[Answer] = []

    async def settled(self) -> None:
        """Wait for every reply that is still to come; raise the first error that nobody has asked for."""
        answers, self._open = self._open, []
        waiting = [answer for answer in answers if not answer.done()]
        if waiting:
            await asyncio.wait(waiting)
        errors = [None if answer.taken or answer.cancelled() else answer.exception() for answer in answers]
        for error in errors:
            if error is not None:
                raise error

    def _request(self, take: Callable[[Any], Any], kind: str, *fields: Any) -> Any:
        loop = asyncio.get_running_loop()
        future = Answer(loop=loop)
        self._open = [each for each in self._open if not (each.done() and each.taken)]
        self._open.append(future)

        def settle(reply: tuple[Any, ...]) -> None:
            if not future.done():
                try:
                    future.set_result(self.settle(take, reply))
                except Exception as error:
                    future.set_exception(error)

        def arrived(reply: tuple[Any, ...]) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended; nobody waits any more.
                loop.call_soon_threadsafe(settle, reply)

        post = self._office.post
        post.ask_for(arrived, kind, *self._run, *fields)
        if not post.is_read:
            loop.add_reader(post.fileno(), _read, loop, post)
        return future


def _read(loop: asyncio.AbstractEventLoop, post: Post) -> None:
    """Take in what has arrived, and stop reading when nobody waits for a reply any more."""
    with contextlib.suppress(EOFError):  # The node is gone, and its workers with it.
        post.receive()
        if post.expects_replies:
            return
    loop.remove_reader(post.fileno())
