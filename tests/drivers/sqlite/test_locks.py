from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue.drivers import open_driver
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.sqlite_patience import BUSY_PATIENCE
from taskqueue.drivers.values import JobFilter
from taskqueue.errors import DatabaseBusy, StorageFull
from tests.drivers.world import World


@pytest.fixture
def locked(world: World, path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the lock for writing in another connection."""
    world.push()
    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    raw.execute("BEGIN IMMEDIATE")
    yield raw
    raw.close()


def test_a_lock_that_is_never_given_up_ends_in_an_error(world: World, locked: sqlite3.Connection) -> None:
    before = world.clock.monotonic()

    for write in (world.push, world.driver.flush, lambda: world.driver.push_many([world.job()])):
        with pytest.raises(DatabaseBusy, match="locked by another process for 30 s"):
            write()

    assert world.clock.monotonic() - before == pytest.approx(3 * BUSY_PATIENCE, abs=1)


def test_reading_goes_on_while_another_writes(world: World, locked: sqlite3.Connection) -> None:
    assert len(world.everything()) == 1


def test_an_idle_claim_does_not_ask_for_the_lock(world: World, locked: sqlite3.Connection) -> None:
    before = world.clock.monotonic()

    assert world.claim(1, queues=["empty"]) == []
    assert world.driver.promote().promoted == 0
    assert world.clock.monotonic() == before


def test_a_writer_waits_until_the_lock_is_free(world: World, locked: sqlite3.Connection, url: str) -> None:
    driver = open_driver(url)
    waiting = threading.Thread(target=lambda: driver.push(world.job()))
    waiting.start()
    assert world.driver.count(JobFilter()) == 1

    locked.execute("COMMIT")
    waiting.join(20)
    driver.close()

    assert world.driver.count(JobFilter()) == 2


def test_nothing_is_half_done_when_the_lock_was_not_had(world: World, path: Path) -> None:
    node = world.node()
    world.push()
    claimed = world.claim_one(node)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseBusy):
        world.complete(node, claimed)
    raw.close()

    assert list(world.complete(node, claimed).stale) == []
    assert world.counts_are_exact()


# --- full ---------------------------------------------------------------------------------------------------


def limit_pages(driver: SQLiteDriver, more: int) -> None:
    with driver._connections.use() as kept:
        (pages,) = kept.raw.execute("PRAGMA page_count").fetchone()
        kept.raw.execute(f"PRAGMA max_page_count = {pages + more}")


def push_until_full(world: World, stored: list[bytes]) -> None:
    for _ in range(10_000):
        job_id = world.push(payload=bytes(3000))
        stored += [job_id]


def test_a_full_disk_is_said_and_everything_stored_stays(sqlite: SQLiteDriver, world: World) -> None:
    limit_pages(sqlite, 20)
    stored: list[bytes] = []

    with pytest.raises(StorageFull, match="no room is left"):
        push_until_full(world, stored)

    assert stored
    assert {row.id for row in world.everything()} == set(stored)
    assert sqlite.read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"


def test_a_batch_that_does_not_fit_is_not_stored_at_all(sqlite: SQLiteDriver, world: World) -> None:
    limit_pages(sqlite, 5)

    with pytest.raises(StorageFull):
        sqlite.push_many([world.job(payload=bytes(3000)) for _ in range(100)])

    assert world.everything() == []


def test_work_goes_on_when_there_is_room_again(sqlite: SQLiteDriver, world: World, node: int) -> None:
    limit_pages(sqlite, 3)
    with pytest.raises(StorageFull):
        push_until_full(world, [])

    limit_pages(sqlite, 1000)
    world.complete(node, *world.claim(node))

    assert world.counts_are_exact()


def test_no_driver_of_this_process_drops_the_locks_of_another(world: World, path: Path) -> None:
    """POSIX locks belong to the process: closing the file anywhere in it would drop them all."""
    log = path.with_name(path.name + "-wal")
    world.push()
    for _ in range(2):
        another = open_driver(f"sqlite:///{path}")
        another.queues()
        before = log.stat().st_ino
        # Another process comes and goes. Without our locks it would take itself for the last and delete the log.
        subprocess.run([sys.executable, "-c", _COME_AND_GO, str(path)], check=True, timeout=30)
        assert log.stat().st_ino == before
        world.push()
        another.close()
    seen = subprocess.run([sys.executable, "-c", _COUNT, str(path)], check=True, timeout=30, capture_output=True)
    assert int(seen.stdout) == 3


_COME_AND_GO = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM tq_jobs'); c.close()"
_COUNT = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM tq_jobs').fetchone())"
