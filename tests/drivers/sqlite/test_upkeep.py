"""What a database in a file needs, and what can be wrong with it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from taskqueue.drivers import open_driver, sqlite_upkeep
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.sqlite_upkeep import CHECKPOINT_EVERY, file_system, log_of, log_size
from taskqueue.drivers.values import Finding, Level
from tests.drivers.world import World

MOUNTS = """\
23 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
40 23 0:40 / /srv rw shared:2 - nfs4 server:/srv rw
41 40 8:2 / /srv/fast\\040disk rw shared:3 - xfs /dev/sdb1 rw
"""


def found(driver: SQLiteDriver, check: str) -> Finding:
    (finding,) = [each for each in driver.findings() if each.check == check]
    return finding


def test_files_that_others_can_read_are_found_and_closed(sqlite: SQLiteDriver, path: Path) -> None:
    assert found(sqlite, "rights").level is Level.OK
    path.chmod(0o644)
    assert path.name in found(sqlite, "rights").message
    assert found(sqlite, "rights").level is Level.WARNING
    sqlite.mend()
    assert path.stat().st_mode & 0o777 == 0o600
    assert found(sqlite, "rights").level is Level.OK


def test_a_log_mode_that_was_switched_off_is_found_and_put_back(url: str, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    driver = open_driver(url)
    assert isinstance(driver, SQLiteDriver)
    assert found(driver, "durability").level is Level.ERROR
    driver.mend()
    assert found(driver, "durability").level is Level.OK
    driver.close()


@pytest.mark.parametrize(("durability", "said"), [("full", "survives a power cut"), ("normal", "may take the last")])
def test_durability_is_told_as_it_is(url: str, durability: str, said: str) -> None:
    driver = open_driver(url, durability=durability)
    assert isinstance(driver, SQLiteDriver)
    assert said in found(driver, "durability").message
    driver.close()


def test_a_log_that_a_reader_keeps_is_found_and_emptied_when_the_reader_is_gone(
    sqlite: SQLiteDriver, world: World, node: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "LARGE_LOG", 1024**2)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tq_jobs").fetchall()
    for _ in range(20):
        world.driver.push_many([world.job(payload=b"x" * 1000) for _ in range(100)])
    assert log_size(path) > 1024**2
    assert found(sqlite, "oldest transaction").level is Level.WARNING
    assert sqlite.tend(node) == []
    reader.execute("COMMIT")
    reader.close()
    world.clock.advance(CHECKPOINT_EVERY)
    assert len(sqlite.tend(node)) == 1
    assert log_size(path) == 0
    assert log_of(path).exists()
    assert found(sqlite, "oldest transaction").level is Level.OK
    assert sqlite.tend(node) == []


def test_a_disk_that_is_nearly_full_is_found(sqlite: SQLiteDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_upkeep, "_LITTLE_SPACE", 2**60)
    assert found(sqlite, "disk").level is Level.WARNING
    monkeypatch.setattr(sqlite_upkeep, "_NO_SPACE", 2**60)
    assert found(sqlite, "disk").level is Level.ERROR


def test_much_unused_space_is_told(sqlite: SQLiteDriver, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_upkeep, "_MUCH_UNUSED", 100_000)
    world.driver.push_many([world.job(payload=b"x" * 10_000) for _ in range(200)])
    assert found(sqlite, "size").level is Level.OK
    world.driver.flush()
    assert found(sqlite, "size").level is Level.WARNING


@pytest.mark.parametrize(
    ("place", "kind"), [("/home/queue.db", "ext4"), ("/srv/queue.db", "nfs4"), ("/srv/fast disk/queue.db", "xfs")]
)
def test_the_file_system_is_that_of_the_nearest_mount(place: str, kind: str) -> None:
    assert file_system(Path(place), MOUNTS) == kind


def test_a_file_on_a_network_is_an_error(sqlite: SQLiteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(sqlite, "file system").level is Level.OK
    mounts = tmp_path / "mountinfo"
    mounts.write_text("23 1 0:40 / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(sqlite_upkeep, "_MOUNTS", mounts)
    assert found(sqlite, "file system").level is Level.ERROR


def test_memory_promises_nothing() -> None:
    driver = open_driver(":memory:")
    assert isinstance(driver, SQLiteDriver)
    from taskqueue.drivers import migrate

    migrate.upgrade(driver)
    assert "ends with this process" in found(driver, "durability").message
    assert driver.tend(1) == []
    driver.close()
