"""G9: a job that kills its worker three times fails; one that kills whole nodes is found; the jobs beside them finish.

Who is charged for a node, on each database: tests/drivers/test_rescuing.py.
"""

from __future__ import annotations

import functools

import pytest

from taskqueue import JobHandle, Reason, State
from tests.node.running import House, RunningNode, job, until

MOST_DEATHS = 6
"""Two that charge nobody, three that are charged, and one for a death between a claim and the record of a start."""


@pytest.mark.parametrize("name", ["Killer", "Exits"])
def test_a_job_that_kills_its_worker_fails_as_crashed_and_the_others_keep_their_pace(house: House, name: str) -> None:
    poison = house.push(name, {"how": "os"}, priority=15)
    node = house.start(2, crashed_again_delay=0.3)
    others = house.manager.push_many([job("Quick", {"sleep": 0.02}) for _ in range(100)])
    records = house.manager.wait_for(others, 60)
    assert {(each.state, each.attempt, each.crashes, each.losses) for each in records} == {(State.COMPLETED, 1, 0, 0)}
    record = poison.wait(60)
    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.CRASHED, 3)
    assert [each.reason for each in record.attempts] == ["crashed"] * 3
    assert len(house.started(poison)) == 3
    assert node.stop() == 0, "the death of a worker is no failure of its node"
    house.assert_no_start_twice()


def test_from_its_second_crash_on_a_job_waits_and_then_runs_alone_in_a_fresh_worker(house: House) -> None:
    poison = house.push("Killer")
    house.start(2, crashed_again_delay=1.0)
    others = house.manager.push_many([job("Quick", {"sleep": 0.02}) for _ in range(50)])
    poison.wait(60)
    house.manager.wait_for(others, 60)
    _, second, third = house.started(poison)
    assert third.at - second.at >= 1.0
    assert [line for line in house.started() if line.pid == third.pid and line.job != poison.id] == []


@pytest.mark.slow
def test_a_job_that_takes_the_whole_node_with_it_is_found_and_the_jobs_beside_it_all_finish(house: House) -> None:
    poison = house.push("NodeKiller", priority=10)
    beside = house.manager.push_many([job("Quick", {"sleep": 0.3}) for _ in range(12)])
    deaths = 0
    while (record := poison.record()).state is not State.FAILED:
        node = house.start(3, crashed_again_delay=0.3)
        until(functools.partial(_is_over, node, poison), "it strikes or fails", 60)
        if node.process.poll() is not None:
            deaths += 1
            assert deaths <= MOST_DEATHS, poison.record()
        else:
            assert house.manager.wait_for(beside, 60)
            assert node.stop() == 0
    if deaths and poison.record().state is State.FAILED:
        house.work_until_empty(2, crashed_again_delay=0.3)
    print(f"{deaths} nodes died of it; {record.crashes} crashes, {record.losses} losses")  # noqa: T201
    assert (record.reason, record.crashes) == (Reason.CRASHED, 3)
    records = house.manager.wait_for(beside, 60)
    assert {each.state for each in records} == {State.COMPLETED}
    assert max(each.crashes for each in records) <= 1
    house.assert_no_start_twice()


def _is_over(node: RunningNode, poison: JobHandle) -> bool:
    return node.process.poll() is not None or poison.record().state is State.FAILED


@pytest.mark.any_database
def test_a_poisoned_job_is_left_alone_until_somebody_revives_it(house: House) -> None:
    poison = house.push("Killer")
    house.start(crashed_again_delay=0.05)
    assert poison.wait(60).reason is Reason.CRASHED
    house.push("Quick").wait(20)
    assert len(house.started(poison)) == 3
    house.manager.retry_failed_job(poison.id)
    house.await_start(poison, times=4)
    assert poison.wait(60).reason is Reason.CRASHED


@pytest.mark.any_database
def test_a_node_whose_workers_cannot_start_ends_with_an_error(house: House) -> None:
    """Nobody would notice a node that is alive, beats, and works on nothing."""
    (house.folder / "stillborn.py").write_text("import os\nos.register_at_fork(after_in_child=lambda: os._exit(9))\n")
    handle = house.push("Quick")
    node = house.start(2, imports=("node_jobs", "stillborn"), barren=1.5)
    assert node.end() == 1, node.log
    assert "no worker could start" in node.log
    assert handle.record().state is State.PENDING
    house.work_until_empty()
    assert handle.record().state is State.COMPLETED
