"""What a push stores, and what it refuses before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from taskqueue import Job, Priority, QueueManager, State
from taskqueue.errors import (
    ConfigurationError,
    DuplicateJob,
    InvalidOption,
    PayloadTooDeep,
    PayloadTooLarge,
    PayloadTypeError,
)
from taskqueue.events import Event
from tests.databases import Database
from tests.node.making import MovableClock


def stored(manager: QueueManager) -> int:
    return manager.size()


def test_a_pushed_job_comes_back_as_it_was_given(manager: QueueManager, mail: type[Job]) -> None:
    handle = manager.push(mail({"to": "a@example.org"}, queue="mails", priority=Priority.URGENT, tags=["b", "a"]))
    record = handle.record()
    assert (record.id, record.job_class, record.state) == (handle.id, "tests.manager.Mail", State.PENDING)
    assert (record.queue, record.priority, record.tags) == ("mails", 15, ("b", "a"))
    assert record.payload == {"to": "a@example.org"}
    assert (record.attempt, record.lease, record.crashes, record.attempts) == (0, 0, 0, ())


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        0,
        [1, [2.5, None, True]],
        {"at": datetime(2026, 1, 1, tzinfo=UTC), "amount": Decimal("1.10"), "id": uuid4(), "raw": b"\0\xff"},
        {"set": {1, 2}, "tuple": (1, (2,))},
        "\0 and \ud800",
    ],
    ids=lambda value: repr(value)[:25],
)
def test_a_payload_comes_back_equal_in_value_and_type(manager: QueueManager, mail: type[Job], payload: Any) -> None:
    opened = manager.push(mail(payload)).record().payload
    assert opened == payload
    assert type(opened) is type(payload)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


BAD: list[tuple[Any, type[Exception], str]] = [
    ({"a": {"b": [1, 2, 3, float("nan")]}}, PayloadTypeError, r"a\.b\[3\]"),
    ({"a": float("inf")}, PayloadTypeError, "a"),
    ({"a": object()}, PayloadTypeError, "object"),
    ({"a": lambda: None}, PayloadTypeError, "function"),
    ({"a": {1: "x"}}, PayloadTypeError, "a"),
    ({1: "x", "1": "y"}, PayloadTypeError, "key"),
    ({"a": datetime}, PayloadTypeError, "a"),
    ("x" * (1024 * 1024 + 1), PayloadTooLarge, "1"),
    (_nested(65), PayloadTooDeep, "64"),
    (_endless(), PayloadTooDeep, "itself|deep"),
]


@pytest.mark.parametrize(
    ("payload", "error", "said"), BAD, ids=[f"{each[1].__name__}-{at}" for at, each in enumerate(BAD)]
)
def test_a_payload_that_would_not_come_back_is_refused_before_any_write(
    manager: QueueManager, mail: type[Job], payload: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        manager.push(mail(payload))
    assert stored(manager) == 0


def test_one_bad_job_keeps_a_whole_batch_out(manager: QueueManager, mail: type[Job]) -> None:
    with pytest.raises(PayloadTypeError):
        manager.push_many([mail(1), mail(object()), mail(2)])
    assert stored(manager) == 0


def test_options_given_to_the_push_override_those_of_the_job(manager: QueueManager, mail: type[Job]) -> None:
    record = manager.push(mail(queue="a", priority=1), queue="b", max_attempts=9).record()
    assert (record.queue, record.priority, record.max_attempts) == ("b", 1, 9)


def test_a_wrong_option_is_refused_before_any_write(manager: QueueManager, mail: type[Job]) -> None:
    with pytest.raises(InvalidOption):
        manager.push(mail(), tags=["x" * 65])
    assert stored(manager) == 0


def test_a_push_may_be_repeated_safely(manager: QueueManager, mail: type[Job]) -> None:
    job = mail({"a": 1})
    assert manager.push(job).id == manager.push(job).id
    assert stored(manager) == 1


def test_many_jobs_are_stored_together_in_their_order(manager: QueueManager, mail: type[Job]) -> None:
    jobs = [mail({"number": number}, tags=["t"] if number % 2 else []) for number in range(250)]
    assert manager.push_many(jobs) == [job.id for job in jobs]
    assert stored(manager) == 250
    assert manager.count_jobs(tag="t") == 125


def test_no_jobs_are_no_work(manager: QueueManager) -> None:
    assert manager.push_many([]) == []


# --- times -------------------------------------------------------------------------------------------------------


def test_a_delay_is_counted_from_the_push(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    record = manager.push(mail(delay=90)).record()
    assert (record.state, record.run_at) == (State.DELAYED, clock.now() + timedelta(seconds=90))


def test_a_time_in_the_past_is_now(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    assert manager.push(mail(at=clock.now() - timedelta(days=1))).record().state is State.PENDING


def test_a_time_in_the_future_delays(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    at = clock.now() + timedelta(days=1)
    assert manager.push(mail(run_at=at)).record().run_at == at


def test_expiry_is_counted_from_the_push(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    assert manager.push(mail(expires_in=5)).record().expires_at == clock.now() + timedelta(seconds=5)


# --- unique keys -------------------------------------------------------------------------------------------------


def test_a_unique_key_keeps_a_second_live_job_out(manager: QueueManager, mail: type[Job]) -> None:
    first = manager.push(mail(unique_key="invoice-7"))
    with pytest.raises(DuplicateJob):
        manager.push(mail(unique_key="invoice-7"))
    assert stored(manager) == 1
    first.cancel()
    assert manager.push(mail(unique_key="invoice-7")).record().state is State.PENDING


def test_a_unique_key_is_not_stored_in_clear(manager: QueueManager, mail: type[Job], database: Database) -> None:
    manager.push(mail(unique_key="invoice-of-somebody", category="invoices"))
    manager.disconnect()
    stored_bytes = b"".join(database.stored().values())
    assert b"invoices" in stored_bytes
    assert b"invoice-of-somebody" not in stored_bytes


# --- the caller's transaction ------------------------------------------------------------------------------------


def test_a_push_in_a_transaction_is_visible_when_that_commits(
    manager: QueueManager, mail: type[Job], database: Database
) -> None:
    with Session(database.engine) as session:
        handle = manager.push(mail({"a": 1}), session=session)
        assert stored(manager) == 0
        session.commit()
    assert handle.record().payload == {"a": 1}


def test_a_push_in_a_transaction_that_is_rolled_back_leaves_nothing(
    manager: QueueManager, mail: type[Job], database: Database
) -> None:
    with Session(database.engine) as session:
        manager.push_many([mail(), mail(tags=["t"])], session=session)
        session.rollback()
    assert stored(manager) == 0


def test_a_session_on_another_database_is_refused(
    manager: QueueManager, mail: type[Job], new_database: Callable[[], Database]
) -> None:
    with Session(new_database().engine) as session, pytest.raises(ConfigurationError):
        manager.push(mail(), session=session)
    assert stored(manager) == 0


# --- events ------------------------------------------------------------------------------------------------------


def test_a_push_is_told_to_listeners(manager: QueueManager, mail: type[Job]) -> None:
    heard: list[Event] = []
    manager.on("*", heard.append)
    first, second = manager.push(mail()), manager.push(mail(delay=5))
    first.cancel()
    assert [(event.name, event.job_id) for event in heard] == [
        ("waiting", first.id),
        ("postponed", second.id),
        ("cancel", first.id),
    ]
