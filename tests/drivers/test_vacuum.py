"""A table through which jobs flow stays small, since nodes vacuum it where the database leaves that to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskqueue.drivers import open_driver
from taskqueue.drivers.postgresql_upkeep import FEWEST_DEAD, TRY_AGAIN, VACUUM_EVERY, DeadRows
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import Finding, Level
from tests.databases import Database
from tests.drivers.world import MovableClock, World

pytestmark = pytest.mark.needs("notify")

JOBS, BACKLOG, BATCH = 60_000, 2_000, 500


@pytest.fixture(autouse=True)
def _nothing_dead(database: Database) -> None:
    """Take away what earlier tests left dead and set."""
    database.run("TRUNCATE tq_jobs", "ALTER TABLE tq_jobs RESET (autovacuum_vacuum_scale_factor)")


def flow(driver: SQLDriver, world: World, node: int, jobs: int, *, tended: bool) -> int:
    """Have jobs flow through a backlog and return the size of the table of live jobs, in bytes."""
    driver.push_many([world.job() for _ in range(BACKLOG)])
    lanes = driver.lanes(["q"])
    for done in range(0, jobs, BATCH):
        claimed = driver.cycle(node, (), (), lanes, BATCH).claimed
        world.complete(node, *claimed)
        driver.push_many([world.job() for _ in claimed])
        world.clock.advance(VACUUM_EVERY)
        if tended and done % (4 * BATCH) == 0:
            settle(driver)
            driver.tend(node)
    return driver.read(lambda link: int(link.execute(text("SELECT pg_table_size('tq_jobs')")).scalar_one()))


def settle(driver: SQLDriver) -> None:
    """Have the server count what this connection did, as it does by itself within a second."""
    driver.read(lambda link: (link.execute(text("SELECT pg_stat_force_next_flush()")), link.execute(text("SELECT 1"))))


def dead(driver: SQLDriver) -> int:
    settle(driver)
    return driver.read(
        lambda link: int(
            link.execute(text("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tq_jobs'")).scalar_one()
        )
    )


def leave_dead(driver: SQLDriver, world: World, node: int, rows: int = 2 * FEWEST_DEAD) -> None:
    world.driver.push_many([world.job() for _ in range(rows // 2)])
    while claimed := world.claim(node, BATCH):
        world.complete(node, *claimed)
    assert dead(driver) >= rows


def test_a_table_that_nodes_tend_stays_small(driver: SQLDriver, world: World, node: int, database: Database) -> None:
    grown = flow(driver, world, node, JOBS // 4, tended=False)
    database.run("TRUNCATE tq_jobs")
    small = flow(driver, world, node, JOBS, tended=True)
    assert small < grown / 2, (small, grown)


def test_a_few_dead_rows_are_not_worth_a_vacuum(driver: SQLDriver, world: World, node: int) -> None:
    world.push()
    world.complete(node, world.claim_one(node))
    settle(driver)
    assert driver.tend(node) == []


def test_of_two_nodes_one_vacuums(driver: SQLDriver, world: World, node: int) -> None:
    leave_dead(driver, world, node)
    other = world.node()
    assert driver.take_turn("vacuum", other, VACUUM_EVERY)
    assert driver.tend(node) == []
    world.clock.advance(VACUUM_EVERY)
    (sentence,) = driver.tend(node)
    assert "vacuumed" in sentence
    assert dead(driver) < FEWEST_DEAD


def test_dead_rows_that_an_old_snapshot_still_sees_are_not_tried_again_at_once(
    driver: SQLDriver, world: World, node: int, database: Database
) -> None:
    with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
        old.execute(text("SELECT count(*) FROM tq_jobs"))
        leave_dead(driver, world, node)
        assert len(driver.tend(node)) == 1
        world.clock.advance(VACUUM_EVERY)
        assert driver.tend(node) == []
        assert dead(driver) >= FEWEST_DEAD
    world.clock.advance(TRY_AGAIN)
    assert len(driver.tend(node)) == 1
    assert dead(driver) < FEWEST_DEAD


def test_a_node_that_may_not_vacuum_leaves_it(driver: SQLDriver, world: World, node: int, database: Database) -> None:
    leave_dead(driver, world, node)
    (owner,) = database.rows("SELECT current_user")[0]
    role = database.url.rpartition("/")[2]
    database.run(f'CREATE ROLE "{role}"', f'ALTER TABLE tq_jobs OWNER TO "{role}"')
    try:
        database.run(f'GRANT ALL ON tq_jobs TO "{owner}"', f'CREATE ROLE "{role}_user" IN ROLE pg_read_all_stats')
        database.run(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}_user"')
        driver.read(lambda link: link.exec_driver_sql(f'SET ROLE "{role}_user"'))
        world.clock.advance(VACUUM_EVERY)
        assert driver.tend(node) == []
        assert dead(driver) >= FEWEST_DEAD
        (found,) = [each for each in driver.findings() if each.check == "vacuum"]
        assert "autovacuum_vacuum_scale_factor" in found.fix
    finally:
        driver.close()
        database.run(
            f'ALTER TABLE tq_jobs OWNER TO "{owner}"', f'DROP OWNED BY "{role}_user"', f'DROP ROLE "{role}_user"',
            f'DROP ROLE "{role}"',
        )  # fmt: skip


def test_dead_rows_are_due_by_their_share_of_the_table() -> None:
    rows = DeadRows(MovableClock())
    assert not rows.due(FEWEST_DEAD, 0)
    assert rows.due(FEWEST_DEAD + 1, 0)
    assert not rows.due(100_000, 500_000)
    assert rows.due(100_001, 500_000)


def found(driver: SQLDriver, check: str) -> Finding:
    """Return the gravest finding of a check."""
    return max(
        (each for each in driver.findings() if each.check == check), key=lambda each: list(Level).index(each.level)
    )


@pytest.fixture
def fresh(database: Database) -> Iterator[Callable[[], SQLDriver]]:
    """Return what opens further drivers, which see settings that were changed for the database."""
    opened: list[SQLDriver] = []

    def make() -> SQLDriver:
        opened.append(cast("SQLDriver", open_driver(database.url)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
    database.run(f'ALTER DATABASE "{database.url.rpartition("/")[2]}" RESET ALL')


def test_commits_that_do_not_wait_for_the_disk_are_found(fresh: Callable[[], SQLDriver], database: Database) -> None:
    assert found(fresh(), "durability").level is Level.OK
    database.run(f'ALTER DATABASE "{database.url.rpartition("/")[2]}" SET synchronous_commit = off')
    loose = found(fresh(), "durability")
    assert loose.level is Level.WARNING
    assert "synchronous_commit" in loose.fix


def test_an_index_that_was_left_half_made_is_found_and_removed(driver: SQLDriver, database: Database) -> None:
    for label in ("red", "red"):
        database.run(f"INSERT INTO tq_tags (tag, job_id) VALUES ('{label}', gen_random_uuid())")
    alone = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with alone as connection, pytest.raises(SQLAlchemyError):
        connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY tq_half_made ON tq_tags (tag)")
    broken = found(driver, "indexes")
    assert broken.level is Level.ERROR
    assert "tq_half_made" in broken.message
    assert "removed the half made index tq_half_made" in driver.mend()
    assert found(driver, "indexes").level is Level.OK


def test_a_right_that_is_missing_is_found(driver: SQLDriver, database: Database) -> None:
    role = f"{database.url.rpartition('/')[2]}_reader"
    database.run(f'CREATE ROLE "{role}"', f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    try:
        driver.read(lambda link: link.exec_driver_sql(f'SET ROLE "{role}"'))
        refused = found(driver, "rights")
        assert refused.level is Level.ERROR
        assert "delete on" in refused.message
        assert "select" not in refused.message
    finally:
        driver.close()
        database.run(f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


def test_autovacuum_is_made_eager_where_the_owner_mends(driver: SQLDriver, database: Database) -> None:
    assert "made autovacuum eager on tq_jobs" in driver.mend()
    (options,) = database.rows("SELECT reloptions FROM pg_class WHERE relname = 'tq_jobs'")[0]
    assert "autovacuum_vacuum_scale_factor=0.01" in options
