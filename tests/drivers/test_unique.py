"""Unique keys: one live job for each, whoever pushes at the same moment, finishes or rolls back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session

from taskqueue.clock import SYSTEM_CLOCK
from taskqueue.drivers import open_driver
from taskqueue.drivers.values import PARENT_FAILURE_CODES, JobFilter, NewJob, Standing
from taskqueue.errors import DuplicateJob
from taskqueue.states import OnConflict, ParentFailure, State
from tests.databases import Database
from tests.drivers.test_processes import start
from tests.drivers.world import World

KEY = b"k" * 32
A_WHILE = 0.3


@pytest.fixture
def busy(url: str) -> Iterator[World]:
    """Return a world in which time passes by itself, so that waiting for a lock takes as long as it takes."""
    driver = open_driver(url)
    yield World(driver, SYSTEM_CLOCK)  # type: ignore[arg-type]
    driver.close()


def unique(world: World, **values: object) -> NewJob:
    return world.job(unique_key=KEY, **values)


# --- one caller ----------------------------------------------------------------------------------------------------


def test_the_first_push_creates_and_the_next_are_told_who_is_there(world: World, database: Database) -> None:
    first, second = unique(world), unique(world)

    assert world.driver.push_unique(first, ["a"]) == Standing(first.id, created=True)
    assert world.driver.push_unique(second, ["b"]) == Standing(first.id, created=False)

    assert world.driver.count(JobFilter()) == world.driver.count(JobFilter(tag="a")) == 1
    assert database.rows("SELECT tag FROM tq_tags") == [("a",)]


def test_a_key_is_taken_while_its_job_runs_and_free_afterwards(world: World, node: int) -> None:
    first, second = unique(world), unique(world)
    world.driver.push_unique(first)
    claimed = world.claim_one(node)

    assert world.driver.push_unique(second) == Standing(first.id, created=False)
    world.complete(node, claimed)
    assert world.driver.push_unique(second) == Standing(second.id, created=True)


def test_a_job_that_is_known_is_passed_over_even_when_another_has_its_key(world: World, node: int) -> None:
    first = unique(world)
    world.driver.push_unique(first)
    world.complete(node, world.claim_one(node))
    other = unique(world)
    world.driver.push_unique(other)

    for replace in (False, True):
        assert world.driver.push_unique(first, replace=replace) == Standing(first.id, created=False)

    assert (world.state(first.id), world.state(other.id)) == (State.COMPLETED, State.PENDING)


@pytest.mark.parametrize("state", [State.PENDING, State.DELAYED, State.BLOCKED])
def test_a_job_that_waits_is_replaced_and_counted_as_cancelled(world: World, state: State) -> None:
    first, second = unique(world, state=state.code, run_at=1), unique(world)
    world.driver.push_unique(first)

    assert world.driver.push_unique(second, replace=True) == Standing(second.id, created=True)

    assert (world.state(first.id), world.state(second.id)) == (State.CANCELLED, State.PENDING)
    assert world.counts_are_exact()


def test_a_job_that_runs_is_not_replaced(world: World, node: int) -> None:
    first = unique(world)
    world.driver.push_unique(first)
    claimed = world.claim_one(node)

    with pytest.raises(DuplicateJob, match="runs cannot be replaced"):
        world.driver.push_unique(unique(world), replace=True)

    assert not world.complete(node, claimed).stale
    assert len(world.everything()) == 1


def test_only_the_job_that_was_named_is_replaced(world: World) -> None:
    first, second, third = unique(world), unique(world), unique(world)
    world.driver.push_unique(first)
    world.driver.push_unique(second, replace=True, instead_of=first.id)

    assert world.driver.push_unique(third, replace=True, instead_of=first.id) == Standing(second.id, created=False)


@pytest.mark.parametrize(
    ("policy", "becomes"), [(ParentFailure.FAIL, State.FAILED), (ParentFailure.CANCEL, State.CANCELLED)]
)
def test_the_children_of_a_replaced_job_follow_their_own_rule(
    world: World, policy: ParentFailure, becomes: State
) -> None:
    first = unique(world)
    child = world.job(on_parent_failure=PARENT_FAILURE_CODES[policy])
    world.driver.push_unique(first)
    world.driver.push(child, (), [first.id])
    assert world.state(child.id) is State.BLOCKED

    world.driver.push_unique(unique(world), replace=True)

    assert world.state(child.id) is becomes
    assert world.counts_are_exact()


def test_an_error_names_the_job_that_has_the_key(world: World) -> None:
    world.push(unique_key=KEY, state=State.DELAYED.code, run_at=2**50, ready_at=2**50)

    with pytest.raises(DuplicateJob, match=r"job [0-9a-f-]{36} has the same unique key and is delayed"):
        world.driver.push_each([world.job(), unique(world)])

    assert len(world.everything()) == 1


def test_each_job_of_many_has_a_rule_of_its_own(world: World) -> None:
    keys = [b"a" * 32, b"b" * 32, None]
    there = [world.job(unique_key=key) for key in keys[:2]]
    world.driver.push_many(there)
    jobs = [world.job(unique_key=key) for key in keys]

    standing = world.driver.push_each(jobs, rules=[OnConflict.KEEP, OnConflict.REPLACE, OnConflict.ERROR])

    assert standing == [
        Standing(there[0].id, created=False),
        Standing(jobs[1].id, created=True),
        Standing(jobs[2].id, created=True),
    ]


# --- many callers --------------------------------------------------------------------------------------------------


def test_of_fifty_pushers_in_five_processes_one_creates_and_all_are_told_its_job(busy: World, url: str) -> None:
    processes = [start("unique_process.py", url, "10") for _ in range(5)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(5) as readers:
        outputs = list(readers.map(lambda process: process.communicate("go\n", 60)[0], processes))

    told = [line.split() for output in outputs for line in output.splitlines()]
    assert len(told) == 50
    assert [row.id.hex() for row in busy.everything()] == [each for each, created in told if created == "1"]
    assert len({each for each, _ in told}) == 1


def push_in_thread(busy: World, threads: ThreadPoolExecutor, job: NewJob) -> Future[Standing]:
    """Push and return while that waits for a transaction that is open."""
    pushing = threads.submit(busy.driver.push_unique, job)
    with pytest.raises(TimeoutError):
        pushing.result(A_WHILE)
    return pushing


@pytest.mark.parametrize("commits", [True, False])
def test_who_meets_an_open_push_waits_and_takes_its_place_if_that_rolls_back(
    busy: World, database: Database, commits: bool
) -> None:
    holder, waiter = unique(busy), unique(busy)
    with ThreadPoolExecutor(1) as threads, Session(database.engine) as session:
        busy.driver.push_within(session, [holder])
        pushing = push_in_thread(busy, threads, waiter)
        if commits:
            session.commit()
        else:
            session.rollback()
        stands = pushing.result(20)

    winner = holder if commits else waiter
    assert stands == Standing(winner.id, created=not commits)
    assert [row.id for row in busy.everything()] == [winner.id]


def test_while_jobs_finish_and_are_pushed_anew_no_push_fails_and_each_is_counted(busy: World) -> None:
    node = busy.node()
    pushing = threading.Event()
    pushing.set()

    def finish() -> int:
        finished = 0
        while pushing.is_set():
            claimed = busy.claim(node)
            busy.complete(node, *claimed)
            finished += len(claimed)
        return finished

    def push(_: int) -> Sequence[Standing]:
        return [busy.driver.push_unique(unique(busy)) for _ in range(25)]

    with ThreadPoolExecutor(5) as threads:
        finishing = threads.submit(finish)
        standing = [each for part in threads.map(push, range(4)) for each in part]
        pushing.clear()
        finished = finishing.result()

    created = sum(each.created for each in standing)
    left = busy.driver.count(JobFilter(states=[State.PENDING]))
    assert created == finished + left
    assert finished > 0
    assert busy.counts_are_exact()


def test_of_many_that_replace_one_another_one_is_left_and_the_others_are_cancelled(busy: World) -> None:
    jobs = [unique(busy) for _ in range(24)]

    with ThreadPoolExecutor(8) as threads:
        standing = list(threads.map(lambda job: busy.driver.push_unique(job, replace=True), jobs))

    assert [each.id for each in standing] == [job.id for job in jobs]
    assert Counter(row.state for row in busy.everything()) == {State.PENDING: 1, State.CANCELLED: 23}
    assert busy.counts_are_exact()
