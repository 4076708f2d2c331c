"""Several processes on one database: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from taskqueue.drivers import open_driver
from taskqueue.drivers.values import JobFilter
from taskqueue.states import State
from tests.drivers.world import World

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_four_processes_share_five_thousand_jobs_and_run_each_exactly_once(world: World, url: str) -> None:
    jobs = [world.job(queue=f"q{number % 3}", rank=number % 2) for number in range(5000)]
    world.driver.push_many(jobs)
    processes = [start("claiming_process.py", url, "20") for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    outputs: list[str] = []
    readers = [
        threading.Thread(target=lambda each=each: outputs.append(each.communicate("go\n", 60)[0])) for each in processes
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    claims = [line.split() for output in outputs for line in output.splitlines()]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert sorted(claim[0] for claim in claims) == sorted(job.id.hex() for job in jobs)
    assert {claim[1] for claim in claims} == {"1"}
    assert world.driver.count(JobFilter(states=[State.COMPLETED])) == 5000
    assert world.counts_are_exact()


def test_what_a_killed_process_has_pushed_is_there(world: World, url: str) -> None:
    process = start("pushing_process.py", url)
    assert process.stdout is not None
    pushed = [process.stdout.readline().strip() for _ in range(200)]
    process.kill()
    pushed += [line for line in process.communicate()[0].split() if len(line) == 32]

    stored = {row.id.hex() for row in world.everything()}

    assert set(pushed) <= stored
    assert len(stored) - len(pushed) <= 1


def test_threads_of_one_process_push_and_claim_at_once(world: World, url: str, node: int) -> None:
    driver = open_driver(url)
    lanes = [driver.lanes(None) for _ in range(3)]
    taken: list[bytes] = []
    pushed = threading.Event()
    faults: list[BaseException] = []

    def push() -> None:
        for _ in range(100):
            driver.push(world.job())

    def claim(number: int) -> None:
        while True:
            over = pushed.is_set()
            claimed = driver.cycle(node, (), (), lanes[number], 5).claimed
            taken.extend(job.id for job in claimed)
            if over and not claimed:
                return

    def noting(work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as fault:
            faults.append(fault)

    pushers = [threading.Thread(target=noting, args=(push,)) for _ in range(3)]
    claimers = [threading.Thread(target=noting, args=(claim, number)) for number in range(3)]
    for thread in pushers + claimers:
        thread.start()
    for thread in pushers:
        thread.join()
    pushed.set()
    for thread in claimers:
        thread.join()
    driver.close()

    assert faults == []
    assert len(taken) == len(set(taken)) == 300


def test_a_closed_driver_opens_again_when_it_is_used(world: World) -> None:
    job_id = world.push()
    world.driver.close()

    assert world.state(job_id) is State.PENDING
