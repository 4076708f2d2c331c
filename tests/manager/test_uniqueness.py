"""Unique keys: one live job for each, and what becomes of a push that meets another one."""

from __future__ import annotations

import pytest

from taskqueue import Job, OnConflict, QueueManager, State
from taskqueue.drivers.base import Driver
from taskqueue.drivers.values import ClaimedJob, Completion, NodeIdentity
from taskqueue.errors import DuplicateJob, InvalidOption
from taskqueue.events import Event
from taskqueue.ids import new_id

KEY = "invoice-7"


def claim(driver: Driver) -> tuple[int, ClaimedJob]:
    node = driver.register_node(NodeIdentity(new_id().bytes, "n", "h", None, None, 1, 1, 30_000, "{}"))
    (claimed,) = driver.cycle(node, (), (), driver.lanes(None), 1).claimed
    return node, claimed


def finish(driver: Driver, node: int, job: ClaimedJob) -> None:
    done = Completion(job.id, job.lease, job.queue, job.ready_at + 10, 5, 5, None)
    driver.cycle(node, [done], (), driver.lanes(None), 0)


def test_an_error_names_the_other_job_its_state_and_what_to_do(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(unique_key=KEY))
    with pytest.raises(DuplicateJob, match=rf"job {first.id} has the same unique key and is pending.*on_conflict"):
        manager.push(mail(unique_key=KEY))
    assert manager.count_jobs() == 1


def test_keep_returns_the_job_that_is_there_and_stores_nothing(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(1, unique_key=KEY))
    for _ in range(3):
        assert manager.push(mail(2, unique_key=KEY), on_conflict="keep").id == first.id
    assert [job.payload for job in manager.get_jobs()] == [1]


def test_keep_returns_a_job_that_runs(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(unique_key=KEY))
    claim(manager.driver)
    assert manager.push(mail(unique_key=KEY, on_conflict=OnConflict.KEEP)).id == first.id


def test_keep_stores_a_job_where_the_key_is_free(manager: QueueManager, mail: type[Job]) -> None:
    assert manager.push(mail(unique_key=KEY, on_conflict="keep")).record().state is State.PENDING


def test_replace_cancels_the_job_that_waits_and_takes_its_place(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(1, unique_key=KEY, tags=["old"]), delay=60)
    second = manager.push(mail(2, unique_key=KEY, on_conflict="replace"))
    assert second.id != first.id
    assert (first.record().state, second.record().state) == (State.CANCELLED, State.PENDING)
    counts = manager.get_queue_stats()["default"]["by_state"]
    assert (counts["cancelled"], counts["pending"], counts["delayed"]) == (1, 1, 0)


def test_replace_keeps_a_job_that_runs_and_says_so(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(unique_key=KEY))
    claim(manager.driver)
    with pytest.raises(DuplicateJob, match="runs cannot be replaced"):
        manager.push(mail(unique_key=KEY, on_conflict="replace"))
    assert first.record().state is State.PROCESSING
    assert manager.count_jobs() == 1


@pytest.mark.parametrize("rule", list(OnConflict))
def test_a_key_is_free_when_its_job_has_finished(manager: QueueManager, mail: type[Job], rule: OnConflict) -> None:
    first = manager.push(mail(unique_key=KEY))
    finish(manager.driver, *claim(manager.driver))
    assert manager.push(mail(unique_key=KEY), on_conflict=rule).id != first.id


@pytest.mark.parametrize("rule", list(OnConflict))
def test_the_same_job_may_be_pushed_again_whatever_the_rule(
    manager: QueueManager, mail: type[Job], rule: OnConflict
) -> None:
    job = mail(unique_key=KEY, on_conflict=rule)
    assert manager.push(job).id == manager.push(job).id == job.id
    finish(manager.driver, *claim(manager.driver))
    manager.push(mail(unique_key=KEY))
    assert manager.push(job).record().state is State.COMPLETED
    assert manager.count_jobs() == 2


def test_a_class_may_set_the_rule(manager: QueueManager, mail: type[Job]) -> None:
    keeping = type("Keeping", (mail,), {"on_conflict": "keep", "unique_key": KEY, "name": "tests.Keeping"})
    assert manager.push(keeping()).id == manager.push(keeping()).id


def test_an_unknown_rule_is_refused(mail: type[Job]) -> None:
    with pytest.raises(InvalidOption, match="on_conflict"):
        mail(on_conflict="ignore")


# --- many ----------------------------------------------------------------------------------------------------------


def test_a_duplicate_among_many_keeps_all_of_them_out(manager: QueueManager, mail: type[Job]) -> None:
    with pytest.raises(DuplicateJob):
        manager.push_many([mail(1), mail(2, unique_key=KEY), mail(3, unique_key=KEY)])
    assert manager.count_jobs() == 0


def test_many_with_keep_return_the_ids_of_the_jobs_that_stand(manager: QueueManager, mail: type[Job]) -> None:
    there = manager.push(mail("there", unique_key="a"))
    jobs = [mail(number, unique_key=key, on_conflict="keep") for number, key in enumerate(["a", "b", "b", "c"])]
    assert manager.push_many(jobs) == [there.id, jobs[1].id, jobs[1].id, jobs[3].id]
    assert sorted(str(job.payload) for job in manager.get_jobs()) == ["1", "3", "there"]


def test_many_with_replace_leave_the_last_of_each_key(manager: QueueManager, mail: type[Job]) -> None:
    jobs = [mail(number, unique_key=KEY, on_conflict="replace") for number in range(3)]
    assert manager.push_many(jobs) == [job.id for job in jobs]
    assert [job.payload for job in manager.get_jobs(state="pending")] == [2]
    assert manager.count_jobs(state="cancelled") == 2


def test_listeners_hear_only_of_what_was_stored(manager: QueueManager, mail: type[Job]) -> None:
    heard: list[Event] = []
    manager.on("waiting", heard.append)
    first = manager.push(mail(unique_key=KEY))
    manager.push(mail(unique_key=KEY), on_conflict="keep")
    assert [event.job_id for event in heard] == [first.id]


def test_a_child_waits_for_the_job_that_stands_for_its_parent(manager: QueueManager, mail: type[Job]) -> None:
    there = manager.push(mail(unique_key=KEY))
    parent = mail(unique_key=KEY, on_conflict="keep")
    child = mail(dependencies=[parent.id])
    manager.push_many([parent, child])
    assert manager.get_job(child.id).state is State.BLOCKED
    finish(manager.driver, *claim(manager.driver))
    assert (there.record().state, manager.get_job(child.id).state) == (State.COMPLETED, State.PENDING)
