"""What a node does with jobs, on real processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from taskqueue import JobHandle, Priority, Reason, State
from tests.node.running import House, job, until


def order(house: House) -> list[object]:
    return [line.job for line in house.started()]


def test_a_job_runs_and_its_result_comes_back_sealed(house: House) -> None:
    handle = house.push("Quick", {"answer": {"sent": True, "to": "a@example.org"}})
    house.work_until_empty()
    assert handle.result() == {"sent": True, "to": "a@example.org"}
    ((blob,),) = house.rows("SELECT result FROM tq_history")
    assert b"example" not in blob


def test_every_job_runs_once_and_the_counters_say_so(house: House) -> None:
    handles = house.manager.push_many([job("Quick", {"number": number}) for number in range(500)])
    node = house.work_until_empty(2)
    assert sorted(line.job for line in house.started()) == sorted(handles)
    assert house.manager.get_queue_stats("default")["default"]["by_state"]["completed"] == 500
    assert node.counts["completed"] == 500


def test_higher_priorities_run_first_and_equals_in_the_order_of_their_push(house: House) -> None:
    priorities = [Priority.LOW, Priority.URGENT, Priority.NORMAL, Priority.HIGH, Priority.URGENT, Priority.LOW]
    handles = [house.push("Quick", priority=priority) for priority in priorities]
    house.work_until_empty()
    assert order(house) == [handles[index].id for index in (1, 4, 3, 2, 0, 5)]


def test_queues_are_served_in_the_order_in_which_they_are_named(house: House) -> None:
    handles = [house.push("Quick", queue=queue) for queue in ("b", "a", "b", "other", "a")]
    house.work_until_empty(queues=["a", "b"])
    assert order(house) == [handles[index].id for index in (1, 4, 0, 2)]
    assert handles[3].record().state is State.PENDING


def test_a_paused_queue_is_left_alone_until_it_is_resumed(house: House) -> None:
    handle = house.push("Quick")
    house.manager.pause_queue("default")
    node = house.start()
    other = house.push("Quick", queue="other")
    other.wait(20)
    assert house.started(handle) == []
    house.manager.resume_queue("default")
    assert handle.wait(20).state is State.COMPLETED
    assert node.stop() == 0


def test_a_delayed_job_runs_when_it_is_due_and_not_before(house: House) -> None:
    house.start().await_start()
    pushed = time.monotonic()
    handle = house.push("Quick", delay=0.7)
    assert handle.record().state is State.DELAYED
    house.await_start(handle)
    record = handle.wait(20)
    assert record.started_at is not None
    assert record.run_at is not None
    assert record.started_at >= record.run_at
    assert time.monotonic() - pushed < 5


def test_a_failed_attempt_is_tried_again_and_leaves_its_error(house: House) -> None:
    handle = house.push("Flaky", {"until": 3, "say": "not yet, really"}, max_attempts=5, retry_interval=0.05)
    house.start()
    record = handle.wait(20)
    assert (record.state, record.attempt, record.result) == (State.COMPLETED, 3, 3)
    assert [(each.attempt, each.reason) for each in record.attempts] == [(1, "error"), (2, "error")]
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("RuntimeError", "not yet, really")
    assert "in handle" in record.error.traceback


def test_between_two_attempts_lies_the_backoff(house: House) -> None:
    handle = house.push("Flaky", {"until": 2}, retry_interval=0.6)
    house.start()
    handle.wait(20)
    first, second = house.started(handle)
    assert second.at - first.at >= 0.6
    assert second.lease > first.lease


def test_after_its_last_attempt_a_job_fails_and_keeps_its_payload(house: House) -> None:
    handle = house.push("Flaky", {"until": 9}, max_attempts=2, retry_interval=0.05)
    house.start()
    record = handle.wait(20)
    assert (record.state, record.reason, record.attempt) == (State.FAILED, Reason.ERROR, 2)
    assert record.payload == {"until": 9}
    assert len(house.started(handle)) == 2


@pytest.mark.any_database
@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_a_handler_that_asks_to_end_the_program_ends_its_job_alone(house: House, how: str) -> None:
    handle, after = house.push("Exits", {"how": how}), house.push("Quick")
    house.start()
    record = handle.wait(20)
    assert (record.state, record.crashes) == (State.FAILED, 0)
    assert after.wait(20).state is State.COMPLETED
    assert {line.pid for line in house.started()} == {house.started(after)[0].pid}


def test_an_expired_job_fails_without_having_run(house: House) -> None:
    handle = house.push("Quick", expires_in=0.001)
    until(lambda: time.time() > handle.record().created_at.timestamp() + 0.01, "the job has expired")
    node = house.work_until_empty()
    record = handle.record()
    assert (record.state, record.reason, record.attempt) == (State.FAILED, Reason.EXPIRED, 0)
    assert house.started() == []
    assert node.counts["failed"] == 1


def test_a_job_of_an_unknown_class_is_parked_until_a_node_comes_that_knows_it(house: House) -> None:
    (house.folder / "new_jobs.py").write_text(
        "from taskqueue import Job\nclass New(Job):\n    name = 'New'\n    def handle(self): return 'new'\n"
    )
    handle, known = house.push("New"), house.push("Quick")
    old = house.start()
    known.wait(20)
    record = until(lambda: handle.record().state is State.BLOCKED and handle.record(), "the job is parked")
    assert (record.blocked_by, record.attempt) == ("unknown_class", 0)
    house.start(imports=("node_jobs", "new_jobs"))
    assert handle.result(20) == "new"
    assert old.stop() == 0


@pytest.mark.any_database
def test_no_module_is_imported_because_a_row_names_it(house: House) -> None:
    (house.folder / "evil.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    handles = [house.push(name) for name in ("evil.Job", "os.system", "subprocess.Popen")]
    node = house.start()
    until(lambda: all(handle.record().state is State.BLOCKED for handle in handles), "the jobs are parked")
    assert not (house.folder / "imported").exists()
    assert node.stop() == 0


def test_two_nodes_on_one_file_share_the_work_and_start_nothing_twice(house: House) -> None:
    first, second = house.start(1).await_start(), house.start(1).await_start()
    first.await_workers(1)
    second.await_workers(1)
    handles = house.manager.push_many([job("Quick", {"sleep": 0.002}) for _ in range(400)])
    house.manager.wait_for(handles, 60)
    assert sorted(line.job for line in house.started()) == sorted(handles)
    assert len({line.pid for line in house.started()}) == 2
    assert first.stop() == second.stop() == 0


def _learn_that_quick_is_short(house: House) -> None:
    for _ in range(3):
        house.manager.wait_for(house.manager.push_many([job("Quick") for _ in range(100)]), 20)


def test_a_slow_job_holds_no_fast_one_hostage(house: House) -> None:
    """All of one class, and the slow one in the middle, where nothing tells it from the fast ones."""
    house.start(2)
    _learn_that_quick_is_short(house)
    slow = job("Quick", {"gate": "open"})
    fast = [job("Quick") for _ in range(30)]
    house.manager.push_many([*fast[:15], slow, *fast[15:]])
    assert {record.state for record in house.manager.wait_for(fast, 10)} == {State.COMPLETED}
    assert house.manager.get_job(slow.id).state is State.PROCESSING
    house.open_gate("open")
    assert house.manager.wait(slow, 20).state is State.COMPLETED
    house.assert_no_start_twice()


def test_what_is_done_is_on_record_while_the_next_job_of_its_worker_takes_long(house: House) -> None:
    """So that the death of the worker costs the job that runs and none that has run."""
    house.start(1)
    _learn_that_quick_is_short(house)
    before, slow = [job("Quick") for _ in range(3)], job("Quick", {"gate": "open"})
    house.manager.push_many([*before, slow])
    assert {record.state for record in house.manager.wait_for(before, 10)} == {State.COMPLETED}
    (line,) = [line for line in house.started() if line.job == slow.id]
    os.kill(line.pid, signal.SIGKILL)
    house.open_gate("open")
    assert house.manager.wait(slow, 20).crashes == 1
    assert [record.lease for record in house.manager.wait_for(before)] == [1, 1, 1]


def test_a_node_that_is_to_stop_when_empty_does_all_there_is_and_ends(house: House) -> None:
    handles = [house.push("Quick"), house.push("Flaky", {"until": 9}, max_attempts=1)]
    later = house.push("Quick", delay=600)
    house.work_until_empty()
    assert [handle.record().finished for handle in handles] == [True, True]
    assert later.record().state is State.DELAYED


def test_an_empty_queue_ends_it_at_once(house: House) -> None:
    assert house.work_until_empty().counts["completed"] == 0


@pytest.mark.any_database
def test_a_node_ends_when_its_time_is_over(house: House) -> None:
    handle = house.push("Quick")
    started = time.monotonic()
    node = house.start(max_time=1)
    assert node.end() == 0
    assert 1 <= time.monotonic() - started < 10
    assert handle.record().state is State.COMPLETED
    assert "--max-time is over" in node.log


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('broken on purpose')", "ValueError: broken on purpose (broken_jobs.py, line 1)"),
        ("def (:", "SyntaxError"),
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    ],
)
def test_a_failing_import_ends_the_node_with_one_clear_line(house: House, source: str, said: str) -> None:
    (house.folder / "broken_jobs.py").write_text(source)
    node = house.start(imports=("broken_jobs",))
    assert node.end() == 78
    (line,) = node.log.splitlines()
    assert "broken_jobs" in line
    assert said in line
    assert house.manager.get_worker_health() == []


@pytest.mark.any_database
def test_a_module_that_is_not_there_is_named(house: House) -> None:
    node = house.start(imports=("nowhere.jobs",))
    assert node.end() == 78
    (line,) = node.log.splitlines()
    assert "cannot import 'nowhere.jobs'" in line


@pytest.mark.any_database
def test_a_module_that_ends_the_program_at_import_ends_the_node_as_a_failing_import_does(house: House) -> None:
    (house.folder / "leaving_jobs.py").write_text("raise SystemExit(0)")
    node = house.start(imports=("leaving_jobs",))
    assert node.end() == 78
    assert "leaving_jobs" in node.log


def test_a_node_is_listed_while_it_lives_and_not_after_it_has_stopped(house: House) -> None:
    node = house.start(2, node_name="worker-7").await_start()
    (health,) = house.manager.get_worker_health()
    assert (health["name"], health["pid"], health["workers"], health["queues"]) == ("worker-7", node.pid, 2, ["*"])
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    assert house.manager.get_worker_health() == []


def test_a_handle_waits_for_a_job_that_a_node_runs(house: House) -> None:
    handle: JobHandle = house.push("Quick", {"answer": 42})
    house.start()
    assert handle.result(timeout=20) == 42
