"""What users subclass."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from taskqueue import Backoff, Job, Priority
from taskqueue.errors import ConfigurationError, InvalidOption
from taskqueue.registry import REGISTRY
from taskqueue.states import Delivery


class Mail(Job):
    name = "tests.unit.Mail"
    aliases = ("tests.unit.OldMail",)
    queue, priority, max_attempts, timeout = "emails", Priority.HIGH, 5, 30

    def handle(self) -> None: ...


def test_class_attributes_are_the_defaults_of_a_job() -> None:
    options = Mail().options
    assert (options.queue, options.priority, options.max_attempts, options.timeout) == ("emails", 10, 5, 30.0)


def test_keywords_override_the_class() -> None:
    options = Mail({}, queue="later", priority="low").options
    assert (options.queue, options.priority, options.max_attempts) == ("later", 1, 5)


def test_a_job_without_any_option_has_the_documented_defaults() -> None:
    options = Job().options
    assert (options.queue, options.priority, options.max_attempts) == ("default", 5, 3)
    assert (options.timeout, options.delay, options.delivery) == (None, None, Delivery.AT_LEAST_ONCE)
    assert options.stored_backoff() is None


def test_options_can_be_overridden_before_the_push() -> None:
    job = Mail().configure(queue="other").configure(delay=5)
    assert (job.options.queue, job.options.delay) == ("other", 5.0)


def test_an_option_of_one_job_does_not_reach_another() -> None:
    Mail(queue="mine")
    assert Mail().options.queue == "emails"


@pytest.mark.parametrize("make", [lambda: Mail(max_atempts=2), lambda: Mail().configure(max_atempts=2)])
def test_an_unknown_option_is_refused_with_a_near_match(make: Any) -> None:
    with pytest.raises(InvalidOption, match=r"max_atempts.*did you mean max_attempts"):
        make()


WRONG: list[tuple[str, Any]] = [
    ("queue", ""),
    ("queue", "a b"),
    ("queue", "ä"),
    ("queue", "x" * 65),
    ("queue", "a\n"),
    ("priority", -1),
    ("priority", 101),
    ("priority", 1.5),
    ("priority", True),
    ("priority", "soon"),
    ("tags", 5),
    ("tags", [""]),
    ("tags", ["x" * 65]),
    ("tags", ["\ud800"]),
    ("tags", ["a\0b"]),
    ("tags", [str(number) for number in range(33)]),
    ("tags", [1]),
    ("category", ""),
    ("category", "a\0b"),
    ("delay", -1),
    ("delay", float("nan")),
    ("delay", float("inf")),
    ("delay", 11 * 365 * 86_400),
    ("at", datetime(2026, 1, 1)),  # noqa: DTZ001 - a time without a zone is what is refused
    ("at", "tomorrow"),
    ("at", -1),
    ("run_at", "2026-01-01T00:00:00"),
    ("expires_in", 0),
    ("max_attempts", 0),
    ("max_attempts", 1001),
    ("max_attempts", "many"),
    ("retry_interval", -1),
    ("backoff", "often"),
    ("backoff", -1),
    ("timeout", 0),
    ("timeout", -5),
    ("timeout", 31 * 86_400),
    ("delivery", "twice"),
    ("unique_key", ""),
    ("unique_key", "x" * 256),
    ("unique_key", 7),
]


@pytest.mark.parametrize(("option", "value"), WRONG, ids=[f"{name}={str(value)[:20]!r}" for name, value in WRONG])
def test_a_value_that_does_not_fit_is_refused_and_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option) as caught:
        Mail(**{option: value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("option", "value", "stored"),
    [
        ("priority", "urgent", 15),
        ("priority", "0", 0),
        ("priority", 100, 100),
        ("tags", ["b", "a", "b"], ("b", "a")),
        ("tags", "a, b,", ("a", "b")),
        ("tags", ["Ä", "ä"], ("Ä", "ä")),
        ("delay", "5m", 300.0),
        ("at", "2026-12-24T18:00:00Z", datetime(2026, 12, 24, 18, tzinfo=UTC)),
        ("at", 0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("at", "2026-12-24T19:00:00+01:00", datetime(2026, 12, 24, 18, tzinfo=UTC)),
        ("timeout", "1h", 3600.0),
        ("queue", "a.b:c-d_9", "a.b:c-d_9"),
    ],
)
def test_a_value_is_taken_in_each_usual_form(option: str, value: Any, stored: Any) -> None:
    assert getattr(Mail(**{option: value}).options, option) == stored


@pytest.mark.parametrize("times", [{"delay": 1, "at": 0}, {"delay": 1, "run_at": 0}, {"at": 0, "run_at": 0}])
def test_only_one_time_can_be_given(times: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="give only one of delay, at and run_at"):
        _ = Mail(**times).options


def test_an_at_most_once_job_has_one_attempt() -> None:
    with pytest.raises(InvalidOption, match="set max_attempts=1, got 5"):
        _ = Mail(delivery="at_most_once").options
    assert Mail(delivery="at_most_once", max_attempts=1).options.delivery is Delivery.AT_MOST_ONCE


def test_a_retry_interval_takes_the_place_of_the_backoff() -> None:
    stored = Mail(retry_interval=60, backoff=Backoff(5)).options.stored_backoff()
    assert stored is not None
    assert stored.startswith("60")


def test_a_wrong_class_attribute_is_named_with_its_class() -> None:
    class Wrong(Job):
        name = "tests.unit.Wrong"
        queue = "not a queue"

        def handle(self) -> None: ...

    with pytest.raises(InvalidOption, match=r"class Wrong.*queue"):
        _ = Wrong().options


# --- names -------------------------------------------------------------------------------------------------------


def test_a_class_is_named_by_module_and_qualified_name() -> None:
    class Local(Job):
        def handle(self) -> None: ...

    assert Local.job_class == f"{__name__}.{Local.__qualname__}"
    assert REGISTRY.find(Local.job_class) is Local


def test_a_class_can_be_given_a_name_and_keep_its_old_ones() -> None:
    assert Mail.job_class == "tests.unit.Mail"
    assert REGISTRY.find("tests.unit.OldMail") is Mail


def test_a_subclass_does_not_inherit_name_or_aliases() -> None:
    class Newsletter(Mail):
        pass

    assert Newsletter.job_class.endswith("Newsletter")
    assert REGISTRY.find("tests.unit.Mail") is Mail
    assert Newsletter().options.queue == "emails"


def test_a_class_without_a_handler_is_not_in_the_registry() -> None:
    class Base(Job):
        queue = "base"

    assert REGISTRY.find(Base.job_class) is None
    with pytest.raises(NotImplementedError, match="define one"):
        Base().handle()


def test_two_classes_cannot_have_one_name() -> None:
    with pytest.raises(ConfigurationError, match=r"two job classes are named 'tests.unit.Mail'"):

        class Other(Job):
            name = "tests.unit.Mail"

            def handle(self) -> None: ...


def test_a_name_that_no_column_holds_is_refused() -> None:
    with pytest.raises(InvalidOption, match="1 to 255 characters"):

        class Long(Job):
            name = "x" * 256

            def handle(self) -> None: ...


@pytest.mark.parametrize("attribute", ["retry_on", "give_up_on"])
@pytest.mark.parametrize("wrong", ["ValueError", [int], (ValueError, "OSError"), (int,), 5, ValueError("x")])
def test_what_is_no_exception_cannot_be_retried_on(attribute: str, wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{attribute} must be"):
        type("Picky", (Job,), {"name": "tests.unit.Picky", "handle": Mail.handle, attribute: wrong})


@pytest.mark.parametrize("given", [OSError, [OSError], (OSError,)])
def test_a_single_exception_may_be_retried_on(given: Any) -> None:
    made: Any = type("Lenient", (Job,), {"name": "tests.unit.Lenient", "handle": Mail.handle, "retry_on": given})
    assert made.retry_on == (OSError,)


def test_aliases_are_a_list_of_names_and_not_one() -> None:
    with pytest.raises(InvalidOption, match="aliases must be"):
        type("Renamed", (Job,), {"name": "tests.unit.Renamed", "handle": Mail.handle, "aliases": "Old"})


# --- a job as a value --------------------------------------------------------------------------------------------


def test_an_id_is_known_before_the_push_and_each_job_has_its_own() -> None:
    assert Mail().id.version == 7
    assert Mail().id != Mail().id


def test_outside_of_a_run_there_is_no_attempt_and_no_token() -> None:
    assert (Mail().attempt, Mail().fencing_token) == (0, 0)


def test_a_job_is_shown_without_its_payload() -> None:
    job = Mail({"password": "secret"})
    assert repr(job) == f"<tests.unit.Mail {job.id}>"


def test_the_logger_of_a_job_names_it() -> None:
    job = Mail()
    assert dict(job.logger.extra or {}) == {
        "job_id": str(job.id),
        "job_class": "tests.unit.Mail",
        "queue": "emails",
        "attempt": 0,
    }
