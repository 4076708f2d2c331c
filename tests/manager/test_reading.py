"""Finding jobs, waiting for them, and counting."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest

from taskqueue import Job, JobHandle, QueueManager, Reason, State
from taskqueue.drivers.tables import attempts
from taskqueue.drivers.values import Completion, Ending
from taskqueue.errors import JobFailed, JobNotFound, UsageError, WaitTimeout
from taskqueue.ids import new_id
from taskqueue.node.identity import describe_node
from taskqueue.payload import Purpose
from taskqueue.states import Verb
from tests.manager.conftest import Connect
from tests.node.making import MovableClock


class Hand:
    """Ends jobs as a node would, by hand."""

    def __init__(self, manager: QueueManager, clock: MovableClock) -> None:
        self.manager, self.clock = manager, clock
        self.node = manager.driver.register_node(describe_node("hand", 30.0, {}))
        self.lanes = manager.driver.lanes(None)

    def claim(self, number: int = 1) -> Any:
        return self.manager.driver.cycle(self.node, (), (), self.lanes, number).claimed

    def complete(self, result: Any = None, run_us: int = 1000) -> UUID:
        (job,) = self.claim()
        sealed = self._seal(result, Purpose.RESULT, job) if result is not None else None
        done = Completion(job.id, job.lease, job.queue, self.clock.now_us(), run_us, 500, sealed)
        self.manager.driver.cycle(self.node, [done], (), self.lanes, 0)
        return UUID(bytes=job.id)

    def fail(self, message: str = "bad", verb: Verb = Verb.FAIL) -> UUID:
        (job,) = self.claim()
        error = self._seal({"type": "ValueError", "message": message, "traceback": "line"}, Purpose.ERROR, job)
        end = Ending(
            job.id, job.lease, job.queue, verb, self.clock.now_us(), 1000, 500, Reason.ERROR, None,
            error_type="ValueError", error=error, key_id=self.manager._codec.active_key_id,
        )  # fmt: skip
        self.manager.driver.cycle(self.node, (), [end], self.lanes, 0)
        return UUID(bytes=job.id)

    def _seal(self, value: Any, purpose: Purpose, job: Any) -> bytes:
        return self.manager._codec.seal(value, purpose, job.id, job.job_class)


@pytest.fixture
def hand(manager: QueueManager, clock: MovableClock) -> Hand:
    return Hand(manager, clock)


def ids(records: Any) -> list[UUID]:
    return [record.id for record in records]


# --- one job -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, lambda made: made, lambda made: made.hex])
def test_a_job_is_found_by_its_id_in_any_form(manager: QueueManager, mail: type[Job], form: Any) -> None:
    handle = manager.push(mail(7))
    assert manager.get_job(form(handle.id)).payload == 7


def test_a_job_that_does_not_exist_is_not_found(manager: QueueManager) -> None:
    missing = new_id()
    with pytest.raises(JobNotFound, match=str(missing)):
        manager.get_job(missing)


def test_what_is_no_id_is_said_to_be_none(manager: QueueManager) -> None:
    with pytest.raises(UsageError, match="is not a job id"):
        manager.get_job("seventeen")


def test_a_completed_job_has_its_result_and_no_payload(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    handle = manager.push(mail({"a": 1}))
    hand.complete({"b": [1, 2]}, run_us=2500)
    record = handle.record()
    assert (record.state, record.result, record.payload) == (State.COMPLETED, {"b": [1, 2]}, None)
    assert (record.duration, record.finished_at) == (0.0025, hand.clock.now())


def test_a_failed_job_has_its_error_and_its_payload(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    handle = manager.push(mail({"a": 1}))
    hand.fail("it went wrong")
    record = handle.record()
    assert (record.state, record.reason, record.payload) == (State.FAILED, Reason.ERROR, {"a": 1})
    assert record.error is not None
    assert (record.error.type, record.error.message, record.error.traceback) == ("ValueError", "it went wrong", "line")


def test_an_error_under_a_key_that_is_gone_still_has_its_type(
    manager: QueueManager, mail: type[Job], hand: Hand
) -> None:
    handle = manager.push(mail())
    hand.fail("secret")
    manager.driver.write(  # type: ignore[attr-defined]
        lambda connection: connection.execute(attempts.update().values(error=b"\0"))
    )
    error = handle.record().error
    assert error is not None
    assert error.type == "ValueError"
    assert "cannot be opened" in error.message


# --- many jobs ---------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_and_in_pages(manager: QueueManager, mail: type[Job]) -> None:
    pushed = manager.push_many([mail() for _ in range(25)])
    first = manager.get_jobs(limit=10)
    second = manager.get_jobs(limit=10, before=first[-1].id)
    third = manager.get_jobs(limit=10, before=second[-1].id)
    assert ids([*first, *second, *third]) == pushed[::-1]


def test_conditions_must_all_hold(manager: QueueManager, mail: type[Job]) -> None:
    wanted = manager.push(mail(queue="a", tags=["x", "y"], category="c"))
    manager.push(mail(queue="b", tags=["x"], category="c"))
    manager.push(mail(queue="a", tags=["y"], category="d"))
    for conditions in ({"queue": "a", "tag": "x"}, {"queue": "a", "category": "c"}, {"ids": [wanted.id]}):
        assert ids(manager.get_jobs(**conditions)) == [wanted.id]
    assert manager.count_jobs(queue=["a", "b"], job_class="tests.manager.Mail") == 3


def test_live_and_finished_jobs_are_listed_together(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    handles = [manager.push(mail()) for _ in range(4)]
    done, failed = hand.complete(), hand.fail()
    assert ids(manager.get_jobs()) == [handle.id for handle in reversed(handles)]
    assert ids(manager.get_jobs_by_state("completed")) == [done]
    assert ids(manager.get_failed_jobs()) == [failed]
    assert ids(manager.get_jobs(reason="error")) == [failed]
    assert len(manager.get_jobs(state=["pending", State.FAILED])) == 3


def test_jobs_are_found_by_when_they_were_pushed(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    manager.push(mail())
    clock.move(10)
    between = clock.now()
    clock.move(10)
    later = manager.push(mail())
    assert ids(manager.get_jobs(since=between)) == [later.id]
    assert manager.count_jobs(until=between) == 1


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"state": "done"}, "'done' is no state: expected one of pending, processing"),
        ({"reason": "bad luck"}, "is no reason"),
        ({"since": "yesterday"}, "since must be a time with its zone"),
        ({"colour": "red"}, "unknown condition.*colour"),
        ({"ids": ["x"]}, "is not a job id"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(
    manager: QueueManager, conditions: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        manager.get_jobs(**conditions)


@pytest.mark.parametrize("nothing", [{"ids": []}, {"state": []}, {"queue": ()}])
def test_an_empty_choice_chooses_nothing(manager: QueueManager, mail: type[Job], nothing: dict[str, Any]) -> None:
    """The list that a caller computed may be empty: that must never come to mean every job."""
    manager.push_many([mail(), mail()])
    assert manager.get_jobs(**nothing) == []
    assert manager.count_jobs(**nothing) == 0
    assert manager.cancel_jobs(**nothing) == []
    assert manager.delete_jobs(**nothing) == 0
    assert manager.size() == 2


# --- waiting -----------------------------------------------------------------------------------------------------


def test_a_wait_ends_when_the_job_has_finished(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    handle = manager.push(mail())
    hand.complete("done")
    assert handle.wait(1).state is State.COMPLETED
    assert handle.result(1) == "done"


def test_a_wait_for_a_failed_job_returns_and_its_result_raises(
    manager: QueueManager, mail: type[Job], hand: Hand
) -> None:
    handle = manager.push(mail())
    hand.fail("a secret")
    assert handle.wait(1).state is State.FAILED
    with pytest.raises(JobFailed, match="ended as failed: ValueError") as caught:
        handle.result(1)
    assert "secret" not in str(caught.value)


def test_records_come_in_the_order_in_which_they_were_asked_for(
    manager: QueueManager, mail: type[Job], hand: Hand
) -> None:
    handles: list[JobHandle | UUID | str] = [manager.push(mail()) for _ in range(2)]
    hand.complete(1)
    hand.complete(2)
    assert [record.result for record in manager.wait_for([*reversed(handles), handles[0]], 1)] == [2, 1, 1]


def test_a_failed_job_raises_where_that_is_asked_for(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    handle = manager.push(mail())
    hand.fail()
    with pytest.raises(JobFailed):
        manager.wait_for([handle], 1, throw=True)


def test_a_wait_that_is_over_says_how_many_jobs_have_not_finished(manager: QueueManager, mail: type[Job]) -> None:
    handles = [manager.push(mail()) for _ in range(2)]
    with pytest.raises(
        WaitTimeout, match=r"2 job\(s\) have not finished within 0.5 s.*\(pending\); is a worker running"
    ):
        manager.wait_for(handles, 0.5)


def test_a_wait_for_a_job_that_does_not_exist_ends_at_once(manager: QueueManager) -> None:
    with pytest.raises(JobNotFound):
        manager.wait(new_id())


def test_a_wait_for_nothing_is_over(manager: QueueManager) -> None:
    assert manager.wait_for([]) == []


# --- numbers -----------------------------------------------------------------------------------------------------


def test_the_size_is_what_waits_or_runs(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    manager.push_many([mail(queue="a"), mail(queue="a"), mail(queue="b"), mail(queue="b", delay=5)])
    hand.complete()
    hand.claim()
    assert (manager.size(), manager.size("a") + manager.size("b"), manager.size("nowhere")) == (3, 3, 0)


def test_queue_statistics_are_exact(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    manager.push_many([mail() for _ in range(5)])
    manager.push(mail(delay=60))
    hand.complete()
    hand.fail()
    hand.claim()
    hand.clock.move(3)
    stats = manager.get_queue_stats()["default"]
    assert stats["total_jobs"] == 6
    assert {name: number for name, number in stats["by_state"].items() if number} == {
        "pending": 2, "processing": 1, "delayed": 1, "completed": 1, "failed": 1,
    }  # fmt: skip
    assert (stats["paused"], stats["oldest_wait"]) == (False, 3.0)


def test_a_queue_that_never_held_a_job_counts_zero(manager: QueueManager) -> None:
    assert manager.get_queue_stats("empty")["empty"]["total_jobs"] == 0


def test_performance_is_of_the_completed_jobs(manager: QueueManager, mail: type[Job], hand: Hand) -> None:
    manager.push_many([mail() for _ in range(4)])
    hand.complete(run_us=1_000_000)
    hand.complete(run_us=3_000_000)
    hand.fail()
    hand.fail(verb=Verb.RETRY)
    metrics = manager.get_performance_metrics(3600)
    assert (metrics["completed"], metrics["failed"], metrics["retried"]) == (2, 1, 1)
    assert (metrics["run_seconds_mean"], metrics["run_seconds_most"]) == (2.0, 3.0)
    assert metrics["success_rate"] == pytest.approx(2 / 3)
    assert metrics["jobs_per_second"] == pytest.approx(3 / 3600)
    assert metrics["queues"]["default"]["completed"] == 2


def test_performance_of_nothing_is_nothing(manager: QueueManager) -> None:
    metrics = manager.get_performance_metrics()
    assert (metrics["completed"], metrics["success_rate"], metrics["run_seconds_mean"]) == (0, None, None)


@pytest.mark.parametrize("timeframe", [0, -5, float("nan")])
def test_a_timeframe_without_time_is_refused(manager: QueueManager, timeframe: float) -> None:
    with pytest.raises(UsageError, match="timeframe must be"):
        manager.get_performance_metrics(timeframe)


def test_living_nodes_are_listed_with_the_time_since_their_beat(manager: QueueManager, hand: Hand) -> None:
    hand.clock.move(4)
    (node,) = manager.get_worker_health()
    assert (node["id"], node["name"], node["state"], node["seconds_since_beat"]) == (hand.node, "hand", "alive", 4.0)
    manager.driver.stop_node(hand.node)
    assert manager.get_worker_health() == []


# --- one manager, many threads -----------------------------------------------------------------------------------


def test_a_manager_may_be_shared_between_threads(connect: Connect, mail: type[Job]) -> None:
    manager = connect()
    pushed: list[UUID] = []

    def push() -> None:
        pushed.extend(manager.push(mail()).id for _ in range(50))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(pushed)) == manager.size() == 200
    manager.disconnect()
