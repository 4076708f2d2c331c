"""Jobs that wait for others, as users push and read them."""

from __future__ import annotations

from uuid import UUID

import pytest

from taskqueue import Job, QueueManager
from taskqueue.drivers.values import Completion, Ending, NodeIdentity
from taskqueue.errors import DependencyError, InvalidOption
from taskqueue.ids import new_id
from taskqueue.states import Reason, State, Verb


def end(manager: QueueManager, job_id: UUID, verb: Verb | None = None) -> None:
    """Claim a job, which has to be the first one, and end it: well, or by ``verb``."""
    driver = manager.driver
    node = driver.register_node(NodeIdentity(new_id().bytes, "n", "h", None, None, 1, None, 30_000, "{}"))
    lanes = driver.lanes(None)
    (job,) = driver.cycle(node, (), (), lanes, 1).claimed
    assert job.id == job_id.bytes
    if verb is None:
        driver.cycle(node, [Completion(job.id, job.lease, job.queue, job.ready_at, 1, 1, None)], (), lanes, 0)
    else:
        ending = Ending(job.id, job.lease, job.queue, verb, job.ready_at, reason=Reason.ERROR)
        driver.cycle(node, (), [ending], lanes, 0)


@pytest.mark.parametrize("form", ["job", "handle", "record", "id", "text"])
def test_a_parent_is_named_in_any_form(manager: QueueManager, mail: type[Job], form: str) -> None:
    job = mail()
    handle = manager.push(job)
    forms = {"job": job, "handle": handle, "record": handle.record(), "id": job.id, "text": str(job.id)}

    child = manager.push(mail(dependencies=[forms[form]])).record()

    assert (child.state, child.blocked_by, child.dependencies) == (State.BLOCKED, "parents", (job.id,))


def test_dependencies_are_given_at_the_push_as_well(manager: QueueManager, mail: type[Job]) -> None:
    parents = [manager.push(mail()) for _ in range(2)]

    child = manager.push(mail(), dependencies=parents, delay=60)

    assert child.record().dependencies == tuple(sorted(each.id for each in parents))
    for parent in parents:
        end(manager, parent.id)
    assert child.record().state is State.DELAYED
    assert child.record().dependencies == ()


def test_a_family_is_pushed_together(manager: QueueManager, mail: type[Job]) -> None:
    parent = mail()
    child = mail(dependencies=[parent])
    grandchild = mail(dependencies=[child, parent])

    manager.push_many([grandchild, child, parent])

    assert [each.id for each in manager.get_jobs(state="blocked")] == [grandchild.id, child.id]
    end(manager, parent.id)
    end(manager, child.id)
    assert manager.get_job(grandchild.id).state is State.PENDING


@pytest.mark.parametrize(
    ("policy", "state"), [("fail", "failed"), ("cancel", "cancelled"), ("run", "pending"), ("wait", "blocked")]
)
def test_a_child_says_what_becomes_of_it_when_a_parent_fails(
    manager: QueueManager, mail: type[Job], policy: str, state: str
) -> None:
    parent = manager.push(mail())
    child = manager.push(mail({"n": 1}, dependencies=[parent], on_parent_failure=policy))

    end(manager, parent.id, Verb.FAIL)

    record = child.record()
    assert record.state == state
    assert record.reason is (Reason.DEPENDENCY_FAILED if policy == "fail" else None)
    assert record.payload == {"n": 1}


def test_a_child_fails_by_default_and_can_be_retried(manager: QueueManager, mail: type[Job]) -> None:
    parent = manager.push(mail())
    child = manager.push(mail(dependencies=[parent]))
    parent.cancel()
    assert child.record().reason is Reason.DEPENDENCY_FAILED

    manager.retry_failed_job(child.id)

    assert child.record().state is State.PENDING


def test_a_job_in_json_says_what_it_waits_for(manager: QueueManager, mail: type[Job]) -> None:
    parent = manager.push(mail())
    child = manager.push(mail(dependencies=[parent])).record()

    assert child.to_json()["dependencies"] == [str(parent.id)]
    assert child.to_json()["blocked_by"] == "parents"
    assert parent.record().to_json()["dependencies"] == []


def test_a_unique_job_waits_for_its_parents_too(manager: QueueManager, mail: type[Job]) -> None:
    parent = manager.push(mail())
    child = manager.push(mail(unique_key="one", dependencies=[parent]))
    other, created = manager.push_once(mail({"n": 1}, dependencies=[parent]))

    assert created
    assert child.record().dependencies == other.record().dependencies == (parent.id,)


def test_a_job_that_takes_the_place_of_its_own_parent_does_not_wait_for_it(
    manager: QueueManager, mail: type[Job]
) -> None:
    parent = manager.push(mail(unique_key="one"))

    child = manager.push(mail(unique_key="one", on_conflict="replace", dependencies=[parent], on_parent_failure="run"))

    assert parent.record().state is State.CANCELLED
    assert child.record().state is State.PENDING


def test_a_parent_that_was_never_pushed_is_refused(manager: QueueManager, mail: type[Job]) -> None:
    parent = mail()
    with pytest.raises(DependencyError, match=f"depends on job {parent.id}, which does not exist"):
        manager.push(mail(dependencies=[parent]))
    assert manager.size() == 0


def test_a_child_waits_for_the_job_that_stands_for_its_parent(manager: QueueManager, mail: type[Job]) -> None:
    stands = manager.push(mail(unique_key="one"))
    parent = mail(unique_key="one", on_conflict="keep")
    child = mail(dependencies=[parent])

    manager.push_many([child, parent])

    assert manager.get_job(child.id).dependencies == (stands.id,)


def test_a_cycle_is_refused(manager: QueueManager, mail: type[Job]) -> None:
    first, second = mail(), mail()
    first.configure(dependencies=[second])
    second.configure(dependencies=[first])
    with pytest.raises(DependencyError, match=f"{first.id} -> {second.id} -> {first.id}"):
        manager.push_many([first, second])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("nonsense", "list of jobs, handles or ids"),
        ([7], "list of jobs, handles or ids"),
        (7, "list of jobs, handles or ids"),
        ({}, "list of jobs, handles or ids"),
        ([None], "list of jobs, handles or ids"),
        ([new_id() for _ in range(1001)], "at most 1,000 jobs"),
    ],
)
def test_what_is_no_list_of_jobs_is_refused(mail: type[Job], given: object, expected: str) -> None:
    with pytest.raises(InvalidOption, match=expected):
        mail(dependencies=given)


def test_ids_come_as_one_text_from_a_command_line(mail: type[Job]) -> None:
    first, second = new_id(), new_id()
    assert mail(dependencies=f"{first}, {second},{first}").options.dependencies == (first, second)
    assert mail(dependencies=[f"{first},{second}", str(first)]).options.dependencies == (first, second)
