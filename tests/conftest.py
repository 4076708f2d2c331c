"""Ground rules for every test: nothing of the developer's own settings, nothing written into the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import SERVERS, Database, Server, close_all, require

OUR_NAMES = frozenset(
    {"DATABASE_URL", "ENVIRONMENT", "APP_ENV", "MAX_WORKERS", "LOG_LEVEL", "LOG_FORMAT", "SQLITE_RESERVE"}
)
OUR_PREFIXES = ("TASKQUEUE_", "DB_", "ENCRYPTION_", "WORKER_", "SCHEDULER_", "SERVER_")
FOR_TESTS = "TASKQUEUE_TEST_"
"""Where the servers for the tests are: the one prefix that is kept."""


def is_ours(name: str) -> bool:
    """Say whether the environment variable ``name`` would configure taskqueue."""
    return not name.startswith(FOR_TESTS) and (name in OUR_NAMES or name.startswith(OUR_PREFIXES))


def pytest_configure(config: pytest.Config) -> None:
    for name in filter(is_ours, list(os.environ)):
        del os.environ[name]
    config.addinivalue_line("markers", "needs(capability): runs where the database has these capabilities")
    config.addinivalue_line("markers", "any_database: shows nothing of the database, so the first one will do")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for a database on every kind of them."""
    if "server" not in metafunc.fixturenames:
        return
    names = list(SERVERS)
    if metafunc.definition.get_closest_marker("any_database"):
        names = names[:1]
    needed = [name for mark in metafunc.definition.iter_markers("needs") for name in mark.args]
    names = [name for name in names if all(getattr(SERVERS[name].capabilities, each) for each in needed)]
    metafunc.parametrize("server", names, indirect=True, scope="session")


def pytest_sessionfinish() -> None:
    close_all()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """Return where databases of one kind are made: a folder, or a server that runs."""
    found = SERVERS[request.param]
    require(found)
    return found


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Database:
    """Return an empty database with the tables of this release."""
    return server.ready(tmp_path)


@pytest.fixture
def new_database(server: Server, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Return what makes further databases, of the same kind and without tables, that a test may spoil."""
    made: list[Database] = []

    def make() -> Database:
        made.append(server.new(tmp_path))
        return made[-1]

    yield make
    for each in made:
        server.drop(each)


@pytest.fixture
def tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder of its own, so that no ``.env`` or database of the checkout is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
