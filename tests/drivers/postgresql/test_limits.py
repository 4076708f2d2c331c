"""How long statements may take, under which isolation they run, and how they are planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from taskqueue.drivers import postgresql_link
from taskqueue.drivers.postgresql import PostgreSQLDriver
from taskqueue.drivers.postgresql_link import Link
from taskqueue.drivers.values import JobFilter
from taskqueue.errors import DatabaseBusy
from tests.databases import Database
from tests.drivers.world import World

ROWS = 20_000


@pytest.fixture
def locked(database: Database, world: World) -> Iterator[None]:
    """Hold the table of live jobs, after the driver has used it."""
    world.push()
    with database.engine.begin() as connection:
        connection.execute(text("LOCK TABLE tq_jobs"))
        yield


def waiting(database: Database) -> int:
    found = database.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(found[0][0])


@pytest.mark.usefixtures("locked")
def test_a_client_that_loses_patience_leaves_nothing_behind(
    postgresql: PostgreSQLDriver, world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Link, "patience", 0.3)
    with pytest.raises(DatabaseBusy, match="nothing was changed"):
        postgresql.push(world.job())
    with pytest.raises(DatabaseBusy, match="nothing was changed"):
        postgresql.push_many([world.job() for _ in range(3)])
    assert waiting(database) == 0


def test_a_read_may_take_longer_than_a_silent_server_is_waited_for(
    postgresql: PostgreSQLDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Link, "patience", 0.3)
    assert postgresql.read(lambda connection: connection.scalar(text("SELECT 7 FROM pg_sleep(1)"))) == 7
    with pytest.raises(DatabaseBusy, match="nothing was changed"):
        postgresql.write(lambda connection: connection.scalar(text("SELECT 7 FROM pg_sleep(5)")))


def test_the_server_ends_a_statement_at_last(postgresql: PostgreSQLDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = postgresql_link._SESSION.replace("statement_timeout = '60s'", "statement_timeout = '1s'")
    assert shorter != postgresql_link._SESSION
    monkeypatch.setattr(postgresql_link, "_SESSION", shorter)
    with pytest.raises(DatabaseBusy, match="statement timeout"):
        postgresql.read(lambda connection: connection.scalar(text("SELECT 7 FROM pg_sleep(30)")))


def test_what_has_no_haste_has_no_limits_and_they_are_back_afterwards(postgresql: PostgreSQLDriver) -> None:
    def limits(connection: Any) -> list[str]:
        names = ("lock_timeout", "statement_timeout")
        return [connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) for name in names]

    assert postgresql.write(limits, repeatable=False) == ["0", "0"]
    assert postgresql.write(limits) == ["10s", "1min"]
    with postgresql._connections.use() as kept:
        with kept.raw.unlimited():
            assert limits(kept.connection) == ["0", "0"]
        assert limits(kept.connection) == ["10s", "1min"]


@pytest.fixture
def serializable(database: Database) -> Iterator[None]:
    name = database.engine.url.database
    database.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    yield
    database.run(f"ALTER DATABASE {name} RESET default_transaction_isolation")


@pytest.mark.usefixtures("serializable")
def test_single_statements_are_read_committed_under_another_default(postgresql: PostgreSQLDriver) -> None:
    level = postgresql.read(
        lambda connection: connection.scalar(text("SELECT current_setting('transaction_isolation')"))
    )
    assert level == "read committed"
    (said,) = [each.message for each in postgresql.findings() if each.check == "isolation"]
    assert said.startswith("the server's default is serializable; ")
    assert "single statements run as read committed" in said


def test_the_newest_jobs_are_found_without_a_look_at_the_others(
    postgresql: PostgreSQLDriver, database: Database
) -> None:
    database.run(
        "INSERT INTO tq_history (id, queue, rank, job_class, state, created_at, ready_at, max_attempts, key_id,"
        " finished_at, lease) SELECT gen_random_uuid(), 'q', 0, 'app.Work', 4, i, i, 3, 'k', i, 1"
        f" FROM generate_series(1, {ROWS}) i",
        "ANALYZE tq_history",
    )
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_others: Any) -> None:
        asked.append((statement, parameters))

    event.listen(postgresql.engine, "before_cursor_execute", note)
    assert len(postgresql.find(JobFilter(), 100)) == 100
    event.remove(postgresql.engine, "before_cursor_execute", note)
    ((statement, parameters),) = asked
    plan = postgresql.read(
        lambda connection: connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
        ).scalar_one()
    )
    assert max(rows(plan if isinstance(plan, list) else json.loads(plan))) <= 200


def rows(plan: Any) -> Iterator[float]:
    """Return how many rows each step of a plan brought."""
    if isinstance(plan, list):
        for each in plan:
            yield from rows(each)
    elif isinstance(plan, dict):
        yield plan.get("Actual Rows", 0) * plan.get("Actual Loops", 1)
        for each in plan.values():
            yield from rows(each)
