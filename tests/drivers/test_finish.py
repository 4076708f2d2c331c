from __future__ import annotations

import pytest
from sqlalchemy import literal, select

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED
from taskqueue.drivers.values import BlockedBy, Completion, Ending, JobFilter, Stale
from taskqueue.states import Reason, State, Verb
from tests.drivers.world import MINUTE, SECOND, World


def test_a_completed_job_keeps_who_ran_it_and_when(world: World, node: int) -> None:
    job_id = world.push(expires_at=2**50, category="c", tags='["t"]', max_attempts=7)
    claimed = world.claim_one(node)
    world.clock.advance(3)

    world.complete(node, claimed)

    row = world.row(job_id)
    assert row.state is State.COMPLETED
    assert row.result == b"result"
    assert (row.lease, row.attempt, row.max_attempts, row.node_id) == (1, 1, 7, node)
    assert (row.expires_at, row.category, row.tags) == (2**50, "c", '["t"]')
    assert row.finished_at == world.clock.now_us()
    assert row.run_us == 500
    assert row.started_at == world.clock.now_us() - 500


def test_the_payload_of_a_completed_job_is_dropped(world: World, node: int) -> None:
    job_id = world.push()
    world.complete(node, world.claim_one(node))

    assert world.row(job_id).payload is None


def test_a_completion_without_a_result_stores_none(world: World, node: int) -> None:
    job_id = world.push()
    done = world.completion(world.claim_one(node), result=None)

    world.driver.cycle(node, [done], (), world.driver.lanes(None), 0)

    assert world.row(job_id).result is None


@pytest.mark.parametrize("jobs", [1, 2, 7, 9, 100, 129, 300])
def test_batches_of_any_length_are_completed(world: World, node: int, jobs: int) -> None:
    world.driver.push_many([world.job() for _ in range(jobs)])

    cycle = world.complete(node, *world.claim(node, jobs))

    assert list(cycle.stale) == []
    assert world.counted() == {("q", State.COMPLETED): jobs}


def test_a_stale_completion_changes_nothing_and_is_reported(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.end(node, claimed, Verb.RELEASE)
    before = world.row(job_id)

    cycle = world.complete(node, claimed)

    assert list(cycle.stale) == [Stale(job_id, claimed.lease)]
    assert world.row(job_id) == before
    assert world.counts_are_exact()


def test_among_many_completions_only_the_stale_ones_are_refused(world: World, node: int) -> None:
    world.driver.push_many([world.job() for _ in range(20)])
    claimed = world.claim(node)
    lost = claimed[3::5]
    for job in lost:
        world.end(node, job, Verb.RELEASE)

    cycle = world.complete(node, *claimed)

    assert {stale.id for stale in cycle.stale} == {job.id for job in lost}
    assert world.counted() == {("q", State.COMPLETED): 16, ("q", State.PENDING): 4}
    assert world.counts_are_exact()


def test_a_completion_given_twice_counts_once(world: World, node: int) -> None:
    world.push()
    done = world.completion(world.claim_one(node))
    lanes = world.driver.lanes(None)

    first = world.driver.cycle(node, [done, done], (), lanes, 0)
    second = world.driver.cycle(node, [done], (), lanes, 0)

    assert len(first.stale) == len(second.stale) == 1
    assert world.counted() == {("q", State.COMPLETED): 1}


def test_an_unknown_job_is_stale(world: World, node: int) -> None:
    unknown = Completion(b"?" * 16, 1, "q", 1, 1, 1, None)
    ending = Ending(b"?" * 16, 1, "q", Verb.FAIL, 1)

    cycle = world.driver.cycle(node, [unknown], [ending], world.driver.lanes(None), 0)

    assert list(cycle.stale) == [Stale(b"?" * 16, 1)] * 2
    assert world.counted() == {}


def test_jobs_are_claimed_in_the_same_cycle_as_a_stale_completion(world: World, node: int) -> None:
    world.push()
    unknown = Completion(b"?" * 16, 1, "q", 1, 1, 1, None)

    cycle = world.driver.cycle(node, [unknown], (), world.driver.lanes(None), 5)

    assert (len(cycle.stale), len(cycle.claimed)) == (1, 1)


def test_a_retry_waits_until_its_time(world: World, node: int) -> None:
    job_id = world.push()
    due = world.clock.now_us() + 10 * SECOND

    assert world.end(node, world.claim_one(node), Verb.RETRY, run_at=due) == []

    row = world.row(job_id)
    assert (row.state, row.run_at, row.lease, row.attempt, row.node_id) == (State.DELAYED, due, 2, 1, None)
    assert world.claim(node) == []


def test_without_a_time_a_retried_job_is_pending_at_once(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.clock.advance(5)

    world.end(node, claimed, Verb.RETRY)

    row = world.row(job_id)
    assert (row.state, row.ready_at, row.lease) == (State.PENDING, world.clock.now_us(), 2)


def test_a_released_job_keeps_its_place_before_later_ones(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.clock.advance(5)
    world.push()

    world.end(node, claimed, Verb.RELEASE, spent=False)

    assert (world.row(job_id).state, world.row(job_id).lease) == (State.PENDING, 2)
    assert world.claim(node, limit=1)[0].id == job_id


def test_a_time_that_has_passed_is_at_once(world: World, node: int) -> None:
    job_id = world.push()
    world.end(node, world.claim_one(node), Verb.RETRY, run_at=world.clock.now_us() - 1)

    assert world.state(job_id) is State.PENDING


def test_a_release_gives_the_attempt_back_where_it_was_not_spent(world: World, node: int) -> None:
    job_id = world.push()

    world.end(node, world.claim_one(node), Verb.RELEASE, spent=False)
    assert world.row(job_id).attempt == 0

    world.end(node, world.claim_one(node), Verb.RELEASE)
    assert world.row(job_id).attempt == 1


def test_a_release_leaves_no_attempt_behind(world: World, node: int) -> None:
    job_id = world.push()
    world.end(node, world.claim_one(node), Verb.RELEASE, spent=False)

    assert world.driver.attempts([job_id]) == {}


def test_a_crash_is_counted_apart_from_attempts(world: World, node: int) -> None:
    job_id = world.push()

    world.end(node, world.claim_one(node), Verb.RETRY, crashed=True, spent=False, reason=Reason.CRASHED)
    world.end(node, world.claim_one(node), Verb.RETRY, lost=True, spent=False, reason=Reason.LOST)

    row = world.row(job_id)
    assert (row.crashes, row.losses, row.attempt) == (1, 1, 0)
    assert [attempt.reason for attempt in world.driver.attempts([job_id])[job_id]] == ["crashed", "lost"]


def test_a_failed_job_keeps_its_payload_and_its_reason(world: World, node: int) -> None:
    job_id = world.push(payload=b"kept")

    world.end(node, world.claim_one(node), Verb.FAIL, reason=Reason.TIMED_OUT, run_us=77, crashed=True)

    row = world.row(job_id)
    assert (row.state, row.reason, row.payload) == (State.FAILED, Reason.TIMED_OUT, b"kept")
    assert (row.run_us, row.crashes, row.lease, row.attempt) == (77, 1, 1, 1)


def test_a_failure_without_a_reason_is_an_error(world: World, node: int) -> None:
    job_id = world.push()
    world.end(node, world.claim_one(node), Verb.FAIL)

    assert world.row(job_id).reason is Reason.ERROR


def test_a_cancelled_run_goes_to_history_with_its_payload(world: World, node: int) -> None:
    job_id = world.push(payload=b"kept")

    world.end(node, world.claim_one(node), Verb.CANCEL)

    row = world.row(job_id)
    assert (row.state, row.reason, row.payload) == (State.CANCELLED, None, b"kept")
    assert world.driver.attempts([job_id]) == {}


def test_a_parked_job_waits_for_what_it_lacks(world: World, node: int) -> None:
    job_id = world.push()

    world.end(node, world.claim_one(node), Verb.PARK, blocked_by=BlockedBy.UNKNOWN_CLASS)

    row = world.row(job_id)
    assert (row.state, row.blocked_by, row.attempt, row.lease) == (State.BLOCKED, BlockedBy.UNKNOWN_CLASS, 0, 2)
    assert world.claim(node) == []


def test_parked_jobs_return_to_nodes_that_know_their_class_or_key(world: World, node: int) -> None:
    by_class = world.push(job_class="app.New")
    world.end(node, world.claim_one(node), Verb.PARK, blocked_by=BlockedBy.UNKNOWN_CLASS)
    by_key = world.push(key_id="k2")
    world.end(node, world.claim_one(node), Verb.PARK, blocked_by=BlockedBy.UNKNOWN_KEY)
    waiting = world.push(state=State.BLOCKED.code, job_class="app.New", key_id="k2")

    assert world.driver.unpark([], []) == 0
    assert world.driver.unpark(["app.Old"], ["k1"]) == 0
    assert world.driver.unpark(["app.New"], ["k1"]) == 1
    assert world.state(by_class) is State.PENDING
    assert world.driver.unpark(["app.New", *(f"app.C{number}" for number in range(2500))], ["k2"]) == 1
    assert world.row(by_key).blocked_by is BlockedBy.NOTHING
    assert world.state(waiting) is State.BLOCKED


def test_every_attempt_keeps_its_own_error(world: World, node: int) -> None:
    job_id = world.push()
    for number in (1, 2, 3):
        claimed = world.claim_one(node)
        world.clock.advance(1)
        world.end(
            node,
            claimed,
            Verb.RETRY if number < 3 else Verb.FAIL,
            reason=Reason.ERROR if number < 3 else Reason.TIMED_OUT,
            error_type=f"Error{number}",
            error=bytes([number]),
            key_id="k1",
            run_us=number,
        )

    attempts = world.driver.attempts([job_id])[job_id]

    assert [attempt.attempt for attempt in attempts] == [1, 2, 3]
    assert [attempt.lease for attempt in attempts] == [1, 3, 5]
    assert [attempt.error for attempt in attempts] == [b"\1", b"\2", b"\3"]
    assert [attempt.error_type for attempt in attempts] == ["Error1", "Error2", "Error3"]
    assert [attempt.reason for attempt in attempts] == ["error", "error", "timed_out"]
    assert all(attempt.node_id == node for attempt in attempts)
    assert [attempt.finished_at - (attempt.started_at or 0) for attempt in attempts] == [1, 2, 3]


@pytest.mark.parametrize("verb", [Verb.RETRY, Verb.FAIL, Verb.RELEASE, Verb.PARK, Verb.CANCEL])
def test_a_stale_ending_changes_nothing_and_is_reported(world: World, node: int, verb: Verb) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.end(node, claimed, Verb.RELEASE)
    before = world.row(job_id)

    stale = world.end(node, claimed, verb, error_type="Late", error=b"late", crashed=True)

    assert list(stale) == [Stale(job_id, claimed.lease)]
    assert world.row(job_id) == before
    assert world.driver.attempts([job_id]) == {}
    assert world.counts_are_exact()


def test_a_recorded_start_is_kept_and_its_time_is_the_start(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.clock.advance(1)
    started = world.clock.now_us()

    assert world.driver.record_start(node, job_id, claimed.lease)

    world.clock.advance(1)
    world.end(node, claimed, Verb.FAIL)
    assert world.row(job_id).started_at == started


def test_a_start_is_not_recorded_for_a_lease_that_has_moved_on(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    other = world.node()

    assert not world.driver.record_start(other, job_id, claimed.lease)
    assert not world.driver.record_start(node, job_id, claimed.lease + 1)
    world.end(node, claimed, Verb.RELEASE)
    assert not world.driver.record_start(node, job_id, claimed.lease)
    assert world.row(job_id).started_at is None


def test_a_second_run_starts_without_the_first_ones_record(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.driver.record_start(node, job_id, claimed.lease)

    world.end(node, claimed, Verb.RETRY)

    row = world.row(job_id)
    assert (row.started_at, row.claimed_at, row.node_id) == (None, None, None)


def test_minutes_add_up_what_happened_in_them(world: World, node: int) -> None:
    world.clock.us = world.clock.us // MINUTE * MINUTE
    start = world.clock.us
    world.driver.push_many([world.job() for _ in range(4)])
    first, second, third, fourth = world.claim(node)
    world.driver.cycle(
        node,
        [world.completion(first, run_us=10, wait_us=1), world.completion(second, run_us=30, wait_us=5)],
        (),
        world.driver.lanes(None),
        0,
    )
    world.end(node, third, Verb.RETRY)
    world.clock.advance(60)
    world.end(node, fourth, Verb.FAIL)

    minutes = world.driver.rollups(start)

    assert [(row.minute - start, row.queue) for row in minutes] == [(0, "q"), (MINUTE, "q")]
    assert (minutes[0].completed, minutes[0].failed, minutes[0].retried) == (2, 0, 1)
    assert (minutes[0].run_us, minutes[0].run_us_most) == (40, 30)
    assert (minutes[0].wait_us, minutes[0].wait_us_most) == (6, 5)
    assert (minutes[1].completed, minutes[1].failed, minutes[1].retried) == (0, 1, 0)
    assert world.driver.rollups(start + 1) == minutes[1:]
    assert world.driver.rollups(start, "other") == []


def test_minutes_add_up_over_nodes_and_cycles(world: World) -> None:
    for _ in range(3):
        node = world.node()
        for queue in ("a", "b"):
            world.driver.push_many([world.job(queue=queue) for _ in range(2)])
        world.complete(node, *world.claim(node))

    assert [(row.queue, row.completed, row.run_us) for row in world.driver.rollups(0)] == [
        ("a", 6, 3000),
        ("b", 6, 3000),
    ]


def test_a_batch_that_spans_minutes_and_queues_is_counted_in_each(world: World, node: int) -> None:
    world.driver.push_many([world.job(queue=queue) for queue in ("a", "a", "b", "b")])
    claimed = sorted(world.claim(node), key=lambda job: job.queue)
    start = world.clock.us // MINUTE * MINUTE
    done = [world.completion(job, finished_at=start + number * MINUTE) for number, job in enumerate(claimed)]

    world.driver.cycle(node, done, (), world.driver.lanes(None), 0)

    rows = [(row.minute, row.queue, row.completed) for row in world.driver.rollups(start)]
    assert rows == [
        (start, "a", 1),
        (start + MINUTE, "a", 1),
        (start + 2 * MINUTE, "b", 1),
        (start + 3 * MINUTE, "b", 1),
    ]


def test_a_queue_may_keep_the_payloads_of_completed_jobs(world: World, node: int) -> None:
    keep = tables.queues.insert().values(queue="keeping", keep_payload=1)
    world.driver.write(lambda connection: connection.execute(keep))  # type: ignore[attr-defined]
    kept, dropped = world.push(queue="keeping"), world.push(queue="dropping")

    world.complete(node, *world.claim(node))

    assert world.row(kept).payload == b"sealed"
    assert world.row(dropped).payload is None
    assert world.counts_are_exact()


def test_a_job_removed_under_a_running_worker_is_stale(world: World, node: int) -> None:
    claimed = world.claim_one(node) if world.push() else None
    assert claimed is not None
    remove = tables.jobs.delete()
    world.driver.write(lambda connection: connection.execute(remove))  # type: ignore[attr-defined]

    assert len(world.complete(node, claimed).stale) == 1
    assert world.driver.count(JobFilter()) == 0


# --- a job that came in a second time ------------------------------------------------------------------------------


def finish_behind_our_back(world: World, job_id: bytes) -> None:
    """Note a job in history and leave its live row."""
    names = [name for name in CARRIED if name != "state"]
    found = select(*[tables.jobs.c[name] for name in names], literal(State.COMPLETED.code), literal(1))
    noted = tables.history.insert().from_select(
        [*names, "state", "finished_at"], found.where(tables.jobs.c.id == job_id), include_defaults=False
    )
    world.driver.write(lambda connection: connection.execute(noted))  # type: ignore[attr-defined]


def test_a_completed_job_that_has_finished_already_is_stale_and_the_others_are_written(world: World, node: int) -> None:
    ids = [world.push() for _ in range(3)]
    claimed = world.claim(node)
    finish_behind_our_back(world, ids[1])

    stale = world.complete(node, *claimed).stale

    assert [each.id for each in stale] == [ids[1]]
    assert sorted(row.id for row in world.everything()) == sorted(ids)
    assert {world.state(each) for each in ids} == {State.COMPLETED}


def test_a_failed_job_that_has_finished_already_is_stale(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    finish_behind_our_back(world, job_id)

    stale = world.end(node, claimed, Verb.FAIL)

    assert [each.id for each in stale] == [job_id]
    assert [row.state for row in world.everything()] == [State.COMPLETED]
