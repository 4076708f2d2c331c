"""Real forks: no connection crosses one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from taskqueue.drivers import kept as kept_connections
from taskqueue.drivers.sqlite import SQLiteDriver
from taskqueue.drivers.values import JobFilter
from tests.drivers.world import World

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_a_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child and return its exit code: 0 where nothing was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def open_files(path: Path) -> list[str]:
    files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return [file.name for file in files if file.name.startswith(path.name)]


def test_parent_and_child_both_go_on(world: World, node: int) -> None:
    before = world.push()

    def push() -> None:
        for _ in range(10):
            world.push()

    code = in_a_child(push)
    after = world.push()

    assert code == 0
    assert {before, after} <= {row.id for row in world.everything()}
    assert world.driver.count(JobFilter()) == 12
    assert len(world.claim(node)) == 12


def test_a_child_inherits_no_open_database(world: World, path: Path) -> None:
    world.push()
    other = threading.Thread(target=world.push)
    other.start()
    other.join()
    assert open_files(path)

    def look() -> None:
        assert open_files(path) == []

    assert in_a_child(look) == 0


def test_connections_of_other_threads_are_closed_for_a_fork_and_opened_again(world: World, path: Path) -> None:
    forked, done = threading.Event(), threading.Event()
    faults: list[BaseException] = []

    def other() -> None:
        try:
            world.push()
            done.set()
            assert forked.wait(20)
            world.push()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=other)
    thread.start()
    assert done.wait(20)

    def look() -> None:
        assert open_files(path) == []

    code = in_a_child(look)
    forked.set()
    thread.join()

    assert (code, faults) == (0, [])
    assert world.driver.count(JobFilter()) == 2


def test_a_connection_in_the_middle_of_a_transaction_is_left_alone_in_the_child(
    sqlite: SQLiteDriver, world: World
) -> None:
    def fork_within(connection: object) -> int:
        def look() -> None:
            assert len(kept_connections._abandoned) == 1
            with sqlite._connections.use() as kept:
                assert kept.connection is not connection

        return in_a_child(look)

    assert sqlite.write(fork_within) == 0
    assert kept_connections._abandoned == []
    world.push()
    assert world.driver.count(JobFilter()) == 1


def test_a_fork_that_python_did_not_see_is_noticed(sqlite: SQLiteDriver, world: World) -> None:
    world.push()
    with sqlite._connections.use() as kept:
        inherited = kept
        kept.pid -= 1  # What a child finds that was forked behind Python's back.

    with sqlite._connections.use() as kept:
        assert kept is not inherited
    assert inherited.connection is not None
    inherited.close()


def test_memory_is_copied_by_a_fork(clock: object) -> None:
    from taskqueue.drivers import migrate, open_driver
    from tests.drivers.world import MovableClock

    clock = MovableClock()
    driver = open_driver("sqlite://", clock=clock)
    migrate.upgrade(driver)
    world = World(driver, clock)
    world.push()

    def look() -> None:
        assert world.driver.count(JobFilter()) == 1
        world.push()

    assert in_a_child(look) == 0
    assert world.driver.count(JobFilter()) == 1
    driver.close()
