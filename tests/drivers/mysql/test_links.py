"""A connection may be ended between any two statements: nothing is lost, nothing is done twice, nobody notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pymysql
import pytest

from taskqueue.drivers.base import Driver
from taskqueue.drivers.mysql import MySQLDriver
from taskqueue.drivers.values import ClaimedJob, Cycle, Lanes
from taskqueue.errors import DatabaseBusy
from taskqueue.states import State, Verb
from tests.databases import Database
from tests.drivers.world import World

Kill = Callable[[pymysql.Connection], None]
STATEMENTS_OF_A_CYCLE = 11


@pytest.mark.parametrize(
    "verb",
    [
        lambda driver, world, node: driver.push(world.job()),
        lambda driver, world, node: driver.push_many([world.job() for _ in range(3)]),
        lambda driver, world, node: driver.cycle(node, (), (), driver.lanes(None), 5),
        lambda driver, world, node: driver.record_start(node, bytes(16), 1),
        lambda driver, world, node: driver.queues(),
        lambda driver, world, node: driver.beat(node),
        lambda driver, world, node: driver.flush(),
    ],
    ids=["push", "push_many", "cycle", "record_start", "queues", "beat", "flush"],
)
def test_a_verb_gets_a_new_connection_where_its_own_was_ended(
    mysql: MySQLDriver, world: World, node: int, kill: Kill, verb: Callable[[Driver, World, int], object]
) -> None:
    world.push()
    with mysql._connections.use() as kept:
        kill(kept.raw)

    verb(mysql, world, node)

    assert world.counts_are_exact()


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch, kill: Kill) -> Iterator[Callable[[int], None]]:
    """Return what has the connection ended before its n-th statement from now on."""
    send: Any = pymysql.Connection._execute_command  # type: ignore[attr-defined]
    left = [0]

    def sending(raw: pymysql.Connection, command: int, sql: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            kill(raw)
        send(raw, command, sql)

    def start(place: int) -> None:
        monkeypatch.setattr(pymysql.Connection, "_execute_command", sending)
        left[0] = place

    yield start
    monkeypatch.undo()


def cycle(world: World, node: int, lanes: Lanes, held: Sequence[ClaimedJob]) -> Cycle:
    return world.driver.cycle(node, [world.completion(job) for job in held], (), lanes, 5)


@pytest.mark.parametrize("place", range(1, STATEMENTS_OF_A_CYCLE + 1))
def test_a_cycle_that_is_cut_off_is_done_once(
    mysql: MySQLDriver, world: World, node: int, cut_at: Callable[[int], None], place: int
) -> None:
    mysql.push_many([world.job() for _ in range(30)])
    lanes = mysql.lanes(None)
    held = cycle(world, node, lanes, ()).claimed
    taken = [job.id for job in held]

    cut_at(place)
    while held:
        done = cycle(world, node, lanes, held)
        assert done.stale == []
        held = done.claimed
        taken += [job.id for job in held]
    taken += [job.id for job in world.claim(node, 30)]

    assert len(taken) == len(set(taken)) == 30
    assert world.counts_are_exact()


def test_what_a_cycle_claimed_is_found_where_the_answer_to_its_commit_is_lost(
    mysql: MySQLDriver, world: World, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql.push_many([world.job() for _ in range(10)])
    lanes = mysql.lanes(None)
    held = cycle(world, node, lanes, ()).claimed
    commit = pymysql.Connection.commit

    def losing(raw: pymysql.Connection) -> None:
        commit(raw)
        monkeypatch.setattr(pymysql.Connection, "commit", commit)
        raw._force_close()  # type: ignore[attr-defined]
        raise pymysql.OperationalError(2013, "Lost connection to MySQL server during query")

    monkeypatch.setattr(pymysql.Connection, "commit", losing)
    done = cycle(world, node, lanes, held)

    assert done.stale == []
    assert len(done.claimed) == 5
    assert world.counted() == {("q", State.COMPLETED): 5, ("q", State.PROCESSING): 5}


def test_a_lock_that_is_not_given_ends_in_one_sentence_and_leaves_no_transaction(
    mysql: MySQLDriver, world: World, node: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.push()
    job = world.claim_one(node)
    with mysql._connections.use() as kept, kept.raw.cursor() as cursor:
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 0")
    with database.engine.begin() as other:
        other.exec_driver_sql("SELECT id FROM tq_jobs FOR UPDATE")
        with pytest.raises(DatabaseBusy, match="holds on to its locks"):
            world.end(node, job, Verb.RETRY)
        assert world.row(job.id).state is State.PROCESSING
    with mysql._connections.use() as kept:
        assert not mysql._in_transaction(kept.raw)

    assert world.end(node, job, Verb.RETRY) == []
