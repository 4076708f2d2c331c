"""G2: every job reaches a final state; a second start has a cause.

At length and at random: tests/chaos.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from taskqueue import State
from tests.node.running import House, job, until

LEASE = 1.5
SHORT_LEASE: dict[str, Any] = {"heartbeat": 0.1, "lease": LEASE}


def test_after_every_process_was_killed_all_jobs_finish_with_no_setting(house: House) -> None:
    """Nobody is left to rescue; the next node that starts does it."""
    jobs = house.manager.push_many([job("Quick", {"sleep": 0.02}) for _ in range(60)])
    for workers in (2, 3):
        node = house.start(workers)
        until(lambda: len(house.started()) >= 5 * workers, "some jobs have started")  # noqa: B023 - called at once
        node.kill()
    house.work_until_empty(3)
    assert house.rows("SELECT COUNT(*) FROM tq_jobs") == [(0,)]
    assert house.rows("SELECT state, COUNT(*) FROM tq_history GROUP BY state") == [(4, len(jobs))]
    assert {line.job for line in house.started()} == set(jobs)
    house.assert_no_start_twice()


def test_on_nodes_that_live_each_job_starts_once(house: House) -> None:
    jobs = house.manager.push_many([job("Quick") for _ in range(200)])
    nodes = [house.start(2) for _ in range(2)]
    house.manager.wait_for(jobs, 60)
    assert Counter(line.job for line in house.started()) == dict.fromkeys(jobs, 1)
    assert [node.stop() for node in nodes] == [0, 0]


def test_a_job_of_many_leases_on_a_beating_node_starts_once(house: House) -> None:
    handle = house.push("Quick", {"sleep": 3 * LEASE})
    nodes = [house.start(**SHORT_LEASE) for _ in range(2)]
    record = handle.wait(40)
    assert (record.state, record.losses, record.lease) == (State.COMPLETED, 0, 1)
    assert len(house.started(handle)) == 1
    assert [node.stop() for node in nodes] == [0, 0]


def test_a_job_delayed_by_many_leases_starts_once_at_its_first_attempt(house: House) -> None:
    handle = house.push("Quick", delay=2 * LEASE)
    house.start(**SHORT_LEASE)
    record = handle.wait(40)
    assert (record.state, record.attempt, record.lease) == (State.COMPLETED, 1, 1)


@pytest.mark.any_database
def test_a_node_that_knows_no_class_leaves_rescued_jobs_to_those_that_do(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"})
    node = house.start()
    house.await_start(handle)
    node.kill()
    (house.folder / "no_jobs.py").write_text("")
    stranger = house.start(imports=("no_jobs",)).await_start()
    until(lambda: "took over 1 job" in stranger.log, "the stranger rescues")
    assert handle.record().state in (State.PENDING, State.PROCESSING, State.BLOCKED)
    house.open_gate("open")
    house.start()
    assert handle.wait(40).state is State.COMPLETED
