"""Claims under a long open transaction: deleted rows cannot be cleared away meanwhile, and claims must not feel it.

What a claim reads is counted, not timed: the pages of memory that the server looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskqueue.drivers.lanes import LATEST
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import Lanes
from tests.databases import Database
from tests.drivers.world import World

pytestmark = pytest.mark.needs("dead_rows")

JOBS, BATCH = 20_000, 100
APART = 1
"""Microseconds between two jobs, as when they are pushed together."""

FLUSH = text("SELECT pg_stat_force_next_flush()")
PAGES = (
    text(
        "SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read FROM pg_statio_user_tables"
        " WHERE relname = 'tq_jobs'"
    ),
    text("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'"),
)
"""How kinds of servers count the pages that they look at; each understands one of these."""
LEFT_ALONE = "ALTER TABLE tq_jobs SET (autovacuum_enabled = false)"
CARED_FOR = "ALTER TABLE tq_jobs RESET (autovacuum_enabled)"


@pytest.fixture(autouse=True)
def left_alone(database: Database) -> Iterator[None]:
    """Keep the server's own cleaning, whose pages would be counted with ours, away from the table."""
    with suppress(SQLAlchemyError):  # Others count nothing of the kind.
        database.run(LEFT_ALONE)
    yield
    with suppress(SQLAlchemyError):
        database.run(CARED_FOR)


@pytest.fixture
def old_snapshot(database: Database, world: World) -> Iterator[None]:
    """Keep a transaction open that still sees every job of the test."""
    first = world.clock.now_us() - 2 * JOBS * APART
    jobs = [world.job(ready_at=first + number * APART) for number in range(JOBS)]
    for start in range(0, JOBS, 5000):
        world.driver.push_many(jobs[start : start + 5000])
    with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT count(*) FROM tq_jobs"))
        yield
        assert connection.execute(text("SELECT count(*) FROM tq_jobs")).scalar() == JOBS


def pages(driver: SQLDriver) -> int:
    """Return how many pages have been looked at so far, by everybody on a server that cannot tell them apart."""

    def read(connection: object) -> int:
        for statement in PAGES:
            try:
                if statement is PAGES[0]:
                    connection.execute(FLUSH)  # type: ignore[attr-defined]
                    connection.execute(text("SELECT 1"))  # type: ignore[attr-defined]
                return int(connection.execute(statement).one()[-1])  # type: ignore[attr-defined]
            except SQLAlchemyError:
                continue
        raise AssertionError("no way to count what this server reads")

    return driver.read(read)


class Drain:
    """Takes jobs batch by batch, acknowledging each with the next claim."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.node = node
        self.lanes = world.driver.lanes(["q"])
        self.seen: list[bytes] = []

    def batch(self, lanes: Lanes | None = None) -> None:
        cycle = self.world.driver.cycle(self.node, (), (), lanes or self.lanes, BATCH)
        self.seen += [job.id for job in cycle.claimed]
        self.world.complete(self.node, *cycle.claimed)

    def until(self, jobs: int) -> None:
        while len(self.seen) < jobs:
            self.batch()

    def effort(self, driver: SQLDriver, *, marked: bool = True) -> int:
        """Return what a batch reads: the least of three, since others may work on the server too."""
        efforts = []
        for _ in range(3):
            before = pages(driver)
            self.batch(None if marked else driver.lanes(["q"]))
            efforts.append(pages(driver) - before)
        return min(efforts)


@pytest.mark.usefixtures("old_snapshot")
def test_a_claim_does_not_read_the_rows_that_earlier_ones_left_dead(driver: SQLDriver, world: World, node: int) -> None:
    drain = Drain(world, node)
    drain.until(2000)
    early = drain.effort(driver)
    drain.until(JOBS - 10 * BATCH)
    late = drain.effort(driver)
    without_marks = drain.effort(driver, marked=False)
    assert without_marks > early
    assert late - early < (without_marks - early) / 4, (early, late, without_marks)
    drain.until(JOBS)
    assert len(set(drain.seen)) == JOBS


@pytest.mark.usefixtures("old_snapshot")
def test_a_job_that_is_committed_behind_the_mark_is_found_by_the_next_look_back(
    driver: SQLDriver, world: World, node: int
) -> None:
    drain = Drain(world, node)
    drain.until(2000)
    late = world.push(ready_at=world.clock.now_us() - 2 * JOBS * APART)
    drain.batch()
    assert late not in drain.seen
    world.clock.advance(LATEST)
    drain.batch()
    assert late in drain.seen
