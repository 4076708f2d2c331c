"""A job that its node puts back is claimed by that node's next claim, however far it has read its lanes already."""

from __future__ import annotations

import pytest

from taskqueue.drivers.values import ClaimedJob, Ending, Lanes
from taskqueue.states import Verb
from tests.drivers.world import World


@pytest.fixture
def lanes(world: World) -> Lanes:
    return world.driver.lanes(["q"])


def claim_two(world: World, node: int, lanes: Lanes) -> ClaimedJob:
    """Claim two jobs, so that the lane is read up to the second, and return the first."""
    world.push()
    world.clock.advance(0.001)
    world.push()
    claimed = world.driver.cycle(node, (), (), lanes, 10).claimed
    assert len(claimed) == 2
    assert not world.driver.cycle(node, (), (), lanes, 10).claimed
    return claimed[0]


@pytest.mark.parametrize("verb", [Verb.RELEASE, Verb.RETRY])
def test_it_is_claimed_with_the_cycle_that_puts_it_back(world: World, node: int, lanes: Lanes, verb: Verb) -> None:
    first = claim_two(world, node, lanes)
    ending = Ending(first.id, first.lease, first.queue, verb, world.clock.now_us())
    again = world.driver.cycle(node, (), [ending], lanes, 10).claimed
    assert [job.id for job in again] == [first.id]


@pytest.mark.parametrize("verb", [Verb.RELEASE, Verb.RETRY])
def test_it_is_claimed_by_the_next_cycle(world: World, node: int, lanes: Lanes, verb: Verb) -> None:
    first = claim_two(world, node, lanes)
    ending = Ending(first.id, first.lease, first.queue, verb, world.clock.now_us())
    world.driver.cycle(node, (), [ending], lanes, 0)
    again = world.driver.cycle(node, (), (), lanes, 10).claimed
    assert [job.id for job in again] == [first.id]


def test_a_job_that_has_become_due_is_claimed_by_a_look_back(world: World, node: int, lanes: Lanes) -> None:
    due = world.delayed(0.5)
    world.clock.advance(1)
    claim_two(world, node, lanes)
    assert world.driver.promote().promoted == 1
    lanes.look_back()
    assert [job.id for job in world.driver.cycle(node, (), (), lanes, 10).claimed] == [due]
