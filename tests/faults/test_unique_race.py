"""Many pushers with one unique key, on every database: one row, whoever comes first and whoever gives up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.errors import DuplicateJob
from tests.databases import Database
from tests.drivers.world import MovableClock, World

KEY = b"k" * 32


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    opened = open_driver(database.url, clock=SYSTEM_CLOCK)
    yield opened
    opened.close()


@pytest.fixture
def world(driver: Driver) -> World:
    return World(driver, MovableClock())


def test_of_fifty_pushers_with_one_key_one_creates(world: World, database: Database) -> None:
    gate = threading.Barrier(50)
    outcomes: list[str] = []

    def push() -> None:
        job = world.job(unique_key=KEY)
        gate.wait(60)
        try:
            world.driver.push(job)
            outcomes.append("created")
        except DuplicateJob:
            outcomes.append("refused")
        except BaseException as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=push) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(outcomes) == ["created"] + ["refused"] * 49
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(1,)]
    assert world.counts_are_exact()


@pytest.mark.parametrize("commits", [True, False], ids=["a holder that commits", "a holder that rolls back"])
def test_who_waits_for_the_holder_of_a_key_gets_in_if_it_gives_up(
    world: World, database: Database, commits: bool
) -> None:
    outcome: list[str] = []
    waits = threading.Event()

    def push() -> None:
        job = world.job(unique_key=KEY)
        waits.set()
        try:
            world.driver.push(job)
            outcome.append("created")
        except DuplicateJob:
            outcome.append("refused")

    with Session(database.engine) as session:
        world.driver.push_within(session, [world.job(unique_key=KEY)])
        thread = threading.Thread(target=push)
        thread.start()
        waits.wait(10)
        thread.join(0.5)
        assert outcome == [], "it waits"
        if commits:
            session.commit()
        else:
            session.rollback()
    thread.join(30)
    assert outcome == ["refused" if commits else "created"]
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(1,)]
    assert world.counts_are_exact()
