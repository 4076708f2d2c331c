"""G3: with ``delivery="at_most_once"`` the start is on record before the handler begins, and there is no second one.

Of the flush of that record: tests/drivers/sqlite/test_files.py (`test_a_recorded_start_is_flushed_...`).
"""

from __future__ import annotations

import os
import signal

import pytest

from taskqueue import JobHandle, Reason, State
from tests.node.running import House, until


def push_once(house: House, gate: str) -> JobHandle:
    return house.push("Once", {"gate": gate}, delivery="at_most_once", max_attempts=1)


def test_its_start_is_on_record_before_its_handler_runs(house: House) -> None:
    handle = push_once(house, "open")
    house.start()
    house.await_start(handle)
    assert house.rows("SELECT start_recorded FROM tq_jobs") == [(1,)]
    house.open_gate("open")
    assert handle.wait(20).state is State.COMPLETED


@pytest.mark.parametrize("victim", ["worker", "template", "node"])
def test_whoever_is_killed_under_it_it_fails_as_lost_and_never_starts_again(house: House, victim: str) -> None:
    handle = push_once(house, "never")
    node = house.start()
    line = house.await_start(handle)
    if victim == "node":
        node.kill()
        house.start()
    else:
        os.kill(line.pid if victim == "worker" else node.template, signal.SIGKILL)
    record = handle.wait(30)
    house.push("Quick").wait(30)
    assert (record.state, record.reason) == (State.FAILED, Reason.LOST)
    assert len(house.started(handle)) == 1


def test_one_that_was_claimed_and_had_not_begun_runs_elsewhere(house: House) -> None:
    handle = push_once(house, "open")
    node = house.start().await_start()
    house.await_start(handle)
    waiting = push_once(house, "open")
    node.kill()
    house.open_gate("open")
    house.start()
    assert waiting.wait(30).state is State.COMPLETED
    assert len(house.started(waiting)) == 1


def test_a_stop_with_a_deadline_ends_it_as_lost(house: House) -> None:
    handle = push_once(house, "never")
    node = house.start(grace=0.2)
    house.await_start(handle)
    assert node.stop() == 0
    assert until(lambda: handle.record().reason, "it has ended") is Reason.LOST
