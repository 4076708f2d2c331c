"""Each verb from each state: what `TRANSITIONS` allows moves the job, everything else leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskqueue.drivers.values import BlockedBy, Completion, Ending, JobChanges, JobFilter, JobRow
from taskqueue.states import TRANSITIONS, State, Verb
from tests.drivers.world import World

Try = Callable[[World, int, JobRow], object]


def ending(verb: Verb) -> Try:
    def attempt(world: World, node: int, row: JobRow) -> object:
        end = Ending(row.id, row.lease, row.queue, verb, world.clock.now_us(), blocked_by=BlockedBy.UNKNOWN_CLASS)
        return world.driver.cycle(node, (), [end], world.driver.lanes(None), 0)

    return attempt


def complete(world: World, node: int, row: JobRow) -> object:
    done = Completion(row.id, row.lease, row.queue, world.clock.now_us(), 1, 1, None)
    return world.driver.cycle(node, [done], (), world.driver.lanes(None), 0)


def promote(world: World, node: int, row: JobRow) -> object:
    world.clock.advance(7200)
    return world.driver.promote()


def rescue(world: World, node: int, row: JobRow) -> object:
    world.kill(node)
    return world.driver.rescue(node)


TRIES: dict[Verb, Try] = {
    Verb.PROMOTE: promote,
    Verb.CLAIM: lambda world, node, row: world.claim(node),
    Verb.COMPLETE: complete,
    Verb.RETRY: ending(Verb.RETRY),
    Verb.FAIL: ending(Verb.FAIL),
    Verb.RELEASE: ending(Verb.RELEASE),
    Verb.PARK: ending(Verb.PARK),
    Verb.RESCUE: rescue,
    Verb.REVIVE: lambda world, node, row: world.driver.revive(JobFilter(ids=[row.id])),
}


@pytest.mark.parametrize("verb", TRIES, ids=lambda verb: verb.value)
@pytest.mark.parametrize("state", State, ids=str)
def test_a_verb_moves_a_job_only_from_where_it_may(world: World, node: int, state: State, verb: Verb) -> None:
    before = world.row(world.in_state(state, node))

    TRIES[verb](world, node, before)

    after = world.row(before.id)
    allowed = TRANSITIONS[verb]
    if state in allowed.sources:
        assert after.state in allowed.targets
        assert after.lease == before.lease + allowed.raises_lease
    else:
        assert after == before
    assert world.counts_are_exact()


@pytest.mark.parametrize("state", State, ids=str)
def test_cancelling_takes_jobs_that_wait(world: World, node: int, state: State) -> None:
    before = world.row(world.in_state(state, node))

    cancelled = world.driver.cancel(JobFilter(ids=[before.id]))

    waits = state in TRANSITIONS[Verb.CANCEL].sources - {State.PROCESSING}
    assert cancelled == ([before.id] if waits else [])
    assert world.state(before.id) is (State.CANCELLED if waits else state)
    assert world.counts_are_exact()


@pytest.mark.parametrize("state", State, ids=str)
def test_a_node_cancels_only_what_it_runs(world: World, node: int, state: State) -> None:
    before = world.row(world.in_state(state, node))

    ending(Verb.CANCEL)(world, node, before)

    assert world.state(before.id) is (State.CANCELLED if state is State.PROCESSING else state)
    assert world.counts_are_exact()


@pytest.mark.parametrize("state", State, ids=str)
def test_everything_but_a_running_job_can_be_deleted(world: World, node: int, state: State) -> None:
    job_id = world.in_state(state, node)

    deleted = world.driver.delete(JobFilter(ids=[job_id]))

    assert deleted == (state is not State.PROCESSING)
    assert (world.state(job_id) is None) == (state is not State.PROCESSING)
    assert world.counts_are_exact()


@pytest.mark.parametrize("state", State, ids=str)
def test_only_jobs_that_wait_are_changed(world: World, node: int, state: State) -> None:
    before = world.row(world.in_state(state, node))
    waits = not state.final and state is not State.PROCESSING

    assert world.driver.update(before.id, JobChanges(queue="other", rank=-9)) is waits

    after = world.row(before.id)
    assert (after.queue, after.rank) == (("other", -9) if waits else (before.queue, before.rank))
    assert world.counts_are_exact()


@pytest.mark.parametrize("state", State, ids=str)
def test_flushing_removes_only_jobs_that_wait(world: World, node: int, state: State) -> None:
    job_id = world.in_state(state, node)
    waits = not state.final and state is not State.PROCESSING

    assert world.driver.flush() == waits
    assert (world.state(job_id) is None) is waits
    assert world.counts_are_exact()
