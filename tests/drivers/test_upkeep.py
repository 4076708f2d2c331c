"""Upkeep: what is old goes, in bounded batches, and nothing else does."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event

from taskqueue.drivers import open_driver
from taskqueue.drivers.retention import NEVER_US, Purge, asked_purge, batch_size
from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import BlockedBy, JobFilter, Level, NewJob
from taskqueue.drivers.verbs import upkeep
from taskqueue.errors import UsageError
from taskqueue.states import FINAL, ParentFailure, State, Verb
from tests.databases import Database
from tests.drivers.world import MINUTE, SECOND, World

DAY = 86_400.0


def finished(world: World, node: int, count: int = 1, state: State = State.COMPLETED, queue: str = "q") -> list[bytes]:
    """Bring jobs into a final state, each a second after the one before."""
    made = []
    for _ in range(count):
        world.clock.advance(1)
        job_id = world.push(queue=queue)
        (job,) = world.claim(node, queues=[queue])
        if state is State.COMPLETED:
            world.complete(node, job)
        else:
            world.end(node, job, Verb.FAIL if state is State.FAILED else Verb.CANCEL)
        made.append(job_id)
    return made


def there(world: World) -> set[bytes]:
    return {row.id for row in world.everything()}


# --- purge -------------------------------------------------------------------------------------------------------


def test_a_purge_removes_what_finished_before_and_nothing_newer(world: World, node: int) -> None:
    old = finished(world, node, 2)
    before = world.clock.now_us() + 1
    new = finished(world, node, 2)
    assert world.driver.purge(before, FINAL) == len(old)
    assert there(world) == set(new)
    assert world.driver.purge(before, FINAL) == 0


def test_a_purge_takes_the_states_that_were_asked_for(world: World, node: int) -> None:
    by_state = {state: finished(world, node, 1, state) for state in (State.COMPLETED, State.FAILED, State.CANCELLED)}
    assert world.driver.purge(NEVER_US, [State.FAILED, State.CANCELLED]) == 2
    assert there(world) == set(by_state[State.COMPLETED])


def test_a_purge_takes_the_queue_that_was_asked_for(world: World, node: int) -> None:
    finished(world, node, 2, queue="emails")
    others = finished(world, node, 2, queue="reports")
    assert world.driver.purge(NEVER_US, FINAL, "emails") == 2
    assert there(world) == set(others)


def test_a_batch_is_no_larger_than_asked_and_takes_the_longest_finished(world: World, node: int) -> None:
    ids = finished(world, node, 5)
    assert world.driver.purge(NEVER_US, FINAL, limit=3) == 3
    assert there(world) == set(ids[3:])


def test_jobs_that_wait_or_run_are_never_purged(world: World, node: int) -> None:
    world.in_state(State.DELAYED, node)
    world.in_state(State.BLOCKED, node)
    world.in_state(State.PROCESSING, node)
    world.in_state(State.PENDING, node)
    before = there(world)
    assert world.driver.purge(NEVER_US, list(State)) == 0
    assert there(world) == before


def test_with_a_job_its_tags_and_attempts_go(world: World, node: int) -> None:
    job_id = world.push(["red"], tags='["red"]')
    world.end(node, world.claim_one(node), Verb.FAIL, error_type="ValueError", error=b"sealed")
    kept = world.push(["red"], tags='["red"]')
    assert world.driver.attempts([job_id])
    world.driver.purge(NEVER_US, FINAL)
    assert world.driver.attempts([job_id]) == {}
    assert [row.id for row in world.driver.find(JobFilter(tag="red"))] == [kept]


def test_a_completed_job_that_was_retried_takes_its_attempts_along(world: World, node: int) -> None:
    job_id = world.push()
    world.end(node, world.claim_one(node), Verb.RETRY, error_type="ValueError", error=b"sealed")
    world.complete(node, world.claim_one(node))
    assert world.driver.attempts([job_id])
    world.driver.purge(NEVER_US, FINAL)
    assert world.driver.attempts([job_id]) == {}


def test_counts_are_exact_after_every_batch(world: World, node: int) -> None:
    for state in (State.COMPLETED, State.FAILED, State.CANCELLED):
        finished(world, node, 3, state)
        finished(world, node, 2, state, "other")
    while world.driver.purge(NEVER_US, FINAL, limit=2):
        assert world.counts_are_exact()
    assert there(world) == set()
    assert world.counted() == {}


def test_a_job_that_is_revived_meanwhile_stays(driver: SQLDriver, world: World, node: int) -> None:
    (job_id,) = finished(world, node, 1, State.FAILED)
    due = driver.read(lambda link: upkeep.due(link, NEVER_US, FINAL, None, 10))
    driver.revive(JobFilter(ids=[job_id]))
    assert driver.write(lambda link: upkeep.remove(link, due)) == 0
    world.clock.advance(1)
    world.end(node, world.claim_one(node), Verb.FAIL)
    assert driver.write(lambda link: upkeep.remove(link, due)) == 0
    assert world.state(job_id) is State.FAILED
    assert world.counts_are_exact()


def test_a_failed_job_that_another_one_still_waits_for_stays(world: World, node: int) -> None:
    (parent,) = finished(world, node, 1, State.FAILED)
    child = a_child_that_waits(world)
    world.driver.push(child, (), [parent])
    assert world.state(child.id) is State.BLOCKED
    assert world.driver.purge(NEVER_US, FINAL) == 0
    world.driver.revive(JobFilter(ids=[parent]))
    world.complete(node, world.claim_one(node))
    assert world.state(child.id) is State.PENDING
    assert world.driver.purge(NEVER_US, FINAL) == 1


def a_child_that_waits(world: World) -> NewJob:
    waits = list(ParentFailure).index(ParentFailure.WAIT)
    return world.job(on_parent_failure=waits, state=State.BLOCKED.code)


def test_a_failed_job_that_one_has_begun_to_wait_for_meanwhile_stays(
    driver: SQLDriver, world: World, node: int
) -> None:
    parent, other = finished(world, node, 2, State.FAILED)
    due = driver.read(lambda link: upkeep.due(link, NEVER_US, FINAL, None, 10))
    child = a_child_that_waits(world)
    driver.push(child, (), [parent])
    assert driver.write(lambda link: upkeep.remove(link, due)) == 1
    assert there(world) == {parent, child.id}
    assert world.state(other) is None
    assert world.counts_are_exact()


@pytest.mark.needs("concurrent_writers")
def test_a_purge_waits_for_a_child_that_is_being_pushed_and_leaves_its_parent(
    driver: SQLDriver, world: World, node: int, database: Database
) -> None:
    (parent,) = finished(world, node, 1, State.FAILED)
    child = a_child_that_waits(world)
    begun, removed = threading.Event(), []
    purging = threading.Thread(target=lambda: removed.append(driver.purge(NEVER_US, FINAL)))

    def note_lock(*given: Any) -> None:
        if "FOR UPDATE" in given[2]:
            begun.set()

    with database.engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        driver.push_within(connection, [child], parents=[[parent]])
        event.listen(driver.engine, "before_cursor_execute", note_lock)
        purging.start()
        assert begun.wait(30)
        purging.join(0.3)
        assert purging.is_alive()
    purging.join(30)
    assert removed == [0]
    driver.revive(JobFilter(ids=[parent]))
    world.complete(node, world.claim_one(node))
    assert world.state(child.id) is State.PENDING


def test_two_that_purge_at_once_remove_each_job_once(world: World, node: int, url: str) -> None:
    world.driver.push_many([world.job() for _ in range(300)])
    world.complete(node, *world.claim(node, 300))
    removed: Counter[int] = Counter()

    def purge(number: int) -> None:
        driver = open_driver(url)
        while batch := driver.purge(NEVER_US, FINAL, limit=7):
            removed[number] += batch
        driver.close()

    threads = [threading.Thread(target=purge, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    while batch := world.driver.purge(NEVER_US, FINAL):  # A batch that came too late for all of its jobs ends a loop.
        removed[2] += batch
    assert removed.total() == 300
    assert world.counted() == {}


def test_what_a_purge_would_remove_can_be_counted_first(world: World, node: int) -> None:
    finished(world, node, 3)
    before = world.clock.now_us() + 1
    finished(world, node, 2, State.FAILED)
    assert world.driver.purgeable(before, FINAL) == 3
    assert world.driver.purgeable(NEVER_US, FINAL) == 5
    assert world.driver.purgeable(NEVER_US, [State.FAILED], "q") == 2
    assert world.driver.purgeable(NEVER_US, FINAL, "other") == 0


# --- the last jobs of a queue ------------------------------------------------------------------------------------


def test_the_last_jobs_of_a_queue_stay_when_there_are_too_many(world: World, node: int) -> None:
    ids = finished(world, node, 3) + finished(world, node, 2, State.FAILED) + finished(world, node, 2)
    other = finished(world, node, 1, queue="other")
    assert world.driver.purge_beyond(3, "q") == 4
    assert world.driver.purge_beyond(3, "q") == 0
    assert there(world) == {*ids[4:], *other}
    assert world.counts_are_exact()


def test_a_batch_beyond_the_last_jobs_is_bounded(world: World, node: int) -> None:
    ids = finished(world, node, 6)
    assert world.driver.purge_beyond(1, "q", limit=2) == 2
    assert there(world) == set(ids[2:])


def test_a_purge_that_keeps_some_leaves_the_last_of_each_queue(world: World, node: int) -> None:
    few = finished(world, node, 2, queue="few")
    many = finished(world, node, 3) + finished(world, node, 2, State.FAILED)
    purge = Purge(world.driver, keep=2)
    assert purge.count() == 3
    assert sum(purge.batches()) == 3
    assert there(world) == {*few, *many[3:]}


def test_a_purge_by_age_and_number_removes_only_what_both_allow(world: World, node: int) -> None:
    ids = finished(world, node, 4)
    before = world.row(ids[1]).finished_at
    assert before is not None
    assert sum(Purge(world.driver, before=before, keep=1).batches()) == 1
    assert there(world) == set(ids[1:])


def test_with_none_kept_all_of_them_go(world: World, node: int) -> None:
    finished(world, node, 3)
    assert world.driver.kept_since(0, "q") == NEVER_US
    assert Purge(world.driver, keep=0).run(world.clock) == 3
    assert there(world) == set()


def test_a_queue_with_fewer_jobs_than_are_kept_has_no_bound(world: World, node: int) -> None:
    ids = finished(world, node, 3)
    assert world.driver.kept_since(3, "q") is None
    assert world.driver.kept_since(2, "q") == world.row(ids[1]).finished_at


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "say what may go"),
        ({"older_than": "30x"}, "older_than must be seconds"),
        ({"older_than": -1}, "older_than must be seconds"),
        ({"keep": -1}, "keep must be a whole number"),
        ({"keep": 1, "state": "pending"}, "only finished jobs"),
    ],
)
def test_a_purge_that_cannot_be_meant_is_refused(world: World, asked: dict[str, Any], said: str) -> None:
    given = {"older_than": None, "state": None, "queue": None, "keep": None} | asked
    with pytest.raises(UsageError, match=said):
        asked_purge(world.driver, world.clock, **given)
    assert batch_size(world.driver) >= 1000


# --- what else is swept out --------------------------------------------------------------------------------------


def test_old_minutes_are_swept_out_and_new_ones_stay(world: World, node: int) -> None:
    finished(world, node)
    world.clock.advance(3600)
    finished(world, node)
    assert len(world.driver.rollups(0)) == 2
    assert world.driver.sweep(world.clock.now_us() - 30 * MINUTE, 0) == 1
    (left,) = world.driver.rollups(0)
    assert left.minute > world.clock.now_us() - 30 * MINUTE


def test_nodes_that_ended_long_ago_are_forgotten_and_what_they_counted_is_not(world: World, node: int) -> None:
    stopped, dead = world.node(), world.node()
    finished(world, stopped, 2)
    world.driver.stop_node(stopped)
    world.kill(dead)
    world.clock.advance(8 * DAY)
    late = world.node()
    world.driver.stop_node(late)
    before = world.counted()
    assert world.driver.sweep(0, world.clock.now_us() - round(7 * DAY) * SECOND) == 2
    assert {row.id for row in world.driver.nodes(everyone=True)} == {node, late}
    assert world.counted() == before
    assert world.counts_are_exact()


def test_a_node_whose_jobs_nobody_has_rescued_is_remembered(world: World) -> None:
    dead = world.node()
    world.push()
    world.claim_one(dead)
    world.kill(dead)
    world.clock.advance(8 * DAY)
    assert world.driver.sweep(0, world.clock.now_us()) == 0
    assert world.driver.rescue(dead).total == 1
    assert world.driver.sweep(0, world.clock.now_us()) == 1


def test_a_duty_whose_turn_was_swept_out_begins_again(world: World, node: int) -> None:
    assert world.driver.take_turn("old", node, 60)
    world.clock.advance(8 * DAY)
    assert world.driver.sweep(0, world.clock.now_us()) == 1
    assert world.driver.take_turn("old", node, 60)
    assert not world.driver.take_turn("old", node, 60)


# --- lanes ---------------------------------------------------------------------------------------------------------


def test_jobs_whose_lane_is_missing_are_claimed_once_it_is_restored(
    world: World, node: int, database: Database
) -> None:
    wanted = [(f"q{number}", rank) for number in range(3) for rank in (-5, 0, 7)]
    ids = {world.push(queue=queue, rank=rank) for queue, rank in wanted for _ in range(2)}
    world.delayed(60, queue="later")
    database.run("DELETE FROM tq_lanes WHERE queue <> 'q1'")
    assert len(world.claim(node)) == 6

    assert world.driver.restore_lanes() == 6

    assert {job.id for job in world.claim(node)} < ids
    assert world.driver.unfinished(None) == len(ids)
    assert {row.state for row in world.everything()} == {State.PROCESSING, State.DELAYED}
    assert world.driver.restore_lanes() == 0


def test_without_pending_jobs_there_are_no_lanes_to_restore(world: World, database: Database) -> None:
    assert world.driver.restore_lanes() == 0
    world.delayed(60)
    database.run("DELETE FROM tq_lanes")
    assert world.driver.restore_lanes() == 0


# --- statistics ----------------------------------------------------------------------------------------------------


def test_a_minute_adds_up_what_several_nodes_did_in_it(world: World) -> None:
    world.clock.us = world.clock.us // MINUTE * MINUTE
    first, second = world.node(), world.node()
    world.driver.push_many([world.job() for _ in range(5)])
    for node, jobs, run_us in ((first, 2, 100), (second, 2, 300)):
        done = [world.completion(job, run_us=run_us, wait_us=run_us * 2) for job in world.claim(node, jobs)]
        world.driver.cycle(node, done, (), world.driver.lanes(None), 0)
    world.end(second, world.claim_one(second), Verb.FAIL)
    (minute,) = world.driver.rollups(0)
    assert (minute.minute, minute.queue) == (world.clock.us, "q")
    assert (minute.completed, minute.failed, minute.retried) == (4, 1, 0)
    assert (minute.run_us, minute.run_us_most, minute.wait_us, minute.wait_us_most) == (800, 300, 1600, 600)


def test_no_statistic_reads_a_row_of_history(driver: SQLDriver, world: World, node: int) -> None:
    finished(world, node, 2)
    read: list[str] = []
    event.listen(driver.engine, "before_cursor_execute", lambda *given: read.append(given[2]))
    driver.queues()
    driver.rollups(0)
    driver.rollups(0, "q")
    driver.nodes()
    driver.unfinished(None)
    driver.parked()
    assert len(read) >= 6
    assert [statement for statement in read if "tq_history" in statement] == []


# --- looking -------------------------------------------------------------------------------------------------------


def test_parked_jobs_are_told_by_what_they_wait_for(world: World, node: int) -> None:
    for job_class, blocker in (("app.A", BlockedBy.UNKNOWN_CLASS), ("app.B", BlockedBy.UNKNOWN_KEY)):
        world.push(job_class=job_class)
        world.end(node, world.claim_one(node), Verb.PARK, blocked_by=blocker)
    assert [tuple(each) for each in world.driver.parked()] == [
        ("q", BlockedBy.UNKNOWN_CLASS, "app.A", "k1", 1),
        ("q", BlockedBy.UNKNOWN_KEY, "app.B", "k1", 1),
    ]


def test_live_jobs_are_counted_by_key(world: World, node: int) -> None:
    world.push(key_id="k1")
    world.push(key_id="k2")
    finished_key = world.job(key_id="k3", queue="done")
    world.driver.push(finished_key)
    world.complete(node, *world.claim(node, queues=["done"]))
    assert world.driver.live_keys() == {"k1": 1, "k2": 1}


def test_a_sound_database_has_no_error_among_its_findings(driver: SQLDriver) -> None:
    findings = driver.findings()
    assert [each for each in findings if each.level is Level.ERROR] == []
    assert {"reachable", "schema", "indexes", "version", "durability", "rights", "size"} <= {
        each.check for each in findings
    }
    assert all(each.fix for each in findings if each.level is not Level.OK)
    assert all(not each.fix for each in findings if each.level is Level.OK)
