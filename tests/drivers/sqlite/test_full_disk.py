"""A disk that is really full: nothing that was acknowledged is lost, and what has to be written still can be."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from taskqueue.drivers import open_driver
from taskqueue.drivers.base import Driver
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.sqlite_room import LEAST_FREE, reserve_of, space_at
from taskqueue.drivers.values import Finding, Level
from taskqueue.errors import StorageFull, StoreError
from taskqueue.states import State
from tests.drivers.world import MovableClock, World
from tests.servers.small_disk import MEBIBYTE, SmallDisk, mounted

SIZE = 24 * MEBIBYTE
RESERVE = 8 * MEBIBYTE
LARGE = bytes(100_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", SIZE) as disk:
        yield disk


@pytest.fixture
def path(disk: SmallDisk) -> Path:
    """Return where the database lies: on the small disk."""
    return disk.folder / "queue.db"


@pytest.fixture
def node_driver(url: str, clock: MovableClock) -> Iterator[Driver]:
    """Return a second driver on the database, as a node has it: with a reserve."""
    opened = open_driver(url, clock=clock)
    opened.keep_reserve(RESERVE)
    yield opened
    opened.close()


def is_whole(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def found(driver: SQLiteDriver, check: str) -> Finding:
    (finding,) = [each for each in driver.findings() if each.check == check]
    return finding


def push_until_refused(world: World, clock: MovableClock) -> tuple[list[bytes], StorageFull]:
    stored: list[bytes] = []
    while True:
        clock.advance(1)
        try:
            stored.append(world.push(payload=LARGE))
        except StorageFull as refused:
            return stored, refused


# --- pushes -----------------------------------------------------------------------------------------------------------


def test_pushes_are_refused_before_the_disk_is_full_and_everything_acknowledged_is_there(
    sqlite: SQLiteDriver, world: World, clock: MovableClock, disk: SmallDisk, path: Path
) -> None:
    stored, refused = push_until_refused(world, clock)
    assert stored
    assert disk.free > LEAST_FREE / 2
    assert str(path) in str(refused)
    assert "nothing was stored" in str(refused)
    assert "make room on that disk" in str(refused)
    assert refused.exit_code == 75
    sqlite.close()
    assert {row.id for row in world.everything()} == set(stored)
    assert is_whole(path)


def test_a_push_is_taken_again_once_there_is_room(
    sqlite: SQLiteDriver, world: World, clock: MovableClock, disk: SmallDisk
) -> None:
    disk.fill(leaving=LEAST_FREE // 2)
    with pytest.raises(StorageFull):
        world.push()
    disk.clear()
    clock.advance(1)
    assert world.state(world.push()) is State.PENDING
    assert sqlite.shortage() is None


def test_every_way_to_push_is_refused(
    driver: Driver, world: World, clock: MovableClock, disk: SmallDisk, url: str
) -> None:
    world.push()
    engine = create_engine(url)
    disk.fill(leaving=LEAST_FREE // 2)
    clock.advance(1)
    jobs = [world.job(unique_key=bytes([number]) * 16) for number in range(3)]
    for push in (
        lambda: driver.push(jobs[0]),
        lambda: driver.push_many(jobs),
        lambda: driver.push_each(jobs),
        lambda: driver.push_unique(jobs[0]),
        lambda: driver.push_held((jobs[0].id, 1), jobs),
    ):
        with pytest.raises(StorageFull, match="nothing was stored"):
            push()
    with Session(engine) as session:
        with pytest.raises(StorageFull, match="nothing was stored"):
            driver.push_within(session, jobs)
        session.rollback()
    engine.dispose()
    assert len(world.everything()) == 1


def test_a_push_that_is_too_large_for_what_is_left_is_refused_as_a_whole_and_a_small_one_taken(
    driver: Driver, world: World, disk: SmallDisk
) -> None:
    disk.fill(leaving=LEAST_FREE + 2 * MEBIBYTE)
    with pytest.raises(StorageFull, match="this push needs"):
        driver.push_many([world.job(payload=LARGE) for _ in range(100)])
    assert world.everything() == []
    world.push()
    assert len(world.everything()) == 1


@pytest.mark.parametrize("left", [8192, 65_536, 300_000, 1_000_000])
def test_a_bulk_push_that_hits_the_end_of_the_disk_is_stored_as_a_whole_or_not_at_all(
    driver: Driver, world: World, disk: SmallDisk, path: Path, left: int
) -> None:
    before = world.push()
    disk.fill(leaving=left)  # Behind the driver's back: its next look at the disk is a second away.
    with pytest.raises(StorageFull):
        driver.push_many([world.job(payload=bytes(5000)) for _ in range(1500)])
    assert [row.id for row in world.everything()] == [before]
    disk.clear()
    driver.push_many([world.job(payload=bytes(500)) for _ in range(1500)])
    driver.close()
    assert len(world.everything()) == 1501
    assert is_whole(path)


# --- the reserve ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("node_driver")
def test_a_reserve_has_its_blocks_and_is_for_its_owner_alone(path: Path) -> None:
    reserve = reserve_of(path).stat()
    assert (reserve.st_size, reserve.st_mode & 0o777) == (RESERVE, 0o600)
    assert reserve.st_blocks * 512 == RESERVE
    assert space_at(path).missing == 0


def test_pushers_make_no_reserve(sqlite: SQLiteDriver, world: World, path: Path) -> None:
    world.push()
    assert not reserve_of(path).exists()
    assert sqlite.shortage() is None


def test_no_reserve_is_made_where_it_would_leave_too_little(url: str, path: Path, disk: SmallDisk) -> None:
    disk.fill(leaving=LEAST_FREE + RESERVE - MEBIBYTE)
    with_reserve = open_driver(url)
    with_reserve.keep_reserve(RESERVE)
    assert not reserve_of(path).exists()
    assert with_reserve.shortage() is None
    with_reserve.close()


def test_a_reserve_that_cannot_be_made_stops_no_node_and_no_link_is_followed(
    driver: Driver, world: World, disk: SmallDisk, path: Path
) -> None:
    precious = disk.folder / "precious"
    precious.write_bytes(b"!")
    reserve_of(path).symlink_to(precious)
    driver.keep_reserve(RESERVE)
    driver.tend(world.node())
    assert precious.read_bytes() == b"!"
    assert driver.shortage() is None


def given_back(path: Path, size: int = RESERVE) -> Path:
    """Make a reserve as it is after a node has given it back: of its length, and without blocks."""
    reserve = reserve_of(path)
    reserve.touch(0o600)
    os.truncate(reserve, size)
    return reserve


def test_a_reserve_that_was_given_back_and_that_nobody_keeps_any_more_stops_no_node(
    driver: Driver, world: World, path: Path
) -> None:
    reserve = given_back(path)
    driver.keep_reserve(0)
    assert driver.shortage() is None
    assert not reserve.exists()
    world.push()
    assert len(world.claim(world.node())) == 1


def test_a_reserve_that_was_given_back_stops_no_node_while_there_is_room(
    node_driver: Driver, clock: MovableClock, path: Path
) -> None:
    given_back(path)
    clock.advance(1)
    assert node_driver.shortage() is None


def test_where_zeros_take_no_blocks_no_reserve_is_kept_and_that_is_said_once(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda file, start, length: os.truncate(file, start + length))
    for _ in range(2):
        node_driver = open_driver(url)
        node_driver.keep_reserve(RESERVE)
        node_driver.tend(1)
        assert node_driver.shortage() is None
        node_driver.close()
    assert not reserve_of(path).exists()
    assert caplog.text.count("stores no zeros") == 1


@pytest.mark.usefixtures("node_driver")
def test_a_lowered_setting_makes_the_reserve_smaller(driver: Driver, path: Path) -> None:
    driver.keep_reserve(RESERVE // 2)
    assert reserve_of(path).stat().st_blocks * 512 == RESERVE // 2
    driver.keep_reserve(0)
    assert not reserve_of(path).exists()


@pytest.mark.parametrize("size", [0, RESERVE])
def test_what_runs_is_acknowledged_on_a_full_disk_thanks_to_the_reserve(
    node_driver: Driver, clock: MovableClock, disk: SmallDisk, path: Path, size: int
) -> None:
    node_driver.keep_reserve(size)
    assert reserve_of(path).exists() == bool(size)
    world = World(node_driver, clock)
    node = world.node()
    node_driver.push_many([world.job() for _ in range(200)])
    running = world.claim(node, 100)
    disk.fill()
    results = [world.completion(job, result=bytes(5000)) for job in running]

    def acknowledge() -> None:
        node_driver.cycle(node, results, (), node_driver.lanes(None), 100)

    with pytest.raises(StorageFull, match="what is stored stays safe"):
        acknowledge()
    if not size:
        with pytest.raises(StorageFull):
            acknowledge()
        return
    acknowledge()
    assert world.counted() == {("q", State.COMPLETED): 100, ("q", State.PENDING): 100}
    assert node_driver.beat(node)


@pytest.fixture
def full(node_driver: Driver, clock: MovableClock, disk: SmallDisk) -> int:
    """Have a node run into a full disk; return its id. Ten jobs are pending, ten have completed."""
    world = World(node_driver, clock)
    node = world.node()
    node_driver.push_many([world.job() for _ in range(20)])
    running = world.claim(node, 10)
    disk.fill()
    completions = [world.completion(job, result=bytes(100_000)) for job in running]
    with pytest.raises(StorageFull):
        node_driver.cycle(node, completions, (), node_driver.lanes(None), 10)
    assert not node_driver.cycle(node, completions, (), node_driver.lanes(None), 10).claimed
    return node


def test_nothing_is_claimed_or_pushed_from_the_reserve(
    full: int, node_driver: Driver, driver: Driver, world: World, clock: MovableClock
) -> None:
    clock.advance(1)
    assert world.driver is driver
    with pytest.raises(StorageFull, match="are for the nodes"):
        world.push()
    assert "no job is claimed" in str(node_driver.shortage())
    node_driver.tend(full)
    assert "no job is claimed" in str(node_driver.shortage())
    assert World(node_driver, clock).claim(full) == []


def test_a_job_with_a_worker_of_its_own_is_not_claimed_from_the_reserve_either(
    node_driver: Driver, clock: MovableClock, disk: SmallDisk
) -> None:
    world = World(node_driver, clock)
    node = world.node()
    node_driver.push_many([world.job() for _ in range(10)])
    running = world.claim(node, 10)
    own = world.push(force_spawn=1)
    disk.fill()
    with pytest.raises(StorageFull):
        node_driver.cycle(
            node,
            [world.completion(job, result=bytes(100_000)) for job in running],
            (),
            node_driver.lanes(None),
            0,
        )
    assert node_driver.claim_own(node, None, 5) == []
    disk.clear()
    clock.advance(1)
    node_driver.tend(node)
    assert [job.id for job in node_driver.claim_own(node, None, 5)] == [own]


def test_another_node_on_the_same_disk_claims_nothing_either(
    full: int, driver: Driver, world: World, clock: MovableClock
) -> None:
    driver.keep_reserve(RESERVE)
    assert world.claim(full) == []
    assert driver.shortage() is not None


def test_work_goes_on_by_itself_when_there_is_room(
    full: int, node_driver: Driver, clock: MovableClock, disk: SmallDisk, path: Path
) -> None:
    mark = node_driver.change_mark()
    disk.clear()
    clock.advance(1)
    node_driver.tend(full)
    assert node_driver.change_mark() != mark
    assert node_driver.shortage() is None
    assert space_at(path).missing == 0
    assert len(World(node_driver, clock).claim(full)) == 10
    node_driver.close()
    assert is_whole(path)


def test_a_full_disk_is_among_the_findings(
    full: int, node_driver: Driver, sqlite: SQLiteDriver, clock: MovableClock, disk: SmallDisk
) -> None:
    finding = found(sqlite, "disk")
    assert finding.level is Level.ERROR
    assert "the disk is full" in finding.message
    assert "make room" in str(finding.fix)
    disk.clear()
    clock.advance(1)
    node_driver.tend(full)
    assert "set aside for the last writes" in found(sqlite, "disk").message
    disk.fill(leaving=LEAST_FREE // 2)
    assert "nothing is pushed" in found(sqlite, "disk").message


KILLED = """
import os, signal, sys
from taskqueue.drivers import open_driver
from taskqueue.errors import StorageFull
from tests.drivers.world import MovableClock, World
driver = open_driver(sys.argv[1])
driver.keep_reserve(int(sys.argv[2]))
world = World(driver, MovableClock())
node = world.node()
driver.push_many([world.job() for _ in range(50)])
running = world.claim(node, 25)
print("ready", flush=True)
sys.stdin.readline()
completions = [world.completion(job, result=bytes(20_000)) for job in running]
for _ in range(2):
    try:
        driver.cycle(node, completions, (), driver.lanes(None), 0)
    except StorageFull:
        continue
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_node_that_is_killed_on_a_full_disk_leaves_a_sound_database_and_nothing_to_remember(
    url: str, path: Path, disk: SmallDisk, driver: Driver, world: World, clock: MovableClock
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(RESERVE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    disk.fill()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"
    assert process.wait() == -signal.SIGKILL
    process.stdin.close()
    process.stdout.close()

    driver.keep_reserve(RESERVE)
    assert world.counted() == {("q", State.COMPLETED): 25, ("q", State.PENDING): 25}
    assert driver.shortage() is not None
    disk.clear()
    clock.advance(1)
    driver.tend(world.node())
    assert driver.shortage() is None
    assert len(world.claim(world.node(), 50)) == 25
    driver.close()
    assert is_whole(path)


# --- a disk that can only be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_left", [False, True])
def test_a_disk_that_became_read_only_is_told_as_that_and_used_again_when_it_is_not(
    driver: Driver, world: World, disk: SmallDisk, path: Path, *, log_left: bool
) -> None:
    before = world.push()
    logs = {log: log.read_bytes() for log in disk.folder.glob("*.db-*")}
    driver.close()
    for log, content in logs.items() if log_left else ():
        log.write_bytes(content)
    assert len(list(disk.folder.iterdir())) == (3 if log_left else 1), path
    disk.remount("ro")
    for _ in range(2):
        with pytest.raises(StoreError, match="read-only"):
            world.push()
    disk.remount("rw")
    after = world.push()
    assert {row.id for row in world.everything()} == {before, after}
