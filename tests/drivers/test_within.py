"""Pushing in the caller's own transaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from taskqueue.drivers import migrate
from taskqueue.drivers.values import JobFilter
from taskqueue.errors import ConfigurationError, DuplicateJob
from tests.drivers.world import A_NEW_FILE, World


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


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
def test_a_session_on_another_database_is_refused(world: World, tmp_path: Path, with_tables: bool) -> None:
    (tmp_path / "other").mkdir()
    other = A_NEW_FILE.format(folder=tmp_path / "other")
    if with_tables:
        migrate.upgrade(other)
    engine = create_engine(other)
    with Session(engine) as session, pytest.raises(ConfigurationError, match="another database"):
        world.driver.push_within(session, [world.job()])
    engine.dispose()
