from __future__ import annotations

import pytest
from sqlalchemy import literal, select

from taskqueue.drivers import tables
from taskqueue.drivers.statements.parts import CARRIED
from taskqueue.drivers.values import JobFilter, Standing
from taskqueue.errors import DuplicateJob
from taskqueue.ids import new_id
from taskqueue.states import State, Verb
from tests.databases import Database
from tests.drivers.world import World


def test_every_value_that_is_pushed_comes_back(world: World) -> None:
    job = world.job(
        queue="müll 🗑",
        rank=-7,
        job_class="app.Ünï",
        run_at=12,
        expires_at=2**60,
        max_attempts=9,
        delivery=1,
        timeout_ms=2**40,
        memory_limit=2**50,
        force_spawn=1,
        backoff="1.0 2.0 3.0 0.1",
        tags='["a"]',
        category="c",
        unique_key=b"u" * 32,
        payload=bytes(range(256)) * 4096,
    )

    world.driver.push(job)

    row = world.row(job.id)
    stored = {name: getattr(row, name) for name in job._fields if name not in ("state", "on_parent_failure")}
    pushed = {name: value for name, value in job._asdict().items() if name in stored}
    assert stored == pushed
    assert row.state is State.PENDING


def test_a_new_job_has_no_lease_and_no_attempt(world: World) -> None:
    row = world.row(world.push())

    assert (row.lease, row.attempt, row.crashes, row.losses, row.node_id) == (0, 0, 0, 0, None)


def test_push_many_stores_every_job(world: World) -> None:
    jobs = [world.job(queue=f"q{number % 3}", rank=number % 2) for number in range(300)]

    world.driver.push_many(jobs)

    assert {row.id for row in world.everything()} == {job.id for job in jobs}


def test_push_many_of_nothing_stores_nothing(world: World) -> None:
    world.driver.push_many([])

    assert world.everything() == []


def test_push_many_stores_all_or_none(world: World) -> None:
    taken = b"u" * 32
    jobs = [*(world.job() for _ in range(50)), world.job(unique_key=taken), world.job(unique_key=taken)]

    with pytest.raises(DuplicateJob):
        world.driver.push_many(jobs)

    assert world.everything() == []


@pytest.mark.parametrize("copies", [1, 3])
def test_a_push_may_be_repeated_while_the_job_lives(world: World, copies: int) -> None:
    job = world.job(unique_key=b"u" * 32)
    world.driver.push(job)

    for _ in range(copies):
        world.driver.push(job)
        world.driver.push_many([job, world.job()])

    assert len(world.everything()) == 1 + copies


def test_a_push_of_a_finished_job_does_not_run_it_again(world: World, node: int) -> None:
    job = world.job()
    world.driver.push(job)
    world.complete(node, world.claim_one(node))

    world.driver.push(job)
    world.driver.push_many([job, world.job()])
    world.driver.push(job, ["late"])

    assert world.state(job.id) is State.COMPLETED
    assert len(world.claim(node)) == 1
    assert world.driver.count(JobFilter(tag="late")) == 0


def test_a_unique_key_that_is_taken_is_refused_and_nothing_is_written(world: World) -> None:
    world.push(unique_key=b"u" * 32)

    with pytest.raises(DuplicateJob, match="same unique key"):
        world.push(unique_key=b"u" * 32)

    assert len(world.everything()) == 1


def test_a_unique_key_is_free_again_when_its_job_has_finished(world: World, node: int) -> None:
    world.push(unique_key=b"u" * 32)
    world.complete(node, world.claim_one(node))

    world.push(unique_key=b"u" * 32)

    assert len(world.everything()) == 2


def test_a_unique_key_stays_taken_while_its_job_runs(world: World, node: int) -> None:
    world.push(unique_key=b"u" * 32)
    world.claim_one(node)

    with pytest.raises(DuplicateJob):
        world.push(unique_key=b"u" * 32)


def test_tags_find_their_jobs(world: World) -> None:
    first, second = world.push(["red", "red"]), world.push(["red", "blue"])
    third = world.job()
    world.driver.push_many([third, world.job()], [["blue"], []])

    def tagged(tag: str) -> set[bytes]:
        return {row.id for row in world.driver.find(JobFilter(tag=tag))}

    assert tagged("red") == {first, second}
    assert tagged("blue") == {second, third.id}
    assert tagged("green") == set()


def test_as_many_lists_of_tags_as_jobs_are_needed(world: World) -> None:
    with pytest.raises(ValueError, match="shorter"):
        world.driver.push_many([world.job(), world.job()], [["one"]])

    assert world.everything() == []


def test_a_job_in_a_lane_never_seen_before_is_claimed(world: World, node: int) -> None:
    world.driver.push(world.job(queue="first"))
    world.driver.push(world.job(queue="second", rank=-3))
    world.driver.push_many([world.job(queue="third")])

    assert {job.queue for job in world.claim(node)} == {"first", "second", "third"}


def test_large_batches_are_stored_whole(world: World) -> None:
    world.driver.push_many([world.job() for _ in range(1001)])

    assert world.driver.count(JobFilter()) == 1001


def test_a_retried_job_that_is_pushed_again_stays_as_it_is(world: World, node: int) -> None:
    job = world.job()
    world.driver.push(job)
    world.end(node, world.claim_one(node), Verb.RETRY)

    world.driver.push(job)

    assert world.row(job.id).attempt == 1


def test_an_id_is_sixteen_bytes_of_any_value(world: World) -> None:
    ids = [bytes(16), b"\xff" * 16, new_id().bytes]
    for job_id in ids:
        world.push(id=job_id)

    assert {row.id for row in world.everything()} == set(ids)


@pytest.mark.needs("concurrent_writers")
@pytest.mark.parametrize("way", ["push", "push with tags", "push_many", "push_each"])
def test_a_push_repeated_while_its_job_is_being_completed_stores_nothing(
    world: World, database: Database, way: str
) -> None:
    job = world.job()
    world.driver.push(job)
    names = [name for name in CARRIED if name != "state"]
    copied = select(*[tables.jobs.c[name] for name in names], literal(State.COMPLETED.code), literal(1))
    with database.engine.begin() as completing:
        completing.execute(
            tables.history.insert().from_select([*names, "state", "finished_at"], copied, include_defaults=False)
        )
        completing.execute(tables.jobs.delete())
        # The transaction is open: the push must not wait for it either.
        if way == "push_many":
            world.driver.push_many([job])
        elif way == "push_each":
            assert world.driver.push_each([job]) == [Standing(job.id, created=False)]
        else:
            world.driver.push(job, ["tag"] if "tags" in way else [])

    assert [row.state for row in world.everything()] == [State.COMPLETED]
