"""`push_once`: the same job is not queued a second time while it waits or runs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taskqueue import Job, QueueManager, State
from taskqueue.errors import DuplicateJob
from taskqueue.flow.uniqueness import derived_key, secret_of
from taskqueue.payload import KeyRing, generate_key, parse_key
from tests.manager.test_uniqueness import claim, finish
from tests.node.making import MovableClock


def live(manager: QueueManager) -> list[Any]:
    return [job.payload for job in manager.get_jobs(state=["pending", "delayed", "blocked", "processing"])]


def test_the_same_job_is_queued_once(manager: QueueManager, mail: type[Job]) -> None:
    first, created = manager.push_once(mail({"to": "a", "cc": "b"}))
    again, created_again = manager.push_once(mail({"cc": "b", "to": "a"}))
    assert (created, created_again) == (True, False)
    assert (again.id, manager.count_jobs()) == (first.id, 1)


def test_the_queue_does_not_tell_two_jobs_apart_but_is_an_option(manager: QueueManager, mail: type[Job]) -> None:
    manager.push_once(mail(1))
    moved, created = manager.push_once(mail(1), queue="other")
    assert (created, live(manager), moved.record().queue) == (True, [1], "other")


DIFFERENT = [
    (1, 1.0),
    (1, True),
    ((1,), [1]),
    ({"a": 1}, {"a": "1"}),
    (None, ""),
    (Decimal("1.0"), Decimal("1.00")),
    (b"a", "a"),
    ([1, 2], [2, 1]),
    ({"a": None}, {}),
]
EQUAL = [
    ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    ([{"x": 1, "y": (1, 2)}], [{"y": (1, 2), "x": 1}]),
    (float("1e3"), 1000.0),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_payloads_that_differ_in_value_or_type_are_two_jobs(
    manager: QueueManager, mail: type[Job], one: Any, other: Any
) -> None:
    assert [manager.push_once(mail(each))[1] for each in (one, other)] == [True, True]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_payloads_are_one_job(manager: QueueManager, mail: type[Job], one: Any, other: Any) -> None:
    assert [manager.push_once(mail(each))[1] for each in (one, other)] == [True, False]


def test_another_class_is_another_job(manager: QueueManager, mail: type[Job]) -> None:
    other = type("Other", (mail,), {"name": "tests.manager.Other"})
    assert manager.push_once(mail(1))[1]
    assert manager.push_once(other(1))[1]


def test_a_job_that_runs_is_not_queued_again_and_one_that_has_finished_is(
    manager: QueueManager, mail: type[Job]
) -> None:
    first, _ = manager.push_once(mail(1))
    node, claimed = claim(manager.driver)
    assert manager.push_once(mail(1), priority="urgent") == (first, False)
    finish(manager.driver, node, claimed)
    assert manager.push_once(mail(1))[1]


def test_a_job_with_a_unique_key_is_compared_by_it(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(1, unique_key="k"))
    assert manager.push_once(mail(2, unique_key="k")) == (first, False)
    assert manager.push_once(mail(1))[1]


def test_the_same_job_object_is_stored_once(manager: QueueManager, mail: type[Job]) -> None:
    job = mail(1)
    assert manager.push_once(job)[1]
    assert manager.push_once(job) == (manager.handle(job.id), False)


# --- options that changed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"delay": 60}, {"delay": 120}),
        ({"delay": 60}, {"delay": 0}),
        ({}, {"delay": 60}),
        ({}, {"priority": 9}),
        ({"tags": ["a"]}, {"tags": ["b"]}),
        ({"max_attempts": 3}, {"max_attempts": 4}),
        ({"timeout": 5}, {"timeout": 6}),
        ({"memory_limit": "50MB"}, {"memory_limit": "60MB"}),
        ({}, {"force_spawn": True}),
        ({"retry_interval": 5}, {"retry_interval": 6}),
        ({"expires_in": 50}, {"expires_in": 60}),
        ({"category": "a"}, {"category": "b"}),
    ],
    ids=repr,
)
def test_an_option_that_changed_reschedules_the_job_that_waits(
    manager: QueueManager, mail: type[Job], before: dict[str, Any], after: dict[str, Any]
) -> None:
    first, _ = manager.push_once(mail(1, **before))
    second, created = manager.push_once(mail(1, **after))
    assert created
    assert first.record().state is State.CANCELLED
    assert live(manager) == [1]
    assert second.record().state in (State.PENDING, State.DELAYED)


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 60},
        {"priority": 9, "queue": "q", "tags": ["a", "b"]},
        {"max_attempts": 1, "delivery": "at_most_once", "timeout": 2.5},
        {"backoff": 7},
        {"memory_limit": "50MB", "force_spawn": True},
        {"expires_in": 60},
        {"at": datetime(2090, 1, 1, tzinfo=UTC)},
    ],
    ids=repr,
)
def test_the_same_options_leave_the_job_as_it_is(
    manager: QueueManager, mail: type[Job], clock: MovableClock, options: dict[str, Any]
) -> None:
    first, _ = manager.push_once(mail(1, **options))
    clock.move(10)
    assert manager.push_once(mail(1), **options) == (first, False)
    assert manager.push_once(mail(1)) == (first, False)


def test_another_time_reschedules(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    at = clock.now() + timedelta(hours=1)
    manager.push_once(mail(1, at=at))
    later, created = manager.push_once(mail(1, at=at + timedelta(hours=1)))
    assert created
    assert later.record().run_at == at + timedelta(hours=1)


# --- the class alone -----------------------------------------------------------------------------------------------


def test_without_the_payload_the_class_alone_is_compared(manager: QueueManager, mail: type[Job]) -> None:
    first, _ = manager.push_once(mail({"max_age": 3600}), ignore_payload=True)
    assert manager.push_once(mail({"max_age": 3600}), ignore_payload=True) == (first, False)
    second, created = manager.push_once(mail({"max_age": 1800}), ignore_payload=True)
    assert created
    assert first.record().state is State.CANCELLED
    assert second.record().payload == {"max_age": 1800}


def test_without_it_a_job_that_runs_with_other_data_is_not_replaced(manager: QueueManager, mail: type[Job]) -> None:
    first, _ = manager.push_once(mail(1), ignore_payload=True)
    claim(manager.driver)
    assert manager.push_once(mail(1), ignore_payload=True) == (first, False)
    with pytest.raises(DuplicateJob, match="runs cannot be replaced"):
        manager.push_once(mail(2), ignore_payload=True)


def test_many_that_push_new_data_at_once_leave_one_job_with_one_of_them(manager: QueueManager, mail: type[Job]) -> None:
    manager.push_once(mail("old"), ignore_payload=True)
    together = threading.Barrier(8)

    def push(_: int) -> bool:
        together.wait()
        return manager.push_once(mail("new"), ignore_payload=True)[1]

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(push, range(8)))
    assert (sum(created), live(manager), manager.count_jobs(state="cancelled")) == (1, ["new"], 1)


# --- what is stored of it ------------------------------------------------------------------------------------------


@pytest.fixture
def job(mail: type[Job]) -> Job:
    return mail({"a": 1})


@pytest.fixture
def rings() -> tuple[KeyRing, KeyRing, KeyRing]:
    old, new = parse_key(generate_key(), key_id="old"), parse_key(generate_key(), key_id="new")
    return KeyRing(old), KeyRing(new, [old]), KeyRing(new)


def test_while_keys_are_changed_the_same_is_derived(job: Job, rings: tuple[KeyRing, ...]) -> None:
    known = ["old", "new"]
    before, between, after = (derived_key(secret_of(ring, known, b"s"), job, ignore_payload=False) for ring in rings)
    assert before == between != after


def test_the_table_alone_does_not_tell_whether_a_guess_is_right(job: Job, rings: tuple[KeyRing, ...]) -> None:
    salt = b"salt, in clear in the table"
    guess = derived_key(secret_of(None, (), salt), job, ignore_payload=False)
    assert guess not in {
        derived_key(secret_of(ring, ["old", "new"], salt), job, ignore_payload=False) for ring in rings
    }


def test_without_encryption_it_works_too(tmp_path: Path, mail: type[Job]) -> None:
    with QueueManager(f"sqlite:///{tmp_path}/clear.db", encryption=False) as manager:
        assert [manager.push_once(mail(1))[1] for _ in range(2)] == [True, False]
