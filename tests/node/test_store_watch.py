"""A store that is away costs a node one line, one more a minute, and one when it is back."""

from __future__ import annotations

import logging

import pytest

from taskqueue.errors import DatabaseUnreachable
from taskqueue.node.loops import AWAY_PAUSE, Loop
from taskqueue.node.store_watch import RETRY_AFTER, SAY_EVERY, StoreWatch
from tests.node.making import MovableClock

GONE = DatabaseUnreachable("gone")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def watch(clock: MovableClock, caplog: pytest.LogCaptureFixture) -> StoreWatch:
    caplog.set_level(logging.WARNING, "taskqueue.node")
    return StoreWatch(clock, lambda: 7)


def test_ten_loops_that_lose_the_store_say_so_once_and_once_that_it_is_back(
    watch: StoreWatch, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(30):
        clock.move(1)
        watch.lost(f"loop {second % 10}", GONE, clock.monotonic())
    clock.move(1)
    for number in range(10):
        watch.found(f"loop {number}")
    assert caplog.messages == [
        "the store does not answer (loop 0); what has ended waits to be written: gone",
        "the store answers again, after 30.0 s; 7 outcome(s) wait",
    ]


def test_while_it_lasts_there_is_one_line_a_minute_with_what_waits(
    watch: StoreWatch, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(200):
        watch.lost("one", GONE, clock.monotonic())
        clock.move(1)
    assert caplog.messages[1:] == [
        f"the store has not answered for {seconds:.0f} s; 7 outcome(s) wait: gone"
        for seconds in (SAY_EVERY, 2 * SAY_EVERY, 3 * SAY_EVERY)
    ]


def test_a_call_that_was_under_way_when_the_store_came_back_is_no_news(
    watch: StoreWatch, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    began = clock.monotonic()
    clock.move(1)
    watch.lost("quick", GONE, clock.monotonic())
    clock.move(1)
    watch.found("quick")
    clock.move(20)
    watch.lost("slow", GONE, began)
    assert len(caplog.messages) == 2
    assert watch.answers


def test_what_works_all_the_while_says_nothing_of_a_return(
    watch: StoreWatch, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs are locked, and beats are not."""
    for _ in range(50):
        clock.move(1)
        watch.lost("dispatcher", GONE, clock.monotonic())
        watch.found("heartbeat")
    assert len(caplog.messages) == 1
    assert not watch.answers


def test_everybody_is_called_when_the_store_is_back_and_only_then(watch: StoreWatch, clock: MovableClock) -> None:
    calls: list[str] = []
    watch.on_return(lambda: calls.append("one"), lambda: calls.append("two"))
    watch.found("one")
    watch.lost("one", GONE, clock.monotonic())
    assert calls == []
    watch.found("one")
    watch.found("one")
    assert calls == ["one", "two"]


def test_the_dispatcher_holds_off_until_its_time_or_the_return(watch: StoreWatch, clock: MovableClock) -> None:
    watch.lost("one", GONE, clock.monotonic())
    watch.hold_off()
    assert watch.back_at == clock.monotonic() + RETRY_AFTER
    watch.found("one")
    assert watch.back_at == 0.0


def test_nodes_that_lost_the_store_together_do_not_try_again_together(watch: StoreWatch, clock: MovableClock) -> None:
    clock.randomness = 0.99
    assert RETRY_AFTER * 1.9 < watch.pause() < RETRY_AFTER * 2


def test_while_the_store_is_away_a_busy_loop_is_a_slow_one_unless_it_is_the_one_that_looks(
    watch: StoreWatch, clock: MovableClock
) -> None:
    def body() -> None:
        raise GONE

    busy = Loop("emptiness", 0.05, body, clock, watch)
    looking = Loop("heartbeat", 5.0, body, clock, watch, probing=True)
    assert busy._call() == AWAY_PAUSE + RETRY_AFTER
    assert looking._call() == RETRY_AFTER
