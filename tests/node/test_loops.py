"""Loops go on, whatever happens in them but a failure of our own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.errors import DatabaseUnreachable
from taskqueue.node.loops import Loop

PATIENCE = 10.0


class Body:
    """Counts its calls and announces each."""

    def __init__(self, answer: Callable[[int], float | None] = lambda _: None) -> None:
        self.calls = 0
        self._answer = answer
        self._changed = threading.Condition()

    def __call__(self) -> float | None:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()
        return self._answer(self.calls)

    def await_calls(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.calls >= number, PATIENCE)


def loop(body: Body, interval: float = 0.005) -> Loop:
    return Loop("test", interval, body, SYSTEM_CLOCK)


def test_the_body_is_called_at_once_and_again() -> None:
    body = Body()
    running = loop(body)
    running.start()
    assert body.await_calls(3)
    running.stop()


def test_after_a_stop_the_body_is_called_no_more() -> None:
    body = Body()
    running = loop(body)
    running.start()
    assert body.await_calls(1)
    running.stop()
    assert not running._thread.is_alive()


def test_a_call_can_be_had_without_waiting_for_its_time() -> None:
    body = Body()
    running = loop(body, interval=3600)
    running.start()
    assert body.await_calls(1)
    running.call_now()
    assert body.await_calls(2)
    running.stop()


def test_the_body_may_name_the_time_of_its_next_call() -> None:
    body = Body(lambda calls: 0.001 if calls < 3 else None)
    running = loop(body, interval=3600)
    running.start()
    assert body.await_calls(3)
    running.stop()


def test_a_loop_survives_a_store_that_does_not_answer_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def answer(calls: int) -> None:
        if calls <= 3:
            raise DatabaseUnreachable("gone")

    body = Body(answer)
    running = Loop("test", 0.005, body, SYSTEM_CLOCK, probing=True)
    with caplog.at_level(logging.WARNING, "taskqueue.node"):
        running.start()
        assert body.await_calls(6)
        running.stop()
    assert running.failure is None
    assert [record.getMessage() for record in caplog.records] == [
        "the store does not answer (test); what has ended waits to be written: gone",
        next(text for text in caplog.messages if text.startswith("the store answers again, after ")),
    ]


def test_any_other_failure_ends_the_loop_and_is_kept() -> None:
    failure = ValueError("a defect")

    def answer(calls: int) -> None:
        if calls == 2:
            raise failure

    running = loop(Body(answer))
    running.start()
    running._thread.join(PATIENCE)
    assert not running._thread.is_alive()
    assert running.failure is failure


def test_one_loop_does_not_wait_for_another() -> None:
    held = threading.Event()
    slow = Body(lambda _: held.wait(PATIENCE) and None)
    quick = Body()
    loops = [loop(slow), loop(quick)]
    for each in loops:
        each.start()
    assert slow.await_calls(1)
    assert quick.await_calls(5)
    held.set()
    for each in loops:
        each.stop()


def test_a_loop_that_never_began_can_be_stopped() -> None:
    loop(Body()).stop()
