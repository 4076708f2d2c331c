"""Threads that run plain handlers, one after the other each."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from taskqueue.node.hands import Hand, Order
from taskqueue.node.outcome import COMPLETED, Outcome

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Foreman:
    """Gives orders to one hand and takes what it has done, on a loop as a worker has it."""

    def __init__(self) -> None:
        self.done: asyncio.Queue[Order] = asyncio.Queue()
        self.hand = Hand(1, asyncio.get_running_loop(), lambda _hand, order: self.done.put_nowait(order))
        self._numbers = itertools.count(1)

    async def have_done(self, what: Callable[[], Any]) -> Order:
        def work() -> Outcome:
            what()
            return COMPLETED

        self.hand.give(Order(next(self._numbers), work, copy_context()))
        return await asyncio.wait_for(self.done.get(), 20)


def run(test: Callable[[Foreman], Any]) -> None:
    async def play() -> None:
        await test(Foreman())

    asyncio.run(play())


def test_a_hand_runs_one_order_after_the_other_in_its_own_thread() -> None:
    names: list[str] = []

    async def play(foreman: Foreman) -> None:
        for number in range(1, 4):
            order = await foreman.have_done(lambda: names.append(threading.current_thread().name))
            assert (order.token, order.outcome, order.error) == (number, COMPLETED, None)

    run(play)
    assert names == ["taskqueue-job-1"] * 3


@pytest.mark.parametrize("kind", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_whatever_breaks_out_of_an_order_is_handed_over_and_the_thread_goes_on(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind

    async def play(foreman: Foreman) -> None:
        order = await foreman.have_done(fail)
        assert order.outcome is None
        assert type(order.error) is kind
        assert (await foreman.have_done(lambda: None)).outcome is COMPLETED

    run(play)


def test_each_order_has_a_context_of_its_own() -> None:
    found: list[str] = []

    def work() -> None:
        found.append(WHO.get())
        WHO.set("the last one")

    async def play(foreman: Foreman) -> None:
        for _ in range(2):
            await foreman.have_done(work)

    run(play)
    assert found == ["nobody", "nobody"]
