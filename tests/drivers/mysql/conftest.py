"""What holds on MySQL and MariaDB alone; these tests do name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

from taskqueue.drivers.mysql import MySQLDriver
from tests.databases import SERVERS, Database, require


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Return an empty database with the tables of this release."""
    server = SERVERS["mysql"]
    require(server)
    return server.ready(tmp_path)


@pytest.fixture
def mysql(driver: MySQLDriver) -> MySQLDriver:
    return driver


@pytest.fixture
def kill(database: Database) -> Iterator[Callable[[pymysql.Connection], None]]:
    """Return what ends a connection at the server, as its administrator may at any time."""
    with database.engine.connect() as connection:
        administrator = connection.execution_options(isolation_level="AUTOCOMMIT")

        def end(raw: pymysql.Connection) -> None:
            number: int = raw.thread_id()  # type: ignore[no-untyped-call]
            administrator.exec_driver_sql(f"KILL {number:d}")

        yield end
