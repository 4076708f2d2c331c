"""How many workers a real node has: fixed, following the load, one for each job; workers of their own; drains."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from taskqueue import JobHandle, Reason, State
from taskqueue.errors import NotFound
from tests.node.running import House, RunningNode, until

pytestmark = pytest.mark.xdist_group("process management")


def gated(house: House, number: int, gate: str = "gate", **options: Any) -> list[JobHandle]:
    return [house.push("Gated", {"gate": gate}, **options) for _ in range(number)]


def await_states(handles: list[JobHandle], state: State) -> None:
    until(lambda: all(handle.record().state is state for handle in handles), f"every job is {state}")


def await_started(house: House, number: int) -> list[int]:
    """Wait until as many jobs have started, and return the pids of their workers."""
    until(lambda: len(house.started()) >= number, f"{number} jobs have started")
    return [line.pid for line in house.started()]


def standing(house: House) -> dict[str, Any]:
    (node,) = house.manager.get_worker_health()
    return node


# --- dynamic ---------------------------------------------------------------------------------------------------------


def test_a_dynamic_node_grows_to_its_most_while_jobs_wait_and_shrinks_to_its_fewest_when_they_are_done(
    house: House,
) -> None:
    node = house.start(pm="dynamic", min_workers=1, max_workers=4, leave_after=1.0).await_start()
    node.await_workers(1)
    handles = gated(house, 6)

    pids = await_started(house, 4)
    assert len(set(pids)) == 4
    assert sorted(pids) == node.workers
    assert len(house.started()) == 4

    house.open_gate("gate")
    await_states(handles, State.COMPLETED)
    node.await_workers(1)
    house.assert_no_start_twice()
    assert node.stop() == 0


def test_a_dynamic_node_needs_no_more_workers_than_jobs(house: House) -> None:
    node = house.start(pm="dynamic", min_workers=1, max_workers=8).await_start()
    handles = gated(house, 3)

    assert len(set(await_started(house, 3))) == 3
    assert len(node.workers) == 3
    house.open_gate("gate")
    await_states(handles, State.COMPLETED)


def test_it_keeps_its_fewest_and_brings_them_back(house: House) -> None:
    node = house.start(pm="dynamic", min_workers=2, max_workers=4, leave_after=0.2).await_start()
    first, second = node.await_workers(2)

    os.kill(first, signal.SIGKILL)

    until(lambda: len(node.workers) == 2 and first not in node.workers, "another worker is there")
    assert second in node.workers


# --- on demand -------------------------------------------------------------------------------------------------------


def test_an_ondemand_node_has_no_worker_until_a_job_comes_and_none_when_it_is_done(house: House) -> None:
    node = house.start(pm="ondemand", max_workers=2).await_start()
    assert node.workers == []

    handles = gated(house, 5)
    await_started(house, 2)
    assert len(node.workers) == 2
    house.open_gate("gate")
    await_states(handles, State.COMPLETED)

    until(lambda: node.workers == [], "no worker is left")
    assert len({line.pid for line in house.started()}) == 5
    house.assert_no_start_twice()
    assert node.stop() == 0


def test_an_ondemand_node_that_has_nothing_to_do_is_well_and_says_that_it_has_no_worker(house: House) -> None:
    house.start(pm="ondemand", max_workers=3, heartbeat=0.2, lease=5.0).await_start()
    house.push("Quick").wait(60)

    told = until(lambda: (found := standing(house))["workers"] == 0 and found, "it says so")
    assert (told["healthy"], told["pm"], told["min_workers"], told["max_workers"]) == (True, "ondemand", 0, 3)


def test_an_ondemand_node_ends_when_its_queue_is_empty(house: House) -> None:
    handles = [house.push("Quick") for _ in range(4)]
    house.work_until_empty(pm="ondemand", max_workers=2)
    await_states(handles, State.COMPLETED)


# --- whatever happens ------------------------------------------------------------------------------------------------

MODES = [
    {"pm": "static"},
    {"pm": "dynamic", "min_workers": 1, "max_workers": 1},
    {"pm": "ondemand", "max_workers": 1},
]
by_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode["pm"]))


@by_mode
def test_the_death_of_the_template_costs_no_job(house: House, mode: dict[str, Any]) -> None:
    node = house.start(**mode, heartbeat=0.2, lease=5.0).await_start()
    (handle,) = gated(house, 1, "gate-{lease}")
    house.await_start(handle)

    os.kill(node.template, signal.SIGKILL)
    house.await_start(handle, 2)

    for lease in (1, 2, 3):
        house.open_gate(f"gate-{lease}")
    assert handle.wait(60).state is State.COMPLETED
    until(lambda: standing(house)["healthy"], "the node is well again")


@by_mode
def test_a_job_whose_worker_is_killed_runs_again(house: House, mode: dict[str, Any]) -> None:
    house.start(**mode).await_start()
    (handle,) = gated(house, 1, "gate-{lease}")
    os.kill(house.await_start(handle).pid, signal.SIGKILL)

    house.await_start(handle, 2)
    for lease in (2, 3):
        house.open_gate(f"gate-{lease}")
    record = handle.wait(60)
    assert (record.state, record.crashes) == (State.COMPLETED, 1)


# --- a worker of its own ---------------------------------------------------------------------------------------------


@by_mode
def test_a_job_with_force_spawn_starts_though_every_worker_is_busy_and_others_wait(
    house: House, mode: dict[str, Any]
) -> None:
    node = house.start(**mode).await_start()
    others = gated(house, 4)
    (busy,) = await_started(house, 1)

    (own,) = gated(house, 1, "own", force_spawn=True)
    pid = house.await_start(own).pid

    assert pid != busy
    assert len(house.started()) == 2
    assert sorted(node.workers) == sorted([busy, pid])
    house.open_gate("own")
    assert own.wait(60).state is State.COMPLETED
    until(lambda: not house.is_running(pid), "its worker is gone with it")
    house.open_gate("gate")
    await_states(others, State.COMPLETED)
    assert pid not in {line.pid for line in house.started() if line.job != own.id}


def test_each_job_with_force_spawn_has_a_worker_for_itself(house: House) -> None:
    node = house.start().await_start()
    handles = gated(house, 5, force_spawn=True)

    assert len(set(await_started(house, 5))) == 5
    house.open_gate("gate")
    await_states(handles, State.COMPLETED)
    node.await_workers(1)
    house.assert_no_start_twice()


def test_a_job_with_force_spawn_that_kills_its_worker_is_charged_and_fails_in_the_end(house: House) -> None:
    house.start(crashed_again_delay=0.1).await_start()
    record = house.push("Killer", force_spawn=True).wait(60)

    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.CRASHED, 3)
    assert house.push("Quick").wait(60).state is State.COMPLETED


# --- drain -----------------------------------------------------------------------------------------------------------


def drained(house: House, node: RunningNode, **wanted: Any) -> None:
    assert node.end() == 0, node.log
    (row,) = house.manager.get_worker_health(everyone=True)
    assert row["state"] == "stopped"
    assert {name: row[name] for name in wanted} == wanted


@by_mode
def test_a_node_that_is_asked_to_drain_finishes_what_it_runs_and_stops(house: House, mode: dict[str, Any]) -> None:
    node = house.start(**mode, heartbeat=0.2, lease=5.0).await_start()
    running, waiting = gated(house, 1)[0], gated(house, 3)
    house.await_start(running)

    assert house.manager.drain_nodes(standing(house)["id"]) == [standing(house)["id"]]
    until(lambda: "asked to drain" in node.log, "the node has heard of it")
    assert standing(house)["state"] == "draining"
    house.open_gate("gate")

    drained(house, node, name=node_name(house))
    assert running.record().state is State.COMPLETED
    done = [handle.record().state for handle in waiting]
    assert set(done) <= {State.PENDING, State.COMPLETED}
    assert State.PROCESSING not in done
    house.assert_no_start_twice()


def node_name(house: House) -> str:
    return str(house.manager.get_worker_health(everyone=True)[0]["name"])


def test_a_job_that_stands_still_for_a_while_within_the_grace_is_waited_for(house: House) -> None:
    node = house.start(heartbeat=0.2, lease=20.0, grace=60.0).await_start()
    (handle,) = gated(house, 1)
    worker = house.await_start(handle).pid
    os.kill(worker, signal.SIGSTOP)
    house.open_gate("gate")

    house.manager.drain_nodes(everyone=True)
    until(lambda: "have up to 60 s" in node.log, "the node waits for it")
    os.kill(worker, signal.SIGCONT)

    drained(house, node)
    assert (handle.record().state, handle.record().attempt) == (State.COMPLETED, 1)


def test_two_drains_at_once_stop_a_node_once(house: House) -> None:
    node = house.start(heartbeat=0.2, lease=5.0).await_start()
    asked: list[list[int]] = []
    together = threading.Barrier(2)

    def ask() -> None:
        together.wait()
        asked.append(house.manager.drain_nodes(everyone=True))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(asked) == 2
    drained(house, node)
    assert node.log.count("asked to drain") == 1
    with pytest.raises(NotFound):
        house.manager.drain_nodes(1)


def test_draining_one_node_leaves_the_other_at_work(house: House) -> None:
    first = house.start(node_name="first", heartbeat=0.2, lease=5.0).await_start()
    house.start(node_name="second", heartbeat=0.2, lease=5.0).await_start()

    house.manager.drain_nodes("first")

    assert first.end() == 0
    assert [node["name"] for node in house.manager.get_worker_health()] == ["second"]
    assert house.push("Quick").wait(60).state is State.COMPLETED


# --- the memory of one job -------------------------------------------------------------------------------------------


@pytest.fixture
def greedy(house: House) -> House:
    """Give a house whose nodes also know jobs that take memory."""
    shutil.copy(Path(__file__).with_name("greedy_jobs.py"), house.folder)
    return house


def start_greedy(house: House, **options: Any) -> RunningNode:
    return house.start(imports=("node_jobs", "greedy_jobs"), memory="800MB", **options).await_start()


@pytest.mark.parametrize("how", ["objects", "block", "text", "private_map"])
def test_a_job_that_takes_more_than_its_limit_fails_and_its_worker_and_neighbours_go_on(
    greedy: House, how: str
) -> None:
    start_greedy(greedy)
    hog = greedy.push("Greedy", {"megabytes": 400, "how": how}, memory_limit="50MB", max_attempts=1)
    neighbours = [greedy.push("Quick") for _ in range(20)]

    record = hog.wait(60)

    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.ERROR, 0)
    assert record.error is not None
    assert (record.error.type, "50MB" in record.error.message) == ("MemoryLimitExceeded", True)
    await_states(neighbours, State.COMPLETED)
    assert len({line.pid for line in greedy.started()}) == 1


def test_memory_that_only_a_look_from_outside_can_count_ends_the_worker_and_is_charged_to_the_job_alone(
    greedy: House,
) -> None:
    start_greedy(greedy)
    hog = greedy.push(
        "Greedy", {"megabytes": 200, "how": "shared_map", "linger": True}, memory_limit="50MB", max_attempts=1
    )
    greedy.await_start(hog)
    neighbours = [greedy.push("Quick") for _ in range(20)]

    record = hog.wait(60)

    assert (record.state, record.reason, record.crashes, record.attempt) == (State.FAILED, Reason.ERROR, 0, 1)
    assert record.error is not None
    assert record.error.type == "MemoryLimitExceeded"
    await_states(neighbours, State.COMPLETED)
    assert all(handle.record().attempt == 1 for handle in neighbours)


def test_an_attempt_that_was_killed_for_its_memory_is_followed_by_the_next(greedy: House) -> None:
    start_greedy(greedy)
    payload = {"megabytes": 200, "how": "shared_map", "linger": True}
    record = greedy.push("Greedy", payload, memory_limit="20MB", max_attempts=2, retry_interval=0.1).wait(60)

    assert (record.state, record.reason, record.attempt, record.crashes) == (State.FAILED, Reason.ERROR, 2, 0)
    assert [each.error.type for each in record.attempts if each.error] == ["MemoryLimitExceeded"] * 2


def test_a_job_within_its_limit_and_one_without_are_left_alone(greedy: House) -> None:
    start_greedy(greedy)
    handles = [
        greedy.push("Greedy", {"megabytes": 30, "how": "block"}, memory_limit="100MB"),
        greedy.push("Greedy", {"megabytes": 150, "how": "block"}),
        greedy.push("Greedy", {"megabytes": 30, "how": "block"}, memory_limit="100MB"),
    ]
    await_states(handles, State.COMPLETED)
    assert len({line.pid for line in greedy.started()}) == 1


def test_a_handler_may_catch_the_end_of_its_memory(greedy: House) -> None:
    start_greedy(greedy)
    handle = greedy.push("Greedy", {"megabytes": 300, "how": "stubborn"}, memory_limit="50MB", max_attempts=1)
    assert handle.result(60) == -1


def test_in_a_worker_with_several_places_a_job_with_a_limit_runs_alone(greedy: House) -> None:
    start_greedy(greedy, concurrency=4)
    before = [greedy.push("Quick", {"sleep": 0.2}) for _ in range(6)]
    hog = greedy.push(
        "Greedy", {"megabytes": 200, "how": "shared_map", "linger": True}, memory_limit="50MB", max_attempts=1
    )
    after = [greedy.push("Quick", {"sleep": 0.05}) for _ in range(10)]

    record = hog.wait(60)

    assert (record.state, record.crashes, record.losses) == (State.FAILED, 0, 0)
    assert record.error is not None
    assert record.error.type == "MemoryLimitExceeded"
    await_states([*before, *after], State.COMPLETED)
    assert all(handle.record().losses == 0 and handle.record().attempt == 1 for handle in [*before, *after])
    greedy.assert_no_start_twice()
