from __future__ import annotations

import json

import pytest

from taskqueue.drivers.node_verbs import ASKED_TO_DRAIN
from taskqueue.drivers.values import Rescue
from taskqueue.states import Reason, State, Verb
from tests.drivers.world import World


def test_a_node_is_stored_as_it_says_it_is(world: World) -> None:
    identity = world.identity("alpha")

    node = world.driver.register_node(identity)

    (row,) = world.driver.nodes()
    names = ("incarnation", "name", "host", "boot_id", "pid_namespace", "pid", "process_started", "lease_ms", "info")
    assert [getattr(row, name) for name in names] == [getattr(identity, name) for name in names]
    assert (row.id, row.state, row.sequence, row.stopped_at) == (node, "alive", 0, None)
    assert row.started_at == row.beat_at == world.clock.now_us()


def test_node_ids_are_never_used_again(world: World) -> None:
    from taskqueue.drivers import tables

    first = world.node()
    remove = tables.nodes.delete()
    world.driver.write(lambda connection: connection.execute(remove))  # type: ignore[attr-defined]

    assert world.node() > first


def test_a_beat_raises_the_sequence_and_the_time(world: World, node: int) -> None:
    world.clock.advance(5)

    assert world.driver.beat(node)
    assert world.driver.beat(node, state="draining", info='{"workers": 2}')

    (row,) = world.driver.nodes()
    assert (row.sequence, row.state, row.info) == (2, "draining", '{"workers": 2}')
    assert row.beat_at == world.clock.now_us()


def test_a_beat_without_news_keeps_what_is_known(world: World, node: int) -> None:
    world.driver.beat(node, info='{"workers": 2}')
    world.driver.beat(node)

    assert world.driver.nodes()[0].info == '{"workers": 2}'


def test_a_node_that_was_declared_dead_is_told_so_at_its_next_beat(world: World, node: int) -> None:
    world.kill(node)

    assert not world.driver.beat(node)
    assert [row.state for row in world.driver.nodes(everyone=True)] == ["dead"]


def test_a_node_nobody_knows_cannot_beat(world: World) -> None:
    assert not world.driver.beat(987)


def test_a_node_that_has_beaten_since_is_not_declared_dead(world: World, node: int) -> None:
    world.driver.beat(node)

    assert not world.driver.declare_dead(node, 0)
    assert world.driver.beat(node)
    assert world.driver.declare_dead(node, 2)


def test_death_is_declared_once(world: World, node: int) -> None:
    assert world.driver.declare_dead(node, 0)
    assert not world.driver.declare_dead(node, 0)


def test_a_stopped_node_is_listed_only_for_everyone(world: World, node: int) -> None:
    other = world.node()
    world.driver.stop_node(node)

    assert [row.id for row in world.driver.nodes()] == [other]
    rows = world.driver.nodes(everyone=True)
    assert [(row.id, row.state) for row in rows] == [(node, "stopped"), (other, "alive")]
    assert rows[0].stopped_at == world.clock.now_us()


def test_a_dead_node_stays_dead_when_it_stops(world: World, node: int) -> None:
    world.kill(node)
    world.driver.stop_node(node)

    assert world.driver.nodes(everyone=True)[0].state == "dead"


# --- orphans and rescue -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["dead", "stopped"])
def test_jobs_of_a_node_that_ended_are_orphans(world: World, node: int, end: str) -> None:
    world.push()
    world.claim(node)
    assert world.driver.orphaned_nodes() == []

    if end == "dead":
        world.kill(node)
    else:
        world.driver.stop_node(node)

    assert world.driver.orphaned_nodes() == [node]
    assert world.driver.rescue(node) == Rescue(pending=1)
    assert world.driver.orphaned_nodes() == []


def test_jobs_of_a_node_without_a_row_are_orphans(world: World) -> None:
    world.push()
    world.claim(4711)

    assert world.driver.orphaned_nodes() == [4711]
    assert world.driver.rescue(4711) == Rescue(pending=1)


@pytest.mark.parametrize("state", ["alive", "quiet", "draining"])
def test_a_living_node_is_never_robbed(world: World, node: int, state: str) -> None:
    job_id = world.push()
    world.claim(node)
    world.driver.beat(node, state=state)
    before = world.row(job_id)

    assert world.driver.rescue(node) == Rescue()
    assert world.row(job_id) == before


def test_a_rescued_job_has_its_attempt_back_and_a_higher_lease(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.kill(node)
    world.clock.advance(9)

    world.driver.rescue(node)

    row = world.row(job_id)
    assert (row.state, row.attempt, row.losses, row.crashes) == (State.PENDING, 0, 1, 0)
    assert row.lease == claimed.lease + 1
    assert row.ready_at == world.clock.now_us()
    (attempt,) = world.driver.attempts([job_id])[job_id]
    assert (attempt.lease, attempt.reason, attempt.node_id) == (claimed.lease, "lost", node)


def test_a_rescue_leaves_other_nodes_and_other_jobs_alone(world: World, node: int) -> None:
    other = world.node()
    world.push()
    world.claim(other)
    world.push()
    world.claim(node)
    world.push()
    world.kill(node)

    assert world.driver.rescue(node).total == 1
    assert world.counted() == {("q", State.PENDING): 2, ("q", State.PROCESSING): 1}


def test_an_at_most_once_job_that_had_not_started_waits_again(world: World, node: int) -> None:
    job_id = world.push(delivery=1)
    world.claim_one(node)
    world.kill(node)

    assert world.driver.rescue(node) == Rescue(pending=1)
    assert world.row(job_id).state is State.PENDING


def test_an_at_most_once_job_fails_as_lost(world: World, node: int) -> None:
    job_id = world.push(delivery=1)
    claimed = world.claim_one(node)
    world.driver.record_start(node, job_id, claimed.lease)
    world.kill(node)

    assert world.driver.rescue(node) == Rescue(failed=1)

    row = world.row(job_id)
    assert (row.state, row.reason, row.lease, row.payload) == (State.FAILED, Reason.LOST, 2, b"sealed")
    assert world.driver.attempts([job_id])[job_id][0].reason == "lost"
    assert world.counts_are_exact()
    assert sum(minute.failed for minute in world.driver.rollups(0)) == 1


def test_a_job_whose_start_was_recorded_is_charged_a_crash(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.driver.record_start(node, job_id, claimed.lease)
    world.kill(node)

    world.driver.rescue(node)

    row = world.row(job_id)
    assert (row.state, row.crashes, row.losses, row.attempt) == (State.PENDING, 1, 0, 0)
    assert world.driver.attempts([job_id])[job_id][0].reason == "crashed"


def test_the_third_crash_fails_the_job(world: World) -> None:
    job_id = world.push()
    for _ in range(3):
        node = world.node()
        claimed = world.claim_one(node)
        world.driver.record_start(node, job_id, claimed.lease)
        world.kill(node)
        world.driver.rescue(node)
        world.clock.advance(10)
        world.driver.promote()

    row = world.row(job_id)
    assert (row.state, row.reason, row.crashes) == (State.FAILED, Reason.CRASHED, 3)
    assert len(world.driver.attempts([job_id])[job_id]) == 3
    assert world.counts_are_exact()


def test_a_crash_counts_on_over_retries_and_moves(world: World, node: int) -> None:
    job_id = world.push()
    world.end(node, world.claim_one(node), Verb.RETRY, crashed=True, spent=False)
    claimed = world.claim_one(node)
    world.driver.record_start(node, job_id, claimed.lease)
    world.kill(node)

    world.driver.rescue(node)

    assert world.row(job_id).crashes == 2


def test_a_rescue_takes_no_more_than_its_limit(world: World, node: int) -> None:
    world.driver.push_many([world.job() for _ in range(7)])
    world.claim(node)
    world.kill(node)

    batches = [world.driver.rescue(node, 3).total for _ in range(4)]

    assert batches == [3, 3, 1, 0]


def test_a_job_that_completed_before_the_rescue_stays_completed(world: World, node: int) -> None:
    job_id = world.push()
    claimed = world.claim_one(node)
    world.kill(node)
    world.complete(node, claimed)

    assert world.driver.rescue(node) == Rescue()
    assert world.state(job_id) is State.COMPLETED


def test_a_late_answer_after_rescue_and_a_new_claim_changes_nothing(world: World, node: int) -> None:
    job_id = world.push()
    zombie = world.claim_one(node)
    world.kill(node)
    world.driver.rescue(node)
    other = world.node()
    world.claim_one(other)
    before = world.row(job_id)

    for verb in (Verb.FAIL, Verb.RETRY, Verb.RELEASE, Verb.PARK, Verb.CANCEL):
        assert len(world.end(node, zombie, verb)) == 1
    assert len(world.complete(node, zombie).stale) == 1
    assert not world.driver.record_start(node, job_id, zombie.lease)

    assert world.row(job_id) == before


# --- duties -------------------------------------------------------------------------------------------------


def test_a_turn_is_taken_once_in_its_time(world: World) -> None:
    turns = [world.driver.take_turn("vacuum", node, 60.0) for node in (1, 2, 3)]
    world.clock.advance(59.9)
    turns.append(world.driver.take_turn("vacuum", 2, 60.0))
    world.clock.advance(0.1)
    turns += [world.driver.take_turn("vacuum", node, 60.0) for node in (2, 3)]

    assert turns == [True, False, False, False, True, False]


def test_duties_take_turns_apart_from_each_other(world: World) -> None:
    assert world.driver.take_turn("vacuum", 1, 60.0)
    assert world.driver.take_turn("purge", 1, 60.0)


def test_a_clock_set_back_does_not_stop_a_duty(world: World) -> None:
    world.driver.take_turn("vacuum", 1, 60.0)
    world.clock.us -= 86_400_000_000

    assert world.driver.take_turn("vacuum", 1, 60.0)


# --- asked to drain ----------------------------------------------------------------------------------------------


def test_a_node_that_was_asked_to_drain_learns_of_it_at_its_next_beat(world: World, node: int) -> None:
    assert world.driver.beat(node) == "alive"
    assert world.driver.drain_node(node)
    (row,) = world.driver.nodes()
    assert (row.state, row.sequence) == ("draining", 1)

    assert world.driver.beat(node, info='{"busy": 1}') == "draining"

    (row,) = world.driver.nodes()
    assert (row.state, row.sequence, row.info) == ("draining", 2, '{"busy": 1}')
    assert row.beat_at == world.clock.now_us()


def test_nothing_but_its_end_leads_a_node_away_from_draining(world: World, node: int) -> None:
    world.driver.drain_node(node)

    assert [world.driver.beat(node, state=state) for state in ("alive", "quiet", "draining")] == ["draining"] * 3
    world.driver.stop_node(node)
    assert [row.state for row in world.driver.nodes(everyone=True)] == ["stopped"]


def test_asking_twice_is_asking_once(world: World, node: int) -> None:
    assert world.driver.drain_node(node)
    assert world.driver.drain_node(node)
    assert world.driver.beat(node) == "draining"


def test_a_node_that_has_ended_cannot_be_asked(world: World, node: int) -> None:
    world.driver.stop_node(node)

    assert not world.driver.drain_node(node)
    assert not world.driver.drain_node(world.dead_node())
    assert not world.driver.drain_node(987)


@pytest.mark.parametrize("asked", [True, False])
def test_of_a_node_that_was_declared_dead_it_stays_known_whether_it_was_to_drain(
    world: World, node: int, *, asked: bool
) -> None:
    world.driver.beat(node, info='{"busy": 1}')
    if asked:
        world.driver.drain_node(node)
    assert world.driver.declare_dead(node, 1)
    (row,) = (each for each in world.driver.nodes(everyone=True) if each.id == node)
    assert json.loads(row.info) == {"busy": 1, **({ASKED_TO_DRAIN: True} if asked else {})}


def test_the_jobs_of_a_node_that_drains_are_its_own(world: World, node: int) -> None:
    world.in_state(State.PROCESSING, node)
    world.driver.drain_node(node)

    assert world.driver.orphaned_nodes() == []
    assert world.driver.rescue(node).total == 0
