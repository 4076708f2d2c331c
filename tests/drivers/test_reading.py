from __future__ import annotations

import pytest

from taskqueue.drivers.values import JobFilter, tags_from_text, tags_to_text
from taskqueue.ids import new_id
from taskqueue.states import Reason, State, Verb
from tests.drivers.world import World


def test_an_unknown_job_is_nothing(world: World) -> None:
    assert world.driver.get(b"?" * 16) is None
    assert world.driver.states([b"?" * 16]) == {}
    assert world.driver.attempts([b"?" * 16]) == {}


@pytest.mark.parametrize("state", State, ids=str)
def test_a_job_is_found_in_every_state(world: World, node: int, state: State) -> None:
    job_id = world.in_state(state, node)

    assert world.row(job_id).state is state
    assert world.driver.states([job_id]) == {job_id: state}
    assert [row.id for row in world.driver.find(JobFilter(states=[state]))] == [job_id]
    assert world.driver.find(JobFilter(states=set(State) - {state})) == []


def test_live_and_finished_jobs_are_listed_together_the_newest_first(world: World, node: int) -> None:
    ids = [world.push() for _ in range(6)]
    claimed = world.claim(node, 3)
    world.complete(node, *claimed)

    assert [row.id for row in world.driver.find(JobFilter())] == ids[::-1]


def test_a_page_goes_on_where_the_last_one_ended(world: World, node: int) -> None:
    ids = [world.push() for _ in range(7)]
    world.complete(node, *world.claim(node, 4))
    seen: list[bytes] = []
    cursor = None
    while page := world.driver.find(JobFilter(before=cursor), 3):
        seen += [row.id for row in page]
        cursor = page[-1].id

    assert seen == ids[::-1]


def test_every_condition_narrows(world: World, node: int) -> None:
    now = world.clock.now_us()
    wanted = world.push(["t"], queue="a", job_class="app.A", category="c", created_at=now)
    world.push(["t"], queue="b", job_class="app.A", category="c", created_at=now)
    world.push(["t"], queue="a", job_class="app.B", category="c", created_at=now)
    world.push(["u"], queue="a", job_class="app.A", category="c", created_at=now)
    world.push(["t"], queue="a", job_class="app.A", category="d", created_at=now)
    world.push(["t"], queue="a", job_class="app.A", category="c", created_at=now - 10)
    world.push(["t"], queue="a", job_class="app.A", category="c", created_at=now + 10)
    which = JobFilter(
        states=[State.PENDING],
        queues=["a", "z"],
        job_class="app.A",
        tag="t",
        category="c",
        since=now,
        until=now + 1,
    )

    assert [row.id for row in world.driver.find(which)] == [wanted]
    assert world.driver.count(which) == 1


def test_a_reason_finds_only_failed_jobs(world: World, node: int) -> None:
    world.push()
    failed = world.push(ready_at=1)
    world.end(node, world.claim_one(node), Verb.FAIL, reason=Reason.EXPIRED)

    assert [row.id for row in world.driver.find(JobFilter(reason=Reason.EXPIRED))] == [failed]
    assert world.driver.find(JobFilter(reason=Reason.ERROR)) == []


def test_counting_is_listing(world: World, node: int) -> None:
    world.driver.push_many([world.job(queue=queue) for queue in "aaabb"])
    world.complete(node, *world.claim(node, 2, ["a"]))

    assert world.driver.count(JobFilter()) == 5
    assert world.driver.count(JobFilter(queues=["a"])) == 3
    assert world.driver.count(JobFilter(queues=["a"], states=[State.COMPLETED])) == 2


def test_thousands_of_ids_can_be_asked_for(world: World) -> None:
    jobs = [world.job() for _ in range(2500)]
    world.driver.push_many(jobs)
    ids = [job.id for job in jobs]
    asked = [*ids, *(new_id().bytes for _ in range(1500)), *ids]

    assert len(world.driver.states(asked)) == 2500
    assert world.driver.count(JobFilter(ids=asked)) == 2500
    found = world.driver.find(JobFilter(ids=asked), 2000)
    assert [row.id for row in found] == sorted(ids, reverse=True)[:2000]


def test_no_ids_asked_for_are_no_states(world: World) -> None:
    world.push()

    assert world.driver.states([]) == {}
    assert world.driver.attempts([]) == {}


def test_queues_count_every_state(world: World, node: int) -> None:
    for state in sorted(State, key=lambda state: state is State.PENDING):
        world.in_state(state, node)

    (queue,) = world.driver.queues()

    assert queue.counts == dict.fromkeys(State, 1)


def test_queues_are_listed_by_name_with_their_oldest_job(world: World) -> None:
    now = world.clock.now_us()
    world.push(queue="b", ready_at=now - 5)
    world.push(queue="b", ready_at=now - 9, rank=3)
    world.push(queue="a")
    world.delayed(60, queue="c")

    assert [(row.queue, row.oldest_ready_at) for row in world.driver.queues()] == [
        ("a", now),
        ("b", now - 9),
        ("c", None),
    ]


def test_a_queue_that_held_a_job_is_listed_without_one(world: World) -> None:
    world.push(queue="once")
    world.driver.flush()

    (row,) = world.driver.queues()

    assert (row.queue, sum(row.counts.values())) == ("once", 0)


def test_a_pause_is_shown_with_its_note(world: World) -> None:
    world.driver.pause("q", "deploying")
    since = world.clock.now_us()
    world.clock.advance(5)
    world.driver.pause("q", "still deploying")

    (row,) = world.driver.queues()
    assert (row.paused_at, row.note) == (since, "still deploying")

    world.driver.resume("q")
    (row,) = world.driver.queues()
    assert (row.paused_at, row.note) == (None, None)


def test_resuming_what_was_never_paused_does_nothing(world: World) -> None:
    world.driver.resume("q")

    assert world.driver.queues() == []


@pytest.mark.parametrize("tags", [(), ("a",), ("ü", "a b", 'quote"', "comma,")])
def test_tags_survive_their_text(tags: tuple[str, ...]) -> None:
    assert tags_from_text(tags_to_text(tags)) == tags


def test_a_drivers_address_names_no_password(world: World) -> None:
    assert world.driver.describe()
    assert "secret" not in world.driver.describe()
