"""What nodes remove in turns, and that it is theirs to say for how long things are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from taskqueue.drivers import open_driver
from taskqueue.node import upkeep
from taskqueue.node.upkeep import NODES_KEPT, PURGE_EVERY, Upkeep
from taskqueue.states import State, Verb
from taskqueue.worker_settings import WorkerSettings
from tests.databases import Database
from tests.drivers.world import MovableClock, World
from tests.node.running import House, until

DAY = 86_400.0


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    clock = MovableClock()
    driver = open_driver(database.url, clock=clock)
    yield World(driver, clock)
    driver.close()


def upkeep_of(world: World, node: int, **settings: Any) -> Upkeep:
    return Upkeep(world.driver, node, WorkerSettings(**settings), world.clock)


def finish(world: World, node: int, state: State) -> bytes:
    job_id = world.push()
    job = world.claim_one(node)
    if state is State.COMPLETED:
        world.complete(node, job)
    else:
        world.end(node, job, Verb.FAIL if state is State.FAILED else Verb.CANCEL)
    return job_id


def left(world: World) -> set[bytes]:
    return {row.id for row in world.everything()}


def test_completed_jobs_go_after_a_week_and_failed_and_cancelled_ones_after_a_month(world: World) -> None:
    node = world.node()
    by_state = {state: finish(world, node, state) for state in (State.COMPLETED, State.FAILED, State.CANCELLED)}
    for days, expected in ((6.9, 3), (0.2, 2), (22.8, 2), (0.2, 0)):
        world.clock.advance(days * DAY)
        upkeep_of(world, node).purge()
        assert len(left(world)) == expected
        assert world.counts_are_exact()
    assert by_state[State.FAILED] not in left(world)


def test_what_is_to_be_kept_for_ever_is(world: World) -> None:
    node = world.node()
    finish(world, node, State.COMPLETED)
    finish(world, node, State.FAILED)
    world.clock.advance(1000 * DAY)
    upkeep_of(world, node, retention_completed=None, retention_failed=None, retention_rollups=None).purge()
    assert len(left(world)) == 2
    assert len(world.driver.rollups(0)) == 1


def test_only_the_last_jobs_of_a_queue_are_kept_where_a_number_is_set(world: World) -> None:
    node = world.node()
    ids = []
    for _ in range(5):
        world.clock.advance(1)
        ids.append(finish(world, node, State.COMPLETED))
    upkeep_of(world, node, retention_keep=2).purge()
    assert left(world) == set(ids[3:])


def test_everything_goes_in_batches_until_nothing_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node = world.node()
    world.driver.push_many([world.job() for _ in range(25)])
    world.complete(node, *world.claim(node))
    world.clock.advance(8 * DAY)
    monkeypatch.setattr(upkeep, "batch_size", lambda _: 10)
    upkeep_of(world, node).purge()
    assert left(world) == set()


def test_a_node_that_stops_ends_a_purge_after_the_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node = world.node()
    world.driver.push_many([world.job() for _ in range(25)])
    world.complete(node, *world.claim(node))
    world.clock.advance(8 * DAY)
    monkeypatch.setattr(upkeep, "batch_size", lambda _: 10)
    stopping = upkeep_of(world, node)
    purge = world.driver.purge

    def purge_once(before: int, states: Collection[State], queue: str | None = None, limit: int = 5000) -> int:
        stopping.stop()
        return purge(before, states, queue, limit)

    monkeypatch.setattr(world.driver, "purge", purge_once)
    stopping.purge()
    assert len(left(world)) == 15


def test_jobs_whose_lane_was_lost_are_served_within_a_minute(world: World, database: Database) -> None:
    node = world.node()
    job_id = world.push()
    database.run("DELETE FROM tq_lanes")
    assert world.claim(node) == []
    upkeep_of(world, node).purge()
    assert [job.id for job in world.claim(node)] == [job_id]


def test_of_all_nodes_one_purges_at_a_time(world: World) -> None:
    first, second = world.node(), world.node()
    upkeep_of(world, first).purge()
    finish(world, first, State.COMPLETED)
    upkeep_of(world, second, retention_completed=0).purge()
    assert len(left(world)) == 1
    world.clock.advance(PURGE_EVERY)
    upkeep_of(world, second, retention_completed=0).purge()
    assert left(world) == set()


def test_old_minutes_and_nodes_that_ended_long_ago_go_too(world: World) -> None:
    gone, node = world.node(), world.node()
    finish(world, gone, State.COMPLETED)
    world.driver.stop_node(gone)
    world.clock.advance(NODES_KEPT + 60)
    upkeep_of(world, node, retention_rollups=3600.0).purge()
    assert [row.id for row in world.driver.nodes(everyone=True)] == [node]
    assert world.driver.rollups(0) == []


def test_a_running_node_purges_by_itself_while_it_works(house: House) -> None:
    handle = house.push("Quick", {"answer": 1})
    house.work_until_empty()
    assert handle.record().state is State.COMPLETED
    house.manager.driver.sweep(0, 2**62)  # The turn that the first node took is over.
    node = house.start(1, retention_completed=0).await_start()
    until(lambda: house.manager.count_jobs() == 0, "the finished job is gone")
    assert node.stop() == 0
