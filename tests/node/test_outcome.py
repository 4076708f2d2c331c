"""What follows from an exception."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskqueue.backoff import Backoff, fixed
from taskqueue.drivers.values import BlockedBy
from taskqueue.job import Job
from taskqueue.node.outcome import COMPLETED, JobTimedOut, Outcome, decide, ending, parked, retry_or_fail
from taskqueue.states import Reason, Verb
from tests.node.making import AT_MOST_ONCE, NOW_US, claimed_job


def job_type(**attributes: Any) -> type[Job]:
    return type("Sample", (Job,), attributes)


def test_an_exception_brings_the_job_back_while_attempts_are_left() -> None:
    outcome = decide(ValueError("x"), job_type(), claimed_job(attempt=1), 0.0)
    assert (outcome.verb, outcome.reason, outcome.retry_after) == (Verb.RETRY, Reason.ERROR, 10.0)


@pytest.mark.parametrize("attempt", [3, 4])
def test_after_the_last_attempt_the_job_fails(attempt: int) -> None:
    outcome = decide(ValueError("x"), job_type(), claimed_job(attempt=attempt, max_attempts=3), 0.0)
    assert (outcome.verb, outcome.reason) == (Verb.FAIL, Reason.ERROR)


def test_an_exception_that_retry_on_does_not_name_fails_at_once() -> None:
    cls = job_type(retry_on=(OSError,))
    assert decide(ValueError(), cls, claimed_job(), 0.0).verb is Verb.FAIL
    assert decide(ConnectionError(), cls, claimed_job(), 0.0).verb is Verb.RETRY


def test_a_cancellation_that_leaves_a_handler_is_an_exception_like_others() -> None:
    error = asyncio.CancelledError()
    assert decide(error, job_type(), claimed_job(), 0.0).verb is Verb.RETRY
    assert decide(error, job_type(retry_on=(OSError,)), claimed_job(), 0.0).verb is Verb.FAIL
    assert decide(error, job_type(give_up_on=(asyncio.CancelledError,)), claimed_job(), 0.0).verb is Verb.FAIL


def test_give_up_on_wins_over_retry_on() -> None:
    cls = job_type(retry_on=(Exception,), give_up_on=(LookupError,))
    assert decide(KeyError("k"), cls, claimed_job(), 0.0).verb is Verb.FAIL
    assert decide(ValueError(), cls, claimed_job(), 0.0).verb is Verb.RETRY


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_an_exception_that_ends_programs_fails_the_job_without_another_attempt(error: BaseException) -> None:
    assert decide(error, job_type(), claimed_job(), 0.0).verb is Verb.FAIL


def test_a_timeout_counts_as_an_attempt_whatever_retry_on_says() -> None:
    cls = job_type(retry_on=(), give_up_on=(BaseException,))
    outcome = decide(JobTimedOut(), cls, claimed_job(), 0.0)
    assert (outcome.verb, outcome.reason) == (Verb.RETRY, Reason.TIMED_OUT)
    assert decide(JobTimedOut(), cls, claimed_job(attempt=3), 0.0).reason is Reason.TIMED_OUT


@pytest.mark.parametrize("error", [ValueError(), JobTimedOut()])
def test_an_at_most_once_job_is_never_retried(error: BaseException) -> None:
    claimed = claimed_job(delivery=AT_MOST_ONCE, max_attempts=5)
    assert decide(error, job_type(), claimed, 0.0).verb is Verb.FAIL


@pytest.mark.parametrize("attempt", [1, 2, 5, 20])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_the_delay_stays_between_the_backoff_and_its_jitter(attempt: int, jitter: float) -> None:
    backoff = Backoff(base=2.0, factor=3.0, cap=100.0, jitter=0.5)
    claimed = claimed_job(attempt=attempt, max_attempts=1000, backoff=backoff.to_text())
    floor = min(2.0 * 3.0 ** (attempt - 1), 100.0)
    assert floor <= retry_or_fail(claimed, Reason.ERROR, jitter).retry_after <= floor * 1.5


def test_a_fixed_interval_is_a_floor() -> None:
    claimed = claimed_job(attempt=9, max_attempts=10, backoff=fixed(60).to_text())
    assert retry_or_fail(claimed, Reason.ERROR, 0.0).retry_after == 60


def test_a_job_that_is_retried_is_due_after_its_delay() -> None:
    end = ending(claimed_job(), Outcome(Verb.RETRY, retry_after=1.5), NOW_US, run_us=10, wait_us=20)
    assert (end.run_at, end.spent, end.run_us, end.wait_us) == (NOW_US + 1_500_000, True, 10, 20)


def test_a_retry_without_delay_is_due_at_once() -> None:
    assert ending(claimed_job(), Outcome(Verb.RETRY), NOW_US).run_at is None


@pytest.mark.parametrize(
    ("verb", "spent"), [(Verb.RETRY, True), (Verb.FAIL, True), (Verb.RELEASE, False), (Verb.PARK, False)]
)
def test_only_what_ran_spends_an_attempt(verb: Verb, spent: bool) -> None:
    assert ending(claimed_job(), Outcome(verb), NOW_US).spent is spent


def test_the_key_is_named_where_there_is_a_sealed_error_and_only_there() -> None:
    assert ending(claimed_job(), Outcome(Verb.FAIL, error=b"sealed"), NOW_US, key_id="k7").key_id == "k7"
    assert ending(claimed_job(), Outcome(Verb.FAIL), NOW_US, key_id="k7").key_id is None


@pytest.mark.parametrize("blocked_by", [BlockedBy.UNKNOWN_CLASS, BlockedBy.UNKNOWN_KEY])
def test_a_job_that_this_node_cannot_run_is_parked(blocked_by: BlockedBy) -> None:
    end = ending(claimed_job(), parked(blocked_by), NOW_US)
    assert (end.verb, end.blocked_by, end.spent) == (Verb.PARK, blocked_by, False)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Verb.FAIL, reason=Reason.UNDECRYPTABLE, error_type="CannotOpen", error=b"\0\xff"),
        Outcome(Verb.RETRY, reason=Reason.TIMED_OUT, retry_after=12.5, error_type="JobTimedOut", error=b""),
        parked(BlockedBy.UNKNOWN_KEY),
        Outcome(Verb.RELEASE),
    ],
)
def test_an_outcome_travels_from_the_worker_as_it_is(outcome: Outcome) -> None:
    assert Outcome.from_wire(outcome.to_wire()) == outcome


def test_a_handler_that_returned_nothing_has_completed() -> None:
    assert (COMPLETED.verb, COMPLETED.result, COMPLETED.error) == (Verb.COMPLETE, None, None)
