"""What holds on PostgreSQL alone; these tests do name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskqueue.drivers.postgresql import PostgreSQLDriver
from tests.databases import SERVERS, Database, require


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Return an empty database with the tables of this release."""
    server = SERVERS["postgresql"]
    require(server)
    return server.ready(tmp_path)


@pytest.fixture
def postgresql(driver: PostgreSQLDriver) -> PostgreSQLDriver:
    return driver
