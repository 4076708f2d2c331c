from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from taskqueue.drivers.sql import SQLDriver
from taskqueue.drivers.values import JobChanges, JobFilter, tags_to_text
from taskqueue.states import Reason, State, Verb
from tests.drivers.world import SECOND, World


def failed(world: World, node: int, **values: Any) -> bytes:
    job_id = world.push(ready_at=1, rank=-99, **values)
    world.end(node, world.claim_one(node), Verb.FAIL, reason=Reason.ERROR)
    return job_id


# --- promote ------------------------------------------------------------------------------------------------


def test_due_jobs_become_pending_and_others_wait(world: World) -> None:
    due, later = world.delayed(1), world.delayed(100)
    first = world.driver.promote()
    world.clock.advance(1)

    second = world.driver.promote()

    assert (first.promoted, second.promoted) == (0, 1)
    assert world.state(due) is State.PENDING
    assert world.state(later) is State.DELAYED
    assert first.next_run_at == world.row(due).run_at
    assert second.next_run_at == world.row(later).run_at


def test_with_nothing_delayed_there_is_no_next_time(world: World) -> None:
    world.push()

    assert world.driver.promote().next_run_at is None


def test_the_longest_due_are_promoted_first(world: World) -> None:
    ids = [world.delayed(seconds) for seconds in (5, 1, 4, 2, 3)]
    world.clock.advance(10)

    promotion = world.driver.promote(2)

    assert promotion.promoted == 2
    assert [world.state(job_id) is State.PENDING for job_id in ids] == [False, True, False, True, False]
    assert promotion.next_run_at == world.row(ids[4]).run_at


def test_promoted_jobs_are_claimed_in_the_order_in_which_they_were_due(world: World, node: int) -> None:
    ids = [world.delayed(seconds) for seconds in (0.3, 0.1, 0.2)]
    world.clock.advance(0.4)
    world.driver.promote()

    assert [job.id for job in world.claim(node)] == [ids[1], ids[2], ids[0]]


def test_jobs_that_are_late_by_hours_are_claimed_in_the_order_in_which_they_were_due(world: World, node: int) -> None:
    late = (7200, 60, 10_799.5, 3600, 10_798, 10_795, 7199)
    ids = {world.delayed(seconds): seconds for seconds in late}
    world.clock.advance(10_800)
    world.driver.promote()

    assert [ids[job.id] for job in world.claim(node)] == sorted(late)


@pytest.mark.needs("dead_rows")
@pytest.mark.parametrize("days", [1, 1000])
def test_a_late_job_stands_at_most_two_seconds_behind_those_that_come_now(world: World, days: int) -> None:
    job_id = world.delayed(1)
    world.clock.advance(days * 86_400)
    world.driver.promote()

    assert -2 * SECOND <= world.row(job_id).ready_at - world.clock.now_us() < -SECOND


def test_a_job_becomes_due_in_its_very_microsecond(world: World) -> None:
    job_id = world.delayed(1)
    world.clock.us += SECOND - 1
    assert world.driver.promote().promoted == 0
    world.clock.us += 1
    assert world.driver.promote().promoted == 1
    assert world.state(job_id) is State.PENDING


# --- cancel -------------------------------------------------------------------------------------------------


def test_cancelling_returns_the_ids_and_keeps_the_payload(world: World) -> None:
    job_id = world.push(payload=b"kept", tags=tags_to_text(["t"]))
    world.clock.advance(1)

    assert world.driver.cancel(JobFilter(ids=[job_id])) == [job_id]

    row = world.row(job_id)
    assert (row.state, row.payload, row.tags) == (State.CANCELLED, b"kept", '["t"]')
    assert row.finished_at == world.clock.now_us()
    assert world.driver.cancel(JobFilter(ids=[job_id])) == []


def test_cancelling_by_filter_takes_what_matches(world: World) -> None:
    world.driver.push_many([world.job(queue=queue) for queue in "aabbb"])

    assert len(world.driver.cancel(JobFilter(queues=["b"]))) == 3
    assert world.counted() == {("a", State.PENDING): 2, ("b", State.CANCELLED): 3}
    assert world.counts_are_exact()


def test_thousands_of_jobs_are_cancelled_and_revived_in_one_call(world: World) -> None:
    world.driver.push_many([world.job() for _ in range(2100)])

    assert len(world.driver.cancel(JobFilter())) == 2100
    assert world.counted() == {("q", State.CANCELLED): 2100}
    assert len(world.driver.revive(JobFilter())) == 2100
    assert world.counted() == {("q", State.PENDING): 2100}


# --- revive -------------------------------------------------------------------------------------------------


def test_a_revived_job_starts_afresh_with_a_higher_lease(world: World, node: int) -> None:
    job_id = failed(world, node, expires_at=2**50, payload=b"kept", category="c")
    before = world.row(job_id)
    world.clock.advance(4)

    assert world.driver.revive(JobFilter(ids=[job_id])) == [job_id]

    row = world.row(job_id)
    assert (row.state, row.attempt, row.crashes, row.reason) == (State.PENDING, 0, 0, None)
    assert row.lease == before.lease + 1
    assert row.ready_at == world.clock.now_us()
    assert (row.expires_at, row.losses, row.payload, row.category) == (None, 0, b"kept", "c")
    assert (row.node_id, row.started_at, row.finished_at) == (None, None, None)
    assert world.counts_are_exact()


def test_the_lease_goes_on_counting_over_many_lives(world: World, node: int) -> None:
    job_id = failed(world, node)
    leases = [world.row(job_id).lease]
    for _ in range(3):
        world.driver.revive(JobFilter(ids=[job_id]))
        world.end(node, world.claim_one(node), Verb.FAIL)
        leases.append(world.row(job_id).lease)

    assert leases == [1, 3, 5, 7]
    assert [attempt.lease for attempt in world.driver.attempts([job_id])[job_id]] == leases


def test_a_revived_job_is_claimed_and_completed_like_any_other(world: World, node: int) -> None:
    job_id = failed(world, node)
    world.driver.revive(JobFilter(ids=[job_id]))

    world.complete(node, world.claim_one(node))

    assert world.state(job_id) is State.COMPLETED
    assert world.counts_are_exact()


def test_a_job_can_be_revived_for_later(world: World, node: int) -> None:
    job_id = failed(world, node)
    due = world.clock.now_us() + SECOND

    world.driver.revive(JobFilter(ids=[job_id]), run_at=due)

    assert (world.state(job_id), world.row(job_id).run_at) == (State.DELAYED, due)


def test_a_completed_job_is_not_revived(world: World, node: int) -> None:
    job_id = world.in_state(State.COMPLETED, node)

    assert world.driver.revive(JobFilter(ids=[job_id])) == []


def test_a_job_whose_unique_key_is_taken_stays_where_it_is(world: World, node: int) -> None:
    job_id = failed(world, node, unique_key=b"u" * 32)
    world.push(unique_key=b"u" * 32)

    assert world.driver.revive(JobFilter()) == []
    assert world.state(job_id) is State.FAILED
    assert world.counts_are_exact()


def test_of_two_with_the_same_unique_key_one_is_revived(world: World, node: int) -> None:
    failed(world, node, unique_key=b"u" * 32)
    failed(world, node, unique_key=b"u" * 32)

    assert len(world.driver.revive(JobFilter(states=[State.FAILED]))) == 1
    assert world.counts_are_exact()


def test_jobs_with_and_without_a_unique_key_are_revived_together(world: World, node: int) -> None:
    ids = [failed(world, node, unique_key=key) for key in (None, b"u" * 32, None, b"v" * 32, b"u" * 32)]
    taken = world.push(unique_key=b"v" * 32)

    assert world.driver.revive(JobFilter()) == ids[:3]

    assert {row.id for row in world.everything() if not row.state.final} == {*ids[:3], taken}
    assert world.counts_are_exact()


def test_jobs_without_a_unique_key_are_revived_many_at_a_time(driver: SQLDriver, world: World) -> None:
    world.driver.push_many([world.job() for _ in range(300)])
    world.driver.cancel(JobFilter())
    sent: list[str] = []
    event.listen(driver.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))

    assert len(world.driver.revive(JobFilter())) == 300
    assert 0 < len(sent) < 20


# --- change -------------------------------------------------------------------------------------------------


def test_tags_are_replaced(world: World) -> None:
    job_id = world.push(["old"], tags=tags_to_text(["old"]))

    assert world.driver.update(job_id, JobChanges(tags=("new", "newer")))

    assert world.driver.find(JobFilter(tag="old")) == []
    assert [row.tags for row in world.driver.find(JobFilter(tag="newer"))] == ['["new","newer"]']

    world.driver.update(job_id, JobChanges(tags=()))
    assert (world.driver.find(JobFilter(tag="new")), world.row(job_id).tags) == ([], None)


def test_a_new_time_delays_a_pending_job_and_an_old_one_makes_it_due(world: World) -> None:
    job_id = world.push()
    later = world.clock.now_us() + 60 * SECOND

    world.driver.update(job_id, JobChanges(run_at=later))
    assert (world.state(job_id), world.row(job_id).run_at) == (State.DELAYED, later)

    world.driver.update(job_id, JobChanges(run_at=world.clock.now_us()))
    assert (world.state(job_id), world.row(job_id).ready_at) == (State.PENDING, world.clock.now_us())


def test_a_blocked_job_stays_blocked_when_its_time_changes(world: World) -> None:
    job_id = world.push(state=State.BLOCKED.code)

    assert world.driver.update(job_id, JobChanges(run_at=5))

    assert (world.state(job_id), world.row(job_id).run_at) == (State.BLOCKED, 5)


def test_what_is_not_changed_stays(world: World) -> None:
    job_id = world.push(rank=4)
    before = world.row(job_id)

    assert world.driver.update(job_id, JobChanges())

    assert world.row(job_id) == before


def test_a_job_nobody_knows_is_not_changed(world: World) -> None:
    assert not world.driver.update(b"?" * 16, JobChanges(rank=1))


# --- delete and flush ---------------------------------------------------------------------------------------


def test_a_deleted_job_leaves_nothing_behind(world: World, node: int) -> None:
    live = world.push(["t"])
    dead = failed(world, node)
    world.driver.push(world.job(ready_at=2, rank=-99), ["t"])
    retried = world.claim_one(node)
    world.end(node, retried, Verb.RETRY)

    assert world.driver.delete(JobFilter()) == 3

    assert world.everything() == []
    assert world.driver.attempts([live, dead, retried.id]) == {}
    assert world.driver.count(JobFilter(tag="t")) == 0
    assert world.counts_are_exact()


def test_a_deleted_id_may_be_pushed_again(world: World, node: int) -> None:
    job = world.job()
    world.driver.push(job, ["t"])
    world.complete(node, world.claim_one(node))
    world.driver.delete(JobFilter(ids=[job.id]))

    world.driver.push(job)

    assert world.state(job.id) is State.PENDING
    assert world.driver.count(JobFilter(tag="t")) == 0


def test_flushing_one_queue_leaves_the_others(world: World, node: int) -> None:
    world.driver.push_many([world.job(queue=queue) for queue in "aab"], [["t"], [], ["t"]])
    world.delayed(60, queue="a")
    running = world.claim(node, 1, ["a"])

    assert world.driver.flush("a") == 2

    assert {row.queue for row in world.everything()} == {"a", "b"}
    assert world.state(running[0].id) is State.PROCESSING
    assert world.driver.flush() == 1


def test_flushing_keeps_history(world: World, node: int) -> None:
    job_id = failed(world, node)
    world.push()

    assert world.driver.flush() == 1
    assert world.state(job_id) is State.FAILED
    assert len(world.driver.attempts([job_id])) == 1


def test_flushing_removes_tags_and_attempts(world: World, node: int) -> None:
    world.driver.push(world.job(tags='["t"]'), ["t"])
    job = world.claim_one(node)
    world.end(node, job, Verb.RETRY)

    assert world.driver.flush() == 1
    assert world.driver.attempts([job.id]) == {}
    world.push(id=job.id)
    assert world.driver.count(JobFilter(tag="t")) == 0
