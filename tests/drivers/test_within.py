"""Pushing in the caller's own transaction."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from taskqueue.drivers import migrate, open_driver
from taskqueue.drivers.values import JobFilter, Standing
from taskqueue.errors import ConfigurationError, DependencyError, DuplicateJob, UsageError
from taskqueue.ids import new_id
from taskqueue.states import OnConflict, State
from tests.databases import Database
from tests.drivers.world import World


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.engine


def test_nothing_is_visible_before_the_commit(world: World, engine: Engine) -> None:
    job = world.job()
    with Session(engine) as session:
        world.driver.push_within(session, [job], [["t"]])
        assert world.everything() == []
        session.commit()

    assert [row.id for row in world.driver.find(JobFilter(tag="t"))] == [job.id]


def test_a_roll_back_leaves_no_trace(world: World, engine: Engine, node: int) -> None:
    job = world.job(queue="new", unique_key=b"u" * 32)
    with Session(engine) as session:
        world.driver.push_within(session, [job], [["t"]])
        session.rollback()

    assert world.everything() == []
    world.driver.push(job)
    assert [claimed.id for claimed in world.claim(node)] == [job.id]


def test_a_connection_serves_as_well_as_a_session(world: World, engine: Engine, node: int) -> None:
    with engine.begin() as connection:
        world.driver.push_within(connection, [world.job(queue=f"q{number}") for number in range(3)])

    assert len(world.claim(node)) == 3


def test_pushing_no_jobs_within_a_transaction_does_nothing(world: World, engine: Engine) -> None:
    with engine.begin() as connection:
        world.driver.push_within(connection, [])

    assert world.everything() == []


def test_a_unique_key_that_is_taken_is_refused_within_a_transaction(world: World, engine: Engine) -> None:
    world.push(unique_key=b"u" * 32)
    with Session(engine) as session, pytest.raises(DuplicateJob):
        world.driver.push_within(session, [world.job(unique_key=b"u" * 32)])


def test_a_push_within_a_transaction_may_be_repeated(world: World, engine: Engine) -> None:
    job = world.job()
    for _ in range(2):
        with engine.begin() as connection:
            world.driver.push_within(connection, [job], [["t"]])

    assert len(world.everything()) == 1


@pytest.mark.parametrize("with_tables", [True, False])
def test_a_session_on_another_database_is_refused(
    world: World, new_database: Callable[[], Database], with_tables: bool
) -> None:
    other = new_database()
    if with_tables:
        migrate.upgrade(other.url)
    with Session(other.engine) as session, pytest.raises(ConfigurationError, match="another database"):
        world.driver.push_within(session, [world.job()])


# --- unique keys in the caller's transaction -----------------------------------------------------------------------


def test_a_conflict_leaves_the_callers_transaction_as_it_was(world: World, engine: Engine) -> None:
    world.push(unique_key=b"u" * 32)
    before, after = world.job(), world.job()
    with Session(engine) as session:
        world.driver.push_within(session, [before])
        with pytest.raises(DuplicateJob):
            world.driver.push_within(session, [world.job(unique_key=b"u" * 32)], [["t"]])
        with pytest.raises(DuplicateJob):
            world.driver.push_within(session, [world.job(), world.job(unique_key=b"u" * 32)], [["t"], []])
        world.driver.push_within(session, [after], [["t"]])
        session.commit()

    assert {before.id, after.id} < {row.id for row in world.everything()}
    assert len(world.everything()) == 3
    assert [row.id for row in world.driver.find(JobFilter(tag="t"))] == [after.id]


def test_a_parent_that_does_not_exist_leaves_the_callers_transaction_as_it_was(world: World, engine: Engine) -> None:
    good = world.job()
    with Session(engine) as session:
        with pytest.raises(DependencyError):
            world.driver.push_within(session, [world.job(), world.job()], (), [(), [new_id().bytes]])
        world.driver.push_within(session, [good])
        session.commit()

    assert [row.id for row in world.everything()] == [good.id]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_savepoint_of_ours_commits_nothing_before_the_caller_does(world: World, engine: Engine, jobs: int) -> None:
    pushed = [world.job(unique_key=bytes([number]) * 32) for number in range(jobs)]
    with Session(engine) as session:
        world.driver.push_within(session, pushed, rules=[OnConflict.REPLACE] * jobs)
        assert world.everything() == []
        session.rollback()

    assert world.everything() == []


@pytest.mark.parametrize("commits", [True, False])
def test_a_replacement_happens_with_the_callers_commit_or_not_at_all(
    world: World, engine: Engine, commits: bool
) -> None:
    first, second = world.push(unique_key=b"u" * 32), world.job(unique_key=b"u" * 32)
    with Session(engine) as session:
        standing = world.driver.push_within(session, [second], rules=[OnConflict.REPLACE])
        assert standing == [Standing(second.id, created=True)]
        assert world.state(first) is State.PENDING
        if commits:
            session.commit()

    assert world.state(first) is (State.CANCELLED if commits else State.PENDING)
    assert world.state(second.id) is (State.PENDING if commits else None)
    assert world.counts_are_exact()


def test_keep_tells_the_job_that_is_there_within_a_transaction(world: World, engine: Engine) -> None:
    first = world.push(unique_key=b"u" * 32)
    with Session(engine) as session:
        kept = world.driver.push_within(session, [world.job(unique_key=b"u" * 32)], rules=[OnConflict.KEEP])
        session.commit()

    assert kept == [Standing(first, created=False)]
    assert len(world.everything()) == 1


def test_a_job_pushed_within_a_transaction_waits_for_its_parents(world: World, engine: Engine, node: int) -> None:
    parent, child = world.job(), world.job()
    with Session(engine) as session:
        world.driver.push_within(session, [parent, child], (), [(), [parent.id]])
        session.commit()

    assert world.state(child.id) is State.BLOCKED
    world.complete(node, world.claim_one(node))
    assert world.state(child.id) is State.PENDING


def test_a_job_that_is_kept_can_be_claimed_before_the_caller_commits(world: World, engine: Engine, node: int) -> None:
    if not world.driver.capabilities.concurrent_writers:
        pytest.skip("a transaction that has written keeps every other writer waiting here")
    first = world.push(unique_key=b"u" * 32)
    with Session(engine) as session:
        world.driver.push_within(session, [world.job(unique_key=b"u" * 32)], rules=[OnConflict.KEEP])
        assert world.claim_one(node).id == first
        session.commit()


def test_what_is_no_session_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match=r"Session or Connection, got str"):
        world.driver.push_within("session", [world.job()])


# --- what an open transaction of the caller leaves to others -------------------------------------------------------


@pytest.mark.needs("concurrent_writers")
@pytest.mark.parametrize("pushed", [1, 9])
@pytest.mark.parametrize("completed", [1, 2, 10])
def test_an_open_transaction_that_pushed_lets_nodes_complete(
    world: World, engine: Engine, node: int, pushed: int, completed: int
) -> None:
    world.push(queue="done")
    world.complete(node, world.claim_one(node))
    with engine.connect() as connection:
        world.driver.push_within(connection, [world.job() for _ in range(pushed)])
        others = [world.push(queue="other") for _ in range(completed)]
        world.complete(node, *world.claim(node))
        assert {world.state(each) for each in others} == {State.COMPLETED}
        connection.rollback()


@pytest.mark.needs("concurrent_writers")
@pytest.mark.parametrize("rule", [OnConflict.REPLACE, OnConflict.KEEP])
def test_an_open_transaction_that_took_a_key_leaves_the_other_keys_free(
    world: World, engine: Engine, rule: OnConflict
) -> None:
    # New keys: of one that was deleted a moment ago some databases keep an entry, and lock what lies around that.
    before, taken, after = sorted(os.urandom(32) for _ in range(3))
    with engine.connect() as connection:
        world.driver.push_within(connection, [world.job(unique_key=taken)], rules=[rule])
        for key in (before, after):
            assert world.driver.push_unique(world.job(unique_key=key)).created
        connection.rollback()


@pytest.mark.needs("concurrent_writers")
def test_others_push_to_a_queue_that_is_new_in_an_open_transaction(world: World, engine: Engine, url: str) -> None:
    other = open_driver(url)
    with engine.connect() as connection:
        world.driver.push_within(connection, [world.job(queue="new")])
        job = world.job(queue="new")
        other.push(job)
        connection.rollback()
    other.close()

    assert [row.id for row in world.everything()] == [job.id]
