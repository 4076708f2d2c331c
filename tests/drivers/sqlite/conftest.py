"""What holds on SQLite alone; these tests do name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue.drivers import migrate
from taskqueue.drivers.sqlite import SQLiteDriver
from tests.drivers.world import MovableClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def url(path: Path) -> str:
    """Return the URL of a new file with the tables of this release."""
    address = f"sqlite:///{path}"
    migrate.upgrade(address)
    return address


@pytest.fixture
def sqlite(driver: SQLiteDriver, clock: MovableClock) -> SQLiteDriver:
    return driver
