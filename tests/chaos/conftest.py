"""Every test here names a database; its server, where it has one, is started once and may be broken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.ground import KINDS, Ground
from tests.databases import SERVERS
from tests.servers.mysql import FOLDER, MySQL
from tests.servers.private import PrivateServer, require


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that names no database itself on each of them."""
    if "name" in metafunc.fixturenames and not any(
        "name" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")
    ):
        metafunc.parametrize("name", list(SERVERS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one process run all tests of one server, so that it is started once."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")  # type: ignore[attr-defined]
        if name in KINDS:
            item.add_marker(pytest.mark.xdist_group(f"chaos-{name}"))


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, PrivateServer]]:
    started: dict[str, PrivateServer] = {}
    yield started
    for each in started.values():
        each.close()


@pytest.fixture
def ground(name: str, servers: dict[str, PrivateServer], tmp_path: Path) -> Iterator[Ground]:
    """Return a new database of a kind, on a server that may be killed where it is on a server."""
    if name in KINDS and name not in servers:
        kind = MySQL if FOLDER in os.environ and name == MySQL.scheme else KINDS[name]
        require(kind.missing())
        servers[name] = kind()
    made = Ground(name, tmp_path, servers.get(name))
    yield made
    made.close()
