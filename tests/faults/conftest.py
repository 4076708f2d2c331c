"""Every test here runs on each server that can be started here, and may break it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import ServerHouse, Site, site_on
from tests.servers.mariadb import MariaDB
from tests.servers.mysql import FOLDER, MySQL
from tests.servers.postgresql import PostgreSQL
from tests.servers.private import PrivateServer, require

KINDS: dict[str, type[PrivateServer]] = {each.name: each for each in (PostgreSQL, MariaDB)}
if FOLDER in os.environ:
    KINDS[MySQL.name] = MySQL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one process run all tests of one server, so that it is started once."""
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("private_server")  # type: ignore[attr-defined]
        if kind:
            item.add_marker(pytest.mark.xdist_group(f"faults-{kind}"))


@pytest.fixture(scope="session", params=KINDS)
def private_server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    """Start a server, once for all tests; each test leaves it running and writable."""
    kind = KINDS[request.param]
    require(kind.missing())
    started = kind()
    yield started
    started.close()


@pytest.fixture
def site(private_server: PrivateServer) -> Iterator[Site]:
    yield from site_on(private_server)


@pytest.fixture
def house(site: Site, tmp_path: Path) -> Iterator[ServerHouse]:
    """Give a folder with a jobs module, whose nodes reach their database through the proxy."""
    made = ServerHouse(tmp_path, site)
    yield made
    made.close()
