"""A database to migrate, of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.base import Driver
from tests.databases import Database
from tests.drivers.world import MovableClock, World


@pytest.fixture
def empty(new_database: Callable[[], Database]) -> Database:
    """Return a database without tables, which a test may spoil."""
    return new_database()


@pytest.fixture
def url(empty: Database) -> str:
    return empty.url


@pytest.fixture
def migrated(empty: Database) -> Database:
    """Return that database with the tables of this release."""
    migrate.upgrade(empty.url)
    return empty


@pytest.fixture
def engine(migrated: Database) -> Engine:
    """Return a user's engine on it."""
    return migrated.engine


@pytest.fixture
def driver(empty: Database) -> Iterator[Driver]:
    opened = open_driver(empty.url, clock=MovableClock())
    yield opened
    opened.close()


@pytest.fixture
def world(driver: Driver) -> World:
    return World(driver, MovableClock())
