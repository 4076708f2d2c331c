"""Workers are replaced at their limits, without a gap and without a loss."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from taskqueue import State
from tests.node.running import House, job, until

pytestmark = pytest.mark.any_database


@pytest.mark.parametrize(("most", "jobs"), [(1, 8), (7, 60), (40, 200)])
def test_no_worker_runs_more_jobs_than_its_limit(house: House, most: int, jobs: int) -> None:
    handles = house.manager.push_many([job("Quick") for _ in range(jobs)])
    house.work_until_empty(max_jobs=most)
    runs = Counter(line.pid for line in house.started())
    assert max(runs.values()) <= most
    assert len(runs) >= jobs / most
    assert sorted(line.job for line in house.started()) == sorted(handles)


def test_the_replacement_stands_ready_before_the_old_worker_leaves(house: House) -> None:
    house.manager.push_many([job("Quick", {"sleep": 0.01}) for _ in range(60)])
    node = house.start(max_jobs=20)
    (first,) = node.await_workers(1)
    until(lambda: len(node.workers) == 2 and first in node.workers, "two workers run side by side")
    until(lambda: first not in node.workers, "the old one has left")
    assert node.stop() == 0


def test_a_worker_is_replaced_at_the_end_of_its_life_after_the_job_that_it_runs(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"})
    node = house.start(timeout=1)
    line = house.await_start(handle)
    until(lambda: len(node.workers) == 2, "the replacement stands ready")
    later = house.push("Quick")
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED
    later.wait(20)
    until(lambda: line.pid not in node.workers, "the old worker has left")
    assert house.started(later)[0].pid != line.pid
    assert len(house.started(handle)) == 1


def test_a_worker_above_its_memory_is_replaced_after_its_job(house: House) -> None:
    handle = house.push("Hungry", {"megabytes": 80})
    node = house.start(memory="60MB")
    line = house.await_start(handle)
    record = handle.wait(20)
    until(lambda: line.pid not in node.workers, "the large worker has left")
    assert (record.state, record.crashes) == (State.COMPLETED, 0)
    after = house.push("Quick")
    after.wait(20)
    assert house.started(after)[0].pid != line.pid


def test_a_memory_limit_below_the_start_of_a_worker_is_refused_with_the_two_numbers(house: House) -> None:
    (house.folder / "large_jobs.py").write_text(
        "import os, atexit\n"
        "kept = []\n"
        "os.register_at_fork(after_in_child=lambda: kept.append(bytearray(os.urandom(1024)) * (20 * 1024)))\n"
    )
    node = house.start(imports=("large_jobs",), memory="5MB")
    assert node.end() == 78
    assert "raise --memory" in node.log
    assert "the limit is 5 MB" in node.log


def test_with_one_worker_no_two_jobs_run_at_once_while_it_is_replaced(house: House) -> None:
    """People take one worker for a bound on memory, or for a lock; its replacement stands ready and waits."""
    handle = house.push("Gated", {"gate": "open"})
    node = house.start(max_jobs=1)
    old = house.await_start(handle).pid
    node.await_workers(2)
    later = house.push("Quick")
    house.push("Quick", queue="elsewhere")
    until(lambda: house.manager.get_job(later.id).state is not State.DELAYED, "the later job is there")
    assert house.started(later) == []
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED
    assert later.wait(20).state is State.COMPLETED
    assert house.started(later)[0].pid != old


def test_a_replacement_that_dies_while_it_waits_is_replaced_itself(house: House) -> None:
    handle = house.push("Gated", {"gate": "open"})
    node = house.start(max_jobs=1)
    old = house.await_start(handle).pid
    (successor,) = {*node.await_workers(2)} - {old}
    os.kill(successor, signal.SIGKILL)
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED
    assert house.push("Quick").wait(20).state is State.COMPLETED


def test_after_many_replacements_the_pool_has_its_size(house: House) -> None:
    node = house.start(2, max_jobs=5)
    house.manager.wait_for(house.manager.push_many([job("Quick") for _ in range(200)]), 60)
    node.await_workers(2)
    assert node.stop() == 0
