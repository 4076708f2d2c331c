"""How a node stops: running jobs finish, or go back unspent."""

from __future__ import annotations

import os
import signal
import time

import pytest

from taskqueue import State
from tests.node.running import House, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_that_is_asked_to_stop_lets_the_running_job_finish(house: House, number: int) -> None:
    running = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(running)
    waiting = house.push("Quick")
    node.signal(number)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    house.open_gate("open")
    assert node.end() == 0
    assert running.record().state is State.COMPLETED
    assert waiting.record().state is State.PENDING


def test_a_job_longer_than_the_grace_goes_back_unspent(house: House) -> None:
    handle = house.push("Gated", {"gate": "never"})
    node = house.start(grace=0.3)
    house.await_start(handle)
    assert node.stop() == 0
    record = handle.record()
    assert (record.state, record.attempt, record.crashes, record.losses) == (State.PENDING, 0, 0, 0)
    assert record.attempts == ()


def test_a_job_handed_back_runs_on_another_node_under_a_higher_lease(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"})
    first = house.start(grace=0)
    house.await_start(handle)
    assert first.stop() == 0
    house.open_gate("open")
    house.work_until_empty()
    before, after = house.started(handle)
    assert after.lease > before.lease
    assert (before.attempt, after.attempt) == (1, 1)
    assert handle.record().state is State.COMPLETED


def test_a_second_signal_ends_the_wait(house: House) -> None:
    handle = house.push("Gated", {"gate": "never"})
    node = house.start(grace=600)
    house.await_start(handle)
    node.signal(signal.SIGTERM)
    until(lambda: "stopping: 1 job(s)" in node.log, "the node stops")
    asked = time.monotonic()
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    assert time.monotonic() - asked < 10
    assert (handle.record().state, handle.record().attempt) == (State.PENDING, 0)


@pytest.mark.any_database
def test_two_signals_at_once_are_two_signals(house: House) -> None:
    handle = house.push("Gated", {"gate": "never"})
    node = house.start(grace=600)
    house.await_start(handle)
    node.signal(signal.SIGINT)
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    assert handle.record().state is State.PENDING


@pytest.mark.any_database
def test_a_stopped_node_leaves_no_process_behind(house: House) -> None:
    node = house.start(3).await_start()
    node.await_workers(3)
    tree = node.tree
    assert node.stop() == 0
    assert len(tree) == 5
    assert [pid for pid in tree if house.is_running(pid)] == []


def test_jobs_that_were_claimed_and_not_started_go_back_at_once(house: House) -> None:
    running = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(running)
    others = [house.push("Gated", {"gate": "open"}) for _ in range(5)]
    node.signal(signal.SIGTERM)
    until(lambda: all(each.record().state is State.PENDING for each in others), "the others are handed back")
    assert running.record().state is State.PROCESSING
    house.open_gate("open")
    assert node.end() == 0
    assert {each.record().attempt for each in others} == {0}


@pytest.mark.any_database
def test_a_signal_while_the_job_modules_are_imported_stops_the_node(house: House) -> None:
    (house.folder / "slow_jobs.py").write_text(
        "import os, time\nopen('importing', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    )
    node = house.start(imports=("slow_jobs",))
    until((house.folder / "importing").exists, "the import has begun")
    assert node.stop() == 0
    assert house.manager.get_worker_health() == []


@pytest.mark.any_database
def test_ctrl_c_in_a_terminal_reaches_the_supervisor_alone(house: House) -> None:
    """The template and the workers are in a process group of their own."""
    node = house.start().await_start()
    node.await_workers(1)
    groups = {os.getpgid(pid) for pid in node.tree[1:]}
    assert os.getpgid(node.pid) not in groups


def test_a_worker_that_is_asked_to_end_by_others_finishes_its_job_first(house: House) -> None:
    running, waiting = house.push("Gated", {"gate": "open"}), house.push("Quick")
    node = house.start()
    line = house.await_start(running)
    os.kill(line.pid, signal.SIGTERM)
    house.open_gate("open")
    assert waiting.wait(20).state is State.COMPLETED
    assert running.record().crashes == 0
    assert [each.pid for each in house.started(waiting)] != [line.pid]
    assert node.stop() == 0


def test_a_node_that_could_not_go_on_does_not_say_that_all_is_well(house: House) -> None:
    """Its tables are gone: the housekeeping ends, and with it the node, with an exit code that says so."""
    node = house.start(heartbeat=0.05, lease=3).await_start()
    house.database.run("DROP TABLE tq_nodes", "DROP TABLE tq_jobs")
    assert node.end() != 0
