"""What a running job pushes: stored at once, only while its run holds its job, with the errors of any push."""

from __future__ import annotations

import os
import signal
from typing import Any
from uuid import UUID

import pytest

from taskqueue import State
from tests.node.running import House, until

DESK = ("node_jobs", "desk_jobs")
SHORT_LEASE: dict[str, Any] = {"heartbeat": 0.1, "lease": 6}


def test_a_pushed_job_is_there_and_runs(desk: House) -> None:
    handle = desk.push("Pushes", {"child": {"a": (1, 2)}, "options": {"priority": 50, "tags": ["x", "y"]}})
    node = desk.start(imports=DESK)
    child = desk.manager.handle(UUID(handle.result(30)))
    assert child.result(30) == {"a": (1, 2)}
    record = child.record()
    assert (record.priority, record.tags, record.job_class) == (50, ("x", "y"), "Child")
    assert node.stop() == 0
    assert node.counts["pushed"] == 1


def test_a_pushed_job_starts_soon_in_another_worker_while_its_pusher_runs(desk: House) -> None:
    handle = desk.push("Pushes", {"then": "open"})
    desk.start(2, imports=DESK)
    desk.await_start(handle)
    (child,) = desk.ids_of("Child", State.COMPLETED, expected=1)
    assert handle.record().state is State.PROCESSING
    desk.open_gate("open")
    assert UUID(handle.result(30)) == child


def test_a_child_of_another_queue_with_a_delay_waits_there(desk: House) -> None:
    handle = desk.push("Pushes", {"options": {"queue": "later", "delay": 3600}})
    desk.start(imports=DESK)
    record = desk.manager.get_job(handle.result(30))
    assert (record.queue, record.state) == ("later", State.DELAYED)


def test_a_child_that_depends_on_its_pusher_runs_after_it(desk: House) -> None:
    handle = desk.push("Pushes", {"after_me": True, "then": "open"})
    desk.start(2, imports=DESK)
    (child,) = desk.ids_of("Child", State.BLOCKED, expected=1)
    desk.open_gate("open")
    handle.wait(30)
    assert desk.manager.wait(child, 30).state is State.COMPLETED


def test_what_a_push_refuses_is_raised_in_the_handler(desk: House) -> None:
    first = desk.push("Child", unique_key="taken", delay=3600)
    duplicate = desk.push("Pushes", {"options": {"unique_key": "taken"}})
    kept = desk.push("Pushes", {"options": {"unique_key": "taken", "on_conflict": "keep"}})
    orphan = desk.push("Pushes", {"options": {"dependencies": [str(UUID(int=7 << 76 | 2 << 62))]}})
    desk.start(imports=DESK)
    assert duplicate.result(30)["error"] == "DuplicateJob"
    assert str(first.id) in duplicate.result(30)["text"]
    assert kept.result(30) == str(first.id)
    assert orphan.result(30)["error"] == "DependencyError"
    assert len(desk.manager.get_jobs(job_class="Child")) == 1


@pytest.mark.any_database
def test_what_cannot_be_sealed_or_is_no_option_is_refused_in_the_worker(desk: House) -> None:
    handle = desk.push("Unsealable")
    desk.start(imports=DESK)
    assert (
        handle.result(30)
        == ["PayloadTypeError", "InvalidOption", "UsageError", "PayloadTypeError"] + ["UsageError"] * 4
    )


def test_a_run_that_was_taken_over_pushes_nothing_and_its_handler_learns_of_it(desk: House) -> None:
    handle = desk.push("Pushes", {"gate": "open", "child": 1})
    node = desk.start(imports=DESK)
    desk.await_start(handle)
    desk.database.run("UPDATE tq_jobs SET lease = lease + 1")
    desk.open_gate("open")
    until(lambda: [line for line in desk.lines if line.what == "JobLost"], "the handler got JobLost")
    until(lambda: "is no longer ours" in node.log, "the loss was logged")
    assert desk.manager.get_jobs(job_class="Child") == []


def test_a_paused_node_whose_job_another_has_taken_pushes_nothing_when_it_wakes(desk: House) -> None:
    handle = desk.push("Pushes", {"gate": "open"})
    asleep = desk.start(imports=DESK, **SHORT_LEASE)
    desk.await_start(handle)
    asleep.pause(workers=True)
    desk.start(imports=DESK, **SHORT_LEASE)
    again = desk.await_start(handle, times=2)
    desk.open_gate("open")
    child = UUID(handle.result(30))
    asleep.signal_tree(signal.SIGCONT)
    until(lambda: "stops its workers" in asleep.log or "no longer ours" in asleep.log, "the sleeper has noticed")
    asleep.stop()
    assert [record.id for record in desk.manager.get_jobs(job_class="Child")] == [child]
    assert again.lease > 1


def test_a_job_that_dies_after_its_push_pushes_again_and_both_children_stay(desk: House) -> None:
    handle = desk.push("Pushes", {"then": "open-{lease}"})
    desk.start(2, imports=DESK)
    first = desk.await_start(handle)
    until(lambda: [line for line in desk.lines if line.what == "pushed"], "the first child is stored")
    os.kill(first.pid, signal.SIGKILL)
    again = desk.await_start(handle, times=2)
    desk.open_gate(f"open-{again.lease}")
    last = UUID(handle.result(30))
    children = desk.ids_of("Child", State.COMPLETED, expected=2)
    assert last in children


def test_coroutines_ask_beside_each_other_without_keeping_their_loop_waiting(desk: House) -> None:
    handle = desk.push("Awaits")
    desk.start(imports=DESK)
    result = handle.result(30)
    assert result["before"] is None
    assert result["after"] in [{"number": number} for number in range(5)]
    assert result["ticks"] > 10
    assert (result["refused"], result["stop"], result["pid"]) == ("DependencyError", False, True)
    assert len(set(result["children"])) == 5
    desk.ids_of("Child", State.COMPLETED, expected=5)


def test_many_coroutines_and_threads_of_one_worker_ask_at_once(desk: House) -> None:
    handles = [desk.push("Awaits") for _ in range(12)] + [desk.push("Pushes", {"child": n}) for n in range(20)]
    handles += [desk.push("Remembers", {"state": number}) for number in range(20)]
    desk.start(1, imports=DESK, concurrency=12)
    records = desk.manager.wait_for(handles, 60)
    assert {record.state for record in records} == {State.COMPLETED}
    assert [record.result["now"] for record in records[32:]] == list(range(20))
    desk.ids_of("Child", State.COMPLETED, expected=80)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_a_coroutine_has_not_awaited_is_stored_before_its_outcome(desk: House, concurrency: int) -> None:
    handles = [desk.push("Forgets", {"checkpoint": True}) for _ in range(20)]
    failed = desk.push("Forgets", {"fail": True}, max_attempts=1)
    desk.start(imports=DESK, concurrency=concurrency)
    assert {record.state for record in desk.manager.wait_for(handles, 60)} == {State.COMPLETED}
    assert failed.wait(30).state is State.FAILED
    desk.ids_of("Child", State.COMPLETED, expected=21)


@pytest.mark.parametrize("look", [False, True])
def test_a_push_that_was_not_awaited_and_is_refused_fails_the_attempt(desk: House, look: bool) -> None:
    desk.push("Child", unique_key="taken", delay=3600)
    handle = desk.push("Forgets", {"options": {"unique_key": "taken"}, "look": look}, max_attempts=1)
    desk.start(imports=DESK)
    record = handle.wait(30)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.type == "DuplicateJob"


@pytest.mark.any_database
def test_an_error_that_a_coroutine_has_seen_does_not_fail_it(desk: House) -> None:
    desk.push("Child", unique_key="taken", delay=3600)
    handle = desk.push("Catches")
    desk.start(imports=DESK)
    assert handle.result(30) == ["DuplicateJob", "DuplicateJob"]


@pytest.mark.any_database
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_plain_hook_beside_a_coroutine_pushes(desk: House, concurrency: int) -> None:
    handles = [desk.push("Hooked", max_attempts=1) for _ in range(10)]
    desk.start(imports=DESK, concurrency=concurrency)
    assert {record.state for record in desk.manager.wait_for(handles, 60)} == {State.FAILED}
    desk.ids_of("Child", State.COMPLETED, expected=10)
