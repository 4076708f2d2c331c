"""What is said where a server cannot be reached or used: one line, an exit code, and no password."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.databases import Database, DatabaseServer, Server

from .conftest import Outcome, Use, Worker

PASSWORD = "kanarienvogel-4711"
pytestmark = pytest.mark.needs("remote")


@pytest.fixture
def at(database: Database, use: Use, monkeypatch: pytest.MonkeyPatch) -> At:
    """Return what points the commands at the server of the test, with a part of the address changed."""
    return At(database, use, monkeypatch)


class At:
    def __init__(self, database: Database, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
        self._url = make_url(database.url)
        self._monkeypatch = monkeypatch
        use(database)

    def __call__(self, **changes: object) -> None:
        url = self._url.set(**changes)  # type: ignore[arg-type]
        self._monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port on which nobody answers, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port on which connections are taken and never answered."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def refused(outcome: Outcome, code: int) -> str:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("worker: ")
    assert PASSWORD not in outcome.err
    return outcome.err


@pytest.mark.parametrize("words", ["queue:status", "queue:test", "queue:work", "db:status", "db:upgrade", "db:reset"])
def test_a_server_that_does_not_run_is_unreachable(fresh: Worker, at: At, closed_port: int, words: str) -> None:
    at(port=closed_port, password=PASSWORD)
    said = refused(fresh(words, code=None), 69)
    assert f"127.0.0.1:{closed_port}" in said
    assert "check" in said


@pytest.mark.slow
def test_a_server_that_never_answers_is_unreachable_within_seconds(fresh: Worker, at: At, silent_port: int) -> None:
    at(port=silent_port, password=PASSWORD)
    began = time.monotonic()
    refused(fresh("queue:status", code=None), 69)
    assert time.monotonic() - began < 20


def test_a_host_that_nobody_knows_is_unreachable(fresh: Worker, at: At) -> None:
    at(host="no-such-host.invalid", password=PASSWORD)
    assert "no-such-host.invalid" in refused(fresh("queue:status", code=None), 69)


def test_a_database_that_does_not_exist_is_named(fresh: Worker, at: At) -> None:
    at(database="tq_test_no_such_database")
    said = refused(fresh("queue:status", code=None), 69)
    assert "tq_test_no_such_database" in said
    assert "make" in said


def test_a_login_that_is_refused_says_so_without_the_password(fresh: Worker, at: At, server: Server) -> None:
    at(username="tq_nobody", password=PASSWORD)
    assert "tq_nobody" in refused(fresh("queue:status", code=None), 69)


def test_a_url_without_a_database_is_refused(fresh: Worker, at: At) -> None:
    at(database="")
    assert "database" in refused(fresh("queue:status", code=None), 78)


def test_a_missing_key_is_refused_with_the_command_that_makes_one(
    fresh: Worker, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENCRYPTION_KEY")
    assert "worker key:generate" in refused(fresh("queue:status", code=None), 78)


def test_a_key_file_serves_as_well(fresh: Worker, at: At, monkeypatch: pytest.MonkeyPatch, tmp_cwd: Path) -> None:
    key = tmp_cwd / "queue.key"
    key.write_text(fresh("key:generate").out)
    key.chmod(0o600)
    monkeypatch.delenv("ENCRYPTION_KEY")
    monkeypatch.setenv("ENCRYPTION_KEY_FILE", str(key))
    assert fresh("queue:test", "--jobs=1").err == ""


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    fresh: Worker, at: At, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("taskqueue.drivers.") and server.name in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, server.library, None)  # What Python remembers of a module that is not there.
    said = refused(fresh("queue:status", code=None), 78)
    assert f"needs the package {server.library}" in said
    assert "pip install 'taskqueue[" in said


@pytest.mark.parametrize("connection", ["name", "other name"])
def test_the_parts_of_an_address_serve_as_well_as_a_url(
    fresh: Worker, database: Database, use: Use, monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    use(database)
    monkeypatch.delenv("DATABASE_URL")
    url = make_url(database.url)
    parts = {
        "DB_CONNECTION": database.server.name if connection == "name" else database.server.nickname,
        "DB_HOST": url.host,
        "DB_PORT": url.port,
        "DB_DATABASE": url.database,
        "DB_USERNAME": url.username,
        "DB_PASSWORD": url.password,
    }
    for name, value in parts.items():
        if value is not None:
            monkeypatch.setenv(name, str(value))
    fresh("queue:test", "--jobs=2")
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(2,)]


def test_what_other_programs_put_into_a_url_is_ignored(
    fresh: Worker, at: At, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{database.url}?serverVersion=15&charset=utf8")
    fresh("queue:test", "--jobs=2")
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(2,)]


@pytest.mark.parametrize("password", ["p@ss:w/r%d?#", "%41", "ü ß"])
def test_a_password_may_hold_any_sign(
    fresh: Worker, server: DatabaseServer, database: Database, use: Use, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    use(database)
    monkeypatch.delenv("DATABASE_URL")
    url = make_url(database.url)
    with server.user(database, password) as name:
        for part, value in {
            "DB_CONNECTION": server.name,
            "DB_HOST": url.host,
            "DB_PORT": url.port,
            "DB_DATABASE": url.database,
            "DB_USERNAME": name,
            "DB_PASSWORD": password,
        }.items():
            monkeypatch.setenv(part, str(value))
        fresh("queue:test", "--jobs=2")
    assert database.rows("SELECT COUNT(*) FROM tq_jobs") == [(2,)]
