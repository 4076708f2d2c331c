"""How often a busy node looks for jobs that are to have a worker of their own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from taskqueue.node.overtaking import LONGEST, LOOK_EVERY, SHARE, Overtaker
from tests.drivers.world import MovableClock


class Slow:
    """Answers after so many seconds of its clock."""

    def __init__(self, clock: MovableClock, took: float, found: Iterator[list[Any]]) -> None:
        self._clock, self._took, self._found = clock, took, found

    def claim_own(self, *_about: object) -> list[Any]:
        self._clock.advance(self._took)
        return next(self._found)


def due_after(took: float, found: list[Any]) -> float:
    """Return the seconds from the beginning of a look to the next one."""
    clock = MovableClock()
    feeder: Any = SimpleNamespace(own=[], own_openings=1, room=lambda: 0)
    driver: Any = Slow(clock, took, iter([found]))
    overtaker = Overtaker(driver, feeder, clock)
    began = clock.monotonic()
    overtaker.claim(1, None)
    while not overtaker.due:
        clock.advance(0.01)
    return clock.monotonic() - began


@pytest.mark.parametrize(
    ("took", "found", "expected"),
    [(0.001, [], LOOK_EVERY), (0.03, [], 0.03 * SHARE), (5.0, [], LONGEST), (0.03, ["job"], LOOK_EVERY)],
    ids=["quick", "slow", "very slow", "slow and useful"],
)
def test_looks_that_find_nothing_take_a_hundredth_of_the_time(took: float, found: list[Any], expected: float) -> None:
    assert due_after(took, found) == pytest.approx(expected, abs=0.02)
