"""What a node holds according to the database, and what is given back of it when the node does not know."""

from __future__ import annotations

from taskqueue.node.reconciling import AFTER_DOUBT, RECONCILE_EVERY, Reconciler
from taskqueue.states import State, Verb
from tests.drivers.world import World


def test_a_node_is_told_of_every_job_that_it_holds_and_of_no_other(world: World) -> None:
    node, other = world.node(), world.node()
    mine = {world.push() for _ in range(3)}
    assert {job.id for job in world.claim(node)} == mine
    world.push()
    world.claim(other)
    world.push()

    held = world.driver.held(node)

    assert {job.id for job in held} == mine
    assert {(job.lease, job.attempt, job.queue, job.payload) for job in held} == {(1, 1, "q", b"")}


def test_what_has_ended_is_not_held(world: World, node: int) -> None:
    world.push()
    world.complete(node, world.claim_one(node))
    world.push()
    world.end(node, world.claim_one(node), Verb.RELEASE)
    assert world.driver.held(node) == []


def test_a_job_that_the_node_does_not_know_of_is_found_and_can_be_given_back(world: World, node: int) -> None:
    known, unknown = world.push(), world.push()
    claimed = {job.id: job for job in world.claim(node)}
    reconciler = Reconciler(world.driver, world.clock)

    strays = reconciler.strays(node, {(known, claimed[known].lease)})

    assert [stray.id for stray in strays] == [unknown]
    assert world.end(node, strays[0], Verb.RELEASE, spent=False) == []
    assert world.state(unknown) is State.PENDING
    assert world.row(unknown).attempt == 0


def test_a_comparison_is_due_every_half_minute_and_soon_after_a_doubt(world: World, node: int) -> None:
    reconciler = Reconciler(world.driver, world.clock)
    due = [reconciler.due]
    world.clock.advance(RECONCILE_EVERY)
    due.append(reconciler.due)
    reconciler.strays(node, ())
    due.append(reconciler.due)
    reconciler.doubt()
    world.clock.advance(AFTER_DOUBT)
    due.append(reconciler.due)
    assert due == [False, True, False, True]
