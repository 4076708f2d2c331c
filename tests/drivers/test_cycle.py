"""A cycle that has ends of many kinds to write at once."""

from __future__ import annotations

import pytest

from taskqueue.drivers.values import ClaimedJob, Ending, Stale
from taskqueue.states import State, Verb
from tests.drivers.world import World

AFTER = {
    Verb.FAIL: State.FAILED,
    Verb.CANCEL: State.CANCELLED,
    Verb.RETRY: State.PENDING,
    Verb.RELEASE: State.PENDING,
    Verb.PARK: State.BLOCKED,
}


def ending(world: World, job: ClaimedJob, verb: Verb) -> Ending:
    return Ending(job.id, job.lease, job.queue, verb, world.clock.now_us())


def test_one_cycle_writes_ends_of_every_kind(world: World, node: int) -> None:
    world.driver.push_many([world.job(queue=f"q{number % 3}") for number in range(72)])
    held = world.claim(node)
    verbs = [None, *AFTER] * 12
    done = [world.completion(job) for job, verb in zip(held, verbs, strict=True) if verb is None]
    endings = [ending(world, job, verb) for job, verb in zip(held, verbs, strict=True) if verb is not None]

    cycle = world.driver.cycle(node, done, endings, world.driver.lanes(None), 0)

    assert list(cycle.stale) == []
    states = world.driver.states([job.id for job in held])
    expected = [State.COMPLETED if verb is None else AFTER[verb] for verb in verbs]
    assert [states[job.id] for job in held] == expected
    assert world.counts_are_exact()
    tried = {each.id for each in endings if each.verb in (Verb.RETRY, Verb.FAIL)}
    assert set(world.driver.attempts([job.id for job in held])) == tried


def test_what_a_cycle_gives_back_it_may_claim_again(world: World, node: int) -> None:
    world.push()
    job = world.claim_one(node)

    (again,) = world.driver.cycle(node, (), [ending(world, job, Verb.RETRY)], world.driver.lanes(None), 5).claimed

    assert (again.id, again.lease) == (job.id, 3)


@pytest.mark.parametrize("verb", AFTER)
def test_an_end_that_is_listed_twice_is_written_once(world: World, node: int, verb: Verb) -> None:
    world.push()
    job = world.claim_one(node)
    twice = [ending(world, job, verb)] * 2

    cycle = world.driver.cycle(node, (), twice, world.driver.lanes(None), 0)

    assert list(cycle.stale) == [Stale(job.id, job.lease)]
    assert world.state(job.id) is AFTER[verb]
    assert world.counts_are_exact()


def test_a_job_that_is_said_to_be_done_and_failed_is_done(world: World, node: int) -> None:
    world.push()
    job = world.claim_one(node)

    cycle = world.driver.cycle(
        node, [world.completion(job)], [ending(world, job, Verb.FAIL)], world.driver.lanes(None), 0
    )

    assert list(cycle.stale) == [Stale(job.id, job.lease)]
    assert world.state(job.id) is State.COMPLETED
    assert world.counts_are_exact()


def test_a_cycle_of_stale_ends_only_changes_nothing(world: World, node: int) -> None:
    world.driver.push_many([world.job() for _ in range(3)])
    held = [job._replace(lease=job.lease + 7) for job in world.claim(node)]
    done, failed, back = held

    cycle = world.driver.cycle(
        node,
        [world.completion(done)],
        [ending(world, failed, Verb.FAIL), ending(world, back, Verb.RETRY)],
        world.driver.lanes(None),
        0,
    )

    assert set(cycle.stale) == {Stale(job.id, job.lease) for job in held}
    assert set(world.driver.states([job.id for job in held]).values()) == {State.PROCESSING}
    assert world.driver.attempts([job.id for job in held]) == {}
    assert world.counts_are_exact()
