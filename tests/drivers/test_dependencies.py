"""Jobs that wait for others: when they start, and what becomes of them when a parent does not complete."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from taskqueue.drivers.tables import dependencies
from taskqueue.drivers.values import (
    CRASH_LIMIT,
    CRASHED_AGAIN_DELAY,
    PARENT_FAILURE_CODES,
    BlockedBy,
    JobFilter,
    NewJob,
)
from taskqueue.errors import DependencyError
from taskqueue.ids import new_id
from taskqueue.states import ParentFailure, Reason, State, Verb
from tests.databases import Database
from tests.drivers.world import World

FAIL, CANCEL, RUN, WAIT = ParentFailure


def child_of(world: World, *parents: bytes, policy: ParentFailure = FAIL, **values: Any) -> bytes:
    job = world.job(on_parent_failure=PARENT_FAILURE_CODES[policy], **values)
    world.driver.push(job, (), parents)
    return job.id


def complete(world: World, node: int, *job_ids: bytes) -> None:
    world.complete(node, *held(world, node, job_ids))


def fail(world: World, node: int, job_id: bytes) -> None:
    (job,) = held(world, node, [job_id])
    world.end(node, job, Verb.FAIL, reason=Reason.ERROR)


def held(world: World, node: int, job_ids: Sequence[bytes]) -> list[Any]:
    """Claim everything and return those of ``job_ids``."""
    world.claim(node, 10_000)
    found = {job.id: job for job in world.driver.held(node)}
    return [found[each] for each in job_ids]


def edges(world: World) -> int:
    """Return how many edges are stored."""
    count = select(func.count()).select_from(dependencies)
    return world.driver.read(lambda connection: connection.execute(count).scalar_one())  # type: ignore[attr-defined,no-any-return]


def nothing_hangs(world: World) -> bool:
    """Say whether every count is exact and every blocked job waits for parents that can still end."""
    blocked = [row for row in world.everything() if row.blocked_by is BlockedBy.PARENTS]
    parents = world.driver.parents([row.id for row in blocked])
    return (
        world.counts_are_exact()
        and all(row.state is State.BLOCKED for row in blocked)
        and all(parents.get(row.id) for row in blocked)
        and edges(world) == sum(map(len, parents.values()))
    )


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_child_waits_until_all_of_its_parents_have_completed(world: World, node: int) -> None:
    first, second = world.push(), world.push()
    child = child_of(world, first, second)
    assert (world.state(child), world.row(child).blocked_by) == (State.BLOCKED, BlockedBy.PARENTS)
    assert world.driver.parents([child]) == {child: sorted([first, second])}

    complete(world, node, first)
    assert world.state(child) is State.BLOCKED
    assert world.driver.parents([child]) == {child: [second]}

    world.clock.advance(5)
    complete(world, node, second)

    row = world.row(child)
    assert (row.state, row.blocked_by) == (State.PENDING, BlockedBy.NOTHING)
    assert row.ready_at - world.clock.us in range(1000)
    assert [job.id for job in world.claim(node)] == [child]
    assert nothing_hangs(world)


def test_parents_that_complete_together_release_a_child_at_once(world: World, node: int) -> None:
    parents = [world.push() for _ in range(5)]
    child = child_of(world, *parents)

    complete(world, node, *parents)

    assert world.state(child) is State.PENDING
    assert nothing_hangs(world)


def test_a_released_child_is_claimed_in_the_cycle_that_released_it(world: World, node: int) -> None:
    child = child_of(world, parent := world.push())
    (job,) = held(world, node, [parent])

    cycle = world.driver.cycle(node, [world.completion(job)], (), world.driver.lanes(None), 10)

    assert [claimed.id for claimed in cycle.claimed] == [child]


def test_a_child_with_a_time_of_its_own_becomes_delayed(world: World, node: int) -> None:
    parent = world.push()
    at = world.clock.us + 60_000_000
    child = child_of(world, parent, state=State.DELAYED.code, run_at=at, ready_at=at)
    assert world.state(child) is State.BLOCKED

    complete(world, node, parent)

    assert (world.state(child), world.row(child).ready_at) == (State.DELAYED, at)
    world.clock.advance(61)
    world.driver.promote()
    assert world.state(child) is State.PENDING


def test_a_blocked_child_is_not_promoted_when_its_time_comes(world: World, node: int) -> None:
    parent = world.push()
    at = world.clock.us + 60_000_000
    child = child_of(world, parent, state=State.DELAYED.code, run_at=at, ready_at=at)
    world.clock.advance(61)
    world.driver.promote()
    assert world.state(child) is State.BLOCKED

    complete(world, node, parent)

    assert world.state(child) is State.PENDING


def test_a_retry_of_a_parent_is_no_end(world: World, node: int) -> None:
    child = child_of(world, parent := world.push())
    for verb in (Verb.RETRY, Verb.RELEASE):
        (job,) = held(world, node, [parent])
        world.end(node, job, verb)
        assert world.state(child) is State.BLOCKED

    complete(world, node, parent)

    assert world.state(child) is State.PENDING


def test_a_completion_that_was_fenced_off_releases_nobody(world: World, node: int) -> None:
    child = child_of(world, parent := world.push())
    (job,) = held(world, node, [parent])
    world.end(node, job, Verb.RELEASE)

    assert len(world.complete(node, job).stale) == 1

    assert world.state(child) is State.BLOCKED


def test_a_finished_parent_has_been_waited_for(world: World, node: int) -> None:
    done = world.push()
    complete(world, node, done)

    child = child_of(world, done)
    later = world.clock.us + 60_000_000
    delayed = child_of(world, done, state=State.DELAYED.code, run_at=later, ready_at=later)

    assert (world.state(child), world.state(delayed)) == (State.PENDING, State.DELAYED)
    assert edges(world) == 0


def test_a_parent_that_is_named_twice_counts_once(world: World, node: int) -> None:
    parent = world.push()
    child = child_of(world, parent, parent)

    complete(world, node, parent)

    assert world.state(child) is State.PENDING


def test_a_push_that_is_repeated_leaves_its_child_as_it_is(world: World, node: int) -> None:
    parent = world.push()
    job = world.job()
    world.driver.push(job, (), [parent])
    world.driver.push(job, (), [parent])
    complete(world, node, parent)
    assert world.state(job.id) is State.PENDING

    other = world.push()
    world.driver.push(job, (), [other])

    assert world.state(job.id) is State.PENDING
    complete(world, node, job.id)
    world.driver.delete(JobFilter(ids=[parent]))
    world.driver.push(job, (), [parent])
    assert world.state(job.id) is State.COMPLETED
    assert nothing_hangs(world)


def test_a_child_is_pushed_in_the_callers_transaction(world: World, node: int, database: Database) -> None:
    parent, job = world.push(), world.job()
    with database.engine.connect() as connection:
        world.driver.push_within(connection, [job], (), [[parent]])
        connection.rollback()
        assert edges(world) == 0
        world.driver.push_within(connection, [job], (), [[parent]])
        connection.commit()

    complete(world, node, parent)

    assert world.state(job.id) is State.PENDING
    assert nothing_hangs(world)


# --- parents that do not complete ------------------------------------------------------------------------------------

Ends = Callable[[World, int, bytes], object]
ENDS: dict[str, Ends] = {
    "fails": fail,
    "is cancelled by its node": lambda world, node, job_id: world.end(
        node, held(world, node, [job_id])[0], Verb.CANCEL
    ),
    "is cancelled": lambda world, _, job_id: world.driver.cancel(JobFilter(ids=[job_id])),
    "is deleted": lambda world, _, job_id: world.driver.delete(JobFilter(ids=[job_id])),
    "is flushed": lambda world, _, job_id: world.driver.flush("parents"),
    "crashes": lambda world, node, job_id: crash(world, job_id),
}


def crash(world: World, job_id: bytes) -> None:
    """Let a job take down nodes until it is failed for that."""
    for _ in range(CRASH_LIMIT):
        node = world.node()
        (job,) = held(world, node, [job_id])
        world.driver.record_start(node, job.id, job.lease)
        world.kill(node)
        world.driver.rescue(node)
        world.clock.advance(CRASHED_AGAIN_DELAY)
        world.driver.promote()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("policy", "state", "reason"),
    [
        (FAIL, State.FAILED, Reason.DEPENDENCY_FAILED),
        (CANCEL, State.CANCELLED, None),
        (RUN, State.PENDING, None),
    ],
)
def test_a_child_does_as_it_was_told_when_its_parent(
    world: World, node: int, end: str, policy: ParentFailure, state: State, reason: Reason | None
) -> None:
    child = child_of(world, parent := world.push(queue="parents"), policy=policy)

    ENDS[end](world, node, parent)

    assert (world.state(child), world.row(child).reason) == (state, reason)
    assert world.row(child).payload == b"sealed"
    assert nothing_hangs(world)


@pytest.mark.parametrize("end", ["fails", "is cancelled", "crashes"])
def test_a_child_that_waits_goes_on_until_its_parent_was_revived_and_completed(
    world: World, node: int, end: str
) -> None:
    child = child_of(world, parent := world.push(), policy=WAIT)
    ENDS[end](world, node, parent)
    assert (world.state(child), world.driver.parents([child])) == (State.BLOCKED, {child: [parent]})

    world.driver.revive(JobFilter(ids=[parent]))
    complete(world, node, parent)

    assert world.state(child) is State.PENDING
    assert nothing_hangs(world)


@pytest.mark.parametrize("finished", [False, True])
def test_a_child_that_waits_is_cancelled_when_its_parent_can_never_come_back(
    world: World, node: int, finished: bool
) -> None:
    child = child_of(world, parent := world.push(), policy=WAIT)
    grandchild = child_of(world, child)
    if finished:
        fail(world, node, parent)

    world.driver.delete(JobFilter(ids=[parent]))

    assert world.state(child) is State.CANCELLED
    assert world.state(grandchild) is State.FAILED
    assert nothing_hangs(world)


@pytest.mark.parametrize(
    ("policy", "state"),
    [(FAIL, State.FAILED), (CANCEL, State.CANCELLED), (RUN, State.PENDING), (WAIT, State.BLOCKED)],
)
def test_a_parent_that_has_failed_before_the_push_decides_at_once(
    world: World, node: int, policy: ParentFailure, state: State
) -> None:
    failed, live = world.push(), world.push()
    fail(world, node, failed)

    child = child_of(world, failed, policy=policy)
    both = child_of(world, failed, live, policy=policy)

    assert world.state(child) is state
    assert world.state(both) is (State.BLOCKED if policy is RUN else state)
    assert nothing_hangs(world)


def test_a_child_that_waits_for_a_failed_parent_starts_when_that_was_revived(world: World, node: int) -> None:
    failed = world.push()
    fail(world, node, failed)
    child = child_of(world, failed, policy=WAIT)

    world.driver.revive(JobFilter(ids=[failed]))
    complete(world, node, failed)

    assert world.state(child) is State.PENDING
    assert nothing_hangs(world)


def test_a_child_that_failed_with_a_parent_waits_for_nobody_after_its_revival(world: World, node: int) -> None:
    failed, open_one = world.push(), world.push()
    child = child_of(world, failed, open_one)
    fail(world, node, failed)
    assert world.state(child) is State.FAILED

    assert world.driver.revive(JobFilter(ids=[child])) == [child]

    assert (world.state(child), world.row(child).blocked_by) == (State.PENDING, BlockedBy.NOTHING)
    complete(world, node, open_one)
    assert nothing_hangs(world)


def test_an_end_is_passed_on_through_a_family(world: World, node: int) -> None:
    root = world.push()
    fails = child_of(world, root)
    cancelled = child_of(world, fails, policy=CANCEL)
    runs = child_of(world, cancelled, policy=RUN)
    waits = child_of(world, cancelled, policy=WAIT)
    both = child_of(world, root, cancelled)
    other = child_of(world, world.push())

    fail(world, node, root)

    found = [world.state(each) for each in (fails, cancelled, runs, waits, both, other)]
    assert found == [
        State.FAILED, State.CANCELLED, State.PENDING, State.BLOCKED, State.FAILED, State.BLOCKED
    ]  # fmt: skip
    assert world.driver.parents([waits]) == {waits: [cancelled]}
    assert nothing_hangs(world)


def test_the_children_of_a_cancelled_queue_are_not_left_behind(world: World) -> None:
    parents = [world.push(queue="a") for _ in range(3)]
    inside = child_of(world, *parents, queue="a")
    outside = child_of(world, inside, *parents, queue="b", policy=CANCEL)

    assert len(world.driver.cancel(JobFilter(queues=["a"]))) == 4

    assert (world.state(inside), world.state(outside)) == (State.CANCELLED, State.CANCELLED)
    assert nothing_hangs(world)


def test_a_child_that_is_cancelled_or_deleted_is_forgotten_by_its_parents(world: World, node: int) -> None:
    parent = world.push()
    for forget in (world.driver.cancel, world.driver.delete):
        child = child_of(world, parent)
        forget(JobFilter(ids=[child]))
        assert edges(world) == 0

    complete(world, node, parent)

    assert nothing_hangs(world)


def test_flushing_takes_families_with_it(world: World) -> None:
    alone, parent = world.push(["t"]), world.push()
    child = child_of(world, parent)

    assert world.driver.flush() == 3

    assert [world.state(each) for each in (alone, parent, child)] == [None, None, None]
    assert nothing_hangs(world)


# --- families pushed together ----------------------------------------------------------------------------------------


def test_jobs_pushed_together_may_depend_on_each_other_in_any_order(world: World, node: int) -> None:
    grandchild, child, parent = jobs = [world.job() for _ in range(3)]
    world.driver.push_many(jobs, (), [[child.id], [parent.id], []])
    assert [world.state(job.id) for job in jobs] == [State.BLOCKED, State.BLOCKED, State.PENDING]

    for job in (parent, child):
        complete(world, node, job.id)

    assert world.state(grandchild.id) is State.PENDING
    assert nothing_hangs(world)


def test_a_parent_that_has_failed_is_told_to_a_whole_batch(world: World, node: int) -> None:
    failed = world.push()
    fail(world, node, failed)
    last, first = jobs = [world.job(), world.job()]

    world.driver.push_many(jobs, [["t"], []], [[first.id], [failed]])

    assert [world.state(job.id) for job in jobs] == [State.FAILED, State.FAILED]
    assert world.row(last.id).reason is Reason.DEPENDENCY_FAILED
    assert [row.id for row in world.driver.find(JobFilter(tag="t"))] == [last.id]
    assert nothing_hangs(world)


def test_a_cycle_is_refused_with_its_path(world: World) -> None:
    jobs = [world.job() for _ in range(4)]
    ids = [str(job_id) for job_id in map(_uuid, jobs)]

    with pytest.raises(DependencyError, match=f"{ids[1]} -> {ids[2]} -> {ids[3]} -> {ids[1]}"):
        world.driver.push_many(jobs, (), [[jobs[1].id], [jobs[2].id], [jobs[3].id], [jobs[1].id]])

    assert world.everything() == []


def test_a_job_that_depends_on_itself_is_refused(world: World) -> None:
    job = world.job()
    with pytest.raises(DependencyError, match=f"{_uuid(job)} depends on itself"):
        world.driver.push(job, (), [job.id])
    assert world.everything() == []


def test_a_parent_that_nobody_knows_is_refused_and_nothing_stored(world: World, database: Database) -> None:
    unknown, job = new_id(), world.job()
    with pytest.raises(DependencyError, match=f"{_uuid(job)} depends on job {unknown}, which does not exist"):
        world.driver.push_many([world.job(), job], (), [[], [unknown.bytes]])

    with database.engine.begin() as connection, pytest.raises(DependencyError, match="does not exist"):
        world.driver.push_within(connection, [world.job(), job], (), [[], [unknown.bytes]])
    assert world.everything() == []


def test_more_than_a_thousand_parents_are_refused(world: World) -> None:
    with pytest.raises(DependencyError, match="depends on 1,001 jobs, at most 1,000"):
        world.driver.push(world.job(), (), [new_id().bytes for _ in range(1001)])


def _uuid(job: NewJob) -> UUID:
    return UUID(bytes=job.id)


# --- many ------------------------------------------------------------------------------------------------------------


def test_a_parent_has_thousands_of_children(world: World, node: int) -> None:
    parent = world.push()
    children = [world.job() for _ in range(2500)]
    world.driver.push_many(children, (), [[parent]] * len(children))

    complete(world, node, parent)

    assert world.driver.count(JobFilter(states=[State.PENDING])) == 2500
    assert nothing_hangs(world)


@pytest.mark.parametrize("end", [complete, fail])
def test_a_child_has_a_thousand_parents(world: World, node: int, end: Ends) -> None:
    parents = [world.job() for _ in range(1000)]
    world.driver.push_many(parents)
    child = child_of(world, *[job.id for job in parents])

    complete(world, node, *[job.id for job in parents[1:]])
    assert world.state(child) is State.BLOCKED
    end(world, node, parents[0].id)

    assert world.state(child) is (State.PENDING if end is complete else State.FAILED)
    assert nothing_hangs(world)


def test_a_failure_goes_down_a_chain_of_any_length(world: World, node: int) -> None:
    chain = [world.job() for _ in range(3000)]
    random.Random(1).shuffle(chain)
    world.driver.push_many(chain, (), [[], *[[parent.id] for parent in chain[:-1]]])

    fail(world, node, chain[0].id)

    assert world.driver.count(JobFilter(reason=Reason.DEPENDENCY_FAILED)) == 2999
    assert nothing_hangs(world)


@pytest.mark.needs("concurrent_writers")
def test_jobs_that_another_push_stores_at_the_same_moment_are_passed_over(
    world: World, node: int, database: Database
) -> None:
    parent, jobs = world.push(), [world.job() for _ in range(20)]
    with database.engine.connect() as connection:
        world.driver.push_within(connection, jobs[:10])
        second = threading.Thread(target=world.driver.push_many, args=(jobs, (), [[parent]] * 20))
        second.start()
        second.join(0.5)
        assert second.is_alive()
        connection.commit()
    second.join()

    assert [world.state(job.id) for job in jobs] == [State.PENDING] * 10 + [State.BLOCKED] * 10
    complete(world, node, parent)
    assert world.driver.count(JobFilter(states=[State.BLOCKED])) == 0
    assert nothing_hangs(world)
