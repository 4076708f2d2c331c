"""When a node looks for delayed jobs again: in time for the next, and at leisure where there is nothing to be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskqueue.drivers import open_driver
from taskqueue.drivers.values import Promotion
from taskqueue.node.housekeeping import PROMOTE_EVERY, until_next
from taskqueue.states import State
from tests.databases import Database
from tests.drivers.world import SECOND, MovableClock, World

NOW = 1_000 * SECOND


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    clock = MovableClock()
    driver = open_driver(database.url, clock=clock)
    yield World(driver, clock)
    driver.close()


@pytest.mark.parametrize(
    ("promotion", "expected"),
    [
        (Promotion(0, None), PROMOTE_EVERY),
        (Promotion(0, NOW + 60 * SECOND), PROMOTE_EVERY),
        (Promotion(3, NOW + SECOND // 4), 0.25),
        (Promotion(1000, NOW - SECOND), 0.0),
        (Promotion(3, NOW - SECOND), 0.001),
    ],
    ids=["none", "late", "soon", "more than a batch", "one came due meanwhile"],
)
def test_the_next_look_is_when_the_next_job_is_due(promotion: Promotion, expected: float) -> None:
    assert until_next(promotion, NOW, NOW) == expected


def test_a_job_that_became_due_during_the_look_is_looked_for_at_once() -> None:
    assert until_next(Promotion(0, NOW + 5), NOW, NOW + 10) == 0.001


@pytest.mark.needs("concurrent_writers", "skip_locked")
def test_a_node_does_not_ask_over_and_over_for_a_job_that_somebody_has_locked(world: World, database: Database) -> None:
    job_id = world.delayed(1)
    world.clock.advance(2)
    began = world.clock.now_us()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("SELECT id FROM tq_jobs FOR UPDATE")
        locked = world.driver.promote()

    assert locked.promoted == 0
    assert until_next(locked, began, world.clock.now_us()) == PROMOTE_EVERY
    assert world.driver.promote().promoted == 1
    assert world.state(job_id) is State.PENDING
