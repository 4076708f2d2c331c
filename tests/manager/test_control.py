"""Cancel, revive, change, delete, flush, pause."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from taskqueue import Job, QueueManager, State
from taskqueue.doorbell import Doorbell
from taskqueue.drivers.values import Ending
from taskqueue.errors import InvalidTransition, JobNotFound, UsageError
from taskqueue.ids import new_id
from taskqueue.node.identity import describe_node
from taskqueue.states import Verb
from tests.node.making import MovableClock


class Claims:
    """Claims jobs and fails them, as a node would."""

    def __init__(self, manager: QueueManager) -> None:
        self.driver = manager.driver
        self.node = self.driver.register_node(describe_node("claims", 30.0, {}))
        self.lanes = self.driver.lanes(None)

    def claim(self) -> Any:
        claimed = self.driver.cycle(self.node, (), (), self.lanes, 1).claimed
        return claimed[0] if claimed else None

    def fail(self) -> None:
        job = self.claim()
        self.driver.cycle(self.node, (), [Ending(job.id, job.lease, job.queue, Verb.FAIL, 1)], self.lanes, 0)


@pytest.fixture
def claims(manager: QueueManager) -> Claims:
    return Claims(manager)


@pytest.fixture
def bell(manager: QueueManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doorbell]:
    """Return the bell of an idle node on this machine."""
    with tempfile.TemporaryDirectory(prefix="tq") as folder:  # The address of a socket may not be long.
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        made = Doorbell(manager.driver.installation()[0])
        assert made.bound
        yield made
        made.close()


# --- cancel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"delay": 60}])
def test_a_job_that_waits_is_cancelled(manager: QueueManager, mail: type[Job], options: dict[str, Any]) -> None:
    handle = manager.push(mail({"a": 1}, **options))
    assert handle.cancel()
    record = handle.record()
    assert (record.state, record.payload, record.finished) == (State.CANCELLED, {"a": 1}, True)


def test_a_job_that_has_finished_is_not_cancelled(manager: QueueManager, mail: type[Job]) -> None:
    handle = manager.push(mail())
    assert handle.cancel()
    assert not handle.cancel()


def test_a_cancelled_job_is_never_claimed(manager: QueueManager, mail: type[Job], claims: Claims) -> None:
    manager.push(mail()).cancel()
    assert claims.claim() is None


def test_many_jobs_are_cancelled_at_once(manager: QueueManager, mail: type[Job]) -> None:
    wanted = manager.push_many([mail(tags=["old"]) for _ in range(3)])
    manager.push(mail())
    assert sorted(manager.cancel_jobs(tag="old")) == sorted(wanted)
    assert manager.size() == 1


# --- revive ------------------------------------------------------------------------------------------------------


def test_a_failed_job_gets_fresh_attempts_under_a_higher_lease(
    manager: QueueManager, mail: type[Job], claims: Claims
) -> None:
    handle = manager.push(mail({"a": 1}))
    claims.fail()
    before = handle.record()
    assert manager.retry_failed_job(handle.id).id == handle.id
    after = handle.record()
    assert (after.state, after.attempt, after.payload) == (State.PENDING, 0, {"a": 1})
    assert after.lease > before.lease


def test_a_job_can_be_retried_later(
    manager: QueueManager, mail: type[Job], claims: Claims, clock: MovableClock
) -> None:
    handle = manager.push(mail())
    claims.fail()
    manager.retry_failed_job(handle.id, delay=60)
    assert handle.record().run_at == clock.now() + timedelta(seconds=60)


def test_a_cancelled_job_can_be_revived(manager: QueueManager, mail: type[Job]) -> None:
    handle = manager.push(mail())
    handle.cancel()
    manager.retry_failed_job(handle.id)
    assert handle.record().state is State.PENDING


def test_a_job_that_waits_cannot_be_retried(manager: QueueManager, mail: type[Job]) -> None:
    handle = manager.push(mail())
    with pytest.raises(InvalidTransition, match="is pending and cannot be retried"):
        manager.retry_failed_job(handle.id)


def test_every_failed_job_can_be_retried_at_once(manager: QueueManager, mail: type[Job], claims: Claims) -> None:
    manager.push_many([mail(queue=queue) for queue in ("a", "a", "b")])
    for _ in range(3):
        claims.fail()
    assert len(manager.retry_failed_jobs(queue="a")) == 2
    assert manager.count_jobs(state="failed") == 1


# --- change ------------------------------------------------------------------------------------------------------


def test_a_job_that_waits_can_be_changed(manager: QueueManager, mail: type[Job], clock: MovableClock) -> None:
    handle = manager.push(mail({"a": 1}, tags=["old"]))
    changed = manager.update_job(handle.id, queue="b", priority="high", delay=60, tags=["new", "newer"])
    assert changed == handle.record()
    assert (changed.queue, changed.priority, changed.tags) == ("b", 10, ("new", "newer"))
    assert (changed.state, changed.run_at) == (State.DELAYED, clock.now() + timedelta(seconds=60))
    assert (manager.count_jobs(tag="old"), manager.count_jobs(tag="new")) == (0, 1)
    assert changed.payload == {"a": 1}


def test_a_changed_job_is_claimed_from_its_new_place(manager: QueueManager, mail: type[Job], claims: Claims) -> None:
    first, second = manager.push(mail()), manager.push(mail())
    manager.update_job(second.id, priority=99)
    assert claims.claim().id == second.id.bytes
    assert claims.claim().id == first.id.bytes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"queue": "a b"}, "queue must be"),
        ({"priority": 500}, "priority must be"),
        ({"tags": ["x" * 65]}, "tags must be"),
        ({"run_at": "soon"}, "run_at must be"),
        ({"run_at": 0, "delay": 1}, "only one of run_at and delay"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(
    manager: QueueManager, mail: type[Job], changes: dict[str, Any], said: str
) -> None:
    handle = manager.push(mail())
    before = handle.record()
    with pytest.raises(UsageError, match=said):
        manager.update_job(handle.id, **changes)
    assert handle.record() == before


@pytest.mark.parametrize("what", ["change", "delete", "retry"])
def test_a_job_that_runs_is_left_alone(manager: QueueManager, mail: type[Job], claims: Claims, what: str) -> None:
    handle = manager.push(mail())
    claims.claim()
    ways: dict[str, Callable[[], Any]] = {
        "change": lambda: manager.update_job(handle.id, priority=1),
        "delete": lambda: manager.delete_job(handle.id),
        "retry": lambda: manager.retry_failed_job(handle.id),
    }
    with pytest.raises(InvalidTransition, match="is processing and cannot be"):
        ways[what]()
    assert handle.record().state is State.PROCESSING


@pytest.mark.parametrize("what", ["cancel_job", "delete_job", "retry_failed_job", "update_job"])
def test_a_job_that_does_not_exist_is_not_found(manager: QueueManager, what: str) -> None:
    with pytest.raises(JobNotFound):
        getattr(manager, what)(new_id())


# --- delete, flush, pause ----------------------------------------------------------------------------------------


def test_a_deleted_job_leaves_nothing(manager: QueueManager, mail: type[Job], claims: Claims) -> None:
    handles = [manager.push(mail(tags=["t"])), manager.push(mail(tags=["t"]))]
    claims.fail()
    for handle in handles:
        manager.delete_job(handle.id)
    assert manager.count_jobs() == manager.count_jobs(tag="t") == 0
    assert manager.get_queue_stats("default")["default"]["total_jobs"] == 0


def test_a_flush_takes_what_waits_and_leaves_what_runs_and_what_has_finished(
    manager: QueueManager, mail: type[Job], claims: Claims
) -> None:
    manager.push_many([mail(queue="a") for _ in range(2)])
    claims.fail()
    claims.claim()
    manager.push_many([mail(queue="a"), mail(queue="a", delay=5), mail(queue="b")])
    assert manager.flush("a") == 2
    assert manager.count_jobs(queue="a") == 2
    assert manager.flush() == 1


def test_a_paused_queue_is_not_claimed_from_until_it_is_resumed(
    manager: QueueManager, mail: type[Job], claims: Claims
) -> None:
    manager.push(mail(queue="a"))
    manager.pause_queue("a", "deploy")
    assert manager.get_queue_stats("a")["a"]["paused"]
    assert claims.claim() is None
    manager.resume_queue("a")
    assert claims.claim() is not None


@pytest.mark.parametrize("what", ["pause_queue", "resume_queue"])
def test_what_is_no_queue_cannot_be_paused(manager: QueueManager, what: str) -> None:
    with pytest.raises(UsageError, match="queue must be"):
        getattr(manager, what)("a b")


# --- who is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda manager, job_id: manager.retry_failed_job(job_id),
        lambda manager, job_id: manager.retry_failed_jobs(ids=[job_id], state=State.CANCELLED),
    ],
    ids=["one", "many"],
)
def test_an_idle_node_is_told_of_a_job_that_is_retried(
    manager: QueueManager, mail: type[Job], clock: MovableClock, bell: Doorbell, ask: Callable[..., object]
) -> None:
    handle = manager.push(mail())
    handle.cancel()
    clock.move(1)
    bell.heard()
    ask(manager, handle.id)
    assert bell.heard()


def test_an_idle_node_is_told_of_a_job_that_is_changed(
    manager: QueueManager, mail: type[Job], clock: MovableClock, bell: Doorbell
) -> None:
    handle = manager.push(mail(), delay=60)
    clock.move(1)
    bell.heard()
    manager.update_job(handle.id, delay=0)
    assert bell.heard()
