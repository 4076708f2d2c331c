from __future__ import annotations

import pytest

from taskqueue.drivers.values import JobChanges
from taskqueue.ids import new_id
from taskqueue.states import State, Verb
from tests.drivers.world import World


def test_a_claim_hands_over_all_that_a_run_needs(world: World, node: int) -> None:
    job = world.job(timeout_ms=5, memory_limit=2**40, force_spawn=1, backoff="x", expires_at=2**60, delivery=1, rank=-2)
    world.driver.push(job)

    claimed = world.claim_one(node)

    assert claimed.lease == 1
    assert claimed.attempt == 1
    same = set(claimed._fields) & set(job._fields)
    assert {name: getattr(claimed, name) for name in same} == {name: getattr(job, name) for name in same}
    row = world.row(job.id)
    assert (row.state, row.node_id, row.lease, row.attempt) == (State.PROCESSING, node, 1, 1)
    assert row.claimed_at == world.clock.now_us()


def test_the_higher_priority_comes_first(world: World, node: int) -> None:
    for rank in (0, 5, -5, -100, 100):
        world.push(rank=rank)

    assert [job.rank for job in world.claim(node)] == [-100, -5, 0, 5, 100]


def test_in_a_lane_the_oldest_ready_comes_first(world: World, node: int) -> None:
    now = world.clock.now_us()
    for age in (3, 1, 2):
        world.push(ready_at=now - age)

    assert [now - job.ready_at for job in world.claim(node)] == [3, 2, 1]


def test_within_one_microsecond_jobs_come_in_the_order_of_their_ids(world: World, node: int) -> None:
    ids = [new_id().bytes for _ in range(50)]
    world.driver.push_many([world.job(id=job_id) for job_id in reversed(ids)])

    assert [job.id for job in world.claim(node)] == ids


def test_every_queue_is_served_by_priority_over_all(world: World, node: int) -> None:
    for queue, rank in (("a", 1), ("b", -1), ("c", 0), ("d", -1)):
        world.push(queue=queue, rank=rank)

    assert [job.rank for job in world.claim(node)] == [-1, -1, 0, 1]


def test_named_queues_are_served_strictly_in_their_order(world: World, node: int) -> None:
    for queue, rank in (("a", -9), ("b", 0), ("c", 5), ("b", -1)):
        world.push(queue=queue, rank=rank)

    claimed = world.claim(node, queues=["c", "b"])

    assert [(job.queue, job.rank) for job in claimed] == [("c", 5), ("b", -1), ("b", 0)]


def test_a_queue_named_twice_is_served_once(world: World, node: int) -> None:
    world.push()

    assert len(world.claim(node, queues=["q", "q"])) == 1


def test_no_queue_named_means_no_job(world: World, node: int) -> None:
    world.push()

    assert world.claim(node, queues=[]) == []


def test_queues_of_equal_priority_take_turns(world: World, node: int) -> None:
    for queue in ("a", "b", "c"):
        world.driver.push_many([world.job(queue=queue) for _ in range(30)])
    lanes = world.driver.lanes(None)

    first = [world.driver.cycle(node, (), (), lanes, 5).claimed[0].queue for _ in range(6)]

    assert sorted(first) == ["a", "a", "b", "b", "c", "c"]


def test_a_limit_is_kept_over_lanes(world: World, node: int) -> None:
    world.driver.push_many([world.job(rank=rank) for rank in (0, 1, 2) for _ in range(4)])

    assert [job.rank for job in world.claim(node, 6)] == [0, 0, 0, 0, 1, 1]


def test_a_limit_of_nothing_claims_nothing(world: World, node: int) -> None:
    job_id = world.push()

    assert world.claim(node, 0) == []
    assert world.state(job_id) is State.PENDING


def test_an_empty_database_gives_nothing(world: World, node: int) -> None:
    assert world.claim(node) == []


def test_a_paused_queue_is_passed_over_until_it_is_resumed(world: World, node: int) -> None:
    world.push(queue="still")
    world.push(queue="moving")
    world.driver.pause("still", "deploying")

    assert [job.queue for job in world.claim(node)] == ["moving"]
    assert world.claim(node, queues=["still"]) == []

    world.driver.resume("still")
    assert [job.queue for job in world.claim(node)] == ["still"]


def test_a_pause_holds_on_lanes_that_are_in_use(world: World, node: int) -> None:
    lanes = world.driver.lanes(None)
    world.driver.push_many([world.job() for _ in range(4)])
    assert len(world.driver.cycle(node, (), (), lanes, 2).claimed) == 2

    world.driver.pause("q")

    assert world.driver.cycle(node, (), (), lanes, 2).claimed == ()


@pytest.mark.parametrize("state", [State.DELAYED, State.BLOCKED])
def test_only_pending_jobs_are_claimed(world: World, node: int, state: State) -> None:
    world.in_state(state, node)

    assert world.claim(node) == []


def test_two_claimers_never_share_a_job(world: World) -> None:
    world.driver.push_many([world.job() for _ in range(100)])
    nodes = [world.node(), world.node()]
    lanes = [world.driver.lanes(None) for _ in nodes]

    taken = [
        job.id
        for _ in range(10)
        for node, lane in zip(nodes, lanes, strict=True)
        for job in world.driver.cycle(node, (), (), lane, 7).claimed
    ]

    assert len(taken) == len(set(taken)) == 100


def test_a_lease_only_rises(world: World, node: int) -> None:
    job_id = world.push()
    leases = []
    for verb in (Verb.RETRY, Verb.RELEASE, Verb.FAIL):
        claimed = world.claim_one(node)
        leases.append(claimed.lease)
        world.end(node, claimed, verb)
        leases.append(world.row(job_id).lease)

    assert leases == [1, 2, 3, 4, 5, 5]


def test_a_job_that_was_late_in_coming_is_found_while_the_lane_is_busy(world: World, node: int) -> None:
    lanes = world.driver.lanes(None)
    world.driver.push_many([world.job() for _ in range(20)])
    world.driver.cycle(node, (), (), lanes, 5)
    late = world.push(ready_at=world.clock.now_us() - 30_000_000)

    seen: set[bytes] = set()
    for _ in range(3):
        world.clock.advance(2)
        seen |= {job.id for job in world.driver.cycle(node, (), (), lanes, 5).claimed}

    assert late in seen


def test_a_job_that_was_moved_is_found_in_its_new_lane(world: World, node: int) -> None:
    job_id = world.push()
    lanes = world.driver.lanes(["elsewhere"])
    assert world.driver.cycle(node, (), (), lanes, 5).claimed == ()

    assert world.driver.update(job_id, JobChanges(queue="elsewhere", rank=-44))

    (claimed,) = world.driver.cycle(node, (), (), lanes, 5).claimed
    assert (claimed.id, claimed.rank) == (job_id, -44)


def test_one_cycle_ends_jobs_and_claims_more(world: World, node: int) -> None:
    world.driver.push_many([world.job() for _ in range(6)])
    lanes = world.driver.lanes(None)
    first = world.driver.cycle(node, (), (), lanes, 3).claimed

    second = world.driver.cycle(node, [world.completion(job) for job in first], (), lanes, 10)

    assert len(second.claimed) == 3
    assert list(second.stale) == []
    assert world.counted() == {("q", State.COMPLETED): 3, ("q", State.PROCESSING): 3}


def test_the_mark_of_change_moves_when_another_writes(world: World, node: int, url: str) -> None:
    from taskqueue.drivers import open_driver

    mark = world.driver.change_mark()
    if mark is None:
        pytest.skip("this database has no cheap mark")
    assert world.driver.change_mark() == mark

    other = open_driver(url)
    other.push(world.job())
    other.close()

    assert world.driver.change_mark() != mark


def test_unfinished_counts_what_a_node_still_has_to_wait_for(world: World, node: int) -> None:
    driver = world.driver
    world.push(queue="a")
    world.push(queue="b")
    world.delayed(60, queue="a")
    world.push(queue="a", state=State.BLOCKED.code)
    assert (driver.unfinished(["a"]), driver.unfinished(None), driver.unfinished([])) == (1, 2, 0)

    claimed = world.claim(node, queues=["a"])
    assert driver.unfinished(["a"]) == 1

    later = world.clock.now_us() + 10_000_000
    world.end(node, claimed[0], Verb.RETRY, run_at=later, crashed=True, spent=False)
    assert driver.unfinished(["a"]) == 1

    driver.pause("b")
    assert (driver.unfinished(None), driver.unfinished(["b"])) == (1, 0)
