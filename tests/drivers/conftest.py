"""Every test here runs on each database of the list; no test names one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from tests.drivers.world import A_NEW_FILE, MovableClock, World

URLS = [A_NEW_FILE, *os.environ.get("TASKQUEUE_TEST_URLS", "").split()]
"""A database of its own for each test, then those of TASKQUEUE_TEST_URLS (by spaces), whose tables are made anew."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(capability): runs where the database has this capability")


@pytest.fixture(params=URLS, ids=lambda url: str(url).partition(":")[0])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database with the tables of this release."""
    address = str(request.param).format(folder=tmp_path)
    migrate.reset(address)
    return address


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def driver(url: str, clock: MovableClock, request: pytest.FixtureRequest) -> Iterator[Driver]:
    opened = open_driver(url, clock=clock)
    for mark in request.node.iter_markers("needs"):
        for capability in mark.args:
            if not getattr(opened.capabilities, capability):
                pytest.skip(f"this database has no {capability}")
    yield opened
    opened.close()


@pytest.fixture
def world(driver: Driver, clock: MovableClock) -> World:
    return World(driver, clock)


@pytest.fixture
def node(world: World) -> int:
    return world.node()
