"""A set of jobs outlives the node that began it: other processes finish it, on each database."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from taskqueue import QueueManager, State
from tests.node.running import House, job, until

JOBS = 300


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_set_of_jobs_half_worked_by_a_node_that_ends_is_finished_by_another(house: House, number: int) -> None:
    ids = house.manager.push_many([job("Quick", {"answer": each, "sleep": 0.004}) for each in range(JOBS)])
    house.manager.disconnect()  # Nothing is left of whoever pushed.

    first = house.start(2)
    until(lambda: len(house.started()) >= JOBS // 3, "a part of the jobs has run")
    if number == signal.SIGKILL:
        first.kill()
    else:
        assert first.stop() == 0
    begun = len(house.started())
    assert begun < JOBS, "the node was ended before it was done"

    began = time.monotonic()
    house.work_until_empty(2)
    assert time.monotonic() - began < 20

    with QueueManager(house.url, encryption_key=house.key) as reader:
        records = {record.id: record for record in reader.get_jobs(limit=JOBS + 1)}
        assert Counter(record.state for record in records.values()) == {State.COMPLETED: JOBS}
        assert [records[each].result for each in ids] == list(range(JOBS))
        assert {record.attempt for record in records.values()} == {1}
        assert reader.get_queue_stats()["default"]["by_state"][State.COMPLETED] == JOBS
    house.assert_no_start_twice()
    starts = Counter(line.job for line in house.started())
    assert set(starts) == set(ids)
    if number == signal.SIGTERM:
        assert set(starts.values()) == {1}, "a clean stop runs nothing twice"
