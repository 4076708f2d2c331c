"""Claims of the jobs that are to have a worker of their own, past others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import event

from taskqueue.drivers.values import ClaimedJob
from taskqueue.drivers.verbs import claiming
from taskqueue.states import State
from tests.drivers.world import World


def claim(world: World, node: int, queues: Sequence[str] | None = None, limit: int = 10) -> list[bytes]:
    return [job.id for job in world.driver.claim_own(node, queues, limit)]


def statements_of(world: World, work: Callable[[], object]) -> list[str]:
    """Return the statements that ``work`` executes through the engine of the driver."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_about: object) -> None:
        found.append(statement)

    engine = world.driver.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return found


def test_only_jobs_with_force_spawn_are_claimed_whatever_waits_before_them(world: World, node: int) -> None:
    others = [world.push(rank=-50) for _ in range(20)]
    own = [world.push(force_spawn=1), world.push(force_spawn=1, rank=-3)]

    assert set(claim(world, node)) == set(own)
    assert claim(world, node) == []
    assert {world.state(job) for job in others} == {State.PENDING}


def test_such_a_claim_hands_over_all_that_a_run_needs(world: World, node: int) -> None:
    pushed = world.job(force_spawn=1, timeout_ms=5, memory_limit=2**40, delivery=1, rank=-2)
    world.driver.push(pushed)

    (claimed,) = world.driver.claim_own(node, None, 5)

    assert isinstance(claimed, ClaimedJob)
    assert (claimed.lease, claimed.attempt) == (1, 1)
    same = set(claimed._fields) & set(pushed._fields)
    assert {name: getattr(claimed, name) for name in same} == {name: getattr(pushed, name) for name in same}
    row = world.row(pushed.id)
    assert (row.state, row.node_id, row.claimed_at) == (State.PROCESSING, node, world.clock.now_us())


def test_no_more_are_claimed_than_asked_for_and_the_more_urgent_first(world: World, node: int) -> None:
    late, urgent = world.push(force_spawn=1, rank=0), world.push(force_spawn=1, rank=-9)

    assert claim(world, node, limit=1) == [urgent]
    assert claim(world, node, limit=1) == [late]


def test_queues_that_are_not_served_or_paused_are_passed_over(world: World, node: int) -> None:
    here, elsewhere, paused = (world.push(force_spawn=1, queue=queue) for queue in ("here", "elsewhere", "paused"))
    world.driver.pause("paused", None)

    assert claim(world, node, ["here", "paused"]) == [here]
    assert world.state(elsewhere) is world.state(paused) is State.PENDING


def test_jobs_that_are_not_due_are_left_alone(world: World, node: int) -> None:
    world.delayed(60, force_spawn=1)
    world.push(force_spawn=1, state=State.BLOCKED.code)

    assert claim(world, node) == []


def test_it_looks_only_at_the_first_jobs_of_a_lane(world: World, node: int) -> None:
    world.driver.push_many([world.job() for _ in range(claiming.LOOK_AHEAD)])
    world.clock.advance(1)
    behind = world.push(force_spawn=1)

    assert claim(world, node) == []
    world.claim(node, 1)
    assert claim(world, node) == [behind]


def test_without_such_jobs_a_look_does_not_go_through_the_lanes(world: World, node: int) -> None:
    for number in range(claiming.FEW + 10):
        world.push(queue=f"q{number}")
    assert len(statements_of(world, lambda: claim(world, node))) == 2


def test_such_a_job_is_found_behind_more_jobs_than_are_counted(
    world: World, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "FEW", 0)
    monkeypatch.setattr(claiming, "COUNTED", 5)
    for number in range(6):
        world.push(queue=f"q{number}")
    own = world.push(queue="z", force_spawn=1)

    assert claim(world, node) == [own]


def test_a_job_that_was_found_and_then_claimed_by_another_is_not_claimed_twice(world: World, node: int) -> None:
    job = world.push(force_spawn=1)
    other = world.node()
    (taken,) = world.claim(other)

    claimed = world.driver.write(lambda connection: claiming.claim(connection, node, [job], 5))  # type: ignore[attr-defined]
    assert claimed == []
    assert (world.row(job).node_id, world.row(job).lease) == (other, taken.lease)
