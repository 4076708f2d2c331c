"""When a claim is tried: at once while there is plenty, never in vain, and now and then whatever the hints say."""

from __future__ import annotations

from typing import cast

import pytest

from taskqueue.drivers.base import Driver
from taskqueue.node.polling import (
    CLAIM_ANYWAY,
    LONGEST_CLAIM,
    LONGEST_HEARD,
    LONGEST_LOOK,
    SHORTEST_CLAIM,
    SHORTEST_LOOK,
    SLOWING,
    Polling,
)
from tests.node.making import MovableClock


class Marks:
    """The part of a driver that polling asks."""

    def __init__(self, mark: object = 1) -> None:
        self.mark = mark
        self.asked = 0

    def change_mark(self) -> object:
        self.asked += 1
        return self.mark


class Polled:
    def __init__(self, mark: object = 1, *, told: bool = False) -> None:
        self.clock = MovableClock()
        self.polling = Polling(self.clock)
        self.polling.told = told
        self.marks = Marks(mark)
        self.driver = cast("Driver", self.marks)

    def due(self) -> bool:
        return self.polling.due(self.clock.seconds, self.driver)

    def claim(self, found: int, limit: int = 10) -> None:
        self.polling.before_claim(self.driver)
        self.polling.after_claim(found, limit)

    def pause_after(self, idle: float) -> float:
        """Return the pause between two looks when nothing was found for ``idle`` seconds."""
        self.claim(1)
        self.clock.move(idle)
        self.due()
        return self.polling.patience(self.clock.seconds)


@pytest.fixture
def polled() -> Polled:
    return Polled()


def test_the_first_claim_is_due_at_once(polled: Polled) -> None:
    assert polled.due()


def test_nothing_is_claimed_while_nobody_has_written(polled: Polled) -> None:
    polled.claim(0)
    polled.clock.move(1)
    assert not polled.due()


def test_a_write_makes_a_claim_due_at_the_next_look(polled: Polled) -> None:
    polled.claim(0)
    polled.marks.mark = 2
    polled.clock.move(SHORTEST_LOOK)
    assert polled.due()


def test_what_is_written_during_a_claim_is_seen_as_a_change(polled: Polled) -> None:
    polled.polling.before_claim(polled.driver)
    polled.marks.mark = 2
    polled.polling.after_claim(0, 10)
    polled.clock.move(SHORTEST_LOOK)
    assert polled.due()


def test_a_claim_is_tried_now_and_then_even_if_nothing_seems_to_have_changed(polled: Polled) -> None:
    polled.claim(0)
    polled.clock.move(CLAIM_ANYWAY)
    assert polled.due()


def test_a_store_without_marks_is_always_asked() -> None:
    polled = Polled(mark=None)
    polled.claim(0)
    polled.clock.move(SHORTEST_CLAIM)
    assert polled.due()


def test_between_two_looks_the_store_is_left_alone(polled: Polled) -> None:
    polled.claim(0)
    asked = polled.marks.asked
    polled.clock.move(SHORTEST_LOOK / 2)
    assert not polled.due()
    assert polled.marks.asked == asked


@pytest.mark.parametrize(
    ("mark", "told", "shortest", "longest"),
    [
        pytest.param(1, False, SHORTEST_LOOK, LONGEST_LOOK, id="a look is free"),
        pytest.param(None, False, SHORTEST_CLAIM, LONGEST_CLAIM, id="every look is a claim"),
        pytest.param(None, True, SHORTEST_CLAIM, LONGEST_HEARD, id="the database tells"),
    ],
)
def test_looks_grow_rarer_the_longer_nothing_comes(mark: object, told: bool, shortest: float, longest: float) -> None:
    polled = Polled(mark, told=told)
    pauses = [polled.pause_after(idle) for idle in (0.0, shortest * SLOWING * 2, 60.0)]
    assert pauses == pytest.approx([shortest, shortest * 2, longest])


def test_a_job_found_brings_the_quick_looks_back(polled: Polled) -> None:
    polled.clock.move(60)
    polled.claim(1)
    assert polled.polling.patience(polled.clock.seconds) == pytest.approx(SHORTEST_LOOK)


def test_a_full_claim_says_that_more_waits_and_a_short_one_that_none_does(polled: Polled) -> None:
    polled.claim(10, limit=10)
    assert polled.polling.plenty
    assert polled.polling.patience(polled.clock.seconds) == 0.0
    polled.claim(9, limit=10)
    assert not polled.polling.plenty


def test_a_hint_makes_a_claim_due_now_and_looks_quick_for_a_while(polled: Polled) -> None:
    polled.claim(0)
    polled.clock.move(60)
    polled.claim(0)
    assert not polled.due()
    polled.polling.hurry()
    assert polled.due()
    polled.claim(0)
    assert polled.polling.patience(polled.clock.seconds) == pytest.approx(SHORTEST_LOOK)
