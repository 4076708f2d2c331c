"""Findings: each fault is made for real, found, and named with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers import examination, open_driver
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.tables import history, is_made_on, jobs
from taskqueue.drivers.values import BlockedBy, Finding, Level
from taskqueue.monitoring.checks import examine, worst
from taskqueue.states import Verb
from tests.databases import Database
from tests.drivers.world import World


def found(findings: list[Finding], check: str, level: Level | None = None) -> Finding:
    """Return the one finding of a check that has this level, or where none is given of the gravest."""
    those = [each for each in findings if each.check == check and level in (None, each.level)]
    assert those, [each for each in findings if each.level is not Level.OK]
    return max(those, key=lambda each: list(Level).index(each.level))


# --- the database ------------------------------------------------------------------------------------------------


def test_a_missing_index_is_found_and_made_again(driver: SQLDriver, database: Database) -> None:
    dialect = driver.engine.dialect.name
    (claim,) = [each for each in jobs.indexes if "claim" in str(each.name) and is_made_on(each, dialect)]
    (age,) = [each for each in history.indexes if each.name == "tq_history_age"]
    with database.engine.begin() as connection:
        claim.drop(connection)
        age.drop(connection)
    lost = found(driver.findings(), "indexes")
    assert lost.level is Level.WARNING
    assert "tq_history_age" in lost.message
    assert "doctor --fix" in lost.fix
    assert str(claim.name) in lost.message
    assert {f"made the index {claim.name}", "made the index tq_history_age"} <= set(driver.mend())
    assert found(driver.findings(), "indexes").level is Level.OK


def test_mending_what_is_whole_changes_nothing_twice(driver: SQLDriver) -> None:
    driver.mend()
    assert driver.mend() == []


def test_a_database_without_tables_has_that_as_its_only_finding(new_database: Callable[[], Database]) -> None:
    empty = new_database()
    driver = open_driver(empty.url)
    driver.create()  # type: ignore[attr-defined]
    (finding,) = driver.findings()
    assert (finding.check, finding.level) == ("schema", Level.ERROR)
    assert "db:upgrade" in finding.fix
    assert driver.mend() == []
    driver.close()


@pytest.mark.needs("remote")
def test_a_clock_that_differs_from_the_servers_is_found(driver: SQLDriver, world: World) -> None:
    world.clock.us = SYSTEM_CLOCK.now_us() + 10_000_000
    skewed = found(driver.findings(), "clock")
    assert skewed.level is Level.WARNING
    assert "behind this machine's" in skewed.message
    assert "NTP" in skewed.fix


@pytest.mark.needs("dead_rows")
def test_a_transaction_that_stays_open_is_found(
    driver: SQLDriver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "LONG_TRANSACTION", 0.0)
    with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT count(*) FROM tq_jobs"))
        assert found(driver.findings(), "oldest transaction").level is Level.WARNING


@pytest.mark.needs("remote")
def test_a_server_that_is_too_old_is_found(driver: SQLDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskqueue.drivers import mysql_upkeep, postgresql_upkeep

    monkeypatch.setattr(postgresql_upkeep, "_OLDEST", 990_000)
    monkeypatch.setattr(mysql_upkeep, "_OLDEST_MARIADB", (99, 0, 0))
    monkeypatch.setattr(mysql_upkeep, "_OLDEST_MYSQL", (99, 0, 0))
    old = found(driver.findings(), "version")
    assert old.level is Level.ERROR
    assert "too old" in old.message


def test_a_check_that_is_refused_keeps_no_other_from_being_made(driver: SQLDriver) -> None:
    def refused(_connection: object) -> list[Finding]:
        raise SQLAlchemyError("permission denied")

    findings = driver.read(
        lambda link: examination.each_of(link, [("secret", refused), ("open", lambda _: [examination.ok("open", "x")])])
    )
    assert [(each.check, each.level) for each in findings] == [("secret", Level.WARNING), ("open", Level.OK)]
    assert "permission denied" in findings[0].message


def test_too_few_connections_for_another_node_are_found() -> None:
    assert examination.connections(50, 100, 3).level is Level.OK
    assert examination.connections(95, 100, 9).level is Level.WARNING


# --- jobs, keys and nodes ----------------------------------------------------------------------------------------


def looked_at(world: World, key_ids: tuple[str, ...] | None = ("k1",)) -> list[Finding]:
    return examine(world.driver, key_ids, world.clock)


def test_an_unused_queue_needs_nothing_that_is_above_the_database(world: World) -> None:
    above = looked_at(world)[len(world.driver.findings()) :]
    assert worst(above) is Level.OK


def test_a_queue_with_jobs_that_nobody_serves_is_found(world: World) -> None:
    world.push(queue="emails")
    alone = found(looked_at(world), "queues")
    assert alone.level is Level.WARNING
    assert "emails, where 1 job waits" in alone.message
    assert alone.fix == "run `worker queue:work emails`"


@pytest.mark.parametrize("served", [["emails"], ["*"]])
def test_a_queue_that_a_node_serves_is_well(world: World, served: list[str]) -> None:
    world.push(queue="emails")
    identity = world.identity()
    node = world.driver.register_node(identity)
    world.driver.beat(node, info=json.dumps({"queues": served}))
    assert found(looked_at(world), "queues").level is Level.OK


def test_a_paused_queue_is_found(world: World) -> None:
    world.driver.pause("emails")
    assert "emails" in found(looked_at(world), "paused").message


def test_a_node_without_a_heartbeat_is_found(world: World, node: int) -> None:
    assert found(looked_at(world), "nodes").level is Level.OK
    world.clock.advance(31)
    silent = found(looked_at(world), "nodes")
    assert silent.level is Level.WARNING
    assert f"node {node} (node on host, 31 s)" in silent.message


def test_jobs_that_a_dead_node_holds_are_found_where_nobody_rescues_them(world: World) -> None:
    dead = world.node()
    world.push()
    world.claim_one(dead)
    world.kill(dead)
    assert str(dead) in found(looked_at(world), "orphans").message


def test_parked_jobs_are_found_with_why(world: World, node: int) -> None:
    for job_class, key, blocker in (("app.A", "k1", BlockedBy.UNKNOWN_CLASS), ("app.B", "k9", BlockedBy.UNKNOWN_KEY)):
        world.push(job_class=job_class, key_id=key)
        world.end(node, world.claim_one(node), Verb.PARK, blocked_by=blocker)
    said = [each.message for each in looked_at(world) if each.check == "parked"]
    assert said == [
        "1 job of a class that no node knows: app.A",
        "1 job sealed with a key that no node has: k9",
    ]


def test_jobs_under_a_key_that_is_not_at_hand_are_found(world: World) -> None:
    world.push(key_id="k9")
    assert "k9" in found(looked_at(world), "keys").message
    assert found(looked_at(world, ("k1", "k9")), "keys").level is Level.OK
    assert [each for each in looked_at(world, None) if each.check == "keys"] == []


@pytest.mark.needs("remote")
def test_a_database_that_does_not_answer_is_a_finding(database: Database) -> None:
    driver = open_driver(make_url(database.url).set(port=1).render_as_string(hide_password=False))
    (finding,) = examine(driver, (), SYSTEM_CLOCK)
    assert (finding.check, finding.level) == ("reachable", Level.ERROR)
    assert driver.describe() in finding.fix
