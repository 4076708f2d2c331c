"""``queue:purge``: what it removes, what it asks first, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskqueue.drivers import open_driver
from taskqueue.settings import load_settings
from taskqueue.states import State, Verb
from tests.drivers.world import SECOND, MovableClock, World

from .conftest import Worker


@pytest.fixture
def world(worker: Worker) -> Iterator[World]:
    """Return short words for the database that the commands use; its clock is ten days behind."""
    worker("queue:status")
    clock = MovableClock()
    clock.us -= 10 * 86_400 * SECOND
    driver = open_driver(load_settings().settings.database.url, clock=clock)
    yield World(driver, clock)
    driver.close()


@pytest.fixture
def ids(world: World) -> dict[State, list[bytes]]:
    """Finish three jobs of queue ``q`` in each of two ways, a day after each other, and leave one waiting."""
    node, made = world.node(), dict[State, list[bytes]]()
    for state in (State.COMPLETED, State.FAILED):
        for _ in range(3):
            made.setdefault(state, []).append(world.push())
            job = world.claim_one(node)
            world.complete(node, job) if state is State.COMPLETED else world.end(node, job, Verb.FAIL)
            world.clock.advance(86_400)
    made[State.PENDING] = [world.push(queue="waiting")]
    return made


def left(world: World) -> set[bytes]:
    return {row.id for row in world.everything()}


def test_it_shows_the_number_and_needs_a_yes(worker: Worker, world: World, ids: dict[State, list[bytes]]) -> None:
    assert "queue:purge removes 6 finished jobs" in worker("queue:purge", "--older-than=1d", code=2).err
    assert len(left(world)) == 7
    assert worker("queue:purge", "--older-than=1d", "--yes").out == "6 jobs removed.\n"
    assert left(world) == set(ids[State.PENDING])


def test_it_takes_what_finished_before_the_age(worker: Worker, world: World, ids: dict[State, list[bytes]]) -> None:
    assert worker("queue:purge", "--older-than", "7.5d", "--yes", "--json").document == {"removed": 3}
    assert left(world) == {*ids[State.FAILED], *ids[State.PENDING]}


@pytest.mark.parametrize("words", [["--state", "completed"], ["--state=completed", "--queue=q"], ["--keep=3"]])
def test_it_takes_what_is_asked_for(
    words: list[str], worker: Worker, world: World, ids: dict[State, list[bytes]]
) -> None:
    worker("queue:purge", "--older-than=0", "--yes", *words)
    assert left(world) == {*ids[State.FAILED], *ids[State.PENDING]}


def test_states_may_be_several(worker: Worker, world: World, ids: dict[State, list[bytes]]) -> None:
    worker("queue:purge", "--keep=0", "--state", "completed,failed", "--yes")
    assert left(world) == set(ids[State.PENDING])


def test_where_nothing_matches_nothing_is_asked(worker: Worker) -> None:
    assert worker("queue:purge", "--older-than", "30d").out == "No finished job matches.\n"
    assert worker("queue:purge", "--keep", "10", "--json").document == {"removed": 0}


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--older-than with an age such as 30d, --keep with a number, or both"),
        (["--older-than", "30x"], "older_than must be an age such as 12h or 30d, got '30x'"),
        (["--older-than", "-3d"], "older_than must be an age such as 12h or 30d, got '-3d'"),
        (["--keep", "-1"], "keep must be a whole number from 0 up, got '-1'"),
        (["--keep", "few"], "keep must be a whole number from 0 up, got 'few'"),
        (["--older-than", "1d", "--state", "pending"], "only finished jobs are purged"),
        (["--older-than", "1d", "--state", "complete"], "did you mean completed?"),
        (["--older-than", "1d", "--queue", "a b\n"], "queue"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str, worker: Worker) -> None:
    outcome = worker("queue:purge", *words, code=2)
    assert said in outcome.err
    assert outcome.out == ""
