"""Jobs that wait for others, on the command line."""

from __future__ import annotations

from .conftest import Worker
from .test_queues import push


def test_a_job_is_pushed_behind_others_and_shown_with_them(worker: Worker) -> None:
    parents = [push(worker) for _ in range(5)]
    child = push(worker, "--dependencies", ",".join(parents[:4]), "--dependencies", parents[4])

    listed = worker("queue:list", "--state", "blocked", "--json").document["jobs"]
    assert [job["id"] for job in listed] == [child]
    shown = worker("queue:show", child, "--json").document
    assert (shown["blocked_by"], sorted(shown["dependencies"])) == ("parents", sorted(parents))
    assert f"waits for   {parents[0]}, {parents[1]}, {parents[2]}, and 2 more" in worker("queue:show", child).out


def test_what_becomes_of_a_child_is_said_at_its_push(worker: Worker) -> None:
    parent = push(worker)
    child = push(worker, "--dependencies", parent, "--on-parent-failure", "cancel")
    worker("queue:cancel", parent)
    assert worker("queue:show", child, "--json").document["state"] == "cancelled"


def test_a_parent_that_nobody_knows_is_refused(worker: Worker) -> None:
    unknown = "019a2f6e-8c1d-7a3b-9f42-5d6e7f8a9b0c"
    refused = worker("queue:push", "TestJob", "--dependencies", unknown, code=2)
    assert f"depends on job {unknown}, which does not exist in this database" in refused.err
