"""Who is charged for the death of a node: of several that may have caused it nobody, and never a bystander for good."""

from __future__ import annotations

from taskqueue.drivers.values import CRASHED_AGAIN_DELAY, BlockedBy, JobChanges, Rescue
from taskqueue.states import Reason, State, Verb
from tests.drivers.world import SECOND, World


def die(world: World, *, started: int) -> list[bytes]:
    """Have a node claim everything, begin so many jobs on record, and die; return which those were."""
    node = world.node()
    claimed = world.claim(node)
    for job in claimed[:started]:
        assert world.driver.record_start(node, job.id, job.lease)
    world.kill(node)
    while world.driver.rescue(node).total:
        pass
    return [job.id for job in claimed[:started]]


def history_of(world: World, job_id: bytes) -> tuple[int, int]:
    row = world.row(job_id)
    return row.crashes, row.losses


def test_the_only_job_whose_start_was_on_record_is_charged(world: World) -> None:
    jobs = [world.push() for _ in range(3)]
    (charged,) = die(world, started=1)
    assert {history_of(world, job) for job in jobs if job != charged} == {(0, 1)}
    assert history_of(world, charged) == (1, 0)


def test_of_several_whose_starts_were_on_record_nobody_is_charged(world: World) -> None:
    jobs = [world.push() for _ in range(3)]
    die(world, started=3)
    assert [history_of(world, job) for job in jobs] == [(0, 1)] * 3
    attempts = world.driver.attempts(jobs)
    assert {each.reason for job in jobs for each in attempts[job]} == {"lost"}


def test_a_strict_one_is_charged_whoever_else_was_started_beside_it(world: World) -> None:
    strict = world.push()
    for _ in range(2):
        die(world, started=0)
    others = [world.push() for _ in range(2)]
    die(world, started=3)
    assert history_of(world, strict) == (1, 2)
    assert [history_of(world, other) for other in others] == [(0, 1)] * 2


def test_more_jobs_than_a_batch_holds_are_judged_together(world: World) -> None:
    jobs = [world.push() for _ in range(5)]
    node = world.node()
    for job in world.claim(node):
        world.driver.record_start(node, job.id, job.lease)
    world.kill(node)
    while world.driver.rescue(node, 1).total:
        pass
    assert [history_of(world, job) for job in jobs] == [(0, 1)] * 5


def test_an_at_most_once_job_is_lost_and_clears_nobody(world: World) -> None:
    once, other = world.push(delivery=1), world.push()
    die(world, started=2)
    assert world.row(once).reason is Reason.LOST
    assert history_of(world, other) == (1, 0)


def test_from_its_second_crash_on_a_rescued_job_waits_ten_seconds(world: World) -> None:
    job = world.push()
    die(world, started=1)
    assert world.state(job) is State.PENDING
    die(world, started=1)
    row = world.row(job)
    assert (row.state, row.crashes, row.lease) == (State.DELAYED, 2, 4)
    assert row.ready_at == world.clock.now_us() + round(CRASHED_AGAIN_DELAY * SECOND)
    world.clock.advance(CRASHED_AGAIN_DELAY)
    assert world.driver.promote().promoted == 1
    die(world, started=1)
    assert (world.row(job).state, world.row(job).reason) == (State.FAILED, Reason.CRASHED)
    assert world.counts_are_exact()


def test_a_job_that_waits_after_a_loss_or_crash_is_not_finished(world: World) -> None:
    world.push()
    for _ in range(2):
        die(world, started=1)
    assert world.driver.unfinished(None) == 1


def test_a_node_that_lives_is_judged_by_nobody(world: World, node: int) -> None:
    job = world.push()
    claimed = world.claim_one(node)
    world.driver.record_start(node, job, claimed.lease)
    assert world.driver.rescue(node) == Rescue()
    assert history_of(world, job) == (0, 0)


def test_a_parked_job_that_returns_keeps_the_time_that_it_waits_for(world: World, node: int) -> None:
    """Its ``run_at`` was changed while it was parked: it is delayed, not pending."""
    later, now = world.push(), world.push()
    for claimed in world.claim(node):
        world.end(node, claimed, Verb.PARK, blocked_by=BlockedBy.UNKNOWN_CLASS)
    run_at = world.clock.now_us() + 60 * SECOND
    assert world.driver.update(later, JobChanges(run_at=run_at))
    assert world.driver.unpark(["app.Work"], []) == 2
    assert (world.row(later).state, world.row(later).ready_at) == (State.DELAYED, run_at)
    assert world.state(now) is State.PENDING
    assert [job.id for job in world.claim(node)] == [now]
