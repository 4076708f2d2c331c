"""One job, from sealed bytes to an outcome: whatever the handler does, it is this job that ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from taskqueue.drivers.values import BlockedBy, ClaimedJob
from taskqueue.errors import CannotOpen
from taskqueue.job import Job
from taskqueue.node.executor import Executor, alarm_held, install_alarm
from taskqueue.node.outcome import Outcome
from taskqueue.payload import Codec, KeyRing, Purpose, generate_key, parse_key
from taskqueue.registry import Registry
from taskqueue.states import Reason, Verb
from tests.node.making import MovableClock, claimed_job

CODEC = Codec(KeyRing(parse_key(generate_key(), key_id="k1")))
STRANGER = Codec(KeyRing(parse_key(generate_key(), key_id="k1")))
CLASS = "tests.Job"


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    former = signal.getsignal(signal.SIGALRM)
    install_alarm()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def sealed(payload: Any, codec: Codec = CODEC, **changes: Any) -> ClaimedJob:
    claimed = claimed_job(job_class=CLASS, **changes)
    return claimed._replace(payload=codec.seal(payload, Purpose.PAYLOAD, claimed.id, CLASS))


def job_type(handle: Callable[[Any], Any], **attributes: Any) -> type[Job]:
    return type("Sample", (Job,), {"handle": handle, "name": CLASS, **attributes})


def executor(cls: type[Job] | None) -> Executor:
    registry = Registry()
    if cls is not None:
        registry.add(cls, CLASS)
    return Executor(registry, CODEC, MovableClock())


def run(handle: Callable[[Any], Any], payload: Any = None, *, claim: dict[str, Any] | None = None, **cls: Any) -> Ran:
    claimed = sealed(payload, **(claim or {}))
    return Ran(claimed, executor(job_type(handle, **cls)).run(claimed))


class Ran:
    def __init__(self, claimed: ClaimedJob, outcome: Outcome) -> None:
        self.claimed, self.outcome = claimed, outcome
        self.verb, self.reason = outcome.verb, outcome.reason

    @property
    def result(self) -> Any:
        blob = self.outcome.result
        return None if blob is None else CODEC.open(blob, Purpose.RESULT, self.claimed.id, CLASS)

    @property
    def error(self) -> dict[str, Any]:
        assert self.outcome.error is not None
        details: dict[str, Any] = CODEC.open(self.outcome.error, Purpose.ERROR, self.claimed.id, CLASS)
        return details


def raising(error: BaseException) -> Callable[[Any], Any]:
    def handle(_job: Any) -> None:
        raise error

    return handle


# --- results -----------------------------------------------------------------------------------------------------


def test_a_handler_that_returns_nothing_completes_without_a_result() -> None:
    ran = run(lambda job: None, {"a": 1})
    assert (ran.verb, ran.result) == (Verb.COMPLETE, None)


@pytest.mark.parametrize("result", [{"sent": True}, 0, False, "", [], datetime(2026, 1, 1, tzinfo=UTC), b"\0", (1,)])
def test_what_the_handler_returns_is_the_result_sealed(result: Any) -> None:
    ran = run(lambda job: result, {"a": 1})
    assert ran.verb is Verb.COMPLETE
    assert ran.result == result
    assert type(ran.result) is type(result)


def test_a_changed_payload_is_the_result_of_a_handler_that_returns_nothing() -> None:
    assert run(lambda job: job.payload.update(done=True), {"a": 1}).result == {"a": 1, "done": True}


def test_a_change_deep_inside_the_payload_counts() -> None:
    assert run(lambda job: job.payload["list"][0].append(2), {"list": [[1]]}).result == {"list": [[1, 2]]}


@pytest.mark.parametrize(("payload", "new"), [({"a": 1}, {"b": 2}), ("old", "new"), (None, {"made": 1}), (1, 2)])
def test_a_payload_that_was_replaced_is_the_result(payload: Any, new: Any) -> None:
    def handle(job: Any) -> None:
        job.payload = new

    assert run(handle, payload).result == new


@pytest.mark.parametrize("payload", [{"a": 1}, {"at": datetime(2026, 1, 1, tzinfo=UTC)}, [1, 2], "text", None])
def test_an_unchanged_payload_is_no_result(payload: Any) -> None:
    assert run(lambda job: None, payload).outcome.result is None


def test_a_payload_replaced_by_an_equal_one_is_no_result() -> None:
    def handle(job: Any) -> None:
        job.payload = dict(job.payload)

    assert run(handle, {"a": [1]}).outcome.result is None


def test_a_returned_value_wins_over_a_changed_payload() -> None:
    def handle(job: Any) -> str:
        job.payload["x"] = 1
        return "returned"

    assert run(handle, {}).result == "returned"


@pytest.mark.parametrize("result", [object(), {1: "x"}, float("nan"), open])
def test_a_result_that_cannot_be_stored_fails_the_job_without_another_attempt(result: Any) -> None:
    ran = run(lambda job: result, {"a": 1}, claim={"attempt": 1, "max_attempts": 10})
    assert (ran.verb, ran.reason, ran.outcome.error_type) == (Verb.FAIL, Reason.ERROR, "PayloadTypeError")
    assert "result" in ran.error["message"]


# --- what cannot be run here -------------------------------------------------------------------------------------


def test_an_unknown_class_is_parked() -> None:
    outcome = executor(None).run(sealed({}))
    assert (outcome.verb, outcome.blocked_by) == (Verb.PARK, BlockedBy.UNKNOWN_CLASS)


def test_an_unknown_key_is_parked() -> None:
    outcome = executor(job_type(lambda job: None)).run(sealed({}, key_id="k9"))
    assert (outcome.verb, outcome.blocked_by) == (Verb.PARK, BlockedBy.UNKNOWN_KEY)


def _cut(claimed: ClaimedJob) -> ClaimedJob:
    return claimed._replace(payload=claimed.payload[:-1])


def _of_another_job(claimed: ClaimedJob) -> ClaimedJob:
    return claimed._replace(payload=sealed({}).payload)


def _of_another_key(claimed: ClaimedJob) -> ClaimedJob:
    return claimed._replace(payload=STRANGER.seal({}, Purpose.PAYLOAD, claimed.id, CLASS))


def _empty(claimed: ClaimedJob) -> ClaimedJob:
    return claimed._replace(payload=b"")


@pytest.mark.parametrize("spoil", [_cut, _of_another_job, _of_another_key, _empty])
def test_a_payload_that_cannot_be_opened_fails_at_once_with_one_text(spoil: Callable[[ClaimedJob], ClaimedJob]) -> None:
    claimed = spoil(sealed({"a": 1}))
    ran = Ran(claimed, executor(job_type(lambda job: None)).run(claimed))
    assert (ran.verb, ran.reason, ran.outcome.error_type) == (Verb.FAIL, Reason.UNDECRYPTABLE, CannotOpen.__name__)
    assert ran.error["traceback"] == ""


def test_the_handler_of_an_unopenable_payload_never_runs() -> None:
    seen: list[Any] = []
    claimed = _cut(sealed({"a": 1}))
    executor(job_type(seen.append)).run(claimed)
    assert seen == []


# --- exceptions --------------------------------------------------------------------------------------------------


def test_an_exception_is_kept_sealed_with_its_traceback_and_its_type_in_clear() -> None:
    ran = run(raising(ValueError("secret text")))
    assert (ran.verb, ran.outcome.error_type) == (Verb.RETRY, "ValueError")
    assert ran.error["message"] == "secret text"
    assert "in handle" in ran.error["traceback"]
    assert ran.outcome.error is not None
    assert b"secret" not in ran.outcome.error


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), KeyboardInterrupt(), GeneratorExit()])
def test_an_exception_that_ends_programs_ends_only_the_job(error: BaseException) -> None:
    ran = run(raising(error))
    assert (ran.verb, ran.reason, ran.outcome.error_type) == (Verb.FAIL, Reason.ERROR, type(error).__name__)


def test_a_memory_error_fails_only_the_attempt() -> None:
    ran = run(raising(MemoryError()))
    assert (ran.verb, ran.outcome.error_type) == (Verb.RETRY, "MemoryError")


def test_endless_recursion_fails_only_the_attempt() -> None:
    def handle(job: Any) -> None:
        handle(job)

    ran = run(handle)
    assert (ran.verb, ran.outcome.error_type) == (Verb.RETRY, "RecursionError")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_without_a_text_is_kept_by_its_type() -> None:
    ran = run(raising(Mute()))
    assert ran.outcome.error_type == "Mute"
    assert "could not be made" in ran.error["message"]


def test_an_endless_message_is_cut() -> None:
    ran = run(raising(ValueError("x" * 5_000_000)))
    assert len(ran.error["message"]) <= 10_000
    assert len(ran.error["traceback"]) <= 40_000


def test_a_message_of_half_characters_is_kept() -> None:
    assert run(raising(ValueError("\ud800\0"))).error["message"] == "\ud800\0"


# --- hooks -------------------------------------------------------------------------------------------------------


def test_hooks_run_around_the_handler_in_their_order() -> None:
    seen: list[Any] = []

    def handle(_job: Any) -> int:
        seen.append("handle")
        return 7

    before: Any = lambda job: seen.append("before")  # noqa: E731
    after: Any = lambda job, result: seen.append(("after", result))  # noqa: E731
    ran = run(handle, before=before, after=after)
    assert seen == ["before", "handle", ("after", 7)]
    assert ran.result == 7


@pytest.mark.parametrize("hook", ["before", "after"])
def test_an_exception_in_a_hook_fails_the_attempt(hook: str) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("hook")

    hooks: dict[str, Any] = {hook: failing}
    ran = run(lambda job: None, **hooks)
    assert (ran.verb, ran.outcome.error_type) == (Verb.RETRY, "ValueError")


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1)])
def test_on_failure_hears_of_the_exception(error: BaseException) -> None:
    heard: list[BaseException] = []
    run(raising(error), on_failure=lambda job, failure: heard.append(failure))
    assert heard == [error]


@pytest.mark.parametrize("second", [RuntimeError("in the hook"), SystemExit(2), KeyboardInterrupt()])
def test_an_exception_in_on_failure_changes_nothing(second: BaseException) -> None:
    def on_failure(_job: Any, _error: BaseException) -> None:
        raise second

    ran = run(raising(ValueError("first")), on_failure=on_failure)
    assert (ran.verb, ran.outcome.error_type, ran.error["message"]) == (Verb.RETRY, "ValueError", "first")


@pytest.mark.parametrize(
    ("error", "verb"), [(TypeError, Verb.FAIL), (SystemExit, Verb.FAIL), (MemoryError, Verb.RETRY)]
)
def test_a_class_that_cannot_be_made_fails_its_job_and_for_memory_its_attempt(
    error: type[BaseException], verb: Verb
) -> None:
    def refuse(_cls: Any) -> Any:
        raise error("not so")

    ran = run(lambda job: None, __new__=refuse)
    assert (ran.verb, ran.outcome.error_type) == (verb, error.__name__)


# --- time --------------------------------------------------------------------------------------------------------


def _busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_handler_is_interrupted_when_its_time_is_up() -> None:
    started = time.monotonic()
    ran = run(lambda job: _busy(10), claim={"timeout_ms": 30})
    assert time.monotonic() - started < 5
    assert (ran.verb, ran.reason, ran.outcome.error_type) == (Verb.RETRY, Reason.TIMED_OUT, "JobTimedOut")


def test_a_wait_is_interrupted_too() -> None:
    ran = run(lambda job: signal.pause(), claim={"timeout_ms": 30})
    assert ran.reason is Reason.TIMED_OUT


def test_catching_exceptions_does_not_swallow_the_timeout() -> None:
    def handle(_job: Any) -> None:
        while True:
            try:
                _busy(10)
            except Exception:
                continue

    assert run(handle, claim={"timeout_ms": 30}).reason is Reason.TIMED_OUT


def test_the_time_covers_the_hooks() -> None:
    ran = run(lambda job: None, before=lambda job: _busy(10), claim={"timeout_ms": 30})
    assert ran.reason is Reason.TIMED_OUT


def test_the_alarm_of_one_job_never_rings_in_the_next() -> None:
    run(lambda job: None, claim={"timeout_ms": 40})
    run(raising(ValueError()), claim={"timeout_ms": 40})
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert run(lambda job: _busy(0.08)).verb is Verb.COMPLETE


def test_an_alarm_that_rings_while_it_is_held_rings_afterwards() -> None:
    held: list[bool] = []

    def handle(_job: Any) -> None:
        with alarm_held():
            _busy(0.05)
            held.append(True)
        _busy(10)

    assert run(handle, claim={"timeout_ms": 20}).reason is Reason.TIMED_OUT
    assert held == [True]


def test_a_job_without_a_timeout_may_take_its_time() -> None:
    assert run(lambda job: _busy(0.05)).verb is Verb.COMPLETE


# --- what a handler knows ----------------------------------------------------------------------------------------


def test_a_handler_knows_its_attempt_and_its_fencing_token() -> None:
    claim = {"attempt": 2, "lease": 9, "queue": "mails", "rank": -15}
    ran = run(lambda job: [job.attempt, job.fencing_token, job.queue, job.priority, str(job.id)], claim=claim)
    assert ran.result[:4] == [2, 9, "mails", 15]
    assert ran.result[4].replace("-", "") == ran.claimed.id.hex()


def test_the_constructor_is_for_pushing_and_is_not_called_again() -> None:
    def refuse(_self: Any) -> None:
        raise AssertionError("called")

    assert run(lambda job: job.payload, {"a": 1}, __init__=refuse).result == {"a": 1}
