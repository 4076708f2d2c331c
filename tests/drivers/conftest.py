"""Every test here runs on each database; no test names one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from tests.databases import Database
from tests.drivers.world import MovableClock, World


@pytest.fixture
def url(database: Database) -> str:
    """Return the URL of an empty database with the tables of this release."""
    return database.url


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def driver(url: str, clock: MovableClock) -> Iterator[Driver]:
    opened = open_driver(url, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def world(driver: Driver, clock: MovableClock) -> World:
    return World(driver, clock)


@pytest.fixture
def node(world: World) -> int:
    return world.node()
