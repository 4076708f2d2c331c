"""Whoever waits for a lock of somebody else is told so in time, and what was refused is not done later."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskqueue.drivers.values import JobFilter
from taskqueue.errors import DatabaseBusy
from taskqueue.states import State
from tests.databases import Database
from tests.drivers.world import World

pytestmark = pytest.mark.needs("remote")

Lock = Callable[[], AbstractContextManager[None]]

VERBS: dict[str, Callable[[World, int], Any]] = {
    "push": lambda world, _: world.push(),
    "push_many": lambda world, _: world.driver.push_many([world.job() for _ in range(3)]),
    "push_unique": lambda world, _: world.driver.push_unique(world.job(unique_key=b"u" * 32)),
    "cycle": lambda world, node: world.claim(node),
    "find": lambda world, _: world.everything(),
}


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have locks waited for as long as it takes to see it, rather than ten seconds."""
    from taskqueue.drivers import mysql_connecting, postgresql_link

    monkeypatch.setattr(mysql_connecting, "_SECONDS_FOR_A_LOCK", 1)
    shorter = postgresql_link._SESSION.replace("lock_timeout = '10s'", "lock_timeout = '1s'")
    assert shorter != postgresql_link._SESSION
    monkeypatch.setattr(postgresql_link, "_SESSION", shorter)


@pytest.fixture
def table_lock(database: Database) -> Lock:
    """Return what holds the lock that a change of the table of live jobs would."""

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        with database.engine.connect() as connection:
            for statement in ("LOCK TABLE tq_jobs", "LOCK TABLE tq_jobs WRITE"):
                try:
                    connection.execute(text(statement))
                    break
                except SQLAlchemyError:
                    connection.rollback()
            else:
                raise AssertionError("no way to lock a table")
            yield
            connection.invalidate()

    return held


@pytest.mark.parametrize("verb", VERBS)
def test_a_table_that_stays_locked_is_said_to_be_busy(world: World, node: int, table_lock: Lock, verb: str) -> None:
    world.driver.push(world.job())
    with table_lock(), pytest.raises(DatabaseBusy, match="nothing was changed"):
        VERBS[verb](world, node)


def test_what_was_refused_is_not_done_when_the_lock_is_gone(world: World, node: int, table_lock: Lock) -> None:
    first = world.push()
    with table_lock():
        for verb in ("push", "push_many", "push_unique", "cycle"):
            with pytest.raises(DatabaseBusy):
                VERBS[verb](world, node)
    with table_lock():  # Whoever still waited would have had its turn before.
        pass
    assert [(row.id, row.state) for row in world.everything()] == [(first, State.PENDING)]


def test_a_unique_push_beside_an_open_transaction_waits_and_then_says_so(world: World, database: Database) -> None:
    key = b"u" * 32
    with database.engine.connect() as connection:
        world.driver.push_within(connection, [world.job(unique_key=key)])
        with pytest.raises(DatabaseBusy, match="nothing was changed"):
            world.driver.push_each([world.job(unique_key=key)])
        connection.rollback()
    assert world.everything() == []


def test_what_is_asked_of_many_jobs_waits_for_as_long_as_it_takes(world: World, table_lock: Lock, node: int) -> None:
    world.push()
    done: list[int] = []
    flush = threading.Thread(target=lambda: done.append(world.driver.flush()))
    with table_lock():
        flush.start()
        for _ in range(2):
            with pytest.raises(DatabaseBusy):  # Each of them waits for the whole of its second.
                world.claim(node)
        assert done == []
    flush.join(20)
    assert done == [1]
    with table_lock(), pytest.raises(DatabaseBusy):
        world.driver.count(JobFilter())
