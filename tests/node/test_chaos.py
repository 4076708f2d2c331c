"""Workers and whole nodes are killed at random while thousands of jobs run: none is lost, none starts twice unasked.

What the jobs say of their starts lies outside of the database, so that the database cannot vouch for itself. The seed
is printed: ``TASKQUEUE_TEST_SEED=... pytest tests/node/test_chaos.py`` repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from uuid import UUID

import pytest

from taskqueue import QueueManager
from tests.node.running import House, Line, RunningNode, job, until

PATIENCE = 90.0


class Storm:
    """Kills at random, and remembers whom."""

    def __init__(self, house: House, jobs: int) -> None:
        self.seed = int(os.environ.get("TASKQUEUE_TEST_SEED", time.time_ns() % 1_000_000))
        print(f"seed {self.seed}")  # noqa: T201 - a failure shows it
        self.random = random.Random(self.seed)
        self.house = house
        self.killed: set[int] = set()
        self.jobs = [
            job_id
            for _ in range(0, jobs, 5000)
            for job_id in house.manager.push_many([job("Brief") for _ in range(min(5000, jobs))])
        ]

    def kill_a_worker(self, node: RunningNode) -> None:
        workers = node.workers
        if workers:
            pid = self.random.choice(workers)
            self.killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    def kill_a_node(self, node: RunningNode) -> None:
        self.killed.update(node.tree)
        node.kill()
        self.killed.update(line.pid for line in self.starts())

    def finished(self) -> int:
        ((number,),) = self.house.rows("SELECT COUNT(*) FROM tq_history")
        return int(number)

    def starts(self) -> list[Line]:
        return [line for line in self.house.lines if line.what == "start"]


BRIEF = '''
import os
import struct
import time

from taskqueue import Job

FILE = os.open(os.environ["TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Brief(Job):
    """Takes a millisecond and leaves one line outside of the database, by one write."""

    name = "Brief"

    def handle(self):
        line = '{"job":"%s","lease":%d,"pid":%d,"what":"start","attempt":%d,"at":%r}\\n'
        os.write(FILE, (line % (self.id, self.fencing_token, os.getpid(), self.attempt, time.monotonic())).encode())
        time.sleep(0.001)
'''


@pytest.fixture
def chaotic(house: House) -> House:
    (house.folder / "brief_jobs.py").write_text(BRIEF)
    return house


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def assert_all_is_well(storm: Storm) -> None:
    """Check the invariants, each exact."""
    house, jobs = storm.house, storm.jobs
    starts: dict[UUID, list[Line]] = defaultdict(list)
    for line in storm.starts():
        starts[line.job].append(line)
    history = {
        UUID(bytes=row[0]): row[1:]
        for row in house.rows("SELECT id, state, lease, attempt, crashes, losses, reason FROM tq_history")
    }
    assert set(starts) == set(jobs), "every job has started"
    assert set(history) == set(jobs), "every job is in history, once"
    assert house.rows("SELECT COUNT(*) FROM tq_jobs") == [(0,)], "none is left"
    twice = Counter((line.job, line.lease) for lines in starts.values() for line in lines)
    assert max(twice.values()) == 1, "no (job, lease) has started twice"
    innocent = [
        line for lines in starts.values() for line in sorted(lines, key=_lease)[:-1] if line.pid not in storm.killed
    ]
    assert innocent == [], "a job starts again only if it was on a worker that was killed"
    for job_id, (state, lease, attempt, crashes, losses, reason) in history.items():
        lines = starts[job_id]
        assert (state, reason, attempt) == (4, None, 1), "every job has completed, at its first attempt"
        assert max(map(_lease, lines)) == lease, "the last start is the one that counted"
        assert crashes + losses <= lease - 1, "each crash and loss has cost a lease"
    ((charged,),) = house.rows("SELECT COUNT(*) FROM tq_attempts")
    ((crashes_and_losses,),) = house.rows("SELECT SUM(crashes) + SUM(losses) FROM tq_history")
    assert charged == crashes_and_losses, "each crash and loss has left its row"
    assert house.rows("SELECT state, SUM(jobs) FROM tq_counters GROUP BY state") == [(4, len(jobs))]
    assert house.rows("SELECT SUM(completed), SUM(failed) FROM tq_rollups") == [(len(jobs), 0)]


def _lease(line: Line) -> int:
    return line.lease


@pytest.mark.slow
@pytest.mark.any_database
def test_forty_killed_workers_lose_no_job_and_start_none_twice(chaotic: House) -> None:
    kill_workers(chaotic, jobs=20_000, kills=40)


@pytest.mark.slow
def test_twelve_killed_workers_lose_no_job_and_start_none_twice(chaotic: House) -> None:
    kill_workers(chaotic, jobs=8_000, kills=12)


def kill_workers(chaotic: House, jobs: int, kills: int) -> None:
    storm = Storm(chaotic, jobs)
    node = chaotic.start(
        4, imports=("brief_jobs",), stop_when_empty=True, max_jobs=5000, crashed_again_delay=0.5,
        general={"log_level": "warning"},
    )  # fmt: skip
    node.await_workers(4)
    while len(storm.killed) < kills and storm.finished() < 0.9 * jobs:
        pause(storm.random.uniform(0.02, 0.2))
        storm.kill_a_worker(node)
    assert node.process.wait(PATIENCE) == 0, node.log
    assert len(storm.killed) == kills, f"the jobs were done after {len(storm.killed)} kills: make them longer"
    assert_all_is_well(storm)


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "kills"), [(6_000, 2)])
def test_a_node_killed_twice_loses_no_job_and_starts_none_twice(chaotic: House, jobs: int, kills: int) -> None:
    storm = Storm(chaotic, jobs)
    for number in range(kills):
        # No worker is recycled, so that every one that has run a job is alive when its node is killed.
        node = chaotic.start(4, imports=("brief_jobs",), max_jobs=10 * jobs, general={"log_level": "warning"})
        share = (number + 1) / (kills + 1) * jobs
        until(lambda share=share: storm.finished() >= share, "a share of the jobs is done", PATIENCE)  # type: ignore[misc]
        storm.kill_a_node(node)
    node = chaotic.start(4, imports=("brief_jobs",), stop_when_empty=True, general={"log_level": "warning"})
    assert node.process.wait(PATIENCE) == 0, node.log
    assert_all_is_well(storm)


@pytest.mark.slow
def test_pushes_go_on_while_workers_are_killed(chaotic: House) -> None:
    storm = Storm(chaotic, 0)
    node = chaotic.start(2, imports=("brief_jobs",), crashed_again_delay=0.5, general={"log_level": "warning"})
    node.await_workers(2)
    pushed: list[UUID] = []

    def push() -> None:
        with QueueManager(chaotic.url, encryption_key=chaotic.key) as manager:
            pushed.extend(manager.push(job("Brief")).id for _ in range(400))

    pushers = [threading.Thread(target=push) for _ in range(2)]
    for each in pushers:
        each.start()
    while any(each.is_alive() for each in pushers):
        pause(0.1)
        storm.kill_a_worker(node)
    storm.jobs = pushed
    until(lambda: storm.finished() == 800, "all jobs are done", PATIENCE)
    assert node.stop() == 0
    assert_all_is_well(storm)
