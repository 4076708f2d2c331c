"""A stored job as a value."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskqueue.ids import new_id
from taskqueue.record import Attempt, ErrorDetails, JobRecord, iso
from taskqueue.states import Delivery, Reason, State

AT = datetime(2026, 11, 22, 14, 3, 7, 5, tzinfo=UTC)


def record(**changes: Any) -> JobRecord:
    made = JobRecord(
        id=new_id(), job_class="app.Mail", queue="mails", priority=5, state=State.PENDING, reason=None, tags=("a", "ä"),
        category=None, attempt=0, max_attempts=3, lease=0, crashes=0, losses=0, delivery=Delivery.AT_LEAST_ONCE,
        timeout=None, memory_limit=None, force_spawn=False, created_at=AT, ready_at=AT, run_at=None, expires_at=None,
        started_at=None, finished_at=None,
        duration=None, node_id=None, blocked_by=None, key_id="k1",
    )  # fmt: skip
    return replace(made, **changes)


def attempt(number: int, error: ErrorDetails | None) -> Attempt:
    return Attempt(number, number, 1, "error", AT, AT, error)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        record().queue = "other"  # type: ignore[misc]


def test_payload_and_result_are_opened_when_they_are_asked_for_and_not_before() -> None:
    opened: list[str] = []

    def open_part(part: str) -> dict[str, str]:
        opened.append(part)
        return {"opened": part}

    made = record(_open=open_part)
    assert opened == []
    assert made.payload == {"opened": "payload"}
    assert made.result == {"opened": "result"}
    assert opened == ["payload", "result"]


def test_neither_payload_nor_how_to_open_it_is_shown() -> None:
    made = record(_open=lambda _: "secret")
    assert "secret" not in repr(made)
    assert "_open" not in repr(made)


def test_the_error_is_that_of_the_last_attempt() -> None:
    first, last = ErrorDetails("ValueError", "one"), ErrorDetails("OSError", "two")
    assert record(attempts=(attempt(1, first), attempt(2, last))).error == last
    assert record().error is None


@pytest.mark.parametrize("state", State)
def test_a_record_says_whether_the_job_has_finished(state: State) -> None:
    assert record(state=state).finished is state.final


def test_an_error_is_shown_by_type_and_message() -> None:
    assert str(ErrorDetails("ValueError", "bad")) == "ValueError: bad"
    assert str(ErrorDetails("ValueError", "")) == "ValueError"


def test_the_json_form_is_plain_json_with_the_values_of_enumerations() -> None:
    shown = json.loads(json.dumps(record(state=State.FAILED, reason=Reason.TIMED_OUT, finished_at=AT).to_json()))
    assert (shown["state"], shown["reason"], shown["delivery"]) == ("failed", "timed_out", "at_least_once")
    assert shown["tags"] == ["a", "ä"]
    assert shown["finished_at"] == "2026-11-22T14:03:07.000005Z"


def test_the_json_form_holds_neither_payload_nor_result() -> None:
    assert "secret" not in str(record(_open=lambda _: "secret").to_json())


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, None),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (datetime(2026, 1, 2, 1, 2, 3, 40, tzinfo=UTC), "2026-01-02T01:02:03.000040Z"),
        (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
    ],
)
def test_times_are_iso_8601(at: datetime | None, text: str | None) -> None:
    assert iso(at) == text
