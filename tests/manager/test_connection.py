"""Opening and closing, settings and keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskqueue import Job, QueueManager
from taskqueue.errors import ConfigurationError, KeyMissing, KeyRejected, SchemaError, UsageError
from taskqueue.payload import generate_key
from tests.databases import Database
from tests.manager.conftest import Connect


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/queue.db"


def test_the_first_use_makes_database_and_key_and_says_so_once(tmp_path: Path) -> None:
    with QueueManager(url(tmp_path)) as manager:
        (notice,) = manager.notices
    assert "made an encryption key" in notice
    assert (tmp_path / "queue.db.key").stat().st_mode & 0o777 == 0o600
    with QueueManager(url(tmp_path)) as manager:
        assert manager.notices == ()


def test_what_was_pushed_is_there_after_a_reconnect(connect: Connect, mail: type[Job]) -> None:
    manager = connect()
    handle = manager.push(mail({"a": 1}))
    manager.disconnect()
    assert handle.record().payload == {"a": 1}
    manager.disconnect()


def test_connecting_twice_is_connecting_once(connect: Connect) -> None:
    manager = connect()
    assert manager.connect().driver is manager.connect().driver
    manager.disconnect()
    manager.disconnect()


def test_a_wrong_key_stops_the_start(connect: Connect) -> None:
    connect().connect().disconnect()
    with pytest.raises(KeyRejected):
        connect(encryption_key=generate_key()).connect()


@pytest.mark.needs("remote")
def test_without_a_key_nothing_is_opened_on_a_server(connect: Connect) -> None:
    with pytest.raises(KeyMissing, match="worker key:generate"):
        connect(encryption_key=None).connect()


@pytest.mark.needs("remote")
def test_the_tables_of_a_server_are_made_by_its_administrator_alone(new_database: Callable[[], Database]) -> None:
    database = new_database()
    with pytest.raises(SchemaError, match="run `worker db:upgrade`"):
        QueueManager(database.url, encryption_key=generate_key()).connect()
    assert database.tables() == set()


def test_a_lost_key_file_is_not_made_anew(tmp_path: Path) -> None:
    QueueManager(url(tmp_path)).connect().disconnect()
    (tmp_path / "queue.db.key").unlink()
    with pytest.raises(KeyMissing, match="put that file back"):
        QueueManager(url(tmp_path)).connect()
    assert not (tmp_path / "queue.db.key").exists()


def test_clear_mode_is_chosen_by_name_and_said(connect: Connect) -> None:
    with connect(encryption=False, encryption_key=None) as manager:
        assert manager.notices == ("encryption is off: payloads are stored in clear",)


@pytest.mark.parametrize("wrong", ["nonsense://x", "no url", "http://example.org"])
def test_a_url_that_no_driver_knows_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a URL that starts with one of"):
        QueueManager(wrong)


def test_an_unknown_setting_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="QueueManager has no setting 'durabilty'; it takes durability"):
        QueueManager(url(tmp_path), durabilty="full")


def test_the_environment_configures_a_manager(tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch, mail: type[Job]) -> None:
    monkeypatch.setenv("DB_PATH", str(tmp_cwd / "from_env.db"))
    with QueueManager.from_env() as manager:
        manager.push(mail())
    assert (tmp_cwd / "from_env.db").exists()


def test_a_class_of_a_script_is_said_to_need_an_import_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(_job: Any) -> None: ...

    made: Any = type("InScript", (Job,), {"__module__": "__main__", "name": "tests.InScript", "handle": handle})
    with QueueManager(url(tmp_path)) as manager, caplog.at_level(logging.WARNING):
        manager.push(made())
        manager.push(made())
    assert sum("workers find it with --import" in line for line in caplog.messages) == 1


def test_no_key_and_no_payload_is_shown_of_a_manager(connect: Connect, mail: type[Job]) -> None:
    key = generate_key()
    with connect(encryption_key=key) as manager:
        handle = manager.push(mail({"secret": "kanarie"}))
        shown = f"{manager!r} {handle!r} {handle.record()!r} {manager.driver!r} {manager.driver.describe()}"
    assert key not in shown
    assert "kanarie" not in shown
