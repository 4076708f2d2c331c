"""Opening and closing, settings and keys."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from taskqueue import Job, QueueManager
from taskqueue.errors import ConfigurationError, KeyMissing, KeyRejected, UsageError
from taskqueue.payload import generate_key


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/queue.db"


def test_the_first_use_makes_database_and_key_and_says_so_once(tmp_path: Path) -> None:
    with QueueManager(url(tmp_path)) as manager:
        (notice,) = manager.notices
    assert "made an encryption key" in notice
    assert (tmp_path / "queue.db.key").stat().st_mode & 0o777 == 0o600
    with QueueManager(url(tmp_path)) as manager:
        assert manager.notices == ()


def test_what_was_pushed_is_there_after_a_reconnect(tmp_path: Path, mail: type[Job]) -> None:
    manager = QueueManager(url(tmp_path))
    handle = manager.push(mail({"a": 1}))
    manager.disconnect()
    assert handle.record().payload == {"a": 1}
    manager.disconnect()


def test_connecting_twice_is_connecting_once(tmp_path: Path) -> None:
    manager = QueueManager(url(tmp_path))
    assert manager.connect().driver is manager.connect().driver
    manager.disconnect()
    manager.disconnect()


def test_a_wrong_key_stops_the_start(tmp_path: Path) -> None:
    QueueManager(url(tmp_path), encryption_key=generate_key()).connect().disconnect()
    with pytest.raises(KeyRejected):
        QueueManager(url(tmp_path), encryption_key=generate_key()).connect()


def test_a_lost_key_file_is_not_made_anew(tmp_path: Path) -> None:
    QueueManager(url(tmp_path)).connect().disconnect()
    (tmp_path / "queue.db.key").unlink()
    with pytest.raises(KeyMissing, match="put that file back"):
        QueueManager(url(tmp_path)).connect()
    assert not (tmp_path / "queue.db.key").exists()


def test_clear_mode_is_chosen_by_name_and_said(tmp_path: Path) -> None:
    with QueueManager(url(tmp_path), encryption=False) as manager:
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


def test_no_key_and_no_payload_is_shown_of_a_manager(tmp_path: Path, mail: type[Job]) -> None:
    key = generate_key()
    with QueueManager(url(tmp_path), encryption_key=key) as manager:
        handle = manager.push(mail({"secret": "kanarie"}))
        shown = f"{manager!r} {handle!r} {handle.record()!r} {manager.driver!r} {manager.driver.describe()}"
    assert key not in shown
    assert "kanarie" not in shown
