"""One file for each guarantee of docs/guarantees.md, with real nodes on real databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Database
from tests.faults.conftest import KINDS
from tests.faults.site import ServerHouse, Site, site_on
from tests.node.running import House, house_in
from tests.servers.private import PrivateServer, require


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one process run all tests of one server, so that it is started once."""
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("private_server")  # type: ignore[attr-defined]
        if kind:
            item.add_marker(pytest.mark.xdist_group(f"faults-{kind}"))


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    """Give a database and a folder with a jobs module; whatever ran there is gone afterwards."""
    with house_in(tmp_path, database) as made:
        yield made


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
def server_house(site: Site, tmp_path: Path) -> Iterator[ServerHouse]:
    """Give a folder with a jobs module, whose nodes reach their database through a proxy that may break the link."""
    made = ServerHouse(tmp_path, site)
    yield made
    made.close()
