"""What a running job leaves behind: progress, checkpoints and other jobs, each only while its run holds it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
from sqlalchemy import bindparam, select

from taskqueue.drivers.base import Driver
from taskqueue.drivers.noting import Noted
from taskqueue.drivers.tables import jobs
from taskqueue.drivers.values import JobFilter, Note, Standing
from taskqueue.errors import DatabaseBusy, DependencyError, DuplicateJob
from taskqueue.states import OnConflict, State, Verb
from tests.databases import Database
from tests.drivers.world import World

LOCK = select(jobs.c.id).where(jobs.c.id == bindparam("id", type_=jobs.c.id.type)).with_for_update()


def note(job: Any, sealed: bytes = b"sealed") -> Note:
    return Note(job.id, job.lease, sealed)


# --- progress and checkpoints ------------------------------------------------------------------------------------


def test_progress_of_many_jobs_is_written_at_once(world: World, node: int) -> None:
    for _ in range(5):
        world.push()
    claimed = world.claim(node)
    assert world.driver.note(progress=[note(job, b"p" + job.id) for job in claimed]).stale == []
    assert {world.row(job.id).progress for job in claimed} == {b"p" + job.id for job in claimed}


def test_the_last_of_several_values_stays(world: World, node: int) -> None:
    world.push()
    claimed = world.claim_one(node)
    world.driver.note(progress=[note(claimed, b"one"), note(claimed, b"two")])
    assert world.row(claimed.id).progress == b"two"


def test_to_note_nothing_is_nothing(world: World) -> None:
    assert world.driver.note() == ([], frozenset())


def test_a_checkpoint_is_handed_out_with_the_next_claim(world: World, node: int) -> None:
    world.push()
    claimed = world.claim_one(node)
    assert claimed.checkpoint is None
    assert world.driver.note(checkpoints=[note(claimed, b"state")]).stale == []
    world.end(node, claimed, Verb.RETRY)
    again = world.claim_one(node)
    assert (again.lease, again.checkpoint) == (3, b"state")


def test_a_large_checkpoint_comes_back_whole(world: World, node: int) -> None:
    world.push()
    claimed = world.claim_one(node)
    state = bytes(range(256)) * 4096
    world.driver.note(checkpoints=[note(claimed, state)])
    world.end(node, claimed, Verb.RELEASE)
    assert world.claim_one(node).checkpoint == state


def test_a_rescued_job_keeps_progress_and_checkpoint(world: World, node: int) -> None:
    lost = world.node()
    world.push()
    claimed = world.claim_one(lost)
    world.driver.note([note(claimed, b"half")], [note(claimed, b"state")])
    world.kill(lost)
    world.driver.rescue(lost)
    again = world.claim_one(node)
    assert again.checkpoint == b"state"
    assert world.row(again.id).progress == b"half"


def test_a_failed_job_that_is_revived_goes_on_from_its_checkpoint(world: World, node: int) -> None:
    world.push()
    claimed = world.claim_one(node)
    world.driver.note([note(claimed, b"half")], [note(claimed, b"state")])
    world.end(node, claimed, Verb.FAIL)
    assert world.row(claimed.id).progress == b"half"
    world.driver.revive(JobFilter(ids=(claimed.id,)))
    assert world.claim_one(node).checkpoint == b"state"


@pytest.mark.parametrize("moved", ["completed", "released", "claimed anew"])
def test_a_run_that_has_lost_its_job_writes_nothing(world: World, node: int, moved: str) -> None:
    world.push()
    claimed = world.claim_one(node)
    if moved == "completed":
        world.complete(node, claimed)
    else:
        world.end(node, claimed, Verb.RELEASE)
    if moved == "claimed anew":
        world.claim_one(node)
    stale = world.driver.note([note(claimed)], [note(claimed)]).stale
    assert [(each.id, each.lease) for each in stale] == [(claimed.id, claimed.lease)]
    assert world.row(claimed.id).progress is None
    if moved == "released":
        assert world.claim_one(node).checkpoint is None


def test_of_many_only_those_that_are_held_are_written(world: World, node: int) -> None:
    for _ in range(4):
        world.push()
    claimed = world.claim(node)
    world.complete(node, claimed[1], claimed[3])
    stale = world.driver.note(progress=[note(job) for job in claimed]).stale
    assert {each.id for each in stale} == {claimed[1].id, claimed[3].id}
    assert [world.row(job.id).progress for job in claimed[::2]] == [b"sealed", b"sealed"]


def test_a_job_that_was_never_pushed_is_not_held(world: World) -> None:
    unknown = world.job()
    noted = world.driver.note(progress=[Note(unknown.id, 1, b"x")])
    assert ([each.id for each in noted.stale], noted.locked) == ([unknown.id], frozenset())


@pytest.mark.needs("skip_locked")
def test_progress_of_a_locked_row_waits_for_nobody_and_comes_back(world: World, node: int, database: Database) -> None:
    for _ in range(2):
        world.push()
    first, second = world.claim(node)
    with database.engine.connect() as other:
        other.execute(LOCK, {"id": first.id})
        noted = world.driver.note(progress=[note(first), note(second)])
        assert noted == Noted([], frozenset({(first.id, first.lease)}))
        assert (world.row(first.id).progress, world.row(second.id).progress) == (None, b"sealed")
    assert world.driver.note(progress=[note(first)]) == Noted([], frozenset())
    assert world.row(first.id).progress == b"sealed"


@pytest.mark.needs("skip_locked")
def test_progress_of_a_run_that_is_over_is_stale_though_its_row_is_locked(
    world: World, node: int, database: Database
) -> None:
    world.push()
    early = world.claim_one(node)
    world.end(node, early, Verb.RELEASE)
    late = world.claim_one(node)
    with database.engine.connect() as other:
        other.execute(LOCK, {"id": early.id})
        noted = world.driver.note(progress=[note(early), note(late)])
    assert [(each.id, each.lease) for each in noted.stale] == [(early.id, early.lease)]
    assert noted.locked == {(late.id, late.lease)}


# --- pushes ------------------------------------------------------------------------------------------------------


def test_a_running_job_pushes_another(world: World, node: int) -> None:
    world.push()
    claimed, child = world.claim_one(node), world.job(tags='["a"]')
    standing = world.driver.push_held((claimed.id, claimed.lease), [child], [["a"]])
    assert standing is not None
    assert [(each.id, each.created) for each in standing] == [(child.id, True)]
    assert world.state(child.id) is State.PENDING
    assert [row.id for row in world.driver.find(JobFilter(tag="a"))] == [child.id]
    assert [job.id for job in world.claim(node)] == [child.id]


@pytest.mark.parametrize("moved", ["completed", "released", "claimed anew", "rescued"])
def test_a_run_that_has_lost_its_job_pushes_nothing(world: World, moved: str) -> None:
    holder, other = world.node(), world.node()
    world.push()
    claimed, child = world.claim_one(holder), world.job()
    if moved == "completed":
        world.complete(holder, claimed)
    elif moved == "rescued":
        world.kill(holder)
        world.driver.rescue(holder)
    else:
        world.end(holder, claimed, Verb.RELEASE)
    if moved == "claimed anew":
        world.claim_one(other)
    assert world.driver.push_held((claimed.id, claimed.lease), [child]) is None
    assert world.state(child.id) is None


def test_a_push_may_be_repeated_even_when_its_holder_has_gone_meanwhile(world: World, node: int) -> None:
    world.push()
    claimed, child = world.claim_one(node), world.job()
    holder = (claimed.id, claimed.lease)
    world.driver.push_held(holder, [child])
    again = world.driver.push_held(holder, [child])
    world.complete(node, claimed)
    late = world.driver.push_held(holder, [child])
    for standing in (again, late):
        assert standing is not None
        assert [(each.id, each.created) for each in standing] == [(child.id, False)]
    assert len(world.everything()) == 2
    assert world.counts_are_exact()


def test_a_child_may_depend_on_the_job_that_pushes_it(world: World, node: int) -> None:
    world.push()
    claimed, child = world.claim_one(node), world.job()
    world.driver.push_held((claimed.id, claimed.lease), [child], (), [[claimed.id]])
    assert world.state(child.id) is State.BLOCKED
    world.complete(node, claimed)
    assert world.state(child.id) is State.PENDING


def test_an_unknown_parent_is_refused_and_nothing_is_stored(world: World, node: int) -> None:
    world.push()
    claimed, child = world.claim_one(node), world.job()
    with pytest.raises(DependencyError):
        world.driver.push_held((claimed.id, claimed.lease), [child], (), [[world.job().id]])
    assert world.state(child.id) is None
    assert world.complete(node, claimed).stale == []


@pytest.mark.parametrize("rule", list(OnConflict))
def test_a_taken_key_is_met_as_in_any_push(world: World, node: int, rule: OnConflict) -> None:
    world.push(rank=-9)
    claimed = world.claim_one(node)
    first = world.push(unique_key=b"k" * 32)
    child = world.job(unique_key=b"k" * 32)
    holder = (claimed.id, claimed.lease)
    if rule is OnConflict.ERROR:
        with pytest.raises(DuplicateJob):
            world.driver.push_held(holder, [child], rules=[rule])
        return
    (stands,) = world.driver.push_held(holder, [child], rules=[rule]) or [Standing(b"", False)]
    replaced = rule is OnConflict.REPLACE
    assert stands == ((child.id, True) if replaced else (first, False))
    assert world.state(first) is (State.CANCELLED if replaced else State.PENDING)


@pytest.mark.needs("concurrent_writers")
def test_a_push_that_waits_for_a_key_keeps_nobody_from_its_holder(
    world: World, node: int, database: Database, driver: Driver
) -> None:
    world.push(rank=-9)
    claimed, child = world.claim_one(node), world.job(unique_key=b"k" * 32)
    pushed: list[Any] = []
    with database.engine.connect() as other:
        driver.push_within(other, [world.job(unique_key=b"k" * 32)])
        pushing = threading.Thread(target=lambda: pushed.append(try_to_push(driver, claimed, child)))
        pushing.start()
        pushing.join(1)  # By then it waits, as a rule; on a machine too slow for that the test proves nothing.
        assert pushing.is_alive()
        began = time.monotonic()
        assert world.driver.note([note(claimed)], [note(claimed)]).stale == []
        assert world.complete(node, claimed).stale == []
        took = time.monotonic() - began
        other.rollback()
    pushing.join(60)
    assert took < 5.0
    assert pushed == [None]  # Its holder had ended before it could be locked: nothing may be stored.
    assert world.state(child.id) is None


def try_to_push(driver: Driver, claimed: Any, child: Any) -> Any:
    with contextlib.suppress(DatabaseBusy):  # Where the key was not given back in time.
        return driver.push_held((claimed.id, claimed.lease), [child])
    return None
