"""Processes that push children while others end their parents: nobody is left waiting for a parent that is gone."""

from __future__ import annotations

import threading
from subprocess import Popen

import pytest

from taskqueue.drivers.values import PARENT_FAILURE_CODES
from taskqueue.states import ParentFailure, Reason, State
from tests.drivers.test_dependencies import nothing_hangs
from tests.drivers.test_processes import start
from tests.drivers.world import World

JOBS = 1000
PUSHERS, FINISHERS = 3, 4
BAD = {State.FAILED, State.CANCELLED}
FAIL, CANCEL, RUN, WAIT = (PARENT_FAILURE_CODES[each] for each in ParentFailure)


@pytest.mark.slow
def test_children_pushed_while_their_parents_end_are_neither_stuck_nor_started_too_early(
    world: World, url: str
) -> None:
    families = race(url, JOBS)

    rows = {row.id: row for row in world.everything()}
    assert len(rows) == len(families) == JOBS
    states = {job_id: row.state for job_id, row in rows.items()}
    open_parents = world.driver.parents(list(rows))
    assert {state for state in states.values() if not state.final} <= {State.BLOCKED}
    for child, (policy, parents) in families.items():
        ends = {states[parent] for parent in parents}
        if states[child] is State.BLOCKED:
            awaited = {states[parent] for parent in open_parents[child]}
            assert awaited
            assert awaited <= (BAD | {State.BLOCKED} if policy == WAIT else {State.BLOCKED})
        elif states[child] is State.COMPLETED and policy != RUN:
            assert ends <= {State.COMPLETED}
        elif rows[child].reason is Reason.DEPENDENCY_FAILED:
            assert policy == FAIL
            assert ends & BAD
        else:
            assert not (ends & {State.PENDING, State.PROCESSING, State.DELAYED})
    assert nothing_hangs(world)


def race(url: str, jobs: int) -> dict[bytes, tuple[int, list[bytes]]]:
    """Let processes push and end a random graph of jobs, and return each job's policy and parents."""
    shares = [jobs // PUSHERS + (number < jobs % PUSHERS) for number in range(PUSHERS)]
    pushers = [start("family_process.py", "push", url, str(n), str(share)) for n, share in enumerate(shares)]
    finishers = [start("family_process.py", "finish", url, str(PUSHERS + number)) for number in range(FINISHERS)]
    for process in (*pushers, *finishers):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    pushed = ended(pushers)
    ended(finishers)
    assert [process.returncode for process in (*pushers, *finishers)] == [0] * (PUSHERS + FINISHERS)
    found = [line.split() for output in pushed for line in output.splitlines()]
    return {bytes.fromhex(job): (int(policy), [bytes.fromhex(each) for each in above]) for job, policy, *above in found}


def ended(processes: list[Popen[str]]) -> list[str]:
    """Tell processes to go, or to stop, and return what they printed until they ended."""
    outputs: list[str] = []
    readers = [
        threading.Thread(target=lambda each=each: outputs.append(each.communicate("go\n", 120)[0]))
        for each in processes
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return outputs
